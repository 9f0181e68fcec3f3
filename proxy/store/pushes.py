"""What a store keeps of push notifications: who is to be told of a deferral's task, and how far each was told.

Owns: the records, and the part of the contract that is about them.
Knows nothing of: what a notification says, how it is sent, what the sealed bytes hold.

A configuration is its own outbox: what is to be told is read from the deferral and its journal, and the place up to
which it was told moves on only after a receiver took it. So nothing is written twice, nothing that was committed can be
forgotten by a proxy that dies, and the order is that of the journal. Whoever sends holds a lease on the row meanwhile,
as for a deferral: a fencing token with an end.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Protocol

from proxy.core.deferral import Lease, StoredPush


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far one receiver was told.

    `through`: the last event of the journal; `told`: what it knows of the task, in the sender's own words.
    `tries`: failed ones of the notification that is next, since `failing_since`; it is tried at `next_at` again.
    """

    through: int = 0
    told: str = ""
    tries: int = 0
    failing_since: datetime | None = None
    next_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Push:
    """One receiver of one deferral's notifications. `owner` holds its lease until `leased_until`."""

    deferral_id: str
    stored: StoredPush
    progress: Progress
    owner: str | None = None
    leased_until: datetime | None = None


class Receiver(NamedTuple):
    """A receiver by name, and what it knows (`Progress.told`)."""

    deferral_id: str
    push_id: str
    told: str


class Pushes(Protocol):
    """The push notifications' part of a store. Every method raises `StoreFailure` as the others do.

    What a send brings along is stored with its deferral (`Store.enqueue`); all of it goes with the deferral.
    """

    async def put_push(self, deferral_id: str, stored: StoredPush, progress: Progress, *, most: int) -> bool | None:
        """Add a receiver, or change the one of that id, whose progress and lease end.

        None: there is no such deferral; False: it has `most` others.
        """

    async def pushes(self, deferral_id: str) -> Sequence[Push]:
        """Every receiver of a deferral, in the order of their ids."""

    async def pushes_of_task(self, workspace_id: str, task_id: str) -> Sequence[Push]:
        """Every receiver of a task, whichever of its deferrals it follows now, in the order of their ids."""

    async def move_push(self, deferral_id: str, push_id: str, to: str, progress: Progress) -> bool:
        """Let a receiver follow another deferral; one of its id that is there already stays in its place.

        False: it is gone, somebody holds its lease, or there is no such deferral.
        """

    async def drop_push(self, deferral_id: str, push_id: str) -> bool:
        """Forget a receiver; whether there was one."""

    async def receivers(self) -> Sequence[Receiver]:
        """Every receiver that there is."""

    async def lease_push(self, deferral_id: str, push_id: str, lease: Lease, *, now: datetime) -> Push | None:
        """Take the right to notify a receiver; None when it is gone, or another's lease has not ended by now."""

    async def told_push(self, deferral_id: str, push_id: str, lease_token: str, progress: Progress) -> bool:
        """Write how far a receiver was told, and give the lease back; False when it is no longer the caller's."""

    async def release_pushes(self, owner: str) -> int:
        """End the leases that a dead proxy (this one's earlier life) held; how many."""
