"""A test agent on the server of a2a-sdk 1.x: v1.0 and, as the SDK offers it, v0.3; over JSON-RPC and REST.

Owns: the stories of `scripted`, told in this SDK's types.
Knows nothing of: proxies, what a test is about.
"""

import datetime as dt
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import httpx
import scripted
from a2a.helpers import get_message_text
from a2a.server.agent_execution import AgentExecutor, RequestContext, active_task
from a2a.server.context import ServerCallContext
from a2a.server.events import EventQueue
from a2a.server.request_handlers import DefaultRequestHandler
from a2a.server.routes import create_agent_card_routes, create_jsonrpc_routes, create_rest_routes
from a2a.server.tasks import BasePushNotificationSender, InMemoryPushNotificationConfigStore, InMemoryTaskStore
from a2a.types import (
    AgentCapabilities,
    AgentCard,
    AgentInterface,
    AgentSkill,
    Artifact,
    Message,
    Part,
    Role,
    Task,
    TaskArtifactUpdateEvent,
    TaskState,
    TaskStatus,
    TaskStatusUpdateEvent,
)
from google.protobuf.json_format import MessageToJson, Parse, ParseDict
from google.protobuf.timestamp_pb2 import Timestamp
from starlette.applications import Starlette


def status_of(state: str, words: str = "", *, task: str = "", context: str = "") -> TaskStatus:
    """A status, at the time of all statuses."""
    time = Timestamp()
    time.FromJsonString(scripted.TIME)
    status = TaskStatus(state=TaskState.Value(f"TASK_STATE_{state.upper().replace('-', '_')}"), timestamp=time)
    if words:
        said = Message(message_id=f"of-{task}", role=Role.ROLE_AGENT, task_id=task, context_id=context)
        said.parts.append(Part(text=words))
        status.message.CopyFrom(said)
    return status


class KeptTasks(InMemoryTaskStore):
    """Tasks that the next life of the agent still knows."""

    def __init__(self, place: scripted.Place) -> None:
        super().__init__()
        self._place = place
        self._read = False

    async def _awake(self, context: ServerCallContext) -> None:
        if not self._read:
            self._read = True
            for text in self._place.kept():
                task = Parse(text, Task())
                if task.status.state == TaskState.TASK_STATE_WORKING:
                    task.status.CopyFrom(status_of("failed", scripted.LOST, task=task.id, context=task.context_id))
                await super().save(task, context)

    async def save(self, task: Task, context: ServerCallContext) -> None:
        """Save, here and in the folder."""
        await self._awake(context)
        self._place.keep(task.id, MessageToJson(task))
        await super().save(task, context)

    async def get(self, task_id: str, context: ServerCallContext) -> Task | None:
        """Look for one."""
        await self._awake(context)
        return await super().get(task_id, context)

    async def list(self, params: Any, context: ServerCallContext) -> Any:
        """Look for many."""
        await self._awake(context)
        return await super().list(params, context)


class Executor(AgentExecutor):
    """Tells stories."""

    def __init__(self, place: scripted.Place) -> None:
        self._place = place

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        """One message."""
        message = context.message
        assert message is not None
        text, task_id, context_id = get_message_text(message), context.task_id or "", context.context_id or ""
        headers = context.call_context.state.get("headers", {}) if context.call_context else {}
        marked = headers.get("holdfast-redelivery")
        self._place.begun(message=message.message_id, task=task_id, text=text, redelivery=marked)
        for kind, what in scripted.story(text, going_on=context.current_task is not None):
            if kind == "gate":
                await self._place.gate(what)
                continue
            if kind == "raise":
                raise RuntimeError(what)
            await event_queue.enqueue_event(event_of(kind, what, task_id, context_id, message))

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        """Everything can be canceled."""
        task_id, context_id = context.task_id or "", context.context_id or ""
        await event_queue.enqueue_event(event_of("status", ("canceled", ""), task_id, context_id, None))


def event_of(kind: str, what: Any, task_id: str, context_id: str, message: Message | None) -> Any:
    """A step in the SDK's types."""
    if kind == "task":
        return Task(id=task_id, context_id=context_id, status=status_of(what), history=[message] if message else [])
    if kind == "status":
        status = status_of(*what, task=task_id, context=context_id)
        return TaskStatusUpdateEvent(task_id=task_id, context_id=context_id, status=status)
    if kind == "message":
        return Message(
            message_id="said", role=Role.ROLE_AGENT, task_id=task_id, context_id=context_id, parts=[Part(text=what)]
        )
    if kind == "data":
        artifact = Artifact(artifact_id="data", name="data")
        for facts in scripted.lookalikes(task_id, context_id):
            ParseDict({"data": facts, "metadata": facts}, artifact.parts.add())
        artifact.parts.add(text=f"the task is {task_id}")
        artifact.parts.add(raw=b"\x00\xff raw", media_type="application/octet-stream", filename="f.bin")
        artifact.parts.add(url="https://files.example/f.bin", media_type="image/png")
        return TaskArtifactUpdateEvent(task_id=task_id, context_id=context_id, artifact=artifact, last_chunk=True)
    name, text, append, last = what
    artifact = Artifact(artifact_id=name, name=name, parts=[Part(text=text)])
    return TaskArtifactUpdateEvent(
        task_id=task_id, context_id=context_id, artifact=artifact, append=append, last_chunk=last
    )


def card_of(url: str, *, extended: bool, name: str = "scripted") -> AgentCard:
    """Both versions, both bindings."""
    return AgentCard(
        name=name,
        description="Does what it is told: été, 東京, 🙂.",
        version="1",
        supported_interfaces=[
            AgentInterface(url=f"{url}/", protocol_binding=binding, protocol_version=version)
            for version in ("1.0", "0.3")
            for binding in ("JSONRPC", "HTTP+JSON")
        ],
        capabilities=AgentCapabilities(streaming=True, push_notifications=True, extended_agent_card=extended),
        default_input_modes=["text/plain"],
        default_output_modes=["text/plain"],
        skills=[AgentSkill(id="echo", name="Echo", description="Says it again.", tags=["echo"])],
    )


class SameTime(dt.datetime):
    """The SDK puts the time into the status of a task whose executor raised."""

    @classmethod
    def now(cls, tz: Any = None) -> "SameTime":
        """Say the time of all statuses."""
        return cls.fromisoformat(scripted.TIME).astimezone(tz)


def make(place: scripted.Place, url: str) -> Starlette:
    """The agent's application."""
    active_task.datetime = SameTime  # type: ignore[attr-defined]  # there is no public way to its clock
    card, configs = card_of(url, extended=place.extended), InMemoryPushNotificationConfigStore()
    handler = DefaultRequestHandler(
        agent_executor=Executor(place),
        task_store=KeptTasks(place),
        agent_card=card,
        extended_agent_card=card_of(url, extended=True, name="scripted, at length") if place.extended else None,
        push_config_store=configs,
        push_sender=BasePushNotificationSender(httpx.AsyncClient(trust_env=False), configs),
    )
    routes = [
        *create_agent_card_routes(card),
        *create_agent_card_routes(card, card_url="/.well-known/agent.json"),
        *create_jsonrpc_routes(handler, rpc_url="/", enable_v0_3_compat=True),
        *create_rest_routes(handler, enable_v0_3_compat=True),
    ]
    return Starlette(routes=routes)


if __name__ == "__main__":
    scripted.serve(make)
