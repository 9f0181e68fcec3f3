"""A world around the real `App`, in memory and in virtual time.

Owns: what survives proxies (the store, the agents, the machines), requests without sockets, looking around.
Knows nothing of: any rule.

Theory of operation. `start` makes an `App` on the world and may be called again after `stop` or `crash`; the next proxy
finds what the last one left. Requests go through the real server's dispatch, so that authentication, limits and answers
are the real ones; only the HTTP parser and the socket are missing.
"""

import asyncio
import functools
import io
import json
import random
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from http.client import HTTPResponse, IncompleteRead
from pathlib import Path
from typing import Any

from aiohttp.base_protocol import BaseProtocol
from aiohttp.streams import StreamReader
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict
from simulation.scripted import RESET, START, Agent, Hosting, Machine, Network, Reacts, at, clock, fails
from simulation.virtual_time import run, virtual_now

from proxy.app import App
from proxy.assembly import Outside
from proxy.config import load
from proxy.core.decision import Decision
from proxy.core.deferral import Deferral, State
from proxy.core.lifecycle import RESTING, Status
from proxy.core.restart import Restart
from proxy.core.workspace import UrlSource, Workspace
from proxy.loops.routing import Route
from proxy.runtimes import Exited
from proxy.store import Signs, Store
from proxy.store.memory import MemoryStore
from proxy.telemetry import Event, EventName, Telemetry
from proxy.web.arrived import Arrived, Fields
from proxy.web.heartbeats import heartbeat_of
from proxy.web.places import split

__all__ = ["RESET", "Reacts", "Reply", "World", "at", "clock", "fails", "message", "simulated"]

ADMIN = "hf_adminadminadminadminadminadminadmin12"
VAULT_KEY = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
SIMULATED = {"type": "simulated"}
UNSWEPT = 30 * 86_400.0
"""Nobody looks after a workspace unasked, unless a story says so."""


def simulated(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Play an async test in virtual time, and stop the proxy that its world has in the end."""

    @functools.wraps(test)
    def played(**fixtures: Any) -> None:
        async def whole() -> None:
            await test(**fixtures)
            for world in fixtures.values():
                if isinstance(world, World):
                    await world.stop()

        run(whole())

    return played


# --- requests --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What a client got."""

    status: int
    headers: CIMultiDict[str]
    body: bytes

    @property
    def verdict(self) -> str | None:
        return self.headers.get("Holdfast-Verdict")

    @property
    def restart(self) -> str | None:
        return self.headers.get("Holdfast-Restart")

    @property
    def receipt(self) -> str:
        return self.headers["Holdfast-Receipt"]

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def facts(self) -> dict[str, str]:
        """The facts that stand beside an error (in JSON-RPC: the metadata of its ErrorInfo)."""
        return dict(self.json["error"]["data"][0]["metadata"])


class _Writer:
    """Takes what an answer writes."""

    def __init__(self, transport: Any) -> None:
        self.transport = transport
        self.output_size = 0
        self.length: int | None = None
        self.said = bytearray()

    def enable_chunking(self) -> None:
        """Chunks are for the wire."""

    async def write_headers(self, status_line: str, headers: Mapping[str, str]) -> None:
        """The answer's own members say the same."""

    def send_headers(self) -> None:
        """Likewise."""

    async def write(self, data: bytes) -> None:
        self.said += data

    async def write_eof(self, data: bytes = b"") -> None:
        self.said += data

    async def drain(self) -> None:
        """Never full."""


class _Client:
    """A client that takes every answer and never leaves."""

    on_gone: Callable[[], None] | None = None
    writing_paused = False
    remote = "127.0.0.1"

    def __init__(self) -> None:
        self.said = bytearray()

    def write(self, data: bytes) -> None:
        self.said += data

    async def drain(self) -> None:
        """Never full."""

    def hang_up(self) -> None:
        """Nothing follows anyway."""


class _Wire:
    """Bytes of an answer, as `http.client` wants them."""

    def __init__(self, said: bytes) -> None:
        self._said = said

    def makefile(self, *_: str) -> io.BytesIO:
        return io.BytesIO(self._said)


def message(text: str = "hello", *, message_id: str = "m-1", context_id: str | None = None) -> bytes:
    """Return a JSON-RPC `message/send`."""
    said: dict[str, Any] = {"kind": "message", "messageId": message_id, "role": "user"}
    said["parts"] = [{"kind": "text", "text": text}]
    if context_id is not None:
        said["contextId"] = context_id
    return json.dumps({"jsonrpc": "2.0", "id": 1, "method": "message/send", "params": {"message": said}}).encode()


# --- the world -------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class World:
    """What survives proxies, and the proxy that runs now. `folder` is where it may keep files."""

    folder: Path
    store: Store = field(default_factory=MemoryStore)
    network: Network = field(default_factory=Network)
    hosting: Hosting = field(default_factory=Hosting)
    events: list[Event] = field(default_factory=list)
    _app: App | None = None
    _lives: int = 0

    @property
    def app(self) -> App:
        assert self._app is not None, "start() comes first"
        return self._app

    async def start(self, settings: Mapping[str, object] | None = None) -> App:
        """Start a proxy on this world, with `settings` by dotted key; the last one must have ended."""
        own = {
            "data": self.folder / "holdfast.db",
            "admin_token": ADMIN,
            "vault.key": VAULT_KEY,
            "health.sweep": UNSWEPT,
            "defaults.hold_seconds": 0,
        }
        config = load(None, {}, {**own, **(settings or {})})
        now = virtual_now(asyncio.get_running_loop(), START)
        self._lives += 1
        self._app = App(
            config,
            now=now,
            chance=random.Random(self._lives),  # noqa: S311 - the same story each time
            telemetry=Telemetry(now, [self.events.append]),
            store=self.store,
            outside=Outside(forward=self.network, hosts=self.hosting),
            listen=False,
        )
        await self._app.start()
        self._app.server._application.freeze()  # as the listener would: middlewares run only then
        return self._app

    async def stop(self) -> None:
        """Stop the proxy as SIGTERM does."""
        if self._app is not None:
            await self._app.stop(drain=0)
            self._app = None

    async def crash(self) -> None:
        """End the proxy as SIGKILL does: nothing is flushed, nothing is written."""
        await self.app.background.aclose()
        await self.app.gate.aclose()
        await self.store.aclose()
        self._app = None

    async def exits(self) -> None:
        """The instance that hosts the workspace ends by itself, and its runtime says so."""
        incarnation = self.route().workspace.incarnation
        told = Exited(workspace_id="ws", incarnation=incarnation, exit_code=1, expected=False, at=at(clock()))
        self.app.on_exit(told)
        await asyncio.sleep(0.01)

    # Given

    async def given(
        self,
        workspace_id: str = "ws",
        *,
        status: Status = Status.READY,
        managed: bool = True,
        url: str | None = "",
        announced: bool = False,
        sign: float | None = None,
        heartbeat: float | None = None,
        cycles: tuple[Restart, ...] = (),
        **known: Any,
    ) -> None:
        """Write a workspace into the store before the proxy starts.

        `sign` and `heartbeat` are seconds of the story (so mostly negative). `url`: by default its agent's. Whatever is
        parked was stopped long ago.
        """
        if known.get("desired") in RESTING:
            known.setdefault("stopped_at", at(-86_400))
        if url == "":
            url = self.url(workspace_id)
        source = UrlSource.NONE if url is None else UrlSource.ANNOUNCED if announced else UrlSource.CONFIGURED
        workspace = Workspace(
            id=workspace_id,
            created_at=at(-86_400),
            status=status,
            url=url,
            url_source=source,
            runtime=SIMULATED if managed else None,
            **{"started_at": at(-86_400), **known},
        )
        await self.store.open()
        assert await self.store.create(workspace) is not None
        for cycle in cycles:
            stored = await self.store.workspace(workspace_id)
            assert stored is not None
            assert await self.store.replace(stored, restart=cycle) is not None
        signs = [moment for moment in (sign, heartbeat) if moment is not None]
        if signs:
            last_heartbeat_at = at(heartbeat) if heartbeat is not None else None
            await self.store.record_signs(
                {workspace_id: Signs(last_sign_at=at(max(signs)), last_heartbeat_at=last_heartbeat_at)}
            )
        await self.store.aclose()

    # Looking around

    def url(self, workspace_id: str = "ws") -> str:
        """Where its agent listens; asking makes it listen."""
        self.network.agents.setdefault(f"{workspace_id}.test", Agent())
        return f"http://{workspace_id}.test/a2a"

    def agent(self, workspace_id: str = "ws") -> Agent:
        self.url(workspace_id)
        return self.network.agents[f"{workspace_id}.test"]

    def machine(self, workspace_id: str = "ws") -> Machine:
        return self.hosting.machine(workspace_id)

    def route(self, workspace_id: str = "ws") -> Route:
        route = self.app.routing.get(workspace_id)
        assert route is not None, f"there is no workspace {workspace_id}"
        return route

    async def row(self, workspace_id: str = "ws") -> Workspace:
        row = await self.store.workspace(workspace_id)
        assert row is not None
        return row

    async def cycles(self, workspace_id: str = "ws") -> list[Restart]:
        """Its restarts, oldest first."""
        return list(reversed(await self.store.restarts(workspace_id, limit=100)))

    async def decisions(self, workspace_id: str = "ws") -> list[Decision]:
        """Its decision log, oldest first."""
        return list(reversed(await self.store.decisions(workspace_id, limit=1000)))

    async def deferral(self, receipt: str) -> Deferral:
        found = await self.store.deferral(receipt)
        assert found is not None
        return found

    async def waiting(self, workspace_id: str = "ws") -> list[Deferral]:
        """Its queued and leased deferrals, oldest first."""
        return list(
            reversed(await self.store.deferrals(workspace_id=workspace_id, states=[State.QUEUED, State.LEASED]))
        )

    def told(self, name: EventName, workspace_id: str = "ws") -> list[Event]:
        return [event for event in self.events if event.name == name and event.workspace == workspace_id]

    # Doing

    async def until(self, moment: float) -> None:
        """Let the story go on until that second of it."""
        await asyncio.sleep(max(0.0, moment - clock()))

    async def eventually(
        self, holds: Callable[[], bool | Awaitable[bool]], *, within: float = 60.0, step: float = 0.05
    ) -> float:
        """Let the story go on until this holds, looking every `step` seconds; return the second at which it did."""
        deadline = clock() + within
        while True:
            held = holds()
            if isinstance(held, Awaitable):
                held = await held
            if held:
                return clock()
            assert clock() < deadline, f"it did not come true within {within:g} s"
            await asyncio.sleep(step)

    async def call(self, workspace_id: str = "ws", body: bytes | None = None, **headers: str) -> Reply:
        """Send one message to a workspace as the admin; `headers` have underscores for hyphens."""
        body = message() if body is None else body
        return await self.request("POST", f"/workspaces/{workspace_id}/a2a", body, **headers)

    async def request(self, method: str, path: str, body: bytes = b"", **headers: str) -> Reply:
        """Send one request: calls to agents and beats to the data path, any other through the server's dispatch."""
        fields = {
            "Host": "proxy.test",
            "Holdfast-Token": ADMIN,
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        data_path = split(path) or heartbeat_of(method, path)
        if data_path is not None:
            return await self._called(method, path, fields, body, data_path)
        loop = asyncio.get_running_loop()
        payload = StreamReader(BaseProtocol(loop), 2**20, loop=loop)
        payload.feed_data(body)
        payload.feed_eof()
        request = make_mocked_request(method, path, fields, payload=payload)
        writer = _Writer(request.transport)
        request._payload_writer = writer  # type: ignore[assignment]  # takes what the real one would send
        response = await self.app.server._dispatch(request)
        await response.prepare(request)
        await response.write_eof()
        return Reply(status=response.status, headers=CIMultiDict(response.headers), body=bytes(writer.said))

    async def _called(
        self, method: str, path: str, fields: Mapping[str, str], body: bytes, data_path: tuple[str, str]
    ) -> Reply:
        client = _Client()
        known = Fields(tuple((name.encode(), value.encode()) for name, value in fields.items()))
        await self.app.server.serve(Arrived(client, method=method, target=path, headers=known, body=body), *data_path)
        answer = HTTPResponse(_Wire(bytes(client.said)), method=method)  # type: ignore[arg-type]  # only read from
        answer.begin()
        try:
            said = answer.read()
        except IncompleteRead as cut:  # the connection ended under it
            said = cut.partial
        return Reply(status=answer.status, headers=CIMultiDict(answer.getheaders()), body=said)
