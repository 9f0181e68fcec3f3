"""The upstream of benches, as a process: `python -m bench.upstream PORT`. It answers sends, and streams events.

Owns: an agent that costs next to nothing and answers every request in a way that can be checked.
Knows nothing of: who asks, what is measured.

A send is answered by about a kilobyte of JSON with the request's id in it. A streaming send is answered by a stream of
events, one a second, numbered from 1; the streams are spread evenly over the second, as those of many agents are. They
go on until somebody sends `END`: then each of them ends as it should, and the answer says how many events were sent.
"""

import asyncio
import re
import sys
from collections.abc import Sequence
from typing import cast

import httptools
import uvloop
from bench.measuring import UnfitError

END = b'{"jsonrpc":"2.0","id":"end","method":"bench/end"}'
SLOTS = 100
"""Parts of a second over which events are spread."""

_ID = re.compile(rb'"id":"(\w+)"')
_ARTIFACT = b"The gateway failed first, then the cache behind it; restore the cache before anything else. " * 8
_ANSWER = (
    b'{"jsonrpc":"2.0","id":"%b","result":{"task":{"id":"task-1","contextId":"context-1","status":{"state":'
    b'"TASK_STATE_COMPLETED","timestamp":"2026-01-01T00:00:00Z"},"artifacts":[{"artifactId":"a-1","parts":[{"text":"'
    + _ARTIFACT
    + b'"}]}]}}}'
)
_EVENT = (
    b'data: {"jsonrpc":"2.0","id":"%b","result":{"statusUpdate":{"taskId":"task-1","contextId":"context-1","status":'
    b'{"state":"TASK_STATE_WORKING","timestamp":"2026-01-01T00:00:00Z"},"metadata":{"event":%d}}}}\n\n'
)
_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nServer: bench\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)


class Upstream(asyncio.Protocol):
    """One connection."""

    def __init__(self, ticker: "Ticker") -> None:
        self._ticker = ticker
        self._parser = httptools.HttpRequestParser(self)
        self._body = b""
        self._id = b""
        self._streams = False
        self._next = 1
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection."""
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """End its stream."""
        self._streams = False
        self._transport = None
        del self._parser

    def data_received(self, data: bytes) -> None:
        """Parse what came."""
        self._parser.feed_data(data)

    def on_body(self, data: bytes) -> None:
        """Collect the body."""
        self._body += data

    def on_message_complete(self) -> None:
        """Answer."""
        body, self._body = self._body, b""
        found = _ID.search(body)
        self._id = found[1] if found is not None else b"none"
        if self._transport is None:
            return
        if b'"SendStreamingMessage"' in body:
            self._streams, self._next = True, 1
            self._transport.write(_STREAM_HEAD)
            self._ticker.add(self)
            return
        said = b"%d" % self._ticker.end() if body == END else _ANSWER % self._id
        self._transport.write(
            b"HTTP/1.1 200 OK\r\nServer: bench\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\n"
            b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(said), said)
        )

    def tick(self) -> bool:
        """Send the next event; whether the stream is still there."""
        if self._transport is None or not self._streams:
            return False
        event = _EVENT % (self._id, self._next)
        self._next += 1
        self._transport.write(b"%x\r\n%b\r\n" % (len(event), event))
        return True

    def end(self) -> None:
        """End the stream."""
        if self._transport is not None and self._streams:
            self._streams = False
            self._transport.write(b"0\r\n\r\n")


class Ticker:
    """Lets every stream send once a second."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._slots: list[list[Upstream]] = [[] for _ in range(SLOTS)]
        self._added = 0
        self._sent = 0
        self._began = self._loop.time()
        self._ticks = 0
        self._again()

    def add(self, stream: Upstream) -> None:
        """A stream begins; its first event leaves within a second."""
        self._slots[self._added % SLOTS].append(stream)
        self._added += 1

    def end(self) -> int:
        """End every stream; how many events were sent since the last end."""
        for stream in (stream for slot in self._slots for stream in slot):
            stream.end()
        self._slots = [[] for _ in range(SLOTS)]
        sent, self._sent = self._sent, 0
        return sent

    def _again(self) -> None:
        self._loop.call_at(self._began + self._ticks / SLOTS, self._tick)

    def _tick(self) -> None:
        slot = self._ticks % SLOTS
        self._slots[slot] = [stream for stream in self._slots[slot] if stream.tick()]
        self._sent += len(self._slots[slot])
        self._ticks += 1
        self._again()


async def serve(port: int) -> None:
    """Serve until killed."""
    loop = asyncio.get_running_loop()
    ticker = Ticker()
    await loop.create_server(lambda: Upstream(ticker), "127.0.0.1", port, backlog=4096)
    await asyncio.Event().wait()


def main(arguments: Sequence[str]) -> None:
    """Serve on the port that is given."""
    if len(arguments) != 1:
        raise UnfitError("usage: python -m bench.upstream PORT")
    uvloop.run(serve(int(arguments[0])))


if __name__ == "__main__":
    main(sys.argv[1:])
