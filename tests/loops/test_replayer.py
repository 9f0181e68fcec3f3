"""Replaying: in which order, how many at once, and what becomes of a deferral whose try fails."""

import asyncio
import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from simulation.scripted import REFUSED, RESET, Reacts
from simulation.suspects import nobody_answers
from simulation.world import Reply, World, at, clock, fails, message, simulated

from proxy.core.deferral import Lease, State
from proxy.core.lifecycle import Desired, Status
from proxy.core.liveness import ProbeState
from proxy.core.outcome import Outcome
from proxy.core.restart import Trigger
from proxy.forward import UpstreamFailure
from proxy.loops.beats import Beat
from proxy.telemetry import EventName

IDLE = UpstreamFailure(Outcome.MAYBE, "idle_timeout")


async def away(world: World, **known: Any) -> None:
    """Start a proxy whose workspace runs but does not listen yet; its readiness probe says so."""
    await world.given(**{"status": Status.STARTING, "sign": -1, **known})
    await world.start({"queue.sweep": 10_000})
    world.machine().ready.usual = False
    world.agent().reacts.usual = fails()


async def defer(world: World, text: str, context_id: str | None = None, **headers: str) -> str:
    reply = await world.call(body=message(text, message_id=text, context_id=context_id), **headers)
    assert reply.status == 202, reply
    return reply.receipt


async def back(world: World, reaction: Reacts | None = None) -> list[str]:
    """Let the agent listen, tell that it is ready, wait until nothing waits; return what it then heard, in order."""
    before = len(world.agent().heard)
    world.agent().reacts.usual = reaction or Reacts()
    await world.app.beats.take(world.route(), Beat(status="ready"))
    await world.app.readiness.settle(world.route())
    await world.eventually(lambda: world.route().size.rows == 0, within=1000, step=0.5)
    return world.agent().texts[before:]


async def state(world: World, receipt: str) -> State:
    return (await world.deferral(receipt)).state


async def get_task(world: World, reply: Reply) -> Any:
    asked = {"jsonrpc": "2.0", "id": 1, "method": "tasks/get", "params": {"id": reply.json["result"]["id"]}}
    return (await world.call(body=json.dumps(asked).encode())).json["result"]


# --- order -----------------------------------------------------------------------------------------------------------


@simulated
async def test_a_context_is_replayed_in_order_and_one_at_a_time(world: World) -> None:
    await away(world)
    for number in range(6):
        await defer(world, f"{number}", context_id="c")
    assert await back(world, Reacts(after=1.0)) == ["0", "1", "2", "3", "4", "5"]
    begun = [heard.at for heard in world.agent().heard[-6:]]
    assert [later - earlier for earlier, later in itertools.pairwise(begun)] == pytest.approx([1.0] * 5, abs=0.01)


@simulated
async def test_contexts_do_not_wait_for_each_other(world: World) -> None:
    await away(world)
    for number in range(3):
        for context in "abcd":
            await defer(world, f"{context}{number}", context_id=context)
    texts = await back(world, Reacts(after=1.0))
    for context in "abcd":
        assert [text for text in texts if text[0] == context] == [f"{context}{number}" for number in range(3)]
    assert world.agent().most_open > 1


@simulated
async def test_a_send_to_a_context_that_waits_is_put_behind_it(world: World) -> None:
    await away(world)
    await defer(world, "first", context_id="c")
    world.agent().reacts.usual = Reacts(after=1.0)
    late = await world.call(body=message("second", message_id="second", context_id="c"))
    other = await world.call(body=message("other", message_id="other", context_id="d"))
    assert (late.status, late.verdict, other.status) == (202, "busy; rule=order", 200)
    await world.eventually(lambda: world.route().size.rows == 0)
    assert [text for text in world.agent().texts[1:] if text != "other"] == ["first", "second"]
    assert (await world.call(body=message("third", message_id="third", context_id="c"))).status == 200


@simulated
async def test_scenario_41_the_higher_priority_goes_first_and_then_the_older(world: World) -> None:
    await away(world)
    for text, priority in (("a", "info"), ("b", "task"), ("c", "critical"), ("d", "task"), ("e", "critical")):
        await defer(world, text, Holdfast_Priority=priority)
    await world.app.beats.take(world.route(), Beat(max_concurrent=1))
    world.route().effective = replace(world.route().effective, max_concurrent=1)
    assert await back(world) == ["c", "e", "b", "d", "a"]


# --- how many at once ------------------------------------------------------------------------------------------------


@simulated
async def test_after_a_recovery_one_is_sent_then_two_then_four_up_to_the_capacity(world: World) -> None:
    await away(world)
    for number in range(20):
        await defer(world, f"{number}")
    await asyncio.sleep(0.1)
    await back(world, Reacts(after=10.0))
    begun = [round(heard.at) for heard in world.agent().heard[-20:]]
    rounds = [begun.count(moment) for moment in sorted(set(begun))]
    assert rounds == [1, 2, 8, 8, 1]  # each of the two that were answered together doubled it


@simulated
async def test_calls_in_flight_leave_less_room_for_replays(world: World) -> None:
    await away(world)
    for number in range(12):
        await defer(world, f"{number}")
    world.agent().reacts.usual = Reacts(after=30.0)
    direct = [asyncio.create_task(world.call(body=message(message_id=f"d{number}"))) for number in range(6)]
    await asyncio.sleep(0.1)
    await back(world, Reacts(after=5.0))
    await asyncio.gather(*direct)
    assert world.agent().most_open == 8


@simulated
async def test_a_failed_try_makes_the_start_slow_again(world: World) -> None:
    await away(world)
    for number in range(9):
        await defer(world, f"{number}")
    before = len(world.agent().heard)
    world.agent().reacts.queue(Reacts(after=1.0), *[fails(RESET, after=1.0)] * 2)
    await back(world, Reacts(after=1.0))
    begun = heard_at(world)[before:]
    together = [len(list(tries)) for _, tries in itertools.groupby(begun, key=lambda moment: round(moment, 2))]
    assert len(begun) == 9 + 2
    assert together[:4] == [1, 2, 1, 2]  # the two failed


@pytest.mark.parametrize("desired", [Desired.PAUSED, Desired.DRAINING])
@simulated
async def test_nothing_is_sent_to_a_parked_workspace(world: World, desired: Desired) -> None:
    await world.given(desired=desired)
    app = await world.start()
    receipt = await defer(world, "patience")
    await world.until(100)
    assert world.agent().heard == []
    await app.records.change(world.route(), lambda known: replace(known, desired=Desired.RUNNING))
    await world.eventually(lambda: world.route().size.rows == 0, within=11)  # the sweep sees it
    assert await state(world, receipt) is State.COMPLETED


# --- tries that fail -------------------------------------------------------------------------------------------------


def heard_at(world: World) -> list[float]:
    return [heard.at for heard in world.agent().heard]


@simulated
async def test_scenario_44_five_tries_that_may_have_arrived_are_the_last_and_the_task_says_why(world: World) -> None:
    await world.given(sign=-1)
    await world.start()
    world.agent().reacts.usual = fails(RESET)
    reply = await world.call()
    assert reply.status == 202
    await world.eventually(lambda: len(world.agent().heard) == 4)
    assert await state(world, reply.receipt) in {State.QUEUED, State.LEASED}
    await world.eventually(lambda: world.route().size.rows == 0)
    ended = await world.deferral(reply.receipt)
    assert (ended.state, ended.attempts) == (State.DEAD_LETTERED, 5)
    assert ended.last_error == "5 attempts used up: reset"
    assert len(world.agent().heard) == 5
    marks = [heard.header("Holdfast-Redelivery") for heard in world.agent().heard]
    assert marks == [None, "maybe", "maybe", "maybe", "maybe"]
    task = await get_task(world, reply)
    assert task["status"]["state"] == "failed"
    assert "5 attempts used up" in json.dumps(task)


@simulated
async def test_scenario_45_a_replay_that_meets_a_busy_workspace_waits_and_arrives_later(world: World) -> None:
    await world.given(sign=-1)
    app = await world.start()
    world.machine().stops.usual = world.machine().starts.usual = 3.0
    world.machine().ready.queue(*[False] * 10)
    await app.coordinator.on_demand(world.route(), Trigger.ADMIN, "", request_id=None)
    world.agent().reacts.usual = fails()
    receipt = await defer(world, "patience")
    await world.until(20)
    waiting = await world.deferral(receipt)
    assert (waiting.state in {State.QUEUED, State.LEASED}, waiting.attempts, waiting.maybe) == (True, 0, False)
    assert 0 < len(world.agent().heard) < 12
    world.agent().reacts.usual = Reacts()
    await world.eventually(lambda: world.route().size.rows == 0)
    assert world.agent().texts[-1] == "patience"
    assert await state(world, receipt) is State.COMPLETED


@simulated
async def test_tries_that_send_nothing_never_use_a_deferral_up_and_come_less_and_less_often(world: World) -> None:
    await away(world)
    receipt = await defer(world, "patience")
    await world.until(3600)
    waiting = await world.deferral(receipt)
    assert (waiting.state, waiting.attempts, waiting.maybe) == (State.QUEUED, 0, False)
    tries = heard_at(world)
    assert waiting.tries == len(tries) - 1  # the first was the caller's own
    pauses = [later - earlier for earlier, later in itertools.pairwise(tries)]
    assert max(pauses) <= 60.1
    assert len([pause for pause in pauses[10:] if pause > 10]) > 10
    assert await back(world) == ["patience"]


@simulated
async def test_scenario_48_a_gateway_s_error_for_a_living_workspace_waits_5_s_and_ends_after_180_s(
    world: World,
) -> None:
    await world.given()
    app = await world.start()
    world.agent().reacts.usual = Reacts(status=502, body=b"bad gateway")
    world.machine().says.usual = ProbeState.NOT_RUNNING

    async def beating() -> None:
        while True:
            await app.beats.take(world.route(), Beat())
            await asyncio.sleep(5)

    beats = asyncio.create_task(beating())
    await asyncio.sleep(0)
    reply = await world.call()
    assert (reply.status, reply.verdict) == (202, "busy; rule=recent_heartbeat")
    first = await world.deferral(reply.receipt)
    await world.until(150)
    waiting = await world.deferral(reply.receipt)
    assert (waiting.state in {State.QUEUED, State.LEASED}, waiting.attempts) == (True, first.attempts)
    await world.eventually(lambda: world.route().size.rows == 0, within=120)
    beats.cancel()
    ended = await world.deferral(reply.receipt)
    assert (ended.state, ended.last_error) == (
        State.DEAD_LETTERED,
        "gateway answers for 180 s: upstream answered 502",
    )
    assert clock() > 180
    tries = heard_at(world)[1:]
    assert all(later - earlier >= 5.0 for earlier, later in itertools.pairwise(tries))


@pytest.mark.parametrize(
    ("redelivery", "failure", "reason"),
    [
        ("never", RESET, "it may have reached the agent and redelivery is never: reset"),
        ("ask_then_always", IDLE, "idle_timeout"),
    ],
)
@simulated
async def test_a_try_that_must_not_be_repeated_is_the_last(
    world: World, redelivery: str, failure: UpstreamFailure, reason: str
) -> None:
    await world.given(status=Status.STARTING, sign=-1)
    await world.start({"defaults.redelivery": redelivery})
    world.machine().ready.usual = False
    world.agent().reacts.queue(fails(REFUSED), fails(failure))
    receipt = await defer(world, "once")
    await world.eventually(lambda: world.route().size.rows == 0)
    ended = await world.deferral(receipt)
    assert (ended.state, ended.last_error) == (State.DEAD_LETTERED, reason)
    assert len(world.agent().heard) == 2


@simulated
async def test_an_answer_is_an_answer_even_when_it_says_no(world: World) -> None:
    await away(world)
    receipt = await defer(world, "hello")
    await back(world, Reacts(status=500, body=b"broken inside"))
    ended = await world.deferral(receipt)
    assert ended.state is State.COMPLETED
    assert ended.answer is not None
    assert (ended.answer.status, ended.answer.body) == (500, b"broken inside")


@simulated
async def test_the_death_of_a_workspace_ends_no_deferral(world: World) -> None:
    await away(world)
    receipt = await defer(world, "patience")
    nobody_answers(world)
    world.machine().starts.usual = 1.0

    def has_started() -> bool:
        return bool(world.machine().launches) and world.route().workspace.status is Status.STARTING

    await world.eventually(has_started, within=200)
    assert await back(world) == ["patience"]
    assert await state(world, receipt) is State.COMPLETED


# --- leases ----------------------------------------------------------------------------------------------------------


@simulated
async def test_a_lease_is_renewed_as_long_as_its_call_is_open(world: World) -> None:
    await away(world)
    receipt = await defer(world, "slow")
    replaying = asyncio.create_task(back(world, Reacts(after=900.0)))
    for moment in (70.0, 500.0, 890.0):
        await world.until(moment)
        leased = await world.deferral(receipt)
        assert leased.lease is not None
        assert leased.lease.until > at(moment)
    assert await replaying == ["slow"]
    assert await state(world, receipt) is State.COMPLETED


@simulated
async def test_scenario_46_what_a_dead_proxy_had_leased_is_sent_again_marked_by_the_next_one(world: World) -> None:
    await away(world)
    receipt = await defer(world, "twice")
    world.agent().reacts.usual = Reacts(after=100.0)
    await world.app.beats.take(world.route(), Beat(status="ready"))
    await asyncio.sleep(1)
    assert await state(world, receipt) is State.LEASED
    await world.crash()
    world.agent().reacts.usual = Reacts()
    world.machine().ready.usual = True
    await world.start()
    await world.eventually(lambda: world.route().size.rows == 0, within=2)
    ended = await world.deferral(receipt)
    assert (ended.state, ended.maybe) == (State.COMPLETED, True)
    assert world.agent().heard[-1].header("Holdfast-Redelivery") == "maybe"


@simulated
async def test_scenario_46_a_lease_that_another_holder_let_run_out_is_sent_again_marked(world: World) -> None:
    await away(world)
    receipt = await defer(world, "twice")
    lease = Lease(token="theirs", owner="another proxy", until=at(90))
    [taken] = await world.store.claim("ws", leases=[lease], now=at(60))
    assert taken.id == receipt
    world.agent().reacts.usual = Reacts()
    await world.until(89)
    assert len(world.agent().heard) == 1
    world.app.background.every(10.0, world.app.replayer.sweep, name="a quicker sweep")
    await world.eventually(lambda: world.route().size.rows == 0, within=30)
    assert world.agent().heard[-1].header("Holdfast-Redelivery") == "maybe"


@simulated
async def test_an_answer_that_comes_after_its_lease_was_lost_changes_nothing(world: World) -> None:
    await away(world)
    receipt = await defer(world, "fenced")
    world.agent().reacts.usual = Reacts(after=5.0)
    await world.app.beats.take(world.route(), Beat(status="ready"))
    await asyncio.sleep(1)
    await world.store.release_owned(world.app.owner, at(clock()))
    lease = Lease(token="theirs", owner="another proxy", until=at(1000))
    [taken] = await world.store.claim("ws", leases=[lease], now=at(clock()))
    await asyncio.sleep(60)
    assert await world.deferral(receipt) == taken
    reasons = [event.fields.get("reason") for event in world.told(EventName.DEFERRAL_RETURNED)]
    assert reasons[-1] == "the lease was lost; its next holder decides"


@simulated
async def test_a_replayer_that_stops_takes_no_new_leases(world: World) -> None:
    await away(world)
    receipt = await defer(world, "patience")
    await world.app.replayer.stop()
    world.agent().reacts.usual = Reacts()
    await world.app.beats.take(world.route(), Beat(status="ready"))
    await asyncio.sleep(100)
    assert await state(world, receipt) is State.QUEUED


def broken(error: Exception) -> Callable[..., Any]:
    async def raises(*_: Any, **__: Any) -> Any:
        raise error

    return raises


@simulated
async def test_a_crash_in_the_middle_of_a_replay_leaves_the_deferral_to_the_end_of_its_lease(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await away(world)
    receipt = await defer(world, "once more")
    world.agent().reacts.usual = Reacts()
    with monkeypatch.context() as patched:
        patched.setattr(world.store, "finish", broken(RuntimeError("a bug")))
        await world.app.beats.take(world.route(), Beat(status="ready"))
        await asyncio.sleep(1)
    assert await state(world, receipt) is State.LEASED
    world.app.background.every(10.0, world.app.replayer.sweep, name="a quicker sweep")
    await world.eventually(lambda: world.route().size.rows == 0, within=100)
    assert (await world.deferral(receipt)).maybe
