"""Owns what an agent's stream events make of the caller's task.

Knows nothing of how events travel or are kept. An event is one item of a stream: a JSON-RPC response whose result is
the item, or the item itself (REST, and whoever saves the envelope), in the shape of either version:

| the item is | the task becomes |
| --- | --- |
| a task | that task, under the caller's ids |
| a message | completed, with one artifact that holds the message's parts |
| a status update | the same with that status; the message of the last status moves to the history |
| an artifact update | the same with that artifact, or with its parts added to the one of its id (`append`) |
| an error | failed or rejected, as for an answer (`keeping`) |
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from proxy.core.a2a import members as m
from proxy.core.a2a import protojson03, shapes
from proxy.core.a2a.call import Binding, Call, Version
from proxy.core.a2a.keeping import KeptTask, keep_answer
from proxy.core.a2a.members import Members
from proxy.core.a2a.renaming import rename_members
from proxy.core.a2a.tasks import send_answer

_STATUS: Final = ("statusUpdate", "status_update")
_ARTIFACT: Final = ("artifactUpdate", "artifact_update")
_MISSING: Final = b": events are missing here\n\n"


def told(call: Call, task: KeptTask, event: bytes, *, task_id: str, context_id: str, at: datetime) -> KeptTask | None:
    """The caller's task after one more event of its stream; None for what is no event. Never raises.

    `call` is the send, `task` what was known before: its ids are the caller's. What the agent calls its task is learned
    from the first event that says so.
    """
    document = m.document(event)
    if document is None:
        return None
    item = (m.members(document.get("result")) or {}) if "jsonrpc" in document else document
    update = _update(item)
    if update is None:
        said = document.get("error") is not None or any(name in item for name in ("task", "message", "msg"))
        if not said and not shapes.is_task(item) and not shapes.is_message(item):
            return None
        kept = keep_answer(call, status=200, body=event, task_id=task_id, context_id=context_id, at=at)
        return replace(kept, upstream_task_id=kept.upstream_task_id or task.upstream_task_id)
    is_old_rest = call.binding is Binding.REST and call.version is Version.V03
    if is_old_rest:
        update = protojson03.update_from_rest(update)
    upstream_task = m.text(update.get("taskId")) or task.upstream_task_id
    upstream_context = m.text(update.get("contextId"))
    foreign = upstream_context if upstream_context not in {None, "", context_id} else task.upstream_context_id
    rename_members(
        update,
        {upstream_task: task_id} if upstream_task else {},
        contexts={upstream_context: context_id} if upstream_context else {},
    )
    version = Version.V03 if is_old_rest or "kind" in update else Version.V10
    known = shapes.to_version(m.members(task.task_json) or {}, task.version, version)
    _apply(known, update)
    state = shapes.state_of(known)
    return KeptTask(
        task_json=m.encode(known),
        version=version,
        state="working" if state == "unknown" else state,
        terminal=state in shapes.TERMINAL,
        upstream_task_id=upstream_task,
        upstream_context_id=foreign or None,
    )


def tells_state(event: bytes) -> bool:
    """Whether an event says in which state its task is: all but an artifact do."""
    document = m.document(event) or {}
    item = (m.members(document.get("result")) or {}) if "jsonrpc" in document else document
    update = _update(item)
    return update is None or m.members(update.get("artifact")) is None


def streamed_answer(call: Call, task: KeptTask | None, events: Sequence[bytes]) -> tuple[bytes, bytes]:
    """The answer that a stream amounts to: (content type, body).

    A call that asked for a stream gets it, event by event; any other A2A call the task that came out of it, and what is
    not A2A the events. An empty event stands for those that were not kept: a comment says so, and the task as it came
    out ends the stream.
    """
    if task is None or call.streaming or call.binding is Binding.OTHER:
        told = b"".join(_framed(event) if event else _MISSING for event in events)
        if task is not None and not all(events or (b"",)):
            told += _framed(send_answer(call, task.task_json, task.version))
        return b"text/event-stream", told
    return b"application/json", send_answer(call, task.task_json, task.version)


def _framed(event: bytes) -> bytes:
    return b"".join(b"data: " + line + b"\n" for line in event.splitlines() or [b""]) + b"\n"


def _update(item: Members) -> Members | None:
    """The status or artifact update that an item is or wraps, under the names of the specification."""
    for name in (*_STATUS, *_ARTIFACT):
        found = m.members(item.get(name))
        if found is not None:
            return shapes.known(found)
    if m.text(item.get("kind")) in {"status-update", "artifact-update"}:
        return shapes.known(item)
    return None


def _apply(task: Members, update: Members) -> None:
    artifact = m.members(update.get("artifact"))
    if artifact is not None:
        _add_artifact(task, shapes.known(artifact), append=bytes(update.get("append", b"false")) == b"true")
        return
    status = m.members(update.get("status"))
    if status is None:
        return
    before = m.members(task.get("status")) or {}
    if m.members(before.get("message")) is not None and shapes.state_of(task) != "submitted":
        # What Holdfast itself said while the request waited is no part of the conversation.
        history = [*(m.items(task.get("history")) or ()), before["message"]]
        task["history"] = m.raw(history)
    task["status"] = m.raw(status)
    metadata = m.members(update.get("metadata"))
    if metadata:
        task["metadata"] = m.raw((m.members(task.get("metadata")) or {}) | metadata)


def _add_artifact(task: Members, artifact: Members, *, append: bool) -> None:
    listed: list[object] = list(m.items(task.get("artifacts")) or ())
    name = m.text(artifact.get("artifactId"))
    for index, raw in enumerate(listed):
        known = shapes.known(m.members(raw) or {})  # type: ignore[arg-type] # the list holds what `items` returned
        if m.text(known.get("artifactId")) != name:
            continue
        if append:
            parts = [*(m.items(known.get("parts")) or ()), *(m.items(artifact.get("parts")) or ())]
            artifact = known | artifact | {"parts": m.raw(parts)}
        listed[index] = artifact
        break
    else:
        listed.append(artifact)
    task["artifacts"] = m.raw(listed)
