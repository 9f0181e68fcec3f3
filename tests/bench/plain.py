"""The plain pass-through that Holdfast is compared with, as a process: `python -m bench.plain PORT UPSTREAM`.

Owns: what a Python programmer writes first when asked for a reverse proxy: an aiohttp application with one route, and a
client session. No authentication, no routing, no metrics, no judgement, no queue.
Knows nothing of: Holdfast.

It is given what makes it fast without changing what it is: uvloop, no access log, no limit on connections, no
decompression, and bodies in one piece where they are short.
"""

import asyncio
import sys
from collections.abc import Sequence

import aiohttp
import uvloop
from aiohttp import web
from bench.measuring import UnfitError

HOP_BY_HOP = frozenset({"connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"})
MADE_ANEW = HOP_BY_HOP | {"host", "content-length"}
MOST = 64 * 1024 * 1024


class Plain:
    """The one handler."""

    def __init__(self, session: aiohttp.ClientSession, upstream: str) -> None:
        self._session = session
        self._upstream = upstream

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Send a request on, and its answer back."""
        body = await request.read()
        headers = [(name, value) for name, value in request.headers.items() if name.lower() not in MADE_ANEW]
        url = f"{self._upstream}{request.path_qs}"
        async with self._session.request(
            request.method, url, headers=headers, data=body, allow_redirects=False
        ) as answer:
            back = [(name, value) for name, value in answer.headers.items() if name.lower() not in HOP_BY_HOP]
            if answer.content_length is not None:
                return web.Response(status=answer.status, headers=back, body=await answer.read())
            response = web.StreamResponse(status=answer.status, headers=back)
            await response.prepare(request)
            async for chunk in answer.content.iter_any():
                await response.write(chunk)
            await response.write_eof()
            return response


async def serve(port: int, upstream: str) -> None:
    """Serve until killed."""
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=False) as session:
        application = web.Application(client_max_size=MOST)
        application.router.add_route("*", "/{tail:.*}", Plain(session, upstream).handle)
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port, backlog=4096).start()
        await asyncio.Event().wait()


def main(arguments: Sequence[str]) -> None:
    """Serve on the port that is given, for the upstream that is given."""
    if len(arguments) != 2:
        raise UnfitError("usage: python -m bench.plain PORT http://HOST:PORT")
    uvloop.run(serve(int(arguments[0]), arguments[1]))


if __name__ == "__main__":
    main(sys.argv[1:])
