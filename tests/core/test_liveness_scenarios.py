"""The scenarios of dead detection, at the level of the decision: who is read, how often, and what it leads to."""

from dataclasses import replace
from datetime import timedelta

import pytest
from core.liveness_shell import (
    COMBINED,
    ERROR,
    EVERY_PRESET,
    HOLD_FIRST,
    NOT_RUNNING,
    OPENED,
    RUNNING,
    VERIFY_FIRST,
    Sign,
    after,
    ago,
    facts,
    play,
    preset_name,
)

from proxy.core.liveness import ProbeState, Strikes
from proxy.core.outcome import Action, Failing, Outcome, action_for
from proxy.core.presets import LivenessPolicy, policy_from, validate

TWO_PROBE_PRESETS = pytest.mark.parametrize("policy", [COMBINED, HOLD_FIRST], ids=preset_name)


@TWO_PROBE_PRESETS
def test_scenario_01_a_restart_that_just_finished_is_busy_and_nothing_is_read(policy: LivenessPolicy) -> None:
    """[PostRestartSettleWindow_StaysBusy] A 5 s old heartbeat and a probe saying "not running" are never asked for."""
    finished = facts(restart_started_at=OPENED, restart_returned_at=OPENED)
    played = play(policy, finished, probes=[NOT_RUNNING], signs=[Sign(ago(5))])
    assert played.seen == ("busy", "settling", 0, 0)
    assert played.asked == ()


@EVERY_PRESET
def test_scenario_02_a_recent_heartbeat_keeps_five_failures_within_30_s_busy(policy: LivenessPolicy) -> None:
    """[RecentHeartbeat_StaysBusy] However often the probe denies it: five times busy, so nothing is set offline."""
    strikes = Strikes()
    for seconds in (0, 6, 12, 18, 24):
        opened = after(seconds)
        evidence = facts(opened_at=opened, strikes=strikes)
        beats = [Sign(opened - timedelta(seconds=4))]
        played = play(policy, evidence, probes=[NOT_RUNNING, NOT_RUNNING], signs=beats)
        assert (played.verdict.name, played.verdict.rule) == ("busy", "recent_heartbeat")
        strikes = played.verdict.strikes
    assert strikes == Strikes()


@TWO_PROBE_PRESETS
def test_scenario_03_not_running_and_then_running_is_alive_after_two_probes(policy: LivenessPolicy) -> None:
    """[ReProbe_TransportFlake] With a stale heartbeat; the row stays untouched because the verdict is ALIVE."""
    played = play(policy, facts(), probes=[NOT_RUNNING, RUNNING], signs=[Sign(ago(300))])
    assert played.seen == ("alive", "running", 2, 0)
    assert [question.at for question in played.asked] == [OPENED, after(2)]


@pytest.mark.parametrize("signs", [[Sign(ago(300))], []], ids=["stale", "missing"])
@TWO_PROBE_PRESETS
def test_scenario_04_not_running_twice_and_no_sign_of_life_is_dead(policy: LivenessPolicy, signs: list[Sign]) -> None:
    """[CPOnly_NotRunning] Exactly two probes and one look at the heartbeat."""
    played = play(policy, facts(), probes=[NOT_RUNNING, NOT_RUNNING], signs=signs)
    assert played.seen == ("dead", "not_running", 2, 1)


@TWO_PROBE_PRESETS
def test_scenario_05_an_upstream_502_from_a_dead_box_is_a_503(policy: LivenessPolicy) -> None:
    """[Upstream502_TriggersContainerDeadCheck] Scenario 4's verdict: the 502 is not passed on, a restart follows."""
    played = play(policy, facts(), probes=[NOT_RUNNING, NOT_RUNNING], signs=[Sign(ago(300))])
    assert played.seen == ("dead", "not_running", 2, 1)
    failing = Failing(outcome=Outcome.GATEWAY, verdict=played.verdict.name, rule=played.verdict.rule, deferrable=True)
    assert action_for(failing) is Action.REJECT


@pytest.mark.parametrize(
    ("policy", "verdict"),
    [(HOLD_FIRST, "busy"), (VERIFY_FIRST, "alive"), (COMBINED, "busy")],
    ids=preset_name,
)
def test_scenario_06_a_restart_in_flight_is_never_probed(policy: LivenessPolicy, verdict: str) -> None:
    """[workspace_restart_self_fire_test] No probe and no verdict that would ask for a second restart."""
    played = play(policy, facts(restart_in_flight=True, restart_started_at=ago(200)))
    assert played.seen == (verdict, "restarting", 0, 0)


def test_scenario_07_verify_first_a_recent_heartbeat_outweighs_two_probes() -> None:
    """[RecentHeartbeat_DoesNotRestart] Not dead, two probes, and BUSY: the request is queued."""
    played = play(VERIFY_FIRST, facts(), probes=[NOT_RUNNING, NOT_RUNNING], signs=[Sign(ago(3))])
    assert played.seen == ("busy", "recent_heartbeat", 2, 1)
    assert [question.at for question in played.asked] == [OPENED, OPENED, after(0.5)]


@pytest.mark.parametrize("signs", [[Sign(ago(16))], []], ids=["stale", "missing"])
def test_scenario_08_verify_first_without_doubt_one_probe_is_enough(signs: list[Sign]) -> None:
    """[NoRecentHeartbeat_DeclaresDead] Exactly one probe, at once; DEAD clears the strikes."""
    played = play(VERIFY_FIRST, facts(strikes=Strikes(count=1, first_at=ago(5))), probes=[NOT_RUNNING], signs=signs)
    assert played.seen == ("dead", "not_running", 1, 1)
    assert played.ended_at == OPENED
    assert played.verdict.strikes == Strikes()


def test_scenario_09_verify_first_a_finished_restart_with_a_heartbeat_is_not_dead() -> None:
    """[SettleWindow_DoesNotClearURL] Inside 30 s and beating now: two probes, BUSY, and so the URL is kept."""
    evidence = facts(restart_started_at=ago(12), restart_returned_at=ago(8))
    played = play(VERIFY_FIRST, evidence, probes=[NOT_RUNNING, NOT_RUNNING], signs=[Sign(OPENED)])
    assert played.seen == ("busy", "recent_heartbeat", 2, 1)


@pytest.mark.parametrize(("policy", "age"), [(COMBINED, 40), (VERIFY_FIRST, 5)], ids=preset_name)
def test_scenario_10_a_running_probe_clears_the_strikes(policy: LivenessPolicy, age: float) -> None:
    """[RunningTrueAfterReprobe_Resets] One doubtful failure, then "not running, running": no strike is left."""
    doubtful = play(policy, facts(restart_started_at=ago(age)), probes=[NOT_RUNNING, NOT_RUNNING])
    assert (doubtful.verdict.rule, doubtful.verdict.strikes.count) == ("strike", 1)

    later = facts(opened_at=after(5), restart_started_at=ago(age), strikes=doubtful.verdict.strikes)
    played = play(policy, later, probes=[NOT_RUNNING, RUNNING])
    assert (played.verdict.name, played.verdict.rule) == ("alive", "running")
    assert played.verdict.strikes == Strikes()


@pytest.mark.parametrize("signs", [[Sign(ago(1))], [Sign(ago(999))], []], ids=["recent", "stale", "missing"])
@pytest.mark.parametrize("probes", [[ERROR], [NOT_RUNNING, ERROR]], ids=["first", "second"])
@EVERY_PRESET
def test_scenario_11_a_probe_that_fails_is_never_a_death(
    policy: LivenessPolicy, probes: list[ProbeState], signs: list[Sign]
) -> None:
    """[InspectErr_AssumesAlive] ALIVE whatever the heartbeat says, and the strikes stay as they were."""
    known = Strikes(count=1, first_at=ago(3))
    # In verify-first only doubt leads to a second probe: a restart that is young enough for it.
    age = 20 if policy is VERIFY_FIRST else 100
    played = play(policy, facts(strikes=known, restart_started_at=ago(age)), probes=probes, signs=signs)
    assert (played.verdict.name, played.verdict.rule) == ("alive", "probe_error")
    assert played.verdict.strikes == known


def test_scenario_12_verify_first_the_second_strike_while_settling_is_dead() -> None:
    """[◇ strikes] Strike 1 at 0.5 s after the restart, strike 2 at 29 s: inside the window, less than 30 s apart."""
    restart = ago(0.5)
    first = play(VERIFY_FIRST, facts(restart_started_at=restart), probes=[NOT_RUNNING, NOT_RUNNING])
    assert first.seen == ("alive", "strike", 2, 5)
    assert first.verdict.strikes == Strikes(count=1, first_at=after(2.5))

    again = facts(opened_at=restart + timedelta(seconds=29), restart_started_at=restart, strikes=first.verdict.strikes)
    second = play(VERIFY_FIRST, again, probes=[NOT_RUNNING, NOT_RUNNING])
    assert second.seen == ("dead", "not_running", 2, 5)
    assert second.verdict.strikes == Strikes()


@pytest.mark.parametrize(("seconds", "expected"), [(29.999, "dead"), (30, "alive"), (31, "alive")])
def test_scenario_12_verify_first_a_strike_after_the_strike_window_is_the_first_again(
    seconds: float, expected: str
) -> None:
    """[◇ strikes] With a settle window of 120 s a second strike 31 s after the first counts as 1, not as 2."""
    patient = policy_from("verify-first", {"settle_window": 120})
    first = play(patient, facts(restart_started_at=ago(1)), probes=[NOT_RUNNING, NOT_RUNNING])
    evidence = facts(opened_at=after(seconds), restart_started_at=ago(1), strikes=first.verdict.strikes)
    second = play(patient, evidence, probes=[NOT_RUNNING, NOT_RUNNING])
    assert second.verdict.name == expected
    assert second.verdict.strikes.count == (1 if expected == "alive" else 0)


@pytest.mark.parametrize(
    ("has_url", "expected"),
    [(True, ("busy", "recent_heartbeat", 2, 4)), (False, ("alive", "strike", 2, 5))],
    ids=["url set", "url empty"],
)
def test_scenario_13_verify_first_a_heartbeat_that_lands_while_it_is_waited_for(
    has_url: bool, expected: tuple[str, str, int, int]
) -> None:
    """[◇ fresh wait] It lands 1.2 s into the wait and is found by the look at 1.5 s; without a URL it is not fresh."""
    landing = [Sign(ago(60)), Sign(after(1.2), has_url=has_url)]
    played = play(VERIFY_FIRST, facts(restart_started_at=ago(4)), probes=[NOT_RUNNING, NOT_RUNNING], signs=landing)
    assert played.seen == expected


@pytest.mark.parametrize(("age", "recent"), [(15.0, True), (15.001, False)])
@EVERY_PRESET
def test_scenario_14_a_heartbeat_of_exactly_15_s_is_recent(policy: LivenessPolicy, age: float, recent: bool) -> None:
    """[◇ inclusive] Taken when it is read, which in the two-probe presets is after the second probe."""
    read_at = OPENED if policy is VERIFY_FIRST else after(2)
    beat = Sign(read_at - timedelta(seconds=age))
    played = play(policy, facts(), probes=[NOT_RUNNING, NOT_RUNNING], signs=[beat])
    assert played.verdict.name == ("busy" if recent else "dead")


@pytest.mark.parametrize(
    ("policy", "age", "expected"),
    [
        (VERIFY_FIRST, 29.9, ("alive", "strike", 2, 5)),
        (VERIFY_FIRST, 30.0, ("dead", "not_running", 1, 1)),
        (HOLD_FIRST, 59.9, ("busy", "settling", 0, 0)),
        (HOLD_FIRST, 60.0, ("dead", "not_running", 2, 1)),
        (COMBINED, 29.9, ("busy", "settling", 0, 0)),
        (COMBINED, 30.0, ("busy", "strike", 2, 1)),
        (COMBINED, 59.9, ("busy", "strike", 2, 1)),
        (COMBINED, 60.0, ("dead", "not_running", 2, 1)),
    ],
    ids=preset_name,
)
def test_scenario_15_the_settle_window_ages_out(
    policy: LivenessPolicy, age: float, expected: tuple[str, str, int, int]
) -> None:
    """[◇ ages out] The branch flips exactly at the limit, and the age is the one at the opening."""
    played = play(policy, facts(restart_started_at=ago(age)), probes=[NOT_RUNNING, NOT_RUNNING])
    assert played.seen == expected


@pytest.mark.parametrize(
    ("policy", "verdict"),
    [(HOLD_FIRST, "alive"), (VERIFY_FIRST, "alive"), (COMBINED, "unknown")],
    ids=preset_name,
)
def test_scenario_16_an_external_workspace_is_never_probed(policy: LivenessPolicy, verdict: str) -> None:
    """[○ external runtime] Nothing is read; what nobody can tell is ALIVE in the old presets and UNKNOWN in ours."""
    played = play(policy, facts(external=True))
    assert played.seen == (verdict, "external", 0, 0)


def test_scenario_21_a_hold_longer_than_the_window_is_an_error_and_a_short_window_a_warning() -> None:
    """[□ start-up] hold > window is rejected, window < debounce warned of."""
    inverted = replace(COMBINED, settle_hold=61)
    assert validate(inverted, 60).errors == ("settle_hold: 61 is longer than settle_window 60",)
    assert validate(COMBINED, 60) == ((), ())
    short = validate(VERIFY_FIRST, 60)
    assert short.errors == ()
    assert len(short.warnings) == 1
    assert "settle_window: 30 is shorter than the restart debounce 60" in short.warnings[0]


@EVERY_PRESET
def test_scenario_22_the_settle_window_survives_a_proxy_that_restarts(policy: LivenessPolicy) -> None:
    """[□ restart] The window hangs on stored instants alone: nothing in the decision remembers between two calls."""
    stored = {"restart_started_at": ago(10), "restart_returned_at": ago(9)}
    before = play(policy, facts(**stored), probes=[NOT_RUNNING, NOT_RUNNING])
    again = play(replace(policy), facts(**stored), probes=[NOT_RUNNING, NOT_RUNNING])
    assert before.seen == again.seen
    assert before.verdict.name != "dead"
