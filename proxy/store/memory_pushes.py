"""How the store in memory keeps push notifications.

Owns: the receivers of every deferral that is there. Knows nothing of: what the sealed bytes hold.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from proxy.core.deferral import Deferral, Lease, StoredPush
from proxy.store.memory_queue import MemoryQueues
from proxy.store.pushes import Progress, Push, Receiver


class MemoryPushes:
    """The part of `MemoryStore` that is about push notifications."""

    _queues: MemoryQueues
    _pushes: dict[tuple[str, str], Push]
    _push_tokens: dict[tuple[str, str], str]

    async def _turn(self) -> None:
        """Let other tasks run once."""
        raise NotImplementedError

    def _put_push(self, deferral_id: str, stored: StoredPush, progress: Progress) -> None:
        self._pushes[deferral_id, stored.id] = Push(deferral_id=deferral_id, stored=stored, progress=progress)
        self._push_tokens.pop((deferral_id, stored.id), None)

    def _came_with(self, deferral: Deferral) -> None:
        """Keep the receiver that a new deferral brought along."""
        if deferral.push is not None:
            self._put_push(deferral.id, deferral.push, Progress())

    def _of(self, deferral_id: str) -> list[Push]:
        """The receivers of a deferral; those of one that was purged are gone with it."""
        if self._queues.get(deferral_id) is None:
            for key in [key for key in self._pushes if key[0] == deferral_id]:
                del self._pushes[key]
        return [self._pushes[key] for key in sorted(self._pushes) if key[0] == deferral_id]

    async def put_push(self, deferral_id: str, stored: StoredPush, progress: Progress, *, most: int) -> bool | None:
        """See `Pushes.put_push`."""
        await self._turn()
        if self._queues.get(deferral_id) is None:
            return None
        if sum(push.stored.id != stored.id for push in self._of(deferral_id)) >= most:
            return False
        self._put_push(deferral_id, stored, progress)
        return True

    async def pushes(self, deferral_id: str) -> Sequence[Push]:
        """See `Pushes.pushes`."""
        await self._turn()
        return self._of(deferral_id)

    async def pushes_of_task(self, workspace_id: str, task_id: str) -> Sequence[Push]:
        """See `Pushes.pushes_of_task`."""
        await self._turn()
        named = (workspace_id, task_id)
        rows = [row for key, _ in list(self._pushes) if (row := self._queues.get(key)) is not None]
        ids = {row.id for row in rows if (row.workspace_id, row.task_id) == named}
        return sorted((push for each in ids for push in self._of(each)), key=lambda push: push.stored.id)

    async def move_push(self, deferral_id: str, push_id: str, to: str, progress: Progress) -> bool:
        """See `Pushes.move_push`."""
        await self._turn()
        known = next((push for push in self._of(deferral_id) if push.stored.id == push_id), None)
        if known is None or known.owner is not None or self._queues.get(to) is None:
            return False
        del self._pushes[deferral_id, push_id]
        if (to, push_id) not in self._pushes:
            self._put_push(to, known.stored, progress)
        return True

    async def drop_push(self, deferral_id: str, push_id: str) -> bool:
        """See `Pushes.drop_push`."""
        await self._turn()
        self._push_tokens.pop((deferral_id, push_id), None)
        return self._pushes.pop((deferral_id, push_id), None) is not None

    async def receivers(self) -> Sequence[Receiver]:
        """See `Pushes.receivers`."""
        await self._turn()
        known = dict.fromkeys(deferral_id for deferral_id, _ in self._pushes)
        rows = [row for deferral_id in known if (row := self._queues.get(deferral_id)) is not None]
        rows.sort(key=lambda row: row.seq)
        return [Receiver(row.id, push.stored.id, push.progress.told) for row in rows for push in self._of(row.id)]

    async def lease_push(self, deferral_id: str, push_id: str, lease: Lease, *, now: datetime) -> Push | None:
        """See `Pushes.lease_push`."""
        await self._turn()
        known = next((push for push in self._of(deferral_id) if push.stored.id == push_id), None)
        if known is None or (known.leased_until is not None and known.leased_until > now):
            return None
        leased = replace(known, owner=lease.owner, leased_until=lease.until)
        self._pushes[deferral_id, push_id] = leased
        self._push_tokens[deferral_id, push_id] = lease.token
        return leased

    async def told_push(self, deferral_id: str, push_id: str, lease_token: str, progress: Progress) -> bool:
        """See `Pushes.told_push`."""
        await self._turn()
        key = (deferral_id, push_id)
        if key not in self._pushes or self._push_tokens.get(key) != lease_token:
            return False
        self._put_push(deferral_id, self._pushes[key].stored, progress)
        return True

    async def release_pushes(self, owner: str) -> int:
        """See `Pushes.release_pushes`."""
        await self._turn()
        held = [key for key, push in self._pushes.items() if push.owner == owner]
        for key in held:
            self._pushes[key] = replace(self._pushes[key], owner=None, leased_until=None)
            self._push_tokens.pop(key, None)
        return len(held)
