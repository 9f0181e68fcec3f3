"""Asking an agent what has become of a task that it went on with after it had answered.

Owns: the question, for tasks that somebody wants to be notified of.
Knows nothing of: who that is and how often it is asked (`loops.notifying`), what is kept of the answer (`loops.tasks`).

An agent that streams tells the whole story of a deferred task while it is delivered. One that does not may answer
"working", and go on: whoever wants to be notified of such a task hears of its end because Holdfast asks. It asks
without credentials, for those were dropped when the answer came.
"""

from proxy.core import a2a
from proxy.core.a2a import asking
from proxy.core.deferral import Deferral
from proxy.forward import UpstreamFailure
from proxy.loops.dialing import Dialer
from proxy.loops.routing import Routing
from proxy.loops.streamed_tries import asked_as
from proxy.loops.tasks import Tasks
from proxy.store import Store

_OK = 200


class OpenTasks:
    """Asks agents about open tasks."""

    def __init__(self, *, store: Store, dialer: Dialer, tasks: Tasks, routing: Routing, answer_limit: int) -> None:
        self._store = store
        self._dialer = dialer
        self._tasks = tasks
        self._routing = routing
        self._answer_limit = answer_limit

    def goes_on(self, deferral: Deferral) -> bool:
        """The agent has the task and is at work on it: nobody has to say anything for it to end."""
        task = deferral.task
        return self._tasks.is_open(deferral) and task is not None and task.state in {"submitted", "working"}

    async def look(self, deferral: Deferral) -> None:
        """Ask what an open task is now, and keep the answer; whoever follows the deferral hears of it."""
        route, task_id = self._routing.get(deferral.workspace_id), deferral.task_id
        if route is None or task_id is None or route.polling or not route.serving:
            return
        alias = await self._store.alias_of_task(deferral.workspace_id, task_id)
        if alias is None:
            return
        call = a2a.Call(
            binding=a2a.Binding(deferral.binding),
            version=a2a.Version(deferral.protocol),
            operation=a2a.Operation.GET,
            rpc_id=b'"holdfast"',
            task_id=alias.task_id,
        )
        question = asking.look(call, deferral.request.tail, alias.task_id)
        headers = asked_as(deferral.request.headers, "application/json")
        try:
            async with self._dialer.call(
                route, method=question.method, tail=question.tail, headers=headers, body=question.body
            ) as answer:
                status, content = answer.status, await answer.read(self._answer_limit)
        except UpstreamFailure:
            return
        contexts = {alias.context_id: deferral.context_id} if alias.context_id and deferral.context_id else {}
        shown = a2a.rename_answer(content, {alias.task_id: task_id}, contexts=contexts)
        if status == _OK:
            await self._tasks.keep(call, deferral, status, shown, deferral.caller)
