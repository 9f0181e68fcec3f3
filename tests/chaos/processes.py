"""The processes under test: one proxy, its agents, and their ends by SIGKILL.

Owns: starting and killing the proxy, finding the agents that it started, reading their accounts.
Knows nothing of: when to kill, what callers do.

Agents are children of the proxy's `process` runtime. They are found by what their environment holds: the mark of this
run and the name of their workspace. No pid is ever killed that does not carry the mark, or that we did not start.
"""

import asyncio
import contextlib
import json
import os
import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from chaos import timings
from chaos.ledger import Execution
from chaos.meddling import Ground

ROOT = Path(__file__).resolve().parents[2]
START_PATIENCE = 60.0
MARK = "CHAOS_RUN"
NOTICED = 0.5
"""Seconds after a death in which a request may still go out over a connection to the dead."""


class UnfitError(Exception):
    """The machine or the installation does not let the harness do its work; says nothing about Holdfast's promises."""


@dataclass(slots=True)
class Proxy:
    """`holdfast serve`, started again and again at one port over one database."""

    folder: Path
    ground: Ground
    port: int
    admin_token: str
    up: asyncio.Event = field(default_factory=asyncio.Event)
    lives: int = 0
    kills: int = 0
    _process: asyncio.subprocess.Process | None = None
    _down: list[list[float]] = field(default_factory=list)
    _log: IO[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it serves."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def database(self) -> Path:
        """Its database."""
        return self.ground.database

    @property
    def runs(self) -> bool:
        """Whether its process lives."""
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        """Start it and wait for the line that says that it serves."""
        await self.launch()
        await self.serving()

    async def launch(self) -> None:
        """Start it, and wait for nothing."""
        if self._log is None:
            self._log = (self.folder / "proxy.log").open("ab")
        dropped = ("HOLDFAST_", "PYTHONDONTWRITEBYTECODE")  # it starts hundreds of times
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(dropped)},
            **timings.environment(),
            **self.ground.environment(),
            "HOLDFAST_ADMIN_TOKEN": self.admin_token,
            "HOLDFAST_LOG_FORMAT": "json",
        }
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "proxy", "serve", "--port", str(self.port), "--data", str(self.database)),
            cwd=ROOT,
            env=environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=self._log,
        )
        self.lives += 1

    async def serving(self) -> None:
        """Wait until it says that it serves."""
        process = self._process
        assert process is not None
        assert process.stdout is not None
        try:
            line = await asyncio.wait_for(process.stdout.readline(), START_PATIENCE)
        except TimeoutError:
            raise UnfitError(f"the proxy said nothing for {START_PATIENCE:g} s") from None
        if b"serving on" not in line:
            raise UnfitError(f"the proxy did not start; see {self.folder / 'proxy.log'}")
        if self._down and len(self._down[-1]) == 1:
            self._down[-1].append(asyncio.get_running_loop().time())
        self.up.set()

    async def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        process = self._process
        assert process is not None
        self.up.clear()
        if not self._down or len(self._down[-1]) == 2:
            self._down.append([asyncio.get_running_loop().time()])
        self.kills += 1
        process.kill()
        await process.wait()

    def was_down(self, began: float, ended: float) -> bool:
        """Whether a kill, or the time until it served again, falls between two instants."""
        return any(
            window[0] <= ended and (len(window) == 1 or began <= window[1])  # one that is still open has one end
            for window in self._down
        )

    async def stop(self) -> None:
        """End it for good."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
        if self._log is not None:
            self._log.close()


@dataclass(slots=True)
class Agent:
    """One workspace: the agent process behind it, whichever life, and its account of executions."""

    workspace: str
    port: int
    folder: Path
    mark: str
    redelivery: str
    kills: int = 0
    deaths: list[float] = field(default_factory=list)
    executions: list[Execution] = field(default_factory=list)
    _read: int = 0

    @property
    def account(self) -> Path:
        """The file of executed messages, shared by all lives."""
        return self.folder / f"{self.workspace}.jsonl"

    def command(self) -> list[str]:
        """What the proxy starts."""
        return [
            *(sys.executable, "-m", "proxy.demo.agent", "--port", str(self.port), "--log", str(self.account)),
            *("--delay", str(timings.AGENT_DELAY), "--beat-every", str(timings.BEAT_EVERY)),
        ]

    def described(self) -> dict[str, object]:
        """The body of its PUT."""
        return {
            **timings.WORKSPACE,
            "redelivery": self.redelivery,
            "url": f"http://127.0.0.1:{self.port}",
            "runtime": {
                "type": "process",
                "command": self.command(),
                "cwd": str(ROOT),
                "env": {MARK: self.mark},
            },
            "policy": timings.POLICY,
        }

    @property
    def never(self) -> bool:
        """Nothing that may have reached it is sent to it again."""
        return self.redelivery == "never"

    def died(self, began: float, ended: float) -> bool:
        """Whether it was killed between two instants, or so shortly before that a kept connection to it broke then."""
        return any(began - NOTICED <= death <= ended for death in self.deaths)

    def pids(self) -> list[int]:
        """Every living process that carries this run's mark and this workspace's name."""
        return [
            pid
            for pid, environment in marked(self.mark)
            if f"HOLDFAST_WORKSPACE_ID={self.workspace}".encode() in environment
        ]

    def kill(self) -> bool:
        """SIGKILL whatever runs; whether anything did."""
        pids = self.pids()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                self.kills += 1
                self.deaths.append(asyncio.get_running_loop().time())
        return bool(pids)

    def read(self) -> list[Execution]:
        """Read on in the account; return all executions.

        A line without its end is not read yet. One that a kill cut off for good tells of nothing: the agent goes on
        only after its line is on disk.
        """
        try:
            with self.account.open("rb") as file:
                file.seek(self._read)
                content = file.read()
        except FileNotFoundError:
            return self.executions
        whole = content[: content.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in whole.splitlines():
            try:
                said = json.loads(line)
            except ValueError:
                continue
            self.executions.append(
                Execution(
                    message_id=said["message_id"],
                    workspace=self.workspace,
                    marked=said["redelivery"] == "maybe",
                    pid=said["pid"],
                )
            )
        return self.executions


def marked(mark: str) -> list[tuple[int, list[bytes]]]:
    """Every living process whose environment holds a run's mark, with that environment."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            environment = (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if wanted in environment:
            found.append((int(entry.name), environment))
    return found


def end_marked(mark: str) -> None:
    """SIGKILL everything that carries a run's mark."""
    for pid, _ in marked(mark):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
