"""The HTTP server: one listener, the data path in front, an ordinary application for everything else.

Owns: dispatch, what bad HTTP and crashes look like to a client, the listener's life.
Knows nothing of: what any route does.

A connection begins in `web.front`, which serves plain requests of the data path by itself and hands over the rest.
What is handed over does not go through aiohttp's router and middlewares either, where it is for the data path:
`aiohttp.web.Server` gives every request to `_dispatch`, which looks at the raw path. All other paths are the
application's. (`Application._handle` is the one private name this costs; a test pins it.)
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from aiohttp import hdrs, web
from aiohttp.typedefs import Middleware
from aiohttp.web_protocol import RequestHandler

from proxy.clock import stopwatch
from proxy.core.errors import CallerError, HoldfastError, ProxyError
from proxy.loops.traffic import Ended, Traffic
from proxy.store import StoreFailure
from proxy.telemetry import EventName, Telemetry, fault
from proxy.web.answers import REQUEST_ID, error_answer, signed, store_failed, written
from proxy.web.arrived import Arrived, Asking
from proxy.web.calls import NAMED, WORKSPACE, Calls
from proxy.web.front import KEEP_ALIVE, Front
from proxy.web.heartbeats import HEARTBEAT, Heartbeats, heartbeat_of
from proxy.web.open_calls import Connection
from proxy.web.passed_on import InParts, OwnInParts, PassedOn, Reply, Whole
from proxy.web.places import Places

CALLERS_FAULT, SERVER_ERROR = 400, 500
BACKLOG = 1024
LAST_WORDS = 5.0
"""Seconds in which the answers to calls that were cut may still leave."""


class _Connection(Connection):
    """A client's connection; what goes wrong on it is answered in JSON, without a traceback."""

    telemetry: Telemetry

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = SERVER_ERROR,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - the library's text stays inside
    ) -> web.StreamResponse:
        if request.writer.output_size > 0:
            self.force_close()
            raise ConnectionError("an answer has begun already")
        if status < SERVER_ERROR:
            answer = error_answer(CallerError("BAD_REQUEST", "this is not valid HTTP", status=status))
        else:
            answer = crashed(self.telemetry, request, exc)
        signed(answer, request)
        answer.force_close()  # once it has left; the connection's own force_close would cut it off
        return answer


def crashed(telemetry: Telemetry, request: Asking, problem: BaseException | None) -> web.Response:
    """The answer to a request at which Holdfast failed; the fault's kind and place are told, never its text."""
    if problem is not None and not isinstance(problem, ConnectionError):
        telemetry.emit(
            EventName.REQUEST_CRASHED,
            workspace=request.get(WORKSPACE, None),
            request_id=request.get(NAMED, None),
            fields={"method": request.method, **fault(problem)},
        )
    failed = ProxyError("INTERNAL", "Holdfast failed to serve this request", status=SERVER_ERROR)
    named = request.get(NAMED, None)
    return error_answer(failed, headers={REQUEST_ID: named} if named else None)


class _Server(web.Server):
    """aiohttp's low-level server with our connections."""

    telemetry: Telemetry

    def __call__(self) -> RequestHandler:
        connection = _Connection(self, loop=self._loop, **self._kwargs)
        connection.telemetry = self.telemetry
        return connection


class _Sent(web.StreamResponse):
    """What aiohttp is given instead of an answer that has left already."""

    def __init__(self, arrived: Arrived) -> None:
        super().__init__()
        self._keep_alive = arrived.keep_alive

    async def prepare(self, request: web.BaseRequest) -> None:
        """Nothing is left to do."""

    async def write_eof(self, data: bytes = b"") -> None:
        """Nothing is left to do."""


class Server:
    """Listens."""

    def __init__(
        self,
        *,
        calls: Calls,
        routes: Iterable[web.RouteDef],
        telemetry: Telemetry,
        traffic: Traffic,
        head_limit: int,
        heartbeats: Heartbeats,
        places: Places,
        on_drained: Callable[[], None] = lambda: None,
        guards: Iterable[Middleware] = (),
    ) -> None:
        self._calls = calls
        self._heartbeats = heartbeats
        self.places = places
        self._on_drained = on_drained
        self._telemetry = telemetry
        self._traffic = traffic
        self.head_limit = head_limit
        self.body_limit = calls.body_limit
        self._application = web.Application(middlewares=[_answer_errors, *guards])
        self._application.add_routes(routes)
        self._listener: asyncio.Server | None = None
        self._handlers: _Server
        self._fronts: set[Front] = set()
        self._gone = asyncio.Event()

    async def start(self, host: str, port: int) -> tuple[str, int]:
        """Listen; return the address that was taken."""
        self._application.freeze()
        self._handlers = _Server(
            self._dispatch,
            request_factory=self._request,
            auto_decompress=False,
            access_log=None,
            max_line_size=self.head_limit,
            max_field_size=self.head_limit,
            keepalive_timeout=KEEP_ALIVE,
            lingering_time=1.0,
        )
        self._handlers.telemetry = self._telemetry
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(
            lambda: Front(self, loop), host, port, reuse_address=True, backlog=BACKLOG
        )
        name = self._listener.sockets[0].getsockname()  # tells which port was taken
        return str(name[0]), int(name[1])

    def _request(self, message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> web.Request:
        return web.Request(message, payload, protocol, writer, task, asyncio.get_running_loop(), client_max_size=0)

    # What a connection needs (see `front.Floor`)

    async def serve(self, arrived: Arrived, workspace_id: str, tail: str) -> bool:
        """Serve a request of the data path and answer it; whether the connection may go on."""
        try:
            handled = self._heartbeats.take if tail == HEARTBEAT else self._call
            reply = await handled(arrived, workspace_id, tail)
            if isinstance(reply, Whole):
                reply.send(arrived)
            elif isinstance(reply, web.Response):
                self._answer(arrived, reply)
            elif not isinstance(reply, InParts):
                raise TypeError(f"{type(reply).__name__} is no answer to a call")  # noqa: TRY301 - told like any crash
        except ConnectionError:
            return False
        except Exception as problem:  # noqa: BLE001 - told as an event, and answered
            answer = crashed(self._telemetry, arrived, problem)
            arrived.keep_alive = False
            if not arrived.begun:
                self._answer(arrived, answer)
        return arrived.keep_alive

    def _answer(self, arrived: Arrived, response: web.Response) -> None:
        signed(response, arrived)
        arrived.write(written(response, keep_alive=arrived.keep_alive, with_body=arrived.method != "HEAD"))

    async def _call(self, arrived: Arrived, workspace_id: str, tail: str) -> Reply:
        began = stopwatch()
        ended, status = Ended.BROKEN, 0
        try:
            reply = await self._calls.handle(arrived, workspace_id, tail)
            ended, status = how_ended(reply), reply.status
        finally:
            took = stopwatch() - began
            self._traffic.count(workspace_id, ended, status, took)
        if isinstance(reply, Whole):
            self._traffic.added.observe(took - arrived.waited)
        if ended is Ended.ANSWERED and self._telemetry.wanted(EventName.REQUEST_FORWARDED):
            self._tell_forwarded(reply, workspace_id, took)
        return reply

    def _tell_forwarded(self, reply: Reply, workspace_id: str, seconds: float) -> None:
        named = reply.request_id if isinstance(reply, PassedOn) else None
        fields = {"status": reply.status, "seconds": round(seconds, 6)}
        self._telemetry.emit(EventName.REQUEST_FORWARDED, workspace=workspace_id, request_id=named, fields=fields)

    def take_over(self) -> asyncio.Protocol:
        """A handler of aiohttp's for a connection."""
        return self._handlers()

    def opened(self, front: Front) -> None:
        """A connection is here."""
        self._fronts.add(front)

    def left(self, front: Front) -> None:
        """A connection has ended, or is aiohttp's now."""
        self._fronts.discard(front)
        if not self._fronts:
            self._gone.set()

    # What aiohttp reads

    async def _dispatch(self, request: web.BaseRequest) -> web.StreamResponse:
        data_path = self.places.find(request.raw_path, request.headers.get(hdrs.HOST))
        data_path = data_path or heartbeat_of(request.method, request.raw_path)
        if data_path is None:
            handler: Callable[[Any], Awaitable[web.StreamResponse]] = self._application._handle  # noqa: SLF001 - a test pins it
            return signed(await handler(request), request)  # every request is one of `_request`'s
        client = request.protocol
        if not isinstance(client, Connection):
            raise TypeError("a connection that is none of ours")
        arrived = Arrived.through_aiohttp(request, client)
        if data_path[1] == HEARTBEAT:
            return signed(await self._heartbeats.take(arrived, *data_path), request)
        try:
            reply = await self._call(arrived, *data_path)
            if isinstance(reply, Whole):
                reply.send(arrived)
                await arrived.drain()
        except Exception as problem:
            if isinstance(problem, ConnectionError) or not arrived.begun:
                request[NAMED], request[WORKSPACE] = arrived.get(NAMED), arrived.get(WORKSPACE)
                raise
            crashed(self._telemetry, arrived, problem)
            arrived.cut()
            raise ConnectionError("an answer has begun already") from problem
        return _Sent(arrived) if isinstance(reply, PassedOn) else signed(reply, arrived)

    async def stop(self, drain: float) -> int:
        """Stop listening, let open calls finish for `drain` seconds, defer or cut the rest. Idempotent.

        Returns how many calls were cut.
        """
        self._calls.stop_waiting()
        listener, self._listener = self._listener, None
        if listener is None:
            return 0
        listener.close()
        cut = await self._calls.open.drain(drain)
        self._on_drained()
        await asyncio.sleep(0)  # what was accepted in the last moment has a connection now
        for front in tuple(self._fronts):
            front.finish()
        self._handlers.pre_shutdown()
        await asyncio.gather(self._last_words(), self._handlers.shutdown(LAST_WORDS))
        return cut

    async def _last_words(self) -> None:
        """Let the connections of the data path end with the answers that are under way."""
        try:
            async with asyncio.timeout(LAST_WORDS):
                while self._fronts:
                    self._gone.clear()
                    await self._gone.wait()
        except TimeoutError:
            for front in tuple(self._fronts):
                if front.task is not None:
                    front.task.cancel()
                front.hang_up()


def how_ended(reply: Reply) -> Ended:
    """How a request on the data path ended, read from what it is answered."""
    if isinstance(reply, (Whole, InParts)):  # asking for the union takes five times as long
        return Ended.ANSWERED if type(reply) is not OwnInParts else Ended.DEFERRED
    if reply.status < CALLERS_FAULT:
        return Ended.DEFERRED if hdrs.LOCATION in reply.headers else Ended.KEPT
    return Ended.REFUSED if reply.status < SERVER_ERROR else Ended.FAILED


@web.middleware
async def _answer_errors(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Answer every error of the administrative doors as JSON."""
    try:
        return await handler(request)
    except HoldfastError as problem:
        return error_answer(problem)
    except StoreFailure as problem:
        return error_answer(store_failed(problem))
    except web.HTTPNotFound:
        return error_answer(CallerError("NOT_FOUND", "there is no such path", status=404))
    except web.HTTPMethodNotAllowed as problem:
        allowed = ", ".join(sorted(problem.allowed_methods))
        refused = CallerError("METHOD_NOT_ALLOWED", f"this path takes {allowed}", status=405)
        return error_answer(refused, headers={"Allow": allowed})
