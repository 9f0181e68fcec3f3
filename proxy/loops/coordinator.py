"""The restart coordinator: turns "restart it" into recorded cycles, one at a time per workspace.

Owns: asking `core.restart.decide`, writing a cycle down before the runtime is called, driving stop and start, ending
cycles, and the timers that look again after a debounce or a backoff.
Knows nothing of: why a workspace is dead, how a runtime does its work, when a workspace is ready (`readiness` says so).

Theory of operation. A cycle is *recorded* (next incarnation, next generation, a fresh token), *stopped*, *started*, and
then *finished* when the workspace is ready, or *failed* when what it started exits first, cannot be started, or does
not get ready in time. Each phase is committed before the next step. Every step is idempotent per generation, so after
a crash the same cycle is driven again from its first step: a running child of this generation means *started*.

A request by an admin or a configuration write during stop or start sets `restart_pending` on the record; as soon as
the start has returned, the next cycle begins, and it reads the settings afresh. N requests make at most two cycles.
"""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from proxy.clock import Now
from proxy.core.decision import Decision as LogLine
from proxy.core.decision import Trigger as LogTrigger
from proxy.core.lifecycle import Cause, Status, may_move
from proxy.core.restart import (
    Answer,
    Decision,
    History,
    Phase,
    Restart,
    Trigger,
    counted,
    decide,
)
from proxy.core.workspace import Workspace, begin_restart, runtime_returned
from proxy.loops.background import Background
from proxy.loops.driving import Driving, LeaseLost, TokenMint
from proxy.loops.records import Records
from proxy.loops.routing import Route, Routing, history_since
from proxy.runtimes import Exited, Runtime, RuntimeFailure
from proxy.store import Store, StoreFailure
from proxy.telemetry import EventName, Telemetry

STORE_PAUSE = 5.0
"""Seconds after which a cycle that the store stopped goes on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The answer to a request for a restart, and the generation that it concerns."""

    decision: Decision
    generation: int


class Coordinator:
    """Runs restart cycles."""

    def __init__(
        self,
        *,
        store: Store,
        records: Records,
        routing: Routing,
        runtimes: Callable[[Workspace], Runtime],
        background: Background,
        now: Now,
        telemetry: Telemetry,
        mint: TokenMint,
        chance_boot_id: Callable[[], str],
        own_url: Callable[[], str],
        owner: str,
        lease: float,
        stop_grace: float,
    ) -> None:
        self._store = store
        self._records = records
        self._routing = routing
        self._runtime = runtimes
        self._background = background
        self._now = now
        self._telemetry = telemetry
        self._owner = owner
        self._lease = lease
        self._driving = Driving(
            store=store,
            routing=routing,
            runtimes=runtimes,
            background=background,
            now=now,
            mint=mint,
            chance_boot_id=chance_boot_id,
            own_url=own_url,
            owner=owner,
            lease=lease,
            stop_grace=stop_grace,
        )
        self._locks: dict[str, asyncio.Lock] = {}
        self._driven: dict[str, int] = {}
        self.judge_again: Callable[[Route, LogTrigger], Coroutine[Any, Any, object]]
        self.await_ready: Callable[[Route], None]

    # Requests

    async def on_verdict(self, route: Route, rule: str, *, request_id: str | None) -> Decision:
        """Ask for a restart because of a verdict; the brakes decide (scenarios 8, 20, 58)."""
        async with self._lock(route):
            cycle = route.open_cycle
            if cycle is not None and cycle.phase is Phase.STARTED:
                # What this cycle started is what was found dead.
                await self._end(route, cycle, Phase.FAILED, f"declared dead ({rule}) before it was ready")
            decision = decide(Trigger.VERDICT, rule, self._history(route), route.effective.restart, self._now())
            if decision.answer is Answer.SCHEDULED:
                begun = await self._begin(route, Trigger.VERDICT, rule, f"verdict {rule}", request_id)
                return decision if begun else Decision(answer=Answer.COALESCED, at=self._now())
            await self._hold_back(route, decision, rule, request_id)
            return decision

    async def on_demand(self, route: Route, trigger: Trigger, reason: str, *, request_id: str | None) -> Asked:
        """Restart because an admin or a configuration write says so: no brake, at most one more cycle."""
        async with self._lock(route):
            history = self._history(route)
            if not history.managed:
                return Asked(decision=Decision(answer=Answer.UNMANAGED), generation=route.workspace.generation)
            cycle = route.open_cycle
            if cycle is not None and cycle.phase is not Phase.STARTED:
                await self._records.change(
                    route,
                    lambda known: replace(known, restart_pending=True),
                    decide=lambda known: self._line(known, trigger, "restart coalesced", reason, request_id),
                )
                answer = Decision(answer=Answer.COALESCED, at=self._now())
                return Asked(decision=answer, generation=route.workspace.generation + 1)
            if cycle is not None:
                await self._end(route, cycle, Phase.SUPERSEDED, "another restart was asked for before it was ready")
            begun = await self._begin(route, trigger, "", reason, request_id)
            answer = Decision(answer=Answer.SCHEDULED if begun else Answer.COALESCED, at=self._now())
            return Asked(decision=answer, generation=route.workspace.generation)

    async def on_announcement(self, route: Route, reason: str) -> bool:
        """The workspace restarts itself: open its settle window once per incarnation, touch nothing else."""
        async with self._lock(route):
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
                line = self._line(known, Trigger.ANNOUNCED, "settle window opened", reason, None)
                if await self._records.write(announced, restart=record, decision=line, route=route) is not None:
                    return True
            return False

    def _may_announce(self, route: Route) -> bool:
        known = route.workspace
        if known.announced_at is not None or known.parked or route.open_cycle is not None:
            return False
        limit = route.effective.restart.intensity
        return limit == 0 or len(counted(self._history(route), self._brakes_since(route, self._now()))) < limit

    def standing(self, route: Route, rule: str) -> Decision:
        """Say what a verdict would get now, without doing anything."""
        if route.workspace.status is Status.ABANDONED:
            return Decision(answer=Answer.ABANDONED)
        decision = decide(Trigger.VERDICT, rule, self._history(route), route.effective.restart, self._now())
        if decision.answer is Answer.SCHEDULED:
            # The brake has just let go: the timer that holds the restart is about to fire.
            return Decision(answer=Answer.BACKOFF, at=self._now())
        return decision

    async def on_exit(self, exited: Exited) -> None:
        """A supervisor saw an instance end. An exit that we did not ask for is evidence, once and for all."""
        route = self._routing.get(exited.workspace_id)
        if route is None or exited.expected or not route.lives_in(exited.incarnation):
            return
        self._telemetry.emit(
            EventName.WORKSPACE_EXITED,
            workspace=route.id,
            incarnation=exited.incarnation,
            fields={"exit_code": exited.exit_code},
        )

        life = route.workspace.incarnation

        def mark(known: Workspace) -> Workspace | None:
            return replace(known, exited_at=exited.at) if known.incarnation == life else None

        async with self._lock(route):
            await self._records.change(route, mark)
            cycle = route.open_cycle
            if cycle is not None and cycle.incarnation == exited.incarnation and cycle.phase is Phase.STARTED:
                await self._end(route, cycle, Phase.FAILED, f"exited before it was ready (code {exited.exit_code})")
        if not route.workspace.parked:
            await self.judge_again(route, LogTrigger.EXIT)

    async def on_ready(self, route: Route) -> None:
        """The workspace is ready again: its cycle has done its work."""
        async with self._lock(route):
            cycle = route.open_cycle
            if cycle is not None and cycle.phase is Phase.STARTED:
                await self._end(route, cycle, Phase.FINISHED, None)

    async def on_unready(self, route: Route) -> None:
        """The workspace did not get ready within the provisioning timeout."""
        async with self._lock(route):
            cycle = route.open_cycle
            if cycle is None or cycle.phase is not Phase.STARTED:
                return
            limit = route.effective.policy.provisioning_timeout
            await self._end(route, cycle, Phase.FAILED, f"not ready within {limit:g} s")
        await self.judge_again(route, LogTrigger.READINESS)

    async def resume(self, route: Route) -> None:
        """At the proxy's start: go on with a cycle that its earlier life left open, or look after a standing death."""
        cycle = route.open_cycle
        if cycle is not None and cycle.phase in {Phase.RECORDED, Phase.STOPPED}:
            self._spawn_drive(route, cycle)
        elif cycle is not None:
            self.await_ready(route)
        elif route.workspace.status is Status.RESTARTING and route.cycles:
            # The cycle's failure was written down, what follows from it was not.
            await self._start_failed(route, route.cycles[-1], "")
        elif route.workspace.restart_pending and self._history(route).managed:
            await self.on_demand(route, Trigger.ADMIN, "asked for before the proxy stopped", request_id=None)
        elif route.workspace.status is Status.OFFLINE and route.workspace.offline_rule and not route.workspace.parked:
            await self.judge_again(route, LogTrigger.COORDINATOR)

    # Cycles

    def _lock(self, route: Route) -> asyncio.Lock:
        return self._locks.setdefault(route.id, asyncio.Lock())

    def _brakes_since(self, route: Route, now: datetime) -> datetime:
        return now - timedelta(seconds=route.effective.restart.window)

    def _history(self, route: Route) -> History:
        cycle = route.open_cycle
        return History(
            managed=self._runtime(route.workspace).tells,
            running=cycle is not None,
            abandoned=route.workspace.status is Status.ABANDONED,
            cycles=route.cycles,
        )

    async def _begin(self, route: Route, trigger: Trigger, rule: str, reason: str, request_id: str | None) -> bool:
        """Record a cycle and drive it; False where none may begin: parked, removed, or back before the restart."""
        while True:
            known = route.workspace
            if known.parked or not may_move(known.status, Status.RESTARTING, Cause.COORDINATOR):
                return False
            if trigger is Trigger.VERDICT and known.status is not Status.OFFLINE:
                return False
            if await self._record(route, trigger, rule, reason, request_id):
                return True

    async def _record(self, route: Route, trigger: Trigger, rule: str, reason: str, request_id: str | None) -> bool:
        """Write a cycle down and drive it; False when the record was changed by somebody else meanwhile."""
        known, now = route.workspace, self._now()
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
        line = self._line(next_life, trigger, "restart scheduled", reason, request_id, rule)
        saved = await self._records.write(next_life, restart=cycle, retire_tokens=True, decision=line, route=route)
        if saved is None:
            return False
        route.previous = None
        route.forget_cycles(history_since(route, now))
        self._emit(EventName.RESTART_STARTED, route, cycle)
        self._spawn_drive(route, cycle)
        return True

    def _spawn_drive(self, route: Route, cycle: Restart) -> None:
        """Drive a cycle, once: what an exit begins while the proxy starts is already there to be resumed."""
        if self._driven.get(route.id, 0) < cycle.generation:
            self._driven[route.id] = cycle.generation
            self._background.spawn(self._drive(route, cycle), name=f"restart-{route.id}")

    async def _drive(self, route: Route, cycle: Restart) -> None:
        """Stop, start, and hand over to readiness; every failure ends the cycle, none escapes (scenario 57)."""
        problem: str | None = None
        while True:
            try:
                problem = problem or await self._carry_out(route, cycle)
                if problem is not None:
                    await self._start_failed(route, cycle, problem)
            except StoreFailure as failure:
                # Every step is idempotent per generation: once the store is back, it goes on from the first one.
                fields = {"problem": failure.reason, "work": "restart"}
                self._telemetry.emit(EventName.STORE_FAILED, workspace=route.id, fields=fields)
                await asyncio.sleep(STORE_PAUSE)
            except LeaseLost:
                await self._records.refresh(route)
                return
            else:
                return

    async def _carry_out(self, route: Route, cycle: Restart) -> str | None:
        """Carry a cycle out, up to where readiness takes over; return what went wrong with its stop or start."""
        try:
            cycle = await self._driving.drive(route, cycle)
        except (StoreFailure, LeaseLost):
            raise
        except Exception as problem:  # noqa: BLE001 - a crashing cycle must leave nothing running (scenario 57)
            detail = problem.detail if isinstance(problem, RuntimeFailure) else type(problem).__name__
            self._telemetry.emit(
                EventName.RUNTIME_FAILED, workspace=route.id, incarnation=cycle.incarnation, fields={"problem": detail}
            )
            return detail
        await self._returned(route, cycle)
        return None

    async def _returned(self, route: Route, cycle: Restart) -> None:
        """The start has returned: the next cycle if one was asked for, else wait until the workspace is ready."""
        async with self._lock(route):
            returned_at = self._now()
            await self._records.change(
                route,
                lambda known: runtime_returned(known, returned_at) if known.generation == cycle.generation else None,
            )
            cycle = await self._driving.save(route, replace(cycle, phase=Phase.STARTED, returned_at=returned_at))
            pending = route.workspace.restart_pending
            if pending:
                await self._end(route, cycle, Phase.SUPERSEDED, "another restart was asked for meanwhile")
                await self._begin(route, Trigger.CONFIG, "", "asked for during the last cycle", None)
                return
            gone = route.workspace.exited_at is not None
            if gone:
                await self._end(route, cycle, Phase.FAILED, "exited as soon as it was started")
        if gone:
            await self.judge_again(route, LogTrigger.EXIT)
        else:
            self.await_ready(route)

    async def _start_failed(self, route: Route, cycle: Restart, problem: str) -> None:
        async with self._lock(route):
            if route.open_cycle is not None:
                await self._end(route, cycle, Phase.FAILED, problem)
            offline = await self._records.change(
                route,
                lambda known: (
                    replace(known, status=Status.OFFLINE, offline_rule="exited", exited_at=self._now())
                    if known.generation == cycle.generation and known.status is Status.RESTARTING
                    else None
                ),
            )
            if offline is not None:
                fields = {"status": offline.status.value}
                self._telemetry.emit(EventName.WORKSPACE_STATUS, workspace=route.id, rule="exited", fields=fields)
            if route.workspace.restart_pending:
                # Asked for by somebody who may have mended it: no brake.
                await self._begin(route, Trigger.CONFIG, "", "asked for during the last cycle", None)
                return
        await self.on_verdict(route, "exited", request_id=None)

    async def _end(self, route: Route, cycle: Restart, phase: Phase, error: str | None) -> None:
        now = self._now()
        ended = replace(cycle, phase=phase, finished_at=now, error=error, lease_owner=None, lease_until=None)
        await self._driving.save(route, ended)
        self._emit(EventName.RESTART_FAILED if phase is Phase.FAILED else EventName.RESTART_FINISHED, route, ended)
        await self._store.log([self._line(route.workspace, cycle.trigger, f"restart {phase}", error or "", None)])

    async def _hold_back(self, route: Route, decision: Decision, rule: str, request_id: str | None) -> None:
        """A brake holds the restart: say so, and look again when it lets go."""
        line = self._line(
            route.workspace, Trigger.VERDICT, f"restart {decision.answer}", "the brake holds it", request_id, rule
        )
        if decision.answer is Answer.ABANDONED:
            saved = await self._records.change(
                route,
                lambda known: (
                    replace(known, status=Status.ABANDONED, abandoned_at=self._now())
                    if known.abandoned_at is None and may_move(known.status, Status.ABANDONED, Cause.BRAKE)
                    else None
                ),
                decide=lambda _: line,
            )
            if saved is not None:
                self._telemetry.emit(EventName.RESTART_ABANDONED, workspace=route.id, rule=rule)
            return
        await self._store.log([line])
        if decision.at is None:
            return
        delay = max(0.0, (decision.at - self._now()).total_seconds())
        retry = self._after_backoff(route, rule) if decision.answer is Answer.BACKOFF else self._after_debounce(route)
        self._background.later(f"brake-{route.id}", delay, retry)
        if route.workspace.exited_at is None:
            self.await_ready(route)  # what was only inferred to be dead may answer yet

    def _after_backoff(self, route: Route, rule: str) -> Callable[[], Coroutine[Any, Any, object]]:
        async def again() -> None:
            if route.workspace.status is Status.OFFLINE and route.open_cycle is None:
                await self.on_verdict(route, rule, request_id=None)

        return again

    def _after_debounce(self, route: Route) -> Callable[[], Coroutine[Any, Any, object]]:
        async def again() -> None:
            if route.workspace.status is Status.OFFLINE and route.open_cycle is None:
                await self.judge_again(route, LogTrigger.COORDINATOR)

        return again

    def _line(  # noqa: PLR0917 - the six are always all given, in the order in which they are read
        self, known: Workspace, trigger: Trigger, action: str, reason: str, request_id: str | None, rule: str = ""
    ) -> LogLine:
        why = {
            Trigger.ADMIN: LogTrigger.ADMIN,
            Trigger.CONFIG: LogTrigger.CONFIG,
            Trigger.ANNOUNCED: LogTrigger.ANNOUNCED,
        }
        return self._records.decision(
            known,
            why.get(trigger, LogTrigger.COORDINATOR),
            action,
            rule=rule,
            evidence={"reason": reason} if reason else {},
            request_id=request_id,
        )

    def _emit(self, name: EventName, route: Route, cycle: Restart) -> None:
        self._telemetry.emit(
            name,
            workspace=route.id,
            incarnation=cycle.incarnation,
            rule=cycle.rule,
            fields={"generation": cycle.generation, "trigger": cycle.trigger.value, "phase": cycle.phase.value},
        )
