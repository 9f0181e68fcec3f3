"""Bad input: a clear answer in the caller's own binding, and nothing half-written."""

import io
import json
import re
from typing import Any
from urllib.parse import unquote

import pytest
from web.harness import V1, Harness, ScriptedAgent, send
from web.looking import look, rows

CALL = "/workspaces/a/a2a"
STRANGER = "hf_" + "x" * 43
JSON = {"Content-Type": "application/json"}
DEEP = 100_000


# --- what has to be stored --------------------------------------------------------------------------------------------


def rpc(**members: Any) -> bytes:
    """A JSON-RPC send with something wrong in it."""
    return json.dumps({**send(), **members}).encode()


def with_message(**members: Any) -> bytes:
    """A JSON-RPC send whose message has something wrong in it."""
    said = send()
    said["params"]["message"].update(members)
    return json.dumps(said).encode()


MALFORMED = {
    "nothing": b"",
    "cut off": b'{"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": {"mess',
    "two values": b"{} {}",
    "not UTF-8": b'{"jsonrpc": "2.0", "id": "\xff\xfe"}',
    "NUL": b"\x00" * 10,
    "deep arrays": b"[" * DEEP + b"]" * DEEP,
    "deep objects": b'{"a":' * DEEP + b"1" + b"}" * DEEP,
    "deep inside": rpc(params={"message": "@"}).replace(b'"@"', b"[" * DEEP + b"]" * DEEP),
}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED)
async def test_what_nobody_can_read_is_not_stored(proxy: Harness, nobody: str, body: bytes) -> None:
    await proxy.enroll("a", url=nobody, unmanaged_away="defer")
    before = rows(proxy.config.data)
    got, answer = await proxy.call("POST", CALL, headers={**V1, **JSON}, data=body)
    assert got.status == 400, answer
    assert json.loads(answer)["error"]["code"] in {-32700, -32600, -32602}
    assert rows(proxy.config.data)["deferrals"] == before["deferrals"] == 0
    assert proxy.named("deferral.queued") == []


ODD = {
    "huge id": rpc(id=10**400),
    "fraction id": rpc(id=1.5),
    "list id": rpc(id=[1]),
    "no params": rpc(params=None),
    "params list": rpc(params=[1, 2]),
    "message text": rpc(params={"message": "hello"}),
    "message id number": with_message(messageId=7),
    "message id long": with_message(messageId="m" * 100_000),
    "context object": with_message(contextId={"a": 1}),
    "task id list": with_message(taskId=["x"]),
    "lone surrogate": with_message(messageId="\ud800"),
    "no parts": with_message(parts=None),
    "batch": json.dumps([send(), send()]).encode(),
    "bare number": b"1e400",
    "text": b'"SendMessage"',
    "null": b"null",
}


@pytest.mark.parametrize("body", ODD.values(), ids=ODD)
async def test_what_is_oddly_shaped_is_refused_or_stored_whole_and_never_crashes(
    proxy: Harness, nobody: str, body: bytes
) -> None:
    await proxy.enroll("a", url=nobody, unmanaged_away="defer")
    got, answer = await proxy.call("POST", CALL, headers={**V1, **JSON}, data=body, token=await proxy.client())
    assert got.status in {202, 400}, answer
    stored = rows(proxy.config.data)["deferrals"]
    assert stored == (1 if got.status == 202 else 0)
    if got.status == 400:
        assert json.loads(answer)["error"]
    assert proxy.named("loop.failed") == []


async def test_a_rest_send_that_nobody_can_read_is_refused_in_rest(proxy: Harness, nobody: str) -> None:
    await proxy.enroll("a", url=nobody, unmanaged_away="defer")
    got, answer = await proxy.call("POST", CALL + "/message:send", headers={**V1, **JSON}, data=b'{"message":')
    error = json.loads(answer)["error"]
    assert got.status in {400, 503}
    assert error["code"] == got.status
    assert error["details"][0]["reason"]


@pytest.mark.parametrize(
    ("headers", "status", "why"),
    [
        ({"Holdfast-Priority": "urgent"}, 400, "BAD_PRIORITY"),
        ({"Holdfast-Priority": "critical"}, 403, "FORBIDDEN"),
        ({"Idempotency-Key": "k" * 257}, 400, "BAD_IDEMPOTENCY_KEY"),
        ({"Idempotency-Key": ""}, 400, "BAD_IDEMPOTENCY_KEY"),
        ({"Idempotency-Key": "\xff"}, 400, "BAD_IDEMPOTENCY_KEY"),
    ],
)
async def test_a_header_that_there_cannot_be_is_refused_before_anything_is_stored(
    proxy: Harness, nobody: str, headers: dict[str, str], status: int, why: str
) -> None:
    await proxy.enroll("a", url=nobody, unmanaged_away="defer")
    got, body = await proxy.send("a", await proxy.client(), rpc_id="seven", headers=headers)
    assert (got.status, body["id"], body["error"]["data"][0]["reason"]) == (status, "seven", why)
    assert rows(proxy.config.data)["deferrals"] == 0


# --- who asks ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["", "/message:send", "/v1/message:send", "/anything"])
@pytest.mark.parametrize(
    ("headers", "status"),
    [({}, 401), ({"Holdfast-Token": STRANGER}, 401), ({"Holdfast-Token": "hf_\u00e9".encode().decode("latin-1")}, 401)],
    ids=["missing", "foreign", "nonsense"],
)
async def test_a_stranger_gets_one_401_in_the_binding_that_the_path_tells(
    proxy: Harness, agent: ScriptedAgent, path: str, headers: dict[str, str], status: int
) -> None:
    await proxy.enroll("a", url=agent.url)
    got, body = await proxy.call("POST", CALL + path, token=None, headers={**V1, **JSON, **headers}, json=send())
    assert got.status == status
    assert "a valid Holdfast token is required" in body.decode()
    assert got.headers["Holdfast-Request-Id"]
    assert agent.seen == []


async def test_an_unknown_workspace_is_404_in_the_callers_binding(proxy: Harness) -> None:
    client = await proxy.client()
    got, body = await proxy.send("zz", client, rpc_id=5)
    assert (got.status, body["id"], body["error"]["data"][0]["reason"]) == (404, 5, "WORKSPACE_NOT_FOUND")
    for name in ("-x", "x" * 500, "%00", "..", "a%2Fb", "caf%C3%A9"):
        got, _ = await proxy.send(name, client)
        assert got.status == 404, name


OPEN_TO_ALL = {("GET", "/healthz"), ("GET", "/readyz"), ("GET", "/.well-known/jwks.json"), ("GET", "/openapi.json")}
OPEN_TO_CALLERS = {("GET", "/workspaces/{id}/queue")}
"""Of which a caller sees its own: nothing here."""


def doors(proxy: Harness) -> list[tuple[str, str]]:
    """Every administrative route there is, by method and pattern."""
    routes = proxy.app.server._application.router.routes()
    return [
        (route.method, route.resource.canonical)
        for route in routes
        if route.resource is not None and route.method != "HEAD"
    ]


async def test_no_door_but_health_opens_without_a_token_or_to_a_caller(proxy: Harness, nobody: str) -> None:
    await proxy.enroll("a", url=nobody)
    client = await proxy.client()
    before = rows(proxy.config.data)
    found = doors(proxy)
    assert len(found) > 10
    for method, pattern in found:
        path = re.sub(r"\{\w+\}", "x", pattern.replace("{id}", "a"))
        statuses = [(await proxy.call(method, path, token=token, json={}))[0].status for token in (None, STRANGER)]
        shown, body = await proxy.call(method, path, token=client, json={})
        if (method, pattern) in OPEN_TO_ALL:
            assert [*statuses, shown.status] == [200, 200, 200]
            continue
        # Where a stranger must not tell a hidden thing from an unknown one, both are 404.
        assert statuses in ([401, 401], [404, 404]), (method, pattern)
        if (method, pattern) in OPEN_TO_CALLERS:
            assert json.loads(body) == {"items": []}
        else:
            assert shown.status in {403, 404}, (method, pattern)
    assert rows(proxy.config.data) == before


# --- administrative bodies --------------------------------------------------------------------------------------------

TAKING = [
    ("PUT", "/workspaces/a"),
    ("PUT", "/workspaces/a/config"),
    ("POST", "/workspaces/a/heartbeat"),
    ("POST", "/workspaces/a/restarting"),
    ("POST", "/workspaces/a/restart"),
    ("POST", "/tokens"),
]
NO_OBJECT = {
    **{name: MALFORMED[name] for name in ("cut off", "two values", "not UTF-8", "NUL", "deep arrays", "deep objects")},
    "array": b"[]",
    "text": b'"url"',
    "number": b"1e999",
    "null": b"null",
    "lone surrogate": b'{"url": "\\ud800", "reason": "\\ud800", "kind": "\\ud800", "boot_id": "\\ud800"}',
}


@pytest.mark.parametrize(("method", "path"), TAKING)
async def test_a_body_that_is_no_object_of_ours_is_400_at_every_door_and_changes_nothing(
    proxy: Harness, nobody: str, method: str, path: str
) -> None:
    await proxy.enroll("a", url=nobody)
    before = rows(proxy.config.data)
    view = await look(proxy)
    for name, body in NO_OBJECT.items():
        got, answer = await proxy.call(method, path, data=body, headers=JSON)
        assert (got.status, got.headers["Content-Type"]) == (400, "application/json"), (name, answer)
        assert json.loads(answer)["error"]
    assert rows(proxy.config.data) == before
    assert await look(proxy) == view


@pytest.mark.parametrize(("method", "path"), TAKING)
async def test_an_administrative_body_that_is_too_long_is_413(
    proxy: Harness, nobody: str, method: str, path: str
) -> None:
    await proxy.enroll("a", url=nobody)
    long = io.BytesIO(b'{"reason": "' + b"x" * 1_048_576 + b'"}')
    got, answer = await proxy.call(method, path, data=long, headers=JSON)
    assert (got.status, json.loads(answer)["max_bytes"]) == (413, 1_048_576)


@pytest.mark.parametrize(
    ("body", "names"),
    [
        ({"urrl": "x"}, ["urrl"]),
        ({"url": 7}, ["url"]),
        ({"url": None}, ["url"]),
        ({"delivery_mode": "pull"}, ["delivery_mode"]),
        ({"max_concurrent": 0}, ["max_concurrent"]),
        ({"max_concurrent": 10**30}, ["max_concurrent"]),
        ({"max_concurrent": True}, ["max_concurrent"]),
        ({"dead_action": "pray"}, ["dead_action"]),
        ({"parent": "system x"}, ["parent"]),
        ({"policy": {"settle_hold": -1}}, ["settle_hold"]),
        ({"policy": {"settle_hold": "long"}}, ["settle_hold"]),
        ({"policy": {"settle_hold": 1e999}}, []),
        ({"policy": {"strikes": 10**30}}, ["strikes"]),
        ({"policy": {"preset": "fastest"}}, ["preset"]),
        ({"policy": {"setle_hold": 1}}, ["setle_hold"]),
        ({"hold_seconds": -1}, ["hold_seconds"]),
        ({"runtime": {"type": "abacus"}}, ["runtime.type"]),
        ({"runtime": "process"}, ["runtime"]),
        ({"probe": {"type": "crystal ball"}}, ["probe.type"]),
        ({"agent_card": []}, ["agent_card"]),
        ({"boot_id": ""}, ["boot_id"]),
        ({"parent": "a"}, ["parent"]),
        # Everything that is wrong is said at once.
        (
            {
                "url": "http://169.254.169.254/",
                "runtime": {"type": "process", "command": "ls", "cwd": "here", "colour": 1, "stop_grace": -1},
                "probe": {"type": "http", "colour": 1},
                "policy": {"settle_hold": 50, "settle_window": 20},
            },
            ["url: ", "runtime.command", "runtime.cwd", "runtime.colour", "runtime.stop_grace", "probe", "settle_hold"],
        ),
    ],
)
async def test_a_workspace_that_cannot_be_is_refused_with_every_reason_and_not_made(
    proxy: Harness, nobody: str, body: dict[str, Any], names: list[str]
) -> None:
    before = rows(proxy.config.data)
    text = json.dumps({"url": nobody, **body}).encode()
    got, answer = await proxy.call("PUT", "/workspaces/a", data=text, headers=JSON)
    assert got.status == 400, answer
    error = json.loads(answer)["error"]
    for name in names:
        assert name in error, (name, error)
    assert rows(proxy.config.data) == before
    assert (await proxy.call("GET", "/workspaces/a"))[0].status == 404


@pytest.mark.parametrize(
    "body", [{"policy": {"settle_hold": 50, "settle_window": 20}}, {"url": "http://10.0.0.1/"}, {"urrl": 1}]
)
async def test_a_change_that_cannot_be_leaves_the_workspace_as_it_was(
    proxy: Harness, nobody: str, body: dict[str, Any]
) -> None:
    await proxy.enroll("a", url=nobody, max_concurrent=3)
    before = rows(proxy.config.data)
    view = await look(proxy)
    for path in ("/workspaces/a", "/workspaces/a/config"):
        got, _ = await proxy.call("PUT", path, json={**body, "delivery_mode": "poll"})
        assert got.status == 400
    assert await look(proxy) == view
    assert rows(proxy.config.data) == before


@pytest.mark.parametrize(
    "name", ["system:x", "WebHook:y", "test:z", "channel:1", "-x", "x" * 129, "a%20b", "%C3%A9", "a%2Fb"]
)
async def test_an_id_that_there_cannot_be_is_refused(proxy: Harness, nobody: str, name: str) -> None:
    before = rows(proxy.config.data)
    got, _ = await proxy.call("PUT", f"/workspaces/{name}", json={"url": nobody})
    assert got.status == 400
    got, _ = await proxy.call("POST", "/tokens", json={"kind": "client", "name": unquote(name)})
    assert got.status == 400
    assert rows(proxy.config.data) == before


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "limit=many", "limit=-1", "limit=\u0661", "limit="])
async def test_a_limit_that_is_none_is_refused(proxy: Harness, nobody: str, query: str) -> None:
    await proxy.enroll("a", url=nobody)
    for path in ("/workspaces/a/queue", "/workspaces/a/decisions"):
        got, body = await proxy.call("GET", f"{path}?{query}")
        assert (got.status, "limit" in json.loads(body)["error"]) == (400, True)
    got, body = await proxy.call("GET", "/workspaces/a/queue?status=lost")
    assert (got.status, "queued" in json.loads(body)["error"]) == (400, True)
