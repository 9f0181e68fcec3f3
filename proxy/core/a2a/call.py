"""Owns the words a call is described with: binding, version, operation, and the record of one call.

Knows nothing of how a request is read (`reading`) or answered (`tasks`, `failures`).
"""

from enum import StrEnum
from typing import Final

from msgspec import Struct

NO_ID: Final = b"null"


class Binding(StrEnum):
    """How A2A travels over HTTP (A2A v1.0 sections 9 and 11)."""

    JSONRPC = "jsonrpc"
    REST = "rest"
    OTHER = "other"  # not A2A


class Version(StrEnum):
    """The two generations of wire shapes. Patch versions never change shapes."""

    V03 = "0.3"
    V10 = "1.0"


class Operation(StrEnum):
    """What a call asks for, whatever its binding and version call it."""

    SEND = "send"
    STREAM = "stream"
    GET = "get"
    LIST = "list"
    CANCEL = "cancel"
    SUBSCRIBE = "subscribe"
    PUSH_SET = "push_set"
    PUSH_GET = "push_get"
    PUSH_LIST = "push_list"
    PUSH_DELETE = "push_delete"
    EXTENDED_CARD = "extended_card"
    CARD = "card"  # GET of the well-known agent card; it belongs to no binding
    UNKNOWN = "unknown"  # a JSON-RPC method nobody knows, or not A2A at all


SENDS: Final = frozenset({Operation.SEND, Operation.STREAM})
STREAMS: Final = frozenset({Operation.STREAM, Operation.SUBSCRIBE})


class Call(Struct, frozen=True, kw_only=True, gc=False):
    """What one request says, as far as a proxy must know.

    One is made for every request that passes, and a frozen dataclass of this width takes ten times as long to make
    (5 us against 0.5); otherwise this is the same: frozen, slotted, by keyword. Copy with `msgspec.structs.replace`.

    `rpc_id` is the caller's JSON-RPC id as raw JSON, so that an answer carries it back unchanged, type included.
    `task_id` is `message.taskId` of a send, else the task addressed. `context_id` is the message's, or a list's filter.
    `blocking`: the caller waits for the task's end (v1.0 `returnImmediately` false or absent, v0.3 `blocking` true or
    absent; over REST a `configuration` without it says false, as ProtoJSON has it). `deferrable`: it may be put away
    and sent later; `streaming`: it wants an event stream.
    `history_length` is the caller's wish (A2A v1.0 section 3.2.4): None = the server's choice, 0 = no history.
    `body` is a reference to the request's bytes, not a copy.
    """

    binding: Binding
    version: Version
    operation: Operation
    rpc_method: str = ""
    rpc_id: bytes = NO_ID
    message_id: str | None = None
    context_id: str | None = None
    task_id: str | None = None
    reference_task_ids: tuple[str, ...] = ()
    blocking: bool = True
    has_push_config: bool = False
    history_length: int | None = None
    deferrable: bool = False
    streaming: bool = False
    body: bytes = b""

    def __repr__(self) -> str:
        """Everything but the body: what callers say to agents does not belong into logs."""
        shown = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__struct_fields__ if name != "body")
        return f"Call({shown})"
