"""A fresh, open store of every kind."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from store.stores import STORES

from proxy.store import Store


@pytest.fixture(params=sorted(STORES))
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    made = STORES[request.param](tmp_path)
    await made.open()
    yield made
    await made.aclose()
