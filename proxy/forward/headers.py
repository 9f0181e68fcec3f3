"""Which header fields cross the proxy, and how a request's head is written.

Owns: the hop-by-hop rules of RFC 9110 section 7.6.1, the removal of Holdfast's own fields and credentials, HTTP/1.1
framing of the head that goes upstream.
Knows nothing of: sockets, who the caller is, what a field means to an agent.
"""

import re

from proxy.forward import Outcome, RawHeaders, UpstreamFailure

_HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
# Made anew for the next hop (Host, Content-Length), or an agreement with this hop only (Expect: we have read the body).
_REQUEST_ONLY = frozenset({b"host", b"content-length", b"expect"})
_DROPPED_FROM_REQUEST = _HOP_BY_HOP | _REQUEST_ONLY
_OWN_PREFIX = b"holdfast-"
_OWN_BEARER = re.compile(rb"[ \t]*bearer[ \t]+hf_", re.IGNORECASE)
_HARMLESS_OPTIONS = frozenset({b"", b"close", b"keep-alive"})

_METHOD = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_TARGET = re.compile(rb"/[^\x00-\x20\x7f]*")
_NAMES = re.compile(rb"(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+\n)*")
_FRAMING = frozenset({b"host", b"content-length", b"transfer-encoding"})
_FRAMING_LENGTHS = frozenset(map(len, _FRAMING))
_METHODS_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})


def end_to_end(headers: RawHeaders) -> RawHeaders:
    """Keep of a caller's fields what is meant for the agent, unchanged and in order.

    Dropped: hop-by-hop fields and those that Connection names, Host, Content-Length, Expect, every `Holdfast-*` field,
    and an `Authorization` that holds one of Holdfast's own tokens; any other `Authorization` is the agent's.
    """
    kept = []
    named: set[bytes] = set()
    for pair in headers:
        name = pair[0].lower()
        if name in _DROPPED_FROM_REQUEST:
            if name == b"connection":
                named.update(_options(pair[1]))
        elif not name.startswith(_OWN_PREFIX) and not (name == b"authorization" and _OWN_BEARER.match(pair[1])):
            kept.append(pair)
    return _without(kept, named)


def answer_headers(headers: RawHeaders, *, reframed: bool = False) -> RawHeaders:
    """Keep of an agent's fields what is meant for the caller, unchanged and in order.

    Dropped: hop-by-hop fields and those that Connection names, every `Holdfast-*` field (an agent must not speak in
    the proxy's name), and Content-Length where the body is `reframed`, that is, not passed on byte for byte.
    """
    kept = []
    named: set[bytes] = set()
    for pair in headers:
        name = pair[0].lower()
        if name in _HOP_BY_HOP:
            if name == b"connection":
                named.update(_options(pair[1]))
        elif not name.startswith(_OWN_PREFIX) and not (reframed and name == b"content-length"):
            kept.append(pair)
    # The message's own framing is not the peer's to take away.
    return _without(kept, named - {b"content-length"})


def request_head(method: str, target: bytes, authority: str, headers: RawHeaders, body_length: int) -> bytes:
    """Write the head of an HTTP/1.1 request: the given fields verbatim, Host before and Content-Length after them.

    Raises:
        UpstreamFailure: `NOT_SENT` `bad_request` for anything that would change where the head or the body ends
            (RFC 9112 section 11.2, request smuggling), even though a parser has normally refused it already.
    """
    names: list[bytes] = []
    lines: list[bytes] = []
    for name, value in headers:
        if len(name) in _FRAMING_LENGTHS and name.lower() in _FRAMING:
            raise UpstreamFailure(Outcome.NOT_SENT, "bad_request", "a framing field among the end-to-end fields")
        names += (name, b"\n")
        lines += (name, b": ", value, b"\r\n")
    fields = b"".join(lines)
    verb = method.encode("ascii", "replace")
    if not (
        fields.count(b"\n") == fields.count(b"\r") == len(headers)
        and b"\0" not in fields
        and _NAMES.fullmatch(b"".join(names))
        and _METHOD.fullmatch(verb)
        and _TARGET.fullmatch(target)
    ):
        raise UpstreamFailure(
            Outcome.NOT_SENT, "bad_request", "method, target or a field cannot be written as HTTP/1.1"
        )
    host = authority.encode("ascii")
    if body_length or method in _METHODS_WITH_BODY:
        return b"%b %b HTTP/1.1\r\nHost: %b\r\n%bContent-Length: %d\r\n\r\n" % (verb, target, host, fields, body_length)
    return b"%b %b HTTP/1.1\r\nHost: %b\r\n%b\r\n" % (verb, target, host, fields)


def _options(value: bytes) -> set[bytes]:
    return {option.strip().lower() for option in value.split(b",")} - _HARMLESS_OPTIONS


def _without(kept: list[tuple[bytes, bytes]], named: set[bytes]) -> RawHeaders:
    if not named:
        return tuple(kept)
    return tuple(pair for pair in kept if pair[0].lower() not in named)
