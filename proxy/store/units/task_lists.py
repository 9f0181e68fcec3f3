"""Units of work that look at deferrals as tasks.

Owns: which texts answer which question. Knows nothing of: what a task says, leases.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime

from proxy.core.deferral import Deferral
from proxy.core.times import micros
from proxy.store import deferral_rows as deferred
from proxy.store.statements import task_lists as sql
from proxy.store.task_lists import Alias
from proxy.store.units import Params, Unit

LATEST = 2**63 - 1
"""Later than every instant and sequence that is stored."""


def of_task(workspace_id: str, task_id: str, limit: int) -> Unit[Sequence[Deferral]]:
    """Read the newest deferrals of a task."""
    found = yield sql.DEFERRALS_OF_TASK, {"workspace_id": workspace_id, "task_id": task_id, "limit": limit}
    return [deferred.brief(row) for row in found]


def alias(workspace_id: str, task_id: str) -> Unit[Alias | None]:
    """Read what the agent calls a task."""
    found = yield sql.ALIAS_OF_TASK, {"workspace_id": workspace_id, "task_id": task_id}
    return Alias(task_id=found[0][0], context_id=found[0][1]) if found else None


def ended(
    workspace_id: str, caller: str | None, before: tuple[datetime, int] | None, limit: int
) -> Unit[Sequence[Deferral]]:
    """Read a caller's tasks that ended last."""
    at, seq = (LATEST, LATEST) if before is None else (micros(before[0]), before[1])
    asked: dict[str, str | int] = {"workspace_id": workspace_id, "completed_at": at, "seq": seq, "limit": limit}
    if caller is None:
        found = yield sql.ENDED_TASKS_OF_NOBODY, asked
    else:
        found = yield sql.ENDED_TASKS, {**asked, "caller": caller}
    return [deferred.brief(row) for row in found]


def task_ids(workspace_id: str, caller: str | None, upstream_ids: Sequence[str]) -> Unit[Mapping[str, str]]:
    """Find what a caller was given for tasks of the agent's."""
    if not upstream_ids:
        return {}
    asked: list[Params] = [(each, workspace_id) for each in dict.fromkeys(upstream_ids)]
    found = yield sql.TASK_IDS, asked
    return {theirs: ours for theirs, owner, ours in found if owner == caller and ours is not None}
