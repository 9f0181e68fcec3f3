"""Bad input and a bad disk: a clear answer in the caller's own binding, nothing half-written, and no lasting harm."""

import asyncio
import io
import json
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from web.harness import V1, Harness, ScriptedAgent, send

CALL = "/workspaces/a/a2a"
STRANGER = "hf_" + "x" * 43
JSON = {"Content-Type": "application/json"}
DEEP = 100_000

Make = Callable[..., Any]


def rows(path: Path) -> dict[str, int]:
    """How many rows every table holds."""
    with closing(sqlite3.connect(path)) as database:
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {name: database.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0] for name in tables}  # noqa: S608 - names that the database itself gave


async def look(proxy: Harness) -> dict[str, Any]:
    """What the admin sees of workspace `a`, without what is the present moment."""
    _, body = await proxy.call("GET", "/workspaces/a")
    view: dict[str, Any] = json.loads(body)
    view["restart"].pop("next_allowed_at")
    return view


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


ROUTES = [
    ("GET", "/workspaces"),
    ("PUT", "/workspaces/b"),
    ("GET", "/workspaces/a"),
    ("DELETE", "/workspaces/a"),
    ("POST", "/workspaces/a/heartbeat"),
    ("POST", "/workspaces/a/restarting"),
    ("POST", "/workspaces/a/restart"),
    ("PUT", "/workspaces/a/config"),
    ("GET", "/workspaces/a/decisions"),
    ("GET", "/workspaces/a/queue"),
    ("GET", "/workspaces/a/queue/x"),
    ("POST", "/tokens"),
    ("GET", "/tokens"),
    ("DELETE", "/tokens/x"),
]


async def test_no_door_but_health_opens_without_a_token_or_to_a_caller(proxy: Harness, nobody: str) -> None:
    await proxy.enroll("a", url=nobody)
    client = await proxy.client()
    open_to_callers = {("GET", "/workspaces/a/queue")}  # of which a caller sees its own: nothing here
    before = rows(proxy.config.data)
    for method, path in ROUTES:
        for token in (None, STRANGER):
            got, _ = await proxy.call(method, path, token=token, json={})
            assert got.status == (404 if path.endswith("/queue/x") else 401), (method, path)
        got, body = await proxy.call(method, path, token=client, json={})
        if (method, path) in open_to_callers:
            assert json.loads(body) == {"items": []}
        else:
            assert got.status in {403, 404}, (method, path)
    assert rows(proxy.config.data) == before
    known = {(route.method, route.path) for route in _routes(proxy)} - {("GET", "/healthz"), ("GET", "/readyz")}
    asked = {(method, path) for method, path in ROUTES}
    assert len(known) == len(asked), "a door was added: say here who may open it"


def _routes(proxy: Harness) -> list[Any]:
    resources = proxy.app.server._application.router.routes()
    return [
        _Known(route.method, route.resource.canonical)
        for route in resources
        if route.resource is not None and route.method != "HEAD"
    ]


class _Known:
    def __init__(self, method: str, path: str) -> None:
        self.method = method
        self.path = path


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


@pytest.mark.parametrize("body", [{"policy": {"settle_hold": 50, "settle_window": 20}}, {"url": "http://10.0.0.1/"}, {"urrl": 1}])
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


@pytest.mark.parametrize("name", ["system:x", "WebHook:y", "test:z", "channel:1", "-x", "x" * 129, "a%20b", "%C3%A9", "a%2Fb"])
async def test_an_id_that_there_cannot_be_is_refused(proxy: Harness, nobody: str, name: str) -> None:
    before = rows(proxy.config.data)
    got, _ = await proxy.call("PUT", f"/workspaces/{name}", json={"url": nobody})
    assert got.status == 400
    got, _ = await proxy.call("POST", "/tokens", json={"kind": "client", "name": "x" * 129})
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


# --- a full or locked database ----------------------------------------------------------------------------------------


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the database's write lock, as somebody's backup or shell would."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        try:
            yield
        finally:
            other.execute("ROLLBACK")


async def allow_pages(proxy: Harness, pages: int) -> None:
    """Let the database grow up to so many pages; SQLite takes no fewer than there are."""
    connection: Any = proxy.app.store._connection  # type: ignore[attr-defined]  # where its writes happen
    await connection.execute(f"PRAGMA max_page_count = {pages}")


@asynccontextmanager
async def fault(proxy: Harness, kind: str) -> AsyncIterator[None]:
    """A database that commits nothing."""
    if kind == "locked":
        with locked(proxy.config.data):
            yield
        return
    await allow_pages(proxy, 1)
    try:
        yield
    finally:
        await allow_pages(proxy, 2**30)


@pytest.mark.parametrize("kind", ["locked", "full"])
async def test_scenario_33_a_database_that_cannot_commit_means_503_and_never_202_and_heals_by_itself(
    make: Make, agent: ScriptedAgent, kind: str
) -> None:
    proxy = await make(store__busy_timeout=0.05)
    await agent.stop()
    await proxy.enroll("a", url=agent.url, unmanaged_away="defer")
    client = await proxy.client()
    big = "x" * 200_000  # more than any free page holds
    before = rows(proxy.config.data)["deferrals"]
    async with fault(proxy, kind):
        answers = await asyncio.gather(
            *(proxy.send("a", client, message_id=f"m{number}", text=big, contextId=f"c{number}") for number in range(4))
        )
    for got, body in answers:
        assert (got.status, got.headers["Retry-After"]) == (503, "30")
        assert body["error"]["data"][0]["metadata"]["busy"] == "true"
        assert "Holdfast-Receipt" not in got.headers
    assert rows(proxy.config.data)["deferrals"] == before
    assert (await look(proxy))["queue_depth"] == 0
    # Nothing of what was refused stands in anybody's way: same ids, same contexts, and now they are kept.
    for number in range(4):
        got, _ = await proxy.send("a", client, message_id=f"m{number}", text=big, contextId=f"c{number}")
        assert got.status == 202
    await agent.start()
    await proxy.until(lambda: len(proxy.named("deferral.completed")) == 4)
    assert len(agent.seen) == 4


async def test_a_locked_database_changes_nothing_for_those_whose_agent_answers(
    make: Make, agent: ScriptedAgent
) -> None:
    proxy = await make(store__busy_timeout=0.05)
    await proxy.enroll("a", url=agent.url)
    client = await proxy.client()
    with locked(proxy.config.data):
        for number in range(3):
            got, _ = await proxy.send("a", client, message_id=f"m{number}")
            assert got.status == 200
        healthy, _ = await proxy.call("GET", "/healthz")
        ready, _ = await proxy.call("GET", "/readyz")
        assert (healthy.status, ready.status) == (200, 503)
    ready, _ = await proxy.call("GET", "/readyz")
    assert ready.status == 200


async def test_administrative_writes_to_a_locked_database_are_503_and_change_nothing(make: Make, nobody: str) -> None:
    proxy = await make(store__busy_timeout=0.05)
    await proxy.enroll("a", url=nobody)
    before = rows(proxy.config.data)
    writes = [
        ("PUT", "/workspaces/a", {"url": nobody + "/elsewhere"}),
        ("PUT", "/workspaces/b", {"url": nobody}),
        ("PUT", "/workspaces/a/config", {"data": {}}),
        ("DELETE", "/workspaces/a", {}),
        ("POST", "/workspaces/a/restarting", {}),
        ("POST", "/tokens", {"kind": "client", "name": "c"}),
    ]
    view = await look(proxy)
    with locked(proxy.config.data):
        for method, path, body in writes:
            got, answer = await proxy.call(method, path, json=body)
            assert got.status == 503, (method, path, answer)
            assert json.loads(answer)["busy"] is True
            assert int(got.headers["Retry-After"]) > 0
        assert await look(proxy) == view
        assert json.loads((await proxy.call("GET", "/tokens"))[1])["tokens"] != []
    assert rows(proxy.config.data) == before
    for method, path, body in writes:
        got, answer = await proxy.call(method, path, json=body)
        expected = 404 if method == "POST" and "/a/" in path else (200, 201, 202)
        assert got.status in (expected if isinstance(expected, tuple) else (expected,)), (method, path, answer)
    assert sum(rows(proxy.config.data).values()) > sum(before.values())


async def test_an_answer_that_cannot_be_stored_is_stored_later_and_the_agent_is_not_blamed(
    make: Make, agent: ScriptedAgent
) -> None:
    proxy = await make(store__busy_timeout=0.05, queue__lease=1)
    came, go = asyncio.Event(), asyncio.Event()
    plain = agent.handler

    async def slow(request: Any) -> Any:
        from aiohttp import web  # noqa: PLC0415 - one use
        from web.harness import completed  # noqa: PLC0415 - one use

        body = await request.read()
        came.set()
        await go.wait()
        return web.json_response(completed(body))

    assert plain is None
    agent.handler = slow
    await agent.stop()
    await proxy.enroll("a", url=agent.url, unmanaged_away="defer")
    client = await proxy.client()
    got, _ = await proxy.send("a", client)
    assert got.status == 202
    await agent.start()
    await came.wait()
    with locked(proxy.config.data):
        go.set()
        await proxy.until(lambda: bool(proxy.named("loop.failed")))
    await proxy.until(lambda: bool(proxy.named("deferral.completed")))
    _, body = await proxy.call("GET", got.headers["Location"], token=client)
    assert json.loads(body)["status"] == "completed"
    assert proxy.named("verdict")[1:] == []
