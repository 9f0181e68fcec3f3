"""Lines of a decision log that tests of stories are made of."""

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

from proxy.core.decision import Decision, Trigger

T0 = datetime(2026, 6, 1, 12, 0, 0, tzinfo=UTC)
_ids = itertools.count(1)


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def line(second: float, action: str, **fields: Any) -> Decision:
    """A line about workspace `w`; each has an id of its own."""
    known = {"workspace_id": "w", "at": at(second), "trigger": Trigger.FORWARD, "action": action, "id": next(_ids)}
    return Decision(**{**known, **fields})
