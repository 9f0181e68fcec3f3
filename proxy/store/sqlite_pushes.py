"""How the store on SQLite keeps push notifications.

Owns: which unit of work each call is. Knows nothing of: connections, texts, what a unit does.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import TypeVar

from proxy.core.deferral import Lease, StoredPush
from proxy.store.pushes import Progress, Push, Receiver
from proxy.store.units import Unit, pushes

T = TypeVar("T")


class SqlitePushes:
    """The part of `SqliteStore` that is about push notifications."""

    async def _write(self, make: Callable[[], Unit[T]]) -> T:
        """Run a unit of work that writes."""
        raise NotImplementedError

    async def _read(self, make: Callable[[], Unit[T]]) -> T:
        """Run a unit of work that only reads."""
        raise NotImplementedError

    async def put_push(self, deferral_id: str, stored: StoredPush, progress: Progress, *, most: int) -> bool | None:
        """See `Pushes.put_push`."""
        return await self._write(partial(pushes.put, deferral_id, stored, progress, most))

    async def pushes(self, deferral_id: str) -> Sequence[Push]:
        """See `Pushes.pushes`."""
        return await self._read(partial(pushes.pushes, deferral_id))

    async def pushes_of_task(self, workspace_id: str, task_id: str) -> Sequence[Push]:
        """See `Pushes.pushes_of_task`."""
        return await self._read(partial(pushes.of_task, workspace_id, task_id))

    async def move_push(self, deferral_id: str, push_id: str, to: str, progress: Progress) -> bool:
        """See `Pushes.move_push`."""
        return await self._write(partial(pushes.move, deferral_id, push_id, to, progress))

    async def drop_push(self, deferral_id: str, push_id: str) -> bool:
        """See `Pushes.drop_push`."""
        return await self._write(partial(pushes.drop, deferral_id, push_id))

    async def receivers(self) -> Sequence[Receiver]:
        """See `Pushes.receivers`."""
        return await self._read(pushes.receivers)

    async def lease_push(self, deferral_id: str, push_id: str, lease: Lease, *, now: datetime) -> Push | None:
        """See `Pushes.lease_push`."""
        return await self._write(partial(pushes.lease, deferral_id, push_id, lease, now))

    async def told_push(self, deferral_id: str, push_id: str, lease_token: str, progress: Progress) -> bool:
        """See `Pushes.told_push`."""
        return await self._write(partial(pushes.told, deferral_id, push_id, lease_token, progress))

    async def release_pushes(self, owner: str) -> int:
        """See `Pushes.release_pushes`."""
        return await self._write(partial(pushes.release, owner))
