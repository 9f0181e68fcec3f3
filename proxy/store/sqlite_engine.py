"""Units of work on one `sqlite3` connection: transactions, savepoints, what SQLite's errors mean.

Owns: how a unit and a batch run and what is left when something fails. All of it blocks: it runs on aiosqlite's thread.
Knows nothing of: asyncio, who asked, what a statement says.

Theory of operation. A batch is one transaction. Nearly always all of it succeeds; so it is first run without any care,
neighbours of one kind joined into one unit. When a unit fails, everything is taken back, and the batch is run again
with a savepoint a unit: the failing one leaves its neighbours' changes alone. SQLite gives up the whole transaction on
some failures (a full disk, an I/O error), and a commit may fail for the sake of one fat unit: then the batch is run
again unit by unit, each in a transaction of its own, and only those that cannot be written fail.

    joined ──anything fails──> a savepoint each ──the transaction is lost, or its commit fails──> each alone

Every call of SQLite gives the interpreter's lock away and must win it back from a busy event loop, which may take
milliseconds. That, more than SQLite's own work, is why a crowd shares its statements: a few calls for all of it.
"""

import os
import sqlite3
from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Final, TypeVar

from proxy.store import StoreFailure
from proxy.store.statements import Statement
from proxy.store.units import Joinable, MakeUnit, Params, Rows, Unit
from proxy.store.writer import Done, Failed

T = TypeVar("T")

RunAll = Callable[[sqlite3.Connection, Sequence[MakeUnit], Path], "list[Done[Any] | Failed]"]

MOST_AT_ONCE: Final = 64
"""Groups of parameters in one text at most: what SQLite prepares for it takes some 100 KB."""

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
                rows = _each(connection, statement, params)
            else:
                rows = connection.execute(statement.marked, statement.values(params)).fetchall()
            statement, params = unit.send(rows)
    except StopIteration as stop:
        result: T = stop.value
        return result
    finally:
        unit.close()


def _each(connection: sqlite3.Connection, statement: Statement, params: list[Params]) -> Rows:
    """Run a statement for each of `params`: in powers of two at once, so that few texts have to be prepared."""
    if not statement.repeats:
        connection.executemany(statement.marked, map(statement.values, params))
        return []
    rows: Rows = []
    done = 0
    while done < len(params):
        count = min(MOST_AT_ONCE, 1 << (len(params) - done).bit_length() - 1)
        values = [value for each in params[done : done + count] for value in statement.values(each)]
        rows += connection.execute(statement.times(count), values).fetchall()
        done += count
    return rows


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
    """Run units in one transaction, more carefully if need be; at last each in a transaction of its own."""
    if len(batch) > 1:
        for run_all in (_joined, _guarded):
            outcomes = _together(connection, batch, path, run_all)
            if outcomes is not None:
                return outcomes
    return [_alone(connection, make, path) for make in batch]


def _together(
    connection: sqlite3.Connection, batch: Sequence[MakeUnit], path: Path, run_all: RunAll
) -> list[Done[Any] | Failed] | None:
    """Return the outcomes after the commit, or None when nothing was written."""
    try:
        connection.execute("BEGIN IMMEDIATE")
        outcomes = run_all(connection, batch, path)
        connection.execute("COMMIT")
    except sqlite3.Error as error:
        _roll_back(connection)
        if _primary(error) == sqlite3.SQLITE_BUSY:
            # Each of them would wait as long again for the same lock.
            return [Failed(meaning(error, path))] * len(batch)
        return None
    except Exception:  # noqa: BLE001 - whatever a unit raises is its own caller's: a more careful way tells whose
        _roll_back(connection)
        return None
    return outcomes


def _joined(connection: sqlite3.Connection, batch: Sequence[MakeUnit], _: Path) -> list[Done[Any] | Failed]:
    """Run all without savepoints, neighbours of one kind as one unit; raise what any of them raises."""
    outcomes: list[Done[Any] | Failed] = []
    for kind, neighbours in groupby(batch, key=type):
        crowd = list(neighbours)
        if len(crowd) > 1 and issubclass(kind, Joinable):
            outcomes += map(Done, run(connection, kind.join(crowd)))
        else:
            outcomes += [Done(run(connection, make())) for make in crowd]
    return outcomes


def _guarded(connection: sqlite3.Connection, batch: Sequence[MakeUnit], path: Path) -> list[Done[Any] | Failed]:
    """Run each under a savepoint; raise when SQLite has given the transaction up."""
    outcomes: list[Done[Any] | Failed] = []
    for make in batch:
        connection.execute("SAVEPOINT unit")
        try:
            outcomes.append(Done(run(connection, make())))
        except Exception as error:
            if not connection.in_transaction:
                raise
            connection.execute("ROLLBACK TO unit")
            outcomes.append(Failed(meaning(error, path) if isinstance(error, sqlite3.Error) else error))
        connection.execute("RELEASE unit")
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
