"""Polling workspaces claim their deferrals: at once, or as soon as there is one.

Owns: who may claim, long polls and what ends them, the fence between a workspace's lives, and what a change of the
delivery mode does to its queue.
Knows nothing of: HTTP, order and backoff (the store's claim and `core.deferral` hold them), what the holder of a lease
does with it (`loops.held_leases`).

Theory of operation. A claim is the replayer's lease with another holder. The lease's owner names the workspace and its
incarnation: what an earlier life held is queued again, marked, by the first claim of the next one.

An empty claim waits for its workspace's *bell*. The bell rings for whatever may give the queue something to hand out (a
deferral came, went back, ended and made room for the next of its context), and for instants: the next backoff that is
over, the next lease that runs out. Between two rings nothing asks the store: the first claim that comes back short
marks the bell *dry*, and everybody who waits believes that until it rings again. A wait also ends when the client goes
away, when the proxy stops, and when the workspace is removed, begins another life or is dialled from now on.

Nothing is leased to a client that is gone: the door looks before it answers, and what could not be written as a whole
is given back, unmarked, since half a JSON document is no answer.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from proxy.clock import Now
from proxy.core.decision import Trigger
from proxy.core.deferral import Deferral, Mishap, poller
from proxy.core.errors import CallerError
from proxy.core.lifecycle import Cause, Desired, Status
from proxy.core.workspace import Workspace, become_ready, meet_boot, of_old_life
from proxy.loops.attempts import Attempts, Ready
from proxy.loops.background import Background
from proxy.loops.continuing import NotNamedYet
from proxy.loops.deferring import Deferring
from proxy.loops.held_leases import old_life
from proxy.loops.insisting import insist
from proxy.loops.readiness import Readiness
from proxy.loops.records import Records
from proxy.loops.routing import Route, Routing
from proxy.store import Store, StoreFailure, Watch
from proxy.store.laws import LIFE_OVER, SWITCHED
from proxy.telemetry import EventName, Telemetry

PULSE = 5.0
"""Seconds after which a wait shows again that somebody waits; shorter than any window of liveness."""
RETRY_SOON = 1
TIDYING = 60.0
"""Seconds for which a write is tried that only tidies up."""
BY_BEAT = frozenset({Status.STARTING, Status.OFFLINE})
"""Statuses that a claim makes ready. One that calls itself degraded knows better."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PollRules:
    """Seconds, and what one claim and one workspace may have; `lease` is what a claim gets that asks for none."""

    items: int
    bytes: int
    wait: float
    waiting: int
    lease: float
    lease_least: float
    lease_most: float

    def lease_of(self, wished: float | None) -> float:
        """The lease that somebody gets who wishes for so many seconds."""
        return min(max(self.lease if wished is None else wished, self.lease_least), self.lease_most)


@dataclass(slots=True)
class Listener:
    """A client that waits. `leave` says that it is gone."""

    gone: bool = False
    nudge: asyncio.Event = field(default_factory=asyncio.Event)

    def leave(self) -> None:
        """The client has left."""
        self.gone = True
        self.nudge.set()


@dataclass(slots=True)
class _Bell:
    """One workspace's bell. `dry`: so many rings had been heard when a claim last came back short.

    `wakes_at`: when time alone may have something to hand out. `fenced`: the incarnation whose predecessors' leases
    this proxy has taken back. `shut`: nothing was handed out, whatever there is, when it was looked at last.
    """

    rings: int = 0
    dry: int = -1
    wakes_at: datetime | None = None
    fenced: int | None = None
    shut: bool = False
    waiting: set[asyncio.Event] = field(default_factory=set)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def ring(self) -> None:
        self.rings += 1
        for nudge in self.waiting:
            nudge.set()


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What a workspace asks for. `lease` and `wait` are seconds, within the rules."""

    boot_id: str | None
    count: int
    wait: float
    lease: float


class Polling:
    """Serves polling workspaces. `expire` takes back leases that ran out, of all workspaces."""

    def __init__(
        self,
        *,
        store: Store,
        records: Records,
        routing: Routing,
        deferring: Deferring,
        attempts: Attempts,
        readiness: Readiness,
        background: Background,
        now: Now,
        telemetry: Telemetry,
        expire: Callable[[], Awaitable[object]],
        rules: PollRules,
    ) -> None:
        self._store = store
        self._records = records
        self._routing = routing
        self._deferring = deferring
        self._attempts = attempts
        self._readiness = readiness
        self._background = background
        self._now = now
        self._telemetry = telemetry
        self._expire = expire
        self.rules = rules
        self._bells: dict[str, _Bell] = {}
        self._stopping = False

    # Bells

    def ring(self, route: Route) -> None:
        """This workspace's queue may have something to hand out. Cheap; call it often."""
        bell = self._bells.get(route.id)
        if bell is not None:
            bell.ring()

    def stop(self) -> None:
        """End every wait, with nothing."""
        self._stopping = True
        for bell in self._bells.values():
            bell.ring()

    def _bell(self, route: Route) -> _Bell:
        return self._bells.setdefault(route.id, _Bell())

    # Claiming

    async def claim(self, route: Route, claim: Claim, listener: Listener) -> Sequence[Ready]:
        """Lease what there is for a workspace, or wait for something; nothing when the wait is over.

        Raises:
            CallerError: 409: another life has begun, or the workspace is dialled; 429: too many of its claims wait.
            StoreFailure: nothing was leased.
        """
        life = await self._greet(route, claim.boot_id)
        bell = self._bell(route)
        if len(bell.waiting) >= self.rules.waiting:
            raise CallerError(
                "TOO_MANY_CLAIMS",
                f"{self.rules.waiting} claims of this workspace wait already",
                status=429,
                retry_after=RETRY_SOON,
            )
        loop = asyncio.get_running_loop()
        until = loop.time() + claim.wait
        bell.waiting.add(listener.nudge)
        try:
            ready = await self._hand_out(route, bell, claim, life, certain=True)
            while not ready and not listener.gone and not self._stopping and loop.time() < until:
                await self._rest(route, bell, listener, until - loop.time())
                self._check(route, life)
                if not listener.gone:
                    route.sign(self._now(), heartbeat=True)
                    ready = await self._hand_out(route, bell, claim, life, certain=False)
            return ready
        finally:
            bell.waiting.discard(listener.nudge)
            if self._routing.get(route.id) is not route:
                self._bells.pop(route.id, None)

    async def _rest(self, route: Route, bell: _Bell, listener: Listener, longest: float) -> None:
        """Wait for the bell, an instant, the client's leaving, or the next sign of life."""
        pause = min(longest, PULSE)
        if bell.wakes_at is not None:
            pause = min(pause, max(0.0, (bell.wakes_at - self._now()).total_seconds()))
        if bell.rings == bell.dry:
            try:
                async with asyncio.timeout(pause):
                    await listener.nudge.wait()
            except TimeoutError:
                pass
        listener.nudge.clear()
        due = bell.wakes_at is not None and bell.wakes_at <= self._now()
        if due or (bell.shut and self._open(route)):
            bell.wakes_at = None
            bell.ring()

    async def _hand_out(self, route: Route, bell: _Bell, claim: Claim, life: int, *, certain: bool) -> Sequence[Ready]:
        """Lease and make ready, whatever becomes of the one who asked: what he does not get goes back."""
        work = asyncio.ensure_future(self._ready(route, bell, claim, life, certain=certain))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            self._background.spawn(self._give_back_of(route, work), name=f"give-back-{route.id}")
            raise

    async def _give_back_of(self, route: Route, work: "asyncio.Future[Sequence[Ready]]") -> None:
        await self.give_back(route, await work)

    async def _ready(self, route: Route, bell: _Bell, claim: Claim, life: int, *, certain: bool) -> Sequence[Ready]:
        while True:
            leased = await self._take(route, bell, claim, life, certain=certain)
            begun: list[Ready] = []
            left = list(leased)
            try:
                self._check(route, life)
                while left:
                    ready = await self._begun(route, left[0])
                    left.pop(0)
                    if ready is not None:
                        begun.append(ready)
            except BaseException:
                for deferral in (*(each.deferral for each in begun), *left):
                    await self._back(route, deferral, "it was not handed out")
                raise
            if begun or not leased:
                return begun

    async def _begun(self, route: Route, deferral: Deferral) -> Ready | None:
        """What its holder gets; None where it has ended, or waits for an earlier message to its task."""
        try:
            return await self._attempts.begin(route, deferral)
        except NotNamedYet as early:
            lately = route.alive_lately(self._now())
            await self._attempts.failed(
                route, deferral, outcome=Mishap.NOT_SENT, reason=str(early), alive_lately=lately
            )
            return None

    async def _take(self, route: Route, bell: _Bell, claim: Claim, life: int, *, certain: bool) -> Sequence[Deferral]:
        """Lease what there is; nothing, and no question to the store, while the bell is dry and nobody is certain."""
        async with bell.lock:
            if not certain and bell.dry == bell.rings:
                return []
            heard, now = bell.rings, self._now()
            bell.shut = not self._open(route)
            count = 0 if bell.shut else await self._room(route, claim.count)
            leased = list(await self._lease(route, claim, life, count, now))
            if leased and len(leased) == count:
                return leased
            # One instant for both questions: what becomes due between two of them would be seen by neither.
            outlook = await self._store.outlook(route.id, now)
            if outlook.lease_ends_at is not None and outlook.lease_ends_at <= now:
                await self._expire()
                now = self._now()
                leased += await self._lease(route, claim, life, count - len(leased), now)
                outlook = await self._store.outlook(route.id, now)
            instants = (outlook.due_at, outlook.lease_ends_at)
            bell.wakes_at = min((at for at in instants if at is not None), default=None)
            bell.dry = heard
            return leased

    async def _lease(self, route: Route, claim: Claim, life: int, count: int, now: datetime) -> Sequence[Deferral]:
        if not count:
            return ()
        owner = poller(route.id, life)
        return await self._attempts.lease_due(
            route, owner, seconds=claim.lease, count=count, now=now, most_bytes=self.rules.bytes
        )

    async def _room(self, route: Route, wished: int) -> int:
        """How many of the wished may be leased: a limit that was set for this workspace holds, the default does not.

        The default is a guess about how much may be pushed at a workspace; one that asks knows how much it can take.
        """
        said = (route.workspace.settings.max_concurrent, route.signs.max_concurrent)
        limits = [limit for limit in said if limit is not None]
        if not limits:
            return wished
        outlook = await self._store.outlook(route.id, self._now())
        return max(0, min(wished, min(limits) - outlook.leased))

    @staticmethod
    def _open(route: Route) -> bool:
        """Whether anything is handed out now: not to a parked workspace, nor while it is being stopped and started."""
        return not route.workspace.parked and route.workspace.status is not Status.RESTARTING

    async def give_back(self, route: Route, items: Sequence[Ready]) -> None:
        """What was leased did not leave this proxy as a whole: queue it again, unmarked."""
        for item in items:
            await self._back(route, item.deferral, "its poller had left before it was handed over")

    async def _back(self, route: Route, deferral: Deferral, reason: str) -> None:
        await self._soon(lambda: self._attempts.give_back(route, deferral, reason), f"give-back-{deferral.id}")

    # Lives

    async def _greet(self, route: Route, boot_id: str | None) -> int:
        """Take note of who claims, and fence off its earlier lives; returns its incarnation.

        Raises:
            CallerError: 409: it is an earlier life, or the workspace is dialled.
        """
        self._check_mode(route)
        if boot_id is not None and of_old_life(route.workspace, boot_id):
            raise old_life(route)
        now, before = self._now(), route.workspace
        route.sign(now, heartbeat=True)
        saved = await self._records.change(
            route,
            lambda known: _claimed(known, boot_id, now),
            decide=lambda after: self._records.decision(after, Trigger.REGISTRATION, _action(before, after)),
        )
        known = route.workspace
        if boot_id is not None and boot_id != known.boot_id:
            raise old_life(route)  # yet another life has come in between
        if saved is not None:
            self._tell(before, saved)
        if known.status is Status.READY and (saved is not None or route.open_cycle is not None):
            await self._readiness.settle(route)
        await self._fence(route, known.incarnation)
        return known.incarnation

    async def _fence(self, route: Route, life: int) -> None:
        """Queue again what earlier lives hold, once in each life."""
        bell = self._bell(route)
        if bell.fenced == life:
            return
        taken = await self._store.release_polled(route.id, but=poller(route.id, life), error=LIFE_OVER, now=self._now())
        bell.fenced = life
        await self._taken_back(route, taken, LIFE_OVER)

    async def _taken_back(self, route: Route, taken: Sequence[Watch], reason: str) -> None:
        for watch in taken:
            self._telemetry.emit(
                EventName.DEFERRAL_RETURNED,
                workspace=route.id,
                receipt=watch.deferral_id,
                incarnation=route.workspace.incarnation,
                fields={"reason": reason, "class": "maybe"},
            )
        await self._deferring.took_back(taken, reason)

    def _tell(self, before: Workspace, after: Workspace) -> None:
        if after.incarnation != before.incarnation:
            self._telemetry.emit(
                EventName.WORKSPACE_INCARNATION, workspace=after.id, incarnation=after.incarnation, rule="boot_id"
            )
        if after.status is not before.status:
            self._telemetry.emit(
                EventName.WORKSPACE_STATUS,
                workspace=after.id,
                incarnation=after.incarnation,
                fields={"status": after.status.value, "cause": "claim"},
            )

    def _check(self, route: Route, life: int) -> None:
        """Refuse to serve on what has ended while somebody waited."""
        if route.workspace.desired is Desired.REMOVED or self._routing.get(route.id) is not route:
            raise CallerError("WORKSPACE_NOT_FOUND", f"workspace {route.id} was removed", status=404)
        if route.workspace.incarnation != life:
            raise old_life(route)
        self._check_mode(route)

    @staticmethod
    def _check_mode(route: Route) -> None:
        if not route.polling:
            text = f"workspace {route.id} is reached by push: it is dialled and claims nothing"
            raise CallerError("NOT_POLLING", text, status=409, facts={"delivery_mode": "push"})

    # Another way to be reached

    async def switched(self, route: Route) -> None:
        """The delivery mode was changed: the queue is open to the new way at once.

        What pollers hold is queued again, marked, when push begins; calls that push has open may end as they will.
        """

        async def tidy() -> None:
            if not route.polling:
                taken = await self._store.release_polled(route.id, but=None, error=SWITCHED, now=self._now())
                await self._taken_back(route, taken, SWITCHED)
            await self._store.hasten(route.id, self._now(), turned_away=True)
            self.ring(route)

        await self._soon(tidy, f"switch-{route.id}")

    async def _soon(self, write: Callable[[], Awaitable[object]], name: str) -> None:
        """Write what only tidies up: now, or, if the store fails, as soon as it can; leases end by themselves."""
        try:
            await write()
        except StoreFailure:
            self._background.spawn(insist(write, seconds=TIDYING), name=name)


def _claimed(known: Workspace, boot_id: str | None, now: datetime) -> Workspace | None:
    """The record after a claim; None where it stays as it is (which is the common case, and costs no write)."""
    after = known
    if boot_id is not None:
        if of_old_life(known, boot_id):
            return None
        if boot_id != known.boot_id or not known.bound:
            after = meet_boot(after, boot_id, now)
    if after.status in BY_BEAT:
        after = become_ready(after, Cause.BEAT, now)
    return after if after is not known else None


def _action(before: Workspace, after: Workspace) -> str:
    if after.incarnation != before.incarnation:
        return "new incarnation"
    return f"status {after.status}" if after.status is not before.status else "boot_id bound"
