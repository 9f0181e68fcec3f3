"""Fixtures: proxy processes and agents that end with their test."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from e2e.agents import SmallAgent, end_all
from e2e.serving import Serving


@pytest.fixture
async def make(tmp_path: Path) -> AsyncIterator[Callable[..., Awaitable[Serving]]]:
    """Start proxies, as in `make(queue__lease=1)` with settings of one's own; what they started ends with them."""
    made: list[Serving] = []

    async def start(folder: Path = tmp_path, **settings: Any) -> Serving:
        said = {name.replace("__", "."): value for name, value in settings.items()}
        serving = Serving(folder, said)
        made.append(serving)
        await serving.start()
        return serving

    yield start
    for serving in made:
        await serving.kill()
    end_all(tmp_path)


@pytest.fixture
async def proxy(make: Callable[..., Awaitable[Serving]]) -> Serving:
    return await make()


@pytest.fixture
async def agent(tmp_path: Path) -> AsyncIterator[SmallAgent]:
    small = SmallAgent(tmp_path)
    await small.hear()
    yield small
    await small.close()
