"""The data path: one request in, the agent's answer out, and what happens when there is none.

Owns: the order of the steps, which requests are not dialled, how long a call is waited for.
Knows nothing of: passing answers on (`web.passing`), verdicts and effects (`loops.gate`), what a failed request gets
(`core.outcome`), storage.

Theory of operation. A healthy call is: find the route, find the caller, read the body, dial, pass on. It takes no lock
and touches no disk; the body is not even parsed, unless the routing table holds a context, a key or the body names a
provisional id. Everything else in this file happens to calls that went wrong or to requests that are not dialled at
all, and ends in `web.undelivered`.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import web

from proxy.clock import stopwatch
from proxy.core import a2a
from proxy.core.errors import CallerError, HoldfastError
from proxy.forward import Answer, Outcome, UpstreamFailure
from proxy.loops.dialing import Dialer, gateway
from proxy.settings import Profile
from proxy.store import StoreFailure
from proxy.web import profiles
from proxy.web.admission import Admission
from proxy.web.answers import REQUEST_ID, error_answer, store_failed
from proxy.web.arrived import Arrived
from proxy.web.asked import Asked
from proxy.web.auth import Auth
from proxy.web.cards import Cards
from proxy.web.deferred_tasks import DeferredTasks
from proxy.web.holding import Holding
from proxy.web.open_calls import OpenCall, OpenCalls
from proxy.web.passed_on import Reply
from proxy.web.passing import Passing
from proxy.web.receipts import Receipted
from proxy.web.resuming import Interrupted, Resuming
from proxy.web.undelivered import Undelivered, too_late

WORKSPACE = web.RequestKey("workspace", str)
NAMED = web.RequestKey("request_id", str)
"""Notes on a request at which Holdfast failed."""
ANSWERED_BY_ID = frozenset({403, 404, 429})


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bytes."""

    body: int
    answer: int


class Calls:
    """Serves `ANY /workspaces/{id}/a2a[/{tail}]`."""

    def __init__(
        self,
        *,
        auth: Auth,
        admission: Admission,
        dialer: Dialer,
        deferred: DeferredTasks,
        undelivered: Undelivered,
        new_request_id: Callable[[], str],
        passing: Passing,
        cards: Cards,
        holding: Holding,
        resuming: Resuming,
        limits: Limits,
    ) -> None:
        self._auth = auth
        self._admission = admission
        self._dialer = dialer
        self._deferred = deferred
        self._undelivered = undelivered
        self._new_request_id = new_request_id
        self._passing = passing
        self._cards = cards
        self._holding = holding
        self._resuming = resuming
        self._limits = limits
        self.open = OpenCalls()

    @property
    def body_limit(self) -> int:
        """Bytes of a request's body."""
        return self._limits.body

    async def handle(self, arrived: Arrived, workspace_id: str, tail: str) -> Reply:
        """Serve one request; every error is answered in the caller's binding.

        What is returned is still to be sent, except an answer that was passed on in parts.
        """
        request_id = self._new_request_id()
        asked: Asked | None = None
        try:
            caller = self._auth.caller_again(arrived, arrived.headers)
            route = self._admission.admit(arrived, caller, workspace_id, request_id)
            body = arrived.at_hand
            if body is None:
                body = await arrived.body(self._limits.body)
            fields = arrived.headers
            asked = Asked(
                request_id=request_id,
                route=route,
                caller=caller,
                method=arrived.method,
                tail=tail,
                headers=(*fields.onward, (b"Holdfast-Request-Id", request_id.encode())),
                body=body,
                fields=fields,
            )
            if fields.profiled or route.effective.profile is not Profile.A2A:
                profiles.take_up(asked, self._new_request_id)
            reply = await self._serve(arrived, asked)
            if type(reply) is Receipted:
                return await self._holding.wait(arrived, asked, reply)
            return reply if asked.profile is Profile.A2A else profiles.shown(asked, reply)
        except HoldfastError as problem:
            if asked is not None:
                return profiles.refused(asked, problem, {REQUEST_ID: request_id})
            return error_answer(problem, await self._call_of(arrived, tail, problem), {REQUEST_ID: request_id})
        except StoreFailure as failure:
            if asked is not None:
                return profiles.refused(asked, store_failed(failure), {REQUEST_ID: request_id})
            return error_answer(store_failed(failure), None, {REQUEST_ID: request_id})
        except Exception:
            arrived[NAMED], arrived[WORKSPACE] = request_id, workspace_id  # for the event of the crash
            raise

    async def _call_of(self, arrived: Arrived, tail: str, problem: HoldfastError) -> a2a.Call | None:
        """What a refused request says, so that the refusal carries its JSON-RPC id; strangers' bodies stay unread."""
        body = b""
        if problem.status in ANSWERED_BY_ID:
            try:
                body = await arrived.body(self._limits.body)
            except CallerError:
                body = b""
        return _quick_call(arrived, tail, body)

    async def _serve(self, arrived: Arrived, asked: Asked) -> Reply:
        route = asked.route
        if self._deferred.concerns(asked):
            answered = await self._deferred.serve(arrived, asked)
            if answered is not None:
                return answered
        if route.contexts or route.keys:
            early = await self._undelivered.behind_others(asked)
            if early is not None:
                return early
        if not route.serving:
            self._cards.offer(arrived, asked)
            undialled = await self._undelivered.without_dialling(asked)
            if undialled is not None:
                return undialled
        if asked.written_ahead:
            if not asked.prefers_receipt:
                self._holding.callers.check(len(asked.body))
            return await self._undelivered.write_ahead(asked)
        call = OpenCall(asked, self._undelivered.adopt)
        patience = asked.patience
        if patience is None:
            return await self._exchange(arrived, call)
        return await self._impatiently(arrived, call, patience)

    def stop_waiting(self) -> None:
        """The proxy stops: whoever waits for what was put away gets what there is."""
        self._holding.callers.close()

    # The call itself

    async def _impatiently(self, arrived: Arrived, call: OpenCall, patience: float) -> Reply:
        """Wait for the answer for so long; then adopt the call, or end it where the caller set a deadline."""
        asked = call.asked
        asked.since = asyncio.get_running_loop().time()
        exchange = asyncio.create_task(self._exchange(arrived, call), name="holdfast-call")
        try:
            await asyncio.wait({exchange}, timeout=patience)
        except asyncio.CancelledError:
            exchange.cancel()
            raise
        if exchange.done():
            return await exchange
        if call.adoptable and call.response is None:
            call.left = True
            self.open.keep(exchange)
            return self._undelivered.accepted(asked, await call.adopt(), "slow_call")
        if call.over or asked.deadline is None:
            return await exchange
        exchange.cancel()
        await asyncio.wait({exchange})
        if call.response is not None:
            return self._passing.cut_short(arrived, call, too_late())
        return self._undelivered.refuse(asked, too_late(), {})

    async def _exchange(self, arrived: Arrived, call: OpenCall) -> Reply:
        """Make the call and pass its answer on, or give it to the deferral that adopted it."""
        asked = call.asked
        card = _is_card(asked)
        method, headers, rewritten = asked.method, asked.headers, card or asked.rewritten
        if rewritten:
            method, headers = self._cards.plain(asked, card=card)
            self._cards.offer(arrived, asked)
        dialled, asked.dialled_at = stopwatch(), asyncio.get_running_loop().time()
        self.open.begin(call, arrived.client)
        try:
            try:
                lines = None if rewritten else asked.lines()
                async with self._dialer.call(
                    asked.route, method=method, tail=asked.tail, headers=headers, body=asked.body, lines=lines
                ) as answer:
                    arrived.waited = stopwatch() - dialled
                    if gateway(answer.status):
                        return await self._gateway(call, answer)
                    response, content = await self._passing.pass_on(
                        arrived, call, answer, card=card, broken=self._undelivered.note_lost
                    )
                    stored = (answer.status, answer.headers)
            except Interrupted as cut:
                return await self._resuming.resume(arrived, call, cut)
            except UpstreamFailure as failure:
                if (deferral := await call.ended()) is not None:
                    return await self._undelivered.adopted_broke(asked, deferral, failure.outcome, failure.reason)
                return await self._undelivered.failed(asked, failure.outcome, failure.reason)
            except asyncio.CancelledError:
                if not call.drained or call.response is not None:
                    raise
                _uncancel()
                return await self._undelivered.cut(asked, await call.ended())
            self._dialer.answered(asked.route)
            if content is not None and call.asked_to_adopt and (deferral := await call.adopted()) is not None:
                await self._undelivered.adopted_answered(asked, deferral, *stored, content)
            return response
        finally:
            self.open.end(call, arrived.client)

    async def _gateway(self, call: OpenCall, answer: Answer) -> Reply:
        content = await answer.read(self._limits.answer)
        if (deferral := await call.ended()) is not None:
            reason = f"upstream answered {answer.status}"
            return await self._undelivered.adopted_broke(call.asked, deferral, Outcome.GATEWAY, reason)
        return await self._undelivered.gateway_answer(call.asked, answer, content)


def _uncancel() -> None:
    """Go on after the proxy's own stop cut this call: there is still an answer to give."""
    task = asyncio.current_task()
    if task is not None:
        task.uncancel()


def _quick_call(arrived: Arrived, tail: str, body: bytes) -> a2a.Call | None:
    """What can be said of a request that was refused early, perhaps from its path and headers alone."""
    shown = arrived.headers
    try:
        return a2a.read(arrived.method, tail, shown.first(b"a2a-version"), shown.first(b"content-type"), body)
    except a2a.MalformedBody as problem:
        return problem.call


def _is_card(asked: Asked) -> bool:
    """The answer may hold an agent card: a well-known path, or a request for the extended card."""
    if asked.tail:
        path = asked.tail.partition("?")[0]
        if path.startswith("/.well-known/agent") or path.endswith(("/extendedAgentCard", "/card")):
            return True
    body = asked.body
    return b"xtended" in body and (b"xtendedAgentCard" in body or b"xtendedCard" in body)
