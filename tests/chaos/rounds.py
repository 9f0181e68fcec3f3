"""A run: the stage that is set once, and the rounds that are played on it.

Owns: setting the stage, healing, following every promise, the checks of processes.
Knows nothing of: how a kill or a trouble is made, what callers do with a message (`roles`), how results are shown.

A round: callers send for as long as things happen, at least their share each. Then nothing is killed any more; the
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
from chaos import timings
from chaos.callers import OLD, TOKEN, Caller, PlainCaller, SdkCaller
from chaos.kills import Kill, Killer
from chaos.ledger import TERMINAL, Audit, Fault, Finding, Followed, Role, Seen, Send, audit
from chaos.meddling import Ground
from chaos.processes import Agent, Proxy, UnfitError, end_marked
from chaos.roles import Script
from chaos.troubles import Trouble, TroubleKind, Troubles
from chaos.waiting import until
from ports import free_port

HEAL_PATIENCE = 60.0
FOLLOW_PATIENCE = 10.0
READY_PATIENCE = 60.0
CREATED = 201
OK = 200
STARVING = {TroubleKind.FULL, TroubleKind.READ_ONLY}
"""Troubles in which an agent's start may fail because nothing can be written down."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How many callers there are of each role; the SDK's are classic ones."""

    callers: int = 32
    sdk_callers: int = 3
    impatient: int = 4
    retrying: int = 5
    leaving: int = 3

    def roles(self) -> list[Role]:
        """The role of each caller."""
        special = [Role.IMPATIENT] * self.impatient + [Role.RETRYING] * self.retrying + [Role.LEAVING] * self.leaving
        return [Role.CLASSIC] * max(self.sdk_callers, self.callers - len(special)) + special


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """What happens in a round: its kills, and perhaps a trouble, `late` where it comes after the kills."""

    kills: Sequence[Kill]
    trouble: Trouble | None = None
    late: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """What a round brought. `phases`: seconds until the kills were over, the last caller done, everything well."""

    number: int
    planned: Round
    missed: int
    audit: Audit
    seconds: float
    phases: Mapping[str, float]


@dataclass(slots=True)
class Stage:
    """Everything that outlives a round: the proxy and its database, the agents and their accounts, the callers."""

    folder: Path
    size: Size
    proxy: Proxy
    agents: list[Agent]
    ground: Ground
    troubles: Troubles
    callers: list[Caller] = field(default_factory=list)
    probes: dict[str, PlainCaller] = field(default_factory=dict)
    sent: list[Send] = field(default_factory=list)
    followed: dict[str, Followed] = field(default_factory=dict)
    births: dict[str, int] = field(default_factory=dict)
    doubled: list[tuple[str, str, str]] = field(default_factory=list)

    @classmethod
    async def set(cls, folder: Path, size: Size) -> "Stage":
        """Start a proxy with its agents, and make the callers' tokens.

        Raises:
            UnfitError: it does not come up.
        """
        chance = random.SystemRandom()  # ports and names of this run: two runs side by side must not meet
        mark = secrets.token_hex(8)
        agents = [
            Agent(
                workspace=f"chaos-{redelivery.replace('_', '-')}",
                port=free_port(chance),
                folder=folder,
                mark=mark,
                redelivery=redelivery,
            )
            for redelivery in timings.REDELIVERIES
        ]
        ground = Ground.lay(folder)
        proxy = Proxy(folder, ground, free_port(chance), f"hf_{secrets.token_hex(20)}")
        stage = cls(folder, size, proxy, agents, ground, Troubles(ground, proxy, agents))
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
        for number in range(len(self.size.roles())):
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
        await asyncio.to_thread(self.ground.clear)

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

    async def play(self, number: int, planned: Round, chance: random.Random) -> Played:
        """Play one round and compare what everybody says about it."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        start = {agent.workspace: len(agent.read()) for agent in self.agents}
        known = {send.message_id for send in self.sent}
        sends: list[Send] = []
        quiet, over = asyncio.Event(), asyncio.Event()
        quiet.set()
        killer = Killer(self.proxy, self.agents, sends, quiet)
        findings: list[Finding] = []
        async with asyncio.TaskGroup() as group:
            for place, (caller, role) in enumerate(zip(self.callers, self.size.roles(), strict=True)):
                own = random.Random(chance.random())  # noqa: S311 - the same sends for the same seed
                script = Script(
                    number, place, len(self.callers), role, own, self.proxy, self.agents, self.ground, self.troubles
                )
                group.create_task(script.play(caller, sends, quiet, over))
            findings += [] if planned.late else await self._trouble(planned)
            for kill in planned.kills:
                await killer.carry_out(kill)
            findings += await self._trouble(planned) if planned.late else []
            over.set()
            happened = loop.time()
        sent = loop.time()
        self.sent += sends
        findings += await self._heal(planned)
        healed = loop.time()
        await self._follow_all(sends)
        executions = [run for agent in self.agents for run in agent.read()[start[agent.workspace] :]]
        compared = audit(sends, executions, self.followed, known)
        return Played(
            number=number,
            planned=planned,
            missed=killer.missed,
            audit=Audit(counts=compared.counts, findings=(*compared.findings, *findings)),
            seconds=loop.time() - began,
            phases={"happening": happened - began, "sending": sent - happened, "healing": healed - sent},
        )

    async def _trouble(self, planned: Round) -> list[Finding]:
        """Make the round's trouble, if it has one."""
        trouble = planned.trouble
        if trouble is None:
            return []
        await asyncio.sleep(0.3)
        if await self.troubles.make(trouble):
            return []
        await self.proxy.start()
        return [Finding(fault=Fault.DIED, workspace="-", subject=f"during a {trouble.kind}")]

    async def look_again(self) -> Audit:
        """Fetch every answer once more and compare over the whole run: promises hold beyond their round."""
        await self._follow_all(self.sent)
        executions = [run for agent in self.agents for run in agent.read()]
        return audit(self.sent, executions, self.followed, ())

    async def _heal(self, planned: Round) -> list[Finding]:
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
            if lives > agent.kills and planned.trouble is not None and planned.trouble.kind in STARVING:
                agent.kills = lives  # a start that the trouble made fail is no restart without need
            if lives > agent.kills:
                detail = f"{lives} restarts after {agent.kills} kills"
                findings.append(
                    Finding(fault=Fault.NEEDLESS, workspace=agent.workspace, subject="restarts", detail=detail)
                )
                agent.kills = lives  # told once
        doubles = [double for double in await asyncio.to_thread(self.ground.doubles) if double not in self.doubled]
        self.doubled += doubles
        findings += [
            Finding(fault=Fault.DOUBLE, workspace=workspace, subject=message_id, detail=f"deferrals {ids}")
            for workspace, message_id, ids in doubles
        ]
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
