"""A request as it is stored: its credentials apart, what it says, and the tasks that its caller is shown meanwhile.

Owns: which headers are credentials, reading a stored request again, the task of one that Holdfast ends or queues anew.
Knows nothing of: when a request is put away, stores, routes.
"""

from datetime import datetime

import msgspec

from proxy.core import a2a
from proxy.core.deferral import Deferral, RawHeaders, StoredTask

REDRIVEN_TEXT = "The request was given up; an operator had it queued again."
CREDENTIALS = frozenset({b"authorization", b"cookie", b"x-api-key", b"api-key", b"proxy-authorization"})
"""Headers that are sealed: the usual ones; a card's own security schemes name more."""


def stored_call(deferral: Deferral) -> a2a.Call:
    """What a stored request says; MalformedBody for one that could not be read."""
    request = deferral.request
    headers = {name.lower(): value.decode("latin-1") for name, value in request.headers}
    return a2a.read(
        request.method, request.tail, headers.get(b"a2a-version"), headers.get(b"content-type"), request.body
    )


def ended_task(deferral: Deferral, state: str, text: str, at: datetime) -> StoredTask | None:
    """The task of a deferral that Holdfast ends itself, and why; None where it has none."""
    if deferral.task_id is None or deferral.context_id is None:
        return None
    version, known = a2a.Version(deferral.protocol), deferral.task
    said = a2a.ended_task(
        known.json if known is not None else b"{}",
        version if known is None else a2a.Version(known.version),
        task_id=deferral.task_id,
        context_id=deferral.context_id,
        state=state,
        text=text,
        at=at,
    )
    return StoredTask(json=said, version=version.value if known is None else known.version, state=state)


def resubmitted_task(deferral: Deferral, at: datetime) -> StoredTask | None:
    """The task of a dead letter that is queued again: submitted, as at first; None where it has none."""
    if deferral.task_id is None or deferral.context_id is None:
        return None
    call = stored_call(deferral)
    said = a2a.submitted_task(call, task_id=deferral.task_id, context_id=deferral.context_id, at=at, text=REDRIVEN_TEXT)
    return StoredTask(json=said, version=call.version.value, state="submitted")


def split_credentials(headers: RawHeaders, named: frozenset[bytes]) -> tuple[RawHeaders, RawHeaders]:
    """Return (credentials, the rest); `named` are the headers that the agent's card makes secret, in lower case."""
    names = CREDENTIALS | named
    secret = tuple(pair for pair in headers if pair[0].lower() in names)
    rest = tuple(pair for pair in headers if pair[0].lower() not in names)
    return secret, rest


def pack(headers: RawHeaders) -> bytes:
    """Headers as bytes."""
    return msgspec.msgpack.encode(headers)


def unpack(packed: bytes) -> RawHeaders:
    """The inverse of `pack`."""
    return msgspec.msgpack.decode(packed, type=tuple[tuple[bytes, bytes], ...])
