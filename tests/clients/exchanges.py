"""Requests and answers as they go over the wire while an agent is away, with the seconds at which each part came.

Owns: which exchanges are shown, how they are written down.
Knows nothing of: SDKs. Nothing here is made up: what is shown is what came, but for the members `history` and for the
fields of `_HIDDEN`.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

from clients.stage import Stage
from differential.wire import Said
from matrix.hooks import Hooks

OUTAGE: Final = 7.0
WIDTH: Final = 112
"""Characters of a line of JSON, where its texts allow it."""
SHORTENED: Final = (
    "Not shown: the fields Host, Holdfast-Token, Content-Length, Date, Server and those of the connection."
)
_HIDDEN: Final = {
    *("host", "holdfast-token", "content-length", "date", "server", "transfer-encoding", "connection"),
    *("keep-alive", "accept", "user-agent", "x-accel-buffering", "vary"),
}
_VERSION: Final = (b"A2A-Version", b"1.0")
_JSON: Final = (b"Content-Type", b"application/json")


@dataclass
class Shown:
    """An exchange, written down as it happens. `pieces`: the answer's bytes, each with its second."""

    said: Said
    pieces: list[tuple[float, bytes]] = field(default_factory=list)
    head: bytes = b""

    @property
    def body(self) -> bytes:
        """All of the answer's body."""
        return b"".join(piece for _, piece in self.pieces)

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    def text(self) -> str:
        """As it stands on the page."""
        target = re.sub(r"^/workspaces/[^/]+/a2a", "/workspaces/demo/a2a", self.said.target)
        asked = [f"{self.said.method} {target} HTTP/1.1", *fields_of(self.said.fields)]
        body = ["", pretty(self.said.body)] if self.said.body else []
        status, *fields = self.head.decode("latin-1").split("\r\n")
        pairs = [tuple(field.partition(": ")[::2]) for field in fields if field]
        named = [f"{name}: {value}" for name, value in pairs if name.lower() not in _HIDDEN]
        return "\n".join([*asked, *body, "", status, *named, "", *self._story()])

    def _story(self) -> list[str]:
        if b"event-stream" in self.head:
            lines = [
                f"{second:6.1f} s  {shortened(line)}" if line else ""
                for second, piece in self.pieces
                for line in piece.decode().splitlines()
            ]
            return lines[:-1] if lines and not lines[-1] else lines
        blanks = [second for second, piece in self.pieces if not piece.strip()]
        lines = [f"{second:6.1f} s  (a blank)" for second in blanks]
        last = self.pieces[-1][0] if self.pieces else 0.0
        return [*lines, f"{last:6.1f} s  the rest:", pretty(self.body)]


def fields_of(fields: tuple[tuple[bytes, bytes], ...]) -> list[str]:
    """Fields as lines, but for the hidden."""
    return [f"{name.decode()}: {value.decode()}" for name, value in fields if name.decode().lower() not in _HIDDEN]


def pretty(body: bytes) -> str:
    """JSON over several lines, and on one where it fits; without the history, which its client knows already."""
    try:
        return laid_out(without_history(json.loads(body)))
    except ValueError:
        return body.decode("utf-8", "replace")


def laid_out(value: Any, indent: int = 0, label_length: int = 0) -> str:
    """JSON in lines of at most `WIDTH` characters, where its texts allow it."""
    short = json.dumps(value, ensure_ascii=False)
    if indent + label_length + len(short) <= WIDTH or not isinstance(value, dict | list) or not value:
        return short
    inner, names = indent + 2, list(value) if isinstance(value, dict) else [None] * len(value)
    lines = []
    for name, one in zip(names, value.values() if isinstance(value, dict) else value, strict=True):
        label = "" if name is None else f"{json.dumps(name)}: "
        lines.append(" " * inner + label + laid_out(one, inner, len(label)))
    opens, closes = "{}" if isinstance(value, dict) else "[]"
    return f"{opens}\n" + ",\n".join(lines) + "\n" + " " * indent + closes


def without_history(value: Any) -> Any:
    """The same without any `history`."""
    if isinstance(value, dict):
        return {name: without_history(inner) for name, inner in value.items() if name != "history"}
    return [without_history(inner) for inner in value] if isinstance(value, list) else value


def shortened(line: str) -> str:
    """An event's line, without the history."""
    name, colon, rest = line.partition(": ")
    return name + colon + json.dumps(without_history(json.loads(rest)), ensure_ascii=False) if name == "data" else line


async def exchange(stage: Stage, said: Said, shown: Shown | None = None, *, leave_after: int = 0) -> Shown:
    """Ask, and write down what comes; `leave_after` so many pieces the client goes away."""
    path = f"/workspaces/{stage.url.split('/')[4]}/a2a"
    said = said.at(path, (b"Holdfast-Token", stage.token.encode()), (b"Connection", b"close"))
    shown = shown or Shown(said)
    shown.said = said
    loop = asyncio.get_running_loop()
    reader, writer = await asyncio.open_connection("127.0.0.1", stage.serving.port, limit=1 << 20)
    began = loop.time()
    writer.write(said.head("holdfast.example") + said.framed())
    head = await reader.readuntil(b"\r\n\r\n")
    shown.head = head[:-4]
    try:
        async for piece in _pieces(reader, chunked=b"chunked" in head):
            shown.pieces.append((loop.time() - began, piece))
            if leave_after and len(shown.pieces) >= leave_after:
                break
    finally:
        writer.close()
    return shown


async def _pieces(reader: asyncio.StreamReader, *, chunked: bool) -> AsyncIterator[bytes]:
    if not chunked:
        body = await reader.read(-1)
        if body:
            yield body
        return
    while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
        yield (await reader.readexactly(size + 2))[:-2]


# What is shown


def rpc(method: str, params: dict[str, Any], *more: tuple[bytes, bytes], new: bool = True, number: Any = 1) -> Said:
    """A JSON-RPC request."""
    body = json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params}).encode()
    return Said(target="", fields=(_JSON, *((_VERSION,) if new else ()), *more), body=body)


def message(text: str, name: str, **more: Any) -> dict[str, Any]:
    """A message of v1.0."""
    return {"messageId": name, "role": "ROLE_USER", "parts": [{"text": text}], **more}


async def held(stage: Stage, hooks: Hooks) -> list[Shown]:
    """A message that waits, over JSON-RPC."""
    return [await exchange(stage, rpc("SendMessage", {"message": message("hello", "held")}))]


async def at_once(stage: Stage, hooks: Hooks) -> list[Shown]:
    """A message that does not wait, and GetTask."""
    configuration = {"returnImmediately": True}
    said = {"message": message("hello", "at-once"), "configuration": configuration}
    first = await exchange(stage, rpc("SendMessage", said))
    task = first.json["result"]["task"]["id"]
    then = await _until_done(stage, task)
    return [first, then]


async def _until_done(stage: Stage, task: str) -> Shown:
    while True:
        shown = await exchange(stage, rpc("GetTask", {"id": task}, number=2))
        if shown.json["result"]["status"]["state"] == "TASK_STATE_COMPLETED":
            return shown
        await asyncio.sleep(0.5)


async def streaming(stage: Stage, hooks: Hooks) -> list[Shown]:
    """A stream."""
    said = rpc("SendStreamingMessage", {"message": message("stream", "streaming")}, number="mine")
    return [await exchange(stage, said)]


async def resumed(stage: Stage, hooks: Hooks) -> list[Shown]:
    """A stream that its client lost, and takes up again."""
    said = rpc("SendStreamingMessage", {"message": message("stream", "resumed")})
    first = await exchange(stage, said, leave_after=2)
    event = next(line for line in first.body.decode().splitlines() if line.startswith("data:"))
    task = json.loads(event[5:])["result"]["task"]["id"]
    last = next(line[4:] for line in first.body.decode().splitlines() if line.startswith("id:"))
    again = rpc("SubscribeToTask", {"id": task}, (b"Last-Event-ID", last.encode()), number=2)
    return [first, await exchange(stage, again)]


async def canceled(stage: Stage, hooks: Hooks) -> list[Shown]:
    """A task that is canceled before its agent has seen it."""
    said = {"message": message("never", "canceled"), "configuration": {"returnImmediately": True}}
    first = await exchange(stage, rpc("SendMessage", said))
    task = first.json["result"]["task"]["id"]
    return [await exchange(stage, rpc("CancelTask", {"id": task}, number=2))]


async def notified(stage: Stage, hooks: Hooks) -> list[Shown]:
    """A message whose caller wants to be called."""
    config = {"url": f"{hooks.url}/notified", "token": "a-word-of-the-callers"}
    configuration = {"returnImmediately": True, "taskPushNotificationConfig": config}
    said = {"message": message("hello", "notified"), "configuration": configuration}
    return [await exchange(stage, rpc("SendMessage", said))]


async def old(stage: Stage, hooks: Hooks) -> list[Shown]:
    """A stream of v0.3."""
    said = {"kind": "message", "messageId": "old", "role": "user", "parts": [{"kind": "text", "text": "hello"}]}
    return [await exchange(stage, rpc("message/stream", {"message": said}, new=False))]


async def rest(stage: Stage, hooks: Hooks) -> list[Shown]:
    """A message that waits, over REST."""
    body = json.dumps({"message": message("hello", "rest")}).encode()
    return [await exchange(stage, Said(target="/message:send", fields=(_JSON, _VERSION), body=body))]


async def unknown(stage: Stage, hooks: Hooks) -> list[Shown]:
    """Something that cannot be put away, and that Holdfast does not know."""
    return [await exchange(stage, rpc("GetTask", {"id": "2b1f3f5e-0000-4000-8000-000000000001"}))]


EXCHANGES: Final[dict[str, Callable[[Stage, Hooks], Awaitable[list[Shown]]]]] = {
    "held": held,
    "at-once": at_once,
    "streaming": streaming,
    "resumed": resumed,
    "canceled": canceled,
    "old": old,
    "rest": rest,
    "unknown": unknown,
    "notified": notified,
}
"""By the name under which they stand on the page."""


async def through_an_outage(stage: Stage) -> dict[str, str]:
    """All of them at once, as text."""
    hooks = Hooks()
    await hooks.start()
    try:
        async with stage.outage(OUTAGE):
            shown = await asyncio.gather(*(show(stage, hooks) for show in EXCHANGES.values()))
        told = await hooks.until("notified", "completed")
    finally:
        await hooks.stop()
    texts = {
        name: "\n\n----\n\n".join(one.text() for one in found) for name, found in zip(EXCHANGES, shown, strict=True)
    }
    hidden = _HIDDEN | {"accept-encoding"}
    for one in told:
        fields = [f"{name}: {value}" for name, value in one.headers.items() if name not in hidden]
        body = pretty(json.dumps(one.body).encode())
        texts["notified"] += "\n\n----\n\n" + "\n".join(["POST /notified HTTP/1.1", *fields, "", body])
    return texts
