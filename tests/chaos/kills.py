"""Kill points: where in a request's life something dies.

Owns: the points, the deck from which a run deals them, and how each is hit.
Knows nothing of: callers, what is right afterwards.

A point is hit by watching for the event that it is named after (a line in the agent's account, a caller's 202, bytes in
the database's log, a new process) and killing a moment later; the moment comes from the seed. An event that does not
come in time is not waited for for ever: the kill then hits wherever things are.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from chaos.ledger import Seen, Send
from chaos.processes import Agent, Proxy
from chaos.waiting import until

EVENT_PATIENCE = 4.0
SCAN = 0.02


class Point(StrEnum):
    """Where a kill hits."""

    AGENT_BEFORE = "agent, before the request"
    AGENT_EXECUTING = "agent, while it executes"
    AGENT_ANSWERING = "agent, about when it answers"
    AGENT_BOOTING = "agent, while it boots after a death"
    AGENT_REPLAYING = "agent, while it executes a replay"
    PROXY_BEFORE = "proxy, before the request"
    PROXY_FORWARDING = "proxy, while the agent executes"
    PROXY_COMMITTING = "proxy, while a deferral is committed"
    PROXY_ACCEPTED = "proxy, right after a 202"
    PROXY_RESTARTING = "proxy, while it restarts the agent"
    PROXY_REPLAYING = "proxy, while a replay executes"
    PROXY_STARTING = "proxy, while it starts after a death"
    AGENT_ADOPTED = "agent, while an adopted call runs"
    PROXY_ADOPTED = "proxy, while an adopted call runs"
    AGENT_UNWATCHED = "agent, while there is no proxy"
    BOTH_EXECUTING = "both, while the agent executes"
    BOTH_REPLAYING = "both, while a replay executes"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """One planned kill: where, of which workspace, after which pause (s), and how long after its event (0 to 1)."""

    point: Point
    workspace: int
    pause: float
    moment: float


def deal(chance: random.Random, *, kills: Sequence[int], workspaces: int) -> list[list[Kill]]:
    """Plan a run: so many `kills` in each round, from a shuffled deck of all points: each comes equally often."""
    deck: list[Point] = []
    plan = []
    for number in kills:
        hand = []
        for _ in range(number):
            if not deck:
                deck = list(Point)
                chance.shuffle(deck)
            hand.append(
                Kill(
                    point=deck.pop(),
                    workspace=chance.randrange(workspaces),
                    pause=round(chance.uniform(0.05, 0.4), 3),
                    moment=round(chance.random(), 3),
                )
            )
        plan.append(hand)
    return plan


@dataclass(slots=True)
class Killer:
    """Carries out kills. `sends` grows while it works; `quiet` keeps callers from sending while it is cleared."""

    proxy: Proxy
    agents: Sequence[Agent]
    sends: Sequence[Send]
    quiet: asyncio.Event
    missed: int = 0

    async def carry_out(self, kill: Kill) -> None:
        """Wait for the event, kill, and see that the proxy runs again."""
        agent = self.agents[kill.workspace]
        await asyncio.sleep(kill.pause)
        await HIT[kill.point](self, agent, kill.moment)
        if not self.proxy.up.is_set():
            await asyncio.sleep(0.3 * kill.moment)
            await self.proxy.start()

    # Events

    async def _event(self, came: Callable[[], bool], *, every: float = 0.005) -> None:
        if not await until(came, within=EVENT_PATIENCE, every=every):
            self.missed += 1

    async def _execution(self, agent: Agent) -> None:
        before = len(agent.read())
        await self._event(lambda: len(agent.read()) > before)

    async def _accepted(self, agent: Agent) -> None:
        before = self._deferred(agent)
        await self._event(lambda: bool(self._deferred(agent) - before))

    async def _replay(self, agent: Agent) -> None:
        """A deferral runs: a line in the account names a message whose caller holds a 202."""
        before = len(agent.read())
        await self._event(
            lambda: bool({run.message_id for run in agent.read()[before:]} & self._deferred(agent)),
        )

    def _deferred(self, agent: Agent) -> set[str]:
        return {
            send.message_id
            for send in self.sends
            if send.seen is Seen.DEFERRED and send.workspace == agent.workspace and send.ended
        }

    async def _adoption(self, agent: Agent) -> None:
        """A call outlives its caller's patience: its deferral is committed, and the agent is still at it."""
        before = self._adopted(agent)
        await self._event(lambda: bool(self._adopted(agent) - before))

    def _adopted(self, agent: Agent) -> set[str]:
        return {send.message_id for send in self.sends if send.adopted and send.workspace == agent.workspace}

    async def _process(self, agent: Agent) -> None:
        await self._event(lambda: bool(agent.pids()), every=SCAN)

    async def _alive(self, agent: Agent) -> None:
        """Begin from a running agent, as far as one comes in time."""
        await until(lambda: bool(agent.pids()), within=EVENT_PATIENCE, every=SCAN)

    async def _silence(self) -> None:
        """Let no request begin, and wait until none is under way."""
        self.quiet.clear()
        await self._event(lambda: all(send.ended for send in self.sends))

    # Points

    async def _agent_before(self, agent: Agent, moment: float) -> None:
        await self._silence()
        agent.kill()
        await asyncio.sleep(0.02 * moment)
        self.quiet.set()

    async def _agent_executing(self, agent: Agent, moment: float) -> None:
        await self._execution(agent)
        await asyncio.sleep(0.08 * moment)
        agent.kill()

    async def _agent_answering(self, agent: Agent, moment: float) -> None:
        await self._execution(agent)
        await asyncio.sleep(0.095 + 0.02 * moment)
        agent.kill()

    async def _agent_booting(self, agent: Agent, moment: float) -> None:
        await self._alive(agent)
        agent.kill()
        await until(lambda: not agent.pids(), within=EVENT_PATIENCE, every=SCAN)
        await self._process(agent)
        await asyncio.sleep(1.2 * moment)
        agent.kill()

    async def _agent_replaying(self, agent: Agent, moment: float) -> None:
        agent.kill()
        await self._replay(agent)
        await asyncio.sleep(0.1 * moment)
        agent.kill()

    async def _proxy_before(self, _: Agent, moment: float) -> None:
        await self._silence()
        await self.proxy.kill()
        await asyncio.sleep(0.1 * moment)
        await self.proxy.start()
        self.quiet.set()

    async def _proxy_forwarding(self, agent: Agent, moment: float) -> None:
        await self._execution(agent)
        await asyncio.sleep(0.12 * moment)
        await self.proxy.kill()

    async def _proxy_committing(self, agent: Agent, moment: float) -> None:
        """The death of the agent makes its callers' requests deferrals; the first bytes of them end the proxy."""
        await self._execution(agent)
        log = self.proxy.database.with_name(self.proxy.database.name + "-wal")

        def size() -> tuple[int, int]:
            found = log.stat() if log.exists() else None
            return (found.st_size, found.st_mtime_ns) if found is not None else (0, 0)

        before = size()
        agent.kill()
        await self._event(lambda: size() != before, every=0.001)
        await asyncio.sleep(0.01 * moment)
        await self.proxy.kill()

    async def _proxy_accepted(self, agent: Agent, moment: float) -> None:
        agent.kill()
        await self._accepted(agent)
        await asyncio.sleep(0.01 * moment)
        await self.proxy.kill()

    async def _proxy_restarting(self, agent: Agent, moment: float) -> None:
        await self._alive(agent)
        agent.kill()
        await asyncio.sleep(0.25 * moment)
        await self.proxy.kill()

    async def _proxy_replaying(self, agent: Agent, moment: float) -> None:
        agent.kill()
        await self._replay(agent)
        await asyncio.sleep(0.12 * moment)
        await self.proxy.kill()

    async def _proxy_starting(self, _: Agent, moment: float) -> None:
        await self.proxy.kill()
        await self.proxy.launch()
        await asyncio.sleep(1.2 * moment)
        await self.proxy.kill()

    async def _agent_adopted(self, agent: Agent, moment: float) -> None:
        await self._adoption(agent)
        await asyncio.sleep(0.7 * moment)
        agent.kill()

    async def _proxy_adopted(self, agent: Agent, moment: float) -> None:
        await self._adoption(agent)
        await asyncio.sleep(0.7 * moment)
        await self.proxy.kill()

    async def _agent_unwatched(self, agent: Agent, moment: float) -> None:
        await self.proxy.kill()
        await asyncio.sleep(0.1 * moment)
        agent.kill()

    async def _both_executing(self, agent: Agent, moment: float) -> None:
        await self._execution(agent)
        await self._both(agent, moment)

    async def _both_replaying(self, agent: Agent, moment: float) -> None:
        agent.kill()
        await self._replay(agent)
        await self._both(agent, moment)

    async def _both(self, agent: Agent, moment: float) -> None:
        await asyncio.sleep(0.05 * moment)
        if moment < 0.5:
            agent.kill()
        await self.proxy.kill()
        agent.kill()


HIT: dict[Point, Callable[[Killer, Agent, float], Awaitable[None]]] = {
    point: getattr(Killer, f"_{point.name.lower()}") for point in Point
}
"""How each point is hit."""
