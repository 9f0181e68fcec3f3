"""What a request gets that the agent did not answer.

Owns: requests that are not dialled, calls that failed, retries that join, requests that wait behind others; the
refusals, each in the caller's binding.
Knows nothing of: how a verdict is reached (`loops.gate`), how a row is written (`loops.deferring`), how a receipt looks
(`web.receipts`), what the decision log says (`web.noting`), passing answers on.
"""

from collections.abc import Callable
from datetime import timedelta

from aiohttp import web

from proxy.clock import Now
from proxy.core import a2a
from proxy.core.decision import Trigger
from proxy.core.deferral import Deferral, RawHeaders, StoredAnswer
from proxy.core.errors import HoldfastError, ProxyError, WorkspaceError
from proxy.core.lifecycle import Status
from proxy.core.outcome import Action, DeadAction, Failing, Outcome, Redelivery, UnmanagedAway, action_for
from proxy.core.restart import MIN_RETRY_AFTER, RESTARTING_ANSWERS
from proxy.core.restart import Answer as RestartAnswer
from proxy.forward import Answer, UpstreamFailure
from proxy.forward.headers import answer_fields, answer_headers
from proxy.loops.deferring import Deferring, Receipt, key_conflict, queue_unavailable
from proxy.loops.dialing import POLLS, Failed
from proxy.loops.gate import Gate, Judgement
from proxy.loops.replayer import Replayer
from proxy.loops.routing import Route
from proxy.store import Store, StoreFailure
from proxy.telemetry import EventName, Telemetry
from proxy.web import profiles
from proxy.web.answers import REQUEST_ID, RESTART, VERDICT
from proxy.web.asked import Asked
from proxy.web.noting import Noting, Why
from proxy.web.passed_on import Reply, Whole
from proxy.web.receipts import Receipts

IDLE = "idle_timeout"
SERVER_ERROR = 500
DELIVERED = {Outcome.NOT_SENT: "no", Outcome.MAYBE: "maybe", Outcome.GATEWAY: "maybe", Outcome.LOST: "yes"}


class Undelivered:
    """Answers for absent agents. A silent workspace that nobody hosts is believed in for `unmanaged_window` seconds."""

    def __init__(
        self,
        *,
        store: Store,
        noting: Noting,
        receipts: Receipts,
        gate: Gate,
        deferring: Deferring,
        replayer: Replayer,
        now: Now,
        telemetry: Telemetry,
        unmanaged_window: float,
        wake: Callable[[Route, str], bool],
    ) -> None:
        self._store = store
        self._noting = noting
        self._receipts = receipts
        self._gate = gate
        self._deferring = deferring
        self._replayer = replayer
        self._now = now
        self._telemetry = telemetry
        self._unmanaged_window = unmanaged_window
        self._wake = wake

    # Not dialled

    async def without_dialling(self, asked: Asked) -> web.StreamResponse | None:
        """Answer for a workspace that nobody dials; None when it is dialled all the same.

        Parked, polling, restarting and without a URL: BUSY by that name. A death that stands: its effects' answer.
        Anything else that is not serving (offline with nothing declared) is dialled: one that answers is answered.
        """
        route = asked.route
        workspace = route.workspace
        if workspace.parked:
            return await self._away(asked, workspace.desired.value, Trigger.PARKED)
        if route.polling:
            return await self._away(asked, "poll", Trigger.PARKED)
        if workspace.status is Status.RESTARTING:
            return await self._away(asked, "restarting", Trigger.FORWARD)
        if workspace.url is None and workspace.status not in {Status.OFFLINE, Status.ABANDONED}:
            return await self._away(asked, "no_url", Trigger.FORWARD)
        if workspace.url is None:
            return await self.failed(asked, Outcome.NOT_SENT, "no_url")
        return None

    async def _away(self, asked: Asked, rule: str, trigger: Trigger) -> web.StreamResponse:
        why = Why(verdict="busy", rule=rule, trigger=trigger)
        headers = {VERDICT: why.header}
        waking = self._wake(asked.route, asked.request_id)
        if not asked.deferrable:
            text = f"workspace {asked.route.id} is away ({rule})"
            return self.refuse(asked, still_waking(asked) if waking else away(asked, text), headers, why)
        return await self._defer(asked, headers, why, maybe=False, error=rule)

    # Failed

    async def gateway_answer(self, asked: Asked, answer: Answer, content: bytes) -> Reply:
        """A 502, 503, 504 or 52x came from upstream: ask what it means before passing it on (scenarios 5, 35)."""
        reason = f"upstream answered {answer.status}"
        why = self._noting.failed(Outcome.GATEWAY, reason)
        judgement = await self._judge(asked, Outcome.GATEWAY, why)
        why = self._noting.judged(why, asked, judgement)
        action = self._action(asked, Outcome.GATEWAY, judgement)
        if action is Action.PASS:
            self._noting.passed_on(asked, answer.status, why)
            fields = answer_fields(answer.headers)
            return Whole(
                status=answer.status, reason=answer.reason, fields=fields, request_id=asked.request_id, body=content
            )
        return await self._act(asked, Outcome.GATEWAY, reason, why, judgement, action)

    async def failed(self, asked: Asked, outcome: Outcome, reason: str) -> web.StreamResponse:
        """A call failed: judge the workspace, then answer by the table of `core.outcome`."""
        self._telemetry.emit(
            EventName.REQUEST_FAILED,
            workspace=asked.route.id,
            incarnation=asked.route.workspace.incarnation,
            request_id=asked.request_id,
            fields={"class": outcome.value, "reason": reason},
        )
        if reason == POLLS:  # it began to poll while this call was on its way: nothing was sent
            return await self._away(asked, "poll", Trigger.PARKED)
        why = self._noting.failed(outcome, reason)
        if reason == "forbidden_address":
            unsafe = WorkspaceError(
                "UNSAFE_ADDRESS", "the workspace's URL is not publicly routable", status=502, facts={"delivered": "no"}
            )
            return self.refuse(asked, unsafe, {}, why)
        judgement = await self._judge(asked, outcome, why)
        action = self._action(asked, outcome, judgement, idle=reason == IDLE)
        why = self._noting.judged(why, asked, judgement)
        return await self._act(asked, outcome, reason, why, judgement, action)

    async def _judge(self, asked: Asked, outcome: Outcome, why: Why) -> Judgement:
        """What the gate says; ProxyError when the store does not take what it decided."""
        try:
            return await self._gate.ask(asked.route, Trigger.FORWARD, request_id=asked.request_id)
        except StoreFailure as problem:
            refusal = queue_unavailable(DELIVERED[outcome])
            self._noting.refused(asked, refusal, why)
            raise refusal from problem

    async def note_lost(self, asked: Asked, failure: UpstreamFailure) -> None:
        """An answer broke after something of it was passed on; the workspace is judged, the caller has what it has."""
        self._telemetry.emit(
            EventName.REQUEST_FAILED,
            workspace=asked.route.id,
            incarnation=asked.route.workspace.incarnation,
            request_id=asked.request_id,
            fields={"class": failure.outcome.value, "reason": failure.reason, "passed_on": "some"},
        )
        why = self._noting.failed(failure.outcome, failure.reason)
        judgement = await self._gate.ask(asked.route, Trigger.FORWARD, request_id=asked.request_id)
        self._noting.broken_off(asked, self._noting.judged(why, asked, judgement))

    def _action(self, asked: Asked, outcome: Outcome, judgement: Judgement, *, idle: bool = False) -> Action:
        route = asked.route
        effective = route.effective
        last = max(
            (at for at in (route.workspace.started_at, route.signs.last_sign_at) if at is not None), default=None
        )
        window = timedelta(seconds=self._unmanaged_window)
        lately = last is not None and self._now() - last < window
        sign = route.signs.last_sign_at
        return action_for(
            Failing(
                outcome=outcome,
                idle=idle,
                verdict="unknown" if _nobody_mends(judgement) else judgement.verdict.name,
                rule=judgement.verdict.rule,
                deferrable=asked.is_send,
                fresh=lately,
                abandoned=route.workspace.status is Status.ABANDONED,
                known=(sign is not None and self._now() - sign < window)
                or route.workspace.settings.unmanaged_away is UnmanagedAway.DEFER,
                dead_action=DeadAction.DEFER if asked.wants_deferral else effective.dead_action,
                unmanaged_away=effective.unmanaged_away,
                redelivery=effective.redelivery,
            )
        )

    async def _act(  # noqa: PLR0917 - the six are always all given, in the order in which they came about
        self, asked: Asked, outcome: Outcome, reason: str, why: Why, judgement: Judgement, action: Action
    ) -> web.StreamResponse:
        headers = {VERDICT: judgement.header}
        restart = judgement.restart.answer if judgement.restart is not None else None
        if restart is None and judgement.verdict.rule == "external":
            restart = RestartAnswer.UNMANAGED
        if restart is not None:
            headers[RESTART] = restart.value
        if action in {Action.DEFER, Action.DEFER_MARKED} and not asked.deferrable:
            action = Action.AWAY
        if action in {Action.DEFER, Action.DEFER_MARKED}:
            return await self._defer(asked, headers, why, maybe=action is Action.DEFER_MARKED, error=reason)
        return self.refuse(asked, self._refusal(asked, outcome, judgement, action), headers, why)

    def _refusal(self, asked: Asked, outcome: Outcome, judgement: Judgement, action: Action) -> HoldfastError:
        name, delivered = asked.route.id, {"delivered": DELIVERED[outcome]}
        if action is Action.REJECT:
            return self._dead(asked, outcome, judgement)
        if action is Action.UNREACHABLE:
            text = f"workspace {name} runs, but has not listened for long"
            return WorkspaceError(
                "WORKSPACE_UNREACHABLE", text, retry_after=MIN_RETRY_AFTER, facts={"away": True, **delivered}
            )
        if action is Action.AWAY:
            if judgement.verdict.name == "dead":
                return self._dead(asked, outcome, judgement)
            return away(asked, f"workspace {name} is away", outcome)
        reasons = {
            Action.BAD_GATEWAY: ("WORKSPACE_UNREACHABLE", "failed to reach the workspace's agent"),
            Action.BROKEN: ("CALL_BROKEN", "the call broke; the request may have reached the agent"),
            Action.ANSWER_LOST: ("ANSWER_LOST", "the agent's answer broke before it was complete"),
        }
        reason, text = reasons[action]
        return WorkspaceError(reason, text, status=502, facts=delivered)

    def _dead(self, asked: Asked, outcome: Outcome, judgement: Judgement) -> HoldfastError:
        decision = judgement.restart
        answer = decision.answer if decision is not None else RestartAnswer.UNMANAGED
        return WorkspaceError(
            "WORKSPACE_RESTARTING" if answer in RESTARTING_ANSWERS else "WORKSPACE_DEAD",
            f"workspace {asked.route.id} is dead; restart {answer.value}",
            retry_after=decision.retry_after(self._now()) if decision is not None else MIN_RETRY_AFTER,
            facts={
                "delivered": "no" if outcome is Outcome.NOT_SENT else "maybe",
                "restarting": answer in RESTARTING_ANSWERS,
                "restart": answer.value,
            },
        )

    # Behind others, and again

    async def behind_others(self, asked: Asked) -> web.StreamResponse | None:
        """A retry joins what it repeats; a send of a context with unfinished deferrals waits behind them."""
        call = asked.call_or_none()
        if call is None or not call.deferrable or not asked.deferrable:
            return None
        key = asked.idempotency_key or call.message_id
        if key is not None and asked.caller_name is not None:
            known = asked.route.keys.get((asked.caller_name, key))
            deferral = await self._store.deferral(known) if known is not None else None
            if deferral is not None and self._deferring.joins(deferral):
                if deferral.digest != a2a.digest(asked.written, binding=call.binding):
                    return self.refuse(asked, key_conflict(deferral.id), {})
                return self._joined(asked, Receipt(deferral=deferral, depth=asked.route.size.rows, joined=True), {})
        if call.context_id is not None and call.context_id in asked.route.contexts:
            return await self.defer_behind(asked, "its context has unfinished deferrals")
        return None

    async def defer_behind(self, asked: Asked, why: str) -> web.StreamResponse:
        """Put a send behind the deferrals that it must not overtake."""
        busy = Why(verdict="busy", rule="order", facts={"reason": why}, trigger=Trigger.QUEUE)
        response = await self._defer(asked, {VERDICT: busy.header}, busy, maybe=False, error=why)
        self._replayer.ring(asked.route)
        return response

    # Journalled

    async def write_ahead(self, asked: Asked) -> web.StreamResponse:
        """Put a streaming send away before its agent gets it, then send it at once.

        Its caller is told from the journal, so whoever leaves, or dies, can come back to where it was.
        """
        why = Why(verdict="alive", rule="journal", trigger=Trigger.QUEUE)
        headers = {VERDICT: why.header}
        try:
            decision = self._noting.line(asked, "journalled", why)
            lease = self._replayer.lease()
            receipt = await self._deferring.put(
                asked.route, asked.incoming(), maybe=False, error=None, decision=decision, lease=lease
            )
        except HoldfastError as problem:
            return self.refuse(asked, problem, headers, why)
        if receipt.joined:
            return self._joined(asked, receipt, headers)
        self._replayer.deliver(asked.route, receipt.deferral)
        return self._receipts.accepted(asked, receipt, headers, may_wait=True)

    # Adopted

    async def adopt(self, asked: Asked) -> Deferral:
        """Commit a running call's deferral, leased by this proxy already; the running call is its try.

        Raises:
            HoldfastError: it could not be committed; nothing was promised, and the agent has the request.
        """
        slow = Why(verdict="alive", rule="slow_call", facts={"patience": asked.patience}, trigger=Trigger.QUEUE)
        decision = self._noting.line(asked, "adopted", slow)
        lease = self._replayer.lease()
        try:
            receipt = await self._deferring.put(
                asked.route, asked.incoming(), maybe=False, error=None, decision=decision, lease=lease
            )
        except HoldfastError as problem:
            problem.facts = {**problem.facts, "delivered": "maybe"}
            raise
        if not receipt.joined:
            self._replayer.adopt(asked.route, receipt.deferral)
        return receipt.deferral

    def accepted(self, asked: Asked, deferral: Deferral, rule: str) -> web.Response:
        """The 202 for a call that goes on without its caller."""
        receipt = Receipt(deferral=deferral, depth=asked.route.size.rows, joined=False)
        return self._receipts.accepted(asked, receipt, {VERDICT: f"alive; rule={rule}"})

    async def adopted_answered(
        self, asked: Asked, deferral: Deferral, status: int, headers: RawHeaders, content: bytes
    ) -> None:
        """The answer of an adopted call came: it completes the deferral."""
        answer = StoredAnswer(status=status, headers=answer_headers(headers, reframed=True), body=content)
        await self._replayer.adopted_answered(asked.route, deferral, asked.call(), answer)

    async def adopted_broke(
        self, asked: Asked, deferral: Deferral, outcome: Outcome, reason: str
    ) -> web.StreamResponse:
        """An adopted call broke: its deferral is queued, marked. The response is for a client that is not there."""
        await self._replayer.adopted_broke(asked.route, deferral, Failed(outcome=outcome, reason=reason))
        return self.accepted(asked, deferral, "slow_call")

    async def cut(self, asked: Asked, adopted: Deferral | None) -> web.StreamResponse:
        """The proxy stops while the call is open: what can be deferred is committed as *maybe* (scenario 36)."""
        if adopted is not None:
            return self.accepted(asked, adopted, "stopping")
        why = Why(verdict="busy", rule="stopping", trigger=Trigger.QUEUE)
        headers = {VERDICT: why.header}
        if asked.repeatable and asked.route.effective.redelivery is Redelivery.NEVER:
            text = "Holdfast is stopping; the request may have reached the agent and is not sent again"
            return self.refuse(
                asked, WorkspaceError("CALL_BROKEN", text, status=502, facts={"delivered": "maybe"}), headers, why
            )
        if not asked.repeatable:
            error = ProxyError("STOPPING", "Holdfast is stopping", retry_after=1, facts={"delivered": "maybe"})
            return self.refuse(asked, error, headers, why)
        return await self._defer(asked, headers, why, maybe=True, error="stopping")

    # Answers

    async def _defer(
        self, asked: Asked, headers: dict[str, str], why: Why, *, maybe: bool, error: str
    ) -> web.StreamResponse:
        """Commit the deferral, then answer; never the other way round. Its caller may still be kept waiting."""
        try:
            decision = self._noting.line(asked, "deferred", why)
            receipt = await self._deferring.put(
                asked.route, asked.incoming(), maybe=maybe, error=error, decision=decision
            )
        except HoldfastError as problem:
            if maybe:
                problem.facts = {**problem.facts, "delivered": "maybe"}
            return self.refuse(asked, problem, headers, why)
        if receipt.joined:
            return self._joined(asked, receipt, headers)
        self._replayer.expect(asked.route)
        return self._receipts.accepted(asked, receipt, headers, may_wait=True)

    def _joined(self, asked: Asked, receipt: Receipt, headers: dict[str, str]) -> web.Response:
        self._noting.joined(asked, receipt.deferral)
        return self._receipts.joined(asked, receipt, headers)

    def refuse(
        self, asked: Asked, error: HoldfastError, headers: dict[str, str], why: Why | None = None
    ) -> web.Response:
        """Answer an error in the caller's binding, or with what there is instead of the agent's answer."""
        instead = asked.instead(headers) if asked.instead is not None and error.status >= SERVER_ERROR else None
        self._telemetry.emit(
            EventName.REQUEST_ANSWERED,
            workspace=asked.route.id,
            incarnation=asked.route.workspace.incarnation,
            request_id=asked.request_id,
            fields={"status": instead.status if instead is not None else error.status, "reason": error.reason},
        )
        if instead is not None:
            return instead
        self._noting.refused(asked, error, why or Why())
        return profiles.refused(asked, error, {**headers, REQUEST_ID: asked.request_id})


def _nobody_mends(judgement: Judgement) -> bool:
    """No runtime hosts it. Two presets call that alive, a sidecar may call it dead; requests fare as under unknown."""
    restart = judgement.restart
    return judgement.verdict.rule == "external" or (restart is not None and restart.answer is RestartAnswer.UNMANAGED)


def away(asked: Asked, text: str, outcome: Outcome = Outcome.NOT_SENT) -> WorkspaceError:
    """The answer to a request that cannot wait for its workspace."""
    return WorkspaceError(
        "WORKSPACE_AWAY",
        text,
        retry_after=MIN_RETRY_AFTER,
        facts={"away": True, "workspace": asked.route.id, "delivered": DELIVERED[outcome]},
    )


def still_waking(asked: Asked) -> WorkspaceError:
    """The answer to a request that cannot wait until its workspace has woken from hibernation (scenario 28)."""
    return WorkspaceError(
        "WORKSPACE_WAKING",
        f"workspace {asked.route.id} is waking from hibernation",
        retry_after=MIN_RETRY_AFTER,
        facts={"waking": True, "away": True, "workspace": asked.route.id, "delivered": DELIVERED[Outcome.NOT_SENT]},
    )


def too_late() -> WorkspaceError:
    """The caller's deadline has passed for a call that cannot be deferred."""
    return WorkspaceError(
        "DEADLINE_EXCEEDED", "the agent did not answer within X-Timeout", status=504, facts={"delivered": "maybe"}
    )
