"""Which connection a request gets: reuse, limits, waiting in line, and the end of them all."""

import asyncio

import pytest
from forward.scripted_upstream import Gate, answer_all, fetch, settled

from proxy.forward import Outcome, UpstreamFailure
from proxy.forward.connection import Connection


async def test_one_connection_serves_call_after_call(pool, serve):
    peer = await serve(answer_all)
    for number in range(5):
        assert await fetch(pool, peer.url(f"/{number}"), body=b"%d" % number) == b"%d" % number
    assert peer.accepted == 1


async def test_concurrent_calls_get_connections_of_their_own(pool, serve):
    arrived = asyncio.Barrier(3)

    async def together(line):
        _, body = await line.request()
        await arrived.wait()
        await line.answer(body)

    peer = await serve(together)
    bodies = await asyncio.gather(*(fetch(pool, peer.url(), body=b"%d" % number) for number in range(3)))
    assert bodies == [b"0", b"1", b"2"]
    assert peer.accepted == 3


@pytest.mark.parametrize("fields", [b"Connection: close\r\n", b"Keep-Alive: timeout=1\r\n"])
async def test_a_connection_that_upstream_will_not_keep_is_not_kept(pool, serve, fields):
    async def script(line):
        await line.request()
        await line.answer(b"ok", fields=fields)
        await line.closed_by_proxy()

    peer = await serve(script)
    for _ in range(2):
        assert await fetch(pool, peer.url()) == b"ok"
    assert peer.accepted == 2


async def test_without_keepalive_every_call_connects(make_pool, serve):
    peer = await serve(answer_all)
    pool = make_pool(keepalive=0)
    for _ in range(2):
        await fetch(pool, peer.url())
    assert peer.accepted == 2


async def test_an_unused_connection_is_closed_after_its_keepalive(make_pool, serve):
    closed = asyncio.Event()

    async def script(line):
        await line.request()
        await line.answer(b"ok")
        await line.closed_by_proxy()
        closed.set()

    peer = await serve(script)
    pool = make_pool(keepalive=0.05)
    await fetch(pool, peer.url())
    await closed.wait()


async def test_a_connection_that_upstream_closed_meanwhile_is_not_used(pool, serve):
    closed = asyncio.Event()

    async def script(line):
        await line.request()
        await line.answer(b"ok")
        line.writer.close()
        await line.writer.wait_closed()
        closed.set()

    peer = await serve(script)
    for number in range(1, 4):
        assert await fetch(pool, peer.url(), body=b"x") == b"ok"
        await closed.wait()
        closed.clear()
        assert peer.accepted == number


async def test_a_second_answer_nobody_asked_for_reaches_nobody(pool, serve):
    said = asyncio.Event()

    async def script(line):
        await line.request()
        await line.answer(b"mine")
        await line.answer(b"forged")
        said.set()
        await line.closed_by_proxy()

    peer = await serve(script)
    for _ in range(2):
        assert await fetch(pool, peer.url()) == b"mine"
        await said.wait()
        said.clear()
    assert peer.accepted == 2


async def test_an_answer_that_overtakes_its_request_costs_the_connection(pool, serve):
    async def script(line):
        await line.reader.readuntil(b"\r\n\r\n")
        await line.answer(b"too large")
        await line.closed_by_proxy()

    peer = await serve(script)
    for _ in range(2):
        assert await fetch(pool, peer.url(), body=b"x" * 20_000_000) == b"too large"
    assert peer.accepted == 2


async def lookup_here(host):
    return ["127.0.0.1"]


async def test_a_call_beyond_the_limit_that_finds_no_connection_in_time_is_not_sent(make_pool, serve):
    gate = Gate()
    peer = await serve(gate)
    pool = make_pool(connections_per_origin=1, pool_wait=0.05)
    first = asyncio.create_task(fetch(pool, peer.url(), body=b"1"))
    await gate.seen.get()
    with pytest.raises(UpstreamFailure) as failure:
        await fetch(pool, peer.url(), body=b"2")
    assert (failure.value.outcome, failure.value.reason) == (Outcome.NOT_SENT, "pool")
    gate.go.release()
    assert await first == b"1"
    gate.go.release()
    assert await fetch(pool, peer.url(), body=b"3") == b"3"
    assert peer.accepted == 1


async def test_those_who_wait_are_served_in_order_over_the_same_connection(make_pool, serve):
    gate = Gate()
    peer = await serve(gate)
    pool = make_pool(connections_per_origin=1)
    calls = [asyncio.create_task(fetch(pool, peer.url(), body=b"%d" % number)) for number in range(4)]
    for number in range(4):
        assert await gate.seen.get() == b"%d" % number
        gate.go.release()
        assert await calls[number] == b"%d" % number
    assert peer.accepted == 1


async def test_a_lost_connection_frees_a_place_for_who_waits(make_pool, serve):
    arrived, leave = asyncio.Event(), asyncio.Event()

    async def script(line):
        _, body = await line.request()
        arrived.set()
        if body == b"1":
            await leave.wait()
        else:
            await line.answer(body)

    peer = await serve(script)
    pool = make_pool(connections_per_origin=1)
    first = asyncio.create_task(fetch(pool, peer.url(), body=b"1"))
    await arrived.wait()
    second = asyncio.create_task(fetch(pool, peer.url(), body=b"2"))
    (origin,) = pool._origins.values()
    await settled(lambda: origin.waiters)
    leave.set()
    with pytest.raises(UpstreamFailure, match="eof"):
        await first
    assert await second == b"2"


async def test_a_refused_connection_frees_its_place(make_pool, refused_port):
    pool = make_pool(connections_per_origin=1)
    url = f"http://127.0.0.1:{refused_port}/"
    failures = await asyncio.gather(*(fetch(pool, url) for _ in range(5)), return_exceptions=True)
    assert [failure.reason for failure in failures] == ["refused"] * 5
    assert not pool._origins, "an origin without connections is forgotten"


async def test_whoever_leaves_the_line_keeps_nobody_from_being_served(make_pool, serve):
    gate = Gate()
    peer = await serve(gate)
    pool = make_pool(connections_per_origin=1)
    calls = [asyncio.create_task(fetch(pool, peer.url(), body=b"%d" % number)) for number in range(4)]
    assert await gate.seen.get() == b"0"
    calls[1].cancel()
    gate.go.release()
    await calls[0]
    assert await gate.seen.get() == b"2"
    gate.go.release()
    assert await calls[2] == b"2"
    gate.go.release()
    assert await calls[3] == b"3"


async def test_a_connection_granted_to_somebody_who_just_left_goes_to_the_next(make_pool, serve):
    gate = Gate()
    peer = await serve(gate)
    pool = make_pool(connections_per_origin=1)
    first = asyncio.create_task(fetch(pool, peer.url(), body=b"0"))
    await gate.seen.get()
    (origin,) = pool._origins.values()
    leaver = asyncio.create_task(fetch(pool, peer.url(), body=b"1"))
    heir = asyncio.create_task(fetch(pool, peer.url(), body=b"2"))
    await settled(lambda: len(origin.waiters) == 2)
    (connection,) = origin.open
    hand_over = connection.on_idle

    def hand_over_and_cancel(idle):
        hand_over(idle)
        leaver.cancel()  # before it has run again

    connection.on_idle = hand_over_and_cancel
    gate.go.release()
    await first
    connection.on_idle = hand_over
    assert await gate.seen.get() == b"2"
    gate.go.release()
    assert await heir == b"2"
    assert leaver.cancelled()
    assert (origin.slots, peer.accepted) == (1, 1)


async def test_somebody_who_left_the_line_is_passed_over_before_he_even_knows(make_pool, serve):
    gate = Gate()
    peer = await serve(gate)
    pool = make_pool(connections_per_origin=1)
    first = asyncio.create_task(fetch(pool, peer.url(), body=b"0"))
    await gate.seen.get()
    (origin,) = pool._origins.values()
    leaver = asyncio.create_task(fetch(pool, peer.url(), body=b"1"))
    await settled(lambda: origin.waiters)
    (connection,) = origin.open
    hand_over = connection.on_idle

    def cancel_and_hand_over(idle):
        leaver.cancel()
        hand_over(idle)

    connection.on_idle = cancel_and_hand_over
    gate.go.release()
    await first
    with pytest.raises(asyncio.CancelledError):
        await leaver
    assert origin.idle == [connection]


@pytest.mark.parametrize("order", ["given, then dead", "dead, then given"])
async def test_a_connection_that_dies_while_it_is_handed_over_costs_the_next_one_nothing(make_pool, serve, order):
    gate = Gate()
    peer = await serve(gate)
    pool = make_pool(connections_per_origin=1)
    first = asyncio.create_task(fetch(pool, peer.url(), body=b"0"))
    await gate.seen.get()
    (origin,) = pool._origins.values()
    heir = asyncio.create_task(fetch(pool, peer.url(), body=b"1"))
    await settled(lambda: origin.waiters)
    (connection,) = origin.open
    hand_over = connection.on_idle

    def hand_over_and_die(idle):
        for step in (hand_over, Connection.close) if order == "given, then dead" else (Connection.close, hand_over):
            step(idle)

    connection.on_idle = hand_over_and_die
    gate.go.release()
    await first
    gate.go.release()
    assert await heir == b"1"
    assert peer.accepted == 2
    assert list(pool._origins.values()) == [origin], "the heir's origin is the one that is swept and closed"


async def test_a_connection_to_an_address_the_name_has_left_is_not_handed_on(make_pool, serve):
    gate = Gate()
    peer = await serve(gate)
    addresses = ["127.0.0.1"]

    async def lookup(host):
        return tuple(addresses)

    pool = make_pool(connections_per_origin=1, dns_ttl=0, lookup=lookup)
    first = asyncio.create_task(fetch(pool, peer.url(host="agent.test"), body=b"0"))
    await gate.seen.get()
    (origin,) = pool._origins.values()
    addresses[:] = ["127.0.0.2"]
    second = asyncio.create_task(fetch(pool, peer.url(host="agent.test"), body=b"1"))
    await settled(lambda: origin.waiters)
    gate.go.release()
    await first
    with pytest.raises(UpstreamFailure, match="refused"):
        await second
    assert not pool._origins


async def test_waiting_in_line_uses_up_nothing_of_the_time_to_connect(make_pool, serve):
    gate = Gate()
    peer = await serve(gate)
    pool = make_pool(connections_per_origin=1, dns_ttl=0, lookup=lookup_here)
    first = asyncio.create_task(fetch(pool, peer.url(host="agent.test"), body=b"0"))
    await gate.seen.get()
    second = asyncio.create_task(fetch(pool, peer.url(host="agent.test"), body=b"1", connect_timeout=1.0))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1.1):
            await gate.seen.get()
    first.cancel()  # its connection is closed, the second must connect
    assert await gate.seen.get() == b"1"
    gate.go.release()
    gate.go.release()
    assert await second == b"1"
