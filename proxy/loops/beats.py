"""Signs of life: taken in memory at once, written together once a second.

Owns: what a heartbeat changes, and the flush.
Knows nothing of: HTTP, verdicts.

Theory of operation. A beat updates the route and puts it among the unwritten ones; the flush writes those, and nobody
else's. A crash loses the beats since the last flush, which makes a workspace look older than it is by that much and no
more; before a death is declared, this process's pending beats are flushed, and the store compares them with what was
weighed.

Where very many beat, nearly every page of the table is written at every flush, for a few beats each. So a flush of more
than `MANY` waits until its beats have been gathered for the `longest` time: each page is then written once for all of
them.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from proxy.clock import Now
from proxy.core.decision import Trigger
from proxy.core.lifecycle import Cause, Status, may_move
from proxy.core.workspace import Workspace, become_ready, meet_boot, of_old_life
from proxy.loops.changes import tell_changes
from proxy.loops.records import Records
from proxy.loops.routing import Route, Routing
from proxy.store import Store
from proxy.telemetry import Telemetry

MANY: Final = 1000
"""Workspaces whose beats are worth a flush of their own: so many pages and more would be written for one beat each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Beat:
    """What a heartbeat says, all of it optional. `status`: starting, ready, degraded; `agent`: up, down, unknown."""

    boot_id: str | None = None
    status: str | None = None
    agent: str | None = None
    active_tasks: int | None = None
    max_concurrent: int | None = None
    progress: int | None = None


class Beats:
    """Takes signs of life and writes them together."""

    def __init__(
        self,
        *,
        store: Store,
        records: Records,
        routing: Routing,
        now: Now,
        telemetry: Telemetry,
        ring: Callable[[Route], None],
        longest: float = 0.0,
    ) -> None:
        self._longest = longest
        self._flushed_at = float("-inf")
        self._telemetry = telemetry
        self._store = store
        self._records = records
        self._routing = routing
        self._now = now
        self._ring = ring

    async def take(self, route: Route, beat: Beat) -> None:
        """Note a heartbeat; write the record only where it changes status or incarnation.

        What the old life says after a restart began is no sign of the new one, and "down" is none at all.
        """
        now = self._now()
        if beat.boot_id is not None and of_old_life(route.workspace, beat.boot_id):
            return
        if beat.agent == "down":
            if route.signs.agent_down_at is None:
                route.signs = replace(route.signs, agent_down_at=now)
                route.unwritten[route.id] = route
        else:
            route.sign(now, heartbeat=True)
            if beat.progress is None or beat.progress != route.signs.progress:
                for pulse in tuple(route.pulses):
                    pulse.touch()
        route.signs = replace(
            route.signs,
            active_tasks=beat.active_tasks,
            max_concurrent=beat.max_concurrent,
            progress=beat.progress if beat.progress is not None else route.signs.progress,
        )
        # Calls of ours that the agent is at are counted when they end; the rest is known from beats alone.
        route.others = max(0, (beat.active_tasks or 0) - route.busy)
        was = route.workspace
        saved = await self._records.change(
            route,
            lambda known: _after_beat(known, beat, now),
            decide=lambda after: self._records.decision(after, Trigger.REGISTRATION, _action(was, after)),
        )
        if saved is not None:
            tell_changes(self._telemetry, was, saved, "beat")
        if beat.status is not None:
            route.degraded_in = route.workspace.incarnation if beat.status == "degraded" else None
        if beat.agent != "down" and (beat.status == "ready" or route.size.rows):
            self._ring(route)

    async def tick(self) -> None:
        """Flush, unless many were gathered lately: their flush waits for the `longest` time."""
        now, waiting = asyncio.get_running_loop().time(), len(self._routing.unwritten)
        if not waiting or (waiting > MANY and now - self._flushed_at < self._longest):
            return
        self._flushed_at = now
        await self.flush()

    async def flush(self) -> None:
        """Write every sign of life that is not written yet."""
        unwritten = self._routing.unwritten
        if not unwritten:
            return
        routes = dict(unwritten)
        unwritten.clear()
        try:
            await self._store.record_signs({name: route.signs for name, route in routes.items()})
        except BaseException:
            unwritten.update(routes)
            raise


def _action(was: Workspace, after: Workspace) -> str:
    if after.incarnation != was.incarnation:
        return "new incarnation"
    return f"status {after.status}" if after.status is not was.status else "boot_id bound"


def _after_beat(known: Workspace, beat: Beat, now: datetime) -> Workspace | None:
    """The record after a beat; None where it stays as it is (which is the common case, and costs no write)."""
    after = known
    if beat.boot_id is not None and (beat.boot_id != known.boot_id or not known.bound):
        after = meet_boot(after, beat.boot_id, now)
    if beat.agent == "down":
        return after if after is not known else None
    if beat.status == "ready" or (beat.status is None and known.status is Status.OFFLINE):
        after = become_ready(after, Cause.BEAT, now)
    elif beat.status == "degraded" and may_move(after.status, Status.DEGRADED, Cause.BEAT):
        after = replace(after, status=Status.DEGRADED)
    elif beat.status == "starting" and may_move(after.status, Status.STARTING, Cause.REGISTRATION):
        after = replace(after, status=Status.STARTING, offline_rule=None)
    return after if after is not known else None
