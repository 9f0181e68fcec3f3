"""Roles: what a caller of each kind does with one message, and what one caller does in a round.

Owns: sending once, waiting only so long, sending again, hanging up and coming back; texts, contexts and pauses.
Knows nothing of: how a request is sent (`callers`), kills, what is right in the end (`ledger`).

What a retry must find is known without any clock: before a caller sends again, the harness looks into the database.
What lies there then, queued, leased or completed, is what the retry must be answered with.
"""

import asyncio
import random
from dataclasses import dataclass

from chaos.callers import Caller, once
from chaos.ledger import Fault, Role, Seen, Send
from chaos.meddling import Ground
from chaos.processes import Agent, Proxy
from chaos.troubles import Troubles
from chaos.waiting import until

UNAVAILABLE, BAD_GATEWAY = 503, 502
JOINED = frozenset({"queued", "leased", "completed"})
NEVER_WENT_OUT = frozenset({"ClientConnectorError", "ConnectionRefusedError"})
PERSISTENCE = 25.0
"""Seconds for which a caller sends again."""

SLOW, SLOWER = "take 1 s", "take 1.6 s"
PATIENCES = ({"X-Timeout": "1"}, {"Prefer": "wait=1"}, {"X-Timeout": "1", "Prefer": "respond-async, wait=5"})
ADOPTION_PATIENCE = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """How many messages a caller sends in a round: at least, and at most however long the kills take."""

    least: int
    most: int


SHARES = {
    Role.CLASSIC: Share(least=5, most=12),
    Role.IMPATIENT: Share(least=1, most=6),
    Role.RETRYING: Share(least=4, most=10),
    Role.LEAVING: Share(least=1, most=5),
}


@dataclass(slots=True)
class Script:
    """What one caller does in one round: which workspaces, contexts, texts and pauses; all of it from the seed."""

    number: int
    place: int
    callers: int
    role: Role
    chance: random.Random
    proxy: Proxy
    agents: list[Agent]
    ground: Ground
    troubles: Troubles

    async def play(self, caller: Caller, sends: list[Send], quiet: asyncio.Event, over: asyncio.Event) -> None:
        """Send until the kills are over, at least the round's share, at most its limit."""
        share = SHARES[self.role]
        loop = asyncio.get_running_loop()
        await asyncio.sleep(self.chance.uniform(0, 0.3))
        for turn in range(share.most):
            if turn >= share.least and over.is_set():
                return
            await quiet.wait()
            await self.proxy.up.wait()
            agent = self.chance.choice(self.agents)
            send = self.next(caller, turn, agent, loop.time())
            sends.append(send)
            await ACTS[self.role](self, caller, send, agent)
            send.ended = loop.time()
            self._excuse(send, agent)
            await asyncio.sleep(self.chance.uniform(0.02, 0.4))

    def next(self, caller: Caller, turn: int, agent: Agent, now: float) -> Send:
        """The next message: a third in a context of the caller's own, a third in a shared one, a third without any."""
        kind = self.chance.randrange(3)
        own = f"r{self.number}-{agent.workspace}-own-{self.place}"
        shared = f"r{self.number}-{agent.workspace}-shared-{self.place % max(1, self.callers // 4)}"
        message_id = f"r{self.number}-c{self.place}-m{turn}-{self.chance.getrandbits(32):08x}"
        pace = " take 0.4 s" if self.chance.random() < 0.2 else ""
        pace = {Role.IMPATIENT: f" {SLOWER}", Role.LEAVING: f" {SLOW}"}.get(self.role, pace)
        return Send(
            message_id=message_id,
            workspace=agent.workspace,
            context_id=(own, shared, None)[kind],
            caller=caller.name,
            text=f"message {message_id}{pace}",
            began=now,
            role=self.role,
            never=agent.never,
        )

    def _excuse(self, send: Send, agent: Agent) -> None:
        """Say what the harness itself has done to this message, and what nothing that it did excuses."""
        troubled, unsettled = self.troubles.was_on(send.began, send.ended), self.troubles.jumped(send.began, send.ended)
        if send.seen is Seen.BROKEN:
            send.excused = not self._persists() and self.proxy.was_down(send.began, send.ended)
        if send.seen is not Seen.REFUSED:
            return
        send.declined = (
            (send.never, send.status, send.delivered) == (True, BAD_GATEWAY, "maybe")
            and agent.died(send.began, send.ended)
        )  # fmt: skip
        polite = send.status == UNAVAILABLE and send.retry_after
        send.excused = (troubled or unsettled) and polite and not self._persists()
        broke_off = send.delivered in {"maybe", "yes"} and agent.died(send.began, send.ended)
        if troubled and not polite and not broke_off:
            send.faults.append(Fault.RUDE)

    def _persists(self) -> bool:
        return self.role in {Role.RETRYING, Role.LEAVING}

    # The roles

    async def classic(self, caller: Caller, send: Send, _: Agent) -> None:
        """Once, and wait."""
        await once(caller, send)
        send.loose = 1

    async def impatient(self, caller: Caller, send: Send, _: Agent) -> None:
        """Once, with a patience that is shorter than the agent is slow: only a deferral can be the answer."""
        await once(caller, send, self.chance.choice(PATIENCES))
        send.loose = 1
        if send.seen is Seen.ANSWERED:
            send.faults.append(Fault.IGNORED)

    async def retrying(self, caller: Caller, send: Send, _: Agent) -> None:
        """Again and again while the connection breaks or 503 is the answer."""
        await once(caller, send)
        send.loose = went_out(send)
        await self._again(caller, send)

    async def leaving(self, caller: Caller, send: Send, agent: Agent) -> None:
        """Hang up while the agent executes; come back later with the same message id."""
        loop = asyncio.get_running_loop()
        before = len(agent.read())
        call = asyncio.create_task(once(caller, send))

        def executes() -> bool:
            return call.done() or any(run.message_id == send.message_id for run in agent.read()[before:])

        await until(executes, within=4.0, every=0.02)
        await asyncio.wait({call}, timeout=self.chance.uniform(0, 0.3))
        if call.done():
            send.loose = went_out(send)
            await self._again(caller, send)
            return
        call.cancel()
        await asyncio.wait({call})
        send.left, send.seen, send.reason, send.loose = True, Seen.BROKEN, "left", 1

        def adopted() -> bool:
            return self.ground.stored(send.workspace, send.message_id) is not None

        found = await until(adopted, within=ADOPTION_PATIENCE, every=0.05)
        disturbed = self.proxy.was_down(send.began, loop.time()) or self.troubles.was_on(send.began, loop.time())
        if not found and not disturbed and not (agent.never and agent.died(send.began, loop.time())):
            send.faults.append(Fault.UNADOPTED)
        await asyncio.sleep(self.chance.uniform(0, 0.8))
        await self._once_more(caller, send)
        await self._again(caller, send)

    async def _again(self, caller: Caller, send: Send) -> None:
        """Send again until something else than a broken connection or 503 is the answer."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + PERSISTENCE
        while (send.seen is Seen.BROKEN or send.status == UNAVAILABLE) and loop.time() < deadline:
            await asyncio.sleep(self.chance.uniform(0.1, 0.5))
            await self._once_more(caller, send)

    async def _once_more(self, caller: Caller, send: Send) -> None:
        """Send it again; what lay in the database before must be what it is answered with."""
        found = self.ground.stored(send.workspace, send.message_id)
        send.known = found[0] if found is not None and found[1] in JOINED else None
        await once(caller, send)
        if send.accepted and send.receipt is not None and send.receipt == send.known:
            send.joined += 1
        elif send.known is None or self.ground.state(send.known) not in JOINED:  # given up meanwhile: its key is free
            send.loose += went_out(send)
        elif send.accepted:
            send.faults.append(Fault.UNJOINED)


def went_out(send: Send) -> int:
    """1 where the last time that it was sent may have brought it to the agent by itself, 0 where it cannot have."""
    refused = send.seen is Seen.REFUSED and send.delivered == "no"
    return 0 if refused or send.reason in NEVER_WENT_OUT else 1


ACTS = {role: getattr(Script, f"{role.value}") for role in Role}
"""What each role does with one message."""
