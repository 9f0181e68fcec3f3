"""Owns the third shape: v0.3 over REST, which is the ProtoJSON of the v0.3 proto and not the JSON of its JSON-RPC.

Knows nothing of v1.0: it goes to and from the v0.3 shape of `shapes`.

It differs so: message parts are called `content`, a file is `{file:{fileWithUri|fileWithBytes, mimeType, name}}`, data
lies one level deeper (`{data:{data:{}}}`), states are `TASK_STATE_*` with two Ls in CANCELLED, nothing has a `kind`,
and clients write proto names (`message_id`, `request`) as well as JSON names. `referenceTaskIds` do not exist.
"""

from collections.abc import Callable
from typing import Final

from proxy.core.a2a import members as m
from proxy.core.a2a import shapes
from proxy.core.a2a.call import Version
from proxy.core.a2a.members import Members

_FILE_NAMES: Final = (
    ("fileWithBytes", "file_with_bytes", "bytes"),
    ("fileWithUri", "file_with_uri", "uri"),
    ("mimeType", "mime_type", "mimeType"),
    ("name", "name", "name"),
)
_CANCELLED: Final = "TASK_STATE_CANCELLED"


def task_to_rest(task: Members) -> Members:
    """A v0.3 task as REST writes it."""
    made = dict(task)
    made.pop("kind", None)
    shapes.replace(made, "status", _status_to_rest)
    shapes.replace_each(made, "history", message_to_rest)
    shapes.replace_each(made, "artifacts", _artifact_to_rest)
    return made


def task_from_rest(task: Members) -> Members:
    """A task as REST writes it in the v0.3 shape."""
    made = {"kind": m.raw("task")} | shapes.known(task)
    made.setdefault("contextId", m.raw(""))
    shapes.replace(made, "status", _status_from_rest)
    shapes.replace_each(made, "history", message_from_rest)
    shapes.replace_each(made, "artifacts", _artifact_from_rest)
    return made


def update_from_rest(update: Members) -> Members:
    """A status or artifact update as REST writes it in the v0.3 shape, but for its `kind`."""
    made = shapes.known(update)
    shapes.replace(made, "status", _status_from_rest)
    shapes.replace(made, "artifact", _artifact_from_rest)
    return made


def message_to_rest(message: Members) -> Members:
    """A v0.3 message as REST writes it."""
    made = dict(message)
    for gone in ("kind", "referenceTaskIds"):
        made.pop(gone, None)
    made["role"] = m.raw("ROLE_USER" if m.text(made.get("role")) == "user" else "ROLE_AGENT")
    parts = made.pop("parts", None)
    if parts is not None:
        made["content"] = parts
    shapes.replace_each(made, "content", _part_to_rest)
    return made


def message_from_rest(message: Members) -> Members:
    """A message as REST writes it in the v0.3 shape."""
    made = {"kind": m.raw("message")} | shapes.known(message)
    made["role"] = m.raw("user" if shapes.role_of(made) == "ROLE_USER" else "agent")
    made["parts"] = made.pop("content", made.get("parts", m.raw([])))
    shapes.replace_each(made, "parts", _part_from_rest)
    return made


def _status_to_rest(status: Members) -> Members:
    return _status(status, message_to_rest, Version.V10)


def _status_from_rest(status: Members) -> Members:
    made = dict(status)
    if "update" in made:  # the proto's own name for the message
        made.setdefault("message", made.pop("update"))
    return _status(made, message_from_rest, Version.V03)


def _status(status: Members, convert: Callable[[Members], Members], version: Version) -> Members:
    made = shapes.known(status)
    state = shapes.state_of({"status": m.raw(status)})
    cancelled = state == "canceled" and version is Version.V10
    made["state"] = m.raw(_CANCELLED if cancelled else shapes.state_name(state, version))
    shapes.replace(made, "message", convert)
    return made


def _artifact_to_rest(artifact: Members) -> Members:
    made = dict(artifact)
    shapes.replace_each(made, "parts", _part_to_rest)
    return made


def _artifact_from_rest(artifact: Members) -> Members:
    made = shapes.known(artifact)
    made.setdefault("parts", m.raw([]))
    shapes.replace_each(made, "parts", _part_from_rest)
    return made


def _part_to_rest(part: Members) -> Members:
    made = dict(part)
    kind = m.text(made.pop("kind", None))
    if kind == "file":
        file = m.members(made.get("file")) or {}
        made["file"] = m.raw({new: file[old] for new, _, old in _FILE_NAMES if old in file})
    elif kind == "data" and "data" in made:
        made["data"] = m.raw({"data": made["data"]})
    return made


def _part_from_rest(part: Members) -> Members:
    made = shapes.known(part)
    file = m.members(made.get("file"))
    if file is not None:
        named = {old: file.get(camel, file.get(snake)) for camel, snake, old in _FILE_NAMES}
        made["file"] = m.raw({name: value for name, value in named.items() if value is not None})
        return {"kind": m.raw("file")} | made
    if "data" in made:
        made["data"] = (m.members(made["data"]) or {}).get("data", made["data"])
        return {"kind": m.raw("data")} | made
    return {"kind": m.raw("text")} | made
