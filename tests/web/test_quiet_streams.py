"""Agents' streams that fall silent, over real sockets: comments between events, and nowhere else."""

import asyncio
import gzip
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from web.raw_wire import request

from proxy.web.quiet_streams import line_end

Listen = Callable[[Any], Awaitable[str]]
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


@pytest.mark.parametrize(
    ("tail", "ending"),
    [
        (b"", b"\n"),
        (b"x\n\n", b"\n"),
        (b"\r\n\r\n", b"\r\n"),
        (b"ax\r\r", b"\r"),
        (b"\n", None),
        (b"ta: x", None),
        (b"a\r\n", None),
        (b": x\n", None),
        (b"\r", None),
        (b"x\n\r", None),
    ],
)
def test_comments_stand_behind_a_blank_line_in_the_streams_own_lines(tail: bytes, ending: bytes | None) -> None:
    assert line_end(tail) == ending


class Quiet:
    """An agent that says `head` and pieces, is silent, and ends when `go` is set."""

    def __init__(self, *pieces: bytes, head: bytes = HEAD, framed: bool = True) -> None:
        self.pieces = [chunk(piece) if framed else piece for piece in pieces]
        self.head = head
        self.last = b"0\r\n\r\n" if framed else b""
        self.go = asyncio.Event()

    async def __call__(self, line: Any) -> None:
        while True:
            head, _ = await line.request()
            if head.startswith(b"GET /.well-known/"):
                await line.answer(b'{"name": "quiet"}')
                continue
            await line.say(self.head + b"\r\n")
            for piece in self.pieces:
                await line.say(piece)
            await self.go.wait()
            await line.say(self.last)


@pytest.mark.parametrize("ending", [b"\n", b"\r\n", b"\r"])
async def test_a_quiet_stream_gets_comments_in_its_own_line_ending(make: Any, listen: Listen, ending: bytes) -> None:
    proxy = await make(hold__keep_alive=0.05)
    agent = Quiet(b"data: one" + ending + ending)
    await proxy.enroll("a", url=await listen(agent))
    reader, writer = await asyncio.open_connection("127.0.0.1", int(proxy.url.rpartition(":")[2]))
    writer.write(request())
    said = b""
    while said.count(b": keep-alive" + ending) < 2:
        said += await reader.read(65536)
    assert b"data: one" + ending + ending in said
    agent.go.set()
    while b"0\r\n\r\n" not in said:
        said += await reader.read(65536)
    writer.close()


async def test_a_stream_that_says_nothing_at_all_gets_comments(make: Any, listen: Listen) -> None:
    proxy = await make(hold__keep_alive=0.05)
    agent = Quiet()
    await proxy.enroll("a", url=await listen(agent))
    reader, writer = await asyncio.open_connection("127.0.0.1", int(proxy.url.rpartition(":")[2]))
    writer.write(request())
    said = b""
    while b": keep-alive\n" not in said:
        said += await reader.read(65536)
    agent.go.set()
    writer.close()


@pytest.mark.parametrize(
    "agent",
    [
        Quiet(b"data: half of"),
        Quiet(b"data: one\n\n", b"data: two\n"),
        Quiet(gzip.compress(b"data: one\n\n"), head=HEAD + b"Content-Encoding: gzip\r\n"),
        Quiet(
            b"data: one\n\n",
            head=b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 22\r\n",
            framed=False,
        ),
        Quiet(b'{"a": 1}\n\n', head=HEAD.replace(b"text/event-stream", b"application/json")),
    ],
    ids=["inside an event", "behind a line", "encoded", "of a known length", "no events"],
)
async def test_no_comment_stands_where_it_would_change_something(make: Any, listen: Listen, agent: Quiet) -> None:
    proxy = await make(hold__keep_alive=0.02)
    agent.go = asyncio.Event()
    if not agent.last:
        agent.last = b"data: two\n\n"
    await proxy.enroll("a", url=await listen(agent))
    reader, writer = await asyncio.open_connection("127.0.0.1", int(proxy.url.rpartition(":")[2]))
    writer.write(request())
    asyncio.get_running_loop().call_later(0.2, agent.go.set)
    said = b""
    async with asyncio.timeout(20):
        while not said.endswith((b"0\r\n\r\n", b"data: two\n\n")) or b"\r\n\r\n" not in said:
            said += await reader.read(65536)
    assert b": keep-alive" not in said.partition(b"\r\n\r\n")[2]
    writer.close()


async def test_the_setting_switches_comments_off(make: Any, listen: Listen) -> None:
    proxy = await make(hold__keep_alive=0.02, hold__comments=False)
    agent = Quiet(b"data: one\n\n")
    await proxy.enroll("a", url=await listen(agent))
    reader, writer = await asyncio.open_connection("127.0.0.1", int(proxy.url.rpartition(":")[2]))
    writer.write(request())
    asyncio.get_running_loop().call_later(0.2, agent.go.set)
    said = b""
    while not said.endswith(b"0\r\n\r\n"):
        said += await reader.read(65536)
    assert b": keep-alive" not in said
    writer.close()
