"""Requests put away at once: the same rows, answers and log as when they come one after the other."""

import asyncio
import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from store.examples import NO_LIMITS, T0, a_decision, a_deferral, a_lease, a_workspace, at

from proxy.core.deferral import Deferral, State
from proxy.store import Ending, Placed, QueueLimits, StoreFailure, no_line, no_task, sqlite_engine, sqlite_schema
from proxy.store.deferral_rows import new_row
from proxy.store.migrations import known
from proxy.store.sqlite import SqliteStore
from proxy.store.statements import deferrals as sql
from proxy.store.units import MakeUnit, delivery, workspaces
from proxy.store.units.crowds import Enqueue
from proxy.store.writer import Done

WORKSPACES = ("w", "v", "removed", "unknown")
LIMITS = (
    NO_LIMITS,
    QueueLimits(rows=3, bytes=0, idempotency_since=None),
    QueueLimits(rows=0, bytes=20, idempotency_since=at(-60)),
    QueueLimits(rows=0, bytes=0, idempotency_since=at(-60), caller_rows=2),
)
COMING = st.fixed_dictionaries(
    {
        "workspace_id": st.sampled_from(["w", "w", "w", *WORKSPACES]),
        "caller": st.sampled_from(["a", "a", "b", None]),
        "context_id": st.sampled_from([None, "c", "c", "d", "e"]),
        "priority": st.sampled_from([10, 50, 50, 100]),
        "idempotency_key": st.sampled_from([None, None, "k", "l", "done", "late"]),
        "digest": st.sampled_from(["x", "y"]),
        "body": st.sampled_from([b"", b"hello"]),
        "kind": st.sampled_from(["queued", "queued", "queued", "queued", "leased", "adopted", "known to the agent"]),
    }
)


def deferral(number: int, said: dict[str, Any]) -> Deferral:
    fields = dict(said)
    kind = fields.pop("kind")
    made = a_deferral(
        f"d{number}", task_id=f"t{number % 3}", enqueued_at=at(number), next_attempt_at=at(number), **fields
    )
    if kind == "known to the agent":
        return replace(made, upstream_task_id="u")
    if kind == "queued":
        return made
    lease = a_lease(f"t{number}")
    return replace(made, state=State.LEASED, lease=lease, leased_at=T0, adopted=kind == "adopted")


def line_of(ended: Deferral) -> Any:
    return a_decision(f"{ended.id} {ended.state}")


def enqueue(number: int, said: dict[str, Any], limits: QueueLimits) -> Enqueue:
    return Enqueue(deferral(number, said), limits, a_decision(f"put away {number}"), no_task, line_of)


@cache
def begun() -> sqlite3.Connection:
    """Three workspaces, one of them removed; a key that was completed, one whose deferral is overdue. To be copied."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    sqlite_schema.migrate(connection, known())
    for name in WORKSPACES[:3]:
        run(connection, partial(workspaces.create, a_workspace(name), None, None))
    run(connection, partial(workspaces.remove, a_workspace("removed"), T0, "gone", a_decision()))
    done = a_deferral("done", caller="a", idempotency_key="done", digest="x")
    late = a_deferral("late", caller="a", idempotency_key="late", context_id="c", expires_at=at(0.5))
    for each in (done, late):
        run(connection, Enqueue(each, NO_LIMITS, None, no_task, no_line))
    run(connection, partial(delivery.claim, "w", [a_lease("done")], T0, no_line, 0))
    run(connection, partial(delivery.finish, "done", "done", Ending(state=State.COMPLETED, at=T0), None))
    return connection


def run(connection: sqlite3.Connection, make: MakeUnit) -> Any:
    return sqlite_engine.run(connection, make())


def everything(connection: sqlite3.Connection) -> dict[str, list[Any]]:
    tables = ("deferrals", "requests", "task_aliases", "queue_sizes", "decisions")
    return {table: connection.execute(f"SELECT * FROM {table} ORDER BY 1").fetchall() for table in tables}  # noqa: S608 - our tables


def coming(*said: dict[str, Any], limits: QueueLimits = NO_LIMITS) -> list[tuple[dict[str, Any], QueueLimits]]:
    plain = {"workspace_id": "w", "caller": "a", "context_id": None, "priority": 50, "idempotency_key": None}
    return [({**plain, "digest": "x", "body": b"", "kind": "queued", **each}, limits) for each in said]


@given(st.lists(st.tuples(COMING, st.sampled_from(LIMITS)), min_size=2, max_size=12))
@example(coming({"context_id": "d", "priority": 10}, {"context_id": "d", "priority": 100}))
@example(coming({"context_id": "c", "priority": 100}, {"context_id": "c"}, {"context_id": "d"}))
@example(coming({"kind": "leased", "context_id": "d"}, {"context_id": "d"}, {"kind": "adopted", "context_id": "d"}))
@example(coming(*[{}] * 5, limits=LIMITS[1]))
@example(coming(*[{"body": b"hello"}] * 4, limits=LIMITS[2]))
@example(coming(*[{}] * 4, {"caller": "b"}, {"caller": None}, limits=LIMITS[3]))
@example(coming({"idempotency_key": "k"}, {}, {"idempotency_key": "k"}, {"idempotency_key": "k", "digest": "y"}))
@example(coming({}, {"idempotency_key": "done"}, {"idempotency_key": "late"}, {}, limits=LIMITS[2]))
@example(coming({"workspace_id": "removed"}, {"workspace_id": "unknown"}, {"workspace_id": "v"}, {}))
def test_a_crowd_leaves_what_its_members_would_have_left_one_by_one(came):
    crowd = [enqueue(number, said, limits) for number, (said, limits) in enumerate(came, 1)]
    answers, rows = [], []
    for together in (True, False):
        connection = sqlite3.connect(":memory:", isolation_level=None)
        begun().backup(connection)
        join = Enqueue.join(crowd) if together else None
        answers.append(sqlite_engine.run(connection, join) if join else [run(connection, each) for each in crowd])
        rows.append(everything(connection))
        connection.close()
    assert answers[0] == answers[1]
    assert rows[0] == rows[1]


def crowd_of(count: int) -> list[Enqueue]:
    return [
        Enqueue(a_deferral(f"d{n}", idempotency_key=f"k{n}"), NO_LIMITS, a_decision(str(n)), no_task, no_line)
        for n in range(count)
    ]


@pytest.mark.parametrize("count", [1, 2, 63, 64, 65, 200])
def test_a_crowd_of_any_size_takes_a_handful_of_calls(tmp_path: Path, count: int):
    connection = sqlite3.connect(tmp_path / "x.db", isolation_level=None)
    sqlite_schema.migrate(connection, known())
    run(connection, partial(workspaces.create, a_workspace(), None, None))
    seen: list[str] = []
    connection.set_trace_callback(seen.append)
    outcomes = sqlite_engine.write_batch(connection, crowd_of(count), tmp_path)
    connection.set_trace_callback(None)
    assert [outcome.value.placed for outcome in outcomes if isinstance(outcome, Done)] == [Placed.INSERTED] * count
    assert [outcome.value.depth for outcome in outcomes if isinstance(outcome, Done)] == list(range(1, count + 1))
    assert len(seen) <= 8 + 6 * 4
    stored = connection.execute("SELECT id FROM deferrals ORDER BY seq").fetchall()
    assert stored == [(f"d{n}",) for n in range(count)], "in the order in which they came"
    connection.close()


def test_a_row_has_the_columns_that_the_statement_names():
    row = dict(zip(sql.ADD_DEFERRAL.names, new_row(a_deferral("d"), seq=1, workspace=2, size=3, head=1), strict=True))
    assert (row["seq"], row["id"], row["workspace"], row["bytes"], row["head"], row["rank"]) == (1, "d", 2, 3, 1, 50)


async def test_one_that_fails_in_a_crowd_fails_alone(sqlite_store: SqliteStore):
    twice = [*crowd_of(3), *crowd_of(1)]
    answers = await asyncio.gather(
        *(sqlite_store.enqueue(each.deferral, limits=each.limits) for each in [*twice[:3], without_key(twice[3])]),
        return_exceptions=True,
    )
    failed = [answer for answer in answers if isinstance(answer, StoreFailure)]
    assert [failure.reason for failure in failed] == ["conflict"], "the id is taken"
    assert len(await sqlite_store.deferrals()) == 3
    assert (await sqlite_store.enqueue(a_deferral("e"), limits=NO_LIMITS)).depth == 4


def without_key(each: Enqueue) -> Enqueue:
    return Enqueue(replace(each.deferral, idempotency_key=None), each.limits, None, no_task, no_line)


async def test_a_member_that_no_queue_can_hold_fails_alone(sqlite_store: SqliteStore):
    wrong = a_deferral("wrong", adopted=True)
    answers = await asyncio.gather(
        *(sqlite_store.enqueue(each, limits=NO_LIMITS) for each in (a_deferral("a"), wrong, a_deferral("b"))),
        return_exceptions=True,
    )
    assert [type(answer).__name__ for answer in answers] == ["Enqueued", "ValueError", "Enqueued"]


def outcomes_of(answers: Sequence[Any]) -> list[Placed]:
    return [answer.placed for answer in answers]


async def test_the_same_key_twice_in_a_crowd_is_one_deferral(sqlite_store: SqliteStore):
    came = [a_deferral(f"d{n}", idempotency_key="k", digest="x") for n in range(5)]
    answers = await asyncio.gather(*(sqlite_store.enqueue(each, limits=NO_LIMITS) for each in came))
    assert outcomes_of(answers) == [Placed.INSERTED, *[Placed.JOINED] * 4]
    assert len({answer.deferral.id for answer in answers if answer.deferral}) == 1
