"""Units of work about instants that a clock wrote down that was ahead.

Owns: which of them are amended together. Knows nothing of: clocks.
"""

from datetime import datetime
from typing import Final

from proxy.core.times import micros
from proxy.store.statements import instants as sql
from proxy.store.units import Unit

_AMENDING: Final = (sql.AMEND_WORKSPACES, sql.AMEND_SIGNS, sql.AMEND_RESTARTS)


def amend(now: datetime, latest_try: datetime) -> Unit[int]:
    """Move what is later than it can be back to now; return how many rows were."""
    amended = 0
    for statement in _AMENDING:
        amended += len((yield statement, {"now": micros(now)}))
    amended += len((yield sql.AMEND_TRIES, {"now": micros(now), "latest": micros(latest_try)}))
    return amended
