"""An agent behind Holdfast whose outages are dealt by whoever shows what its clients see.

Owns: one proxy, one agent with a workspace, its outages.
Knows nothing of: which clients there are.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Self

from e2e.agents import end_all
from e2e.serving import Serving
from peers.running import Agent

WORKSPACE = "demo"


class Stage:
    """`token` is a caller's; `url` where its agent is found."""

    def __init__(self, folder: Path, generation: str) -> None:
        self.serving = Serving(folder, settings={"defaults.hold_seconds": 90})
        self.agent = Agent(generation, folder / "agent", extended_card=False)
        self.token = ""
        self._folder = folder

    @property
    def url(self) -> str:
        """Where clients find the agent."""
        return f"{self.serving.url}/workspaces/{WORKSPACE}/a2a"

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self.agent.kill()
            end_all(self._folder)
            raise
        return self

    async def _start(self) -> None:
        await self.agent.start()
        await self.serving.start()
        await self.serving.enroll(WORKSPACE, url=self.agent.url, dead_action="defer", unmanaged_away="defer")
        await self.serving.event("workspace.status", workspace=WORKSPACE, status="ready")
        self.token = await self.serving.client("caller")
        seen = await self.serving.ask(
            "GET", f"/workspaces/{WORKSPACE}/a2a/.well-known/agent-card.json", token=self.token
        )
        assert seen.status == 200, seen.body
        await self.serving.event("card.kept", workspace=WORKSPACE)  # clients that come later may find the agent away

    async def __aexit__(self, *_: object) -> None:
        await self.serving.kill()
        await self.agent.kill()
        end_all(self._folder)

    @contextlib.asynccontextmanager
    async def outage(self, seconds: float) -> AsyncIterator[None]:
        """The agent is killed now, and started again in so many seconds, whatever happens meanwhile."""
        await self.agent.kill()

        async def back() -> None:
            await asyncio.sleep(seconds)
            await self.agent.start()

        returning = asyncio.create_task(back())
        try:
            yield
        finally:
            await returning
