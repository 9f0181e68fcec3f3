"""The health sweep as stories: deaths that nobody asks about, silence, failing probes, ages that prove nothing."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from simulation.scripted import START, Reacts, Script
from simulation.suspects import GET_TASK, RUNNING, nobody_answers, restarted
from simulation.world import World, at, message, simulated

from proxy.clock import Now, Sources, SystemClock
from proxy.core.decision import Decision, Trigger
from proxy.core.lifecycle import Desired, Status
from proxy.core.liveness import Strikes
from proxy.core.times import micros
from proxy.loops.beats import Beat
from proxy.runtimes import RuntimeFailure

EVERY_15: Mapping[str, object] = {"health.sweep": 15}


async def swept(world: World, trigger: Trigger = Trigger.SWEEP) -> list[Decision]:
    """What sweeps concluded, as the decision log has it, oldest first."""
    return [line for line in await world.decisions() if line.trigger is trigger and line.verdict]


def status(world: World) -> Status:
    return world.route().workspace.status


async def statuses(world: World) -> list[tuple[float, str]]:
    """Return when the sweep's network probes moved the workspace, and where to."""
    lines = [line for line in await world.decisions() if line.trigger is Trigger.SWEEP]
    return [((line.at - START).total_seconds(), line.action) for line in lines if line.action.startswith("status")]


# --- deaths ----------------------------------------------------------------------------------------------------------


@simulated
async def test_a_death_that_no_request_finds_is_found_by_the_sweep_and_mended_once(world: World) -> None:
    await world.given(sign=-300)
    await world.start(EVERY_15)
    nobody_answers(world)
    world.machine().starts.usual = 3.0
    await world.until(18)
    assert [(line.verdict, line.rule, line.action) for line in await swept(world)] == [
        ("dead", "not_running", "offline")
    ]
    assert [cycle.started_at for cycle in await world.cycles()] == [at(17)]
    world.machine().says.usual = RUNNING
    world.machine().ready.usual = True
    await world.until(600)
    assert world.machine().verbs() == [("stop", 1), ("start", 1)]
    assert status(world) is Status.READY
    assert world.agent().heard == []


@simulated
async def test_what_does_not_come_back_is_left_to_the_brakes_and_not_to_the_sweep(world: World) -> None:
    await world.given(sign=-300)
    await world.start({**EVERY_15, "restart.debounce": 300, "policy.provisioning_timeout": 0})
    nobody_answers(world)
    await world.until(316)
    # It booted (nobody sweeps what is starting), and nothing was asked again: there is one cycle, waiting for it.
    assert [cycle.phase for cycle in await world.cycles()] == ["started"]
    assert len(await swept(world)) == 1


@simulated
async def test_sweeps_inside_a_settle_window_add_no_strike_and_find_the_death_after_it(world: World) -> None:
    await world.given(**restarted(35))
    await world.start({"health.sweep": 5, "restart.debounce": 0})
    nobody_answers(world)
    await world.until(24.9)
    assert {(line.verdict, line.rule) for line in await swept(world)} == {("busy", "strike")}
    assert len(await swept(world)) > 1
    assert (await world.row()).strikes == Strikes()
    assert (await world.call(body=GET_TASK)).verdict == "busy; rule=strike"
    assert (await world.row()).strikes.count == 1
    await world.until(40)
    assert [line.rule for line in await swept(world) if line.verdict == "dead"] == ["not_running"]
    assert len(await world.cycles()) == 2


@pytest.mark.parametrize("trouble", [RuntimeFailure("api", "no answer"), TimeoutError(), None], ids=str)
@simulated
async def test_a_probe_that_fails_is_no_death_however_often(world: World, trouble: Exception | None) -> None:
    await world.given(sign=-3000)
    await world.start(EVERY_15)
    if trouble is not None:
        world.machine().says.usual = trouble
    else:
        world.machine().thinks = 100.0  # longer than any probe may take
    await world.until(300)
    assert {(line.verdict, line.rule) for line in await swept(world)} == {("alive", "probe_error")}
    assert (status(world), await world.cycles()) == (Status.READY, [])
    assert world.machine().inspected > 10


@simulated
async def test_a_sweep_that_finds_what_the_last_one_found_writes_nothing(world: World) -> None:
    await world.given(sign=-1)
    await world.start(EVERY_15)
    await world.until(20)
    before = await world.row()
    assert before.last_verdict is not None
    assert (before.last_verdict.verdict, len(await swept(world))) == ("alive", 1)
    await world.until(1000)
    assert world.machine().inspected > 60
    assert (await world.row(), len(await swept(world))) == (before, 1)


@pytest.mark.parametrize("desired", [Desired.PAUSED, Desired.HIBERNATED, Desired.DRAINING, Desired.REMOVED])
@pytest.mark.parametrize("managed", [True, False], ids=["managed", "unmanaged"])
@simulated
async def test_scenario_17_a_parked_or_removed_workspace_is_not_looked_at(
    world: World, desired: Desired, *, managed: bool
) -> None:
    await world.given(desired=desired, managed=managed, heartbeat=-3000)
    await world.start(EVERY_15)
    nobody_answers(world)
    before = await world.row()
    await world.until(1000)
    assert await world.row() == before
    assert (world.machine().inspected, world.machine().ready.taken, world.machine().acts) == (0, [], [])
    assert await world.decisions() == []


@simulated
async def test_scenario_17_a_workspace_that_is_paused_during_its_sweep_stays_as_it_was(world: World) -> None:
    await world.given(sign=-300)
    app = await world.start(EVERY_15)
    nobody_answers(world)
    await world.until(16)  # between the two probes
    await app.records.change(world.route(), lambda known: replace(known, desired=Desired.PAUSED))
    await world.until(100)
    assert (status(world), await world.cycles(), world.machine().inspected) == (Status.READY, [], 2)


# --- beats that stop -------------------------------------------------------------------------------------------------


@simulated
async def test_beats_that_stop_for_the_ttl_open_one_evaluation_per_silence(world: World) -> None:
    await world.given(heartbeat=-1)
    app = await world.start(EVERY_15)
    await world.until(178)
    assert await swept(world, Trigger.HEARTBEAT_TTL) == []
    await world.until(300)
    [first] = await swept(world, Trigger.HEARTBEAT_TTL)
    assert (first.at, first.verdict, first.rule) == (at(180), "alive", "running")
    await app.beats.take(world.route(), Beat())
    await world.until(479)
    assert len(await swept(world, Trigger.HEARTBEAT_TTL)) == 1
    await world.until(1000)
    assert [line.at for line in await swept(world, Trigger.HEARTBEAT_TTL)] == [at(180), at(480)]
    assert (status(world), await world.cycles()) == (Status.READY, [])


@simulated
async def test_beats_that_stop_because_it_died_lead_to_a_restart(world: World) -> None:
    await world.given(heartbeat=-170)
    await world.start({**EVERY_15, "policy.recent_heartbeat": 200})
    nobody_answers(world)
    await world.until(33)
    # Silent for the TTL, its last beat still saves it once; it is believed dead as soon as that beat is old.
    assert [line.rule for line in await swept(world, Trigger.HEARTBEAT_TTL)] == ["recent_heartbeat"]
    await world.until(48)
    assert [line.action for line in await swept(world)] == ["offline"]
    assert len(await world.cycles()) == 1


@pytest.mark.parametrize("settings", [{"policy.heartbeat_ttl": 0}, {}], ids=["switched off", "it never beat"])
@simulated
async def test_silence_is_nothing_where_no_beat_is_expected(world: World, settings: dict[str, object]) -> None:
    await world.given(heartbeat=-1 if settings else None)
    await world.start({**EVERY_15, **settings})
    await world.until(2000)
    assert await swept(world, Trigger.HEARTBEAT_TTL) == []


# --- silence of a workspace that nobody hosts ------------------------------------------------------------------------


async def gone_stale(world: World) -> None:
    """Let a workspace without a runtime fall silent: its last sign of life is 90 s old at 89 s."""
    await world.given(managed=False, sign=-1)
    await world.start(EVERY_15)
    nobody_answers(world)
    await world.until(89)
    assert status(world) is not Status.OFFLINE
    await world.until(91)
    assert status(world) is Status.OFFLINE


@simulated
async def test_a_silent_workspace_that_nobody_hosts_goes_offline_without_a_restart_and_is_dialled_all_the_same(
    world: World,
) -> None:
    await gone_stale(world)
    [line] = [line for line in await swept(world) if line.action == "offline"]
    assert (line.verdict, line.rule) == ("unknown", "stale")
    reply = await world.call(body=GET_TASK)
    assert (reply.status, reply.verdict, reply.restart) == (503, "unknown; rule=external", "unmanaged")
    world.agent().reacts.usual = Reacts()
    assert (await world.call(body=message(message_id="m-2"))).status == 200
    assert (world.machine().acts, world.machine().inspected, await world.cycles()) == ([], 0, [])


@pytest.mark.parametrize("how", ["probe", "beat", "registration"])
@simulated
async def test_a_stale_workspace_is_ready_again_by(world: World, how: str) -> None:
    await gone_stale(world)
    app = world.app
    if how == "probe":
        world.machine().ready.usual = True
    elif how == "beat":
        await app.beats.take(world.route(), Beat())
    else:
        await app.enrolling.put("ws", {"url": world.url()}, by_admin=False)
    await world.eventually(lambda: status(world) is Status.READY, within=6)
    assert world.machine().acts == []


@pytest.mark.parametrize("lives", ["its probe passes", "it beats", "it answers calls"])
@simulated
async def test_who_gives_any_sign_of_life_is_not_stale(world: World, lives: str) -> None:
    await world.given(managed=False, sign=-1)
    app = await world.start({**EVERY_15, "health.failures": 0})
    world.machine().ready.usual = lives == "its probe passes"
    for minute in range(1, 10):
        if lives == "it beats":
            await app.beats.take(world.route(), Beat())
        elif lives == "it answers calls":
            assert (await world.call(body=message(message_id=f"m-{minute}"))).status == 200
        await world.until(60 * minute)
    assert [line.action for line in await swept(world)] == []
    assert status(world) is Status.READY


@simulated
async def test_nobody_is_stale_where_that_is_switched_off(world: World) -> None:
    await world.given(managed=False, sign=-1)
    await world.start({**EVERY_15, "health.stale": 0, "health.failures": 0})
    nobody_answers(world)
    await world.until(10_000)
    assert status(world) is Status.READY


# --- network probes --------------------------------------------------------------------------------------------------


@simulated
async def test_three_probes_in_a_row_that_fail_degrade_and_the_next_that_passes_makes_ready(world: World) -> None:
    await world.given(sign=-1)
    await world.start(EVERY_15)
    probe: Script[bool] = world.machine().ready
    probe.queue(False, False, True, False, False, False, False, True)
    await world.until(200)
    assert await statuses(world) == [(90.0, "status degraded"), (120.0, "status ready")]
    assert (status(world), world.machine().acts) == (Status.READY, [])


@simulated
async def test_a_degraded_workspace_is_dialled(world: World) -> None:
    await world.given(sign=-1)
    await world.start(EVERY_15)
    world.machine().ready.usual = False
    await world.until(50)
    assert status(world) is Status.DEGRADED
    assert (await world.call()).status == 200


@simulated
async def test_what_a_proxy_degraded_the_next_one_makes_ready(world: World) -> None:
    await world.given(sign=-1)
    await world.start(EVERY_15)
    world.machine().ready.usual = False
    await world.until(50)
    await world.stop()
    world.machine().ready.usual = True
    await world.start(EVERY_15)
    await world.until(70)
    assert status(world) is Status.READY


@simulated
async def test_a_workspace_that_calls_itself_degraded_is_not_made_ready_by_a_probe(world: World) -> None:
    await world.given(sign=-1)
    app = await world.start(EVERY_15)
    await app.beats.take(world.route(), Beat(status="degraded"))
    await world.until(100)
    assert status(world) is Status.DEGRADED
    await app.beats.take(world.route(), Beat(status="ready"))
    assert status(world) is Status.READY


@simulated
async def test_failing_probes_degrade_nobody_where_that_is_switched_off(world: World) -> None:
    await world.given(sign=-1)
    await world.start({**EVERY_15, "health.failures": 0})
    world.machine().ready.usual = False
    await world.until(1000)
    assert await statuses(world) == []


@simulated
async def test_a_workspace_that_polls_is_never_probed_but_may_fall_silent(world: World) -> None:
    await world.given(managed=False, sign=-1, delivery_mode="poll", url=None)
    await world.start(EVERY_15)
    await world.until(200)
    assert (status(world), world.machine().ready.taken) == (Status.OFFLINE, [])
    await world.app.beats.take(world.route(), Beat())
    assert status(world) is Status.READY


# --- ages that prove nothing -----------------------------------------------------------------------------------------


class Wall:
    """The machine's clocks in virtual time; the wall is `ahead` of where it should be."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def clock(self, loop: asyncio.AbstractEventLoop, _: Any) -> Now:
        def elapsed() -> int:
            return micros(START) * 1000 + round(loop.time() * 1e9)

        return SystemClock(Sources(wall=lambda: elapsed() + round(self.ahead * 1e9), elapsed=elapsed, awake=elapsed))


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> Wall:
    """Let the world's proxies have a system clock."""
    made = Wall()
    monkeypatch.setattr("simulation.world.virtual_now", made.clock)
    return made


@simulated
async def test_after_the_proxy_s_start_nobody_is_stale_for_one_ttl(world: World, wall: Wall) -> None:
    await world.given(managed=False, sign=-100_000)
    await world.start({"health.sweep": 1, "health.failures": 0})
    nobody_answers(world)
    await world.until(89.5)
    assert status(world) is Status.READY
    await world.until(91.5)
    assert status(world) is Status.OFFLINE


@simulated
async def test_after_the_proxy_s_start_nobody_has_fallen_silent_for_one_ttl(world: World, wall: Wall) -> None:
    await world.given(heartbeat=-100_000)
    await world.start({"health.sweep": 1})
    await world.until(179.5)
    assert await swept(world, Trigger.HEARTBEAT_TTL) == []
    await world.until(181.5)
    assert len(await swept(world, Trigger.HEARTBEAT_TTL)) == 1


def beats_every_30(world: World) -> asyncio.Task[None]:
    """Let the workspace beat twice a minute, until the task is cancelled."""

    async def beat() -> None:
        while True:
            await world.app.beats.take(world.route(), Beat())
            await asyncio.sleep(30)

    return asyncio.create_task(beat())


@simulated
async def test_after_a_jump_of_the_clock_nobody_is_stale_for_one_ttl(world: World, wall: Wall) -> None:
    await world.given(managed=False, sign=-1)
    await world.start({"health.sweep": 1, "health.failures": 0})
    nobody_answers(world)
    beating = beats_every_30(world)
    await world.until(200)
    wall.ahead = 3600.0  # at once every sign of life is an hour old
    await world.until(205)
    assert status(world) is Status.READY
    beating.cancel()
    await world.until(289)
    assert status(world) is Status.READY
    await world.until(305)
    assert status(world) is Status.OFFLINE


@simulated
async def test_after_a_jump_of_the_clock_nobody_has_fallen_silent_for_one_ttl(world: World, wall: Wall) -> None:
    await world.given(heartbeat=-1)
    await world.start({"health.sweep": 1})
    beating = beats_every_30(world)
    await world.until(200)
    wall.ahead = 3600.0
    beating.cancel()
    await world.until(379)
    assert await swept(world, Trigger.HEARTBEAT_TTL) == []
    await world.until(382)
    assert len(await swept(world, Trigger.HEARTBEAT_TTL)) == 1
