"""One request on the data path as it arrived, and the way back to whoever sent it.

Owns: what the data path needs of a request, whichever door read it: fields by name, the body, writing to the client.
Knows nothing of: HTTP syntax, what is done with a request, what an answer holds.

Two doors make these: `web.front` reads plain requests itself and has the body at hand; every other request comes
through aiohttp, whose stream is read when somebody wants the body.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any, Protocol
from urllib.parse import unquote

from aiohttp import hdrs, web
from aiohttp.http import HttpVersion11

from proxy.core.errors import CallerError
from proxy.core.tokens import Owner
from proxy.forward import RawHeaders
from proxy.forward.headers import end_to_end, request_lines
from proxy.web import bodies

MOST_DIGITS = 19
"""Of a Content-Length; its leading zeros, of which there may be any number, do not count."""

_CLIMBING = re.compile(r"[/\\]\.\.(?:[/\\;]|\Z)")
"""A dot segment that leads upwards (RFC 3986 section 5.2.4), also as servers read it that know backslashes, and
parameters of a segment."""


class Client(Protocol):
    """A client's connection as far as one call needs it. `on_gone` is called when the client leaves."""

    on_gone: Callable[[], None] | None

    def write(self, data: bytes) -> None:
        """Send bytes, now or as soon as the client takes them.

        Raises:
            ClientConnectionResetError: the client has left.
        """

    async def drain(self) -> None:
        """Wait until the client has taken enough to be sent more.

        Raises:
            ClientConnectionResetError: the client has left.
        """

    @property
    def writing_paused(self) -> bool:
        """The client does not keep up: `drain` before writing on."""

    def hang_up(self) -> None:
        """End the connection; what was written still leaves."""

    @property
    def remote(self) -> str | None:
        """The client's address."""


class Named(Protocol):
    """Header fields by name."""

    def getall(self, key: str, default: Sequence[str], /) -> Sequence[str]:
        """Every value of a field."""


class Asking(Protocol):
    """What must be known of a request to say whether it is let in, on every door; and a place for notes about it."""

    @property
    def headers(self) -> Named:
        """Its header fields."""

    @property
    def method(self) -> str:
        """Its method."""

    @property
    def path(self) -> str:
        """Its path, decoded."""

    @property
    def remote(self) -> str | None:
        """Its client's address."""

    def get(self, key: Any, default: Any, /) -> Any:
        """A note."""

    def __setitem__(self, key: Any, value: Any, /) -> None: ...


class Fields:
    """A request's header fields by name, in whatever case; bytes that are not UTF-8 survive as surrogates.

    `raw` is what stood on the wire. A kept connection's heads repeat: what was made of the fields is remembered here,
    and serves every request that has the same. `judged` is who they say calls, and which tokens there were then.
    `patient`: they set no limit to waiting. `profiled`: they name a profile.
    """

    __slots__ = ("_first", "_lines", "_onward", "judged", "patient", "profiled", "raw")

    def __init__(self, raw: RawHeaders) -> None:
        self.raw = raw
        self.judged: tuple[object, Owner | None] | None = None
        self._onward: RawHeaders | None = None
        self._lines: bytes | None = None
        self._first = first = {name.lower(): value for name, value in reversed(raw)}
        self.patient = not (b"prefer" in first or b"x-timeout" in first)
        self.profiled = b"holdfast-profile" in first

    @property
    def onward(self) -> RawHeaders:
        """Those that are meant for the agent (`end_to_end`)."""
        if self._onward is None:
            self._onward = end_to_end(self.raw)
        return self._onward

    @property
    def lines(self) -> bytes:
        """The same as they stand on the wire.

        Raises:
            UpstreamFailure: they cannot be written (`request_lines`).
        """
        if self._lines is None:
            self._lines = request_lines(self.onward)
        return self._lines

    @property
    def repeated(self) -> bool:
        """Some field is there more than once."""
        return len(self._first) != len(self.raw)

    def number(self, wanted: bytes) -> int:
        """How often a field is there; its name in lower case."""
        return sum(name.lower() == wanted for name, _ in self.raw)

    def first(self, name: bytes) -> str | None:
        """The first value of a field; its name in lower case."""
        value = self._first.get(name)
        return None if value is None else value.decode("utf-8", "surrogateescape")

    def getall(self, name: str, default: Sequence[str] = ()) -> Sequence[str]:
        """Every value of a field, in order."""
        wanted = name.lower().encode("ascii")
        value = self._first.get(wanted)
        if value is None:
            return default
        if not self.repeated:
            return [value.decode("utf-8", "surrogateescape")]
        return [value.decode("utf-8", "surrogateescape") for name, value in self.raw if name.lower() == wanted]


class Arrived:
    """A request on the data path.

    `target` is what its request line names, untouched; `headers` are its fields. `keep_alive` says whether the
    connection may serve another request afterwards, `chunks` whether its client understands chunked answers. `begun` is
    set by the first byte of an answer. `waited`: seconds until the agent began to answer, connecting included.
    """

    __slots__ = (
        "_body",
        "_client",
        "_notes",
        "_request",
        "begun",
        "chunks",
        "headers",
        "keep_alive",
        "method",
        "secure",
        "target",
        "waited",
    )

    def __init__(
        self,
        client: Client,
        *,
        method: str,
        target: str,
        headers: Fields,
        body: bytes | None = None,
        keep_alive: bool = True,
        chunks: bool = True,
        secure: bool = False,
        request: web.BaseRequest | None = None,
    ) -> None:
        self.method = method
        self.target = target
        self.headers = headers
        self.keep_alive = keep_alive
        self.chunks = chunks
        self.secure = secure
        self.begun = False
        self.waited = 0.0
        self._client = client
        self._body = body
        self._request = request
        self._notes: dict[Any, Any] | None = None

    @classmethod
    def through_aiohttp(cls, request: web.BaseRequest, client: Client) -> "Arrived":
        """A request that aiohttp has read the head of."""
        return cls(
            client,
            method=request.method,
            target=request.raw_path,
            headers=Fields(request.raw_headers),
            keep_alive=request.keep_alive,
            chunks=request.version >= HttpVersion11,
            secure=request.secure,
            request=request,
        )

    @property
    def client(self) -> Client:
        """The connection that it came on."""
        return self._client

    @property
    def origin(self) -> str:
        """Scheme and authority as the client wrote them; no authority is anything but ASCII (RFC 3986 section 3.2)."""
        host = self.headers.first(b"host")
        return f"{'https' if self.secure else 'http'}://{host if host and host.isascii() else 'localhost'}"

    # Who asks (see `Asking`)

    @property
    def path(self) -> str:
        """The path, decoded and without its query."""
        return unquote(self.target.partition("?")[0])

    @property
    def climbs(self) -> bool:
        """The path leads upwards somewhere: whoever resolves that ends elsewhere than we were asked for."""
        target = self.target  # most need no second look
        return (".." in target or "%" in target) and _CLIMBING.search(self.path) is not None

    @property
    def remote(self) -> str | None:
        """The client's address."""
        return self._client.remote

    def get(self, key: Any, default: Any = None) -> Any:
        """A note about the request."""
        return default if self._notes is None else self._notes.get(key, default)

    def __setitem__(self, key: Any, value: Any) -> None:
        if self._notes is None:
            self._notes = {}
        self._notes[key] = value

    # The body

    @property
    def at_hand(self) -> bytes | None:
        """The whole body, where it has been read; it is within the limit then."""
        return self._body

    async def body(self, limit: int) -> bytes:
        """The whole body; never truncated (scenario 38).

        Raises:
            CallerError: 413 for more than `limit` bytes, 400 for a body that did not arrive whole.
        """
        if self._body is None:
            self._body = await self._read(limit)
        return self._body

    async def _read(self, limit: int) -> bytes:
        request = self._request
        if request is None or not request.can_read_body:
            return b""
        codings = request.headers.getall(hdrs.TRANSFER_ENCODING, ())
        if any(coding.strip().lower() != "chunked" for coding in codings):
            raise CallerError("BROKEN_BODY", "the request body has a transfer coding that is not undone here")
        declared = (request.headers.get(hdrs.CONTENT_LENGTH) or "").strip().lstrip("0")
        if len(declared) > MOST_DIGITS or (declared and int(declared) > limit):
            raise too_large(limit)
        if self.chunks and request.headers.get(hdrs.EXPECT, "").lower() == "100-continue":
            self._client.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        parts: list[bytes] = []
        size = 0
        try:
            async for part in request.content.iter_any():
                size += len(part)
                if size > limit:
                    raise too_large(limit)
                parts.append(part)
        except bodies.BROKEN as problem:
            raise CallerError("BROKEN_BODY", "the request body did not arrive whole") from problem
        return b"".join(parts)

    # The way back

    def write(self, data: bytes) -> None:
        """Send a part of the answer.

        Raises:
            ClientConnectionResetError: the client has left.
        """
        self.begun = True
        self._client.write(data)

    @property
    def lags(self) -> bool:
        """The client does not keep up: `drain` before writing on."""
        return self._client.writing_paused

    async def drain(self) -> None:
        """See `Client.drain`."""
        await self._client.drain()

    def cut(self) -> None:
        """End the connection under an answer that cannot be completed, so that nobody takes it for whole."""
        self.keep_alive = False
        self._client.hang_up()


def too_large(limit: int) -> CallerError:
    """The answer to a body over the limit."""
    return CallerError(
        "BODY_TOO_LARGE", f"the request body is larger than {limit} bytes", status=413, facts={"max_bytes": limit}
    )
