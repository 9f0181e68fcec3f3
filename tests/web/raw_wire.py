"""A client that speaks HTTP byte for byte, over a connection of its own, to either of the proxy's two readers.

Owns: what a request looks like on the wire, reading one answer after another.
Knows nothing of: what a test is about.

`front`: a connection on which nothing was asked yet. `aiohttp`: one that aiohttp has taken over, because an
administrative request came on it.
"""

import asyncio
import json
from typing import Any

from web.harness import ADMIN_TOKEN, send

CALL = b"/workspaces/a/a2a"
DOORS = ["front", "aiohttp"]


class Wire:
    """A client's connection, byte for byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def answer(self) -> tuple[bytes, list[bytes], bytes]:
        """The next answer: status line, fields, body."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        status, *fields = head.rstrip(b"\r\n").split(b"\r\n")
        length = [int(field.partition(b":")[2]) for field in fields if field.lower().startswith(b"content-length:")]
        if length:
            return status, fields, await self.reader.readexactly(length[0])
        if b"Transfer-Encoding: chunked" not in fields:
            return status, fields, b""
        body = b""
        while size := int((await self.reader.readuntil(b"\r\n")).split(b";")[0], 16):
            body += (await self.reader.readexactly(size + 2))[:-2]
        await self.reader.readexactly(2)
        return status, fields, body

    async def ask(self, *fields: bytes, **more: Any) -> tuple[bytes, list[bytes], bytes]:
        """One request and its answer."""
        self.writer.write(request(*fields, **more))
        return await self.answer()


def request(
    *fields: bytes, line: bytes = b"POST " + CALL + b" HTTP/1.1", body: bytes | None = None, token: str = ADMIN_TOKEN
) -> bytes:
    """A request as it goes over the wire; a send unless something else is said."""
    body = json.dumps(send()).encode() if body is None else body
    own = [b"Host: proxy", b"Authorization: Bearer " + token.encode(), b"Content-Length: %d" % len(body)]
    return b"\r\n".join([line, *own, *fields, b"", body])
