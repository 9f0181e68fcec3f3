"""The gate: gathers the evidence that the rules ask for, reaches a verdict, and carries out what DEAD means. Once.

Owns: single flight per workspace, reading what is asked, storing strikes, and the effects of DEAD in one place.
Knows nothing of: the rules (`core.liveness`), what a failed request then gets (`core.outcome`), how to restart.

Theory of operation. However many requests fail at once, one workspace has one evaluation: a task that the gate owns.
Everybody who asks meanwhile waits for that task behind a shield, so that the first caller's leaving cancels nothing.
The evaluation asks `judge` with what it has read; `Unsettled` names what to read and when; the gate waits, reads that
and nothing else, and asks again.

DEAD acts by compare-and-set. It names the record's version, the incarnation and restart generation that were judged,
and the last sign of life that was heard before. Whoever loses that race was too late: something happened in between.
The gate then judges once more, and a second loss is BUSY `raced`. A death that stands (offline, and nothing was heard
since) is answered again without probing and without writing; one that a later look contradicts stands no more.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Protocol

from proxy.clock import Now
from proxy.core import restart as brakes
from proxy.core.decision import Trigger
from proxy.core.facts import facts
from proxy.core.lifecycle import Cause, Status
from proxy.core.liveness import (
    Alive,
    Ask,
    Busy,
    Dead,
    Evidence,
    Life,
    Previous,
    ProbeReading,
    ProbeState,
    Strikes,
    Unknown,
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
DOWN = frozenset({Status.OFFLINE, Status.ABANDONED})
SWEEPS = frozenset({Trigger.SWEEP, Trigger.HEARTBEAT_TTL})
"""What opens an evaluation without a failed call: it adds no strike."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """A verdict and what was done about it. `restart` is set where a restart was asked for.

    `how` it was reached: `judged`, `throttled` (the last evaluation's, a moment ago), `standing` (a death that was
    declared before), `parked`. `opened_by` is the request for which the evaluation was opened, `found` what it found.
    """

    verdict: Verdict
    restart: brakes.Decision | None = None
    how: str = "judged"
    opened_by: str | None = None
    found: Mapping[str, Any] = field(default_factory=dict)

    @property
    def header(self) -> str:
        """The value of `Holdfast-Verdict`."""
        return f"{self.verdict.name}; rule={self.verdict.rule}"

    def grounds(self, request_id: str) -> dict[str, Any]:
        """What a line of the log about this request must say of the verdict, where no line of its own does."""
        if self.how == "judged" and self.opened_by == request_id:
            return {}
        opened_by = {"opened_by": self.opened_by} if self.opened_by is not None else {}
        return {"how": "shared" if self.how == "judged" else self.how, **opened_by, **self.found}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reached:
    """A verdict, what it rests on, and the last sign of life that was known when the signs were looked at last."""

    verdict: Verdict
    evidence: Evidence
    heard_at: datetime | None


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

        `again` judges anew, even where a verdict stands or was reached a moment ago: something is known now (an exit
        was seen, a debounce has ended) that an evaluation under way may not have weighed.
        """
        while again and (running := self._evaluations.get(route.id)) is not None:
            await asyncio.wait({running})
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
        if (parked := _parked(route.workspace)) is not None:
            return Judgement(verdict=parked, how="parked")
        if not again and (standing := self._standing(route)) is not None:
            return standing
        opened = self._open(route, trigger)
        reused = throttled(route.previous, route.effective.policy, opened, opened.opened_at)
        if reused is not None and not again:
            return Judgement(verdict=reused, how="throttled", found=route.found)
        judgement, evidence = await self._judge_and_act(route, opened, request_id, trigger)
        judgement = replace(
            judgement, opened_by=request_id, found=facts(evidence, route.effective.policy, judgement.verdict)
        )
        route.found = judgement.found
        route.previous = Previous(
            verdict=judgement.verdict,
            ended_at=self._now(),
            incarnation=evidence.incarnation,
            generation=evidence.generation,
        )
        return judgement

    def _standing(self, route: Route) -> Judgement | None:
        """The death of this incarnation that was declared before, while nothing was heard since."""
        workspace = route.workspace
        if workspace.offline_rule is None or workspace.status not in DOWN:
            return None
        declared, heard = workspace.last_verdict, route.signs.last_sign_at
        if workspace.exited_at is None and declared is not None and heard is not None and heard > declared.at:
            return None
        verdict = Dead(rule=workspace.offline_rule, strikes=Strikes())
        found = {} if declared is None else {"declared_at": rfc3339(declared.at)}
        restart = self.restarts.standing(route, workspace.offline_rule)
        return Judgement(verdict=verdict, restart=restart, how="standing", found=found)

    # Evidence

    async def _judge(self, route: Route, evidence: Evidence) -> _Reached:
        heard_at = route.signs.last_sign_at
        while True:
            now = self._now()
            answer = judge(route.effective.policy, evidence, now)
            if not isinstance(answer, Unsettled):
                return _Reached(verdict=answer, evidence=evidence, heard_at=heard_at)
            # A timer may fire a hair early by this clock; what is read before `at` would not count.
            while (delay := (answer.at - self._now()).total_seconds()) > 0:  # noqa: ASYNC110 - it is an instant
                await asyncio.sleep(delay)
            if answer.ask is Ask.PROBE:
                reading = ProbeReading(at=self._now(), state=await self._probe(route))
                evidence = replace(evidence, probes=(*evidence.probes, reading))
            else:
                evidence = replace(evidence, life=(*evidence.life, self._life(route)))
                heard_at = route.signs.last_sign_at

    def _open(self, route: Route, trigger: Trigger) -> Evidence:
        workspace = route.workspace
        return Evidence(
            opened_at=self._now(),
            incarnation=workspace.incarnation,
            generation=workspace.generation,
            restart_in_flight=workspace.status is Status.RESTARTING,
            announced_at=workspace.announced_at,
            restart_started_at=workspace.restart_started_at,
            restart_returned_at=workspace.restart_returned_at,
            exited_at=workspace.exited_at,
            agent_down_at=route.signs.agent_down_at,
            external=not self._tells(workspace),
            sweep=trigger in SWEEPS,
            strikes=workspace.strikes,
        )

    async def _probe(self, route: Route) -> ProbeState:
        """Ask the runtime; what it cannot say in time is an error, and an error is never a death."""
        try:
            async with asyncio.timeout(self._probe_timeout):
                return await self._inspect(route.workspace)
        except Exception as problem:  # noqa: BLE001 - whatever a runtime raises, it did not say "not running"
            self._telemetry.emit(
                EventName.RUNTIME_FAILED,
                workspace=route.id,
                incarnation=route.workspace.incarnation,
                fields={"problem": type(problem).__name__},
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
        """Store strikes that changed, write the decision log, tell whoever listens.

        A workspace that is down and now is neither dead nor unknown is judged afresh the next time. A sweep that finds
        a workspace alive by the rule by which it was alive before leaves nothing: it comes four times a minute. Tries
        from the queue leave no line while they lead to the same verdict: a thousand of them may fail in a minute.
        """
        if trigger is Trigger.SWEEP and isinstance(verdict, Alive) and _as_before(route.workspace, verdict):
            return
        stands = isinstance(verdict, Dead | Unknown)
        last = LastVerdict(verdict=verdict.name, rule=verdict.rule, at=self._now())
        decided = self._records.decision(
            route.workspace,
            trigger,
            "none",
            verdict=verdict.name,
            rule=verdict.rule,
            policy=route.effective.policy.preset,
            evidence=facts(evidence, route.effective.policy, verdict),
            request_id=request_id,
        )

        def noted(known: Workspace) -> Workspace | None:
            if known.incarnation != evidence.incarnation:
                return None  # nothing that was evidence against the old life counts against the new one
            rule = known.offline_rule if stands else None
            return replace(known, strikes=verdict.strikes, last_verdict=last, offline_rule=rule)

        if trigger is Trigger.REPLAY and _repeats(route.previous, verdict, evidence):
            await self._records.change(route, noted)
        elif await self._records.change(route, noted, decide=lambda _: decided) is None:
            await self._store.log([decided])
        self._emit(route, verdict, request_id, action="none")

    async def _judge_and_act(
        self, route: Route, opened: Evidence, request_id: str | None, trigger: Trigger
    ) -> tuple[Judgement, Evidence]:
        """Judge, carry the verdict out, and judge once more where a death came too late."""
        evidence = opened
        for _ in range(2):
            reached = await self._judge(route, evidence)
            verdict, evidence = reached.verdict, reached.evidence
            if not isinstance(verdict, Dead):
                await self._note(route, verdict, evidence, trigger, request_id)
                return Judgement(verdict=verdict), evidence
            if await self._declare(route, verdict, reached, trigger, request_id):
                decision = await self.restarts.on_verdict(route, verdict.rule, request_id=request_id)
                return Judgement(verdict=verdict, restart=decision), evidence
            await self._records.refresh(route)
            if (parked := _parked(route.workspace)) is not None:
                return Judgement(verdict=parked, how="parked"), evidence
            evidence = self._open(route, trigger)
        raced = Busy(rule="raced", strikes=route.workspace.strikes)
        await self._note(route, raced, evidence, trigger, request_id)
        return Judgement(verdict=raced), evidence

    async def _declare(
        self, route: Route, verdict: Dead, reached: _Reached, trigger: Trigger, request_id: str | None
    ) -> bool:
        """Mark the workspace offline by compare-and-set; False when something happened in between."""
        await self._flush_signs()
        known, evidence = route.workspace, reached.evidence
        judged = (evidence.incarnation, evidence.generation)
        if known.parked or (known.incarnation, known.generation) != judged:
            return False
        # An exit that the supervisor saw is final for this incarnation, whatever else was heard.
        final = evidence.exited_at is not None
        if not final and route.signs.last_sign_at != reached.heard_at:
            return False
        is_down = known.status in DOWN  # a death that is declared again, because a brake let go or something was heard
        after = go_offline(known, Cause.VERDICT, verdict.rule)
        if is_down:
            after = replace(known, offline_rule=verdict.rule, strikes=verdict.strikes)
        if after is None:
            return False
        action = "still offline" if is_down else "offline"
        saved = await self._store.replace(
            replace(after, last_verdict=LastVerdict(verdict="dead", rule=verdict.rule, at=self._now())),
            no_sign_after=None if final else reached.heard_at or known.created_at,
            decision=self._records.decision(
                known,
                trigger,
                action,
                verdict=verdict.name,
                rule=verdict.rule,
                policy=route.effective.policy.preset,
                evidence=facts(evidence, route.effective.policy, verdict),
                request_id=request_id,
            ),
        )
        if saved is None:
            return False
        self._records.took(route, saved)
        self._emit(route, verdict, request_id, action=action)
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


def _as_before(workspace: Workspace, verdict: Verdict) -> bool:
    """The verdict says what the last one said, and nothing of the record would change by it."""
    last = workspace.last_verdict
    same = last is not None and (last.verdict, last.rule) == (verdict.name, verdict.rule)
    return same and workspace.strikes == verdict.strikes and workspace.offline_rule is None


def _repeats(previous: Previous | None, verdict: Verdict, evidence: Evidence) -> bool:
    """The last evaluation of the same world came to the same verdict."""
    if previous is None or (previous.incarnation, previous.generation) != (evidence.incarnation, evidence.generation):
        return False
    return previous.verdict == verdict


def _parked(workspace: Workspace) -> Busy | None:
    """What administration keeps from running is away, and never dead (scenario 17)."""
    return Busy(rule=workspace.desired.value, strikes=workspace.strikes) if workspace.parked else None
