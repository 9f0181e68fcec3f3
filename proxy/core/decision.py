"""One line of the decision log: what was decided, on what evidence, by which rule, and what was done.

Owns: the record. Knows nothing of: who writes it where, how it is shown.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any


class Trigger(StrEnum):
    """What made Holdfast decide."""

    FORWARD = "forward"
    REPLAY = "replay"
    SWEEP = "sweep"
    HEARTBEAT_TTL = "heartbeat_ttl"
    EXIT = "exit"
    PARKED = "parked"
    REGISTRATION = "registration"
    READINESS = "readiness"
    ADMIN = "admin"
    CONFIG = "config"
    ANNOUNCED = "announced"
    COORDINATOR = "coordinator"
    QUEUE = "queue"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Append-only. `verdict` and `rule` are empty where no verdict was asked; `action` is what was done about it.

    `evidence` holds JSON-able facts only, never bodies, headers or secrets. `request_id` names the request that it was
    decided for, `receipt` the deferral concerned; `incarnation` and `generation` say of which life and after which
    restart it speaks. `id` is given by the store and grows; two lines that differ in it alone say the same.
    """

    workspace_id: str
    at: datetime
    trigger: Trigger
    action: str
    verdict: str = ""
    rule: str = ""
    policy: str = ""
    evidence: Mapping[str, Any] = field(default_factory=dict)
    request_id: str | None = None
    receipt: str | None = None
    incarnation: int = 0
    generation: int = 0
    id: int = field(default=0, compare=False)
