"""Fixtures: proxies, agents, and URLs on which nobody listens."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest
from forward.scripted_upstream import Peer
from web.failing_agents import Script
from web.harness import Harness, ScriptedAgent, config_for
from web.raw_wire import Wire
from web.receivers import Receiver


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as opened:
        yield opened


@pytest.fixture
async def callers() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as opened:
        yield opened


@pytest.fixture
async def make(
    session: aiohttp.ClientSession, callers: aiohttp.ClientSession, tmp_path: Path
) -> AsyncIterator[Callable[..., Awaitable[Harness]]]:
    """Start proxies with settings of one's own."""
    started: list[Harness] = []

    async def start(**overrides: Any) -> Harness:
        harness = Harness(config_for(tmp_path, **overrides), session, callers)
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
async def receiver() -> AsyncIterator[Receiver]:
    made = Receiver()
    await made.start()
    yield made
    await made.stop()


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
def nobody() -> Iterator[str]:
    """A URL on which nobody listens, nor will: its port is taken."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


@pytest.fixture
async def connect(proxy: Harness) -> AsyncIterator[Callable[..., Awaitable[Wire]]]:
    """Open connections to either door."""
    opened: list[Wire] = []

    async def open_one(door: str = "front") -> Wire:
        reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(proxy.url).port)
        wire = Wire(reader, writer)
        opened.append(wire)
        if door == "aiohttp":
            status, _, _ = await wire.ask(line=b"GET /healthz HTTP/1.1", body=b"")
            assert status == b"HTTP/1.1 200 OK"
        return wire

    yield open_one
    for wire in opened:
        wire.writer.close()


@pytest.fixture
async def enrolled(proxy: Harness, agent: ScriptedAgent) -> ScriptedAgent:
    await proxy.enroll("a", url=agent.url)
    return agent


@pytest.fixture
async def says(proxy: Harness) -> AsyncIterator[Callable[[bytes], Awaitable[None]]]:
    """An agent that answers every request with these bytes."""
    peers: list[Any] = []

    async def start(answer: bytes) -> None:
        async def serve(line: Any) -> None:
            while True:
                await line.request()
                await line.say(answer)

        peer: Any = Peer(serve)  # type: ignore[no-untyped-call]  # another test's, without annotations
        await peer.start()
        peers.append(peer)
        await proxy.enroll("a", url=peer.url(""))

    yield start
    for peer in peers:
        await peer.stop()
