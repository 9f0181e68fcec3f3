"""What time does to deferrals, answers and the decision log."""

import asyncio
import json

import pytest
from simulation.scripted import Reacts
from simulation.world import World, at, clock, fails, message, simulated

from proxy.core.decision import Decision, Trigger
from proxy.core.deferral import Lease, State
from proxy.core.lifecycle import Desired, Status
from proxy.telemetry import EventName


async def away(world: World, **settings: object) -> None:
    await world.given(desired=Desired.PAUSED)
    await world.start({name.replace("__", "."): value for name, value in settings.items()})


async def task_state(world: World, task_id: str) -> str:
    asked = {"jsonrpc": "2.0", "id": 1, "method": "tasks/get", "params": {"id": task_id}}
    return str((await world.call(body=json.dumps(asked).encode())).json["result"]["status"]["state"])


@simulated
async def test_scenario_47_what_outlived_its_time_is_not_sent_and_its_task_and_key_say_so(world: World) -> None:
    await away(world, queue__ttl=60)
    first = await world.call()
    await world.until(58)
    assert (await world.deferral(first.receipt)).state is State.QUEUED
    await world.until(66)
    ended = await world.deferral(first.receipt)
    assert (ended.state, ended.completed_at) == (State.EXPIRED, at(60))
    assert ended.last_error == "the request outlived its time to live before the workspace was back"
    assert await task_state(world, first.json["result"]["id"]) == "failed"
    assert len(world.told(EventName.DEFERRAL_EXPIRED)) == 1
    again = await world.call()
    assert again.receipt != first.receipt
    assert world.agent().heard == []
    assert (world.route().size.rows, len(world.route().keys)) == (1, 1)


@simulated
async def test_scenario_47_a_retry_that_finds_its_expired_predecessor_takes_its_place(world: World) -> None:
    """The store ends the old one in passing; nothing of it may hold its context back afterwards."""
    await away(world, queue__ttl=62)
    body = message("again", message_id="m-1", context_id="c")
    first = await world.call(body=body)
    await world.until(62.5)
    second = await world.call(body=body)
    assert second.receipt != first.receipt
    assert (await world.deferral(first.receipt)).state is State.EXPIRED
    assert await task_state(world, first.json["result"]["id"]) == "failed"
    route = world.route()
    assert (route.size.rows, dict(route.contexts)) == (1, {"c": 1})
    assert list(route.keys.values()) == [second.receipt]


@simulated
async def test_an_adopted_deferral_whose_lease_ran_out_holds_its_context_back(world: World) -> None:
    await world.given(status=Status.READY, sign=-1)
    app = await world.start()
    world.agent().reacts.queue(Reacts(after=1000))
    calling = asyncio.create_task(
        world.call(body=message("slow", context_id="c"), X_Timeout="5"),
    )
    reply = await calling
    assert (reply.status, clock()) == (202, 5.0)
    assert dict(world.route().contexts) == {}
    app.replayer._drains.clear()  # nobody renews it any more
    world.agent().reacts.usual = fails()
    await world.eventually(lambda: bool(world.route().contexts), within=100)
    late = await world.call(body=message("late", message_id="m-2", context_id="c"))
    assert (late.status, late.verdict) == (202, "busy; rule=order")


@simulated
async def test_an_expired_lease_that_was_not_adopted_counts_its_context_once(world: World) -> None:
    await away(world)
    await world.call(body=message(context_id="c"))
    await world.store.claim("ws", leases=[Lease(token="t", owner="other", until=at(10))], now=at(0))
    await world.until(20)
    assert [waiting.state for waiting in await world.waiting()] == [State.QUEUED]
    assert dict(world.route().contexts) == {"c": 1}


@simulated
async def test_ended_deferrals_are_kept_as_long_as_configured(world: World) -> None:
    await world.given(sign=-1)
    await world.start({"queue.retention": 600, "queue.idempotency_retention": 300})
    world.agent().reacts.queue(fails())
    reply = await world.call()
    await world.eventually(lambda: world.route().size.rows == 0)
    await world.until(595)
    assert await world.store.deferral(reply.receipt) is not None
    await world.until(700)
    assert await world.store.deferral(reply.receipt) is None


@pytest.mark.parametrize(("rows", "days", "kept"), [(3, 1.0, 3), (1000, 1.0, 4), (1000, 0.01, 0)])
@simulated
async def test_the_decision_log_is_trimmed_by_age_and_by_rows(world: World, rows: int, days: float, kept: int) -> None:
    await world.given()
    await world.start({"decisions.rows": rows, "decisions.days": days})
    ages = [2 * 86_400, 7200, 7100, 7000, 6900]
    await world.store.log(
        [Decision(workspace_id="ws", at=at(-age), trigger=Trigger.ADMIN, action=f"{age}") for age in ages]
    )
    await world.until(61)
    assert [line.action for line in await world.decisions()] == [str(age) for age in ages[5 - kept :]]


@simulated
async def test_a_sweep_that_fails_once_is_told_and_comes_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await away(world, queue__ttl=1)
    reply = await world.call()

    async def breaks(*_: object, **__: object) -> None:
        raise RuntimeError("a bug")

    with monkeypatch.context() as patched:
        patched.setattr(world.store, "overdue", breaks)
        await world.until(9)
    assert [event.fields["work"] for event in world.events if event.name == EventName.LOOP_FAILED] == ["expiry-sweep"]
    await world.until(11)
    assert (await world.deferral(reply.receipt)).state is State.EXPIRED
