"""One Holdfast: starts its parts in order, stops them in the opposite order.

Owns: start and stop order, what an earlier life left, the periodic work.
Knows nothing of: how the parts are made and tied (`proxy.assembly`, `proxy.doors`), any rule.

Start: open the store, read the routing table, adopt what still runs, listen, then resume what was left open. Nothing is
answered before the table is filled, and nothing is decided before the runtimes have told what outlived us.
Stop: stop listening and drain, stop leasing, stop the loops, flush signs of life, let go of runtimes, close the store.
"""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from proxy.clock import JumpKind
from proxy.core.errors import CallerError
from proxy.doors import Doors
from proxy.loops.routing import Route
from proxy.runtimes import Exited
from proxy.store import StoreFailure
from proxy.store.laws import HOLDER_GONE
from proxy.telemetry import EventName
from proxy.web import bodies

LEASE_SWEEP = 5.0
EXPIRY_SWEEP = 5.0
RETENTION_SWEEP = 60.0
RESTARTS_SWEEP = 600.0
RESUMED_AT_ONCE = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """Where it listens, and the admin token if one was made at this very start."""

    host: str
    port: int
    new_admin_token: str | None

    @property
    def url(self) -> str:
        """The address as a URL."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"


class App(Doors):
    """One Holdfast. Tests start the same one that `holdfast serve` starts."""

    _started = False

    # Start and stop

    async def start(self) -> Serving:
        """Open, adopt, listen, resume.

        Raises:
            StoreFailure: the database cannot be used; its reason says why.
            OSError: the address cannot be listened on.
        """
        await self.store.open()
        try:
            return await self._start()
        except BaseException:
            await self.stop(drain=0)
            raise

    async def _start(self) -> Serving:
        config, now = self.config, self.now()
        self.assemble()
        await self._amend(now)
        completed = timedelta(seconds=config.queue.idempotency_retention)
        self.routing.fill(
            await self.store.snapshot(restarts_since=now - self.restart_history.usual, completed_since=now - completed)
        )
        await self.restart_history.recall()
        admin_digest, made = await self.mint.admin_token(config.admin_token, self.routing, self.store)
        self.open_doors(admin_digest)
        exits = await self._take_over()
        host, port = config.host, config.port
        if self.listens:
            host, port = await self.server.start(host, port)
        serving = Serving(host=host, port=port, new_admin_token=made)
        self.url = serving.url
        self._started = True
        self.telemetry.emit(EventName.PROXY_STARTED, fields={"url": serving.url, "data": str(config.data)})
        for warning in config.warnings:
            self.telemetry.emit(EventName.CONFIG_WARNING, fields={"warning": warning})
        await self._resume(exits)
        self._tick()
        return serving

    async def _amend(self, now: datetime) -> None:
        """Take back what an earlier life wrote down as later than now: its clock was ahead, and was set back since.

        Without that a workspace would settle, a death be debounced and a try wait for as long as the clock was ahead.
        """
        queue = self.config.queue
        latest_try = now + timedelta(seconds=max(queue.backoff_cap, queue.gateway_backoff))
        if await self.store.amend(now, latest_try=latest_try):
            self.telemetry.emit(EventName.CLOCK_JUMPED, fields={"kind": JumpKind.BACKWARD.value})

    async def stop(self, drain: float | None = None) -> None:
        """Drain and stop; idempotent."""
        if self._started:
            self.telemetry.emit(EventName.PROXY_STOPPING)
            await self.replayer.stop()
            self.polling.stop()
            await self.server.stop(self.config.server.drain_seconds if drain is None else drain)
            await self.background.aclose()
            await self.gate.aclose()
            await self.beats.flush()
            with suppress(StoreFailure):  # a note is no promise
                await self.notes.flush()
            await self.hosting.aclose()
            await self.pushing.aclose()
            await self.forward.aclose()
            self._started = False
        await self.store.aclose()
        self.telemetry.emit(EventName.PROXY_STOPPED)

    async def _take_over(self) -> list[Exited]:
        """Take charge of what an earlier life of this proxy left: what still runs, and the leases that it held.

        Before anybody is answered: a lease that is taken afterwards is this life's own. Returns what ended meanwhile.
        """
        outlived = await self.hosting.adopt()
        for orphan in {fact.workspace_id for fact in outlived if self.routing.get(fact.workspace_id) is None}:
            # Its workspace was removed, and this proxy ended before its compute was stopped.
            work = self.hosting.forget(orphan, self.config.restart.stop_grace)
            self.background.spawn(work, name=f"forget-{orphan}")
        await self.deferring.took_back(await self.store.release_owned(self.owner, self.now()), HOLDER_GONE)
        await self.store.release_pushes(self.owner)
        return [fact for fact in outlived if isinstance(fact, Exited)]

    async def _resume(self, exits: list[Exited]) -> None:
        """Go on where an earlier life of this proxy stopped."""
        for exited in exits:
            await self.coordinator.on_exit(exited)
        for name, table in self.config.workspaces.items():
            await self._declare(name, table)
        self.background.spawn(self._look_after_all(), name="resume")
        self.background.spawn(self.pushing.notifying.sweep(), name="resume-pushes")

    async def _look_after_all(self) -> None:
        """Begin with every workspace; a few at a time, so that a hundred thousand do not hold requests up."""
        for number, route in enumerate(self.routing, 1):
            self.background.spawn(self._look_after(route), name=f"resume-{route.id}")
            if number % RESUMED_AT_ONCE == 0:
                await asyncio.sleep(0)

    async def _declare(self, name: str, table: Mapping[str, Any]) -> None:
        """Take over a workspace from the configuration file."""
        try:
            said = bodies.take(dict(table), bodies.WorkspaceBody).said()
            await self.enrolling.put(name, said, by_admin=True)
        except CallerError as problem:
            self.telemetry.emit(
                EventName.CONFIG_WARNING, workspace=name, fields={"warning": f"[workspaces.{name}]: {problem.message}"}
            )

    async def _look_after(self, route: Route) -> None:
        await self.coordinator.resume(route)
        self.parking.carry_on(route)
        await self.readiness.settle(route)  # an earlier life may have died between "ready" and the end of its cycle
        self.readiness.watch(route)
        self.replayer.ring(route)

    def _tick(self) -> None:
        config, every = self.config, self.background.every
        every(config.beats.flush, self.beats.tick, name="flush")
        every(config.decisions.write, self.notes.flush, name="notes")
        every(config.health.sweep, self.health.sweep, name="health-sweep")
        every(config.health.sweep, self.reconciler.sweep, name="reconcile")
        every(config.queue.sweep, self.replayer.sweep, name="replay-sweep")
        every(config.queue.sweep, self.parking.sweep, name="wake-sweep")
        every(config.queue.lease / 3, self.replayer.renew, name="renew")
        every(min(LEASE_SWEEP, config.queue.lease), self.sweep_leases, name="lease-sweep")
        every(EXPIRY_SWEEP, self.sweeper.expiries, name="expiry-sweep")
        every(RETENTION_SWEEP, self.sweeper.retention, name="retention-sweep")
        every(RESTARTS_SWEEP, self.restart_history.trim, name="restarts-sweep")
        every(config.push.sweep, self.pushing.notifying.sweep, name="push-sweep")
        every(self.lag.interval, self.lag.tick, name="lag")
