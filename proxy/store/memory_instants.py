"""What a memory store makes of instants: signs of life merged, and what a clock wrote down that was ahead.

Owns: these rules about single records. Knows nothing of: where the records lie.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from proxy.core.workspace import Workspace
from proxy.store import Signs

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


def ahead(row: object, names: Sequence[str], now: datetime) -> dict[str, Any]:
    """The named instants of a record that are later than now, moved back to it."""
    return {name: now for name in names if (getattr(row, name) or now) > now}


def opinions_after(workspace: Workspace, now: datetime) -> dict[str, Any]:
    """The strikes and the verdict of a workspace where they are later than now, moved back to it."""
    strikes, verdict = workspace.strikes, workspace.last_verdict
    late: dict[str, Any] = {}
    if strikes.first_at is not None and strikes.first_at > now:
        late["strikes"] = replace(strikes, first_at=now)
    if verdict is not None and verdict.at > now:
        late["last_verdict"] = replace(verdict, at=now)
    return late


def merged(known: Signs, new: Signs) -> Signs:
    """See `Store.record_signs`."""
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
