"""Parking: a workspace is kept from running because administration wants that, and let run again.

Owns: pause, resume and hibernate; stopping the compute of what is parked; waking what hibernates when it is needed.
Knows nothing of: HTTP, verdicts, how a restart cycle runs (`loops.coordinator` records the one that brings it back).

Theory of operation. What is wanted is written down first, by compare-and-set on `desired`; then it is carried out:

    running ──pause, hibernate──> parked, its calls drain ──> its compute is stopped ──> at rest (`stopped_at`)
       ^                                   │                            │                     │
       └──────── nothing was touched ──────┘                            └── a restart cycle ──┴──> running

A proxy that dies in between finds `stopped_at` empty at its next start, and stops what is left: to stop is idempotent.
The stop names the next generation, so nothing older can start any more, however late; the cycle that brings the
workspace back has that generation or a later one. `desired` changes in the same commit that records that cycle.

While a workspace is parked nothing is probed, judged or restarted, and no request is dialled. Its end is expected. A
*hibernated* workspace is woken by whoever needs it: by the first request (all others find it woken already), and by a
deferral that is found in its queue. Where nobody can start it, it wakes itself: by a sign of life.
"""

import asyncio
from collections.abc import Callable
from collections.abc import Set as AbstractSet

from proxy.clock import Now
from proxy.core.decision import Trigger as LogTrigger
from proxy.core.errors import CallerError
from proxy.core.lifecycle import RESTING, Desired
from proxy.core.restart import Trigger
from proxy.core.workspace import Workspace, of_old_life, park, rest, unpark
from proxy.loops.background import Background
from proxy.loops.coordinator import Coordinator
from proxy.loops.readiness import Readiness
from proxy.loops.records import Records
from proxy.loops.routing import Route, Routing
from proxy.runtimes import RuntimeFailure
from proxy.store import StoreFailure
from proxy.telemetry import EventName, Telemetry

LOOK = 0.1
"""Seconds between two looks at whether the last open call has ended."""

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds between two attempts to stop a parked workspace's compute: doubled with each."""


class Parking:
    """Parks workspaces, and lets them run again. `drain`: seconds in which open calls may finish."""

    def __init__(
        self,
        *,
        routing: Routing,
        records: Records,
        coordinator: Coordinator,
        readiness: Readiness,
        background: Background,
        now: Now,
        telemetry: Telemetry,
        manages: Callable[[Workspace], bool],
        ring: Callable[[Route], None],
        drain: float,
    ) -> None:
        self._routing = routing
        self._records = records
        self._coordinator = coordinator
        self._readiness = readiness
        self._background = background
        self._now = now
        self._telemetry = telemetry
        self._manages = manages
        self._ring = ring
        self._drain = drain
        self._stopping: set[str] = set()
        self._waking: set[str] = set()
        self._hurried: set[str] = set()

    # What administration says

    async def pause(self, route: Route, reason: str, *, force: bool, request_id: str | None) -> int:
        """Pause a workspace with everything below it; return how many that changed. `force`: open calls are cut."""
        below = [each for each in self._routing if each is route or self._is_below(each, route)]
        return sum([await self._park(each, Desired.PAUSED, reason, force, request_id) for each in below])

    async def hibernate(self, route: Route, reason: str, *, force: bool, request_id: str | None) -> int:
        """Hibernate a workspace until somebody needs it; return 1 where that changed it.

        Raises:
            CallerError: 409 while something waits in its queue (it would wake at once), or while it works (unless
                `force`).
        """
        if route.workspace.desired is not Desired.HIBERNATED:
            if route.size.rows:
                text = f"workspace {route.id} has {route.size.rows} deferrals waiting: it would wake at once"
                raise CallerError("WORKSPACE_BUSY", text, status=409, facts={"queue_depth": route.size.rows})
            tasks_of_its_own = route.capacity - route.room(self._now())
            active = route.busy + tasks_of_its_own
            if active and not force and route.workspace.desired is Desired.RUNNING:
                text = f"workspace {route.id} is at work ({active} tasks); force cuts them short"
                raise CallerError("WORKSPACE_BUSY", text, status=409, facts={"active": active})
        return await self._park(route, Desired.HIBERNATED, reason, force, request_id)

    async def resume(self, route: Route, reason: str, *, request_id: str | None) -> int:
        """Let a workspace run again, and whatever is paused below it; return how many that changed.

        Raises:
            CallerError: 409 below an ancestor that is paused.
        """
        if (ancestor := self._paused_ancestor(route)) is not None:
            raise CallerError(
                "PARKED",
                f"workspace {ancestor.id} is {ancestor.workspace.desired}",
                status=409,
                facts={"workspace": ancestor.id},
            )
        changed = await self._release(route, RESTING, Trigger.ADMIN, reason, request_id)
        for each in self._routing:
            if each is not route and self._is_below(each, route):
                changed += await self._release(each, {Desired.PAUSED}, Trigger.ADMIN, reason, request_id)
        return changed

    # Who needs it

    def wake(self, route: Route, request_id: str | None) -> bool:
        """A request came that nobody can be asked to serve: wake a hibernated workspace, once; whether it is waking."""
        if route.workspace.desired is not Desired.HIBERNATED:
            cycle = route.open_cycle
            return cycle is not None and cycle.trigger is Trigger.WAKE
        if not self._manages(route.workspace) or self._paused_ancestor(route) is not None:
            return False
        if route.id not in self._waking:
            self._waking.add(route.id)
            self._background.spawn(self._wake(route, request_id), name=f"wake-{route.id}")
        return True

    async def _wake(self, route: Route, request_id: str | None) -> None:
        try:
            await self._release(route, {Desired.HIBERNATED}, Trigger.WAKE, "a request needs it", request_id)
        finally:
            self._waking.discard(route.id)

    async def heard(self, route: Route, boot_id: str | None) -> None:
        """A sign of life comes: what hibernates, and nobody here can start, has woken by itself."""
        known = route.workspace
        if known.desired is not Desired.HIBERNATED or self._manages(known):
            return
        if boot_id is None or not of_old_life(known, boot_id):
            await self._release(route, {Desired.HIBERNATED}, Trigger.WAKE, "it gave a sign of life", None)

    async def sweep(self) -> None:
        """Wake what hibernates with something in its queue: nobody may be left to ask for it again."""
        for route in self._routing:
            if route.size.rows and route.workspace.desired is Desired.HIBERNATED:
                self.wake(route, None)

    # Carried out

    def carry_on(self, route: Route) -> None:
        """Stop a parked workspace's compute, unless that was done or is under way; at the proxy's start, too."""
        known = route.workspace
        if not known.resting or known.stopped_at is not None or not self._manages(known):
            return
        if route.id not in self._stopping:
            self._stopping.add(route.id)
            self._background.spawn(self._bring_down(route), name=f"park-{route.id}")

    async def _park(self, route: Route, desired: Desired, reason: str, force: bool, request_id: str | None) -> int:
        was = route.workspace.desired
        saved = await self._records.change(
            route,
            lambda known: park(known, desired),
            decide=lambda after: self._records.decision(
                after,
                LogTrigger.ADMIN,
                f"desired {desired}",
                evidence={"reason": reason} if reason else {},
                request_id=request_id,
            ),
        )
        if saved is not None:
            route.draining = was is Desired.RUNNING or route.draining
            self._tell(route, request_id)
        self.carry_on(route)
        if force and route.id in self._stopping:
            self._hurried.add(route.id)
        return int(saved is not None)

    async def _bring_down(self, route: Route) -> None:
        """Let open calls finish, then stop; again and again where the runtime cannot, as long as it is parked."""
        try:
            await self._let_drain(route)
            pause = FIRST_PAUSE
            while route.workspace.resting and route.workspace.stopped_at is None:
                try:
                    await self._stop(route)
                except RuntimeFailure as failure:
                    fields = {"problem": failure.detail, "work": "parking"}
                    self._telemetry.emit(
                        EventName.RUNTIME_FAILED,
                        workspace=route.id,
                        incarnation=route.workspace.incarnation,
                        fields=fields,
                    )
                except StoreFailure as failure:
                    fields = {"problem": failure.reason, "work": "parking"}
                    self._telemetry.emit(
                        EventName.STORE_FAILED,
                        workspace=route.id,
                        incarnation=route.workspace.incarnation,
                        fields=fields,
                    )
                else:
                    continue
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE)
        finally:
            self._hurried.discard(route.id)
            self._stopping.discard(route.id)
        self.carry_on(route)  # it may have been parked anew while this ended

    async def _let_drain(self, route: Route) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._drain
        while (  # noqa: ASYNC110 - calls end in many places, and nobody waits for this moment
            route.draining and route.busy and route.id not in self._hurried and loop.time() < deadline
        ):
            await asyncio.sleep(LOOK)

    async def _stop(self, route: Route) -> None:
        async with self._coordinator.acting(route):
            if not await self._coordinator.rest(route):
                return
            await self._coordinator.driving.stop(route, route.workspace.generation + 1)
            saved = await self._records.change(
                route,
                lambda known: rest(known, self._now()),
                decide=lambda after: self._records.decision(after, LogTrigger.PARKED, "compute stopped"),
            )
        if saved is not None:
            self._telemetry.emit(
                EventName.WORKSPACE_STATUS,
                workspace=route.id,
                incarnation=route.workspace.incarnation,
                rule=saved.desired.value,
                fields={"status": saved.status.value},
            )

    async def _release(
        self, route: Route, leaving: AbstractSet[Desired], trigger: Trigger, reason: str, request_id: str | None
    ) -> int:
        if self._manages(route.workspace):
            changed = await self._coordinator.unpark(route, leaving, trigger, reason, request_id=request_id)
        else:
            saved = await self._records.change(
                route,
                lambda known: unpark(known) if known.desired in leaving else None,
                decide=lambda after: self._records.decision(
                    after,
                    LogTrigger.ADMIN if trigger is Trigger.ADMIN else LogTrigger.PARKED,
                    "desired running",
                    evidence={"reason": reason} if reason else {},
                    request_id=request_id,
                ),
            )
            changed = saved is not None
        if changed:
            self._tell(route, request_id)
            self._readiness.watch(route)
            self._ring(route)
        return int(changed)

    def _tell(self, route: Route, request_id: str | None) -> None:
        self._telemetry.emit(
            EventName.WORKSPACE_DESIRED,
            workspace=route.id,
            request_id=request_id,
            incarnation=route.workspace.incarnation,
            fields={"desired": route.workspace.desired.value},
        )

    # Who stands above whom

    def _above(self, route: Route) -> list[Route]:
        """Its ancestors, the nearest first."""
        found: list[Route] = []
        parent = route.workspace.parent
        while parent is not None and (above := self._routing.get(parent)) is not None:
            if above is route or above in found:
                break
            found.append(above)
            parent = above.workspace.parent
        return found

    def _is_below(self, route: Route, ancestor: Route) -> bool:
        return any(above is ancestor for above in self._above(route))

    def _paused_ancestor(self, route: Route) -> Route | None:
        kept = {Desired.PAUSED, Desired.DRAINING}
        return next((above for above in self._above(route) if above.workspace.desired in kept), None)
