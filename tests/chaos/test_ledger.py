"""The chaos harness must be able to fail: each fault that it looks for is found where it is, and only there."""

from random import Random
from typing import Any

import pytest
from chaos.kills import HIT, Point, deal
from chaos.ledger import COMPLETED, Audit, Execution, Fault, Followed, Seen, Send, audit


def answered(message_id: str, **said: Any) -> Send:
    given = {"began": 0.0, "ended": 1.0, "context_id": None, "answer": f"echo: {message_id}", "status": 200}
    return Send(
        **{
            **given,
            "message_id": message_id,
            "workspace": "ws",
            "caller": "c",
            "text": message_id,
            "seen": Seen.ANSWERED,
            **said,
        }
    )


def deferred(message_id: str, **said: Any) -> Send:
    return answered(message_id, **{"seen": Seen.DEFERRED, "answer": None, "status": 202, "receipt": "r", **said})


def ran(message_id: str, *, marked: bool = False, pid: int = 1) -> Execution:
    return Execution(message_id=message_id, workspace="ws", marked=marked, pid=pid)


def ended(message_id: str, **said: Any) -> Followed:
    return Followed(**{"state": COMPLETED, "text": f"echo: {message_id}", "queue_status": "completed", **said})


def faults(found: Audit) -> list[Fault]:
    return [finding.fault for finding in found.findings]


def test_a_round_without_faults_has_no_findings_and_all_its_numbers() -> None:
    sends = [
        answered("a"),
        deferred("b"),
        deferred("c"),
        answered("d", seen=Seen.BROKEN, answer=None, excused=True),
        answered("e", seen=Seen.BROKEN, answer=None, reason="TimeoutError"),
        answered("f", seen=Seen.REFUSED, answer=None, reason="503 WORKSPACE_DEAD"),
    ]
    runs = [ran("a"), ran("b"), ran("c"), ran("d"), ran("c", marked=True, pid=2)]
    found = audit(sends, runs, {"b": ended("b"), "c": ended("c", marked=True)}, ())
    counts = found.counts
    assert faults(found) == []
    assert (counts.sends, counts.answered, counts.deferred, counts.refused, counts.broken) == (6, 1, 2, 1, 2)
    assert (counts.excused, counts.counted, counts.accepted, counts.share) == (1, 5, 3, 0.6)
    assert (counts.executions, counts.repeated, counts.lost, counts.failed) == (5, 1, 0, 0)
    assert counts.reasons == {"TimeoutError": 1, "503 WORKSPACE_DEAD": 1}


@pytest.mark.parametrize("end", [{}, {"b": ended("b", state="TASK_STATE_SUBMITTED")}, {"b": Followed()}])
def test_an_accepted_send_without_an_end_is_lost(end: dict[str, Followed]) -> None:
    found = audit([deferred("b")], [ran("b")], end, ())
    assert faults(found) == [Fault.LOST]
    assert found.counts.lost == 1


def test_a_failed_task_is_told_with_its_reason() -> None:
    end = {"b": ended("b", state="TASK_STATE_FAILED", text="50 attempts used up")}
    found = audit([deferred("b")], [ran("b")], end, ())
    assert faults(found) == [Fault.FAILED]
    assert "50 attempts used up" in str(found.findings[0])
    assert found.counts.failed == 1


def test_an_answer_to_something_else_is_wrong() -> None:
    sends = [answered("a", answer="echo: b"), deferred("b")]
    found = audit(sends, [ran("a"), ran("b")], {"b": ended("b", text="echo: a")}, ())
    assert faults(found) == [Fault.WRONG, Fault.WRONG]


def test_an_answer_that_no_agent_gave_is_a_phantom_and_counts_as_lost() -> None:
    found = audit([answered("a"), deferred("b")], [], {"b": ended("b")}, ())
    assert faults(found) == [Fault.PHANTOM, Fault.PHANTOM]
    assert found.counts.lost == 2


@pytest.mark.parametrize(
    ("send", "runs", "marked", "expected"),
    [
        (deferred("b"), [ran("b"), ran("b", marked=True)], True, []),
        (deferred("b"), [ran("b"), ran("b", marked=True)], False, [Fault.UNMARKED]),
        (deferred("b"), [ran("b"), ran("b")], True, [Fault.UNMARKED]),
        (deferred("b"), [ran("b"), ran("b")], False, [Fault.UNMARKED, Fault.UNMARKED]),
        (deferred("b"), [ran("b", marked=True)], True, []),
        (answered("b"), [ran("b"), ran("b")], False, [Fault.UNMARKED]),
        (answered("b", seen=Seen.BROKEN, excused=True), [ran("b"), ran("b", marked=True)], False, []),
        (answered("b", seen=Seen.BROKEN, excused=True), [ran("b"), ran("b")], False, [Fault.UNMARKED]),
    ],
)
def test_every_execution_after_the_first_must_be_marked(
    send: Send, runs: list[Execution], marked: bool, expected: list[Fault]
) -> None:
    assert faults(audit([send], runs, {"b": ended("b", marked=marked)}, ())) == expected


def test_a_context_runs_in_the_order_in_which_it_was_accepted() -> None:
    first = deferred("a", context_id="x", began=0.0, ended=1.0)
    second = deferred("b", context_id="x", began=2.0, ended=3.0)
    ends = {"a": ended("a"), "b": ended("b", marked=True)}
    right = [ran("a"), ran("b"), ran("b", marked=True)]
    assert faults(audit([first, second], right, ends, ())) == []
    assert faults(audit([second, first], [ran("b"), ran("a")], ends, ())) == [Fault.DISORDER]
    abreast = deferred("b", context_id="x", began=0.5, ended=3.0)
    assert faults(audit([first, abreast], [ran("b"), ran("a")], ends, ())) == []
    elsewhere = deferred("b", context_id="y", began=2.0, ended=3.0)
    assert faults(audit([first, elsewhere], [ran("b"), ran("a")], ends, ())) == []


def test_an_execution_of_what_nobody_sent_is_a_stranger_unless_an_earlier_round_sent_it() -> None:
    assert faults(audit([], [ran("z")], {}, ())) == [Fault.STRANGER]
    assert faults(audit([], [ran("z")], {}, ["z"])) == []


def test_a_run_deals_every_point_equally_often_and_the_same_for_the_same_seed() -> None:
    assert HIT.keys() == set(Point)
    kills = [3] * len(Point)
    plan = deal(Random(7), kills=kills, workspaces=2)  # noqa: S311 - the same deal each time
    points = [kill.point for hand in plan for kill in hand]
    assert {points.count(point) for point in Point} == {3}
    assert plan == deal(Random(7), kills=kills, workspaces=2)  # noqa: S311 - the same deal each time
    assert plan != deal(Random(8), kills=kills, workspaces=2)  # noqa: S311 - the same deal each time
