"""The demo's sums: an account that cannot come out wrong would be worth nothing."""

from dataclasses import replace

import pytest

from proxy.core.times import parse_rfc3339
from proxy.demo.ledger import (
    Duplicate,
    Evidence,
    Execution,
    First,
    Kill,
    Sent,
    Start,
    balance,
    called_restarts,
    configured_restarts,
    duplicates,
    out_of_order,
)


def sent(message_id: str, first: First | None = First.ANSWERED, *, right: bool = True, context: str = "c") -> Sent:
    return Sent(message_id=message_id, workspace="w", context_id=context, text="t", first=first, right=right)


def ran(message_id: str, *, marked: bool = False) -> Execution:
    return Execution(message_id=message_id, marked=marked, pid=1)


def scheduled(second: int, incarnation: int, trigger: str = "coordinator") -> dict[str, object]:
    return {
        "action": "restart scheduled",
        "trigger": trigger,
        "at": f"2026-01-01T00:00:{second:02}Z",
        "incarnation": incarnation,
        "rule": "exited",
    }


def at(second: int):
    return parse_rfc3339(f"2026-01-01T00:00:{second:02}Z")


GOOD = Evidence(
    sends=[sent("a"), sent("b", First.DEFERRED), sent("c", First.REFUSED, right=False)],
    executions=[ran("a"), ran("b"), ran("b", marked=True)],
    starts=[Start(workspace="w", incarnation=2, pid=20), Start(workspace="w", incarnation=3, pid=30)],
    kills=[Kill(pid=20, at=at(5))],
    decisions={"w": [scheduled(6, 3)]},
)


def test_what_went_well_is_counted_as_that():
    summed = balance(GOOD)
    assert (summed.sent, summed.answered, summed.deferred, summed.replayed, summed.refused) == (3, 1, 1, 1, 1)
    assert summed.lost == ()
    assert summed.duplicates == (Duplicate(message_id="b", times=2, unmarked=0),)
    assert [called.victim for called in summed.true_restarts] == [20]
    assert summed.false_restarts == ()
    assert summed.kept


@pytest.mark.parametrize(
    "lost",
    [
        sent("x", None, right=False),
        sent("x", First.FAILED, right=False),
        sent("x", First.ANSWERED, right=False),
        sent("x", First.DEFERRED, right=False),
        sent("answered-but-never-executed"),
    ],
    ids=["no answer at all", "an error", "a wrong answer", "a task that did not complete", "nobody executed it"],
)
def test_a_send_without_its_answer_is_lost(lost: Sent):
    summed = balance(replace(GOOD, sends=[*GOOD.sends, lost], executions=[*GOOD.executions, ran("x")]))
    assert summed.lost == (lost.message_id,)
    assert not summed.kept


@pytest.mark.parametrize(
    ("executions", "found"),
    [
        ([ran("a"), ran("b")], ()),
        ([ran("a"), ran("a", marked=True)], (Duplicate(message_id="a", times=2, unmarked=0),)),
        ([ran("a"), ran("a")], (Duplicate(message_id="a", times=2, unmarked=1),)),
        ([ran("a"), ran("a", marked=True), ran("a")], (Duplicate(message_id="a", times=3, unmarked=1),)),
        ([ran("a", marked=True)], ()),
    ],
)
def test_every_execution_after_the_first_needs_a_mark(executions, found):
    assert duplicates(executions) == found


def test_an_unmarked_duplicate_breaks_the_promise():
    assert not balance(replace(GOOD, executions=[ran("a"), ran("b"), ran("b")])).kept


@pytest.mark.parametrize(
    ("kills", "starts", "true"),
    [
        ([Kill(pid=20, at=at(5))], GOOD.starts, True),
        ([Kill(pid=20, at=at(6))], GOOD.starts, True),
        ([Kill(pid=20, at=at(7))], GOOD.starts, False),
        ([Kill(pid=30, at=at(5))], GOOD.starts, False),
        ([], GOOD.starts, False),
        ([Kill(pid=20, at=at(5))], [], False),
    ],
    ids=["killed before", "at that instant", "killed after the verdict", "another was killed", "none", "unknown"],
)
def test_a_restart_is_true_only_if_its_very_process_had_been_killed_before(kills, starts, true):
    (called,) = called_restarts(replace(GOOD, kills=kills, starts=starts))
    assert called.true is true
    summed = balance(replace(GOOD, kills=kills, starts=starts))
    assert summed.kept is true
    assert len(summed.false_restarts) == (not true)


def test_restarts_that_were_asked_for_are_nobodys_verdict():
    lines = [scheduled(6, 3, "admin"), scheduled(7, 4, "config"), {**scheduled(8, 5), "action": "restart backoff"}]
    assert called_restarts(replace(GOOD, decisions={"w": lines})) == ()
    assert configured_restarts(lines, "admin") == 1
    assert configured_restarts(lines, "config") == 1
    assert not balance(replace(GOOD, decisions={"w": lines})).kept  # nothing was put to the test


def test_order_is_that_of_first_executions_within_a_context():
    sends = [sent("a"), sent("x", context="other"), sent("b"), sent("never")]
    assert out_of_order(sends, [ran("x"), ran("a"), ran("b"), ran("a", marked=True)]) == ()
    assert out_of_order(sends, [ran("b"), ran("a"), ran("x")]) == ("c",)
