"""An agent that keeps tasks, in each dialect, and does what a message's text says.

| text | what it does |
| --- | --- |
| `ask` | a task that wants input; a message to it completes it |
| `work` | a task that works on, until `finish` |
| `elsewhere` | like `ask`, in a context of the agent's own |
| `refuse` | JSON-RPC error or REST error -32004 |
| anything else | a completed task |

`forget()` is a restart without a database. What it was sent is in `heard`: (operation, parameters).
"""

import asyncio
import json
from typing import Any

from aiohttp import web
from web.dialects import NOT_CANCELABLE, NOT_FOUND, TERMINAL, UNSUPPORTED, Dialect, neutral, texts
from web.harness import ScriptedAgent


class TaskAgent:
    """Behind a `ScriptedAgent`'s socket."""

    def __init__(self, agent: ScriptedAgent, dialect: Dialect) -> None:
        self.socket = agent
        self.dialect = dialect
        self.tasks: dict[str, dict[str, Any]] = {}
        self.heard: list[tuple[str, dict[str, Any]]] = []
        self.lists = True
        self.came = asyncio.Event()
        self.held: asyncio.Event | None = None
        self.steps: asyncio.Queue[None] = asyncio.Queue()
        agent.handler = self._handle
        agent.lists = True

    @property
    def ids(self) -> list[str]:
        """Its tasks' ids, the oldest first."""
        return list(self.tasks)

    def forget(self) -> None:
        """Lose all tasks."""
        self.tasks.clear()

    def finish(self, task_id: str) -> None:
        """Complete a task."""
        task = self.tasks[task_id]
        self.tasks[task_id] = self.dialect.task(task_id, task["contextId"], "completed", "done")

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        operation, params, rpc_id = self.dialect.heard(request.raw_path, body)
        self.heard.append((operation, params))
        if operation in {"send", "stream"}:
            return await self._message(request, params, rpc_id, stream=operation == "stream")
        if operation == "list":
            return self._list(params, rpc_id)
        task = self.tasks.get(params["id"])
        if task is None:
            return self._error(NOT_FOUND, rpc_id, params["id"])
        if operation == "cancel":
            if neutral(task["status"]["state"]) in TERMINAL:
                return self._error(NOT_CANCELABLE, rpc_id, params["id"])
            task = self.tasks[params["id"]] = self.dialect.task(params["id"], task["contextId"], "canceled", "stopped")
        return web.json_response(self.dialect.answer(task, rpc_id, sent=False))

    def _error(self, kind: tuple[int, str, int], rpc_id: Any, task_id: str) -> web.Response:
        status, said = self.dialect.error(kind, rpc_id, task_id)
        return web.json_response(said, status=status)

    async def _message(
        self, request: web.Request, params: dict[str, Any], rpc_id: Any, *, stream: bool
    ) -> web.StreamResponse:
        message = params["message"]
        text, task_id = texts(message), message.get("taskId")
        self.came.set()
        if self.held is not None:
            await self.held.wait()
        if text == "refuse":
            return self._error(UNSUPPORTED, rpc_id, task_id or "none")
        if task_id is not None:
            known = self.tasks.get(task_id)
            if known is None:
                return self._error(NOT_FOUND, rpc_id, task_id)
            if neutral(known["status"]["state"]) in TERMINAL:
                return self._error(UNSUPPORTED, rpc_id, task_id)
            context, state = known["contextId"], "completed"
        else:
            task_id = f"up-{len(self.heard)}"
            context = message.get("contextId", "agents-own")
            state = {"ask": "input-required", "work": "working", "elsewhere": "input-required"}.get(text, "completed")
            if text == "elsewhere":
                context = "agents-own"
        task = self.tasks[task_id] = self.dialect.task(task_id, context, state, f"on {text}", history=[message])
        if stream:
            return await self._stream(request, task, rpc_id)
        return web.json_response(self.dialect.answer(task, rpc_id, sent=True))

    async def _stream(self, request: web.Request, task: dict[str, Any], rpc_id: Any) -> web.StreamResponse:
        """A status update that works, an artifact, and the end: one event for each step; ids also where none are."""
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        ids = {"taskId": task["id"], "contextId": task["contextId"]}
        free = {"metadata": {"taskId": task["id"]}}
        artifact = {"artifactId": "a", "parts": [{"text": f"{task['id']} in a text"}], **free}
        state = self.dialect.state(neutral(task["status"]["state"]))
        for item in (
            {"statusUpdate": {**ids, "status": {"state": self.dialect.state("working")}}},
            {"artifactUpdate": {**ids, "artifact": artifact}},
            {"statusUpdate": {**ids, "status": {"state": state}}},
        ):
            event = {"jsonrpc": "2.0", "id": rpc_id, "result": item} if self.dialect.binding == "jsonrpc" else item
            line = f": quiet\r\nevent: message\r\ndata: {json.dumps(event)}\r\n\r\n".encode()
            await response.write(line[:40])
            await self.steps.get()
            await response.write(line[40:])
        return response

    def _list(self, params: dict[str, Any], rpc_id: Any) -> web.Response:
        if not self.lists:
            return self._error((-32601, "METHOD_NOT_FOUND", 501), rpc_id, "none")
        found = sorted(self.tasks.values(), key=lambda task: str(task["status"].get("timestamp", "")), reverse=True)
        start, size = int(params.get("pageToken") or 0), int(params.get("pageSize") or 50)
        token = str(start + size) if start + size < len(found) else ""
        said = {
            "tasks": found[start : start + size],
            "nextPageToken": token,
            "pageSize": size,
            "totalSize": len(found),
        }
        if self.dialect.binding == "jsonrpc":
            said = {"jsonrpc": "2.0", "id": rpc_id, "result": said}
        return web.json_response(said)
