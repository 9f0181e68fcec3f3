"""The gate: what it reads and shares, which deaths stand, which lose their race, and what it leaves in the log."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from simulation.suspects import (
    COMBINED,
    GET_TASK,
    HOLD_FIRST,
    NOT_RUNNING,
    RUNNING,
    VERIFY_FIRST,
    judged,
    nobody_answers,
    restarted,
    told_offline,
)
from simulation.world import World, at, clock, simulated

from proxy.core.decision import Decision, Trigger
from proxy.core.lifecycle import Status
from proxy.core.liveness import ProbeState, Strikes
from proxy.core.workspace import LastVerdict, Workspace
from proxy.loops.beats import Beat
from proxy.runtimes import Exited
from proxy.store import Signs, StoreFailure
from proxy.store.memory import MemoryStore
from proxy.telemetry import EventName


def exited(incarnation: int = 1, *, expected: bool = False) -> Exited:
    return Exited(workspace_id="ws", incarnation=incarnation, exit_code=-9, expected=expected, at=at(clock()))


async def ask(world: World, trigger: Trigger = Trigger.FORWARD, *, again: bool = False) -> tuple[str, str]:
    verdict = (await world.app.gate.ask(world.route(), trigger, again=again)).verdict
    return verdict.name, verdict.rule


# --- reading ---------------------------------------------------------------------------------------------------------


@simulated
async def test_a_runtime_that_does_not_answer_in_time_has_not_said_not_running(world: World) -> None:
    await world.given()
    await world.start()
    nobody_answers(world)
    world.machine().thinks = 60.0
    assert await ask(world) == ("alive", "probe_error")
    assert clock() == 3.0
    assert [event.fields["problem"] for event in world.told(EventName.RUNTIME_FAILED)] == ["TimeoutError"]


@simulated
async def test_a_failure_within_a_second_of_a_verdict_gets_the_same_verdict(world: World) -> None:
    await world.given(sign=-300)
    await world.start()
    for moment in (0.0, 0.9, 1.0, 1.9):
        await world.until(moment)
        assert await ask(world) == ("alive", "running")
    assert world.machine().says.taken == [0.0, 1.0]


@simulated
async def test_verify_first_never_reuses_a_verdict(world: World) -> None:
    await world.given(sign=-300)
    await world.start(VERIFY_FIRST)
    for _ in range(3):
        assert await ask(world) == ("alive", "running")
    assert world.machine().inspected == 3


@simulated
async def test_a_sweep_adds_no_strike(world: World) -> None:
    await world.given(**restarted(35))
    await world.start()
    nobody_answers(world)
    assert await ask(world, Trigger.SWEEP) == ("busy", "strike")
    assert (await world.row()).strikes == Strikes()
    await world.until(4)
    assert await ask(world) == ("busy", "strike")
    assert (await world.row()).strikes == Strikes(count=1, first_at=at(6))


@simulated
async def test_strikes_against_the_old_life_do_not_count_against_a_new_one(world: World) -> None:
    await world.given(boot_id="one", bound=True, **restarted(35))
    app = await world.start()
    nobody_answers(world)
    asking = asyncio.create_task(ask(world))
    await world.until(1)
    await app.beats.take(world.route(), Beat(boot_id="two", agent="down"))
    assert await asking == ("busy", "strike")
    row = await world.row()
    assert (row.incarnation, row.strikes) == (3, Strikes())


@simulated
async def test_a_line_of_the_log_tells_what_was_known_and_what_was_read(world: World) -> None:
    await world.given(sign=-300, strikes=Strikes(count=1, first_at=at(-70)), **restarted(80))
    await world.start()
    nobody_answers(world)
    reply = await world.call()
    line = await judged(world)
    assert isinstance(line, Decision)
    assert (line.trigger, line.action, line.verdict, line.rule) == (Trigger.FORWARD, "offline", "dead", "not_running")
    assert (line.policy, line.incarnation, line.generation) == ("combined", 2, 1)
    assert line.request_id == reply.headers["Holdfast-Request-Id"]
    assert line.evidence == {
        "opened_at": "2026-06-01T12:00:00.000000Z",
        "restart_started_at": "2026-06-01T11:58:40.000000Z",
        "restart_returned_at": "2026-06-01T11:58:40.000000Z",
        "strikes": 1,
        "probes": ["not_running", "not_running"],
        "probed_at": ["2026-06-01T12:00:00.000000Z", "2026-06-01T12:00:02.000000Z"],
        "last_sign_at": ["2026-06-01T11:55:00.000000Z"],
        "read_at": ["2026-06-01T12:00:02.000000Z"],
        "because": "nothing above decided",
    }
    row = await world.row()
    assert row.last_verdict == LastVerdict(verdict="dead", rule="not_running", at=at(2))


# --- deaths ----------------------------------------------------------------------------------------------------------


@simulated
async def test_an_exit_that_was_seen_is_a_death_before_any_hold_and_restarts_at_once(world: World) -> None:
    await world.given(heartbeat=-1, **restarted(5))
    app = await world.start()
    app.on_exit(exited(2))
    await asyncio.sleep(0.5)
    line = next(line for line in await world.decisions() if line.verdict == "dead")
    assert (line.trigger, line.rule) == (Trigger.EXIT, "exited")
    assert world.machine().inspected == 0
    assert [cycle.rule for cycle in await world.cycles()] == ["", "exited"]
    assert [event.fields["exit_code"] for event in world.told(EventName.WORKSPACE_EXITED)] == [-9]


@pytest.mark.parametrize(("incarnation", "expected"), [(2, True), (1, False)], ids=["our own stop", "an earlier life"])
@simulated
async def test_an_exit_that_proves_nothing_changes_nothing(world: World, incarnation: int, *, expected: bool) -> None:
    await world.given(**restarted(100))
    app = await world.start()
    before = await world.row()
    app.on_exit(exited(incarnation, expected=expected))
    await asyncio.sleep(10)
    assert await world.row() == before
    assert world.machine().acts == []


@simulated
async def test_a_sidecar_that_says_down_is_believed_until_the_agent_shows_life(world: World) -> None:
    await world.given(heartbeat=-5)
    app = await world.start()
    world.machine().ready.usual = False
    await app.beats.take(world.route(), Beat(agent="down"))
    await world.until(1)
    await app.beats.take(world.route(), Beat())
    assert await ask(world) == ("alive", "running")
    await world.until(2)
    await app.beats.take(world.route(), Beat(agent="down"))
    assert await ask(world) == ("dead", "exited")
    assert world.machine().inspected == 1


@pytest.mark.parametrize("preset", [HOLD_FIRST, VERIFY_FIRST], ids=["hold-first", "verify-first"])
@simulated
async def test_a_beat_that_says_down_is_no_sign_of_life(world: World, preset: Mapping[str, object]) -> None:
    await world.given(heartbeat=-300)
    app = await world.start(preset)
    nobody_answers(world)
    await app.beats.take(world.route(), Beat(agent="down"))
    assert await ask(world) == ("dead", "not_running")


@simulated
async def test_compute_that_is_gone_is_dead_after_one_probe_and_no_debounce_holds_it(world: World) -> None:
    await world.given(**restarted(40))
    await world.start()
    nobody_answers(world)
    world.machine().says.usual = ProbeState.GONE
    reply = await world.call()
    assert (reply.verdict, reply.restart) == ("dead; rule=exited", "scheduled")
    assert world.machine().inspected == 1


@pytest.mark.parametrize("preset", [HOLD_FIRST, VERIFY_FIRST], ids=["hold-first", "verify-first"])
@simulated
async def test_a_sign_that_the_preset_does_not_read_saves_nobody(world: World, preset: Mapping[str, object]) -> None:
    """An answered call is no heartbeat: it is not weighed, so it must not make the death lose its race either."""
    await world.given(heartbeat=-300, sign=-5)
    await world.start(preset)
    nobody_answers(world)
    assert await ask(world) == ("dead", "not_running")
    assert told_offline(world) == 1


@simulated
async def test_a_sign_that_only_the_store_has_heard_of_saves_a_workspace_too(world: World) -> None:
    await world.given(sign=-300)
    await world.start()
    nobody_answers(world)
    asking = asyncio.create_task(ask(world))
    await world.until(1)
    await world.store.record_signs({"ws": Signs(last_sign_at=at(1))})
    assert await asking == ("busy", "raced")
    assert ((await world.row()).status, told_offline(world)) == (Status.READY, 0)
    assert await world.cycles() == []


# --- deaths that stand -----------------------------------------------------------------------------------------------


async def dies_debounced(world: World, settings: Mapping[str, object] = COMBINED) -> None:
    """Let a workspace die at 50 s, while a restart is debounced until 60 s."""
    await world.given(sign=-300, **restarted(0))
    await world.start({"policy.settle_hold": 5, "policy.settle_window": 5, **settings})
    nobody_answers(world)
    await world.until(48)
    assert await ask(world) == ("dead", "not_running")
    assert clock() == 50.0


@simulated
async def test_a_death_stands_without_probing_and_without_writing(world: World) -> None:
    await dies_debounced(world)
    before, probes = await world.row(), world.machine().inspected
    lines = await world.decisions()
    for moment in (50, 53, 59):
        await world.until(moment)
        reply = await world.call(body=GET_TASK)
        assert (reply.status, reply.verdict, reply.restart) == (503, "dead; rule=not_running", "debounced")
    assert world.machine().inspected == probes
    assert await world.row() == before
    later = (await world.decisions())[len(lines) :]
    assert {line.action for line in later} == {"refused"}  # noted together, after the answers


@simulated
async def test_a_death_stands_no_more_once_the_agent_answered_a_call(world: World) -> None:
    await dies_debounced(world)
    world.agent().reacts.usual = replace(world.agent().reacts.usual, failure=None)
    await world.until(52)
    assert (await world.call()).status == 200
    nobody_answers(world)
    await world.until(54)
    assert await ask(world) == ("busy", "recent_heartbeat")
    assert (await world.row()).offline_rule is None


@simulated
async def test_a_death_that_a_later_look_contradicts_stands_no_more(world: World) -> None:
    await dies_debounced(world)
    world.machine().says.usual = RUNNING
    await world.until(70)
    row = await world.row()
    assert (row.status, row.offline_rule) == (Status.OFFLINE, None)
    assert [line.verdict for line in await world.decisions()][-1] == "alive"
    assert world.machine().acts == []
    world.machine().ready.usual = True
    await world.eventually(lambda: world.route().workspace.status is Status.READY, within=10)


@simulated
async def test_a_death_is_judged_again_however_short_the_debounce_is_that_is_left(world: World) -> None:
    await dies_debounced(world, {"restart.debounce": 50.3})
    await asyncio.sleep(3)
    assert [cycle.started_at for cycle in await world.cycles()][1:] == [at(52.3)]
    assert told_offline(world) == 1


@simulated
async def test_an_exit_that_is_seen_under_an_evaluation_is_judged_right_after_it(world: World) -> None:
    await world.given(heartbeat=-1)
    app = await world.start()
    nobody_answers(world)
    asking = asyncio.create_task(ask(world))
    await world.until(1)
    app.on_exit(exited())
    assert await asking == ("busy", "recent_heartbeat")
    await asyncio.sleep(0.1)
    assert [(cycle.rule, cycle.started_at) for cycle in await world.cycles()] == [("exited", at(2))]


@simulated
async def test_an_exit_ends_the_wait_for_a_debounce(world: World) -> None:
    await dies_debounced(world)
    world.app.on_exit(exited(2))
    await asyncio.sleep(0.1)
    assert [(cycle.rule, cycle.started_at) for cycle in await world.cycles()][1:] == [("exited", at(50))]


@simulated
async def test_a_seen_exit_stands_whatever_else_answers_at_that_address(world: World) -> None:
    verdict = LastVerdict(verdict="dead", rule="exited", at=at(-10))
    await world.given(status=Status.ABANDONED, sign=-1, exited_at=at(-10), offline_rule="exited", last_verdict=verdict)
    await world.start()
    before = await world.row()
    judgement = await world.app.gate.ask(world.route(), Trigger.FORWARD)
    assert await world.row() == before
    assert judgement.header == "dead; rule=exited"
    assert judgement.restart is not None
    assert judgement.restart.answer == "abandoned"
    assert world.machine().inspected == 0


# --- trouble ---------------------------------------------------------------------------------------------------------


class FailingStore(MemoryStore):
    """Commits nothing while it `fails`."""

    fails = False

    async def replace(self, workspace: Workspace, **said: Any) -> Workspace | None:
        if self.fails:
            raise StoreFailure("full", "no room")
        return await super().replace(workspace, **said)


@simulated
async def test_a_death_that_cannot_be_written_down_is_none_and_the_next_one_is(world: World) -> None:
    world.store = store = FailingStore()
    await world.given(sign=-300)
    await world.start()
    nobody_answers(world)
    store.fails = True
    refused = await asyncio.gather(world.call(body=GET_TASK), world.call(body=GET_TASK))
    assert [reply.status for reply in refused] == [503, 503]
    assert (world.route().workspace.status, world.machine().acts) == (Status.READY, [])
    store.fails = False
    assert (await world.call(body=GET_TASK)).verdict == "dead; rule=not_running"


@simulated
async def test_a_gate_that_closes_cancels_whoever_waits(world: World) -> None:
    await world.given()
    app = await world.start()
    world.machine().says.usual = NOT_RUNNING
    asking = asyncio.create_task(ask(world))
    await world.until(1)
    await app.gate.aclose()
    with pytest.raises(asyncio.CancelledError):
        await asking
