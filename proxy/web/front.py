"""A client's connection as the listener makes it: plain requests of the data path are read and answered here.

Owns: reading such requests from bytes, one after another, and which are plain; when an idle connection ends.
Knows nothing of: what a request gets, every other path, every other kind of HTTP.

Theory of operation. aiohttp's server makes two tasks, a stream, a URL and half a dozen objects of every request; for a
forwarded kilobyte that is most of the work. So the bytes of a connection come here first. A request is *plain* when it
is HTTP/1.1 for the data path, or a heartbeat, with one Host, a head within the limit, and a body that is short and
needs no interim answer. It is collected, served by one task, and answered with bytes. The first request that is
anything else, and everything that this parser refuses, hands the whole connection to aiohttp for good: its handler is
given the bytes from the start of that request on, and sees what it would have seen without us. So what is odd, long or
wrong has one reader, and this one only ever serves what it has read completely and without a complaint.

    reading ──complete, plain──> serving ──answered──> reading, or closed
       │  └──silent too long──> closed
       └──not plain, refused, or more than one at a time──> aiohttp's, for good

What a client sends while it is served waits, unread, behind it. `on_gone` tells the call that its client has left.

A client's requests over one connection mostly differ in their bodies only. So the fields of a head, and everything that
was made of them (who calls, what is sent on), are kept until a head with other fields comes.
"""

import asyncio
from collections.abc import Callable
from typing import Protocol

import httptools
from aiohttp import ClientConnectionResetError
from aiohttp.base_protocol import BaseProtocol
from aiohttp.tcp_helpers import tcp_keepalive

from proxy.web.arrived import Arrived, Fields
from proxy.web.heartbeats import heartbeat_of
from proxy.web.places import Places

SHORT_BODY = 262144
"""Bytes of a body that is collected here. Longer ones are aiohttp's, which lets them in as they are read."""

MOST_FIELDS = 128
"""Header fields that aiohttp takes as well."""

MOST_FRAMING = 65536
"""Bytes beside head and body that are collected here: of chunk sizes, their extensions, and trailers."""

KEEP_ALIVE = 75.0
"""Seconds of silence after which a connection that waits for a request, or for the rest of one, is closed."""


_LENGTH_OF_LENGTH = len(b"content-length")  # cheaper to ask for than lowering every name


class Floor(Protocol):
    """What a connection needs of the server."""

    head_limit: int
    body_limit: int

    places: Places

    async def serve(self, arrived: Arrived, workspace_id: str, tail: str) -> bool:
        """Serve a request, answer it; whether the connection may go on."""

    def take_over(self) -> asyncio.Protocol:
        """A handler of aiohttp's for a connection."""

    def opened(self, front: "Front") -> None:
        """A connection is here."""

    def left(self, front: "Front") -> None:
        """A connection has ended, or is aiohttp's now."""


class Front(BaseProtocol):
    """One client's connection (`web.arrived.Client`)."""

    on_gone: Callable[[], None] | None = None

    def __init__(self, floor: Floor, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.remote: str | None = None
        self.task: asyncio.Task[None] | None = None
        self._floor = floor
        self._closing = False
        self._secure = False
        self._heard_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._reader: httptools.HttpRequestParser | None = httptools.HttpRequestParser(self)
        self._ahead: list[bytes] = []
        self._fields: Fields | None = None  # of the latest request
        self._listed: list[tuple[bytes, bytes]] = []
        self._reset()

    def _reset(self) -> None:
        self._came: list[bytes] = []
        self._size = 0
        self._target = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._body: list[bytes] = []
        self._body_size = 0
        self._place: tuple[str, str] | None = None
        self._plain = True
        self._keep_alive = True
        self._read = False  # the whole request

    # Called by the loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection."""
        super().connection_made(transport)
        if self.transport is not None:
            tcp_keepalive(self.transport)
            peer = self.transport.get_extra_info("peername")
            self.remote = str(peer[0]) if isinstance(peer, tuple | list) and peer else None
            self._secure = self.transport.get_extra_info("sslcontext") is not None
        self._heard_at = self._loop.time()
        self._timer = self._loop.call_at(self._heard_at + KEEP_ALIVE, self._look)
        self._floor.opened(self)

    def data_received(self, data: bytes) -> None:
        """Read on, unless a request is being served."""
        if self.task is not None:
            if not self._ahead and self.transport is not None:
                self.transport.pause_reading()
            self._ahead.append(data)
            return
        if self._closing or self._reader is None:
            return
        self._heard_at = self._loop.time()
        self._came.append(data)
        self._size += len(data)
        try:
            self._reader.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._plain = False
        if not self._plain or (self._size > self._floor.head_limit and self._is_too_much()):
            self._hand_over()
        elif self._read:
            self._serve_it()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Forget everything, and tell the call that is open."""
        super().connection_lost(exc)
        self._leave()
        if self.on_gone is not None:
            self.on_gone()

    # Called by the parser

    def on_message_begin(self) -> None:
        """Notice a second request behind the first."""
        if self._read:
            self._plain = False

    def on_url(self, url: bytes) -> None:
        """Collect the target, which may come in pieces."""
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect a field, but not the one that differs with every body; trailers are read over."""
        if self._place is None and not (len(name) == _LENGTH_OF_LENGTH and name.lower() == b"content-length"):
            self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Decide whether the request is plain."""
        reader = self._reader
        if reader is None or self._read or not self._plain:
            self._plain = False
            return
        if self._fields is None or self._headers != self._listed:
            self._fields, self._listed = Fields(tuple(self._headers)), self._headers
            self._plain = _are_plain(self._fields)
        if self._size > self._floor.head_limit:
            length = sum(len(name) + len(value) for name, value in self._headers)
            self._plain = self._plain and length + len(self._target) <= self._floor.head_limit
        target = self._target.decode("utf-8", "surrogateescape")
        places = self._floor.places
        place = places.find(target, self._fields.first(b"host") if places.named else None)
        place = place or heartbeat_of(reader.get_method().decode("ascii"), target)
        if not self._plain or place is None or reader.get_http_version() != "1.1" or reader.should_upgrade():
            self._plain = False
        else:
            self._place = place
            self._keep_alive = reader.should_keep_alive()  # the parser forgets it with the request's end

    def on_body(self, data: bytes) -> None:
        """Collect a piece of the body."""
        self._body.append(data)
        self._body_size += len(data)
        if self._body_size > SHORT_BODY or self._body_size > self._floor.body_limit:
            self._plain = False

    def on_message_complete(self) -> None:
        """Note the end; it is acted upon when everything that came with it is parsed."""
        self._read = True

    def _is_too_much(self) -> bool:
        """More came than a head, or than a head and a body with its framing: a chunked request need not have much."""
        return self._place is None or self._size - self._body_size > self._floor.head_limit + MOST_FRAMING

    # Serving

    def _serve_it(self) -> None:
        reader, place, fields = self._reader, self._place, self._fields
        if reader is None or place is None or fields is None:
            raise RuntimeError("a request was read whole and has no place")
        body = self._body
        arrived = Arrived(
            self,
            method=reader.get_method().decode("ascii"),
            target=self._target.decode("utf-8", "surrogateescape"),
            headers=fields,
            body=body[0] if len(body) == 1 else b"".join(body),
            keep_alive=self._keep_alive and not self._closing,
            secure=self._secure,
        )
        self._reset()
        self.task = self._loop.create_task(self._serve(arrived, *place))

    async def _serve(self, arrived: Arrived, workspace_id: str, tail: str) -> None:
        go_on = False
        try:
            go_on = await self._floor.serve(arrived, workspace_id, tail)
            if self._paused:
                await self._drain_helper()
        except ConnectionError:
            go_on = False  # the client has left
        finally:
            self.task = None
            self._turn(go_on=go_on)

    def _turn(self, *, go_on: bool) -> None:
        """A request has been answered: go on to the next, or close."""
        transport = self.transport
        if transport is None or transport.is_closing():
            return
        if not go_on or self._closing:
            transport.close()
            return
        self._heard_at = self._loop.time()
        if self._ahead:
            ahead, self._ahead = b"".join(self._ahead), []
            transport.resume_reading()
            self.data_received(ahead)

    def _hand_over(self) -> None:
        """Let aiohttp have the connection, from the start of the request that is being read."""
        transport, came = self.transport, b"".join(self._came)
        self._leave()
        if transport is None or transport.is_closing():
            return
        self.transport = None
        handler = self._floor.take_over()
        transport.set_protocol(handler)
        handler.connection_made(transport)
        if self._paused:
            handler.pause_writing()
        handler.data_received(came)

    def _leave(self) -> None:
        self._reader = None  # it holds our methods: a cycle
        self._came = []
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._floor.left(self)

    def _look(self) -> None:
        """Close a connection that has been silent for too long while it was its client's turn."""
        now = self._loop.time()
        quiet_until = self._heard_at + KEEP_ALIVE
        if self.task is not None:
            self._timer = self._loop.call_at(now + KEEP_ALIVE, self._look)
        elif now < quiet_until:
            self._timer = self._loop.call_at(quiet_until, self._look)
        else:
            self._timer = None
            self.hang_up()

    # For the server

    def finish(self) -> None:
        """Serve no further request: close now, or after the answer that is under way."""
        self._closing = True
        if self.task is None:
            self.hang_up()

    # For a call (see `Client`)

    def write(self, data: bytes) -> None:
        """See `Client`."""
        transport = self.transport
        if transport is None or transport.is_closing():
            raise ClientConnectionResetError("the client has left")
        transport.write(data)

    async def drain(self) -> None:
        """See `Client`."""
        await self._drain_helper()

    def hang_up(self) -> None:
        """See `Client`."""
        if self.transport is not None:
            self.transport.close()


def _are_plain(fields: Fields) -> bool:
    """The fields leave no question of who is meant or where the body ends, and ask for nothing in between."""
    coding = fields.first(b"transfer-encoding")
    return (
        len(fields.raw) <= MOST_FIELDS
        and fields.first(b"host") is not None
        and fields.first(b"expect") is None
        and (coding is None or coding.lower() == "chunked")
        and not (fields.repeated and (fields.number(b"host") > 1 or fields.number(b"transfer-encoding") > 1))
    )
