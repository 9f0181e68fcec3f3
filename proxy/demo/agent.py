"""An agent on the A2A SDK that keeps an account of what it executed: `python -m proxy.demo.agent --port N --log FILE`.

Owns: the account (one JSON line per executed message, on disk before anything is answered) and how slow the agent is.
Knows nothing of: why it is started, killed or asked. It is a stock SDK server: JSON-RPC of A2A v1.0 and v0.3 on `/`,
the agent card on its well-known path.

A message is written down the moment its execution begins, so whoever kills this process finds every message that had
any effect:

    {"message_id", "context_id", "task_id", "redelivery": "maybe" | null, "pid", "at"}

With `--boots FILE` it also writes down that it was started, before it listens: {"pid", "incarnation", "at"}.

The answer to text T is a completed task with one artifact `echo: T` (with `--answer message`: a bare message). A text
with the words `take 2.5 s` is answered that much later.

Started by Holdfast (HOLDFAST_URL, HOLDFAST_TOKEN, HOLDFAST_WORKSPACE_ID in the environment), it beats its heart.
"""

import argparse
import asyncio
import contextlib
import json
import os
import re
import secrets
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import uvicorn
from a2a.helpers import get_message_text, new_text_artifact, new_text_message
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.events import EventQueue
from a2a.server.request_handlers import DefaultRequestHandler
from a2a.server.routes import create_agent_card_routes, create_jsonrpc_routes
from a2a.server.tasks import InMemoryTaskStore
from a2a.types import (
    AgentCapabilities,
    AgentCard,
    AgentInterface,
    AgentSkill,
    Artifact,
    Role,
    Task,
    TaskState,
    TaskStatus,
    TaskStatusUpdateEvent,
)
from starlette.applications import Starlette

from proxy.clock import Now, SystemClock
from proxy.core.times import rfc3339

REDELIVERY_HEADER = "holdfast-redelivery"
TAKE = re.compile(r"\btake (\d+(?:\.\d+)?) ?s\b")
DRAIN_SECONDS = 5
BEAT_TIMEOUT = 2.0
BACKLOG = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How this agent behaves. Durations in seconds."""

    host: str
    port: int
    log: Path
    boots: Path | None
    delay: float
    boot_delay: float
    answer: str
    beat_every: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Supervised:
    """What a process that Holdfast started finds in its environment."""

    url: str
    workspace_id: str
    boot_id: str
    token: str = field(repr=False)

    @classmethod
    def found(cls, environment: Mapping[str, str]) -> "Supervised | None":
        """From HOLDFAST_URL, HOLDFAST_TOKEN, HOLDFAST_WORKSPACE_ID, HOLDFAST_BOOT_ID; None if the first three lack."""
        url = environment.get("HOLDFAST_URL")
        token = environment.get("HOLDFAST_TOKEN")
        workspace_id = environment.get("HOLDFAST_WORKSPACE_ID")
        if not (url and token and workspace_id):
            return None
        boot_id = environment.get("HOLDFAST_BOOT_ID") or secrets.token_hex(8)
        return cls(url=url, token=token, workspace_id=workspace_id, boot_id=boot_id)


class Account:
    """A file of JSON lines: each is on disk when `write` returns, and several processes may share the file."""

    def __init__(self, path: Path, now: Now) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        self._now = now
        size = os.fstat(self._fd).st_size
        if size and os.pread(self._fd, 1, size - 1) != b"\n":
            os.write(self._fd, b"\n")  # an earlier process was killed in the middle of a line

    def write(self, **said: str | None) -> None:
        """One line: what is said, who says it, when. Then fsync."""
        line = {**said, "pid": os.getpid(), "at": rfc3339(self._now())}
        os.write(self._fd, json.dumps(line).encode() + b"\n")
        os.fsync(self._fd)


class Echo(AgentExecutor):
    """Writes the message down, takes its time, answers with the text."""

    def __init__(self, account: Account, options: Options) -> None:
        self._account = account
        self._options = options
        self.active = 0

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        """One message."""
        message = context.message
        task_id, context_id = context.task_id or "", context.context_id or ""
        if message is None:
            return
        headers = context.call_context.state.get("headers", {}) if context.call_context else {}
        self._account.write(
            message_id=message.message_id,
            context_id=context_id,
            task_id=task_id,
            redelivery=headers.get(REDELIVERY_HEADER),
        )
        text = get_message_text(message)
        asked = TAKE.search(text)
        self.active += 1
        try:
            await asyncio.sleep(float(asked[1]) if asked else self._options.delay)
        finally:
            self.active -= 1
        said = f"echo: {text}"
        if self._options.answer == "message":
            await event_queue.enqueue_event(new_text_message(said, context_id=context_id, role=Role.ROLE_AGENT))
            return
        await event_queue.enqueue_event(
            Task(
                id=task_id,
                context_id=context_id,
                status=TaskStatus(state=TaskState.TASK_STATE_COMPLETED),
                artifacts=[_artifact(said)],
                history=[message],
            )
        )

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        """The SDK has stopped the execution already; say so."""
        await event_queue.enqueue_event(
            TaskStatusUpdateEvent(
                task_id=context.task_id or "",
                context_id=context.context_id or "",
                status=TaskStatus(state=TaskState.TASK_STATE_CANCELED),
            )
        )


def _artifact(text: str) -> Artifact:
    return new_text_artifact(name="answer", text=text)


def card(url: str) -> AgentCard:
    """The agent card of an echo agent at `url`."""
    return AgentCard(
        name="echo",
        description="Answers with what it was told, and keeps an account of it.",
        version="1.0.0",
        supported_interfaces=[
            AgentInterface(url=url, protocol_binding="JSONRPC", protocol_version="1.0"),
            AgentInterface(url=url, protocol_binding="JSONRPC", protocol_version="0.3"),
        ],
        capabilities=AgentCapabilities(streaming=True),
        default_input_modes=["text/plain"],
        default_output_modes=["text/plain"],
        skills=[AgentSkill(id="echo", name="Echo", description="Says it again.", tags=["echo"])],
    )


async def beat(supervised: Supervised, executor: Echo, every: float) -> None:
    """A heartbeat each `every` seconds; whoever cannot be reached now may be reached with the next one."""
    target = f"{supervised.url}/workspaces/{supervised.workspace_id}/heartbeat"
    async with httpx.AsyncClient(headers={"Holdfast-Token": supervised.token}, timeout=BEAT_TIMEOUT) as client:
        while True:
            with contextlib.suppress(httpx.HTTPError):
                said = {"boot_id": supervised.boot_id, "status": "ready", "active_tasks": executor.active}
                await client.post(target, json=said)
            await asyncio.sleep(every)


def application(url: str, executor: Echo, *, beat_every: float, environment: Mapping[str, str]) -> Starlette:
    """The agent as an ASGI application; beats while it runs, if it is supervised."""
    agent_card = card(url)
    handler = DefaultRequestHandler(agent_executor=executor, task_store=InMemoryTaskStore(), agent_card=agent_card)
    supervised = Supervised.found(environment)

    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        if supervised is None or beat_every <= 0:
            yield
            return
        beating = asyncio.create_task(beat(supervised, executor, beat_every))
        try:
            yield
        finally:
            beating.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await beating

    routes = [
        *create_agent_card_routes(agent_card),
        *create_jsonrpc_routes(handler, rpc_url="/", enable_v0_3_compat=True),
    ]
    return Starlette(routes=routes, lifespan=lifespan)


def read_options(arguments: list[str]) -> Options:
    """The command line. Durations in seconds; exits with code 2 on wrong usage."""
    parser = argparse.ArgumentParser(prog="python -m proxy.demo.agent", description="An echo agent with an account.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True, help="0: any free one")
    parser.add_argument("--log", type=Path, required=True, help="file of executed messages")
    parser.add_argument("--boots", type=Path, help="file of starts")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds that an answer takes")
    parser.add_argument("--boot-delay", type=float, default=0.0, help="seconds before it listens")
    parser.add_argument("--answer", choices=["task", "message"], default="task")
    parser.add_argument("--beat-every", type=float, default=2.0, help="seconds between heartbeats; 0: none")
    return Options(**vars(parser.parse_args(arguments)))


async def run(options: Options) -> None:
    """Serve until SIGTERM; a second one or DRAIN_SECONDS end what is still open.

    Raises:
        OSError: the address or the log cannot be used.
    """
    clock = SystemClock()
    account = Account(options.log, clock)
    if options.boots is not None:
        Account(options.boots, clock).write(incarnation=os.environ.get("HOLDFAST_INCARNATION"))
    await asyncio.sleep(options.boot_delay)
    with socket.create_server((options.host, options.port), backlog=BACKLOG) as listening:
        port = listening.getsockname()[1]
        url = f"http://{options.host}:{port}/"
        app = application(url, Echo(account, options), beat_every=options.beat_every, environment=os.environ)
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, timeout_graceful_shutdown=DRAIN_SECONDS, lifespan="on"
        )
        sys.stdout.write(f"agent: serving on {url}\n")
        sys.stdout.flush()
        await uvicorn.Server(config).serve(sockets=[listening])


if __name__ == "__main__":
    asyncio.run(run(read_options(sys.argv[1:])))
