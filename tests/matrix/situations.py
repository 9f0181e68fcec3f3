"""What happens around a conversation: nothing, an outage of the agent, its death in the middle, the proxy's death.

Owns: bringing a situation about for many cells at once, so that one outage is everybody's.
Knows nothing of: what the clients do meanwhile (`deeds`).
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from e2e.agents import end_all
from e2e.serving import PATIENCE, QUICK, Serving
from matrix.cells import Cell, Pairing
from matrix.deeds import DEEDS, STREAMING, WAITED_FOR, done
from matrix.hooks import Hooks
from peers.running import GENERATIONS, Agent
from peers.talking import Talker

from proxy.settings import Config

AWAY: Final = {"away": 6.5, "away-30s": 30.0}
"""Seconds of an outage: longer than the Python SDKs wait for a byte by themselves."""

AS_SHIPPED: Final = {key: Config().value(key) for key in QUICK if key != "upstream_allow"}
"""What tests hurry, as an operator has it who sets nothing."""

UNHURRIED: Final = frozenset({"away-30s"})
"""Situations that are played with these settings."""

HELD: Final = {"healthy": 90, "away": 90, "away-30s": 90, "dies": 10, "after": 90, "proxy": 90}
"""Seconds for which callers are held: 90 unless somebody says otherwise; less where an agent never says the truth."""

Key = tuple[Pairing, str]
"""A pairing, and what it does."""


@dataclass
class Stage:
    """A proxy, an agent of each generation behind it, a client process for each SDK."""

    folder: Path
    serving: Serving
    hooks: Hooks = field(default_factory=Hooks)
    talkers: dict[str, Talker] = field(default_factory=dict)

    async def start(self, pairings: Iterable[Pairing]) -> None:
        """Start the proxy, and the clients that are needed."""
        await self.serving.start()
        await self.hooks.start()
        for sdk in {pairing.sdk for pairing in pairings}:
            self.talkers[sdk] = Talker(sdk, self.folder / f"client-{sdk}.log")
            await self.talkers[sdk].start()

    async def stop(self) -> None:
        """Stop everything."""
        for talker in self.talkers.values():
            await talker.stop()
        await self.hooks.stop()
        await self.serving.kill()
        end_all(self.folder)

    async def run(self, situation: str, wanted: list[Key]) -> dict[Key, BaseException | None]:
        """Let everybody do what is wanted in a situation; what went wrong, by who and what."""
        results: dict[Key, BaseException | None] = {}
        by_agent = {name: [key for key in wanted if key[0].agent == name] for name in GENERATIONS}
        plays = [self._play(situation, name, keys, results) for name, keys in by_agent.items() if keys]
        if situation == "proxy":  # the proxy dies for everybody at once
            for play in plays:
                await play
        else:
            await asyncio.gather(*plays)
        return results

    async def _play(
        self, situation: str, generation: str, keys: list[Key], results: dict[Key, BaseException | None]
    ) -> None:
        name = f"{situation}-{generation}".replace(".", "-")
        agent = Agent(generation, self.folder / name)
        back, gone, halfway = asyncio.Event(), asyncio.Event(), asyncio.Event()
        await agent.start()
        try:
            settings = {"dead_action": "defer", "unmanaged_away": "defer", "hold_seconds": HELD[situation]}
            await self.serving.enroll(name, url=agent.url, **settings)
            await self.serving.event("workspace.status", workspace=name, status="ready")
            token, url = await self.serving.client(f"caller-of-{name}"), f"{self.serving.url}/workspaces/{name}/a2a"
            cells = {
                pairing: Cell(pairing, self.talkers[pairing.sdk], agent, url, token, self.hooks, back, gone, halfway)
                for pairing, _ in keys
            }
            for cell in cells.values():
                await cell.connect()
            scene = Scene(self.serving, agent, name, keys, cells, back, gone, halfway)
            await scene.play(situation, results)
        finally:
            await agent.kill()


@dataclass
class Scene:
    """One agent, and everybody who talks with it."""

    serving: Serving
    agent: Agent
    workspace: str
    keys: list[Key]
    cells: dict[Pairing, Cell]
    back: asyncio.Event
    gone: asyncio.Event
    halfway: asyncio.Event
    deeds: dict[Key, "asyncio.Task[BaseException | None]"] = field(default_factory=dict)

    async def play(self, situation: str, results: dict[Key, BaseException | None]) -> None:
        """Bring the situation about while everybody acts."""
        ways: dict[str, Callable[[str], Awaitable[None]]] = {
            "healthy": self._nothing,
            "away": self._outage,
            "away-30s": self._outage,
            "dies": self._death,
            "after": self._farewell,
            "proxy": self._two_deaths,
        }
        if situation in {*AWAY, "after", "proxy"}:
            await self.agent.kill()
        for pairing, what in self.keys:
            deed = done(DEEDS[situation][what], self.cells[pairing])
            self.deeds[pairing, what] = asyncio.create_task(deed)
        await ways[situation](situation)
        results.update(zip(self.keys, await asyncio.gather(*self.deeds.values()), strict=True))

    async def _nothing(self, _: str) -> None:
        self.back.set()

    async def _outage(self, situation: str) -> None:
        await asyncio.sleep(AWAY[situation] / 2)  # the length is the point
        self.halfway.set()
        await asyncio.sleep(AWAY[situation] / 2)
        await self._return()

    async def _return(self) -> None:
        self.back.set()
        await self.agent.start()

    async def _death(self, situation: str) -> None:
        """The agent is killed once it works on everything, and everybody in the middle has seen something."""
        async with asyncio.timeout(PATIENCE):
            while len(self.agent.executed()) < len(self.keys):  # noqa: ASYNC110 - another process writes it
                await asyncio.sleep(0.05)
        await self._begun(situation)
        await self.agent.kill()
        for cell in self.cells.values():
            self.agent.open(cell.gate("dies"))
        await asyncio.sleep(1)
        await self._return()

    async def _farewell(self, situation: str) -> None:
        """The agent comes, does everything, and is killed for good."""
        await self.serving.event("deferral.queued", count=len(self.keys), workspace=self.workspace)
        await self._return()
        await self._begun(situation)
        await self.agent.kill()
        self.gone.set()

    async def _begun(self, situation: str) -> None:
        """Wait until everybody for whom this situation waits has seen the beginning of an answer, or gave up."""
        async with asyncio.timeout(PATIENCE):
            for pairing, what in self.keys:
                if what in WAITED_FOR[situation]:
                    begun = asyncio.create_task(self.cells[pairing].begun[what].wait())
                    await asyncio.wait({begun, self.deeds[pairing, what]}, return_when=asyncio.FIRST_COMPLETED)
                    begun.cancel()

    async def _two_deaths(self, situation: str) -> None:
        """The proxy is killed once it has committed everything, and comes back before the agent."""
        await self.serving.event("deferral.queued", count=len(self.keys), workspace=self.workspace)
        await self._begun(situation)
        await self.serving.kill()
        await self.serving.start()
        await self._return()


def keys_of(pairings: Iterable[Pairing], situation: str) -> list[Key]:
    """Who does what in a situation, where it can be done."""
    return [
        (pairing, what)
        for pairing in pairings
        for what in DEEDS[situation]
        if (pairing.streams or what not in STREAMING) and (pairing.version == "1.0" or what != "list")
    ]
