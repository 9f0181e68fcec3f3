"""Push notifications about deferred tasks: what happened to a task is told to whoever asked for it.

Owns: when a receiver is told, in which order, how often it is tried, when Holdfast gives up.
Knows nothing of: configurations (`loops.push_configs`), what happens to deferrals (`Followers` rings).

Theory of operation. Every receiver has one courier, a task that lives while there is something to tell and tells one
thing at a time, so the order is the journal's. A courier reads what is due from the store, takes the lease on its row,
sends, and writes how far it came; that place moves on only after the receiver took the notification. Whoever dies in
between has told nothing as far as the store knows: a later life tells it again (at least once), under the same
`Idempotency-Key`. News that comes while a courier is at work sets its flag, and it looks again before it ends.

    news, start, sweep ──> read what is due ──nothing──> end
                              ^       │
                              │   lease, POST ──2xx──────> place moves on ──┐
                              ├──────────────────────────────────────────────┘
                              │       ├──refused (4xx, 3xx)──> this one is passed over
                              └─wait──┴──anything else──> tried again; too often or too long: all that waits is passed
                                                          over, and what happens next is told again

v1.0 receivers are told the events of the journal one by one, and the task as a whole where no event said how it ended.
v0.3 receivers are told the whole task as it is then: what happened while a notification was on its way is in the next.
"""

import asyncio
import hashlib
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from proxy.clock import Now
from proxy.core import a2a
from proxy.core.a2a.shapes import TERMINAL
from proxy.core.decision import Decision, Trigger
from proxy.core.deferral import ACTIVE, Deferral, Lease, State, StoredTask
from proxy.forward import Forward, UpstreamFailure, UpstreamRequest
from proxy.loops.background import Background
from proxy.loops.open_tasks import OpenTasks
from proxy.loops.push_configs import PushConfigs, state_told, told_mark
from proxy.loops.routing import Routing
from proxy.setting_kinds.pushing import PushSettings
from proxy.store import Store, StoreFailure
from proxy.store.journal import GAP
from proxy.store.pushes import Progress, Push
from proxy.store.vault import VaultFailure
from proxy.telemetry import EventName, Telemetry

MOST_LATER = 1000
"""Messages to one task among which the next one is looked for."""
READ = 100
"""Events of a journal that are read at a time."""
LEASE_MARGIN = 30.0
"""Seconds that a lease outlives the longest try: for the writes around it, on a slow disk."""
MOST_ANSWER = 64 * 1024
"""Bytes of a receiver's answer that are read, and forgotten."""
SUCCESS = range(200, 300)
REPEATABLE = frozenset({408, 425, 429})
FIRST_SERVER_ERROR = 500
STORE_AGAIN = 5.0
"""Seconds until a receiver is looked after again whose place the store could not read or write."""
MISSED = "?"
"""What a receiver knows that missed events, because they were too long or are not kept: the whole task makes up for it.
"""
HOPELESS = frozenset({"forbidden_address", "bad_request"})
"""Failures of a call that a repetition does not mend."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Due:
    """What a receiver is to be told next, and how far it has been told then."""

    body: bytes
    through: int
    told: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tried:
    """How a try ended: with no `problem` it was taken. `wait`: seconds that the receiver asked for."""

    problem: str | None = None
    hopeless: bool = False
    wait: float = 0.0


Key = tuple[str, str]
"""A receiver: its deferral's id, its own."""


class Notifying:
    """Tells receivers. `forward` reaches nothing but what receivers may be."""

    def __init__(
        self,
        *,
        store: Store,
        configs: PushConfigs,
        forward: Forward,
        routing: Routing,
        background: Background,
        now: Now,
        telemetry: Telemetry,
        chance: random.Random,
        new_token: Callable[[], str],
        owner: str,
        rules: PushSettings,
    ) -> None:
        self._store = store
        self._configs = configs
        self._forward = forward
        self._routing = routing
        self._background = background
        self._now = now
        self._telemetry = telemetry
        self._chance = chance
        self._new_token = new_token
        self._owner = owner
        self._rules = rules
        self._slots = asyncio.Semaphore(rules.concurrent)
        self._receivers: dict[str, set[str]] = {}
        self._newcomers: set[Key] = set()
        self._news: dict[Key, bool] = {}
        self._looked = False
        self._looks: dict[Key, tuple[int, float]] = {}
        self.open_tasks: OpenTasks | None = None
        """Asks agents after tasks that they go on with; None: nobody does."""

    # Who is told

    async def sweep(self) -> None:
        """Look after every receiver that does not know its task's end yet, and forget those that are gone.

        The first time after all of them: an earlier life may have ended before it moved one on.
        """
        known: dict[str, set[str]] = {}
        self._newcomers.clear()
        receivers = await self._store.receivers()
        for deferral_id, push_id in (*((each.deferral_id, each.push_id) for each in receivers), *self._newcomers):
            known.setdefault(deferral_id, set()).add(push_id)
        self._receivers, first = known, not self._looked
        self._looked = True
        for deferral_id, push_id, told in receivers:
            if first or state_told(told) not in TERMINAL:
                self._send_out((deferral_id, push_id))

    def added(self, deferral_id: str, push_id: str) -> None:
        """A receiver was added, or its task goes on."""
        self._receivers.setdefault(deferral_id, set()).add(push_id)
        self._newcomers.add((deferral_id, push_id))
        self._send_out((deferral_id, push_id))

    def heard(self, deferral_id: str) -> None:
        """There is news of a deferral."""
        for push_id in self._receivers.get(deferral_id, ()):
            self._send_out((deferral_id, push_id))

    def _send_out(self, key: Key) -> None:
        if key in self._news:
            self._news[key] = True
            return
        self._news[key] = False
        if self._background.spawn(self._courier(key), name="push") is None:
            del self._news[key]

    async def _courier(self, key: Key) -> None:
        """Tell one receiver what is due to it, one thing after the other."""
        try:
            while True:
                self._news[key] = False
                try:
                    wait = await self._tell(key)
                except StoreFailure:
                    wait = STORE_AGAIN
                if wait is None and not self._news[key]:
                    return
                if wait:
                    self._background.later(f"push {key[0]}/{key[1]}", wait, lambda: self._later(key))
                    return
        finally:
            del self._news[key]

    async def _later(self, key: Key) -> None:
        self._send_out(key)

    # One notification

    async def _tell(self, key: Key) -> float | None:
        """Tell the next thing: 0 to go on, None when nothing is due, else the seconds until something is."""
        deferral_id, push_id = key
        push = next((each for each in await self._store.pushes(deferral_id) if each.stored.id == push_id), None)
        if push is None:
            self._receivers.get(deferral_id, set()).discard(push_id)
            self._looks.pop(key, None)
            return None
        wait = self._wait(push)
        if wait > 0:
            return wait
        deferral = await self._store.brief(deferral_id)
        if deferral is None:
            return None
        due = await self._due(push, deferral)
        if due is None:
            await self._move_on(push, deferral)
            return await self._look(key, deferral)
        async with self._slots:
            return await self._leased(push, deferral, due)

    async def _move_on(self, push: Push, deferral: Deferral) -> None:
        """Let a receiver that knows all of a deferral's story follow the next message to its task."""
        if deferral.state in ACTIVE or deferral.task_id is None:
            return
        later = await self._store.deferrals_of_task(deferral.workspace_id, deferral.task_id, limit=MOST_LATER)
        after = min((each for each in later if each.seq > deferral.seq), key=lambda each: each.seq, default=None)
        if after is None:
            return
        known = Progress(told=push.progress.told)
        if await self._store.move_push(deferral.id, push.stored.id, after.id, known):
            self._receivers.get(deferral.id, set()).discard(push.stored.id)
            self.added(after.id, push.stored.id)

    async def _look(self, key: Key, deferral: Deferral) -> float | None:
        """Ask after a task whose agent goes on with it by itself: 0 when it was asked, else the seconds until it is.

        None: it does not go on.
        """
        if self.open_tasks is None or not self.open_tasks.goes_on(deferral):
            self._looks.pop(key, None)
            return None
        now, (looks, at) = asyncio.get_running_loop().time(), self._looks.get(key, (0, 0.0))
        if looks and now < at:
            return at - now
        pause = min(self._rules.look * 2.0 ** min(looks, 30), self._rules.look_cap)
        self._looks[key] = (looks + 1, now + pause)
        if looks == 0:  # it has just answered
            return pause
        await self.open_tasks.look(deferral)
        return 0.0

    def _wait(self, push: Push) -> float:
        """Seconds until a receiver may be tried.

        A next try that is further away than any pause is due: the clock was ahead when it was written down.
        """
        now, rules = self._now(), self._rules
        pause = (push.progress.next_at - now).total_seconds() if push.progress.next_at is not None else 0.0
        lease = (push.leased_until - now).total_seconds() if push.leased_until is not None else 0.0
        return max(pause if pause <= rules.backoff_cap else 0.0, min(lease, rules.timeout + LEASE_MARGIN))

    async def _leased(self, push: Push, deferral: Deferral, due: _Due) -> float:
        """Take the lease, try, and write what came of it."""
        now, deferral_id, push_id = self._now(), push.deferral_id, push.stored.id
        until = now + timedelta(seconds=self._rules.timeout + LEASE_MARGIN)
        lease = Lease(token=self._new_token(), owner=self._owner, until=until)
        leased = await self._store.lease_push(deferral_id, push_id, lease, now=now)
        if leased is None:
            return 0.0
        if (leased.stored, leased.progress) != (push.stored, push.progress):  # it was changed a moment ago
            await self._store.told_push(deferral_id, push_id, lease.token, leased.progress)
            return 0.0
        tried = await self._try(push, deferral, due)
        after = await self._after(push, deferral, due, tried)
        await self._store.told_push(deferral_id, push_id, lease.token, after)
        return 0.0

    async def _after(self, push: Push, deferral: Deferral, due: _Due, tried: _Tried) -> Progress:
        """How far a receiver has been told after a try; what is worth telling about the try is told."""
        known = push.progress
        onward = Progress(through=due.through, told=due.told)
        if tried.problem is None:
            self._emit(EventName.PUSH_DELIVERED, push, deferral, {"tries": known.tries + 1})
            return onward
        now, tries = self._now(), known.tries + 1
        since = min(known.failing_since or now, now)
        facts = {"reason": tried.problem, "tries": tries}
        if tried.hopeless:
            await self._given_up(push, deferral, facts)
            return onward
        if tries >= self._rules.tries or now - since >= timedelta(seconds=self._rules.age):
            await self._given_up(push, deferral, {**facts, "passed_over": "all that waited"})
            return await self._present(push)
        wait = min(max(self._backoff(tries), tried.wait), self._rules.backoff_cap)
        self._emit(EventName.PUSH_FAILED, push, deferral, {**facts, "next_in": round(wait, 3)})
        return replace(known, tries=tries, failing_since=since, next_at=now + timedelta(seconds=wait))

    def _backoff(self, tries: int) -> float:
        """Half of each wait is chance; the n-th failed try waits at most backoff x 2^(n-1)."""
        longest = min(self._rules.backoff * 2.0 ** min(tries - 1, 30), self._rules.backoff_cap)
        return longest * (1 + self._chance.random()) / 2

    async def _present(self, push: Push) -> Progress:
        """The place of a receiver that knows everything there is to know now."""
        through, told = push.progress.through, push.progress.told
        while events := await self._store.journal(push.deferral_id, after=through, limit=READ):
            through = events[-1].sequence
        deferral = await self._store.brief(push.deferral_id)
        if deferral is not None and deferral.task is not None:
            told = told_mark(deferral.task.state, deferral.task.json)
        return Progress(through=through, told=told)

    # What is due

    async def _due(self, push: Push, deferral: Deferral) -> _Due | None:
        """The next notification for a receiver; None when it knows everything.

        The deferral was read before the journal is: its task is never newer than what the journal says of it.
        """
        version = a2a.Version(push.stored.protocol)
        through, told = push.progress.through, push.progress.told
        if version is a2a.Version.V10:
            while events := await self._store.journal(push.deferral_id, after=through, limit=READ):
                for event in events:
                    through = event.sequence
                    said = a2a.event_notification(
                        event.data, task_id=deferral.task_id or "", context_id=deferral.context_id or ""
                    )
                    if said is not None and len(said.body) <= self._rules.bytes:
                        state = told if told == MISSED else said.state or state_told(told)
                        return _Due(body=said.body, through=through, told=state)
                    if said is not None or event.data == GAP:
                        told = MISSED
        task = _ended(deferral) or deferral.task
        if task is None or (task.state == "submitted" and told in {"", MISSED}):
            return None  # its caller was told so in the answer to the send
        mark = told_mark(task.state, task.json)
        if told == mark or (version is a2a.Version.V10 and told == task.state):
            return None
        body = a2a.task_notification(version, task.json, a2a.Version(task.version))
        if len(body) > self._rules.bytes:
            body = a2a.task_notification(version, task.json, a2a.Version(task.version), short=True)
        return _Due(body=body, through=through, told=mark)

    # The wire

    async def _try(self, push: Push, deferral: Deferral, due: _Due) -> _Tried:
        """POST a notification once. Redirects are not followed: their target was never checked."""
        try:
            config = self._configs.opened(push, deferral)
        except VaultFailure:
            return _Tried(problem="its configuration cannot be opened: the vault's key is gone", hopeless=True)
        limit = self._rules.timeout
        key = hashlib.sha256(f"{push.deferral_id}/{push.stored.id}/{due.through}/{due.told}".encode()).hexdigest()[:32]
        request = UpstreamRequest(
            method="POST",
            url=config.url,
            headers=(*a2a.notification_headers(config), (b"Idempotency-Key", key.encode("ascii"))),
            body=due.body,
            connect_timeout=limit,
            idle_timeout=limit,
        )
        try:
            async with asyncio.timeout(limit):
                return await self._post(request)
        except TimeoutError:
            return _Tried(problem=f"no answer within {limit:g} s")
        except UpstreamFailure as failure:
            return _Tried(problem=failure.reason, hopeless=failure.reason in HOPELESS)

    async def _post(self, request: UpstreamRequest) -> _Tried:
        answer = await self._forward.send(request)
        try:
            with suppress(UpstreamFailure):  # its status has come, and nothing else matters
                await answer.read(MOST_ANSWER)
        finally:
            await answer.aclose()
        if answer.status in SUCCESS:
            return _Tried()
        repeatable = answer.status in REPEATABLE or answer.status >= FIRST_SERVER_ERROR
        asked = next((value for name, value in answer.headers if name.lower() == b"retry-after"), b"")
        wait = float(asked) if asked.isdigit() else 0.0
        return _Tried(problem=f"answered {answer.status}", hopeless=not repeatable, wait=wait)

    # What is told about it

    async def _given_up(self, push: Push, deferral: Deferral, facts: dict[str, object]) -> None:
        route = self._routing.get(deferral.workspace_id)
        if route is not None:
            await self._store.log([_line(deferral, self._now(), route.workspace.incarnation, facts)])
        self._emit(EventName.PUSH_GIVEN_UP, push, deferral, facts)

    def _emit(self, name: EventName, push: Push, deferral: Deferral, facts: dict[str, object]) -> None:
        self._telemetry.emit(
            name,
            workspace=deferral.workspace_id,
            receipt=deferral.id,
            request_id=deferral.request_id,
            fields={"receiver": push.stored.id, **facts},
        )


def _ended(deferral: Deferral) -> StoredTask | None:
    """The task of a deferral that the store itself ended, in passing (its workspace was removed): failed."""
    task = deferral.task
    if task is None or task.state in TERMINAL or deferral.state in {*ACTIVE, State.COMPLETED}:
        return None
    said = a2a.failed_task(
        a2a.Version(task.version),
        task_id=deferral.task_id or "",
        context_id=deferral.context_id or "",
        state="failed",
        text=deferral.last_error or deferral.state.value,
        at=deferral.completed_at or deferral.enqueued_at,
    )
    return StoredTask(json=said, version=task.version, state="failed")


def _line(deferral: Deferral, at: datetime, incarnation: int, facts: dict[str, object]) -> Decision:
    return Decision(
        workspace_id=deferral.workspace_id,
        at=at,
        trigger=Trigger.QUEUE,
        action="notification given up",
        evidence=facts,
        request_id=deferral.request_id,
        receipt=deferral.id,
        incarnation=incarnation,
    )
