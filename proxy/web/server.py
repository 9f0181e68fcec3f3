"""The HTTP server: one listener, the data path in front, an ordinary application for everything else.

Owns: dispatch, what bad HTTP and crashes look like to a client, the listener's life.
Knows nothing of: what any route does.

The data path does not go through aiohttp's router and middlewares: `aiohttp.web.Server` hands every request to
`_dispatch`, which looks at the raw path. All other paths are the application's. (`Application._handle` is the one
private name this costs; a test pins it.)
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from aiohttp import hdrs, web
from aiohttp.web_protocol import RequestHandler

from proxy.core.errors import CallerError, HoldfastError, ProxyError
from proxy.store import StoreFailure
from proxy.telemetry import Telemetry
from proxy.web.answers import PassedOn, error_answer, store_failed
from proxy.web.calls import Calls
from proxy.web.open_calls import Connection

SERVER_ERROR = 500
LAST_WORDS = 5.0
"""Seconds in which the answers to calls that were cut may still leave."""


class _Connection(Connection):
    """A client's connection; what goes wrong on it is answered in JSON, without a traceback."""

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
            if exc is not None:
                self.logger.error("unexpected error in %s", type(exc).__name__, exc_info=exc)
            failed = "Holdfast failed to serve this request"
            answer = error_answer(ProxyError("INTERNAL", failed, status=SERVER_ERROR))
        _signed(answer)
        answer.force_close()  # once it has left; the connection's own force_close would cut it off
        return answer


class _Server(web.Server):
    """aiohttp's low-level server with our connections."""

    def __call__(self) -> RequestHandler:
        return _Connection(self, loop=self._loop, **self._kwargs)


class Server:
    """Listens."""

    def __init__(
        self,
        *,
        calls: Calls,
        routes: Iterable[web.RouteDef],
        telemetry: Telemetry,
        head_limit: int,
    ) -> None:
        self._calls = calls
        self._telemetry = telemetry
        self._head_limit = head_limit
        self._application = web.Application(middlewares=[_answer_errors])
        self._application.add_routes(routes)
        self._runner: web.ServerRunner | None = None

    async def start(self, host: str, port: int) -> tuple[str, int]:
        """Listen; return the address that was taken."""
        self._application.freeze()
        server = _Server(
            self._dispatch,
            request_factory=self._request,
            auto_decompress=False,
            access_log=None,
            max_line_size=self._head_limit,
            max_field_size=self._head_limit,
            keepalive_timeout=75.0,
            lingering_time=1.0,
        )
        self._runner = web.ServerRunner(server, shutdown_timeout=LAST_WORDS)
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port, reuse_address=True, backlog=1024)
        await site.start()
        name = self._runner.addresses[0]  # tells which port was taken, on every event loop
        return str(name[0]), int(name[1])

    def _request(self, message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> web.Request:
        return web.Request(message, payload, protocol, writer, task, asyncio.get_running_loop(), client_max_size=0)

    async def _dispatch(self, request: web.BaseRequest) -> web.StreamResponse:
        data_path = Calls.split(request.raw_path)
        if data_path is not None:
            return _signed(await self._calls.handle(request, *data_path))
        handler: Callable[[Any], Awaitable[web.StreamResponse]] = self._application._handle  # noqa: SLF001 - a test pins it
        return _signed(await handler(request))  # every request is one of `_request`'s

    async def stop(self, drain: float) -> int:
        """Stop listening, let open calls finish for `drain` seconds, defer or cut the rest. Idempotent.

        Returns how many calls were cut.
        """
        runner, self._runner = self._runner, None
        if runner is None:
            return 0
        for site in tuple(runner.sites):
            await site.stop()
        cut = await self._calls.open.drain(drain)
        await runner.cleanup()
        return cut


def _signed(response: web.StreamResponse) -> web.StreamResponse:
    """Name ourselves on our own answers; what we are made of is nobody's business."""
    if not response.prepared and not isinstance(response, PassedOn):
        response.headers[hdrs.SERVER] = "Holdfast"
    return response


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
