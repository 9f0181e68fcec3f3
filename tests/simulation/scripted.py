"""What lies outside of a proxy, in memory and in virtual time: agents that answer by script, compute by script.

Owns: the story's clock, scripts, the network with its agents, machines with the runtime and the probes that see them.
Knows nothing of: proxies, requests of clients, any rule. Everything scripted takes its next step from a queue and, when
that is empty, does the usual.
"""

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Generic, TypeVar

from proxy.core.deferral import RawHeaders
from proxy.core.liveness import ProbeState
from proxy.core.outcome import Outcome
from proxy.core.workspace import Workspace
from proxy.forward import UpstreamFailure, UpstreamRequest
from proxy.runtimes import Adopted, Exited, Launch, Runtime, Started

START = datetime(2026, 6, 1, 12, tzinfo=UTC)
"""The instant at which a story's loop says 0."""

ANSWER = b'{"jsonrpc":"2.0","id":1,"result":{"kind":"message","messageId":"r","role":"agent","parts":[]}}'
REFUSED = UpstreamFailure(Outcome.NOT_SENT, "refused")
RESET = UpstreamFailure(Outcome.MAYBE, "reset")
READ = 32_768
"""Bytes of an answer that are read at once."""

T = TypeVar("T")


def at(seconds: float) -> datetime:
    """Return the instant that many seconds into the story; negative: before it began."""
    return START + timedelta(seconds=seconds)


def clock() -> float:
    """Return how many seconds the story has lasted."""
    return asyncio.get_running_loop().time()


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

    `breaks`: the head of the answer comes, its body never does. `until`: wait for this event first. `parts` come one
    after another instead of the body: bytes, seconds to wait, events to wait for, or the failure that ends it all.
    """

    after: float = 0.0
    status: int = 200
    body: bytes = ANSWER
    headers: RawHeaders = ((b"Content-Type", b"application/json"),)
    failure: UpstreamFailure | None = None
    breaks: bool = False
    until: asyncio.Event | None = None
    parts: tuple[bytes | float | asyncio.Event | UpstreamFailure, ...] = ()


def streams(*parts: bytes | float | asyncio.Event | UpstreamFailure, **known: Any) -> Reacts:
    """Return the reaction that is a stream of server-sent events; `parts` that are bytes are the data of one each."""
    framed = tuple(b"data: " + part + b"\r\n\r\n" if isinstance(part, bytes) else part for part in parts)
    return Reacts(parts=framed, headers=((b"Content-Type", b"text/event-stream"),), **known)


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
        length = () if reaction.parts else ((b"Content-Length", b"%d" % len(reaction.body)),)
        self.headers = (*reaction.headers, *length)
        self._reaction = reaction

    async def chunks(self) -> AsyncIterator[bytes]:
        if self._reaction.breaks:
            raise UpstreamFailure(Outcome.LOST, "eof")
        if not self._reaction.parts:
            yield self._reaction.body
        came: list[bytes] = []
        news = asyncio.Event()

        def said(telling: asyncio.Task[None]) -> None:
            _ = telling.cancelled() or telling.exception()  # nobody is left to hear of it when the reader has gone
            news.set()

        saying = asyncio.create_task(self._say(came, news))
        saying.add_done_callback(said)
        try:
            while not saying.done() or came:
                await news.wait()
                news.clear()
                together = b"".join(came)
                came.clear()
                for start in range(0, len(together), READ):
                    yield together[start : start + READ]
            saying.result()
        finally:
            saying.cancel()

    async def _say(self, came: list[bytes], news: asyncio.Event) -> None:
        """Say one part after the other, in the agent's own time; what nobody reads meanwhile is read together."""
        for part in self._reaction.parts:
            if isinstance(part, UpstreamFailure):
                raise UpstreamFailure(part.outcome, part.reason)
            if isinstance(part, bytes):
                came.append(part)
                news.set()
                await asyncio.sleep(0)
            elif isinstance(part, asyncio.Event):
                await part.wait()
            else:
                await asyncio.sleep(part)

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
    """The compute of one workspace. `says`: what a runtime reports, after it `thinks` for so many seconds.

    `ready`: what the readiness probe finds. `stops` and `starts`: how many seconds they take, or how they fail.
    """

    def __init__(self) -> None:
        self.says: Script[ProbeState | Exception] = Script(ProbeState.RUNNING)
        self.ready: Script[bool] = Script(usual=True)
        self.stops: Script[float | Exception] = Script(0.0)
        self.starts: Script[float | Exception] = Script(0.0)
        self.acts: list[Act] = []
        self.thinks = 0.0

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
    """Starts and stops machines."""

    name: ClassVar[str] = "simulated"
    tells: ClassVar[bool] = True
    host_bound: ClassVar[bool] = False

    def __init__(self, machines: Callable[[str], Machine]) -> None:
        self._machines = machines

    def check(self, _: Mapping[str, Any]) -> list[str]:
        return []

    async def inspect(self, workspace_id: str, incarnation: int) -> ProbeState:  # noqa: ARG002 - the contract's
        machine = self._machines(workspace_id)
        said = machine.says.take()
        await asyncio.sleep(machine.thinks)
        if isinstance(said, Exception):
            raise said
        return said

    async def start(self, launch: Launch) -> Started:
        machine = self._machines(launch.workspace_id)
        await machine.act(machine.starts, Act(verb="start", generation=launch.generation, begun=clock(), launch=launch))
        return Started(handle=f"{launch.workspace_id}-{launch.generation}", started_at=at(clock()))

    async def stop(self, workspace_id: str, generation: int, grace: float) -> None:  # noqa: ARG002 - the contract's
        machine = self._machines(workspace_id)
        await machine.act(machine.stops, Act(verb="stop", generation=generation, begun=clock()))

    async def remove(self, workspace_id: str, grace: float) -> None:  # noqa: ARG002 - the contract's
        machine = self._machines(workspace_id)
        machine.acts.append(Act(verb="remove", generation=0, begun=clock(), ended=clock()))

    async def adopt(self) -> list[Exited | Adopted]:
        return []

    async def aclose(self) -> None:
        """Nothing to let go of."""


class Unhosted(SimulatedRuntime):
    """What a workspace has that nobody hosts: nobody can tell anything."""

    tells: ClassVar[bool] = False


class Hosting:
    """All machines, with what the loops want of runtimes and probes. `outlived`: what the next proxy adopts."""

    def __init__(self) -> None:
        self.machines: dict[str, Machine] = {}
        self.on_card: Callable[[str, bytes], None] = lambda _id, _card: None
        self.outlived: list[Exited | Adopted] = []
        self._managed = SimulatedRuntime(self.machine)
        self._unmanaged = Unhosted(self.machine)

    def machine(self, workspace_id: str) -> Machine:
        return self.machines.setdefault(workspace_id, Machine())

    def runtime(self, workspace: Workspace) -> Runtime:
        return self._managed if workspace.runtime_type == "simulated" else self._unmanaged

    def tells(self, workspace: Workspace) -> bool:
        return self.runtime(workspace).tells

    async def inspect(self, workspace: Workspace) -> ProbeState:
        return await self.runtime(workspace).inspect(workspace.id, workspace.incarnation)

    def check_runtime(self, _: Mapping[str, Any]) -> list[str]:
        return []

    def check_probe(self, _: Mapping[str, Any]) -> list[str]:
        return []

    async def probe(self, workspace: Workspace) -> bool:
        return self.machine(workspace.id).ready.take()

    async def adopt(self) -> list[Exited | Adopted]:
        return self.outlived

    async def remove(self, workspace: Workspace, grace: float) -> None:
        await self.runtime(workspace).remove(workspace.id, grace)

    async def aclose(self) -> None:
        """Nothing to let go of."""
