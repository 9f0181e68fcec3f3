"""Four ways in which a queue like this one is known to lose work, each shown to be closed.

The scenarios say what happens instead; here stands what must never happen.
"""

import asyncio
import json

import pytest
from simulation.scripted import REFUSED, RESET
from simulation.world import Reacts, World, at, clock, fails, message, simulated

from proxy.core.deferral import ACTIVE, Deferral, State
from proxy.core.lifecycle import Desired
from proxy.forward import UpstreamFailure
from proxy.store import Requeue

GATEWAY = Reacts(status=502, body=b"bad gateway")


async def all_of(world: World) -> list[Deferral]:
    return list(await world.store.deferrals(workspace_id="ws"))


# A replayed item that meets a busy target must not be taken for its own duplicate, and then for done.


@pytest.mark.parametrize("meets", [fails(REFUSED), fails(RESET), GATEWAY], ids=["refused", "reset", "gateway"])
@simulated
async def test_a_replay_that_meets_a_busy_target_keeps_its_own_row_until_it_is_delivered(
    world: World, meets: Reacts
) -> None:
    await world.given(sign=-1)
    await world.start()
    world.agent().reacts.queue(fails(REFUSED), meets, meets, meets)
    reply = await world.call(body=message("keep me", message_id="m-1"))
    assert reply.status == 202
    seen: list[tuple[str, State]] = []

    def looked() -> bool:
        return len(world.agent().heard) >= 5

    while not looked():
        seen += [(row.id, row.state) for row in await all_of(world)]
        await asyncio.sleep(0.01)
        assert clock() < 60
    assert {receipt for receipt, _ in seen} == {reply.receipt}, "one row, under its own id"
    assert {state for _, state in seen} <= ACTIVE
    await world.eventually(lambda: world.route().size.rows == 0)
    [row] = await all_of(world)
    assert (row.id, row.state) == (reply.receipt, State.COMPLETED)
    assert world.agent().texts == ["keep me"] * 5
    answer = (await world.deferral(reply.receipt)).answer
    assert answer is not None
    assert answer.status == 200


@simulated
async def test_the_same_message_sent_again_in_the_middle_of_its_replay_joins_it_and_completes_nothing(
    world: World,
) -> None:
    await world.given(sign=-1)
    await world.start()
    world.agent().reacts.queue(fails(REFUSED), fails(REFUSED, after=5.0))
    body = message("keep me", message_id="m-1")
    first = await world.call(body=body)
    await world.eventually(lambda: len(world.agent().heard) == 2)
    again = await world.call(body=body)
    assert (again.status, again.receipt) == (202, first.receipt)
    assert (await world.deferral(first.receipt)).state is State.LEASED
    await world.eventually(lambda: world.route().size.rows == 0)
    assert [row.state for row in await all_of(world)] == [State.COMPLETED]
    assert world.agent().texts == ["keep me"] * 3


# A crash between claim and end must neither strand the row nor its idempotency key.


@simulated
async def test_what_a_dead_proxy_had_claimed_is_delivered_and_its_key_leads_to_the_answer(world: World) -> None:
    await world.given(sign=-1)
    await world.start()
    world.agent().reacts.queue(fails(REFUSED), fails(RESET, after=1000.0))
    body = message("claimed", message_id="m-1")
    first = await world.call(body=body)
    await world.eventually(lambda: len(world.agent().heard) == 2)
    claimed = await world.deferral(first.receipt)
    assert claimed.state is State.LEASED
    assert claimed.lease is not None, "whoever claims has a lease, and a lease ends"
    await world.crash()
    await world.start()
    again = await world.call(body=body)
    assert again.receipt == first.receipt
    await world.eventually(lambda: world.route().size.rows == 0)
    done = await world.call(body=body)
    assert (done.status, done.receipt) == (200, first.receipt)
    assert [heard.header("Holdfast-Redelivery") for heard in world.agent().heard] == [None, None, "maybe"]


@simulated
async def test_a_claim_of_another_holder_that_is_never_heard_of_again_ends_by_itself(world: World) -> None:
    await world.given(sign=-1)
    await world.start()
    world.agent().reacts.queue(fails(REFUSED), fails(RESET, after=1000.0))
    reply = await world.call()
    await world.eventually(lambda: len(world.agent().heard) == 2)
    await world.crash()
    await world.store.open()
    # As if that proxy had been another one: nobody takes its leases back at this start.
    lease = (await world.deferral(reply.receipt)).lease
    assert lease is not None
    requeue = Requeue(next_attempt_at=at(clock()), attempts=1, maybe=True)
    assert await world.store.release(reply.receipt, lease.token, requeue)
    foreign = type(lease)(token="gone", owner="a proxy that is gone", until=at(clock() + 60))
    assert len(await world.store.claim("ws", leases=[foreign], now=at(clock()))) == 1
    await world.start()
    await world.until(clock() + 50)
    assert (await world.deferral(reply.receipt)).state is State.LEASED
    await world.eventually(lambda: world.route().size.rows == 0)
    assert (await world.deferral(reply.receipt)).state is State.COMPLETED


# A reason must be kept where there was no error before: `test_tending.py` drops a row without one.
# Whatever ends must say when it ended, however it did.


@simulated
async def test_every_end_has_its_time_and_shows_it(world: World) -> None:
    await world.given(desired=Desired.PAUSED)
    await world.given("dying", sign=-1)
    await world.start({"queue.ttl": 3700, "queue.attempts": 1})
    ends: dict[str, str] = {}
    reset: UpstreamFailure = RESET
    world.agent("dying").reacts.usual = fails(reset)
    ends["dead_lettered"] = (await world.call("dying")).receipt
    await world.eventually(lambda: world.route("dying").size.rows == 0)
    for state in ("dropped", "cancelled"):
        ends[state] = (await world.call(body=message(message_id=state))).receipt
    await world.request("POST", f"/queue/{ends['cancelled']}/cancel")
    await world.until(3610)
    ends["expired"] = (await world.call(body=message(message_id="expired"))).receipt
    assert (await world.request("POST", "/queue/drop-stale")).json == {"dropped": 1}
    await world.until(3610 + 3710)
    shown = (await world.request("GET", "/queue")).json["items"]
    assert {item["status"]: item["queue_id"] for item in shown} == ends
    assert [item for item in shown if item["completed_at"] is None or not item["last_error"]] == []
    states = {state.value for state in State} - {state.value for state in ACTIVE} - {State.COMPLETED.value}
    assert set(ends) == states, json.dumps(ends)
