"""Callers that wait, over real sockets and through both of the proxy's readers."""

import asyncio
import json
from collections.abc import Awaitable, Callable

import pytest
from web.harness import ADMIN, ADMIN_TOKEN, V1, Harness, ScriptedAgent, send
from web.raw_wire import DOORS, Wire, request

CALL = "/workspaces/a/a2a"
Make = Callable[..., Awaitable[Harness]]


@pytest.fixture
async def holding(make: Make, nobody: str) -> Harness:
    proxy = await make(defaults__hold_seconds=60, hold__keep_alive=0.05)
    await proxy.enroll("a", url=nobody, unmanaged_away="defer")
    return proxy


async def connected(proxy: Harness, door: str) -> Wire:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(proxy.url.rpartition(":")[2]))
    wire = Wire(reader, writer)
    if door == "aiohttp":
        await wire.ask(line=b"GET /healthz HTTP/1.1", body=b"")
    return wire


async def until_it_says(wire: Wire, *marks: bytes) -> bytes:
    said = b""
    async with asyncio.timeout(20):
        while not all(mark in said for mark in marks):
            came = await wire.reader.read(65536)
            assert came, said
            said += came
    return said


def held(proxy: Harness) -> int:
    return len(proxy.app.server._calls._holding.callers)


@pytest.mark.parametrize("door", DOORS)
async def test_a_held_answer_begins_with_blanks_and_is_json_in_the_end(
    holding: Harness, agent: ScriptedAgent, door: str
) -> None:
    wire = await connected(holding, door)
    wire.writer.write(request(b"A2A-Version: 1.0"))
    said = await until_it_says(wire, b"1\r\n \r\n1\r\n \r\n")
    assert said.startswith(b"HTTP/1.1 202 Accepted\r\n")
    await holding.call("PUT", "/workspaces/a", json={"url": agent.url})
    said += await until_it_says(wire, b"0\r\n\r\n")
    assert b"TASK_STATE_COMPLETED" in said
    status, _, body = await wire.ask(b"A2A-Version: 1.0")  # the connection goes on
    assert (status, b"TASK_STATE_COMPLETED" in body) == (b"HTTP/1.1 200 OK", True)
    wire.writer.close()


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("method", ["SendMessage", "SendStreamingMessage"])
async def test_a_client_that_leaves_makes_room(holding: Harness, door: str, method: str) -> None:
    wire = await connected(holding, door)
    wire.writer.write(request(b"A2A-Version: 1.0", body=json.dumps({**send(), "method": method}).encode()))
    await holding.until(lambda: held(holding) == 1)
    wire.writer.close()
    async with asyncio.timeout(20):
        while held(holding):  # noqa: ASYNC110 - nobody is told that a place is free
            await asyncio.sleep(0)
    assert len(await holding.app.store.deferrals(workspace_id="a")) == 1


@pytest.mark.parametrize("door", DOORS)
async def test_a_proxy_that_stops_answers_whoever_waits(holding: Harness, door: str) -> None:
    unary, streaming = await connected(holding, door), await connected(holding, door)
    unary.writer.write(request(b"A2A-Version: 1.0"))
    body = json.dumps({**send("m2"), "method": "SendStreamingMessage"}).encode()
    streaming.writer.write(request(b"A2A-Version: 1.0", body=body))
    await holding.until(lambda: held(holding) == 2)
    first = asyncio.create_task(until_it_says(unary, b"TASK_STATE_SUBMITTED"))
    second = asyncio.create_task(until_it_says(streaming, b"event: error", b"STOPPING", b"0\r\n\r\n"))
    await holding.app.stop(drain=5)
    await asyncio.gather(first, second)
    unary.writer.close()
    streaming.writer.close()


async def test_a_told_stream_ends_with_its_readers_token(holding: Harness, agent: ScriptedAgent) -> None:
    _, made = await holding.call("POST", "/tokens", json={"kind": "client", "name": "c"})
    token = json.loads(made)
    wire = await connected(holding, "front")
    body = json.dumps({**send(), "method": "SendStreamingMessage"}).encode()
    wire.writer.write(request(b"A2A-Version: 1.0", body=body, token=token["token"]))
    await until_it_says(wire, b"TASK_STATE_SUBMITTED")
    await holding.call("DELETE", f"/tokens/{token['id']}")
    await holding.call("PUT", "/workspaces/a", json={"url": agent.url})
    rest = await until_it_says(wire, b"event: error", b"UNAUTHENTICATED", b"0\r\n\r\n")
    assert b"COMPLETED" not in rest
    wire.writer.close()


async def test_an_old_client_is_kept_waiting_with_blanks_too(holding: Harness, agent: ScriptedAgent) -> None:
    wire = await connected(holding, "aiohttp")
    wire.writer.write(request(b"A2A-Version: 1.0", line=b"POST " + CALL.encode() + b" HTTP/1.0"))
    await until_it_says(wire, b"\r\n\r\n ")
    await holding.call("PUT", "/workspaces/a", json={"url": agent.url})
    rest = await wire.reader.read()
    wire.writer.close()
    assert json.loads(rest)["result"]["task"]["status"]["state"] == "TASK_STATE_COMPLETED"


async def test_a_held_stream_is_told_by_a_real_agent_and_read_by_a_real_client(
    holding: Harness, agent: ScriptedAgent
) -> None:
    token = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
    body = {**send(), "method": "SendStreamingMessage"}
    async with holding.callers.post(holding.url + CALL, headers={**ADMIN, **token, **V1}, json=body) as got:
        assert (got.status, got.headers["Content-Type"]) == (200, "text/event-stream")
        first = await got.content.readuntil(b"\n\n")
        assert b"TASK_STATE_SUBMITTED" in first
        await holding.call("PUT", "/workspaces/a", json={"url": agent.url})
        rest = await got.content.read()
    events = [json.loads(line[6:]) for line in rest.split(b"\n") if line.startswith(b"data: ")]
    assert "TASK_STATE_COMPLETED" in json.dumps(events[-1])
    assert all("task" not in event["result"] for event in events)
