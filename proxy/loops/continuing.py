"""Messages to tasks that are known: which task a put-away message goes on with, and what its agent calls it.

Owns: finding the task that a send continues, and the agent's ids for a send that is about to leave.
Knows nothing of: how a request is put away or sent, HTTP.

A message to a task is a deferral of its own, but no task of its own: it bears the id, the context and the story of the
task that it goes on with, and so it waits behind the task's earlier messages. That holds for a task with a provisional
id, and for one that its agent began while it was there: that task keeps the agent's id.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from proxy.core import a2a
from proxy.core.deferral import ACTIVE, Deferral, StoredTask
from proxy.core.errors import CallerError
from proxy.loops.routing import Route
from proxy.loops.stored_requests import stored_call
from proxy.store import Store
from proxy.store.task_lists import Alias


class NotNamedYet(Exception):  # noqa: N818 - it names what is
    """The agent has the task that a message goes on with, and has not said yet what it calls it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Continued:
    """The task that a send goes on with; `task` and `alias` where Holdfast has it."""

    task_id: str
    context_id: str | None = None
    task: StoredTask | None = None
    alias: Alias | None = None


async def continued(store: Store, route: Route, call: a2a.Call, caller: str | None) -> Continued | None:
    """The task that a send of this caller's goes on with; None where it begins one."""
    if call.task_id is None or not call.deferrable:
        return None
    own = a2a.is_provisional(call.task_id)
    latest = await _latest(store, route, call.task_id)
    if latest is None or latest.caller != caller:
        return None if own else Continued(task_id=call.task_id)
    return Continued(
        task_id=call.task_id,
        context_id=latest.context_id,
        task=latest.task if own or latest.state in ACTIVE else None,
        alias=await store.alias_of_task(route.id, call.task_id),
    )


def submitted(
    call: a2a.Call,
    goes_on: Continued | None,
    *,
    task_id: str,
    context_id: str,
    at: datetime,
    text: str,
    metadata: Mapping[str, object] | None = None,
) -> StoredTask:
    """The task of a send that is put away: a new one, or the one that it goes on with, submitted again."""
    known = goes_on.task if goes_on is not None else None
    if known is not None:
        said = a2a.continued_task(call, known.json, a2a.Version(known.version), task_id=task_id, at=at, text=text)
    else:
        said = a2a.submitted_task(call, task_id=task_id, context_id=context_id, at=at, text=text, metadata=metadata)
    return StoredTask(json=said, version=call.version.value, state="submitted")


async def outgoing(store: Store, route: Route, deferral: Deferral) -> tuple[a2a.Call, bytes]:
    """What is sent when a deferral is replayed: its body with the agent's ids and the promised context in it.

    Raises:
        CallerError: 404: the task that it goes on with has ended, and its agent never had it.
        NotNamedYet: an earlier message to that task is being tried beside the queue.
    """
    call, body = stored_call(deferral), deferral.request.body
    if call.binding is a2a.Binding.OTHER:
        return call, body
    foreign = route.foreign_contexts.of(deferral.caller)
    if foreign or a2a.PROVISIONAL_HINT.search(body):
        tasks, contexts = await aliases(store, route, call, deferral.caller)
        if call.task_id is not None and a2a.is_provisional(call.task_id) and call.task_id not in tasks:
            if await _is_tried(store, route, deferral):
                raise NotNamedYet("the agent has not named the task that it goes on with yet")
            text = "the task that it goes on with has ended, and the agent never had it"
            raise CallerError("TASK_ENDED", text, status=404)
        body = a2a.rename_task(body, call, tasks, contexts={**foreign, **contexts})
    if deferral.context_id is not None:
        body = a2a.with_context(body, call, foreign.get(deferral.context_id, deferral.context_id))
    return call, body


async def aliases(
    store: Store, route: Route, call: a2a.Call, caller: str | None
) -> tuple[Mapping[str, str], Mapping[str, str]]:
    """What the agent calls the tasks that a call names, and their contexts: by the ids that its caller was given."""
    tasks: dict[str, str] = {}
    contexts: dict[str, str] = {}
    for name in dict.fromkeys((call.task_id, *call.reference_task_ids)):
        if name is None or not a2a.is_provisional(name):
            continue
        latest = await _latest(store, route, name)
        alias = await store.alias_of_task(route.id, name) if latest is not None and latest.caller == caller else None
        if latest is None or alias is None:
            continue
        tasks[name] = alias.task_id
        if alias.context_id is not None and latest.context_id is not None:
            contexts[latest.context_id] = alias.context_id
    return tasks, contexts


async def standing(store: Store, route: Route, deferral: Deferral) -> StoredTask | None:
    """The task of a send that its agent refused, where it went on with one: it is what it was before.

    An error answers the message; of the task it says nothing.
    """
    if deferral.task_id is None or stored_call(deferral).task_id != deferral.task_id:
        return None
    for earlier in await store.deferrals_of_task(route.id, deferral.task_id, limit=MOST_EARLIER):
        if earlier.seq < deferral.seq and earlier.state not in ACTIVE and earlier.task is not None:
            return earlier.task
    return None


MOST_EARLIER = 100
"""Messages to one task among which its last known state is looked for."""


async def _is_tried(store: Store, route: Route, deferral: Deferral) -> bool:
    """An earlier message to the task is with the agent, perhaps."""
    known = await store.deferrals_of_task(route.id, deferral.task_id or "", limit=MOST_EARLIER)
    return any(each.seq < deferral.seq and each.state in ACTIVE for each in known)


async def _latest(store: Store, route: Route, task_id: str) -> Deferral | None:
    found = await store.deferrals_of_task(route.id, task_id, limit=1)
    return found[0] if found else None
