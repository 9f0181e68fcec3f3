"""Owns push notification configurations in every shape, and the notifications that are sent because of them.

Knows nothing of stores, of sending, or of which addresses may be called.

| | where a send says it | what the methods carry |
| --- | --- | --- |
| v0.3 JSON-RPC | `configuration.pushNotificationConfig` | `{taskId, pushNotificationConfig}` |
| v0.3 REST | `configuration.pushNotification` | `{name: tasks/T/pushNotificationConfigs/C, pushNotificationConfig}` |
| v1.0 | `configuration.taskPushNotificationConfig` | `{id, taskId, url, token, authentication}` |

A v0.3 notification is the whole task, a v1.0 one a stream response: a task or an update (A2A v1.0 section 4.3.3).

A send is searched for all of these names, whatever its version: one that is overlooked would go on to the agent, which
would then notify its caller under an id that the caller was never given.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote

from msgspec import Raw

from proxy.core.a2a import members as m
from proxy.core.a2a import shapes
from proxy.core.a2a.call import Binding, Call, Operation, Version
from proxy.core.a2a.members import Members
from proxy.core.a2a.renaming import rename_members
from proxy.core.errors import CallerError

PUSHES: Final = frozenset({Operation.PUSH_SET, Operation.PUSH_GET, Operation.PUSH_LIST, Operation.PUSH_DELETE})
PUSH_HINT: Final = re.compile(rb"ush_?[nN]otification")
"""Finds a configuration anywhere in a send's raw bytes: no match, nothing to take out."""

_IN_SENDS: Final = (
    "taskPushNotificationConfig",
    "task_push_notification_config",
    "pushNotificationConfig",
    "push_notification_config",
    "pushNotification",
    "push_notification",
)
_WRAPPERS: Final = ("config", *_IN_SENDS)
_IDS: Final = ("id", "configId", "config_id", "pushNotificationConfigId", "push_notification_config_id")
_IN_PATH: Final = re.compile(r"/pushNotificationConfigs/([^/?]+)")
_FIELD_VALUE: Final = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")
_UPDATES: Final = (
    ("statusUpdate", "statusUpdate"),
    ("status_update", "statusUpdate"),
    ("artifactUpdate", "artifactUpdate"),
    ("artifact_update", "artifactUpdate"),
)
_MOST_TEXT: Final = 4096
_MOST_ID: Final = 256
_DEEPEST: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class PushConfig:
    """Where a caller wants to be notified. `id` is empty where it named none; a URL may hold secrets, too."""

    url: str = field(repr=False)
    id: str = ""
    token: str = field(default="", repr=False)
    schemes: tuple[str, ...] = ()
    credentials: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Notified:
    """What one stream event is as a notification: its JSON, and the state that it tells, where it tells one."""

    body: bytes
    state: str | None


def bad_push_config(problem: str) -> CallerError:
    """The refusal of a configuration: nothing was stored and nothing will be notified."""
    return CallerError("BAD_PUSH_CONFIG", f"the push notification configuration {problem}")


def take_push_config(call: Call, body: bytes) -> tuple[bytes, PushConfig | None]:
    """Take the configuration out of a send's body; the same bytes and None where there is none.

    Raises:
        CallerError: 400, it cannot be read.
    """
    document = m.document(body) if PUSH_HINT.search(body) else None
    if document is None or call.binding is Binding.OTHER:
        return body, None
    found: list[Members] = []

    def take(configuration: Members) -> bool:
        for name in _IN_SENDS:
            said = configuration.pop(name, None)
            if said is not None and not m.is_null(said):
                found.append(m.members(said) or {})
        return bool(found)

    def in_params(params: Members) -> bool:
        return m.change_member(params, "configuration", take)

    if not (m.change_member(document, "params", in_params) if call.binding is Binding.JSONRPC else in_params(document)):
        return body, None
    return m.encode(document), _config(found[0])


def read_push_config(call: Call) -> PushConfig:
    """The configuration that a request to set one carries.

    Raises:
        CallerError: 400, there is none or it cannot be read.
    """
    return _config(_params(call))


def push_config_id(call: Call, tail: str) -> str:
    """Which configuration a request names; empty where it names none. `tail` is its path."""
    if call.binding is Binding.REST:
        found = _IN_PATH.search(tail)
        return unquote(found[1]) if found else ""
    names = _IDS[:1] if call.version is Version.V10 else _IDS[3:]
    params = _params(call)
    return next((said for name in names if (said := m.text(params.get(name)))), "")


def push_config_answer(call: Call, config: PushConfig, task_id: str) -> bytes:
    """The answer to a request that set or asked for one configuration."""
    return _enveloped(call, m.encode(_shown(call, config, task_id)))


def push_configs_answer(call: Call, configs: Sequence[PushConfig], task_id: str) -> bytes:
    """The answer to a request for a task's configurations: a list in v0.3 JSON-RPC, else an object that holds one."""
    shown = [_shown(call, config, task_id) for config in configs]
    bare = call.binding is Binding.JSONRPC and call.version is Version.V03
    return _enveloped(call, m.encode(shown if bare else {"configs": shown}))


def push_deleted_answer(call: Call) -> bytes:
    """The answer to a request that deleted one."""
    return _enveloped(call, b"null" if call.binding is Binding.JSONRPC else b"{}")


def notification_headers(config: PushConfig) -> tuple[tuple[bytes, bytes], ...]:
    """What a receiver tells a notification by: the caller's own token and credentials, and nobody else's."""
    fields = [(b"Content-Type", b"application/json")]
    if config.token:
        fields.append((b"X-A2A-Notification-Token", config.token.encode("ascii")))
    if config.schemes and config.credentials:
        scheme = next((name for name in config.schemes if name.lower() == "bearer"), config.schemes[0])
        fields.append((b"Authorization", f"{scheme} {config.credentials}".encode("ascii")))
    return tuple(fields)


def task_notification(version: Version, task_json: bytes, task_version: Version, *, short: bool = False) -> bytes:
    """A whole task as a notification; `short` leaves out what makes tasks long, which the receiver can ask for."""
    task = shapes.to_version(m.members(task_json) or {}, task_version, version)
    if short:
        for name in ("artifacts", "history"):
            task.pop(name, None)
    return m.encode(task if version is Version.V03 else {"task": task})


def event_notification(event: bytes, *, task_id: str, context_id: str) -> Notified | None:
    """One event of an agent's v1.0 stream as a notification under the caller's ids.

    None for what is told better by the whole task that comes out of it: messages, errors, other versions' events.
    """
    document = m.document(event) or {}
    item = (m.members(document.get("result")) or {}) if "jsonrpc" in document else document
    for name, known_as in _UPDATES:
        update = m.members(item.get(name))
        if update is not None:
            return _update(shapes.known(update), known_as, task_id, context_id)
    task = m.members(item.get("task"))
    if task is None or shapes.version_of(task) is not Version.V10:
        return None
    task = shapes.known(task)
    _rename(task, m.text(task.get("id")), m.text(task.get("contextId")), task_id, context_id)
    task |= {"id": m.raw(task_id), "contextId": m.raw(context_id)}
    return Notified(body=m.encode({"task": task}), state=shapes.state_of(task))


def _update(update: Members, name: str, task_id: str, context_id: str) -> Notified | None:
    state = None
    if name == "statusUpdate":
        if shapes.version_of(update) is not Version.V10:
            return None
        state = shapes.state_of(update)
    _rename(update, m.text(update.get("taskId")), m.text(update.get("contextId")), task_id, context_id)
    update |= {"taskId": m.raw(task_id), "contextId": m.raw(context_id)}
    return Notified(body=m.encode({name: update}), state=state)


def _rename(value: Members, theirs: str | None, their_context: str | None, ours: str, our_context: str) -> None:
    contexts = {their_context: our_context} if their_context else {}
    rename_members(value, {theirs: ours} if theirs else {}, contexts=contexts)


def _params(call: Call) -> Members:
    document = m.document(call.body) or {}
    return (m.members(document.get("params")) or {}) if call.binding is Binding.JSONRPC else document


def _config(said: Members) -> PushConfig:
    """Read a configuration that may be wrapped under any of its names; the innermost id is its own."""
    own_id, inner = "", said
    for _ in range(_DEEPEST):
        own_id = next((text for name in _IDS if (text := m.text(inner.get(name)))), own_id)
        wrapped = next((found for name in _WRAPPERS if (found := m.members(inner.get(name))) is not None), None)
        if wrapped is None:
            break
        inner = wrapped
    url = m.text(inner.get("url"))
    if not url:
        raise bad_push_config("has no url")
    authentication = m.members(inner.get("authentication")) or {}
    listed = m.items(authentication.get("schemes")) or [authentication.get("scheme", Raw(b"null"))]
    config = PushConfig(
        url=url,
        id=own_id,
        token=_field_value(inner.get("token")),
        schemes=tuple(text for each in listed if (text := _field_value(each))),
        credentials=_field_value(authentication.get("credentials")),
    )
    if len(own_id) > _MOST_ID:
        raise bad_push_config(f"has an id of more than {_MOST_ID} characters")
    for name, text in (
        ("url", url),
        ("token", config.token),
        ("authentication", " ".join((*config.schemes, config.credentials))),
    ):
        if len(text) > _MOST_TEXT or (text and _FIELD_VALUE.fullmatch(text) is None):
            raise bad_push_config(f"cannot be used: {name} is not up to {_MOST_TEXT} printable ASCII characters")
    return config


def _field_value(said: Raw | None) -> str:
    """A text as a header field carries it: the blanks and line ends around it are none of its own (RFC 9110, 5.5)."""
    return (m.text(said) or "").strip()


def _shown(call: Call, config: PushConfig, task_id: str) -> dict[str, object]:
    if call.version is Version.V10:
        flat: dict[str, object] = {"id": config.id, "taskId": task_id, "url": config.url}
        if config.token:
            flat["token"] = config.token
        if config.schemes:
            flat["authentication"] = {"scheme": config.schemes[0], "credentials": config.credentials}
        return flat
    own: dict[str, object] = {"id": config.id, "url": config.url}
    if config.token:
        own["token"] = config.token
    if config.schemes:
        own["authentication"] = {"schemes": config.schemes, "credentials": config.credentials}
    if call.binding is Binding.REST:
        return {"name": f"tasks/{task_id}/pushNotificationConfigs/{config.id}", "pushNotificationConfig": own}
    return {"taskId": task_id, "pushNotificationConfig": own}


def _enveloped(call: Call, result: bytes) -> bytes:
    if call.binding is not Binding.JSONRPC:
        return result
    return b'{"jsonrpc":"2.0","id":' + call.rpc_id + b',"result":' + result + b"}"
