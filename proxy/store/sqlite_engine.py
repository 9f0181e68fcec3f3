"""Units of work on one `sqlite3` connection: transactions, savepoints, what SQLite's errors mean.

Owns: how a unit and a batch run and what is left when something fails. All of it blocks: it runs on aiosqlite's thread.
Knows nothing of: asyncio, who asked, what a statement says.

Theory of operation. A batch is one transaction; each unit of it has a savepoint, so that a unit that fails leaves its
neighbours' changes alone. SQLite gives up the whole transaction on some failures (a full disk, an I/O error), and a
commit may fail for the sake of one fat unit: then the batch is run again unit by unit, each in a transaction of its
own, and only those that cannot be written fail.
"""

import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from proxy.store import StoreFailure
from proxy.store.units import Unit
from proxy.store.writer import Done, Failed, MakeUnit

T = TypeVar("T")

PRIMARY_CODE: Final = 0xFF
ROOM: Final = 1 << 20
"""A disk with fewer free bytes than this is full: the write-ahead log and its index cannot grow."""

_REASONS: Final = {
    sqlite3.SQLITE_FULL: "full",
    sqlite3.SQLITE_BUSY: "locked",
    sqlite3.SQLITE_LOCKED: "locked",
    sqlite3.SQLITE_READONLY: "readonly",
    sqlite3.SQLITE_CORRUPT: "corrupt",
    sqlite3.SQLITE_NOTADB: "corrupt",
    sqlite3.SQLITE_CONSTRAINT: "conflict",
}


def meaning(error: sqlite3.Error, path: Path) -> StoreFailure:
    """Say in the store's words what an error of SQLite means for a caller."""
    code = getattr(error, "sqlite_errorcode", 0) & PRIMARY_CODE
    reason = _REASONS.get(code, "io")
    if code == sqlite3.SQLITE_IOERR and not _has_room(path):
        reason = "full"
    failure = StoreFailure(reason, f"{getattr(error, 'sqlite_errorname', type(error).__name__)}: {error}")
    failure.__cause__ = error
    return failure


def _has_room(path: Path) -> bool:
    try:
        disk = os.statvfs(path.parent)
    except OSError:
        return True
    return disk.f_bavail * disk.f_frsize >= ROOM


def run(connection: sqlite3.Connection, unit: Unit[T]) -> T:
    """Drive a unit to its end inside whatever transaction is open."""
    try:
        statement, params = next(unit)
        while True:
            if isinstance(params, list):
                connection.executemany(statement.marked, map(statement.values, params))
                rows: list[Any] = []
            else:
                rows = connection.execute(statement.marked, statement.values(params)).fetchall()
            statement, params = unit.send(rows)
    except StopIteration as stop:
        result: T = stop.value
        return result
    finally:
        unit.close()


def read(connection: sqlite3.Connection, make: MakeUnit, path: Path) -> Any:
    """Run a unit that only reads: all its statements see one state of the database."""
    try:
        connection.execute("BEGIN")
        try:
            return run(connection, make())
        finally:
            _roll_back(connection)
    except sqlite3.Error as error:
        raise meaning(error, path) from error


def write_batch(connection: sqlite3.Connection, batch: Sequence[MakeUnit], path: Path) -> list[Done[Any] | Failed]:
    """Run units in one transaction, each under a savepoint; where that cannot be, each in a transaction of its own."""
    if len(batch) > 1:
        together = _together(connection, batch, path)
        if together is not None:
            return together
    return [_alone(connection, make, path) for make in batch]


def _together(connection: sqlite3.Connection, batch: Sequence[MakeUnit], path: Path) -> list[Done[Any] | Failed] | None:
    """Return the outcomes after the commit, or None when the transaction is lost and nothing was written."""
    outcomes: list[Done[Any] | Failed] = []
    try:
        connection.execute("BEGIN IMMEDIATE")
        for make in batch:
            connection.execute("SAVEPOINT unit")
            try:
                outcomes.append(Done(run(connection, make())))
            except Exception as error:  # noqa: BLE001 - whatever a unit raises is its own caller's
                if not connection.in_transaction:
                    return None
                connection.execute("ROLLBACK TO unit")
                outcomes.append(Failed(meaning(error, path) if isinstance(error, sqlite3.Error) else error))
            connection.execute("RELEASE unit")
        connection.execute("COMMIT")
    except sqlite3.Error as error:
        _roll_back(connection)
        if _primary(error) == sqlite3.SQLITE_BUSY:
            # Each of them would wait as long again for the same lock.
            return [Failed(meaning(error, path))] * len(batch)
        return None
    return outcomes


def _alone(connection: sqlite3.Connection, make: MakeUnit, path: Path) -> Done[Any] | Failed:
    try:
        connection.execute("BEGIN IMMEDIATE")
        value = run(connection, make())
        connection.execute("COMMIT")
    except sqlite3.Error as error:
        _roll_back(connection)
        return Failed(meaning(error, path))
    except Exception as error:  # noqa: BLE001 - whatever a unit raises is its own caller's
        _roll_back(connection)
        return Failed(error)
    return Done(value)


def _primary(error: sqlite3.Error) -> int:
    return int(getattr(error, "sqlite_errorcode", 0)) & PRIMARY_CODE


def _roll_back(connection: sqlite3.Connection) -> None:
    if connection.in_transaction:
        connection.execute("ROLLBACK")
