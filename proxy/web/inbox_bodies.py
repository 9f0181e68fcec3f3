"""What polling workspaces say: one struct per body, validated by msgspec.

Owns: names, types and ranges of the members. Knows nothing of: what is done with them.
"""

from typing import Annotated

from msgspec import Meta, Struct

from proxy.web.bodies import BootId, Seconds, Text

LeaseToken = Annotated[str, Meta(min_length=1, max_length=128)]


class ClaimBody(Struct, forbid_unknown_fields=True):
    """`POST .../queue/claim`."""

    boot_id: BootId | None = None
    max_items: Annotated[int, Meta(ge=1)] = 1
    wait_seconds: Seconds = 0
    lease_seconds: Seconds | None = None


class ExtendBody(Struct, forbid_unknown_fields=True):
    """`POST .../extend`."""

    lease_token: LeaseToken
    lease_seconds: Seconds | None = None
    boot_id: BootId | None = None


class CompleteBody(Struct, forbid_unknown_fields=True):
    """`POST .../complete`. Without `body_base64` the answer is what was told in events, or empty."""

    lease_token: LeaseToken
    status: Annotated[int, Meta(ge=200, le=599)] = 200
    headers: dict[str, str | list[str]] = {}
    body_base64: str | None = None
    boot_id: BootId | None = None


class FailBody(Struct, forbid_unknown_fields=True):
    """`POST .../fail`."""

    lease_token: LeaseToken
    error: Text = ""
    retry: bool = True
    boot_id: BootId | None = None


class Item(Struct):
    """A request that was handed out."""

    queue_id: str
    lease_token: str
    attempt: int
    redelivery: str
    method: str
    path: str
    headers: dict[str, str]
    body_base64: str
    enqueued_at: str
    task_id: str | None
    context_id: str | None


class Claimed(Struct):
    """What a claim got; nothing when there was nothing."""

    items: list[Item]
    lease_seconds: float


class Extended(Struct):
    """A lease that was renewed."""

    queue_id: str
    lease_seconds: float
    lease_until: str


class EventsTaken(Struct):
    """How many events the try has told by now."""

    queue_id: str
    events: int
    lease_seconds: float


class Ended(Struct):
    """A deferral that has its answer."""

    queue_id: str
    status: str


class FailedItem(Struct):
    """Where a deferral stands that was given up; `retry_after` are seconds."""

    queue_id: str
    status: str
    retry_after: float
