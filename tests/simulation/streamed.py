"""A message that was put away, an agent that streams, and the words of both.

Owns: v1.0 requests and stream items, a workspace that was away while one message came. Knows nothing of: any rule.
"""

import json
from collections.abc import Callable
from typing import Any

from simulation.scripted import Agent, Reacts, fails
from simulation.world import Reply, World

from proxy.core.deferral import Deferral, State
from proxy.core.lifecycle import Status
from proxy.core.outcome import Outcome
from proxy.forward import UpstreamFailure
from proxy.loops.beats import Beat
from proxy.store.journal import JournalEvent

V1 = {"A2A_Version": "1.0"}
CARD = {"name": "scripted", "capabilities": {"streaming": True}}
CUT = UpstreamFailure(Outcome.LOST, "eof")
NOT_FOUND = {"code": -32001, "message": "Task not found"}


def body(method: str, **params: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": 7, "method": method, "params": params}).encode()


def send(message_id: str = "m1", method: str = "SendMessage", **more: Any) -> bytes:
    message = {"messageId": message_id, "role": "ROLE_USER", "parts": [{"text": "hello"}], **more}
    return body(method, message=message)


def said(**item: Any) -> bytes:
    """One item of a v1.0 stream."""
    return json.dumps({"jsonrpc": "2.0", "id": 7, "result": item}).encode()


def task(state: str = "WORKING", task_id: str = "up", **more: Any) -> bytes:
    return said(task={"id": task_id, "contextId": "c", "status": {"state": f"TASK_STATE_{state}"}, **more})


def status(state: str, task_id: str = "up") -> bytes:
    return said(statusUpdate={"taskId": task_id, "contextId": "c", "status": {"state": f"TASK_STATE_{state}"}})


def piece(text: str, *, task_id: str = "up", append: bool = False) -> bytes:
    artifact = {"artifactId": "a", "parts": [{"text": text}]}
    return said(artifactUpdate={"taskId": task_id, "contextId": "c", "artifact": artifact, "append": append})


def error(code: int, text: str = "no") -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": 7, "error": {"code": code, "message": text}}).encode()


def answers(content: bytes, **known: Any) -> Reacts:
    return Reacts(body=content, **known)


class Scene:
    """A workspace that was away while one message came, and its agent."""

    def __init__(self, world: World, reply: Reply) -> None:
        self.world = world
        self.reply = reply

    @property
    def agent(self) -> Agent:
        return self.world.agent()

    @property
    def methods(self) -> list[str]:
        """What the agent was asked since it is back, in order: JSON-RPC methods, or paths."""
        return [method_of(heard.request.body) or heard.request.url for heard in self.agent.heard]

    async def comes_back(self, *reactions: Reacts) -> None:
        """The agent listens again, and reacts like this."""
        self.agent.heard.clear()
        self.agent.reacts.steps.clear()
        self.agent.reacts.usual = Reacts(status=500, body=b"unexpected")
        self.agent.reacts.queue(*reactions)
        await self.world.app.beats.take(self.world.route(), Beat(status="ready"))
        await self.world.app.readiness.settle(self.world.route())

    async def deferral(self) -> Deferral:
        return await self.world.deferral(self.reply.receipt)

    async def ended(self, within: float = 1000.0) -> Deferral:
        """It, when it has ended."""
        await self.world.eventually(self._has_ended, within=within)
        return await self.deferral()

    async def _has_ended(self) -> bool:
        return (await self.deferral()).state not in {State.QUEUED, State.LEASED}

    async def until(self, holds: Callable[[Deferral], bool]) -> Deferral:
        async def held() -> bool:
            return holds(await self.deferral())

        await self.world.eventually(held)
        return await self.deferral()

    async def journal(self) -> list[JournalEvent]:
        return list(await self.world.store.journal(self.reply.receipt))


def method_of(content: bytes) -> str:
    try:
        return str(json.loads(content)["method"])
    except (ValueError, KeyError):
        return ""


def text_of(deferral: Deferral) -> str:
    assert deferral.task is not None
    known = json.loads(deferral.task.json)
    return "".join(part["text"] for artifact in known.get("artifacts", ()) for part in artifact["parts"])


def words_of(deferral: Deferral) -> str:
    assert deferral.task is not None
    return str(json.loads(deferral.task.json)["status"]["message"]["parts"][0]["text"])


async def away(
    world: World, content: bytes | None = None, path: str = "", *, settings: dict[str, Any] | None = None, **known: Any
) -> Scene:
    """A message to a workspace whose agent streams, and is away."""
    await world.given(**{"status": Status.STARTING, "sign": -1, "agent_card": CARD, **known})
    await world.start({"queue.sweep": 10_000, **(settings or {})})
    world.machine().ready.usual = False
    world.agent().reacts.usual = fails()
    target = f"/workspaces/ws/a2a{path}"
    reply = await world.request("POST", target, content or send(), **V1, Prefer="respond-async")
    assert "Holdfast-Receipt" in reply.headers, reply
    return Scene(world, reply)
