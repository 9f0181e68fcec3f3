"""One request as bytes on a connection of its own, and the answer as bytes: nothing on the way tidies either.

Owns: how a case's request is framed, how an answer is read.
Knows nothing of: A2A, what an answer should be.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

PATIENCE: Final = 20.0
Fields = tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """A request. `framing`: `length`, `chunked`, `expect` (the body after a 100), `none` (neither body nor length)."""

    method: str = "POST"
    target: str = "/"
    fields: Fields = ()
    body: bytes = b""
    framing: str = "length"
    http: str = "1.1"

    def at(self, prefix: str, *more: tuple[bytes, bytes]) -> "Said":
        """The same request below a prefix, with further fields."""
        return replace(self, target=prefix + self.target, fields=(*more, *self.fields))

    def head(self, host: str) -> bytes:
        """Its head."""
        lines = [f"{self.method} {self.target} HTTP/{self.http}".encode("latin-1"), b"Host: " + host.encode()]
        lines += [b": ".join(field) for field in self.fields]
        if self.framing == "chunked":
            lines.append(b"Transfer-Encoding: chunked")
        elif self.framing != "none":
            lines.append(b"Content-Length: %d" % len(self.body))
        if self.framing == "expect":
            lines.append(b"Expect: 100-continue")
        return b"\r\n".join(lines) + b"\r\n\r\n"

    def framed(self) -> bytes:
        """Its body, as it is framed: in chunks of odd sizes."""
        if self.framing != "chunked":
            return self.body
        sizes, at, pieces = (1, 7, 64, 1000, 60_000), 0, list[bytes]()
        while at < len(self.body):
            piece = self.body[at : at + sizes[len(pieces) % len(sizes)]]
            pieces.append(b"%x\r\n%b\r\n" % (len(piece), piece))
            at += len(piece)
        return b"".join(pieces) + b"0\r\n\r\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """An answer. `whole`: it ended as its framing promised. `interim`: statuses of the answers before it."""

    status: int
    reason: bytes
    fields: Fields
    body: bytes
    whole: bool
    interim: tuple[int, ...]

    def first(self, name: bytes) -> bytes | None:
        """The first field of that name, in lower case."""
        return next((value for known, value in self.fields if known.lower() == name), None)


async def ask(port: int, said: Said, begun: Callable[[], None] | None = None) -> Heard:
    """Ask; `begun` is called when the answer's head has come."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    try:
        async with asyncio.timeout(PATIENCE):
            writer.write(said.head(f"127.0.0.1:{port}"))
            if said.framing != "expect":
                writer.write(said.framed())
            return await _answer(reader, writer, said, begun or _nothing)
    finally:
        writer.close()


def _nothing() -> None:
    pass


async def _answer(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, said: Said, begun: Callable[[], None]
) -> Heard:
    interim: list[int] = []
    while True:
        status, reason, fields = await _head(reader)
        if status >= 200:
            break
        interim.append(status)
        if status == 100 and said.framing == "expect":
            writer.write(said.body)
    begun()
    named = {name.lower(): value for name, value in fields}
    body, whole = b"", True
    if said.method != "HEAD" and status not in {204, 304}:
        pieces: list[bytes] = []
        whole = await _body(reader, named, pieces)
        body = b"".join(pieces)
    return Heard(status=status, reason=reason, fields=fields, body=body, whole=whole, interim=tuple(interim))


async def _head(reader: asyncio.StreamReader) -> tuple[int, bytes, Fields]:
    head = await reader.readuntil(b"\r\n\r\n")
    line, *lines = head[:-4].split(b"\r\n")
    _, status, reason = line.split(b" ", 2)
    pairs = (field.partition(b":") for field in lines)
    return int(status), reason, tuple((name, value.strip(b" \t")) for name, _, value in pairs)


async def _body(reader: asyncio.StreamReader, named: dict[bytes, bytes], pieces: list[bytes]) -> bool:
    """Read a body into `pieces`; whether it ended as promised."""
    try:
        if named.get(b"transfer-encoding", b"").lower() == b"chunked":
            while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
                pieces.append((await reader.readexactly(size + 2))[:-2])
            await reader.readuntil(b"\r\n")
        elif b"content-length" in named:
            pieces.append(await reader.readexactly(int(named[b"content-length"])))
        else:
            while piece := await reader.read(65536):
                pieces.append(piece)
    except asyncio.IncompleteReadError as short:
        pieces.append(short.partial)
        return False
    return True
