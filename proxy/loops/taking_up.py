"""Asking an agent for a task that it may have already, before its request is sent again.

Owns: which deferrals ask, the three questions (follow, look, list), and what their answers mean.
Knows nothing of: sending (`loops.streamed_tries`), what becomes of a deferral whose task is forgotten
(`loops.attempts`).

Theory of operation. A request that may have reached its agent is asked about before it is repeated:

    the agent named its task before the try broke ──> follow that task ──stream──> the story goes on
         (any version, any `redelivery`)                    │ refused
                                                            └─> look at it ──> its task as it is now
    it named none, v1.0, `ask_then_always` ──> list the context's tasks, look for the messageId in their histories
                                                   ├─ found ──> follow that task, as above
                                                   └─ not found, or it cannot be asked ──> send again

A task that an earlier life of the workspace had named, and that does not move once it is followed, counts as forgotten
after a while: agents with a database keep tasks that nobody works on any more.

To follow a task delivers nothing, so it is done under every `redelivery`; only when the agent does not know the task
any more the setting decides. A question that fails on its way leaves the deferral as it was: the next try asks again.
"""

from dataclasses import dataclass
from typing import Final

from proxy.core import a2a
from proxy.core.a2a import asking
from proxy.core.deferral import Deferral, Mishap, RawHeaders
from proxy.core.event_body import STREAM
from proxy.core.outcome import Outcome, Redelivery
from proxy.forward import UpstreamFailure
from proxy.loops.attempts import FORGOTTEN, REDELIVERY_HEADER, Ready, resumable
from proxy.loops.dialing import Dialer, Failed, gateway
from proxy.loops.routing import Route
from proxy.loops.streamed_tries import Heard, Refused, Refuses, Told, Tries, asked_as, is_stream
from proxy.loops.telling import Story
from proxy.telemetry import EventName, Telemetry

ORPHANED: Final = "the agent was restarted and does not go on with its task"
MOST_NOTED: Final = 10_000
"""Deferrals whose broken stories are remembered at a time."""
PAGES: Final = 10
"""Pages of ListTasks that are looked through; a context with more tasks than fit is not searched to its end."""
_OK: Final = 200
_JSON: Final = "application/json"


@dataclass(frozen=True, slots=True, kw_only=True)
class NotTaken:
    """A task was asked for and not got: the try failed, and how that counts (`core.deferral.after_failed_try`)."""

    failed: Failed
    mishap: Mishap


@dataclass(frozen=True, slots=True, kw_only=True)
class Forgotten:
    """The agent does not know the task that it had named, or does nothing about it any more."""

    why: str


Taken = Told | NotTaken | Forgotten | None
"""None: there was nothing to ask about, or nobody who could be asked."""


class TakingUp:
    """Asks agents."""

    def __init__(
        self, *, dialer: Dialer, tries: Tries, telemetry: Telemetry, answer_limit: int, patience: float
    ) -> None:
        self._dialer = dialer
        self._tries = tries
        self._telemetry = telemetry
        self._answer_limit = answer_limit
        self._patience = patience
        self._told_in: dict[str, int] = {}
        """The incarnations in which stories broke off, by deferral; the latest of them."""

    def broke_off(self, deferral: Deferral, incarnation: int) -> None:
        """Take note of the life of the workspace in which the deferral was sent, and its task named."""
        self._told_in[deferral.id] = incarnation
        if len(self._told_in) > MOST_NOTED:
            self._told_in.pop(next(iter(self._told_in)))

    def _patience_with(self, route: Route, deferral: Deferral) -> float | None:
        """How long a task may stand still: that of an earlier life may have nobody left who works on it."""
        told_in = self._told_in.get(deferral.id, route.workspace.incarnation)
        return self._patience if self._patience and told_in != route.workspace.incarnation else None

    async def take_up(self, route: Route, ready: Ready) -> Taken:
        """Take up the task of a deferral that may have been delivered.

        Raises:
            LeaseLost: the deferral is somebody else's by now.
        """
        deferral, call = ready.deferral, ready.call
        if not deferral.maybe or call.binding is a2a.Binding.OTHER or deferral.task_id is None:
            return None
        if deferral.upstream_task_id is not None and resumable(route, deferral):
            story = await self._tries.story(route, deferral, continues=True)
            return await self.follow(route, ready, story, deferral.upstream_task_id)
        if route.effective.redelivery is Redelivery.ASK_THEN_ALWAYS:
            return await self._look_for(route, ready)
        return None

    async def _look_for(self, route: Route, ready: Ready) -> Taken:
        """Look for the message among the tasks of its context."""
        deferral = ready.deferral
        try:
            event = await self._find(route, ready)
        except UpstreamFailure as problem:
            if problem.outcome is Outcome.NOT_SENT:
                return NotTaken(failed=Failed(outcome=problem.outcome, reason=problem.reason), mishap=Mishap.NOT_SENT)
            return None
        task_id = asking.about(event).task_id if event is not None else None
        if event is None or task_id is None:
            return None
        story = await self._tries.story(route, deferral)
        if await self._tries.hear(deferral, story, [event]) is Heard.WHOLE:
            self._tell(route, deferral, task_id, "list")
            return await self._tries.told(deferral, story)
        return await self.follow(route, ready, story, task_id)

    async def follow(self, route: Route, ready: Ready, story: Story, task_id: str) -> Told | NotTaken | Forgotten:
        """Listen to the agent's own task from where it is now."""
        deferral, call = ready.deferral, ready.call
        question = asking.follow(call, deferral.request.tail, task_id)
        before, headed = story.heard, False
        heard: Heard | Refused = Refused()
        try:
            async with self._dialer.call(
                route,
                method=question.method,
                tail=question.tail,
                headers=question_headers(ready.headers, question, STREAM),
                body=question.body,
            ) as answer:
                if gateway(answer.status):
                    await answer.read(self._answer_limit)
                    return _turned_away(answer.status)
                headed = is_stream(answer)
                if headed:
                    heard = await self._tries.listen(
                        deferral, answer, story, _lost(ready), patience=self._patience_with(route, deferral)
                    )
        except UpstreamFailure as problem:
            # Some servers begin a stream about a task that is over, and break it off: the task itself says more.
            if story.heard > before or not headed:
                return _broken(problem, told=story.heard > before)
        if heard is Heard.STILL:
            self._told_in.pop(deferral.id, None)
            return Forgotten(why=ORPHANED)
        if heard is Heard.WHOLE:
            self._told_in.pop(deferral.id, None)
            self._tell(route, deferral, task_id, "subscribe")
            return await self._tries.told(deferral, story)
        return await self._look(route, ready, story, task_id)

    async def _look(self, route: Route, ready: Ready, story: Story, task_id: str) -> Told | NotTaken | Forgotten:
        """It cannot be followed, or that ended before the task did: see what the task is now, and take it so."""
        deferral = ready.deferral
        try:
            status, content = await self._ask(route, ready, asking.look(ready.call, deferral.request.tail, task_id))
        except UpstreamFailure as problem:
            return _broken(problem, told=False)
        if gateway(status):
            return _turned_away(status)
        event = asking.task_event(ready.call, content)
        if event is None:
            return Forgotten(why=FORGOTTEN)
        if isinstance(await self._tries.hear(deferral, story, [event], _lost(ready)), Refused):
            return Forgotten(why=FORGOTTEN)
        self._tell(route, deferral, task_id, "get")
        return await self._tries.told(deferral, story)

    async def _find(self, route: Route, ready: Ready) -> bytes | None:
        """The task whose history holds the message, as a stream event; None where there is none, or none can be told.

        Raises:
            UpstreamFailure: the agent could not be asked.
        """
        deferral, call = ready.deferral, ready.call
        if call.message_id is None or deferral.context_id is None:
            return None
        page = ""
        for _ in range(PAGES):
            question = asking.list_context(call, deferral.request.tail, deferral.context_id, page=page)
            if question is None:
                return None
            status, content = await self._ask(route, ready, question)
            if status != _OK:
                return None
            listed = asking.found_in(content, call.message_id)
            if listed.event is not None or listed.next_page is None:
                return listed.event
            page = listed.next_page
        return None

    async def _ask(self, route: Route, ready: Ready, question: asking.Question) -> tuple[int, bytes]:
        async with self._dialer.call(
            route,
            method=question.method,
            tail=question.tail,
            headers=question_headers(ready.headers, question, _JSON),
            body=question.body,
        ) as answer:
            return answer.status, await answer.read(self._answer_limit)

    def _tell(self, route: Route, deferral: Deferral, task_id: str, how: str) -> None:
        self._telemetry.emit(
            EventName.DEFERRAL_TAKEN_UP,
            workspace=route.id,
            incarnation=route.workspace.incarnation,
            receipt=deferral.id,
            request_id=deferral.request_id,
            fields={"task": task_id, "asked": how},
        )


def _turned_away(status: int) -> NotTaken:
    """A gateway answered the question."""
    failed = Failed(outcome=Outcome.GATEWAY, reason=f"upstream answered {status}")
    return NotTaken(failed=failed, mishap=Mishap.FOLLOWED)


def _broken(problem: UpstreamFailure, *, told: bool) -> NotTaken:
    """A question that failed. One that brought something, or never got out, costs nothing; a mute agent costs a try."""
    reached = problem.outcome is not Outcome.NOT_SENT
    row = Mishap.SILENT if reached and not told else Mishap.FOLLOWED
    return NotTaken(failed=Failed(outcome=problem.outcome, reason=problem.reason), mishap=row)


def _lost(ready: Ready) -> Refuses:
    """What says that a task cannot be taken up: an error, or that it has not heard the message which it belongs to.

    The latter only of a message to a task that was there before; an agent may have fallen back to before that message.
    """
    call = ready.call

    def refuses(_: int, said: bytes) -> bool:
        if asking.refused_with(said) is not None:
            return True
        task = asking.about(said).task
        if task is None or call.task_id is None or call.message_id is None or not task.get("history"):
            return False
        return not asking.holds_message(task, call.message_id)

    return refuses


def question_headers(headers: RawHeaders, question: asking.Question, kind: str) -> RawHeaders:
    """A stored request's fields for a question of ours: it repeats nothing, and a GET has no body to describe."""
    gone = {REDELIVERY_HEADER.lower()} | ({b"content-type"} if question.method == "GET" else set())
    return asked_as(tuple(pair for pair in headers if pair[0].lower() not in gone), kind)
