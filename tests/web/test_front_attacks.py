"""What somebody means harm with: heads that read in two ways, requests without an end, paths that lead elsewhere.

Each is played byte for byte to a real proxy; what an agent then sees, or the client gets, must read in one way only.
"""

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from forward import scripted_upstream
from web.harness import ADMIN, Harness, ScriptedAgent, send
from web.raw_wire import CALL, DOORS, Wire, request

from proxy.forward import pool
from proxy.loops import dialing
from proxy.web import front, places
from proxy.web.arrived import MOST_DIGITS, Fields

Connect = Callable[..., Awaitable[Wire]]
Says = Callable[[bytes], Awaitable[None]]

CACHES: tuple[Any, ...] = (places._split_again, dialing._join_again, pool._cut_again)
settled: Any = scripted_upstream.settled  # another test's, without annotations
CHUNKED = request(b"Transfer-Encoding: chunked", body=b"").replace(b"Content-Length: 0\r\n", b"")


# --- answers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("blanks", [b" ", b"\t", b" \t "])
async def test_an_answer_never_has_two_framings_whatever_follows_its_length(
    connect: Connect, says: Says, door: str, blanks: bytes
) -> None:
    await says(b"HTTP/1.1 200 OK\r\nContent-Length: 5%b\r\n\r\nhello" % blanks)
    wire = await connect(door)
    wire.writer.write(request())
    head = (await wire.reader.readuntil(b"\r\n\r\n")).lower()
    assert head.count(b"content-length:") + head.count(b"transfer-encoding:") == 1
    assert await wire.reader.readexactly(5) == b"hello"
    assert (await wire.ask(line=b"GET /healthz HTTP/1.1", body=b""))[0] == b"HTTP/1.1 200 OK"


async def test_a_length_that_nobody_can_read_is_a_broken_answer_and_no_crash(
    proxy: Harness, connect: Connect, says: Says
) -> None:
    await says(b"HTTP/1.1 200 OK\r\nContent-Length: %b5\r\n\r\nhello" % (b"0" * 5000))
    wire = await connect()
    status, _, _ = await wire.ask(line=b"GET " + CALL + b"/x HTTP/1.1", body=b"")
    assert status.split(b" ")[1] == b"502"
    assert not proxy.named("request.crashed")


@pytest.mark.parametrize("door", DOORS)
async def test_a_reason_phrase_with_control_characters_is_not_passed_on(
    connect: Connect, says: Says, door: str
) -> None:
    await says(b"HTTP/1.1 200 O\x00\x01K\r\nContent-Length: 5\r\n\r\nhello")
    wire = await connect(door)
    status, _, body = await wire.ask()
    assert (status, body) == (b"HTTP/1.1 200 ", b"hello")


# --- requests without an end ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("begin", "more"),
    [(b"1;", b"a" * 8192), (b"0\r\n", b"X: " + b"y" * 8000 + b"\r\n"), (b"", b"1;" + b"a" * 8000 + b"\r\nx\r\n")],
    ids=["an extension", "trailers", "extensions"],
)
async def test_what_is_no_body_does_not_pile_up_before_anybody_is_asked_who_calls(
    proxy: Harness, enrolled: ScriptedAgent, connect: Connect, begin: bytes, more: bytes
) -> None:
    server: Any = proxy.app.server
    wire = await connect()
    await settled(lambda: len(server._fronts) == 1)
    (waiting,) = server._fronts
    wire.writer.write(CHUNKED.replace(b"hf_a", b"hf_b") + begin)
    sizes = [waiting._size]
    with contextlib.suppress(ConnectionError):  # refused, and hung up on
        while waiting in server._fronts and len(sizes) < 200:  # until aiohttp has it, which keeps none of it
            wire.writer.write(more)
            await wire.writer.drain()
            await settled(lambda: waiting._size != sizes[-1] or waiting not in server._fronts)
            sizes.append(waiting._size)
    assert waiting not in server._fronts
    assert max(sizes) <= server.head_limit + front.MOST_FRAMING + front.SHORT_BODY
    assert not enrolled.seen


async def test_a_body_in_the_smallest_chunks_arrives_whole(enrolled: ScriptedAgent, connect: Connect) -> None:
    body = json.dumps(send(text="x" * front.MOST_FRAMING)).encode()
    wire = await connect()
    wire.writer.write(CHUNKED + b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n")
    assert (await wire.answer())[0] == b"HTTP/1.1 200 OK"
    assert [seen[3] for seen in enrolled.seen] == [body]


@pytest.mark.parametrize("coding", [b"gzip, chunked", b"identity, chunked", b"gzip\r\nTransfer-Encoding: chunked"])
async def test_a_body_in_a_coding_that_is_not_undone_is_not_passed_on_without_its_name(
    enrolled: ScriptedAgent, connect: Connect, coding: bytes
) -> None:
    wire = await connect()
    wire.writer.write(CHUNKED.replace(b"coding: chunked", b"coding: " + coding) + b"2\r\n{}\r\n0\r\n\r\n")
    assert (await wire.answer())[0].split(b" ")[1] == b"400"
    assert not enrolled.seen


@pytest.mark.parametrize("line", [b"POST " + CALL + b" HTTP/1.1", b"POST " + CALL + b" HTTP/1.0"])
async def test_a_length_with_any_number_of_zeros_is_still_that_length(
    proxy: Harness, enrolled: ScriptedAgent, connect: Connect, line: bytes
) -> None:
    said = request(line=line).replace(b"Content-Length: ", b"Content-Length: " + b"0" * 5000)
    wire = await connect()
    wire.writer.write(said)
    assert (await wire.answer())[0].split(b" ")[1] == b"200"
    assert len(enrolled.seen) == 1
    assert not proxy.named("request.crashed")


async def test_a_body_that_says_that_it_is_longer_than_anything_is_refused_before_it_is_read(
    enrolled: ScriptedAgent, connect: Connect
) -> None:
    wire = await connect()
    length = b"9" * (MOST_DIGITS - 1)
    said = request(body=b"").replace(b"Content-Length: 0", b"Content-Length: " + length)
    wire.writer.write(said.replace(b" HTTP/1.1", b" HTTP/1.0"))
    assert (await wire.answer())[0].split(b" ")[1] == b"413"
    assert not enrolled.seen


# --- names and places -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("door", DOORS)
async def test_nobody_claims_to_be_somebody_else_under_a_name_that_some_agents_read_as_the_same(
    enrolled: ScriptedAgent, connect: Connect, door: str
) -> None:
    wire = await connect(door)
    twins = [b"X_Workspace_ID: b", b"X_Workspace-Id: b", b"Holdfast_Request_Id: mine", b"Transfer_Encoding: chunked"]
    assert (await wire.ask(*twins, b"X_Own: 1"))[0] == b"HTTP/1.1 200 OK"
    names = {name.lower() for name in enrolled.seen[0][2]}
    assert {name for name in names if "_" in name} == {"x_own"}
    assert "holdfast-request-id" in names


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(
    "path",
    [b"/../b", b"/..", b"/x/../../b", b"/%2e%2e/b", b"/.%2E/b", b"/..%2fb", b"/..%5cb", b"/..;x/b", b"/%2e./b?q=1"],
)
async def test_no_path_leads_from_one_workspace_to_its_neighbour_behind_the_same_address(
    enrolled: ScriptedAgent, connect: Connect, door: str, path: bytes
) -> None:
    wire = await connect(door)
    status, _, body = await wire.ask(line=b"POST " + CALL + path + b" HTTP/1.1")
    assert status.split(b" ")[1] == b"403"
    assert b"leads out" in body
    assert not enrolled.seen


@pytest.mark.parametrize("path", [b"/a..b", b"/...", b"/..a", b"/a..", b"/x?to=/../b", b"/.well", b"/%252e%252e"])
async def test_a_path_with_other_dots_is_passed_on_as_it_is(
    enrolled: ScriptedAgent, connect: Connect, path: bytes
) -> None:
    wire = await connect()
    assert (await wire.ask(line=b"POST " + CALL + path + b" HTTP/1.1"))[0] == b"HTTP/1.1 200 OK"
    assert [seen[1].encode() for seen in enrolled.seen] == [path]


async def test_nobody_gets_a_tunnel(enrolled: ScriptedAgent, connect: Connect) -> None:
    wire = await connect()
    status, _, body = await wire.ask(line=b"CONNECT " + CALL + b" HTTP/1.1")
    assert status.split(b" ")[1] == b"501"
    assert b"no tunnels" in body
    assert not enrolled.seen


async def test_long_targets_are_not_remembered(enrolled: ScriptedAgent, connect: Connect) -> None:
    wire = await connect()
    kept = [cache.cache_info().currsize for cache in CACHES]
    assert (await wire.ask(line=b"POST " + CALL + b"/" + b"x" * 4000 + b" HTTP/1.1"))[0] == b"HTTP/1.1 200 OK"
    assert len(enrolled.seen[-1][1]) == 4001
    assert [cache.cache_info().currsize for cache in CACHES] == kept


async def test_a_limit_of_thousands_of_digits_is_no_limit(proxy: Harness) -> None:
    async with proxy.session.get(f"{proxy.url}/queue?limit={'1' * 5000}", headers=ADMIN) as answer:
        assert answer.status == 400
        assert "limit" in await answer.text()


async def test_a_host_that_is_no_text_gets_a_card_all_the_same(
    proxy: Harness, enrolled: ScriptedAgent, connect: Connect
) -> None:
    wire = await connect()
    said = request(line=b"GET " + CALL + b"/.well-known/agent-card.json HTTP/1.1", body=b"")
    wire.writer.write(said.replace(b"Host: proxy", b"Host: \xff"))
    status, _, body = await wire.answer()
    assert (status, json.loads(body)["url"]) == (b"HTTP/1.1 200 OK", "http://localhost/workspaces/a/a2a")
    assert not proxy.named("request.crashed")


async def test_an_agent_that_shows_another_card_every_time_does_not_fill_the_memory(
    proxy: Harness, enrolled: ScriptedAgent, connect: Connect
) -> None:
    wire = await connect()
    ask = b"GET " + CALL + b"/.well-known/agent-card.json HTTP/1.1"
    route = proxy.app.routing.get("a")
    assert route is not None
    for card in range(3):
        schemes = {
            f"s{number}": {"type": "apiKey", "in": "header", "name": f"X-Key-{card}-{number}"} for number in range(100)
        }
        enrolled.card = {"name": "scripted", "skills": [], "url": enrolled.url, "securitySchemes": schemes}
        assert (await wire.ask(line=ask, body=b""))[0] == b"HTTP/1.1 200 OK"
        assert len(route.seen_credentials) == 100 * (card % 2 + 1)
        assert b"x-key-%d-99" % card in route.seen_credentials


# --- tokens that are dropped ------------------------------------------------------------------------------------------


async def _token(proxy: Harness, kind: str, name: str) -> tuple[str, str]:
    _, made = await proxy.call("POST", "/tokens", json={"kind": kind, "name": name})
    token = json.loads(made)
    return token["id"], token["token"]


async def test_a_stream_of_events_ends_with_its_readers_token(proxy: Harness, connect: Connect) -> None:
    token_id, token = await _token(proxy, "read", "r")
    wire = await connect()
    wire.writer.write(request(line=b"GET /events HTTP/1.1", body=b"", token=token))
    await wire.reader.readuntil(b"retry: ")
    await proxy.call("DELETE", f"/tokens/{token_id}")
    await proxy.enroll("later", delivery_mode="poll")
    async with asyncio.timeout(10):
        rest = await wire.reader.readuntil(b"0\r\n\r\n")
    assert b"workspace.created" not in rest


async def test_a_claim_that_waits_gets_nothing_for_a_token_that_was_dropped_meanwhile(
    proxy: Harness, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    polling, waits = proxy.app.polling, asyncio.Event()
    rest = polling._rest

    async def resting(*args: Any) -> None:
        waits.set()
        await rest(*args)

    monkeypatch.setattr(polling, "_rest", resting)
    await proxy.enroll("p", delivery_mode="poll")
    token_id, token = await _token(proxy, "workspace", "p")
    wire = await connect()
    claim = json.dumps({"wait_seconds": 20}).encode()
    wire.writer.write(request(line=b"POST /workspaces/p/queue/claim HTTP/1.1", body=claim, token=token))
    await waits.wait()
    await proxy.call("DELETE", f"/tokens/{token_id}")
    got, _ = await proxy.send("p", await proxy.client())
    assert got.status == 202
    assert (await wire.answer())[0].split(b" ")[1] == b"401"
    got, body = await proxy.call("POST", "/workspaces/p/queue/claim", json={"wait_seconds": 20})
    (item,) = json.loads(body)["items"]
    assert (item["attempt"], item["redelivery"]) == (1, "no")


async def test_a_body_of_events_ends_with_the_token_that_sent_it(proxy: Harness, connect: Connect) -> None:
    await proxy.enroll("p", delivery_mode="poll")
    token_id, token = await _token(proxy, "workspace", "p")
    await proxy.send("p", await proxy.client())
    _, body = await proxy.call("POST", "/workspaces/p/queue/claim", json={})
    (item,) = json.loads(body)["items"]
    place = f"POST /workspaces/p/queue/{item['queue_id']}/events HTTP/1.1".encode()
    said = request(
        b"Holdfast-Lease-Token: " + item["lease_token"].encode(),
        b"Transfer-Encoding: chunked",
        line=place,
        body=b"",
        token=token,
    ).replace(b"Content-Length: 0\r\n", b"")
    wire = await connect()
    wire.writer.write(said + b"1\r\n\n\r\n")
    await proxy.call("DELETE", f"/tokens/{token_id}")
    wire.writer.write(b"1\r\n\n\r\n")
    assert (await wire.answer())[0].split(b" ")[1] == b"401"


async def test_a_lease_token_that_is_no_text_is_a_lost_lease(proxy: Harness, connect: Connect) -> None:
    await proxy.enroll("p", delivery_mode="poll")
    await proxy.send("p", await proxy.client())
    _, body = await proxy.call("POST", "/workspaces/p/queue/claim", json={})
    place = f"POST /workspaces/p/queue/{json.loads(body)['items'][0]['queue_id']}/events HTTP/1.1".encode()
    wire = await connect()
    status, _, _ = await wire.ask(b"Holdfast-Lease-Token: \xff", line=place, body=b"")
    assert status.split(b" ")[1] == b"409"
    assert not proxy.named("request.crashed")


def test_fields_keep_what_stood_on_the_wire_beside_what_is_passed_on() -> None:
    fields = Fields(((b"X_Workspace_ID", b"b"), (b"X-Workspace-ID", b"a")))
    assert fields.getall("X-Workspace-ID") == ["a"]
    assert fields.onward == ((b"X-Workspace-ID", b"a"),)
