"""Tries at delivering a deferral: how one begins, what its holder gets, and what its outcome makes of the deferral.

Owns: leasing, what is handed out, and the deferral's next state after an answer, a failure, a silence or a giving up.
Knows nothing of: who holds the lease (the replayer inside this proxy, or a polling workspace), how the request travels
from there, verdicts.

Theory of operation. Push and poll are one mechanism with two holders. Both lease here, by the one claim that the store
has; both get the same request with the same ids, credentials and marks; and both report one of three ends, each written
under the lease's token, so that whoever lost the lease meanwhile changes nothing:

    begin ──lease──> ready ──answer──────────> complete
      │                │  └──failure, giving up──> failed ──> queued again, or a dead letter
      │                └──never left us──────────> give_back, unmarked: it was not sent
      └──taken back from a silent holder, and must not be tried again──> ended on the spot

What a silent holder leaves is judged when it is leased next (`begin`): under redelivery `never`, or when the budget of
attempts is used up, it ends as a dead letter. If its holder had told the whole story in stream events and only the word
"complete" is missing, those events complete it.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from proxy.clock import Now
from proxy.core import a2a
from proxy.core.decision import Decision, Trigger
from proxy.core.deferral import (
    Again,
    Deferral,
    Lease,
    Mishap,
    RawHeaders,
    RetryPolicy,
    State,
    StoredAnswer,
    StoredTask,
    after_failed_try,
    attempts_used_up,
    not_again,
)
from proxy.core.errors import HoldfastError
from proxy.core.liveness import Verdict
from proxy.core.outcome import Redelivery
from proxy.core.times import rfc3339
from proxy.loops.deferring import Deferring
from proxy.loops.records import Records
from proxy.loops.routing import Route, Routing
from proxy.loops.stored_requests import stored_call
from proxy.loops.tasks import TERMINAL, Tasks
from proxy.loops.telling import Telling
from proxy.store import Ending, Requeue, Store
from proxy.store.laws import UNHEARD
from proxy.store.vault import VaultFailure
from proxy.telemetry import EventName, Telemetry

FORGOTTEN = "the agent does not know its task any more"
CLASSES = {
    Mishap.NOT_SENT: Mishap.NOT_SENT,
    Mishap.GATEWAY: Mishap.GATEWAY,
    Mishap.IDLE: Mishap.IDLE,
    Mishap.MAYBE: Mishap.MAYBE,
    Mishap.TOLD: Mishap.MAYBE,
    Mishap.FOLLOWED: Mishap.NOT_SENT,
    Mishap.SILENT: Mishap.NOT_SENT,
}
"""What a try's mishap says of whether the request was sent in it, in the words of the log and the events."""
TOLD_TRIES = 5
"""So many tries of a deferral are all told in the decision log."""
REDELIVERY_HEADER = b"Holdfast-Redelivery"
REQUEST_ID_HEADER = b"Holdfast-Request-Id"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """A leased deferral as its holder gets it: the credentials back in the headers, the agent's own ids in the body."""

    deferral: Deferral
    call: a2a.Call
    headers: RawHeaders
    body: bytes

    @property
    def token(self) -> str:
        """What proves the lease."""
        return token_of(self.deferral)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """What a failed try made of a deferral; `delay` is how many seconds it waits, where it waits."""

    state: State
    delay: float = 0.0


class Attempts:
    """Begins tries and writes what they led to."""

    def __init__(
        self,
        *,
        store: Store,
        records: Records,
        routing: Routing,
        deferring: Deferring,
        tasks: Tasks,
        telling: Telling,
        now: Now,
        telemetry: Telemetry,
        chance: random.Random,
        new_token: Callable[[], str],
        retry: RetryPolicy,
    ) -> None:
        self._store = store
        self._records = records
        self._routing = routing
        self._deferring = deferring
        self._tasks = tasks
        self._telling = telling
        self._now = now
        self._telemetry = telemetry
        self._chance = chance
        self._new_token = new_token
        self._retry = retry
        self.objection: Callable[[Route, Deferral], str | None] = lambda *_: None
        """Says why a deferral must not be delivered after all."""

    # Beginning

    def lease(self, owner: str, seconds: float) -> Lease:
        """A new lease of somebody's."""
        return Lease(token=self._new_token(), owner=owner, until=self._now() + timedelta(seconds=seconds))

    async def lease_due(
        self, route: Route, owner: str, *, seconds: float, count: int, now: datetime, most_bytes: int = 0
    ) -> Sequence[Deferral]:
        """Lease what a workspace's queue has to hand out at that instant, at most `count`."""
        leases = [self.lease(owner, seconds) for _ in range(count)]
        leased = await self._store.claim(
            route.id, leases=leases, now=now, line=lambda each: self._leased(route, each), most_bytes=most_bytes
        )
        for deferral in leased:
            self._telemetry.emit(
                EventName.DEFERRAL_LEASED,
                workspace=route.id,
                receipt=deferral.id,
                request_id=deferral.request_id,
                incarnation=route.workspace.incarnation,
                fields={"owner": owner, "attempt": deferral.attempts + 1, "redelivery": _marked(deferral)},
            )
        return leased

    def moved(self, route: Route) -> None:
        """A queue has something to hand out; whoever waits for that hears it."""
        self._deferring.moved(route)

    async def begin(self, route: Route, deferral: Deferral) -> Ready | None:
        """What the holder of this lease gets; None where the deferral has ended instead.

        What an admin drove again has another last error than a silent holder's: that it may have been delivered was
        known then.
        """
        if (objection := self.objection(route, deferral)) is not None:
            await self.bury(deferral, objection)
            return None
        if deferral.last_error in UNHEARD and await self._end_unheard(route, deferral):
            return None
        try:
            call, body = await self._tasks.outgoing(route, deferral)
            headers = self._deferring.headers_of(deferral)
        except (HoldfastError, VaultFailure) as problem:
            await self.bury(deferral, str(problem))
            return None
        if deferral.request_id is not None:
            headers = (*headers, (REQUEST_ID_HEADER, deferral.request_id.encode()))
        if deferral.maybe:
            headers = (*headers, (REDELIVERY_HEADER, b"maybe"))
        return Ready(deferral=deferral, call=call, headers=headers, body=body)

    async def _end_unheard(self, route: Route, deferral: Deferral) -> bool:
        """End what a silent holder left, if it must not be tried again or need not be."""
        if deferral.task is not None and deferral.task.state in TERMINAL:
            told = await self._telling.last_answer(deferral)
            if told is not None:
                await self.complete(route, deferral, stored_call(deferral), told, task=deferral.task)
                return True
        if resumable(route, deferral):
            return False  # its task is asked for first, and that delivers nothing
        return await self._not_again(route, deferral, deferral.last_error)

    async def forgotten(self, route: Route, deferral: Deferral, why: str) -> bool:
        """The agent has forgotten the task that it had named: True where that is the deferral's end.

        What an admin drove again is sent again: that it may have been delivered was known then.
        """
        if deferral.attempts == 0 and deferral.last_error not in UNHEARD:
            return False
        return await self._not_again(route, deferral, f"{why} ({deferral.last_error})")

    async def _not_again(self, route: Route, deferral: Deferral, error: str | None) -> bool:
        """End what may have been delivered, if it must not be sent again."""
        reason = None
        if route.effective.redelivery is Redelivery.NEVER:
            reason = not_again(error)
        elif 0 < self._retry.attempts <= deferral.attempts:
            reason = attempts_used_up(deferral.attempts, error)
        if reason is None:
            return False
        await self.bury(deferral, reason)
        return True

    # Ends

    async def complete(
        self,
        route: Route,
        deferral: Deferral,
        call: a2a.Call,
        answer: StoredAnswer,
        *,
        task: StoredTask | None = None,
    ) -> Deferral | None:
        """The agent's answer came; None when the lease was lost. `task`: what its events made of the caller's task.

        Raises:
            StoreFailure: nothing was written; the lease stands.
        """
        now = self._now()
        ending = Ending(state=State.COMPLETED, at=now, answer=answer, task=task)
        if task is None and deferral.task_id is not None and deferral.context_id is not None:
            kept = a2a.keep_answer(
                call,
                status=answer.status,
                body=answer.body,
                task_id=deferral.task_id,
                context_id=deferral.context_id,
                at=now,
            )
            standing = await self._tasks.standing(route, deferral) if kept.refused else None
            ending = replace(
                ending,
                task=standing or StoredTask(json=kept.task_json, version=kept.version.value, state=kept.state),
                upstream_task_id=kept.upstream_task_id,
                upstream_context_id=kept.upstream_context_id,
            )
        line = self._line(route, deferral, "completed", {"status": answer.status, "try": deferral.tries})
        ended = await self._deferring.finish(deferral, token_of(deferral), ending, line)
        if ended is None:
            self.lost(deferral)
        return ended

    async def failed(
        self,
        route: Route,
        deferral: Deferral,
        *,
        outcome: Mishap,
        reason: str,
        alive_lately: bool,
        verdict: Verdict | None = None,
    ) -> Settled | None:
        """A try brought no answer; None when the lease was lost. `outcome`: see `core.deferral.after_failed_try`.

        Raises:
            StoreFailure: nothing was written; the lease stands.
        """
        now = self._now()
        step = after_failed_try(
            deferral,
            outcome=outcome,
            error=reason,
            redelivery=route.effective.redelivery.value,
            alive_lately=alive_lately,
            policy=self._retry,
            now=now,
            chance=self._chance,
        )
        if not isinstance(step, Again):
            buried = await self.bury(deferral, step.reason, maybe=True)
            return Settled(state=State.DEAD_LETTERED) if buried else None
        requeue = Requeue(
            next_attempt_at=step.at,
            attempts=step.attempts,
            maybe=step.maybe,
            gateway_since=step.gateway_since,
            error=step.error,
        )
        facts: dict[str, object] = {"reason": reason, "class": CLASSES[outcome].value, "attempts": step.attempts}
        line = None
        if is_told(deferral) or reason != deferral.last_error:
            told = {**facts, "try": deferral.tries, "next_attempt_at": rfc3339(step.at)}
            line = self._line(route, deferral, "queued again", told, verdict=verdict)
        if not await self._store.release(deferral.id, token_of(deferral), requeue, decision=line):
            self.lost(deferral)
            return None
        self._blocks_again(route, deferral)
        self._returned(route, deferral, facts, verdict)
        self._deferring.moved(route)
        return Settled(state=State.QUEUED, delay=max(0.0, (step.at - now).total_seconds()))

    async def bury(self, deferral: Deferral, reason: str, *, maybe: bool = False) -> Deferral | None:
        """Give it up: a dead letter, its caller's task failed with the reason. None when the lease was lost.

        `maybe`: the last try may have reached the agent, and counts.
        """
        ended = await self._deferring.end(
            deferral,
            State.DEAD_LETTERED,
            reason,
            lease_token=token_of(deferral),
            task_state="failed",
            maybe=maybe,
        )
        if ended is None:
            self.lost(deferral)
        return ended

    async def give_back(self, route: Route, deferral: Deferral, reason: str) -> None:
        """It was leased and has not left this proxy: queued again as it was, due now, neither marked nor counted."""
        requeue = Requeue(
            next_attempt_at=self._now(),
            attempts=deferral.attempts,
            maybe=deferral.maybe,
            gateway_since=deferral.gateway_since,
        )
        facts: dict[str, object] = {"reason": reason, "class": "not_sent", "attempts": deferral.attempts}
        line = self._line(route, deferral, "queued again", facts)
        if await self._store.release(deferral.id, token_of(deferral), requeue, decision=line):
            self._blocks_again(route, deferral)
            self._returned(route, deferral, facts)
            self._deferring.moved(route)

    def _blocks_again(self, route: Route, deferral: Deferral) -> None:
        """It is queued. Where it was adopted until now it held nobody back, and does so from now on."""
        if deferral.adopted:
            self._routing.hold_context(route.id, deferral.context_id)

    def lost(self, deferral: Deferral) -> None:
        """Somebody else decides: the lease was taken back before the outcome was written."""
        self._telemetry.emit(
            EventName.DEFERRAL_RETURNED,
            workspace=deferral.workspace_id,
            receipt=deferral.id,
            request_id=deferral.request_id,
            fields={"reason": "the lease was lost; its next holder decides"},
        )

    def _returned(
        self, route: Route, deferral: Deferral, facts: dict[str, object], verdict: Verdict | None = None
    ) -> None:
        self._deferring.followers.tell(deferral.id)
        self._telemetry.emit(
            EventName.DEFERRAL_RETURNED,
            workspace=route.id,
            incarnation=route.workspace.incarnation,
            receipt=deferral.id,
            request_id=deferral.request_id,
            rule=verdict.rule if verdict is not None else None,
            fields=facts,
        )

    # The decision log

    def _leased(self, route: Route, deferral: Deferral) -> Decision | None:
        if not is_told(deferral):
            return None
        owner = deferral.lease.owner if deferral.lease else ""
        facts: dict[str, object] = {"owner": owner, "try": deferral.tries, "redelivery": _marked(deferral)}
        return self._line(route, deferral, "leased", facts)

    def _line(
        self,
        route: Route,
        deferral: Deferral,
        action: str,
        facts: dict[str, object],
        *,
        verdict: Verdict | None = None,
    ) -> Decision:
        return self._records.decision(
            route.workspace,
            Trigger.REPLAY,
            action,
            verdict=verdict.name if verdict is not None else "",
            rule=verdict.rule if verdict is not None else "",
            evidence=facts,
            request_id=deferral.request_id,
            receipt=deferral.id,
        )


def resumable(route: Route, deferral: Deferral) -> bool:
    """The agent has named its task, which was not over then, and can be asked for it (`loops.taking_up`)."""
    is_open = deferral.task is not None and deferral.task.state not in TERMINAL
    return not route.polling and deferral.maybe and is_open and deferral.upstream_task_id is not None


def is_told(deferral: Deferral) -> bool:
    """Whether a try gets lines of the decision log: the first few, and then whenever their number has doubled.

    A thousand requests that are tried for a day must not push everything else out of the log.
    """
    tries = deferral.tries
    return tries <= TOLD_TRIES or tries & (tries - 1) == 0


def token_of(deferral: Deferral) -> str:
    """What proves the lease of a leased deferral; empty for any other, and then proves nothing."""
    return deferral.lease.token if deferral.lease is not None else ""


def _marked(deferral: Deferral) -> str:
    return "maybe" if deferral.maybe else "no"
