"""A run: the stage that is set once, and the rounds that are played on it.

Owns: setting the stage, what callers do in a round, healing, following every promise, the checks of processes.
Knows nothing of: how a kill is done, how results are shown.

A round: callers send for as long as kills happen, at least their share each. Then nothing is killed any more; the
queues must run empty and every workspace must be ready, in bounded time. Every deferred send is followed to its end by
GetTask and by its receipt, the agents' accounts are read, and all of it is compared (`ledger.audit`).
"""

import asyncio
import json
import random
import secrets
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from chaos.callers import OLD, TOKEN, Caller, PlainCaller, SdkCaller, once
from chaos.kills import Kill, Killer
from chaos.ledger import TERMINAL, Audit, Fault, Finding, Followed, Seen, Send, audit
from chaos.processes import Agent, Proxy, UnfitError, end_marked, free_port
from chaos.waiting import until

HEAL_PATIENCE = 60.0
FOLLOW_PATIENCE = 10.0
READY_PATIENCE = 60.0
CREATED = 201
OK = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How big a round is. `sends` and `most` are per caller: at least, and at most however long the kills take."""

    callers: int = 24
    sdk_callers: int = 3
    sends: int = 5
    most: int = 12
    workspaces: int = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """What a round brought."""

    number: int
    kills: Sequence[Kill]
    missed: int
    audit: Audit
    seconds: float


@dataclass(slots=True)
class Stage:
    """Everything that outlives a round: the proxy and its database, the agents and their accounts, the callers."""

    folder: Path
    size: Size
    proxy: Proxy
    agents: list[Agent]
    callers: list[Caller] = field(default_factory=list)
    probes: dict[str, PlainCaller] = field(default_factory=dict)
    sent: list[Send] = field(default_factory=list)
    followed: dict[str, Followed] = field(default_factory=dict)
    births: dict[str, int] = field(default_factory=dict)

    @classmethod
    async def set(cls, folder: Path, size: Size) -> "Stage":
        """Start a proxy with its agents, and make the callers' tokens.

        Raises:
            UnfitError: it does not come up.
        """
        chance = random.SystemRandom()  # ports and names of this run: two runs side by side must not meet
        mark = secrets.token_hex(8)
        agents = [
            Agent(workspace=f"chaos-{number}", port=free_port(chance), folder=folder, mark=mark)
            for number in range(size.workspaces)
        ]
        proxy = Proxy(folder, free_port(chance), f"hf_{secrets.token_hex(20)}")
        stage = cls(folder, size, proxy, agents)
        try:
            await proxy.start()
            await stage._furnish()
        except BaseException:
            await stage.clear()
            raise
        return stage

    async def _furnish(self) -> None:
        for agent in self.agents:
            await self._admin("PUT", f"/workspaces/{agent.workspace}", agent.described(), expected=CREATED)
        for number in range(self.size.callers):
            name = f"caller-{number:02}"
            made = await self._admin("POST", "/tokens", {"kind": "client", "name": name}, expected=CREATED)
            base, token = self.proxy.url, str(made["token"])
            is_sdk = number < self.size.sdk_callers
            version = OLD if not is_sdk and number % 4 == 0 else "1.0"
            self.probes[name] = PlainCaller(name, token, base, version)
            self.callers.append(SdkCaller(name, token, base) if is_sdk else PlainCaller(name, token, base, version))
        if not await until(self._idle, within=READY_PATIENCE, every=0.1):
            raise UnfitError(f"the agents did not become ready within {READY_PATIENCE:g} s; see {self.folder}")
        for agent in self.agents:
            self.births[agent.workspace] = await self._incarnation(agent)

    async def clear(self) -> None:
        """End every process of this run."""
        for caller in (*self.callers, *self.probes.values()):
            await caller.aclose()
        await self.proxy.stop()
        for agent in self.agents:
            end_marked(agent.mark)

    # The admin's questions

    async def _admin(self, method: str, path: str, body: Any = None, *, expected: int = OK) -> dict[str, Any]:
        headers = {TOKEN: self.proxy.admin_token}
        async with (
            aiohttp.ClientSession(headers=headers, timeout=aiohttp.ClientTimeout(total=10)) as session,
            session.request(method, f"{self.proxy.url}{path}", json=body) as answer,
        ):
            said = await answer.json(content_type=None)
            if answer.status != expected:
                raise UnfitError(f"{method} {path} was answered {answer.status}: {said}")
            return dict(said)

    async def view(self, agent: Agent) -> dict[str, Any]:
        """What the proxy says of a workspace."""
        return await self._admin("GET", f"/workspaces/{agent.workspace}")

    async def decisions(self, agent: Agent) -> dict[str, Any]:
        """The decision log of a workspace, newest first."""
        return await self._admin("GET", f"/workspaces/{agent.workspace}/decisions?limit=1000")

    async def _incarnation(self, agent: Agent) -> int:
        return int((await self.view(agent))["incarnation"])

    async def _idle(self) -> bool:
        """Every queue is empty, every workspace is ready, nothing is under way."""
        try:
            views = [await self.view(agent) for agent in self.agents]
        except (aiohttp.ClientError, OSError, TimeoutError):
            return False
        return all(is_well(view) for view in views)

    # A round

    async def play(self, number: int, kills: Sequence[Kill], chance: random.Random) -> Played:
        """Play one round and compare what everybody says about it."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        start = {agent.workspace: len(agent.read()) for agent in self.agents}
        known = {send.message_id for send in self.sent}
        sends: list[Send] = []
        quiet, over = asyncio.Event(), asyncio.Event()
        quiet.set()
        killer = Killer(self.proxy, self.agents, sends, quiet)
        async with asyncio.TaskGroup() as group:
            for place, caller in enumerate(self.callers):
                own = random.Random(chance.random())  # noqa: S311 - the same sends for the same seed
                script = Script(number, place, len(self.callers), own, self)
                group.create_task(script.play(caller, sends, quiet, over))
            for kill in kills:
                await killer.carry_out(kill)
            over.set()
        self.sent += sends
        findings = await self._heal()
        await self._follow_all(sends)
        executions = [run for agent in self.agents for run in agent.read()[start[agent.workspace] :]]
        compared = audit(sends, executions, self.followed, known)
        findings = [*compared.findings, *findings]
        return Played(
            number=number,
            kills=kills,
            missed=killer.missed,
            audit=Audit(counts=compared.counts, findings=tuple(findings)),
            seconds=loop.time() - began,
        )

    async def look_again(self) -> Audit:
        """Fetch every answer once more and compare over the whole run: promises hold beyond their round."""
        await self._follow_all(self.sent)
        executions = [run for agent in self.agents for run in agent.read()]
        return audit(self.sent, executions, self.followed, ())

    async def _heal(self) -> list[Finding]:
        """Kill nothing, and wait for everything to be well; what is not, and what was restarted without need."""
        findings = []
        if not await until(self._idle, within=HEAL_PATIENCE, every=0.1):
            for agent in self.agents:
                view = await self.view(agent)
                names = ("status", "queue_depth", "in_flight", "restart")
                detail = json.dumps({name: view[name] for name in names})
                if not is_well(view):
                    findings.append(
                        Finding(fault=Fault.UNHEALED, workspace=agent.workspace, subject="round", detail=detail)
                    )
        for agent in self.agents:
            pids = agent.pids()
            if len(pids) != 1:
                findings.append(
                    Finding(fault=Fault.DOUBLED, workspace=agent.workspace, subject="processes", detail=f"{pids}")
                )
            lives = await self._incarnation(agent) - self.births[agent.workspace]
            if lives > agent.kills:
                detail = f"{lives} restarts after {agent.kills} kills"
                findings.append(
                    Finding(fault=Fault.NEEDLESS, workspace=agent.workspace, subject="restarts", detail=detail)
                )
                agent.kills = lives  # told once
        return findings

    async def _follow_all(self, sends: Sequence[Send]) -> None:
        """Follow every deferred send to its end, each as the caller that was promised it."""
        theirs: dict[str, list[Send]] = defaultdict(list)
        for send in sends:
            if send.seen is Seen.DEFERRED:
                theirs[send.caller].append(send)
        await asyncio.gather(*(self._follow(self.probes[name], list_) for name, list_ in theirs.items()))

    async def _follow(self, probe: PlainCaller, sends: Sequence[Send]) -> None:
        for send in sends:

            async def ended(send: Send = send) -> bool:
                try:
                    found = await probe.follow(send)
                except (aiohttp.ClientError, OSError, TimeoutError) as problem:
                    found = Followed(last_error=f"{type(problem).__name__}: {problem}")
                self.followed[send.message_id] = found
                return found.state in TERMINAL

            await until(ended, within=FOLLOW_PATIENCE, every=0.1)


def is_well(view: Mapping[str, Any]) -> bool:
    """A workspace is ready, nothing waits for it or is under way, and its last restart has ended."""
    idle = view["queue_depth"] == 0 and view["in_flight"] == 0
    return bool(idle and view["status"] == "ready" and view["restart"]["state"] != "running")


@dataclass(slots=True)
class Script:
    """What one caller does in one round: which workspaces, contexts, texts and pauses; all of it from the seed."""

    number: int
    place: int
    callers: int
    chance: random.Random
    stage: Stage

    async def play(self, caller: Caller, sends: list[Send], quiet: asyncio.Event, over: asyncio.Event) -> None:
        """Send until the kills are over, at least the round's share, at most its limit."""
        size, proxy = self.stage.size, self.stage.proxy
        loop = asyncio.get_running_loop()
        await asyncio.sleep(self.chance.uniform(0, 0.5))
        for turn in range(size.most):
            if turn >= size.sends and over.is_set():
                return
            await quiet.wait()
            await proxy.up.wait()
            send = self.next(caller, turn, loop.time())
            sends.append(send)
            await once(caller, send)
            send.ended = loop.time()
            send.excused = send.seen is Seen.BROKEN and proxy.was_down(send.began, send.ended)
            await asyncio.sleep(self.chance.uniform(0.02, 0.6))

    def next(self, caller: Caller, turn: int, now: float) -> Send:
        """The next send: a third in a context of the caller's own, a third in a shared one, a third without any."""
        workspace = self.chance.choice(self.stage.agents).workspace
        kind = self.chance.randrange(3)
        own = f"r{self.number}-{workspace}-own-{self.place}"
        shared = f"r{self.number}-{workspace}-shared-{self.place % max(1, self.callers // 4)}"
        message_id = f"r{self.number}-c{self.place}-m{turn}-{self.chance.getrandbits(32):08x}"
        pace = " take 0.4 s" if self.chance.random() < 0.2 else ""
        return Send(
            message_id=message_id,
            workspace=workspace,
            context_id=(own, shared, None)[kind],
            caller=caller.name,
            text=f"message {message_id}{pace}",
            began=now,
        )
