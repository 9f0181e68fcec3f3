"""A workspace's own host name: there its agent stands at the root, and nothing else is different."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from web.harness import Harness, ScriptedAgent, send
from web.raw_wire import DOORS, Wire, request

from proxy.web.places import Places, host_name, split

HOST = "writer.agents.example"
Connect = Callable[..., Awaitable[Wire]]


@pytest.fixture
async def hosted(proxy: Harness, agent: ScriptedAgent) -> ScriptedAgent:
    await proxy.enroll("a", url=agent.url, host=HOST)
    return agent


def for_host(target: str, host: str = HOST, body: bytes = b"", method: str = "POST", **fields: str) -> bytes:
    said = request(line=f"{method} {target} HTTP/1.1".encode(), body=body)
    more = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items())
    return said.replace(b"Host: proxy\r\n", f"Host: {host}\r\n{more}".encode())


async def ask(wire: Wire, said: bytes) -> tuple[int, dict[str, str], bytes]:
    wire.writer.write(said)
    head = (await wire.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
    return int(head[0].split(" ")[1]), fields, await wire.reader.readexactly(int(fields["content-length"]))


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("target", ["/", "/?q=1", "/v1/message:send", "/metrics"])
async def test_every_target_of_its_own_host_is_the_agents(
    proxy: Harness, hosted: ScriptedAgent, connect: Connect, door: str, target: str
) -> None:
    wire = await connect(door)
    token = await proxy.client()
    body = json.dumps(send()).encode()
    for host in (HOST, f"{HOST}:8080", HOST.upper(), f"{HOST}."):
        status, fields, _ = await ask(wire, for_host(target, host, body, Holdfast_Token=token))
        assert (status, "holdfast-request-id" in fields) == (200, True)
        assert hosted.seen[-1][1] == target


async def test_without_a_token_nobody_comes_in_by_a_host_name_either(hosted: ScriptedAgent, connect: Connect) -> None:
    wire = await connect()
    said = for_host("/", body=json.dumps(send()).encode()).replace(b"Holdfast-Token", b"X-Token")
    said = b"\r\n".join(line for line in said.split(b"\r\n") if not line.lower().startswith(b"authorization"))
    assert (await ask(wire, said))[0] == 401
    assert not hosted.seen


async def test_receipts_are_found_where_their_location_says(
    proxy: Harness, hosted: ScriptedAgent, connect: Connect
) -> None:
    await hosted.stop()
    wire, token = await connect(), await proxy.client()
    await proxy.call("PUT", "/workspaces/a", json={"unmanaged_away": "defer"})
    status, fields, _ = await ask(wire, for_host("/", body=json.dumps(send()).encode(), Holdfast_Token=token))
    assert status == 202
    status, _, body = await ask(wire, for_host(fields["location"], method="GET", Holdfast_Token=token))
    assert (status, json.loads(body)["queue_id"]) == (200, fields["holdfast-receipt"])


async def test_the_card_leads_to_the_root_of_its_own_host(
    proxy: Harness, hosted: ScriptedAgent, connect: Connect
) -> None:
    wire, token = await connect(), await proxy.client()
    hosted.card = {"name": "x", "url": f"{hosted.url}/rpc", "skills": []}
    path = "/.well-known/agent-card.json"
    status, _, body = await ask(wire, for_host(path, f"{HOST}:81", method="GET", Holdfast_Token=token))
    assert (status, json.loads(body)["url"]) == (200, f"http://{HOST}:81/rpc")
    _, elsewhere = await proxy.call("GET", f"/workspaces/a/a2a{path}", token=token)
    assert json.loads(elsewhere)["url"] == f"{proxy.url}/workspaces/a/a2a/rpc"


async def test_a_name_belongs_to_one_workspace_and_never_to_holdfast(
    proxy: Harness, hosted: ScriptedAgent, connect: Connect
) -> None:
    for name in (HOST, "localhost", "10.0.0.1"):
        got, body = await proxy.call("PUT", "/workspaces/b", json={"url": hosted.url, "host": name})
        assert (got.status, b"host" in body) == (400, True), name
    for odd in ("UPPER.example", "a b", "x:80", "-x", ""):
        assert (await proxy.call("PUT", "/workspaces/b", json={"url": hosted.url, "host": odd}))[0].status == 400
    shown: Any = json.loads((await proxy.call("GET", "/workspaces/a"))[1])
    assert shown["host"] == HOST


async def test_a_name_that_was_taken_away_leads_nowhere(
    proxy: Harness, hosted: ScriptedAgent, connect: Connect
) -> None:
    token = await proxy.client()
    assert (await proxy.call("PUT", "/workspaces/a", json={"host": None}))[0].status == 200
    wire = await connect()
    assert (await ask(wire, for_host("/nothing", method="GET", Holdfast_Token=token)))[0] == 404
    assert (await proxy.call("PUT", "/workspaces/b", json={"url": hosted.url, "host": HOST}))[0].status == 201
    await proxy.call("DELETE", "/workspaces/b")
    assert not proxy.app.routing.hosts


async def test_a_name_outlives_the_proxy(proxy: Harness, hosted: ScriptedAgent) -> None:
    await proxy.restart()
    assert proxy.app.routing.hosts == {HOST: "a"}


@given(target=st.text(max_size=40).map(lambda text: "/" + text), host=st.one_of(st.none(), st.text(max_size=20)))
def test_where_no_workspace_has_that_name_everything_is_as_without_names(target: str, host: str | None) -> None:
    assert Places({"x.example": "w"}).find(target, host) == split(target)
    assert host_name(host) != "x.example"


def test_what_is_holdfasts_own_stays_so() -> None:
    places = Places({"x.example": "w"}, frozenset({"/.well-known/jwks.json"}))
    assert places.find("/.well-known/jwks.json", "x.example") is None
    assert places.find("/workspaces/v/a2a/x", "x.example") == ("v", "/x")
    assert places.find("*", "x.example") is None
    assert places.find("/", "x.example:80") == ("w", "")
