"""The health sweep: looks after workspaces that no request asks about.

Owns: what is looked at how often, staleness, and counting failed network probes.
Knows nothing of: what a look means. Every "is it dead?" goes through the gate, like everybody's.

Theory of operation. A sweep passes over all workspaces that should serve, a bounded number at a time; where there is
nothing to wait for, it lets others in after every few (there may be a hundred thousand).

* Where a runtime can tell, the gate judges, with trigger `sweep` (or `heartbeat_ttl`, when beats have stopped): such an
  evaluation adds no strike, and inside a settle window it finds what any other finds.
* Where none can tell, silence makes a workspace *stale*: offline, but never restarted and dialled all the same. Its
  network probe is tried first: whoever answers is not stale.
* `failures` network probes in a row that fail make a ready workspace degraded; the next that passes makes it ready,
  unless the workspace itself says in its beats that it is degraded.

Ages that span a jump of the clock prove nothing: for one TTL after it, and after the start of the proxy, nobody is
stale.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from proxy.clock import Now
from proxy.core.decision import Trigger
from proxy.core.lifecycle import SERVING, Cause, Status, may_move
from proxy.core.workspace import Workspace, become_ready
from proxy.loops.gate import Gate
from proxy.loops.readiness import Readiness
from proxy.loops.records import Records
from proxy.loops.routing import Route, Routing
from proxy.telemetry import EventName, Telemetry

AT_ONCE = 16
"""Workspaces that one sweep looks at at the same time."""
IN_A_ROW = 10
"""Workspaces that each of these looks passes over without letting others in; together they take about a millisecond."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthRules:
    """Seconds of silence that make a workspace without a runtime stale (0: never), and failed probes that degrade."""

    stale: float
    failures: int


class Health:
    """Sweeps."""

    def __init__(
        self,
        *,
        routing: Routing,
        records: Records,
        gate: Gate,
        readiness: Readiness,
        now: Now,
        telemetry: Telemetry,
        tells: Callable[[Workspace], bool],
        probe: Callable[[Workspace], Awaitable[bool]],
        trusts_ages: Callable[[datetime, timedelta], bool],
        rules: HealthRules,
    ) -> None:
        self._routing = routing
        self._records = records
        self._gate = gate
        self._readiness = readiness
        self._now = now
        self._telemetry = telemetry
        self._tells = tells
        self._probe = probe
        self._trusts_ages = trusts_ages
        self._rules = rules
        self._misses: dict[str, int] = {}
        self._silent: dict[str, datetime] = {}

    async def sweep(self) -> None:
        """Look at every workspace that should serve."""
        self._misses = {name: count for name, count in self._misses.items() if self._is_looked_at(name)}
        self._silent = {name: at for name, at in self._silent.items() if self._is_looked_at(name)}
        failed: list[Exception] = []
        routes = enumerate(self._routing, 1)

        async def look() -> None:
            for number, route in routes:
                if number % IN_A_ROW == 0:
                    await asyncio.sleep(0)
                if self._concerns(route.workspace):
                    try:
                        await self._look(route)
                    except Exception as problem:  # noqa: BLE001 - the others are looked at all the same
                        failed.append(problem)

        await asyncio.gather(*(look() for _ in range(AT_ONCE)))
        if failed:
            raise failed[0]

    def _is_looked_at(self, name: str) -> bool:
        route = self._routing.get(name)
        return route is not None and self._concerns(route.workspace)

    @staticmethod
    def _concerns(workspace: Workspace) -> bool:
        return not workspace.parked and workspace.status in SERVING and workspace.status is not Status.STARTING

    async def _look(self, route: Route) -> None:
        answers = None
        if route.workspace.url is not None and not route.polling:
            answers = await self._probe(route.workspace)
            await self._count(route, passed=answers)
        if self._tells(route.workspace):
            trigger = Trigger.HEARTBEAT_TTL if self._fell_silent(route) else Trigger.SWEEP
            await self._gate.ask(route, trigger)
        elif not answers and self._stale(route):
            await self._set_offline(route)

    def _fell_silent(self, route: Route) -> bool:
        """Beats have stopped for the TTL, and this silence was not looked at yet."""
        ttl = timedelta(seconds=route.effective.policy.heartbeat_ttl)
        last, now = route.signs.last_heartbeat_at, self._now()
        if not ttl or last is None or now - last < ttl or not self._trusts_ages(now, ttl):
            return False
        looked_at = self._silent.get(route.id)
        self._silent[route.id] = last
        return looked_at != last

    def _stale(self, route: Route) -> bool:
        limit = timedelta(seconds=self._rules.stale)
        now = self._now()
        heard = (route.signs.last_sign_at, route.workspace.registered_at, route.workspace.created_at)
        last = max(at for at in heard if at is not None)
        return bool(limit) and now - last >= limit and self._trusts_ages(now, limit)

    async def _set_offline(self, route: Route) -> None:
        def offline(known: Workspace) -> Workspace | None:
            return (
                replace(known, status=Status.OFFLINE) if may_move(known.status, Status.OFFLINE, Cause.STALE) else None
            )

        line = self._records.decision(route.workspace, Trigger.SWEEP, "offline", verdict="unknown", rule="stale")
        if await self._records.change(route, offline, decide=lambda _: line) is not None:
            self._telemetry.emit(
                EventName.WORKSPACE_STATUS,
                workspace=route.id,
                incarnation=route.workspace.incarnation,
                rule="stale",
                fields={"status": "offline"},
            )
            self._readiness.watch(route)

    async def _count(self, route: Route, *, passed: bool) -> None:
        """Count network probes; a row of failures degrades, a success restores."""
        misses = 0 if passed else self._misses.get(route.id, 0) + 1
        self._misses[route.id] = misses
        now, known = self._now(), route.workspace
        # A workspace that calls itself degraded knows more than its probe. What an earlier proxy degraded is restored.
        if passed and known.status is Status.DEGRADED and route.degraded_in != known.incarnation:
            await self._move(route, lambda known: become_ready(known, Cause.PROBE, now), "status ready")
        elif self._rules.failures and misses == self._rules.failures:
            await self._move(route, _degraded, "status degraded")

    async def _move(self, route: Route, derive: Callable[[Workspace], Workspace | None], action: str) -> None:
        line = self._records.decision(route.workspace, Trigger.SWEEP, action, evidence={"cause": "probe"})
        saved = await self._records.change(route, derive, decide=lambda _: line)
        if saved is not None:
            self._telemetry.emit(
                EventName.WORKSPACE_STATUS,
                workspace=route.id,
                incarnation=route.workspace.incarnation,
                fields={"status": saved.status.value},
            )


def _degraded(known: Workspace) -> Workspace | None:
    return replace(known, status=Status.DEGRADED) if may_move(known.status, Status.DEGRADED, Cause.PROBE) else None
