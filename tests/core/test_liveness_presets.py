"""The presets' numbers, overriding them, and what is refused."""

import math
from dataclasses import replace

import pytest
from core.liveness_shell import COMBINED, HOLD_FIRST, VERIFY_FIRST

from proxy.core.liveness_rules import RULES, Asks
from proxy.core.presets import LONGEST, PRESETS, SETTINGS, UNREAD, PolicyError, Preset, policy_from, validate


def test_there_are_three_presets_and_each_knows_its_name() -> None:
    assert list(PRESETS) == ["combined", "hold-first", "verify-first"]
    assert all(policy.preset == name for name, policy in PRESETS.items())
    assert set(RULES) == set(Preset)


@pytest.mark.parametrize(
    ("setting", "combined", "hold_first", "verify_first"),
    [
        ("settle_hold", 30, 60, 0),
        ("settle_window", 60, 60, 30),
        ("reprobe_delay", 2, 2, 0.5),
        ("recent_heartbeat", 15, 15, 15),
        ("strikes", 2, 0, 2),
        ("strike_window", 30, 30, 30),
        ("reprobe_min_interval", 1, 1, 0),
        ("fresh_wait", 0, 0, 2),
        ("fresh_poll", 0.5, 0.5, 0.5),
        ("provisioning_timeout", 600, 600, 600),
        ("heartbeat_ttl", 180, 180, 180),
    ],
)
def test_the_numbers_of_the_presets(setting: str, combined: float, hold_first: float, verify_first: float) -> None:
    found = [getattr(policy, setting) for policy in (COMBINED, HOLD_FIRST, VERIFY_FIRST)]
    assert found == [combined, hold_first, verify_first]


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_possible_as_it_stands(preset: str) -> None:
    policy = policy_from(preset, {})
    assert policy == PRESETS[preset]
    assert validate(policy, 0) == ((), ())


def test_an_override_changes_one_number_and_leaves_the_preset_alone() -> None:
    policy = policy_from("combined", {"settle_window": 90, "strikes": 3.0})
    assert policy == replace(COMBINED, settle_window=90.0, strikes=3)
    assert isinstance(policy.settle_window, float)
    assert isinstance(policy.strikes, int)
    assert PRESETS["combined"].settle_window == 60


def test_all_problems_are_named_at_once() -> None:
    wrong = {"settle_hold": 90, "settle_windw": 5, "strikes": 1.5, "recent_heartbeat": -1, "reprobe_delay": 0}
    with pytest.raises(PolicyError) as caught:
        policy_from("combined", wrong)
    problems = caught.value.problems
    assert [problem.partition(":")[0] for problem in problems] == [
        "settle_windw",
        "strikes",
        "recent_heartbeat",
        "reprobe_delay",
        "settle_hold",
    ]
    assert all(problem in str(caught.value) for problem in problems)
    assert isinstance(caught.value, ValueError)


def test_an_unknown_preset_is_refused_together_with_its_bad_numbers() -> None:
    with pytest.raises(PolicyError) as caught:
        policy_from("combind", {"settle_hold": math.nan})
    assert caught.value.problems == (
        "preset: 'combind' is none of combined, hold-first, verify-first",
        f"settle_hold: nan is not between 0 and {LONGEST:.0f}",
    )


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, -0.001, LONGEST + 1, True, "30", None])
@pytest.mark.parametrize("setting", SETTINGS)
def test_what_is_no_possible_number_is_refused(setting: str, value: object) -> None:
    with pytest.raises(PolicyError, match=f"^{setting}: "):
        policy_from("combined", {setting: value})  # type: ignore[dict-item]  # a config file may say anything


@pytest.mark.parametrize(
    ("preset", "overrides", "complaint"),
    [
        ("combined", {"settle_hold": 60.001}, "settle_hold: 60.001 is longer than settle_window 60"),
        ("combined", {"reprobe_delay": 0.0009}, "a death is never believed without a second look"),
        ("combined", {"strike_window": 0}, "strike_window: must be above 0 for 2 strikes to add up"),
        ("verify-first", {"fresh_poll": 0}, "fresh_poll: 0.0 is below 0.001 while fresh_wait is 2"),
    ],
)
def test_numbers_that_do_not_fit_together_are_refused(preset: str, overrides: dict[str, float], complaint: str) -> None:
    with pytest.raises(PolicyError) as caught:
        policy_from(preset, overrides)
    assert len(caught.value.problems) == 1
    assert complaint in str(caught.value)


@pytest.mark.parametrize(
    ("preset", "overrides"),
    [
        ("combined", {"settle_hold": 60}),
        ("combined", {"settle_hold": 0, "settle_window": 0}),
        ("combined", {"strikes": 1, "strike_window": 0}),
        ("combined", {"reprobe_delay": 0.001}),
        ("verify-first", {"fresh_wait": 0, "fresh_poll": 0}),
        ("combined", dict.fromkeys(("provisioning_timeout", "heartbeat_ttl", "reprobe_min_interval"), 0)),
    ],
)
def test_the_edge_of_what_is_possible_is_possible(preset: str, overrides: dict[str, float]) -> None:
    policy = policy_from(preset, overrides)
    assert validate(policy, 0).errors == ()


def test_a_policy_that_was_built_by_hand_is_judged_as_strictly() -> None:
    errors, _ = validate(replace(COMBINED, settle_hold=70.0, recent_heartbeat=math.nan), 0)
    assert [error.partition(":")[0] for error in errors] == ["recent_heartbeat", "settle_hold"]


@pytest.mark.parametrize(
    ("policy", "debounce", "odd"),
    [
        (COMBINED, 60, False),
        (COMBINED, 60.5, True),
        (VERIFY_FIRST, 30, False),
        (VERIFY_FIRST, 60, True),
        (HOLD_FIRST, 60, False),
        # Here the hold is the whole window.
        (replace(HOLD_FIRST, settle_hold=40.0), 60, True),
        (VERIFY_FIRST, 0, False),
    ],
)
def test_a_window_shorter_than_the_debounce_is_odd(policy: object, debounce: float, odd: bool) -> None:
    errors, warnings = validate(policy, debounce)  # type: ignore[arg-type]  # a policy; typed loosely for the table
    assert errors == ()
    assert any("debounce" in warning for warning in warnings) is odd


def test_a_setting_that_no_rule_reads_is_warned_of() -> None:
    warnings = validate(policy_from("hold-first", {"strikes": 3}), 0).warnings
    assert warnings == ("strikes: no rule of hold-first reads it; setting it changes nothing",)


@pytest.mark.parametrize("preset", list(Preset))
def test_the_rules_speak_of_every_setting_that_they_read(preset: Preset) -> None:
    """Two settings stand outside the rules: the throttle's interval, and the silence that opens an evaluation."""
    words = " ".join(
        rule.when.words + (rule.answer.words if isinstance(rule.answer, Asks) else "") for rule in RULES[preset]
    )
    named = {setting for setting in SETTINGS if f"{{policy.{setting}" in words}
    assert named == set(SETTINGS) - UNREAD[preset] - {"reprobe_min_interval", "heartbeat_ttl"}
