"""What a failed request gets: every cell of the table, for every kind of request and setting that changes a cell."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.outcome import Action, DeadAction, Failing, Outcome, Redelivery, UnmanagedAway, action_for

VERDICTS = ("alive", "busy", "dead", "unknown")
DEFER_DEAD, NEVER = DeadAction.DEFER, Redelivery.NEVER

GRIDS: dict[str, tuple[dict[str, Any], str]] = {
    "a send": (
        {},
        """
        not_sent  defer         defer         reject  defer
        maybe     defer_marked  defer_marked  reject  defer_marked
        gateway   pass          defer_marked  reject  pass
        lost      answer_lost   answer_lost   answer_lost  answer_lost
        """,
    ),
    "a send, never delivered twice": (
        {"redelivery": NEVER},
        """
        not_sent  defer         defer         reject  defer
        maybe     broken        broken        reject  broken
        gateway   pass          defer_marked  reject  pass
        lost      answer_lost   answer_lost   answer_lost  answer_lost
        """,
    ),
    "a send, always delivered again": (
        {"redelivery": Redelivery.ALWAYS},
        """
        not_sent  defer         defer         reject  defer
        maybe     defer_marked  defer_marked  reject  defer_marked
        gateway   pass          defer_marked  reject  pass
        lost      answer_lost   answer_lost   answer_lost  answer_lost
        """,
    ),
    "a send that fell silent": (
        {"idle": True},
        """
        not_sent  defer         defer         reject  defer
        maybe     broken        broken        reject  broken
        gateway   pass          defer_marked  reject  pass
        lost      answer_lost   answer_lost   answer_lost  answer_lost
        """,
    ),
    "a send that fell silent, always delivered again": (
        {"idle": True, "redelivery": Redelivery.ALWAYS},
        """
        not_sent  defer         defer         reject  defer
        maybe     defer_marked  defer_marked  reject  defer_marked
        gateway   pass          defer_marked  reject  pass
        lost      answer_lost   answer_lost   answer_lost  answer_lost
        """,
    ),
    "a send that is deferred where its workspace is dead": (
        {"dead_action": DEFER_DEAD},
        """
        not_sent  defer         defer         defer         defer
        maybe     defer_marked  defer_marked  defer_marked  defer_marked
        gateway   pass          defer_marked  defer_marked  pass
        lost      answer_lost   answer_lost   answer_lost   answer_lost
        """,
    ),
    "the same, never delivered twice": (
        {"dead_action": DEFER_DEAD, "redelivery": NEVER},
        """
        not_sent  defer         defer         defer         defer
        maybe     broken        broken        broken        broken
        gateway   pass          defer_marked  defer_marked  pass
        lost      answer_lost   answer_lost   answer_lost   answer_lost
        """,
    ),
    "the same to an abandoned workspace": (
        {"dead_action": DEFER_DEAD, "abandoned": True},
        """
        not_sent  defer         defer         reject  defer
        maybe     defer_marked  defer_marked  reject  defer_marked
        gateway   pass          defer_marked  reject  pass
        lost      answer_lost   answer_lost   answer_lost  answer_lost
        """,
    ),
    "a send where nobody can tell and that is passed": (
        {"unmanaged_away": UnmanagedAway.PASS},
        """
        not_sent  defer         defer         reject  bad_gateway
        maybe     defer_marked  defer_marked  reject  defer_marked
        gateway   pass          defer_marked  reject  pass
        lost      answer_lost   answer_lost   answer_lost  answer_lost
        """,
    ),
    "a send where nobody can tell and nothing was heard": (
        {"known": False},
        """
        not_sent  defer         defer         reject  bad_gateway
        maybe     defer_marked  defer_marked  reject  defer_marked
        gateway   pass          defer_marked  reject  pass
        lost      answer_lost   answer_lost   answer_lost  answer_lost
        """,
    ),
    "a request that cannot be deferred": (
        {"deferrable": False},
        """
        not_sent  away          away          away    away
        maybe     away          away          away    away
        gateway   pass          away          away    pass
        lost      answer_lost   answer_lost   answer_lost  answer_lost
        """,
    ),
    "the same, with everything else allowing it": (
        {"deferrable": False, "dead_action": DEFER_DEAD, "redelivery": Redelivery.ALWAYS},
        """
        not_sent  away          away          away    away
        maybe     away          away          away    away
        gateway   pass          away          away    pass
        lost      answer_lost   answer_lost   answer_lost  answer_lost
        """,
    ),
    "a deferral that was promised": (
        {"promised": True, "deferrable": False},
        """
        not_sent  defer         defer         defer         defer
        maybe     defer_marked  defer_marked  defer_marked  defer_marked
        gateway   pass          defer_marked  defer_marked  pass
        lost      defer_marked  defer_marked  defer_marked  defer_marked
        """,
    ),
    "a deferral that was promised, never delivered twice": (
        {"promised": True, "redelivery": NEVER},
        """
        not_sent  defer         defer         defer         defer
        maybe     broken        broken        broken        broken
        gateway   pass          defer_marked  defer_marked  pass
        lost      broken        broken        broken        broken
        """,
    ),
}


def cells() -> list[Any]:
    found = []
    for name, (settings, grid) in GRIDS.items():
        for line in grid.strip().splitlines():
            outcome, *actions = line.split()
            for verdict, action in zip(VERDICTS, actions, strict=True):
                case = (settings, Outcome(outcome), verdict, Action(action))
                found.append(pytest.param(*case, id=f"{name}, {outcome}, {verdict}"))
    return found


@pytest.mark.parametrize(("settings", "outcome", "verdict", "action"), cells())
def test_a_failed_request_gets(settings: dict[str, Any], outcome: Outcome, verdict: str, action: Action) -> None:
    facts = {"deferrable": True, "redelivery": Redelivery.ASK_THEN_ALWAYS, **settings}
    assert action_for(Failing(outcome=outcome, verdict=verdict, **facts)) is action


@pytest.mark.parametrize(
    ("rule", "fresh", "action"),
    [
        ("running", True, Action.DEFER),
        ("running", False, Action.UNREACHABLE),
        ("probe_error", False, Action.DEFER),
        ("strike", False, Action.DEFER),
    ],
)
def test_a_workspace_that_runs_for_long_and_does_not_listen_is_unreachable(
    rule: str, action: Action, *, fresh: bool
) -> None:
    failing = Failing(outcome=Outcome.NOT_SENT, verdict="alive", rule=rule, fresh=fresh, deferrable=True)
    assert action_for(failing) is action


failures = st.builds(
    Failing,
    outcome=st.sampled_from(Outcome),
    verdict=st.sampled_from(VERDICTS),
    rule=st.sampled_from(["running", "not_running", "restarting", "external"]),
    deferrable=st.booleans(),
    promised=st.booleans(),
    fresh=st.booleans(),
    abandoned=st.booleans(),
    known=st.booleans(),
    idle=st.booleans(),
    dead_action=st.sampled_from(DeadAction),
    unmanaged_away=st.sampled_from(UnmanagedAway),
    redelivery=st.sampled_from(Redelivery),
)


@given(failures)
def test_nothing_that_may_have_been_delivered_is_put_away_unmarked(failing: Failing) -> None:
    if failing.outcome is not Outcome.NOT_SENT:
        assert action_for(failing) is not Action.DEFER


@given(failures)
def test_what_cannot_be_deferred_never_is(failing: Failing) -> None:
    if not failing.deferrable and not failing.promised:
        assert action_for(failing) not in {Action.DEFER, Action.DEFER_MARKED}


@given(failures)
def test_only_what_may_have_been_delivered_ends_as_broken_or_lost(failing: Failing) -> None:
    action = action_for(failing)
    if action is Action.BROKEN:
        assert failing.outcome in {Outcome.MAYBE, Outcome.LOST}
    if action is Action.ANSWER_LOST:
        assert failing.outcome is Outcome.LOST
        assert not failing.promised
    if action is Action.PASS:
        assert failing.outcome is Outcome.GATEWAY


@given(failures)
def test_only_a_dead_workspace_is_a_reason_to_reject(failing: Failing) -> None:
    if action_for(failing) is Action.REJECT:
        assert failing.verdict == "dead"
        assert not failing.promised
