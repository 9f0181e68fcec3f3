"""What an agent tells of a deferral while it works on it: stream events, kept in order, and the task they amount to.

Owns: appending events under a lease, the caller's task after each, and the answer that a whole story is.
Knows nothing of: how events travel, who may tell them (`loops.polling` asks for the lease), what an answer leads to.

A story belongs to one try. The first event of a later try begins it anew, task included: what an agent did not finish
telling is not mixed with what its successor says.
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
from proxy.store.journal import Appended, Events, JournalLimits

CHUNK = 500
"""Events that are read at a time."""


class Story:
    """One deferral's story as it is told now."""

    def __init__(  # noqa: PLR0917 - made in one place, by its one maker
        self, store: Store, now: Now, limits: JournalLimits, followers: Followers, deferral: Deferral, so_far: int
    ) -> None:
        self._store = store
        self._followers = followers
        self._now = now
        self._limits = limits
        self._deferral = deferral
        self._call = stored_call(deferral)
        self._task = _task_before(deferral, self._call, so_far, now())
        self.total = so_far

    async def take(self, events: Sequence[bytes], *, token: str, until: datetime) -> Appended | None:
        """Keep events that came together, and renew the lease; None when the lease is no longer the caller's.

        Raises:
            CallerError: 400: one of them is no A2A stream event, 413: the journal is full. None of them was kept.
            StoreFailure: none of them was kept.
        """
        task = self._task
        for number, event in enumerate(events, self.total + 1):
            if task is not None:
                task = self._after(task, event, number)
        known = None if task is None or task is self._task else task
        appended = await self._store.append_events(
            self._deferral.id,
            token,
            Events(
                data=events,
                at=self._now(),
                task=None
                if known is None
                else StoredTask(json=known.task_json, version=known.version.value, state=known.state),
                upstream_task_id=known.upstream_task_id if known is not None else None,
                upstream_context_id=known.upstream_context_id if known is not None else None,
            ),
            until=until,
            limits=self._limits,
        )
        if appended is not None and appended.full:
            raise CallerError(
                "JOURNAL_FULL",
                "this deferral's events are more than is kept; none of these was",
                status=413,
                facts={"events": appended.total},
            )
        if appended is not None:
            self._task, self.total = task, appended.total
            self._followers.tell(self._deferral.id)
        return appended

    def _after(self, task: a2a.KeptTask, event: bytes, number: int) -> a2a.KeptTask:
        deferral = self._deferral
        after = a2a.told(
            self._call,
            task,
            event,
            task_id=deferral.task_id or "",
            context_id=deferral.context_id or "",
            at=self._now(),
        )
        if after is None:
            text = f"event {number} is no A2A stream event; it and what came with it was not kept"
            raise CallerError("BAD_EVENT", text, facts={"events": self.total})
        return after


class Telling:
    """Listens to stories and makes answers of them."""

    def __init__(self, *, store: Store, now: Now, limits: JournalLimits, followers: Followers) -> None:
        self._store = store
        self._followers = followers
        self._now = now
        self._limits = limits

    async def listen(self, deferral: Deferral) -> Story:
        """Take up a leased deferral's story where it stands."""
        so_far = await self._store.journal_size(deferral.id)
        return Story(self._store, self._now, self._limits, self._followers, deferral, so_far)

    async def answer(self, deferral: Deferral) -> StoredAnswer | None:
        """The answer that the story of a leased deferral's try is; None where this try has told nothing."""
        return await self.last_answer(deferral) if await self._store.journal_size(deferral.id) else None

    async def last_answer(self, deferral: Deferral) -> StoredAnswer | None:
        """The answer that the last story is, whichever try told it."""
        events: list[bytes] = []
        while True:
            chunk = await self._store.journal(deferral.id, after=len(events), limit=CHUNK)
            events += [event.data for event in chunk]
            if len(chunk) < CHUNK:
                break
        if not events:
            return None
        kind, body = a2a.streamed_answer(stored_call(deferral), _kept(deferral), events)
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
    """The task on which the next event builds: the stored one, or a fresh one where a new try begins its story."""
    if so_far or deferral.task_id is None or deferral.context_id is None or deferral.task is None:
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
