"""How the store in memory looks at deferrals as tasks.

Owns: the same questions, asked of plain records. Knows nothing of: what a task says.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

from proxy.core.deferral import Deferral
from proxy.store.memory_queue import MemoryQueues
from proxy.store.task_lists import Alias, ForeignContext


class MemoryTaskLists:
    """The part of `MemoryStore` that is about tasks."""

    _queues: MemoryQueues

    async def _turn(self) -> None:
        """Let other tasks run once."""
        raise NotImplementedError

    def _tasks_of(self, workspace_id: str) -> Iterator[Deferral]:
        """Every deferral of a workspace that has a task, the newest first."""
        yield from (row for row in self._queues.newest(workspace_id) if row.task_id is not None)

    def _contexts(self) -> list[ForeignContext]:
        """Every context that an agent calls otherwise, in the order of acceptance."""
        return [
            ForeignContext(
                workspace_id=row.workspace_id,
                caller=row.caller,
                context_id=row.context_id,
                upstream_id=row.upstream_context_id,
            )
            for row in self._queues.all()
            if row.upstream_context_id is not None and row.context_id is not None
        ]

    async def deferrals_of_task(self, workspace_id: str, task_id: str, *, limit: int) -> Sequence[Deferral]:
        """See `TaskLists.deferrals_of_task`."""
        await self._turn()
        return [row for row in self._tasks_of(workspace_id) if row.task_id == task_id][:limit]

    async def alias_of_task(self, workspace_id: str, task_id: str) -> Alias | None:
        """See `TaskLists.alias_of_task`."""
        await self._turn()
        for row in self._tasks_of(workspace_id):
            if row.task_id == task_id and row.upstream_task_id is not None:
                return Alias(task_id=row.upstream_task_id, context_id=row.upstream_context_id)
        return None

    async def ended_tasks(
        self, workspace_id: str, caller: str | None, *, before: tuple[datetime, int] | None, limit: int
    ) -> Sequence[Deferral]:
        """See `TaskLists.ended_tasks`."""
        await self._turn()
        latest: dict[str | None, Deferral] = {}
        for row in self._tasks_of(workspace_id):
            latest.setdefault(row.task_id, row)
        found = [
            (row.completed_at, row.seq, row)
            for row in latest.values()
            if row.completed_at is not None
            and row.caller == caller
            and (before is None or (row.completed_at, row.seq) < before)
        ]
        found.sort(key=lambda each: each[:2], reverse=True)
        return [row for _, _, row in found[:limit]]

    async def task_ids(self, workspace_id: str, caller: str | None, upstream_ids: Sequence[str]) -> Mapping[str, str]:
        """See `TaskLists.task_ids`."""
        await self._turn()
        wanted = set(upstream_ids)
        return {
            row.upstream_task_id: row.task_id
            for row in self._tasks_of(workspace_id)
            if row.caller == caller and row.task_id is not None and row.upstream_task_id in wanted
        }
