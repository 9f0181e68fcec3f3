"""The gate: gathers the evidence that the rules ask for, reaches a verdict, and carries out what DEAD means. Once.

Owns: single flight per workspace, reading what is asked, storing strikes, and the effects of DEAD in one place.
Knows nothing of: the rules (`core.liveness`), what a failed request then gets (`core.outcome`), how to restart.

Theory of operation. However many requests fail at once, one workspace has one evaluation: a task that the gate owns.
Everybody who asks meanwhile waits for that task behind a shield, so that the first caller's leaving cancels nothing.
The evaluation asks `judge` with what it has read; `Unsettled` names what to read and when; the gate waits, reads that
and nothing else, and asks again.

DEAD acts by compare-and-set. It names the record's version (and so status, incarnation and restart generation) and
the last sign of life that was weighed. Whoever loses that race was too late: something happened in between. The gate
then judges once more, and a second loss is BUSY `raced`. A verdict that stands (offline, and nothing was heard since)
is answered again without probing and without writing.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Protocol

from proxy.clock import Now
from proxy.core import restart as brakes
from proxy.core.decision import Trigger
from proxy.core.lifecycle import Cause, Status
from proxy.core.liveness import (
    Ask,
    Busy,
    Dead,
    Evidence,
    Life,
    Previous,
    ProbeReading,
    ProbeState,
    Strikes,
    Unsettled,
    Verdict,
    judge,
    throttled,
)
from proxy.core.times import rfc3339
from proxy.core.workspace import LastVerdict, Workspace, go_offline
from proxy.loops.records import Records
from proxy.loops.routing import Route
from proxy.store import Store
from proxy.telemetry import EventName, Telemetry

HEARTBEATS_ONLY = frozenset({"hold-first", "verify-first"})
"""Presets whose only sign of life is a heartbeat."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """A verdict and what was done about it. `restart` is set where a restart was asked for."""

    verdict: Verdict
    restart: brakes.Decision | None = None

    @property
    def header(self) -> str:
        """The value of `Holdfast-Verdict`."""
        return f"{self.verdict.name}; rule={self.verdict.rule}"


class Restarts(Protocol):
    """Who restarts; the coordinator."""

    async def on_verdict(self, route: Route, rule: str, *, request_id: str | None) -> brakes.Decision:
        """Ask for a restart because of a verdict."""

    def standing(self, route: Route, rule: str) -> brakes.Decision:
        """Say what would be answered now, and change nothing."""


class Gate:
    """Judges workspaces, one evaluation each at a time."""

    def __init__(
        self,
        *,
        store: Store,
        records: Records,
        now: Now,
        telemetry: Telemetry,
        inspect: Callable[[Workspace], Awaitable[ProbeState]],
        tells: Callable[[Workspace], bool],
        flush_signs: Callable[[], Awaitable[None]],
        probe_timeout: float,
    ) -> None:
        self._store = store
        self._records = records
        self._now = now
        self._telemetry = telemetry
        self._inspect = inspect
        self._tells = tells
        self._flush_signs = flush_signs
        self._probe_timeout = probe_timeout
        self._evaluations: dict[str, asyncio.Task[Judgement]] = {}
        self.restarts: Restarts

    async def ask(
        self, route: Route, trigger: Trigger, *, request_id: str | None = None, again: bool = False
    ) -> Judgement:
        """Judge a workspace after something failed, or join the evaluation that runs.

        `again` judges even where a verdict stands (a debounced death whose debounce has ended).
        """
        task = self._evaluations.get(route.id)
        if task is None:
            task = asyncio.create_task(
                self._evaluate(route, trigger, request_id, again), name=f"holdfast-gate-{route.id}"
            )
            self._evaluations[route.id] = task
            task.add_done_callback(lambda done: self._forget(route.id, done))
        return await asyncio.shield(task)

    def _forget(self, workspace_id: str, done: asyncio.Task[Judgement]) -> None:
        if self._evaluations.get(workspace_id) is done:
            del self._evaluations[workspace_id]
        if not done.cancelled():
            done.exception()  # everybody who waits gets it; nobody may be waiting any more

    async def aclose(self) -> None:
        """Stop judging; whoever waits is cancelled."""
        tasks = list(self._evaluations.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _evaluate(self, route: Route, trigger: Trigger, request_id: str | None, again: bool) -> Judgement:
        if not again and (standing := self._standing(route)) is not None:
            return standing
        opened_at = self._now()
        reused = throttled(route.previous, route.effective.policy, self._open(route, opened_at), opened_at)
        if reused is not None:
            return Judgement(verdict=reused)
        verdict, evidence = await self._judge(route, opened_at)
        judgement = Judgement(verdict=verdict)
        if isinstance(verdict, Dead):
            judgement = await self._act_on_death(route, verdict, evidence, trigger, request_id)
        else:
            await self._note(route, verdict, evidence, trigger, request_id)
        route.previous = Previous(
            verdict=judgement.verdict,
            ended_at=self._now(),
            incarnation=route.workspace.incarnation,
            generation=route.workspace.generation,
        )
        return judgement

    def _standing(self, route: Route) -> Judgement | None:
        """The death of this incarnation that was declared before, while nothing was heard since."""
        workspace = route.workspace
        if workspace.offline_rule is None or workspace.status not in {Status.OFFLINE, Status.ABANDONED}:
            return None
        verdict = Dead(rule=workspace.offline_rule, strikes=Strikes())
        return Judgement(verdict=verdict, restart=self.restarts.standing(route, workspace.offline_rule))

    # Evidence

    async def _judge(self, route: Route, opened_at: datetime) -> tuple[Verdict, Evidence]:
        evidence = self._open(route, opened_at)
        while True:
            now = self._now()
            answer = judge(route.effective.policy, evidence, now)
            if not isinstance(answer, Unsettled):
                return answer, evidence
            delay = (answer.at - now).total_seconds()
            if delay > 0:
                await asyncio.sleep(delay)
            if answer.ask is Ask.PROBE:
                reading = ProbeReading(at=self._now(), state=await self._probe(route))
                evidence = replace(evidence, probes=(*evidence.probes, reading))
            else:
                evidence = replace(evidence, life=(*evidence.life, self._life(route)))

    def _open(self, route: Route, opened_at: datetime) -> Evidence:
        workspace = route.workspace
        return Evidence(
            opened_at=opened_at,
            incarnation=workspace.incarnation,
            generation=workspace.generation,
            restart_in_flight=workspace.status is Status.RESTARTING,
            announced_at=workspace.announced_at,
            restart_started_at=workspace.restart_started_at,
            restart_returned_at=workspace.restart_returned_at,
            exited_at=workspace.exited_at,
            agent_down_at=route.signs.agent_down_at,
            external=not self._tells(workspace),
            strikes=workspace.strikes,
        )

    async def _probe(self, route: Route) -> ProbeState:
        """Ask the runtime; what it cannot say in time is an error, and an error is never a death."""
        try:
            async with asyncio.timeout(self._probe_timeout):
                return await self._inspect(route.workspace)
        except Exception as problem:  # noqa: BLE001 - whatever a runtime raises, it did not say "not running"
            self._telemetry.emit(
                EventName.RUNTIME_FAILED, workspace=route.id, fields={"problem": type(problem).__name__}
            )
            return ProbeState.ERROR

    def _life(self, route: Route) -> Life:
        heartbeats_only = route.effective.policy.preset in HEARTBEATS_ONLY
        signs = route.signs
        return Life(
            read_at=self._now(),
            last_sign_at=signs.last_heartbeat_at if heartbeats_only else signs.last_sign_at,
            has_url=route.workspace.url is not None,
        )

    # Effects

    async def _note(
        self, route: Route, verdict: Verdict, evidence: Evidence, trigger: Trigger, request_id: str | None
    ) -> None:
        """Store strikes that changed, write the decision log, tell whoever listens."""
        last = LastVerdict(verdict=verdict.name, rule=verdict.rule, at=self._now())
        decided = self._records.decision(
            route.workspace,
            trigger,
            "none",
            verdict=verdict.name,
            rule=verdict.rule,
            policy=route.effective.policy.preset,
            evidence=facts(evidence),
            request_id=request_id,
        )
        saved = await self._records.change(
            route, lambda known: replace(known, strikes=verdict.strikes, last_verdict=last), decide=lambda _: decided
        )
        if saved is None:
            await self._store.log([decided])
        self._emit(route, verdict, request_id, action="none")

    async def _act_on_death(
        self, route: Route, verdict: Dead, evidence: Evidence, trigger: Trigger, request_id: str | None
    ) -> Judgement:
        for attempt in range(2):
            if await self._declare(route, verdict, evidence, trigger, request_id):
                decision = await self.restarts.on_verdict(route, verdict.rule, request_id=request_id)
                return Judgement(verdict=verdict, restart=decision)
            if attempt == 0:
                await self._records.refresh(route)
                second, evidence = await self._judge(route, self._now())
                if not isinstance(second, Dead):
                    await self._note(route, second, evidence, trigger, request_id)
                    return Judgement(verdict=second)
                verdict = second
        raced = Busy(rule="raced", strikes=route.workspace.strikes)
        await self._note(route, raced, evidence, trigger, request_id)
        return Judgement(verdict=raced)

    async def _declare(
        self, route: Route, verdict: Dead, evidence: Evidence, trigger: Trigger, request_id: str | None
    ) -> bool:
        """Mark the workspace offline by compare-and-set; False when something happened in between."""
        await self._flush_signs()
        known = route.workspace
        offline = go_offline(known, Cause.VERDICT, verdict.rule)
        if offline is None:
            # Already offline and judged again (a debounce ended): the death stands, there is nothing to write.
            return known.status in {Status.OFFLINE, Status.ABANDONED}
        if known.incarnation != evidence.incarnation:
            return False
        seen = max((reading.last_sign_at for reading in evidence.life if reading.last_sign_at), default=None)
        weighed = (seen if evidence.life else route.signs.last_sign_at) or known.created_at
        decided = self._records.decision(
            known,
            trigger,
            "offline",
            verdict=verdict.name,
            rule=verdict.rule,
            policy=route.effective.policy.preset,
            evidence=facts(evidence),
            request_id=request_id,
        )
        saved = await self._store.replace(
            replace(offline, last_verdict=LastVerdict(verdict="dead", rule=verdict.rule, at=self._now())),
            # An exit that the supervisor saw is final for this incarnation, whatever else was heard.
            no_sign_after=None if evidence.exited_at is not None else weighed,
            decision=decided,
        )
        if saved is None:
            return False
        self._records.took(route, saved)
        self._emit(route, verdict, request_id, action="offline")
        return True

    def _emit(self, route: Route, verdict: Verdict, request_id: str | None, action: str) -> None:
        name = EventName.WORKSPACE_STATUS if action == "offline" else EventName.VERDICT
        self._telemetry.emit(
            name,
            workspace=route.id,
            request_id=request_id,
            incarnation=route.workspace.incarnation,
            rule=verdict.rule,
            fields={"verdict": verdict.name},
        )


def facts(evidence: Evidence) -> dict[str, Any]:
    """The evidence as the decision log keeps it: what was known when the evaluation opened, and what was read."""
    known: dict[str, Any] = {
        name: rfc3339(value) if isinstance(value, datetime) else value
        for name in (
            "opened_at",
            "restart_in_flight",
            "announced_at",
            "restart_started_at",
            "restart_returned_at",
            "exited_at",
            "agent_down_at",
            "external",
        )
        if (value := getattr(evidence, name))
    }
    if evidence.strikes.count:
        known["strikes"] = evidence.strikes.count
    if evidence.probes:
        known["probes"] = [reading.state.value for reading in evidence.probes]
    if evidence.life:
        known["last_sign_at"] = [
            rfc3339(reading.last_sign_at) if reading.last_sign_at else None for reading in evidence.life
        ]
    return known
