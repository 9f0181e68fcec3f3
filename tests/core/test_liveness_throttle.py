"""The throttle in front of the decision: what is reused, and what is never held back."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from core.liveness_shell import (
    COMBINED,
    HOLD_FIRST,
    ONE_STRIKE,
    OPENED,
    RUNNING,
    VERIFY_FIRST,
    after,
    ago,
    facts,
)

from proxy.core.liveness import (
    Alive,
    Busy,
    Dead,
    Previous,
    ProbeReading,
    Strikes,
    Unknown,
    Verdict,
    throttled,
)

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
