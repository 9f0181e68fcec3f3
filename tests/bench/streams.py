"""Readers of many streams at once: every event is counted, and its number must follow the one before.

Owns: opening streams, reading their events, noticing what is missing, doubled, foreign or cut off.
Knows nothing of: what relays them.

A stream is a streaming send whose metadata says how many events it wants; its numbers begin at 1. Nothing is lost when
each stream ends properly, after exactly that many.
"""

import asyncio
import re
from dataclasses import dataclass, field
from functools import partial
from typing import cast

import httptools
from bench.load import Target
from bench.measuring import UnfitError

OPENED_AT_ONCE = 250
PATIENCE = 60.0

_NUMBER = re.compile(rb'"event":(\d+)\}')


def stream_body(number: int, events: int) -> bytes:
    """A SendStreamingMessage that asks for so many events."""
    return (
        b'{"jsonrpc":"2.0","id":"s%08d","method":"SendStreamingMessage","params":{"message":{"messageId":"s-%08d",'
        b'"role":"ROLE_USER","parts":[{"text":"count"}]},"metadata":{"events":%d}}}' % (number, number, events)
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

    def __init__(self, streams: "Streams", number: int, events: int) -> None:
        self._streams = streams
        self._number = number
        self._wanted = events
        self._seen = 0
        self._tail = b""
        self._whole = False
        self._parser = httptools.HttpResponseParser(self)
        self.begun = asyncio.get_running_loop().create_future()
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask."""
        self.transport = cast("asyncio.Transport", transport)
        body = stream_body(self._number, self._wanted)
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
        if self._seen != self._wanted or self._tail:
            self._fault(f"it ended after {self._seen} of {self._wanted} events")
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

    async def open(self, number: int, until: float) -> None:
        """Open streams, some hundred at a time; all of them end soon after the loop's time `until`.

        Raises:
            UnfitError: they were not open in time.
        """
        for start in range(0, number, OPENED_AT_ONCE):
            begun = []
            for index in range(start, min(start + OPENED_AT_ONCE, number)):
                events = max(1, round(until - self._loop.time()))
                reader = Reader(self, index, events)
                await self._loop.create_connection(partial(_given, reader), "127.0.0.1", self.target.port)
                self._readers.append(reader)
                begun.append(reader.begun)
            try:
                async with asyncio.timeout(PATIENCE):
                    await asyncio.gather(*begun)
            except TimeoutError as late:
                raise UnfitError(f"{self.told.opened} of {number} streams were open after {PATIENCE:g} s") from late
        if self._loop.time() >= until:
            raise UnfitError(f"opening {number} streams took longer than they should last")

    async def end(self) -> Told:
        """Wait until every stream has ended, and close the connections."""
        try:
            async with asyncio.timeout(PATIENCE):
                while self.told.ended < len(self._readers):
                    self._done.clear()
                    await self._done.wait()
        except TimeoutError:
            self.told.faults.append(f"{len(self._readers) - self.told.ended} streams did not end")
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
