"""Event streams whose agent was lost in the middle: they stay open, and go on when it is back.

Owns: which streams can go on, for how long that is tried, what their clients are told meanwhile and at the end.
Knows nothing of: passing whole streams on (`web.passing`), deferred tasks (`web.told_streams`), what a lost agent means
for its workspace (`loops.gate`).

Theory of operation. A stream that breaks has usually named its task in its first event. So its client is kept, with a
comment now and then, while the workspace is judged and perhaps restarted, and the agent is asked for that task:

    broken ──judged──> ask to follow the task ──stream──> told on, until the task ends or waits ──> end
                          ^   │ away, or refused            │ breaks again
                          │   └─ look at the task ──ended───┼──> told as it is ──> end
                          │          │ still at work        │
                          └──pause───┴──────────────────────┘   hold over, or the task is forgotten ──> failed, and why

What a healthy stream pays is a reference to its first and to its last piece. Its events are not looked at before it
breaks, so it is not known which artifacts were told: the first task that the agent shows then becomes updates, its
artifacts whole, each in place of what was told of it. No second task event is ever sent (`core.a2a.streams`).

A stream cannot go on that broke inside an event (nobody can take back half a line), that is encoded, or that named no
task; nor where the workspace holds nobody (`hold_seconds = 0`). Those end with an error event, as they always did.
Nothing is sent to the agent again: this asks for a task that it has.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from proxy.clock import Now
from proxy.core import a2a
from proxy.core.a2a import asking
from proxy.core.errors import CallerError
from proxy.core.event_body import STREAM, EventBody
from proxy.core.outcome import Outcome
from proxy.forward import Answer, UpstreamFailure
from proxy.loops.dialing import Dialer, gateway
from proxy.loops.streamed_tries import is_stream
from proxy.loops.taking_up import question_headers
from proxy.store import StoreFailure
from proxy.telemetry import EventName, Telemetry
from proxy.web.arrived import Arrived
from proxy.web.asked import Asked
from proxy.web.open_calls import OpenCall
from proxy.web.passed_on import InParts, PassedOn

FIRST_PAUSE = 0.1
LONGEST_PAUSE = 2.0
"""Seconds between two questions to an agent that is away."""
EXIT_SEEN_FIRST = timedelta(seconds=1)
"""A workspace may be started again before its last life's connections are seen to break."""
_JSON = "application/json"


class Interrupted(Exception):  # noqa: N818 - it names what happened to a stream
    """A stream broke between two events, after some were passed on.

    `first` and `last` are pieces of it as its client got them, `ending` is how its lines end.
    """

    def __init__(
        self, failure: UpstreamFailure, response: InParts, *, first: bytes, last: bytes, ending: bytes
    ) -> None:
        super().__init__(failure.reason)
        self.failure = failure
        self.response = response
        self.first = first
        self.last = last
        self.ending = ending


@dataclass(frozen=True, slots=True)
class _Lost:
    """It cannot go on. `known`: the agent is at work on the task all the same, so nobody may call it failed."""

    why: str
    known: bool = False


def can_resume(asked: Asked) -> bool:
    """Whether a stream of this call may go on once it broke, as far as the call tells."""
    call = asked.call_or_none()
    held = asked.route.effective.hold_seconds > 0
    return held and call is not None and call.streaming and call.binding is not a2a.Binding.OTHER


def events_of(piece: bytes) -> Sequence[bytes]:
    """The events that are whole in one piece of a stream. Never raises."""
    return EventBody(STREAM, most=len(piece) + 1).feed(piece)


class _Client:
    """The client of a stream that goes on: what it knows of the task, and the way to it."""

    def __init__(self, arrived: Arrived, asked: Asked, cut: Interrupted, about: asking.About) -> None:
        call = asked.call()
        self._arrived = arrived
        self._asked = asked
        self._response = cut.response
        self._ending = cut.ending
        self._call = call
        self._task_id = about.task_id or ""
        self._context_id = about.context_id or ""
        if asked.relayed is not None:
            asked.relayed.forget()
        self._narrator = a2a.Narrator(call, task_id=self._task_id, context_id=self._context_id)
        self.number = 0
        self._now = asyncio.get_running_loop().time
        self.rests = False
        self.told_at = self._now()

    def knows(self, events: Sequence[bytes], now: Now) -> None:
        """It was told these events before the stream broke."""
        for event in events:
            self.number += 1
            for update in self._narrator.tell(self.number, event, now()):
                self.rests = update.rests

    async def tell(self, event: bytes, now: Now) -> None:
        """Tell what an event of the agent's is to it.

        Raises:
            ConnectionError: it has left.
        """
        self.number += 1
        await self._write(self._narrator.tell(self.number, event, now()), ends=False)

    async def fail(self, why: str, now: Now) -> None:
        """Tell that the task has failed, and why. Raises as `tell`."""
        version = self._call.version
        task = a2a.failed_task(
            version, task_id=self._task_id, context_id=self._context_id, state="failed", text=why, at=now()
        )
        await self._write(self._narrator.closing(task, version), ends=True)

    async def _write(self, updates: Sequence[a2a.Update], *, ends: bool) -> None:
        for update in updates:
            self.rests = update.rests
            final = update.rests or (ends and update is updates[-1])
            item = a2a.update_item(self._call, update, task_id=self._task_id, context_id=self._context_id, final=final)
            line = item.replace(b"\r", b" ").replace(b"\n", b" ")
            frame = b"data: " + line + self._ending * 2
            relayed = self._asked.relayed
            self._response.write(relayed.feed(frame) if relayed is not None else frame)
            self.told_at = self._now()
            if self._arrived.lags:
                await self._arrived.drain()

    def comment(self) -> None:
        """Keep it from giving up. Raises as `tell`."""
        self.told_at = self._now()
        if not self._arrived.lags:
            self._response.write(b": keep-alive" + self._ending)


class Resuming:
    """Lets streams go on. `keep_alive`: seconds between two comments. `note_lost` judges the workspace.

    `patience`: seconds for which a task may stand still that an earlier life of the workspace had named; 0: for ever.
    """

    def __init__(
        self,
        *,
        dialer: Dialer,
        now: Now,
        telemetry: Telemetry,
        note_lost: Callable[[Asked, UpstreamFailure], Awaitable[None]],
        break_off: Callable[[Arrived, InParts, Asked, UpstreamFailure], None],
        keep_alive: float,
        answer_limit: int,
        patience: float,
    ) -> None:
        self._dialer = dialer
        self._now = now
        self._telemetry = telemetry
        self._note_lost = note_lost
        self._break_off = break_off
        self._keep_alive = keep_alive
        self._answer_limit = answer_limit
        self._patience = patience

    async def resume(self, arrived: Arrived, call: OpenCall, cut: Interrupted) -> PassedOn:
        """Let a broken stream go on, or end it; what is returned has been sent."""
        asked = call.asked
        first = events_of(cut.first)
        about = asking.about(first[0]) if first else asking.About()
        if about.task_id is None:
            self._break_off(arrived, cut.response, asked, cut.failure)
            await self._judge(asked, cut.failure)
            return cut.response
        client = _Client(arrived, asked, cut, about)
        client.knows(first if cut.last is cut.first else [*first, *events_of(cut.last)], self._now)
        upstream = {ours: theirs for theirs, ours in asked.names.items()}.get(about.task_id, about.task_id)
        try:
            if not client.rests:
                lost = await self._kept_company(call, client, self._go_on(asked, client, upstream, cut.failure))
                if lost is not None and lost.known:
                    self._break_off(arrived, cut.response, asked, cut.failure)
                    return cut.response
                if lost is not None:
                    await client.fail(lost.why, self._now)
            cut.response.end()
        except ConnectionError:
            pass  # the client has left, and its stream with it
        finally:
            if asked.told is not None:
                await asked.told()
        return cut.response

    async def _judge(self, asked: Asked, failure: UpstreamFailure) -> None:
        with contextlib.suppress(StoreFailure):  # whoever looks next decides
            await self._note_lost(asked, failure)

    async def _kept_company(
        self, call: OpenCall, client: _Client, work: Coroutine[Any, Any, _Lost | None]
    ) -> _Lost | None:
        """Do the work, and comment on its silence to the client.

        Raises:
            ConnectionError: the client has left; the work is given up.
        """
        task = asyncio.create_task(work, name="holdfast-resume")
        loop = asyncio.get_running_loop()
        try:
            while True:
                told_at = client.told_at
                await asyncio.wait({task}, timeout=max(0.0, told_at + self._keep_alive - loop.time()))
                if task.done():
                    return task.result()
                if call.left:
                    raise ConnectionResetError("the client has left")
                if client.told_at == told_at:
                    client.comment()
        finally:
            task.cancel()

    async def _go_on(self, asked: Asked, client: _Client, task_id: str, failure: UpstreamFailure) -> _Lost | None:
        """Judge, wait until the agent is back, follow its task; None when all of it was told."""
        loop = asyncio.get_running_loop()
        until = loop.time() + asked.route.effective.hold_seconds
        broken_at = self._now()
        await self._judge(asked, failure)
        pause, lost = FIRST_PAUSE, _Lost(f"The agent was lost while it worked on this ({failure.reason})")
        while True:
            route = asked.route
            if route.workspace.parked:
                return _Lost(f"{lost.why}; its workspace is {route.workspace.desired.value}.", lost.known)
            if route.serving:
                number = client.number
                answer = await self._ask(asked, client, task_id, self._patience_with(asked, broken_at))
                if answer is None:
                    return None
                if answer.why:
                    return answer
                lost = _Lost(lost.why, known=answer.known)
                if client.number != number and not answer.known:  # it went on for a while, and was lost again
                    await self._judge(asked, failure)
                    pause, until = FIRST_PAUSE, loop.time() + asked.route.effective.hold_seconds
            if loop.time() + pause > until:
                return _Lost(f"{lost.why}, and did not come back in time.", lost.known)
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, LONGEST_PAUSE)

    def _patience_with(self, asked: Asked, broken_at: datetime) -> float | None:
        """How long a task may stand still: nobody may work any more on that of an earlier life."""
        started_at = asked.route.workspace.started_at
        is_new_life = started_at is not None and started_at > broken_at - EXIT_SEEN_FIRST
        return self._patience if is_new_life and self._patience else None

    async def _ask(self, asked: Asked, client: _Client, task_id: str, patience: float | None) -> _Lost | None:
        """Follow the task, or see what it is; None when its end was told, a loss without a reason to be tried again."""
        call = asked.call()
        try:
            async with asyncio.timeout(patience) as limit:
                if await self._follow(asked, client, asking.follow(call, asked.tail, task_id), limit):
                    return None
            status, content = await self._look(asked, asking.look(call, asked.tail, task_id))
        except TimeoutError:
            return _Lost("The agent was restarted while it worked on this, and does not go on with it.")
        except UpstreamFailure:
            return _Lost("")
        event = asking.task_event(call, content)
        if event is None:
            forgotten = "The agent was lost while it worked on this, and does not know the task any more."
            return _Lost("" if gateway(status) else forgotten)
        await client.tell(event, self._now)
        if client.rests:
            self._tell(asked, task_id, "get")
            return None
        return _Lost("", known=True)

    async def _follow(self, asked: Asked, client: _Client, question: asking.Question, limit: asyncio.Timeout) -> bool:
        """Pass on what the agent tells of its task from now on; True when the task has ended or waits.

        The limit is lifted by the second event: the first shows the task as it is.

        Raises:
            UpstreamFailure: the agent is away, or was lost again.
        """
        begun = headed = False
        try:
            async with self._dialer.call(
                asked.route,
                method=question.method,
                tail=question.tail,
                headers=question_headers(asked.headers, question, STREAM),
                body=question.body,
            ) as answer:
                headed = is_stream(answer)
                async for event in self._events(answer) if headed else _no_events():
                    if not begun and asking.refused_with(event) is not None:
                        return False
                    if begun:
                        limit.reschedule(None)
                    else:
                        self._tell(asked, asking.about(event).task_id or "", "subscribe")
                    begun = True
                    await client.tell(event, self._now)
                    if client.rests:
                        return True
        except UpstreamFailure:
            # Some servers begin a stream about a task that is over, and break it off: the task itself says more.
            if begun or not headed:
                raise
        return False

    async def _events(self, answer: Answer) -> AsyncIterator[bytes]:
        body = EventBody(STREAM, most=self._answer_limit)
        try:
            async for chunk in answer.chunks():
                for event in body.feed(chunk):
                    yield event
        except CallerError as problem:
            raise UpstreamFailure(Outcome.LOST, "too_large", "an event of the stream is too large") from problem

    async def _look(self, asked: Asked, question: asking.Question) -> tuple[int, bytes]:
        async with self._dialer.call(
            asked.route,
            method=question.method,
            tail=question.tail,
            headers=question_headers(asked.headers, question, _JSON),
            body=question.body,
        ) as answer:
            return answer.status, await answer.read(self._answer_limit)

    def _tell(self, asked: Asked, task_id: str, how: str) -> None:
        self._telemetry.emit(
            EventName.STREAM_RESUMED,
            workspace=asked.route.id,
            incarnation=asked.route.workspace.incarnation,
            request_id=asked.request_id,
            fields={"task": task_id, "asked": how},
        )


async def _no_events() -> AsyncIterator[bytes]:
    """What an answer that is no stream tells."""
    nothing: tuple[bytes, ...] = ()
    for event in nothing:
        yield event
