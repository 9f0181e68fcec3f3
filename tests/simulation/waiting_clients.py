"""Clients in virtual time that see their answer as it comes, and may leave.

Owns: such a client, a call of its. Knows nothing of: what a test is about.
"""

import asyncio
import json
from collections.abc import Callable
from typing import Any

from aiohttp import ClientConnectionResetError
from simulation.world import ADMIN, World, clock, message

from proxy.web.arrived import Arrived, Fields
from proxy.web.places import split

CALL = "/workspaces/ws/a2a"


class Client:
    """A client whose answer is seen as it comes: `pieces` are (second, bytes)."""

    def __init__(self) -> None:
        self.on_gone: Callable[[], None] | None = None
        self.writing_paused = False
        self.remote = "127.0.0.1"
        self.pieces: list[tuple[float, bytes]] = []
        self.gone = False

    def write(self, data: bytes) -> None:
        if self.gone:
            raise ClientConnectionResetError("gone")
        self.pieces.append((clock(), bytes(data)))

    async def drain(self) -> None:
        """Never full."""

    def hang_up(self) -> None:
        """Nothing follows."""

    def leave(self) -> None:
        self.gone = True
        if self.on_gone is not None:
            self.on_gone()

    @property
    def said(self) -> bytes:
        return b"".join(data for _, data in self.pieces)

    @property
    def head(self) -> bytes:
        return self.said.partition(b"\r\n\r\n")[0]

    @property
    def body(self) -> bytes:
        """Without its chunks, if it has any."""
        rest = self.said.partition(b"\r\n\r\n")[2]
        if b"Transfer-Encoding: chunked" not in self.head:
            return rest
        body = b""
        while rest:
            size, _, rest = rest.partition(b"\r\n")
            body, rest = body + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
        return body

    @property
    def status(self) -> int:
        return int(self.head.split()[1])

    def header(self, name: str) -> str | None:
        found = [line for line in self.head.decode().split("\r\n") if line.lower().startswith(f"{name.lower()}:")]
        return found[0].partition(": ")[2] if found else None

    @property
    def events(self) -> list[tuple[str, Any]]:
        """The events of its stream so far: (id, what it says)."""
        found = []
        for block in self.body.split(b"\n\n")[:-1]:
            fields = dict(line.split(b": ", 1) for line in block.split(b"\n") if line and line[:1] != b":")
            if b"data" in fields:
                found.append((fields.get(b"id", b"").decode(), json.loads(fields[b"data"])))
        return found

    @property
    def comments(self) -> list[str]:
        """The comments in its stream so far."""
        return [line[2:].decode() for line in self.body.split(b"\n") if line.startswith(b": ")]

    @property
    def state(self) -> str:
        said = json.loads(self.body)
        task = said.get("result", said)
        return str(task.get("task", task)["status"]["state"])


def begin(
    world: World, body: bytes | None = None, tail: str = "", method: str = "POST", token: str = ADMIN, **headers: str
) -> tuple[Client, "asyncio.Task[bool]"]:
    """Send a message; the client sees its answer as it comes."""
    client = Client()
    body = message() if body is None else body
    fields = {"Host": "p", "Holdfast-Token": token, "Content-Type": "application/json", **headers}
    known = Fields(tuple((name.replace("_", "-").encode(), value.encode()) for name, value in fields.items()))
    arrived = Arrived(client, method=method, target=CALL + tail, headers=known, body=body)
    place = split(CALL + tail)
    assert place is not None
    return client, asyncio.create_task(world.app.server.serve(arrived, *place))
