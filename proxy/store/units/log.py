"""Units of work about the decision log, and the ping.

Owns: these units. Knows nothing of: what a decision means.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from proxy.core.decision import Decision
from proxy.core.times import micros
from proxy.store import Sought, rows
from proxy.store.statements import log as sql
from proxy.store.units import Params, Unit

_NO_END: Final = 2**62
"""Higher than every id."""


def log(decisions: Sequence[Decision]) -> Unit[None]:
    """Append."""
    values: list[Params] = [rows.decision_values(decision) for decision in decisions]
    yield sql.ADD_DECISION, values


def decisions(workspace_id: str, limit: int) -> Unit[Sequence[Decision]]:
    """Read the latest, newest first."""
    found = yield sql.DECISIONS, {"workspace_id": workspace_id, "limit": limit}
    return [rows.decision(row) for row in found]


def sought(wanted: Sought, limit: int) -> Unit[Sequence[Decision]]:
    """Read by the narrowest thing that is named, newest first."""
    params: Params = {
        "workspace_id": wanted.workspace_id,
        "request_id": wanted.request_id,
        "receipt": wanted.receipt,
        "generation": wanted.generation,
        "before": _NO_END if wanted.before is None else wanted.before,
        "until": None if wanted.until is None else micros(wanted.until),
        "limit": limit,
    }
    if wanted.request_id is not None:
        found = yield sql.DECISIONS_OF_REQUEST, params
    elif wanted.receipt is not None:
        found = yield sql.DECISIONS_OF_RECEIPT, params
    elif wanted.generation is not None:
        found = yield sql.DECISIONS_OF_GENERATION, params
    elif wanted.workspace_id is not None:
        found = yield sql.DECISIONS_OF, params
    else:
        found = yield sql.DECISIONS_SOUGHT, params
    return [rows.decision(row) for row in found]


def beyond(kept: int) -> Unit[Sequence[tuple[str, int]]]:
    """Find, of each workspace with more than `kept` decisions, the newest id that is too many."""
    too_many = []
    after = ""
    while found := (yield sql.NEXT_LOGGED, {"after": after}):
        after = found[0][0]
        last = yield sql.FIRST_BEYOND, {"workspace_id": after, "rows": kept}
        if last:
            too_many.append((after, last[0][0]))
    return too_many


def trim_old(before: datetime, limit: int) -> Unit[int]:
    """Delete what is older, at most `limit`."""
    trimmed = yield sql.TRIM_OLD, {"before": micros(before), "limit": limit}
    return len(trimmed)


def trim_beyond(workspace_id: str, last: int, limit: int) -> Unit[int]:
    """Delete a workspace's decisions up to an id, at most `limit`."""
    trimmed = yield sql.TRIM_BEYOND, {"workspace_id": workspace_id, "last": last, "limit": limit}
    return len(trimmed)


def ping() -> Unit[None]:
    """Write next to nothing."""
    yield sql.PING, {}
