"""One Holdfast as a process of its own, and keep-alive connections to it.

Owns: starting, asking, stopping and killing it; what the kernel says it has used.
Knows nothing of: what is measured.
"""

import asyncio
import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, cast

from bench.measuring import ROOT, TICK, UnfitError, cpu_seconds, free_port, resident_bytes

ADMIN_TOKEN = "hf_" + "b" * 43
PATIENCE = 120.0
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Used:
    """What a process has used since it began: CPU seconds of its first thread and of the others, bytes to the disk."""

    loop: float
    others: float
    written: int

    def since(self, before: "Used") -> "Used":
        """The difference."""
        return Used(
            loop=self.loop - before.loop, others=self.others - before.others, written=self.written - before.written
        )


class Served:
    """A proxy on a database; a context that ends it. `settings` are as in the environment, without the prefix."""

    def __init__(self, data: Path, settings: Mapping[str, object] | None = None) -> None:
        self.data = data
        self.port = free_port()
        self._settings = {
            "ADMIN_TOKEN": ADMIN_TOKEN,
            "UPSTREAM_ALLOW": "127.0.0.0/8",
            "LOG_LEVEL": "warning",
            "DEFAULTS_HOLD_SECONDS": "0",
            **(settings or {}),
        }
        self._log = data.with_suffix(".log")
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> float:
        """Start it; the seconds until it listened."""
        words = [sys.executable, "-m", "proxy", "serve", "--port", str(self.port), "--data", str(self.data)]
        clean = {name: value for name, value in os.environ.items() if not name.startswith("HOLDFAST_")}
        said = {f"HOLDFAST_{name}": str(value) for name, value in self._settings.items()}
        began = time.perf_counter()
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own words
                words,
                cwd=ROOT,
                env={**clean, "PYTHONPATH": str(ROOT), **said},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
            )
        while time.perf_counter() - began < PATIENCE and self._process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1.0):
                return time.perf_counter() - began
            time.sleep(0.01)
        raise UnfitError(f"it did not come up: {' '.join(words)}\n{self._log.read_text(errors='replace')}")

    @property
    def pid(self) -> int:
        """The process."""
        if self._process is None:
            raise RuntimeError("it was not started")
        return self._process.pid

    def stop(self) -> None:
        """Let it end in order; kill it when it does not."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def kill(self) -> None:
        """End it as a crash would."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGKILL)
            process.wait()

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """One request of the admin's; the answer's JSON.

        Raises:
            UnfitError: it was refused.
        """
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        with contextlib.closing(connection):
            headers = {"Authorization": f"Bearer {ADMIN_TOKEN}", "Content-Type": "application/json"}
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            got = connection.getresponse()
            said = got.read()
        if got.status not in {200, 201}:
            raise UnfitError(f"Holdfast answered {got.status} to {method} {path}: {said[:200]!r}")
        return json.loads(said)

    def cpu(self) -> float:
        """CPU seconds used so far."""
        return cpu_seconds(self.pid)

    def resident(self) -> int:
        """Bytes of memory."""
        return resident_bytes(self.pid)

    def used(self) -> Used:
        """What the kernel counted so far; its clock ticks are 10 ms."""
        first, others = 0, 0
        for task in Path(f"/proc/{self.pid}/task").iterdir():
            fields = (task / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
            ticks = int(fields[11]) + int(fields[12])
            if int(task.name) == self.pid:
                first += ticks
            else:
                others += ticks
        io = dict(line.split(": ") for line in Path(f"/proc/{self.pid}/io").read_text(encoding="ascii").splitlines())
        return Used(loop=first / TICK, others=others / TICK, written=int(io["write_bytes"]))


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer: status, head as it came, body."""

    status: int
    head: bytes
    body: bytes


class Line(asyncio.Protocol):
    """One keep-alive connection: one request at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._waiting: asyncio.Future[Answered] | None = None

    @classmethod
    async def to(cls, port: int) -> Self:
        """Connect."""
        _, line = await asyncio.get_running_loop().create_connection(cls, "127.0.0.1", port)
        return line

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection."""
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Whoever waits hears of it."""
        self._transport = None
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(ConnectionError(str(exc or "closed")))

    async def ask(self, request: bytes) -> Answered:
        """Send a request, return its answer.

        Raises:
            ConnectionError: the other side went away.
        """
        if self._transport is None:
            raise ConnectionError("closed")
        self._waiting = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._waiting

    def data_received(self, data: bytes) -> None:
        """Take an answer, or a part of one."""
        self._buffer = buffer = self._buffer + data if self._buffer else data
        end = buffer.find(b"\r\n\r\n")
        if end == -1 or self._waiting is None:
            return
        length = _LENGTH.search(buffer, 0, end + 2)
        total = end + 4 + (int(length[1]) if length else 0)
        if len(buffer) < total:
            return
        self._buffer = buffer[total:]
        if not self._waiting.done():
            self._waiting.set_result(Answered(int(buffer[9:12]), buffer[:end], buffer[end + 4 : total]))

    def close(self) -> None:
        """Close."""
        if self._transport is not None:
            self._transport.close()


def request(port: int, path: str, token: str, body: bytes) -> bytes:
    """A POST as the A2A SDK's client would send it."""
    return (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAccept: application/json\r\n"
        "Accept-Encoding: gzip, deflate\r\nConnection: keep-alive\r\nUser-Agent: holdfast-bench\r\n"
        f"Content-Type: application/json\r\nA2A-Version: 1.0\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode("ascii") + body
