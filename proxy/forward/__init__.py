"""The contract of the data path's upstream side: one request goes out, one answer or one classed failure comes back.

Owns: the records that cross it (`UpstreamRequest`, `Pulse`), the failure with its outcome class, the two Protocols.
Knows nothing of: workspaces, verdicts, deferrals, A2A; and of how it is done (`forward.pool` does it over sockets,
simulations do it in memory).
"""

import asyncio
from collections.abc import AsyncIterator
from typing import NamedTuple, Protocol

from proxy.core.outcome import Outcome

RawHeaders = tuple[tuple[bytes, bytes], ...]
"""Header fields as on the wire: order, case and duplicates kept."""


class Pulse:
    """Somebody else's word that upstream is still at work: a workspace's heartbeats keep its silent calls open.

    One pulse serves any number of calls: `touch` costs one assignment, and a call looks at it only when its idle
    window would end. Times are those of the running loop (`loop.time()`, seconds).
    """

    __slots__ = ("touched_at",)

    def __init__(self) -> None:
        self.touched_at = float("-inf")

    def touch(self) -> None:
        """Begin the idle window of every open call with this pulse anew."""
        self.touched_at = asyncio.get_running_loop().time()


class UpstreamRequest(NamedTuple):
    """One request as it is to leave; a tuple, because one is made for every call and a dataclass costs four times that.

    Args:
        method: as the caller wrote it.
        url: absolute and already joined; everything after the authority goes out as it stands, query included.
        headers: end-to-end fields only (`forward.headers.end_to_end`); Host and Content-Length are made here.
        body: the whole body.
        connect_timeout: seconds for resolving, connecting and the TLS handshake together; 0 = no limit.
        idle_timeout: seconds without any byte from upstream; 0 = no limit.
        max_head_bytes: size of the answer's status line and headers (interim answers included); 0 = no limit.
        pulse: what else counts as activity; None = only bytes do.
        own_child: the URL is that of a process which Holdfast started itself, so it may be loopback.
        lines: the fields as they stand on the wire, where somebody has written them already
            (`forward.headers.request_lines`).
    """

    method: str
    url: str
    headers: RawHeaders = ()
    body: bytes = b""
    connect_timeout: float = 5.0
    idle_timeout: float = 1800.0
    max_head_bytes: int = 65536
    pulse: Pulse | None = None
    own_child: bool = False
    lines: bytes | None = None

    def __repr__(self) -> str:
        return f"UpstreamRequest(method={self.method!r})"  # everything else may hold a secret


class UpstreamFailure(Exception):  # noqa: N818 - a failed call is an expected outcome with a class, not an error of ours
    """An upstream call that brought no (whole) answer.

    Args:
        outcome: whether the request may have been delivered: `NOT_SENT` (no byte was written), `MAYBE` (bytes were
            written, no answer began), `LOST` (an answer's head came, then it broke). A gateway's status is an answer.
        reason: machine word. Not sent: `refused` `dns` `connect_timeout` `tls` `unreachable` `pool` `resources` (this
            process or host has run out of sockets, files or memory) `forbidden_address` `bad_request` (cannot be
            written as HTTP/1.1) `closed` (Holdfast is stopping) `reset` `eof`. Later: `reset` `eof` `idle_timeout`
            `bad_response` `too_large`, and `closed`.
        detail: one sentence for logs; it names host and port, never a path, query, header or body.
    """

    def __init__(self, outcome: Outcome, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason} ({outcome.value}): {detail}" if detail else f"{reason} ({outcome.value})")
        self.outcome = outcome
        self.reason = reason
        self.detail = detail


class Answer(Protocol):
    """An upstream's answer whose head has come; its body is read once, by `chunks` or by `read`.

    Whoever holds an answer closes it, on every path: an answer that is dropped half-read keeps its connection.
    """

    @property
    def status(self) -> int:
        """Final status (never 1xx)."""

    @property
    def reason(self) -> bytes:
        """Reason phrase, often empty."""

    @property
    def headers(self) -> RawHeaders:
        """Every header field as it came; see `forward.headers.answer_headers` for the way back."""

    def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body's bytes as they arrive (transfer coding removed, content coding untouched).

        Raises:
            UpstreamFailure: `LOST`, after everything that did arrive.
        """

    async def read(self, limit: int) -> bytes:
        """Collect the whole body.

        Raises:
            UpstreamFailure: `LOST`; with reason `too_large` beyond `limit` bytes (0 = no limit).
        """

    async def aclose(self) -> None:
        """Give the answer up: a body that has not ended costs the connection. Idempotent."""


class Forward(Protocol):
    """Sends requests upstream."""

    async def send(self, request: UpstreamRequest) -> Answer:
        """Send one request, once, and wait for the head of its answer. Redirects are answers.

        Cancelling closes the connection; nothing is ever sent twice.

        Raises:
            UpstreamFailure: `NOT_SENT` or `MAYBE`.
        """

    async def aclose(self) -> None:
        """End every call and close every connection."""


__all__ = ["Answer", "Forward", "Outcome", "Pulse", "RawHeaders", "UpstreamFailure", "UpstreamRequest"]
