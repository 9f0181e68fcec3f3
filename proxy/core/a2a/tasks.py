"""Owns the answers that carry a task: a task that Holdfast makes itself, and any task in a caller's own shape.

Knows nothing of how an upstream's answer becomes such a task (`keeping`) or of errors (`failures`). Event streams are
to be answered from here too: a stream item is `sent` in v1.0 and the bare object in v0.3, in the same envelope.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime

from msgspec import Raw

from proxy.core.a2a import members as m
from proxy.core.a2a import protojson03, shapes
from proxy.core.a2a.call import SENDS, Binding, Call, Version
from proxy.core.a2a.identity import derived_id
from proxy.core.a2a.members import Members


def submitted_task(
    call: Call,
    *,
    task_id: str,
    context_id: str,
    at: datetime,
    text: str,
    metadata: Mapping[str, object] | None = None,
) -> bytes:
    """The task of a send that was put away: in state *submitted*, with the caller's message as its history.

    The JSON of the bare task in the shape of the call's version, for `send_answer` and `task_answer`. `text` becomes
    the status message. Never raises for a send that `read` returned; ValueError for any other call.
    """
    if call.operation not in SENDS:
        raise ValueError("only a send has a submitted task")
    task = _made(
        call.version,
        task_id=task_id,
        context_id=context_id,
        state="submitted",
        text=text,
        at=at,
        history=history_of(call, task_id, context_id),
    )
    if metadata:
        task["metadata"] = m.raw(dict(metadata))
    return m.encode(task)


def continued_task(call: Call, task_json: bytes, version: Version, *, task_id: str, at: datetime, text: str) -> bytes:
    """A task whose next message was put away: *submitted* again, with what it held before and that message.

    `call` is the send, `task_json` the task before it in the shape of `version`, under the caller's ids. What its last
    status said moves to the history, unless Holdfast itself said it while an earlier message waited.
    """
    task = shapes.to_version(m.members(task_json) or {}, version, call.version)
    context_id = m.text(task.get("contextId")) or ""
    history: list[object] = list(m.items(task.get("history")) or ())
    said = m.members((m.members(task.get("status")) or {}).get("message"))
    if said is not None and shapes.state_of(task) != "submitted":
        history.append(said)
    history += history_of(call, task_id, context_id)
    made = _made(call.version, task_id=task_id, context_id=context_id, state="submitted", text=text, at=at, history=())
    return m.encode(task | made | ({"history": history} if history else {}))


def ended_task(
    task_json: bytes, version: Version, *, task_id: str, context_id: str, state: str, text: str, at: datetime
) -> bytes:
    """A task that Holdfast ends itself, with what it held before: its history, its artifacts."""
    ended = failed_task(version, task_id=task_id, context_id=context_id, state=state, text=text, at=at)
    return m.encode((m.members(task_json) or {}) | (m.members(ended) or {}))


def submitted_answer(
    call: Call,
    *,
    task_id: str,
    context_id: str,
    at: datetime,
    text: str,
    metadata: Mapping[str, object] | None = None,
) -> bytes:
    """The body that tells the caller of a send that its message is put away, in its own binding and version."""
    task = submitted_task(call, task_id=task_id, context_id=context_id, at=at, text=text, metadata=metadata)
    return send_answer(call, task, call.version)


def failed_task(
    call_or_version: Call | Version, *, task_id: str, context_id: str, state: str, text: str, at: datetime
) -> bytes:
    """A task that Holdfast ends itself: `state` is "failed", "rejected" or "canceled", `text` says why.

    The JSON of the bare task in the version's shape, for `task_answer` and `send_answer`; with the caller's message as
    history when the call is given. ValueError for a state that ends nothing.
    """
    if state not in shapes.TERMINAL:
        raise ValueError(f"a task does not end as {state!r}")
    call = call_or_version if isinstance(call_or_version, Call) else None
    return m.encode(
        _made(
            call_or_version.version if isinstance(call_or_version, Call) else call_or_version,
            task_id=task_id,
            context_id=context_id,
            state=state,
            text=text,
            at=at,
            history=history_of(call, task_id, context_id) if call else (),
        )
    )


def completed_task(call: Call, *, task_id: str, context_id: str, at: datetime, message: Members) -> bytes:
    """The task for an agent that answered with a message only: completed, its parts in one artifact.

    `message` is in the shape of the call's version, as is the result.
    """
    artifact: dict[str, object] = {
        "artifactId": derived_id(task_id, "answer"),
        "parts": message.get("parts", Raw(b"[]")),
    }
    artifact |= {name: message[name] for name in ("metadata", "extensions") if name in message}
    task = _made(
        call.version,
        task_id=task_id,
        context_id=context_id,
        state="completed",
        text="",
        at=at,
        history=history_of(call, task_id, context_id),
    )
    return m.encode(task | {"artifacts": m.raw([artifact])})


def task_answer(call: Call, task_json: bytes, task_version: Version) -> bytes:
    """The answer to GetTask and CancelTask: the bare task (both versions), at most as much history as was asked for."""
    return _enveloped(call, m.encode(_shown(call, task_json, task_version)))


def send_answer(call: Call, task_json: bytes, task_version: Version) -> bytes:
    """The answer to a send: `{"task": ...}` in v1.0 and in REST, the bare task in v0.3 JSON-RPC."""
    task = _shown(call, task_json, task_version)
    bare = call.binding is Binding.JSONRPC and call.version is Version.V03
    return _enveloped(call, m.encode(task if bare else {"task": task}))


def task_id_of(task_json: bytes) -> str | None:
    """The id of a task that is kept."""
    return shapes.id_of(m.members(task_json) or {})


def history_of(call: Call, task_id: str, context_id: str) -> Sequence[Members]:
    """The caller's message as the history of its task, in the shape of the call's version.

    Nothing where the message would not be legal there (no id, no list of parts): one bad message makes strict clients
    refuse the whole task, and it is the agent's to judge, not ours.
    """
    body = m.document(call.body) or {}
    holder = (m.members(body.get("params")) or {}) if call.binding is Binding.JSONRPC else body
    message = m.members(holder.get("message")) or m.members(holder.get("request"))
    if message is None:
        return ()
    if call.binding is Binding.REST and call.version is Version.V03:
        message = protojson03.message_from_rest(message)
    message = shapes.known(message)
    parts = m.items(message.get("parts"))
    if not m.text(message.get("messageId")) or parts is None or any(m.members(part) is None for part in parts):
        return ()
    message |= {"contextId": m.raw(context_id), "taskId": m.raw(task_id)}
    message |= _as_role("user", call.version)
    return (message,)


def _made(
    version: Version,
    *,
    task_id: str,
    context_id: str,
    state: str,
    text: str,
    at: datetime,
    history: Sequence[Members],
) -> Members:
    status: dict[str, object] = {"state": shapes.state_name(state, version), "timestamp": shapes.stamp(at)}
    if text:
        part: dict[str, object] = {"text": text}
        if version is Version.V03:
            part = {"kind": "text"} | part
        status["message"] = {
            "messageId": derived_id(task_id, state, shapes.stamp(at)),
            "contextId": context_id,
            "taskId": task_id,
            "parts": [part],
        } | _as_role("agent", version)
    task: dict[str, object] = {"id": task_id, "contextId": context_id, "status": status}
    if version is Version.V03:
        task = {"kind": "task"} | task
    if history:
        task["history"] = list(history)
    return {name: m.raw(value) for name, value in task.items()}


def _as_role(role: str, version: Version) -> Members:
    if version is Version.V03:
        return {"role": m.raw(role), "kind": m.raw("message")}
    return {"role": m.raw(f"ROLE_{role.upper()}")}


def _shown(call: Call, task_json: bytes, task_version: Version) -> Members:
    """A kept task in the caller's shape, with the history it asked for (A2A v1.0 section 3.2.4)."""
    task = shapes.to_version(m.members(task_json) or {}, task_version, call.version)
    shapes.cut_history(task, call.history_length)
    if call.binding is Binding.REST and call.version is Version.V03:
        return protojson03.task_to_rest(task)
    return task


def _enveloped(call: Call, result: bytes) -> bytes:
    if call.binding is not Binding.JSONRPC:
        return result
    return b'{"jsonrpc":"2.0","id":' + call.rpc_id + b',"result":' + result + b"}"
