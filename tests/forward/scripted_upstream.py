"""Upstreams on real sockets that say, byte for byte, what a test tells them to say."""

import asyncio
import re
import socket
import struct

from proxy.forward import UpstreamRequest

_CONTENT_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n", re.IGNORECASE)


def ask(url, **changes):
    """Make a GET, or a POST where there is a body, with time limits that no test should ever reach."""
    method = "POST" if "body" in changes else "GET"
    return UpstreamRequest(**({"method": method, "url": url, "connect_timeout": 20.0, "idle_timeout": 20.0} | changes))


async def settled(condition):
    """Let everybody else run until the condition holds."""
    for _ in range(10_000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never came to that")


class Line:
    """One accepted connection, as a script sees it."""

    def __init__(self, reader, writer):
        self.reader = reader
        self.writer = writer

    async def request(self):
        """Read one request: its head and its body as they came."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = _CONTENT_LENGTH.search(head)
        return head, await self.reader.readexactly(int(length[1])) if length else b""

    async def say(self, data):
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self, body=b"", *, fields=b""):
        await self.say(b"HTTP/1.1 200 OK\r\n%bContent-Length: %d\r\n\r\n%b" % (fields, len(body), body))

    async def closed_by_proxy(self):
        """Wait until the other side is gone."""
        try:
            while await self.reader.read(65536):
                pass
        except ConnectionError:
            pass

    def reset(self):
        """Break the connection off with an RST."""
        linger_not = struct.pack("ii", 1, 0)
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_not)
        self.writer.transport.abort()


class Peer:
    """A server that runs `script(line)` for every connection and closes the connection when the script ends."""

    def __init__(self, script):
        self._script = script
        self._server = None
        self._running = set()
        self._problems = []
        self.accepted = 0
        self.port = 0
        self.scheme = "http"

    async def start(self, tls=None):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=tls)
        self.port = self._server.sockets[0].getsockname()[1]
        self.scheme = "https" if tls else "http"

    def url(self, target="/", host="127.0.0.1"):
        return f"{self.scheme}://{host}:{self.port}{target}"

    async def stop(self):
        self._server.close()
        running = list(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        assert not self._problems

    async def _serve(self, reader, writer):
        self.accepted += 1
        task = asyncio.current_task()
        self._running.add(task)
        try:
            await self._script(Line(reader, writer))
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            writer.transport.abort()  # the proxy left, or the test is over
        except Exception as problem:  # noqa: BLE001 - shown when the test ends
            self._problems.append(problem)
        finally:
            self._running.discard(task)
            writer.close()


async def answer_all(line):
    while True:
        _, body = await line.request()
        await line.answer(body)


async def fetch(pool, url, **changes):
    answer = await pool.send(ask(url, **changes))
    return await answer.read(0)


class Gate:
    """An upstream that answers one request each time it is told to."""

    def __init__(self):
        self.seen = asyncio.Queue()
        self.go = asyncio.Semaphore(0)

    async def __call__(self, line):
        while True:
            _, body = await line.request()
            self.seen.put_nowait(body)
            await self.go.acquire()
            await line.answer(body)
