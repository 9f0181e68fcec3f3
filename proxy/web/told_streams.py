"""Event streams of deferred tasks: held sends, subscriptions, and readers that come back where they left.

Owns: the form of such a stream, where it begins, what keeps it open, when it ends.
Knows nothing of: what an event becomes for a caller (`core.a2a.streams`), how events are kept, who delivers.

Theory of operation. A stream reads the deferral's journal and nothing else, so it does not matter whether the events in
it are old or come just now, nor which life of the proxy or of the client is reading. Every round reads the deferral
first and then the journal: when the deferral had ended by then, what the journal holds is all there will ever be.

    begin ─┬─ a new send: the submitted task ─────────────┐
           ├─ a subscription, a repeated send: the task as │   ┌──────────── news, or `keep_alive` of silence ┐
           │  it is now, the journal read up to there     ├──> tell what is new ──ended──> the last updates, end
           └─ `Last-Event-ID`: what came after that place ┘   └──client leaves, X-Timeout, proxy stops──> end

An update that may be the last (the task has ended or waits for somebody) is told when it is known to be: the deferral
has ended, or another event follows. So nobody leaves at an end that a lost try only claimed.

A place that is not known any more (a later try began the story anew, and what came in between was never read) is never
passed over in silence: a comment says that events are missing, and the stream begins with the task as it is.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from aiohttp import hdrs, web

from proxy.core import a2a
from proxy.core.deferral import ACTIVE, Deferral, State, StoredTask
from proxy.core.errors import CallerError, HoldfastError, ProxyError
from proxy.loops.stored_requests import ended_task
from proxy.store import Store, StoreFailure
from proxy.store.journal import GAP, JournalEvent
from proxy.web.answers import RECEIPT, REQUEST_ID
from proxy.web.arrived import Arrived
from proxy.web.asked import Asked
from proxy.web.held_callers import SOON, Held, HeldCallers, no_room
from proxy.web.passed_on import OwnInParts, Reply
from proxy.web.passing import last_event
from proxy.web.receipts import Receipted
from proxy.web.undelivered import too_late

BATCH = 100
"""Events that are read at a time."""
STALL = 60.0
"""Seconds after which a reader that takes nothing is let go."""
KEEP_ALIVE = b": keep-alive\n"
MISSING = b": events are missing here\n"
"""Comments are lines, without the blank line that ends an event: once they have seen an id, readers on httpx-sse (that
of a2a-sdk 0.3.x) take every blank line for an event, which would be an empty one."""
STORY_DIGITS = 12
"""So much of a deferral's id stands before the place in an event id."""
LAST_EVENT_ID = b"last-event-id"


@dataclass(slots=True)
class _Reading:
    """One reader's place in one story.

    `number` is the last event that was read. `held_back` is what may be the last update. `skip`: how much of the story
    the reader has already.
    """

    narrator: a2a.Narrator
    new_narrator: Callable[[], a2a.Narrator]
    number: int = 0
    held_back: a2a.Update | None = None
    skip: a2a.Place | None = None

    def is_news(self, update: a2a.Update) -> bool:
        """The reader has not been told this."""
        return self.skip is None or update.place > self.skip


class ToldStreams:
    """Serves such streams. A comment is sent after `keep_alive` seconds of silence.

    `stands`: the token that a stream was asked for with is still valid; a stream must not outlive the right to it.
    """

    def __init__(
        self, *, store: Store, callers: HeldCallers, keep_alive: float, stands: Callable[[Arrived], bool]
    ) -> None:
        self.stands = stands
        self._store = store
        self._callers = callers
        self._keep_alive = keep_alive

    async def tell(self, arrived: Arrived, asked: Asked, receipted: Receipted) -> Reply:
        """Answer a streamed send that was put away. Who wants only a receipt gets the task, and the stream ends."""
        deferral = receipted.deferral
        with self._callers.hold(arrived.client, deferral.id, len(asked.body)) as held:
            stream = _Stream(self, arrived, asked, deferral, receipted.verdict)
            if receipted.joined:
                await stream.begin(held, asked.fields.first(LAST_EVENT_ID))
            else:
                stream.show(deferral.task)
            if held is not None and receipted.may_wait and not asked.prefers_receipt:
                await stream.follow(held)
            return stream.end()

    async def subscribe(self, arrived: Arrived, asked: Asked, deferral: Deferral) -> Reply | None:
        """Answer a subscription to a deferred task; None for one that has ended or that its agent works on by now.

        Who comes back with `Last-Event-ID` to one that has ended, or waits for somebody, gets what was missed.
        """
        event_id = asked.fields.first(LAST_EVENT_ID)
        task = final_task(deferral)
        if deferral.state not in ACTIVE and not (event_id and task is not None and task.state in a2a.RESTING):
            return None
        with self._callers.hold(arrived.client, deferral.id, len(asked.body)) as held:
            if held is None:
                raise no_room()
            stream = _Stream(self, arrived, asked, deferral, {})
            await stream.begin(held, event_id)
            await stream.follow(held)
            return stream.end()

    async def look(self, deferral: Deferral) -> Deferral:
        """What the deferral is now."""
        return await self._store.deferral(deferral.id) or deferral

    async def read(self, reading: _Reading, deferral: Deferral) -> Sequence[JournalEvent]:
        """Read on, at most a batch; begins anew where a later try did.

        The event that was read last is read again: it is gone when a later try began its own story.
        """
        before = reading.number
        events = await self._store.journal(deferral.id, after=max(0, before - 1), limit=BATCH + 1)
        if before and events and events[0].sequence == before:
            return events[1:]
        if before and events:
            reading.narrator, reading.held_back = reading.new_narrator(), None
        return events[:BATCH]

    async def kept_at(self, deferral: Deferral, number: int) -> int | None:
        """The first event that is kept from that number on."""
        events = await self._store.journal(deferral.id, after=number - 1, limit=1)
        return events[0].sequence if events else None

    @property
    def silence(self) -> float:
        """Seconds without a byte after which a comment is due."""
        return self._keep_alive


class _Stream:
    """One stream to one reader."""

    def __init__(
        self, streams: ToldStreams, arrived: Arrived, asked: Asked, deferral: Deferral, headers: Mapping[str, str]
    ) -> None:
        self._streams = streams
        self._arrived = arrived
        self._asked = asked
        self._call = asked.call()
        self._deferral = deferral
        send = a2a.Call(  # not read from what is stored: the body of what has ended is not kept
            binding=a2a.Binding(deferral.binding),
            version=a2a.Version(deferral.protocol),
            operation=a2a.Operation(deferral.operation),
        )

        def narrator() -> a2a.Narrator:
            return a2a.Narrator(send, task_id=deferral.task_id or "", context_id=deferral.context_id or "")

        self._reading = _Reading(narrator(), narrator)
        self._story = deferral.id[-STORY_DIGITS:]  # a task that is spoken to again has a story for each message
        self._told = a2a.BEGINNING
        self._began = self._wrote = asyncio.get_running_loop().time()
        fields = {
            **headers,
            REQUEST_ID: asked.request_id,
            RECEIPT: deferral.id,
            hdrs.LOCATION: f"/workspaces/{deferral.workspace_id}/queue/{deferral.id}",
            hdrs.CACHE_CONTROL: "no-store",
            "X-Accel-Buffering": "no",
        }
        self._parts = OwnInParts(arrived, web.Response(status=200, headers=fields, content_type="text/event-stream"))

    # Where it begins

    def show(self, task: StoredTask | None) -> None:
        """Begin with a task."""
        if task is not None:
            self._write(a2a.send_answer(self._call, task.json, a2a.Version(task.version)), self._told)

    async def begin(self, held: Held | None, event_id: str | None) -> None:
        """Begin at a place, or with the task as it is now; a place that is not known is said to be none."""
        if event_id is None:
            self.show(await self._caught_up())
            return
        story, _, number = event_id.rpartition("-")
        place = a2a.read_place(number) if story == self._story else None
        if place is not None and await self._is_known(place):
            self._reading.skip = place
            self._parts.begin()
            return
        task = await self._caught_up()
        self._say(MISSING)
        self.show(task)
        if held is None:
            self._reading.held_back = None

    async def _caught_up(self) -> StoredTask | None:
        """The task as it is when all that the journal holds is read."""
        while True:
            while await self._read() is not None:
                pass
            deferral = await self._streams.look(self._deferral)
            if await self._read() is None:  # else: told since, and perhaps in that task already
                self._deferral = deferral
                return final_task(deferral)

    async def _is_known(self, place: a2a.Place) -> bool:
        """Nothing that came after a place was dropped unread, and there is such a place."""
        if place.event == 0:
            return True
        kept = await self._streams.kept_at(self._deferral, place.event)
        return kept == place.event or (kept == place.event + 1 and place.whole)

    # What it tells

    async def follow(self, held: Held) -> None:
        """Tell what is new until nothing follows."""
        loop, until = asyncio.get_running_loop(), self._until()
        while not held.left:
            if not self._streams.stands(self._arrived):
                self._fail(CallerError("UNAUTHENTICATED", "a valid Holdfast token is required", status=401))
                return
            try:
                self._deferral = deferral = await self._streams.look(self._deferral)
                while (updates := await self._read()) is not None:
                    for update in updates:
                        await self._tell(update)
                if deferral.state not in ACTIVE:
                    await self._close(deferral)
                    return
            except StoreFailure:
                pass  # looked at again with the next comment
            if held.over or (until is not None and loop.time() >= until):
                error = ProxyError("STOPPING", "Holdfast is stopping", retry_after=SOON) if held.over else too_late()
                self._fail(error)
                return
            silent = self._wrote + self._streams.silence - loop.time()
            patience = silent if until is None else min(silent, until - loop.time())
            if patience <= 0 or not await held.news(patience):
                self._say(KEEP_ALIVE)

    def _until(self) -> float | None:
        """The event loop's time at which the caller wants an end."""
        deadline = self._asked.deadline
        return None if deadline is None else (self._asked.since or self._began) + deadline

    async def _read(self) -> Sequence[a2a.Update] | None:
        """What the next events of the journal became, but for what may be the last update; None: there are none.

        Raises:
            StoreFailure: nothing was read; the same events are read the next time.
        """
        reading, updates = self._reading, list[a2a.Update]()
        events = await self._streams.read(reading, self._deferral)
        for event in events:
            reading.number = event.sequence
            if event.data == GAP:
                self._say(MISSING)
                continue
            said = [reading.held_back] if reading.held_back is not None else []
            said += reading.narrator.tell(event.sequence, event.data, event.at)
            reading.held_back = said.pop() if said and said[-1].rests else None
            updates += said
        if updates:
            self._told = updates[-1].place
        return updates if events else None

    async def _close(self, deferral: Deferral) -> None:
        """Tell the last updates: what was held back, and what the task holds beyond what was told."""
        reading, task = self._reading, final_task(deferral)
        held_back, reading.held_back = reading.held_back, None
        last = [held_back] if held_back is not None else []
        if task is not None:
            state = reading.narrator.state
            closing = reading.narrator.closing(task.json, a2a.Version(task.version))
            if held_back is None or len(closing) > 1 or reading.narrator.state != state:
                last += closing
        for update in last:
            await self._tell(update, final=update is last[-1])

    async def _tell(self, update: a2a.Update, *, final: bool = False) -> None:
        if not self._reading.is_news(update):
            return
        deferral = self._deferral
        item = a2a.update_item(
            self._call, update, task_id=deferral.task_id or "", context_id=deferral.context_id or "", final=final
        )
        self._write(item, update.place)
        if self._arrived.lags:
            try:
                async with asyncio.timeout(STALL):
                    await self._arrived.drain()
            except TimeoutError:
                self._arrived.cut()
                raise ConnectionResetError("the client takes nothing") from None

    def _write(self, item: bytes, place: a2a.Place) -> None:
        # An agent may have written its JSON over several lines; none of their ends stands inside a text.
        line = item.replace(b"\r", b" ").replace(b"\n", b" ")
        self._say(b"id: %b-%b\ndata: %b\n\n" % (self._story.encode(), str(place).encode(), line))

    def _fail(self, error: HoldfastError) -> None:
        self._say(last_event(self._asked, error).lstrip(b"\n"))  # no event is open that had to be ended first

    def _say(self, text: bytes) -> None:
        self._wrote = asyncio.get_running_loop().time()
        self._parts.write(text)

    def end(self) -> Reply:
        """Nothing follows."""
        self._parts.end()
        return self._parts


def final_task(deferral: Deferral) -> StoredTask | None:
    """The task as it is; failed where the store ended the deferral in passing, and nobody has said so in the task."""
    task = deferral.task
    if task is None or task.state in a2a.TERMINAL or deferral.state in ACTIVE or deferral.state is State.COMPLETED:
        return task
    at = deferral.completed_at or deferral.enqueued_at
    return ended_task(deferral, "failed", deferral.last_error or deferral.state.value, at)
