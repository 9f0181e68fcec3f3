"""The scenarios of what a death leads to: who never dies, who shares a verdict, who loses a race, and restarts."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace

import pytest
from simulation.suspects import (
    COMBINED,
    EVERY_PRESET,
    GET_TASK,
    NOT_RUNNING,
    RUNNING,
    TWO_PROBE_PRESETS,
    VERIFY_FIRST,
    nobody_answers,
    restarted,
    told_offline,
)
from simulation.world import RESET, World, at, clock, fails, message, simulated

from proxy.core.lifecycle import Desired, Status
from proxy.core.liveness import ProbeState
from proxy.core.restart import Trigger as RestartTrigger
from proxy.core.workspace import Workspace
from proxy.loops.beats import Beat
from proxy.store import Signs
from proxy.store.memory import MemoryStore


@EVERY_PRESET
@simulated
async def test_scenario_16_where_nobody_can_tell_nothing_is_probed_and_nothing_restarted(
    world: World, preset: Mapping[str, object]
) -> None:
    await world.given(managed=False, heartbeat=-300)
    await world.start(preset)
    nobody_answers(world)
    reply = await world.call()
    assert reply.status == 202
    assert reply.verdict == ("alive" if preset else "unknown") + "; rule=external"
    assert world.machine().inspected == 0
    assert await world.cycles() == []


@pytest.mark.parametrize(
    ("sign", "status"), [(-599.9, 202), (-600.0, 502), (None, 502)], ids=["known", "silent for 10 min", "never heard"]
)
@simulated
async def test_scenario_16_an_unmanaged_workspace_is_believed_in_for_ten_minutes(
    world: World, sign: float | None, status: int
) -> None:
    await world.given(managed=False, sign=sign)
    await world.start()
    world.agent().reacts.usual = fails()
    reply = await world.call()
    assert (reply.status, reply.restart) == (status, "unmanaged")


@pytest.mark.parametrize("desired", [Desired.PAUSED, Desired.DRAINING])
@simulated
async def test_scenario_17_a_parked_workspace_is_not_dialled_and_never_dies(world: World, desired: Desired) -> None:
    await world.given(desired=desired)
    await world.start()
    nobody_answers(world)
    reply = await world.call()
    assert (reply.status, reply.verdict) == (202, f"busy; rule={desired.value}")
    assert world.agent().heard == []
    assert world.machine().inspected == 0
    assert (await world.row()).status is Status.READY
    assert await world.cycles() == []


@simulated
async def test_scenario_17_a_removed_workspace_is_unknown(world: World) -> None:
    await world.given(desired=Desired.REMOVED)
    await world.start()
    nobody_answers(world)
    assert (await world.call()).status == 404
    assert (world.agent().heard, world.machine().inspected) == ([], 0)


@pytest.mark.parametrize("parked_at", [1.0, 6.0], ids=["before the call fails", "between the two probes"])
@simulated
async def test_scenario_17_a_workspace_that_is_paused_under_a_failing_call_never_dies(
    world: World, parked_at: float
) -> None:
    await world.given()
    app = await world.start()
    nobody_answers(world)
    world.agent().reacts.queue(fails(after=5))
    calling = asyncio.create_task(world.call())
    await world.until(parked_at)
    await app.records.change(world.route(), lambda known: replace(known, desired=Desired.PAUSED))
    reply = await calling
    assert reply.status == 202
    assert reply.verdict == "busy; rule=paused"
    assert (await world.row()).status is Status.READY
    assert told_offline(world) == 0
    assert await world.cycles() == []


@simulated
async def test_scenario_18_twenty_calls_that_fail_at_once_share_one_evaluation(world: World) -> None:
    await world.given(sign=-300)
    await world.start()
    nobody_answers(world)
    replies = await asyncio.gather(*(world.call(body=message(message_id=f"m-{number}")) for number in range(20)))
    assert {(reply.status, reply.verdict, reply.restart) for reply in replies} == {
        (503, "dead; rule=not_running", "scheduled")
    }
    assert world.machine().inspected == 2
    assert told_offline(world) == 1
    assert len(await world.cycles()) == 1


@simulated
async def test_scenario_18_a_caller_that_leaves_takes_the_evaluation_from_nobody(world: World) -> None:
    await world.given(sign=-300)
    await world.start()
    nobody_answers(world)
    first = asyncio.create_task(world.call())
    second = asyncio.create_task(world.call(body=message(message_id="m-2")))
    await world.until(1)
    first.cancel()
    assert (await second).verdict == "dead; rule=not_running"
    assert clock() == 2.0
    assert world.machine().inspected == 2


class Interfering(MemoryStore):
    """Another writer, who is faster than the declaration of a death, `times` times."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times

    async def replace(self, workspace: Workspace, **said: object) -> Workspace | None:
        if workspace.status is Status.OFFLINE and self.times > 0:
            self.times -= 1
            row = await self.workspace(workspace.id)
            assert row is not None
            assert await super().replace(replace(row, config_version=row.config_version + 1)) is not None
        return await super().replace(workspace, **said)  # type: ignore[arg-type]  # what the caller gave


@pytest.mark.parametrize(
    ("times", "second_look", "verdict"),
    [
        pytest.param(1, [RUNNING], "alive; rule=running", id="it lives after all"),
        pytest.param(1, [], "dead; rule=not_running", id="it is still dead"),
        pytest.param(2, [], "busy; rule=raced", id="the second time too"),
    ],
)
@simulated
async def test_scenario_19_a_death_that_loses_its_race_is_judged_once_more(
    world: World, times: int, second_look: list[ProbeState], verdict: str
) -> None:
    world.store = Interfering(times)
    await world.given(sign=-300)
    await world.start()
    nobody_answers(world)
    world.machine().says.queue(NOT_RUNNING, NOT_RUNNING, *second_look)
    reply = await world.call(body=GET_TASK)
    assert reply.verdict == verdict
    is_dead = verdict.startswith("dead")
    assert told_offline(world) == is_dead
    assert len(await world.cycles()) == is_dead
    assert ((await world.row()).status is Status.READY) != is_dead


@TWO_PROBE_PRESETS
@simulated
async def test_scenario_19_a_beat_between_the_verdict_and_its_commit_saves_the_workspace(
    world: World, preset: Mapping[str, object]
) -> None:
    class BeatsInTime(MemoryStore):
        """A heartbeat comes while the pending ones are being flushed."""

        async def record_signs(self, signs: Mapping[str, Signs]) -> None:
            await super().record_signs(signs)
            if clock() == 2.0:
                await world.app.beats.take(world.route(), Beat())

    world.store = BeatsInTime()
    await world.given(heartbeat=-300)
    await world.start({**preset, "beats.flush": 60})
    nobody_answers(world)
    calling = asyncio.create_task(world.call(body=GET_TASK))
    await world.until(1.9)
    route = world.route()
    route.unwritten[route.id] = route  # there is something to flush, so that the flush takes its time
    reply = await calling
    assert reply.verdict == "busy; rule=recent_heartbeat"
    assert told_offline(world) == 0
    assert await world.cycles() == []


@pytest.mark.parametrize(
    ("preset", "looks"), [(COMBINED, [35, 45]), (VERIFY_FIRST, [40])], ids=["combined", "verify-first"]
)
@simulated
async def test_scenario_20_a_debounced_restart_is_told_and_made_good_when_the_debounce_ends(
    world: World, preset: Mapping[str, object], looks: list[float]
) -> None:
    await world.given(**restarted(0))
    await world.start(preset)
    nobody_answers(world)
    for moment in looks[:-1]:
        await world.until(moment)
        assert (await world.call(body=GET_TASK)).verdict == "busy; rule=strike"
    await world.until(looks[-1])
    reply = await world.call()
    assert (reply.status, reply.verdict, reply.restart) == (503, "dead; rule=not_running", "debounced")
    assert (reply.facts["restart"], reply.facts["restarting"]) == ("debounced", "false")
    assert (await world.row()).status is Status.OFFLINE
    again = await world.call()
    assert (again.verdict, again.restart) == ("dead; rule=not_running", "debounced")
    await world.until(59.9)
    assert world.machine().acts == []
    await world.eventually(lambda: world.machine().acts != [])
    assert [cycle.started_at for cycle in await world.cycles()][1:] == [at(60.0 if preset else 62.0)]


@simulated
async def test_scenario_22_the_settle_window_outlives_the_proxy(world: World) -> None:
    await world.given(sign=-300)
    app = await world.start()
    await app.coordinator.on_demand(world.route(), RestartTrigger.ADMIN, "", request_id=None)
    await world.until(1)
    assert (await world.row()).status is Status.READY
    await world.until(10)
    await world.crash()
    await world.start()
    nobody_answers(world)
    world.agent().reacts.usual = fails(RESET)
    reply = await world.call()
    assert (reply.status, reply.verdict) == (202, "busy; rule=settling")
    assert world.machine().inspected == 0
