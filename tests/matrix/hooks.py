"""Where clients let themselves be called: an HTTP server that keeps what it is told.

Owns: the server, what came, by path.
Knows nothing of: who calls, what should come.
"""

import asyncio
from collections import defaultdict
from dataclasses import dataclass
from typing import Any, Final

from aiohttp import web

LONG: Final = 60.0
"""Seconds for what must wait for the end of an outage."""


@dataclass(frozen=True, slots=True)
class Notification:
    """One call."""

    headers: dict[str, str]
    body: Any


class Hooks:
    """Keeps everything, by the last part of its path."""

    def __init__(self) -> None:
        self._told: dict[str, list[Notification]] = defaultdict(list)
        self._news = asyncio.Condition()
        self._runner: web.AppRunner | None = None
        self.url = ""

    async def start(self) -> None:
        """Listen."""
        app = web.Application()
        app.router.add_post("/{name}", self._take)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        """Listen no more."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _take(self, request: web.Request) -> web.Response:
        async with self._news:
            told = Notification({name.lower(): value for name, value in request.headers.items()}, await request.json())
            self._told[request.match_info["name"]].append(told)
            self._news.notify_all()
        return web.Response()

    async def until(self, name: str, state: str) -> list[Notification]:
        """Everything that was told there, once a task in this state was; states as v0.3 writes them."""
        async with asyncio.timeout(LONG), self._news:
            while not any(state_of(told.body) == state for told in self._told[name]):
                await self._news.wait()
            return list(self._told[name])


def task_in(body: Any) -> str:
    """The task of which a notification speaks, in the shape of either version."""
    inner = next(iter(body.values())) if len(body) == 1 else body
    return str(inner.get("taskId") or inner["id"])


def state_of(body: Any) -> str | None:
    """The state that a notification tells, as v0.3 writes it."""
    inner = next(iter(body.values())) if len(body) == 1 else body
    state = inner.get("status", {}).get("state")
    return state.removeprefix("TASK_STATE_").lower().replace("_", "-") if state else None
