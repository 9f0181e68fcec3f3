"""`holdfast serve` as its operator meets it: a real process, started, killed and started again over one database.

Owns: the process, its two output streams, a client of its HTTP API.
Knows nothing of: what a test is about.

The log is written as JSON here, so every event of the other process is something that a test can wait for by name;
nobody has to look again and again.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp
from ports import free_port

ROOT: Final = Path(__file__).resolve().parents[2]
ADMIN_TOKEN: Final = "hf_" + "e" * 43
PATIENCE: Final = 30.0
"""Seconds for anything that is waited for; only a broken proxy needs them."""

QUICK: Final[Mapping[str, Any]] = {
    "queue.backoff": 0.05,
    "queue.backoff_cap": 0.2,
    "queue.sweep": 0.2,
    "queue.gateway_backoff": 0.05,
    "probe.away_first": 0.05,
    "probe.away_cap": 0.2,
    "upstream.connect_timeout": 2,
    "upstream_allow": "127.0.0.0/8",
    "restart.stop_grace": 2,
    "defaults.hold_seconds": 0,
}
"""Settings under which a story takes a second; every test says what it changes."""


def environment(settings: Mapping[str, Any], *, admin_token: str | None = ADMIN_TOKEN) -> dict[str, str]:
    """The environment of a proxy: ours without any setting of Holdfast's, and these settings by their dotted keys.

    It may keep compiled bytecode even where we may not: it is started dozens of times.
    """
    dropped = ("HOLDFAST_", "PYTHONDONTWRITEBYTECODE")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    said = {**settings, "log.format": "json", **({"admin_token": admin_token} if admin_token else {})}
    return clean | {f"HOLDFAST_{key.upper().replace('.', '_')}": str(value) for key, value in said.items()}


@dataclass
class Answered:
    """One answer, read whole."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def metadata(self) -> dict[str, str]:
        """The facts that a JSON-RPC error carries."""
        return dict(self.json["error"]["data"][0]["metadata"])


@dataclass
class Serving:
    """A proxy process. `said` is what it wrote to standard output, `events` what it logged, over all its lives."""

    folder: Path
    settings: Mapping[str, Any] = field(default_factory=dict)
    admin_token: str | None = ADMIN_TOKEN
    port: int = field(default_factory=free_port)
    arguments: tuple[str, ...] = ()
    said: list[str] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    stray: list[str] = field(default_factory=list)
    process: asyncio.subprocess.Process | None = None
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    _readers: list[asyncio.Task[None]] = field(default_factory=list)
    _session: aiohttp.ClientSession | None = None

    @property
    def url(self) -> str:
        """Where it serves."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def database(self) -> Path:
        """Its database."""
        return self.folder / "holdfast.db"

    # Its life

    async def start(self) -> None:
        """Start it and wait until it says that it serves."""
        await self.launch()
        await self.serving()

    async def launch(self) -> None:
        """Start it and wait for nothing."""
        self.process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "proxy", "serve", "--port", str(self.port), "--data", str(self.database)),
            *self.arguments,
            cwd=ROOT,
            env=environment({**QUICK, **self.settings}, admin_token=self.admin_token),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        assert self.process.stderr is not None
        self._readers.append(asyncio.create_task(self._read_log(self.process.stderr)))

    async def serving(self) -> None:
        """Wait for the line that says that it serves; the port is known then."""
        assert self.process is not None
        assert self.process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            line = (await self.process.stdout.readline()).decode()
        self.said.append(line)
        assert line.startswith("holdfast: serving on http://127.0.0.1:"), (line, self.stray)
        self.port = int(line.rpartition(":")[2])
        self._readers.append(asyncio.create_task(self._read_said(self.process.stdout)))

    async def _read_log(self, stream: asyncio.StreamReader) -> None:
        async for line in stream:
            try:
                self.events.append(json.loads(line))
            except ValueError:
                self.stray.append(line.decode())
            self._news.set()

    async def _read_said(self, stream: asyncio.StreamReader) -> None:
        async for line in stream:
            self.said.append(line.decode())
            self._news.set()

    async def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        await self.end(signal.SIGKILL)

    async def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and wait for its exit code; everything that it wrote is read then."""
        assert self.process is not None
        if self.process.returncode is None:
            self.process.send_signal(number)
        async with asyncio.timeout(PATIENCE):
            code = await self.process.wait()
            await asyncio.gather(*self._readers)
        self._readers.clear()
        await self.hang_up()
        return code

    async def hang_up(self) -> None:
        """Close our connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    # What it tells

    def named(self, name: str, **fields: Any) -> list[dict[str, Any]]:
        """The events of that name so far whose fields are these."""
        return [
            event
            for event in self.events
            if event.get("event") == name and all(event.get(key) == value for key, value in fields.items())
        ]

    async def event(self, name: str, *, count: int = 1, **fields: Any) -> dict[str, Any]:
        """Wait until that event was logged `count` times, over all lives; return the latest of them."""
        await self.until(lambda: len(self.named(name, **fields)) >= count, f"{count} x {name} {fields}")
        return self.named(name, **fields)[count - 1]

    async def until(self, condition: Callable[[], bool | Awaitable[bool]], what: str = "a condition") -> None:
        """Wait for a condition; it is looked at again whenever the process tells of something."""
        try:
            async with asyncio.timeout(PATIENCE):
                while True:
                    self._news.clear()
                    met = condition()
                    if not isinstance(met, bool):
                        met = await met
                    if met:
                        return
                    await self._news.wait()
        except TimeoutError:
            log = "\n".join(json.dumps(event) for event in self.events[-60:])
            raise AssertionError(f"{what} did not come about; the log ends:\n{log}\n{''.join(self.stray)}") from None

    # Asking it

    async def ask(
        self, method: str, path: str, *, token: str | None = ADMIN_TOKEN, headers: Any = None, **more: Any
    ) -> Answered:
        """One request; the answer is read whole."""
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=PATIENCE))
        fields = {**({"Holdfast-Token": token} if token else {}), **(headers or {})}
        async with self._session.request(method, self.url + path, headers=fields, **more) as got:
            return Answered(status=got.status, headers=got.headers, body=await got.read())

    async def enroll(self, name: str, **members: Any) -> str:
        """Register a workspace as the admin; return its token."""
        got = await self.ask("PUT", f"/workspaces/{name}", json=members)
        assert got.status == 201, got.body
        return str(got.json["token"])

    async def client(self, name: str = "client") -> str:
        """A client's token."""
        got = await self.ask("POST", "/tokens", json={"kind": "client", "name": name})
        assert got.status == 201, got.body
        return str(got.json["token"])

    async def view(self, name: str) -> dict[str, Any]:
        """What the admin sees of a workspace."""
        return dict((await self.ask("GET", f"/workspaces/{name}")).json)

    async def send(self, workspace: str, message_id: str = "m1", *, token: str, **more: Any) -> Answered:
        """A v1.0 SendMessage to a workspace; `text` and `headers` are its own."""
        message = {
            "messageId": message_id,
            "role": "ROLE_USER",
            "parts": [{"text": more.pop("text", f"do {message_id}")}],
            **more.pop("message", {}),
        }
        body = {"jsonrpc": "2.0", "id": message_id, "method": "SendMessage", "params": {"message": message}}
        headers = {"A2A-Version": "1.0", **more.pop("headers", {})}
        return await self.ask("POST", f"/workspaces/{workspace}/a2a", token=token, headers=headers, json=body, **more)

    async def task(self, workspace: str, task_id: str, *, token: str) -> dict[str, Any]:
        """What GetTask says of a task."""
        body = {"jsonrpc": "2.0", "id": 1, "method": "GetTask", "params": {"id": task_id}}
        got = await self.ask(
            "POST", f"/workspaces/{workspace}/a2a", token=token, headers={"A2A-Version": "1.0"}, json=body
        )
        return dict(got.json["result"])

    async def deferral(self, answer: Answered, *, token: str | None = ADMIN_TOKEN) -> dict[str, Any]:
        """What the queue says of the deferral that a 202 speaks of."""
        got = await self.ask("GET", answer.headers["Location"], token=token)
        assert got.status == 200, got.body
        return dict(got.json)


def task_id_of(answer: Answered) -> str:
    """The provisional task's id in a 202."""
    assert answer.status == 202, answer.body
    return str(answer.json["result"]["task"]["id"])
