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

from aiohttp import hdrs, web
from aiohttp.http import HttpVersion11

from proxy.core import a2a
from proxy.core.errors import CallerError, HoldfastError
from proxy.forward import Answer, Outcome, UpstreamFailure
from proxy.forward.headers import end_to_end
from proxy.loops.dialing import Dialer, gateway
from proxy.loops.routing import Routing
from proxy.loops.tasks import Tasks
from proxy.store import StoreFailure
from proxy.web import bodies
from proxy.web.answers import REQUEST_ID, error_answer, store_failed
from proxy.web.asked import Asked
from proxy.web.auth import Auth, unknown_workspace
from proxy.web.open_calls import OpenCall, OpenCalls
from proxy.web.passing import Passing
from proxy.web.undelivered import Undelivered, too_late

PREFIX = "/workspaces/"
ANSWERED_BY_ID = frozenset({403, 404})


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
        routing: Routing,
        auth: Auth,
        dialer: Dialer,
        tasks: Tasks,
        undelivered: Undelivered,
        new_request_id: Callable[[], str],
        passing: Passing,
        limits: Limits,
    ) -> None:
        self._routing = routing
        self._auth = auth
        self._dialer = dialer
        self._tasks = tasks
        self._undelivered = undelivered
        self._new_request_id = new_request_id
        self._passing = passing
        self._limits = limits
        self.open = OpenCalls()

    @staticmethod
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

    async def handle(self, request: web.BaseRequest, workspace_id: str, tail: str) -> web.StreamResponse:
        """Serve one request; every error is answered in the caller's binding."""
        request_id = self._new_request_id()
        asked: Asked | None = None
        try:
            caller = self._auth.caller(request)
            route = self._routing.get(workspace_id)
            if route is None:
                raise unknown_workspace(workspace_id)
            body = await self._body(request)
            asked = Asked(
                request_id=request_id,
                route=route,
                caller=caller,
                method=request.method,
                tail=tail,
                headers=(*end_to_end(request.raw_headers), (b"Holdfast-Request-Id", request_id.encode())),
                body=body,
                prefer=request.headers.get("Prefer", "").lower(),
                idempotency_key=request.headers.get("Idempotency-Key"),
                priority=request.headers.get("Holdfast-Priority"),
                user_agent=request.headers.get("User-Agent", ""),
                timeout=request.headers.get("X-Timeout"),
            )
            return await self._serve(request, asked)
        except HoldfastError as problem:
            call = asked.call_or_none() if asked is not None else await self._call_of(request, tail, problem)
            return error_answer(problem, call, {REQUEST_ID: request_id})
        except StoreFailure as failure:
            call = asked.call_or_none() if asked is not None else None
            return error_answer(store_failed(failure), call, {REQUEST_ID: request_id})

    async def _call_of(self, request: web.BaseRequest, tail: str, problem: HoldfastError) -> a2a.Call | None:
        """What a refused request says, so that the refusal carries its JSON-RPC id; strangers' bodies stay unread."""
        body = b""
        if problem.status in ANSWERED_BY_ID:
            try:
                body = await self._body(request)
            except CallerError:
                body = b""
        return _quick_call(request, tail, body)

    async def _body(self, request: web.BaseRequest) -> bytes:
        """Read the whole body, up to the limit; never truncate (scenario 38)."""
        if not request.can_read_body:
            return b""
        limit = self._limits.body
        declared = request.content_length
        if declared is not None and declared > limit:
            raise too_large(limit)
        if request.version >= HttpVersion11 and request.headers.get(hdrs.EXPECT, "").lower() == "100-continue":
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            request.writer.output_size = 0
        parts: list[bytes] = []
        size = 0
        try:
            async for part in request.content.iter_any():
                size += len(part)
                if size > limit:
                    raise too_large(limit)
                parts.append(part)
        except bodies.BROKEN as problem:
            raise CallerError("BROKEN_BODY", "the request body did not arrive whole") from problem
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def _serve(self, request: web.BaseRequest, asked: Asked) -> web.StreamResponse:
        route = asked.route
        if a2a.PROVISIONAL_HINT.search(asked.body) or a2a.PROVISIONAL_HINT.search(asked.tail.encode()):
            answered = await self._provisional(asked)
            if answered is not None:
                return answered
        if route.contexts or route.keys:
            early = await self._undelivered.behind_others(asked)
            if early is not None:
                return early
        if not route.serving:
            undialled = await self._undelivered.without_dialling(asked)
            if undialled is not None:
                return undialled
        return await self._dial(request, asked)

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

    async def _dial(self, request: web.BaseRequest, asked: Asked) -> web.StreamResponse:
        call = OpenCall(asked, self._undelivered.adopt)
        if asked.patience is None:
            return await self._exchange(request, call)
        return await self._impatiently(request, call, asked.patience)

    async def _impatiently(self, request: web.BaseRequest, call: OpenCall, patience: float) -> web.StreamResponse:
        """Wait for the answer for so long; then adopt the call, or end it where the caller set a deadline."""
        asked = call.asked
        exchange = asyncio.create_task(self._exchange(request, call), name="holdfast-call")
        try:
            await asyncio.wait({exchange}, timeout=patience)
        except asyncio.CancelledError:
            exchange.cancel()
            raise
        if exchange.done():
            return await exchange
        if call.adoptable and call.response is None:
            self.open.keep(exchange)
            return self._undelivered.accepted(asked, await call.adopt(), "slow_call")
        if call.over or not asked.has_deadline:
            return await exchange
        exchange.cancel()
        await asyncio.wait({exchange})
        if call.response is not None:
            return await self._passing.cut_short(request, call, too_late())
        return self._undelivered.refuse(asked, too_late(), {})

    async def _exchange(self, request: web.BaseRequest, call: OpenCall) -> web.StreamResponse:
        """Make the call and pass its answer on, or give it to the deferral that adopted it."""
        asked = call.asked
        card = _is_card(asked)
        headers = asked.headers
        if card or asked.names:
            headers = tuple(pair for pair in headers if pair[0].lower() != b"accept-encoding")
        with self.open.track(call, request.protocol):
            try:
                async with self._dialer.call(
                    asked.route, method=asked.method, tail=asked.tail, headers=headers, body=asked.body
                ) as answer:
                    if gateway(answer.status):
                        return await self._gateway(call, answer)
                    response, content = await self._passing.pass_on(
                        request, call, answer, card=card, broken=self._undelivered.note_lost
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
            if content is not None and (deferral := await call.adopted()) is not None:
                await self._undelivered.adopted_answered(asked, deferral, *stored, content)
            return response

    async def _gateway(self, call: OpenCall, answer: Answer) -> web.StreamResponse:
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


def too_large(limit: int) -> CallerError:
    """The answer to a body over the limit."""
    return CallerError(
        "BODY_TOO_LARGE", f"the request body is larger than {limit} bytes", status=413, facts={"max_bytes": limit}
    )


def _own(asked: Asked, status: int, body: bytes, content_type: str) -> web.Response:
    response = web.Response(body=body, status=status, headers={REQUEST_ID: asked.request_id})
    response.headers[hdrs.CONTENT_TYPE] = content_type
    return response


def _quick_call(request: web.BaseRequest, tail: str, body: bytes) -> a2a.Call | None:
    """What can be said of a request that was refused early, perhaps from its path and headers alone."""
    try:
        return a2a.read(
            request.method, tail, request.headers.get("A2A-Version"), request.headers.get(hdrs.CONTENT_TYPE), body
        )
    except a2a.MalformedBody as problem:
        return problem.call


def _is_card(asked: Asked) -> bool:
    """The answer may hold an agent card: a well-known path, or a request for the extended card."""
    path = asked.tail.partition("?")[0]
    if path.startswith("/.well-known/agent") or path.endswith(("/extendedAgentCard", "/card")):
        return True
    return b"xtendedAgentCard" in asked.body or b"xtendedCard" in asked.body
