"""A caller's own deferred tasks as a list, merged with the page that the agent gives.

Owns: which of them a page may hold, in which order, and which of the agent's are the same tasks.
Knows nothing of: HTTP, how the agent is asked (`web.deferred_tasks`), how a page is written (`core.a2a.listing`).

Theory of operation. What waits or is being tried is bounded by the queue and read whole; what has ended is read by its
end, the newest first, a few at a time, until a page is full. What the agent still works on is the agent's to list: it
knows more. Where it cannot be asked, such tasks are listed as they were last known.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from proxy.core import a2a
from proxy.core.a2a import listing
from proxy.core.deferral import ACTIVE, Deferral, State
from proxy.core.times import from_micros, micros
from proxy.loops.routing import Route
from proxy.loops.tasks import TERMINAL
from proxy.store import Store

MOST_WAITING = 10_000
"""Waiting deferrals of one caller that are looked at; queues are shorter by default."""
CHUNK = 100
MOST_LOOKED_AT = 1000
"""Ended tasks that one page looks at; a filter that few of them pass makes a short page, and the next goes on there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnTasks:
    """Own tasks that come next, the newest first, and how far was looked (`listing.page`).

    `open`: the agent works on these, and lists them itself where it can be asked.
    """

    tasks: Sequence[tuple[Deferral, listing.Own]]
    more: tuple[int, int] | None

    def shown(self, *, agent_lists: bool) -> list[listing.Own]:
        """The tasks to list here: without those that the agent lists."""
        return [own for deferral, own in self.tasks if not (agent_lists and is_open(deferral))]


class TaskLists:
    """Lists deferred tasks."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def own(self, route: Route, caller: str | None, wish: listing.ListWish) -> OwnTasks:
        """What is behind the wish's place of a caller's own tasks: a page of them and one more, if there are."""
        if wish.place.own_over:
            return OwnTasks(tasks=(), more=None)
        behind = wish.place.own
        waiting = await self._waiting(route, caller)
        names = {deferral.task_id for deferral in waiting}
        found = [
            (deferral, made)
            for deferral in waiting
            if (made := _own(deferral, wish)) is not None and (behind is None or made.key < behind)
        ]
        ended, more = await self._ended(route, caller, wish, names)
        found += ended
        found.sort(key=lambda each: each[1].key, reverse=True)
        if more is not None:
            last = more
            found = [each for each in found if each[1].key >= last]
        return OwnTasks(tasks=found, more=more)

    async def any(self, route: Route, caller: str | None) -> bool:
        """Whether a caller has own tasks at all: then the agent's may be theirs under other ids."""
        found = await self.own(route, caller, listing.ListWish(size=1))
        return bool(found.tasks) or found.more is not None

    async def _waiting(self, route: Route, caller: str | None) -> list[Deferral]:
        """The latest of every task that waits or is being tried."""
        listed = await self._store.deferrals(
            workspace_id=route.id, states=tuple(ACTIVE), caller=caller, limit=MOST_WAITING
        )
        latest: dict[str, Deferral] = {}
        for deferral in listed:
            if deferral.task_id is not None and deferral.caller == caller:
                latest.setdefault(deferral.task_id, deferral)
        return list(latest.values())

    async def _ended(
        self, route: Route, caller: str | None, wish: listing.ListWish, waiting: set[str | None]
    ) -> tuple[list[tuple[Deferral, listing.Own]], tuple[int, int] | None]:
        """Ended tasks behind the place, and the key up to which was looked, if there may be more."""
        place = wish.place.own
        before: tuple[datetime, int] | None = None if place is None else (from_micros(place[0]), place[1])
        found: list[tuple[Deferral, listing.Own]] = []
        for _ in range(MOST_LOOKED_AT // CHUNK):
            rows = await self._store.ended_tasks(route.id, caller, before=before, limit=CHUNK)
            for row in rows:
                if row.completed_at is None:
                    continue
                before = (row.completed_at, row.seq)
                # The agent's own tasks are listed here only while a message to them waits.
                is_own = row.task_id is not None and a2a.is_provisional(row.task_id) and row.task_id not in waiting
                made = _own(row, wish) if is_own else None
                if made is not None:
                    found.append((row, made))
                if len(found) > wish.size:
                    return found, made.key if made is not None else None
            if len(rows) < CHUNK:
                return found, None
        return found, None if before is None else (micros(before[0]), before[1])

    async def merged(self, route: Route, caller: str | None, own: OwnTasks, theirs: listing.Theirs) -> listing.Theirs:
        """The agent's page with the caller's ids in it, and which of its tasks are listed from here."""
        ids = [name for name in map(a2a.id_of, theirs.tasks) if name]
        known = await self._store.task_ids(route.id, caller, ids)
        contexts = {theirs_too: ours for ours, theirs_too in route.foreign_contexts.of(caller).items()}
        dropped = set()
        for place, task in enumerate(theirs.tasks):
            theirs_id = a2a.id_of(task) or ""
            task_id = known.get(theirs_id)
            if task_id is not None and a2a.is_provisional(task_id):
                deferral = await self._store.deferral_of_task(route.id, task_id)
                if deferral is not None and not is_open(deferral):
                    dropped.add(place)
            elif theirs_id in route.tasks and theirs_id in {deferral.task_id for deferral, _ in own.tasks}:
                dropped.add(place)
            a2a.rename_members(task, known, contexts=contexts)
        return replace(theirs, dropped=frozenset(dropped))


def is_open(deferral: Deferral) -> bool:
    """Its agent has answered, and works on its task."""
    task = deferral.task
    return deferral.state is State.COMPLETED and task is not None and task.state not in TERMINAL


def _own(deferral: Deferral, wish: listing.ListWish) -> listing.Own | None:
    """A deferral as a list shows it; None where it is not asked for."""
    if deferral.task is None:
        return None
    task = listing.listed_task(deferral.task.json, a2a.Version(deferral.task.version), wish)
    if not wish.takes(task):
        return None
    at = deferral.completed_at or listing.status_time(task) or deferral.enqueued_at
    return listing.Own(key=(micros(at), deferral.seq), task=task)
