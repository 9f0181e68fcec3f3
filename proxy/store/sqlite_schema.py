"""Bringing one SQLite connection and its database into the state that the store needs.

Owns: pragmas, the record of applied migrations. All of it blocks: it runs on aiosqlite's thread.
Knows nothing of: asyncio, what the tables mean.
"""

import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from proxy.store import StoreFailure
from proxy.store.migrations import Applied, Migration, missing

OLDEST: Final = (3, 37, 0)
"""STRICT tables; RETURNING is older."""

_REMEMBERED: Final = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    number INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    sha256 TEXT NOT NULL
) STRICT
"""


def check_library() -> None:
    """Refuse a SQLite that lacks what the schema uses.

    Raises:
        StoreFailure: `outdated`.
    """
    if sqlite3.sqlite_version_info < OLDEST:
        needed = ".".join(map(str, OLDEST))
        raise StoreFailure("outdated", f"SQLite {sqlite3.sqlite_version} is older than {needed}, which Holdfast needs")


def make_private(path: Path) -> None:
    """Create an empty database readable by its owner only: it will hold what callers sent. An existing one is kept."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except PermissionError as problem:
        raise StoreFailure("readonly", f"{path}: {problem.strerror}") from problem
    except OSError as problem:
        raise StoreFailure("io", f"{path}: {problem.strerror}") from problem


def prepare_writer(connection: sqlite3.Connection) -> None:
    """Make commits durable against power loss, and constraints binding."""
    mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if mode != "wal":
        raise StoreFailure("io", f"this file system does not carry a write-ahead log (journal mode {mode})")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    # A savepoint's undo log must not need room on the very disk that may be full.
    connection.execute("PRAGMA temp_store = MEMORY")
    connection.execute("PRAGMA journal_size_limit = 67108864")
    # 64 MiB of pages: with a million rows every change touches a page of each of a dozen indexes.
    connection.execute("PRAGMA cache_size = -65536")


def prepare_reader(connection: sqlite3.Connection) -> None:
    """Let a connection only read."""
    connection.execute("PRAGMA query_only = ON")
    connection.execute("PRAGMA temp_store = MEMORY")


def migrate(connection: sqlite3.Connection, migrations: Sequence[Migration]) -> None:
    """Apply what the database lacks, all in one transaction.

    Raises:
        StoreFailure: `newer` or `changed`; nothing was touched.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if tables and "schema_migrations" not in tables:
            raise StoreFailure("changed", f"the database is not Holdfast's: it holds {', '.join(sorted(tables)[:3])}")
        connection.execute(_REMEMBERED)
        applied = [
            Applied(number=number, name=name, sha256=sha256)
            for number, name, sha256 in connection.execute(
                "SELECT number, name, sha256 FROM schema_migrations ORDER BY number"
            )
        ]
        for migration in missing(applied, migrations):
            for statement in migration.statements:
                connection.execute(statement)
            connection.execute(
                "INSERT INTO schema_migrations (number, name, sha256) VALUES (?, ?, ?)",
                (migration.number, migration.name, migration.sha256),
            )
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
