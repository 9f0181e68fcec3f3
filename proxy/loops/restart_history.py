"""Which restarts a proxy knows of, and how long their records are kept.

Owns: how far back each brake looks, what a starting proxy reads of it, and the end of records that nobody looks at.
Knows nothing of: what a brake makes of them (`core.restart`), how a restart is written down (`cycles`).
"""

from datetime import datetime, timedelta
from typing import Final

from proxy.clock import Now
from proxy.core.restart import RestartPolicy
from proxy.loops.routing import Route, Routing
from proxy.store import Store

USUAL: Final = timedelta(hours=1)
"""So far back a starting proxy reads of every workspace at once; few have brakes that look back further."""

PAGE: Final = 100
"""Records of one workspace that are read, or of all that are deleted, at a time."""


def memory(policy: RestartPolicy) -> timedelta:
    """How far back the brakes look; never less than `USUAL`."""
    return max(USUAL, timedelta(seconds=max(policy.window, policy.backoff_reset, policy.debounce)))


def history_since(route: Route, now: datetime) -> datetime:
    """The instant before which no brake of this workspace looks at cycles."""
    return now - memory(route.effective.restart)


class RestartHistory:
    """Records of restarts, from the oldest that matters."""

    def __init__(self, *, store: Store, routing: Routing, now: Now, days: float) -> None:
        self._store = store
        self._routing = routing
        self._now = now
        self._kept = timedelta(days=days)

    async def recall(self) -> None:
        """Give routes what their brakes look back at, where the usual hour is not enough."""
        for route in self._routing:
            if memory(route.effective.restart) > USUAL:
                await self._recall(route)

    async def _recall(self, route: Route) -> None:
        since, before = history_since(route, self._now()), None
        while found := await self._store.restarts(route.id, limit=PAGE, before=before):
            for cycle in found:
                if cycle.started_at < since:
                    return
                route.note_cycle(cycle)
            before = found[-1].generation

    async def trim(self) -> None:
        """Delete records as old as decisions may be, once no brake looks at them; the newest of each stays."""
        longest = max((memory(route.effective.restart) for route in self._routing), default=USUAL)
        before = self._now() - max(self._kept, longest)
        while await self._store.trim_restarts(before=before, limit=PAGE) == PAGE:
            pass
