"""An agent's answer as its client gets it: status line, reason phrase and header fields as they came, byte for byte.

Owns: how such an answer is framed for the client, and what this hop adds to its head.
Knows nothing of: where the answer comes from, what happens when it breaks.

aiohttp's response class is made for answers that a program makes up: it decodes and encodes every field, adds what is
missing and sends the head apart from the body. An answer that is passed on is written here instead, as bytes. Added to
its head are `Holdfast-Request-Id`, what is left of the caller's rate where that is counted, a `Date` where there is
none (RFC 9110 section 6.6.1), and what this connection needs: `Transfer-Encoding`, `Content-Length`, `Connection`.
"""

from collections.abc import Mapping

from aiohttp import web
from aiohttp.helpers import rfc822_formatted_time

from proxy.forward.headers import AnswerFields
from proxy.web.answers import FRAMING, LIMITS, REQUEST_ID
from proxy.web.arrived import Arrived
from proxy.web.quiet_streams import QuietStream

BODILESS = frozenset({204, 304})
JOINED_BELOW = 65536
"""Bytes of a body up to which it is copied behind its head, so that both leave in one system call."""


class Whole:
    """An answer that is at hand as a whole."""

    __slots__ = ("body", "fields", "reason", "request_id", "status")

    def __init__(self, *, status: int, reason: bytes, fields: AnswerFields, request_id: str, body: bytes) -> None:
        self.status = status
        self.reason = reason
        self.fields = fields
        self.request_id = request_id
        self.body = body

    def send(self, arrived: Arrived) -> None:
        """Send it.

        Raises:
            ClientConnectionResetError: the client has left.
        """
        head = _head(arrived, self.status, self.reason, self.fields, self.request_id)
        body = self.body
        if _bodiless(arrived, self.status):
            arrived.write(head + b"\r\n")
        elif self.fields.length is not None:
            _write_both(arrived, head + b"\r\n", body)
        else:
            _write_both(arrived, b"%bContent-Length: %d\r\n\r\n" % (head, len(body)), body)


class InParts:
    """An answer that is sent as it comes. `begun`: its head has left. `quiet` looks after an event stream's silence."""

    __slots__ = ("_arrived", "_chunked", "begun", "fields", "quiet", "reason", "request_id", "status")

    def __init__(self, arrived: Arrived, *, status: int, reason: bytes, fields: AnswerFields, request_id: str) -> None:
        self.begun = False
        self.quiet: QuietStream | None = None
        self.status = status
        self.reason = reason
        self.fields = fields
        self.request_id = request_id
        self._arrived = arrived
        self._chunked = False

    def begin(self) -> None:
        """Send the head, once.

        Raises:
            ClientConnectionResetError: the client has left.
        """
        if self.begun:
            return
        arrived = self._arrived
        framed = self.fields.length is not None or _bodiless(arrived, self.status)
        self._chunked = arrived.chunks and not framed
        if not framed and not arrived.chunks:
            arrived.keep_alive = False  # an HTTP/1.0 client: the body ends with the connection
        head = _head(arrived, self.status, self.reason, self.fields, self.request_id)
        self.begun = True
        arrived.write(head + (b"Transfer-Encoding: chunked\r\n\r\n" if self._chunked else b"\r\n"))

    def write(self, data: bytes) -> None:
        """Send a part of the body; whoever sends many looks whether the client keeps up (`Arrived.lags`).

        Raises:
            ClientConnectionResetError: the client has left.
        """
        self.begin()
        if data:
            self._arrived.write(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)

    def end(self) -> None:
        """Send the body's end.

        Raises:
            ClientConnectionResetError: the client has left.
        """
        self.begin()
        if self._chunked:
            self._arrived.write(b"0\r\n\r\n")


class OwnInParts(InParts):
    """An answer of Holdfast's own that is sent in parts, with the status and the fields of `response`."""

    __slots__ = ()

    def __init__(self, arrived: Arrived, response: web.Response) -> None:
        fields = [f"{name}: {value}" for name, value in response.headers.items() if name not in FRAMING]
        fields.append("Server: Holdfast")
        super().__init__(
            arrived,
            status=response.status,
            reason=response.reason.encode("ascii"),
            fields=AnswerFields(
                "".join(f"{field}\r\n" for field in fields if not field.startswith(REQUEST_ID)).encode(),
                length=None,
                stream=False,
                dated=False,
            ),
            request_id=response.headers[REQUEST_ID],
        )


PassedOn = Whole | InParts
"""What was, or is to be, passed on of an agent's answer."""

Reply = web.StreamResponse | PassedOn
"""What a request on the data path gets: Holdfast's own answer, or its agent's."""


def _bodiless(arrived: Arrived, status: int) -> bool:
    return status in BODILESS or arrived.method == "HEAD"


def _write_both(arrived: Arrived, head: bytes, body: bytes) -> None:
    if len(body) <= JOINED_BELOW:
        arrived.write(head + body)
    else:
        arrived.write(head)
        arrived.write(body)


def _head(arrived: Arrived, status: int, reason: bytes, fields: AnswerFields, request_id: str) -> bytes:
    """Everything but the framing and the empty line."""
    added = b"" if fields.dated else b"Date: %b\r\n" % rfc822_formatted_time().encode("ascii")
    if not arrived.keep_alive:
        added += b"Connection: close\r\n"
    elif not arrived.chunks:
        added += b"Connection: keep-alive\r\n"
    limits: Mapping[str, str] | None = arrived.get(LIMITS)
    if limits and not any(f"{name}:".lower().encode("ascii") in fields.lines.lower() for name in limits):
        added += "".join(f"{name}: {value}\r\n" for name, value in limits.items()).encode("ascii")
    return b"HTTP/1.1 %d %b\r\n%bHoldfast-Request-Id: %b\r\n%b" % (
        status,
        reason,
        fields.lines,
        request_id.encode("ascii"),
        added,
    )
