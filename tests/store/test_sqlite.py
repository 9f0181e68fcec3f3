"""What only SQLite has: batches on a thread, full and locked disks, deletions in steps."""

import asyncio
import os
import sqlite3
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from store.examples import NO_LIMITS, T0, a_decision, a_deferral, a_leased, a_token, a_workspace, at, put

from proxy.core.deferral import State, StoredAnswer
from proxy.store import Ending, Placed, StoreFailure, sqlite, sqlite_engine
from proxy.store.sqlite import SqliteStore
from proxy.store.statements import Statement
from proxy.store.units import Unit


@pytest.fixture
def store(sqlite_store: SqliteStore) -> SqliteStore:
    return sqlite_store


async def ask(store: SqliteStore, text: str, *values: Any) -> list[Any]:
    """Run SQL of the test's own on the writing connection."""
    rows = await store._connection.execute_fetchall(text, values)
    return list(rows)


def sql(text: str) -> Statement:
    return Statement("test", "A test's own.", text)


class Block:
    """A unit of work that keeps the writer busy until the test lets it go."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.began = asyncio.Event()
        self.let_go = threading.Event()

    def __call__(self) -> Unit[None]:
        self._loop.call_soon_threadsafe(self.began.set)
        assert self.let_go.wait(10)
        yield sql("SELECT 1"), {}


# Durability and batches


async def test_an_answered_write_is_synced_and_constraints_bind(store: SqliteStore):
    settings = {
        name: (await ask(store, f"PRAGMA {name}"))[0][0]
        for name in ("journal_mode", "synchronous", "foreign_keys", "temp_store")
    }
    assert settings == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "temp_store": 2}


async def test_a_batch_is_one_call_to_the_one_private_name_of_aiosqlite(store: SqliteStore, monkeypatch):
    calls = []
    private = store._connection._execute

    async def counted(function: Callable[[], Any]) -> Any:
        calls.append(function)
        return await private(function)

    monkeypatch.setattr(store._connection, "_execute", counted)
    assert isinstance(store._connection._conn, sqlite3.Connection)
    await store.enqueue(a_deferral("d"), limits=NO_LIMITS, decision=a_decision())
    assert len(calls) == 1


async def test_64_callers_at_once_share_a_few_commits(store: SqliteStore):
    seen: list[str] = []
    await store._connection.set_trace_callback(seen.append)
    placed = await asyncio.gather(*(store.enqueue(a_deferral(f"d{n}"), limits=NO_LIMITS) for n in range(64)))
    await store._connection.set_trace_callback(None)
    assert {each.placed for each in placed} == {Placed.INSERTED}
    assert 1 <= seen.count("COMMIT") <= 4
    assert len(await store.deferrals(limit=99)) == 64


async def test_a_batch_is_bounded(path: Path):
    store = SqliteStore(path, batch=4)
    await store.open()
    await store.create(a_workspace())
    seen: list[str] = []
    await store._connection.set_trace_callback(seen.append)
    await asyncio.gather(*(store.enqueue(a_deferral(f"d{n}"), limits=NO_LIMITS) for n in range(16)))
    await store._connection.set_trace_callback(None)
    assert seen.count("COMMIT") >= 4
    await store.aclose()


async def test_a_unit_that_fails_leaves_its_batch_alone_and_nothing_of_itself(store: SqliteStore):
    await put(store, a_deferral("taken"))
    await store.add_token(a_token("taken"))
    block = Block()
    holding = asyncio.create_task(store._write(block))
    await block.began.wait()
    writes = [
        store.enqueue(a_deferral("a"), limits=NO_LIMITS),
        store.enqueue(a_deferral("taken"), limits=NO_LIMITS),
        store.create(a_workspace("half"), token=a_token("taken")),
        store.finish("a", None, Ending(state=State.COMPLETED, at=T0)),
        store.enqueue(a_deferral("b"), limits=NO_LIMITS),
    ]
    gathered = asyncio.gather(*writes, return_exceptions=True)
    await asyncio.sleep(0)
    block.let_go.set()
    first, *failed, misused, last = await gathered
    await holding
    assert (first.placed, last.placed) == (Placed.INSERTED, Placed.INSERTED)
    assert [(type(each), each.reason) for each in failed] == [(StoreFailure, "conflict")] * 2
    assert isinstance(misused, ValueError)
    assert [deferral.id for deferral in await store.deferrals()] == ["b", "a", "taken"]
    assert (await ask(store, "SELECT depth FROM queue_sizes")) == [(3,)]
    assert await store.workspace("half") is None, "what it wrote before it failed is taken back"


async def test_a_caller_cancelled_in_mid_batch_is_written_all_the_same(store: SqliteStore):
    first, second = Block(), Block()
    holding = [asyncio.create_task(store._write(first))]
    await first.began.wait()
    gone = asyncio.create_task(store.enqueue(a_deferral("gone"), limits=NO_LIMITS))
    holding.append(asyncio.create_task(store._write(second)))
    neighbour = asyncio.create_task(store.enqueue(a_deferral("neighbour"), limits=NO_LIMITS))
    await asyncio.sleep(0)
    first.let_go.set()
    await second.began.wait()
    gone.cancel()
    await asyncio.wait([gone])
    second.let_go.set()
    assert (await neighbour).depth == 2
    await asyncio.gather(*holding)
    assert gone.cancelled()
    assert await store.deferral("gone") is not None


async def test_closing_writes_what_was_accepted(path: Path, store: SqliteStore):
    block = Block()
    holding = asyncio.create_task(store._write(block))
    await block.began.wait()
    writes = [asyncio.create_task(store.enqueue(a_deferral(f"d{n}"), limits=NO_LIMITS)) for n in range(5)]
    await asyncio.sleep(0)
    closing = asyncio.create_task(store.aclose())
    await asyncio.sleep(0)
    block.let_go.set()
    await closing
    await holding
    assert [(await write).placed for write in writes] == [Placed.INSERTED] * 5
    again = SqliteStore(path)
    await again.open()
    assert len(await again.deferrals()) == 5
    await again.aclose()


# Failing disks


async def test_a_fat_request_that_fills_the_disk_fails_alone(store: SqliteStore):
    (pages,) = (await ask(store, "PRAGMA page_count"))[0]
    await ask(store, f"PRAGMA max_page_count = {pages + 40}")
    block = Block()
    holding = asyncio.create_task(store._write(block))
    await block.began.wait()
    bodies = {"a": b"x", "b": b"x", "fat": b"x" * 1_000_000, "c": b"x", "d": b"x"}
    writes = [store.enqueue(a_deferral(name, body=body), limits=NO_LIMITS) for name, body in bodies.items()]
    gathered = asyncio.gather(*writes, return_exceptions=True)
    await asyncio.sleep(0)
    block.let_go.set()
    answers = dict(zip(bodies, await gathered, strict=True))
    await holding
    full = answers.pop("fat")
    assert isinstance(full, StoreFailure)
    assert full.reason == "full"
    assert [answer.placed for answer in answers.values()] == [Placed.INSERTED] * 4
    assert [deferral.id for deferral in await store.deferrals()] == ["d", "c", "b", "a"]
    await ask(store, "PRAGMA max_page_count = 1000000")
    assert (await put(store, a_deferral("fat", body=bodies["fat"])))[0].depth == 5


async def test_a_commit_that_fails_is_repeated_unit_by_unit(store: SqliteStore):
    def breaks_the_commit() -> Unit[None]:
        yield sql("PRAGMA defer_foreign_keys = ON"), {}
        yield sql("INSERT INTO requests (deferral, body) VALUES (999, x'00')"), {}

    block = Block()
    holding = asyncio.create_task(store._write(block))
    await block.began.wait()
    writes = [
        store.enqueue(a_deferral("a"), limits=NO_LIMITS),
        store._write(breaks_the_commit),
        store.enqueue(a_deferral("b"), limits=NO_LIMITS),
    ]
    gathered = asyncio.gather(*writes, return_exceptions=True)
    await asyncio.sleep(0)
    block.let_go.set()
    first, broke, last = await gathered
    await holding
    assert (first.placed, last.placed) == (Placed.INSERTED, Placed.INSERTED)
    assert isinstance(broke, StoreFailure)
    assert [deferral.id for deferral in await store.deferrals()] == ["b", "a"]
    assert await ask(store, "SELECT count(*) FROM requests WHERE deferral = 999") == [(0,)]


def test_a_transaction_that_sqlite_gave_up_is_repeated_unit_by_unit(path: Path):
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("CREATE TABLE t (n INTEGER)")
    tries = []

    def add(number: int) -> Unit[int]:
        yield sql("INSERT INTO t VALUES (:n)"), {"n": number}
        return number

    def gives_up() -> Unit[None]:
        tries.append(1)
        yield sql("ROLLBACK"), {}
        yield sql("SELECT * FROM missing"), {}

    made = [partial(add, 1), gives_up, partial(add, 2)]
    outcomes = sqlite_engine.write_batch(connection, made, path)
    assert [getattr(outcome, "value", "failed") for outcome in outcomes] == [1, "failed", 2]
    assert connection.execute("SELECT n FROM t").fetchall() == [(1,), (2,)]
    assert len(tries) == 3, "joined, guarded, alone"
    assert not connection.in_transaction
    connection.close()


async def test_a_database_that_another_process_locked_is_locked_and_then_works_again(store: SqliteStore, path: Path):
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    writes = [store.enqueue(a_deferral(f"d{n}"), limits=NO_LIMITS) for n in range(3)]
    answers = await asyncio.gather(*writes, return_exceptions=True)
    assert [getattr(answer, "reason", answer) for answer in answers] == ["locked"] * 3
    assert await store.deferrals() == [], "readers read on"
    other.execute("ROLLBACK")
    other.close()
    assert (await put(store, a_deferral("d0")))[0].placed is Placed.INSERTED


async def test_a_disk_that_became_read_only_says_so(store: SqliteStore):
    await ask(store, "PRAGMA query_only = ON")
    with pytest.raises(StoreFailure) as refused:
        await put(store, a_deferral("d"))
    assert refused.value.reason == "readonly"


@pytest.mark.parametrize(
    ("code", "free", "reason"),
    [
        (sqlite3.SQLITE_FULL, 1 << 30, "full"),
        (sqlite3.SQLITE_IOERR_WRITE, 1 << 30, "io"),
        (sqlite3.SQLITE_IOERR_SHMSIZE, 0, "full"),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, 1 << 30, "locked"),
        (sqlite3.SQLITE_READONLY_DBMOVED, 1 << 30, "readonly"),
        (sqlite3.SQLITE_CORRUPT_INDEX, 1 << 30, "corrupt"),
        (sqlite3.SQLITE_NOTADB, 1 << 30, "corrupt"),
        (sqlite3.SQLITE_CONSTRAINT_UNIQUE, 1 << 30, "conflict"),
        (sqlite3.SQLITE_INTERRUPT, 1 << 30, "io"),
    ],
)
def test_what_an_error_of_sqlite_means(monkeypatch, path, code, free, reason):
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_bavail=free, f_frsize=1))
    error = sqlite3.OperationalError("it failed")
    error.sqlite_errorcode = code
    assert sqlite_engine.meaning(error, path).reason == reason


# Deleting


async def test_a_purge_takes_body_answer_alias_and_journal_along(store: SqliteStore):
    await put(store, a_leased("d", "t", credentials=b"x"), a_deferral("kept", upstream_task_id="u"))
    ending = Ending(
        state=State.DEAD_LETTERED, at=T0, upstream_task_id="u", answer=StoredAnswer(status=200, headers=(), body=b"")
    )
    await store.finish("d", "t", ending)
    await ask(
        store,
        "INSERT INTO stream_journal (deferral, sequence, event, at) VALUES (1, 1, x'00', 0), (2, 1, x'00', 0)",
    )
    tables = ("deferrals", "requests", "answers", "task_aliases", "stream_journal")

    async def counts() -> list[int]:
        return [(await ask(store, f"SELECT count(*) FROM {table}"))[0][0] for table in tables]  # noqa: S608 - our tables

    assert await counts() == [2, 2, 1, 2, 2]
    assert await store.purge(ended_before=at(1), limit=9) == 1
    assert await counts() == [1, 1, 0, 1, 1]


async def test_long_deletions_go_in_small_steps_so_that_others_get_in_between(store: SqliteStore, monkeypatch):
    monkeypatch.setattr(sqlite, "CHUNK", 3)
    for n in range(8):
        await put(store, a_deferral(f"d{n}"))
        await store.finish(f"d{n}", None, Ending(state=State.CANCELLED, at=at(n)))
    await store.log([a_decision(str(n), at=at(n)) for n in range(16)])
    seen: list[str] = []
    await store._connection.set_trace_callback(seen.append)
    assert await store.purge(ended_before=at(99), limit=7) == 7
    assert seen.count("COMMIT") == 3
    seen.clear()
    assert await store.trim_decisions(before=at(4), rows=2) == 14
    assert seen.count("COMMIT") == 2 + 4
    await store._connection.set_trace_callback(None)
    assert [decision.action for decision in await store.decisions("w", limit=99)] == ["15", "14"]
