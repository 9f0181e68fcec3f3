"""Hibernated workspaces in virtual time: who wakes them, how often, and what their callers are told meanwhile."""

import asyncio
import json
from typing import Any

from simulation.administration import ask, desired, is_ready, parked, phases, status
from simulation.suspects import GET_TASK, NOT_RUNNING
from simulation.world import Reacts, World, message, simulated

from proxy.core.lifecycle import Desired, Status
from proxy.core.restart import Trigger
from proxy.core.workspace import DeliveryMode
from proxy.store import StoreFailure
from proxy.telemetry import EventName


@simulated
async def test_scenario_17_a_hibernated_workspace_that_looks_dead_stays_as_it_is(world: World) -> None:
    await world.given()
    await world.start({"health.sweep": 1})
    await parked(world, "hibernate")
    before = await world.row()
    world.machine().says.usual = NOT_RUNNING
    inspected = world.machine().inspected
    await world.until(600)
    assert await world.row() == before
    assert (world.machine().inspected, world.machine().verbs()) == (inspected, [("stop", 1)])
    assert await phases(world) == []


# --- hibernate and wake ----------------------------------------------------------------------------------------------


@simulated
async def test_scenario_28_twenty_requests_wake_a_hibernated_workspace_once_and_all_are_served(world: World) -> None:
    await world.given()
    await world.start()
    await parked(world, "hibernate")
    replies = await asyncio.gather(*(world.call(body=message(message_id=f"m-{number}")) for number in range(20)))
    assert {reply.status for reply in replies} == {202}
    assert {reply.verdict for reply in replies} <= {"busy; rule=hibernated", "busy; rule=restarting"}
    await world.eventually(lambda: len(world.agent().heard) == 20)
    [cycle] = await world.cycles()
    assert (cycle.trigger, cycle.phase.value) == (Trigger.WAKE, "finished")
    assert (desired(world), status(world)) == ("running", Status.READY)
    assert [event.fields["desired"] for event in world.told(EventName.WORKSPACE_DESIRED)] == ["hibernated", "running"]


@simulated
async def test_scenario_28_what_cannot_be_deferred_is_told_that_the_workspace_wakes(world: World) -> None:
    await world.given()
    await world.start()
    await parked(world, "hibernate")
    world.machine().starts.usual = 30.0
    for _ in range(2):  # the one that wakes it, and one that comes while it wakes
        reply = await world.call(body=GET_TASK)
        assert (reply.status, reply.headers["Retry-After"]) == (503, "15")
        assert (reply.facts["waking"], reply.facts["retry_after"]) == ("true", "15")
        assert reply.json["error"]["data"][0]["reason"] == "WORKSPACE_WAKING"
        await world.until(10)
    plain = await world.request("GET", "/workspaces/ws/a2a/.well-known/agent-card.json")
    assert plain.status == 503
    assert (plain.json["waking"], plain.json["retry_after"]) == (True, 15)
    assert "error" in plain.json
    await world.eventually(lambda: is_ready(world))
    assert await phases(world) == ["finished"]


@simulated
async def test_what_is_hibernated_while_it_drains_is_woken_without_a_restart(world: World) -> None:
    await world.given()
    await world.start()
    world.agent().reacts.queue(Reacts(after=10))
    call = asyncio.create_task(world.call())
    await world.until(1)
    await world.app.parking._park(world.route(), Desired.HIBERNATED, "", False, None)
    second = await world.call(body=message(message_id="m-2"))
    assert second.status == 202
    await world.until(30)
    assert (await call).status == 200
    assert world.machine().acts == []
    assert (await world.deferral(second.receipt)).state.value == "completed"


@simulated
async def test_what_works_is_hibernated_by_force_only(world: World) -> None:
    await world.given()
    await world.start()
    world.agent().reacts.queue(Reacts(after=10))
    call = asyncio.create_task(world.call())
    await world.until(1)
    refused = await ask(world, "hibernate")
    assert (refused.status, refused.json["active"], desired(world)) == (409, 1, "running")
    assert (await ask(world, "hibernate", force=True)).status == 200
    await world.until(2)
    assert world.machine().verbs() == [("stop", 1)]
    await call


@simulated
async def test_what_has_something_in_its_queue_is_not_hibernated(world: World) -> None:
    await world.given()
    await world.start()
    await parked(world, "pause")
    await world.call()
    refused = await ask(world, "hibernate", force=True)
    assert (refused.status, refused.json["queue_depth"], desired(world)) == (409, 1, "paused")


@simulated
async def test_a_deferral_that_is_found_with_a_hibernated_workspace_wakes_it(world: World) -> None:
    await world.given()
    await world.start()
    await parked(world, "hibernate")
    writes = world.store.replace

    async def broken(*words: Any, **more: Any) -> Any:
        raise StoreFailure("disk_full", "")

    world.store.replace = broken  # type: ignore[method-assign]  # the disk is full just when it should wake
    accepted = await world.call()
    await world.until(1)
    assert (accepted.status, desired(world)) == (202, "hibernated")
    await world.crash()
    world.store.replace = writes  # type: ignore[method-assign]  # and has room again
    await world.start()
    await world.eventually(lambda: len(world.agent().heard) == 1)
    assert await phases(world) == ["finished"]


@simulated
async def test_a_hibernated_workspace_below_a_paused_one_is_not_woken(world: World) -> None:
    await world.given("top")
    await world.given("ws", parent="top")
    await world.start()
    await parked(world, "hibernate", "ws")
    await parked(world, "pause", "top")
    assert desired(world, "ws") == "paused", "a pause takes what is below with it"
    await parked(world, "hibernate", "ws")
    reply = await world.call()
    assert (reply.status, reply.verdict) == (202, "busy; rule=hibernated")
    await world.until(60)
    assert desired(world, "ws") == "hibernated"
    assert await phases(world) == []


@simulated
async def test_a_hibernated_workspace_without_a_runtime_wakes_by_its_own_sign_of_life(world: World) -> None:
    await world.given(managed=False, sign=-1)
    await world.start()
    await ask(world, "hibernate")
    reply = await world.call()
    assert (reply.status, reply.verdict) == (202, "busy; rule=hibernated")
    refused = await world.call(body=GET_TASK)
    assert (refused.status, refused.facts.get("waking")) == (503, None), "nobody here can wake it"
    down = json.dumps({"agent": "down"}).encode()
    await world.request("POST", "/workspaces/ws/heartbeat", down)
    assert desired(world) == "hibernated"
    await world.request("POST", "/workspaces/ws/heartbeat", b"")
    assert desired(world) == "running"
    await world.eventually(lambda: len(world.agent().heard) == 1)


@simulated
async def test_a_hibernated_workspace_that_polls_wakes_by_its_claim_and_gets_what_waited(world: World) -> None:
    await world.given(managed=False, sign=-1, delivery_mode=DeliveryMode.POLL, url=None)
    await world.start()
    await ask(world, "hibernate")
    reply = await world.call()
    assert (reply.status, reply.verdict) == (202, "busy; rule=hibernated")
    claimed = await world.request("POST", "/workspaces/ws/queue/claim", b"{}")
    assert [item["queue_id"] for item in claimed.json["items"]] == [reply.receipt]
    assert desired(world) == "running"
