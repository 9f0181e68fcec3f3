"""Heartbeats over all ways in: the connection itself, aiohttp's connection, and the application behind it."""

import json
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from web.harness import ADMIN_TOKEN, Harness
from yarl import URL

from proxy.store import StoreFailure
from proxy.web.arrived import Arrived
from proxy.web.front import Front
from proxy.web.heartbeats import HEARTBEAT, Heartbeats, heartbeat_of

PLAIN, ESCAPED = "/workspaces/agent/heartbeat", "/workspaces/%61gent/heartbeat"
WRONG = "hf_" + "z" * 43


@pytest.mark.parametrize(
    ("method", "target", "workspace"),
    [
        ("POST", "/workspaces/a/heartbeat", "a"),
        ("POST", "/workspaces/a:b.c-d_e/heartbeat", "a:b.c-d_e"),
        ("POST", "/workspaces//heartbeat", None),
        ("GET", "/workspaces/a/heartbeat", None),
        ("POST", "/workspaces/a/heartbeat/", None),
        ("POST", "/workspaces/a/heartbeat?x=1", None),
        ("POST", "/workspaces/a?/heartbeat", None),
        ("POST", "/workspaces/a/b/heartbeat", None),
        ("POST", "/workspaces/%61/heartbeat", None),
        ("POST", "/workspaces/heartbeat", None),
        ("POST", "/heartbeat", None),
    ],
)
def test_what_a_connection_takes_for_a_heartbeat(method: str, target: str, workspace: str | None) -> None:
    assert heartbeat_of(method, target) == (None if workspace is None else (workspace, HEARTBEAT))


@pytest.fixture
async def proxy(make: Any) -> Harness:
    made: Harness = await make()
    return made


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 200),
        (b"{}", 200),
        (b'{"status":"ready","active_tasks":1,"progress":3,"something_new":[1]}', 200),
        (b'{"status":"dead"}', 400),
        (b'{"active_tasks":-1}', 400),
        (b"[]", 400),
        (b"{", 400),
        (b"\xff", 400),
        (b'{"boot_id":"' + b"x" * 300 + b'"}', 400),
    ],
)
async def test_all_ways_answer_alike(proxy: Harness, monkeypatch: pytest.MonkeyPatch, body: bytes, status: int) -> None:
    token = await proxy.enroll("agent", delivery_mode="poll")
    ways: list[str] = []
    take = Heartbeats.take

    async def taken(door: Heartbeats, arrived: Arrived, workspace_id: str, tail: str) -> web.Response:
        ways.append("front" if isinstance(arrived.client, Front) else "aiohttp")
        return await take(door, arrived, workspace_id, tail)

    monkeypatch.setattr(Heartbeats, "take", taken)
    answers = []
    async with aiohttp.ClientSession() as fresh:
        headers = {"Authorization": f"Bearer {token}"}
        # A connection is aiohttp's from the first request on that the front does not serve.
        for session, path in ((fresh, PLAIN), (fresh, ESCAPED), (fresh, PLAIN)):
            async with session.post(URL(proxy.url + path, encoded=True), headers=headers, data=body) as got:
                said = await got.read()
            fields = {name: value for name, value in got.headers.items() if name not in {"Date", "Connection"}}
            answers.append((got.status, fields, json.loads(said)))
    assert answers[0] == answers[1] == answers[2]
    assert answers[0][0] == status
    assert answers[0][1]["Server"] == "Holdfast"
    assert ways == ["front", "aiohttp"], "and the escaped one came through the application"


async def call(proxy: Harness, url: URL, token: str | None, said: Any = None) -> tuple[aiohttp.ClientResponse, bytes]:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with proxy.session.post(url, headers=headers, json=said or {}) as got:
        return got, await got.read()


@pytest.mark.parametrize(
    ("path", "token", "status"),
    [
        ("/workspaces/{name}/heartbeat", None, 401),
        ("/workspaces/{name}/heartbeat", WRONG, 401),
        ("/workspaces/{name}/heartbeat", "client", 403),
        ("/workspaces/{name}/heartbeat", "other", 403),
        ("/workspaces/{name}/heartbeat", ADMIN_TOKEN, 200),
        ("/workspaces/nobody{name}/heartbeat", ADMIN_TOKEN, 404),
    ],
)
async def test_nobody_beats_for_somebody_else_on_either_way(
    proxy: Harness, path: str, token: str | None, status: int
) -> None:
    await proxy.enroll("agent", delivery_mode="poll")
    tokens = {"other": await proxy.enroll("other", delivery_mode="poll"), "client": await proxy.client()}
    answers = []
    for name in ("agent", "%61gent"):
        asked = URL(proxy.url + path.format(name=name), encoded=True)
        got, said = await call(proxy, asked, tokens.get(token or "", token))
        answers.append((got.status, said))
    assert answers[0] == answers[1]
    assert answers[0][0] == status
    route = proxy.app.routing.get("agent")
    assert route is not None
    assert (route.signs.last_heartbeat_at is not None) == (status == 200)


async def test_a_beat_that_the_store_refuses_is_a_503_on_either_way(
    proxy: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = await proxy.enroll("agent", delivery_mode="poll")

    async def full(*_: Any, **__: Any) -> None:
        raise StoreFailure("full", "no room")

    monkeypatch.setattr(proxy.app.store, "replace", full)
    answers = [
        await call(proxy, URL(proxy.url + path, encoded=True), token, {"status": "ready"}) for path in (PLAIN, ESCAPED)
    ]
    assert [got.status for got, _ in answers] == [503, 503]
    assert answers[0][1] == answers[1][1]


async def test_a_connection_beats_and_calls_by_turns(proxy: Harness) -> None:
    token = await proxy.enroll("agent", delivery_mode="poll")
    for number in range(3):
        got, _ = await proxy.call("POST", PLAIN, token=token, json={"status": "ready"})
        assert got.status == 200
        got, _ = await proxy.send("agent", await proxy.client(), message_id=f"m{number}")
        assert got.status == 202
    got, said = await proxy.call("POST", PLAIN, token=token)
    assert json.loads(said)["queue_depth"] >= 1
