"""The chaos harness must be able to fail: each fault that it looks for is found where it is, and only there."""

from random import Random
from typing import Any

import pytest
from chaos.kills import HIT, Point, deal
from chaos.ledger import COMPLETED, Audit, Execution, Fault, Followed, Seen, Send, audit
from chaos.troubles import TroubleKind, deal_troubles


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


@pytest.mark.parametrize(
    ("send", "runs", "marked", "expected"),
    [
        # Whoever sends again what nobody put away has it done again; that is the caller's own doing.
        (answered("b", loose=2, tries=2), [ran("b"), ran("b")], False, []),
        (answered("b", loose=2, tries=2), [ran("b"), ran("b"), ran("b")], False, [Fault.UNMARKED]),
        (deferred("b", loose=2, tries=2), [ran("b"), ran("b"), ran("b", marked=True)], True, []),
        # A retry that joined did nothing of its own.
        (deferred("b", loose=1, tries=2, joined=1), [ran("b"), ran("b")], True, [Fault.UNMARKED]),
        # Where nothing is sent twice, a mark excuses nothing.
        (deferred("b", never=True), [ran("b"), ran("b", marked=True)], True, [Fault.FORBIDDEN]),
        (deferred("b", never=True, loose=2, tries=2), [ran("b"), ran("b")], False, []),
    ],
)
def test_what_a_caller_sent_again_explains_as_many_executions_and_no_more(
    send: Send, runs: list[Execution], marked: bool, expected: list[Fault]
) -> None:
    assert faults(audit([send], runs, {"b": ended("b", marked=marked)}, ())) == expected


def test_a_failed_task_is_as_agreed_where_nothing_is_sent_twice() -> None:
    end = {"b": ended("b", state="TASK_STATE_FAILED", text="redelivery is never", marked=True)}
    found = audit([deferred("b", never=True)], [ran("b")], end, ())
    assert faults(found) == []
    assert (found.counts.failed, found.counts.failed_never) == (0, 1)


@pytest.mark.parametrize(
    ("delivered", "runs", "tries", "expected"),
    [("no", 1, 1, [Fault.UNTRUE]), ("no", 0, 1, []), ("maybe", 1, 1, []), ("no", 1, 2, [])],
)
def test_a_refusal_that_says_not_delivered_must_be_true(
    delivered: str, runs: int, tries: int, expected: list[Fault]
) -> None:
    send = answered("b", seen=Seen.REFUSED, answer=None, delivered=delivered, tries=tries, loose=1)
    assert faults(audit([send], [ran("b")] * runs, {}, ())) == expected


@pytest.mark.parametrize("fault", [Fault.IGNORED, Fault.UNADOPTED, Fault.UNJOINED, Fault.RUDE])
def test_what_was_seen_while_it_was_sent_is_a_finding(fault: Fault) -> None:
    assert faults(audit([answered("a", faults=[fault])], [ran("a")], {}, ())) == [fault]


def test_what_the_harness_did_itself_does_not_count_against_the_share() -> None:
    refused = {"seen": Seen.REFUSED, "answer": None, "status": 503}
    sends = [
        answered("a"),
        answered("b", **refused, excused=True),
        answered("c", **refused, declined=True, never=True),
        answered("d", **refused, reason="503 SOMETHING"),
    ]
    counts = audit(sends, [ran("a")], {}, ()).counts
    assert (counts.put_off, counts.declined, counts.counted, counts.share) == (1, 1, 2, 0.5)
    assert counts.reasons == {"503 SOMETHING": 1}


@pytest.mark.parametrize("over", [{"adopted": True}, {"left": True}])
def test_a_call_that_is_adopted_holds_nobody_back(over: dict[str, bool]) -> None:
    first = deferred("a", context_id="x", began=0.0, ended=1.0, **over)
    second = deferred("b", context_id="x", began=2.0, ended=3.0)
    ends = {"a": ended("a"), "b": ended("b")}
    assert faults(audit([first, second], [ran("b"), ran("a")], ends, ())) == []


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


def test_every_trouble_comes_equally_often_in_every_nth_round() -> None:
    plan = deal_troubles(Random(7), rounds=24, every=3, workspaces=3)  # noqa: S311 - the same deal each time
    kinds = [trouble.kind for trouble in plan if trouble is not None]
    assert {kinds.count(kind) for kind in TroubleKind} == {2}
    assert [number for number, trouble in enumerate(plan, start=1) if trouble is not None] == list(range(3, 25, 3))
    assert deal_troubles(Random(7), rounds=9, every=0, workspaces=3) == [None] * 9  # noqa: S311 - the same deal each time
