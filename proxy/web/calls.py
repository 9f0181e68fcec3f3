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
import functools
from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import hdrs, web

from proxy.clock import stopwatch
from proxy.core import a2a
from proxy.core.errors import CallerError, HoldfastError
from proxy.forward import Answer, Outcome, UpstreamFailure
from proxy.loops.dialing import Dialer, gateway
from proxy.loops.tasks import Tasks
from proxy.store import StoreFailure
from proxy.web.admission import Admission
from proxy.web.answers import REQUEST_ID, error_answer, store_failed
from proxy.web.arrived import Arrived
from proxy.web.asked import Asked
from proxy.web.auth import Auth
from proxy.web.cards import Cards
from proxy.web.open_calls import OpenCall, OpenCalls
from proxy.web.passed_on import Reply
from proxy.web.passing import Passing
from proxy.web.undelivered import Undelivered, too_late

PREFIX = "/workspaces/"
WORKSPACE = web.RequestKey("workspace", str)
NAMED = web.RequestKey("request_id", str)
"""Notes on a request at which Holdfast failed."""
ANSWERED_BY_ID = frozenset({403, 404, 429})


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bytes."""

    body: int
    answer: int


@functools.lru_cache(maxsize=1024)
def split(raw_path: str) -> tuple[str, str] | None:
    """Return (workspace id, raw tail with its query) of a data path, None for any other path."""
    if not raw_path.startswith(PREFIX):
        return None
    workspace_id, slash, rest = raw_path[len(PREFIX) :].partition("/")
    if not slash or not rest.startswith("a2a"):
        return None
    tail = rest[3:]
    if tail and tail[0] not in "/?":
        return None
    return workspace_id.replace("%3A", ":").replace("%3a", ":"), tail


class Calls:
    """Serves `ANY /workspaces/{id}/a2a[/{tail}]`."""

    def __init__(
        self,
        *,
        auth: Auth,
        admission: Admission,
        dialer: Dialer,
        tasks: Tasks,
        undelivered: Undelivered,
        new_request_id: Callable[[], str],
        passing: Passing,
        cards: Cards,
        limits: Limits,
    ) -> None:
        self._auth = auth
        self._admission = admission
        self._dialer = dialer
        self._tasks = tasks
        self._undelivered = undelivered
        self._new_request_id = new_request_id
        self._passing = passing
        self._cards = cards
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
            return await self._serve(arrived, asked)
        except HoldfastError as problem:
            call = asked.call_or_none() if asked is not None else await self._call_of(arrived, tail, problem)
            return error_answer(problem, call, {REQUEST_ID: request_id})
        except StoreFailure as failure:
            call = asked.call_or_none() if asked is not None else None
            return error_answer(store_failed(failure), call, {REQUEST_ID: request_id})
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
        if a2a.PROVISIONAL_HINT.search(asked.body) or (asked.tail and a2a.PROVISIONAL_HINT.search(asked.tail.encode())):
            answered = await self._provisional(asked)
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
        call = OpenCall(asked, self._undelivered.adopt)
        patience = asked.patience
        if patience is None:
            return await self._exchange(arrived, call)
        return await self._impatiently(arrived, call, patience)

    async def _provisional(self, asked: Asked) -> web.StreamResponse | None:
        """Serve what names a deferred task; None when it goes on to the agent, with the agent's own ids in it."""
        call = asked.call()
        known = await self._tasks.mapping(asked.route, call, asked.caller)
        named = call.task_id is not None and a2a.is_provisional(call.task_id)
        if named and call.task_id not in known:
            missing = a2a.task_not_found(call)
            return _own(asked, missing.status, missing.body, missing.content_type)
        deferral = known.get(call.task_id or "")
        if deferral is not None and call.operation is a2a.Operation.GET:
            answer = await self._tasks.get(asked.route, call, deferral, asked.headers)
            return _own(asked, answer.status, answer.body, answer.content_type)
        if deferral is not None and call.operation is a2a.Operation.CANCEL:
            cancelled = await self._tasks.cancel(call, deferral)
            if cancelled is not None:
                return _own(asked, cancelled.status, cancelled.body, cancelled.content_type)
        waiting = [found for found in known.values() if found.upstream_task_id is None]
        if waiting and call.deferrable:
            return await self._undelivered.defer_behind(asked, "its task is still deferred")
        ids = {name: found.upstream_task_id for name, found in known.items() if found.upstream_task_id}
        if ids:
            asked.replace_body(
                a2a.rename_task(asked.body, call, ids),
                a2a.rename_tail(asked.tail, ids),
                {theirs: ours for ours, theirs in ids.items()},
            )
        return None

    # The call itself

    async def _impatiently(self, arrived: Arrived, call: OpenCall, patience: float) -> Reply:
        """Wait for the answer for so long; then adopt the call, or end it where the caller set a deadline."""
        asked = call.asked
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
        if call.over or not asked.has_deadline:
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
        method, headers, rewritten = asked.method, asked.headers, card or bool(asked.names)
        if rewritten:
            method, headers = self._cards.plain(asked, card=card)
            self._cards.offer(arrived, asked)
        dialled = stopwatch()
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


def _own(asked: Asked, status: int, body: bytes, content_type: str) -> web.Response:
    response = web.Response(body=body, status=status, headers={REQUEST_ID: asked.request_id})
    response.headers[hdrs.CONTENT_TYPE] = content_type
    return response


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
