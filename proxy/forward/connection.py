"""One upstream HTTP/1.1 connection: a request is written, an answer is parsed, again and again.

Owns: the wire of one connection: framing, the limits of a head, the idle window, whether it may be used once more.
Knows nothing of: how it was connected and to whom, pooling, retries (there are none), what an answer means.

Theory of operation. A connection is *idle*, *busy* (one exchange) or *closed*; `send` makes it busy, the end of the
answer makes it idle or closed, every failure closes it. Everything runs in callbacks of the loop's one thread.

- *Was anything sent?* `send` writes to a transport that is known to be open, so from then on a failure is `MAYBE`
  until the answer's head has come and `LOST` afterwards. The caller of `send` owns every failure before that.
- *Used once more?* Only when the whole request was written, the answer ended by its own framing, keep-alive was not
  declined, and not one byte too many came: whatever follows an answer would be taken for the next caller's answer.
  An idle connection that becomes readable, for data or for its end, is never used again; `fresh` looks once more at
  the socket itself, because a busy loop may not have read it yet.
- *Idle window.* One timer per connection, set only when none is due earlier, and moved only when it fires: it compares
  the last byte (or pulse) with the window, and ends the call or sleeps for what is left. While the reader holds the
  connection back, its silence is ours and does not count.
- *Answers without a length* end with the connection (RFC 9112 section 6.3). Only a clean end of stream is an end.
"""

import asyncio
import re
import select
from collections.abc import Callable
from typing import cast

import httptools

from proxy.forward import Outcome, Pulse, UpstreamFailure, UpstreamRequest
from proxy.forward.exchange import Exchange
from proxy.forward.headers import Kinds

_JOIN_BELOW = 65536  # a body up to here is copied behind its head: one system call instead of two
_FIRST_FINAL = 200
_HTTP_VERSIONS = frozenset({"1.0", "1.1"})
_BODILESS = frozenset({204, 304})
_LENGTH, _CODING, _KEEP_ALIVE = 1, 2, 3
_NAMED = {b"content-length": _LENGTH, b"transfer-encoding": _CODING, b"keep-alive": _KEEP_ALIVE}
_MEANT = Kinds(lambda name: _NAMED.get(name.lower(), 0))
_CONTROLS = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_KEEP_ALIVE_MARGIN = 1.0  # seconds before the peer's own limit


class Connection(asyncio.Protocol):
    """A connection to one address.

    Args:
        address: the checked address it was connected to.
        keepalive: seconds it may idle; the peer's `Keep-Alive: timeout=` shortens it.
        high_water: bytes of an answer that may wait for their reader.
    """

    def __init__(self, address: str, *, keepalive: float, high_water: int) -> None:
        self.address = address
        self.closed = False
        self.idle_until = 0.0
        self.on_idle: Callable[[Connection], None] | None = None
        self.on_closed: Callable[[Connection], None] | None = None
        self._keepalive = keepalive
        self._high_water = high_water
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport  # set before the loop calls anything else, and before the pool has us
        self._poll: select.poll | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._exchange: Exchange | None = None
        self._head_only = False
        self._head_limit = 0
        self._idle_timeout = 0.0
        self._pulse: Pulse | None = None
        self._held = False
        self._last_byte_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._reset_message()

    def _reset_message(self) -> None:
        self._reason = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._head_bytes = 0  # of the interim answers, as parsed
        self._fed = 0  # bytes since the start of the head, or since the last byte of a body
        self._interim = False
        self._in_body = False
        self._framed = False  # the answer says itself where it ends
        self._keep_alive = False
        self._peer_keepalive = self._keepalive
        self._finished = False
        self._surplus = False
        self._refused: tuple[str, str] | None = None

    # For the pool.

    def fresh(self, now: float) -> bool:
        """Say whether a request may be written to this idle connection."""
        if self.closed or now >= self.idle_until or self._transport.is_closing():
            return False
        return self._poll is None or not self._poll.poll(0)

    @property
    def open(self) -> bool:
        """Whether writing makes sense at all."""
        return not self.closed and not self._transport.is_closing()

    def send(self, request: UpstreamRequest, head: bytes) -> Exchange:
        """Write a request to an open connection that is not busy. From here on it may have been delivered."""
        exchange = Exchange(self, self._high_water)
        self._exchange = exchange
        self._head_only = request.method == "HEAD"
        self._head_limit = request.max_head_bytes
        self._idle_timeout = request.idle_timeout
        self._pulse = request.pulse
        self._last_byte_at = self._loop.time()
        if request.idle_timeout:
            self._watch_until(self._last_byte_at + request.idle_timeout)
        if len(request.body) <= _JOIN_BELOW:
            self._transport.write(head + request.body)
        else:
            self._transport.write(head)
            self._transport.write(request.body)
        return exchange

    def close(self, reason: str = "closed", detail: str = "the connection was closed by Holdfast") -> None:
        """Close at once; a call that is under way fails with `reason`."""
        self._fail(reason, detail)

    # For the exchange.

    def hold(self) -> None:
        """See `exchange.Source`."""
        if not self._held and self.open:
            self._held = True
            self._transport.pause_reading()

    def resume(self) -> None:
        """See `exchange.Source`."""
        if self._held:
            self._held = False
            self._last_byte_at = self._loop.time()
            if self.open:
                self._transport.resume_reading()

    def abandon(self) -> None:
        """See `exchange.Source`."""
        self._exchange = None
        self._abort()

    # Called by the loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        self._transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("socket")
        if peer is not None and hasattr(select, "poll"):
            self._poll = select.poll()
            self._poll.register(peer.fileno(), select.POLLIN)

    def data_received(self, data: bytes) -> None:
        """Parse what came."""
        if self._exchange is None:
            self._abort()  # nobody asked
            return
        self._last_byte_at = self._loop.time()
        self._fed += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._fail("bad_response", "upstream switched protocols although nobody asked")
            return
        except httptools.HttpParserError as problem:
            if not self._finished:
                self._fail("bad_response", f"upstream's answer is not HTTP/1.1: {problem}")
                return
            self._surplus = True
        limit = self._head_limit
        if self._refused is not None:
            self._fail(*self._refused)
        elif self._finished:
            self._complete()
        elif limit and self._fed > limit:
            part = "trailers or chunk extensions are" if self._in_body else "head is"
            self._fail("too_large", f"the answer's {part} larger than {limit} bytes")

    def eof_received(self) -> None:
        """Take the end of the stream: the end of an answer without a length, the loss of any other."""
        if self._exchange is not None and self._in_body and not self._framed:
            self._complete()
        else:
            self._fail("eof", "upstream closed the connection")

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget everything."""
        if exc is None:
            self._fail("eof", "the connection to upstream ended")
        else:
            self._fail("reset", f"the connection to upstream broke: {type(exc).__name__}")
        self.closed = True
        del self._parser  # it holds our methods: a cycle
        self._poll = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.on_closed is not None:
            self.on_closed(self)

    # Called by the parser.

    def on_message_begin(self) -> None:
        """Notice bytes behind the answer's end."""
        if self._finished:
            self._surplus = True

    def on_status(self, reason: bytes) -> None:
        """Collect the reason phrase, which may come in pieces."""
        self._reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect a field; trailers are read over."""
        if not self._in_body:
            self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Judge the head and hand it over; read over interim ones (RFC 9110 section 15.2)."""
        parser = self._parser
        if self._finished or self._refused is not None or self._exchange is None:
            return
        status = parser.get_status_code()
        coding = self._judge_fields()
        if self._head_limit and self._fed > self._head_limit and self._size_of_head() > self._head_limit:
            self._refused = ("too_large", f"the answer's head is larger than {self._head_limit} bytes")
        elif coding is not None:
            self._refused = ("bad_response", "upstream used a transfer coding nobody offered")
        elif parser.get_http_version() not in _HTTP_VERSIONS or status < 100:  # noqa: PLR2004 - the first status
            self._refused = ("bad_response", "upstream's answer is not HTTP/1.1")
        elif status < _FIRST_FINAL:
            self._interim = True
            self._head_bytes = self._size_of_head()
            self._reason = b""
            self._headers = []
            self._framed = False
        else:
            self._in_body = True
            self._fed = 0
            self._keep_alive = parser.should_keep_alive()
            if self._head_only or status in _BODILESS:
                self._framed = self._finished = True
            # The parser lets any byte into a reason phrase; one that holds what no text holds says nothing to anybody.
            reason = b"" if _CONTROLS.search(self._reason) else self._reason
            self._exchange.begin(status, reason, tuple(self._headers))

    def on_body(self, data: bytes) -> None:
        """Hand a piece of the body over."""
        if self._finished:
            self._surplus = True
        elif self._exchange is not None and self._refused is None:
            self._fed = 0
            self._exchange.push(data)

    def on_message_complete(self) -> None:
        """Note the answer's end; it is acted upon when everything that came with it is parsed."""
        if self._interim:
            self._interim = False
        else:
            self._finished = True

    # Inside.

    def _judge_fields(self) -> bytes | None:
        """Note what the fields say of the answer's end and of the connection's; return a coding that we cannot read."""
        unread = None
        kinds = [_MEANT[name] for name, _ in self._headers]
        self._framed = _LENGTH in kinds
        if not kinds or max(kinds) <= _LENGTH:
            return None
        for (_, value), kind in zip(self._headers, kinds, strict=True):
            if kind == _KEEP_ALIVE:
                self._peer_keepalive = min(self._keepalive, _keep_alive_timeout(value) - _KEEP_ALIVE_MARGIN)
            elif kind == _CODING and value.strip().lower() == b"chunked":
                self._framed = True
            elif kind == _CODING:
                unread = value
        return unread

    def _size_of_head(self) -> int:
        return self._head_bytes + sum(len(name) + len(value) + 4 for name, value in self._headers)

    def _complete(self) -> None:
        exchange, self._exchange = self._exchange, None
        transport = self._transport
        reusable = (
            self._finished
            and self._keep_alive
            and not self._surplus
            and self._peer_keepalive > 0
            and not transport.is_closing()
            and transport.get_write_buffer_size() == 0
        )
        if self._head_only:
            self._parser = httptools.HttpResponseParser(self)  # the old one still waits for the body it was promised
        if exchange is not None:
            exchange.finish()
        if not reusable or self.on_idle is None:
            self._abort()
            return
        self.idle_until = self._loop.time() + self._peer_keepalive
        self._reset_message()
        self.resume()
        self.on_idle(self)

    def _fail(self, reason: str, detail: str) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            outcome = Outcome.LOST if exchange.begun else Outcome.MAYBE
            exchange.break_off(UpstreamFailure(outcome, reason, f"{self.address}: {detail}"))
        self._abort()

    def _abort(self) -> None:
        self._transport.abort()

    def _watch_until(self, at: float) -> None:
        if self._timer is not None:
            if self._timer_at <= at:
                return
            self._timer.cancel()
        self._timer_at = at
        self._timer = self._loop.call_at(at, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._exchange is None or not self._idle_timeout:
            return
        now = self._loop.time()
        last = now if self._held else self._last_byte_at
        if self._pulse is not None:
            last = max(last, self._pulse.touched_at)
        if now < last + self._idle_timeout:
            self._watch_until(last + self._idle_timeout)
        else:
            self._fail("idle_timeout", f"nothing came from upstream for {self._idle_timeout:g} s")


def _keep_alive_timeout(value: bytes) -> float:
    """Read `timeout=N` of a Keep-Alive field; infinity where it says nothing."""
    for part in value.split(b","):
        name, _, seconds = part.partition(b"=")
        if name.strip().lower() == b"timeout" and seconds.strip().isdigit():
            return float(seconds)
    return float("inf")
