"""The store in plain dictionaries: the model of every other store, and the store of simulations in virtual time.

Owns: workspaces, signs, restarts and tokens in memory (deferrals: `memory_queue`, the decision log: `memory_log`).
Knows nothing of: threads, files, real time. What it holds survives `aclose` and `open`, as a disk would.

Every call lets other tasks run once before it acts, as a real store does; the act itself is one step, so that each
call is a transaction.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from proxy.core.decision import Decision
from proxy.core.deferral import Deferral, State, StoredTask
from proxy.core.lifecycle import Desired
from proxy.core.restart import OPEN_PHASES, Restart, Trigger
from proxy.core.workspace import Workspace
from proxy.store import (
    WORKSPACE_TOKEN,
    Ending,
    Enqueued,
    LineOf,
    Placed,
    QueueLimits,
    Signs,
    Snapshot,
    Sought,
    StoreFailure,
    TaskOf,
    TokenRecord,
    no_line,
    no_task,
)
from proxy.store.laws import check_new
from proxy.store.memory_delivery import MemoryDelivery
from proxy.store.memory_instants import CYCLED, LIVED, SIGNED, ahead, merged, opinions_after
from proxy.store.memory_journal import MemoryJournal
from proxy.store.memory_log import MemoryLog
from proxy.store.memory_pushes import MemoryPushes
from proxy.store.memory_queue import MemoryQueues
from proxy.store.memory_task_lists import MemoryTaskLists


class MemoryStore(MemoryDelivery, MemoryPushes, MemoryTaskLists):
    """Keeps what `proxy.store.Store` promises, for as long as the object lives."""

    def __init__(self) -> None:
        self._is_open = False
        self._workspaces: dict[str, Workspace] = {}
        self._signs: dict[str, Signs] = {}
        self._restarts: dict[tuple[str, int], Restart] = {}
        self._tokens: dict[str, TokenRecord] = {}
        self._queues = MemoryQueues()
        self._journal = MemoryJournal(self._queues)
        self._pushes = {}
        self._push_tokens = {}
        self._log = MemoryLog()

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
                if cycle.phase in OPEN_PHASES or cycle.started_at > restarts_since or self._is_lasting(cycle)
            ],
            sizes=self._queues.sizes(),
            watched=self._queues.watched(completed_since),
            contexts=self._contexts(),
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
        self._log.append(decision)
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
        self._log.append(decision)
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
        self._log.append(decision)
        return True

    async def record_signs(self, signs: Mapping[str, Signs]) -> None:
        """See `Store.record_signs`."""
        said = dict(signs)
        await self._turn()
        for workspace_id, new in said.items():
            if workspace_id in self._workspaces:
                self._signs[workspace_id] = merged(self._signs.get(workspace_id, Signs()), new)

    async def amend(self, now: datetime, *, latest_try: datetime) -> int:
        """See `Store.amend`."""
        await self._turn()
        amended = self._queues.amend(now, latest_try)
        for workspace_id, workspace in self._workspaces.items():
            if late := ahead(workspace, LIVED, now) | opinions_after(workspace, now):
                self._workspaces[workspace_id] = replace(workspace, **late)
                amended += 1
        for workspace_id, signs in self._signs.items():
            if late := ahead(signs, SIGNED, now):
                self._signs[workspace_id] = replace(signs, **late)
                amended += 1
        for key, cycle in self._restarts.items():
            if late := ahead(cycle, CYCLED, now):
                self._restarts[key] = replace(cycle, **late)
                amended += 1
        return amended

    # Restarts

    async def save_restart(
        self,
        restart: Restart,
        *,
        held_by: str | None,
        now: datetime | None = None,
        decision: Decision | None = None,
    ) -> bool:
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
            self._log.append(decision)
        return is_ours

    async def restart(self, workspace_id: str, generation: int) -> Restart | None:
        """See `Store.restart`."""
        await self._turn()
        return self._restarts.get((workspace_id, generation))

    async def restarts(self, workspace_id: str, *, limit: int, before: int | None = None) -> Sequence[Restart]:
        """See `Store.restarts`."""
        await self._turn()
        found = [
            cycle
            for cycle in self._restarts.values()
            if cycle.workspace_id == workspace_id and (before is None or cycle.generation < before)
        ]
        return sorted(found, key=lambda cycle: -cycle.generation)[:limit]

    async def trim_restarts(self, *, after: datetime | None, before: datetime, limit: int) -> datetime | None:
        """See `Store.trim_restarts`."""
        await self._turn()
        moments = sorted(cycle.started_at for cycle in self._restarts.values())
        page = [at for at in moments if (after is None or at >= after) and at < before][:limit]
        for key, cycle in list(self._restarts.items()):
            is_old = page and page[0] <= cycle.started_at <= page[-1]
            if is_old and cycle.phase not in OPEN_PHASES and not self._is_lasting(cycle):
                del self._restarts[key]
        return page[-1] + timedelta(microseconds=1) if len(page) == limit else None

    def _is_lasting(self, cycle: Restart) -> bool:
        """The last of its workspace, or the last that no agent announced."""
        ours = [each for each in self._restarts.values() if each.workspace_id == cycle.workspace_id]
        started = [each.generation for each in ours if each.trigger is not Trigger.ANNOUNCED]
        return cycle.generation in {max(each.generation for each in ours), max(started, default=0)}

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
        expired_line: LineOf = no_line,
    ) -> Enqueued:
        """See `Store.enqueue`."""
        await self._turn()
        check_new(deferral)
        workspace = self._workspaces.get(deferral.workspace_id)
        if workspace is None or workspace.desired is Desired.REMOVED:
            return Enqueued(placed=Placed.GONE, deferral=None, depth=0)
        placed = self._queues.enqueue(deferral, limits, expired_task)
        if placed.expired is not None:
            self._log.append(expired_line(placed.expired))
        if placed.placed is Placed.INSERTED:
            self._came_with(deferral)
            self._log.append(decision)
        return placed

    async def deferral(self, deferral_id: str) -> Deferral | None:
        """See `Store.deferral`."""
        await self._turn()
        return self._queues.get(deferral_id)

    async def brief(self, deferral_id: str) -> Deferral | None:
        """See `Store.brief`."""
        await self._turn()
        return self._queues.brief(deferral_id)

    async def deferral_of_task(self, workspace_id: str, task_id: str) -> Deferral | None:
        """See `Store.deferral_of_task`."""
        await self._turn()
        return self._queues.of_task(workspace_id, task_id)

    async def deferrals(
        self,
        *,
        workspace_id: str | None = None,
        states: Sequence[State] = (),
        caller: str | None = None,
        limit: int = 100,
    ) -> Sequence[Deferral]:
        """See `Store.deferrals`."""
        await self._turn()
        return self._queues.listed(workspace_id, states, caller, limit)

    async def finish(
        self, deferral_id: str, lease_token: str | None, ending: Ending, *, decision: Decision | None = None
    ) -> Deferral | None:
        """See `Store.finish`."""
        await self._turn()
        ended = self._queues.finish(deferral_id, lease_token, ending)
        if ended is not None:
            self._log.append(decision)
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
            self._log.append(decision)
        return back

    # Decision log

    async def log(self, decisions: Sequence[Decision]) -> None:
        """See `Store.log`."""
        await self._turn()
        for decision in decisions:
            self._log.append(decision)

    async def decisions(self, workspace_id: str, *, limit: int) -> Sequence[Decision]:
        """See `Store.decisions`."""
        return await self.sought(Sought(workspace_id=workspace_id), limit=limit)

    async def sought(self, sought: Sought, *, limit: int) -> Sequence[Decision]:
        """See `Store.sought`."""
        await self._turn()
        return self._log.sought(sought, limit)

    async def trim_decisions(self, *, before: datetime, rows: int) -> int:
        """See `Store.trim_decisions`."""
        await self._turn()
        return self._log.trim(before, rows)
