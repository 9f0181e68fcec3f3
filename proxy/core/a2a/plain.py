"""Owns the habits of profile `plain`: what a bare request is made into, what is said of an agent's failure.

Knows nothing of who has this profile. What stands in a request is never overwritten, only what is missing is added, and
a request in which nothing is missing comes back as the same bytes.

| a request has | it becomes |
| --- | --- |
| no `jsonrpc` | a JSON-RPC request with its `method`, its `params`, and an id: its own or a new one |
| a message without `messageId` | a new one, which is also its idempotency key |
| a message without `role` | the user's |
| a message with `content` instead of `parts` | a text becomes one text part, a list the parts |
| a part with `type` and no `kind` (v0.3) | that type is its kind |
"""

from collections.abc import Callable
from http import HTTPStatus

from msgspec import Raw

from proxy.core.a2a import members as m
from proxy.core.a2a import operations
from proxy.core.a2a.call import Version
from proxy.core.a2a.members import Members
from proxy.core.errors import CallerError


def normalised(body: bytes, new_id: Callable[[], str]) -> bytes:
    """A request's body as an agent expects it.

    Raises:
        CallerError: 400, it is no JSON object, or its message cannot be understood.
    """
    document = m.document(body)
    if document is None:
        if m.items(body) is not None:
            raise CallerError("NOT_AN_OBJECT", "the body is a list; send one object")
        raise CallerError("MALFORMED_BODY", "the body is not a JSON object")
    changed = "jsonrpc" not in document
    if changed:
        bare = document
        document = {"jsonrpc": m.raw("2.0"), "id": bare.get("id", m.raw(new_id()))}
        document |= {name: bare[name] for name in ("method", "params") if name in bare}
    version = operations.METHODS.get(m.text(document.get("method")) or "", (Version.V03, None))[0]

    def message(said: Members) -> bool:
        return _complete(said, version, new_id)

    changed |= m.change_member(document, "params", lambda params: m.change_member(params, "message", message))
    return m.encode(document) if changed else body


def failure_text(status: int, body: bytes) -> str:
    """What is said of an agent's failure: its own `error` where that is a text, else what the status means."""
    said = m.text((m.document(body) or {}).get("error"))
    if said:
        return said
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return f"status {status}"


def _complete(message: Members, version: Version, new_id: Callable[[], str]) -> bool:
    changed = _add_parts(message, version)
    if version is Version.V03:
        changed |= m.change_items(message, "parts", _name_kind)
    if not any(_is_there(message.get(name)) for name in ("messageId", "message_id")):
        message["messageId"] = m.raw(new_id())
        changed = True
    if not _is_there(message.get("role")):
        message["role"] = m.raw("user" if version is Version.V03 else "ROLE_USER")
        changed = True
    return changed


def _add_parts(message: Members, version: Version) -> bool:
    if _is_there(message.get("parts")):
        return False
    content = message.pop("content", None)
    text = m.text(content)
    if text is not None:
        part: dict[str, object] = {"kind": "text", "text": text} if version is Version.V03 else {"text": text}
        message["parts"] = m.raw([part])
    elif content is not None and m.items(content) is not None:
        message["parts"] = content
    else:
        problem = "has neither parts nor content" if content is None else "has content that is neither text nor list"
        hint = 'send "parts": [{"kind": "text", "text": "..."}]'
        raise CallerError("BAD_MESSAGE", f"the message {problem}; {hint}")
    return True


def _name_kind(part: Members) -> bool:
    if "kind" in part or "type" not in part:
        return False
    part["kind"] = part.pop("type")
    return True


def _is_there(value: Raw | None) -> bool:
    return value is not None and not m.is_null(value) and bytes(value) != b'""'
