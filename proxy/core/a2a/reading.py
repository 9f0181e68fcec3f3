"""Owns what a request says: bytes, path and two headers in, one `Call` out.

Knows nothing of answers, of stores, or of whether the agent would agree: a healthy agent judges its own input.

The body is decoded once, and only its envelope: names that nobody here asks for are skipped without being built. What
is an object in every sane request but not in this one (`"params": []`) makes a second, patient reading necessary.
"""

import re
from typing import Any, Final

import msgspec
from msgspec import UNSET, Raw, Struct, field

from proxy.core.a2a import members as m
from proxy.core.a2a import operations
from proxy.core.a2a.call import NO_ID, SENDS, STREAMS, Binding, Call, Operation, Version
from proxy.core.errors import CallerError


class MalformedBody(CallerError):  # noqa: N818 - the family of core.errors carries the word Error
    """A body that should be a JSON object and is none.

    `call` is as much as the path and the headers say, for the answer in kind; None where nobody knew them. Whether
    this matters is the caller's decision: only a request that must be stored or interpreted is refused for it.
    """

    def __init__(self, reason: str, message: str, call: Call | None = None) -> None:
        super().__init__(reason, message)
        self.call = call


class _Message(Struct, gc=False, rename="camel"):
    message_id: Any = None
    context_id: Any = None
    task_id: Any = None
    reference_task_ids: Any = None
    snake_message_id: Any = field(default=None, name="message_id")
    snake_context_id: Any = field(default=None, name="context_id")
    snake_task_id: Any = field(default=None, name="task_id")
    snake_reference_task_ids: Any = field(default=None, name="reference_task_ids")


class _Configuration(Struct, gc=False, rename="camel"):
    blocking: Any = None
    return_immediately: Any = None
    snake_return_immediately: Any = field(default=None, name="return_immediately")
    history_length: Any = None
    snake_history_length: Any = field(default=None, name="history_length")
    task_push_notification_config: Any = None  # v1.0
    snake_task_push_notification_config: Any = field(default=None, name="task_push_notification_config")
    push_notification_config: Any = None  # v0.3 JSON-RPC
    snake_push_notification_config: Any = field(default=None, name="push_notification_config")
    push_notification: Any = None  # v0.3 REST
    snake_push_notification: Any = field(default=None, name="push_notification")


class _Params(Struct, gc=False, rename="camel"):
    message: _Message | None = None
    request: _Message | None = None  # v0.3 REST by its proto name
    configuration: _Configuration | None = None
    id: Any = None
    task_id: Any = None
    snake_task_id: Any = field(default=None, name="task_id")
    context_id: Any = None
    snake_context_id: Any = field(default=None, name="context_id")
    history_length: Any = None
    snake_history_length: Any = field(default=None, name="history_length")


class _Envelope(Struct, gc=False):
    jsonrpc: Any = UNSET
    id: Raw = field(default_factory=Raw)
    method: Any = None
    params: _Params | None = None


_ENVELOPE: Final = msgspec.json.Decoder(_Envelope)
_PARAMS: Final = msgspec.json.Decoder(_Params)
_NO_PARAMS: Final = _Params()
_NO_MESSAGE: Final = _Message()
_NO_CONFIGURATION: Final = _Configuration()
_OPENS_OBJECT: Final = re.compile(rb"[ \t\r\n]*\{")
_OPENS_JSON: Final = re.compile(rb"[ \t\r\n]*[\[{]")
_JSON_MEDIA_TYPE: Final = re.compile(
    r"\s*[\w.+-]+/(?:[\w.-]+\+)?json(?:-rpc|request)?\s*(?:;|\Z)", re.IGNORECASE | re.ASCII
)
_HISTORY_LENGTH: Final = re.compile(r"(?:\A|&)history(?:Length|_length)=(\d{1,9})(?=&|\Z)", re.ASCII)
_LEGAL_ID: Final = re.compile(rb'["\-0-9n]')  # string, number or null (JSON-RPC 2.0 section 4)
_WITH_BODY: Final = SENDS | {Operation.PUSH_SET}
_OLD_TASK_IN_ID: Final = frozenset({Operation.PUSH_GET, Operation.PUSH_LIST, Operation.PUSH_DELETE})
_ID_IS_TASK: Final = frozenset({Operation.GET, Operation.CANCEL, Operation.SUBSCRIBE})


def read(method: str, tail: str, version_header: str | None, content_type: str | None, body: bytes) -> Call:
    """Say what one request is.

    `tail` is the raw path below the workspace's A2A address, "" or "/...", with or without its query.
    MalformedBody for a POST body that should be a JSON object and is none: a REST send, or what is POSTed to the
    address itself under a JSON media type (or under none, and opens as JSON). A JSON-RPC batch is no object either.
    """
    verb = method.upper()
    path, _, query = tail.partition("?")
    version = operations.announced(version_header)
    at_root = path in {"", "/"}
    route = None if at_root else operations.route(verb, path, version)
    if route is None:
        if verb != "POST":
            return _foreign(version, body, deferrable=False)
        return _posted(version, content_type, body, at_root=at_root)
    if route.operation is Operation.CARD:
        return Call(binding=Binding.OTHER, version=route.version, operation=Operation.CARD, body=body)
    return _rest_call(route, query, body)


def takes_id_as_task(call: Call) -> bool:
    """Whether the parameter `id` names a task (in v1.0 push calls it names the push configuration)."""
    if call.operation in _ID_IS_TASK:
        return True
    return call.version is Version.V03 and call.operation in _OLD_TASK_IN_ID


def _foreign(version: Version | None, body: bytes, *, deferrable: bool) -> Call:
    return Call(
        binding=Binding.OTHER,
        version=version or Version.V03,
        operation=Operation.UNKNOWN,
        deferrable=deferrable,
        body=body,
    )


def _posted(version: Version | None, content_type: str | None, body: bytes, *, at_root: bool) -> Call:
    """A POST that is no REST call: JSON-RPC, or not A2A. JSON-RPC is known by its body, wherever it is posted."""
    says_json = (_OPENS_JSON.match(body) if content_type is None else _JSON_MEDIA_TYPE.match(content_type)) is not None
    opens_object = _OPENS_OBJECT.match(body) is not None
    if not opens_object and not (says_json and at_root):
        return _foreign(version, body, deferrable=True)
    try:
        envelope = _envelope(body)
        rpc_id = _rpc_id(envelope.id)
    except m.UNREADABLE:
        if says_json and at_root:
            unread = Call(
                binding=Binding.JSONRPC, version=version or Version.V03, operation=Operation.UNKNOWN, body=body
            )
            raise _malformed(body, unread) from None
        return _foreign(version, body, deferrable=True)
    if envelope.jsonrpc is UNSET:
        return _foreign(version, body, deferrable=True)
    return _rpc_call(envelope, rpc_id, version, body)


def _malformed(body: bytes, call: Call) -> MalformedBody:
    if body.lstrip()[:1] == b"[" and m.items(body) is not None:
        return MalformedBody("NOT_AN_OBJECT", "the body is a list; A2A has no JSON-RPC batches", call)
    return MalformedBody("MALFORMED_BODY", "the body is not a JSON object", call)


def _envelope(body: bytes) -> _Envelope:
    try:
        return _ENVELOPE.decode(body)
    except msgspec.ValidationError:
        return msgspec.convert(_patiently(body, "params"), _Envelope)


def _patiently(body: bytes, *path: str) -> dict[str, Any]:
    """Decode everything, then drop what is no object where one belongs. `path` leads to the parameters."""
    whole: dict[str, Any] = msgspec.json.decode(body, type=dict[str, Any])
    owner = whole
    for name in path:
        if not isinstance(owner.get(name), dict):
            owner.pop(name, None)
        owner = owner.get(name, {})
    for name in ("message", "request", "configuration"):
        if not isinstance(owner.get(name), dict):
            owner.pop(name, None)
    if path:
        identified = m.members(body) or {}
        whole["id"] = identified.get("id", Raw())
    return whole


def _rpc_id(found: Raw) -> bytes:
    """The raw id to answer with; what is no legal id is answered as null."""
    rpc_id = bytes(found)
    if not rpc_id or _LEGAL_ID.match(rpc_id) is None:
        return NO_ID
    rpc_id.decode()  # it goes back out as it came; UnicodeDecodeError is a ValueError
    return rpc_id


def _rpc_call(envelope: _Envelope, rpc_id: bytes, announced: Version | None, body: bytes) -> Call:
    method = envelope.method if isinstance(envelope.method, str) else ""
    version, operation = operations.METHODS.get(method, (announced or Version.V03, Operation.UNKNOWN))
    params = envelope.params or _NO_PARAMS
    if operation in SENDS:
        return _send(Binding.JSONRPC, version, operation, params, body=body, rpc_method=method, rpc_id=rpc_id)
    addressed = params.id if operation in _ID_IS_TASK else params.task_id or params.snake_task_id
    if version is Version.V03 and operation in _OLD_TASK_IN_ID:
        addressed = params.id
    return Call(
        binding=Binding.JSONRPC,
        version=version,
        operation=operation,
        rpc_method=method,
        rpc_id=rpc_id,
        task_id=_name(addressed),
        context_id=_name(params.context_id or params.snake_context_id),
        history_length=_count(params.history_length, params.snake_history_length),
        streaming=operation in STREAMS,
        body=body,
    )


def _rest_call(route: operations.Route, query: str, body: bytes) -> Call:
    wanted = _HISTORY_LENGTH.search(query)
    known = Call(
        binding=Binding.REST,
        version=route.version,
        operation=route.operation,
        task_id=route.task_id,
        history_length=int(wanted[1]) if wanted else None,
        streaming=route.operation in STREAMS,
        body=body,
    )
    if route.operation not in SENDS:
        return known
    try:
        try:
            params = _PARAMS.decode(body)
        except msgspec.ValidationError:
            params = msgspec.convert(_patiently(body), _Params)
    except m.UNREADABLE:
        raise _malformed(body, known) from None
    return _send(Binding.REST, route.version, route.operation, params, body=body)


def _send(
    binding: Binding,
    version: Version,
    operation: Operation,
    params: _Params,
    *,
    body: bytes,
    rpc_method: str = "",
    rpc_id: bytes = NO_ID,
) -> Call:
    message = params.message or params.request or _NO_MESSAGE
    wish = params.configuration or _NO_CONFIGURATION
    references = message.reference_task_ids or message.snake_reference_task_ids
    if version is Version.V03:
        blocking = wish.blocking is not False
        if binding is Binding.REST and params.configuration is not None:
            blocking = bool(wish.blocking)  # ProtoJSON: SDKs leave a false out, and servers read its absence as one
        push = wish.push_notification_config or wish.snake_push_notification_config
        push = push or wish.push_notification or wish.snake_push_notification
    else:
        blocking = wish.return_immediately is not True and wish.snake_return_immediately is not True
        push = wish.task_push_notification_config or wish.snake_task_push_notification_config
    return Call(
        binding=binding,
        version=version,
        operation=operation,
        rpc_method=rpc_method,
        rpc_id=rpc_id,
        message_id=_name(message.message_id or message.snake_message_id),
        context_id=_name(message.context_id or message.snake_context_id),
        task_id=_name(message.task_id or message.snake_task_id),
        reference_task_ids=tuple(r for r in references if isinstance(r, str)) if isinstance(references, list) else (),
        blocking=blocking,
        has_push_config=bool(push),
        history_length=_count(wish.history_length, wish.snake_history_length),
        deferrable=True,
        streaming=operation is Operation.STREAM,
        body=body,
    )


def _name(value: Any) -> str | None:
    """An id as it came; ProtoJSON's empty string is an absent one."""
    return value if isinstance(value, str) and value else None


def _count(value: Any, other: Any) -> int | None:
    """A history length; ProtoJSON may write an integer as a string."""
    found = other if value is None else value
    if isinstance(found, str) and found.isascii() and found.isdigit():
        found = int(found[:9])
    return found if isinstance(found, int) and not isinstance(found, bool) and found >= 0 else None
