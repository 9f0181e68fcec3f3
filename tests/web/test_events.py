"""The live stream: what is told, in which form, to whom; places that are found again, and places that are not."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
from web.harness import ADMIN_TOKEN, Harness, ScriptedAgent

from proxy.telemetry import EventName

Make = Callable[..., Awaitable[Harness]]


@dataclass
class Block:
    """One block of a stream, its fields by name; a comment is the field with the empty name."""

    fields: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.fields.get("event", "")

    @property
    def data(self) -> dict[str, Any]:
        return json.loads(self.fields["data"])


async def blocks(answer: aiohttp.ClientResponse) -> AsyncIterator[Block]:
    block = Block()
    async for line in answer.content:
        text = line.decode().rstrip("\n")
        if text:
            name, _, value = text.partition(":")
            assert name not in block.fields, "a field stands once in a block"
            block.fields[name] = value.removeprefix(" ")
        elif block.fields:
            yield block
            block = Block()


class Stream:
    """A reader of `GET /events`."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self.answer = answer
        self._blocks = blocks(answer)

    async def block(self) -> Block:
        async with asyncio.timeout(10):
            return await anext(self._blocks)

    async def event(self, name: str = "") -> Block:
        """The next event; of that name, where one is given."""
        while True:
            block = await self.block()
            if block.name and (not name or block.name == name):
                return block

    async def rest(self) -> list[Block]:
        async with asyncio.timeout(10):
            return [block async for block in self._blocks]


@asynccontextmanager
async def reading(proxy: Harness, query: str = "", token: str = ADMIN_TOKEN, **headers: str) -> AsyncIterator[Stream]:
    fields = {"Authorization": f"Bearer {token}", **{name.replace("_", "-"): value for name, value in headers.items()}}
    async with proxy.session.get(f"{proxy.url}/events{query}", headers=fields) as answer:
        assert answer.status == 200, await answer.read()
        yield Stream(answer)


def tell(proxy: Harness, text: str, workspace: str | None = None) -> None:
    proxy.app.telemetry.emit(EventName.CONFIG_WARNING, workspace=workspace, fields={"warning": text})


async def refused(proxy: Harness, query: str = "", **headers: str) -> tuple[int, dict[str, Any]]:
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    async with asyncio.timeout(10):  # a stream that begins all the same has no end
        got, body = await proxy.call("GET", f"/events{query}", headers=fields)
    return got.status, json.loads(body)


# Form


async def test_an_event_comes_with_an_id_a_name_and_what_it_says(proxy: Harness) -> None:
    async with reading(proxy) as stream:
        assert stream.answer.headers["Content-Type"] == "text/event-stream"
        assert stream.answer.headers["Cache-Control"] == "no-store"
        first = await stream.block()
        assert first.fields == {"retry": "1000", "id": proxy.app.ring.latest}
        await proxy.enroll("a", url="http://127.0.0.1:1")
        created = await stream.event("workspace.created")
        assert created.fields["id"] == proxy.app.ring.latest
        assert created.data["event"] == "workspace.created"
        assert created.data["workspace"] == "a"
        assert created.data["level"] == "info"
        assert created.data["at"].endswith("Z")


async def test_a_stream_without_a_place_begins_now(proxy: Harness) -> None:
    tell(proxy, "before")
    async with reading(proxy) as stream:
        await stream.block()
        tell(proxy, "after")
        assert (await stream.event()).data["warning"] == "after"


async def test_silence_is_broken_by_a_comment_that_moves_the_reader_on(make: Make) -> None:
    proxy = await make(events__keep_alive=0.05)
    async with reading(proxy, "?workspace=nobody") as stream:
        await stream.block()
        tell(proxy, "not for this reader")
        alive = await stream.block()
        while alive.fields["id"] != proxy.app.ring.latest:
            alive = await stream.block()
        assert alive.fields == {"": "keep-alive", "id": proxy.app.ring.latest}


async def test_a_line_break_in_what_is_told_does_not_end_the_event(proxy: Harness) -> None:
    async with reading(proxy) as stream:
        tell(proxy, "one\n\ndata: two\r\nid: 9\u2028")
        assert (await stream.event()).data["warning"] == "one\n\ndata: two\r\nid: 9\u2028"


async def test_secrets_are_masked(proxy: Harness) -> None:
    async with reading(proxy) as stream:
        tell(proxy, f"saw {ADMIN_TOKEN} at http://user:secret@host/")
        assert (await stream.event()).data["warning"] == "saw hf_*** at http://***@host/"


# Places


async def test_a_reader_goes_on_after_its_place_and_misses_nothing(proxy: Harness) -> None:
    async with reading(proxy) as stream:
        tell(proxy, "one")
        place = (await stream.event()).fields["id"]
    tell(proxy, "two")
    tell(proxy, "three")
    for query, headers in (("", {"Last_Event_ID": place}), (f"?last_event_id={place}", {})):
        async with reading(proxy, query, **headers) as stream:
            assert [(await stream.event()).data["warning"] for _ in range(2)] == ["two", "three"]
            tell(proxy, "live")
            assert (await stream.event()).data["warning"] == "live"
            tell(proxy, "two")
            tell(proxy, "three")
            place = proxy.app.ring.name(proxy.app.ring.number(proxy.app.ring.latest) - 2)


async def test_the_header_is_newer_than_the_place_in_the_url(proxy: Harness) -> None:
    async with reading(proxy) as stream:
        tell(proxy, "one")
        old = (await stream.event()).fields["id"]
        tell(proxy, "two")
        new = (await stream.event()).fields["id"]
    tell(proxy, "three")
    async with reading(proxy, f"?last_event_id={old}", Last_Event_ID=new) as stream:
        assert (await stream.event()).data["warning"] == "three"


async def test_scenario_54_a_place_older_than_what_is_kept_is_410_with_the_oldest_id(make: Make) -> None:
    proxy = await make(events__rows=3)
    async with reading(proxy) as stream:
        tell(proxy, "0")
        place = (await stream.event()).fields["id"]
    for number in range(1, 5):
        tell(proxy, str(number))
    status, said = await refused(proxy, Last_Event_ID=place)
    assert status == 410
    assert said["error"]
    async with reading(proxy, Last_Event_ID=said["resume"]) as stream:
        kept = [await stream.event() for _ in range(3)]
        assert kept[0].fields["id"] == said["oldest"]
        assert [block.data["warning"] for block in kept] == ["2", "3", "4"]


async def test_scenario_54_the_oldest_known_place_is_the_one_just_before_what_is_kept(make: Make) -> None:
    proxy = await make(events__rows=3)
    ring = proxy.app.ring
    for number in range(9):
        tell(proxy, str(number))
    last = ring.number(ring.latest)
    assert last is not None
    status, said = await refused(proxy, Last_Event_ID=ring.name(last - 4))
    assert (status, said["oldest"]) == (410, ring.name(last - 2))
    async with reading(proxy, Last_Event_ID=ring.name(last - 3)) as stream:
        assert (await stream.event()).data["warning"] == "6"
    status, _ = await refused(proxy, Last_Event_ID=ring.name(last + 1))
    assert status == 410, "an id that was never given to anybody"


async def test_scenario_54_a_place_of_an_earlier_life_is_410_too(proxy: Harness) -> None:
    place = proxy.app.ring.name(1)
    await proxy.restart()
    assert proxy.app.ring.number(proxy.app.ring.name(1)) == 1, "the same number means another event now"
    status, said = await refused(proxy, Last_Event_ID=place)
    assert (status, said["oldest"]) == (410, proxy.app.ring.oldest)
    async with reading(proxy, Last_Event_ID=said["resume"]) as stream:
        assert (await stream.event()).name == "proxy.started"


@pytest.mark.parametrize("place", ["x", "1", "1-", "-1", "1-2-3", "1-2x", " 1-2 x", "\u0663-\u0661", "9" * 30 + "-1"])
async def test_a_malformed_place_is_400(proxy: Harness, place: str) -> None:
    got, body = await proxy.call("GET", "/events", params={"last_event_id": place})
    assert (got.status, list(json.loads(body))) == (400, ["error"])


# Filters


async def test_a_reader_gets_what_it_asks_for(proxy: Harness) -> None:
    async with (
        reading(proxy, "?workspace=a") as one,
        reading(proxy, "?name=workspace.created,workspace.deleted") as named,
        reading(proxy, "?level=warning&workspace=b") as loud,
    ):
        tell(proxy, "of b", workspace="b")
        await proxy.enroll("a", url="http://127.0.0.1:1")
        await proxy.call("DELETE", "/workspaces/a")
        assert (await one.event()).data["workspace"] == "a"
        assert [(await named.event()).name for _ in range(2)] == ["workspace.created", "workspace.deleted"]
        assert (await loud.event()).data["warning"] == "of b"


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("?name=nothing.happened", "there is no event of that name"),
        ("?level=loud", "level is one of debug, info, warning, error"),
        ("?level=INFO", "level is one of debug, info, warning, error"),
        ("?level=debug", "events below info are not streamed: see events.level"),
        ("?name=deferral.leased", "deferral.leased: not streamed, see the setting events.level"),
        ("?workspaces=a", "there is no parameter 'workspaces'"),
    ],
)
async def test_a_filter_that_cannot_be_is_400(proxy: Harness, query: str, why: str) -> None:
    assert await refused(proxy, query) == (400, {"error": why})


async def test_debug_is_streamed_where_the_setting_says_so(make: Make, agent: ScriptedAgent) -> None:
    proxy = await make(events__level="debug")
    await proxy.enroll("a", url=agent.url)
    async with reading(proxy, "?level=debug&name=request.forwarded") as stream:
        await proxy.send("a", await proxy.client())
        assert (await stream.event()).data["workspace"] == "a"


# Who, how many, how slow


async def test_only_the_admin_and_readers_are_told(proxy: Harness) -> None:
    await proxy.enroll("a", url="http://127.0.0.1:1")
    _, made = await proxy.call("POST", "/tokens", json={"kind": "read", "name": "r"})
    async with reading(proxy, token=json.loads(made)["token"]) as stream:
        await stream.block()
    got, _ = await proxy.call("GET", "/events", token=await proxy.client())
    assert got.status == 403
    got, _ = await proxy.call("GET", "/events", token=None)
    assert got.status == 401
    got, _ = await proxy.call("HEAD", "/events")
    assert got.status == 405


async def test_one_reader_too_many_is_503_until_one_leaves(make: Make) -> None:
    proxy = await make(events__readers=1)
    async with reading(proxy) as stream:
        await stream.block()
        got, body = await proxy.call("GET", "/events")
        assert got.status == 503
        assert got.headers["Retry-After"] == "5"
        assert json.loads(body) == {
            "error": "the event stream has no room for another reader",
            "retry_after": 5,
        }
        stream.answer.close()
    async with asyncio.timeout(10):
        while len(proxy.app.ring):  # noqa: ASYNC110 - nothing tells that a reader has left; each turn looks
            await asyncio.sleep(0)
    async with reading(proxy) as stream:
        await stream.block()


async def lazy_reader(proxy: Harness) -> socket.socket:
    """A reader that takes the head of its answer and then nothing; its window is as small as the kernel allows."""
    loop = asyncio.get_running_loop()
    reader = socket.socket()
    reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
    reader.setblocking(False)
    await loop.sock_connect(reader, ("127.0.0.1", int(proxy.url.rpartition(":")[2])))
    head = f"GET /events HTTP/1.0\r\nHost: x\r\nAuthorization: Bearer {ADMIN_TOKEN}\r\n\r\n"
    await loop.sock_sendall(reader, head.encode())
    await loop.sock_recv(reader, 64)
    return reader


async def flood(proxy: Harness, events: int) -> None:
    for number in range(events):
        tell(proxy, f"{number}-" + "x" * 20_000)
        await asyncio.sleep(0)


async def test_a_slow_reader_is_told_what_it_missed_and_its_stream_ends(make: Make) -> None:
    proxy = await make(events__rows=20)
    reader = await lazy_reader(proxy)
    loop = asyncio.get_running_loop()
    await flood(proxy, 600)
    assert proxy.app.ring.rows == 20, "a reader that takes nothing keeps nothing alive"
    taken = b""
    async with asyncio.timeout(10):
        while part := await loop.sock_recv(reader, 1 << 20):
            taken += part
    reader.close()
    *_, last, _ = taken.decode().split("\n\n")
    gap = dict(line.split(": ", 1) for line in last.splitlines() if ": " in line)
    assert gap["event"] == "gap"
    said = json.loads(gap["data"])
    assert 0 < said["missed"] < 600
    assert proxy.app.ring.gaps == 1
    async with reading(proxy, Last_Event_ID=gap["id"]) as stream:
        await stream.event()


async def test_a_reader_that_takes_nothing_for_too_long_is_let_go(make: Make) -> None:
    proxy = await make(events__stall=0.05)
    reader = await lazy_reader(proxy)
    await flood(proxy, 600)
    async with asyncio.timeout(10):
        while len(proxy.app.ring):
            tell(proxy, "x")
            await asyncio.sleep(0)
    reader.close()


async def test_a_stopping_proxy_tells_that_it_stops_and_ends_the_stream(make: Make) -> None:
    proxy = await make()
    async with reading(proxy) as stream:
        await stream.block()
        async with asyncio.timeout(3):  # nobody waits until the reader has had enough
            await proxy.app.stop(drain=0)
        assert [block.name for block in await stream.rest()] == ["proxy.stopping"]
