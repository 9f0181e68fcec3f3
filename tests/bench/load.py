"""A load generator for one URL: as much as a number of connections can take, or so many requests a second.

Owns: sending numbered A2A requests over keep-alive connections, checking that each answer is its own, and timing them.
Knows nothing of: what answers.

Two ways to ask. *Closed loop*: every connection sends its next request when the last was answered; the slower the
other side, the fewer requests, so latency says nothing here and only CPU per request counts. *Open loop*: request
number i is due at i / rate, whatever became of the others, and its latency counts from the instant it was due, also
when no connection was free then. A server that stalls therefore pays for every request that would have come meanwhile
(there is no coordinated omission).

Time is kept by `select()`, whose time-outs are exact to some microseconds; epoll's are whole milliseconds.
"""

import asyncio
import gc
import re
import selectors
from collections import deque
from dataclasses import dataclass, field
from typing import cast

import uvloop
from bench.measuring import UnfitError

BODY = 1024
GRACE = 10.0
"""Seconds in which what was asked must be answered; what is not by then is lost."""

_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)
_WORDS = (
    "Summarise the incident report below for the on-call engineer, name the services that were involved and the order "
    "in which they failed, and say which of the follow-up tasks should come first. "
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where to ask, and with what token."""

    port: int
    path: str = "/workspaces/bench/a2a"
    token: str | None = None

    def head(self, length: int, accept: str = "application/json") -> bytes:
        """A request's head, as the A2A SDK's client would send it."""
        authorization = f"Authorization: Bearer {self.token}\r\n" if self.token else ""
        return (
            f"POST {self.path} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\nAccept: {accept}\r\n"
            "Accept-Encoding: gzip, deflate\r\nConnection: keep-alive\r\nUser-Agent: holdfast-bench\r\n"
            f"Content-Type: application/json\r\nA2A-Version: 1.0\r\n{authorization}Content-Length: {length}\r\n\r\n"
        ).encode("ascii")


def send_body(number: int) -> bytes:
    """A SendMessage of exactly `BODY` bytes, whose JSON-RPC id is the number."""
    start = (
        b'{"jsonrpc":"2.0","id":"%010d","method":"SendMessage","params":{"message":{"messageId":"m-%010d",'
        b'"role":"ROLE_USER","parts":[{"text":"' % (number, number)
    )
    end = b'"}]}}}'
    text = (_WORDS * 8).encode("ascii")
    return start + text[: BODY - len(start) - len(end)] + end


@dataclass(slots=True)
class Taken:
    """What a slice of load brought. `sample`: of the first wrong answer; `latencies`: seconds, open loop only."""

    answered: int = 0
    wrong: int = 0
    lost: int = 0
    sample: bytes = b""
    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)


class Lane(asyncio.Protocol):
    """One connection."""

    def __init__(self, load: "Load") -> None:
        self._load = load
        self._buffer = b""
        self._expected = b""
        self._due = 0.0
        self.busy = False
        self.lost: asyncio.Future[None] = load.loop.create_future()
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection."""
        self.transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Count what was not answered."""
        if self.busy:
            self.busy = False
            self._load.was_lost()
        if not self.lost.done():
            self.lost.set_result(None)

    def ask(self, number: int, due: float) -> None:
        """Send one request."""
        if self.transport is None or self.transport.is_closing():
            self._load.was_lost()
            return
        body = send_body(number)
        self._expected = body[17:34]  # the id as it stands in JSON, with its name
        self._due = due
        self.busy = True
        self.transport.write(self._load.head + body)

    def data_received(self, data: bytes) -> None:
        """Take an answer, or a part of one."""
        self._buffer = buffer = self._buffer + data if self._buffer else data
        end = buffer.find(b"\r\n\r\n")
        if end == -1:
            return
        length = _LENGTH.search(buffer, 0, end)
        if length is None:
            raise UnfitError("an answer without a length; the generator reads no other")
        total = end + 4 + int(length[1])
        if len(buffer) < total:
            return
        self.busy = False
        self._buffer = buffer[total:]
        right = buffer.startswith(b"HTTP/1.1 200") and buffer.find(self._expected, end) != -1
        self._load.was_answered(self, self._due, b"" if right else buffer[:total])


class Load:
    """Connections to one target, and what is asked over them. Make it inside a running loop."""

    def __init__(self, target: Target, connections: int) -> None:
        self.loop = asyncio.get_running_loop()
        self.head = target.head(BODY)
        self._target = target
        self._connections = connections
        self._lanes: list[Lane] = []
        self._idle: deque[Lane] = deque()
        self._waiting: deque[float] = deque()
        self._number = 0
        self._under_way = 0
        self._closed_until = 0.0
        self._open_loop = False
        self._taken = Taken()
        self._quiet = asyncio.Event()

    async def open(self) -> None:
        """Connect, and ask once over every connection, so that nothing that is measured happens for the first time."""
        for _ in range(self._connections):
            _, lane = await self.loop.create_connection(lambda: Lane(self), "127.0.0.1", self._target.port)
            self._lanes.append(lane)
        await self.closed(0.0)
        if self._taken.answered != self._connections or self._taken.wrong:
            raise UnfitError(f"port {self._target.port} does not answer as it should: {self._taken}")

    async def close(self) -> None:
        """Close every connection."""
        for lane in self._lanes:
            if lane.transport is not None:
                lane.transport.close()
        await asyncio.gather(*(lane.lost for lane in self._lanes))

    async def closed(self, seconds: float) -> Taken:
        """Ask for so long, on every connection as fast as it answers."""
        self._begin(open_loop=False)
        began = self.loop.time()
        self._closed_until = began + seconds
        for lane in self._lanes:
            self._ask(lane, began)
        return await self._finish(began)

    async def open_loop(self, seconds: float, rate: float) -> Taken:
        """Ask so many times a second, evenly, whatever is answered."""
        self._begin(open_loop=True)
        self._idle = deque(self._lanes)
        began = self.loop.time() + 0.01
        for index in range(int(seconds * rate)):
            due = began + index / rate
            if (wait := due - self.loop.time()) > 0:
                await asyncio.sleep(wait)
            self._due(due)
        return await self._finish(began)

    def _due(self, due: float) -> None:
        if self._idle:
            self._ask(self._idle.popleft(), due)
        else:
            self._waiting.append(due)

    def _begin(self, *, open_loop: bool) -> None:
        self._taken = Taken()
        self._open_loop = open_loop
        self._quiet.clear()
        gc.collect()
        gc.disable()

    async def _finish(self, began: float) -> Taken:
        try:
            async with asyncio.timeout(max(0.0, self._closed_until - self.loop.time()) + GRACE):
                while self._under_way or self._waiting:
                    self._quiet.clear()
                    await self._quiet.wait()
        except TimeoutError:
            self._taken.lost += self._under_way + len(self._waiting)
        finally:
            gc.enable()
        self._taken.seconds = self.loop.time() - began
        return self._taken

    def _ask(self, lane: Lane, due: float) -> None:
        self._number += 1
        self._under_way += 1
        lane.ask(self._number, due)

    # Told by a lane

    def was_answered(self, lane: Lane, due: float, wrong: bytes) -> None:
        """An answer is whole; `wrong` is the answer where it is not what was asked for."""
        now = self.loop.time()
        self._under_way -= 1
        taken = self._taken
        taken.answered += 1
        if wrong:
            taken.wrong += 1
            taken.sample = taken.sample or wrong[:500]
        if self._open_loop:
            taken.latencies.append(now - due)
            if self._waiting:
                self._ask(lane, self._waiting.popleft())
                return
            self._idle.append(lane)
        elif now < self._closed_until:
            self._ask(lane, now)
            return
        if not self._under_way:
            self._quiet.set()

    def was_lost(self) -> None:
        """A connection ended under its request."""
        self._under_way -= 1
        self._taken.lost += 1
        if not self._under_way:
            self._quiet.set()


def fast_loop() -> asyncio.AbstractEventLoop:
    """The loop for closed loops: the less the generator costs, the more it can ask."""
    return uvloop.new_event_loop()


def exact_loop() -> asyncio.AbstractEventLoop:
    """The loop for open loops: its timers are exact."""
    return asyncio.SelectorEventLoop(selectors.SelectSelector())
