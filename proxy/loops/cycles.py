"""Restart cycles as they are written: begun, ended, announced; each with its line in the decision log and its event.

Owns: what a brake must know of the past, recording a cycle before anything is touched, ending one.
Knows nothing of: when a restart may begin (`core.restart`, `loops.coordinator`), how it is done (`loops.driving`).
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

from proxy.clock import Now
from proxy.core.lifecycle import Status
from proxy.core.restart import Answer, History, Phase, Restart, Trigger, counted
from proxy.core.workspace import Workspace, begin_restart
from proxy.loops.changes import tell_changes
from proxy.loops.driving import Driving
from proxy.loops.records import Records
from proxy.loops.restart_history import history_since
from proxy.loops.restart_lines import RestartLines, numbers
from proxy.loops.routing import Route
from proxy.runtimes import Runtime
from proxy.telemetry import EventName, Telemetry


class Cycles:
    """Writes cycles down."""

    def __init__(
        self,
        *,
        records: Records,
        lines: RestartLines,
        driving: Driving,
        runtimes: Callable[[Workspace], Runtime],
        now: Now,
        telemetry: Telemetry,
        owner: str,
        lease: float,
    ) -> None:
        self._records = records
        self._lines = lines
        self._driving = driving
        self._runtime = runtimes
        self._now = now
        self._telemetry = telemetry
        self._owner = owner
        self._lease = lease

    def history(self, route: Route) -> History:
        """What the brakes must know of a workspace's past."""
        return History(
            managed=self._runtime(route.workspace).tells,
            running=route.open_cycle is not None,
            abandoned=route.workspace.status is Status.ABANDONED,
            cycles=route.cycles,
        )

    async def record(  # noqa: PLR0917 - who asks gives them all, in the order in which they are read
        self, route: Route, known: Workspace, trigger: Trigger, rule: str, reason: str, request_id: str | None
    ) -> Restart | None:
        """Write a cycle down; None when the record was changed by somebody else meanwhile (the route is fresh then).

        `known` is the workspace as it is to be when the cycle begins: what is changed in it is part of the same commit.
        """
        now = self._now()
        next_life = begin_restart(known, now, self._owner)
        cycle = Restart(
            workspace_id=known.id,
            generation=next_life.generation,
            incarnation=next_life.incarnation,
            trigger=trigger,
            reason=reason,
            rule=rule,
            phase=Phase.RECORDED,
            started_at=now,
            lease_owner=self._owner,
            lease_until=now + timedelta(seconds=self._lease),
        )
        line = self._lines.asked(
            next_life,
            trigger,
            "restart scheduled",
            reason,
            request_id=request_id,
            rule=rule,
            evidence=numbers(Answer.SCHEDULED, self.history(route), route.effective.restart, now),
        )
        saved = await self._records.write(next_life, restart=cycle, retire_tokens=True, decision=line, route=route)
        if saved is None:
            return None
        route.previous = None
        route.draining = False
        route.forget_cycles(history_since(route, now))
        self._emit(EventName.RESTART_SCHEDULED, route, cycle, request_id=request_id)
        tell_changes(self._telemetry, known, saved, "restart")
        return cycle

    def coalesced(self, route: Route, request_id: str | None) -> None:
        """Somebody asked for a restart while one was under way: that one, or the next, is theirs as well."""
        if (cycle := route.open_cycle) is not None:
            self._emit(EventName.RESTART_COALESCED, route, cycle, request_id=request_id)

    def begun(self, route: Route, cycle: Restart) -> None:
        """The runtime is asked to stop and start the workspace now."""
        self._emit(EventName.RESTART_STARTED, route, cycle)

    async def end(self, route: Route, cycle: Restart, phase: Phase, error: str | None) -> None:
        """Write a cycle's end down; LeaseLost when it is not ours."""
        now = self._now()
        ended = replace(cycle, phase=phase, finished_at=now, error=error, lease_owner=None, lease_until=None)
        await self._driving.save(route, ended, self._lines.came_to(route.workspace, ended, now))
        self._emit(EventName.RESTART_FAILED if phase is Phase.FAILED else EventName.RESTART_FINISHED, route, ended)

    async def announce(self, route: Route, reason: str) -> bool:
        """Open the settle window of a workspace that restarts itself, once per incarnation; touch nothing else."""
        while self._may_announce(route):
            known, now = route.workspace, self._now()
            announced = replace(known, announced_at=now, generation=known.generation + 1)
            record = Restart(
                workspace_id=known.id,
                generation=announced.generation,
                incarnation=known.incarnation,
                trigger=Trigger.ANNOUNCED,
                reason=reason,
                rule="",
                phase=Phase.FINISHED,
                started_at=now,
                finished_at=now,
            )
            line = self._lines.asked(announced, Trigger.ANNOUNCED, "settle window opened", reason)
            if await self._records.write(announced, restart=record, decision=line, route=route) is not None:
                self._emit(EventName.RESTART_ANNOUNCED, route, record)
                return True
        return False

    def _may_announce(self, route: Route) -> bool:
        known = route.workspace
        if known.announced_at is not None or known.parked or route.open_cycle is not None:
            return False
        limit = route.effective.restart.intensity
        return limit == 0 or len(counted(self.history(route), _brakes_since(route, self._now()))) < limit

    def _emit(self, name: EventName, route: Route, cycle: Restart, *, request_id: str | None = None) -> None:
        self._telemetry.emit(
            name,
            workspace=route.id,
            request_id=request_id,
            incarnation=cycle.incarnation,
            rule=cycle.rule,
            fields={"generation": cycle.generation, "trigger": cycle.trigger.value, "phase": cycle.phase.value},
        )


def _brakes_since(route: Route, now: datetime) -> datetime:
    return now - timedelta(seconds=route.effective.restart.window)
