"""Opening a database: what is refused and why, what is kept, one proxy per file."""

import asyncio
import errno
import os
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from store.examples import a_deferral, a_workspace, put

from proxy.store import StoreFailure, sqlite_schema
from proxy.store.lock_file import LockFile
from proxy.store.migrations import known
from proxy.store.sqlite import SqliteStore


@pytest.fixture
def store(sqlite_store: SqliteStore) -> SqliteStore:
    return sqlite_store


async def opened_reason(store: SqliteStore) -> str:
    with pytest.raises(StoreFailure) as refused:
        await store.open()
    return refused.value.reason


async def test_a_missing_directory_is_named(tmp_path: Path):
    store = SqliteStore(tmp_path / "none" / "holdfast.db")
    assert await opened_reason(store) == "missing"
    await store.aclose()


@pytest.fixture
def letter(path: Path) -> Path:
    path.write_bytes(b"this was somebody's letter\n" * 100)
    return path


async def test_what_is_no_database_is_refused_and_kept(letter: Path):
    before = await asyncio.to_thread(letter.read_bytes)
    assert await opened_reason(SqliteStore(letter)) == "corrupt"
    assert await asyncio.to_thread(letter.read_bytes) == before


async def test_a_foreign_database_is_refused_and_kept(path: Path):
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE theirs (n)")
    connection.close()
    assert await opened_reason(SqliteStore(path)) == "changed"


@pytest.fixture
def edited(path: Path) -> Callable[[str], None]:
    """Let a test edit a database of Holdfast's behind its back."""

    def edit(text: str) -> None:
        connection = sqlite3.connect(path)
        connection.execute(text)
        connection.commit()
        connection.close()

    return edit


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("INSERT INTO schema_migrations VALUES (9999, 'from_the_future', 'abc')", "newer"),
        ("UPDATE schema_migrations SET sha256 = 'abc'", "changed"),
    ],
)
async def test_a_schema_that_this_code_does_not_know_is_refused(path: Path, edited, text, reason):
    store = SqliteStore(path)
    await store.open()
    await store.create(a_workspace())
    await store.aclose()
    edited(text)
    assert await opened_reason(SqliteStore(path)) == reason
    edited("UPDATE workspaces SET url = 'still writable'")


async def test_opening_again_migrates_nothing(path: Path):
    for _ in range(2):
        store = SqliteStore(path)
        await store.open()
        await store.open()
        applied = await store._connection.execute_fetchall("SELECT number, name, sha256 FROM schema_migrations")
        await store.aclose()
    assert list(applied) == [(each.number, each.name, each.sha256) for each in known()]


async def test_an_old_library_is_refused(path: Path, monkeypatch):
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 34, 1))
    assert await opened_reason(SqliteStore(path)) == "outdated"
    assert list(await asyncio.to_thread(os.listdir, path.parent)) == []


async def test_a_file_system_without_a_write_ahead_log_is_refused():
    connection = sqlite3.connect(":memory:")
    with pytest.raises(StoreFailure, match="write-ahead log"):
        sqlite_schema.prepare_writer(connection)
    connection.close()


def modes_in(directory: Path) -> dict[str, int]:
    return {each.name: each.stat().st_mode & 0o777 for each in directory.iterdir()}


async def test_only_its_owner_may_read_the_database(store: SqliteStore, path: Path):
    await put(store, a_deferral("d"))
    modes = await asyncio.to_thread(modes_in, path.parent)
    assert set(modes) >= {"holdfast.db", "holdfast.db-wal", "holdfast.db.lock"}
    assert set(modes.values()) == {0o600}


async def test_one_proxy_has_the_database_at_a_time(store: SqliteStore, path: Path):
    second = SqliteStore(path)
    with pytest.raises(StoreFailure) as refused:
        await second.open()
    assert refused.value.reason == "in_use"
    assert str(os.getpid()) in refused.value.detail
    await second.aclose()
    await store.aclose()
    await second.open()
    assert await second.workspace("w") == a_workspace()
    await second.aclose()


async def test_a_store_that_could_not_open_holds_no_lock(letter: Path):
    assert await opened_reason(SqliteStore(letter)) == "corrupt"
    await asyncio.to_thread(letter.unlink)
    store = SqliteStore(letter)
    await store.open()
    await store.aclose()


@pytest.mark.parametrize(
    ("number", "reason"),
    [(errno.ENOSPC, "full"), (errno.EROFS, "readonly"), (errno.EACCES, "readonly"), (errno.EIO, "io")],
)
def test_what_keeps_a_lock_file_from_being_made(monkeypatch, path, number, reason):
    def fails(*_: Any) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", fails)
    with pytest.raises(StoreFailure) as refused:
        LockFile(path).take()
    assert refused.value.reason == reason


@pytest.fixture
def not_ours() -> Iterator[Path]:
    """A directory in which this process may not write; root becomes nobody for the while, else it may everything."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o555)
        is_root = os.geteuid() == 0
        if is_root:
            os.seteuid(65534)
        try:
            yield Path(directory)
        finally:
            if is_root:
                os.seteuid(0)
            Path(directory).chmod(0o755)


async def test_a_directory_that_may_not_be_written_is_read_only(not_ours: Path):
    assert await opened_reason(SqliteStore(not_ours / "holdfast.db")) == "readonly"
