"""How the store on SQLite looks at deferrals as tasks.

Owns: which unit of work each call is. Knows nothing of: connections, texts, what a unit does.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import TypeVar

from proxy.core.deferral import Deferral
from proxy.store.task_lists import Alias
from proxy.store.units import Unit, task_lists

T = TypeVar("T")


class SqliteTaskLists:
    """The part of `SqliteStore` that is about tasks."""

    async def _read(self, make: Callable[[], Unit[T]]) -> T:
        """Run a unit of work that only reads."""
        raise NotImplementedError

    async def deferrals_of_task(self, workspace_id: str, task_id: str, *, limit: int) -> Sequence[Deferral]:
        """See `TaskLists.deferrals_of_task`."""
        return await self._read(partial(task_lists.of_task, workspace_id, task_id, limit))

    async def alias_of_task(self, workspace_id: str, task_id: str) -> Alias | None:
        """See `TaskLists.alias_of_task`."""
        return await self._read(partial(task_lists.alias, workspace_id, task_id))

    async def ended_tasks(
        self, workspace_id: str, caller: str | None, *, before: tuple[datetime, int] | None, limit: int
    ) -> Sequence[Deferral]:
        """See `TaskLists.ended_tasks`."""
        return await self._read(partial(task_lists.ended, workspace_id, caller, before, limit))

    async def task_ids(self, workspace_id: str, caller: str | None, upstream_ids: Sequence[str]) -> Mapping[str, str]:
        """See `TaskLists.task_ids`."""
        return await self._read(partial(task_lists.task_ids, workspace_id, caller, tuple(upstream_ids)))
