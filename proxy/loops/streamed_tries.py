"""One try at a push workspace, and the stream that it may be answered with.

Owns: sending a stored request, as a stream where the agent's card announces that; listening to a stream until its task
has ended or waits for somebody.
Knows nothing of: leases and what an outcome makes of a deferral (`loops.replayer`, `loops.attempts`), what a story is
made of (`loops.telling`), tasks that the agent has already (`loops.taking_up`).

Theory of operation. A unary send is replayed as a streaming one where the card says that the agent streams. So the
agent's own task id is known, and durable, with the first event: it can be cancelled, followed by others, and taken up
again by a later try if this one breaks. An agent that says it does not stream after all is asked the unary way in the
same try, and believed until its next incarnation. Whatever answers with JSON is handled as an answer, not as a story.

A stream is read event by event; each batch is committed before the next is read, so a slow disk slows the agent down
and nothing is told to a caller that could be lost. The reading ends where the task does, or where it waits for input
or credentials: the rest is another request. A stream that ends before its task did is not an end; see `Heard`.

A task is written whole with every batch. One that grows large word by word would be written ten thousand times, so the
reading rests a little after a batch that was small beside its task (`rest_after`); what comes meanwhile is one batch.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum, auto
from typing import Final

from proxy.clock import Now
from proxy.core import a2a
from proxy.core.a2a import asking
from proxy.core.deferral import Deferral, JournalMode, RawHeaders, StoredAnswer, StoredTask
from proxy.core.errors import CallerError
from proxy.core.event_body import STREAM, EventBody
from proxy.core.outcome import Outcome
from proxy.forward import Answer, UpstreamFailure
from proxy.forward.headers import answer_headers
from proxy.loops.attempts import Ready
from proxy.loops.dialing import Dialer, Dialing, Failed, gateway
from proxy.loops.insisting import Insistence
from proxy.loops.routing import Route
from proxy.loops.telling import Story, Telling, stored

Refuses = Callable[[int, bytes], bool]
"""Whether an answer of this status with this body, or with this as its stream's first event, is a `Refused`."""
_OK: Final = 200
_FIRST_OTHER: Final = 300
_CHOSEN: Final = frozenset({b"accept", b"accept-encoding"})


TASK_PACE: Final = 2 * 1024 * 1024
"""Bytes of one task that are written in a second for events that are small beside it."""

SHARE: Final = 8
"""A batch is small whose events are less than the task's size divided by this."""

LONGEST_REST: Final = 0.25
"""Seconds that one rest takes at most."""

BURST: Final = 65_536
"""Bytes of events after which nobody rests: what comes in such pieces is few batches as it is."""

_SHORTEST_REST: Final = 0.005


def rest_after(task: int, events: int) -> float:
    """Seconds until more is read, after a batch of that many bytes was written with a task of that many bytes."""
    if events >= BURST:
        return 0.0
    rest = min((task - SHARE * events) / TASK_PACE, LONGEST_REST)
    return rest if rest >= _SHORTEST_REST else 0.0


class LeaseLost(Exception):  # noqa: N818 - it names what happened
    """Somebody else decides about the deferral: its lease was taken back while its agent was listened to."""


class Heard(Enum):
    """How a stream ended, for whoever listened."""

    WHOLE = auto()  # its task has ended, or waits for somebody
    OPEN = auto()  # the stream ended properly, and its task has not
    STILL = auto()  # nothing moved for too long


class Refused:
    """The agent answered that it does not do what was asked; nothing was begun, and nothing of it is in the story."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What a try brought: the answer, and the task that its events made, where it was told in events."""

    answer: StoredAnswer
    task: StoredTask | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Unfinished:
    """A story that stopped before its task did: its stream broke, or (None) ended as if that were all."""

    story: Story
    broken: Failed | None


class Tries:
    """Sends stored requests and listens."""

    def __init__(
        self,
        *,
        dialer: Dialer,
        telling: Telling,
        insistence: Insistence,
        now: Now,
        lease: float,
        answer_limit: int,
    ) -> None:
        self._dialer = dialer
        self._telling = telling
        self._insistence = insistence
        self._now = now
        self._lease = lease
        self._answer_limit = answer_limit
        self._unary: dict[str, int] = {}
        """Workspaces whose card announces streams that they do not have, with the incarnation that said so."""

    async def send(self, route: Route, ready: Ready) -> Told | Unfinished | Failed:
        """Send it, once, and take what comes back.

        Raises:
            LeaseLost: the deferral is somebody else's by now.
        """
        request, call = ready.deferral.request, ready.call
        if call.binding is not a2a.Binding.OTHER and self._streams(route):
            streamed = asking.as_stream(call, request.tail, ready.body)
            if streamed is not None:
                told = await self._as_stream(route, ready, *streamed)
                if told is not None:
                    return told
                self._unary[route.id] = route.workspace.incarnation
        headers = ready.headers if call.binding is a2a.Binding.OTHER else readable(ready.headers)
        dialing = self._dialer.call(route, method=request.method, tail=request.tail, headers=headers, body=ready.body)
        said = await self._sent(route, ready, dialing, refuses=_nothing)
        return said if not isinstance(said, Refused) else Failed(outcome=Outcome.LOST, reason="bad_response")

    async def _as_stream(self, route: Route, ready: Ready, tail: str, body: bytes) -> Told | Unfinished | Failed | None:
        """Send a unary request as a streaming one; None when the agent has no streams after all."""
        method = ready.deferral.request.method
        headers = asked_as(ready.headers, STREAM)
        dialing = self._dialer.call(route, method=method, tail=tail, headers=headers, body=body)
        said = await self._sent(route, ready, dialing, refuses=_without_streams)
        return None if isinstance(said, Refused) else said

    def _streams(self, route: Route) -> bool:
        if self._unary.get(route.id) == route.workspace.incarnation:
            return False
        return asking.announces_streaming(route.workspace.agent_card)

    async def _sent(
        self, route: Route, ready: Ready, dialing: Dialing, *, refuses: Refuses
    ) -> Told | Unfinished | Failed | Refused:
        deferral = ready.deferral
        story: Story | None = None
        broken: Failed | None = None
        heard: Heard | Refused = Heard.OPEN
        try:
            async with dialing as answer:
                if gateway(answer.status):
                    await answer.read(self._answer_limit)
                    return Failed(outcome=Outcome.GATEWAY, reason=f"upstream answered {answer.status}")
                if deferral.task_id is None or not is_stream(answer):
                    return self._answered(answer, await answer.read(self._answer_limit), refuses)
                story = await self.story(route, deferral)
                heard = await self.listen(deferral, answer, story, refuses)
        except UpstreamFailure as problem:
            broken = Failed(outcome=problem.outcome, reason=problem.reason)
        if isinstance(heard, Refused):
            return heard
        if story is None or not story.heard:
            return broken or Failed(outcome=Outcome.LOST, reason="eof")
        if heard is Heard.WHOLE:
            return await self.told(deferral, story)
        return Unfinished(story=story, broken=broken)

    @staticmethod
    def _answered(answer: Answer, content: bytes, refuses: Refuses) -> Told | Refused:
        """An answer that is no stream."""
        if refuses(answer.status, content):
            return Refused()
        headers = answer_headers(answer.headers, reframed=True)
        return Told(answer=StoredAnswer(status=answer.status, headers=headers, body=content))

    # Listening

    async def story(self, route: Route, deferral: Deferral, *, continues: bool = False) -> Story:
        """Begin to listen: a story of its own, or the one that an earlier try began."""
        journalled = route.effective.journal is not JournalMode.OFF
        return await self._insistence.written(
            deferral, lambda: self._telling.listen(deferral, continues=continues, journalled=journalled)
        )

    async def listen(
        self, deferral: Deferral, answer: Answer, story: Story, refuses: Refuses, *, patience: float | None = None
    ) -> Heard | Refused:
        """Read a stream until its task has ended or waits, or the stream ends.

        `patience`: seconds in which more than one event must come (the first shows the task as it is); None: any time.

        Raises:
            UpstreamFailure: it broke; what came before it is kept.
            LeaseLost: the deferral is somebody else's by now.
        """
        body = EventBody(STREAM, most=self._answer_limit)
        before, unwritten = story.heard, 0
        try:
            async with asyncio.timeout(patience) as limit:
                async for chunk in answer.chunks():
                    refusable, known = refuses if story.heard == before else None, story.heard
                    heard = await self.hear(deferral, story, body.feed(chunk), refusable)
                    if heard is not None:
                        return heard
                    if story.heard > before + 1:
                        limit.reschedule(None)
                    unwritten += len(chunk)
                    if story.heard > known:
                        await self._rest(story, unwritten, limit)
                        unwritten = 0
            heard = await self.hear(deferral, story, body.end(), refuses if story.heard == before else None)
        except TimeoutError:
            return Heard.STILL
        except CallerError as problem:
            raise UpstreamFailure(Outcome.LOST, "too_large", "an event of the stream is too large") from problem
        return heard or Heard.OPEN

    @staticmethod
    async def _rest(story: Story, written: int, limit: asyncio.Timeout) -> None:
        """Rest after a batch was written, if it was small beside its task; that is no lack of news of the agent's."""
        rest = rest_after(len(story.task.task_json), written) if story.task is not None else 0.0
        if rest:
            if (end := limit.when()) is not None:
                limit.reschedule(end + rest)
            await asyncio.sleep(rest)

    async def hear(
        self, deferral: Deferral, story: Story, events: Sequence[bytes], refuses: Refuses | None = None
    ) -> Heard | Refused | None:
        """Take events into a story; None where it goes on after them. `refuses` looks at the first."""
        if not events:
            return None
        if refuses is not None and refuses(_OK, events[0]):
            return Refused()
        await self._take(deferral, story, events)
        return Heard.WHOLE if story.rests else None

    async def _take(self, deferral: Deferral, story: Story, events: Sequence[bytes]) -> None:
        token = deferral.lease.token if deferral.lease is not None else ""

        async def write() -> bool:
            return await story.hear(events, token=token, until=self._now() + timedelta(seconds=self._lease))

        if not await self._insistence.written(deferral, write):
            raise LeaseLost

    async def told(self, deferral: Deferral, story: Story) -> Told:
        """What a story amounts to that has come to its end."""
        answer = await self._insistence.written(deferral, lambda: self._telling.answer_of(deferral, story))
        return Told(answer=answer, task=stored(story.task) if story.task is not None else None)


def _nothing(_: int, __: bytes) -> bool:
    """What the caller itself asked for is not refused to us."""
    return False


def _without_streams(status: int, said: bytes) -> bool:
    """The agent has no streams, whatever its card says."""
    return asking.streams_not(status, asking.refused_with(said))


def is_stream(answer: Answer) -> bool:
    """Whether an answer is a stream of events that can be read."""
    kind = encoding = b""
    for name, value in answer.headers:
        if name.lower() == b"content-type":
            kind = value
        elif name.lower() == b"content-encoding":
            encoding = value.strip().lower()
    is_events = kind.partition(b";")[0].strip().lower() == STREAM.encode()
    return is_events and encoding in {b"", b"identity"} and answer.status < _FIRST_OTHER


def readable(headers: RawHeaders) -> RawHeaders:
    """A stored request's fields for an answer that Holdfast reads itself: whatever it is, not encoded."""
    kept = tuple(pair for pair in headers if pair[0].lower() != b"accept-encoding")
    return (*kept, (b"Accept-Encoding", b"identity"))


def asked_as(headers: RawHeaders, kind: str) -> RawHeaders:
    """A stored request's fields for an answer of one media type, not encoded."""
    kept = tuple(pair for pair in headers if pair[0].lower() not in _CHOSEN)
    return (*kept, (b"Accept", kind.encode()), (b"Accept-Encoding", b"identity"))
