"""How the store in memory answers what holders of leases ask, and what time does to deferrals.

Owns: one turn of the event loop for each call. Knows nothing of: the rules (`memory_queue`, `memory_journal`).
"""

from collections.abc import Mapping, Sequence
from datetime import datetime

from proxy.core.decision import Decision
from proxy.core.deferral import Deferral, Lease, StoredTask
from proxy.store import LineOf, QueueSize, Requeue, Watch, no_line
from proxy.store.journal import Appended, Events, JournalEvent, JournalLimits
from proxy.store.memory_journal import MemoryJournal
from proxy.store.memory_log import MemoryLog
from proxy.store.memory_queue import MemoryQueues
from proxy.store.outlook import Outlook


class MemoryDelivery:
    """The part of `MemoryStore` that hands out leases and takes them back."""

    _queues: MemoryQueues
    _journal: MemoryJournal
    _log: MemoryLog

    async def _turn(self) -> None:
        """Let other tasks run once."""
        raise NotImplementedError

    async def claim(
        self,
        workspace_id: str,
        *,
        leases: Sequence[Lease],
        now: datetime,
        line: LineOf = no_line,
        most_bytes: int = 0,
    ) -> Sequence[Deferral]:
        """See `Store.claim`."""
        await self._turn()
        claimed = self._queues.claim(workspace_id, leases, now, most_bytes)
        for deferral in claimed:
            self._log.append(line(deferral))
        return claimed

    async def extend(self, deferral_id: str, lease_token: str, *, until: datetime) -> bool:
        """See `Store.extend`."""
        await self._turn()
        return self._queues.extend(deferral_id, lease_token, until)

    async def learn_task(self, deferral_id: str, lease_token: str, upstream_task_id: str, task: StoredTask) -> bool:
        """See `Store.learn_task`."""
        await self._turn()
        return self._queues.learn_task(deferral_id, lease_token, upstream_task_id, task)

    async def update_task(self, deferral_id: str, task: StoredTask) -> bool:
        """See `Store.update_task`."""
        await self._turn()
        return self._queues.update_task(deferral_id, task)

    async def release(
        self, deferral_id: str, lease_token: str, requeue: Requeue, *, decision: Decision | None = None
    ) -> bool:
        """See `Store.release`."""
        await self._turn()
        released = self._queues.release(deferral_id, lease_token, requeue)
        if released:
            self._log.append(decision)
        return released

    async def hasten(self, workspace_id: str, now: datetime, *, turned_away: bool = False) -> None:
        """See `Store.hasten`."""
        await self._turn()
        self._queues.hasten(workspace_id, now, turned_away=turned_away)

    async def release_expired(self, now: datetime) -> Sequence[Watch]:
        """See `Store.release_expired`."""
        await self._turn()
        return self._queues.release_expired(now)

    async def release_polled(self, workspace_id: str, *, but: str | None, error: str, now: datetime) -> Sequence[Watch]:
        """See `Store.release_polled`."""
        await self._turn()
        return self._queues.release_polled(workspace_id, but, error, now)

    async def outlook(self, workspace_id: str, now: datetime) -> Outlook:
        """See `Store.outlook`."""
        await self._turn()
        return self._queues.outlook(workspace_id, now)

    async def release_owned(self, owner: str, now: datetime) -> Sequence[Watch]:
        """See `Store.release_owned`."""
        await self._turn()
        return self._queues.release_owned(owner, now)

    async def queue_sizes(self) -> Mapping[str, QueueSize]:
        """See `Store.queue_sizes`."""
        await self._turn()
        return self._queues.sizes()

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

    # Stream journal

    async def append_events(
        self, deferral_id: str, lease_token: str, events: Events, *, until: datetime, limits: JournalLimits
    ) -> Appended | None:
        """See `Journal.append_events`."""
        await self._turn()
        return self._journal.append(deferral_id, lease_token, events, until, limits)

    async def journal_size(self, deferral_id: str) -> int:
        """See `Journal.journal_size`."""
        await self._turn()
        return self._journal.size(deferral_id)

    async def journal(self, deferral_id: str, *, after: int = 0, limit: int = 100) -> Sequence[JournalEvent]:
        """See `Journal.journal`."""
        await self._turn()
        return self._journal.read(deferral_id, after, limit)
