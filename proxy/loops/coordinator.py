"""The restart coordinator: turns "restart it" into recorded cycles, one at a time per workspace.

Owns: asking `core.restart.decide`, when a cycle begins, follows another, ends or gives way; that only one at a time
acts on a workspace's compute.
Knows nothing of: why a workspace is dead, how a runtime does its work, when a workspace is ready (`readiness` says so),
what is written of a cycle (`cycles`), what becomes of a request that a brake holds (`braking`).

Theory of operation. A cycle is *recorded* (next incarnation, next generation, a fresh token), *stopped*, *started*, and
then *finished* when the workspace is ready, or *failed* when what it started exits first, cannot be started, or does
not get ready in time. Each phase is committed before the next step. Every step is idempotent per generation, so after
a crash the same cycle is driven again from its first step: a running child of this generation means *started*.

A request by an admin or a configuration write during stop or start sets `restart_pending` on the record; as soon as
the start has returned, the next cycle begins, and it reads the settings afresh. N requests make at most two cycles.

Two locks per workspace: one for deciding, held for a few writes to the store; one for acting, held while its compute is
stopped or started (`acting`). Whoever holds the second may take the first, never the other way round.
"""

import asyncio
from collections.abc import Callable, Coroutine
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import Any

from proxy.clock import Now
from proxy.core.decision import Trigger as LogTrigger
from proxy.core.lifecycle import Cause, Desired, Status, may_move
from proxy.core.restart import Answer, Decision, Phase, Restart, Trigger, decide
from proxy.core.workspace import Workspace, runtime_returned, unpark
from proxy.loops.background import Background
from proxy.loops.braking import Braking
from proxy.loops.changes import tell_changes
from proxy.loops.cycles import Cycles
from proxy.loops.driving import Driving, LeaseLost, Parked
from proxy.loops.records import Records
from proxy.loops.restart_lines import RestartLines
from proxy.loops.routing import Route, Routing
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
        driving: Driving,
        background: Background,
        now: Now,
        telemetry: Telemetry,
        owner: str,
        lease: float,
    ) -> None:
        self._store = store
        self._records = records
        self._routing = routing
        self._background = background
        self._now = now
        self._telemetry = telemetry
        self._lines = RestartLines(records)
        self.driving = driving
        self._cycles = Cycles(
            records=records,
            lines=self._lines,
            driving=self.driving,
            runtimes=runtimes,
            now=now,
            telemetry=telemetry,
            owner=owner,
            lease=lease,
        )
        self._braking = Braking(
            store=store,
            records=records,
            lines=self._lines,
            cycles=self._cycles,
            background=background,
            now=now,
            telemetry=telemetry,
            restarts=self,
        )
        self._locks: dict[str, asyncio.Lock] = {}
        self._acting: dict[str, asyncio.Lock] = {}
        self._driven: dict[str, int] = {}
        self.judge_again: Callable[[Route, LogTrigger], Coroutine[Any, Any, object]]
        self.await_ready: Callable[[Route], None]

    # Requests

    async def on_verdict(self, route: Route, rule: str, *, request_id: str | None) -> Decision:
        """Ask for a restart because of a verdict; the brakes decide (scenarios 8, 20, 58)."""
        async with self._lock(route):
            if route.workspace.parked:
                return Decision(answer=Answer.COALESCED, at=self._now())  # it starts when it is wanted again
            cycle = route.open_cycle
            if cycle is not None and cycle.phase is Phase.STARTED:
                # What this cycle started is what was found dead.
                await self._cycles.end(route, cycle, Phase.FAILED, f"declared dead ({rule}) before it was ready")
            decision = decide(Trigger.VERDICT, rule, self._cycles.history(route), route.effective.restart, self._now())
            if decision.answer is Answer.SCHEDULED:
                begun = await self._begin(route, Trigger.VERDICT, rule, f"verdict {rule}", request_id)
                return decision if begun else Decision(answer=Answer.COALESCED, at=self._now())
            await self._braking.hold(route, decision, rule, request_id)
            return decision

    async def on_demand(self, route: Route, trigger: Trigger, reason: str, *, request_id: str | None) -> Asked:
        """Restart because an admin or a configuration write says so: no brake, at most one more cycle."""
        async with self._lock(route):
            history = self._cycles.history(route)
            if not history.managed:
                return Asked(decision=Decision(answer=Answer.UNMANAGED), generation=route.workspace.generation)
            cycle = route.open_cycle
            if cycle is not None and cycle.phase is not Phase.STARTED:
                await self._records.change(
                    route,
                    lambda known: replace(known, restart_pending=True),
                    decide=lambda known: self._lines.asked(
                        known, trigger, "restart coalesced", reason, request_id=request_id
                    ),
                )
                self._cycles.coalesced(route, request_id)
                answer = Decision(answer=Answer.COALESCED, at=self._now())
                return Asked(decision=answer, generation=route.workspace.generation + 1)
            if cycle is not None:
                await self._cycles.end(
                    route, cycle, Phase.SUPERSEDED, "another restart was asked for before it was ready"
                )
            begun = await self._begin(route, trigger, "", reason, request_id)
            answer = Decision(answer=Answer.SCHEDULED if begun else Answer.COALESCED, at=self._now())
            return Asked(decision=answer, generation=route.workspace.generation)

    async def on_announcement(self, route: Route, reason: str) -> bool:
        """The workspace restarts itself: open its settle window once per incarnation, touch nothing else."""
        async with self._lock(route):
            return await self._cycles.announce(route, reason)

    def standing(self, route: Route, rule: str) -> Decision:
        """Say what a verdict would get now, without doing anything."""
        if route.workspace.status is Status.ABANDONED:
            return Decision(answer=Answer.ABANDONED)
        decision = decide(Trigger.VERDICT, rule, self._cycles.history(route), route.effective.restart, self._now())
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
            seen = {} if exited.exit_code is None else {"exit_code": exited.exit_code}
            await self._records.change(
                route,
                mark,
                decide=lambda known: self._records.decision(known, LogTrigger.EXIT, "exit seen", evidence=seen),
            )
            cycle = route.open_cycle
            if cycle is not None and cycle.incarnation == exited.incarnation and cycle.phase is Phase.STARTED:
                await self._cycles.end(
                    route, cycle, Phase.FAILED, f"exited before it was ready (code {exited.exit_code})"
                )
        if not route.workspace.parked:
            await self.judge_again(route, LogTrigger.EXIT)

    async def on_ready(self, route: Route) -> None:
        """The workspace is ready again: its cycle has done its work."""
        async with self._lock(route):
            cycle = route.open_cycle
            if cycle is not None and cycle.phase is Phase.STARTED:
                await self._cycles.end(route, cycle, Phase.FINISHED, None)

    async def on_unready(self, route: Route) -> None:
        """The workspace did not get ready within the provisioning timeout."""
        async with self._lock(route):
            cycle = route.open_cycle
            if cycle is None or cycle.phase is not Phase.STARTED:
                return
            limit = route.effective.policy.provisioning_timeout
            await self._cycles.end(route, cycle, Phase.FAILED, f"not ready within {limit:g} s")
        await self.judge_again(route, LogTrigger.READINESS)

    async def resume(self, route: Route) -> None:
        """At the proxy's start: go on with a cycle that its earlier life left open, or look after a standing death."""
        cycle = route.open_cycle
        if route.workspace.resting:
            await self.rest(route)
        elif cycle is not None and cycle.phase in {Phase.RECORDED, Phase.STOPPED}:
            self._spawn_drive(route, cycle)
        elif cycle is not None:
            self.await_ready(route)
        elif route.workspace.status is Status.RESTARTING and route.cycles:
            # The cycle's failure was written down, what follows from it was not.
            await self._start_failed(route, route.cycles[-1], "")
        elif route.workspace.restart_pending and self._cycles.history(route).managed:
            await self.on_demand(route, Trigger.ADMIN, "asked for before the proxy stopped", request_id=None)
        elif route.workspace.status is Status.OFFLINE and route.workspace.offline_rule:
            await self.judge_again(route, LogTrigger.COORDINATOR)

    # Parking

    def acting(self, route: Route) -> asyncio.Lock:
        """Whoever has `driving` stop or start a workspace's compute holds this: never more than one (scenario 59)."""
        return self._acting.setdefault(route.id, asyncio.Lock())

    async def rest(self, route: Route) -> bool:
        """Its compute is about to be stopped because administration wants that: end its open cycle, if it has one.

        False when it is not parked any more. From here on its compute counts as touched: only a cycle brings it back.
        """
        async with self._lock(route):
            return await self._rest(route)

    async def _rest(self, route: Route) -> bool:
        if not route.workspace.resting:
            return False
        route.draining = False
        if (cycle := route.open_cycle) is not None:
            await self._cycles.end(route, cycle, Phase.SUPERSEDED, f"the workspace is {route.workspace.desired}")
        await self._records.change(
            route,
            lambda known: (
                replace(known, status=Status.OFFLINE) if known.resting and known.status is Status.RESTARTING else None
            ),
        )
        return True

    async def unpark(
        self, route: Route, leaving: AbstractSet[Desired], trigger: Trigger, reason: str, *, request_id: str | None
    ) -> bool:
        """Let a workspace that is one of `leaving` run again: recorded in one commit with the cycle that starts it.

        Where its compute was not touched yet (it was parked a moment ago, and its calls may still finish), no cycle is
        needed. False when there was nothing to do: however many ask at once, one of them gets True.
        """
        async with self._lock(route):
            while (known := route.workspace).desired in leaving:
                cycle = route.open_cycle
                wanted = unpark(known)
                if route.draining and (cycle is None or cycle.phase is Phase.STARTED):
                    line = self._lines.asked(wanted, trigger, "parking undone", reason, request_id=request_id)
                    if await self._records.write(wanted, decision=line, route=route) is not None:
                        route.draining = False
                        break
                    continue
                if cycle is not None:
                    await self._cycles.end(route, cycle, Phase.SUPERSEDED, "the workspace is wanted again")
                begun = await self._cycles.record(route, wanted, trigger, "", reason, request_id)
                if begun is not None:
                    self._spawn_drive(route, begun)
                    return True
            else:
                return False
        if route.workspace.exited_at is not None:
            await self.judge_again(route, LogTrigger.EXIT)
        return True

    # Cycles

    def _lock(self, route: Route) -> asyncio.Lock:
        return self._locks.setdefault(route.id, asyncio.Lock())

    async def _begin(self, route: Route, trigger: Trigger, rule: str, reason: str, request_id: str | None) -> bool:
        """Record a cycle and drive it; False where none may begin: parked, removed, or back before the restart."""
        while True:
            known = route.workspace
            if known.parked or not may_move(known.status, Status.RESTARTING, Cause.COORDINATOR):
                return False
            if trigger is Trigger.VERDICT and known.status is not Status.OFFLINE:
                return False
            cycle = await self._cycles.record(route, known, trigger, rule, reason, request_id)
            if cycle is not None:
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
                self._telemetry.emit(
                    EventName.STORE_FAILED, workspace=route.id, incarnation=route.workspace.incarnation, fields=fields
                )
                await asyncio.sleep(STORE_PAUSE)
            except LeaseLost:
                await self._records.refresh(route)
                return
            else:
                return

    async def _carry_out(self, route: Route, cycle: Restart) -> str | None:
        """Carry a cycle out, up to where readiness takes over; return what went wrong with its stop or start."""
        try:
            async with self.acting(route):
                self._cycles.begun(route, cycle)
                cycle = await self.driving.drive(route, cycle)
        except (StoreFailure, LeaseLost):
            raise
        except Parked:
            gave_way = await self._give_way(route, cycle)
            return None if gave_way else await self._carry_out(route, cycle)
        except Exception as problem:  # noqa: BLE001 - a crashing cycle must leave nothing running (scenario 57)
            detail = problem.detail if isinstance(problem, RuntimeFailure) else type(problem).__name__
            self._telemetry.emit(
                EventName.RUNTIME_FAILED, workspace=route.id, incarnation=cycle.incarnation, fields={"problem": detail}
            )
            return detail
        await self._returned(route, cycle)
        return None

    async def _give_way(self, route: Route, cycle: Restart) -> bool:
        """The workspace was parked while its cycle was under way: `loops.parking` stops what that has started."""
        async with self._lock(route):
            current = route.open_cycle
            return current is None or current.generation != cycle.generation or await self._rest(route)

    async def _returned(self, route: Route, cycle: Restart) -> None:
        """The start has returned: the next cycle if one was asked for, else wait until the workspace is ready."""
        async with self._lock(route):
            if await self._rest(route):
                return
            returned_at = self._now()
            before = route.workspace
            saved = await self._records.change(
                route,
                lambda known: runtime_returned(known, returned_at) if known.generation == cycle.generation else None,
            )
            if saved is not None:
                tell_changes(self._telemetry, before, saved, "started")
            started = replace(cycle, phase=Phase.STARTED, returned_at=returned_at)
            line = self._lines.came_to(route.workspace, started, returned_at)
            cycle = await self.driving.save(route, started, line)
            pending = route.workspace.restart_pending
            if pending:
                await self._cycles.end(route, cycle, Phase.SUPERSEDED, "another restart was asked for meanwhile")
                await self._begin(route, Trigger.CONFIG, "", "asked for during the last cycle", None)
                return
            gone = route.workspace.exited_at is not None
            if gone:
                await self._cycles.end(route, cycle, Phase.FAILED, "exited as soon as it was started")
        if gone:
            await self.judge_again(route, LogTrigger.EXIT)
        else:
            self.await_ready(route)

    async def _start_failed(self, route: Route, cycle: Restart, problem: str) -> None:
        async with self._lock(route):
            if route.open_cycle is not None:
                await self._cycles.end(route, cycle, Phase.FAILED, problem)
            offline = await self._records.change(
                route,
                lambda known: (
                    replace(known, status=Status.OFFLINE, offline_rule="exited", exited_at=self._now())
                    if known.generation == cycle.generation and known.status is Status.RESTARTING
                    else None
                ),
                decide=lambda known: self._records.decision(
                    known, LogTrigger.COORDINATOR, "offline", rule="exited", evidence={"reason": problem or cycle.error}
                ),
            )
            if offline is not None:
                fields = {"status": offline.status.value}
                self._telemetry.emit(
                    EventName.WORKSPACE_STATUS,
                    workspace=route.id,
                    incarnation=route.workspace.incarnation,
                    rule="exited",
                    fields=fields,
                )
            if route.workspace.restart_pending:
                # Asked for by somebody who may have mended it: no brake.
                await self._begin(route, Trigger.CONFIG, "", "asked for during the last cycle", None)
                return
        await self.on_verdict(route, "exited", request_id=None)
