"""One client of one SDK with one agent over one binding, in one situation: what a test can do with it.

Owns: a cell's name, its calls, its messages and what its agent made of them.
Knows nothing of: which situation it is in, what is expected.
"""

import asyncio
from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import Any, Final

from matrix.hooks import LONG, Hooks
from peers.running import GENERATIONS, Agent
from peers.talking import SDKS, Call, Event, Talker

BINDINGS: Final = ("JSONRPC", "HTTP+JSON")
ENDS: Final = frozenset({"completed", "failed", "canceled", "rejected"})


@dataclass(frozen=True, slots=True)
class Pairing:
    """Who talks with whom, and how."""

    sdk: str
    agent: str
    binding: str

    @property
    def name(self) -> str:
        """As it stands in a test's name."""
        return f"{self.sdk} to {self.agent} over {'JSON-RPC' if self.binding == 'JSONRPC' else 'REST'}"

    @property
    def version(self) -> str:
        """The version that they speak: the newer one that both know."""
        return "1.0" if self.sdk.endswith("1.x") and self.agent == "1.x" else "0.3"

    @property
    def streams(self) -> bool:
        """JavaScript's REST client of 0.3.x cannot read the events of Python's server of 0.3.x, without any proxy."""
        return (self.sdk, self.agent, self.binding) != ("js 0.3.x", "0.3.x", "HTTP+JSON")


PAIRINGS: Final = tuple(Pairing(sdk, agent, binding) for sdk in SDKS for agent in GENERATIONS for binding in BINDINGS)
SHORT: Final = tuple(pairing for pairing in PAIRINGS if pairing.sdk == pairing.agent)
"""Those that every run of the tests tries."""


@dataclass
class Cell:
    """A pairing in a situation.

    `back` is set when the outage, if there is one, is over, `halfway` in its middle, `gone` when the agent is away for
    good; a deed sets its own `begun` where the situation waits for it. `newcomer`: a client that was not there when the
    situation began.
    """

    pairing: Pairing
    talker: Talker
    agent: Agent
    url: str
    token: str
    hooks: Hooks
    back: asyncio.Event
    gone: asyncio.Event
    halfway: asyncio.Event
    begun: dict[str, asyncio.Event] = field(default_factory=lambda: defaultdict(asyncio.Event))
    newcomer: bool = False

    @property
    def at(self) -> str:
        """The client's name in its process, and the beginning of all names that it gives."""
        name = "-".join((*self.pairing.name.replace(" ", "-").replace("+", "-").split(), self.url.split("/")[4]))
        return f"{name}-newcomer" if self.newcomer else name

    def do(self, what: str, **more: Any) -> Call:
        """A call."""
        return self.talker.do(self.at, what, **more)

    async def connect(self) -> Event:
        """Fetch the card."""
        return await self.do("connect", url=self.url, token=self.token, binding=self.pairing.binding).one()

    def gate(self, name: str) -> str:
        """A gate of its own."""
        return f"{self.at}-{name}"

    def send(self, name: str, text: str, mode: str = "unary", **more: Any) -> Call:
        """Send a message; its id begins with the cell's name."""
        return self.do("send", mode=mode, text=text, message=f"{self.at}-{name}", **more)

    def another(self) -> "Cell":
        """The same in every respect, but with a client of its own, which has seen nothing yet."""
        return replace(self, newcomer=True)

    def push(self, name: str) -> dict[str, str]:
        """A push configuration of its own."""
        url = f"{self.hooks.url}/{self.at}-{name}"
        return {"url": url, "token": f"word-of-{name}", "credentials": f"secret-of-{name}"}

    async def now(self, task: str) -> Event:
        """What a task is now."""
        return await self.do("get", task=task).one()

    async def answered(self, event: Event) -> Event:
        """What a message that waits is answered with in the end.

        Over JSON-RPC its caller is held until then. Over REST a caller can be held only for as long as its SDK waits
        for the first byte; then the answer is a submitted task, and its caller follows it.
        """
        if self.pairing.binding == "JSONRPC" or event["state"] not in {"submitted", "working"}:
            return event
        return await self.ended(event["task"], *ENDS, "input-required")

    async def ended(self, task: str, *states: str) -> Event:
        """Ask for a task until it has ended, or is in one of these states, as a client that polls does."""
        pause = 0.2
        async with asyncio.timeout(LONG):
            while True:
                event = await self.now(task)
                if event["state"] in (states or ENDS):
                    return event
                await asyncio.sleep(pause)
                pause = min(1.0, 1.5 * pause)

    async def lived(self, task: str) -> list[str]:
        """The states through which a task goes until it ends, as a client sees them that asks every second."""
        states: list[str] = []
        async with asyncio.timeout(LONG):
            while not states or states[-1] not in ENDS:
                event = await self.now(task)
                assert event["task"] == task
                if states[-1:] != [event["state"]]:
                    states.append(event["state"])
                await asyncio.sleep(1)
        return states

    def executed(self, name: str) -> list[dict[str, Any]]:
        """How often its agent began that message, and as what."""
        return [one for one in self.agent.executed() if one["message"] == f"{self.at}-{name}"]


def told(events: list[Event]) -> str:
    """The text of a task that was told in events: what the first task had, and every piece after it."""
    return "".join(event.get("text") or "" for event in events if event["kind"] in {"task", "artifact", "message"})


def one_story(events: list[Event]) -> str:
    """Check what every stream keeps to; return its task's id.

    A task comes first and only once, everything speaks of the same task, and the last event is a state that ends.
    """
    assert events, "the stream ended without an event"
    assert events[0]["kind"] == "task", events
    assert [event["kind"] for event in events].count("task") == 1, events
    (task,) = {event["task"] for event in events}
    assert events[-1]["state"] in ENDS | {"input-required", "auth-required"}, events
    return str(task)
