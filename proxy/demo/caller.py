"""The client's side: a stock A2A SDK client that sends, and follows deferred tasks to their end.

Owns: the client's sends, the account of what each one got, traffic in conversations.
Knows nothing of: which of it is expected, what happens to the agents meanwhile.

The client is the SDK's own: agent card through the proxy, `streaming=False`, a bearer token, GetTask for what came back
as a task that is not finished. Nothing in it knows Holdfast, except that the headers of each first answer are kept.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextvars import ContextVar
from typing import Any, Self

import httpx
from a2a.client import Client, ClientConfig, ClientFactory
from a2a.client.errors import A2AClientError
from a2a.helpers import get_artifact_text, get_message_text, new_text_message
from a2a.types import GetTaskRequest, Role, SendMessageRequest, StreamResponse, Task, TaskState
from a2a.utils.errors import A2AError

from proxy.demo.ledger import First, Sent
from proxy.demo.timeline import Timeline

POLL_SECONDS = 0.4
CALL_TIMEOUT = 10.0
ENDED = {
    TaskState.TASK_STATE_COMPLETED: "completed",
    TaskState.TASK_STATE_FAILED: "failed",
    TaskState.TASK_STATE_CANCELED: "canceled",
    TaskState.TASK_STATE_REJECTED: "rejected",
}
UNAVAILABLE = frozenset({429, 503})
HEARD: ContextVar["list[httpx.Response] | None"] = ContextVar("HEARD", default=None)


class Caller:
    """One client of the proxy. Everything that it sends stands in `sends`."""

    def __init__(self, url: str, token: str, timeline: Timeline) -> None:
        self._url = url
        self._timeline = timeline
        self._http = httpx.AsyncClient(
            headers={"Authorization": f"Bearer {token}"},
            timeout=CALL_TIMEOUT,
            event_hooks={"response": [_hear]},
        )
        self._factory = ClientFactory(ClientConfig(streaming=False, httpx_client=self._http))
        self._clients: dict[str, Client] = {}
        self._following: set[asyncio.Task[None]] = set()
        self._count = 0
        self.sends: list[Sent] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._following:
            task.cancel()
        await asyncio.gather(*self._following, return_exceptions=True)
        await self._http.aclose()

    async def meet(self, workspace: str) -> None:
        """Fetch the workspace's agent card, as any client does first.

        Raises:
            A2AError, httpx.HTTPError: there is no card to be had.
        """
        self._clients[workspace] = await self._factory.create_from_url(f"{self._url}/workspaces/{workspace}/a2a")

    # One send

    async def send(self, workspace: str, text: str, *, context_id: str, again: Sent | None = None) -> Sent:
        """Send once, never twice; a deferred one is followed in the background. `again`: repeat a refused one."""
        self._count += 1
        sent = Sent(
            message_id=again.message_id if again is not None else f"message-{self._count:04d}",
            workspace=workspace,
            context_id=context_id,
            text=text,
        )
        self.sends.append(sent)
        message = new_text_message(text, context_id=context_id, role=Role.ROLE_USER)
        message.message_id = sent.message_id
        heard: list[httpx.Response] = []
        HEARD.set(heard)
        try:
            async for event in self._clients[workspace].send_message(SendMessageRequest(message=message)):
                self._took(sent, event)
        except A2AError as problem:
            sent.first, sent.said = First.FAILED, problem.message
        if heard:
            await _note(sent, heard[-1])
        self._timeline.traffic(workspace, describe(sent))
        if sent.first is First.DEFERRED:
            following = asyncio.create_task(self._follow(sent))
            self._following.add(following)
            following.add_done_callback(self._following.discard)
        return sent

    def _took(self, sent: Sent, event: StreamResponse) -> None:
        if event.HasField("message"):
            sent.first = First.ANSWERED
            sent.right = get_message_text(event.message) == f"echo: {sent.text}"
            return
        sent.task_id = event.task.id
        sent.first = First.ANSWERED if event.task.status.state in ENDED else First.DEFERRED
        self._look(sent, event.task)

    @staticmethod
    def _look(sent: Sent, task: Task) -> None:
        """Keep how a task ended, once it has."""
        sent.ended = ENDED.get(task.status.state)
        answers = [get_artifact_text(artifact) for artifact in task.artifacts]
        sent.right = sent.ended == "completed" and answers == [f"echo: {sent.text}"]

    # What was deferred

    async def _follow(self, sent: Sent) -> None:
        client = self._clients[sent.workspace]
        while sent.ended is None:
            await asyncio.sleep(POLL_SECONDS)
            try:
                self._look(sent, await client.get_task(GetTaskRequest(id=sent.task_id)))
            except A2AClientError as problem:
                sent.said = problem.message
        self._timeline.traffic(sent.workspace, f"deferred task now {sent.ended}")

    async def settled(self, limit: float) -> bool:
        """Wait until nothing that was deferred is open any more; False if that takes more than `limit` seconds."""
        if self._following:
            await asyncio.wait(tuple(self._following), timeout=limit)
        return not self._following

    # Many sends

    @contextlib.asynccontextmanager
    async def traffic(self, workspace: str, *, senders: int, pause: float, text: str) -> AsyncIterator[None]:
        """Keep sending while the body runs: each sender its next message `pause` s after the answer to its last one.

        One of them holds a conversation (one context, so its order counts); the others open a new context each time.
        """
        enough = asyncio.Event()
        opened = len(self.sends)

        async def keep_sending(conversation: str | None) -> None:
            while not enough.is_set():
                number = len(self.sends) + 1
                await self.send(workspace, f"{text} ({number})", context_id=conversation or f"context-{number:04d}")
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(enough.wait(), pause)

        async with asyncio.TaskGroup() as group:
            for sender in range(senders):
                group.create_task(keep_sending(f"conversation-{opened}" if sender == 0 else None))
            try:
                yield
            finally:
                enough.set()


async def _hear(response: httpx.Response) -> None:
    heard = HEARD.get()
    if heard is not None:
        heard.append(response)


async def _note(sent: Sent, response: httpx.Response) -> None:
    """Keep what the headers say, and for a refusal what its body says."""
    sent.status = response.status_code
    sent.verdict = response.headers.get("Holdfast-Verdict")
    sent.restart = response.headers.get("Holdfast-Restart")
    sent.retry_after = response.headers.get("Retry-After")
    if sent.first is First.FAILED and response.status_code in UNAVAILABLE:
        sent.first = First.REFUSED
        sent.delivered = delivered(await response.aread())


def delivered(body: bytes) -> str | None:
    """Whether a refused request reached the agent, as its error says: `no`, `maybe`, or None where nothing is said."""
    try:
        said: Any = json.loads(body)
        return str(said["error"]["data"][0]["metadata"]["delivered"])
    except (ValueError, LookupError, TypeError):
        return None


def describe(sent: Sent) -> str:
    """What a send got, in words; equal for equal outcomes."""
    if sent.first is First.ANSWERED:
        return "answered" if sent.right else "answered WRONGLY"
    if sent.first is First.DEFERRED:
        restart = f", restart {sent.restart}" if sent.restart else ""
        return f"deferred ({sent.verdict}{restart})"
    if sent.first is First.REFUSED:
        words = f"{sent.status}, {sent.verdict}, restart {sent.restart}, Retry-After {sent.retry_after}"
        return f"refused ({words}, delivered: {sent.delivered})"
    return f"failed ({sent.status or 'no answer'}: {sent.said})"
