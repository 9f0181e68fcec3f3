"""Owns what an agent's stream events make of the caller's task.

Knows nothing of how events travel or are kept, and of how a task grows (`growing`). An event is one item of a stream: a
JSON-RPC response whose result is the item, or the item itself (REST, and whoever saves the envelope), in the shape of
either version:

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
from proxy.core.a2a.growing import GrowingTask
from proxy.core.a2a.keeping import KeptTask, keep_answer
from proxy.core.a2a.members import Members
from proxy.core.a2a.renaming import rename_members
from proxy.core.a2a.tasks import send_answer

_STATUS: Final = ("statusUpdate", "status_update")
_ARTIFACT: Final = ("artifactUpdate", "artifact_update")
_MISSING: Final = b": events are missing here\n\n"


class TaskSoFar:
    """The caller's task while its stream is heard; the agent's own id is learned from the first event that says so.

    `call` is the send, `task` what is known before: its ids are the caller's. The other attributes: see `KeptTask`.
    """

    def __init__(self, call: Call, task: KeptTask, *, task_id: str, context_id: str) -> None:
        self._call = call
        self._task_id = task_id
        self._context_id = context_id
        self._known = task
        self._growing: GrowingTask | None = None
        self._is_written = True

    @property
    def state(self) -> str:
        """See `KeptTask`."""
        return self._known.state

    @property
    def terminal(self) -> bool:
        """See `KeptTask`."""
        return self._known.terminal

    def kept(self) -> KeptTask:
        """The task as it is now."""
        if self._growing is not None and not self._is_written:
            self._known = replace(self._known, task_json=m.encode(self._growing.members()))
            self._is_written = True
        return self._known

    def copy(self) -> "TaskSoFar":
        """Another one, which goes on by itself."""
        made = TaskSoFar(self._call, self._known, task_id=self._task_id, context_id=self._context_id)
        made._growing = None if self._growing is None else self._growing.copy()
        made._is_written = self._is_written
        return made

    def hear(self, event: bytes, at: datetime, *, errors: bool = True) -> bool:
        """Take one more event of the stream; False for what is no event. Never raises.

        `errors`: an error is an event, too, and ends the task.
        """
        document = m.document(event)
        if document is None:
            return False
        item = (m.members(document.get("result")) or {}) if "jsonrpc" in document else document
        update = _update(item)
        if update is not None:
            self._apply(update)
            return True
        said = document.get("error") is not None or any(name in item for name in ("task", "message", "msg"))
        if not said and not shapes.is_task(item) and not shapes.is_message(item):
            return False
        kept = keep_answer(
            self._call, status=200, body=event, task_id=self._task_id, context_id=self._context_id, at=at
        )
        if kept.refused and not errors:
            return False
        self._take(replace(kept, upstream_task_id=kept.upstream_task_id or self._known.upstream_task_id))
        return True

    def _take(self, task: KeptTask) -> None:
        self._known = task
        self._growing = None
        self._is_written = True

    def _apply(self, update: Members) -> None:
        is_old_rest = self._call.binding is Binding.REST and self._call.version is Version.V03
        if is_old_rest:
            update = protojson03.update_from_rest(update)
        known = self._known
        upstream_task = m.text(update.get("taskId")) or known.upstream_task_id
        upstream_context = m.text(update.get("contextId"))
        is_foreign = upstream_context not in {None, "", self._context_id}
        rename_members(
            update,
            {upstream_task: self._task_id} if upstream_task else {},
            contexts={upstream_context: self._context_id} if upstream_context else {},
        )
        growing = self._grown(Version.V03 if is_old_rest or "kind" in update else Version.V10)
        artifact, status = m.members(update.get("artifact")), m.members(update.get("status"))
        if artifact is not None:
            append = bytes(update.get("append", b"false")) == b"true"
            growing.take_artifact(shapes.known(artifact), append=append)
        elif status is not None:
            growing.take_status(status, m.members(update.get("metadata")))
        state = growing.state
        self._known = replace(
            self._known,
            state="working" if state == "unknown" else state,
            terminal=state in shapes.TERMINAL,
            upstream_task_id=upstream_task,
            upstream_context_id=(upstream_context if is_foreign else known.upstream_context_id) or None,
            refused=False,
        )
        self._is_written = False

    def _grown(self, version: Version) -> GrowingTask:
        """The task in that version's shape, open."""
        if self._growing is None or version is not self._known.version:
            kept = self.kept()
            self._growing = GrowingTask(shapes.to_version(m.members(kept.task_json) or {}, kept.version, version))
            self._known = replace(kept, version=version)
        return self._growing


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
