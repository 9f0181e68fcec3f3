"""The ends of connections and of the pool: deaths at awkward moments, cancelled calls, closing, look-ups."""

import asyncio

import pytest
from forward.scripted_upstream import Gate, answer_all, fetch, settled

from proxy.core.addresses import AddressPolicy
from proxy.forward import Outcome, UpstreamFailure
from proxy.forward.pool import Pool


class HeldUpPool(Pool):
    """Stops between a connection's making and its first use."""

    def __init__(self, policy):
        super().__init__(policy)
        self.made = asyncio.Queue()
        self.go = asyncio.Event()

    async def _dial(self, place, addresses, deadline):
        connection = await super()._dial(place, addresses, deadline)
        self.made.put_nowait(connection)
        await self.go.wait()
        return connection


@pytest.mark.parametrize("moment", ["closing", "closed"])
async def test_a_connection_that_ends_before_its_first_use_is_not_sent(serve, moment):
    peer = await serve(answer_all)
    pool = HeldUpPool(AddressPolicy.parse(["127.0.0.0/8"]))
    call = asyncio.create_task(fetch(pool, peer.url(), body=b"1"))
    connection = await pool.made.get()
    connection.close()
    if moment == "closed":
        await settled(lambda: connection.closed)
    pool.go.set()
    with pytest.raises(UpstreamFailure) as failure:
        await call
    assert (failure.value.outcome, failure.value.reason) == (Outcome.NOT_SENT, "eof")
    await pool.aclose()
    assert not pool._origins


async def test_a_connection_made_while_the_pool_is_closed_is_closed_too(serve):
    peer = await serve(answer_all)
    pool = HeldUpPool(AddressPolicy.parse(["127.0.0.0/8"]))
    call = asyncio.create_task(fetch(pool, peer.url(), body=b"1"))
    connection = await pool.made.get()
    closing = asyncio.create_task(pool.aclose())
    await settled(lambda: pool._closing)
    pool.go.set()
    with pytest.raises(UpstreamFailure) as failure:
        await call
    assert (failure.value.outcome, failure.value.reason) == (Outcome.NOT_SENT, "closed")
    await closing
    assert connection.closed


async def test_a_cancelled_call_closes_its_connection_and_frees_its_place(make_pool, serve):
    arrived, closed = asyncio.Event(), asyncio.Event()

    async def script(line):
        _, body = await line.request()
        if body == b"ok":
            await line.answer(body)
            return
        arrived.set()
        await line.closed_by_proxy()
        closed.set()

    peer = await serve(script)
    pool = make_pool(connections_per_origin=1)
    call = asyncio.create_task(fetch(pool, peer.url(), body=b"slow"))
    await arrived.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await closed.wait()
    assert await fetch(pool, peer.url(), body=b"ok") == b"ok"


async def test_calls_cancelled_at_any_moment_leave_nothing_behind(make_pool, serve):
    peer = await serve(answer_all)
    pool = make_pool(connections_per_origin=2)
    for turns in range(40):
        calls = [asyncio.create_task(fetch(pool, peer.url(), body=b"x")) for _ in range(4)]
        for _ in range(turns):
            await asyncio.sleep(0)
        for call in calls[::2]:
            call.cancel()
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert results[1::2] == [b"x", b"x"]
        assert sum(origin.slots for origin in pool._origins.values()) <= 2
    await pool.aclose()
    assert not pool._origins


async def test_closing_the_pool_ends_every_call_and_refuses_new_ones(make_pool, serve):
    gate = Gate()
    peer = await serve(gate)
    pool = make_pool(connections_per_origin=1)
    running = asyncio.create_task(fetch(pool, peer.url(), body=b"1"))
    await gate.seen.get()
    waiting = asyncio.create_task(fetch(pool, peer.url(), body=b"2"))
    (origin,) = pool._origins.values()
    await settled(lambda: origin.waiters)
    await pool.aclose()
    late = asyncio.create_task(fetch(pool, peer.url(), body=b"3"))
    failures = await asyncio.gather(running, waiting, late, return_exceptions=True)
    assert [failure.outcome for failure in failures] == [Outcome.MAYBE, Outcome.NOT_SENT, Outcome.NOT_SENT]
    assert {failure.reason for failure in failures} == {"closed"}
    await pool.aclose()


async def test_closing_the_pool_ends_a_look_up(make_pool):
    asked = asyncio.Event()

    async def lookup(host):
        asked.set()
        await asyncio.Event().wait()

    pool = make_pool(lookup=lookup)
    call = asyncio.create_task(fetch(pool, "http://agent.test/"))
    await asked.wait()
    await pool.aclose()
    with pytest.raises(UpstreamFailure) as failure:
        await call
    assert failure.value.outcome is Outcome.NOT_SENT


async def test_a_name_is_looked_up_once_within_its_ttl(make_pool, serve):
    asked = []

    async def lookup(host):
        asked.append(host)
        return ["127.0.0.1"]

    peer = await serve(answer_all)
    remembering, forgetting = make_pool(lookup=lookup), make_pool(lookup=lookup, dns_ttl=0)
    for _ in range(3):
        await fetch(remembering, peer.url(host="agent.test"))
    assert len(asked) == 1
    for _ in range(3):
        await fetch(forgetting, peer.url(host="agent.test"))
    assert len(asked) == 4


async def test_the_systems_own_resolver_knows_localhost(make_pool, serve):
    peer = await serve(answer_all)
    assert await fetch(make_pool(allow=("127.0.0.0/8", "::1/128")), peer.url(host="localhost"), body=b"x") == b"x"
