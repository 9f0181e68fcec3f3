"""Tasks under provisional ids: who may see them, what they are now, and what the agent calls them.

Owns: mapping provisional ids to the agent's (and back), answering get and cancel for deferred tasks.
Knows nothing of: HTTP, how the deferral is delivered.

A provisional id says of itself that it is one, so only requests that name one ever come here. It belongs to the caller
who was given it; to everybody else it is an unknown task.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from proxy.clock import Now
from proxy.core import a2a
from proxy.core.decision import Decision
from proxy.core.deferral import ACTIVE, Deferral, RawHeaders, State, StoredTask
from proxy.core.tokens import Owner, TokenKind
from proxy.forward import UpstreamFailure
from proxy.loops.deferring import Deferring
from proxy.loops.dialing import Dialer
from proxy.loops.routing import Route
from proxy.loops.stored_requests import stored_call
from proxy.store import Store

TERMINAL = frozenset({"completed", "failed", "canceled", "rejected"})
OK = 200
CANCEL_WAIT = 5.0
"""Seconds that a cancel waits for a try under way; Python's SDK clients give up after five."""
CANCEL_LOOK = 0.05
"""Seconds between two looks at a deferral that somebody else has leased."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskAnswer:
    """What a get or cancel is answered: a status and a body in the caller's binding."""

    status: int
    body: bytes
    content_type: str = "application/json"


class Tasks:
    """Knows deferred tasks by their provisional ids. `tried` waits until a try that is under way here has ended."""

    def __init__(self, *, store: Store, deferring: Deferring, dialer: Dialer, now: Now, answer_limit: int) -> None:
        self._store = store
        self._deferring = deferring
        self._dialer = dialer
        self._now = now
        self._answer_limit = answer_limit
        self.tried: Callable[[str], Awaitable[None]] = _at_once

    async def find(self, route: Route, task_id: str, caller: Owner | None) -> Deferral | None:
        """The deferral behind a provisional id, if this caller may see it."""
        if not a2a.is_provisional(task_id):
            return None
        deferral = await self._store.deferral_of_task(route.id, task_id)
        return deferral if deferral is not None and may_see(deferral, caller) else None

    async def mapping(self, route: Route, call: a2a.Call, caller: Owner | None) -> dict[str, Deferral]:
        """Every provisional id that the call names and its caller may use, with its deferral."""
        named = dict.fromkeys(name for name in (call.task_id, *call.reference_task_ids) if name)
        found = {name: await self.find(route, name, caller) for name in named}
        return {name: deferral for name, deferral in found.items() if deferral is not None}

    async def outgoing(self, route: Route, deferral: Deferral) -> tuple[a2a.Call, bytes]:
        """What is sent when a deferral is replayed: its body with the agent's ids and the promised context in it."""
        call, body = stored_call(deferral), deferral.request.body
        if call.binding is a2a.Binding.OTHER:
            return call, body
        if a2a.PROVISIONAL_HINT.search(body):
            known = {}
            for name in (call.task_id, *call.reference_task_ids):
                if name and a2a.is_provisional(name):
                    other = await self._store.deferral_of_task(route.id, name)
                    if other is not None and other.upstream_task_id and other.caller == deferral.caller:
                        known[name] = other.upstream_task_id
            body = a2a.rename_task(body, call, known)
        if deferral.context_id is not None:
            body = a2a.with_context(body, call, deferral.context_id)
        return call, body

    async def get(self, route: Route, call: a2a.Call, deferral: Deferral, headers: RawHeaders) -> TaskAnswer:
        """Answer a get for a deferred task: from the store, or from the agent while the task is still open there."""
        task = deferral.task
        if task is not None and task.state not in TERMINAL:
            if deferral.state is State.COMPLETED:
                task = await self._ask_agent(route, call, deferral, headers) or task
            elif deferral.state not in ACTIVE:
                task = _failed(deferral, task, deferral.completed_at or self._now())
        if task is None:
            missing = a2a.task_not_found(call)
            return TaskAnswer(status=missing.status, body=missing.body, content_type=missing.content_type)
        return TaskAnswer(status=OK, body=a2a.task_answer(call, task.json, a2a.Version(task.version)))

    async def cancel(self, call: a2a.Call, deferral: Deferral) -> TaskAnswer | None:
        """Cancel a deferred task that was not delivered yet; None when the agent has it and must be asked.

        While it is being tried nobody knows yet whether the agent gets it: the outcome of that try is waited for, but
        not for long. What the agent then works on without having named its task cannot be canceled.
        """
        deferral, withdrawn = await self.withdraw(deferral, "canceled by its caller before it was delivered")
        if withdrawn and deferral.task is not None:
            body = a2a.task_answer(call, deferral.task.json, a2a.Version(deferral.task.version))
            return TaskAnswer(status=OK, body=body)
        is_open = deferral.task is not None and deferral.task.state not in TERMINAL
        if is_open and deferral.upstream_task_id is not None:
            return None
        refused = a2a.not_cancelable(call)
        return TaskAnswer(status=refused.status, body=refused.body, content_type=refused.content_type)

    async def withdraw(
        self, deferral: Deferral, reason: str, *, decision: Decision | None = None
    ) -> tuple[Deferral, bool]:
        """Cancel a deferral that is queued, or is so again soon: a try that is under way is waited for, not for long.

        Returns it as it is then, and whether this call cancelled it.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(CANCEL_WAIT):
                while deferral.state in ACTIVE:
                    ended = await self._cancel_queued(deferral, reason, decision)
                    if ended is not None:
                        return ended, True
                    await self.tried(deferral.id)
                    deferral = await self._store.deferral(deferral.id) or deferral
                    if deferral.state is State.LEASED:
                        await asyncio.sleep(CANCEL_LOOK)
        return deferral, False

    async def _cancel_queued(self, deferral: Deferral, reason: str, decision: Decision | None) -> Deferral | None:
        """End it if it is queued; None while it is being tried."""
        if deferral.state is not State.QUEUED:
            return None
        return await self._deferring.end(
            deferral, State.CANCELLED, reason, lease_token=None, task_state="canceled", decision=decision
        )

    async def _ask_agent(
        self, route: Route, call: a2a.Call, deferral: Deferral, headers: RawHeaders
    ) -> StoredTask | None:
        """What the agent says of an open task now, kept for later; None when it cannot be asked or does not know."""
        if deferral.task_id is None or deferral.upstream_task_id is None or deferral.context_id is None:
            return None
        if not route.serving:
            return None
        body = a2a.rename_task(call.body, call, {deferral.task_id: deferral.upstream_task_id})
        tail = "" if call.binding is a2a.Binding.JSONRPC else f"/tasks/{deferral.upstream_task_id}"
        try:
            async with self._dialer.call(
                route, method="POST" if tail == "" else "GET", tail=tail, headers=headers, body=body
            ) as answer:
                if answer.status != OK:
                    return None
                content = await answer.read(self._answer_limit)
        except UpstreamFailure:
            return None
        tasks = {deferral.upstream_task_id: deferral.task_id}
        contexts = {}
        if deferral.upstream_context_id is not None:
            contexts[deferral.upstream_context_id] = deferral.context_id
        kept = a2a.keep_task(call, a2a.rename_answer(content, tasks, contexts=contexts))
        if kept is None:
            return None
        stored = StoredTask(json=kept.task_json, version=kept.version.value, state=kept.state)
        await self._store.update_task(deferral.id, stored)
        self._deferring.followers.tell(deferral.id)
        return stored


def _failed(deferral: Deferral, task: StoredTask, at: datetime) -> StoredTask:
    """The task of a deferral that ended without being told: the store itself ended it, in passing."""
    said = a2a.failed_task(
        a2a.Version(task.version),
        task_id=deferral.task_id or "",
        context_id=deferral.context_id or "",
        state="failed",
        text=deferral.last_error or deferral.state.value,
        at=at,
    )
    return StoredTask(json=said, version=task.version, state="failed")


async def _at_once(_: str) -> None:
    """Nothing is being tried."""


def may_see(deferral: Deferral, caller: Owner | None) -> bool:
    """Whether a deferral is shown: to its caller, its target and the admin; where nobody authenticates, to all."""
    if caller is None:
        return deferral.caller is None
    if caller.kind is TokenKind.ADMIN:
        return True
    return caller.caller in {deferral.caller, f"{TokenKind.WORKSPACE}:{deferral.workspace_id}"}
