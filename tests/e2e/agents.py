"""Small agents as a test sees them: what the proxy is told to start, what their lives tell, when they may go on.

Owns: the named pipes between a test and `small_agent.py`, finding and ending what a test's proxies started.
Knows nothing of: the proxy's API.
"""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from e2e.serving import PATIENCE, free_port

PROGRAM = Path(__file__).with_name("small_agent.py")
POLICY: dict[str, Any] = {
    "settle_hold": 30,
    "settle_window": 60,
    "reprobe_delay": 0.05,
    "reprobe_min_interval": 0,
    "restart_backoff": 0.05,
    "restart_backoff_cap": 0.1,
}
"""The default rules, at a pace at which nothing is waited for that a test does not speak of."""


class Pipe:
    """A named pipe that a test holds open at both ends, so that neither side ever waits for the other to come."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = path
        self._descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK)

    def give(self, steps: int = 1) -> None:
        """Let whoever waits at the other side go on, so many times."""
        os.write(self._descriptor, b"." * steps)

    async def lines(self) -> tuple[asyncio.StreamReader, asyncio.ReadTransport]:
        """What is written into it from now on, and what is closed to listen no more."""
        reader = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(os.dup(self._descriptor), "rb", buffering=0)
        )
        return reader, transport

    def close(self) -> None:
        """Let go of it."""
        os.close(self._descriptor)


@dataclass
class SmallAgent:
    """One workspace's agent, whichever life of it runs. `told` is what all lives said, in order."""

    folder: Path
    name: str = "a"
    port: int = field(default_factory=free_port)
    told: list[dict[str, Any]] = field(default_factory=list)
    pipes: dict[str, Pipe] = field(default_factory=dict)
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    _listening: asyncio.Task[None] | None = None

    async def hear(self) -> None:
        """Begin to listen to what the agent tells."""
        for name in ("tell", "boot", "go", "stop"):
            self.pipes[name] = Pipe(self.folder / f"agent-{name}")
        reader, transport = await self.pipes["tell"].lines()
        self._listening = asyncio.create_task(self._listen(reader, transport))

    async def _listen(self, reader: asyncio.StreamReader, transport: asyncio.ReadTransport) -> None:
        with contextlib.closing(transport):
            async for line in reader:
                self.told.append(json.loads(line))
                self._news.set()

    async def close(self) -> None:
        """Stop listening."""
        if self._listening is not None:
            self._listening.cancel()
            await asyncio.gather(self._listening, return_exceptions=True)
        for pipe in self.pipes.values():
            pipe.close()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def broken(self) -> Path:
        """While this file exists, every start ends at once."""
        return self.folder / "agent-broken"

    @property
    def busy(self) -> Path:
        """While this file exists, every message is answered by 503."""
        return self.folder / "agent-busy"

    def command(self, *steps: str) -> list[str]:
        """What the proxy starts; `steps` of `boot` and `stop` are taken only when a test lets them."""
        options = {
            "port": self.port,
            "tell": self.pipes["tell"].path,
            "go": self.pipes["go"].path,
            "broken": self.broken,
            "busy": self.busy,
            **{step: self.pipes[step].path for step in steps},
        }
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        return [sys.executable, "-I", "-S", str(PROGRAM), *words]

    def described(self, *steps: str, policy: dict[str, Any] | None = None, **members: Any) -> dict[str, Any]:
        """The body of its PUT."""
        return {
            "url": self.url,
            "runtime": {"type": "process", "command": self.command(*steps)},
            "policy": {**POLICY, **(policy or {})},
            **members,
        }

    def heard(self, what: str) -> list[dict[str, Any]]:
        """Everything of one kind that was told so far."""
        return [said for said in self.told if what in said]

    async def tells(self, what: str, count: int = 1) -> dict[str, Any]:
        """Wait until something of that kind was told `count` times; return the latest of them."""
        try:
            async with asyncio.timeout(PATIENCE):
                while len(self.heard(what)) < count:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(f"{count} x {what} was not told, only {self.told}") from None
        return self.heard(what)[count - 1]


def processes_of(folder: Path, workspace: str = "") -> Iterator[int]:
    """Every living process that a proxy with its data in `folder` started (for a workspace), and their launchers."""
    wanted = os.fsencode(folder / "holdfast.db.d" / "process" / workspace) + b"/"
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            started = any(
                variable.startswith(b"HOLDFAST_CONFIG_PATH=" + wanted)
                for variable in (entry / "environ").read_bytes().split(b"\0")
            )
            line = (entry / "cmdline").read_bytes().replace(b"\0", b"/")
            launching = b"/launcher.py/" in line and wanted in line
            if (started or launching) and (entry / "stat").read_text().rpartition(")")[2].split()[0] != "Z":
                yield int(entry.name)


def end_all(folder: Path) -> None:
    """SIGKILL what proxies of a test left running; proxies are dead by then, so nothing is started any more."""
    while found := list(processes_of(folder)):
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
