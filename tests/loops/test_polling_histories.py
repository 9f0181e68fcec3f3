"""Any history of claims, extensions, silences, answers, failures and boots: what a model says of each of them.

The model is a dictionary: for every deferral the lease that was handed out last, while it lasts and its life goes on.
In virtual time, over the real parts of a whole proxy.
"""

import asyncio
import json
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from simulation.virtual_time import run
from simulation.world import World, clock, message

from proxy.core import a2a
from proxy.core.deferral import ACTIVE, State, StoredAnswer
from proxy.core.errors import CallerError
from proxy.core.workspace import DeliveryMode
from proxy.loops.attempts import Ready
from proxy.loops.deferring import Incoming
from proxy.loops.polling import Claim, Listener

BOOTS = ("b0", "b1", "b2")
CONTEXTS = (None, None, "talk", "other")
BUDGET = 4

Step = tuple[str, int, int]
WORDS = [
    *("send", "claim", "claim", "wait", "complete", "complete", "fail", "extend"),
    *("send", "claim", "complete", "fail", "extend", "give up", "boot", "crash"),
]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(WORDS),
        st.integers(0, 7),
        st.integers(1, 40),
    ),
    min_size=30,
    max_size=60,
)


@dataclass(slots=True)
class Held:
    """A lease as its holder knows it: while it is the latest of its deferral, in time, and of the life that goes on."""

    ready: Ready
    until: float
    life: int


@dataclass(slots=True)
class Model:
    """What must be true."""

    sent: list[str] = field(default_factory=list)
    contexts: dict[str, str | None] = field(default_factory=dict)
    latest: dict[str, Held] = field(default_factory=dict)
    ended: dict[str, State] = field(default_factory=dict)
    all_held: list[Held] = field(default_factory=list)
    boot: int = 0
    life: int = 0

    def valid(self, held: Held) -> bool:
        name = held.ready.deferral.id
        is_latest = self.latest.get(name) is held
        return is_latest and name not in self.ended and clock() < held.until and held.life == self.life


class History:
    """One story: a proxy, a polling workspace that may boot again, and the model beside it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.model = Model()

    async def start(self) -> None:
        await self.world.start({"queue.attempts": BUDGET, "queue.backoff": 0.5, "queue.backoff_cap": 4})

    @property
    def app(self) -> Any:
        return self.world.app

    async def send(self, context: str | None) -> None:
        name = f"m{len(self.model.sent)}"
        body = message(name, message_id=name, context_id=context)
        call = a2a.read("POST", "", None, "application/json", body)
        incoming = Incoming(
            call=call, method="POST", tail="", headers=(), body=body, caller="client:c", request_id=f"r-{name}"
        )
        receipt = await self.app.deferring.put(self.world.route(), incoming, maybe=False, error="poll", decision=None)
        self.model.sent.append(receipt.deferral.id)
        self.model.contexts[receipt.deferral.id] = context

    async def claim(self, count: int, lease: float) -> list[Held]:
        model = self.model
        claim = Claim(boot_id=BOOTS[model.boot], count=count, wait=0, lease=lease)
        items = await self.app.polling.claim(self.world.route(), claim, Listener())
        model.life = self.world.route().workspace.incarnation
        before = {held.ready.deferral.id for held in model.latest.values() if model.valid(held)}
        got = []
        for ready in items:
            name = ready.deferral.id
            assert name not in before, "a second valid lease for one deferral"
            assert name not in model.ended, "handed out after its end"
            busy = {model.contexts[held.ready.deferral.id] for held in model.latest.values() if model.valid(held)}
            assert model.contexts[name] is None or model.contexts[name] not in busy, "two of one context at once"
            assert ready.deferral.maybe is (name in model.latest), "a repetition is marked, and nothing else"
            assert ready.token not in {held.ready.token for held in model.all_held}
            held = Held(ready=ready, until=clock() + lease, life=model.life)
            model.latest[name] = held
            model.all_held.append(held)
            got.append(held)
        return got

    async def use(self, held: Held, verb: str, lease: float) -> None:
        """Do something with a lease; it works exactly while the model says that it is valid."""
        valid = self.model.valid(held)
        event(f"{verb} {'works' if valid else 'is refused'}")
        refused = await self._done(held, verb, lease)
        assert (refused is None) is valid, f"{verb} with a lease that is {'valid' if valid else 'over'}: {refused}"
        assert refused is None or refused.status == 409

    async def _done(self, held: Held, verb: str, lease: float) -> CallerError | None:
        """Do it, and tell the model; or say how it was refused."""
        model, name, route, leases = self.model, held.ready.deferral.id, self.world.route(), self.app.leases
        try:
            deferral = await leases.held(route, name, held.ready.token, boot_id=None, whole=verb == "complete")
            if verb == "complete":
                answer = StoredAnswer(status=200, headers=(), body=answer_to(held.ready.body))
                model.ended[name] = (await leases.complete(route, deferral, answer, 200)).state
            elif verb == "extend":
                await leases.extend(deferral, held.ready.token, lease)
                held.until = clock() + lease
            else:
                settled = await leases.fail(route, deferral, "no", retry=verb == "fail")
                held.until = clock()
                if settled.state is State.DEAD_LETTERED:
                    model.ended[name] = settled.state
        except CallerError as refused:
            return refused
        return None

    async def boot(self) -> None:
        """The next life of the workspace; it shows itself by its first claim."""
        if self.model.boot + 1 < len(BOOTS):
            self.model.boot += 1
            for held in await self.claim(1, 10.0):
                assert held.life == self.model.life

    async def play(self, steps: list[Step]) -> None:
        held = self.model.all_held
        for what, which, seconds in steps:
            if what == "send":
                await self.send(CONTEXTS[which % len(CONTEXTS)])
            elif what == "claim":
                await self.claim(1 + which % 3, float(seconds))
            elif what == "wait":
                await asyncio.sleep(seconds)
            elif what == "boot":
                await self.boot()
            elif what == "crash":
                await self.world.crash()
                await self.start()
            elif held:
                await self.use(held[-1 - which % len(held)], what, float(seconds))
            await self.look()

    async def look(self) -> None:
        """Nothing vanishes, and the store agrees about what has ended."""
        rows = {name: await self.world.deferral(name) for name in self.model.sent}
        for name, row in rows.items():
            if name in self.model.ended:
                assert row.state is self.model.ended[name]
            else:
                assert row.state in ACTIVE or row.state is State.DEAD_LETTERED
        leased = [row for row in rows.values() if row.state is State.LEASED]
        tokens = [row.lease.token for row in leased if row.lease is not None]
        assert len(tokens) == len(set(tokens)) == len(leased)

    async def finish(self) -> None:
        """A last life that completes whatever it gets: then everything has ended, and is accounted for."""
        for _ in range(200):
            for held in await self.claim(3, 30.0):
                await self.use(held, "complete", 0)
            await asyncio.sleep(1.0)
            if not self.world.route().size.rows:
                break
        for name in self.model.sent:
            row = await self.world.deferral(name)
            assert row.state not in ACTIVE, "it never came to an end"
            if row.state is State.DEAD_LETTERED and name not in self.model.ended:
                assert row.attempts >= BUDGET
            assert (row.answer is not None) is (row.state is State.COMPLETED)


def answer_to(body: bytes) -> bytes:
    said = json.loads(body)["params"]["message"]
    task = {"kind": "task", "id": said["messageId"], "contextId": said["contextId"], "status": {"state": "completed"}}
    return json.dumps({"jsonrpc": "2.0", "id": 1, "result": task}).encode()


async def story(steps: list[Step], folder: Path) -> None:
    world = World(folder)
    await world.given(managed=False, url=None, delivery_mode=DeliveryMode.POLL, boot_id=BOOTS[0], bound=True, sign=-1)
    history = History(world)
    await history.start()
    await history.play(steps)
    await history.finish()
    await world.stop()


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=STEPS)
def test_at_most_one_lease_is_valid_and_nothing_vanishes_whatever_happens(steps: list[Step]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        run(story(steps, Path(folder)))
