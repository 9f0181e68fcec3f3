"""A real Holdfast in this process, on real sockets and a real SQLite file, and agents that tests script."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from ports import free_port

from proxy.app import App
from proxy.config import Config, load
from proxy.telemetry import Event

ADMIN_TOKEN = "hf_" + "a" * 43
ADMIN = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
FAST: dict[str, Any] = {"settle_hold": 0, "settle_window": 0, "reprobe_delay": 0.01, "reprobe_min_interval": 0}


def config_for(tmp_path: Path, **overrides: Any) -> Config:
    """A configuration for tests: any free port, a database of its own, loopback agents allowed."""
    settings = {
        "port": 0,
        "data": tmp_path / "holdfast.db",
        "admin_token": ADMIN_TOKEN,
        "upstream_allow": "127.0.0.0/8,::1/128",
        "upstream.connect_timeout": 20,
        "queue.backoff": 0.05,
        "queue.backoff_cap": 0.2,
        "queue.sweep": 0.2,
        "probe.away_first": 0.05,
        "probe.away_cap": 0.1,
        "defaults.hold_seconds": 0,
        **{name.replace("__", "."): value for name, value in overrides.items()},
    }
    return load(None, {}, settings)


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class ScriptedAgent:
    """An agent on a real socket. `handler` answers; what came is kept in `seen`.

    It cannot list tasks, unless its handler `lists`.
    """

    port: int = 0
    handler: Handler | None = None
    seen: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)
    runner: web.AppRunner | None = None
    card: dict[str, Any] | None = None
    lists: bool = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        application = web.Application()
        application.router.add_route("*", "/{tail:.*}", self._answer)
        self.runner = web.AppRunner(application)
        await self.runner.setup()
        site = web.TCPSite(self.runner, "127.0.0.1", self.port or free_port(), reuse_address=True)
        await site.start()
        self.port = self.runner.addresses[0][1]

    async def stop(self) -> None:
        if self.runner is not None:
            await self.runner.cleanup()
            self.runner = None

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        if request.path.startswith("/.well-known/"):
            return web.json_response(self.card or {"name": "scripted", "skills": [], "url": self.url})
        if b'"ListTasks"' in body and not self.lists:
            error = {"code": -32601, "message": "Method not found"}
            return web.json_response({"jsonrpc": "2.0", "id": json.loads(body)["id"], "error": error})
        if request.method == "GET" and request.path.endswith("/tasks") and not self.lists:
            return web.json_response({"error": {"code": 404, "status": "NOT_FOUND"}}, status=404)
        self.seen.append((request.method, request.raw_path, dict(request.headers), body))
        if self.handler is not None:
            return await self.handler(request)
        return web.json_response(completed(body))


def completed(body: bytes) -> dict[str, Any]:
    """The answer of an agent that has done what it was told."""
    said = json.loads(body)
    message = said["params"]["message"]
    return {
        "jsonrpc": "2.0",
        "id": said["id"],
        "result": {
            "task": {
                "id": f"up-{message['messageId']}",
                "contextId": message.get("contextId", "agent-context"),
                "status": {"state": "TASK_STATE_COMPLETED"},
                "artifacts": [{"artifactId": "a", "parts": [{"text": f"did {message['messageId']}"}]}],
            }
        },
    }


def send(message_id: str = "m1", text: str = "hello", rpc_id: Any = 1, **message: Any) -> dict[str, Any]:
    """A v1.0 SendMessage."""
    said = {"messageId": message_id, "role": "ROLE_USER", "parts": [{"text": text}], **message}
    return {"jsonrpc": "2.0", "id": rpc_id, "method": "SendMessage", "params": {"message": said}}


def get_task(task_id: str, rpc_id: Any = 9) -> dict[str, Any]:
    """A v1.0 GetTask."""
    return {"jsonrpc": "2.0", "id": rpc_id, "method": "GetTask", "params": {"id": task_id}}


V1 = {"A2A-Version": "1.0"}


class Harness:
    """A running proxy and a client of its."""

    def __init__(
        self, config: Config, session: aiohttp.ClientSession, callers: aiohttp.ClientSession | None = None
    ) -> None:
        self.config = config
        self.session = session
        self.callers = callers or session  # connections of their own: what only calls agents is served by `web.front`
        self.events: list[Event] = []
        self._happened = asyncio.Event()
        self.app: App
        self.url = ""

    async def start(self) -> None:
        self.app = App(self.config)
        self.app.telemetry.add(self._take)
        serving = await self.app.start()
        self.url = serving.url

    def _take(self, event: Event) -> None:
        self.events.append(event)
        self._happened.set()

    def named(self, name: str) -> list[Event]:
        """The events of that name so far."""
        return [event for event in self.events if event.name == name]

    async def restart(self) -> None:
        """Stop and start again on the same database."""
        await self.app.stop(drain=0)
        await self.start()

    async def call(
        self, method: str, path: str, *, token: str | None = ADMIN_TOKEN, headers: Any = None, **more: Any
    ) -> tuple[aiohttp.ClientResponse, bytes]:
        """One request; the body is read whole."""
        fields = {"Authorization": f"Bearer {token}"} if token else {}
        session = self.callers if "/a2a" in path else self.session
        async with session.request(method, self.url + path, headers={**fields, **(headers or {})}, **more) as got:
            return got, await got.read()

    async def enroll(self, name: str, **members: Any) -> str:
        """Register a workspace as the admin; return its token."""
        got, body = await self.call("PUT", f"/workspaces/{name}", json=members)
        assert got.status == 201, body
        return str(json.loads(body)["token"])

    async def client(self, name: str = "client") -> str:
        """A client token."""
        _, body = await self.call("POST", "/tokens", json={"kind": "client", "name": name})
        return str(json.loads(body)["token"])

    async def send(self, workspace: str, token: str, **more: Any) -> tuple[aiohttp.ClientResponse, dict[str, Any]]:
        """A v1.0 SendMessage through the proxy."""
        headers = {**V1, **more.pop("headers", {})}
        got, body = await self.call(
            "POST", f"/workspaces/{workspace}/a2a", token=token, headers=headers, json=send(**more)
        )
        return got, json.loads(body)

    async def until(self, condition: Callable[[], bool | Awaitable[bool]]) -> None:
        """Wait for a condition; it is looked at again whenever the proxy tells of an event."""
        async with asyncio.timeout(20):
            while True:
                self._happened.clear()
                met = condition()
                if not isinstance(met, bool):
                    met = await met
                if met:
                    return
                await self._happened.wait()
