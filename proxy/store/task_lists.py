"""What a store says of tasks: the deferrals of one, a caller's ended ones, what agents call them.

Owns: the part of the contract that looks at deferrals as tasks.
Knows nothing of: what a task's JSON says, how a list of them is asked for or shown.

One task may have several deferrals: every message to it that was put away is one. The latest tells what it is now.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from proxy.core.deferral import Deferral


@dataclass(frozen=True, slots=True, kw_only=True)
class Alias:
    """What an agent calls a task and its context."""

    task_id: str
    context_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignContext:
    """A context that the agent calls otherwise than its caller does."""

    workspace_id: str
    caller: str | None
    context_id: str
    upstream_id: str


class TaskLists(Protocol):
    """This part of a store. Every method raises `StoreFailure` as the others do."""

    async def deferrals_of_task(self, workspace_id: str, task_id: str, *, limit: int) -> Sequence[Deferral]:
        """The deferrals of a task, the newest first, without bodies."""

    async def alias_of_task(self, workspace_id: str, task_id: str) -> Alias | None:
        """What the agent calls a task, as it was learnt last; None while that is not known."""

    async def ended_tasks(
        self, workspace_id: str, caller: str | None, *, before: tuple[datetime, int] | None, limit: int
    ) -> Sequence[Deferral]:
        """A caller's ended deferrals that are the latest of their tasks, by their end, the last first, without bodies.

        `before`: only those that come after that (end, sequence) in this order. No caller: those that have none.
        """

    async def task_ids(self, workspace_id: str, caller: str | None, upstream_ids: Sequence[str]) -> Mapping[str, str]:
        """The ids that a caller was given for tasks that the agent names so; without those it was given none for."""
