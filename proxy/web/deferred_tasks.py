"""Calls about deferred tasks: get, list, cancel, subscribe, messages to them, push notification configurations.

Owns: what each is answered, and which of them go on to the agent, with the agent's ids in them and the caller's in what
comes back.
Knows nothing of: sockets, how a call is dialled (`web.calls`), what tasks are (`loops.tasks`), how a page of them is
made (`core.a2a.listing`).

Theory of operation. Such a call is answered here, or goes the way of every call with three things noted on it: other
ids to send (`Asked.replace_body`), what is answered `instead` when the agent gives no answer, and what the agent's
answer goes through `afterwards`. So a call about a task is judged, counted and refused like any other, and a get that
meets a dead agent starts its restart like any other and is still answered, from the store.

    get, open task ──> the agent ──answer──> ids mapped, kept ──> the caller
                          └──none──> the task as it was kept
    list ──> the agent ──page──> merged with the caller's own ──> the caller
                └──none, or no lists──> the caller's own, if there are any
"""

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime

from aiohttp import hdrs, web

from proxy.clock import Now
from proxy.core import a2a
from proxy.core.a2a import listing
from proxy.core.deferral import Deferral
from proxy.loops.task_lists import OwnTasks, TaskLists
from proxy.loops.tasks import TaskAnswer, Tasks, refused
from proxy.web.answers import REQUEST_ID
from proxy.web.arrived import Arrived
from proxy.web.asked import Asked
from proxy.web.passed_on import Reply
from proxy.web.undelivered import Undelivered

OK = 200
LONGEST_LIST = 4096
"""Bytes of a body that may ask for a list of tasks over JSON-RPC; those that SDKs write are a tenth of it."""
NO_SUCH_METHOD = frozenset({-32601, -32004})
NO_SUCH_PATH = frozenset({404, 405, 501})
"""How agents say that they list no tasks: over JSON-RPC, and over REST."""

Subscribed = Callable[[Arrived, Asked, Deferral], Awaitable[Reply | None]]
"""Answers a subscription to a task that has not been delivered yet, or is being told; None: it goes on to the agent."""

Pushed = Callable[[a2a.Call, str, Deferral], Awaitable[TaskAnswer]]
"""Answers a request (and its tail) about the push notification configurations of a task."""


PushTaken = Callable[[a2a.Call, bytes, Deferral], Awaitable[bytes]]
"""Takes the push notification configuration out of the body of a message to a task that the agent gets at once."""


class DeferredTasks:
    """Serves calls about deferred tasks. `stream_limit`: bytes of one event in which ids are changed."""

    subscribed: Subscribed | None = None
    pushed: Pushed | None = None
    push_taken: PushTaken | None = None

    def __init__(
        self, *, tasks: Tasks, lists: TaskLists, undelivered: Undelivered, now: Now, stream_limit: int
    ) -> None:
        self._tasks = tasks
        self._lists = lists
        self._undelivered = undelivered
        self._now = now
        self._stream_limit = stream_limit

    @staticmethod
    def concerns(asked: Asked) -> bool:
        """Whether a request may be about deferred tasks, as far as a search through its bytes can tell."""
        body, tail = asked.body, asked.tail
        if asked.route.tasks or asked.route.foreign_contexts or a2a.PROVISIONAL_HINT.search(body):
            return True
        if tail and (tail.partition("?")[0].endswith("/tasks") or a2a.PROVISIONAL_HINT.search(tail.encode())):
            return True
        return len(body) < LONGEST_LIST and b"ListTasks" in body

    async def serve(self, arrived: Arrived, asked: Asked) -> Reply | None:
        """Answer it; None when it goes on to the agent."""
        call = asked.call_or_none()
        if call is None or call.binding is a2a.Binding.OTHER:
            return None
        if call.operation is a2a.Operation.LIST:
            return await self._list(asked, call)
        known = await self._tasks.mapping(asked.route, call, asked.caller)
        addressed = call.task_id
        if addressed is not None and addressed not in known and a2a.is_provisional(addressed):
            return own(asked, refused(a2a.task_not_found(call)))
        deferral = known.get(addressed or "")
        answered = await self._about(arrived, asked, call, deferral) if deferral is not None else None
        foreign = asked.route.foreign_contexts.of(asked.caller_name)
        if answered is not None or not (known or foreign):
            return answered
        tasks, contexts = await self._tasks.aliases(asked.route, call, known)
        if call.deferrable and not tasks.keys() >= {name for name in known if a2a.is_provisional(name)}:
            return await self._undelivered.defer_behind(asked, "a task that it refers to is still deferred")
        if tasks or foreign:
            self._send_on(asked, call, deferral, tasks, {**foreign, **contexts})
        return None

    # One task

    async def _about(self, arrived: Arrived, asked: Asked, call: a2a.Call, deferral: Deferral) -> Reply | None:
        """Answer a call that addresses a deferred task; None when it goes on to the agent."""
        operation = call.operation
        if call.deferrable:
            return await self._message(asked, call, deferral)
        if operation is a2a.Operation.GET:
            asked_for = self._tasks.is_open(deferral) and asked.route.serving
            return None if asked_for else own(asked, self._tasks.answer(call, deferral))
        if not a2a.is_provisional(deferral.task_id or ""):
            return None  # a task of the agent's own: the agent knows more of everything else
        if operation is a2a.Operation.CANCEL:
            return await self._cancel(asked, call, deferral)
        if operation is a2a.Operation.SUBSCRIBE:
            return await self._subscribe(arrived, asked, call, deferral)
        return await self._push(asked, call, deferral) if operation in a2a.PUSHES else None

    async def _push(self, asked: Asked, call: a2a.Call, deferral: Deferral) -> Reply | None:
        if self.pushed is not None:
            return own(asked, await self.pushed(call, asked.tail, deferral))
        return None if self._tasks.is_open(deferral) else own(asked, refused(a2a.push_not_supported(call)))

    async def _message(self, asked: Asked, call: a2a.Call, deferral: Deferral) -> Reply | None:
        """A message to a task: it waits behind those before it, and goes to the agent when that has its turn.

        Who may see another's task (the admin, its workspace) has no part in it all the same.
        """
        tasks = self._tasks
        if deferral.caller != asked.caller_name and a2a.is_provisional(deferral.task_id or ""):
            return own(asked, refused(a2a.task_not_found(call)))
        if not tasks.has_ended(deferral) and not tasks.is_open(deferral):
            return await self._undelivered.defer_behind(asked, "its task is still deferred")
        if tasks.is_open(deferral):
            if self.push_taken is not None:
                asked.body = await self.push_taken(call, asked.body, deferral)
            return None
        named = (await tasks.aliases(asked.route, call, {deferral.task_id or "": deferral}))[0]
        if call.task_id in named and asked.route.serving:
            return None  # the agent has the task, and answers for itself
        return own(asked, refused(a2a.task_has_ended(call)))

    async def _cancel(self, asked: Asked, call: a2a.Call, deferral: Deferral) -> Reply | None:
        found = await self._tasks.cancel(asked.route, deferral)
        if not found.withdrawn:
            return None if found.at_agent else own(asked, refused(a2a.not_cancelable(call)))
        canceled = self._tasks.answer(call, found.deferral)
        if not found.at_agent or not asked.route.serving:
            return own(asked, canceled)
        asked.instead = self._answers(asked, canceled)  # what waited never runs, whatever the agent says of the task
        return None

    async def _subscribe(self, arrived: Arrived, asked: Asked, call: a2a.Call, deferral: Deferral) -> Reply | None:
        if self.subscribed is not None:
            answered = await self.subscribed(arrived, asked, deferral)
            if answered is not None:
                return answered
        if self._tasks.has_ended(deferral):
            return own(asked, refused(a2a.task_has_ended(call)))
        return None

    # On to the agent

    def _send_on(
        self,
        asked: Asked,
        call: a2a.Call,
        deferral: Deferral | None,
        tasks: Mapping[str, str],
        contexts: Mapping[str, str],
    ) -> None:
        """Let a call go to the agent: its ids changed, what comes back changed back, and kept."""
        asked.replace_body(
            a2a.rename_task(asked.body, call, tasks, contexts=contexts),
            a2a.rename_tail(asked.tail, {**contexts, **tasks}),
            {theirs: ours for ours, theirs in tasks.items()},
        )
        asked.contexts = {theirs: ours for ours, theirs in contexts.items()}
        story = _Story(call, deferral, self._now) if deferral is not None and self._tasks.is_open(deferral) else None
        asked.relayed = a2a.EventNames(
            asked.names, asked.contexts, most=self._stream_limit, seen=story.hear if story is not None else None
        )
        if deferral is None:
            return
        if call.operation is a2a.Operation.GET and asked.instead is None:
            asked.instead = self._answers(asked, self._tasks.answer(call, deferral))
        about = deferral

        async def afterwards(status: int, body: bytes) -> web.Response | None:
            said = await self._tasks.keep(call, about, status, body, asked.caller_name)
            if said is None and call.deferrable and self._tasks.has_ended(about):
                lost = a2a.says_not_found(call, status, body)
                said = refused(a2a.task_has_ended(call)) if lost else None
            return own(asked, said) if said is not None else None

        asked.afterwards = afterwards
        if story is not None:
            followed = story

            async def told() -> None:
                if (task := followed.news()) is not None:
                    await self._tasks.kept(about, task)

            asked.told = told

    @staticmethod
    def _answers(asked: Asked, answer: TaskAnswer) -> Callable[[Mapping[str, str]], web.Response]:
        """An answer for when the agent gives none, with the header fields that say why."""

        def instead(headers: Mapping[str, str]) -> web.Response:
            response = own(asked, answer)
            response.headers.update(headers)
            return response

        return instead

    # Lists

    async def _list(self, asked: Asked, call: a2a.Call) -> Reply | None:
        """Merge the caller's own tasks into the agent's list; None when the agent is asked (first)."""
        if call.version is a2a.Version.V03:
            return None  # it has no lists that any SDK serves
        route, caller = asked.route, asked.caller_name
        try:
            wish = listing.list_wish(call, asked.tail)
        except listing.BadList as problem:  # the agent judges it, if there is one
            asked.instead = self._answers(asked, refused(a2a.invalid_params(call, str(problem))))
            return None
        tasks = await self._lists.own(route, caller, wish)
        foreign = route.foreign_contexts.of(caller)
        has_own = tasks.tasks or tasks.more is not None or wish.is_ours or foreign
        if not has_own and not await self._lists.any(route, caller):
            return None  # nothing of the agent's page is touched
        alone = self._page(call, tasks, None, wish)
        if wish.place.theirs is None:
            return own(asked, alone)
        if tasks.tasks:
            asked.instead = self._answers(asked, alone)
        body, tail = listing.list_request(call, asked.tail, wish.place, wish.size)
        body, tail = a2a.rename_task(body, call, {}, contexts=foreign), a2a.rename_tail(tail, foreign)
        asked.replace_body(body, tail, {})

        async def afterwards(status: int, answer: bytes) -> web.Response | None:
            theirs = listing.listed_tasks(answer) if status == OK else None
            if theirs is not None:
                merged = await self._lists.merged(route, caller, tasks, theirs)
                return own(asked, self._page(call, tasks, merged, wish))
            return own(asked, alone) if tasks.tasks and _lists_nothing(call, status, answer) else None

        asked.afterwards = afterwards
        return None

    @staticmethod
    def _page(call: a2a.Call, tasks: OwnTasks, theirs: listing.Theirs | None, wish: listing.ListWish) -> TaskAnswer:
        shown = tasks.shown(agent_lists=theirs is not None)
        found, behind, total = listing.page(shown, tasks.more, theirs, wish)
        return TaskAnswer(status=OK, body=listing.list_answer(call, found, behind, wish, total))


class _Story:
    """What a stream that is passed on makes of an open task."""

    def __init__(self, call: a2a.Call, deferral: Deferral, now: Callable[[], datetime]) -> None:
        self._now = now
        known = deferral.task
        self._heard = False
        self._task: a2a.TaskSoFar | None = None
        if known is not None:
            task = a2a.KeptTask(
                task_json=known.json,
                version=a2a.Version(known.version),
                state=known.state,
                terminal=False,
                upstream_task_id=None,
                upstream_context_id=None,
            )
            ours = {"task_id": deferral.task_id or "", "context_id": deferral.context_id or ""}
            self._task = a2a.TaskSoFar(call, task, **ours)

    def hear(self, event: bytes) -> None:
        """One event, under the caller's ids."""
        if self._task is not None and self._task.hear(event, self._now(), errors=False):
            self._heard = True

    def news(self) -> a2a.KeptTask | None:
        """The task, if it was heard of since it was asked for last."""
        heard, self._heard = self._heard, False
        return self._task.kept() if heard and self._task is not None else None


def _lists_nothing(call: a2a.Call, status: int, answer: bytes) -> bool:
    """The agent says that it has no lists."""
    if call.binding is a2a.Binding.JSONRPC:
        return status in NO_SUCH_PATH or a2a.error_code(answer) in NO_SUCH_METHOD
    return status in NO_SUCH_PATH


def own(asked: Asked, answer: TaskAnswer) -> web.Response:
    """An answer of Holdfast's own."""
    response = web.Response(body=answer.body, status=answer.status, headers={REQUEST_ID: asked.request_id})
    response.headers[hdrs.CONTENT_TYPE] = answer.content_type
    return response
