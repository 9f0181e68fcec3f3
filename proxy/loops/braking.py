"""Restarts that a brake holds back: told, and looked at again when the brake lets go.

Owns: the timers of debounce and backoff, giving a workspace up.
Knows nothing of: the brakes themselves (`core.restart`), how a restart runs.
"""

from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any, Protocol

from proxy.clock import Now
from proxy.core.decision import Trigger as LogTrigger
from proxy.core.lifecycle import Cause, Status, may_move
from proxy.core.restart import Answer, Decision
from proxy.core.times import rfc3339
from proxy.loops.background import Background
from proxy.loops.cycles import Cycles
from proxy.loops.records import Records
from proxy.loops.restart_lines import RestartLines, numbers
from proxy.loops.routing import Route
from proxy.store import Store
from proxy.telemetry import EventName, Telemetry

HELD_BACK = {
    Answer.COALESCED: EventName.RESTART_COALESCED,
    Answer.DEBOUNCED: EventName.RESTART_DEBOUNCED,
    Answer.BACKOFF: EventName.RESTART_BACKOFF,
}


class Restarting(Protocol):
    """Whom a brake that lets go turns to; the coordinator."""

    judge_again: Callable[[Route, LogTrigger], Coroutine[Any, Any, object]]
    await_ready: Callable[[Route], None]

    async def on_verdict(self, route: Route, rule: str, *, request_id: str | None) -> Decision:
        """Ask for a restart because of a verdict."""


class Braking:
    """Holds restarts back."""

    def __init__(
        self,
        *,
        store: Store,
        records: Records,
        lines: RestartLines,
        cycles: Cycles,
        background: Background,
        now: Now,
        telemetry: Telemetry,
        restarts: Restarting,
    ) -> None:
        self._store = store
        self._records = records
        self._lines = lines
        self._cycles = cycles
        self._background = background
        self._now = now
        self._telemetry = telemetry
        self._restarts = restarts

    async def hold(self, route: Route, decision: Decision, rule: str, request_id: str | None) -> None:
        """A brake holds the restart: say so, and look again when it lets go."""
        why = numbers(decision.answer, self._cycles.history(route), route.effective.restart, self._now())
        line = self._lines.held_back(route.workspace, decision, rule, request_id, why)
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
                self._telemetry.emit(
                    EventName.RESTART_ABANDONED, workspace=route.id, incarnation=route.workspace.incarnation, rule=rule
                )
            return
        await self._store.log([line])
        self._tell(route, decision, rule, request_id)
        if decision.at is None:
            return
        delay = max(0.0, (decision.at - self._now()).total_seconds())
        retry = self._after_backoff(route, rule) if decision.answer is Answer.BACKOFF else self._after_debounce(route)
        self._background.later(braked(route), delay, retry)
        if route.workspace.exited_at is None:
            self._restarts.await_ready(route)  # what was only inferred to be dead may answer yet

    def _tell(self, route: Route, decision: Decision, rule: str, request_id: str | None) -> None:
        if (name := HELD_BACK.get(decision.answer)) is not None:
            self._telemetry.emit(
                name,
                workspace=route.id,
                request_id=request_id,
                incarnation=route.workspace.incarnation,
                rule=rule,
                fields={"until": rfc3339(decision.at)} if decision.at is not None else {},
            )

    def _after_backoff(self, route: Route, rule: str) -> Callable[[], Coroutine[Any, Any, object]]:
        async def again() -> None:
            if route.workspace.status is Status.OFFLINE and route.open_cycle is None:
                await self._restarts.on_verdict(route, rule, request_id=None)

        return again

    def _after_debounce(self, route: Route) -> Callable[[], Coroutine[Any, Any, object]]:
        async def again() -> None:
            if route.workspace.status is Status.OFFLINE and route.open_cycle is None:
                await self._restarts.judge_again(route, LogTrigger.COORDINATOR)

        return again


def braked(route: Route) -> str:
    """The name of the timer that looks again at a restart which a brake holds back."""
    return f"brake-{route.id}"
