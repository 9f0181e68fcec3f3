"""One connection without a socket: how bytes become an answer, and when silence ends a call (in virtual time)."""

import asyncio
import re

import pytest
from forward.scripted_upstream import ask
from hypothesis import given
from hypothesis import strategies as st
from simulation.virtual_time import run

from proxy.forward import Outcome, Pulse, UpstreamFailure
from proxy.forward.connection import Connection

HIGH_WATER = 1000


class Transport(asyncio.Transport):
    """Takes down what is done to it; closing reports back as a loop would."""

    def __init__(self, connection):
        super().__init__()
        self.connection = connection
        self.written = []
        self.reading = True
        self.gone = False

    def write(self, data):
        self.written.append(bytes(data))

    def get_write_buffer_size(self):
        return 0

    def is_closing(self):
        return self.gone

    def pause_reading(self):
        self.reading = False

    def resume_reading(self):
        self.reading = True

    def abort(self):
        if not self.gone:
            self.gone = True
            asyncio.get_running_loop().call_soon(self.connection.connection_lost, None)

    def lose(self, problem):
        self.gone = True
        self.connection.connection_lost(problem)


def connected():
    """Give a connection that its owner takes back when it is idle, the list of those moments, and its transport."""
    connection = Connection("192.0.2.1", keepalive=4.0, high_water=HIGH_WATER)
    transport = Transport(connection)
    connection.connection_made(transport)
    idle = []
    connection.on_idle = idle.append
    return connection, transport, idle


def outcome_of(pieces, *, method="GET", end=None, **changes):
    """Feed an upstream's bytes, then an end (`eof`, `reset` or none), and tell what came of it, in full."""

    async def story():
        connection, transport, idle = connected()
        exchange = connection.send(ask("http://agent/", method=method, **changes), b"")
        for piece in pieces:
            if piece and not transport.gone:
                connection.data_received(piece)
        if end == "eof" and not transport.gone:
            connection.eof_received()
        elif end == "reset" and not transport.gone:
            transport.lose(ConnectionResetError())
        body = b""
        try:
            async with asyncio.timeout(1):
                await exchange.head()
                async for chunk in exchange.chunks():
                    body += chunk
        except UpstreamFailure as failure:
            told = (failure.outcome, failure.reason)
        except TimeoutError:
            told = "waiting"
        else:
            told = "whole"
        reused = bool(idle) and connection.open
        await exchange.aclose()
        return exchange.status, exchange.reason, exchange.headers, body, told, reused

    return run(story())


WHOLE = [
    # (what upstream says, how it ends, body, reused)
    (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", None, b"hello", True),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", None, b"", True),
    (b"HTTP/1.1 200\r\nContent-Length: 1\r\n\r\nx", None, b"x", True),
    (b"HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx", None, b"x", False),
    (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;e=1\r\nde\r\n0\r\n\r\n",
        None,
        b"abcde",
        True,
    ),
    (b"HTTP/1.1 200 OK\r\ntransfer-encoding:  Chunked\r\n\r\n1\r\nx\r\n0\r\nT: 1\r\nU: 2\r\n\r\n", None, b"x", True),
    (b"HTTP/1.1 200 OK\r\n\r\nuntil the end", "eof", b"until the end", False),
    (b"HTTP/1.0 200 OK\r\n\r\n", "eof", b"", False),
    (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nab", None, b"ab", False),
    (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nab", None, b"ab", True),
    (b"HTTP/1.1 204 No Content\r\n\r\n", None, b"", True),
    (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", None, b"", True),
    (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx", None, b"x", True),
    (b"HTTP/1.1 103 Hints\r\nLink: x\r\n\r\n" * 3 + b"HTTP/1.1 201 OK\r\nContent-Length: 1\r\n\r\nx", None, b"x", True),
    (b"HTTP/1.1 200 OK\r\nKeep-Alive: timeout=1\r\nContent-Length: 1\r\n\r\nx", None, b"x", False),
    (b"HTTP/1.1 200 OK\r\nKeep-Alive: max=9, Timeout=60\r\nContent-Length: 1\r\n\r\nx", None, b"x", True),
    (b"HTTP/1.1 200 OK\r\nKeep-Alive: timeout=soon\r\nContent-Length: 1\r\n\r\nx", None, b"x", True),
    (b"HTTP/1.1 307 Elsewhere\r\nLocation: http://127.0.0.1/\r\nContent-Length: 0\r\n\r\n", None, b"", True),
    (b"HTTP/1.1 503 Busy\r\nContent-Length: 1\r\n\r\nx", None, b"x", True),
    (b"HTTP/1.1 999 Odd\r\nContent-Length: 1\r\n\r\nx", None, b"x", True),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nxHTTP/1.1 200 OK\r\n", None, b"x", False),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nxyz", None, b"x", False),
    (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\nxyz", None, b"x", False),
    (b"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\nxy", None, b"", False),
]


@pytest.mark.parametrize(("said", "end", "body", "reused"), WHOLE)
def test_a_sound_answer_is_read_whole_and_its_connection_used_again_only_when_that_is_safe(said, end, body, reused):
    status, _, _, got, told, again = outcome_of([said], end=end)
    assert (told, got, again) == ("whole", body, reused)
    assert status == next(int(code) for code in re.findall(rb"HTTP/1.. (\d+)", said) if int(code) >= 200)


def test_a_head_is_given_as_it_came():
    said = b"HTTP/1.1 201 Made it\r\nX-b: 1\r\nx-B:2 \r\nEmpty:\r\nX-b: 1\r\nContent-Length: 0\r\n\r\n"
    status, reason, headers, *_ = outcome_of([said])
    assert (status, reason) == (201, b"Made it")
    assert headers == ((b"X-b", b"1"), (b"x-B", b"2 "), (b"Empty", b""), (b"X-b", b"1"), (b"Content-Length", b"0"))


def test_trailers_and_interim_fields_are_not_taken_for_headers():
    said = (
        b"HTTP/1.1 103 Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nT: y\r\n\r\n"
    )
    _, reason, headers, *_ = outcome_of([said])
    assert (reason, headers) == (b"OK", ((b"Transfer-Encoding", b"chunked"),))


@pytest.mark.parametrize(
    ("said", "reused"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\r\n\r\n", False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", False),
    ],
)
def test_an_answer_to_head_ends_with_its_head_whatever_length_it_names(said, reused):
    status, _, _, body, told, again = outcome_of([said], method="HEAD")
    assert (status, body, told, again) == (200, b"", "whole", reused)


MAYBE = Outcome.MAYBE
LOST = Outcome.LOST
BROKEN = [
    (b"", "eof", (MAYBE, "eof")),
    (b"", "reset", (MAYBE, "reset")),
    (b"HTTP/1.1 200 OK\r\nContent-Le", "eof", (MAYBE, "eof")),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n", "reset", (MAYBE, "reset")),
    (b"HTTP/1.1 100 Continue\r\n\r\n", "eof", (MAYBE, "eof")),
    (b"SSH-2.0-OpenSSH_9.6\r\n", None, (MAYBE, "bad_response")),
    (b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n", None, (MAYBE, "bad_response")),
    (b"HTTP/1.1 099 Low\r\nContent-Length: 0\r\n\r\n", None, (MAYBE, "bad_response")),
    (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n", None, (MAYBE, "bad_response")),
    (b"HTTP/1.1 200 OK\r\nBad Name: 1\r\n\r\n", None, (MAYBE, "bad_response")),
    (b"HTTP/1.1 200 OK\r\nA: 1\r\n folded\r\n\r\n", None, (MAYBE, "bad_response")),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", None, (MAYBE, "bad_response")),
    (b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", None, (MAYBE, "bad_response")),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", None, (MAYBE, "bad_response")),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nabc", None, (MAYBE, "bad_response")),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n1\r\na\r\n", None, (MAYBE, "bad_response")),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel", "eof", (LOST, "eof")),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel", "reset", (LOST, "reset")),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n", "eof", (LOST, "eof")),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\nzz\r\n", None, (LOST, "bad_response")),
    (b"HTTP/1.1 200 OK\r\n\r\nhel", "reset", (LOST, "reset")),
]


@pytest.mark.parametrize(("said", "end", "told"), BROKEN)
def test_a_broken_answer_is_maybe_before_its_head_and_lost_after_it(said, end, told):
    _, _, _, body, was_told, reused = outcome_of([said], end=end)
    assert (was_told, reused) == (told, False)
    assert body == (b"hel" if told[0] is LOST else b""), "what did arrive is handed out first"


@given(st.sampled_from(WHOLE + [(said, end, None, None) for said, end, _ in BROKEN]), st.data())
def test_where_the_network_cuts_an_answer_changes_nothing(case, data):
    said, end, *_ = case
    cuts = sorted(data.draw(st.sets(st.integers(0, len(said)), max_size=8)))
    pieces = [said[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(said)], strict=True)]
    at_once = outcome_of([said], end=end)
    cut_up = outcome_of(pieces, end=end)
    if at_once[4] != "whole" or at_once[5]:
        assert cut_up == at_once
    else:  # surplus that comes later meets an idle connection, which closes just the same
        assert cut_up[:5] == at_once[:5]


@given(
    st.lists(st.binary(max_size=40) | st.sampled_from([b"HTTP/1.1 200 OK\r\n", b"\r\n\r\n", b"\r\n", b"0"]), max_size=8)
)
def test_no_bytes_from_upstream_do_anything_but_answer_fail_or_wait(pieces):
    *_, told, _ = outcome_of(pieces)
    assert told in {"whole", "waiting"} or told[0] in {MAYBE, LOST}


@pytest.mark.parametrize(
    "pieces",
    [
        [b"HTTP/1.1 200 OK\r\n" + b"X: 0123456789abcdef\r\n" * 20 + b"Content-Length: 0\r\n\r\n"],
        [b"HTTP/1.1 200 OK\r\n"] + [b"X: 0123456789abcdef\r\n"] * 20,
        [b"HTTP/1.1 200 " + b"x" * 300],
        [b"HTTP/1.1 200 OK\r\nX: "] + [b"y" * 20] * 20,
        [b"HTTP/1.1 100 Continue\r\n\r\n"] * 20,
    ],
)
def test_a_head_that_is_too_large_is_refused_however_it_comes(pieces):
    assert outcome_of(pieces, max_head_bytes=256)[4] == (MAYBE, "too_large")
    assert outcome_of(pieces, max_head_bytes=0)[4] in {"whole", "waiting"}


@pytest.mark.parametrize("flood", [b"T: 0123456789abcdef\r\n", b"0123456789abcdef" * 4])
def test_a_flood_of_trailers_is_cut_off(flood):
    start = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nA: "
    assert outcome_of([start] + [flood] * 20, max_head_bytes=256)[4] == (LOST, "too_large")


def test_a_large_body_in_small_chunks_is_no_flood():
    start = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    *_, body, told, _ = outcome_of([start] + [b"1\r\nx\r\n"] * 500 + [b"0\r\n\r\n"], max_head_bytes=256)
    assert (len(body), told) == (500, "whole")


def test_a_connection_is_used_for_one_answer_after_the_other():
    async def story():
        connection, transport, idle = connected()
        for number in range(3):
            exchange = connection.send(ask("http://agent/", body=b"%d" % number), b"head ")
            connection.data_received(b"HTTP/1.1 20%d OK\r\nN: %d\r\nContent-Length: 1\r\n\r\n%d" % ((number,) * 3))
            assert len(idle) == number + 1
            await exchange.head()
            assert (exchange.status, exchange.headers[0]) == (200 + number, (b"N", b"%d" % number))
            assert await exchange.read(10) == b"%d" % number
        assert b"".join(transport.written) == b"head 0head 1head 2"
        connection.close()

    run(story())


@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_after_head_the_next_answer_is_read_with_its_body(method):
    async def story():
        connection, _, _ = connected()
        first = connection.send(ask("http://agent/", method="HEAD"), b"")
        connection.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n")
        assert await first.read(0) == b""
        second = connection.send(ask("http://agent/"), b"")
        connection.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab")
        assert await second.read(0) == b"ab"
        connection.close()

    run(story())


@pytest.mark.parametrize("surprise", ["data", "eof"])
def test_an_idle_connection_that_hears_anything_is_closed(surprise):
    async def story():
        connection, transport, _ = connected()
        exchange = connection.send(ask("http://agent/"), b"")
        connection.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        now = asyncio.get_running_loop().time()
        assert connection.fresh(now)
        if surprise == "data":
            connection.data_received(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
        else:
            connection.eof_received()
        assert not connection.fresh(now)
        assert transport.gone
        assert await exchange.read(0) == b"", "the answer before it is whole all the same"

    run(story())


def test_an_idle_connection_is_fresh_for_its_keep_alive_and_not_longer():
    async def story():
        connection, _, _ = connected()
        connection.send(ask("http://agent/"), b"")
        connection.data_received(b"HTTP/1.1 200 OK\r\nKeep-Alive: timeout=3\r\nContent-Length: 0\r\n\r\n")
        now = asyncio.get_running_loop().time()
        assert connection.fresh(now + 1.9)
        assert not connection.fresh(now + 2)
        connection.close()

    run(story())


def silence(*, said=(), pulse_at=(), idle_timeout=10.0):
    """Say nothing but `said` [(at, bytes)], touch the pulse at its times, and tell when and how the call ended."""

    async def story():
        loop = asyncio.get_running_loop()
        connection, _, _ = connected()
        pulse = Pulse()
        exchange = connection.send(ask("http://agent/", idle_timeout=idle_timeout, pulse=pulse), b"")
        for at, data in said:
            loop.call_at(at, connection.data_received, data)
        for at in pulse_at:
            loop.call_at(at, pulse.touch)
        try:
            async with asyncio.timeout(100):
                await exchange.head()
                await exchange.read(0)
        except UpstreamFailure as failure:
            return loop.time(), failure.outcome, failure.reason
        except TimeoutError:
            await exchange.aclose()
            return "still waiting"
        return "whole"

    return run(story())


HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"


def test_silence_before_the_head_ends_a_call_as_maybe():
    assert silence() == (pytest.approx(10, abs=0.001), MAYBE, "idle_timeout")


def test_silence_after_the_head_ends_a_call_as_lost():
    assert silence(said=[(3, HEAD)]) == (pytest.approx(13, abs=0.001), LOST, "idle_timeout")


def test_any_byte_begins_the_idle_window_anew():
    assert silence(said=[(9, HEAD), (18, b"x"), (27, b"x")]) == (pytest.approx(37, abs=0.001), LOST, "idle_timeout")


def test_a_slow_answer_is_never_cut_while_it_moves():
    assert silence(said=[(0, HEAD)] + [(9 * step, b"x" * 10) for step in range(1, 11)]) == "whole"


def test_a_pulse_keeps_a_silent_call_open_scenario_37():
    assert silence(pulse_at=[9, 18, 27]) == (pytest.approx(37, abs=0.001), MAYBE, "idle_timeout")


def test_a_pulse_from_before_the_window_changes_nothing():
    assert silence(said=[(5, HEAD)], pulse_at=[1]) == (pytest.approx(15, abs=0.001), LOST, "idle_timeout")


def test_without_an_idle_timeout_a_call_waits():
    assert silence(idle_timeout=0) == "still waiting"


def test_each_call_of_a_connection_has_its_own_idle_window():
    async def story():
        loop = asyncio.get_running_loop()
        connection, _, _ = connected()
        ended = []
        for idle_timeout in (50.0, 10.0):
            exchange = connection.send(ask("http://agent/", idle_timeout=idle_timeout), b"")
            if not ended:
                connection.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                await exchange.read(0)
            ended.append(loop.time())
        with pytest.raises(UpstreamFailure):
            await exchange.head()
        assert loop.time() == pytest.approx(10, abs=0.001)

    run(story())


def test_a_reader_that_lags_stops_the_reading_and_its_delay_is_not_upstreams_silence():
    async def story():
        connection, transport, _ = connected()
        exchange = connection.send(ask("http://agent/", idle_timeout=10.0), b"")
        connection.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n\r\n")
        connection.data_received(b"x" * (HIGH_WATER - 1))
        assert transport.reading
        connection.data_received(b"x")
        assert not transport.reading
        await asyncio.sleep(55)
        chunks = exchange.chunks()
        assert len(await anext(chunks)) == HIGH_WATER
        assert transport.reading
        with pytest.raises(UpstreamFailure) as failure:
            await anext(chunks)
        assert failure.value.reason == "idle_timeout"
        assert asyncio.get_running_loop().time() == pytest.approx(65, abs=0.001)

    run(story())


def test_an_idle_connection_reads_again_even_if_its_last_answer_was_never_read():
    async def story():
        connection, transport, idle = connected()
        exchange = connection.send(ask("http://agent/"), b"")
        connection.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 1500\r\n\r\n" + b"x" * 1400)
        assert not transport.reading
        connection.data_received(b"x" * 100)  # what was already on its way
        assert idle
        assert transport.reading
        assert len(await exchange.read(0)) == 1500
        connection.close()

    run(story())


def test_a_body_beyond_the_readers_limit_is_lost_and_costs_the_connection():
    async def story():
        connection, transport, _ = connected()
        exchange = connection.send(ask("http://agent/"), b"")
        connection.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n" + b"x" * 101)
        with pytest.raises(UpstreamFailure) as failure:
            await exchange.read(100)
        assert (failure.value.outcome, failure.value.reason) == (LOST, "too_large")
        assert transport.gone

    run(story())


def test_a_body_of_exactly_the_readers_limit_is_read():
    assert outcome_of([b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"])[3] == b"abc"


def test_a_closed_answer_gives_nothing_more():
    async def story():
        connection, transport, _ = connected()
        exchange = connection.send(ask("http://agent/"), b"")
        connection.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n" + b"x" * 101)
        await exchange.aclose()
        await exchange.aclose()
        assert transport.gone
        with pytest.raises(UpstreamFailure) as failure:
            await anext(exchange.chunks())
        assert (failure.value.outcome, failure.value.reason) == (LOST, "closed")

    run(story())
