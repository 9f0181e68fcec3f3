"""A proxy process, one workspace whose agent it hosts, and a caller: what a story of processes is played on.

Owns: the words in which such stories are told. Knows nothing of: what should come of them.
"""

import os
import signal
from dataclasses import dataclass
from typing import Any

from e2e.agents import SmallAgent, processes_of
from e2e.serving import Answered, Serving, task_id_of


@dataclass
class Stage:
    """`token` is the caller's; the workspace has the agent's name."""

    proxy: Serving
    agent: SmallAgent
    token: str = ""

    async def set(self, *steps: str, **members: Any) -> None:
        """Have the proxy start the agent, and wait until it is ready."""
        await self.proxy.enroll(self.agent.name, **self.agent.described(*steps, **members))
        if "boot" in steps:
            self.agent.pipes["boot"].give()
        await self.finished()
        self.token = await self.proxy.client()

    # What is done

    async def ask(self, method: str, verb: str, **more: Any) -> Answered:
        """An administrative request about the workspace."""
        return await self.proxy.ask(method, f"/workspaces/{self.agent.name}{verb}", **more)

    async def restart(self) -> Answered:
        """A restart, as the admin asks for it."""
        return await self.ask("POST", "/restart")

    async def configure(self, **members: Any) -> Answered:
        """A configuration write."""
        return await self.ask("PUT", "/config", json=members)

    async def send(self, message_id: str = "m1", **more: Any) -> Answered:
        """A message from the caller."""
        return await self.proxy.send(self.agent.name, message_id, token=self.token, **more)

    async def close(self) -> None:
        """Make the agent deaf: it runs on and listens no more."""
        assert (await self.ask("POST", "/a2a/close", token=self.token)).status == 200

    def kill_agent(self) -> None:
        """SIGKILL the agent."""
        os.kill(self.agent.heard("booted")[-1]["booted"], signal.SIGKILL)

    async def revive_proxy(self) -> None:
        """SIGKILL the proxy and start it again."""
        await self.proxy.kill()
        await self.proxy.start()

    # What is seen

    async def event(self, name: str, *, count: int = 1, **fields: Any) -> dict[str, Any]:
        """Wait for an event of this workspace."""
        return await self.proxy.event(name, count=count, workspace=self.agent.name, **fields)

    async def finished(self, count: int = 1, **fields: Any) -> None:
        """Wait until so many restarts (the first start is one) have ended with a ready agent."""
        await self.event("restart.finished", count=count, phase="finished", **fields)

    async def view(self) -> dict[str, Any]:
        """The workspace as the admin sees it."""
        return await self.proxy.view(self.agent.name)

    async def completion(self, answer: Answered) -> dict[str, Any]:
        """Wait until what was put away has been done; return its task."""
        await self.event("deferral.completed", receipt=answer.headers["Holdfast-Receipt"])
        task = await self.proxy.task(self.agent.name, task_id_of(answer), token=self.token)
        assert task["status"]["state"] == "TASK_STATE_COMPLETED", task
        return task

    def done(self) -> list[str]:
        """The messages that the agent was given, in order."""
        return [said["got"] for said in self.agent.heard("got")]

    def processes(self) -> list[int]:
        """The agent's living processes."""
        return list(processes_of(self.proxy.folder, self.agent.name))
