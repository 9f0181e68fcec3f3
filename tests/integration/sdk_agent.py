"""An agent on the A2A SDK's own server, on a real socket of this process, that does what a test's messages tell it.

Owns: the server's life and its executor. Knows nothing of: proxies, clients.

| text          | what it does                                                                          |
| ------------- | ------------------------------------------------------------------------------------- |
| `stream`      | a working task, two pieces of an artifact, completed; one event for each `go()`        |
| `ask`         | a task that wants input; a message to that task completes it                          |
| anything else | a completed task with the artifact `echo: TEXT`                                        |
"""

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import uvicorn
from a2a.helpers import get_message_text, new_text_artifact, new_text_part
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
    Message,
    Task,
    TaskArtifactUpdateEvent,
    TaskState,
    TaskStatus,
    TaskStatusUpdateEvent,
)
from ports import free_port
from starlette.applications import Starlette


class Executor(AgentExecutor):
    """Executes messages; `executed` holds (message id, task id) of each."""

    def __init__(self) -> None:
        self.executed: list[tuple[str, str]] = []
        self.steps: asyncio.Queue[None] = asyncio.Queue()

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        """One message."""
        message = context.message
        assert message is not None
        text, task_id, context_id = get_message_text(message), context.task_id or "", context.context_id or ""
        self.executed.append((message.message_id, task_id))
        if text == "stream":
            await self._stream(message, task_id, context_id, event_queue)
            return
        echo = new_text_artifact(name="answer", text=f"echo: {text}")
        done = TaskStatus(state=TaskState.TASK_STATE_COMPLETED)
        if context.current_task is not None:  # the SDK takes no second task, only what becomes of the first
            piece = TaskArtifactUpdateEvent(task_id=task_id, context_id=context_id, artifact=echo, last_chunk=True)
            await event_queue.enqueue_event(piece)
            completed = TaskStatusUpdateEvent(task_id=task_id, context_id=context_id, status=done)
            await event_queue.enqueue_event(completed)
            return
        task = Task(id=task_id, context_id=context_id, status=done, artifacts=[echo], history=[message])
        if text == "ask":
            asks = TaskStatus(state=TaskState.TASK_STATE_INPUT_REQUIRED)
            task = Task(id=task_id, context_id=context_id, status=asks, history=[message])
        await event_queue.enqueue_event(task)

    async def _stream(self, message: Message, task_id: str, context_id: str, event_queue: EventQueue) -> None:
        working = TaskStatus(state=TaskState.TASK_STATE_WORKING)
        await event_queue.enqueue_event(Task(id=task_id, context_id=context_id, status=working, history=[message]))
        for number in (1, 2):
            await self.steps.get()
            await event_queue.enqueue_event(
                TaskArtifactUpdateEvent(
                    task_id=task_id,
                    context_id=context_id,
                    artifact=Artifact(artifact_id="a", name="answer", parts=[new_text_part(f"piece {number}")]),
                    append=number > 1,
                    last_chunk=number > 1,
                )
            )
        await self.steps.get()
        completed = TaskStatus(state=TaskState.TASK_STATE_COMPLETED)
        await event_queue.enqueue_event(TaskStatusUpdateEvent(task_id=task_id, context_id=context_id, status=completed))

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        """Nothing here can be canceled."""
        raise NotImplementedError


_HANDLERS: list[DefaultRequestHandler] = []
"""Of agents that are gone: a task that waits for input has asyncio's tasks waiting, which nobody else refers to."""


class _Server(uvicorn.Server):
    """A server that leaves the signals to the test runner."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


class SdkAgent:
    """Comes and goes at one port; its tasks outlive its absence, as an agent's with a database do.

    `lasting`: only its door comes and goes, and it works on meanwhile; otherwise nobody works on what it was at.
    """

    def __init__(self, version: str, *, lasting: bool = False, streaming: bool = True) -> None:
        self.version = version
        self._streaming = streaming
        self._lasting = lasting
        self._handler: DefaultRequestHandler | None = None
        self.executor = Executor()
        self.port = free_port()
        self._tasks = InMemoryTaskStore()
        self._server: _Server | None = None
        self._serving: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def card(self) -> AgentCard:
        """Its card, for one version of the protocol alone: clients have no other choice."""
        return AgentCard(
            name="scripted",
            description="Does what it is told.",
            version="1",
            supported_interfaces=[
                AgentInterface(url=f"{self.url}/", protocol_binding="JSONRPC", protocol_version=self.version)
            ],
            capabilities=AgentCapabilities(streaming=self._streaming),
            default_input_modes=["text/plain"],
            default_output_modes=["text/plain"],
            skills=[AgentSkill(id="echo", name="Echo", description="Says it again.", tags=["echo"])],
        )

    def go(self) -> None:
        """Let a stream go on by one event."""
        self.executor.steps.put_nowait(None)

    async def start(self) -> None:
        """Listen."""
        listening = socket.create_server(("127.0.0.1", self.port), backlog=128)
        self.port = listening.getsockname()[1]
        card = self.card()
        handler = self._handler
        if handler is None or not self._lasting:
            handler = DefaultRequestHandler(agent_executor=self.executor, task_store=self._tasks, agent_card=card)
            self._handler = handler
            _HANDLERS.append(handler)
        jsonrpc = create_jsonrpc_routes(handler, rpc_url="/", enable_v0_3_compat=True)
        app = Starlette(routes=[*create_agent_card_routes(card), *jsonrpc])
        config = uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off", timeout_graceful_shutdown=1)
        self._server = _Server(config)
        self._serving = asyncio.create_task(self._server.serve(sockets=[listening]))

    async def stop(self) -> None:
        """Listen no more; connections are closed. Idempotent."""
        if self._server is not None and self._serving is not None:
            self._server.should_exit = True
            await self._serving
        self._server = None
