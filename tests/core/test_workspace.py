"""A workspace's record: registration, boots and lives, readiness, restarts, deaths; and what holds in any history."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.lifecycle import PARKED, Cause, Desired, Status, may_move
from proxy.core.liveness import Strikes
from proxy.core.outcome import DeadAction
from proxy.core.workspace import (
    DeliveryMode,
    Registration,
    UrlSource,
    Workspace,
    become_ready,
    begin_restart,
    go_offline,
    meet_boot,
    new_life,
    of_old_life,
    recreate,
    register,
    runtime_returned,
)

NOW = datetime(2026, 3, 1, tzinfo=UTC)
URL, OTHER = "http://agent.test/a2a", "http://agent.test/other"


def workspace(**known: Any) -> Workspace:
    return Workspace(**{"id": "ws", "created_at": NOW - timedelta(days=1), **known})


def by_admin(**said: Any) -> Registration:
    return Registration(by_admin=True, **said)


def by_itself(**said: Any) -> Registration:
    return Registration(by_admin=False, **said)


# --- registration ----------------------------------------------------------------------------------------------------


def test_a_workspace_that_registers_itself_with_a_url_is_ready() -> None:
    known = register(None, "ws", by_itself(url=URL, boot_id="one"), NOW)
    assert (known.status, known.ready_at, known.registered_at, known.started_at) == (Status.READY, NOW, NOW, NOW)
    assert (known.url, known.url_source) == (URL, UrlSource.ANNOUNCED)
    assert (known.incarnation, known.boot_id, known.bound) == (1, "one", True)


def test_a_workspace_that_polls_needs_no_url_to_be_ready() -> None:
    assert register(None, "ws", by_itself(delivery_mode=DeliveryMode.POLL), NOW).status is Status.READY
    assert register(None, "ws", by_itself(), NOW).status is Status.STARTING


def test_what_an_admin_describes_may_not_run_yet() -> None:
    known = register(None, "ws", by_admin(url=URL), NOW)
    assert (known.status, known.url_source, known.ready_at) == (Status.STARTING, UrlSource.CONFIGURED, None)


@pytest.mark.parametrize(
    ("said", "source"),
    [(by_itself(url=URL), "configured"), (by_itself(url=OTHER), "announced"), (by_admin(url=OTHER), "configured")],
    ids=["the agent repeats it", "the agent says another", "the admin says another"],
)
def test_a_configured_url_stays_configured_until_the_agent_says_another(said: Registration, source: str) -> None:
    known = workspace(url=URL, url_source=UrlSource.CONFIGURED)
    assert register(known, "ws", said, NOW).url_source == source


def test_what_a_registration_does_not_say_stays_as_it_was() -> None:
    known = register(
        None,
        "ws",
        by_admin(url=URL, runtime={"type": "process"}, parent="p", settings={"dead_action": DeadAction.DEFER}),
        NOW,
    )
    again = register(known, "ws", by_admin(settings={"max_concurrent": 3}), NOW)
    assert (again.url, again.runtime, again.parent) == (URL, {"type": "process"}, "p")
    assert (again.settings.dead_action, again.settings.max_concurrent) == (DeadAction.DEFER, 3)


@pytest.mark.parametrize(
    ("status", "runtime", "after"),
    [
        (Status.OFFLINE, None, Status.STARTING),
        (Status.ABANDONED, None, Status.STARTING),
        (Status.OFFLINE, {"type": "process"}, Status.OFFLINE),
        (Status.READY, None, Status.READY),
    ],
)
def test_an_admin_s_word_revives_only_what_nobody_hosts(
    status: Status, runtime: dict[str, str] | None, after: Status
) -> None:
    known = workspace(status=status, runtime=runtime, offline_rule="not_running", abandoned_at=NOW)
    assert register(known, "ws", by_admin(url=URL), NOW).status is after


@pytest.mark.parametrize("status", [Status.OFFLINE, Status.ABANDONED, Status.STARTING, Status.DEGRADED])
def test_a_registration_by_the_workspace_ends_what_was_held_against_it(status: Status) -> None:
    known = workspace(status=status, offline_rule="not_running", abandoned_at=NOW, strikes=Strikes(count=1))
    ready = register(known, "ws", by_itself(url=URL), NOW)
    assert (ready.status, ready.offline_rule, ready.abandoned_at) == (Status.READY, None, None)
    assert ready.strikes == Strikes()


def test_a_registration_during_a_stop_does_not_make_ready() -> None:
    assert register(workspace(status=Status.RESTARTING), "ws", by_itself(url=URL), NOW).status is Status.RESTARTING


def test_a_removed_workspace_that_comes_back_keeps_nothing_but_its_numbers() -> None:
    gone = workspace(version=7, incarnation=3, generation=2, desired=Desired.REMOVED, data="{}", parent="p")
    back = recreate(gone, "ws", by_admin(url=URL), NOW)
    assert (back.version, back.incarnation, back.generation) == (7, 4, 2)
    assert (back.desired, back.data, back.parent, back.created_at) == (Desired.RUNNING, None, None, NOW)


# --- boots and lives -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("known", "boot_id", "incarnation", "bound"),
    [
        pytest.param({}, "one", 1, True, id="the first ever"),
        pytest.param({"boot_id": "one", "bound": True}, "one", 1, True, id="the known one"),
        pytest.param({"boot_id": "one", "bound": True}, "two", 2, True, id="another: a new life"),
        pytest.param({"generation": 1}, "one", 1, True, id="the first of a started life"),
        pytest.param({"boot_id": "one", "generation": 1}, "two", 1, True, id="the first foreign one is bound"),
        pytest.param({"boot_id": "one", "generation": 1}, "one", 1, False, id="the old life binds nothing"),
        pytest.param({"boot_id": "two", "bound": True, "generation": 1}, "one", 2, True, id="the old one, too late"),
    ],
)
def test_a_boot_id_is_known_bound_or_a_new_life(
    known: dict[str, Any], boot_id: str, incarnation: int, *, bound: bool
) -> None:
    after = meet_boot(workspace(status=Status.READY, **known), boot_id, NOW)
    assert (after.incarnation, after.boot_id, after.bound) == (incarnation, boot_id, bound)


@pytest.mark.parametrize(
    ("status", "after"),
    [
        (Status.READY, Status.STARTING),
        (Status.DEGRADED, Status.STARTING),
        (Status.OFFLINE, Status.STARTING),
        (Status.ABANDONED, Status.STARTING),
        (Status.RESTARTING, Status.STARTING),
        (Status.STARTING, Status.STARTING),
    ],
)
def test_a_new_life_starts(status: Status, after: Status) -> None:
    assert meet_boot(workspace(status=status, boot_id="one", bound=True), "two", NOW).status is after


def test_nothing_that_was_held_against_the_old_life_counts_against_the_new_one() -> None:
    old = workspace(
        ready_at=NOW,
        exited_at=NOW,
        announced_at=NOW,
        abandoned_at=NOW,
        offline_rule="exited",
        strikes=Strikes(count=1, first_at=NOW),
        bound=True,
    )
    new = new_life(old, NOW)
    assert new == replace(workspace(), incarnation=2, started_at=NOW)


def test_only_an_unbound_life_after_a_restart_can_be_mistaken_for_the_old_one() -> None:
    restarted = workspace(boot_id="one", generation=1)
    assert of_old_life(restarted, "one")
    assert not of_old_life(restarted, "two")
    assert not of_old_life(replace(restarted, bound=True), "one")
    assert not of_old_life(replace(restarted, generation=0), "one")


# --- ready -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cause", [Cause.PROBE, Cause.BEAT, Cause.REGISTRATION])
@pytest.mark.parametrize("status", Status)
def test_a_workspace_becomes_ready_where_the_edges_lead_there(status: Status, cause: Cause) -> None:
    known = workspace(status=status, offline_rule="not_running")
    after = become_ready(known, cause, NOW)
    by_way_of_starting = may_move(status, Status.STARTING, cause)
    if status is Status.READY or not (may_move(status, Status.READY, cause) or by_way_of_starting):
        assert after == known
    else:
        assert (after.status, after.ready_at, after.offline_rule) == (Status.READY, NOW, None)


@pytest.mark.parametrize("status", [Status.STARTING, Status.OFFLINE, Status.DEGRADED])
@pytest.mark.parametrize("cause", [Cause.PROBE, Cause.BEAT, Cause.REGISTRATION])
def test_a_life_whose_exit_was_seen_is_never_ready_again(status: Status, cause: Cause) -> None:
    dead = workspace(status=status, exited_at=NOW)
    assert become_ready(dead, cause, NOW) == dead
    assert become_ready(meet_boot(replace(dead, boot_id="one", bound=True), "two", NOW), cause, NOW).status == "ready"


# --- restarts and deaths ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "url"), [(UrlSource.ANNOUNCED, None), (UrlSource.CONFIGURED, URL)], ids=["announced", "configured"]
)
def test_scenario_61_a_restart_forgets_an_announced_url_and_keeps_a_configured_one(
    source: UrlSource, url: str | None
) -> None:
    known = workspace(status=Status.READY, url=URL, url_source=source, restart_pending=True, boot_id="one", bound=True)
    begun = begin_restart(known, NOW, "me")
    assert (begun.status, begun.url, begun.owner) == (Status.RESTARTING, url, "me")
    assert (begun.incarnation, begun.generation, begun.bound, begun.boot_id) == (2, 1, False, "one")
    assert (begun.restart_started_at, begun.restart_returned_at, begun.restart_pending) == (NOW, None, False)
    assert go_offline(known, Cause.VERDICT, "not_running") == replace(
        known, status=Status.OFFLINE, offline_rule="not_running", url=url, url_source=begun.url_source
    )


def test_what_was_started_boots() -> None:
    begun = begin_restart(workspace(status=Status.READY), NOW, "me")
    later = NOW + timedelta(seconds=3)
    started = runtime_returned(begun, later)
    assert (started.status, started.restart_returned_at, started.started_at) == (Status.STARTING, later, later)
    faster = runtime_returned(replace(begun, status=Status.READY), later)
    assert (faster.status, faster.restart_returned_at) == (Status.READY, later)


@pytest.mark.parametrize("status", Status)
def test_a_verdict_takes_offline_only_what_may_go_there(status: Status) -> None:
    dead = go_offline(workspace(status=status, strikes=Strikes(count=1)), Cause.VERDICT, "exited")
    if status in {Status.READY, Status.DEGRADED, Status.STARTING}:
        assert dead is not None
        assert (dead.status, dead.offline_rule, dead.strikes) == (Status.OFFLINE, "exited", Strikes())
    else:
        assert dead is None


@pytest.mark.parametrize("desired", Desired)
def test_a_workspace_is_parked_as_administration_says(desired: Desired) -> None:
    assert workspace(desired=desired).parked == (desired in PARKED)


def test_a_workspace_without_a_runtime_has_the_runtime_none() -> None:
    assert workspace().runtime_type == "none"
    assert workspace(runtime={"type": "process"}).runtime_type == "process"


# --- any history -----------------------------------------------------------------------------------------------------

Step = Callable[[Workspace, datetime], Workspace]


def _restart(known: Workspace, now: datetime) -> Workspace:
    may = may_move(known.status, Status.RESTARTING, Cause.COORDINATOR) and known.status is not Status.RESTARTING
    return begin_restart(known, now, "me") if may else known


boots = st.sampled_from(["one", "two", "three"])
STEPS: st.SearchStrategy[Step] = st.one_of(
    st.builds(
        lambda admin, url, boot: (
            lambda known, now: register(known, "ws", Registration(by_admin=admin, url=url, boot_id=boot), now)
        ),
        st.booleans(),
        st.sampled_from([None, URL, OTHER]),
        st.none() | boots,
    ),
    st.builds(lambda boot: lambda known, now: meet_boot(known, boot, now), boots),
    st.builds(lambda cause: lambda known, now: become_ready(known, cause, now), st.sampled_from(Cause)),
    st.just(_restart),
    st.just(runtime_returned),
    st.just(lambda known, now: replace(known, exited_at=now)),
    st.builds(
        lambda cause: lambda known, _: go_offline(known, cause, "not_running") or known,
        st.sampled_from([Cause.VERDICT, Cause.STALE, Cause.BEAT]),
    ),
)


@given(st.lists(STEPS, max_size=25))
def test_in_any_history_lives_and_restarts_only_count_up_and_no_dead_life_is_ready(steps: list[Step]) -> None:
    known = workspace(status=Status.STARTING)
    for number, step in enumerate(steps):
        now = NOW + timedelta(seconds=number)
        after = step(known, now)
        assert after.version == known.version  # only a store counts versions
        assert after.incarnation - known.incarnation in {0, 1}
        assert after.generation - known.generation in {0, 1}
        assert after.generation == known.generation or after.incarnation > known.incarnation
        if after.status is Status.READY and known.status is not Status.READY:
            assert after.exited_at is None
            assert after.ready_at == now
        if after.incarnation > known.incarnation:
            assert (after.exited_at, after.strikes, after.announced_at) == (None, Strikes(), None)
        assert (after.url is None) == (after.url_source is UrlSource.NONE)
        if known.url_source is UrlSource.CONFIGURED and after.url is None:
            raise AssertionError("a configured URL was forgotten")
        known = after
