"""Troubles: for a moment, in the middle of a round, the proxy's disk, directory, database or clock is not as it was.

Owns: the kinds, the deck from which a run deals them, how long each lasts, what is excused meanwhile.
Knows nothing of: how a trouble is made (`meddling`), callers, what is right afterwards.

While a trouble lasts the proxy is not killed, but an agent is, shortly before or after it begins: so something must be
put away and an agent restarted while the store cannot write. The harness undoes what it did and touches nothing else;
the round's end then asks of the same proxy what it asks of every round.
"""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from chaos.meddling import Ground
from chaos.processes import Agent, Proxy

GRACE = 1.0
"""Seconds after a trouble in which a refusal may still speak of it."""

UNHEARD = 3.0
"""Seconds after a clock's jump in which an agent that was killed may not have been heard of yet."""

LONGEST_JUMP = 900.0


class TroubleKind(StrEnum):
    """What happens; the words are those of `Ground.lacking`."""

    FULL = "full disk"
    READ_ONLY = "read-only directory"
    LOCKED = "locked database"
    CLOCK = "clock jump"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """One planned trouble: for how long (s), when the agent dies (0 to 1), how far the clock jumps (s)."""

    kind: TroubleKind
    workspace: int
    seconds: float
    moment: float
    jump: float


def deal_troubles(chance: random.Random, *, rounds: int, every: int, workspaces: int) -> list[Trouble | None]:
    """Plan a run: every so many rounds one trouble from a shuffled deck; 0: none."""
    deck: list[TroubleKind] = []
    plan: list[Trouble | None] = []
    for number in range(1, rounds + 1):
        if every <= 0 or number % every:
            plan.append(None)
            continue
        if not deck:
            deck = list(TroubleKind)
            chance.shuffle(deck)
        plan.append(
            Trouble(
                kind=deck.pop(),
                workspace=chance.randrange(workspaces),
                seconds=round(chance.uniform(0.8, 1.8), 3),
                moment=round(chance.random(), 3),
                jump=round(chance.choice((-1, 1)) * chance.uniform(30, LONGEST_JUMP), 1),
            )
        )
    return plan


@dataclass(slots=True)
class Troubles:
    """Makes them, one at a time, and remembers when the store could not write. `made` counts what was made."""

    ground: Ground
    proxy: Proxy
    agents: Sequence[Agent]
    made: dict[TroubleKind, int] = field(default_factory=dict)
    skipped: dict[TroubleKind, int] = field(default_factory=dict)
    _windows: list[tuple[float, float]] = field(default_factory=list)
    _jumps: list[tuple[float, float]] = field(default_factory=list)

    def was_on(self, began: float, ended: float) -> bool:
        """Whether the store could not write at some moment between two instants."""
        return any(start <= ended and began <= end + GRACE for start, end in self._windows)

    def jumped(self, began: float, ended: float) -> bool:
        """Whether the clock jumped so near to two instants that the agent had not been heard of since."""
        return any(start <= ended and began <= end + UNHEARD for start, end in self._jumps)

    async def make(self, trouble: Trouble) -> bool:
        """Make one and undo it; whether the proxy outlived it."""
        if trouble.kind.value in self.ground.lacking:
            self.skipped[trouble.kind] = self.skipped.get(trouble.kind, 0) + 1
            return True
        await self.proxy.up.wait()
        agent, loop = self.agents[trouble.workspace], asyncio.get_running_loop()
        if trouble.moment < 0.5:
            agent.kill()
            await asyncio.sleep(0.5 * trouble.moment)
        start = loop.time()
        windows = self._jumps if trouble.kind is TroubleKind.CLOCK else self._windows
        windows.append((start, float("inf")))
        try:
            await self._do(trouble)
            if trouble.moment >= 0.5:
                await asyncio.sleep(trouble.moment - 0.5)
                agent.kill()
            await asyncio.sleep(trouble.seconds)
        finally:
            await self._undo(trouble)
            windows[-1] = (start, loop.time())
        self.made[trouble.kind] = self.made.get(trouble.kind, 0) + 1
        return self.proxy.runs

    async def _do(self, trouble: Trouble) -> None:
        match trouble.kind:
            case TroubleKind.FULL:
                await self.ground.fill()
            case TroubleKind.READ_ONLY:
                await self.ground.seal()
            case TroubleKind.LOCKED:
                await self.ground.lock()
            case TroubleKind.CLOCK:
                await self.ground.jump(trouble.jump)

    async def _undo(self, trouble: Trouble) -> None:
        match trouble.kind:
            case TroubleKind.FULL:
                await self.ground.drain()
            case TroubleKind.READ_ONLY:
                await self.ground.unseal()
            case TroubleKind.LOCKED:
                await self.ground.unlock()
            case TroubleKind.CLOCK:
                await self.ground.jump(0)
