"""The decision, row by row: what each rule answers, on both sides of its limits."""

from dataclasses import replace
from typing import Any

import pytest
from core.liveness_shell import (
    COMBINED,
    ERROR,
    EVERY_PRESET,
    GONE,
    HOLD_FIRST,
    NOT_RUNNING,
    ONE_STRIKE,
    OPENED,
    RUNNING,
    STARTING,
    VERIFY_FIRST,
    Sign,
    after,
    ago,
    facts,
    play,
    preset_name,
)

from proxy.core.liveness import (
    Ask,
    ProbeState,
    Strikes,
)
from proxy.core.presets import LivenessPolicy, policy_from

# --- rows of `combined` ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        # A restart, ours or announced, comes before everything, even an exit that was seen.
        ({"restart_in_flight": True, "exited_at": ago(1)}, ("busy", "restarting")),
        ({"announced_at": ago(59.999), "exited_at": ago(1)}, ("busy", "restarting")),
        ({"announced_at": ago(60), "exited_at": ago(1)}, ("dead", "exited")),
        # A seen exit comes before the hold, and does not care about doubt or a missing runtime.
        ({"exited_at": ago(1), "restart_started_at": ago(5)}, ("dead", "exited")),
        ({"agent_down_at": ago(1), "restart_started_at": ago(5)}, ("dead", "exited")),
        ({"exited_at": ago(1), "doubted": True, "external": True}, ("dead", "exited")),
        # The hold counts from the later of start and return.
        ({"restart_started_at": ago(29.999)}, ("busy", "settling")),
        ({"restart_started_at": ago(500), "restart_returned_at": ago(29.999)}, ("busy", "settling")),
        ({"restart_returned_at": ago(29.999)}, ("busy", "settling")),
        ({"restart_started_at": after(3)}, ("busy", "settling")),
        ({"restart_started_at": ago(500), "restart_returned_at": ago(30), "external": True}, ("unknown", "external")),
        ({"external": True}, ("unknown", "external")),
    ],
)
def test_combined_decides_without_reading(known: dict[str, Any], expected: tuple[str, str]) -> None:
    played = play(COMBINED, facts(strikes=ONE_STRIKE, **known))
    assert played.seen == (*expected, 0, 0)
    assert played.verdict.strikes == (Strikes() if expected[0] == "dead" else ONE_STRIKE)


@pytest.mark.parametrize(
    ("probes", "expected"),
    [
        ([ERROR], ("alive", "probe_error", 1, 0)),
        ([RUNNING], ("alive", "running", 1, 0)),
        ([STARTING], ("busy", "booting", 1, 0)),
        ([GONE], ("dead", "exited", 1, 0)),
        ([NOT_RUNNING, ERROR], ("alive", "probe_error", 2, 0)),
        ([NOT_RUNNING, RUNNING], ("alive", "running", 2, 0)),
        ([NOT_RUNNING, STARTING], ("busy", "booting", 2, 0)),
        ([NOT_RUNNING, GONE], ("dead", "exited", 2, 0)),
        ([NOT_RUNNING, NOT_RUNNING], ("dead", "not_running", 2, 1)),
    ],
    ids=lambda value: "-".join(map(str, value)),
)
def test_combined_follows_the_probes(probes: list[ProbeState], expected: tuple[str, str, int, int]) -> None:
    assert play(COMBINED, facts(restart_started_at=ago(120)), probes=probes).seen == expected


@pytest.mark.parametrize(
    ("known", "sign", "expected"),
    [
        ({"restart_started_at": ago(40)}, Sign(ago(39.999)), "recent_heartbeat"),
        ({"restart_started_at": ago(40)}, Sign(ago(40)), "strike"),
        ({"restart_started_at": ago(40)}, Sign(ago(40.001)), "strike"),
        # A newer sign counts inside the window only, and the window, as the hold, counts from the later anchor.
        ({"restart_started_at": ago(60)}, Sign(ago(59.999)), "not_running"),
        ({"restart_started_at": ago(90), "restart_returned_at": ago(59.999)}, Sign(ago(80)), "recent_heartbeat"),
        ({"restart_started_at": ago(90), "restart_returned_at": ago(60)}, Sign(ago(80)), "not_running"),
        ({"restart_returned_at": ago(40)}, Sign(ago(39.999)), "recent_heartbeat"),
        # Whether it said where it listens does not matter here.
        ({"restart_started_at": ago(40)}, Sign(ago(30), has_url=False), "recent_heartbeat"),
    ],
)
def test_combined_believes_a_sign_of_life_newer_than_the_restart_inside_the_window(
    known: dict[str, Any], sign: Sign, expected: str
) -> None:
    played = play(COMBINED, facts(**known), probes=[NOT_RUNNING, NOT_RUNNING], signs=[sign])
    assert played.seen[1:] == (expected, 2, 1)


def test_a_sign_of_life_that_lands_during_the_evaluation_counts() -> None:
    played = play(COMBINED, facts(), probes=[NOT_RUNNING, NOT_RUNNING], signs=[Sign(ago(300)), Sign(after(1.9))])
    assert played.seen == ("busy", "recent_heartbeat", 2, 1)


def test_a_window_does_not_age_out_while_its_evaluation_waits() -> None:
    played = play(COMBINED, facts(restart_started_at=ago(59.9)), probes=[NOT_RUNNING, NOT_RUNNING], latency=1.0)
    assert played.ended_at > after(0.1), "by the end the restart is more than 60 s old"
    assert played.seen == ("busy", "strike", 2, 1)


@pytest.mark.parametrize(
    ("doubted", "expected", "strikes"),
    [(False, ("dead", "not_running"), Strikes()), (True, ("busy", "self_doubt"), ONE_STRIKE)],
)
def test_doubt_replaces_an_inferred_death(doubted: bool, expected: tuple[str, str], strikes: Strikes) -> None:
    played = play(COMBINED, facts(doubted=doubted, strikes=ONE_STRIKE), probes=[NOT_RUNNING, NOT_RUNNING])
    assert played.seen == (*expected, 2, 1)
    assert played.verdict.strikes == strikes


def test_doubt_does_not_hide_what_the_runtime_says_is_gone() -> None:
    assert play(COMBINED, facts(doubted=True), probes=[GONE]).seen == ("dead", "exited", 1, 0)


@pytest.mark.parametrize("policy", [HOLD_FIRST, VERIFY_FIRST], ids=preset_name)
def test_the_other_presets_know_neither_exits_nor_announcements_nor_doubt(policy: LivenessPolicy) -> None:
    extra = facts(exited_at=ago(1), agent_down_at=ago(1), announced_at=ago(1), restart_returned_at=ago(1), doubted=True)
    plain = play(policy, facts(), probes=[NOT_RUNNING, NOT_RUNNING], signs=[Sign(ago(300))])
    assert play(policy, extra, probes=[NOT_RUNNING, NOT_RUNNING], signs=[Sign(ago(300))]).seen == plain.seen


# --- booting ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("age", "sign", "expected"),
    [
        (599.999, None, ("busy", "booting")),
        (600, None, ("dead", "not_running")),
        (None, None, ("dead", "not_running")),
        # A boot that nobody asked us for is believed from the last sign of life on, just as long.
        (90_000, 598, ("busy", "booting")),
        (None, 597.999, ("busy", "booting")),
        (None, 605, ("dead", "not_running")),
    ],
)
@EVERY_PRESET
def test_starting_is_believed_for_the_provisioning_timeout(
    policy: LivenessPolicy, age: float | None, sign: float | None, expected: tuple[str, str]
) -> None:
    evidence = facts(restart_started_at=None if age is None else ago(age))
    signs = [] if sign is None else [Sign(ago(sign))]
    verdict = play(policy, evidence, probes=[STARTING, STARTING], signs=signs).verdict
    # The two-probe presets read the sign 2 s later.
    if sign == 598 and policy is not VERIFY_FIRST:
        expected = ("dead", "not_running")
    assert (verdict.name, verdict.rule) == expected


@EVERY_PRESET
def test_starting_is_believed_for_ever_where_the_timeout_is_off(policy: LivenessPolicy) -> None:
    patient = policy_from(policy.preset, {"provisioning_timeout": 0})
    assert play(patient, facts(restart_started_at=ago(90_000)), probes=[STARTING]).verdict.rule == "booting"


@pytest.mark.parametrize(("policy", "probes", "reads"), [(HOLD_FIRST, 2, 1), (VERIFY_FIRST, 1, 1)], ids=preset_name)
def test_gone_is_not_running_in_the_presets_that_know_only_yes_and_no(
    policy: LivenessPolicy, probes: int, reads: int
) -> None:
    assert play(policy, facts(), probes=[GONE, GONE]).seen == ("dead", "not_running", probes, reads)
    assert play(policy, facts(), probes=[GONE, GONE], signs=[Sign(OPENED)]).verdict.rule == "recent_heartbeat"


# --- verify-first ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("age", "signs", "expected"),
    [
        # settling, recent (first reading) and fresh (any reading), one by one
        (10, [], ("alive", "strike", 2, 5)),
        (10, [Sign(ago(10))], ("busy", "recent_heartbeat", 2, 5)),
        (20, [Sign(ago(19.999))], ("busy", "recent_heartbeat", 2, 1)),
        (20, [Sign(ago(20))], ("alive", "strike", 2, 5)),
        (20, [Sign(ago(19), has_url=False)], ("alive", "strike", 2, 5)),
        (20, [Sign(ago(14), has_url=False)], ("busy", "recent_heartbeat", 2, 5)),
        (20, [Sign(after(2.0))], ("busy", "recent_heartbeat", 2, 5)),
        (20, [Sign(after(2.001))], ("alive", "strike", 2, 5)),
        (30, [Sign(ago(29))], ("dead", "not_running", 1, 1)),
        (30, [Sign(ago(15))], ("busy", "recent_heartbeat", 2, 1)),
        (None, [Sign(ago(15.001))], ("dead", "not_running", 1, 1)),
    ],
)
def test_verify_first_weighs_recent_fresh_and_settling(
    age: float | None, signs: list[Sign], expected: tuple[str, str, int, int]
) -> None:
    evidence = facts(restart_started_at=None if age is None else ago(age))
    assert play(VERIFY_FIRST, evidence, probes=[NOT_RUNNING, NOT_RUNNING], signs=signs).seen == expected


def test_verify_first_looks_every_half_second_until_its_wait_ends() -> None:
    played = play(VERIFY_FIRST, facts(restart_started_at=ago(5)), probes=[RUNNING])
    assert [(question.ask, question.at) for question in played.asked] == [
        (Ask.LIFE, OPENED),
        *[(Ask.LIFE, after(seconds)) for seconds in (0.5, 1.0, 1.5, 2.0)],
        (Ask.PROBE, after(2.0)),
    ]


def test_the_last_look_comes_when_the_wait_ends_even_between_two_polls() -> None:
    odd = policy_from("verify-first", {"fresh_wait": 1.2})
    played = play(odd, facts(restart_started_at=ago(5)), probes=[RUNNING])
    assert [question.at for question in played.asked if question.ask is Ask.LIFE][-1] == after(1.2)


# --- strikes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stored", "expected", "left"),
    [
        (Strikes(), "strike", Strikes(count=1, first_at=after(2))),
        (Strikes(count=1, first_at=ago(27.999)), "not_running", Strikes()),
        (Strikes(count=1, first_at=ago(28)), "strike", Strikes(count=1, first_at=after(2))),
        (Strikes(count=5, first_at=ago(28)), "strike", Strikes(count=1, first_at=after(2))),
    ],
)
def test_strikes_add_up_within_30_s_of_the_first(stored: Strikes, expected: str, left: Strikes) -> None:
    """They are counted at the second probe, 2 s after the opening."""
    evidence = facts(restart_started_at=ago(40), strikes=stored)
    verdict = play(COMBINED, evidence, probes=[NOT_RUNNING, NOT_RUNNING]).verdict
    assert (verdict.rule, verdict.strikes) == (expected, left)


def test_three_strikes_where_three_are_asked_for() -> None:
    patient = policy_from("combined", {"strikes": 3})
    seen = []
    strikes = Strikes()
    for seconds in (0, 5, 10):
        evidence = facts(opened_at=after(seconds), restart_started_at=ago(31), strikes=strikes)
        verdict = play(patient, evidence, probes=[NOT_RUNNING, NOT_RUNNING]).verdict
        strikes = verdict.strikes
        seen.append((verdict.rule, strikes.count, strikes.first_at))
    assert seen == [("strike", 1, after(2)), ("strike", 2, after(2)), ("not_running", 0, None)]


@pytest.mark.parametrize("policy", [COMBINED, VERIFY_FIRST], ids=preset_name)
def test_a_sweep_adds_no_strike_and_cannot_be_the_last_one(policy: LivenessPolicy) -> None:
    evidence = facts(restart_started_at=ago(30 if policy is COMBINED else 10), strikes=ONE_STRIKE, sweep=True)
    verdict = play(policy, evidence, probes=[NOT_RUNNING, NOT_RUNNING]).verdict
    assert (verdict.rule, verdict.strikes) == ("strike", ONE_STRIKE)
    counted = play(policy, replace(evidence, sweep=False), probes=[NOT_RUNNING, NOT_RUNNING]).verdict
    assert (counted.name, counted.rule) == ("dead", "not_running")


def test_without_strikes_a_second_probe_is_enough_inside_the_window() -> None:
    strict = policy_from("combined", {"strikes": 0})
    evidence = facts(restart_started_at=ago(40))
    assert play(strict, evidence, probes=[NOT_RUNNING, NOT_RUNNING]).seen == ("dead", "not_running", 2, 1)


@pytest.mark.parametrize(
    ("preset", "off", "known", "expected"),
    [
        ("combined", {"settle_hold": 0, "settle_window": 0}, {"restart_started_at": after(1)}, "not_running"),
        ("combined", {"settle_hold": 0, "settle_window": 0}, {"announced_at": after(1)}, "not_running"),
        ("combined", {"settle_hold": 0}, {"restart_started_at": after(1)}, "strike"),
        ("combined", {"recent_heartbeat": 0}, {}, "not_running"),
        ("verify-first", {"settle_window": 0}, {"restart_started_at": after(1)}, "not_running"),
    ],
)
def test_a_window_of_0_is_off_even_for_what_comes_from_the_future(
    preset: str, off: dict[str, float], known: dict[str, Any], expected: str
) -> None:
    """Two clocks that differ a little may put an instant behind the opening."""
    signs = [Sign(after(2))] if "recent_heartbeat" in off else []
    played = play(policy_from(preset, off), facts(**known), probes=[NOT_RUNNING, NOT_RUNNING], signs=signs)
    assert played.verdict.rule == expected
