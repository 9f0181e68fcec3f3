"""What belongs to a restart cycle: its lease, the URL and token of the life that it ends and of the one it begins."""

import json
from dataclasses import replace

import pytest
from simulation.suspects import restarted
from simulation.world import World, at, message, simulated

from proxy.core.lifecycle import Status
from proxy.core.restart import Trigger
from proxy.loops.coordinator import Asked
from proxy.telemetry import EventName


async def restart(world: World) -> Asked:
    return await world.app.coordinator.on_demand(world.route(), Trigger.ADMIN, "", request_id=None)


async def phases(world: World) -> list[str]:
    return [cycle.phase.value for cycle in await world.cycles()]


def is_ready(world: World) -> bool:
    return world.route().workspace.status is Status.READY


# --- leases ----------------------------------------------------------------------------------------------------------


@simulated
async def test_a_lease_is_renewed_as_long_as_its_step_takes(world: World) -> None:
    await world.given()
    await world.start()
    world.machine().stops.usual = 200.0
    await restart(world)
    for moment in (29.0, 61.0, 199.0):
        await world.until(moment)
        [cycle] = await world.cycles()
        assert cycle.lease_until is not None
        assert cycle.lease_until > at(moment)
        assert cycle.lease_owner == world.app.owner


@simulated
async def test_a_proxy_that_lost_its_lease_starts_nothing(world: World) -> None:
    await world.given()
    await world.start()
    world.machine().stops.usual = 5.0
    await restart(world)
    await world.until(1)
    [cycle] = await world.cycles()
    taken = replace(cycle, lease_owner="another proxy")
    assert await world.store.save_restart(taken, held_by=cycle.lease_owner)
    await world.until(60)
    assert world.machine().verbs() == [("stop", 1)]
    assert await world.cycles() == [taken]
    crashed = [event.fields["work"] for event in world.events if event.name == EventName.LOOP_FAILED]
    assert set(crashed) <= {"tick"}  # it could not renew what is not its own any more


# --- what a cycle leaves ---------------------------------------------------------------------------------------------


@simulated
async def test_scenario_61_an_announced_url_is_gone_after_the_stop_until_the_workspace_says_one_again(
    world: World,
) -> None:
    await world.given(announced=True)
    app = await world.start()
    world.machine().starts.usual = 2.0
    await restart(world)
    await world.until(1)
    row = await world.row()
    assert (row.status, row.url) == (Status.RESTARTING, None)
    await world.until(4)
    row = await world.row()
    assert (row.status, row.url) == (Status.STARTING, None)
    assert (await world.call()).verdict == "busy; rule=no_url"
    await app.enrolling.put("ws", {"url": world.url()}, by_admin=False)
    row = await world.row()
    assert (row.status, row.url, row.ready_at) == (Status.READY, world.url(), at(4))
    assert await phases(world) == ["finished"]


@simulated
async def test_scenario_61_a_configured_url_stays_and_is_not_dialled_until_the_start_has_returned(
    world: World,
) -> None:
    await world.given()
    await world.start()
    world.machine().stops.usual = world.machine().starts.usual = 2.0
    world.machine().ready.usual = False
    await restart(world)
    for moment in (1, 3):
        await world.until(moment)
        row = await world.row()
        assert (row.status, row.url) == (Status.RESTARTING, world.url())
        reply = await world.call(body=message(message_id=f"m-{moment}"))
        assert (reply.status, reply.verdict) == (202, "busy; rule=restarting")
    assert world.agent().heard == []
    await world.until(5)
    assert (await world.row()).status is Status.STARTING
    assert (await world.call(body=message(message_id="m-5"))).status == 200
    world.machine().ready.usual = True
    await world.eventually(lambda: is_ready(world))


@simulated
async def test_a_started_child_gets_its_identity_and_a_token_that_dies_with_it(world: World) -> None:
    await world.given(data='{"a":1}')
    await world.start({"public_url": "https://proxy.test"})
    tokens = []
    for _ in range(2):
        await restart(world)
        await world.eventually(lambda: is_ready(world))
        launch = world.machine().launches[-1]
        tokens.append(launch.env["HOLDFAST_TOKEN"])
        beat = {"status": "ready", "boot_id": launch.env["HOLDFAST_BOOT_ID"]}
        body = json.dumps(beat).encode()
        reply = await world.request("POST", "/workspaces/ws/heartbeat", body, Holdfast_Token=tokens[-1])
        assert (reply.status, reply.json["incarnation"]) == (200, launch.incarnation)
    assert launch.env["HOLDFAST_WORKSPACE_ID"] == "ws"
    assert launch.env["HOLDFAST_INCARNATION"] == "3"
    assert launch.env["HOLDFAST_URL"] == "https://proxy.test"
    assert launch.data == b'{"a":1}'
    assert (await world.request("POST", "/workspaces/ws/heartbeat", Holdfast_Token=tokens[0])).status == 401
    assert (await world.row()).incarnation == 3


@pytest.mark.parametrize(
    ("removed_at", "acts"),
    [(1.0, ["stop", "remove"]), (3.0, ["stop", "start", "remove", "remove"])],
    ids=["during the stop", "during the start"],
)
@simulated
async def test_a_workspace_that_is_removed_during_its_restart_leaves_nothing_running(
    world: World, removed_at: float, acts: list[str]
) -> None:
    await world.given()
    app = await world.start()
    world.machine().stops.usual = world.machine().starts.usual = 2.0
    await restart(world)
    await world.until(removed_at)
    await app.enrolling.remove(world.route(), request_id=None)
    await world.until(100)
    assert [verb for verb, _ in world.machine().verbs()] == acts
    assert app.routing.get("ws") is None
    assert world.machine().ready.taken == []


@simulated
async def test_a_cycle_counts_from_what_an_earlier_proxy_recorded(world: World) -> None:
    await world.given(**restarted(100))
    await world.start()
    asked = await restart(world)
    assert asked.generation == 2
    await world.eventually(lambda: is_ready(world))
    assert [cycle.generation for cycle in await world.cycles()] == [1, 2]
