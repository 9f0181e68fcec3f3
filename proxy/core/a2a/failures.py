"""Owns how an error looks in the caller's binding: the one table of Holdfast's reasons, and A2A's own task errors.

Knows nothing of why an error arose. `docs/errors.md` shows the table; a test holds the two together.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from proxy.core.a2a import members as m
from proxy.core.a2a.call import NO_ID, Binding, Call, Version
from proxy.core.a2a.renaming import rename_answer
from proxy.core.errors import HoldfastError

JSON: Final = "application/json"
DOMAIN: Final = "holdfast"
A2A_DOMAIN: Final = "a2a-protocol.org"
DEFAULT_CODE: Final = -32050  # of the range JSON-RPC 2.0 leaves to servers, clear of A2A's own -32001 to -32009
_ERROR_INFO: Final = "type.googleapis.com/google.rpc.ErrorInfo"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """One machine-readable reason: its JSON-RPC code, its usual HTTP status, what it means to a caller."""

    name: str
    code: int = DEFAULT_CODE
    status: int
    meaning: str


REASONS: Final = (
    Reason(
        name="MALFORMED_BODY",
        code=-32700,
        status=400,
        meaning="The body is not JSON, and Holdfast would have had to store or interpret it.",
    ),
    Reason(
        name="NOT_AN_OBJECT",
        code=-32600,
        status=400,
        meaning="The body is JSON but not one object; A2A has no JSON-RPC batches.",
    ),
    Reason(name="BROKEN_BODY", status=400, meaning="The body did not arrive whole."),
    Reason(
        name="BAD_IDEMPOTENCY_KEY",
        status=400,
        meaning="The header Idempotency-Key is empty, too long, or not printable ASCII.",
    ),
    Reason(name="BAD_PROFILE", status=400, meaning="The header Holdfast-Profile names no profile."),
    Reason(
        name="BAD_MESSAGE",
        code=-32602,
        status=400,
        meaning="Profile plain: the message has neither parts nor content that could be read.",
    ),
    Reason(name="BAD_PRIORITY", status=400, meaning="The header Holdfast-Priority names no priority."),
    Reason(
        name="BAD_PUSH_CONFIG",
        code=-32602,
        status=400,
        meaning="The push notification configuration is unusable, or its URL must not be called; nothing was stored.",
    ),
    Reason(name="UNAUTHENTICATED", status=401, meaning="No valid Holdfast token came with the request."),
    Reason(
        name="INVALID_CALLER",
        status=403,
        meaning="The header X-Workspace-ID names somebody else than the token's owner, or nobody outside.",
    ),
    Reason(name="FORBIDDEN", status=403, meaning="The token's owner may not do this, or may not call this workspace."),
    Reason(name="WORKSPACE_NOT_FOUND", status=404, meaning="There is no workspace of this name, or none you may see."),
    Reason(
        name="IDEMPOTENCY_CONFLICT",
        code=-32602,
        status=409,
        meaning="This message id or Idempotency-Key was used for other content; nothing was stored.",
    ),
    Reason(name="BODY_TOO_LARGE", status=413, meaning="The body is over the limit; nothing of it was used."),
    Reason(
        name="RATE_LIMITED",
        status=429,
        meaning="This caller's requests of a minute are used up; Retry-After says when there are more.",
    ),
    Reason(name="QUEUE_FULL", status=429, meaning="The workspace is away and its queue is full; nothing was stored."),
    Reason(name="INTERNAL", status=500, meaning="Holdfast itself failed."),
    Reason(
        name="NO_TUNNELS",
        status=501,
        meaning="CONNECT on the data path: what follows it would not be read as requests.",
    ),
    Reason(
        name="UNSAFE_ADDRESS",
        status=502,
        meaning="The workspace's address is one that Holdfast must not call; nothing was sent.",
    ),
    Reason(
        name="CALL_BROKEN",
        status=502,
        meaning="The call broke after it may have reached the agent, and redelivery is forbidden.",
    ),
    Reason(name="ANSWER_LOST", status=502, meaning="The agent has the request; its answer broke on the way."),
    Reason(name="STREAM_BROKEN", status=502, meaning="The last event of a stream that broke before its end."),
    Reason(
        name="WORKSPACE_UNREACHABLE",
        status=503,
        meaning="Nothing listens at the workspace's address: 503 where it is known to run, 502 where nobody can tell.",
    ),
    Reason(
        name="WORKSPACE_RESTARTING",
        status=503,
        meaning="The workspace is dead and a restart is due; nothing was queued.",
    ),
    Reason(
        name="WORKSPACE_DEAD",
        status=503,
        meaning="The workspace is dead and nothing was queued; `restart` says why none is due.",
    ),
    Reason(
        name="WORKSPACE_AWAY", status=503, meaning="The workspace is away, and this kind of request cannot be queued."
    ),
    Reason(
        name="WORKSPACE_WAKING",
        status=503,
        meaning="The workspace wakes from hibernation, and this kind of request cannot be queued.",
    ),
    Reason(name="QUEUE_UNAVAILABLE", status=503, meaning="The request could not be put away; it was not accepted."),
    Reason(name="STORE_UNAVAILABLE", status=503, meaning="Holdfast's store could not do it; nothing was changed."),
    Reason(name="STARTING", status=503, meaning="Holdfast does not know its workspaces yet; nothing was sent."),
    Reason(
        name="TOO_MANY_READERS",
        status=503,
        meaning="As many callers wait as may; there is no room for a subscription now.",
    ),
    Reason(name="STOPPING", status=503, meaning="Holdfast is stopping and had to cut the call; `delivered` is maybe."),
    Reason(
        name="DEADLINE_EXCEEDED",
        status=504,
        meaning="The agent did not answer within X-Timeout, and the request cannot be deferred.",
    ),
)

CODES: Final[Mapping[str, int]] = {reason.name: reason.code for reason in REASONS}

_CANONICAL: Final = {  # HTTP status -> google.rpc.Code
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ABORTED",
    413: "INVALID_ARGUMENT",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
    507: "RESOURCE_EXHAUSTED",
}
_FIRST_ERROR: Final = 400
_FIRST_SERVER_ERROR: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorAnswer:
    """Status, media type and body of an error; `Retry-After` and other headers are the door's."""

    status: int
    content_type: str
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class _ProtocolError:
    """One of A2A's own errors in every binding; `old_type` is what v0.3 REST clients tell it by."""

    code: int
    status: int
    canonical: str
    reason: str
    old_type: str
    message: str


_TASK_NOT_FOUND: Final = _ProtocolError(
    code=-32001,
    status=404,
    canonical="NOT_FOUND",
    reason="TASK_NOT_FOUND",
    old_type="TaskNotFoundError",
    message="Task not found",
)
_NOT_CANCELABLE: Final = _ProtocolError(
    code=-32002,
    status=400,
    canonical="FAILED_PRECONDITION",
    reason="TASK_NOT_CANCELABLE",
    old_type="TaskNotCancelableError",
    message="Task cannot be canceled",
)
_PUSH_NOT_SUPPORTED: Final = _ProtocolError(
    code=-32003,
    status=400,
    canonical="FAILED_PRECONDITION",
    reason="PUSH_NOTIFICATION_NOT_SUPPORTED",
    old_type="PushNotificationNotSupportedError",
    message="Push notifications are not supported for this task",
)
_UNSUPPORTED: Final = _ProtocolError(
    code=-32004,
    status=400,
    canonical="FAILED_PRECONDITION",
    reason="UNSUPPORTED_OPERATION",
    old_type="UnsupportedOperationError",
    message="The task has ended; this operation is not supported for it",
)
_INVALID_PARAMS: Final = _ProtocolError(
    code=-32602,
    status=400,
    canonical="INVALID_ARGUMENT",
    reason="INVALID_PARAMS",
    old_type="InvalidParamsError",
    message="Invalid params",
)


def error_answer(call: Call | None, error: HoldfastError) -> ErrorAnswer:
    """An error of Holdfast's own in the caller's binding; plain JSON where there is none (or no call yet).

    The status is the error's in every binding. The same facts ride as members beside `error` in the plain body and as
    strings in ErrorInfo.metadata in A2A bindings.
    """
    facts = dict(error.facts)
    if error.retry_after is not None:
        facts["retry_after"] = error.retry_after
    if call is None or call.binding is Binding.OTHER:
        return _answer(error.status, {"error": error.message} | facts)
    details = [_info(error.reason, DOMAIN, facts)]
    if call.binding is Binding.JSONRPC:
        return _rpc(call, error.status, CODES.get(error.reason, DEFAULT_CODE), error.message, details)
    body = _rest_body(error.status, _canonical(error.status), error.message, details)
    if call.version is Version.V03:
        body["message"] = error.message  # what v0.3 REST clients show
    return _answer(error.status, body)


def passed_error(call: Call, status: int, body: bytes, tasks: Mapping[str, str]) -> bytes | None:
    """An agent's error as its caller gets it late: its ids changed by `tasks`, under the caller's own JSON-RPC id.

    `status` and `body` are the agent's answer. None for an answer that is no error in the caller's binding.
    """
    document = m.document(body)
    if document is None or m.members(document.get("error")) is None:
        is_error = call.binding is Binding.REST and status >= _FIRST_ERROR and document is not None
        return rename_answer(body, tasks) if is_error else None
    renamed = rename_answer(body, tasks)
    if call.binding is not Binding.JSONRPC:
        return renamed
    error = (m.members(renamed) or {})["error"]
    return b'{"jsonrpc":"2.0","id":' + call.rpc_id + b',"error":' + bytes(error) + b"}"


def task_not_found(call: Call) -> ErrorAnswer:
    """A2A's TaskNotFoundError, as an agent gives it (A2A v1.0 section 3.3.2)."""
    return _as_agent(call, _TASK_NOT_FOUND)


def not_cancelable(call: Call) -> ErrorAnswer:
    """A2A's TaskNotCancelableError, as an agent gives it (A2A v1.0 section 3.3.2)."""
    return _as_agent(call, _NOT_CANCELABLE)


def push_not_supported(call: Call) -> ErrorAnswer:
    """A2A's PushNotificationNotSupportedError, as an agent gives it (A2A v1.0 section 3.3.2)."""
    return _as_agent(call, _PUSH_NOT_SUPPORTED)


def task_has_ended(call: Call) -> ErrorAnswer:
    """A2A's UnsupportedOperationError, as agents give it for ended tasks (A2A v1.0 sections 3.1.1, 3.1.6)."""
    return _as_agent(call, _UNSUPPORTED)


def invalid_params(call: Call, text: str) -> ErrorAnswer:
    """JSON-RPC's InvalidParams, as an agent gives it; `text` says which."""
    return _as_agent(call, replace(_INVALID_PARAMS, message=text))


def error_code(body: bytes) -> int | None:
    """The code of a JSON-RPC error; None for what is none."""
    error = m.members((m.document(body) or {}).get("error"))
    return m.whole(error.get("code")) if error is not None else None


def says_not_found(call: Call, status: int, body: bytes) -> bool:
    """Whether an agent's answer is A2A's TaskNotFoundError."""
    if call.binding is Binding.JSONRPC:
        return error_code(body) == _TASK_NOT_FOUND.code
    return status == _TASK_NOT_FOUND.status


def _as_agent(call: Call, error: _ProtocolError) -> ErrorAnswer:
    """An error of the protocol itself: JSON-RPC carries it with HTTP 200, as the servers of the SDKs do."""
    details = [_info(error.reason, A2A_DOMAIN, {"taskId": call.task_id} if call.task_id else {})]
    if call.binding is Binding.JSONRPC:
        return _rpc(call, 200, error.code, error.message, details if call.version is Version.V10 else None)
    answer = _rest_body(error.status, error.canonical, error.message, details)
    if call.version is Version.V03:
        answer |= {"type": error.old_type, "message": error.message}
    return _answer(error.status, answer)


def _rpc(call: Call, status: int, code: int, message: str, details: list[dict[str, object]] | None) -> ErrorAnswer:
    error: dict[str, object] = {"code": code, "message": message}
    if details is not None:
        error["data"] = details
    rpc_id = call.rpc_id or NO_ID
    body = b'{"jsonrpc":"2.0","id":' + rpc_id + b',"error":' + m.encode(error) + b"}"
    return ErrorAnswer(status=status, content_type=JSON, body=body)


def _rest_body(status: int, canonical: str, message: str, details: list[dict[str, object]]) -> dict[str, object]:
    """The v1.0 error body (A2A v1.0 section 11.6, AIP-193)."""
    return {"error": {"code": status, "status": canonical, "message": message, "details": details}}


def _answer(status: int, body: Mapping[str, object]) -> ErrorAnswer:
    return ErrorAnswer(status=status, content_type=JSON, body=m.encode(body))


def _info(reason: str, domain: str, facts: Mapping[str, object]) -> dict[str, object]:
    metadata = {name: value if isinstance(value, str) else m.encode(value).decode() for name, value in facts.items()}
    return {"@type": _ERROR_INFO, "reason": reason, "domain": domain, "metadata": metadata}


def _canonical(status: int) -> str:
    known = _CANONICAL.get(status)
    if known is not None:
        return known
    return "INTERNAL" if status >= _FIRST_SERVER_ERROR else "FAILED_PRECONDITION"
