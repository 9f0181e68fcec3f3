"""The scenarios of dead detection through a whole proxy: what the caller gets, what was read, written and restarted."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import replace

import pytest
from simulation.world import RESET, Reacts, Reply, World, at, clock, fails, message, simulated

from proxy.core.decision import Decision, Trigger
from proxy.core.lifecycle import Desired, Status
from proxy.core.liveness import ProbeState, Strikes
from proxy.core.restart import Phase, Restart
from proxy.core.restart import Trigger as RestartTrigger
from proxy.core.workspace import Workspace
from proxy.loops.beats import Beat
from proxy.runtimes import RuntimeFailure
from proxy.store import Signs
from proxy.store.memory import MemoryStore
from proxy.telemetry import EventName

COMBINED: Mapping[str, object] = {}
HOLD_FIRST = {"policy.preset": "hold-first"}
VERIFY_FIRST = {"policy.preset": "verify-first"}
TWO_PROBE_PRESETS = pytest.mark.parametrize("preset", [COMBINED, HOLD_FIRST], ids=["combined", "hold-first"])

RUNNING, NOT_RUNNING = ProbeState.RUNNING, ProbeState.NOT_RUNNING
GET_TASK = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tasks/get", "params": {"id": "t-1"}}).encode()
"""A call that cannot be deferred: it fails, it is answered, and nothing goes on behind it."""


def restarted(seconds_ago: float) -> dict[str, object]:
    """Return what a record says of a restart that began and returned that long before the story."""
    moment = at(-seconds_ago)
    cycle = Restart(
        workspace_id="ws",
        generation=1,
        incarnation=2,
        trigger=RestartTrigger.ADMIN,
        reason="",
        rule="",
        phase=Phase.FINISHED,
        started_at=moment,
        returned_at=moment,
        finished_at=moment,
    )
    return {
        "generation": 1,
        "incarnation": 2,
        "restart_started_at": moment,
        "restart_returned_at": moment,
        "cycles": (cycle,),
    }


def nobody_answers(world: World) -> None:
    """Let every call to the agent be refused, and the runtime say "not running"."""
    world.agent().reacts.usual = fails()
    world.machine().says.usual = NOT_RUNNING


async def judged(world: World) -> Decision:
    """Return the latest line of the decision log that a verdict wrote."""
    return [line for line in await world.decisions() if line.verdict and line.action in {"none", "offline"}][-1]


async def readings(world: World) -> tuple[int, int]:
    """Return how many probes and readings of the signs of life the latest evaluation took, as it logged them."""
    evidence = (await judged(world)).evidence
    return len(evidence.get("probes", ())), len(evidence.get("last_sign_at", ()))


def told_offline(world: World) -> int:
    return len([event for event in world.told(EventName.WORKSPACE_STATUS) if event.fields.get("verdict") == "dead"])


def unchanged(before: Workspace, after: Workspace) -> bool:
    """Say whether nothing but the note of the last verdict was written."""
    return replace(after, version=before.version, last_verdict=before.last_verdict) == before


@TWO_PROBE_PRESETS
@simulated
async def test_scenario_01_right_after_a_restart_a_failed_call_is_deferred_unseen(
    world: World, preset: Mapping[str, object]
) -> None:
    await world.given(heartbeat=-5, **restarted(3))
    await world.start(preset)
    nobody_answers(world)
    reply = await world.call()
    assert (reply.status, reply.verdict) == (202, "busy; rule=settling")
    assert world.machine().inspected == 0
    assert await readings(world) == (0, 0)
    assert (await world.row()).status is Status.READY


@simulated
async def test_scenario_02_a_recent_heartbeat_keeps_five_failures_within_30_s_busy(world: World) -> None:
    await world.given(heartbeat=-2)
    app = await world.start()
    nobody_answers(world)
    replies: list[Reply] = []

    async def beating() -> None:
        while True:
            await app.beats.take(world.route(), Beat())
            await asyncio.sleep(4)

    beats = asyncio.create_task(beating())
    for moment in (0, 6, 12, 18, 24):
        await world.until(moment)
        replies.append(await world.call(body=message(message_id=f"m-{moment}")))
    beats.cancel()
    assert [(reply.status, reply.verdict) for reply in replies] == [(202, "busy; rule=recent_heartbeat")] * 5
    assert told_offline(world) == 0
    assert await world.cycles() == []


@TWO_PROBE_PRESETS
@simulated
async def test_scenario_03_not_running_and_then_running_leaves_the_row_alone(
    world: World, preset: Mapping[str, object]
) -> None:
    await world.given(heartbeat=-300)
    await world.start(preset)
    before = await world.row()
    world.agent().reacts.usual = fails()
    world.machine().says.queue(NOT_RUNNING, RUNNING)
    reply = await world.call(body=GET_TASK)
    assert reply.verdict == "alive; rule=running"
    assert world.machine().says.taken == [0.0, 2.0]
    assert unchanged(before, await world.row())


@pytest.mark.parametrize("heartbeat", [-300, None], ids=["stale", "missing"])
@TWO_PROBE_PRESETS
@simulated
async def test_scenario_04_not_running_twice_and_no_recent_sign_is_dead_after_two_probes_and_one_look(
    world: World, preset: Mapping[str, object], heartbeat: float | None
) -> None:
    await world.given(heartbeat=heartbeat)
    await world.start(preset)
    nobody_answers(world)
    reply = await world.call()
    assert (reply.status, reply.verdict, reply.restart) == (503, "dead; rule=not_running", "scheduled")
    assert reply.headers["Retry-After"] == "15"
    assert world.machine().inspected == 2
    assert await readings(world) == (2, 1)
    assert told_offline(world) == 1
    assert [cycle.rule for cycle in await world.cycles()] == ["not_running"]
    assert await world.waiting() == []


@simulated
async def test_scenario_05_a_502_from_a_dead_box_is_a_503_that_says_restarting(world: World) -> None:
    await world.given(heartbeat=-300)
    await world.start()
    nobody_answers(world)
    world.agent().reacts.usual = Reacts(status=502, body=b"bad gateway")
    reply = await world.call()
    assert (reply.status, reply.verdict) == (503, "dead; rule=not_running")
    assert reply.facts["restarting"] == "true"
    assert reply.facts["delivered"] == "maybe"


@pytest.mark.parametrize(
    ("preset", "verdict"),
    [(COMBINED, "busy"), (HOLD_FIRST, "busy"), (VERIFY_FIRST, "alive")],
    ids=["combined", "hold-first", "verify-first"],
)
@simulated
async def test_scenario_06_a_call_that_fails_during_a_restart_asks_nobody_and_restarts_nothing(
    world: World, preset: Mapping[str, object], verdict: str
) -> None:
    await world.given(heartbeat=-300)
    app = await world.start(preset)
    nobody_answers(world)
    world.agent().reacts.queue(fails(after=5))
    world.machine().stops.usual = 60.0
    calling = asyncio.create_task(world.call())
    await world.until(1)
    await app.coordinator.on_demand(world.route(), RestartTrigger.ADMIN, "", request_id=None)
    reply = await calling
    assert (reply.status, reply.verdict) == (202, f"{verdict}; rule=restarting")
    assert world.machine().inspected == 0
    assert len(await world.cycles()) == 1


@simulated
async def test_scenario_07_verify_first_defers_on_a_recent_sign_after_two_probes(world: World) -> None:
    await world.given(heartbeat=-5)
    await world.start(VERIFY_FIRST)
    nobody_answers(world)
    reply = await world.call()
    assert (reply.status, reply.verdict) == (202, "busy; rule=recent_heartbeat")
    assert world.machine().says.taken == [0.0, 0.5]
    assert await world.cycles() == []


@simulated
async def test_scenario_08_verify_first_believes_one_probe_where_nothing_speaks_against_it(world: World) -> None:
    await world.given(announced=True)
    await world.start(VERIFY_FIRST)
    nobody_answers(world)
    reply = await world.call()
    assert (reply.status, reply.verdict, reply.restart) == (503, "dead; rule=not_running", "scheduled")
    assert world.machine().inspected == 1
    assert told_offline(world) == 1
    assert [line.action for line in await world.decisions()].count("offline") == 1
    assert len(world.told(EventName.RESTART_STARTED)) == 1
    assert (await world.row()).url is None


@simulated
async def test_scenario_09_verify_first_keeps_the_url_of_a_settling_workspace_that_beats(world: World) -> None:
    await world.given(announced=True, heartbeat=0, **restarted(20))
    await world.start(VERIFY_FIRST)
    nobody_answers(world)
    reply = await world.call()
    assert (reply.status, reply.verdict) == (202, "busy; rule=recent_heartbeat")
    assert world.machine().inspected == 2
    assert (await world.row()).url == world.url()


@pytest.mark.parametrize(
    ("preset", "ago"), [(COMBINED, 40), (VERIFY_FIRST, 10)], ids=["combined", "verify-first"]
)
@simulated
async def test_scenario_10_a_running_probe_takes_strikes_away(
    world: World, preset: Mapping[str, object], ago: float
) -> None:
    await world.given(**restarted(ago))
    await world.start(preset)
    nobody_answers(world)
    doubtful = await world.call(body=GET_TASK)
    assert doubtful.verdict is not None
    assert doubtful.verdict.endswith("rule=strike")
    assert (await world.row()).strikes.count == 1
    await asyncio.sleep(2)
    world.machine().says.usual = RUNNING
    assert (await world.call(body=GET_TASK)).verdict == "alive; rule=running"
    assert (await world.row()).strikes == Strikes()
    assert len(await world.cycles()) == 1  # the one that was given


@pytest.mark.parametrize("heartbeat", [-5, -300, None], ids=["recent", "stale", "missing"])
@pytest.mark.parametrize("preset", [COMBINED, HOLD_FIRST, VERIFY_FIRST], ids=["combined", "hold-first", "verify-first"])
@simulated
async def test_scenario_11_a_probe_that_fails_is_alive_whatever_the_signs_say(
    world: World, preset: Mapping[str, object], heartbeat: float | None
) -> None:
    strikes = Strikes(count=1, first_at=at(-3))
    await world.given(heartbeat=heartbeat, strikes=strikes)
    await world.start(preset)
    nobody_answers(world)
    world.machine().says.usual = RuntimeFailure("api", "the runtime's interface is away")
    assert (await world.call(body=GET_TASK)).verdict == "alive; rule=probe_error"
    assert (await world.row()).strikes == strikes
    assert (await world.row()).status is Status.READY


@pytest.mark.parametrize(
    ("window", "second", "verdict", "count"),
    [
        pytest.param(30, 29.0, "dead; rule=not_running", 0, id="29 s after the restart"),
        pytest.param(120, 31.5, "alive; rule=strike", 1, id="31 s later in a longer window"),
    ],
)
@simulated
async def test_scenario_12_verify_first_believes_the_second_strike_of_a_strike_window(
    world: World, window: float, second: float, verdict: str, count: int
) -> None:
    await world.given(**restarted(0))
    await world.start({**VERIFY_FIRST, "policy.settle_window": window})
    nobody_answers(world)
    await world.until(0.5)
    assert (await world.call(body=GET_TASK)).verdict == "alive; rule=strike"
    assert (await world.row()).strikes.count == 1
    await world.until(second)
    assert (await world.call(body=GET_TASK)).verdict == verdict
    assert (await world.row()).strikes.count == count


@pytest.mark.parametrize(
    ("url", "seen"), [("", ("busy", "recent_heartbeat")), (None, ("alive", "strike"))], ids=["url", "no url"]
)
@simulated
async def test_scenario_13_verify_first_waits_for_a_sign_of_life_of_a_workspace_whose_url_is_known(
    world: World, url: str | None, seen: tuple[str, str]
) -> None:
    await world.given(url=url, heartbeat=-300, **restarted(1))
    app = await world.start(VERIFY_FIRST)
    nobody_answers(world)
    asking = asyncio.create_task(app.gate.ask(world.route(), Trigger.FORWARD))
    await world.until(1.2)
    await app.beats.take(world.route(), Beat())
    judgement = await asking
    assert (judgement.verdict.name, judgement.verdict.rule) == seen


@pytest.mark.parametrize(
    ("heartbeat", "verdict"),
    [(-13.0, "busy; rule=recent_heartbeat"), (-13.001, "dead; rule=not_running")],
    ids=["15.000 s", "15.001 s"],
)
@TWO_PROBE_PRESETS
@simulated
async def test_scenario_14_a_sign_is_recent_up_to_15_s_when_it_is_read_after_the_second_probe(
    world: World, preset: Mapping[str, object], heartbeat: float, verdict: str
) -> None:
    await world.given(heartbeat=heartbeat)
    await world.start(preset)
    nobody_answers(world)
    assert (await world.call(body=GET_TASK)).verdict == verdict
    assert clock() == 2.0


@pytest.mark.parametrize(
    ("preset", "age", "verdict", "probes"),
    [
        (COMBINED, 29.9, "busy; rule=settling", 0),
        (COMBINED, 30.0, "busy; rule=strike", 2),
        (COMBINED, 59.9, "busy; rule=strike", 2),
        (COMBINED, 60.0, "dead; rule=not_running", 2),
        (HOLD_FIRST, 59.9, "busy; rule=settling", 0),
        (HOLD_FIRST, 60.0, "dead; rule=not_running", 2),
        (VERIFY_FIRST, 29.9, "alive; rule=strike", 2),
        (VERIFY_FIRST, 30.0, "dead; rule=not_running", 1),
    ],
)
@simulated
async def test_scenario_15_the_windows_end_at_their_instant(
    world: World, preset: Mapping[str, object], age: float, verdict: str, probes: int
) -> None:
    await world.given(**restarted(age))
    await world.start(preset)
    nobody_answers(world)
    assert (await world.call(body=GET_TASK)).verdict == verdict
    assert world.machine().inspected == probes


@pytest.mark.parametrize("preset", [COMBINED, HOLD_FIRST, VERIFY_FIRST], ids=["combined", "hold-first", "verify-first"])
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


@pytest.mark.parametrize("desired", [Desired.PAUSED, Desired.HIBERNATED, Desired.DRAINING])
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
    assert reply.verdict == "busy; rule=parked"
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

    async def replace(self, workspace: Workspace, **said: object) -> Workspace | None:  # type: ignore[override]  # passes all on
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
    app = await world.start(preset)
    nobody_answers(world)
    calling = asyncio.create_task(world.call(body=GET_TASK))
    await world.until(1.9)
    world.route().signs_dirty = True  # there is something to flush, so that the flush takes its time
    reply = await calling
    assert reply.verdict == "busy; rule=recent_heartbeat"
    assert told_offline(world) == 0
    assert await world.cycles() == []
    await app.stop()


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
    for moment in looks:
        await world.until(moment)
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
