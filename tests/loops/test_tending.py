"""Dropping what has waited for too long: what goes, what stays, and who is told why."""

import asyncio
import json

import pytest
from simulation.world import RESET, Reacts, World, at, clock, fails, message, simulated

from proxy.core.decision import Trigger
from proxy.core.deferral import Deferral, Lease, State
from proxy.core.lifecycle import Desired
from proxy.loops import tasks, tending
from proxy.store import QueueLimits
from proxy.telemetry import EventName

MINUTE = 60.0
NO_LIMITS = QueueLimits(rows=0, bytes=0, idempotency_since=None)


async def two_parked(world: World) -> None:
    """Start a proxy with two workspaces whose requests all wait."""
    for name in ("ws", "other"):
        await world.given(name, desired=Desired.PAUSED)
    await world.start()


async def put_away(world: World, name: str, workspace: str = "ws", context_id: str | None = None) -> str:
    reply = await world.call(workspace, message(name, message_id=name, context_id=context_id))
    assert reply.status == 202, reply
    return reply.receipt


async def drop(world: World, query: str = "") -> int:
    reply = await world.request("POST", f"/queue/drop-stale{query}")
    assert reply.status == 200, reply
    return int(reply.json["dropped"])


async def states(world: World, *receipts: str) -> list[State]:
    return [(await world.deferral(receipt)).state for receipt in receipts]


@simulated
async def test_scenario_49_only_what_was_queued_longer_ago_is_dropped_and_its_caller_hears_why(world: World) -> None:
    await two_parked(world)
    reply = await world.call(body=message("old", message_id="old", context_id="talk"))
    old = reply.receipt
    elsewhere = await put_away(world, "elsewhere", "other")
    await world.until(5 * MINUTE)
    young = await put_away(world, "young", context_id="talk")
    await world.until(10 * MINUTE)
    assert await drop(world, "?max_age_minutes=10") == 0, "exactly ten minutes are not more than ten"
    await world.until(10 * MINUTE + 1)
    assert await drop(world, "?max_age_minutes=10&workspace_id=ws") == 1
    assert await states(world, old, young, elsewhere) == [State.DROPPED, State.QUEUED, State.QUEUED]
    assert await drop(world, "?max_age_minutes=10") == 1
    assert await states(world, old, young, elsewhere) == [State.DROPPED, State.QUEUED, State.DROPPED]

    why = "dropped by an admin: it had waited for more than 10 minutes"
    ended = await world.deferral(old)
    assert (ended.last_error, ended.completed_at, ended.request.body) == (why, at(10 * MINUTE + 1), b"")
    asked = {"jsonrpc": "2.0", "id": 1, "method": "tasks/get", "params": {"id": reply.json["result"]["id"]}}
    status = (await world.call(body=json.dumps(asked).encode())).json["result"]["status"]
    assert (status["state"], status["message"]["parts"][0]["text"]) == ("failed", why)
    line = (await world.decisions())[-1]
    assert (line.action, line.trigger, line.receipt, line.evidence) == ("dropped", Trigger.ADMIN, old, {"reason": why})
    assert len(world.told(EventName.DEFERRAL_DROPPED)) == 1
    route = world.route()
    assert (route.size.rows, dict(route.contexts), list(route.keys.values())) == (1, {"talk": 1}, [young])


@simulated
async def test_scenario_49_the_default_age_is_an_hour(world: World) -> None:
    await two_parked(world)
    receipt = await put_away(world, "old")
    await world.until(60 * MINUTE)
    assert await drop(world) == 0
    await world.until(60 * MINUTE + 1)
    assert await drop(world) == 1
    assert await states(world, receipt) == [State.DROPPED]


@simulated
async def test_scenario_49_what_is_being_delivered_is_not_stale(world: World) -> None:
    await world.given(sign=-1)
    await world.start()
    running = await adopted(world)
    await world.until(90 * MINUTE)
    assert await drop(world) == 0
    assert await states(world, running) == [State.LEASED]


async def adopted(world: World) -> str:
    """A call that outlives its caller's patience by hours."""
    world.agent().reacts.queue(Reacts(after=100 * MINUTE))
    reply = await world.call(Prefer="wait=1")
    assert reply.status == 202, reply
    return reply.receipt


@simulated
async def test_what_is_driven_again_is_sent_at_once(world: World) -> None:
    await world.given(sign=-1)
    await world.start({"queue.attempts": 1, "queue.sweep": 10_000})
    world.agent().reacts.queue(fails(RESET), fails(RESET))
    reply = await world.call()
    await world.eventually(lambda: world.route().size.rows == 0)
    assert await states(world, reply.receipt) == [State.DEAD_LETTERED]
    assert (await world.request("POST", f"/queue/{reply.receipt}/redrive")).status == 200
    await asyncio.sleep(0.1)
    assert await states(world, reply.receipt) == [State.COMPLETED]


@simulated
async def test_what_somebody_else_delivers_is_not_cancelled_and_not_waited_for_for_long(world: World) -> None:
    await two_parked(world)
    receipt = await put_away(world, "theirs")
    lease = Lease(token="theirs", owner="somebody else", until=at(1000))
    assert len(await world.store.claim("ws", leases=[lease], now=at(0))) == 1
    refused = await world.request("POST", f"/queue/{receipt}/cancel")
    assert (refused.status, refused.json["status"]) == (409, "leased")
    assert clock() == pytest.approx(tasks.CANCEL_WAIT)


@simulated
async def test_any_number_is_dropped_in_chunks(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tending, "CHUNK", 3)
    await two_parked(world)
    receipts = [await put_away(world, f"m-{number}", context_id=f"c{number % 2}") for number in range(8)]
    await world.until(90 * MINUTE)
    assert await drop(world) == 8
    assert set(await states(world, *receipts)) == {State.DROPPED}
    assert (world.route().size.rows, dict(world.route().contexts), world.route().keys) == (0, {}, {})
    assert [line.action for line in await world.decisions()].count("dropped") == 8


@simulated
async def test_two_admins_who_drop_at_once_drop_everything_once(world: World) -> None:
    await two_parked(world)
    for number in range(20):
        await put_away(world, f"m-{number}")
    await world.until(90 * MINUTE)
    assert sum(await asyncio.gather(drop(world), drop(world))) == 20
    assert len(world.told(EventName.DEFERRAL_DROPPED)) == 20
    assert world.route().size.rows == 0


@simulated
async def test_a_reason_is_kept_where_there_was_no_error_before(world: World) -> None:
    """Appending to an error that is NULL would lose the reason."""
    await two_parked(world)
    known: Deferral = await world.deferral(await put_away(world, "pattern"))
    bare = Deferral(
        id="never-tried",
        workspace_id="ws",
        caller=None,
        request=known.request,
        enqueued_at=known.enqueued_at,
        expires_at=known.expires_at,
        next_attempt_at=known.enqueued_at,
    )
    assert bare.last_error is None
    await world.store.enqueue(bare, limits=NO_LIMITS)
    await world.until(61 * MINUTE)
    assert await drop(world) == 2
    assert (await world.deferral("never-tried")).last_error == (
        "dropped by an admin: it had waited for more than 60 minutes"
    )
