"""An agent on the A2A SDK's own server, in a process of its own, that streams slowly and writes down what it does.

`python streaming_agent.py --port N --log FILE`. Each message becomes a working task, a piece of an artifact for each of
its words, a quarter of a second apart, and completed. The log holds a JSON line for each message:
{"message_id", "redelivery": "maybe" | null, "pid"}. Its tasks live in its memory, as they do by default in the SDK.
"""

import argparse
import asyncio
import json
import os
from pathlib import Path

import uvicorn
from a2a.helpers import get_message_text, new_text_part
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
    Task,
    TaskArtifactUpdateEvent,
    TaskState,
    TaskStatus,
    TaskStatusUpdateEvent,
)
from starlette.applications import Starlette

PAUSE = 0.25


class Streaming(AgentExecutor):
    """Says every word of a message again."""

    def __init__(self, log: Path) -> None:
        self._log = log

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        """One message."""
        message = context.message
        assert message is not None
        task_id, context_id = context.task_id or "", context.context_id or ""
        headers = context.call_context.state.get("headers", {}) if context.call_context else {}
        line = {"message_id": message.message_id, "redelivery": headers.get("holdfast-redelivery"), "pid": os.getpid()}
        with self._log.open("a", encoding="utf-8") as log:
            log.write(json.dumps(line) + "\n")
        working = TaskStatus(state=TaskState.TASK_STATE_WORKING)
        await event_queue.enqueue_event(Task(id=task_id, context_id=context_id, status=working, history=[message]))
        for number, word in enumerate(get_message_text(message).split()):
            piece = Artifact(artifact_id="a", name="answer", parts=[new_text_part(f"{word} ")])
            await event_queue.enqueue_event(
                TaskArtifactUpdateEvent(task_id=task_id, context_id=context_id, artifact=piece, append=number > 0)
            )
            await asyncio.sleep(PAUSE)
        completed = TaskStatus(state=TaskState.TASK_STATE_COMPLETED)
        await event_queue.enqueue_event(TaskStatusUpdateEvent(task_id=task_id, context_id=context_id, status=completed))

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        """Nothing here can be canceled."""
        raise NotImplementedError


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--log", type=Path, required=True)
    options = parser.parse_args()
    url = f"http://127.0.0.1:{options.port}/"
    card = AgentCard(
        name="streaming",
        description="Says it again, word by word.",
        version="1",
        supported_interfaces=[
            AgentInterface(url=url, protocol_binding="JSONRPC", protocol_version=version) for version in ("1.0", "0.3")
        ],
        capabilities=AgentCapabilities(streaming=True),
        default_input_modes=["text/plain"],
        default_output_modes=["text/plain"],
        skills=[AgentSkill(id="echo", name="Echo", description="Says it again.", tags=["echo"])],
    )
    handler = DefaultRequestHandler(
        agent_executor=Streaming(options.log), task_store=InMemoryTaskStore(), agent_card=card
    )
    routes = [*create_agent_card_routes(card), *create_jsonrpc_routes(handler, rpc_url="/", enable_v0_3_compat=True)]
    uvicorn.run(Starlette(routes=routes), host="127.0.0.1", port=options.port, log_level="warning", lifespan="off")


if __name__ == "__main__":
    main()
