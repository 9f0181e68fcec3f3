"""What callers are told while a brake holds a restart, what becomes of what they sent, and who lets the brake go."""

import json

import pytest
from simulation.scripted import RESET, Reacts
from simulation.suspects import GET_TASK, RUNNING, nobody_answers, restarted
from simulation.world import World, fails, message, simulated

from proxy.core.deferral import State
from proxy.core.lifecycle import Desired, Status
from proxy.core.outcome import DeadAction
from proxy.core.workspace import Settings
from proxy.runtimes import RuntimeFailure

NO_COMMAND = RuntimeFailure("command_not_found", "there is no such command")


def status(world: World) -> Status:
    return world.route().workspace.status


# --- how long to wait ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("moment", "seconds"), [(10.0, "90"), (84.5, "16"), (85.0, "15"), (99.0, "15")])
@simulated
async def test_a_caller_is_told_to_wait_until_the_backoff_ends_and_never_less_than_15_s(
    world: World, moment: float, seconds: str
) -> None:
    await world.given()
    await world.start({"restart.backoff": 100})
    nobody_answers(world)
    world.machine().starts.usual = NO_COMMAND
    await world.exits()
    await world.until(moment)
    reply = await world.call()
    assert (reply.status, reply.verdict, reply.restart) == (503, "dead; rule=exited", "backoff")
    assert (reply.headers["Retry-After"], reply.facts["retry_after"]) == (seconds, seconds)
    assert reply.facts["restarting"] == "true"  # nobody has to ask for it again


@pytest.mark.parametrize(("moment", "seconds"), [(10.0, "48"), (44.0, "15"), (50.0, "15")])
@simulated
async def test_a_caller_is_told_to_wait_until_the_debounce_ends_and_never_less_than_15_s(
    world: World, moment: float, seconds: str
) -> None:
    await world.given(**restarted(0))
    await world.start({"policy.settle_hold": 0, "policy.settle_window": 0})
    nobody_answers(world)
    await world.until(moment)
    reply = await world.call()  # the second look comes two seconds later
    assert (reply.status, reply.verdict, reply.restart) == (503, "dead; rule=not_running", "debounced")
    assert reply.headers["Retry-After"] == seconds
    assert reply.facts["restarting"] == "false"


# --- abandoned -------------------------------------------------------------------------------------------------------


async def deferred_then_abandoned(world: World, **settings: object) -> str:
    """Let a workspace that defers while it is dead use up its restarts; return the receipt of what waits for it."""
    await world.given(settings=Settings(dead_action=DeadAction.DEFER), boot_id="first", bound=True)
    await world.start(settings)
    nobody_answers(world)
    world.machine().starts.usual = NO_COMMAND
    await world.exits()
    reply = await world.call()
    assert reply.status == 202
    await world.eventually(lambda: status(world) is Status.ABANDONED)
    return reply.receipt


@simulated
async def test_what_is_new_to_an_abandoned_workspace_is_refused_although_it_defers_while_it_is_dead(
    world: World,
) -> None:
    receipt = await deferred_then_abandoned(world)
    for number, reaction in enumerate([fails(), fails(RESET), Reacts(status=502)]):
        world.agent().reacts.usual = reaction
        body = message(message_id=f"late-{number}")
        reply = await world.call(body=body, **({"Prefer": "respond-async"} if number else {}))
        assert (reply.status, reply.verdict, reply.restart) == (503, "dead; rule=exited", "abandoned")
        assert reply.headers["Retry-After"] == "15"
        assert reply.facts["restart"] == "abandoned"
        assert reply.facts["restarting"] == "false"
        assert reply.facts["delivered"] == ("maybe" if number else "no")
    assert (await world.call(body=GET_TASK)).restart == "abandoned"
    assert [waiting.id for waiting in await world.waiting()] == [receipt]


@simulated
async def test_what_waits_for_an_abandoned_workspace_waits_until_its_time_to_live_is_over(world: World) -> None:
    receipt = await deferred_then_abandoned(world, **{"queue.ttl": 3600})
    await world.until(3599)
    assert (await world.deferral(receipt)).state is State.QUEUED
    await world.until(3610)
    ended = await world.deferral(receipt)
    assert ended.state is State.EXPIRED
    assert ended.task is not None
    assert json.loads(ended.task.json)["status"]["state"] == "failed"
    assert status(world) is Status.ABANDONED


@pytest.mark.parametrize("how", ["a restart by the admin", "a configuration write", "a new boot", "a new boot's beat"])
@simulated
async def test_an_abandoned_workspace_is_brought_back_and_what_waits_is_delivered(world: World, how: str) -> None:
    receipt = await deferred_then_abandoned(world)
    cycles = len(await world.cycles())
    await world.until(1000)
    assert len(await world.cycles()) == cycles
    world.machine().starts.usual = 0.0
    world.machine().says.usual = RUNNING
    world.machine().ready.usual = True
    world.agent().reacts.usual = Reacts()
    if how == "a restart by the admin":
        assert (await world.request("POST", "/workspaces/ws/restart")).json["restart"] == "scheduled"
    elif how == "a configuration write":
        said = await world.request("PUT", "/workspaces/ws/config", b'{"env": {"MODE": "mended"}}')
        assert (said.status, said.json["restart"]) == (202, "scheduled")
    elif how == "a new boot":
        await world.app.enrolling.put("ws", {"url": world.url(), "boot_id": "by hand"}, by_admin=False)
    else:
        body = b'{"status": "ready", "boot_id": "by hand"}'
        assert (await world.request("POST", "/workspaces/ws/heartbeat", body)).status == 200
    await world.eventually(lambda: status(world) is Status.READY)
    await world.eventually(lambda: world.route().size.rows == 0)
    assert (await world.deferral(receipt)).state is State.COMPLETED
    assert (await world.row()).abandoned_at is None
    assert (await world.call(body=message(message_id="m-2"))).status == 200
    assert len(await world.cycles()) == cycles + (0 if "boot" in how else 1)


@simulated
async def test_a_seen_exit_is_not_undone_by_a_beat_of_the_life_that_ended(world: World) -> None:
    await world.given(boot_id="first", bound=True)
    await world.start({"restart.intensity": 0, "restart.backoff": 1000, "restart.backoff_cap": 1000})
    nobody_answers(world)
    world.machine().starts.usual = NO_COMMAND
    await world.exits()
    await world.until(5)
    assert status(world) is Status.OFFLINE
    await world.request("POST", "/workspaces/ws/heartbeat", b'{"status": "ready", "boot_id": "first"}')
    await world.request("POST", "/workspaces/ws/heartbeat", b'{"status": "ready"}')
    assert status(world) is Status.OFFLINE


# --- refused ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["POST /restart", "PUT /config"])
@pytest.mark.parametrize("parked", ["ws", "parent", "grandparent"])
@simulated
async def test_scenario_60_a_restart_below_a_paused_ancestor_is_refused_and_names_it(
    world: World, verb: str, parked: str
) -> None:
    family = {"grandparent": None, "parent": "grandparent", "ws": "parent"}
    for name, parent in family.items():
        desired = Desired.PAUSED if name == parked else Desired.RUNNING
        await world.given(name, parent=parent, desired=desired)
    await world.start()
    before = await world.row()
    method, _, path = verb.partition(" ")
    reply = await world.request(method, f"/workspaces/ws{path}", b"{}")
    assert (reply.status, reply.json["workspace"]) == (409, parked)
    assert f"workspace {parked} is paused" in reply.json["error"]
    await world.until(30)
    assert (await world.row(), await world.cycles(), world.machine().acts) == (before, [], [])


@simulated
async def test_scenario_60_a_paused_child_or_sibling_keeps_nobody_from_a_restart(world: World) -> None:
    await world.given("parent")
    await world.given("ws", parent="parent")
    await world.given("sibling", parent="parent", desired=Desired.PAUSED)
    await world.given("child", parent="ws", desired=Desired.PAUSED)
    await world.start()
    assert (await world.request("POST", "/workspaces/ws/restart")).status == 202


@simulated
async def test_scenario_60_without_a_runtime_nothing_happens(world: World) -> None:
    await world.given(managed=False, sign=-1)
    await world.start()
    before = await world.row()
    reply = await world.request("POST", "/workspaces/ws/restart", b'{"reason": "because"}')
    assert (reply.status, reply.json) == (200, {"restart": "unmanaged"})
    assert (await world.row(), await world.cycles(), world.machine().acts) == (before, [], [])
    assert (await world.call()).status == 200
