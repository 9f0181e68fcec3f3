"""The store in plain dictionaries: the model of every other store, and the store of simulations in virtual time.

Owns: workspaces, signs, restarts, tokens and decisions in memory (deferrals: `memory_queue`).
Knows nothing of: threads, files, real time. What it holds survives `aclose` and `open`, as a disk would.

Every call lets other tasks run once before it acts, as a real store does; the act itself is one step, so that each
call is a transaction.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from proxy.core.decision import Decision
from proxy.core.deferral import Deferral, Lease, State, StoredTask
from proxy.core.lifecycle import Desired
from proxy.core.restart import OPEN_PHASES, Restart
from proxy.core.workspace import Workspace
from proxy.store import (
    WORKSPACE_TOKEN,
    Ending,
    Enqueued,
    Placed,
    QueueLimits,
    Requeue,
    Signs,
    Snapshot,
    StoreFailure,
    TaskOf,
    TokenRecord,
    Watch,
    no_task,
)
from proxy.store.laws import check_new
from proxy.store.memory_queue import MemoryQueues

LIVED = (
    "created_at",
    "registered_at",
    "started_at",
    "ready_at",
    "exited_at",
    "announced_at",
    "restart_started_at",
    "restart_returned_at",
    "stopped_at",
    "abandoned_at",
)
SIGNED = ("last_sign_at", "last_heartbeat_at", "agent_down_at")
CYCLED = ("started_at", "returned_at", "finished_at")


def _ahead(row: object, names: Sequence[str], now: datetime) -> dict[str, Any]:
    """The named instants of a record that are later than now, moved back to it."""
    return {name: now for name in names if (getattr(row, name) or now) > now}


def _opinions_after(workspace: Workspace, now: datetime) -> dict[str, Any]:
    """The strikes and the verdict of a workspace where they are later than now, moved back to it."""
    strikes, verdict = workspace.strikes, workspace.last_verdict
    late: dict[str, Any] = {}
    if strikes.first_at is not None and strikes.first_at > now:
        late["strikes"] = replace(strikes, first_at=now)
    if verdict is not None and verdict.at > now:
        late["last_verdict"] = replace(verdict, at=now)
    return late


class MemoryStore:
    """Keeps what `proxy.store.Store` promises, for as long as the object lives."""

    def __init__(self) -> None:
        self._is_open = False
        self._workspaces: dict[str, Workspace] = {}
        self._signs: dict[str, Signs] = {}
        self._restarts: dict[tuple[str, int], Restart] = {}
        self._tokens: dict[str, TokenRecord] = {}
        self._queues = MemoryQueues()
        self._decisions: dict[str, list[tuple[int, Decision]]] = {}
        self._last_decision = 0

    async def open(self) -> None:
        """See `Store.open`."""
        self._is_open = True

    async def aclose(self) -> None:
        """See `Store.aclose`."""
        self._is_open = False

    async def _turn(self) -> None:
        if not self._is_open:
            raise StoreFailure("closed", "the store is not open")
        await asyncio.sleep(0)

    async def ping(self) -> float:
        """See `Store.ping`; it takes no time here."""
        await self._turn()
        return 0.0

    async def snapshot(self, *, restarts_since: datetime, completed_since: datetime) -> Snapshot:
        """See `Store.snapshot`."""
        await self._turn()
        return Snapshot(
            workspaces=[self._workspaces[workspace_id] for workspace_id in sorted(self._workspaces)],
            signs=dict(self._signs),
            tokens=sorted(self._tokens.values(), key=lambda token: (token.created_at, token.id)),
            restarts=[
                cycle
                for _, cycle in sorted(self._restarts.items())
                if cycle.phase in OPEN_PHASES or cycle.started_at > restarts_since
            ],
            sizes=self._queues.sizes(),
            watched=self._queues.watched(completed_since),
        )

    # Workspaces

    async def workspace(self, workspace_id: str) -> Workspace | None:
        """See `Store.workspace`."""
        await self._turn()
        return self._workspaces.get(workspace_id)

    async def create(
        self, workspace: Workspace, *, token: TokenRecord | None = None, decision: Decision | None = None
    ) -> Workspace | None:
        """See `Store.create`."""
        await self._turn()
        if workspace.id in self._workspaces:
            return None
        self._put_token(token)
        self._workspaces[workspace.id] = workspace
        self._queues.add_workspace(workspace.id)
        self._append(decision)
        return workspace

    async def replace(
        self,
        workspace: Workspace,
        *,
        restart: Restart | None = None,
        token: TokenRecord | None = None,
        retire_tokens: bool = False,
        no_sign_after: datetime | None = None,
        decision: Decision | None = None,
    ) -> Workspace | None:
        """See `Store.replace`."""
        await self._turn()
        last_sign = self._signs.get(workspace.id, Signs()).last_sign_at
        if no_sign_after is not None and last_sign is not None and last_sign > no_sign_after:
            return None
        if not self._is_current(workspace):
            return None
        if restart is not None and (restart.workspace_id, restart.generation) in self._restarts:
            raise StoreFailure("conflict", f"workspace {workspace.id} has a restart {restart.generation}")
        retired = {
            known.id
            for known in self._tokens.values()
            if retire_tokens
            and (known.kind, known.name) == (WORKSPACE_TOKEN, workspace.id)
            and known.incarnation is not None
            and known.incarnation < workspace.incarnation
        }
        self._put_token(token, besides=retired)
        for token_id in retired - ({token.id} if token else set()):
            del self._tokens[token_id]
        if restart is not None:
            self._restarts[restart.workspace_id, restart.generation] = restart
        self._append(decision)
        return self._advance(workspace)

    def _is_current(self, workspace: Workspace) -> bool:
        known = self._workspaces.get(workspace.id)
        return known is not None and known.version == workspace.version

    def _advance(self, workspace: Workspace) -> Workspace:
        saved = replace(workspace, version=workspace.version + 1)
        self._workspaces[workspace.id] = saved
        return saved

    async def remove(self, workspace: Workspace, *, at: datetime, reason: str, decision: Decision) -> bool:
        """See `Store.remove`."""
        await self._turn()
        if not self._is_current(workspace):
            return False
        self._advance(replace(workspace, desired=Desired.REMOVED))
        self._tokens = {
            token.id: token
            for token in self._tokens.values()
            if (token.kind, token.name) != (WORKSPACE_TOKEN, workspace.id)
        }
        self._queues.cancel_all(workspace.id, at, reason)
        self._append(decision)
        return True

    async def record_signs(self, signs: Mapping[str, Signs]) -> None:
        """See `Store.record_signs`."""
        said = dict(signs)
        await self._turn()
        for workspace_id, new in said.items():
            if workspace_id in self._workspaces:
                self._signs[workspace_id] = _merge(self._signs.get(workspace_id, Signs()), new)

    async def amend(self, now: datetime, *, latest_try: datetime) -> int:
        """See `Store.amend`."""
        await self._turn()
        amended = self._queues.amend(now, latest_try)
        for workspace_id, workspace in self._workspaces.items():
            if late := _ahead(workspace, LIVED, now) | _opinions_after(workspace, now):
                self._workspaces[workspace_id] = replace(workspace, **late)
                amended += 1
        for workspace_id, signs in self._signs.items():
            if late := _ahead(signs, SIGNED, now):
                self._signs[workspace_id] = replace(signs, **late)
                amended += 1
        for key, cycle in self._restarts.items():
            if late := _ahead(cycle, CYCLED, now):
                self._restarts[key] = replace(cycle, **late)
                amended += 1
        return amended

    # Restarts

    async def save_restart(self, restart: Restart, *, held_by: str | None, now: datetime | None = None) -> bool:
        """See `Store.save_restart`."""
        if held_by is None and now is None:
            raise ValueError("taking a restart over needs now, to know whether its lease ran out")
        await self._turn()
        known = self._restarts.get((restart.workspace_id, restart.generation))
        if known is None or known.phase not in OPEN_PHASES:
            return False
        if held_by is not None:
            is_ours = known.lease_owner == held_by
        else:
            is_ours = known.lease_until is None or (now is not None and known.lease_until <= now)
        if is_ours:
            self._restarts[restart.workspace_id, restart.generation] = restart
        return is_ours

    async def restarts(self, workspace_id: str, *, limit: int) -> Sequence[Restart]:
        """See `Store.restarts`."""
        await self._turn()
        found = [cycle for cycle in self._restarts.values() if cycle.workspace_id == workspace_id]
        return sorted(found, key=lambda cycle: -cycle.generation)[:limit]

    # Tokens

    async def add_token(self, token: TokenRecord) -> None:
        """See `Store.add_token`."""
        await self._turn()
        self._put_token(token)

    def _put_token(self, token: TokenRecord | None, besides: Sequence[str] | set[str] = ()) -> None:
        if token is None:
            return
        for known in self._tokens.values():
            if known.id not in besides and (known.id == token.id or known.digest == token.digest):
                raise StoreFailure("conflict", f"there is a token {known.id}")
        self._tokens[token.id] = token

    async def drop_token(self, token_id: str) -> TokenRecord | None:
        """See `Store.drop_token`."""
        await self._turn()
        return self._tokens.pop(token_id, None)

    # Deferrals

    async def enqueue(
        self,
        deferral: Deferral,
        *,
        limits: QueueLimits,
        decision: Decision | None = None,
        expired_task: TaskOf = no_task,
    ) -> Enqueued:
        """See `Store.enqueue`."""
        await self._turn()
        check_new(deferral)
        workspace = self._workspaces.get(deferral.workspace_id)
        if workspace is None or workspace.desired is Desired.REMOVED:
            return Enqueued(placed=Placed.GONE, deferral=None, depth=0)
        placed = self._queues.enqueue(deferral, limits, expired_task)
        if placed.placed is Placed.INSERTED:
            self._append(decision)
        return placed

    async def deferral(self, deferral_id: str) -> Deferral | None:
        """See `Store.deferral`."""
        await self._turn()
        return self._queues.get(deferral_id)

    async def deferral_of_task(self, workspace_id: str, task_id: str) -> Deferral | None:
        """See `Store.deferral_of_task`."""
        await self._turn()
        return self._queues.of_task(workspace_id, task_id)

    async def deferrals(
        self, *, workspace_id: str | None = None, states: Sequence[State] = (), limit: int = 100
    ) -> Sequence[Deferral]:
        """See `Store.deferrals`."""
        await self._turn()
        return self._queues.listed(workspace_id, states, limit)

    async def claim(self, workspace_id: str, *, leases: Sequence[Lease], now: datetime) -> Sequence[Deferral]:
        """See `Store.claim`."""
        await self._turn()
        return self._queues.claim(workspace_id, leases, now)

    async def extend(self, deferral_id: str, lease_token: str, *, until: datetime) -> bool:
        """See `Store.extend`."""
        await self._turn()
        return self._queues.extend(deferral_id, lease_token, until)

    async def finish(
        self, deferral_id: str, lease_token: str | None, ending: Ending, *, decision: Decision | None = None
    ) -> Deferral | None:
        """See `Store.finish`."""
        await self._turn()
        ended = self._queues.finish(deferral_id, lease_token, ending)
        if ended is not None:
            self._append(decision)
        return ended

    async def redrive(
        self,
        deferral_id: str,
        *,
        now: datetime,
        expires_at: datetime,
        task: StoredTask | None = None,
        decision: Decision | None = None,
    ) -> Deferral | None:
        """See `Store.redrive`."""
        await self._turn()
        dead = self._queues.get(deferral_id)
        workspace = self._workspaces.get(dead.workspace_id) if dead is not None else None
        if workspace is None or workspace.desired is Desired.REMOVED:
            return None
        back = self._queues.redrive(deferral_id, now, expires_at, task)
        if back is not None:
            self._append(decision)
        return back

    async def learn_task(self, deferral_id: str, lease_token: str, upstream_task_id: str, task: StoredTask) -> bool:
        """See `Store.learn_task`."""
        await self._turn()
        return self._queues.learn_task(deferral_id, lease_token, upstream_task_id, task)

    async def update_task(self, deferral_id: str, task: StoredTask) -> bool:
        """See `Store.update_task`."""
        await self._turn()
        return self._queues.update_task(deferral_id, task)

    async def release(self, deferral_id: str, lease_token: str, requeue: Requeue) -> bool:
        """See `Store.release`."""
        await self._turn()
        return self._queues.release(deferral_id, lease_token, requeue)

    async def hasten(self, workspace_id: str, now: datetime) -> None:
        """See `Store.hasten`."""
        await self._turn()
        self._queues.hasten(workspace_id, now)

    async def release_expired(self, now: datetime) -> Sequence[Watch]:
        """See `Store.release_expired`."""
        await self._turn()
        return self._queues.release_expired(now)

    async def release_owned(self, owner: str, now: datetime) -> Sequence[Watch]:
        """See `Store.release_owned`."""
        await self._turn()
        return self._queues.release_owned(owner, now)

    async def due(self, now: datetime, *, limit: int) -> Sequence[str]:
        """See `Store.due`."""
        await self._turn()
        return self._queues.due(now, limit)

    async def overdue(self, now: datetime, *, limit: int) -> Sequence[Deferral]:
        """See `Store.overdue`."""
        await self._turn()
        return self._queues.overdue(now, limit)

    async def stale(self, *, before: datetime, workspace_id: str | None = None, limit: int) -> Sequence[Deferral]:
        """See `Store.stale`."""
        await self._turn()
        return self._queues.stale(before, workspace_id, limit)

    async def purge(self, *, ended_before: datetime, limit: int) -> int:
        """See `Store.purge`."""
        await self._turn()
        return self._queues.purge(ended_before, limit)

    # Decision log

    def _append(self, decision: Decision | None) -> None:
        if decision is not None:
            self._last_decision += 1
            self._decisions.setdefault(decision.workspace_id, []).append((self._last_decision, decision))

    async def log(self, decisions: Sequence[Decision]) -> None:
        """See `Store.log`."""
        await self._turn()
        for decision in decisions:
            self._append(decision)

    async def decisions(self, workspace_id: str, *, limit: int) -> Sequence[Decision]:
        """See `Store.decisions`."""
        await self._turn()
        return [decision for _, decision in reversed(self._decisions.get(workspace_id, []))][:limit]

    async def trim_decisions(self, *, before: datetime, rows: int) -> int:
        """See `Store.trim_decisions`."""
        await self._turn()
        trimmed = 0
        for workspace_id, logged in self._decisions.items():
            young = [entry for entry in logged if entry[1].at >= before]
            kept = young[-rows:] if rows > 0 else young
            trimmed += len(logged) - len(kept)
            self._decisions[workspace_id] = kept
        return trimmed


def _merge(known: Signs, new: Signs) -> Signs:
    last_sign_at = _later(known.last_sign_at, new.last_sign_at)
    agent_down_at = _later(known.agent_down_at, new.agent_down_at)
    if agent_down_at is not None and last_sign_at is not None and last_sign_at > agent_down_at:
        agent_down_at = None
    return Signs(
        last_sign_at=last_sign_at,
        last_heartbeat_at=_later(known.last_heartbeat_at, new.last_heartbeat_at),
        agent_down_at=agent_down_at,
        active_tasks=known.active_tasks if new.active_tasks is None else new.active_tasks,
        max_concurrent=known.max_concurrent if new.max_concurrent is None else new.max_concurrent,
        progress=known.progress if new.progress is None else new.progress,
    )


def _later(one: datetime | None, other: datetime | None) -> datetime | None:
    if one is None or other is None:
        return other if one is None else one
    return max(one, other)
