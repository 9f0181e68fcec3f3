"""The stream journal in plain dictionaries.

Owns: the events, each with the try that told it. Knows nothing of: asyncio, leases (`memory_queue` fences by them).
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from proxy.store.journal import Appended, Events, JournalEvent, JournalLimits
from proxy.store.memory_queue import MemoryQueues


class MemoryJournal:
    """The journals of all deferrals."""

    def __init__(self, queues: MemoryQueues) -> None:
        self._queues = queues
        self._told: dict[str, list[tuple[int, JournalEvent]]] = {}

    def append(
        self, deferral_id: str, lease_token: str, events: Events, until: datetime, limits: JournalLimits
    ) -> Appended | None:
        """See `Journal.append_events`."""
        row = self._queues.leased(deferral_id, lease_token)
        if row is None:
            return None
        kept = self.events(deferral_id)
        last = kept[-1].sequence if kept else 0
        told = list(kept) if self.size(deferral_id) or events.continues else []
        size = sum(len(each) for each in events.data) + sum(len(each.data) for each in told)
        if not limits.hold(rows=len(told) + len(events.data), size=size):
            return Appended(total=len(told), full=True)
        self._queues.extend(deferral_id, lease_token, until)
        for number, data in enumerate(events.data, last + 1):
            told.append(JournalEvent(sequence=number, data=data, at=events.at))
        if events.data:
            self._told[deferral_id] = [(row.tries, event) for event in told]
        self._queues.learn(
            deferral_id,
            lambda known: replace(
                known,
                task=events.task or known.task,
                upstream_task_id=events.upstream_task_id or known.upstream_task_id,
                upstream_context_id=events.upstream_context_id or known.upstream_context_id,
            ),
        )
        return Appended(total=len(told), full=False)

    def events(self, deferral_id: str) -> list[JournalEvent]:
        """Those of the try that told last."""
        return [event for _, event in self._told.get(deferral_id, ())] if self._queues.get(deferral_id) else []

    def size(self, deferral_id: str) -> int:
        """See `Journal.journal_size`."""
        row = self._queues.get(deferral_id)
        return sum(row is not None and tries == row.tries for tries, _ in self._told.get(deferral_id, ()))

    def read(self, deferral_id: str, after: int, limit: int) -> Sequence[JournalEvent]:
        """See `Journal.journal`."""
        return [event for event in self.events(deferral_id) if event.sequence > after][:limit]
