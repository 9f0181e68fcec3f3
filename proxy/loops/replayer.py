"""The replayer: leases a workspace's deferrals in order and sends them when it is back.

Owns: the bell, the sweep, slow start, lease renewal, and the order of a try: ask, send, write.
Knows nothing of: how a deferral came to be, how order is kept (the store's claim does), what the outcome of a try makes
of a deferral (`loops.attempts`), how a request is sent and its answer read (`loops.streamed_tries`, `loops.taking_up`).

Theory of operation. The replayer is a lease holder like any other; it only lives inside the proxy. A bell (readiness,
registration, a beat, a finished replay, a new deferral for a healthy workspace) wakes the workspace's drain; a sweep
rings for every queue whose head is due, bell or no bell. A drain leases up to its window and sends each lease in a task
of its own, while a ticker renews all open leases. After a recovery the window starts at 1 and doubles with each
completed replay, up to the workspace's capacity less the calls that are in flight already.

Only one try is ever made per lease; what it led to is written with the lease's token, and therefore ignored if the
lease was lost meanwhile. A write that the store refuses is tried again (`loops.insisting`) while the lease is renewed;
whoever gives up lets the lease end. A workspace that begins to poll while a lease waits to be sent gets it back unsent.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from proxy.clock import Now
from proxy.core import a2a
from proxy.core.decision import Trigger
from proxy.core.deferral import Deferral, Lease, Mishap, State, StoredAnswer
from proxy.core.lifecycle import Status
from proxy.core.liveness import Verdict
from proxy.core.outcome import Outcome
from proxy.loops.attempts import Attempts, Ready
from proxy.loops.background import Background
from proxy.loops.continuing import NotNamedYet
from proxy.loops.dialing import Dialer, Failed
from proxy.loops.gate import Gate
from proxy.loops.insisting import Insistence
from proxy.loops.queue_sizes import QueueSizes
from proxy.loops.routing import Route, Routing
from proxy.loops.streamed_tries import LeaseLost, Told, Tries, Unfinished
from proxy.loops.taking_up import Forgotten, NotTaken, TakingUp
from proxy.store import Store, StoreFailure

MOST_DUE = 1000


@dataclass(slots=True)
class _Drain:
    """One workspace's replaying: its window, its open leases, and whether somebody rang meanwhile.

    `since` is when the workspace became ready, as far as this drain has heard of it. `dialing` counts its tries that
    are among the workspace's calls in flight by now.
    """

    window: int = 1
    rung: bool = False
    since: datetime | None = None
    task: asyncio.Task[None] | None = None
    open: dict[str, Deferral] = field(default_factory=dict)
    dialing: int = 0
    adopted: dict[str, Deferral] = field(default_factory=dict)
    tries: dict[str, asyncio.Event] = field(default_factory=dict)


class Replayer:
    """Delivers what was put away."""

    def __init__(
        self,
        *,
        store: Store,
        routing: Routing,
        attempts: Attempts,
        tries: Tries,
        taking_up: TakingUp,
        insistence: Insistence,
        dialer: Dialer,
        gate: Gate,
        background: Background,
        now: Now,
        owner: str,
        lease: float,
        expect_after: float,
        sizes: QueueSizes,
    ) -> None:
        self._store = store
        self._routing = routing
        self._attempts = attempts
        self._tries = tries
        self._taking_up = taking_up
        self._insistence = insistence
        self._dialer = dialer
        self._gate = gate
        self._background = background
        self._now = now
        self._owner = owner
        self._lease = lease
        self._expect_after = expect_after
        self._sizes = sizes
        self._drains: dict[str, _Drain] = {}
        self._stopping = False
        self.refused: Callable[[Route], None] = lambda _: None
        """Hears of every delivery that found nobody there."""
        self.behind = False
        """Leases of open calls could not be renewed the last time."""

    # Bells

    def ring(self, route: Route) -> None:
        """Somebody thinks that this workspace's queue may move. Cheap; call it often."""
        if route.size.rows == 0 or self._stopping or not self._may_dial(route):
            return
        drain = self._drains.setdefault(route.id, _Drain())
        drain.rung = True
        if drain.task is None or drain.task.done():
            drain.task = self._background.spawn(self._drain(route, drain), name=f"drain-{route.id}")

    def expect(self, route: Route) -> None:
        """Something was put away for a workspace that may listen again in a moment: try soon, before the sweep does."""
        self._background.once(f"bell-{route.id}", self._expect_after, lambda: self._ring_later(route))

    def recovered(self, route: Route) -> None:
        """The workspace is ready. If that is news it came back: begin slowly, and let nothing wait for its backoff."""
        drain = self._drains.setdefault(route.id, _Drain())
        if drain.since == route.workspace.ready_at or self._stopping:
            self.ring(route)
            return
        drain.since = route.workspace.ready_at
        drain.window = 1
        self.answers_again(route)

    def answers_again(self, route: Route) -> None:
        """Somebody is there again: let nothing wait for its backoff."""
        if route.size.rows and not self._stopping:
            self._background.spawn(self._hasten(route), name=f"hasten-{route.id}")

    async def _hasten(self, route: Route) -> None:
        """What was refused while nobody listened has backed off for longer and longer; that is over."""
        try:
            await self._store.hasten(route.id, self._now())
        finally:
            self.ring(route)

    async def sweep(self) -> None:
        """Set right what is counted of queues, then ring for every one whose head is due."""
        due = [self._routing.get(workspace_id) for workspace_id in await self._store.due(self._now(), limit=MOST_DUE)]
        for route in due:
            if route is not None and route.size.rows == 0:
                self._sizes.doubt(route)
        await self._sizes.compare()
        for route in due:
            if route is not None:
                self.ring(route)
                self._attempts.moved(route)

    async def renew(self) -> None:
        """Renew the lease of every call that is still open."""
        until = self._now() + timedelta(seconds=self._lease)
        problem: StoreFailure | None = None
        for drain in tuple(self._drains.values()):
            for deferral in (*drain.open.values(), *drain.adopted.values()):
                if deferral.lease is not None:
                    try:
                        await self._store.extend(deferral.id, deferral.lease.token, until=until)
                    except StoreFailure as failure:
                        problem = failure  # the others' leases end too if they are not renewed
        self.behind = problem is not None
        if problem is not None:
            raise problem

    # Calls that run elsewhere in this proxy

    def lease(self) -> Lease:
        """A new lease of this proxy's."""
        return self._attempts.lease(self._owner, self._lease)

    def adopt(self, route: Route, deferral: Deferral) -> None:
        """Renew this deferral's lease from now on: a direct call is its try."""
        drain = self._drains.setdefault(route.id, _Drain())
        drain.adopted[deferral.id] = deferral
        drain.tries[deferral.id] = asyncio.Event()

    def deliver(self, route: Route, deferral: Deferral) -> None:
        """Try a deferral that is leased already, now and beside the window: its call would else have been direct."""
        self.adopt(route, deferral)
        self._background.spawn(self._deliver(route, deferral), name=f"deliver-{deferral.id}")

    async def _deliver(self, route: Route, deferral: Deferral) -> None:
        try:
            finished = await self._try(route, deferral)
        finally:
            self._let_go(route, deferral)
        if finished:
            self.ring(route)

    async def adopted_answered(self, route: Route, deferral: Deferral, call: a2a.Call, answer: StoredAnswer) -> None:
        """The adopted call brought its answer."""
        try:
            await self._insistence.written(deferral, lambda: self._attempts.complete(route, deferral, call, answer))
        finally:
            self._let_go(route, deferral)

    async def adopted_broke(self, route: Route, deferral: Deferral, failed: Failed) -> None:
        """The adopted call broke: from now on it is a deferral like any other."""
        try:
            await self._failed(route, deferral, failed, mishap_of(failed))
        finally:
            self._let_go(route, deferral)

    def _let_go(self, route: Route, deferral: Deferral) -> None:
        drain = self._drains.setdefault(route.id, _Drain())
        drain.adopted.pop(deferral.id, None)
        if (ended := drain.tries.pop(deferral.id, None)) is not None:
            ended.set()

    async def tried(self, deferral_id: str) -> None:
        """Return when a try of this deferral that is under way here has ended; at once when there is none."""
        for drain in self._drains.values():
            if (ended := drain.tries.get(deferral_id)) is not None:
                await ended.wait()
                return

    async def stop(self) -> None:
        """Take no new leases."""
        self._stopping = True

    @staticmethod
    def _may_dial(route: Route) -> bool:
        workspace = route.workspace
        return (
            not workspace.parked
            and not route.polling
            and workspace.url is not None
            and workspace.status is not Status.RESTARTING
        )

    # Draining

    async def _drain(self, route: Route, drain: _Drain) -> None:
        while drain.rung and not self._stopping and self._may_dial(route):
            drain.rung = False
            in_flight = route.busy + len(drain.open) - drain.dialing
            now = self._now()
            free = min(drain.window - len(drain.open), route.room(now) - in_flight)
            if free <= 0:
                return  # a completed call rings again, and so does a beat
            for deferral in await self._attempts.lease_due(
                route, self._owner, seconds=self._lease, count=free, now=now
            ):
                drain.open[deferral.id] = deferral
                drain.tries[deferral.id] = asyncio.Event()
                self._background.spawn(self._replay(route, drain, deferral), name=f"replay-{deferral.id}")

    async def _replay(self, route: Route, drain: _Drain, deferral: Deferral) -> None:
        finished = False
        try:
            finished = await self._try(route, deferral)
        finally:
            drain.open.pop(deferral.id, None)
            drain.tries.pop(deferral.id).set()
            if finished:
                drain.window = min(drain.window * 2, max(1, route.capacity))
                self.ring(route)
            else:
                drain.window = 1

    async def _try(self, route: Route, deferral: Deferral) -> bool:
        """Send it once; True when the deferral has ended."""
        try:
            ready = await self._insistence.written(deferral, lambda: self._attempts.begin(route, deferral))
        except NotNamedYet as early:
            return await self._settle(route, deferral, Mishap.NOT_SENT, str(early))
        if ready is None:
            return True
        if not self._may_dial(route):
            await self._insistence.written(
                deferral, lambda: self._attempts.give_back(route, deferral, "nobody dials it now")
            )
            return False
        drain = self._drains.setdefault(route.id, _Drain())
        in_window = deferral.id in drain.open
        drain.dialing += in_window
        try:
            return await self._asked_and_sent(route, ready)
        except LeaseLost:
            self._attempts.lost(deferral)
            return False
        finally:
            drain.dialing -= in_window

    async def _asked_and_sent(self, route: Route, ready: Ready) -> bool:
        """Ask for the task where there may be one, else send; write what came of it. True when that is the end."""
        deferral = ready.deferral
        got = await self._taking_up.take_up(route, ready)
        if isinstance(got, Forgotten):
            why = got.why
            if await self._insistence.written(deferral, lambda: self._attempts.forgotten(route, deferral, why)):
                return True
        if got is None or isinstance(got, Forgotten):
            life = route.workspace.incarnation
            sent = await self._tries.send(route, ready)
            if isinstance(sent, Unfinished):
                got = await self._unfinished(route, ready, sent, life)
            else:
                got = sent if isinstance(sent, Told) else NotTaken(failed=sent, mishap=mishap_of(sent))
        if isinstance(got, NotTaken):
            return await self._failed(route, deferral, got.failed, got.mishap)
        answered = got
        self._dialer.answered(route)
        await self._insistence.written(
            deferral,
            lambda: self._attempts.complete(route, deferral, ready.call, answered.answer, task=answered.task),
        )
        return True

    async def _unfinished(self, route: Route, ready: Ready, sent: Unfinished, life: int) -> Told | NotTaken:
        """A story stopped before its task did. One that ended as if that were all is looked into here and now."""
        task = sent.story.task
        named = task.upstream_task_id if task is not None else None
        if sent.broken is not None:
            self._taking_up.broke_off(ready.deferral, life)
            mishap = mishap_of(sent.broken)
            return NotTaken(failed=sent.broken, mishap=mishap if named is None else Mishap.TOLD)
        if named is not None:
            went_on = await self._taking_up.follow(route, ready, sent.story, named)
            if isinstance(went_on, Told):
                return went_on
            if isinstance(went_on, NotTaken):
                return NotTaken(failed=went_on.failed, mishap=Mishap.TOLD)
        return await self._tries.told(ready.deferral, sent.story)

    async def _failed(self, route: Route, deferral: Deferral, failed: Failed, mishap: Mishap) -> bool:
        """Judge the workspace, write what the failure makes of the deferral; True when that is its end."""
        judgement = await self._gate.ask(route, Trigger.REPLAY, request_id=deferral.request_id)
        return await self._settle(
            route, deferral, Mishap.IDLE if failed.idle else mishap, failed.reason, judgement.verdict
        )

    async def _settle(
        self, route: Route, deferral: Deferral, mishap: Mishap, reason: str, verdict: Verdict | None = None
    ) -> bool:
        """Write what a failed try makes of the deferral, and try again in time; True when that is its end.

        `verdict`: what the workspace was judged to be; None for what was not meant to reach it yet.
        """
        is_busy = verdict is not None and verdict.name == "busy"
        settled = await self._insistence.written(
            deferral,
            lambda: self._attempts.failed(
                route,
                deferral,
                outcome=mishap,
                reason=reason,
                alive_lately=is_busy or route.alive_lately(self._now()),
                verdict=verdict,
            ),
        )
        if settled is None:
            return False
        if settled.state is State.QUEUED:
            if mishap is Mishap.NOT_SENT and verdict is not None:
                self.refused(route)
            self._background.later(f"retry-{deferral.id}", settled.delay, lambda: self._ring_later(route))
        return settled.state is not State.QUEUED

    async def _ring_later(self, route: Route) -> None:
        self.ring(route)


def mishap_of(failed: Failed) -> Mishap:
    """What the failure of a send is to its deferral, as far as its class tells."""
    return {Outcome.NOT_SENT: Mishap.NOT_SENT, Outcome.GATEWAY: Mishap.GATEWAY}.get(failed.outcome, Mishap.MAYBE)
