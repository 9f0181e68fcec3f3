"""A test agent on the server of a2a-sdk 0.3.x: v0.3 over JSON-RPC and REST.

Owns: the stories of `scripted`, told in this SDK's types.
Knows nothing of: proxies, what a test is about. It runs in an environment of its own.
"""

import base64
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import httpx
import scripted
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.apps import A2ARESTFastAPIApplication, A2AStarletteApplication
from a2a.server.context import ServerCallContext
from a2a.server.events import EventQueue
from a2a.server.request_handlers import DefaultRequestHandler
from a2a.server.tasks import BasePushNotificationSender, InMemoryPushNotificationConfigStore, InMemoryTaskStore
from a2a.types import (
    AgentCapabilities,
    AgentCard,
    AgentInterface,
    AgentSkill,
    Artifact,
    DataPart,
    FilePart,
    FileWithBytes,
    FileWithUri,
    Message,
    Part,
    Role,
    Task,
    TaskArtifactUpdateEvent,
    TaskState,
    TaskStatus,
    TaskStatusUpdateEvent,
    TextPart,
)
from a2a.utils import get_message_text
from starlette.applications import Starlette

ENDS = {"completed", "failed", "rejected", "canceled", "input-required", "auth-required"}


def said(words: str, task: str, context: str, message_id: str) -> Message:
    """A message of the agent's."""
    parts = [Part(root=TextPart(text=words))]
    return Message(message_id=message_id, role=Role.agent, task_id=task, context_id=context, parts=parts)


class KeptTasks(InMemoryTaskStore):
    """Tasks that the next life of the agent still knows."""

    def __init__(self, place: scripted.Place) -> None:
        super().__init__()
        self._place = place
        for task in map(Task.model_validate_json, place.kept()):
            if task.status.state is TaskState.working:
                words = said(scripted.LOST, task.id, task.context_id, f"of-{task.id}")
                task.status = TaskStatus(state=TaskState.failed, timestamp=scripted.TIME, message=words)
            self.tasks[task.id] = task

    async def save(self, task: Task, context: ServerCallContext | None = None) -> None:
        """Save, here and in the folder."""
        self._place.keep(task.id, task.model_dump_json(by_alias=True, exclude_none=True))
        await super().save(task, context)


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
        status = TaskStatus(state=TaskState(what), timestamp=scripted.TIME)
        return Task(id=task_id, context_id=context_id, status=status, history=[message] if message else [])
    if kind == "status":
        state, words = what
        status = TaskStatus(state=TaskState(state), timestamp=scripted.TIME)
        if words:
            status.message = said(words, task_id, context_id, f"of-{task_id}")
        return TaskStatusUpdateEvent(task_id=task_id, context_id=context_id, status=status, final=state in ENDS)
    if kind == "message":
        return said(what, task_id, context_id, "said")
    if kind == "data":
        facts = scripted.lookalikes(task_id, context_id)
        raw = FileWithBytes(bytes=base64.b64encode(b"\x00\xff raw").decode(), mime_type="image/png", name="f.bin")
        parts = [
            *(Part(root=DataPart(data=fact, metadata=fact)) for fact in facts),
            Part(root=TextPart(text=f"the task is {task_id}")),
            Part(root=FilePart(file=raw)),
            Part(root=FilePart(file=FileWithUri(uri="https://files.example/f.bin", mime_type="image/png"))),
        ]
        artifact = Artifact(artifact_id="data", name="data", parts=parts)
        return TaskArtifactUpdateEvent(task_id=task_id, context_id=context_id, artifact=artifact, last_chunk=True)
    name, text, append, last = what
    artifact = Artifact(artifact_id=name, name=name, parts=[Part(root=TextPart(text=text))])
    return TaskArtifactUpdateEvent(
        task_id=task_id, context_id=context_id, artifact=artifact, append=append, last_chunk=last
    )


def card_of(url: str, *, extended: bool, name: str = "scripted") -> AgentCard:
    """Both bindings."""
    return AgentCard(
        name=name,
        description="Does what it is told: été, 東京, 🙂.",
        version="1",
        url=f"{url}/",
        preferred_transport="JSONRPC",
        additional_interfaces=[AgentInterface(url=f"{url}/", transport="HTTP+JSON")],
        capabilities=AgentCapabilities(streaming=True, push_notifications=True),
        supports_authenticated_extended_card=extended,
        default_input_modes=["text/plain"],
        default_output_modes=["text/plain"],
        skills=[AgentSkill(id="echo", name="Echo", description="Says it again.", tags=["echo"])],
    )


def make(place: scripted.Place, url: str) -> Starlette:
    """The agent's application."""
    card, configs = card_of(url, extended=place.extended), InMemoryPushNotificationConfigStore()
    extended = card_of(url, extended=True, name="scripted, at length") if place.extended else None
    handler = DefaultRequestHandler(
        agent_executor=Executor(place),
        task_store=KeptTasks(place),
        push_config_store=configs,
        push_sender=BasePushNotificationSender(httpx.AsyncClient(trust_env=False), configs),
    )
    app = A2ARESTFastAPIApplication(agent_card=card, http_handler=handler, extended_agent_card=extended).build()
    jsonrpc = A2AStarletteApplication(agent_card=card, http_handler=handler, extended_agent_card=extended)
    jsonrpc.add_routes_to_app(app)
    return app


if __name__ == "__main__":
    scripted.serve(make)
