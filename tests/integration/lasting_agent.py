"""An agent that outlives its own deaths: a process whose tasks lie in a folder, and which goes on with them.

`python lasting_agent.py --port N --folder FOLDER`. A message `count N` becomes a working task, N artifacts one after
another, and completed; v1.0 over JSON-RPC. `FOLDER/begun` holds a line for each message, `FOLDER/lives` one for each
life: its process id.
"""

import argparse
import asyncio
import contextlib
import json
import os
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

PAUSE = 0.02
COMPLETED, WORKING = "TASK_STATE_COMPLETED", "TASK_STATE_WORKING"


class Task:
    """One task: it has said `told` of its `count` pieces, and whoever follows it waits for `news`."""

    def __init__(self, path: Path, context_id: str, count: int, told: int) -> None:
        self.path = path
        self.context_id = context_id
        self.count = count
        self.told = told
        self.news = asyncio.Condition()

    @property
    def ids(self) -> dict[str, str]:
        """What it is called in updates."""
        return {"taskId": self.path.stem, "contextId": self.context_id}

    @property
    def status(self) -> dict[str, str]:
        """What it is now."""
        return {"state": COMPLETED if self.told == self.count else WORKING}

    def shown(self) -> dict[str, Any]:
        """The whole task."""
        artifacts = [piece(number) for number in range(1, self.told + 1)]
        return {"id": self.path.stem, "contextId": self.context_id, "status": self.status, "artifacts": artifacts}

    def keep(self) -> None:
        """Write it down."""
        new = self.path.with_suffix(".new")
        new.write_text(json.dumps([self.context_id, self.count, self.told]), encoding="utf-8")
        new.replace(self.path)

    async def work(self) -> None:
        """Go on to the end; what is told was written down before."""
        while self.told < self.count:
            await asyncio.sleep(PAUSE)
            async with self.news:
                self.told += 1
                self.keep()
                self.news.notify_all()

    async def follow(self) -> AsyncIterator[dict[str, Any]]:
        """The task as it is, and everything that becomes of it."""
        said = self.told
        yield {"task": self.shown()}
        while said < self.count:
            async with self.news:
                while self.told == said:
                    await self.news.wait()
            said += 1
            yield {"artifactUpdate": {**self.ids, "artifact": piece(said)}}
        yield {"statusUpdate": {**self.ids, "status": {"state": COMPLETED}}}


def piece(number: int) -> dict[str, Any]:
    """One artifact."""
    return {"artifactId": f"p-{number}", "parts": [{"text": f"piece {number}"}]}


class Agent:
    """All tasks."""

    def __init__(self, folder: Path, url: str) -> None:
        self._folder = folder
        self._url = url
        self._tasks: dict[str, Task] = {}
        self._working: set[asyncio.Task[None]] = set()

    def go_on(self) -> None:
        """Take up what former lives left."""
        with (self._folder / "lives").open("a", encoding="ascii") as lives:
            lives.write(f"{os.getpid()}\n")
        for path in self._folder.glob("*.task"):
            context_id, count, told = json.loads(path.read_text(encoding="utf-8"))
            self._begin(Task(path, context_id, count, told))

    def _begin(self, task: Task) -> None:
        self._tasks[task.path.stem] = task
        working = asyncio.create_task(task.work())
        self._working.add(working)
        working.add_done_callback(self._working.discard)

    async def card(self, _: Request) -> Response:
        """Who it is."""
        spoken = [{"url": self._url, "protocolBinding": "JSONRPC", "protocolVersion": "1.0"}]
        said = {"name": "lasting", "description": "Counts.", "version": "1", "supportedInterfaces": spoken}
        modes = {"defaultInputModes": ["text/plain"], "defaultOutputModes": ["text/plain"], "skills": []}
        return JSONResponse({**said, **modes, "capabilities": {"streaming": True}})

    async def call(self, request: Request) -> Response:
        """One JSON-RPC call."""
        said = await request.json()
        params, rpc_id = said["params"], said["id"]
        if said["method"] == "SendStreamingMessage":
            return events(rpc_id, self._sent(params["message"]))
        task = self._tasks.get(params["id"])
        if task is None:
            return answer(rpc_id, error={"code": -32001, "message": "Task not found"})
        if said["method"] == "GetTask":
            return answer(rpc_id, result=task.shown())
        if said["method"] == "SubscribeToTask" and task.told < task.count:
            return events(rpc_id, task)
        return answer(rpc_id, error={"code": -32004, "message": "This operation is not supported"})

    def _sent(self, message: dict[str, Any]) -> Task:
        with (self._folder / "begun").open("a", encoding="utf-8") as begun:
            begun.write(message["messageId"] + "\n")
        count = int(message["parts"][0]["text"].partition(" ")[2])
        task = Task(self._folder / f"{secrets.token_hex(8)}.task", message["contextId"], count, 0)
        task.keep()
        self._begin(task)
        return task


def answer(rpc_id: Any, **said: Any) -> Response:
    """An answer that is no stream."""
    return JSONResponse({"jsonrpc": "2.0", "id": rpc_id, **said})


def events(rpc_id: Any, task: Task) -> Response:
    """A task, followed."""

    async def framed() -> AsyncIterator[str]:
        async for said in task.follow():
            yield f"data: {json.dumps({'jsonrpc': '2.0', 'id': rpc_id, 'result': said})}\n\n"

    return StreamingResponse(framed(), media_type="text/event-stream")


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    options = parser.parse_args()
    agent = Agent(options.folder, f"http://127.0.0.1:{options.port}/")
    routes = [Route("/.well-known/agent-card.json", agent.card), Route("/", agent.call, methods=["POST"])]

    @contextlib.asynccontextmanager
    async def living(_: Starlette) -> AsyncIterator[None]:
        agent.go_on()
        yield

    app = Starlette(routes=routes, lifespan=living)
    uvicorn.run(app, host="127.0.0.1", port=options.port, log_level="warning")


if __name__ == "__main__":
    main()
