"""The decision, row by row: what each rule reads and answers, and how questions and readings meet."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from itertools import product
from typing import Any, cast

import pytest
from core.liveness_shell import (
    COMBINED,
    ERROR,
    GONE,
    HOLD_FIRST,
    NOT_RUNNING,
    OPENED,
    RUNNING,
    STARTING,
    VERIFY_FIRST,
    Sign,
    after,
    ago,
    facts,
    play,
)

from proxy.core.liveness import (
    Alive,
    Ask,
    Busy,
    Dead,
    Evidence,
    Life,
    Previous,
    ProbeReading,
    ProbeState,
    Strikes,
    Unknown,
    Unsettled,
    Verdict,
    judge,
    most_asks,
    throttled,
)
from proxy.core.liveness_case import Case
from proxy.core.liveness_rules import RULES, Asks, Gives, Tally
from proxy.core.presets import LivenessPolicy, Preset, policy_from

ONE_STRIKE = Strikes(count=1, first_at=ago(4))


def preset_name(value: object) -> str:
    return str(getattr(value, "preset", value))


EVERY_PRESET = pytest.mark.parametrize("policy", [COMBINED, HOLD_FIRST, VERIFY_FIRST], ids=preset_name)


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


# --- questions and readings ------------------------------------------------------------------------------------------


def test_a_question_names_what_when_and_why() -> None:
    assert judge(COMBINED, facts(), OPENED) == Unsettled(ask=Ask.PROBE, at=OPENED, rule="first_probe")
    once = facts(probes=(ProbeReading(at=after(0.3), state=NOT_RUNNING),))
    assert judge(COMBINED, once, after(0.4)) == Unsettled(ask=Ask.PROBE, at=after(2.3), rule="second_probe")
    twice = replace(once, probes=(*once.probes, ProbeReading(at=after(2.3), state=NOT_RUNNING)))
    assert judge(COMBINED, twice, after(2.4)) == Unsettled(ask=Ask.LIFE, at=after(2.4), rule="signs_of_life")


def test_a_question_keeps_its_instant_until_it_is_due_and_is_then_due_now() -> None:
    once = facts(probes=(ProbeReading(at=OPENED, state=NOT_RUNNING),))
    early = {cast("Unsettled", judge(COMBINED, once, after(seconds))).at for seconds in (0, 0.5, 1.999, 2)}
    assert early == {after(2)}
    assert cast("Unsettled", judge(COMBINED, once, after(7))).at == after(7)


@pytest.mark.parametrize("policy", [COMBINED, HOLD_FIRST], ids=preset_name)
def test_a_probe_taken_too_early_is_no_second_probe(policy: LivenessPolicy) -> None:
    hasty = facts(
        probes=(ProbeReading(at=OPENED, state=NOT_RUNNING), ProbeReading(at=after(1.999), state=NOT_RUNNING)),
        life=(Life(read_at=after(1.999), last_sign_at=None, has_url=True),),
    )
    assert judge(policy, hasty, after(1.999)) == Unsettled(ask=Ask.PROBE, at=after(2), rule="second_probe")
    later = replace(hasty, probes=(*hasty.probes, ProbeReading(at=after(2), state=RUNNING)))
    assert isinstance(judge(policy, later, after(2)), Alive)


def test_a_sign_of_life_that_was_read_before_it_was_asked_for_is_not_consulted() -> None:
    probes = (ProbeReading(at=OPENED, state=NOT_RUNNING), ProbeReading(at=after(2), state=NOT_RUNNING))
    eager = facts(probes=probes, life=(Life(read_at=OPENED, last_sign_at=OPENED, has_url=True),))
    assert judge(COMBINED, eager, after(2)) == Unsettled(ask=Ask.LIFE, at=after(2), rule="signs_of_life")


@pytest.mark.parametrize(("policy", "most"), [(COMBINED, 3), (HOLD_FIRST, 3), (VERIFY_FIRST, 7)], ids=preset_name)
def test_the_longest_evaluation_asks_exactly_as_often_as_is_said(policy: LivenessPolicy, most: int) -> None:
    young = facts(restart_started_at=ago(1 if policy is VERIFY_FIRST else 100))
    assert most_asks(policy) == most
    assert len(play(policy, young, probes=[NOT_RUNNING, NOT_RUNNING]).asked) == most


def test_without_a_wait_one_look_is_all_there_is() -> None:
    brisk = policy_from("verify-first", {"fresh_wait": 0})
    assert most_asks(brisk) == 3
    played = play(brisk, facts(restart_started_at=ago(1)), probes=[NOT_RUNNING, NOT_RUNNING])
    assert played.seen == ("alive", "strike", 2, 1)


def test_every_verdict_has_its_name() -> None:
    assert [kind.name for kind in (Alive, Busy, Dead, Unknown)] == ["alive", "busy", "dead", "unknown"]


# --- the records -----------------------------------------------------------------------------------------------------


class Watched:
    """Evidence that notes which of its members are looked at."""

    def __init__(self, evidence: Evidence) -> None:
        self.looked_at: set[str] = set()
        self._evidence = evidence

    def __getattr__(self, name: str) -> Any:
        self.looked_at.add(name)
        return getattr(self._evidence, name)


class Noted(list[Any]):
    """Readings that note when they are looked at."""

    def __init__(self, name: str, readings: tuple[Any, ...], looked_at: set[str]) -> None:
        super().__init__(readings)
        self._look = partial(looked_at.add, name)

    def __len__(self) -> int:
        self._look()
        return super().__len__()

    def __iter__(self) -> Iterator[Any]:
        self._look()
        return super().__iter__()

    def __getitem__(self, index: Any) -> Any:
        self._look()
        return super().__getitem__(index)


def situations() -> Iterator[Evidence]:
    """Return evidence with readings in which every condition gets to its end."""
    life = (Life(read_at=OPENED, last_sign_at=ago(20), has_url=False),)
    for started, strikes, state, probes in product(
        (ago(5), ago(40), None), (Strikes(), ONE_STRIKE), (NOT_RUNNING, STARTING), (1, 2)
    ):
        readings = tuple(ProbeReading(at=after(2 * number), state=state) for number in range(probes))
        yield facts(restart_started_at=started, strikes=strikes, probes=readings, life=life)


@EVERY_PRESET
def test_a_rule_reads_what_it_says_and_nothing_else(policy: LivenessPolicy) -> None:
    """`opened_at` is the evaluation's own clock and no fact; strikes that are stored as they were are not looked at."""
    for rule in RULES[policy.preset]:
        seen: set[str] = set()
        for evidence in situations():
            watched = Watched(evidence)
            case = Case(policy=policy, evidence=cast("Evidence", watched))
            case.probes = Noted("probes", evidence.probes, watched.looked_at)
            case.life = Noted("life", evidence.life, watched.looked_at)
            watched.looked_at.clear()
            rule.when.holds(case)
            if isinstance(rule.answer, Gives) and rule.answer.tally is not Tally.KEPT:
                rule.answer.strikes(case)
            if isinstance(rule.answer, Asks):
                rule.answer.delay(case)
            seen |= watched.looked_at
        assert seen - {"opened_at"} == set(rule.reads), rule


@pytest.mark.parametrize("preset", list(Preset))
def test_the_last_rule_of_a_preset_always_gives_a_verdict(preset: Preset) -> None:
    last = RULES[preset][-1]
    assert isinstance(last.answer, Gives)
    assert last.reads == ()
    assert sum(isinstance(rule.answer, Asks) for rule in RULES[preset]) >= 3


# --- the throttle ----------------------------------------------------------------------------------------------------

ALIVE = Alive(rule="running", strikes=Strikes())


def last_time(verdict: Verdict = ALIVE, ended_at: datetime = OPENED, generation: int = 0) -> Previous:
    return Previous(verdict=verdict, ended_at=ended_at, incarnation=1, generation=generation)


@pytest.mark.parametrize(("seconds", "reused"), [(0, True), (0.999999, True), (1.0, False), (5, False)])
def test_a_verdict_is_reused_for_less_than_a_second(seconds: float, reused: bool) -> None:
    verdict = throttled(last_time(), COMBINED, facts(opened_at=after(seconds)), after(seconds))
    assert (verdict is not None) is reused


@pytest.mark.parametrize(
    "verdict",
    [
        ALIVE,
        Busy(rule="strike", strikes=Strikes(count=1, first_at=OPENED)),
        Unknown(rule="external", strikes=Strikes()),
    ],
    ids=lambda verdict: verdict.name,
)
def test_a_reused_verdict_leaves_the_stored_strikes_alone(verdict: Verdict) -> None:
    stored = Strikes(count=1, first_at=ago(9))
    reused = throttled(last_time(verdict), COMBINED, facts(strikes=stored), after(0.5))
    assert reused == replace(verdict, strikes=stored)


@pytest.mark.parametrize(
    ("previous", "known"),
    [
        (last_time(Dead(rule="not_running", strikes=Strikes())), {}),
        (last_time(generation=1), {}),
        (last_time(), {"generation": 1}),
        (last_time(), {"incarnation": 2}),
    ],
    ids=["it was dead", "older generation", "newer generation", "newer incarnation"],
)
def test_what_may_not_be_reused_is_busy_throttled(previous: Previous, known: dict[str, Any]) -> None:
    evidence = facts(strikes=ONE_STRIKE, **known)
    assert throttled(previous, COMBINED, evidence, after(0.5)) == Busy(rule="throttled", strikes=ONE_STRIKE)


@pytest.mark.parametrize(
    "known",
    [{"exited_at": OPENED}, {"restart_in_flight": True}, {"restart_started_at": OPENED}, {"external": True}],
    ids=lambda known: next(iter(known)),
)
def test_what_needs_no_reading_is_never_throttled(known: dict[str, Any]) -> None:
    assert throttled(last_time(), COMBINED, facts(**known), after(0.5)) is None


def test_readings_that_came_along_do_not_lift_the_throttle() -> None:
    evidence = facts(probes=(ProbeReading(at=OPENED, state=RUNNING),))
    assert throttled(last_time(), COMBINED, evidence, OPENED + timedelta(seconds=0.5)) == ALIVE


def test_there_is_no_throttle_without_an_evaluation_before_and_none_where_it_is_off() -> None:
    assert throttled(None, COMBINED, facts(), OPENED) is None
    assert throttled(last_time(), VERIFY_FIRST, facts(), OPENED) is None
    assert throttled(last_time(), HOLD_FIRST, facts(), OPENED) == ALIVE
