"""A fresh, open store of every kind, and one on SQLite for what only SQLite has."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from store.examples import a_workspace
from store.stores import STORES

from proxy.store import Store
from proxy.store.sqlite import SqliteStore


@pytest.fixture(params=sorted(STORES))
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    made = STORES[request.param](tmp_path)
    await made.open()
    yield made
    await made.aclose()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a database is about to be."""
    return tmp_path / "holdfast.db"


@pytest.fixture
async def sqlite_store(path: Path) -> AsyncIterator[SqliteStore]:
    """Open, with the workspace `w`; waits for a foreign lock for a moment only."""
    made = SqliteStore(path, busy_timeout=0.05)
    await made.open()
    await made.create(a_workspace())
    yield made
    await made.aclose()
