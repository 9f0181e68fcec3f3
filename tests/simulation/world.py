"""A world around the real `App`, in memory and in virtual time: agents that answer by script, and compute by script.

Owns: what lies outside of the process (network, runtimes, probes), a store that outlives proxies, requests without
sockets. Knows nothing of: any rule.

Theory of operation. A `World` holds what survives a proxy: the store, the agents, the machines. `start` makes an `App`
on it and may be called again after `stop` or `crash`; the next proxy finds what the last one left. Requests go through
the real server's dispatch, so that authentication, limits and answers are the real ones; only the HTTP parser and the
socket are missing. Everything scripted takes its next step from a queue and, when that is empty, does the usual.
"""

import asyncio
import functools
import json
import random
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from aiohttp.base_protocol import BaseProtocol
from aiohttp.streams import StreamReader
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict
from simulation.virtual_time import run, virtual_now

from proxy.app import App, Outside
from proxy.config import load
from proxy.core.decision import Decision
from proxy.core.deferral import Deferral, RawHeaders, State
from proxy.core.lifecycle import Status
from proxy.core.liveness import ProbeState
from proxy.core.outcome import Outcome
from proxy.core.restart import Restart
from proxy.core.workspace import UrlSource, Workspace
from proxy.forward import UpstreamFailure, UpstreamRequest
from proxy.loops.routing import Route
from proxy.runtimes import Adopted, Exited, Launch, Started
from proxy.store import Signs, Store
from proxy.store.memory import MemoryStore
from proxy.telemetry import Event, EventName, Telemetry

START = datetime(2026, 6, 1, 12, tzinfo=UTC)
"""The instant at which a story's loop says 0."""

ADMIN = "hf_adminadminadminadminadminadminadmin12"
VAULT_KEY = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
SIMULATED = {"type": "simulated"}
ANSWER = b'{"jsonrpc":"2.0","id":1,"result":{"kind":"message","messageId":"r","role":"agent","parts":[]}}'
REFUSED = UpstreamFailure(Outcome.NOT_SENT, "refused")
RESET = UpstreamFailure(Outcome.MAYBE, "reset")

T = TypeVar("T")


def at(seconds: float) -> datetime:
    """Return the instant that many seconds into the story; negative: before it began."""
    return START + timedelta(seconds=seconds)


def clock() -> float:
    """Return how many seconds the story has lasted."""
    return asyncio.get_running_loop().time()


def simulated(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Play an async test in virtual time."""

    @functools.wraps(test)
    def played(*args: Any, **fixtures: Any) -> None:
        run(test(*args, **fixtures))

    return played


class Script(Generic[T]):
    """What somebody does, step by step: what was queued, and then the usual. Notes when each step was taken."""

    def __init__(self, usual: T) -> None:
        self.usual = usual
        self.steps: deque[T] = deque()
        self.taken: list[float] = []

    def queue(self, *steps: T) -> None:
        self.steps.extend(steps)

    def take(self) -> T:
        self.taken.append(clock())
        return self.steps.popleft() if self.steps else self.usual


# --- agents ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Reacts:
    """One reaction of an agent to one call: after `after` seconds an answer, or `failure` instead of it.

    `breaks`: the head of the answer comes, its body never does. `until`: wait for this event first.
    """

    after: float = 0.0
    status: int = 200
    body: bytes = ANSWER
    headers: RawHeaders = ((b"Content-Type", b"application/json"),)
    failure: UpstreamFailure | None = None
    breaks: bool = False
    until: asyncio.Event | None = None


def fails(failure: UpstreamFailure = REFUSED, *, after: float = 0.0) -> Reacts:
    """Return the reaction that is no answer."""
    return Reacts(failure=failure, after=after)


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """A call as it reached an agent."""

    at: float
    request: UpstreamRequest

    @property
    def text(self) -> str:
        """The text of the message in it."""
        return str(json.loads(self.request.body)["params"]["message"]["parts"][0]["text"])

    def header(self, name: str) -> str | None:
        found = (value for key, value in self.request.headers if key.lower() == name.lower().encode())
        return next((value.decode() for value in found), None)


class Agent:
    """An agent behind a URL."""

    def __init__(self) -> None:
        self.reacts: Script[Reacts] = Script(Reacts())
        self.heard: list[Heard] = []
        self.open = 0
        self.most_open = 0

    @property
    def texts(self) -> list[str]:
        return [heard.text for heard in self.heard]

    async def take(self, request: UpstreamRequest) -> "_Answer":
        self.heard.append(Heard(at=clock(), request=request))
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            reaction = self.reacts.take()
            if reaction.until is not None:
                await reaction.until.wait()
            if reaction.after:
                await asyncio.sleep(reaction.after)
            if reaction.failure is not None:
                raise UpstreamFailure(reaction.failure.outcome, reaction.failure.reason)
            return _Answer(reaction)
        finally:
            self.open -= 1


class _Answer:
    def __init__(self, reaction: Reacts) -> None:
        self.status = reaction.status
        self.reason = b""
        length = (b"Content-Length", b"%d" % len(reaction.body))
        self.headers = (*reaction.headers, length)
        self._reaction = reaction

    async def chunks(self) -> AsyncIterator[bytes]:
        if self._reaction.breaks:
            raise UpstreamFailure(Outcome.LOST, "eof")
        yield self._reaction.body

    async def read(self, limit: int) -> bytes:
        return b"".join([chunk async for chunk in self.chunks()])[: limit or None]

    async def aclose(self) -> None:
        """Nothing to give back."""


class Network:
    """The way to agents, by the host in their URL; nobody listens anywhere else."""

    def __init__(self) -> None:
        self.agents: dict[str, Agent] = {}

    async def send(self, request: UpstreamRequest) -> _Answer:
        host = request.url.partition("//")[2].partition("/")[0].partition("?")[0]
        agent = self.agents.get(host)
        if agent is None:
            raise UpstreamFailure(Outcome.NOT_SENT, "refused")
        return await agent.take(request)

    async def aclose(self) -> None:
        """No connections."""


# --- compute ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """A stop or start of one machine, from when to when (None: it did not end)."""

    verb: str
    generation: int
    begun: float
    launch: Launch | None = None
    ended: float | None = None


class Machine:
    """The compute of one workspace. `says` what a runtime reports, `ready` what the readiness probe finds."""

    def __init__(self) -> None:
        self.says: Script[ProbeState | Exception] = Script(ProbeState.RUNNING)
        self.ready: Script[bool] = Script(usual=True)
        self.stops: Script[float | Exception] = Script(0.0)
        self.starts: Script[float | Exception] = Script(0.0)
        self.acts: list[Act] = []
        self.removed = False

    @property
    def inspected(self) -> int:
        return len(self.says.taken)

    @property
    def launches(self) -> list[Launch]:
        return [act.launch for act in self.acts if act.launch is not None]

    def verbs(self) -> list[tuple[str, int]]:
        return [(act.verb, act.generation) for act in self.acts]

    async def act(self, script: Script[float | Exception], act: Act) -> None:
        self.acts.append(act)
        step = script.take()
        if isinstance(step, Exception):
            raise step
        if step:
            await asyncio.sleep(step)
        self.acts[self.acts.index(act)] = replace(act, ended=clock())

    def assert_never_overlapping(self) -> None:
        for earlier, later in zip(self.acts, self.acts[1:], strict=False):
            assert earlier.ended is None or earlier.ended <= later.begun, (earlier, later)


class SimulatedRuntime:
    """Starts and stops machines; `tells` is False for workspaces that nobody hosts."""

    name: ClassVar[str] = "simulated"
    host_bound: ClassVar[bool] = False

    def __init__(self, machines: Callable[[str], Machine], *, tells: bool) -> None:
        self._machines = machines
        self.tells = tells

    def check(self, spec: Mapping[str, Any]) -> list[str]:
        return []

    async def inspect(self, workspace_id: str, incarnation: int) -> ProbeState:
        said = self._machines(workspace_id).says.take()
        if isinstance(said, Exception):
            raise said
        return said

    async def start(self, launch: Launch) -> Started:
        machine = self._machines(launch.workspace_id)
        await machine.act(machine.starts, Act(verb="start", generation=launch.generation, begun=clock(), launch=launch))
        return Started(handle=f"{launch.workspace_id}-{launch.generation}", started_at=at(clock()))

    async def stop(self, workspace_id: str, generation: int, grace: float) -> None:
        machine = self._machines(workspace_id)
        await machine.act(machine.stops, Act(verb="stop", generation=generation, begun=clock()))

    async def remove(self, workspace_id: str, grace: float) -> None:
        machine = self._machines(workspace_id)
        machine.removed = True
        machine.acts.append(Act(verb="remove", generation=0, begun=clock(), ended=clock()))

    async def adopt(self) -> list[Exited | Adopted]:
        return []

    async def aclose(self) -> None:
        """Nothing to let go of."""


class Hosting:
    """All machines, with what the loops want of runtimes and probes. `outlived`: what the next proxy adopts."""

    def __init__(self) -> None:
        self.machines: dict[str, Machine] = {}
        self.outlived: list[Exited | Adopted] = []
        self._managed = SimulatedRuntime(self.machine, tells=True)
        self._unmanaged = SimulatedRuntime(self.machine, tells=False)

    def machine(self, workspace_id: str) -> Machine:
        return self.machines.setdefault(workspace_id, Machine())

    def runtime(self, workspace: Workspace) -> SimulatedRuntime:
        return self._managed if workspace.runtime_type == "simulated" else self._unmanaged

    def tells(self, workspace: Workspace) -> bool:
        return self.runtime(workspace).tells

    async def inspect(self, workspace: Workspace) -> ProbeState:
        return await self.runtime(workspace).inspect(workspace.id, workspace.incarnation)

    def check_runtime(self, spec: Mapping[str, Any]) -> list[str]:
        return []

    def check_probe(self, spec: Mapping[str, Any]) -> list[str]:
        return []

    async def probe(self, workspace: Workspace) -> bool:
        return self.machine(workspace.id).ready.take()

    async def adopt(self) -> list[Exited | Adopted]:
        return self.outlived

    async def remove(self, workspace: Workspace, grace: float) -> None:
        await self.runtime(workspace).remove(workspace.id, grace)

    async def aclose(self) -> None:
        """Nothing to let go of."""


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

    @property
    def app(self) -> App:
        assert self._app is not None, "start() comes first"
        return self._app

    async def start(self, settings: Mapping[str, object] | None = None) -> App:
        """Start a proxy on this world, with `settings` by dotted key; the last one must have ended."""
        own = {"data": self.folder / "holdfast.db", "admin_token": ADMIN, "vault.key": VAULT_KEY}
        config = load(None, {}, {**own, **(settings or {})})
        now = virtual_now(asyncio.get_running_loop(), START)
        self._app = App(
            config,
            now=now,
            chance=random.Random(4),  # noqa: S311 - the same story each time
            telemetry=Telemetry(now, [self.events.append]),
            store=self.store,
            outside=Outside(forward=self.network, hosts=self.hosting),
            listen=False,
        )
        await self._app.start()
        return self._app

    async def stop(self) -> None:
        """Stop the proxy as SIGTERM does."""
        await self.app.stop(drain=0)

    async def crash(self) -> None:
        """End the proxy as SIGKILL does: nothing is flushed, nothing is written."""
        await self.app.background.aclose()
        await self.app.gate.aclose()
        await self.store.aclose()
        self._app = None

    # Given

    async def given(  # noqa: PLR0913 - a record with many fields is built by name
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

        `sign` and `heartbeat` are seconds of the story (so mostly negative). `url`: by default its agent's.
        """
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

    async def eventually(self, holds: Callable[[], bool | Awaitable[bool]], *, within: float = 60.0) -> float:
        """Let the story go on until this holds, in small steps; return the second at which it did."""
        deadline = clock() + within
        while True:
            held = holds()
            if isinstance(held, Awaitable):
                held = await held
            if held:
                return clock()
            assert clock() < deadline, f"it did not come true within {within:g} s"
            await asyncio.sleep(0.05)

    async def call(self, workspace_id: str = "ws", body: bytes | None = None, **headers: str) -> Reply:
        """Send one message to a workspace as the admin; `headers` have underscores for hyphens."""
        body = message() if body is None else body
        return await self.request("POST", f"/workspaces/{workspace_id}/a2a", body, **headers)

    async def request(self, method: str, path: str, body: bytes = b"", **headers: str) -> Reply:
        """Send one request through the server's dispatch."""
        loop = asyncio.get_running_loop()
        payload = StreamReader(BaseProtocol(loop), 2**20, loop=loop)
        payload.feed_data(body)
        payload.feed_eof()
        said = {name.replace("_", "-"): value for name, value in headers.items()}
        fields = {
            "Host": "proxy.test",
            "Holdfast-Token": ADMIN,
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            **said,
        }
        request = make_mocked_request(method, path, fields, payload=payload)
        writer = _Writer(request.transport)
        request._payload_writer = writer  # type: ignore[assignment]  # takes what the real one would send
        response = await self.app.server._dispatch(request)
        await response.prepare(request)
        await response.write_eof()
        return Reply(status=response.status, headers=CIMultiDict(response.headers), body=bytes(writer.said))
