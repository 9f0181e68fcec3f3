"""The stage: a real `holdfast serve`, real agent processes below it, and a harness that looks at both.

Owns: starting and ending the processes, the admin's calls, reading the agents' own accounts, killing agents.
Knows nothing of: the story.

Agents outlive their proxy by design, so the stage removes the workspaces first, and ends by itself whatever agent is
still there: it knows every process that ever started from the agents' own file of starts.
"""

import asyncio
import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import httpx

import proxy
from proxy.clock import SystemClock
from proxy.core.tokens import new_token
from proxy.demo.ledger import Execution, Kill, Start
from proxy.demo.timeline import RED, Timeline

SERVING = "holdfast: serving on "
SERVE_LIMIT = 30.0
READY_LIMIT = 60.0
STOP_LIMIT = 15.0
LOOK_SECONDS = 0.1
MOST_DECISIONS = 1000
TAIL_LINES = 15
REDIRECTS = 300
HOME = Path(proxy.__file__).parent.parent
"""Where `python -m proxy` finds this very package, installed or not."""


class NeverCameUpError(Exception):
    """The stage could not be set; nothing was said about the product."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One look at a workspace, through the HTTP API."""

    status: str
    url: str | None
    incarnation: int
    generation: int


class Stage:
    """An async context manager; inside it the proxy serves."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._folder = Path(tempfile.mkdtemp(prefix="holdfast-demo-"))
        self._admin_token = new_token(secrets.token_bytes)
        self._now = SystemClock()
        self._serve: asyncio.subprocess.Process | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._looked = asyncio.Condition()
        self._http: httpx.AsyncClient
        self._workspaces: list[str] = []
        self.url = ""
        self.looks: dict[str, list[Look]] = {}
        self.kills: list[Kill] = []
        self.keep = False

    async def __aenter__(self) -> Self:
        try:
            await self._raise_curtain()
        except BaseException:
            self.keep = True
            await self.aclose()
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.keep = self.keep or (kind is not None and kind is not asyncio.CancelledError)
        await self.aclose()

    # Processes

    async def _raise_curtain(self) -> None:
        """Start `holdfast serve` with authentication on, and wait until it says where it serves."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("HOLDFAST_")}
        environment |= {
            "HOLDFAST_ADMIN_TOKEN": self._admin_token,
            "HOLDFAST_UPSTREAM_ALLOW": "127.0.0.0/8",
            "HOLDFAST_DEFAULTS_HOLD_SECONDS": "0",  # the story shows receipts, not waiting
            "PYTHONUNBUFFERED": "1",
        }
        words = ["-m", "proxy", "serve", "--port", "0", "--data", str(self._folder / "holdfast.db")]
        with self.log.open("wb") as log:
            self._serve = await asyncio.create_subprocess_exec(
                sys.executable,
                *words,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env=environment,
                cwd=HOME,
                start_new_session=True,  # Ctrl-C is for us alone: we end things in order
            )
        try:
            async with asyncio.timeout(SERVE_LIMIT):
                line = (await self._serve.stdout.readline()).decode() if self._serve.stdout else ""
        except TimeoutError:
            raise NeverCameUpError(f"`holdfast serve` did not serve within {SERVE_LIMIT:g} s") from None
        if not line.startswith(SERVING):
            raise NeverCameUpError("`holdfast serve` ended before it served")
        self.url = line.removeprefix(SERVING).strip()
        self._http = httpx.AsyncClient(
            base_url=self.url, headers={"Authorization": f"Bearer {self._admin_token}"}, timeout=10.0
        )
        self._watcher = asyncio.create_task(self._watch())

    async def aclose(self) -> None:
        """End everything that was started; the folder stays where something went wrong."""
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)
            with contextlib.suppress(httpx.HTTPError):
                for workspace in self._workspaces:
                    await self._http.delete(f"/workspaces/{workspace}")
                await self._gone(STOP_LIMIT)
            await self._http.aclose()
        if self._serve is not None and self._serve.returncode is None:
            self._serve.terminate()
            try:
                async with asyncio.timeout(STOP_LIMIT):
                    await self._serve.wait()
            except TimeoutError:
                self._serve.kill()
                await self._serve.wait()
        for pid in self._alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if not self.keep:
            shutil.rmtree(self._folder, ignore_errors=True)

    async def _gone(self, limit: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit):
                while self._alive():  # noqa: ASYNC110 - other people's processes set no event
                    await asyncio.sleep(LOOK_SECONDS)

    def _alive(self) -> list[int]:
        return [start.pid for start in self.starts() if self._ours(start.pid)]

    def _ours(self, pid: int) -> bool:
        """The process is one of our agents, and not a stranger with its number."""
        try:
            return str(self._folder).encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            return False

    @property
    def folder(self) -> Path:
        """Where everything lies."""
        return self._folder

    @property
    def log(self) -> Path:
        """What the proxy wrote to standard error."""
        return self._folder / "holdfast.log"

    @property
    def fallen(self) -> int | None:
        """The proxy's exit code, if it ended by itself."""
        return self._serve.returncode if self._serve is not None else None

    def last_words(self) -> list[str]:
        """The end of the proxy's log."""
        with contextlib.suppress(OSError):
            return self.log.read_text(errors="replace").splitlines()[-TAIL_LINES:]
        return []

    # The admin's calls

    async def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """One call of the HTTP API.

        Raises:
            httpx.HTTPError: there was no answer, or it says that it did not work.
        """
        answer = await self._http.request(method, path, json=body)
        answer.raise_for_status()
        return answer.json()

    async def client_token(self, name: str) -> str:
        """A token for a client of that name."""
        return str((await self.ask("POST", "/tokens", {"kind": "client", "name": name}))["token"])

    async def declare(self, workspace: str, *, dead_action: str, boot_delay: float, policy: Mapping[str, Any]) -> None:
        """Have Holdfast start and supervise an agent."""
        port = free_port()
        command = [sys.executable, "-m", "proxy.demo.agent", "--port", str(port)]
        command += [
            "--log",
            str(self._folder / f"{workspace}.log"),
            "--boots",
            str(self._folder / f"{workspace}.boots"),
        ]
        command += ["--boot-delay", str(boot_delay), "--beat-every", "1"]
        body = {
            "url": f"http://127.0.0.1:{port}",
            "dead_action": dead_action,
            "runtime": {"type": "process", "command": command, "cwd": str(HOME), "env": passed_on()},
            "policy": policy,
        }
        answer = await self._http.put(f"/workspaces/{workspace}", json=body)
        if answer.status_code >= REDIRECTS:
            raise NeverCameUpError(f"workspace {workspace} could not be declared: {answer.text}")
        self._workspaces.append(workspace)

    async def decisions(self, workspace: str) -> list[dict[str, Any]]:
        """The workspace's decision log, newest first."""
        said = await self.ask("GET", f"/workspaces/{workspace}/decisions?limit={MOST_DECISIONS}")
        return list(said["decisions"])

    # Looking

    async def _watch(self) -> None:
        """Look at all workspaces over and over, and tell when one changes."""
        while True:
            with contextlib.suppress(httpx.HTTPError):
                answer = await self._http.get("/workspaces")
                for view in answer.json()["workspaces"]:
                    self._see(view["id"], view)
            async with self._looked:
                self._looked.notify_all()
            await asyncio.sleep(LOOK_SECONDS)

    def _see(self, workspace: str, view: Mapping[str, Any]) -> None:
        look = Look(
            status=view["status"], url=view["url"], incarnation=view["incarnation"], generation=view["generation"]
        )
        looks = self.looks.setdefault(workspace, [])
        if not looks or (looks[-1].status, looks[-1].incarnation) != (look.status, look.incarnation):
            self._timeline.event(workspace, f"{look.status} (incarnation {look.incarnation})")
        if looks and looks[-1].url is not None and look.url is None:
            self._timeline.event(workspace, "its URL is gone", RED)
        looks.append(look)

    async def until(self, met: Callable[[], bool], limit: float) -> bool:
        """Wait until something that can be looked at is so; False if it takes longer than `limit` seconds."""
        try:
            async with asyncio.timeout(limit), self._looked:
                await self._looked.wait_for(met)
        except TimeoutError:
            return False
        return True

    def now(self, workspace: str) -> Look:
        """The latest look."""
        return self.looks[workspace][-1]

    async def ready(self, workspace: str, *, after: int = 0, limit: float = READY_LIMIT) -> bool:
        """Wait until it is ready in an incarnation later than `after`."""

        def met() -> bool:
            look = self.looks[workspace][-1] if self.looks.get(workspace) else None
            return look is not None and look.status == "ready" and look.incarnation > after

        return await self.until(met, limit)

    # The agents' own account

    def executions(self, workspace: str) -> list[Execution]:
        """What the agents of a workspace say that they executed, in that order."""
        return [
            Execution(message_id=line["message_id"], marked=line["redelivery"] is not None, pid=line["pid"])
            for line in read_lines(self._folder / f"{workspace}.log")
        ]

    def starts(self, workspace: str | None = None) -> list[Start]:
        """Every agent process that there ever was, of one workspace or of all."""
        return [
            Start(workspace=name, incarnation=int(line["incarnation"]), pid=line["pid"])
            for name in self._workspaces
            if workspace is None or name == workspace
            for line in read_lines(self._folder / f"{name}.boots")
        ]

    def pid(self, workspace: str, incarnation: int) -> int | None:
        """The process of that incarnation, once it has started."""
        return next((start.pid for start in self.starts(workspace) if start.incarnation == incarnation), None)

    def kill(self, workspace: str, pid: int) -> None:
        """`kill -9`, written down before it is done."""
        self.kills.append(Kill(pid=pid, at=self._now()))
        self._timeline.event(workspace, f"kill -9 {pid}", RED)
        if self._ours(pid):
            os.kill(pid, signal.SIGKILL)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a file of JSON lines; what a kill cut off is left out, for good or until it is whole."""
    try:
        whole, _, _ = path.read_bytes().rpartition(b"\n")
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in whole.splitlines() if line.endswith(b"}")]


def passed_on() -> dict[str, str]:
    """What an agent needs of our environment and does not inherit: where Python finds packages, if that was said."""
    return {"PYTHONPATH": path} if (path := os.environ.get("PYTHONPATH")) else {}


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])
