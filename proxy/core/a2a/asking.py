"""Owns what Holdfast itself says to an agent about a send: the send as a stream, and three questions about its task.

Knows nothing of when that is done, of sockets and stores. Every request is made from the send as it is to leave (or a
subscription), so that it stays in its binding, version and address (base path, tenant), with its JSON-RPC id:

| | JSON-RPC | REST |
| --- | --- | --- |
| the send as a stream | another `method` | `message:send` becomes `message:stream` |
| follow the task | SubscribeToTask, tasks/resubscribe | POST `tasks/{id}:subscribe` |
| look at the task | GetTask, tasks/get | GET `tasks/{id}` |
| list a context's tasks | ListTasks (v1.0 alone) | GET `tasks?contextId=` |
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple
from urllib.parse import quote, urlencode

from msgspec import Raw

from proxy.core.a2a import members as m
from proxy.core.a2a import operations, shapes
from proxy.core.a2a.call import NO_ID, Binding, Call, Operation, Version
from proxy.core.a2a.keeping import refusal
from proxy.core.a2a.members import Members

PAGE: Final = 100
"""Tasks that one question asks for (A2A v1.0 section 3.1.4: at most 100), with so many messages of each."""
_SEND_PATH: Final = re.compile(r"/(?:message:(?:send|stream)|tasks/[^/?]+:subscribe)(?=\?|\Z)")
_NO_STREAM: Final = frozenset(
    {"-32601", "-32004", "METHOD_NOT_FOUND", "UNSUPPORTED_OPERATION", "UnsupportedOperationError"}
)
_NO_SUCH_PATH: Final = frozenset({404, 405, 501})


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A request of Holdfast's own: method, raw tail below the workspace's URL, body."""

    method: str
    tail: str
    body: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """What a page of ListTasks said: the task whose history holds the message, as a stream event; the next page."""

    event: bytes | None
    next_page: str | None


def announces_streaming(card: Mapping[str, Any] | None) -> bool:
    """Whether an agent's card says that it streams (A2A v1.0 section 4.4.3; the same name in v0.3)."""
    capabilities = (card or {}).get("capabilities")
    return isinstance(capabilities, Mapping) and capabilities.get("streaming") is True


def as_stream(call: Call, tail: str, body: bytes) -> tuple[str, bytes] | None:
    """The tail and body of a unary send as a streaming one; None for any other call, and where it cannot be made."""
    if call.operation is not Operation.SEND:
        return None
    if call.binding is Binding.REST:
        return _SEND_PATH.sub("/message:stream", tail, count=1), body
    document = m.document(body)
    if document is None:
        return None
    document["method"] = m.raw(operations.method(Operation.STREAM, call.version))
    return tail, m.encode(document)


def follow(call: Call, tail: str, task_id: str) -> Question:
    """Ask for the events of a task from now on. `call` is the send that led to it, `tail` the send's."""
    if call.binding is Binding.REST:
        return Question(method="POST", tail=_task_path(tail, task_id, ":subscribe"))
    return _rpc(call, tail, Operation.SUBSCRIBE, {"id": task_id})


def look(call: Call, tail: str, task_id: str) -> Question:
    """Ask what a task is now."""
    if call.binding is Binding.REST:
        return Question(method="GET", tail=_task_path(tail, task_id, ""))
    return _rpc(call, tail, Operation.GET, {"id": task_id})


def list_context(call: Call, tail: str, context_id: str, *, page: str = "") -> Question | None:
    """Ask for the tasks of a context with their messages; None where the version has no such operation."""
    if call.version is not Version.V10:
        return None
    wanted: dict[str, object] = {"contextId": context_id, "pageSize": PAGE, "historyLength": PAGE}
    if page:
        wanted["pageToken"] = page
    if call.binding is Binding.JSONRPC:
        return _rpc(call, tail, Operation.LIST, wanted | {"includeArtifacts": True})
    path, _, query = _SEND_PATH.sub("/tasks", tail, count=1).partition("?")
    asked = urlencode({**wanted, "includeArtifacts": "true"})
    return Question(method="GET", tail=f"{path}?{query}&{asked}" if query else f"{path}?{asked}")


def found_in(body: bytes, message_id: str) -> Listed:
    """Look through one page of ListTasks for the task that a message belongs to. Never raises."""
    document = m.document(body) or {}
    result = (m.members(document.get("result")) or {}) if "jsonrpc" in document else document
    for raw in m.items(result.get("tasks")) or ():
        task = m.members(raw)
        if task is not None and shapes.is_task(task) and holds_message(task, message_id):
            return Listed(event=_wrapped(document, task), next_page=None)
    return Listed(event=None, next_page=m.text(result.get("nextPageToken")) or None)


def task_event(call: Call, body: bytes) -> bytes | None:
    """The task in an answer to GetTask as an event of the send's binding and version; None where there is none."""
    document = m.document(body) or {}
    result = (m.members(document.get("result")) or {}) if "jsonrpc" in document else document
    task = result if shapes.is_task(result) else m.members(result.get("task"))
    if task is None or not shapes.is_task(task) or refusal(document) is not None:
        return None
    if call.binding is Binding.JSONRPC and call.version is Version.V03:
        return body
    return _wrapped(document, task)


class About(NamedTuple):
    """What a stream event is about: the task that it is, if it is one, and the ids that it names."""

    task: Members | None = None
    task_id: str | None = None
    context_id: str | None = None


def about(event: bytes) -> About:
    """What a stream event is about; nothing, for what is none. Never raises."""
    document = m.document(event) or {}
    item = (m.members(document.get("result")) or {}) if "jsonrpc" in document else document
    task = m.members(item.get("task")) or item
    if shapes.is_task(task):
        return About(task, m.text(task.get("id")), _context_of(task))
    for name in ("statusUpdate", "artifactUpdate", "status_update", "artifact_update", "message", "msg"):
        inner = m.members(item.get(name))
        if inner is not None:
            item = inner
            break
    return About(None, m.text(item.get("taskId")) or m.text(item.get("task_id")), _context_of(item))


def holds_message(task: Members, message_id: str) -> bool:
    """Whether a task's history holds that message."""
    for raw in m.items(task.get("history")) or ():
        message = m.members(raw) or {}
        if m.text(message.get("messageId")) == message_id or m.text(message.get("message_id")) == message_id:
            return True
    return False


def refused_with(body: bytes) -> str | None:
    """The code or reason of an error, in any binding; None for what is no error."""
    found = refusal(m.document(body) or {})
    return None if found is None else found[0]


def streams_not(status: int, code: str | None) -> bool:
    """Whether an agent that was asked for a stream said that it has none: nothing was done, and a unary send may go."""
    return code in _NO_STREAM or status in _NO_SUCH_PATH


def _context_of(item: Members) -> str | None:
    return m.text(item.get("contextId")) or m.text(item.get("context_id"))


def _task_path(tail: str, task_id: str, verb: str) -> str:
    return _SEND_PATH.sub(lambda _: f"/tasks/{quote(task_id, safe='')}{verb}", tail, count=1)


def _rpc(call: Call, tail: str, operation: Operation, params: Mapping[str, object]) -> Question:
    said = {
        "jsonrpc": "2.0",
        "id": Raw(call.rpc_id if call.rpc_id != NO_ID else b"1"),  # null asks for no answer (JSON-RPC 2.0 section 4.1)
        "method": operations.method(operation, call.version),
        "params": params,
    }
    return Question(method="POST", tail=tail, body=m.encode(said))


def _wrapped(document: Members, task: Members) -> bytes:
    """A task as an item of a v1.0 (or REST) stream, in the envelope of the answer that it came in."""
    item = {"task": task}
    if "jsonrpc" not in document:
        return m.encode(item)
    return m.encode({"jsonrpc": "2.0", "id": document.get("id", m.NULL), "result": item})
