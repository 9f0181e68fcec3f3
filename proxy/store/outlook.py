"""What time alone will do to a queue, for those who wait for it.

Owns: the record, and the part of the contract that looks at a queue without changing it.
Knows nothing of: who waits, and for what.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from proxy.core.deferral import Deferral


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """When a queue's next head is due, and when the next of its `leased` leases runs out; None: by time alone never."""

    leased: int = 0
    due_at: datetime | None = None
    lease_ends_at: datetime | None = None


class Outlooks(Protocol):
    """This part of a store. Every method raises `StoreFailure` as the others do."""

    async def outlook(self, workspace_id: str, now: datetime) -> Outlook:
        """What time will do to a workspace's queue."""

    async def brief(self, deferral_id: str) -> Deferral | None:
        """Read one deferral without its bodies (`request.body`, `answer` and `credentials` are empty)."""
