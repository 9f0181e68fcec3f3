"""When a restart may start: each brake by itself, which of them speaks first, and that every brake lets go."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.restart import (
    RESTARTING_ANSWERS,
    Answer,
    Decision,
    History,
    Phase,
    Restart,
    RestartPolicy,
    Trigger,
    counted,
    decide,
    next_allowed,
)

NOW = datetime(2026, 3, 1, tzinfo=UTC)
POLICY = RestartPolicy()
INFERRED, SEEN = "not_running", "exited"


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def later(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def cycle(
    began: float, phase: Phase = Phase.FINISHED, trigger: Trigger = Trigger.VERDICT, ended: float | None = None
) -> Restart:
    """Return a cycle that began and ended so many seconds ago (by default it took no time)."""
    return Restart(
        workspace_id="ws",
        generation=1,
        incarnation=1,
        trigger=trigger,
        reason="",
        rule="",
        phase=phase,
        started_at=ago(began),
        finished_at=ago(began if ended is None else ended),
    )


def history(*cycles: Restart, **facts: bool) -> History:
    return History(cycles=cycles, **{"managed": True, "running": False, **facts})


def asked(past: History, rule: str = INFERRED, trigger: Trigger = Trigger.VERDICT) -> tuple[str, datetime | None]:
    decision = decide(trigger, rule, past, POLICY, NOW)
    return decision.answer.value, decision.at


FIVE = [cycle(300 - number) for number in range(5)]
FAILED_TWICE = [cycle(400, Phase.FAILED), cycle(390, Phase.FAILED, ended=1)]


@pytest.mark.parametrize(
    ("past", "rule", "answer", "at"),
    [
        pytest.param(history(), INFERRED, "scheduled", NOW, id="nothing ever happened"),
        pytest.param(history(managed=False), INFERRED, "unmanaged", None, id="nobody hosts it"),
        pytest.param(history(cycle(1), running=True), INFERRED, "coalesced", NOW, id="one is under way"),
        pytest.param(history(abandoned=True), SEEN, "abandoned", None, id="it was abandoned"),
        pytest.param(history(*FIVE), SEEN, "abandoned", None, id="five in ten minutes"),
        pytest.param(history(*FIVE[:4]), SEEN, "scheduled", NOW, id="four in ten minutes"),
        pytest.param(
            history(*FIVE, cycle(200, trigger=Trigger.ADMIN)), SEEN, "scheduled", NOW, id="five before the admin's own"
        ),
        pytest.param(history(cycle(600), *FIVE[:4]), SEEN, "scheduled", NOW, id="the fifth is ten minutes old"),
        pytest.param(history(cycle(599.9), *FIVE[:4]), SEEN, "abandoned", None, id="the fifth is a little younger"),
        pytest.param(history(cycle(59)), INFERRED, "debounced", later(1), id="59 s after the last start"),
        pytest.param(history(cycle(60)), INFERRED, "scheduled", NOW, id="60 s after the last start"),
        pytest.param(history(cycle(1)), SEEN, "scheduled", NOW, id="an exit is not debounced"),
        pytest.param(history(*FAILED_TWICE), SEEN, "backoff", later(1), id="1 s after the second failure"),
        pytest.param(history(*FAILED_TWICE, cycle(0.5)), SEEN, "scheduled", NOW, id="a success ends the row"),
    ],
)
def test_a_verdict_asks(past: History, rule: str, answer: str, at: datetime | None) -> None:
    assert asked(past, rule) == (answer, at)


@pytest.mark.parametrize("trigger", [Trigger.ADMIN, Trigger.CONFIG])
@pytest.mark.parametrize(
    "past",
    [
        history(cycle(1)),
        history(*FIVE),
        history(abandoned=True),
        history(cycle(1, Phase.FAILED), cycle(0.1, Phase.FAILED)),
    ],
    ids=["debounce", "intensity", "abandoned", "backoff"],
)
def test_no_brake_holds_an_admin_or_a_configuration_write(trigger: Trigger, past: History) -> None:
    assert asked(past, "", trigger) == ("scheduled", NOW)


@pytest.mark.parametrize("trigger", [Trigger.ADMIN, Trigger.CONFIG])
def test_an_admin_coalesces_with_a_running_cycle_and_cannot_restart_what_nobody_hosts(trigger: Trigger) -> None:
    assert asked(history(cycle(1), running=True), "", trigger) == ("coalesced", NOW)
    assert asked(history(managed=False), "", trigger) == ("unmanaged", None)


def test_restarts_by_admins_are_not_counted_and_announced_ones_are() -> None:
    by_admins = [cycle(300, trigger=trigger) for trigger in (Trigger.ADMIN, Trigger.CONFIG)] * 5
    assert asked(history(*by_admins), SEEN)[0] == "scheduled"
    announced = [cycle(300, trigger=Trigger.ANNOUNCED)] * 5
    assert asked(history(*announced), SEEN)[0] == "abandoned"
    assert len(counted(history(*by_admins, *announced, *FIVE), ago(600))) == 10


@pytest.mark.parametrize(("failures", "wait"), [(1, 1), (2, 2), (3, 4), (6, 32), (9, 256), (10, 300), (2000, 300)])
def test_backoff_doubles_with_each_failed_cycle_up_to_its_cap(failures: int, wait: float) -> None:
    past = history(*[cycle(500, Phase.FAILED)] * (failures - 1), cycle(500, Phase.FAILED, ended=0))
    assert next_allowed(past, POLICY, NOW) == later(wait)


def test_backoff_is_forgotten_ten_quiet_minutes_after_the_last_end() -> None:
    policy = RestartPolicy(backoff=2000, backoff_cap=2000)
    assert next_allowed(history(cycle(700, Phase.FAILED, ended=599)), policy, NOW) == later(1401)
    assert next_allowed(history(cycle(700, Phase.FAILED, ended=600)), policy, NOW) == NOW
    never = RestartPolicy(backoff=2000, backoff_cap=2000, backoff_reset=0)
    assert next_allowed(history(cycle(900, Phase.FAILED)), never, NOW) == later(1100)


def test_a_superseded_cycle_is_no_failure() -> None:
    past = history(cycle(9, Phase.FAILED), cycle(5, Phase.SUPERSEDED, Trigger.ADMIN))
    assert next_allowed(past, POLICY, NOW) == NOW


def test_every_limit_that_is_0_is_off() -> None:
    off = RestartPolicy(debounce=0, intensity=0, backoff=0)
    past = history(*[cycle(1, Phase.FAILED)] * 50)
    assert decide(Trigger.VERDICT, INFERRED, past, off, NOW) == Decision(answer=Answer.SCHEDULED, at=NOW)
    no_window = RestartPolicy(debounce=0, window=0, backoff=0)
    assert decide(Trigger.VERDICT, INFERRED, past, no_window, NOW).answer is Answer.SCHEDULED


@pytest.mark.parametrize(
    ("at", "seconds"), [(None, 15), (0, 15), (14.2, 15), (15.0, 15), (15.001, 16), (60.0, 60), (-5, 15)]
)
def test_a_caller_is_told_to_wait_at_least_15_s_and_until_the_next_start(at: float | None, seconds: int) -> None:
    decision = Decision(answer=Answer.BACKOFF, at=None if at is None else later(at))
    assert decision.retry_after(NOW) == seconds


def test_only_what_is_certain_to_follow_is_called_restarting() -> None:
    assert {Answer.SCHEDULED, Answer.COALESCED, Answer.BACKOFF} == RESTARTING_ANSWERS


cycles = st.lists(
    st.builds(
        cycle,
        began=st.floats(0, 1000),
        phase=st.sampled_from([Phase.FINISHED, Phase.FAILED, Phase.SUPERSEDED]),
        trigger=st.sampled_from(Trigger),
    ),
    max_size=12,
).map(lambda found: tuple(sorted(found, key=lambda one: one.started_at)))
policies = st.builds(
    RestartPolicy,
    debounce=st.sampled_from([0.0, 1.0, 60.0]),
    intensity=st.sampled_from([0, 1, 5]),
    window=st.sampled_from([0.0, 60.0, 600.0]),
    backoff=st.sampled_from([0.0, 1.0, 7.0]),
    backoff_cap=st.sampled_from([7.0, 300.0]),
    backoff_reset=st.sampled_from([0.0, 600.0]),
)


@given(cycles, policies, st.sampled_from([INFERRED, SEEN]))
def test_every_brake_lets_go_at_the_instant_that_it_names(
    past: tuple[Restart, ...], policy: RestartPolicy, rule: str
) -> None:
    now, answers = NOW, []
    while True:
        decision = decide(Trigger.VERDICT, rule, history(*past), policy, now)
        answers.append(decision.answer)
        if decision.answer in {Answer.SCHEDULED, Answer.ABANDONED}:
            break
        assert decision.at is not None
        assert decision.at > now
        now = decision.at
    assert len(answers) == len(set(answers))


@given(cycles, policies, st.integers(0, 11))
def test_more_restarts_never_bring_the_next_one_nearer(
    past: tuple[Restart, ...], policy: RestartPolicy, dropped: int
) -> None:
    if not past:
        return
    fewer = past[dropped % len(past) + 1 :] or past[-1:]
    more_intense = decide(Trigger.VERDICT, SEEN, history(*past), policy, NOW).answer is Answer.ABANDONED
    fewer_intense = decide(Trigger.VERDICT, SEEN, history(*fewer), policy, NOW).answer is Answer.ABANDONED
    assert more_intense or not fewer_intense
    assert next_allowed(history(*fewer), policy, NOW) <= next_allowed(history(*past), policy, NOW)
