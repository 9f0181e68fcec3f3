"""The client of a2a-sdk 1.x, as its users make it: from a card, with its own timeouts, unaware of any proxy.

Owns: calls as `spoken` has them, in this SDK's words.
Knows nothing of: proxies, but that some server wants a token in a header.
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
    AuthenticationInfo,
    CancelTaskRequest,
    GetTaskRequest,
    ListTasksRequest,
    Message,
    Part,
    Role,
    SendMessageRequest,
    StreamResponse,
    SubscribeToTaskRequest,
    TaskPushNotificationConfig,
    TaskState,
)


def state_of(status: Any) -> str:
    """A state as v0.3 writes it."""
    return str(TaskState.Name(status.state)).removeprefix("TASK_STATE_").lower().replace("_", "-")


def words(parts: Any) -> str:
    """The text in parts."""
    return "".join(part.text for part in parts)


def event_of(said: StreamResponse) -> spoken.Event:
    """What comes back, in the words of `spoken`."""
    if said.HasField("task"):
        return of_task(said.task)
    if said.HasField("message"):
        return {"kind": "message", "task": said.message.task_id, "text": words(said.message.parts)}
    if said.HasField("status_update"):
        update = said.status_update
        known = {"task": update.task_id, "context": update.context_id, "state": state_of(update.status)}
        return {"kind": "status", **known, "text": words(update.status.message.parts)}
    if said.HasField("artifact_update"):
        piece = said.artifact_update
        known = {"task": piece.task_id, "context": piece.context_id}
        return {"kind": "artifact", **known, "text": words(piece.artifact.parts)}
    return {"kind": "nothing"}


def of_task(task: Any) -> spoken.Event:
    """A task, in the words of `spoken`."""
    text = "".join(words(artifact.parts) for artifact in task.artifacts)
    return {"kind": "task", "task": task.id, "context": task.context_id, "state": state_of(task.status), "text": text}


class Talking:
    """One card, and a client for each way of sending."""

    def __init__(self) -> None:
        self._card = AgentCard()
        self._http = httpx.AsyncClient()
        self._bindings: list[str] = []
        self._clients: dict[str, Client] = {}

    async def do(self, call: spoken.Call) -> AsyncIterator[spoken.Event]:
        """One call."""
        match call["do"]:
            case "send":
                client = self._client(call["mode"])
                async for said in client.send_message(request_of(call)):
                    yield event_of(said)
            case "subscribe":
                async for said in self._client("stream").subscribe(SubscribeToTaskRequest(id=call["task"])):
                    yield event_of(said)
            case "list":
                for task in (
                    await self._client("unary").list_tasks(ListTasksRequest(context_id=call["context"]))
                ).tasks:
                    yield of_task(task)
            case _:
                yield await self._one(call)

    async def _one(self, call: spoken.Call) -> spoken.Event:
        """A call with one answer."""
        match call["do"]:
            case "get":
                return of_task(await self._client("unary").get_task(GetTaskRequest(id=call["task"])))
            case "cancel":
                return of_task(await self._client("unary").cancel_task(CancelTaskRequest(id=call["task"])))
            case "notify":
                made = await self._client("unary").create_task_push_notification_config(receiver_of(call))
                return {"kind": "receiver", "task": made.task_id, "text": made.url}
        return await self._connect(call)

    async def _connect(self, call: spoken.Call) -> spoken.Event:
        self._http = httpx.AsyncClient(headers={"Holdfast-Token": call["token"]}, trust_env=False)
        self._card = await A2ACardResolver(self._http, call["url"]).get_agent_card()
        self._bindings = [call["binding"]]
        self._clients.clear()
        spoken_here = next(one for one in self._card.supported_interfaces if one.protocol_binding == call["binding"])
        return {"kind": "card", "text": self._card.name, "version": spoken_here.protocol_version}

    def _client(self, mode: str) -> Client:
        if mode not in self._clients:
            how = ClientConfig(
                streaming=mode == "stream",
                polling=mode == "now",
                httpx_client=self._http,
                supported_protocol_bindings=self._bindings,
            )
            self._clients[mode] = ClientFactory(how).create(self._card)
        return self._clients[mode]


def request_of(call: spoken.Call) -> SendMessageRequest:
    """What a client sends."""
    said = Message(message_id=call["message"], role=Role.ROLE_USER, parts=[Part(text=call["text"])])
    said.task_id, said.context_id = call.get("task") or "", call.get("context") or ""
    request = SendMessageRequest(message=said)
    if call.get("push"):
        request.configuration.task_push_notification_config.CopyFrom(receiver_of(call))
    return request


def receiver_of(call: spoken.Call) -> TaskPushNotificationConfig:
    """Who is to be notified."""
    push, task = call["push"], call.get("task") or ""
    secret = AuthenticationInfo(scheme="Bearer", credentials=push["credentials"])
    return TaskPushNotificationConfig(
        id="of-test", task_id=task, url=push["url"], token=push["token"], authentication=secret
    )


if __name__ == "__main__":
    spoken.serve(Talking)
