"""When a workspace is back: what is asked how often, what counts as an answer, and what happens when none comes."""

import asyncio
import itertools
from dataclasses import replace

import pytest
from simulation.suspects import NOT_RUNNING, RUNNING
from simulation.world import World, at, simulated

from proxy.core.lifecycle import Desired, Status
from proxy.core.restart import Trigger
from proxy.core.workspace import DeliveryMode
from proxy.loops.beats import Beat
from proxy.telemetry import EventName


async def restart(world: World) -> None:
    await world.app.coordinator.on_demand(world.route(), Trigger.ADMIN, "", request_id=None)


async def phases(world: World) -> list[str]:
    return [cycle.phase.value for cycle in await world.cycles()]


def status(world: World) -> Status:
    return world.route().workspace.status


@simulated
async def test_it_is_asked_at_growing_intervals_until_it_is_ready(world: World) -> None:
    await world.given(status=Status.STARTING)
    world.machine().ready.queue(*[False] * 12)
    await world.start()
    await world.eventually(lambda: status(world) is Status.READY, within=100)
    taken = world.machine().ready.taken
    pauses = [later - earlier for earlier, later in itertools.pairwise(taken)]
    expected = [min(0.25 * 1.5**number, 5.0) for number in range(12)]
    assert pauses == pytest.approx(expected)
    row = await world.row()
    assert row.ready_at is not None
    assert (row.ready_at - at(0)).total_seconds() == pytest.approx(sum(expected), abs=1e-5)
    await asyncio.sleep(100)
    assert len(world.machine().ready.taken) == 13


@pytest.mark.parametrize("how", ["probe", "registration", "beat"])
@simulated
async def test_any_of_three_words_makes_ready_and_ends_the_cycle_once(world: World, how: str) -> None:
    await world.given()
    app = await world.start()
    world.machine().ready.usual = False
    await restart(world)
    await world.until(20)
    assert (status(world), await phases(world)) == (Status.STARTING, ["started"])
    if how == "probe":
        world.machine().ready.usual = True
    elif how == "registration":
        await app.enrolling.put("ws", {"url": world.url(), "boot_id": "new"}, by_admin=False)
    else:
        await world.request("POST", "/workspaces/ws/heartbeat", b'{"status": "ready", "boot_id": "new"}')
    await world.eventually(lambda: status(world) is Status.READY, within=6)
    await asyncio.sleep(10)
    assert await phases(world) == ["finished"]
    assert len(world.told(EventName.RESTART_FINISHED)) == 1


@simulated
async def test_what_the_old_life_says_after_a_restart_began_makes_nothing_ready_and_is_no_sign_of_life(
    world: World,
) -> None:
    await world.given(boot_id="old", bound=True, heartbeat=-5)
    app = await world.start()
    world.machine().ready.usual = False
    await restart(world)
    for moment in (0.0, 5.0):
        await world.until(moment)
        await app.beats.take(world.route(), Beat(boot_id="old", status="ready"))
    assert status(world) is Status.STARTING
    assert world.route().signs.last_heartbeat_at == at(-5)
    await app.beats.take(world.route(), Beat(boot_id="new", status="ready"))
    assert status(world) is Status.READY
    assert world.route().signs.last_heartbeat_at == at(5)


@simulated
async def test_nobody_is_asked_before_its_url_is_known(world: World) -> None:
    await world.given(status=Status.STARTING, url=None)
    app = await world.start()
    await world.until(30)
    assert world.machine().ready.taken == []
    await app.enrolling.put("ws", {"url": world.url()}, by_admin=True)
    await world.eventually(lambda: status(world) is Status.READY, within=6)


@simulated
async def test_a_workspace_that_polls_is_never_asked(world: World) -> None:
    await world.given(status=Status.STARTING, url=None, delivery_mode=DeliveryMode.POLL)
    app = await world.start()
    await world.until(30)
    assert (status(world), world.machine().ready.taken) == (Status.STARTING, [])
    await app.beats.take(world.route(), Beat(status="ready"))
    assert status(world) is Status.READY


@simulated
async def test_two_watches_of_one_life_are_one(world: World) -> None:
    await world.given(status=Status.STARTING)
    app = await world.start({"probe.away_first": 5})
    world.machine().ready.usual = False
    for _ in range(3):
        app.readiness.watch(world.route())
    await world.until(11)
    assert world.machine().ready.taken == [0.0, 5.0, 10.0]


@simulated
async def test_a_life_that_ends_takes_its_watch_along(world: World) -> None:
    await world.given(status=Status.STARTING)
    await world.start({"probe.away_first": 5})
    world.machine().ready.usual = False
    await restart(world)
    await world.until(11)
    taken = [moment for moment in world.machine().ready.taken if moment > 4]
    assert taken == pytest.approx([5.0, 10.0], abs=0.1)


@simulated
async def test_a_paused_workspace_is_not_asked_any_more(world: World) -> None:
    await world.given(status=Status.STARTING)
    app = await world.start({"probe.away_first": 5})
    world.machine().ready.usual = False
    await world.until(1)
    await app.records.change(world.route(), lambda known: replace(known, desired=Desired.PAUSED))
    await world.until(100)
    assert world.machine().ready.taken == [0.0]


@simulated
async def test_what_does_not_get_ready_in_time_has_failed_and_is_judged(world: World) -> None:
    await world.given()
    await world.start({"policy.provisioning_timeout": 90})
    world.machine().ready.usual = False
    world.machine().says.usual = NOT_RUNNING
    await restart(world)
    await world.until(89)
    assert (await phases(world), world.machine().inspected) == (["started"], 0)
    await world.eventually(lambda: len(world.machine().launches) > 1, within=10)
    first, second = await world.cycles()
    assert (first.phase, first.error) == ("failed", "not ready within 90 s")
    assert (second.trigger, second.rule) == ("verdict", "not_running")


@simulated
async def test_what_runs_but_does_not_get_ready_in_time_is_left_running_and_welcome_later(world: World) -> None:
    await world.given()
    await world.start({"policy.provisioning_timeout": 90})
    world.machine().ready.usual = False
    world.machine().says.usual = RUNNING
    await restart(world)
    await world.until(300)
    assert (await phases(world), status(world)) == (["failed"], Status.STARTING)
    world.machine().ready.usual = True
    await world.eventually(lambda: status(world) is Status.READY, within=6)
    assert world.machine().verbs() == [("stop", 1), ("start", 1)]


@simulated
async def test_a_provisioning_timeout_of_0_waits_for_ever(world: World) -> None:
    await world.given()
    await world.start({"policy.provisioning_timeout": 0})
    world.machine().ready.usual = False
    await restart(world)
    await world.until(4000)
    assert await phases(world) == ["started"]
