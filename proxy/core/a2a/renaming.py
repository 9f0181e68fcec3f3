"""Owns where ids of tasks and contexts stand in requests and answers, and changes them there and nowhere else.

Knows nothing of which ids belong together: a mapping comes in, id to id, for tasks and contexts alike. Where an agent
gives a task and its context one id, `contexts` is a mapping of its own for them.

Ids are changed by the name of the field they stand in, in all encodings (JSON names and proto names). What a caller or
an agent wrote freely is never touched: `metadata`, `data`, `text`, `raw`, artifacts; two exceptions are an error's own
text and the metadata of its google.rpc.ErrorInfo, where servers repeat the id they did not find. The `id` of a JSON-RPC
envelope is no task's. A body in which nothing is changed comes back as the same bytes; so does what is no JSON object.
"""

import re
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple
from urllib.parse import quote, unquote

from proxy.core.a2a import members as m
from proxy.core.a2a.call import SENDS, Binding, Call
from proxy.core.a2a.members import Members
from proxy.core.a2a.reading import takes_id_as_task

Mapped = Mapping[str, str]

_TASK_IDS: Final = ("taskId", "task_id")
_CONTEXT_IDS: Final = ("contextId", "context_id")
_REFERENCES: Final = ("referenceTaskIds", "reference_task_ids")
_RESOURCES: Final = ("name", "parent")  # v0.3 REST and gRPC: tasks/{id}[/pushNotificationConfigs/{config}]
_PUSH_CONFIGS: Final = (
    "taskPushNotificationConfig",
    "task_push_notification_config",
    "pushNotificationConfig",
    "push_notification_config",
)
_EVENTS: Final = ("task", "message", "msg", "statusUpdate", "status_update", "artifactUpdate", "artifact_update")
_LISTS: Final = ("tasks", "configs", "history")


class _Ids(NamedTuple):
    tasks: Mapped
    contexts: Mapped


def rename_task(body: bytes, call: Call, mapping: Mapped, *, contexts: Mapped | None = None) -> bytes:
    """A request's body with its ids changed, provisional to upstream: addressed task, message, references, push."""
    ids = _Ids(mapping, mapping if contexts is None else contexts)
    document = m.document(body) if any(ids) else None
    if document is None:
        return body
    id_is_task = takes_id_as_task(call)

    def in_params(params: Members) -> bool:
        return _rename_params(params, ids, id_is_task=id_is_task)

    return m.encode(document) if _change_params(document, call, in_params) else body


def rename_tail(tail: str, mapping: Mapped) -> str:
    """A REST path (with its query) whose task segment is changed; every other path as it is."""
    path, mark, query = tail.partition("?")
    segments = path.split("/")
    for index in range(1, len(segments)):
        if segments[index - 1] != "tasks":
            continue
        task, colon, verb = segments[index].partition(":")
        renamed = mapping.get(unquote(task))
        if renamed is not None:
            segments[index] = quote(renamed, safe="") + colon + verb
    pairs = [_rename_pair(pair, mapping) for pair in query.split("&")]
    return "/".join(segments) + mark + "&".join(pairs)


def rename_answer(body: bytes, mapping: Mapped, *, contexts: Mapped | None = None) -> bytes:
    """An answer's body, or one stream event's data, with its ids changed, upstream to provisional."""
    ids = _Ids(mapping, mapping if contexts is None else contexts)
    document = m.document(body) if any(ids) else None
    if document is None:
        return body

    def inside(value: Members) -> bool:
        return _rename(value, ids)

    if "jsonrpc" in document:
        changed = m.change_member(document, "result", inside) or m.change_items(document, "result", inside)
    else:
        changed = inside(document) | _swap_text(document, "message", mapping)  # v0.3 REST: {"type", "message"}
    changed |= m.change_member(document, "error", lambda error: _rename_error(error, ids))
    return m.encode(document) if changed else body


def rename_members(value: Members, mapping: Mapped, *, contexts: Mapped | None = None) -> bool:
    """Change the ids in a task, message, update, push configuration, list of them, or an event that wraps one.

    In place; whether anything was changed.
    """
    return _rename(value, _Ids(mapping, mapping if contexts is None else contexts))


def _rename(value: Members, ids: _Ids) -> bool:
    def inside(inner: Members) -> bool:
        return _rename(inner, ids)

    is_push_config = any(name in value for name in _PUSH_CONFIGS)
    return m.any_of(
        [
            _swap_ids(value, ids),
            _swap_references(value, ids.tasks),
            "status" in value and _swap(value, ("id",), ids.tasks),
            is_push_config and _swap_resources(value, ids.tasks),
            *(m.change_member(value, name, inside) for name in _EVENTS),
            m.change_member(value, "status", lambda status: _rename_status(status, inside)),
            *(m.change_items(value, name, inside) for name in _LISTS),
        ]
    )


def with_context(body: bytes, call: Call, context_id: str) -> bytes:
    """A send's body whose message stands in `context_id`, where the caller named neither a context nor a task.

    So the context that the caller's provisional task was given is the one the agent works in (servers keep a client's).
    """
    if call.operation not in SENDS or call.context_id or call.task_id:
        return body
    document = m.document(body)
    if document is None:
        return body

    def place(message: Members) -> bool:
        message.pop("context_id", None)
        message["contextId"] = m.raw(context_id)
        return True

    def in_params(params: Members) -> bool:
        return m.change_member(params, "message", place) or m.change_member(params, "request", place)

    return m.encode(document) if _change_params(document, call, in_params) else body


def _change_params(document: Members, call: Call, change: Callable[[Members], bool]) -> bool:
    """Change the parameters: below `params` in JSON-RPC, the body itself in REST."""
    return m.change_member(document, "params", change) if call.binding is Binding.JSONRPC else change(document)


def _rename_params(params: Members, ids: _Ids, *, id_is_task: bool) -> bool:
    def message(inner: Members) -> bool:
        return m.any_of([_swap_ids(inner, ids), _swap_references(inner, ids.tasks)])

    def push_config(inner: Members) -> bool:
        return m.any_of([_swap_ids(inner, ids), _swap_resources(inner, ids.tasks)])

    def configuration(inner: Members) -> bool:
        return m.any_of([m.change_member(inner, name, push_config) for name in _PUSH_CONFIGS])

    return m.any_of(
        [
            _swap_ids(params, ids),
            id_is_task and _swap(params, ("id",), ids.tasks),
            _swap_resources(params, ids.tasks),
            *(m.change_member(params, name, message) for name in ("message", "request")),
            *(m.change_member(params, name, push_config) for name in ("config", *_PUSH_CONFIGS)),
            m.change_member(params, "configuration", configuration),
        ]
    )


def _rename_status(status: Members, inside: Callable[[Members], bool]) -> bool:
    return m.any_of([m.change_member(status, name, inside) for name in ("message", "update")])


def _rename_error(error: Members, ids: _Ids) -> bool:
    def detail(inner: Members) -> bool:
        return m.change_member(inner, "metadata", lambda metadata: _swap_ids(metadata, ids))

    return m.any_of(
        [
            _swap_text(error, "message", ids.tasks),
            *(m.change_items(error, name, detail) for name in ("data", "details")),
        ]
    )


def _swap_ids(owner: Members, ids: _Ids) -> bool:
    return m.any_of([_swap(owner, _TASK_IDS, ids.tasks), _swap(owner, _CONTEXT_IDS, ids.contexts)])


def _swap(owner: Members, names: tuple[str, ...], mapping: Mapped) -> bool:
    changed = False
    for name in names:
        renamed = mapping.get(m.text(owner.get(name)) or "")
        if renamed is not None:
            owner[name] = m.raw(renamed)
            changed = True
    return changed


def _swap_references(owner: Members, mapping: Mapped) -> bool:
    changed = False
    for name in _REFERENCES:
        listed = m.items(owner.get(name))
        renamed = [mapping.get(m.text(item) or "") for item in listed or ()]
        if listed is not None and any(new is not None for new in renamed):
            owner[name] = m.raw([item if new is None else new for item, new in zip(listed, renamed, strict=True)])
            changed = True
    return changed


def _swap_resources(owner: Members, mapping: Mapped) -> bool:
    changed = False
    for name in _RESOURCES:
        collection, _, rest = (m.text(owner.get(name)) or "").partition("/")
        task, slash, below = rest.partition("/")
        renamed = mapping.get(task) if collection == "tasks" else None
        if renamed is not None:
            owner[name] = m.raw(f"tasks/{renamed}{slash}{below}")
            changed = True
    return changed


def _swap_text(owner: Members, name: str, mapping: Mapped) -> bool:
    said = m.text(owner.get(name))
    if said is None:
        return False
    renamed = said
    for old, new in mapping.items():
        whole = rf"(?<![\w-]){re.escape(old)}(?![\w-])"  # some agents count: task 1 is no part of 2001
        renamed = new.join(re.split(whole, renamed))
    if renamed == said:
        return False
    owner[name] = m.raw(renamed)
    return True


def _rename_pair(pair: str, mapping: Mapped) -> str:
    name, equals, value = pair.partition("=")
    renamed = mapping.get(unquote(value)) if name in _CONTEXT_IDS else None
    return pair if renamed is None else f"{name}{equals}{quote(renamed, safe='')}"
