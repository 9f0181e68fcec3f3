"""`GET /openapi.json`: the HTTP API described for programs, made from what the doors declare.

Owns: the form of the document (OpenAPI 3.1), the data path's own entries, the route that serves it.
Knows nothing of: what the routes do. It holds no secret and names no workspace, so nobody is asked for a token.

The document is made once, when it is first asked for; the schemas of bodies and answers are msgspec's own account of
the structs that read the bodies, so what is described is what is checked.
"""

import re
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

import msgspec
from aiohttp import web

from proxy.web import (
    admin,
    cards,
    decisions,
    events,
    explain,
    heartbeats,
    inbox,
    metrics,
    parking,
    queue,
    queue_admin,
    registry,
    shapes,
)
from proxy.web.operations import ADMIN, ANYBODY, CLIENT, JSON, WORKSPACE, Answer, Operation, Parameter

REFERENCE = "#/components/schemas/{name}"
DATA_PATH = ("/workspaces/{id}/a2a", "/workspaces/{id}/a2a/{tail}")
METHODS = ("get", "post", "put", "patch", "delete", "head", "options")
TAGS = {
    "data path": "Requests to agents. What the agent answers passes byte for byte.",
    "workspaces": "Registration, signs of life, and what is known of a workspace.",
    "queue": "Requests that were put away, by receipt.",
    "delivery": "Workspaces that fetch their requests themselves.",
    "restarts": "Restarting workspaces, and changing how they are started.",
    "parking": "Workspaces that administration keeps from running.",
    "explanations": "Why Holdfast did what it did.",
    "tokens": "Who may call.",
    "proxy": "The proxy itself: health, events, metrics, this document.",
}
SUMMARY = """\
Holdfast stands between A2A clients and agents, and keeps what it accepted. Every error of its own is a JSON object with
`error`, or the same in the caller's own A2A binding; docs/errors.md lists the reasons.
"""


def declared() -> tuple[Operation, ...]:
    """Every operation that a door declares."""
    doors = (
        registry,
        heartbeats,
        queue,
        queue_admin,
        inbox,
        admin,
        parking,
        decisions,
        explain,
        events,
        metrics,
        cards,
    )
    return tuple(operation for door in doors for operation in door.OPERATIONS) + OPERATIONS


class Openapi:
    """Serves the description."""

    def __init__(self, *, version: str) -> None:
        self._version = version

    def routes(self) -> list[web.RouteDef]:
        """What this door serves."""
        return [web.get("/openapi.json", self.show)]

    async def show(self, _: web.Request) -> web.Response:
        """`GET /openapi.json`."""
        return web.Response(body=self._document, content_type=JSON)

    @cached_property
    def _document(self) -> bytes:
        return msgspec.json.format(msgspec.json.encode(describe(declared(), self._version)), indent=1)


def describe(operations: Iterable[Operation], version: str) -> dict[str, Any]:
    """Make the document."""
    known = list(operations)
    types = {shapes.Error: None} | {kind: None for operation in known for kind in _types(operation)}
    schemas, components = msgspec.json.schema_components(list(types), ref_template=REFERENCE)
    by_type = dict(zip(types, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for operation in known:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation, by_type)
    for path in DATA_PATH:
        paths[path] = {method: _call(path, method) for method in METHODS}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Holdfast", "version": version, "description": SUMMARY},
        "tags": [{"name": name, "description": text} for name, text in TAGS.items()],
        "paths": paths,
        "components": {"schemas": components, "securitySchemes": SECURITY_SCHEMES},
    }


SECURITY_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "A Holdfast token; it begins with `hf_`."},
    "header": {
        "type": "apiKey",
        "in": "header",
        "name": "Holdfast-Token",
        "description": "The same token where `Authorization` belongs to the agent.",
    },
}
ANY_SCHEME: list[dict[str, list[str]]] = [{"bearer": []}, {"header": []}]


def _types(operation: Operation) -> list[Any]:
    shown = [answer.shape for answer in operation.answers.values() if answer.shape is not None]
    shown += [] if operation.body is None else [operation.body]
    return shown


def _operation(operation: Operation, by_type: Mapping[Any, Any]) -> dict[str, Any]:
    needs = f"Needs the token of {' or '.join(operation.who)}." if operation.who else "Needs no token."
    if operation.hidden:
        needs += " To everybody else it is not there."
    said: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.text,
        "description": needs,
        "tags": [operation.tag],
        "parameters": [*_path_parameters(operation), *map(_parameter, operation.parameters)],
        "responses": _responses(operation, by_type),
        "security": ANY_SCHEME if operation.who else [],
    }
    if operation.body is not None:
        said["requestBody"] = {
            "required": any(member.required for member in msgspec.structs.fields(operation.body)),
            "content": {operation.media: {"schema": by_type[operation.body]}},
        }
    return said


def _path_parameters(operation: Operation) -> list[dict[str, Any]]:
    """What stands in the path, where the operation does not say more about it."""
    named = {parameter.name for parameter in operation.parameters if parameter.where == "path"}
    return [_in_path(name) for name in re.findall(r"{(\w+)}", operation.path) if name not in named]


def _in_path(name: str) -> dict[str, Any]:
    text = "The workspace." if name == "id" else "The id, as Holdfast gave it."
    return {
        "name": name,
        "in": "path",
        "required": True,
        "description": text,
        "schema": {"type": "string", "minLength": 1},
    }


def _parameter(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": parameter.where,
        "required": parameter.where == "path",
        "description": parameter.text,
        "schema": dict(parameter.schema),
    }


def _responses(operation: Operation, by_type: Mapping[Any, Any]) -> dict[str, Any]:
    said = {str(status): _answer(answer, by_type) for status, answer in operation.answers.items()}
    for status, text in operation.refusals().items():
        if str(status) not in said:
            said[str(status)] = _error(text, by_type)
    return dict(sorted(said.items()))


def _answer(answer: Answer, by_type: Mapping[Any, Any]) -> dict[str, Any]:
    schema = {} if answer.shape is None else {"schema": by_type[answer.shape]}
    said: dict[str, Any] = {"description": answer.text, "content": {answer.media: schema}}
    if answer.headers:
        said["headers"] = {
            name: {"description": text, "schema": {"type": "string"}} for name, text in answer.headers.items()
        }
    return said


def _error(text: str, by_type: Mapping[Any, Any]) -> dict[str, Any]:
    return {"description": text, "content": {JSON: {"schema": by_type[shapes.Error]}}}


def _call(path: str, method: str) -> dict[str, Any]:
    """One method of the data path: all are the same.

    Its errors have no schema: they are in the caller's own binding, and an agent may answer the same statuses itself.
    """
    tailed = "{tail}" in path
    parameters = [_in_path("id")]
    if tailed:
        parameters.append(
            {
                "name": "tail",
                "in": "path",
                "required": True,
                "description": "The rest of the agent's own path; it may hold slashes.",
                "schema": {"type": "string", "minLength": 1},
            }
        )
    said: dict[str, Any] = {
        "operationId": f"call_{'path_' if tailed else ''}{method}",
        "summary": "Pass a request on to the workspace's agent, or keep it while the agent is away.",
        "description": f"Needs the token of {CLIENT}, {WORKSPACE} or {ADMIN}. The body, the query and the headers are"
        " the agent's; so is the answer, unless it carries `Holdfast-Verdict` or is an error of the kinds listed.",
        "tags": ["data path"],
        "parameters": [*parameters, *map(_parameter, CALL_HEADERS)],
        "responses": {
            **{str(status): {"description": text} for status, text in CALL_ERRORS.items()},
            "202": {
                "description": "Put away: the receipt says where its answer will be.",
                "headers": {name: {"schema": {"type": "string"}} for name in ("Holdfast-Receipt", "Location")},
            },
            "default": {"description": "The agent's answer, whatever it is."},
        },
        "security": ANY_SCHEME,
    }
    if method in {"post", "put", "patch"}:
        said["requestBody"] = {"required": False, "content": {"*/*": {}}}
    return said


CALL_HEADERS = (
    Parameter(name="A2A-Version", text="The A2A version that the caller speaks.", where="header"),
    Parameter(name="Prefer", text="`wait=N` or `respond-async` (RFC 7240).", where="header"),
    Parameter(name="X-Timeout", text="The caller's deadline, seconds.", where="header"),
    Parameter(name="Idempotency-Key", text="By what a repetition is recognised.", where="header"),
    Parameter(name="Holdfast-Priority", text="`critical` (admin), `task` or `info`.", where="header"),
    Parameter(name="Holdfast-Profile", text="`a2a`, `plain` or `offline-draft`.", where="header"),
)
CALL_ERRORS = {
    400: "The body or a header of Holdfast's own cannot be read.",
    401: "A valid Holdfast token is required.",
    403: "This caller may not call this workspace.",
    404: "There is no such workspace.",
    409: "The idempotency key or message id was used for other content.",
    413: "The body is over the limit.",
    429: "The queue is full, or the caller is too fast.",
    502: "The agent could not be reached, or its answer broke; `delivered` says whether it has the request.",
    503: "The workspace is away or dead, or the store cannot keep the request.",
    504: "The caller's deadline has passed.",
    507: "The queue is full (profile `offline-draft`).",
}
OPERATIONS = (
    Operation(
        method="GET",
        path="/openapi.json",
        name="describe_api",
        is_counted=False,
        text="This document.",
        tag="proxy",
        who=ANYBODY,
        uses_store=False,
        answers={200: Answer(text="OpenAPI 3.1.", shape=None)},
    ),
)
