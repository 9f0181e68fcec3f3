"""The bucket of a caller, and the table of buckets: a minute's requests, no more, whatever the clock does."""

from collections import deque

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.core.rates import MINUTE, Bucket, Buckets, Rate, Taken, rate_of, take


def run(rate: Rate, instants: list[float]) -> list[Taken]:
    """Let one caller send a request at each instant."""
    bucket: Bucket | None = None
    taken = []
    for now in instants:
        bucket, one = take(bucket, rate, now)
        taken.append(one)
    return taken


@pytest.mark.parametrize("pace", [0.0, 0.01, 0.0999, 60 / 601])
def test_scenario_39_the_601st_request_in_a_minute_is_one_too_many_at_any_pace(pace: float) -> None:
    taken = run(Rate(per_minute=600), [1000 + pace * number for number in range(601)])
    assert [one.allowed for one in taken] == [True] * 600 + [False]
    assert [one.remaining for one in taken] == [*range(599, -1, -1), 0]
    last = taken[-1]
    assert last.retry_after == last.reset == max(1, -int(-(60 - pace * 600) // 1))


def test_scenario_39_after_retry_after_the_caller_is_served_again_with_a_whole_minute() -> None:
    rate = Rate(per_minute=2)
    taken = run(rate, [0, 10, 20.5, 59.9, 60, 61, 62])
    assert [one.allowed for one in taken] == [True, True, False, False, True, True, False]
    assert [one.retry_after for one in taken] == [0, 0, 40, 1, 0, 0, 58]
    assert [one.reset for one in taken] == [60, 50, 40, 1, 60, 59, 58]


def test_refused_requests_are_counted_for_their_event_and_for_nothing_else() -> None:
    taken = run(Rate(per_minute=1), [0, 1, 2, 60, 61])
    assert [one.refused for one in taken] == [0, 1, 2, 0, 1]
    assert [one.allowed for one in taken] == [True, False, False, True, False]


def test_a_burst_comes_back_one_by_one() -> None:
    rate = Rate(per_minute=60, burst=2)
    taken = run(rate, [0, 0, 0, 0.5, 1, 1.5, 2, 10, 10, 10])
    assert [one.allowed for one in taken] == [True, True, False, False, True, False, True, True, True, False]
    assert [one.remaining for one in taken[:2]] == [1, 0]
    assert {one.retry_after for one in taken if not one.allowed} == {1}


def test_a_burst_does_not_lift_the_minute() -> None:
    taken = run(Rate(per_minute=10, burst=5), [number * 5.9 for number in range(11)])
    assert [one.allowed for one in taken] == [True] * 10 + [False]


def test_a_long_wait_for_one_of_a_burst_is_said_in_whole_seconds() -> None:
    assert [one.retry_after for one in run(Rate(per_minute=6, burst=1), [0, 0.5, 9.5, 10])] == [0, 10, 1, 0]


RATES = st.builds(Rate, per_minute=st.integers(1, 12), burst=st.integers(0, 12))
PAUSES = st.lists(st.sampled_from([0.0, 0.0, 0.001, 0.5, 1.0, 5.0, 10.0, 29.5, 59.9, 60.0, 61.0, 200.0]), max_size=80)


@given(RATES, PAUSES)
@example(Rate(per_minute=10), [0.0] * 2 + [59.9] + [0.0] * 7 + [0.1] + [0.0] * 9)
def test_no_stretch_of_a_minute_sees_more_than_the_limit_and_the_burst(rate: Rate, pauses: list[float]) -> None:
    instants = [sum(pauses[:end]) for end in range(1, len(pauses) + 1)]
    window: deque[float] = deque()
    for now, one in zip(instants, run(rate, instants), strict=True):
        while window and now - window[0] >= MINUTE - 0.001:
            window.popleft()
        if one.allowed:
            window.append(now)
        assert len(window) <= rate.per_minute + (rate.burst or rate.per_minute)


@given(RATES, st.lists(st.sampled_from([0.0, 0.1, 0.3, 7.7, 59.9]) | st.floats(0, 100), max_size=40), st.floats(0, 1e6))
@example(Rate(per_minute=6, burst=1), [0.0, 0.0], 6.4)
@example(Rate(per_minute=1), [0.0, 0.0], 4.1)
def test_who_waits_as_long_as_he_was_told_is_served(rate: Rate, pauses: list[float], began: float) -> None:
    bucket, now = None, began
    for pause in pauses:
        now += pause
        bucket, one = take(bucket, rate, now)
        assert one.reset <= MINUTE
        if not one.allowed:
            _, again = take(bucket, rate, now + one.retry_after)
            assert again.allowed


@given(RATES, PAUSES)
def test_what_remains_is_what_is_let_in_at_once(rate: Rate, pauses: list[float]) -> None:
    bucket, now = None, 0.0
    for pause in pauses:
        now += pause
        bucket, one = take(bucket, rate, now)
        follow, served = bucket, 0
        while (step := take(follow, rate, now))[1].allowed:
            follow, served = step[0], served + 1
        assert served == one.remaining


@given(RATES, st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60))
def test_a_clock_that_steps_back_locks_nobody_out(rate: Rate, steps: list[float]) -> None:
    bucket, now = None, 0.0
    for step in steps:
        now += step
        bucket, one = take(bucket, rate, now)
        assert 0 <= one.remaining < rate.per_minute
        assert 1 <= one.reset <= MINUTE
        assert one.retry_after <= MINUTE
        assert one.allowed or take(bucket, rate, now + one.retry_after)[1].allowed


@given(RATES, st.integers(1, 30), st.floats(1, 1e9))
def test_a_clock_that_steps_back_gives_nothing_away(rate: Rate, requests: int, back: float) -> None:
    still = run(rate, [0.0] * (requests + 1))
    stepped = run(rate, [0.0] * requests + [-back])
    assert stepped[-1] == still[-1]


# --- the table -------------------------------------------------------------------------------------------------------


def test_callers_are_counted_apart() -> None:
    buckets, rate = Buckets(10), Rate(per_minute=1)
    assert [buckets.take(name, rate, 0).allowed for name in "abab"] == [True, True, False, False]


def test_looking_counts_nothing() -> None:
    buckets, rate = Buckets(10), Rate(per_minute=1)
    assert buckets.look("a", rate, 0).allowed
    assert buckets.look("a", rate, 0).allowed
    assert len(buckets) == 0
    buckets.take("a", rate, 0)
    assert not buckets.look("a", rate, 0).allowed


def test_a_full_bucket_is_forgotten_before_one_that_is_in_use() -> None:
    buckets, rate = Buckets(2), Rate(per_minute=1)
    buckets.take("early", rate, 0)
    buckets.take("late", rate, 50)
    buckets.take("early", rate, 61)  # a new minute: "late" is the older one now
    buckets.take("new", rate, 100)
    assert [buckets.look(name, rate, 100).allowed for name in ("early", "late", "new")] == [False, True, False]


@given(st.lists(st.tuples(st.integers(0, 30), st.floats(0, 40)), max_size=100), st.integers(1, 5))
def test_the_table_never_holds_more_than_its_limit(calls: list[tuple[int, float]], most: int) -> None:
    buckets, rate, now = Buckets(most), Rate(per_minute=2), 0.0
    for caller, pause in calls:
        now += pause
        buckets.take(str(caller), rate, now)
        assert len(buckets) <= most


@given(st.lists(st.tuples(st.integers(0, 4), st.floats(0, 40)), max_size=100))
def test_a_table_with_room_for_all_counts_like_a_bucket_each(calls: list[tuple[int, float]]) -> None:
    buckets, rate, now = Buckets(5), Rate(per_minute=2, burst=1), 0.0
    alone: dict[int, Bucket] = {}
    for caller, pause in calls:
        now += pause
        alone[caller], expected = take(alone.get(caller), rate, now)
        assert buckets.take(str(caller), rate, now) == expected


# --- a caller's own rate ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entry", "caller", "rate"),
    [
        ("client:ci=600", "client:ci", Rate(per_minute=600, burst=7)),
        ("client:ci=600/50", "client:ci", Rate(per_minute=600, burst=50)),
        ("client:ci=600/0", "client:ci", Rate(per_minute=600)),
        ("writer=60", "workspace:writer", Rate(per_minute=60, burst=7)),
        ("workspace:writer=60", "workspace:writer", Rate(per_minute=60, burst=7)),
        ("admin=0", "admin", None),
    ],
)
def test_a_caller_may_have_a_rate_of_its_own(entry: str, caller: str, rate: Rate | None) -> None:
    assert rate_of(entry, burst=7) == (caller, rate)


@pytest.mark.parametrize("entry", ["", "ci", "ci=", "=5", "*=5", "ci=-1", "ci=5/", "ci=5/x", "client:=5", "ci=5=6"])
def test_what_is_no_rate_is_refused(entry: str) -> None:
    with pytest.raises(ValueError, match="client:NAME=600"):
        rate_of(entry)


def test_a_rate_allows_something() -> None:
    for wrong in ({"per_minute": 0}, {"per_minute": 1, "burst": -1}):
        with pytest.raises(ValueError, match="at least one"):
            Rate(**wrong)
