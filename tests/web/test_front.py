"""One client's connection: which requests it serves by itself, which it hands over, and that nobody can tell.

What is odd is asked at both readers, and the answers compared.
"""

import asyncio
import json
from itertools import pairwise
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from web.harness import Harness, ScriptedAgent, completed, send
from web.raw_wire import CALL, DOORS, request

from proxy.web import front
from proxy.web.places import Places


def doors(proxy: Harness) -> tuple[int, int]:
    """How many connections the front has, and how many aiohttp."""
    server: Any = proxy.app.server
    return len(server._fronts), len(server._handlers.connections)


# --- who serves -------------------------------------------------------------------------------------------------------


async def test_a_plain_request_is_served_by_the_front_and_anything_else_hands_the_connection_over(
    proxy: Harness, enrolled: ScriptedAgent, connect: Any
) -> None:
    wire = await connect()
    _, before = doors(proxy)
    for _ in range(3):
        status, _, body = await wire.ask()
        assert (status, json.loads(body)["result"]["task"]["id"]) == (b"HTTP/1.1 200 OK", "up-m1")
    assert doors(proxy) == (1, before)
    status, _, _ = await wire.ask(line=b"GET /healthz HTTP/1.1", body=b"")
    assert status == b"HTTP/1.1 200 OK"
    assert doors(proxy) == (0, before + 1)
    assert (await wire.ask())[0] == b"HTTP/1.1 200 OK"  # and calls are served there as well
    assert doors(proxy) == (0, before + 1)
    assert len(enrolled.seen) == 4


ODD = {
    "chunked": (request(b"Transfer-Encoding: chunked", body=b"").replace(b"Content-Length: 0\r\n", b""), 200),
    "two hosts": (request(b"Host: other"), 400),
    "no host": (request().replace(b"Host: proxy\r\n", b""), None),
    "two lengths": (request(b"Content-Length: 3"), 400),
    "length and coding": (request(b"Transfer-Encoding: chunked"), 400),
    "a coding of its own": (request(b"Transfer-Encoding: gzip"), 400),
    "no HTTP": (b"hello\r\n\r\n", 400),
    "old HTTP": (request(line=b"POST " + CALL + b" HTTP/1.0"), 200),
    "absolute": (request(line=b"POST http://proxy" + CALL + b" HTTP/1.1"), None),
    "a space in a name": (request(b"X Y: 1"), 400),
    "a folded field": (request(b"X: 1\r\n 2"), 400),
    "no such path": (request(line=b"POST /workspaces/a/a2ab HTTP/1.1"), 404),
    "too many fields": (request(*[b"X-%d: 1" % number for number in range(200)]), 400),
    "a field too long": (request(b"X: " + b"x" * 100_000), 400),
}


@pytest.mark.parametrize(("said", "status"), ODD.values(), ids=ODD)
async def test_odd_requests_fare_as_if_aiohttp_had_read_them_from_the_start(
    enrolled: ScriptedAgent, connect: Any, said: bytes, status: int | None
) -> None:
    chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (len(json.dumps(send())), json.dumps(send()).encode())
    got = []
    for door in DOORS:
        wire = await connect(door)
        wire.writer.write(said + (chunks if said.endswith(b"Transfer-Encoding: chunked\r\n\r\n") else b""))
        answered, _, body = await wire.answer()
        got.append((answered.split(b" ")[1], body[:20]))
    assert got[0] == got[1]
    assert status is None or got[0][0] == b"%d" % status
    assert {len(seen[3]) for seen in enrolled.seen} <= {len(json.dumps(send()))}


@pytest.mark.parametrize("size", [front.SHORT_BODY - 1, front.SHORT_BODY, front.SHORT_BODY + 1, 3 * front.SHORT_BODY])
async def test_a_body_of_any_length_arrives_whole(enrolled: ScriptedAgent, connect: Any, size: int) -> None:
    body = json.dumps(send(text="x" * size)).encode()
    wire = await connect()
    for _ in range(2):
        status, _, _ = await wire.ask(body=body)
        assert status == b"HTTP/1.1 200 OK"
        assert enrolled.seen[-1][3] == body


async def test_a_body_that_waits_for_permission_gets_it(enrolled: ScriptedAgent, connect: Any) -> None:
    wire = await connect()
    said = request(b"Expect: 100-continue")
    head, _, body = said.partition(b"\r\n\r\n")
    wire.writer.write(head + b"\r\n\r\n")
    assert (await wire.answer())[0] == b"HTTP/1.1 100 Continue"
    wire.writer.write(body)
    assert (await wire.answer())[0] == b"HTTP/1.1 200 OK"


class Floor:
    """A server that takes note of what it is to serve."""

    head_limit = body_limit = 65536
    places = Places({})

    def __init__(self) -> None:
        self.served: list[tuple[str, bytes]] = []

    async def serve(self, arrived: Any, workspace_id: str, tail: str) -> bool:
        self.served.append((workspace_id + tail, await arrived.body(self.body_limit)))
        return True

    def take_over(self) -> asyncio.Protocol:
        raise AssertionError("there is nothing odd about them")

    def opened(self, _: Any) -> None: ...

    def left(self, _: Any) -> None: ...


class Open(asyncio.Transport):
    """A transport that is there and does nothing."""

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


FIRST, SECOND = request(), request(line=b"POST " + CALL + b"/x?y=1 HTTP/1.1", body=b"second")


@given(cuts=st.lists(st.integers(1, len(FIRST + SECOND)), max_size=6))
def test_requests_arrive_however_their_bytes_are_cut(cuts: list[int]) -> None:
    floor = Floor()

    async def play() -> None:
        connection = front.Front(floor, asyncio.get_running_loop())
        connection.connection_made(Open())
        for start, end in pairwise(sorted({0, len(FIRST), len(FIRST + SECOND), *cuts})):
            connection.data_received((FIRST + SECOND)[start:end])
        while connection.task is not None:
            await connection.task
        connection.connection_lost(None)

    asyncio.run(play())
    assert floor.served == [("a", json.dumps(send()).encode()), ("a/x?y=1", b"second")]


# --- one after another ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("door", DOORS)
async def test_requests_that_come_at_once_are_answered_one_after_another(
    enrolled: ScriptedAgent, connect: Any, door: str
) -> None:
    wire = await connect(door)
    wire.writer.write(b"".join(request(body=json.dumps(send(f"m{number}")).encode()) for number in range(5)))
    for number in range(5):
        status, _, body = await wire.answer()
        assert (status, json.loads(body)["result"]["task"]["id"]) == (b"HTTP/1.1 200 OK", f"up-m{number}")


async def test_what_comes_while_a_request_is_served_waits_for_its_turn(
    proxy: Harness, enrolled: ScriptedAgent, connect: Any
) -> None:
    go, came = asyncio.Event(), asyncio.Event()

    async def slowly(asked: Any) -> Any:
        body = await asked.read()
        came.set()
        await go.wait()
        return web.json_response(completed(body))

    enrolled.handler = slowly
    wire = await connect()
    wire.writer.write(request(body=json.dumps(send("m0")).encode()))
    await came.wait()
    wire.writer.write(request(body=json.dumps(send("m1")).encode()))
    wire.writer.write(request(line=b"GET /healthz HTTP/1.1", body=b""))
    await wire.writer.drain()
    go.set()
    for name in ("up-m0", "up-m1"):
        assert json.loads((await wire.answer())[2])["result"]["task"]["id"] == name
    assert (await wire.answer())[0] == b"HTTP/1.1 200 OK"
    assert doors(proxy)[0] == 0


# --- the same head again ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("door", DOORS)
async def test_a_token_that_was_revoked_is_refused_on_a_connection_that_showed_it_before(
    proxy: Harness, enrolled: ScriptedAgent, connect: Any, door: str
) -> None:
    _, made = await proxy.call("POST", "/tokens", json={"kind": "client", "name": "c"})
    token = json.loads(made)
    wire = await connect(door)
    for _ in range(2):
        assert (await wire.ask(token=token["token"]))[0] == b"HTTP/1.1 200 OK"
    got, _ = await proxy.call("DELETE", f"/tokens/{token['id']}")
    assert got.status in {200, 204}
    assert (await wire.ask(token=token["token"]))[0].split(b" ")[1] == b"401"
    assert len(enrolled.seen) == 2


@pytest.mark.parametrize("door", DOORS)
async def test_a_head_with_other_fields_is_read_anew(enrolled: ScriptedAgent, connect: Any, door: str) -> None:
    wire = await connect(door)
    for fields in ([b"X-Turn: 1"], [b"X-Turn: 2"], [b"x-turn: 2"], [], [b"X-Turn: 1"], [b"X-Turn: 1", b"X-Turn: 1"]):
        assert (await wire.ask(*fields))[0] == b"HTTP/1.1 200 OK"
        seen = enrolled.seen[-1][2]
        assert [value for name, value in seen.items() if name.lower() == "x-turn"] == [
            field.partition(b": ")[2].decode() for field in fields[-1:]
        ]
        assert "Authorization" not in seen
    assert (await wire.ask(token="hf_" + "z" * 43))[0].split(b" ")[1] == b"401"
    assert (await wire.ask())[0] == b"HTTP/1.1 200 OK"
    ids = [seen[2]["Holdfast-Request-Id"] for seen in enrolled.seen]
    assert len(set(ids)) == len(ids)


# --- ends -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("door", DOORS)
async def test_a_client_that_wants_no_more_is_answered_and_let_go(
    enrolled: ScriptedAgent, connect: Any, door: str
) -> None:
    wire = await connect(door)
    status, fields, _ = await wire.ask(b"Connection: close")
    assert (status, b"Connection: close" in fields) == (b"HTTP/1.1 200 OK", True)
    assert await wire.reader.read() == b""


@pytest.mark.parametrize("said", [b"", b"POST /work", request()[:-5]], ids=["nothing", "half a line", "half a body"])
async def test_a_client_that_falls_silent_is_hung_up_on(
    proxy: Harness, connect: Any, monkeypatch: pytest.MonkeyPatch, said: bytes
) -> None:
    monkeypatch.setattr(front, "KEEP_ALIVE", 0.6)
    wire = await connect()
    wire.writer.write(said)
    async with asyncio.timeout(10):
        assert await wire.reader.read() == b""
    assert doors(proxy)[0] == 0


async def test_a_connection_that_is_served_is_never_silent(
    enrolled: ScriptedAgent, connect: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(front, "KEEP_ALIVE", 0.6)
    looked = asyncio.Event()

    async def slowly(asked: Any) -> Any:
        await looked.wait()
        return web.json_response(completed(await asked.read()))

    enrolled.handler = slowly
    wire = await connect()
    asyncio.get_running_loop().call_later(1.5, looked.set)  # longer than silence may last
    assert (await wire.ask())[0] == b"HTTP/1.1 200 OK"


async def test_a_stop_lets_an_answer_leave_and_ends_connections(
    proxy: Harness, enrolled: ScriptedAgent, connect: Any
) -> None:
    go, came = asyncio.Event(), asyncio.Event()

    async def slowly(asked: Any) -> Any:
        body = await asked.read()
        came.set()
        await go.wait()
        return web.json_response(completed(body))

    enrolled.handler = slowly
    idle, busy = await connect(), await connect()
    busy.writer.write(request())
    await came.wait()
    stopping = asyncio.create_task(proxy.app.stop(drain=20))
    await asyncio.sleep(0)
    go.set()
    assert (await busy.answer())[0] == b"HTTP/1.1 200 OK"
    assert await busy.reader.read() == b""
    assert await idle.reader.read() == b""
    await stopping
    assert doors(proxy)[0] == 0


async def test_a_crash_is_answered_told_and_ends_the_connection(
    proxy: Harness, enrolled: ScriptedAgent, connect: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError("a secret")

    monkeypatch.setattr(proxy.app.dialer, "call", crash)
    wire = await connect()
    status, fields, body = await wire.ask()
    assert status == b"HTTP/1.1 500 Internal Server Error"
    assert b"Server: Holdfast" in fields
    assert json.loads(body)["error"]
    assert b"secret" not in body
    assert await wire.reader.read() == b""
    assert [event.fields["error"] for event in proxy.named("request.crashed")] == ["ZeroDivisionError"]
