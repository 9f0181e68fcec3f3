"""What the test agents of both SDK generations share: the stories they tell, their gates, their process.

Owns: what a text makes an agent do, told in neither SDK's types; ids and times that are the same in every run; routes
that are no A2A; the process's life.
Knows nothing of: either SDK, proxies. It runs in environments in which nothing of this checkout is installed.

| text              | what the agent does                                                                    |
| ----------------- | -------------------------------------------------------------------------------------- |
| `stream [GATE]`   | a working task, two pieces of an artifact, completed; before the second it waits        |
| `slow [GATE]`     | a working task, waits, an artifact, completed                                          |
| `late [GATE]`     | waits before it says anything at all                                                   |
| `ask`, `auth`     | a task that wants input, or credentials; a message to that task completes it           |
| `fail`, `reject`  | a task that ends like this, with a word of explanation                                 |
| `message`         | a message, and no task                                                                 |
| `data`            | a task with data, metadata and a file, in which words stand that look like task ids    |
| `big N`           | a task with an artifact of N characters                                                |
| `raise`           | the executor raises                                                                    |
| anything else     | a completed task with the artifact `echo: TEXT`                                        |

A gate is open when the file `FOLDER/gates/GATE` exists. `FOLDER/executed.jsonl` tells what was begun, in order.
"""

import argparse
import asyncio
import base64
import json
import os
import socket
import sys
import uuid
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse

TIME = "2026-01-02T03:04:05.000006+00:00"
"""The time of every status."""

LOST = "the agent was restarted while it worked on this"
"""What an agent says of a task that its former life was working on."""

Step = tuple[str, Any]
"""`("task", state)`, `("status", (state, words))`, `("artifact", (id, text, append, last))`, `("message", text)`,
`("gate", name)`, `("data", None)`, `("raise", words)`."""


def story(text: str, *, going_on: bool) -> list[Step]:
    """What an agent does when it is told this; `going_on`: the message is for a task that there is already."""
    word, _, rest = text.partition(" ")
    echo = ("artifact", ("answer", f"echo: {text}", False, True))
    if going_on:
        return [echo, ("status", ("completed", ""))]
    gate = [("gate", rest)] if rest else []
    pieces = [("artifact", ("a", f"piece {number}", number > 1, number > 1)) for number in (1, 2)]
    stories: dict[str, list[Step]] = {
        "stream": [("task", "working"), pieces[0], *gate, pieces[1], ("status", ("completed", ""))],
        "slow": [("task", "working"), *gate, echo, ("status", ("completed", ""))],
        "late": [*gate, ("task", "working"), echo, ("status", ("completed", ""))],
        "ask": [("task", "working"), ("status", ("input-required", "which colour?"))],
        "auth": [("task", "working"), ("status", ("auth-required", "who are you?"))],
        "fail": [("task", "working"), ("status", ("failed", "it went wrong"))],
        "reject": [("task", "submitted"), ("status", ("rejected", "not this"))],
        "message": [("message", f"said: {rest}")],
        "data": [("task", "working"), ("data", None), ("status", ("completed", ""))],
        "raise": [("raise", rest or "the executor raises")],
    }
    if word == "big":
        return [
            ("task", "working"),
            ("artifact", ("answer", "x" * int(rest), False, True)),
            ("status", ("completed", "")),
        ]
    return stories.get(word, [("task", "working"), echo, ("status", ("completed", ""))])


def lookalikes(task_id: str, context_id: str) -> list[dict[str, Any]]:
    """Data in which ids stand that are none of the protocol's. One member each: protobuf does not keep their order."""
    return [{"taskId": task_id}, {"id": {"contextId": context_id}}, {"list": [1, 2.5, None, True, "été \u2028"]}]


class Place:
    """The folder of one agent, over all its lives. `extended`: it has an extended card, too."""

    def __init__(self, folder: Path, *, extended: bool) -> None:
        self.folder = folder
        self.extended = extended
        for name in ("gates", "tasks"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        lives = folder / "lives"
        with lives.open("a", encoding="ascii") as told:
            told.write(".")
        self.life = lives.stat().st_size

    async def gate(self, name: str) -> None:
        """Wait until a gate is open."""
        while not (self.folder / "gates" / name).exists():  # noqa: ASYNC110 - the file is another process's
            await asyncio.sleep(0.02)

    def begun(self, **facts: Any) -> None:
        """Note what was begun."""
        with (self.folder / "executed.jsonl").open("a", encoding="utf-8") as told:
            told.write(json.dumps({"life": self.life, **facts}) + "\n")

    def keep(self, task_id: str, task: str) -> None:
        """Keep a task over this life."""
        path = self.folder / "tasks" / f"{task_id}.json"
        path.with_suffix(".new").write_text(task, encoding="utf-8")
        path.with_suffix(".new").replace(path)

    def kept(self) -> Iterator[str]:
        """The tasks that former lives kept."""
        for path in sorted((self.folder / "tasks").glob("*.json")):
            yield path.read_text(encoding="utf-8")


def same_ids(life: int) -> None:
    """Let this process's ids be the same in every run."""
    numbers = count(1)
    uuid.uuid4 = lambda: uuid.UUID(int=(life << 96) | next(numbers), version=4)  # noqa: TID251 - the SDKs mint with it


# Routes that are no A2A: what a proxy must carry all the same.


async def mirror(request: Request) -> Response:
    """What arrived, as JSON."""
    body = await request.body()
    facts = {
        "method": request.method,
        "target": [request.scope["raw_path"].decode("latin-1"), request.scope["query_string"].decode("latin-1")],
        "headers": [[name.decode("latin-1"), value.decode("latin-1")] for name, value in request.headers.raw],
        "body": base64.b64encode(body).decode("ascii"),
    }
    return Response(json.dumps(facts), media_type="application/json")


async def odd(request: Request) -> Response:
    """Answers that are unusual, by name; a number is a status."""
    name = request.path_params["name"]
    if name.isdigit():
        return Response(b"" if name in {"204", "304"} else f"status {name}".encode(), status_code=int(name))
    if name == "parts":
        return StreamingResponse((part async for part in _parts()), media_type="text/plain; charset=utf-8")
    if name == "long":
        return Response(b"z" * 3_000_000, media_type="application/octet-stream")
    answer = PlainTextResponse(name, status_code=200 if name in ODD_FIELDS else 404)
    answer.raw_headers += ODD_FIELDS.get(name, [])
    return answer


ODD_FIELDS = {
    "cookies": [(b"set-cookie", b"a=1; Path=/"), (b"set-cookie", b"b=2; Path=/")],
    "case": [(b"X-OdD-cASe", b"V"), (b"x-latin", b"caf\xe9"), (b"x-empty", b""), (b"X-Same", b"1"), (b"x-same", b"2")],
    "named": [(b"holdfast-verdict", b"alive; rule=mine"), (b"x-stays", b"1")],
    "dated": [(b"etag", b'"abc"'), (b"cache-control", b"max-age=9"), (b"age", b"3"), (b"vary", b"*")],
    "header": [(b"x-long", b"h" * 20_000)],
}


async def _parts() -> Any:
    for number in range(5):
        yield f"part {number}\n" * 10


def serve(make: Callable[[Place, str], Starlette]) -> None:
    """Run an agent: `PROGRAM --port PORT --folder FOLDER [--no-extended-card]`.

    "serving" on standard output says that it listens.
    """
    options = argparse.ArgumentParser()
    options.add_argument("--port", type=int, required=True)
    options.add_argument("--folder", type=Path, required=True)
    options.add_argument("--no-extended-card", action="store_true")
    chosen = options.parse_args()
    place = Place(chosen.folder, extended=not chosen.no_extended_card)
    same_ids(place.life)
    app = make(place, f"http://127.0.0.1:{chosen.port}")
    app.add_route("/mirror", mirror, methods=["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD"])
    app.add_route("/mirror/{rest:path}", mirror, methods=["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
    app.add_route("/odd/{name}", odd, methods=["GET", "POST"])
    app.router.routes.sort(key=lambda route: not getattr(route, "path", "").startswith(("/mirror", "/odd")))
    listening = socket.create_server(("127.0.0.1", chosen.port), backlog=128)
    config = uvicorn.Config(
        GZipMiddleware(app, minimum_size=1000),
        log_level="error",
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)

    async def run() -> None:
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        while not server.started and not serving.done():  # noqa: ASYNC110 - uvicorn has nothing to wait for
            await asyncio.sleep(0.005)
        sys.stdout.write("serving\n")
        sys.stdout.flush()
        await serving

    asyncio.run(run())
    os._exit(0)  # whatever still waits at a gate
