"""The store on SQLite: one file, one proxy, no server.

Owns: two connections (one writes, one reads), opening, closing, which unit of work goes where.
Knows nothing of: SQL texts (`store.statements`), what a unit does (`store.units`), how a batch runs (`sqlite_engine`).

Theory of operation. aiosqlite keeps each connection on a thread of its own. Its public calls cost a thread round trip
per statement; so a whole batch of units goes over in one call to its `_execute`, the one private name used here (a test
pins it). Writes go through a `GroupWriter`; reads run on the other connection, each seeing one state of the database
that includes every write answered before. `synchronous = FULL` in WAL mode: an answered write survives a power cut.
"""

import asyncio
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import aiosqlite

from proxy.clock import stopwatch
from proxy.core.decision import Decision
from proxy.core.deferral import Deferral, Lease, State, StoredTask
from proxy.core.restart import Restart
from proxy.core.tally import Distribution
from proxy.core.workspace import Workspace
from proxy.store import (
    Ending,
    Enqueued,
    LineOf,
    QueueLimits,
    QueueSize,
    Requeue,
    Signs,
    Snapshot,
    Sought,
    StoreFailure,
    TaskOf,
    TokenRecord,
    Watch,
    migrations,
    no_line,
    no_task,
    sqlite_engine,
    sqlite_schema,
)
from proxy.store.journal import Appended, Events, JournalEvent, JournalLimits
from proxy.store.lock_file import LockFile
from proxy.store.outlook import Outlook
from proxy.store.sqlite_pushes import SqlitePushes
from proxy.store.sqlite_task_lists import SqliteTaskLists
from proxy.store.units import MakeUnit, Unit, deferrals, delivery, instants, journal, log, workspaces
from proxy.store.units.crowds import Enqueue
from proxy.store.writer import Done, Failed, GroupWriter

T = TypeVar("T")

COMMIT_SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
COMMIT_UNITS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)

SIGNS_AT_ONCE: Final = 2500
"""Signs of life in one unit of work, for the same reason: some 20 ms of work."""

CHUNK: Final = 500
"""Rows that one unit of work deletes at most, so that no caller waits long behind a purge."""


async def _on_thread(connection: aiosqlite.Connection, function: Callable[[sqlite3.Connection], T]) -> T:
    """Call `function` with the `sqlite3` connection on its own thread: one round trip, whatever the function does."""
    run = partial(function, connection._conn)  # noqa: SLF001 - see the theory of operation
    return cast("T", await connection._execute(run))  # type: ignore[no-untyped-call]  # noqa: SLF001 - see above


class SqliteStore(SqlitePushes, SqliteTaskLists):
    """`path`: the database; `path` + `.lock` lies beside it while a proxy lives, its write-ahead log too.

    `batch`: units of work in one commit at most. `busy_timeout`: seconds to wait for a foreign lock before `locked`.
    """

    def __init__(self, path: Path, *, batch: int = 256, busy_timeout: float = 5.0) -> None:
        self._path = path
        self._batch = batch
        self._busy_timeout = busy_timeout
        self._lock = LockFile(path.with_name(path.name + ".lock"))
        self._connection: aiosqlite.Connection | None = None
        self._reader: aiosqlite.Connection | None = None
        self._writer: GroupWriter | None = None
        self._numbers: dict[str, int] = {}
        self._besides: dict[int, tuple[object, ...]] = {}
        """What was written of signs of life besides their instants, by number of workspace; nobody else writes them."""
        self._commits = (Distribution(COMMIT_SECONDS), Distribution(COMMIT_UNITS))

    async def open(self) -> None:
        """See `Store.open`; also raises `in_use`, `missing`, `readonly`, `corrupt`, `changed`, `outdated`."""
        if self._writer is not None:
            return
        sqlite_schema.check_library()
        await asyncio.to_thread(self._lock.take)
        try:
            await asyncio.to_thread(sqlite_schema.make_private, self._path)
            self._connection = await self._connect()
            await _on_thread(self._connection, sqlite_schema.prepare_writer)
            await _on_thread(self._connection, partial(sqlite_schema.migrate, migrations=migrations.known()))
            self._reader = await self._connect()
            await _on_thread(self._reader, sqlite_schema.prepare_reader)
        except sqlite3.Error as error:
            await self._disconnect()
            raise sqlite_engine.meaning(error, self._path) from error
        except BaseException:
            await self._disconnect()
            raise
        self._writer = GroupWriter(self._run, most=self._batch)

    async def _connect(self) -> aiosqlite.Connection:
        return await aiosqlite.connect(
            self._path, timeout=self._busy_timeout, isolation_level=None, cached_statements=256
        )

    def commits(self) -> tuple[Distribution, Distribution]:
        """How many seconds commits took, and how many units of work each had."""
        return self._commits

    async def aclose(self) -> None:
        """See `Store.aclose`."""
        if self._writer is not None:
            await self._writer.close()
            self._writer = None
        await self._disconnect()

    async def _disconnect(self) -> None:
        reader, self._reader = self._reader, None
        connection, self._connection = self._connection, None
        try:
            # The writer goes last: the last connection to close folds the write-ahead log into the database.
            for each in (reader, connection):
                if each is not None:
                    await each.close()
        finally:
            self._lock.give_back()

    async def _run(self, batch: Sequence[MakeUnit]) -> Sequence[Done[Any] | Failed]:
        connection = self._connection
        if connection is None:
            raise StoreFailure("closed", "the store is not open")
        began = stopwatch()
        try:
            return await _on_thread(connection, partial(sqlite_engine.write_batch, batch=batch, path=self._path))
        finally:
            seconds, units = self._commits
            seconds.observe(stopwatch() - began)
            units.observe(len(batch))

    async def _write(self, make: Callable[[], Unit[T]]) -> T:
        if self._writer is None:
            raise StoreFailure("closed", "the store is not open")
        return await self._writer.submit(make)

    async def _read(self, make: Callable[[], Unit[T]]) -> T:
        reader = self._reader
        if reader is None:
            raise StoreFailure("closed", "the store is not open")
        return cast("T", await _on_thread(reader, partial(sqlite_engine.read, make=make, path=self._path)))

    async def _chunks(self, make: Callable[[int], Unit[int]], limit: int | None = None) -> int:
        """Delete in small units until nothing is left or `limit` is reached."""
        deleted = 0
        while limit is None or deleted < limit:
            chunk = CHUNK if limit is None else min(CHUNK, limit - deleted)
            gone = await self._write(partial(make, chunk))
            deleted += gone
            if gone < chunk:
                break
        return deleted

    async def ping(self) -> float:
        """See `Store.ping`."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        await self._write(log.ping)
        return loop.time() - began

    async def snapshot(self, *, restarts_since: datetime, completed_since: datetime) -> Snapshot:
        """See `Store.snapshot`."""
        self._numbers = await self._read(workspaces.all_numbers)
        return await self._read(partial(workspaces.snapshot, restarts_since, completed_since))

    # Workspaces

    async def workspace(self, workspace_id: str) -> Workspace | None:
        """See `Store.workspace`."""
        return await self._read(partial(workspaces.workspace, workspace_id))

    async def create(
        self, workspace: Workspace, *, token: TokenRecord | None = None, decision: Decision | None = None
    ) -> Workspace | None:
        """See `Store.create`."""
        return await self._write(partial(workspaces.create, workspace, token, decision))

    async def replace(
        self,
        workspace: Workspace,
        *,
        restart: Restart | None = None,
        token: TokenRecord | None = None,
        retire_tokens: bool = False,
        no_sign_after: datetime | None = None,
        decision: Decision | None = None,
    ) -> Workspace | None:
        """See `Store.replace`."""
        return await self._write(
            partial(
                workspaces.replace,
                workspace,
                restart=restart,
                token=token,
                retire_tokens=retire_tokens,
                no_sign_after=no_sign_after,
                decision=decision,
            )
        )

    async def remove(self, workspace: Workspace, *, at: datetime, reason: str, decision: Decision) -> bool:
        """See `Store.remove`."""
        return await self._write(partial(workspaces.remove, workspace, at, reason, decision))

    async def record_signs(self, signs: Mapping[str, Signs]) -> None:
        """See `Store.record_signs`."""
        unmet = [name for name in signs if name not in self._numbers]
        if unmet:
            self._numbers.update(await self._read(partial(workspaces.numbers, unmet)))
        numbered = [(number, each) for name, each in signs.items() if (number := self._numbers.get(name)) is not None]
        # In the order of their rows, so that those of one page are written together.
        numbered.sort(key=itemgetter(0))
        for start in range(0, len(numbered), SIGNS_AT_ONCE):
            some = numbered[start : start + SIGNS_AT_ONCE]
            besides = [(each.agent_down_at, each.active_tasks, each.max_concurrent, each.progress) for _, each in some]
            known = [self._besides.get(number) for number, _ in some]
            changed = [signs for signs, was, now in zip(some, known, besides, strict=True) if was != now]
            same = [signs for signs, was, now in zip(some, known, besides, strict=True) if was == now]
            await self._write(partial(workspaces.record_signs, changed, same))
            self._besides.update(zip((number for number, _ in some), besides, strict=True))

    async def amend(self, now: datetime, *, latest_try: datetime) -> int:
        """See `Store.amend`."""
        return await self._write(partial(instants.amend, now, latest_try))

    # Restarts

    async def save_restart(
        self,
        restart: Restart,
        *,
        held_by: str | None,
        now: datetime | None = None,
        decision: Decision | None = None,
    ) -> bool:
        """See `Store.save_restart`."""
        return await self._write(partial(workspaces.save_restart, restart, held_by, now, decision))

    async def restart(self, workspace_id: str, generation: int) -> Restart | None:
        """See `Store.restart`."""
        return await self._read(partial(workspaces.restart, workspace_id, generation))

    async def restarts(self, workspace_id: str, *, limit: int, before: int | None = None) -> Sequence[Restart]:
        """See `Store.restarts`."""
        return await self._read(partial(workspaces.restarts, workspace_id, limit, before))

    async def trim_restarts(self, *, after: datetime | None, before: datetime, limit: int) -> datetime | None:
        """See `Store.trim_restarts`."""
        return await self._write(partial(workspaces.trim_restarts, after, before, limit))

    # Tokens

    async def add_token(self, token: TokenRecord) -> None:
        """See `Store.add_token`."""
        await self._write(partial(workspaces.add_token, token))

    async def drop_token(self, token_id: str) -> TokenRecord | None:
        """See `Store.drop_token`."""
        return await self._write(partial(workspaces.drop_token, token_id))

    # Deferrals

    async def enqueue(
        self,
        deferral: Deferral,
        *,
        limits: QueueLimits,
        decision: Decision | None = None,
        expired_task: TaskOf = no_task,
        expired_line: LineOf = no_line,
    ) -> Enqueued:
        """See `Store.enqueue`."""
        return await self._write(Enqueue(deferral, limits, decision, expired_task, expired_line))

    async def deferral(self, deferral_id: str) -> Deferral | None:
        """See `Store.deferral`."""
        return await self._read(partial(deferrals.deferral, deferral_id))

    async def brief(self, deferral_id: str) -> Deferral | None:
        """See `Store.brief`."""
        return await self._read(partial(deferrals.brief, deferral_id))

    async def deferral_of_task(self, workspace_id: str, task_id: str) -> Deferral | None:
        """See `Store.deferral_of_task`."""
        return await self._read(partial(deferrals.deferral_of_task, workspace_id, task_id))

    async def deferrals(
        self,
        *,
        workspace_id: str | None = None,
        states: Sequence[State] = (),
        caller: str | None = None,
        limit: int = 100,
    ) -> Sequence[Deferral]:
        """See `Store.deferrals`."""
        return await self._read(partial(deferrals.deferrals, workspace_id, tuple(states), caller, limit))

    async def claim(
        self,
        workspace_id: str,
        *,
        leases: Sequence[Lease],
        now: datetime,
        line: LineOf = no_line,
        most_bytes: int = 0,
    ) -> Sequence[Deferral]:
        """See `Store.claim`."""
        return await self._write(partial(delivery.claim, workspace_id, tuple(leases), now, line, most_bytes))

    async def extend(self, deferral_id: str, lease_token: str, *, until: datetime) -> bool:
        """See `Store.extend`."""
        return await self._write(partial(delivery.extend, deferral_id, lease_token, until))

    async def finish(
        self, deferral_id: str, lease_token: str | None, ending: Ending, *, decision: Decision | None = None
    ) -> Deferral | None:
        """See `Store.finish`."""
        return await self._write(partial(delivery.finish, deferral_id, lease_token, ending, decision))

    async def redrive(
        self,
        deferral_id: str,
        *,
        now: datetime,
        expires_at: datetime,
        task: StoredTask | None = None,
        decision: Decision | None = None,
    ) -> Deferral | None:
        """See `Store.redrive`."""
        return await self._write(partial(delivery.redrive, deferral_id, now, expires_at, task, decision))

    async def learn_task(self, deferral_id: str, lease_token: str, upstream_task_id: str, task: StoredTask) -> bool:
        """See `Store.learn_task`."""
        return await self._write(partial(delivery.learn_task, deferral_id, lease_token, upstream_task_id, task))

    async def update_task(self, deferral_id: str, task: StoredTask) -> bool:
        """See `Store.update_task`."""
        return await self._write(partial(delivery.update_task, deferral_id, task))

    async def release(
        self, deferral_id: str, lease_token: str, requeue: Requeue, *, decision: Decision | None = None
    ) -> bool:
        """See `Store.release`."""
        return await self._write(partial(delivery.release, deferral_id, lease_token, requeue, decision))

    async def hasten(self, workspace_id: str, now: datetime, *, turned_away: bool = False) -> None:
        """See `Store.hasten`."""
        await self._write(partial(delivery.hasten, workspace_id, now, turned_away=turned_away))

    async def release_expired(self, now: datetime) -> Sequence[Watch]:
        """See `Store.release_expired`."""
        return await self._write(partial(delivery.release_expired, now))

    async def release_polled(self, workspace_id: str, *, but: str | None, error: str, now: datetime) -> Sequence[Watch]:
        """See `Store.release_polled`."""
        return await self._write(partial(delivery.release_polled, workspace_id, but, error, now))

    async def outlook(self, workspace_id: str, now: datetime) -> Outlook:
        """See `Store.outlook`."""
        return await self._read(partial(delivery.outlook, workspace_id, now))

    async def release_owned(self, owner: str, now: datetime) -> Sequence[Watch]:
        """See `Store.release_owned`."""
        return await self._write(partial(delivery.release_owned, owner, now))

    async def queue_sizes(self) -> Mapping[str, QueueSize]:
        """See `Store.queue_sizes`."""
        return await self._read(delivery.queue_sizes)

    async def due(self, now: datetime, *, limit: int) -> Sequence[str]:
        """See `Store.due`."""
        return await self._read(partial(delivery.due, now, limit))

    async def overdue(self, now: datetime, *, limit: int) -> Sequence[Deferral]:
        """See `Store.overdue`."""
        return await self._read(partial(delivery.overdue, now, limit))

    async def stale(self, *, before: datetime, workspace_id: str | None = None, limit: int) -> Sequence[Deferral]:
        """See `Store.stale`."""
        return await self._read(partial(delivery.stale, before, workspace_id, limit))

    async def purge(self, *, ended_before: datetime, limit: int) -> int:
        """See `Store.purge`."""
        return await self._chunks(partial(delivery.purge, ended_before), limit)

    # Stream journal

    async def append_events(
        self, deferral_id: str, lease_token: str, events: Events, *, until: datetime, limits: JournalLimits
    ) -> Appended | None:
        """See `Journal.append_events`."""
        return await self._write(partial(journal.append, deferral_id, lease_token, events, until, limits))

    async def journal_size(self, deferral_id: str) -> int:
        """See `Journal.journal_size`."""
        return await self._read(partial(journal.size, deferral_id))

    async def journal(self, deferral_id: str, *, after: int = 0, limit: int = 100) -> Sequence[JournalEvent]:
        """See `Journal.journal`."""
        return await self._read(partial(journal.read, deferral_id, after, limit))

    # Decision log

    async def log(self, decisions: Sequence[Decision]) -> None:
        """See `Store.log`."""
        await self._write(partial(log.log, tuple(decisions)))

    async def decisions(self, workspace_id: str, *, limit: int) -> Sequence[Decision]:
        """See `Store.decisions`."""
        return await self._read(partial(log.decisions, workspace_id, limit))

    async def sought(self, sought: Sought, *, limit: int) -> Sequence[Decision]:
        """See `Store.sought`."""
        return await self._read(partial(log.sought, sought, limit))

    async def trim_decisions(self, *, before: datetime, rows: int) -> int:
        """See `Store.trim_decisions`; each batch of deletions is a commit of its own."""
        trimmed = await self._chunks(partial(log.trim_old, before))
        if rows > 0:
            for workspace_id, last in await self._read(partial(log.beyond, rows)):
                trimmed += await self._chunks(partial(log.trim_beyond, workspace_id, last))
        return trimmed
