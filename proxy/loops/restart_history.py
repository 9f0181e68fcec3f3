"""Which restarts a proxy knows of, and how long their records are kept.

Owns: how far back each brake looks, what a starting proxy reads of it, and the end of records that nobody looks at.
Knows nothing of: what a brake makes of them (`core.restart`), how a restart is written down (`cycles`).
"""

import asyncio
from datetime import datetime, timedelta
from typing import Final

from proxy.clock import Now
from proxy.core.restart import Restart, RestartPolicy, failures
from proxy.loops.routing import Route, Routing
from proxy.store import Store

LEAST: Final = timedelta(hours=1)
"""So far back is looked at least, whatever the brakes ask for."""

PAGE: Final = 500
"""Records that are read, or looked at in one commit, at a time."""

PAUSE: Final = 0.05
"""Seconds between two such commits, for those of others."""


def memory(policy: RestartPolicy) -> timedelta:
    """How far back the brakes look; starts that failed in a row count however long ago they began."""
    return max(LEAST, timedelta(seconds=max(policy.window, policy.backoff_reset, policy.debounce)))


def history_since(route: Route, now: datetime) -> datetime:
    """The instant before which no brake of this workspace looks at cycles, but for failures in a row."""
    return now - memory(route.effective.restart)


class RestartHistory:
    """Records of restarts, from the oldest that matters. `usual`: how far back most workspaces' brakes look."""

    def __init__(self, *, store: Store, routing: Routing, now: Now, usual: RestartPolicy, days: float) -> None:
        self._store = store
        self._routing = routing
        self._now = now
        self.usual = memory(usual)
        self._kept = timedelta(days=days)

    async def recall(self) -> None:
        """Give routes what they must know beyond what a starting proxy reads of all."""
        for route in self._routing:
            if memory(route.effective.restart) > self.usual or failures(route.cycles):
                await self._recall(route)

    async def _recall(self, route: Route) -> None:
        since, before = history_since(route, self._now()), None
        known: list[Restart] = []  # the newest first
        while found := await self._store.restarts(route.id, limit=PAGE, before=before):
            known += found
            before = found[-1].generation
            failed = len(failures(known[::-1]))
            if failed < len(known) and known[-1].started_at < since:
                break
        route.note_cycle(*known)
        route.forget_cycles(since)

    async def trim(self) -> None:
        """Delete records as old as decisions may be, once no brake looks at them; the last of each workspace stay."""
        longest = max((memory(route.effective.restart) for route in self._routing), default=LEAST)
        before = self._now() - max(self._kept, longest)
        after = await self._store.trim_restarts(after=None, before=before, limit=PAGE)
        while after is not None:
            await asyncio.sleep(PAUSE)
            after = await self._store.trim_restarts(after=after, before=before, limit=PAGE)
