"""Which header fields cross the proxy, and how a request's head is written.

Owns: the hop-by-hop rules of RFC 9110 section 7.6.1, the removal of Holdfast's own fields and credentials, HTTP/1.1
framing of the head that goes upstream.
Knows nothing of: sockets, who the caller is, what a field means to an agent.
"""

import re
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from typing import NamedTuple

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
_NOTHING: frozenset[bytes] = frozenset()

_METHOD = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_TARGET = re.compile(rb"/[^\x00-\x20\x7f]*")
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_FRAMING = frozenset({b"host", b"content-length", b"transfer-encoding"})
_METHODS_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})
_REMEMBERED = 512  # names, and bytes of a name
_CLAIM = b"x-workspace-id"
_LENGTH_OF = re.compile(rb"[0-9]{1,19}")
"""A Content-Length as it is read here; more digits, leading zeros included, are no length that anybody sends."""


class Kinds(dict[bytes, int]):
    """What the names of fields mean, remembered as they were written; names come from strangers, so only so many.

    `kinds[name]` is what `judge(name)` says.
    """

    def __init__(self, judge: Callable[[bytes], int]) -> None:
        super().__init__()
        self._judge = judge

    def __missing__(self, name: bytes) -> int:
        kind = self._judge(name)
        if len(self) < _REMEMBERED and len(name) < _REMEMBERED:
            self[name] = kind
        return kind


# What is passed on comes first, what needs a closer look last: one comparison tells whether any field of a head does.
_KEPT, _LENGTH, _TYPE, _DATE, _DROPPED, _OPTIONS, _AUTHORIZATION = range(7)
_NO_NAME, _FRAMED = 1, 2


def _of_request(name: bytes) -> int:
    name = name.lower()
    if b"_" in name:
        # An agent behind a gateway of CGI's kind sees one name for `-` and `_` (RFC 3875 section 4.1.18): what may not
        # pass under its own name, and a claim that was not compared with the token, does not pass as its twin either.
        twin = name.replace(b"_", b"-")
        return _DROPPED if twin == _CLAIM or _of_request(twin) != _KEPT else _KEPT
    if name == b"connection":
        return _OPTIONS
    if name in _DROPPED_FROM_REQUEST or name.startswith(_OWN_PREFIX):
        return _DROPPED
    return _AUTHORIZATION if name == b"authorization" else _KEPT


def _of_answer(name: bytes) -> int:
    name = name.lower()
    if name == b"connection":
        return _OPTIONS
    if name in _HOP_BY_HOP or name.startswith(_OWN_PREFIX):
        return _DROPPED
    return {b"content-length": _LENGTH, b"content-type": _TYPE, b"date": _DATE}.get(name, _KEPT)


def _fault_of(name: bytes) -> int:
    """What is wrong with a name in a head that we write."""
    if name.lower() in _FRAMING:
        return _FRAMED
    return 0 if _NAME.fullmatch(name) else _NO_NAME


_REQUEST_KINDS, _ANSWER_KINDS, _FAULTS = Kinds(_of_request), Kinds(_of_answer), Kinds(_fault_of)


def end_to_end(headers: RawHeaders) -> RawHeaders:
    """Keep of a caller's fields what is meant for the agent, unchanged and in order.

    Dropped: hop-by-hop fields and those that Connection names, Host, Content-Length, Expect, every `Holdfast-*` field,
    an `Authorization` that holds one of Holdfast's own tokens (any other is the agent's), and a name with `_` that
    reads as one of these, or as X-Workspace-ID, with `-`.
    """
    kinds = [_REQUEST_KINDS[name] for name, _ in headers]
    if _AUTHORIZATION in kinds:
        for at, kind in enumerate(kinds):
            if kind == _AUTHORIZATION:
                kinds[at] = _DROPPED if _OWN_BEARER.match(headers[at][1]) else _KEPT
    kept = [pair for pair, kind in zip(headers, kinds, strict=True) if kind == _KEPT]
    return _without(kept, _named(headers, kinds))


def answer_headers(headers: RawHeaders, *, reframed: bool = False) -> RawHeaders:
    """Keep of an agent's fields what is meant for the caller, unchanged and in order.

    Dropped: hop-by-hop fields and those that Connection names, every `Holdfast-*` field (an agent must not speak in
    the proxy's name), and Content-Length where the body is `reframed`, that is, not passed on byte for byte.
    """
    return _kept_of_answer(headers, [_ANSWER_KINDS[name] for name, _ in headers], reframed=reframed)


def _kept_of_answer(headers: RawHeaders, kinds: list[int], *, reframed: bool) -> RawHeaders:
    dropped = {_DROPPED, _OPTIONS, _LENGTH} if reframed else {_DROPPED, _OPTIONS}
    kept = [pair for pair, kind in zip(headers, kinds, strict=True) if kind not in dropped]
    # The message's own framing is not the peer's to take away.
    return _without(kept, _named(headers, kinds) - {b"content-length"})


class AnswerFields(NamedTuple):
    """An agent's header fields on their way to the caller.

    `lines` are those of `answer_headers` as they stand on the wire, each with its line end. `length` is the declared
    Content-Length, None without one (or where it is dropped); `stream` says that the body is a stream of server-sent
    events, `dated` that there is a Date.
    """

    lines: bytes
    length: int | None
    stream: bool
    dated: bool


def answer_fields(headers: RawHeaders, *, reframed: bool = False) -> AnswerFields:
    """Write an agent's fields for the caller, byte for byte and in order, and note what framing needs to know.

    Raises:
        UpstreamFailure: `LOST` `bad_response` for anything that would change where the head ends, even though a parser
            has normally refused it already.
    """
    kinds = [_ANSWER_KINDS[name] for name, _ in headers]
    if reframed or max(kinds, default=_KEPT) >= _DROPPED:
        headers = _kept_of_answer(headers, kinds, reframed=reframed)
        kinds = [_ANSWER_KINDS[name] for name, _ in headers]
    written = _written(headers)
    length = headers[kinds.index(_LENGTH)][1].strip(b" \t") if _LENGTH in kinds else None
    if length is not None and (kinds.count(_LENGTH) > 1 or not _LENGTH_OF.fullmatch(length)):
        # Passed on with a framing of ours beside it, it would be an answer with two ends (RFC 9112 section 6.3).
        raise UpstreamFailure(Outcome.LOST, "bad_response", "the answer's Content-Length cannot be read")
    return AnswerFields(
        written,
        None if length is None else int(length),
        _TYPE in kinds and headers[kinds.index(_TYPE)][1].lower().startswith(b"text/event-stream"),
        _DATE in kinds,
    )


def _written(headers: RawHeaders) -> bytes:
    """The fields as they stand on the wire, each with its line end.

    Raises:
        UpstreamFailure: `LOST` `bad_response` for one that would be more or less than one line.
    """
    if not headers:
        return b""
    written = b"\r\n".join(map(b": ".join, headers)) + b"\r\n"
    if not written.count(b"\n") == written.count(b"\r") == len(headers) or b"\0" in written:
        raise UpstreamFailure(Outcome.LOST, "bad_response", "a field of the answer cannot be written as HTTP/1.1")
    return written


def request_lines(headers: RawHeaders) -> bytes:
    """Write end-to-end fields verbatim, each with its line end.

    Raises:
        UpstreamFailure: as `request_head`.
    """
    fault = max([_FAULTS[name] for name, _ in headers], default=0)
    if fault == _FRAMED:
        raise UpstreamFailure(Outcome.NOT_SENT, "bad_request", "a framing field among the end-to-end fields")
    lines = b"\r\n".join(map(b": ".join, headers)) + b"\r\n" if headers else b""
    if fault or not lines.count(b"\n") == lines.count(b"\r") == len(headers) or b"\0" in lines:
        raise UpstreamFailure(Outcome.NOT_SENT, "bad_request", "a field cannot be written as HTTP/1.1")
    return lines


def request_head(
    method: str, target: bytes, authority: str, headers: RawHeaders, body_length: int, *, lines: bytes | None = None
) -> bytes:
    """Write the head of an HTTP/1.1 request: the given fields verbatim, Host before and Content-Length after them.

    `lines` are the fields where they are written already (`request_lines`).

    Raises:
        UpstreamFailure: `NOT_SENT` `bad_request` for anything that would change where the head or the body ends
            (RFC 9112 section 11.2, request smuggling), even though a parser has normally refused it already.
    """
    fields = request_lines(headers) if lines is None else lines
    verb = method.encode("ascii", "replace")
    if not (_METHOD.fullmatch(verb) and _TARGET.fullmatch(target)):
        raise UpstreamFailure(Outcome.NOT_SENT, "bad_request", "method or target cannot be written as HTTP/1.1")
    host = authority.encode("ascii")
    if body_length or method in _METHODS_WITH_BODY:
        return b"%b %b HTTP/1.1\r\nHost: %b\r\n%bContent-Length: %d\r\n\r\n" % (verb, target, host, fields, body_length)
    return b"%b %b HTTP/1.1\r\nHost: %b\r\n%b\r\n" % (verb, target, host, fields)


def _options(value: bytes) -> AbstractSet[bytes]:
    if value in _HARMLESS_OPTIONS:
        return _NOTHING
    return {option.strip().lower() for option in value.split(b",")} - _HARMLESS_OPTIONS


def _named(headers: RawHeaders, kinds: list[int]) -> set[bytes]:
    """The fields that Connection makes hop-by-hop."""
    named: set[bytes] = set()
    if _OPTIONS in kinds:
        for at, kind in enumerate(kinds):
            if kind == _OPTIONS:
                named |= _options(headers[at][1])
    return named


def _without(kept: list[tuple[bytes, bytes]], named: set[bytes]) -> RawHeaders:
    if not named:
        return tuple(kept)
    return tuple(pair for pair in kept if pair[0].lower() not in named)
