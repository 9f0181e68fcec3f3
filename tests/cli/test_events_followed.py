"""`holdfast events`: what is kept, what comes, and a stream that comes back after its proxy did."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiohttp import web
from cli.commandline import environment, program, ran
from cli.conftest import Holdfast
from web.harness import ADMIN_TOKEN, Handler, Harness

from proxy.cli import streaming
from proxy.cli.client import Failure, Place, connected
from proxy.cli.streaming import GAP, live

PATIENCE = 20


class Following:
    """`holdfast events --follow` as a process, read line by line."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def line(self) -> str:
        """The next line of standard output."""
        assert self.process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            return (await self.process.stdout.readline()).decode()

    async def told(self) -> str:
        """The next line of standard error."""
        assert self.process.stderr is not None
        async with asyncio.timeout(PATIENCE):
            return (await self.process.stderr.readline()).decode()


@pytest.fixture
async def follow(proxy: Harness) -> AsyncIterator[Callable[..., Any]]:
    started: list[asyncio.subprocess.Process] = []

    async def start(*words: str) -> Following:
        process = await asyncio.create_subprocess_exec(
            *program("events", "--follow", *words),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment({"HOLDFAST_URL": proxy.url, "HOLDFAST_ADMIN_TOKEN": ADMIN_TOKEN}),
        )
        started.append(process)
        return Following(process)

    yield start
    for process in started:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_what_is_kept_is_printed_and_filtered(holdfast: Holdfast, proxy: Harness) -> None:
    await proxy.enroll("a", delivery_mode="poll")
    await proxy.enroll("b", delivery_mode="poll")
    everything = [json.loads(line) for line in (await holdfast("events", "--json")).lines]
    assert [event["event"] for event in everything].count("workspace.created") == 2
    of_b = (await holdfast("events", "--workspace", "b", "--name", "workspace.created", "--json")).lines
    assert [json.loads(line)["workspace"] for line in of_b] == ["b"]
    after = await holdfast("events", "--since", everything[-2]["id"], "--json")
    assert [json.loads(line)["id"] for line in after.lines] == [everything[-1]["id"]]
    assert (await holdfast("events", "--since", everything[-1]["id"])).out == ""
    assert (await holdfast("events", "--level", "error")).out == ""
    assert "workspace.created" in (await holdfast("events", "--since", "oldest")).out


async def test_an_event_is_a_line_of_time_level_name_and_facts(holdfast: Holdfast, proxy: Harness) -> None:
    await proxy.enroll("a", delivery_mode="poll")
    (line,) = (await holdfast("events", "--name", "workspace.created")).lines
    assert line.split()[1:4] == ["info", "workspace.created", "a"]
    assert line.split()[0].endswith("Z")


async def test_a_place_that_is_not_known_is_told_with_the_way_on(holdfast: Holdfast) -> None:
    done = await holdfast("events", "--since", "5-5")
    assert (done.code, done.out) == (1, "")
    assert done.err.endswith("; `--since oldest` shows what is kept\n")
    follow = await holdfast("events", "--follow", "--since", "5-5", "--json")
    assert (follow.code, set(follow.json)) == (1, {"error", "oldest", "resume", "latest"})


@pytest.mark.parametrize(
    ("words", "complaint"),
    [(("--since", "x"), "two whole numbers and a hyphen"), (("--name", "verdcit"), "did you mean verdict?")],
)
async def test_what_cannot_be_asked_is_wrong_usage(words: tuple[str, ...], complaint: str, holdfast: Holdfast) -> None:
    done = await holdfast("events", *words)
    assert (done.code, complaint in done.err) == (2, True), done.err


async def test_following_shows_what_comes(follow: Callable[..., Any], proxy: Harness) -> None:
    followed = await follow("--since", "oldest", "--json")
    assert json.loads(await followed.line())["event"] == "proxy.started"
    await proxy.enroll("a", delivery_mode="poll")
    while json.loads(await followed.line())["event"] != "workspace.created":
        pass


async def test_ctrl_c_ends_it_quietly(follow: Callable[..., Any]) -> None:
    followed = await follow("--since", "oldest")
    await followed.line()
    followed.process.send_signal(2)
    _, told = await followed.process.communicate()
    assert (followed.process.returncode, told) == (130, b"")


# --- the stream, told by a server that breaks -------------------------------------------------------------------------


def said(number: int, name: str, **fields: Any) -> bytes:
    return f"id: 1-{number}\nevent: {name}\ndata: {json.dumps({'event': name, **fields})}\n\n".encode()


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A break is followed by a short pause."""
    monkeypatch.setattr(streaming, "FIRST_PAUSE", 0.01)


class Breaking:
    """A server of events that breaks off after what it is told to say; `asked` are the places it was asked for."""

    def __init__(self, *parts: bytes | int) -> None:
        self.parts = list(parts)
        self.asked: list[str | None] = []

    async def serve(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.headers.get("Last-Event-ID"))
        part = self.parts.pop(0)
        if isinstance(part, int):
            gone = {"error": "gone", "resume": "2-0", "oldest": "2-1", "latest": "2-0"}
            return web.json_response(gone if part == 410 else {"error": "no"}, status=part)
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"retry: 1000\nid: 1-0\n\n" + part)
        assert request.transport is not None
        request.transport.abort()
        return response


async def take(server: Breaking, url: str, count: int) -> tuple[list[str], list[str]]:
    """The first names of a stream, and what was told beside it."""
    told: list[str] = []
    names: list[str] = []
    async with connected(Place(url=url, token=None, token_from="", timeout=5)) as proxy:
        async for event in live(proxy, since=None, wanted={}, tell=told.append):
            names.append(event.name)
            if len(names) == count:
                break
    return names, told


async def test_a_stream_that_breaks_goes_on_where_it_was(someone: Callable[[Handler], Any]) -> None:
    server = Breaking(said(1, "a") + said(2, "b"), 503, said(3, "c"))
    names, told = await take(server, await someone(server.serve), 3)
    assert names == ["a", "b", "c"]
    assert server.asked == [None, "1-2", "1-2"]
    assert [sentence.endswith("coming back") for sentence in told] == [True, True]


async def test_a_new_life_of_the_proxy_is_told_and_read_from_its_beginning(
    someone: Callable[[Handler], Any],
) -> None:
    server = Breaking(said(1, "a"), 410, said(1, "b"))
    names, told = await take(server, await someone(server.serve), 2)
    assert (names, server.asked) == (["a", "b"], [None, "1-1", "2-0"])
    assert told[-1] == "the proxy began a new life; what it told between may be missing"


async def test_what_was_lost_is_counted(someone: Callable[[Handler], Any]) -> None:
    server = Breaking(said(1, "a") + said(7, GAP, missed=6), said(8, "b"))
    names, told = await take(server, await someone(server.serve), 2)
    assert (names, server.asked) == (["a", "b"], [None, "1-7"])
    assert told[0] == "6 events came faster than they were read; they are lost"


@pytest.mark.parametrize(("status", "code"), [(401, 5), (403, 5), (404, 4), (503, 1)])
async def test_a_first_refusal_ends_it(status: int, code: int, someone: Callable[[Handler], Any]) -> None:
    done = await ran("events", "--follow", HOLDFAST_URL=await someone(Breaking(status).serve))
    assert done.code == code


async def test_a_refusal_after_a_break_ends_it_where_asking_on_is_in_vain(
    someone: Callable[[Handler], Any],
) -> None:
    server = Breaking(said(1, "a"), 401)
    with pytest.raises(Failure) as failure:
        await take(server, await someone(server.serve), 2)
    assert failure.value.status == 401
