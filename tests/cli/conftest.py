"""Fixtures: a real proxy on this loop, and commands that ask it as its admin."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from cli.commandline import Ended, ran
from web.harness import ADMIN_TOKEN, Handler, Harness, ScriptedAgent, config_for

Holdfast = Callable[..., Awaitable[Ended]]


@pytest.fixture
async def proxy(tmp_path: Path) -> AsyncIterator[Harness]:
    async with aiohttp.ClientSession() as session:
        harness = Harness(config_for(tmp_path), session)
        await harness.start()
        yield harness
        await harness.app.stop(drain=0)


@pytest.fixture
def holdfast(proxy: Harness) -> Holdfast:
    """Run a command against the proxy, as its admin where no variable says otherwise."""

    async def command(*words: str, **more: Any) -> Ended:
        return await ran(*words, **{"HOLDFAST_URL": proxy.url, "HOLDFAST_ADMIN_TOKEN": ADMIN_TOKEN, **more})

    return command


@pytest.fixture
async def agent() -> AsyncIterator[ScriptedAgent]:
    scripted = ScriptedAgent()
    await scripted.start()
    yield scripted
    await scripted.stop()


@pytest.fixture
async def someone() -> AsyncIterator[Callable[[Handler], Awaitable[str]]]:
    """Serve something that is no Holdfast; the URL is returned."""
    runners: list[web.AppRunner] = []

    async def serve(handler: Handler) -> str:
        application = web.Application()
        application.router.add_route("*", "/{tail:.*}", handler)
        runner = web.AppRunner(application, shutdown_timeout=0.1)
        await runner.setup()
        runners.append(runner)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return f"http://127.0.0.1:{runner.addresses[0][1]}"

    yield serve
    for runner in runners:
        await runner.cleanup()
