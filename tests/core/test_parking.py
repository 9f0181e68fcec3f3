"""Parking as values: what may be wanted after what, and what a parked, rested and released record looks like."""

from datetime import UTC, datetime, timedelta

import pytest

from proxy.core.lifecycle import DESIRED_EDGES, PARKED, Desired, Status, Word, may_want
from proxy.core.workspace import UrlSource, Workspace, park, rest, unpark

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)

WANTED = """
running    -> paused     pause
hibernated -> paused     pause
running    -> hibernated hibernate
paused     -> hibernated hibernate
paused     -> running    resume
hibernated -> running    resume wake
running    -> removed    remove
paused     -> removed    remove
hibernated -> removed    remove
draining   -> removed    remove
"""


def workspace(**known: object) -> Workspace:
    return Workspace(id="a", created_at=NOON, url="http://a.test", **known)  # type: ignore[arg-type]  # by name


def test_what_is_wanted_changes_along_these_edges_and_no_others() -> None:
    legal = set()
    for line in WANTED.strip().splitlines():
        source, _, target, *words = line.split()
        legal |= {(Desired(source), Desired(target), Word(word)) for word in words}
    assert {(source, target, word) for source, target, words in DESIRED_EDGES for word in words} == legal
    pairs = {(source, target) for source in Desired for target in Desired if may_want(source, target)}
    assert pairs == {(source, target) for source, target, _ in legal}


@pytest.mark.parametrize("desired", [Desired.PAUSED, Desired.HIBERNATED])
def test_parking_what_is_parked_like_that_changes_nothing(desired: Desired) -> None:
    assert park(workspace(desired=desired), desired) is None


@pytest.mark.parametrize("desired", [Desired.DRAINING, Desired.REMOVED])
def test_what_is_going_for_good_is_not_parked(desired: Desired) -> None:
    assert park(workspace(desired=desired), Desired.PAUSED) is None
    assert rest(workspace(desired=desired), NOON) is None


def test_parking_forgets_that_another_restart_was_asked_for_and_touches_nothing_else() -> None:
    before = workspace(status=Status.READY, restart_pending=True, stopped_at=NOON - timedelta(days=1))
    after = park(before, Desired.PAUSED)
    assert after is not None
    assert (after.desired, after.status, after.restart_pending) == (Desired.PAUSED, Status.READY, False)
    assert after.stopped_at is None, "an earlier stop says nothing about this one"
    assert after.url == before.url


def test_what_is_at_rest_stays_at_rest_when_it_is_parked_otherwise() -> None:
    resting = workspace(desired=Desired.PAUSED, stopped_at=NOON)
    after = park(resting, Desired.HIBERNATED)
    assert after is not None
    assert after.stopped_at == NOON


@pytest.mark.parametrize("status", [Status.READY, Status.DEGRADED, Status.STARTING, Status.OFFLINE])
def test_at_rest_is_offline_and_no_death(status: Status) -> None:
    after = rest(workspace(desired=Desired.PAUSED, status=status, offline_rule="exited"), NOON)
    assert after is not None
    assert (after.status, after.offline_rule, after.stopped_at) == (Status.OFFLINE, None, NOON)


def test_what_was_given_up_stays_given_up_while_it_rests() -> None:
    after = rest(workspace(desired=Desired.PAUSED, status=Status.ABANDONED, abandoned_at=NOON), NOON)
    assert after is not None
    assert after.status is Status.ABANDONED


@pytest.mark.parametrize(("source", "url"), [(UrlSource.ANNOUNCED, None), (UrlSource.CONFIGURED, "http://a.test")])
def test_a_url_that_it_announced_ends_with_its_life(source: UrlSource, url: str | None) -> None:
    after = rest(workspace(desired=Desired.PAUSED, url_source=source), NOON)
    assert after is not None
    assert after.url == url


def test_what_is_wanted_again_is_not_parked_and_has_no_stop_behind_it() -> None:
    after = unpark(workspace(desired=Desired.HIBERNATED, stopped_at=NOON))
    assert (after.desired, after.stopped_at, after.parked) == (Desired.RUNNING, None, False)
    assert Desired.RUNNING not in PARKED
