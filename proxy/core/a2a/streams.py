"""Owns the caller's story of a deferred task: what an agent's stream events become under the caller's task id.

Knows nothing of sockets, of how events are kept, of when they are sent. A story begins with a task and is told in
updates from then on, for no second task may follow (the clients of v0.3 raise at one):

| the agent tells | the caller is told |
| --- | --- |
| a task | its artifacts, as far as they were not told yet, and its status, if that is news |
| a message | one artifact with the message's parts, and *completed* |
| a status or artifact update | that update, under the caller's ids |
| an error | *failed*, or *rejected* where the agent refused the request itself |
| nothing more | what the kept task holds beyond what was told (`Narrator.closing`) |

The same events always make the same updates, so a place in the story is a number: that of the event, and that of the
update among those that the event became. `Place` is what a stream's event ids hold.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, NamedTuple

import msgspec
from msgspec import Raw

from proxy.core.a2a import members as m
from proxy.core.a2a import protojson03, shapes
from proxy.core.a2a.call import Binding, Call, Version
from proxy.core.a2a.keeping import keep_answer
from proxy.core.a2a.members import Members
from proxy.core.a2a.renaming import rename_members

RESTING: Final = shapes.TERMINAL | {"input-required", "auth-required"}
"""States in which a task's stream ends (A2A v1.0 section 4.1.3: terminal and interrupted)."""
_STATUS: Final = ("statusUpdate", "status_update")
_ARTIFACT: Final = ("artifactUpdate", "artifact_update")
_PLACE: Final = re.compile(r"(\d{1,15})([.+])(\d{1,9})\.(\d{1,9})", re.ASCII)


class Place(NamedTuple):
    """How far a story is told: update `item` of `items` that event number `event` became, both from 1.

    `closing`: the update was made of the kept task, after that event and all before it.
    """

    event: int
    closing: bool = False
    item: int = 1
    items: int = 1

    def __str__(self) -> str:
        """As an event id: without line ends, and not longer than it must be."""
        return f"{self.event}{'+' if self.closing else '.'}{self.item}.{self.items}"

    @property
    def whole(self) -> bool:
        """All that this event became is told."""
        return self.item >= self.items


BEGINNING: Final = Place(0)
"""The task with which a story begins."""


def read_place(event_id: str) -> Place | None:
    """The place that an event id of ours names; None for any other."""
    found = _PLACE.fullmatch(event_id)
    return Place(int(found[1]), found[2] == "+", int(found[3]), int(found[4])) if found else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """One update of a task: a status, or an artifact, in the shape of `version`.

    `rests`: the task has ended or waits for somebody, so this may be the last update.
    """

    place: Place
    version: Version
    status: Members | None = None
    artifact: Members | None = None
    append: bool = False
    last_chunk: bool = False
    metadata: Raw | None = None

    @property
    def rests(self) -> bool:
        """The task has ended or waits for somebody: this may be the last that is told."""
        return self.status is not None and _state(self.status) in RESTING


class Narrator:
    """Tells one story from its beginning. `send` is the stored send; the ids are the caller's.

    What it remembers is small: the state told last, and of every artifact that was told a digest of its parts.
    """

    def __init__(self, send: Call, *, task_id: str, context_id: str) -> None:
        self._send = send
        self._task_id = task_id
        self._context_id = context_id
        self._upstream_task: str | None = None
        self._state = "submitted"
        self._artifacts: dict[str, _Parts] = {}
        self.told = BEGINNING

    @property
    def state(self) -> str:
        """The task's state as it was told last, by its neutral name."""
        return self._state

    def tell(self, number: int, event: bytes, at: datetime) -> Sequence[Update]:
        """What the caller is told of the agent's event `number`; nothing for what is none, or no news."""
        document = m.document(event) or {}
        item = (m.members(document.get("result")) or {}) if "jsonrpc" in document else document
        update = self._update(item)
        if update is None and not _says_something(document, item):
            updates: Sequence[Update] = ()
        elif update is None:
            kept = keep_answer(
                self._send, status=200, body=event, task_id=self._task_id, context_id=self._context_id, at=at
            )
            self._upstream_task = kept.upstream_task_id or self._upstream_task
            updates = self._towards(m.members(kept.task_json) or {}, kept.version, closing=False)
        else:
            updates = [update]
        return self._placed(updates, Place(number))

    def closing(self, task_json: bytes, version: Version) -> Sequence[Update]:
        """What is left to tell of a task that will not change any more; always ends with its status."""
        last = Place(self.told.event, closing=True)
        return self._placed(self._towards(m.members(task_json) or {}, version, closing=True), last)

    def _placed(self, updates: Sequence[Update], place: Place) -> Sequence[Update]:
        placed = []
        for number, update in enumerate(updates, 1):
            self._note(update)
            placed.append(replace(update, place=place._replace(item=number, items=len(updates))))
        self.told = placed[-1].place if placed else Place(place.event, place.closing)
        return placed

    # From the agent's words

    def _update(self, item: Members) -> Update | None:
        """The status or artifact update that an item is or wraps."""
        found = next((inner for name in (*_STATUS, *_ARTIFACT) if (inner := m.members(item.get(name)))), None)
        if found is None and m.text(item.get("kind")) in {"status-update", "artifact-update"}:
            found = item
        if found is None:
            return None
        said = shapes.known(found)
        version = Version.V03 if "kind" in said else Version.V10
        if self._send.binding is Binding.REST and self._send.version is Version.V03:
            said, version = protojson03.update_from_rest(said), Version.V03
        self._upstream_task = m.text(said.get("taskId")) or self._upstream_task
        upstream_context = m.text(said.get("contextId"))
        rename_members(
            said,
            {self._upstream_task: self._task_id} if self._upstream_task else {},
            contexts={upstream_context: self._context_id} if upstream_context else {},
        )
        status, artifact = m.members(said.get("status")), m.members(said.get("artifact"))
        if status is None and artifact is None:
            return None
        return Update(
            place=BEGINNING,
            version=version,
            status=status if artifact is None else None,
            artifact=shapes.known(artifact) if artifact is not None else None,
            append=_is_true(said.get("append")),
            last_chunk=_is_true(said.get("lastChunk", said.get("last_chunk"))),
            metadata=said.get("metadata"),
        )

    # From a whole task

    def _towards(self, task: Members, version: Version, *, closing: bool) -> Sequence[Update]:
        """The updates that bring whoever was told so far to this task."""
        updates = []
        for raw in m.items(task.get("artifacts")) or ():
            artifact = shapes.known(m.members(raw) or {})
            known = self._artifacts.get(_name(artifact))
            if known is None or known.digest != _Parts().of(artifact, version).digest:
                updates.append(Update(place=BEGINNING, version=version, artifact=artifact, last_chunk=True))
        status = m.members(task.get("status")) or {}
        if closing or _state(status) != self._state or "message" in status:
            metadata = task.get("metadata")
            updates.append(Update(place=BEGINNING, version=version, status=status, metadata=metadata))
        return updates

    def _note(self, update: Update) -> None:
        if update.status is not None:
            self._state = _state(update.status)
        if update.artifact is not None:
            parts = self._artifacts.get(_name(update.artifact)) if update.append else None
            self._artifacts[_name(update.artifact)] = (parts or _Parts()).of(update.artifact, update.version)


class _Parts:
    """A digest of an artifact's parts, however many updates they came in."""

    __slots__ = ("_hash",)

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def of(self, artifact: Members, version: Version) -> "_Parts":
        """This, with the parts of one more update."""
        made = _Parts()
        made._hash = self._hash.copy()
        told = shapes.artifact_to_v10(artifact) if version is Version.V03 else artifact
        for part in m.items(told.get("parts")) or ():
            made._hash.update(_canonical(part) + b"\n")
        return made

    @property
    def digest(self) -> bytes:
        """The same for the same parts."""
        return self._hash.digest()


def update_item(call: Call, update: Update, *, task_id: str, context_id: str, final: bool) -> bytes:
    """An update as one item of the stream that `call` asked for: its binding, its version, its JSON-RPC id.

    `final`: nothing follows (v0.3 says so in the update itself).
    """
    is_status = update.status is not None
    task: Members = {"id": m.raw(task_id), "contextId": m.raw(context_id), "status": m.raw(update.status or {})}
    if update.artifact is not None:
        task["artifacts"] = m.raw([update.artifact])
    shown = shapes.to_version(task, update.version, call.version)
    if call.binding is Binding.REST and call.version is Version.V03:
        shown = protojson03.task_to_rest(shown)
    item: Members = {"taskId": m.raw(task_id), "contextId": m.raw(context_id)}
    if is_status:
        item["status"] = shown["status"]
        if call.version is Version.V03:
            item["final"] = m.raw(final)
    else:
        item["artifact"] = (m.items(shown["artifacts"]) or [Raw(b"{}")])[0]
        item |= {
            name: m.raw(value=True)
            for name, said in (("append", update.append), ("lastChunk", update.last_chunk))
            if said
        }
    if update.metadata is not None:
        item["metadata"] = update.metadata
    if call.binding is Binding.JSONRPC and call.version is Version.V03:
        return _enveloped(call, {"kind": m.raw("status-update" if is_status else "artifact-update")} | item)
    return _enveloped(call, {"statusUpdate" if is_status else "artifactUpdate": m.raw(item)})


def _says_something(document: Members, item: Members) -> bool:
    """Whether an event that is no update is a task, a message or an error, in any wrapping."""
    wrapped = document.get("error") is not None or any(name in item for name in ("task", "message", "msg"))
    return wrapped or shapes.is_task(item) or shapes.is_message(item)


def _enveloped(call: Call, item: Members) -> bytes:
    if call.binding is not Binding.JSONRPC:
        return m.encode(item)
    return b'{"jsonrpc":"2.0","id":' + call.rpc_id + b',"result":' + m.encode(item) + b"}"


def _state(status: Members) -> str:
    state = shapes.state_of({"status": m.raw(status)})
    return "working" if state == "unknown" else state


def _name(artifact: Members) -> str:
    return m.text(artifact.get("artifactId")) or ""


def _is_true(value: Raw | None) -> bool:
    return value is not None and bytes(value) == b"true"


def _canonical(part: Raw) -> bytes:
    """The same bytes for the same part, however it is written."""
    try:
        return msgspec.json.encode(msgspec.json.decode(part), order="sorted")
    except m.UNREADABLE:
        return bytes(part)
