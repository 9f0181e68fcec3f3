"""One answer as its reader sees it: head, then body bytes as they come, then an end or a failure.

Owns: the bounded buffer between a connection and a reader, and who waits for what.
Knows nothing of: HTTP syntax, sockets, pooling; a `Source` feeds it.

Theory of operation. The source calls `begin`, `push`, `finish` or `break_off` from its callbacks; a single reader
awaits `head` and then the chunks. There is at most one waiting future. Everything that arrived is handed out before the
end or the failure is, in that order, so a broken answer still yields what came of it. When the reader lags, the source
is told to stop reading at `high_water` bytes and to go on once the buffer is empty; so a slow caller slows its agent
down instead of filling memory. The source lets go of the exchange at its end: an answer outlives its connection's use.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Protocol

from proxy.forward import Outcome, RawHeaders, UpstreamFailure


class Source(Protocol):
    """What feeds an exchange and can be slowed down or given up."""

    def hold(self) -> None:
        """Stop reading until `resume`."""

    def resume(self) -> None:
        """Read on."""

    def abandon(self) -> None:
        """Nobody wants the rest: close."""


class Exchange:
    """An `Answer` in the making. Before `head` returned only `abandon` may be called on it by the reader."""

    __slots__ = (
        "_body",
        "_buffered",
        "_ended",
        "_failure",
        "_high_water",
        "_source",
        "_waiter",
        "headers",
        "reason",
        "status",
    )

    def __init__(self, source: Source, high_water: int) -> None:
        self.status = 0
        self.reason = b""
        self.headers: RawHeaders = ()
        self._source: Source | None = source
        self._high_water = high_water
        self._body: list[bytes] = []
        self._buffered = 0
        self._ended = False
        self._failure: UpstreamFailure | None = None
        self._waiter: asyncio.Future[None] | None = None

    # Called by the source.

    @property
    def begun(self) -> bool:
        """Whether the head has come."""
        return self.status != 0

    def begin(self, status: int, reason: bytes, headers: RawHeaders) -> None:
        """Take the head."""
        self.status = status
        self.reason = reason
        self.headers = headers
        self._wake()

    def push(self, data: bytes) -> None:
        """Take a piece of the body."""
        self._body.append(data)
        self._buffered += len(data)
        if self._buffered >= self._high_water and self._source is not None:
            self._source.hold()
        self._wake()

    def finish(self) -> None:
        """Take the body's end."""
        self._ended = True
        self._source = None
        self._wake()

    def break_off(self, failure: UpstreamFailure) -> None:
        """Take the failure that stands where the head or the end should be."""
        self._failure = failure
        self._source = None
        self._wake()

    # Called by the reader.

    async def head(self) -> None:
        """Wait until the head is there, or raise what came instead."""
        if not self.status and self._failure is None:
            waiter = self._waiter = asyncio.get_running_loop().create_future()
            try:
                await waiter
            finally:
                self._waiter = None
        if not self.status and self._failure is not None:
            raise self._failure

    def chunks(self) -> AsyncIterator[bytes]:
        """See `Answer.chunks`; pieces that arrived together are given together."""
        return self

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        while not self._body:
            if self._ended:
                raise StopAsyncIteration
            if self._failure is not None:
                raise self._failure
            await self._wait()
        pieces, self._body = self._body, []
        if self._buffered >= self._high_water and self._source is not None:
            self._source.resume()
        self._buffered = 0
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def read(self, limit: int) -> bytes:
        """See `Answer.read`."""
        pieces = self._body
        if self._ended and (not limit or self._buffered <= limit):
            self._body = []
            return pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces = []
        size = 0
        async for piece in self:
            size += len(piece)
            if limit and size > limit:
                self.abandon()
                raise UpstreamFailure(Outcome.LOST, "too_large", f"the answer's body is larger than {limit} bytes")
            pieces.append(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def abandon(self) -> None:
        """Want no more of it."""
        source, self._source = self._source, None
        self._body.clear()
        if not self._ended and self._failure is None:
            self._failure = UpstreamFailure(Outcome.LOST, "closed", "the answer was closed by its reader")
        if source is not None:
            source.abandon()
        self._wake()

    async def aclose(self) -> None:
        """See `Answer.aclose`."""
        self.abandon()

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def _wait(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None
