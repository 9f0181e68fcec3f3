"""A client of some SDK in a process of its own, as a test talks to it.

Owns: the process, matching what it tells with what was asked.
Knows nothing of: SDKs, what a test is about. The words are those of `spoken`.
"""

import asyncio
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from e2e.serving import PATIENCE
from peers.running import HERE, javascript, plain_environment, python_of

SDKS: Final = ("1.x", "0.3.x", "js 1.x", "js 0.3.x")
PROGRAMS: Final = {"1.x": "client_1.py", "0.3.x": "client_03.py"}
Event = dict[str, Any]


class ClientError(Exception):
    """What the SDK raised: its class and its words."""


@dataclass
class Call:
    """One call: `events` so far; `done` when it has ended, `error` with what."""

    events: list[Event] = field(default_factory=list)
    done: bool = False
    error: str | None = None
    news: asyncio.Event = field(default_factory=asyncio.Event)

    async def at_least(self, count: int) -> list[Event]:
        """Wait for so many events.

        Raises:
            ClientError: the call ended with an error before.
            AssertionError: it ended before.
        """
        async with asyncio.timeout(PATIENCE):
            while len(self.events) < count:
                if self.error:
                    raise ClientError(self.error)
                assert not self.done, self.events
                self.news.clear()
                await self.news.wait()
        return self.events[:count]

    async def all(self, within: float = PATIENCE) -> list[Event]:
        """Wait for its end.

        Raises:
            ClientError: the SDK raised.
            TimeoutError: it did not end within so many seconds.
        """
        async with asyncio.timeout(within):
            while not self.done:
                self.news.clear()
                await self.news.wait()
        if self.error:
            raise ClientError(self.error)
        return self.events

    async def one(self, within: float = PATIENCE) -> Event:
        """Wait for its end; the only event."""
        (event,) = await self.all(within)
        return event


class Talker:
    """A client's process."""

    def __init__(self, sdk: str, errors: Path) -> None:
        self.sdk = sdk
        self._errors = errors
        self._calls: dict[int, Call] = {}
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start it."""
        script, generation = self.sdk.startswith("js "), self.sdk.removeprefix("js ")
        command = [python_of(self.sdk), str(HERE / PROGRAMS[self.sdk])] if not script else javascript(generation)
        with self._errors.open("ab") as errors:
            self._process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                env=plain_environment(),
                limit=1 << 24,
            )
        self._reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            told = json.loads(line)
            call = self._calls[told["call"]]
            if "event" in told:
                call.events.append(told["event"])
            else:
                call.done, call.error = True, told.get("error")
            call.news.set()
        for call in self._calls.values():
            if not call.done:
                call.done, call.error = True, f"the client's process has ended, see {self._errors}"
                call.news.set()

    def do(self, at: str, what: str, **with_: Any) -> Call:
        """Ask the client of that name for something; what comes of it is in the call."""
        assert self._process is not None
        assert self._process.stdin is not None
        number = len(self._calls) + 1
        call = self._calls[number] = Call()
        self._process.stdin.write(json.dumps({"call": number, "at": at, "do": what, **with_}).encode() + b"\n")
        return call

    async def stop(self) -> None:
        """End it."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            if self._process.returncode is None:
                self._process.kill()
            await self._process.wait()
        if self._reader is not None:
            await self._reader
