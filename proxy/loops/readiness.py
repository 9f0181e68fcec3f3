"""Is it back? Probes a workspace that is away until it answers, then makes it ready and rings the replayer.

Owns: the ready-probe loop, one per workspace, and its deadline; such a loop for those that refuse but count as ready.
Knows nothing of: how a probe works, restart brakes, deferrals.

Theory of operation. Ready again is what any of these says, for the current incarnation: the workspace's probe, a
registration, a beat `ready`. Each ends in `announce`, and `announce` is idempotent. The loop begins when a start has
returned, when an admin described a workspace, and at the proxy's start for all that are not ready; it ends when the
workspace is ready, was restarted (another incarnation: that start begins its own loop), parked or removed.

An agent that nobody hosts may go and come back before anybody notices: its workspace is *ready* all the while, and what
is sent to it backs off for longer and longer. So a delivery that was refused begins a loop of its own (`listen_for`),
with the same pauses, for as long as something is queued. It tells only of a probe that passes after one that failed: a
probe that passes all the time says nothing about when a refused delivery may be tried again.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from proxy.clock import Now
from proxy.core.decision import Trigger
from proxy.core.lifecycle import Cause, Status
from proxy.core.workspace import Workspace, become_ready
from proxy.loops.background import Background
from proxy.loops.records import Records
from proxy.loops.routing import Route
from proxy.telemetry import EventName, Telemetry

AWAY = frozenset({Status.STARTING, Status.OFFLINE})


class Readiness:
    """Waits for workspaces to come back."""

    def __init__(
        self,
        *,
        records: Records,
        background: Background,
        now: Now,
        telemetry: Telemetry,
        probe: Callable[[Workspace], Awaitable[bool]],
        ring: Callable[[Route], None],
        first: float,
        factor: float,
        cap: float,
    ) -> None:
        self._records = records
        self._background = background
        self._now = now
        self._telemetry = telemetry
        self._probe = probe
        self._ring = ring
        self._first = first
        self._factor = factor
        self._cap = cap
        self._watching: dict[str, int] = {}
        self._listening: set[str] = set()
        self.on_ready: Callable[[Route], Coroutine[Any, Any, None]]
        self.on_unready: Callable[[Route], Coroutine[Any, Any, None]]
        self.on_answer: Callable[[Route], None]

    def watch(self, route: Route) -> None:
        """Probe this workspace until it is ready; one loop per incarnation.

        One that polls is not probed: its claim says that it is ready. Only the deadline of its start is watched.
        """
        incarnation = route.workspace.incarnation
        if self._watching.get(route.id) == incarnation or (route.polling and route.open_cycle is None):
            return
        self._watching[route.id] = incarnation
        self._background.spawn(self._watch(route, incarnation), name=f"ready-{route.id}")

    async def _watch(self, route: Route, incarnation: int) -> None:
        loop = asyncio.get_running_loop()
        limit = route.effective.policy.provisioning_timeout
        deadline = loop.time() + (limit or math.inf)
        delay = self._first
        try:
            while self._still_away(route, incarnation):
                if not route.polling and route.workspace.url is not None and await self._probe(route.workspace):
                    if self._still_away(route, incarnation):
                        await self.announce(route, Cause.PROBE)
                    return
                if loop.time() >= deadline and route.open_cycle is not None:
                    deadline = math.inf  # its cycle has failed; should it come all the same, it is welcome
                    await self.on_unready(route)
                await asyncio.sleep(delay)
                delay = min(delay * self._factor, self._cap)
        finally:
            if self._watching.get(route.id) == incarnation:
                del self._watching[route.id]

    def _still_away(self, route: Route, incarnation: int) -> bool:
        workspace = route.workspace
        return workspace.incarnation == incarnation and workspace.status in AWAY and not workspace.parked

    def listen_for(self, route: Route) -> None:
        """A delivery found nobody there: probe this workspace until somebody is; one loop at a time."""
        if route.id not in self._listening and self._is_missed(route):
            self._listening.add(route.id)
            self._background.spawn(self._listen_for(route), name=f"listen-{route.id}")

    async def _listen_for(self, route: Route) -> None:
        delay, missed = self._first, False
        try:
            while self._is_missed(route):
                if await self._probe(route.workspace):
                    if missed:
                        self.on_answer(route)
                    return
                missed = True
                await asyncio.sleep(delay)
                delay = min(delay * self._factor, self._cap)
        finally:
            self._listening.discard(route.id)

    @staticmethod
    def _is_missed(route: Route) -> bool:
        """Something waits for it, it would be dialled, and no other loop asks for it."""
        return route.size.rows > 0 and route.serving and route.workspace.status not in AWAY

    async def announce(self, route: Route, cause: Cause) -> None:
        """The workspace is ready: write it, end its cycle, ring the replayer."""
        now = self._now()
        route.sign(now)
        saved = await self._records.change(
            route,
            lambda known: become_ready(known, cause, now),
            decide=lambda after: self._records.decision(
                after, Trigger.READINESS, f"status {after.status}", evidence={"cause": cause.value}
            ),
        )
        if saved is not None:
            self._telemetry.emit(
                EventName.WORKSPACE_STATUS,
                workspace=route.id,
                incarnation=saved.incarnation,
                fields={"status": saved.status.value, "cause": cause.value},
            )
        await self.settle(route)

    async def settle(self, route: Route) -> None:
        """What follows once a record says `ready`, whoever wrote it."""
        if route.workspace.status is Status.READY:
            if route.open_cycle is not None:
                await self.on_ready(route)
            self._ring(route)
