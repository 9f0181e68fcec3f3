"""A receiver of push notifications, on a real socket, and sends that name one."""

import asyncio
import json
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from web.harness import V1, Harness, ScriptedAgent


@dataclass(frozen=True)
class Notified:
    """One notification as it came."""

    path: str
    headers: dict[str, str]
    said: Any


@dataclass
class Receiver:
    """Takes notifications. `answers` are given once each, in order: a status, or (status, headers); then 200 always."""

    port: int = 0
    came: list[Notified] = field(default_factory=list)
    answers: deque[int | tuple[int, dict[str, str]]] = field(default_factory=deque)
    _runner: web.AppRunner | None = None
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    gate: asyncio.Event | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    async def start(self) -> None:
        application = web.Application()
        application.router.add_route("*", "/{tail:.*}", self._take)
        self._runner = web.AppRunner(application)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _take(self, request: web.Request) -> web.Response:
        self.came.append(Notified(request.path, dict(request.headers), json.loads(await request.read())))
        self._news.set()
        if self.gate is not None:
            await self.gate.wait()
        answer = self.answers.popleft() if self.answers else 200
        status, headers = answer if isinstance(answer, tuple) else (answer, {})
        return web.Response(status=status, headers=headers)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for something to be true of what came."""
        async with asyncio.timeout(20):
            while not condition():
                self._news.clear()
                await self._news.wait()

    def states(self) -> list[str]:
        """The states that were told, in order, in either version."""
        found = []
        for each in self.came:
            said = each.said
            item = said.get("task") or said.get("statusUpdate") or said
            if "status" in item:
                found.append(item["status"]["state"])
        return found


QUICK = {"push__backoff": 0.05, "push__backoff_cap": 0.2}
TOKEN = "token-of-the-hook"
CREDENTIALS = "credentials-of-the-hook"


def config(url: str, **more: Any) -> dict[str, Any]:
    return {"url": url, "token": TOKEN, "authentication": {"scheme": "Bearer", "credentials": CREDENTIALS}, **more}


def sending(push: Any, message_id: str = "m1", **message: Any) -> dict[str, Any]:
    said = {"messageId": message_id, "role": "ROLE_USER", "parts": [{"text": "hello"}], **message}
    params = {"message": said, "configuration": {"returnImmediately": True, "taskPushNotificationConfig": push}}
    return {"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": params}


def old_sending(push: Any) -> dict[str, Any]:
    said = {"kind": "message", "messageId": "m1", "role": "user", "parts": [{"kind": "text", "text": "hello"}]}
    params = {"message": said, "configuration": {"blocking": False, "pushNotificationConfig": push}}
    return {"jsonrpc": "2.0", "id": 1, "method": "message/send", "params": params}


async def ask(proxy: Harness, token: str, body: Any, path: str = "", *, verb: str = "POST", **headers: str) -> Any:
    shown = {**V1, **headers}
    got, said = await proxy.call(verb, f"/workspaces/a/a2a{path}", token=token, headers=shown, json=body)
    return json.loads(said) if said else got.status


async def deferred(proxy: Harness, agent: ScriptedAgent, body: Any, **headers: str) -> tuple[str, dict[str, Any]]:
    """A send to an agent that is away; return its caller's token and the task."""
    await agent.stop()
    await proxy.enroll("a", url=agent.url, unmanaged_away="defer")
    client = await proxy.client()
    said = await ask(proxy, client, body, **headers)
    return client, said["result"].get("task", said["result"])


def rpc(method: str, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 5, "method": method, "params": params}
