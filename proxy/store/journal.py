"""What a store keeps of a deferred stream: the events of the try that is under way, or was the last one.

Owns: the records, and the part of the contract that is about them.
Knows nothing of: what an event says, how it travelled.

A journal belongs to one try: the first event of a later try takes the place of everything that an earlier one told,
unless the later try *continues* the story (it took up the agent's task where the earlier one was cut off): then they
are one story. Either way a number is never used twice for one deferral, so whoever has read up to a number knows from
what is kept later, and from what is not, whether something was missed.

A journal is bounded. Who fills one notes that with an event that is empty (`GAP`): from there on nothing is kept but
what the events make of the task.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

from proxy.core.deferral import StoredTask

GAP: Final = b""
"""The data of an event that stands for all that were not kept after it. No event of an agent's is empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalEvent:
    """One event as the agent told it, or `GAP`; `sequence` grows within a deferral, from 1, and never begins again."""

    sequence: int
    data: bytes
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Events:
    """Events that came together, and what is known of the task after them; None keeps what is stored.

    `continues`: what earlier tries told stays, and counts as told by this one.
    """

    data: Sequence[bytes]
    at: datetime
    task: StoredTask | None = None
    upstream_task_id: str | None = None
    upstream_context_id: str | None = None
    continues: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalLimits:
    """What one journal may hold; 0 = no limit."""

    rows: int
    bytes: int

    def hold(self, *, rows: int, size: int) -> bool:
        """Whether a journal of that many events and bytes is within the limits."""
        return not (0 < self.rows < rows or 0 < self.bytes < size)


@dataclass(frozen=True, slots=True, kw_only=True)
class Appended:
    """How many events the try has told by now. `full`: these had no room, and none of them was stored."""

    total: int
    full: bool


class Journal(Protocol):
    """The journal's part of a store. Every method raises `StoreFailure` as the others do."""

    async def append_events(
        self, deferral_id: str, lease_token: str, events: Events, *, until: datetime, limits: JournalLimits
    ) -> Appended | None:
        """Append events under a lease and renew it until then; None when the lease is no longer the caller's."""

    async def journal_size(self, deferral_id: str) -> int:
        """How many events the latest try of a deferral has told: 0 if those that are kept are an earlier one's."""

    async def journal(self, deferral_id: str, *, after: int = 0, limit: int = 100) -> Sequence[JournalEvent]:
        """Events of the try that told last, in order, later than number `after`."""
