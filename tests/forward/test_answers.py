"""What passes through is what was sent, byte for byte, and it passes when it comes."""

import asyncio
import gzip
import itertools

import pytest
from aiohttp import web
from forward.scripted_upstream import ask

from proxy.forward import Outcome, UpstreamFailure


async def test_a_request_goes_out_byte_for_byte(pool, serve):
    seen = []

    async def script(line):
        seen.append(await line.request())
        await line.answer()

    peer = await serve(script)
    headers = ((b"X-b", b"1"), (b"Accept", b"*/*"), (b"x-B", b" 2"), (b"X-b", b"1"), (b"L", "é".encode("latin-1")))
    request = ask(peer.url("/base//a/../%41%2f;x?q=%20&&=%zz?"), body=b"\x00\xff{}", headers=headers)
    await (await pool.send(request)).aclose()
    assert seen == [
        (
            b"POST /base//a/../%%41%%2f;x?q=%%20&&=%%zz? HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n"
            b"X-b: 1\r\nAccept: */*\r\nx-B:  2\r\nX-b: 1\r\nL: \xe9\r\nContent-Length: 4\r\n\r\n" % peer.port,
            b"\x00\xff{}",
        )
    ]


@pytest.mark.parametrize(
    ("target", "sent"),
    [("", b"/"), ("?q=/x", b"/?q=/x"), ("/", b"/"), ("//x", b"//x"), ("/ü", "/ü".encode()), ("/\udcff", b"/\xff")],
)
async def test_the_target_is_whatever_follows_the_authority(pool, serve, target, sent):
    seen = []

    async def script(line):
        seen.append(await line.request())
        await line.answer()

    peer = await serve(script)
    await (await pool.send(ask(peer.url(target)))).aclose()
    assert seen[0][0].split(b" ")[1] == sent


async def test_an_answer_comes_back_byte_for_byte(pool, serve):
    body = gzip.compress(b'{"a": 1}')

    async def script(line):
        await line.request()
        await line.answer(body, fields=b"Set-Cookie: a=1\r\nset-cookie: b=2\r\nContent-Encoding: gzip\r\n")

    peer = await serve(script)
    answer = await pool.send(ask(peer.url()))
    assert (answer.status, answer.reason) == (200, b"OK")
    assert answer.headers == (
        (b"Set-Cookie", b"a=1"),
        (b"set-cookie", b"b=2"),
        (b"Content-Encoding", b"gzip"),
        (b"Content-Length", b"%d" % len(body)),
    )
    assert await answer.read(0) == body


@pytest.mark.parametrize(
    "framing", [b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n", b"Content-Length: 39\r\n"]
)
async def test_each_piece_of_a_stream_is_handed_on_before_the_next_one_is_sent(pool, serve, framing):
    received = asyncio.Queue()
    events = [b"data: %d\r\n\r\n\r\n" % number for number in range(3)]

    async def script(line):
        await line.request()
        await line.say(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n" + framing + b"\r\n")
        for event in events:
            chunk = b"%x\r\n%b\r\n" % (len(event), event) if b"chunked" in framing else event
            await line.say(chunk)
            assert await received.get() == event
        if b"chunked" in framing:
            await line.say(b"0\r\n\r\n")

    peer = await serve(script)
    answer = await pool.send(ask(peer.url()))
    got = []
    async for chunk in answer.chunks():
        got.append(chunk)
        received.put_nowait(chunk)
    assert got == events


async def test_the_head_is_handed_on_before_any_of_the_body(pool, serve):
    head_seen = asyncio.Event()

    async def script(line):
        await line.request()
        await line.say(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
        await head_seen.wait()
        await line.say(b"ok")

    peer = await serve(script)
    answer = await pool.send(ask(peer.url()))
    head_seen.set()
    assert await answer.read(0) == b"ok"


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("secure", [False, True])
async def test_large_bodies_pass_in_both_directions(dial, chunked, secure):
    block = bytes(range(256)) * 256
    body = block * 128  # 8 MiB

    async def echo(line):
        _, got = await line.request()
        if not chunked:
            await line.answer(got)
            return
        await line.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for start in range(0, len(got), 100_000):
            piece = got[start : start + 100_000]
            await line.say(b"%x\r\n%b\r\n" % (len(piece), piece))
        await line.say(b"0\r\n\r\n")

    pool, peer = await dial(echo, secure=secure)
    answer = await pool.send(ask(peer.url(), body=body))
    assert await answer.read(len(body)) == body


async def test_a_reader_that_lags_slows_upstream_down_instead_of_filling_memory(make_pool, serve):
    total = 256 * 1024 * 1024
    stuck = asyncio.Event()
    block = b"x" * 1024 * 1024
    sent = itertools.count()

    async def script(line):
        await line.request()
        await line.say(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % total)
        for _ in range(total // len(block)):
            next(sent)
            line.writer.write(block)
            try:
                async with asyncio.timeout(0.3):
                    await line.writer.drain()
            except TimeoutError:
                stuck.set()
                await line.writer.drain()

    peer = await serve(script)
    answer = await make_pool(read_buffer=65536).send(ask(peer.url()))
    await stuck.wait()  # never, if the proxy swallowed it all
    assert next(sent) < 64
    assert answer._buffered < 1024 * 1024
    size = 0
    async for chunk in answer.chunks():
        size += len(chunk)
        if size > 32 * 1024 * 1024:
            break
    await answer.aclose()


async def test_closing_an_answer_early_closes_its_connection(pool, serve):
    closed = asyncio.Event()

    async def script(line):
        await line.request()
        await line.say(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx")
        await line.closed_by_proxy()
        closed.set()

    peer = await serve(script)
    answer = await pool.send(ask(peer.url()))
    await answer.aclose()
    await closed.wait()


async def test_a_reader_cancelled_in_mid_body_can_close_or_read_on(pool, serve):
    more, closed = asyncio.Event(), asyncio.Event()

    async def script(line):
        await line.request()
        await line.say(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n")
        await more.wait()
        await line.say(b"x")
        await line.closed_by_proxy()
        closed.set()

    peer = await serve(script)
    answer = await pool.send(ask(peer.url()))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await anext(answer.chunks())
    more.set()
    assert await anext(answer.chunks()) == b"x"
    await answer.aclose()
    await closed.wait()


async def test_a_body_over_the_limit_closes_the_connection(pool, serve):
    closed = asyncio.Event()

    async def script(line):
        await line.request()
        await line.say(b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n" + b"x" * 200)
        await line.closed_by_proxy()
        closed.set()

    peer = await serve(script)
    answer = await pool.send(ask(peer.url()))
    with pytest.raises(UpstreamFailure) as failure:
        await answer.read(100)
    assert (failure.value.outcome, failure.value.reason) == (Outcome.LOST, "too_large")
    await closed.wait()


async def test_a_redirect_is_an_answer_and_is_not_followed_scenario_29(pool, serve):
    elsewhere = await serve(lambda line: line.answer(b"never"))

    async def script(line):
        await line.request()
        location = elsewhere.url().encode()
        await line.say(b"HTTP/1.1 307 Temporary Redirect\r\nLocation: %b\r\nContent-Length: 0\r\n\r\n" % location)

    peer = await serve(script)
    answer = await pool.send(ask(peer.url(), body=b"x"))
    assert (answer.status, await answer.read(0)) == (307, b"")
    assert elsewhere.accepted == 0


async def test_a_real_http_server_is_understood(pool, aiohttp_server):
    async def echo(request):
        answer = web.StreamResponse(headers={"X-Path": request.raw_path, "X-Length": str(request.content_length)})
        await answer.prepare(request)
        await answer.write(await request.read())
        await answer.write_eof()
        return answer

    async def plain(request):
        return web.Response(text=request.method)

    app = web.Application()
    app.router.add_post("/{tail:.*}", echo)
    app.router.add_get("/{tail:.*}", plain)
    server = await aiohttp_server(app)
    base = f"http://127.0.0.1:{server.port}"
    for size in (0, 1, 100_000):
        answer = await pool.send(ask(f"{base}/a%41//b?x=%20", body=b"z" * size))
        headers = dict(answer.headers)
        assert (headers[b"X-Path"], headers[b"X-Length"]) == (b"/a%41//b?x=%20", b"%d" % size)
        assert await answer.read(0) == b"z" * size
    assert await (await pool.send(ask(f"{base}/"))).read(0) == b"GET"
    head = await pool.send(ask(f"{base}/", method="HEAD"))
    assert dict(head.headers)[b"Content-Length"] == b"4"
    assert await head.read(0) == b""
