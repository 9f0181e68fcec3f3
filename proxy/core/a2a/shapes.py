r"""Owns the two JSON shapes of a task and what it holds, and the way from each to the other.

Knows nothing of envelopes (`tasks`), of ids (`renaming`) or of the third shape, v0.3 over REST (`protojson03`).

| | v0.3 (JSON-RPC) | v1.0 (ProtoJSON) |
| --- | --- | --- |
| discriminator | `kind` everywhere | none |
| states | `submitted`, `input-required` | `TASK_STATE_SUBMITTED`, `TASK_STATE_INPUT_REQUIRED` |
| roles | `user`, `agent` | `ROLE_USER`, `ROLE_AGENT` |
| file | `{kind:file, file:{bytes\|uri, mimeType, name}}` | `{raw\|url, mediaType, filename}` |
| data | an object | any value; no object is `{value: ...}` in v0.3, marked in the part's metadata as the SDKs do |

What has no counterpart stays under its own name (inside a file only the four fields are known), so that a way there and
back loses nothing and a reader that does not know it skips it, as both versions ask. `metadata`, `data` and texts are
carried over as bytes, never rebuilt.
"""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from msgspec import Raw

from proxy.core.a2a import members as m
from proxy.core.a2a.call import Version
from proxy.core.a2a.members import Members
from proxy.core.times import parse_rfc3339

TERMINAL: Final = frozenset({"completed", "failed", "canceled", "rejected"})
STATES: Final = (  # in the order of the proto's numbers, which ProtoJSON allows in place of the names
    "unknown",
    "submitted",
    "working",
    "completed",
    "failed",
    "canceled",
    "input-required",
    "rejected",
    "auth-required",
)
_TO_V10: Final = {
    state: "TASK_STATE_" + ("UNSPECIFIED" if state == "unknown" else state.upper().replace("-", "_"))
    for state in STATES
}
_NEUTRAL: Final = (
    {name: state for state, name in _TO_V10.items()}
    | {state: state for state in STATES}
    | {"TASK_STATE_CANCELLED": "canceled"}  # v0.3 proto
)
_ROLES_TO_V10: Final = {"user": "ROLE_USER", "agent": "ROLE_AGENT"}
_ROLE_NUMBERS: Final = ("ROLE_UNSPECIFIED", "ROLE_USER", "ROLE_AGENT")
_SNAKE: Final = {
    "message_id": "messageId",
    "context_id": "contextId",
    "task_id": "taskId",
    "reference_task_ids": "referenceTaskIds",
    "artifact_id": "artifactId",
    "media_type": "mediaType",
    "mime_type": "mimeType",
}
_COMPAT_MARK: Final = "data_part_compat"
_OPAQUE: Final = frozenset({"data"})  # `null` is a value here, not an absence
_PROTO_TIMESTAMP: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2})"
)


def to_version(task: Members, have: Version, want: Version) -> Members:
    """A task in the shape of the version that is wanted. `task` itself is left as it is."""
    if have is want:
        return dict(task)
    return task_to_v10(task) if want is Version.V10 else task_to_v03(task)


def version_of(task: Members) -> Version | None:
    """Which shape a task has: its state tells (`working` or `TASK_STATE_WORKING`); None when it has no known one."""
    state = _state_word(task)
    if state is None:
        return None
    return Version.V10 if state.startswith("TASK_STATE_") else Version.V03


def state_of(task: Members) -> str:
    """The neutral state (the words of v0.3); "unknown" for one that neither version has."""
    return _NEUTRAL.get(_state_word(task) or "", "unknown")


def is_task(value: Members) -> bool:
    """Whether an object is a task: it has an id and a status of its own."""
    return m.text(value.get("id")) is not None and m.members(value.get("status")) is not None


def is_message(value: Members) -> bool:
    """Whether an object is a message: it has parts, under the name of either version."""
    return any(m.items(value.get(name)) is not None for name in ("parts", "content")) and not is_task(value)


def state_name(state: str, version: Version) -> str:
    """What a version calls a neutral state."""
    return state if version is Version.V03 else _TO_V10[state]


def stamp(at: datetime) -> str:
    """RFC 3339, UTC, milliseconds (A2A v1.0 section 5.6.1)."""
    return at.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


def id_of(task: Members) -> str | None:
    """A task's id; None where it has none."""
    return m.text(task.get("id"))


def cut_history(task: Members, wanted: int | None) -> None:
    """Leave at most as many messages of the history as are wanted, the newest (A2A v1.0 section 3.2.4); None: all."""
    history = m.items(task.get("history"))
    if history is None or wanted is None:
        return
    newest = history[-wanted:] if wanted else []
    if newest:
        task["history"] = m.raw(newest)
    else:
        del task["history"]


def task_to_v10(task: Members) -> Members:
    """v0.3 -> v1.0."""
    made = known(task)
    made.pop("kind", None)
    replace(made, "status", _status_to_v10)
    replace_each(made, "artifacts", artifact_to_v10)
    replace_each(made, "history", message_to_v10)
    return made


def task_to_v03(task: Members) -> Members:
    """v1.0 -> v0.3. What v0.3 demands and v1.0 may omit (a context id, a status) is filled in empty."""
    made = {"kind": m.raw("task")} | known(task)
    made.setdefault("contextId", m.raw(""))
    made.setdefault("status", Raw(b"{}"))
    replace(made, "status", _status_to_v03)
    replace_each(made, "artifacts", artifact_to_v03)
    replace_each(made, "history", message_to_v03)
    return made


def message_to_v10(message: Members) -> Members:
    """v0.3 -> v1.0."""
    made = known(message)
    made.pop("kind", None)
    made["role"] = m.raw(_ROLES_TO_V10.get(m.text(made.get("role")) or "", "ROLE_UNSPECIFIED"))
    replace_each(made, "parts", part_to_v10)
    return made


def message_to_v03(message: Members) -> Members:
    """v1.0 -> v0.3, which knows two roles: who is not the user is the agent."""
    made = {"kind": m.raw("message")} | known(message)
    made["role"] = m.raw("user" if role_of(message) == "ROLE_USER" else "agent")
    made.setdefault("parts", Raw(b"[]"))
    replace_each(made, "parts", part_to_v03)
    return made


def role_of(message: Members) -> str:
    """The role of a v1.0 message by name (ProtoJSON also allows its number)."""
    role = message.get("role")
    number = m.whole(role)
    if number is not None:
        return _ROLE_NUMBERS[number] if 0 <= number < len(_ROLE_NUMBERS) else _ROLE_NUMBERS[0]
    return m.text(role) or _ROLE_NUMBERS[0]


def artifact_to_v10(artifact: Members) -> Members:
    """v0.3 -> v1.0."""
    made = known(artifact)
    replace_each(made, "parts", part_to_v10)
    return made


def artifact_to_v03(artifact: Members) -> Members:
    """v1.0 -> v0.3."""
    made = known(artifact)
    made.setdefault("parts", Raw(b"[]"))
    replace_each(made, "parts", part_to_v03)
    return made


def part_to_v10(part: Members) -> Members:
    """v0.3 -> v1.0."""
    made = known(part)
    kind = m.text(made.get("kind"))
    if kind in {"text", "file", "data"}:
        del made["kind"]
    file = m.members(made.pop("file", None)) if kind == "file" else None
    if file is not None:
        for old, new in (("bytes", "raw"), ("uri", "url"), ("mimeType", "mediaType"), ("name", "filename")):
            found = known(file).get(old)
            if found is not None:
                made[new] = found
    elif kind == "data":
        _unwrap_data(made)
    return made


def part_to_v03(part: Members) -> Members:
    """v1.0 -> v0.3. A part of a kind that v0.3 does not know passes as it is."""
    made = known(part)
    if "text" in made:
        return {"kind": m.raw("text")} | made
    if "data" in made:
        _wrap_data(made)
        return {"kind": m.raw("data")} | made
    for new, old in (("raw", "bytes"), ("url", "uri")):
        if new in made:
            file = {old: made.pop(new)}
            for name, known_as in (("mediaType", "mimeType"), ("filename", "name")):
                found = made.pop(name, None)
                if found is not None:
                    file[known_as] = found
            return {"kind": m.raw("file"), "file": m.raw(file)} | made
    return made


def known(value: Members) -> Members:
    """A copy under the names of the specification, without what is null (proto names are legal in ProtoJSON)."""
    return {_SNAKE.get(name, name): found for name, found in value.items() if name in _OPAQUE or not m.is_null(found)}


def replace(owner: Members, name: str, convert: Callable[[Members], Members]) -> None:
    """Convert the object that `owner` holds under `name`, if it holds one."""
    inner = m.members(owner.get(name))
    if inner is not None:
        owner[name] = m.raw(convert(inner))


def replace_each(owner: Members, name: str, convert: Callable[[Members], Members]) -> None:
    """Convert every object of the list that `owner` holds under `name`; what is no object stays."""
    listed = m.items(owner.get(name))
    if listed is None:
        return
    made: list[object] = []
    for item in listed:
        inner = m.members(item)
        made.append(item if inner is None else convert(inner))
    owner[name] = m.raw(made)


def _wrap_data(part: Members) -> None:
    if m.members(part["data"]) is not None:
        return
    part["data"] = m.raw({"value": part["data"]})
    part["metadata"] = m.raw((m.members(part.get("metadata")) or {}) | {_COMPAT_MARK: Raw(b"true")})


def _unwrap_data(part: Members) -> None:
    metadata = m.members(part.get("metadata"))
    wrapped = m.members(part.get("data"))
    if metadata is None or wrapped is None or "value" not in wrapped:
        return
    if bytes(metadata.get(_COMPAT_MARK, m.NULL)) != b"true":
        return
    part["data"] = wrapped["value"]
    del metadata[_COMPAT_MARK]
    if metadata:
        part["metadata"] = m.raw(metadata)
    else:
        del part["metadata"]


def _status_to_v10(status: Members) -> Members:
    made = known(status)
    made["state"] = m.raw(_TO_V10[state_of({"status": m.raw(status)})])
    replace(made, "message", message_to_v10)
    written = made.pop("timestamp", None)
    timestamp = _proto_timestamp(m.text(written) or "")
    if timestamp is not None:
        made["timestamp"] = m.raw(timestamp)
    return made


def _status_to_v03(status: Members) -> Members:
    made = known(status)
    made["state"] = m.raw(state_of({"status": m.raw(status)}))
    replace(made, "message", message_to_v03)
    return made


def _proto_timestamp(written: str) -> str | None:
    """A v0.3 timestamp as protobuf reads it, which refuses the whole task for a bad one; None where there is none."""
    if _PROTO_TIMESTAMP.fullmatch(written):
        try:
            parse_rfc3339(written)
        except ValueError:
            return None
        return written
    try:
        at = datetime.fromisoformat(written)
        return stamp(at.replace(tzinfo=UTC) if at.tzinfo is None else at)
    except (ValueError, OverflowError):
        return None


def _state_word(task: Members) -> str | None:
    """The state's name as written; a proto number counts as its v1.0 name."""
    state = (m.members(task.get("status")) or {}).get("state")
    number = m.whole(state)
    if number is not None:
        return _TO_V10[STATES[number]] if 0 <= number < len(STATES) else None
    word = m.text(state)
    return word if word in _NEUTRAL else None
