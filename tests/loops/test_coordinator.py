"""Restart cycles as stories: coalescing, never overlapping, and crashes on either side."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from simulation.suspects import nobody_answers
from simulation.world import World, at, clock, simulated

from proxy.core.lifecycle import Status
from proxy.core.restart import Phase, Trigger
from proxy.core.workspace import Workspace
from proxy.loops.beats import Beat
from proxy.loops.coordinator import Asked
from proxy.runtimes import Exited, RuntimeFailure
from proxy.store import StoreFailure
from proxy.store.memory import MemoryStore
from proxy.telemetry import EventName


async def restart(world: World) -> Asked:
    return await world.app.coordinator.on_demand(world.route(), Trigger.ADMIN, "", request_id=None)


async def phases(world: World) -> list[str]:
    return [cycle.phase.value for cycle in await world.cycles()]


def is_ready(world: World) -> bool:
    return world.route().workspace.status is Status.READY


# --- coalescing ------------------------------------------------------------------------------------------------------


@simulated
async def test_scenario_56_ten_requests_make_two_cycles_and_the_second_sees_what_was_written_during_the_first(
    world: World,
) -> None:
    await world.given()
    app = await world.start()
    world.machine().stops.usual = 2.0
    first = await asyncio.gather(*(restart(world) for _ in range(10)))
    await world.until(1)
    version, asked = await app.enrolling.configure(world.route(), {"env": {"MODE": "new"}}, request_id=None)
    assert sorted(answer.decision.answer for answer in first) == ["coalesced"] * 9 + ["scheduled"]
    assert (version, asked.decision.answer, asked.generation) == (1, "coalesced", 2)
    await world.eventually(lambda: is_ready(world))
    assert world.machine().verbs() == [("stop", 1), ("start", 1), ("stop", 2), ("start", 2)]
    assert [launch.spec.get("env") for launch in world.machine().launches] == [{"MODE": "new"}] * 2
    assert await phases(world) == ["superseded", "finished"]
    assert not (await world.row()).restart_pending


@simulated
async def test_scenario_56_a_setting_written_after_the_start_began_is_seen_by_one_more_cycle(world: World) -> None:
    await world.given()
    app = await world.start()
    world.machine().starts.usual = 2.0
    await restart(world)
    await world.until(1)
    for number in range(5):
        await app.enrolling.configure(world.route(), {"env": {"MODE": str(number)}}, request_id=None)
    await world.eventually(lambda: is_ready(world))
    assert [launch.spec.get("env") for launch in world.machine().launches] == [None, {"MODE": "4"}]


@simulated
async def test_a_restart_that_is_asked_for_while_the_workspace_boots_begins_at_once(world: World) -> None:
    await world.given()
    await world.start()
    world.machine().ready.usual = False
    await restart(world)
    await world.until(10)
    asked = await restart(world)
    assert (asked.decision.answer, asked.generation) == ("scheduled", 2)
    await world.until(11)
    assert await phases(world) == ["superseded", "started"]


@simulated
async def test_a_verdict_during_a_cycle_asks_for_nothing_more(world: World) -> None:
    await world.given()
    app = await world.start()
    world.machine().stops.usual = 5.0
    await restart(world)
    decision = await app.coordinator.on_verdict(world.route(), "not_running", request_id=None)
    assert decision.answer == "coalesced"
    await world.eventually(lambda: is_ready(world))
    assert await phases(world) == ["finished"]


@simulated
async def test_a_workspace_that_nobody_hosts_is_not_restarted(world: World) -> None:
    await world.given(managed=False)
    await world.start()
    assert (await restart(world)).decision.answer == "unmanaged"
    reply = await world.request("POST", "/workspaces/ws/restart")
    assert (reply.status, reply.json) == (200, {"restart": "unmanaged"})
    assert await world.cycles() == []


@simulated
async def test_scenario_59_restarts_by_admins_and_by_verdicts_never_overlap_in_stops_and_starts(world: World) -> None:
    await world.given()
    app = await world.start({"restart.debounce": 0, "restart.intensity": 0, "restart.backoff": 0})
    machine = world.machine()
    machine.stops.usual = machine.starts.usual = 0.7
    machine.ready.usual = False

    async def admin() -> None:
        for _ in range(6):
            await restart(world)
            await asyncio.sleep(1.1)

    async def exits() -> None:
        for _ in range(8):
            incarnation = world.route().workspace.incarnation
            app.on_exit(Exited(workspace_id="ws", incarnation=incarnation, exit_code=1, expected=False, at=at(clock())))
            await asyncio.sleep(0.9)

    await asyncio.gather(admin(), exits())
    machine.ready.usual = True
    await world.eventually(lambda: is_ready(world))
    machine.assert_never_overlapping()
    generations = [generation for verb, generation in machine.verbs() if verb == "start"]
    assert generations == sorted(set(generations))
    assert len(generations) > 3


# --- crashes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "problem", [RuntimeError("a bug"), RuntimeFailure("no_room", "no room")], ids=["a bug", "the runtime"]
)
@simulated
async def test_scenario_57_a_cycle_that_crashes_leaves_nothing_running_and_the_next_request_works(
    world: World, problem: Exception
) -> None:
    await world.given()
    await world.start()
    world.machine().starts.queue(problem)
    await restart(world)
    await world.until(0.5)
    row = await world.row()
    assert (row.status, row.offline_rule) == (Status.OFFLINE, "exited")
    assert await phases(world) == ["failed"]
    assert world.route().open_cycle is None
    assert (await restart(world)).decision.answer == "scheduled"
    await world.eventually(lambda: is_ready(world), within=1)
    assert await phases(world) == ["failed", "finished"]


@simulated
async def test_scenario_57_a_crashed_cycle_is_followed_by_the_next_one_without_anybody_asking(world: World) -> None:
    await world.given()
    await world.start()
    world.machine().starts.queue(RuntimeError("a bug"))
    await restart(world)
    assert await world.eventually(lambda: is_ready(world)) == pytest.approx(1.0, abs=0.1)


@simulated
async def test_a_stop_is_tried_three_times_before_the_cycle_fails(world: World) -> None:
    await world.given()
    await world.start()
    failure = RuntimeFailure("stuck", "it does not end")
    world.machine().stops.queue(failure, failure)
    await restart(world)
    await world.eventually(lambda: is_ready(world))
    assert world.machine().stops.taken == pytest.approx([0.0, 1.0, 3.0])
    world.machine().stops.queue(failure, failure, failure)
    await restart(world)
    await world.eventually(lambda: world.route().workspace.status is Status.OFFLINE)
    assert (await world.cycles())[-1].error == "it does not end"


@pytest.mark.parametrize(
    ("died_at", "acts"),
    [
        pytest.param(1.0, [("stop", 1), ("stop", 1), ("start", 1)], id="recorded"),
        pytest.param(3.0, [("stop", 1), ("start", 1), ("stop", 1), ("start", 1)], id="stopped"),
        pytest.param(5.0, [("stop", 1), ("start", 1)], id="started"),
    ],
)
@simulated
async def test_a_proxy_that_dies_in_a_cycle_is_followed_by_one_that_ends_it(
    world: World, died_at: float, acts: list[tuple[str, int]]
) -> None:
    await world.given()
    await world.start()
    machine = world.machine()
    machine.stops.usual = machine.starts.usual = 2.0
    machine.ready.usual = False
    await restart(world)
    await world.until(died_at)
    await world.crash()
    await world.until(40)
    machine.ready.usual = True
    await world.start()
    await world.eventually(lambda: is_ready(world))
    assert machine.verbs() == acts
    assert await phases(world) == ["finished"]
    row = await world.row()
    assert (row.incarnation, row.generation) == (2, 1)


@simulated
async def test_a_restart_that_was_pending_when_the_proxy_died_is_made_good(world: World) -> None:
    await world.given()
    await world.start()
    world.machine().stops.usual = 2.0
    await restart(world)
    await restart(world)
    await world.until(1)
    await world.crash()
    await world.start()
    await world.eventually(lambda: is_ready(world))
    assert await phases(world) == ["superseded", "finished"]


@simulated
async def test_what_is_started_and_exits_before_it_is_ready_has_failed(world: World) -> None:
    await world.given()
    app = await world.start()
    world.machine().ready.usual = False
    await restart(world)
    await world.until(5)
    app.on_exit(Exited(workspace_id="ws", incarnation=2, exit_code=3, expected=False, at=at(5)))
    await world.until(5.9)
    assert [(cycle.phase, cycle.error) for cycle in await world.cycles()] == [
        (Phase.FAILED, "exited before it was ready (code 3)")
    ]
    await world.until(6.1)
    assert [cycle.started_at for cycle in await world.cycles()] == [at(0), at(6)]


@simulated
async def test_a_configuration_written_while_a_start_fails_is_tried_without_a_brake(world: World) -> None:
    await world.given()
    app = await world.start({"restart.backoff": 100})
    world.machine().stops.usual = 1.0
    world.machine().starts.queue(RuntimeFailure("command_not_found", "there is no such command"))
    await restart(world)
    await app.enrolling.configure(world.route(), {"command": ["/bin/right"]}, request_id=None)
    await world.eventually(lambda: is_ready(world), within=5)
    assert await phases(world) == ["failed", "finished"]


class FailingStore(MemoryStore):
    """Fails one kind of write while `fails`."""

    fails = ""

    async def replace(self, workspace: Workspace, **said: Any) -> Workspace | None:
        self._refuse("replace")
        return await super().replace(workspace, **said)

    async def save_restart(self, *said: Any, **more: Any) -> bool:
        self._refuse("save_restart")
        return await super().save_restart(*said, **more)

    def _refuse(self, kind: str) -> None:
        if self.fails == kind:
            raise StoreFailure("full", "no room")


@pytest.mark.parametrize("kind", ["replace", "save_restart"])
@pytest.mark.parametrize("problem", [None, RuntimeFailure("no_room", "no room")], ids=["start works", "start fails"])
@simulated
async def test_a_cycle_that_the_store_stops_goes_on_when_the_store_is_back(
    world: World, kind: str, problem: Exception | None
) -> None:
    world.store = store = FailingStore()
    await world.given()
    await world.start()
    machine = world.machine()
    machine.stops.usual = 1.0
    if problem is not None:
        machine.starts.queue(problem)
    await restart(world)
    store.fails = kind
    await world.until(100)
    assert (await world.row()).status is Status.RESTARTING
    store.fails = ""
    await world.eventually(lambda: is_ready(world), within=30)
    assert len(world.told(EventName.STORE_FAILED)) > 5
    machine.assert_never_overlapping()


class Racing(MemoryStore):
    """Another writer is faster than the first record of a restart."""

    races = 1

    async def replace(self, workspace: Workspace, **said: Any) -> Workspace | None:
        if said.get("restart") is not None and self.races:
            self.races -= 1
            row = await self.workspace(workspace.id)
            assert row is not None
            await super().replace(replace(row, data='"written meanwhile"'))
        return await super().replace(workspace, **said)


@pytest.mark.parametrize("asked_by", ["admin", "verdict"])
@simulated
async def test_a_restart_whose_record_loses_a_race_is_recorded_on_top_of_the_winner(
    world: World, asked_by: str
) -> None:
    world.store = Racing()
    await world.given(sign=-300)
    await world.start()
    if asked_by == "admin":
        assert (await restart(world)).decision.answer == "scheduled"
    else:
        nobody_answers(world)
        assert (await world.call()).restart == "scheduled"
    await world.eventually(lambda: bool(world.machine().launches))
    assert [launch.data for launch in world.machine().launches] == [b'"written meanwhile"']


@simulated
async def test_the_end_of_a_process_counts_for_a_later_life_that_its_agent_began(world: World) -> None:
    await world.given()
    app = await world.start()
    await restart(world)
    await world.eventually(lambda: is_ready(world))
    started_for = world.route().workspace.incarnation
    for boot_id in ("first", "second"):
        await app.beats.take(world.route(), Beat(boot_id=boot_id, status="ready"))
    assert world.route().workspace.incarnation > started_for
    app.on_exit(Exited(workspace_id="ws", incarnation=started_for, exit_code=1, expected=False, at=clock()))
    await world.eventually(lambda: world.route().workspace.generation == 2)
    assert (await world.cycles())[-1].rule == "exited"
