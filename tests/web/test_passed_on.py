"""An agent's answer at its client: status line and fields byte for byte, framed for this hop, as soon as it comes."""

import asyncio
from typing import Any

import pytest
from forward.scripted_upstream import Peer
from web.harness import Harness
from web.raw_wire import CALL, DOORS, request

FIELDS = [
    b"x-ODD-case: 1",
    b"Set-Cookie: a=1",
    b"X-Latin: caf\xe9 \xff",
    b"X-Empty: ",
    b"Set-Cookie: b=2",
    b"Content-Type: application/json",
    b"sErVeR: agent/1",
    b"Date: Thu, 01 Jan 2026 00:00:00 GMT",
]


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(
    "framing", [b"Content-Length: 2\r\n\r\n{}", b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"]
)
async def test_an_answers_head_passes_byte_for_byte(says: Any, connect: Any, door: str, framing: bytes) -> None:
    await says(b"HTTP/1.1 418 Caf\xc3\xa9 \xe9\r\n" + b"\r\n".join(FIELDS) + b"\r\n" + framing)
    wire = await connect(door)
    status, fields, body = await wire.ask()
    assert status == b"HTTP/1.1 418 Caf\xc3\xa9 \xe9"
    assert fields[: len(FIELDS)] == FIELDS
    added = [field.partition(b":")[0] for field in fields[len(FIELDS) :]]
    assert sorted(added) == sorted([framing.partition(b":")[0], b"Holdfast-Request-Id"])
    assert body == b"{}"


@pytest.mark.parametrize("door", DOORS)
async def test_an_agent_cannot_speak_in_the_proxys_name_nor_about_this_connection(
    says: Any, connect: Any, door: str
) -> None:
    await says(
        b"HTTP/1.1 200 OK\r\nHoldfast-Verdict: dead\r\nConnection: X-Mine, keep-alive\r\nX-Mine: 1\r\nX-Yours: 1\r\n"
        b"Keep-Alive: timeout=60\r\nContent-Length: 0\r\n\r\n"
    )
    wire = await connect(door)
    _, fields, _ = await wire.ask()
    names = [field.partition(b":")[0] for field in fields]
    assert sorted(names) == [b"Content-Length", b"Date", b"Holdfast-Request-Id", b"X-Yours"]


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(
    ("method", "answer"),
    [
        (b"HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n"),
        (b"GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
        (b"GET", b"HTTP/1.1 304 Not Modified\r\nETag: x\r\nContent-Length: 500\r\n\r\n"),
    ],
)
async def test_an_answer_without_a_body_is_followed_by_the_next(
    says: Any, connect: Any, door: str, method: bytes, answer: bytes
) -> None:
    await says(answer)
    wire = await connect(door)
    for _ in range(2):
        wire.writer.write(request(line=method + b" " + CALL + b"/x HTTP/1.1", body=b""))
        head = await wire.reader.readuntil(b"\r\n\r\n")
        assert head.startswith(answer.split(b"\r\n")[0] + b"\r\n")
        assert (b"Content-Length: 500" in head) == (b"Content-Length: 500" in answer)


@pytest.mark.parametrize("door", DOORS)
async def test_a_streams_head_does_not_wait_for_its_first_event(proxy: Harness, connect: Any, door: str) -> None:
    go = asyncio.Event()

    async def serve(line: Any) -> None:
        while True:
            await line.request()
            await line.say(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nX-Early: 1\r\n\r\n")
            await go.wait()
            await line.say(b"data: 1\n\n")
            line.writer.close()

    peer: Any = Peer(serve)  # type: ignore[no-untyped-call]  # another test's, without annotations
    await peer.start()
    await proxy.enroll("a", url=peer.url(""))
    wire = await connect(door)
    wire.writer.write(request())
    head = await wire.reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nX-Early: 1\r\n")
    go.set()
    assert await wire.reader.readuntil(b"0\r\n\r\n") == b"9\r\ndata: 1\n\n\r\n0\r\n\r\n"
    await peer.stop()
