"""Deferred tasks: who may see them, what they are now, what their agents say of them, and canceling them.

Owns: answering for tasks from the store, keeping what agents answer about open ones, withdrawing what waits.
Knows nothing of: HTTP, how the deferral is delivered, how calls reach the agent (`web.deferred_tasks`), lists.

A provisional id says of itself that it is one, so only requests that name one ever come here, and those about a task of
the agent's to which a message waits (`Route.tasks`). A task belongs to the caller who was given it; to everybody else
it is unknown.
"""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from proxy.clock import Now
from proxy.core import a2a
from proxy.core.decision import Decision
from proxy.core.deferral import ACTIVE, Deferral, State, StoredTask
from proxy.core.tokens import Owner, TokenKind
from proxy.loops.continuing import aliases, outgoing, standing
from proxy.loops.deferring import Deferring
from proxy.loops.routing import Route
from proxy.store import Store, StoreFailure

TERMINAL = frozenset({"completed", "failed", "canceled", "rejected"})
OK = 200
CANCEL_WAIT = 4.0
"""Seconds that a cancel waits for a try under way; Python's SDK clients give up after five."""
DIALLING = 1.0
"""Seconds that it waits for the try of a later message to a task that the agent has: nobody answers it, perhaps."""
CANCEL_LOOK = 0.5
"""Seconds between two looks at a deferral that another process may have leased: nobody rings for that one."""
MOST_OF_A_TASK = 1000
"""Messages of one task that are withdrawn together."""
CANCELED = "canceled by its caller before it was delivered"
FORGOTTEN = "The agent does not know this task any more."


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskAnswer:
    """What a call about a task is answered: a status and a body in the caller's binding."""

    status: int
    body: bytes
    content_type: str = "application/json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Withdrawal:
    """What a cancel has come to: the task's latest deferral, and whether something of it was withdrawn.

    `at_agent`: the agent has the task, and must be asked to cancel it.
    """

    deferral: Deferral
    withdrawn: bool
    at_agent: bool


class Tasks:
    """Knows deferred tasks by the ids that their callers have."""

    def __init__(self, *, store: Store, deferring: Deferring, now: Now) -> None:
        self._store = store
        self._deferring = deferring
        self._now = now

    # Who

    async def find(self, route: Route, task_id: str, caller: Owner | None) -> Deferral | None:
        """The latest deferral of a task that has a provisional id, or a message waiting, if this caller may see it."""
        if not a2a.is_provisional(task_id) and task_id not in route.tasks:
            return None
        deferral = await self._store.deferral_of_task(route.id, task_id)
        return deferral if deferral is not None and may_see(deferral, caller) else None

    async def mapping(self, route: Route, call: a2a.Call, caller: Owner | None) -> dict[str, Deferral]:
        """Every task that the call names, is known here and its caller may use, with its latest deferral."""
        named = dict.fromkeys(name for name in (call.task_id, *call.reference_task_ids) if name)
        found = {name: await self.find(route, name, caller) for name in named}
        return {name: deferral for name, deferral in found.items() if deferral is not None}

    async def aliases(
        self, route: Route, call: a2a.Call, known: Mapping[str, Deferral]
    ) -> tuple[Mapping[str, str], Mapping[str, str]]:
        """What the agent calls the known tasks, and their contexts."""
        owner = next((deferral.caller for deferral in known.values()), None)
        return await aliases(self._store, route, call, owner)

    async def outgoing(self, route: Route, deferral: Deferral) -> tuple[a2a.Call, bytes]:
        """See `continuing.outgoing`."""
        return await outgoing(self._store, route, deferral)

    async def standing(self, route: Route, deferral: Deferral) -> StoredTask | None:
        """See `continuing.standing`."""
        return await standing(self._store, route, deferral)

    # What

    def is_open(self, deferral: Deferral) -> bool:
        """The agent has answered, and its task has not ended: it knows more than the store does."""
        task = deferral.task
        return deferral.state is State.COMPLETED and task is not None and task.state not in TERMINAL

    def has_ended(self, deferral: Deferral) -> bool:
        """Nothing more will become of the task."""
        return deferral.state not in ACTIVE and not self.is_open(deferral)

    def answer(self, call: a2a.Call, deferral: Deferral) -> TaskAnswer:
        """The task as it is kept."""
        task = deferral.task
        if task is None:
            return refused(a2a.task_not_found(call))
        if task.state not in TERMINAL and self.has_ended(deferral):
            task = self._ended(deferral, deferral.last_error or deferral.state.value, deferral.completed_at)
        return TaskAnswer(status=OK, body=a2a.task_answer(call, task.json, a2a.Version(task.version)))

    async def keep(
        self, call: a2a.Call, deferral: Deferral, status: int, answer: bytes, caller: str | None
    ) -> TaskAnswer | None:
        """Keep what the agent answers about an open task, its ids mapped already; return what is answered instead.

        An agent that does not know the task has forgotten it: nothing will ever come of it. That is kept when the
        task's own caller asked; anybody else may have come with credentials for which the agent hides it.
        """
        kept = a2a.keep_task(call, answer) if status == OK else None
        if kept is not None:
            if a2a.task_id_of(kept.task_json) == deferral.task_id:
                await self._update(deferral, StoredTask(json=kept.task_json, version=kept.version, state=kept.state))
            return None
        if call.deferrable or not self.is_open(deferral) or not a2a.says_not_found(call, status, answer):
            return None
        if caller == deferral.caller:
            await self._update(deferral, self._ended(deferral, FORGOTTEN, self._now()))
        if call.operation is a2a.Operation.CANCEL:
            return refused(a2a.not_cancelable(call))
        if call.operation is a2a.Operation.GET and deferral.task is not None:
            shown = self._ended(deferral, FORGOTTEN, self._now())
            return TaskAnswer(status=OK, body=a2a.task_answer(call, shown.json, a2a.Version(shown.version)))
        return None

    async def kept(self, deferral: Deferral, task: a2a.KeptTask) -> None:
        """Keep what a stream that was passed on has made of an open task."""
        await self._update(deferral, StoredTask(json=task.task_json, version=task.version.value, state=task.state))

    async def _update(self, deferral: Deferral, task: StoredTask) -> None:
        """A store that cannot take it costs the caller nothing: the agent is asked again the next time."""
        with suppress(StoreFailure):
            if task != deferral.task and await self._store.update_task(deferral.id, task):
                self._deferring.followers.tell(deferral.id)

    def _ended(self, deferral: Deferral, text: str, at: datetime | None) -> StoredTask:
        """The task, failed: its agent has lost it, or the store itself ended its deferral, in passing."""
        task = deferral.task
        version = task.version if task is not None else deferral.protocol
        said = a2a.ended_task(
            task.json if task is not None else b"{}",
            a2a.Version(version),
            task_id=deferral.task_id or "",
            context_id=deferral.context_id or "",
            state="failed",
            text=text,
            at=at or self._now(),
        )
        return StoredTask(json=said, version=version, state="failed")

    # Canceling

    async def cancel(self, route: Route, deferral: Deferral) -> Withdrawal:
        """Withdraw every message of a task that waits.

        While one is being tried nobody knows yet whether the agent gets it: once the agent has named the task it is
        asked; until then the outcome of that try is waited for, but not for long. What the agent then works on without
        having named its task cannot be canceled. A later message to a task that the agent has named already may find
        it away; the outcome of its try is waited for a moment, too, before the agent is asked.
        """
        withdrawn = at_agent = False
        known = await self._store.deferrals_of_task(route.id, deferral.task_id or "", limit=MOST_OF_A_TASK)
        latest = known[0] if known else deferral  # it may have ended since the caller's call was read
        for each in [each for each in known if each.state in ACTIVE and each.caller == deferral.caller]:
            ended, is_ours, is_named = await self._withdraw(route, each, CANCELED)
            withdrawn, at_agent = withdrawn or is_ours, at_agent or is_named
            if each.id == latest.id:
                latest = ended
        if not at_agent:
            before: Sequence[Deferral] = [each for each in known if each.state not in ACTIVE]
            at_agent = self.is_open(latest) or (withdrawn and bool(before) and self.is_open(before[0]))
        return Withdrawal(deferral=latest, withdrawn=withdrawn, at_agent=at_agent)

    async def withdraw(
        self, deferral: Deferral, reason: str, *, decision: Decision | None = None
    ) -> tuple[Deferral, bool]:
        """Cancel a deferral that is queued, or is so again soon: a try that is under way is waited for, not for long.

        Returns it as it is then, and whether this call cancelled it.
        """
        ended, is_ours, _ = await self._withdraw(None, deferral, reason, decision)
        return ended, is_ours

    async def _withdraw(
        self, route: Route | None, deferral: Deferral, reason: str, decision: Decision | None = None
    ) -> tuple[Deferral, bool, bool]:
        """The same, with a third word: whether the agent turned out to have the task (asked only with a route)."""
        dialling = asyncio.get_running_loop().time() + DIALLING
        with self._deferring.followers.follow(deferral.id) as following, suppress(TimeoutError):
            async with asyncio.timeout(CANCEL_WAIT):
                while deferral.state in ACTIVE:
                    ended = await self._cancel_queued(deferral, reason, decision)
                    if ended is not None:
                        return ended, True, False
                    deferral = await self._store.deferral(deferral.id) or deferral
                    if deferral.state is not State.LEASED:
                        continue
                    if route is not None and await self._is_named(route, deferral):
                        is_there = deferral.upstream_task_id is not None
                        if is_there or asyncio.get_running_loop().time() >= dialling:
                            return deferral, False, True
                    await following.news(CANCEL_LOOK)
        return deferral, False, False

    async def _is_named(self, route: Route, deferral: Deferral) -> bool:
        return deferral.task_id is not None and await self._store.alias_of_task(route.id, deferral.task_id) is not None

    async def _cancel_queued(self, deferral: Deferral, reason: str, decision: Decision | None) -> Deferral | None:
        """End it if it is queued; None while it is being tried."""
        if deferral.state is not State.QUEUED:
            return None
        return await self._deferring.end(
            deferral, State.CANCELLED, reason, lease_token=None, task_state="canceled", decision=decision
        )


def refused(error: a2a.ErrorAnswer) -> TaskAnswer:
    """An error of the protocol as an answer."""
    return TaskAnswer(status=error.status, body=error.body, content_type=error.content_type)


def may_see(deferral: Deferral, caller: Owner | None) -> bool:
    """Whether a deferral is shown: to its caller, its target and the admin; where nobody authenticates, to all."""
    if caller is None:
        return deferral.caller is None
    if caller.kind is TokenKind.ADMIN:
        return True
    return caller.caller in {deferral.caller, f"{TokenKind.WORKSPACE}:{deferral.workspace_id}"}
