"""The client of a2a-sdk 0.3.x, as its users make it: from a card, with its own timeouts, unaware of any proxy.

Owns: calls as `spoken` has them, in this SDK's words.
Knows nothing of: proxies, but that some server wants a token in a header. It runs in an environment of its own.
"""

import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import httpx
import spoken
from a2a.client import A2ACardResolver, Client, ClientConfig, ClientFactory
from a2a.types import (
    AgentCard,
    Message,
    Part,
    PushNotificationAuthenticationInfo,
    PushNotificationConfig,
    Role,
    Task,
    TaskArtifactUpdateEvent,
    TaskIdParams,
    TaskPushNotificationConfig,
    TaskQueryParams,
    TextPart,
)


def words(parts: Any) -> str:
    """The text in parts."""
    return "".join(part.root.text for part in parts or [] if isinstance(part.root, TextPart))


def of_task(task: Task) -> spoken.Event:
    """A task, in the words of `spoken`."""
    text = "".join(words(artifact.parts) for artifact in task.artifacts or [])
    state = task.status.state.value
    return {"kind": "task", "task": task.id, "context": task.context_id, "state": state, "text": text}


def event_of(said: Any) -> spoken.Event:
    """What comes back, in the words of `spoken`."""
    if isinstance(said, Message):
        return {"kind": "message", "task": said.task_id, "text": words(said.parts)}
    task, update = said
    if update is None:
        return of_task(task)
    known = {"task": update.task_id, "context": update.context_id}
    if isinstance(update, TaskArtifactUpdateEvent):
        return {"kind": "artifact", **known, "text": words(update.artifact.parts)}
    text = words(update.status.message.parts) if update.status.message else ""
    return {"kind": "status", **known, "state": update.status.state.value, "final": update.final, "text": text}


class Talking:
    """One card, and a client for each way of sending."""

    def __init__(self) -> None:
        self._card: AgentCard | None = None
        self._http = httpx.AsyncClient()
        self._bindings: list[str] = []

    async def do(self, call: spoken.Call) -> AsyncIterator[spoken.Event]:
        """One call."""
        match call["do"]:
            case "connect":
                yield await self._connect(call)
            case "send":
                async for said in self._client(call["mode"], call.get("push")).send_message(message_of(call)):
                    yield event_of(said)
            case "get":
                yield of_task(await self._client("unary").get_task(TaskQueryParams(id=call["task"])))
            case "cancel":
                yield of_task(await self._client("unary").cancel_task(TaskIdParams(id=call["task"])))
            case "subscribe":
                async for said in self._client("stream").resubscribe(TaskIdParams(id=call["task"])):
                    yield event_of(said)
            case "notify":
                wanted = TaskPushNotificationConfig(
                    task_id=call["task"], push_notification_config=receiver_of(call["push"])
                )
                made = await self._client("unary").set_task_callback(wanted)
                yield {"kind": "receiver", "task": made.task_id, "text": made.push_notification_config.url}

    async def _connect(self, call: spoken.Call) -> spoken.Event:
        self._http = httpx.AsyncClient(headers={"Holdfast-Token": call["token"]}, trust_env=False)
        self._card = await A2ACardResolver(self._http, call["url"]).get_agent_card()
        self._bindings = [call["binding"]]
        return {"kind": "card", "text": self._card.name, "version": self._card.protocol_version}

    def _client(self, mode: str, push: Any = None) -> Client:
        assert self._card is not None
        how = ClientConfig(
            streaming=mode == "stream",
            polling=mode == "now",
            httpx_client=self._http,
            supported_transports=self._bindings,
            push_notification_configs=[receiver_of(push)] if push else [],
        )
        return ClientFactory(how).create(self._card)


def receiver_of(push: Any) -> PushNotificationConfig:
    """Who is to be notified."""
    secret = PushNotificationAuthenticationInfo(schemes=["Bearer"], credentials=push["credentials"])
    return PushNotificationConfig(id="of-test", url=push["url"], token=push["token"], authentication=secret)


def message_of(call: spoken.Call) -> Message:
    """What a client sends."""
    return Message(
        message_id=call["message"],
        role=Role.user,
        parts=[Part(root=TextPart(text=call["text"]))],
        task_id=call.get("task"),
        context_id=call.get("context"),
    )


if __name__ == "__main__":
    spoken.serve(Talking)
