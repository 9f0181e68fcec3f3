"""The scenarios of dead detection through a whole proxy: what the caller gets, what was read and written."""

import asyncio
from collections.abc import Mapping

import pytest
from simulation.suspects import (
    COMBINED,
    EVERY_PRESET,
    GET_TASK,
    HOLD_FIRST,
    NOT_RUNNING,
    RUNNING,
    TWO_PROBE_PRESETS,
    VERIFY_FIRST,
    nobody_answers,
    readings,
    restarted,
    told_offline,
    unchanged,
)
from simulation.world import Reacts, Reply, World, at, clock, fails, message, simulated

from proxy.core.decision import Trigger
from proxy.core.lifecycle import Status
from proxy.core.liveness import Strikes
from proxy.core.restart import Trigger as RestartTrigger
from proxy.loops.beats import Beat
from proxy.runtimes import RuntimeFailure
from proxy.telemetry import EventName


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


@pytest.mark.parametrize(("preset", "ago"), [(COMBINED, 40), (VERIFY_FIRST, 10)], ids=["combined", "verify-first"])
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
@EVERY_PRESET
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
