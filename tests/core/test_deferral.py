"""What becomes of a deferral whose try failed, how long it waits, and the states that it can be in."""

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.deferral import (
    ACTIVE,
    EDGES,
    Again,
    Bury,
    Deferral,
    Mishap,
    Priority,
    RetryPolicy,
    State,
    StoredRequest,
    after_failed_try,
    backoff,
)

NOW = datetime(2026, 3, 1, tzinfo=UTC)
POLICY = RetryPolicy()
REQUEST = StoredRequest(method="POST", tail="", headers=((b"A", b"12"), (b"B", b"")), body=b"body")


class Most(random.Random):
    """Chance at its worst: every wait is as long as it can be."""

    def uniform(self, a: float, b: float) -> float:  # noqa: ARG002 - the contract's
        return b


def deferral(**known: Any) -> Deferral:
    times = {"enqueued_at": NOW, "expires_at": NOW + timedelta(days=1), "next_attempt_at": NOW}
    return Deferral(
        **{"id": "d", "workspace_id": "ws", "caller": None, "request": REQUEST, "tries": 1, **times, **known}
    )


def failed(
    outcome: str, *, redelivery: str = "ask_then_always", alive: bool = False, **known: Any
) -> tuple[Again | Bury, float]:
    """Return what follows, and after how many seconds at most."""
    step = after_failed_try(
        deferral(**known),
        outcome=Mishap(outcome),
        error="refused",
        redelivery=redelivery,
        alive_lately=alive,
        policy=POLICY,
        now=NOW,
        chance=Most(),
    )
    return step, (step.at - NOW).total_seconds() if isinstance(step, Again) else 0.0


# --- states ----------------------------------------------------------------------------------------------------------


def test_a_deferral_that_is_active_can_still_end_and_one_that_ended_stays_so() -> None:
    assert {State.QUEUED, State.LEASED} == ACTIVE
    ends = set(State) - ACTIVE
    assert {target for source, target in EDGES if source in ACTIVE} >= ends - {State.DEAD_LETTERED}
    assert {(source, target) for source, target in EDGES if source in ends} == {(State.DEAD_LETTERED, State.QUEUED)}


def test_nothing_is_completed_or_buried_that_nobody_leased() -> None:
    assert (State.QUEUED, State.COMPLETED) not in EDGES
    assert (State.QUEUED, State.DEAD_LETTERED) not in EDGES


def test_priorities_have_names_and_an_order() -> None:
    assert Priority.BY_NAME == {"critical": 100, "task": 50, "info": 10}


def test_a_deferral_s_size_is_its_body_and_its_headers() -> None:
    assert deferral().size == 4 + 3 + 1


# --- waits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("tries", "seconds"), [(0, 0.5), (1, 0.5), (2, 1), (3, 2), (7, 32), (8, 60), (10_000, 60)])
def test_the_longest_wait_doubles_from_half_a_second_to_a_minute(tries: int, seconds: float) -> None:
    assert backoff(tries, POLICY, Most()) == timedelta(seconds=seconds)
    step, wait = failed("not_sent", tries=tries)
    assert isinstance(step, Again)
    assert wait == seconds


@given(st.integers(0, 100), st.integers(0, 2**32))
def test_a_wait_has_full_jitter(tries: int, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - no secret
    assert timedelta(0) <= backoff(tries, POLICY, chance) <= backoff(tries, POLICY, Most())


# --- failed tries ----------------------------------------------------------------------------------------------------


def test_a_try_that_sent_nothing_does_not_count_however_many_there_were() -> None:
    step, _ = failed("not_sent", tries=5000, attempts=4, redelivery="never")
    assert isinstance(step, Again)
    assert (step.attempts, step.maybe, step.error) == (4, False, "refused")


def test_what_may_have_arrived_once_stays_marked_when_later_tries_send_nothing() -> None:
    step, _ = failed("not_sent", attempts=1, maybe=True)
    assert isinstance(step, Again)
    assert (step.attempts, step.maybe) == (1, True)


@pytest.mark.parametrize(("attempts", "again"), [(0, True), (3, True), (4, False), (7, False)])
@pytest.mark.parametrize("outcome", ["maybe", "gateway"])
def test_scenario_44_the_fifth_try_that_may_have_arrived_is_the_last(
    outcome: str, attempts: int, *, again: bool
) -> None:
    step, _ = failed(outcome, attempts=attempts)
    assert isinstance(step, Again) == again
    if isinstance(step, Again):
        assert (step.attempts, step.maybe) == (attempts + 1, True)
    else:
        assert step.reason == f"{attempts + 1} attempts used up: refused"


@pytest.mark.parametrize("outcome", ["maybe", "gateway", "idle"])
def test_under_never_a_try_that_may_have_arrived_is_the_only_one(outcome: str) -> None:
    step, _ = failed(outcome, redelivery="never")
    assert step == Bury(reason="it may have reached the agent and redelivery is never: refused")


@pytest.mark.parametrize(("redelivery", "again"), [("ask_then_always", False), ("always", True)])
def test_a_call_that_fell_silent_is_sent_again_only_under_always(redelivery: str, *, again: bool) -> None:
    step, _ = failed("idle", redelivery=redelivery)
    assert isinstance(step, Again) == again
    if isinstance(step, Bury):
        assert step.reason == "idle_timeout"


@pytest.mark.parametrize("redelivery", ["ask_then_always", "always", "never"])
@pytest.mark.parametrize(("since", "again"), [(None, True), (0, True), (179.9, True), (180, False), (500, False)])
def test_scenario_48_a_gateway_in_front_of_a_living_workspace_does_not_count_for_three_minutes(
    redelivery: str, since: float | None, *, again: bool
) -> None:
    gateway_since = None if since is None else NOW - timedelta(seconds=since)
    step, wait = failed("gateway", alive=True, attempts=4, gateway_since=gateway_since, redelivery=redelivery)
    assert isinstance(step, Again) == again
    if isinstance(step, Again):
        assert (step.attempts, step.maybe, step.gateway_since) == (4, False, gateway_since or NOW)
        assert wait == 5.0
    else:
        assert step.reason == "gateway answers for 180 s: refused"


def test_a_gateway_s_answer_waits_longer_than_five_seconds_once_the_backoff_does() -> None:
    assert failed("gateway", alive=True, tries=7)[1] == 32.0


@pytest.mark.parametrize("redelivery", ["ask_then_always", "always", "never"])
@pytest.mark.parametrize(
    ("outcome", "attempts", "then"),
    [
        ("told", 0, 1),
        ("told", 4, 5),  # asked about once more, whatever was tried before
        ("followed", 0, 1),  # it was delivered once at least
        ("followed", 3, 3),
        ("silent", 3, 4),
        ("silent", 4, None),
    ],
)
def test_what_named_its_task_is_asked_about_whatever_redelivery_says(
    outcome: str, attempts: int, then: int | None, redelivery: str
) -> None:
    step, _ = failed(outcome, attempts=attempts, redelivery=redelivery)
    if then is None:
        assert step == Bury(reason="5 attempts used up: refused")
    else:
        assert isinstance(step, Again)
        assert (step.attempts, step.maybe) == (then, True)


@given(
    outcome=st.sampled_from(Mishap),
    redelivery=st.sampled_from(["ask_then_always", "always", "never"]),
    alive=st.booleans(),
    tries=st.integers(1, 1000),
    attempts=st.integers(0, 10),
    maybe=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_whatever_fails_a_deferral_either_ends_with_a_reason_or_waits_a_bounded_time(  # noqa: PLR0917 - facts of one case
    outcome: Mishap, redelivery: str, alive: bool, tries: int, attempts: int, maybe: bool, seed: int
) -> None:
    known = deferral(tries=tries, attempts=attempts, maybe=maybe)
    step = after_failed_try(
        known,
        outcome=outcome,
        error="why",
        redelivery=redelivery,
        alive_lately=alive,
        policy=POLICY,
        now=NOW,
        chance=random.Random(seed),  # noqa: S311 - no secret
    )
    if isinstance(step, Bury):
        assert step.reason
        assert outcome not in {Mishap.NOT_SENT, Mishap.TOLD, Mishap.FOLLOWED}
        return
    assert timedelta(0) <= step.at - NOW <= timedelta(seconds=60)
    assert step.attempts - attempts in {0, 1}
    assert step.attempts < max(POLICY.attempts, attempts + 1) or outcome is Mishap.TOLD
    assert step.maybe or not maybe
