"""The healthy path on the wire: what passes is what was sent, byte for byte, and it passes when it comes."""

import asyncio
import gzip
import io
import json
import random
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest
from forward.scripted_upstream import Peer
from web.harness import ADMIN, ADMIN_TOKEN, V1, Harness, send

CALL = "/workspaces/a/a2a"
BIG = random.Random(7).randbytes(10 * 1024 * 1024)  # noqa: S311 - any bytes will do, the same ones each time
SSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"

Talk = Callable[[Any, bytes, bytes], Awaitable[None]]


def chunk(data: bytes) -> bytes:
    """One chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


class Wire:
    """An agent that says byte for byte what its `talk` says; its card is there for readiness alone."""

    def __init__(self) -> None:
        self.talk: Talk = self._echo
        self.seen: list[tuple[bytes, bytes]] = []
        self.peer: Any = Peer(self._serve)  # type: ignore[no-untyped-call]  # another test's, without annotations

    async def _serve(self, line: Any) -> None:
        while True:
            head, body = await line.request()
            if head.startswith(b"GET /.well-known/"):
                await line.answer(b'{"name": "wire"}')
                continue
            self.seen.append((head, body))
            await self.talk(line, head, body)

    async def _echo(self, line: Any, _: bytes, body: bytes) -> None:
        await line.answer(body)

    def said(self) -> tuple[bytes, list[bytes]]:
        """The request line and the fields of the latest request, without what is made anew for each hop."""
        first, *fields = self.seen[-1][0].rstrip(b"\r\n").split(b"\r\n")
        own = (b"host:", b"content-length:", b"holdfast-request-id:")
        return first, [field for field in fields if not field.lower().startswith(own)]


@pytest.fixture
async def wire(proxy: Harness) -> AsyncIterator[Wire]:
    made = Wire()
    await made.peer.start()
    await proxy.enroll("a", url=made.peer.url(""))
    await proxy.until(lambda: bool(proxy.named("workspace.status")))
    yield made
    await made.peer.stop()


class RawClient:
    """A client that sends what it is given and reads one answer at a time, as it came."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def ask(self, line: bytes, *fields: bytes, body: bytes = b"") -> tuple[bytes, list[bytes]]:
        """One request; the status line and the fields of its answer."""
        head = [line, b"Host: proxy", f"Authorization: {ADMIN['Authorization']}".encode(), *fields]
        self.writer.write(b"\r\n".join([*head, b"", body]))
        answer = await self.reader.readuntil(b"\r\n\r\n")
        status, *answered = answer.rstrip(b"\r\n").split(b"\r\n")
        # A gateway adds a date where there is none (RFC 9110, section 6.6.1); the request id is Holdfast's.
        own = (b"date:", b"holdfast-request-id:")
        return status, [field for field in answered if not field.lower().startswith(own)]


@pytest.fixture
async def raw(proxy: Harness) -> AsyncIterator[RawClient]:
    reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(proxy.url).port)
    yield RawClient(reader, writer)
    writer.close()


# --- as it comes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [b"text/event-stream", b"application/json", b"application/octet-stream"])
async def test_what_comes_in_pieces_is_passed_on_piece_by_piece(proxy: Harness, wire: Wire, kind: bytes) -> None:
    seen: asyncio.Queue[None] = asyncio.Queue()
    pieces = [b'data: {"n": 1}\r\n\r\n', b"data: half of an", b" event\r\n\r\n", b": a comment\n\n", b"\x00\xff"]

    async def talk(line: Any, _: bytes, __: bytes) -> None:
        await line.say(SSE.replace(b"text/event-stream", kind))
        for piece in pieces:
            await line.say(chunk(piece))
            await seen.get()  # the next one is made only after the client has this one
        await line.say(b"0\r\n\r\n")

    wire.talk = talk
    async with proxy.session.post(proxy.url + CALL, headers={**ADMIN, **V1}, json=send()) as got:
        assert (got.status, got.headers["Content-Type"]) == (200, kind.decode())
        for piece in pieces:
            assert await got.content.readexactly(len(piece)) == piece
            seen.put_nowait(None)
        assert await got.content.read() == b""


async def test_a_streaming_client_that_leaves_ends_the_upstream_call_and_is_nobodys_failure(
    proxy: Harness, wire: Wire
) -> None:
    ended = asyncio.Event()

    async def talk(line: Any, _: bytes, __: bytes) -> None:
        await line.say(SSE + chunk(b"data: 1\n\n"))
        feeding = asyncio.create_task(feed(line))
        await line.closed_by_proxy()
        feeding.cancel()
        ended.set()

    async def feed(line: Any) -> None:
        while True:  # only who writes to a client learns that it has left
            await line.say(chunk(b": still there\n\n"))
            await asyncio.sleep(0)

    wire.talk = talk
    async with proxy.session.post(proxy.url + CALL, headers={**ADMIN, **V1}, json=send()) as got:
        await got.content.readexactly(len(b"data: 1\n\n"))
        got.close()
    async with asyncio.timeout(20):
        await ended.wait()
    assert proxy.named("request.failed") == []
    assert proxy.named("verdict") == []
    assert proxy.named("deferral.queued") == []


# --- broken -----------------------------------------------------------------------------------------------------------


async def test_a_broken_stream_ends_with_an_error_event_and_without_a_clean_end(proxy: Harness, wire: Wire) -> None:
    async def talk(line: Any, _: bytes, __: bytes) -> None:
        await line.say(SSE + chunk(b"data: 1\n\ndata: 2"))
        await read.wait()
        line.reset()

    read = asyncio.Event()
    wire.talk = talk
    async with proxy.session.post(proxy.url + CALL, headers={**ADMIN, **V1}, json=send(rpc_id="seven")) as got:
        assert await got.content.readexactly(len(b"data: 1\n\ndata: 2")) == b"data: 1\n\ndata: 2"
        read.set()
        rest = await _until_it_breaks(got.content)
    # The event that was cut off is ended first, so that the error is an event of its own.
    assert rest.startswith(b"\n\nevent: error\ndata: ")
    error = json.loads(rest.removeprefix(b"\n\nevent: error\ndata: "))
    assert (error["id"], error["error"]["data"][0]["reason"]) == ("seven", "STREAM_BROKEN")
    assert error["error"]["data"][0]["metadata"]["delivered"] == "yes"


async def _until_it_breaks(content: aiohttp.StreamReader) -> bytes:
    read = b""
    try:
        while piece := await content.readany():
            read += piece
    except aiohttp.ClientPayloadError:
        return read
    raise AssertionError("a broken answer has ended cleanly")


@pytest.mark.parametrize("framing", [b"Content-Length: 3000000", b"Transfer-Encoding: chunked"])
async def test_a_long_answer_that_breaks_is_never_taken_for_whole(proxy: Harness, wire: Wire, framing: bytes) -> None:
    part = b"x" * 2_000_000

    async def talk(line: Any, _: bytes, __: bytes) -> None:
        body = chunk(part) if b"chunked" in framing else part
        await line.say(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n%b\r\n\r\n%b" % (framing, body))
        line.writer.close()

    wire.talk = talk
    async with proxy.session.post(proxy.url + CALL, headers={**ADMIN, **V1}, json=send()) as got:
        assert got.status == 200
        with pytest.raises(aiohttp.ClientPayloadError):
            await got.read()


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\nnot a chunk",
    ],
    ids=["short", "nothing", "nonsense"],
)
async def test_scenario_31_an_answer_that_broke_before_anything_was_passed_on_is_502(
    proxy: Harness, wire: Wire, answer: bytes
) -> None:
    async def talk(line: Any, _: bytes, __: bytes) -> None:
        await line.say(answer)
        line.writer.close()

    wire.talk = talk
    got, body = await proxy.call("POST", CALL, headers=V1, json=send())
    assert got.status == 502
    assert json.loads(body)["error"]["data"][0]["metadata"]["delivered"] == "yes"


# --- byte for byte ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("framing", ["declared", "chunked"])
async def test_ten_mebibytes_pass_both_ways_unchanged(proxy: Harness, wire: Wire, framing: str) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(BIG), 100_000):
            yield BIG[start : start + 100_000]

    async def talk(line: Any, _: bytes, body: bytes) -> None:
        if framing == "declared":
            await line.answer(body)
            return
        await line.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for start in range(0, len(body), 70_000):
            await line.say(chunk(body[start : start + 70_000]))
        await line.say(b"0\r\n\r\n")

    wire.talk = talk
    data = io.BytesIO(BIG) if framing == "declared" else pieces()
    got, body = await proxy.call("POST", CALL + "/files", data=data, headers={"Content-Type": "application/x-any"})
    assert got.status == 200
    assert wire.seen[-1][1] == BIG
    assert body == BIG


async def test_path_query_and_fields_reach_the_agent_as_they_were_written(wire: Wire, raw: RawClient) -> None:
    fields = [b"X-Tag: one", b"x-tag: two", b"Accept: */*", b"X-Tag: one", b"Cookie: a=1; b=2", b"X-Latin: \xe9t\xe9"]
    status, _ = await raw.ask(b"GET /workspaces/a/a2a//%41/a%2Fb/./..c;d=1?q=%41&q=+%20&&=%zz? HTTP/1.1", *fields)
    assert status == b"HTTP/1.1 200 OK"
    assert wire.said() == (b"GET //%41/a%2Fb/./..c;d=1?q=%41&q=+%20&&=%zz? HTTP/1.1", fields)


@pytest.mark.parametrize("tail", [b"", b"?x=%2F", b"/", b"/?", b"//"])
async def test_what_follows_the_door_is_what_the_agent_is_asked_for(wire: Wire, raw: RawClient, tail: bytes) -> None:
    await raw.ask(b"GET /workspaces/a/a2a%b HTTP/1.1" % tail)
    target = wire.said()[0].split(b" ")[1]
    assert target == (tail if tail.startswith(b"/") else b"/" + tail)


async def test_hop_by_hop_fields_and_holdfasts_own_stay_behind(wire: Wire, raw: RawClient) -> None:
    hop = [b"Connection: keep-alive, X-Hop", b"X-Hop: 1", b"TE: trailers"]
    await raw.ask(b"GET /workspaces/a/a2a HTTP/1.1", *hop, b"X-Kept: 2", b"Holdfast-Redelivery: maybe")
    assert wire.said()[1] == [b"X-Kept: 2"]


async def test_an_answers_status_line_and_fields_come_back_as_the_agent_wrote_them(wire: Wire, raw: RawClient) -> None:
    cookies = [b"Set-Cookie: a=1", b"set-cookie: b=2"]
    fields = [*cookies, b"X-Odd:  two", "X-Utf8: été".encode(), b"Content-Length: 2", b"Retry-After: 7"]

    async def talk(line: Any, _: bytes, __: bytes) -> None:
        hop = [b"Connection: keep-alive", b"Keep-Alive: timeout=5", b"Holdfast-Verdict: forged"]
        await line.say(b"\r\n".join([b"HTTP/1.1 299 Quite Good", *fields, *hop, b"", b"ok"]))

    wire.talk = talk
    status, answered = await raw.ask(b"GET /workspaces/a/a2a HTTP/1.1")
    assert await raw.reader.readexactly(2) == b"ok"
    assert status == b"HTTP/1.1 299 Quite Good"
    assert [re.sub(rb":\s*", b": ", field) for field in answered] == [
        re.sub(rb":\s*", b": ", field) for field in fields
    ]


async def test_encoded_bodies_are_nobodys_business_in_either_direction(proxy: Harness, wire: Wire) -> None:
    asked, answered = gzip.compress(b"a question" * 100), gzip.compress(b"an answer" * 100)

    async def talk(line: Any, _: bytes, __: bytes) -> None:
        await line.answer(answered, fields=b"Content-Encoding: gzip\r\n")

    wire.talk = talk
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        headers = {**ADMIN, "Content-Encoding": "gzip", "Accept-Encoding": "gzip, br", "Content-Type": "text/plain"}
        async with session.post(proxy.url + CALL, data=asked, headers=headers) as got:
            assert got.headers["Content-Encoding"] == "gzip"
            assert await got.read() == answered
    head, body = wire.seen[-1]
    assert body == asked
    assert b"\r\nContent-Encoding: gzip\r\n" in head
    assert b"\r\nAccept-Encoding: gzip, br\r\n" in head


@pytest.mark.parametrize(
    ("method", "status", "fields"),
    [
        (b"HEAD", b"200 OK", [b"Content-Type: text/plain", b"Content-Length: 12345"]),
        (b"HEAD", b"404 Not Found", [b"Content-Length: 0"]),
        (b"GET", b"204 No Content", [b"X-Done: yes"]),
        (b"DELETE", b"204 No Content", []),
        (b"GET", b"304 Not Modified", [b'ETag: "x"']),
    ],
)
async def test_answers_without_a_body_have_none_and_the_connection_goes_on(
    wire: Wire, raw: RawClient, method: bytes, status: bytes, fields: list[bytes]
) -> None:
    async def talk(line: Any, head: bytes, body: bytes) -> None:
        if head.startswith(b"POST "):
            await line.answer(body)
        else:
            await line.say(b"\r\n".join([b"HTTP/1.1 " + status, *fields, b"", b""]))

    wire.talk = talk
    assert await raw.ask(method + b" /workspaces/a/a2a/x HTTP/1.1") == (b"HTTP/1.1 " + status, fields)
    assert wire.seen[-1][0].startswith(method + b" /x HTTP/1.1\r\n")
    answered, _ = await raw.ask(b"POST /workspaces/a/a2a HTTP/1.1", b"Content-Length: 5", body=b"after")
    assert answered == b"HTTP/1.1 200 OK"
    assert await raw.reader.readexactly(5) == b"after"


async def test_every_method_passes(proxy: Harness, wire: Wire) -> None:
    for method in ("PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"):
        got, body = await proxy.call(method, CALL + "/x", token=ADMIN_TOKEN, data=b"body")
        assert (got.status, body) == (200, b"body")
        assert wire.said()[0] == f"{method} /x HTTP/1.1".encode()


async def test_a_client_that_waits_for_100_continue_is_told_to_go_on(wire: Wire, raw: RawClient) -> None:
    status, _ = await raw.ask(b"POST /workspaces/a/a2a HTTP/1.1", b"Content-Length: 5", b"Expect: 100-continue")
    assert status == b"HTTP/1.1 100 Continue"
    raw.writer.write(b"hello")
    head = await raw.reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert await raw.reader.readexactly(5) == b"hello"
    assert b"expect" not in wire.seen[-1][0].lower()
