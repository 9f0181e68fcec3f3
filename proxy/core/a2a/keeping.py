"""Owns what is kept of an agent's answer to a deferred send: one task, under the id the caller was given.

Knows nothing of stores and of how the caller will ask for it (`tasks` answers that).

| the agent answered | kept is |
| --- | --- |
| a task | that task, its id and context id mapped; open states stay open (the caller's id is then an alias) |
| a message | a completed task with one artifact that holds the message's parts |
| a JSON-RPC or REST error | a failed task; rejected where the agent refused the request itself (-32602, -32005) |
| HTTP 400 and above, or nothing readable | a failed task that says so |
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from msgspec import Raw

from proxy.core.a2a import members as m
from proxy.core.a2a import protojson03, shapes, tasks
from proxy.core.a2a.call import Binding, Call, Version
from proxy.core.a2a.members import Members
from proxy.core.a2a.renaming import rename_members

_REFUSALS: Final = frozenset(
    {
        "-32602",
        "-32005",
        "INVALID_PARAMS",
        "CONTENT_TYPE_NOT_SUPPORTED",
        "InvalidParamsError",
        "ContentTypeNotSupportedError",
    }
)
_FIRST_ERROR: Final = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptTask:
    """A task as it is stored with its deferral.

    `task_json` is the bare task in the shape of `version`. `state` is one of "submitted", "working", "input-required",
    "auth-required", "completed", "failed", "canceled", "rejected"; a state that neither version knows counts as
    "working". `upstream_task_id` is set where the agent made a task of its own, `upstream_context_id` where it answered
    in another context than the caller's: both must be mapped while the task lives. `refused`: the answer was an error,
    or nothing that can be read, and the task says so.
    """

    task_json: bytes
    version: Version
    state: str
    terminal: bool
    upstream_task_id: str | None
    upstream_context_id: str | None
    refused: bool = False


def keep_answer(call: Call, *, status: int, body: bytes, task_id: str, context_id: str, at: datetime) -> KeptTask:
    """Turn the agent's answer to a replayed send into the caller's task `task_id`.

    `call` is the send, `status` the HTTP status, `body` the whole identity-encoded JSON answer. Never raises.
    """
    document = m.document(body)
    refused = refusal(document or {})
    if refused is not None or status >= _FIRST_ERROR:
        code, said = refused or ("", "")
        http = f" HTTP {status}" if status >= _FIRST_ERROR else ""
        detail = ": ".join(part for part in (said, f"error {code}" if code and not said else "") if part)
        text = f"The agent answered{http or ' with an error'}" + (f": {detail}" if detail else ".")
        state = "rejected" if code in _REFUSALS else "failed"
        return _ended(call, task_id, context_id, at, state=state, text=text)
    result = document or {}
    if "jsonrpc" in result:
        result = m.members(result.get("result")) or {}
    task, message = _content(result)
    if task is not None:
        return _kept(call, task, task_id, context_id)
    if message is not None:
        return _completed(call, message, task_id, context_id, at)
    return _ended(
        call, task_id, context_id, at, state="failed", text="The agent's answer holds neither a task nor a message."
    )


def keep_task(call: Call, body: bytes) -> KeptTask | None:
    """The task in an agent's answer to GetTask or CancelTask, to be kept in place of an older one.

    `body` is the answer after its ids were mapped, so that the kept task names none of the agent's. None for an error
    and for everything else that holds no task: what was kept before stands. Never raises.
    """
    document = m.document(body) or {}
    if refusal(document) is not None:
        return None
    result = (m.members(document.get("result")) or {}) if "jsonrpc" in document else document
    task, _ = _content(result)
    return None if task is None else _as_kept(*_in_one_shape(call, task))


def _content(result: Members) -> tuple[Members | None, Members | None]:
    """The task or the message of a result: under its name (v1.0, REST) or bare (v0.3 JSON-RPC)."""
    task = m.members(result.get("task"))
    if task is None and shapes.is_task(result):
        task = result
    if task is not None:
        return (task, None) if shapes.is_task(task) else (None, None)
    message = m.members(result.get("message")) or m.members(result.get("msg")) or result
    return None, message if shapes.is_message(message) else None


def _kept(call: Call, task: Members, task_id: str, context_id: str) -> KeptTask:
    task, version = _in_one_shape(call, task)
    upstream_task = m.text(task.get("id"))
    upstream_context = m.text(task.get("contextId"))
    rename_members(
        task,
        {upstream_task: task_id} if upstream_task else {},
        contexts={upstream_context: context_id} if upstream_context else {},
    )
    task |= {"id": m.raw(task_id), "contextId": m.raw(context_id)}
    foreign = upstream_context if upstream_context != context_id else None
    return _as_kept(task, version, upstream_task_id=upstream_task, upstream_context_id=foreign or None)


def _in_one_shape(call: Call, task: Members) -> tuple[Members, Version]:
    """A task of an answer to `call` in one of the two shapes that are kept, and which."""
    if call.binding is Binding.REST and call.version is Version.V03:
        return protojson03.task_from_rest(task), Version.V03
    return shapes.known(task), shapes.version_of(task) or call.version


def _as_kept(
    task: Members, version: Version, upstream_task_id: str | None = None, upstream_context_id: str | None = None
) -> KeptTask:
    state = shapes.state_of(task)
    return KeptTask(
        task_json=m.encode(task),
        version=version,
        state="working" if state == "unknown" else state,
        terminal=state in shapes.TERMINAL,
        upstream_task_id=upstream_task_id,
        upstream_context_id=upstream_context_id,
    )


def _completed(call: Call, message: Members, task_id: str, context_id: str, at: datetime) -> KeptTask:
    if call.binding is Binding.REST and call.version is Version.V03:
        message = protojson03.message_from_rest(message)
    message = shapes.known(message)
    upstream_context = m.text(message.get("contextId"))
    return KeptTask(
        task_json=tasks.completed_task(call, task_id=task_id, context_id=context_id, at=at, message=message),
        version=call.version,
        state="completed",
        terminal=True,
        upstream_task_id=None,
        upstream_context_id=upstream_context if upstream_context and upstream_context != context_id else None,
    )


def _ended(call: Call, task_id: str, context_id: str, at: datetime, *, state: str, text: str) -> KeptTask:
    return KeptTask(
        task_json=tasks.failed_task(call, task_id=task_id, context_id=context_id, state=state, text=text, at=at),
        version=call.version,
        state=state,
        terminal=True,
        upstream_task_id=None,
        upstream_context_id=None,
        refused=True,
    )


def refusal(document: Members) -> tuple[str, str] | None:
    """The code or reason and the text of an error body, in any binding; None for a body that is no error."""
    error = m.members(document.get("error"))
    if error is not None:
        code = bytes(error.get("code", Raw(b""))).decode()
        reasons = (m.text((m.members(detail) or {}).get("reason")) for detail in m.items(error.get("details")) or ())
        return next((reason for reason in reasons if reason), code), m.text(error.get("message")) or ""
    for name in ("error", "message"):  # a plain error body; v0.3 REST: {"type": ..., "message": ...}
        said = m.text(document.get(name))
        if said is not None:
            return m.text(document.get("type")) or "", said
    return None
