"""Owns the one table of A2A operations: what each is called in JSON-RPC and REST, in v0.3 and v1.0.

Knows nothing of bodies. A new operation, binding or version is a new row or column here.

JSON-RPC method names never collide between the versions, so the method decides the version. REST paths do: a v0.3 path
is a v1.0 path behind `/v1`, and a v1.0 interface (or tenant) may end in `/v1` too. There `A2A-Version` decides, and
without it the prefix means v0.3, as an absent header does (A2A v1.0 section 3.6).
"""

import re
from dataclasses import dataclass
from typing import Final, NamedTuple
from urllib.parse import unquote

from proxy.core.a2a.call import Operation, Version


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One operation. Paths are below the interface's URL; None where a version does not have it."""

    operation: Operation
    rpc_v03: str | None = None
    rpc_v10: str | None = None
    verbs: tuple[str, ...] = ()
    path_v03: str | None = None
    path_v10: str | None = None


def _row(
    operation: Operation, rpc: tuple[str | None, str], verbs: str, path_v10: str, path_v03: str | None = None
) -> Row:
    old_method, new_method = rpc
    return Row(
        operation=operation,
        rpc_v03=old_method,
        rpc_v10=new_method,
        verbs=tuple(verbs.split()),
        path_v03=path_v03 or f"/v1{path_v10}",
        path_v10=path_v10,
    )


_PUSH: Final = "tasks/pushNotificationConfig"
_CONFIGS: Final = "/tasks/{task}/pushNotificationConfigs"
_CONFIG: Final = f"{_CONFIGS}/{{config}}"

# Of two rows that match one path the earlier wins: `/tasks/x:subscribe` is no GET of a task named `x:subscribe`.
OPERATIONS: Final = (
    _row(Operation.SEND, ("message/send", "SendMessage"), "POST", "/message:send"),
    _row(Operation.STREAM, ("message/stream", "SendStreamingMessage"), "POST", "/message:stream"),
    _row(Operation.CANCEL, ("tasks/cancel", "CancelTask"), "POST", "/tasks/{task}:cancel"),
    _row(Operation.SUBSCRIBE, ("tasks/resubscribe", "SubscribeToTask"), "POST GET", "/tasks/{task}:subscribe"),
    _row(Operation.GET, ("tasks/get", "GetTask"), "GET", "/tasks/{task}"),
    _row(Operation.LIST, (None, "ListTasks"), "GET", "/tasks"),
    _row(Operation.PUSH_SET, (f"{_PUSH}/set", "CreateTaskPushNotificationConfig"), "POST", _CONFIGS),
    _row(Operation.PUSH_GET, (f"{_PUSH}/get", "GetTaskPushNotificationConfig"), "GET", _CONFIG),
    _row(Operation.PUSH_LIST, (f"{_PUSH}/list", "ListTaskPushNotificationConfigs"), "GET", _CONFIGS),
    _row(Operation.PUSH_DELETE, (f"{_PUSH}/delete", "DeleteTaskPushNotificationConfig"), "DELETE", _CONFIG),
    _row(
        Operation.EXTENDED_CARD,
        ("agent/getAuthenticatedExtendedCard", "GetExtendedAgentCard"),
        "GET",
        "/extendedAgentCard",
        "/v1/card",
    ),
    Row(operation=Operation.CARD, verbs=("GET",), path_v10="/.well-known/agent-card.json"),
    Row(operation=Operation.CARD, verbs=("GET",), path_v03="/.well-known/agent.json"),
)

METHODS: Final[dict[str, tuple[Version, Operation]]] = {
    name: (version, row.operation)
    for row in OPERATIONS
    for version, name in ((Version.V03, row.rpc_v03), (Version.V10, row.rpc_v10))
    if name
}
_METHOD_OF: Final = {meant: name for name, meant in METHODS.items()}


def method(operation: Operation, version: Version) -> str:
    """What an operation is called in JSON-RPC; KeyError where a version does not have it."""
    return _METHOD_OF[version, operation]


class Route(NamedTuple):
    """What a REST path says. `task_id` is percent-decoded."""

    operation: Operation
    version: Version
    task_id: str | None


def announced(version_header: str | None) -> Version | None:
    """The generation that an `A2A-Version` header names, or None when it is absent, empty or names none."""
    major = (version_header or "").strip().partition(".")[0]
    if not (major.isascii() and major.isdigit()):
        return None
    return Version.V03 if int(major[:9]) == 0 else Version.V10


def route(verb: str, path: str, version: Version | None) -> Route | None:
    """Match a raw path (no query) against every REST path of the table, below any prefix (base URL, tenant)."""
    for pattern, operation, old_path in _ROUTES.get(verb, ()):
        found = pattern.search(path)
        if found is None:
            continue
        inferred = Version.V03 if old_path or found["old"] else Version.V10
        task = found.groupdict().get("task")
        return Route(operation, version or inferred, None if task is None else unquote(task))
    return None


def _compiled() -> dict[str, tuple[tuple[re.Pattern[str], Operation, bool], ...]]:
    routes: dict[str, list[tuple[re.Pattern[str], Operation, bool]]] = {}
    for row in OPERATIONS:
        prefixed = row.path_v03 is not None and row.path_v03 == f"/v1{row.path_v10}"
        paths = ((row.path_v10, False),) if prefixed else ((row.path_v10, False), (row.path_v03, True))
        for path, old_path in paths:
            if path is None:
                continue
            text = re.escape(path).replace(r"\{task\}", "(?P<task>[^/]+)").replace(r"\{config\}", "[^/]+")
            pattern = re.compile(f"(?P<old>{'/v1' if prefixed else ''})?{text}\\Z")
            for verb in row.verbs:
                routes.setdefault(verb, []).append((pattern, row.operation, old_path))
    return {verb: tuple(rows) for verb, rows in routes.items()}


_ROUTES: Final = _compiled()
