"""Fixtures: proxies, agents, and URLs on which nobody listens."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp.test_utils import unused_port
from forward.scripted_upstream import Peer
from web.failing_agents import Script
from web.harness import Harness, ScriptedAgent, config_for


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as opened:
        yield opened


@pytest.fixture
async def make(session: aiohttp.ClientSession, tmp_path: Path) -> AsyncIterator[Callable[..., Awaitable[Harness]]]:
    """Start proxies with settings of one's own."""
    started: list[Harness] = []

    async def start(**overrides: Any) -> Harness:
        harness = Harness(config_for(tmp_path, **overrides), session)
        await harness.start()
        started.append(harness)
        return harness

    yield start
    for harness in started:
        await harness.app.stop(drain=0)


@pytest.fixture
async def proxy(make: Callable[..., Awaitable[Harness]]) -> Harness:
    return await make()


@pytest.fixture
async def agent() -> AsyncIterator[ScriptedAgent]:
    scripted = ScriptedAgent()
    await scripted.start()
    yield scripted
    await scripted.stop()


@pytest.fixture
async def listen() -> AsyncIterator[Callable[[Script], Awaitable[str]]]:
    """Start agents that follow a script byte for byte; returns their URLs."""
    peers: list[Peer] = []

    async def start(script: Script) -> str:
        peer = Peer(script)
        await peer.start()
        peers.append(peer)
        return str(peer.url(""))

    yield start
    for peer in peers:
        await peer.stop()


@pytest.fixture
def nobody() -> str:
    """A URL on which nobody listens."""
    return f"http://127.0.0.1:{unused_port()}"
