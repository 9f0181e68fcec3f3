"""What an agent tells of a deferral while it works on it: stream events, kept in order, and the task they amount to.

Owns: appending events under a lease, the caller's task after each, and the answer that a whole story is.
Knows nothing of: how events travel (`web.inbox`, `loops.streamed_tries`), who may tell them, what an answer leads to.

A story belongs to one try. The first event of a later try begins it anew, task included: what an agent did not finish
telling is not mixed with what its successor says. A try that takes up the agent's own task *continues* the story.

A workspace that tells (`take`) is told when an event is none or has no room, and may complete in words instead. An
agent whose stream is listened to (`hear`) cannot be: what is no event is skipped, and when the journal is full one
`GAP` is noted in it and the task alone is kept up to date. Likewise where no journal is wanted (`journal = off`).
"""

from collections.abc import Sequence
from datetime import datetime

from proxy.clock import Now
from proxy.core import a2a
from proxy.core.deferral import Deferral, StoredAnswer, StoredTask
from proxy.core.errors import CallerError
from proxy.loops.followers import Followers
from proxy.loops.stored_requests import stored_call
from proxy.store import Store
from proxy.store.journal import GAP, Appended, Events, JournalLimits

CHUNK = 500
"""Events that are read at a time."""
WAITS = frozenset({"input-required", "auth-required"})
UNBOUNDED = JournalLimits(rows=0, bytes=0)


class Story:
    """One deferral's story as it is told now.

    `heard` counts the events that this try has told. `journalled`: its events are kept. `continues`: see `Events`.
    """

    def __init__(  # noqa: PLR0917 - made in one place, by its one maker
        self,
        store: Store,
        now: Now,
        limits: JournalLimits,
        followers: Followers,
        deferral: Deferral,
        so_far: int,
        *,
        continues: bool = False,
        journalled: bool = True,
    ) -> None:
        self._store = store
        self._continues = continues
        self._journalled = journalled
        self.heard = 0
        self._moved = False
        self._followers = followers
        self._now = now
        self._limits = limits
        self._deferral = deferral
        self._call = stored_call(deferral)
        before = _task_before(deferral, self._call, so_far or int(continues), now())
        ours = {"task_id": deferral.task_id or "", "context_id": deferral.context_id or ""}
        self._task = None if before is None else a2a.TaskSoFar(self._call, before, **ours)
        self.total = so_far

    @property
    def task(self) -> a2a.KeptTask | None:
        """The caller's task as far as the story goes; None for what is not A2A."""
        return None if self._task is None else self._task.kept()

    @property
    def rests(self) -> bool:
        """This try has told that the task has ended, or waits for somebody (A2A v1.0 section 4.1.3)."""
        task = self._task  # not written for that
        return self._moved and task is not None and (task.terminal or task.state in WAITS)

    async def hear(self, events: Sequence[bytes], *, token: str, until: datetime) -> bool:
        """Take what an agent's stream brought, as far as it is any, and renew the lease; False when that was lost.

        Raises:
            StoreFailure: none of it was kept; it may be heard again.
        """
        task, taken, moved = self._draft(), [], False
        for event in events:
            if task is not None and task.hear(event, self._now()):
                taken.append(event)
                moved = moved or a2a.tells_state(event)
        if not taken:
            return True
        appended = await self._append(taken if self._journalled else (), task, token, until, self._limits)
        if appended is not None and appended.full:
            appended = await self._append((GAP,), task, token, until, UNBOUNDED)
            self._journalled = False
        if appended is None:
            return False
        self._task, self.total = task, appended.total
        self.heard += len(taken)
        self._moved = self._moved or moved
        self._followers.tell(self._deferral.id)
        return True

    async def _append(
        self, data: Sequence[bytes], task: a2a.TaskSoFar | None, token: str, until: datetime, limits: JournalLimits
    ) -> Appended | None:
        known = None if task is None else task.kept()
        events = Events(
            data=data,
            at=self._now(),
            task=stored(known) if known is not None else None,
            upstream_task_id=known.upstream_task_id if known is not None else None,
            upstream_context_id=known.upstream_context_id if known is not None else None,
            continues=self._continues,
        )
        return await self._store.append_events(
            self._deferral.id, token, events, until=until, limits=limits if data else UNBOUNDED
        )

    async def take(self, events: Sequence[bytes], *, token: str, until: datetime) -> Appended | None:
        """Keep events that came together, and renew the lease; None when the lease is no longer the caller's.

        Raises:
            CallerError: 400: one of them is no A2A stream event, 413: the journal is full. None of them was kept.
            StoreFailure: none of them was kept.
        """
        task = self._draft() if events else None
        for number, event in enumerate(events, self.total + 1):
            if task is not None and not task.hear(event, self._now()):
                text = f"event {number} is no A2A stream event; it and what came with it was not kept"
                raise CallerError("BAD_EVENT", text, facts={"events": self.total})
        appended = await self._append(events, task, token, until, self._limits)
        if appended is not None and appended.full:
            raise CallerError(
                "JOURNAL_FULL",
                "this deferral's events are more than is kept; none of these was",
                status=413,
                facts={"events": appended.total},
            )
        if appended is not None:
            self._task, self.total = task or self._task, appended.total
            self._followers.tell(self._deferral.id)
        return appended

    def _draft(self) -> a2a.TaskSoFar | None:
        """The task to go on with; it becomes the story's own when what was heard is written."""
        return None if self._task is None else self._task.copy()


class Telling:
    """Listens to stories and makes answers of them."""

    def __init__(self, *, store: Store, now: Now, limits: JournalLimits, followers: Followers) -> None:
        self._store = store
        self._followers = followers
        self._now = now
        self._limits = limits

    async def listen(self, deferral: Deferral, *, continues: bool = False, journalled: bool = True) -> Story:
        """Take up a leased deferral's story where it stands."""
        so_far = await self._store.journal_size(deferral.id)
        return Story(
            self._store,
            self._now,
            self._limits,
            self._followers,
            deferral,
            so_far,
            continues=continues,
            journalled=journalled,
        )

    async def answer(self, deferral: Deferral) -> StoredAnswer | None:
        """The answer that the story of a leased deferral's try is; None where this try has told nothing."""
        return await self.last_answer(deferral) if await self._store.journal_size(deferral.id) else None

    async def last_answer(self, deferral: Deferral) -> StoredAnswer | None:
        """The answer that the last story is, whichever try told it."""
        events = await self._events(deferral)
        return _answer(stored_call(deferral), _kept(deferral), events) if events else None

    async def answer_of(self, deferral: Deferral, story: Story) -> StoredAnswer:
        """The answer that a story amounts to that was heard to its end."""
        call = stored_call(deferral)
        events = await self._events(deferral) if call.streaming or story.task is None else ()
        return _answer(call, story.task, events)

    async def _events(self, deferral: Deferral) -> Sequence[bytes]:
        events: list[bytes] = []
        after = 0
        while True:
            chunk = await self._store.journal(deferral.id, after=after, limit=CHUNK)
            events += [event.data for event in chunk]
            if len(chunk) < CHUNK:
                return events
            after = chunk[-1].sequence


def stored(task: a2a.KeptTask) -> StoredTask:
    """A task as a deferral keeps it."""
    return StoredTask(json=task.task_json, version=task.version.value, state=task.state)


def _answer(call: a2a.Call, task: a2a.KeptTask | None, events: Sequence[bytes]) -> StoredAnswer:
    kind, body = a2a.streamed_answer(call, task, events)
    return StoredAnswer(status=200, headers=((b"Content-Type", kind),), body=body)


def _kept(deferral: Deferral) -> a2a.KeptTask | None:
    task = deferral.task
    if task is None:
        return None
    return a2a.KeptTask(
        task_json=task.json,
        version=a2a.Version(task.version),
        state=task.state,
        terminal=False,
        upstream_task_id=deferral.upstream_task_id,
        upstream_context_id=deferral.upstream_context_id,
    )


def _task_before(deferral: Deferral, call: a2a.Call, so_far: int, now: datetime) -> a2a.KeptTask | None:
    """The task on which the next event builds: the stored one, or a fresh one where a new try begins its story.

    A message to a task goes on with that task, whichever try tells of it.
    """
    goes_on = so_far or call.task_id == deferral.task_id
    if goes_on or deferral.task_id is None or deferral.context_id is None or deferral.task is None:
        return _kept(deferral)
    fresh = a2a.submitted_task(call, task_id=deferral.task_id, context_id=deferral.context_id, at=now, text="")
    return a2a.KeptTask(
        task_json=fresh,
        version=call.version,
        state="submitted",
        terminal=False,
        upstream_task_id=None,
        upstream_context_id=None,
    )
