"""Fixtures: proxy processes and agents that end with their test, and one proxy that the tests of a module share.

Every test of processes runs on the event loop of its module (`loop_scope="module"`), where the shared proxy lives.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from e2e.agents import SmallAgent, end_all
from e2e.serving import Serving
from e2e.stage import Stage

NUMBERS = count(1)


@pytest_asyncio.fixture(loop_scope="module")
async def make(tmp_path: Path) -> AsyncIterator[Callable[..., Awaitable[Serving]]]:
    """Start proxies, as in `make(queue__lease=1)` with settings of one's own; what they started ends with them."""
    made: list[Serving] = []

    async def start(**settings: Any) -> Serving:
        serving = Serving(tmp_path, {name.replace("__", "."): value for name, value in settings.items()})
        made.append(serving)
        await serving.start()
        return serving

    yield start
    for serving in made:
        await serving.kill()
    end_all(tmp_path)


@pytest_asyncio.fixture(loop_scope="module")
async def proxy(make: Callable[..., Awaitable[Serving]]) -> Serving:
    """One that this test may kill."""
    return await make()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Serving]:
    """One that every test of the module finds, and leaves, serving; it may be killed in between."""
    serving = Serving(tmp_path_factory.mktemp("shared"))
    await serving.start()
    yield serving
    await serving.kill()
    end_all(serving.folder)


@pytest_asyncio.fixture(loop_scope="module")
async def agent(tmp_path: Path) -> AsyncIterator[SmallAgent]:
    small = SmallAgent(tmp_path, f"agent-{next(NUMBERS)}")
    await small.hear()
    yield small
    await small.close()


@pytest.fixture
def stage(shared: Serving, agent: SmallAgent) -> Stage:
    """An agent of this test's own at the shared proxy."""
    return Stage(shared, agent)
