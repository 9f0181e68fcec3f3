"""Readers of many streams at once: every event is counted, and its number must follow the one before.

Owns: opening streams, reading their events, noticing what is missing, doubled, foreign or cut off.
Knows nothing of: what relays them.

A stream is a streaming send; its events are numbered from 1. Nothing is lost when each stream ends properly, each event
came in its place, and there were as many of them as the upstream says that it has sent.
"""

import asyncio
import re
from dataclasses import dataclass, field
from functools import partial
from typing import cast

import httptools
from bench.load import Target
from bench.measuring import UnfitError
from bench.upstream import END

OPENED_AT_ONCE = 250
PATIENCE = 60.0

_NUMBER = re.compile(rb'"event":(\d+)\}')


def stream_body(number: int) -> bytes:
    """A SendStreamingMessage."""
    return (
        b'{"jsonrpc":"2.0","id":"s%08d","method":"SendStreamingMessage","params":{"message":{"messageId":"s-%08d",'
        b'"role":"ROLE_USER","parts":[{"text":"count"}]}}}' % (number, number)
    )


@dataclass(slots=True)
class Told:
    """What all streams of a target have brought so far. `faults` says what was wrong, one line each."""

    opened: int = 0
    events: int = 0
    ended: int = 0
    faults: list[str] = field(default_factory=list)


class Reader(asyncio.Protocol):
    """One stream."""

    def __init__(self, streams: "Streams", number: int) -> None:
        self._streams = streams
        self._number = number
        self._seen = 0
        self._tail = b""
        self._whole = False
        self._parser = httptools.HttpResponseParser(self)
        self.begun = asyncio.get_running_loop().create_future()
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask."""
        self.transport = cast("asyncio.Transport", transport)
        body = stream_body(self._number)
        self.transport.write(self._streams.target.head(len(body), accept="text/event-stream") + body)

    def data_received(self, data: bytes) -> None:
        """Parse what came."""
        self._parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """A stream that had not ended is a fault."""
        if not self._whole:
            self._fault("it was cut off")
        if not self.begun.done():
            self.begun.set_result(None)
        del self._parser

    def on_headers_complete(self) -> None:
        """The answer begins."""
        if self._parser.get_status_code() != 200:
            self._fault(f"status {self._parser.get_status_code()}")
        self._streams.told.opened += 1
        if not self.begun.done():
            self.begun.set_result(None)

    def on_body(self, data: bytes) -> None:
        """Count its events."""
        text = self._tail + data
        end = text.rfind(b"\n\n") + 2
        if end == 1:
            self._tail = text
            return
        self._tail = text[end:]
        for found in _NUMBER.findall(text, 0, end):
            self._seen += 1
            self._streams.told.events += 1
            if int(found) != self._seen:
                self._fault(f"event {int(found)} came where {self._seen} was due")
                self._seen = int(found)

    def on_message_complete(self) -> None:
        """The answer has ended."""
        self._whole = True
        if self._tail:
            self._fault("it ended inside an event")
        self._streams.has_ended()

    def _fault(self, text: str) -> None:
        self._streams.told.faults.append(f"stream {self._number}: {text}")


def _given(reader: Reader) -> Reader:
    return reader


class Streams:
    """Many streams of one target. Make it inside a running loop."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.told = Told()
        self._loop = asyncio.get_running_loop()
        self._readers: list[Reader] = []
        self._done = asyncio.Event()

    async def open(self, number: int) -> None:
        """Open streams, some hundred at a time.

        Raises:
            UnfitError: they were not open in time.
        """
        for start in range(0, number, OPENED_AT_ONCE):
            begun = []
            for index in range(start, min(start + OPENED_AT_ONCE, number)):
                reader = Reader(self, index)
                await self._loop.create_connection(partial(_given, reader), "127.0.0.1", self.target.port)
                self._readers.append(reader)
                begun.append(reader.begun)
            try:
                async with asyncio.timeout(PATIENCE):
                    await asyncio.gather(*begun)
            except TimeoutError as late:
                raise UnfitError(f"{self.told.opened} of {number} streams were open after {PATIENCE:g} s") from late

    async def end(self, upstream: Target) -> Told:
        """Let the upstream end every stream, wait until they have, and compare what was sent with what came."""
        sent = await _ended_by(upstream)
        try:
            async with asyncio.timeout(PATIENCE):
                while self.told.ended < len(self._readers):
                    self._done.clear()
                    await self._done.wait()
        except TimeoutError:
            self.told.faults.append(f"{len(self._readers) - self.told.ended} streams did not end")
        if sent != self.told.events:
            self.told.faults.append(f"{sent} events were sent and {self.told.events} came")
        for reader in self._readers:
            if reader.transport is not None:
                reader.transport.close()
        await asyncio.sleep(0.1)
        return self.told

    def has_ended(self) -> None:
        """Told by a stream."""
        self.told.ended += 1
        if self.told.ended >= len(self._readers):
            self._done.set()


async def _ended_by(upstream: Target) -> int:
    """Tell the upstream to end all streams; how many events it has sent."""
    reader, writer = await asyncio.open_connection("127.0.0.1", upstream.port)
    writer.write(upstream.head(len(END)) + END)
    head = await reader.readuntil(b"\r\n\r\n")
    sent = int(await reader.readexactly(int(head.lower().partition(b"content-length:")[2].split()[0])))
    writer.close()
    return sent
