"""How questions and readings meet, and that a rule reads what its record says."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any, cast

import pytest
from core.liveness_shell import (
    COMBINED,
    EVERY_PRESET,
    HOLD_FIRST,
    NOT_RUNNING,
    ONE_STRIKE,
    OPENED,
    RUNNING,
    STARTING,
    VERIFY_FIRST,
    after,
    ago,
    facts,
    play,
    preset_name,
)

from proxy.core.liveness import (
    Alive,
    Ask,
    Busy,
    Dead,
    Evidence,
    Life,
    ProbeReading,
    Strikes,
    Unknown,
    Unsettled,
    judge,
    most_asks,
)
from proxy.core.liveness_case import Case
from proxy.core.liveness_rules import RULES, Asks, Gives, Tally
from proxy.core.presets import LivenessPolicy, Preset, policy_from


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
