"""Callers: they send A2A messages through the proxy and write down exactly what they saw.

Owns: two kinds of caller (a plain HTTP client in A2A v1.0 or v0.3, the A2A SDK's client), the classes of what came
back, following a task.
Knows nothing of: kills, agents, what is right.

One call of `send` is one request: what is sent again, and when, is its caller's role (`roles`). A connection that
breaks is `broken`, whatever the caller might guess; it is excused only where the harness killed the proxy meanwhile.
"""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import aiohttp
import httpx
from a2a.client import Client, ClientConfig, ClientFactory
from a2a.client.errors import A2AClientError
from a2a.types import (
    AgentCapabilities,
    AgentCard,
    AgentInterface,
    Message,
    Part,
    Role,
    SendMessageRequest,
    StreamResponse,
)
from a2a.utils.errors import A2AError
from chaos.ledger import Followed, Seen, Send
from google.protobuf.json_format import MessageToDict  # type: ignore[import-untyped]  # it brings no types along

PATIENCE = 30.0
"""Seconds that a caller waits for an answer; far above what any answer may take here."""

RECEIPT = "Holdfast-Receipt"
VERDICT = "Holdfast-Verdict"
TOKEN = "Holdfast-Token"
OLD = "0.3"
OK_CLASS = 2
NOTHING: Mapping[str, str] = {}
SLOW = "alive; rule=slow_call"


class UnreadableError(Exception):
    """An answer that is no JSON-RPC answer to a send."""


class Caller(Protocol):
    """Sends messages as one authenticated client."""

    name: str
    token: str

    async def send(self, send: Send, headers: Mapping[str, str] = NOTHING) -> None:
        """Send it once and write down what was seen (`seen`, `status`, `reason`, `answer`, `task_id`, `receipt`)."""

    async def aclose(self) -> None:
        """Close its connections."""


def text_of(task: Mapping[str, Any]) -> str | None:
    """The text of a task's first artifact, or of its status message, or of a bare message."""
    message = task.get("status", {}).get("message") or {}
    for parts in (*(artifact.get("parts") for artifact in task.get("artifacts", ())), message.get("parts")):
        if parts:
            return str(parts[0].get("text"))
    return str(task["parts"][0].get("text")) if task.get("parts") else None


def state_of(task: Mapping[str, Any]) -> str:
    """A task's state as v1.0 names it; empty where there is none."""
    state = str(task.get("status", {}).get("state", ""))
    return f"TASK_STATE_{state.upper().replace('-', '_')}" if state and "kind" in task else state


def took(send: Send, result: Mapping[str, Any], receipt: str | None) -> None:
    """Write down a 2xx: a task with a receipt is one to follow, anything else is the agent's answer."""
    task = result if "kind" in result else result.get("task") or result.get("message")
    if not isinstance(task, Mapping):
        raise UnreadableError(json.dumps(result)[:200])
    if receipt is not None:
        send.seen, send.receipt, send.task_id = Seen.DEFERRED, receipt, str(task["id"])
    else:
        send.seen, send.answer = Seen.ANSWERED, text_of(task)


def refused(send: Send, status: int, error: Mapping[str, Any]) -> None:
    """Write down an error that was read in full, under the reason that it gives."""
    facts = error.get("data") or [{}]
    reason = facts[0].get("reason") if isinstance(facts, list) and isinstance(facts[0], Mapping) else None
    send.seen, send.status = Seen.REFUSED, status
    send.reason = f"{status} {reason or error.get('message') or error}"
    if reason is not None:
        send.delivered = facts[0].get("metadata", {}).get("delivered")


@dataclass(slots=True)
class PlainCaller:
    """A caller on aiohttp that sees every byte. Its connections are kept, and forgotten when they broke."""

    name: str
    token: str
    base: str
    version: str = "1.0"
    _session: aiohttp.ClientSession | None = None

    async def send(self, send: Send, headers: Mapping[str, str] = NOTHING) -> None:
        """Send it once; the JSON-RPC id is new each time."""
        old = self.version == OLD
        message: dict[str, Any] = {"kind": "message", "role": "user"} if old else {"role": "ROLE_USER"}
        message["messageId"] = send.message_id
        message["parts"] = [{"kind": "text", "text": send.text} if old else {"text": send.text}]
        if send.context_id is not None:
            message["contextId"] = send.context_id
        method = "message/send" if old else "SendMessage"
        rpc_id = f"{send.message_id}-{send.tries}"
        body = {"jsonrpc": "2.0", "id": rpc_id, "method": method, "params": {"message": message}}
        try:
            status, got, content = await self.post(send.workspace, body, headers)
        except (aiohttp.ClientError, OSError, TimeoutError) as problem:
            send.seen, send.reason = Seen.BROKEN, type(problem).__name__
            await self.aclose()
            return
        send.status, send.retry_after = status, "Retry-After" in got
        try:
            said = json.loads(content)
            if status // 100 == OK_CLASS and "result" in said:
                took(send, said["result"], got.get(RECEIPT))
                send.adopted = got.get(VERDICT) == SLOW
            else:
                refused(send, status, said.get("error", said))
        except (ValueError, KeyError, TypeError, AttributeError, UnreadableError) as problem:
            send.seen, send.reason = Seen.REFUSED, f"{status} unreadable: {problem!r:.100}"

    async def post(
        self, workspace: str, body: Mapping[str, Any], headers: Mapping[str, str] = NOTHING
    ) -> tuple[int, Mapping[str, str], bytes]:
        """One JSON-RPC request; status, headers and the whole body of what came back."""
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=PATIENCE)
            own = {TOKEN: self.token, "A2A-Version": self.version}
            self._session = aiohttp.ClientSession(headers=own, timeout=timeout)
        url = f"{self.base}/workspaces/{workspace}/a2a"
        async with self._session.post(url, json=body, headers=headers) as answer:
            return answer.status, answer.headers, await answer.read()

    async def follow(self, send: Send) -> Followed:
        """What GetTask and the queue's view say of a deferred send now."""
        method = "tasks/get" if self.version == OLD else "GetTask"
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {"id": send.task_id}}
        status, _, content = await self.post(send.workspace, body)
        said = json.loads(content)
        task = said.get("result") or {}
        view = await self.fetch(f"/workspaces/{send.workspace}/queue/{send.receipt}")
        return Followed(
            state=state_of(task),
            text=text_of(task),
            queue_status=str(view.get("status", "")),
            marked=view.get("redelivery") == "maybe",
            attempts=int(view.get("attempts", 0)),
            last_error=view.get("last_error") or (None if task else f"GetTask: {status} {said.get('error')}"),
        )

    async def fetch(self, path: str) -> dict[str, Any]:
        """A JSON object from one of the administrative doors."""
        assert self._session is not None
        async with self._session.get(f"{self.base}{path}") as answer:
            said = await answer.json(content_type=None)
            return said if isinstance(said, dict) else {}

    async def aclose(self) -> None:
        """Close; the next request opens anew."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()


class SdkCaller:
    """A caller on the A2A SDK's own client, JSON-RPC of v1.0, as an application would use it."""

    def __init__(self, name: str, token: str, base: str) -> None:
        self.name = name
        self.token = token
        self._base = base
        self._head: httpx.Response | None = None
        self._clients: dict[str, Client] = {}
        self._http = httpx.AsyncClient(
            headers={TOKEN: token}, timeout=PATIENCE, event_hooks={"response": [self._note]}, trust_env=False
        )

    async def _note(self, response: httpx.Response) -> None:
        self._head = response

    def _client(self, workspace: str) -> Client:
        if workspace not in self._clients:
            url = f"{self._base}/workspaces/{workspace}/a2a"
            card = AgentCard(
                name=workspace,
                supported_interfaces=[AgentInterface(url=url, protocol_binding="JSONRPC", protocol_version="1.0")],
                capabilities=AgentCapabilities(streaming=False),
            )
            config = ClientConfig(streaming=False, httpx_client=self._http)
            self._clients[workspace] = ClientFactory(config).create(card)
        return self._clients[workspace]

    async def send(self, send: Send, headers: Mapping[str, str] = NOTHING) -> None:
        """Send it once."""
        assert not headers, "the SDK's client has no say in them"
        message = Message(message_id=send.message_id, role=Role.ROLE_USER, parts=[Part(text=send.text)])
        if send.context_id is not None:
            message.context_id = send.context_id
        self._head = None
        last: StreamResponse | None = None
        try:
            async for event in self._client(send.workspace).send_message(SendMessageRequest(message=message)):
                last = event
        except A2AClientError as problem:
            self._failed(send, problem)
            return
        except A2AError as problem:
            refused(send, self._status, {"message": str(problem)})
            return
        head = self._head
        send.status = self._status
        try:
            took(send, MessageToDict(last) if last is not None else {}, head.headers.get(RECEIPT) if head else None)
        except (KeyError, UnreadableError) as problem:
            send.seen, send.reason = Seen.REFUSED, f"{send.status} unreadable: {problem!r:.100}"

    def _failed(self, send: Send, problem: A2AClientError) -> None:
        """An error of the client's own class: the status line tells whether an answer was read."""
        if self._status // 100 in {0, OK_CLASS}:
            cause = problem.__cause__
            send.seen, send.reason = Seen.BROKEN, type(cause or problem).__name__
            return
        assert self._head is not None
        send.retry_after = "Retry-After" in self._head.headers
        try:
            error = json.loads(self._head.content).get("error", {})
        except (ValueError, AttributeError, httpx.HTTPError):
            error = {"message": str(problem)}
        refused(send, self._status, error if isinstance(error, Mapping) else {"message": error})

    @property
    def _status(self) -> int:
        return self._head.status_code if self._head is not None else 0

    async def aclose(self) -> None:
        """Close."""
        await self._http.aclose()


async def once(caller: Caller, send: Send, headers: Mapping[str, str] = NOTHING) -> None:
    """Send with a limit above the client's own, so that nothing hangs for ever."""
    send.tries += 1
    send.seen, send.status, send.reason, send.delivered, send.retry_after = Seen.BROKEN, 0, "", None, False
    try:
        async with asyncio.timeout(PATIENCE + 5):
            await caller.send(send, headers)
    except TimeoutError:
        send.seen, send.reason = Seen.BROKEN, "no end in sight"
