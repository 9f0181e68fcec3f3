"""A healthy call touches no disk, takes no lock, and is not even parsed: all of that is counted."""

import asyncio
import json
from typing import Any

import pytest
from aiohttp import web
from web.harness import V1, Harness, ScriptedAgent, completed, send

from proxy.core import a2a
from proxy.core.lifecycle import Status

CALL = "/workspaces/a/a2a"
NEVER = 3600
EVENTS = [f'data: {{"n": {number}}}\n\n'.encode() for number in range(10)]


class Counts:
    """What was done since `begin`: SQL statements, store calls, locks taken, work given to threads, bodies parsed."""

    def __init__(self) -> None:
        self.statements: list[str] = []
        self.calls: list[str] = []
        self.locks: list[str] = []
        self.threads: list[str] = []
        self.parsed: list[str] = []

    def begin(self) -> None:
        for counted in vars(self).values():
            counted.clear()

    @property
    def nothing(self) -> bool:
        return not any(vars(self).values())

    @property
    def nothing_but_parsing(self) -> bool:
        return not (self.statements or self.calls or self.locks or self.threads)

    def __repr__(self) -> str:
        return repr(vars(self))


@pytest.fixture
async def quiet(make: Any, monkeypatch: pytest.MonkeyPatch) -> Harness:
    """A proxy whose periodic work does not come in the way."""
    for sweep in ("LEASE_SWEEP", "EXPIRY_SWEEP", "RETENTION_SWEEP"):
        monkeypatch.setattr(f"proxy.app.{sweep}", NEVER)
    proxy: Harness = await make(beats__flush=60, health__sweep=NEVER, queue__sweep=NEVER, queue__lease=NEVER)
    return proxy


@pytest.fixture
async def counts(quiet: Harness, monkeypatch: pytest.MonkeyPatch) -> Counts:
    """Count from now on."""
    counted = Counts()
    store: Any = quiet.app.store
    for connection in (store._connection, store._reader):
        await connection.set_trace_callback(counted.statements.append)
    for name in dir(store):
        if not name.startswith("_"):
            _count(monkeypatch, store, name, counted.calls)
    for kind in (asyncio.Lock, asyncio.Semaphore):  # a condition takes its lock
        _count(monkeypatch, kind, "acquire", counted.locks)
    _count(monkeypatch, asyncio.get_running_loop(), "run_in_executor", counted.threads)
    _count(monkeypatch, a2a, "read", counted.parsed)
    return counted


def _count(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, into: list[str]) -> None:
    """Let every call of a function leave its name."""
    function = getattr(owner, name)

    def called(*args: Any, **kwargs: Any) -> Any:
        into.append(f"{getattr(owner, '__name__', type(owner).__name__)}.{name}")
        return function(*args, **kwargs)

    monkeypatch.setattr(owner, name, called)


async def answer(request: web.Request) -> web.StreamResponse:
    """Answer a send at once, and a stream with ten events."""
    body = await request.read()
    if json.loads(body)["method"] == "SendMessage":
        return web.json_response(completed(body))
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    for event in EVENTS:
        await response.write(event)
    return response


async def test_a_hundred_healthy_calls_and_a_stream_touch_no_store_take_no_lock_and_are_not_parsed(
    quiet: Harness, agent: ScriptedAgent, counts: Counts
) -> None:
    agent.handler = answer
    token = await quiet.enroll("a", url=agent.url)
    client = await quiet.client()
    await quiet.call("POST", "/workspaces/a/heartbeat", token=token, json={"status": "ready"})
    assert (await quiet.send("a", client, message_id="warm"))[0].status == 200
    assert counts.statements, "they are counted"
    assert counts.calls, "they are counted"
    counts.begin()
    for number in range(100):
        got, said = await quiet.send("a", client, message_id=f"m{number}", contextId="talk")
        assert (got.status, said["result"]["task"]["id"]) == (200, f"up-m{number}")
    stream = {**send("s"), "method": "SendStreamingMessage"}
    got, body = await quiet.call("POST", CALL, token=client, headers=V1, json=stream)
    assert (got.status, body) == (200, b"".join(EVENTS))
    got, body = await quiet.call("GET", f"{CALL}/.well-known/agent-card.json", token=client)
    assert got.status == 200
    assert counts.nothing, counts
    refused, _ = await quiet.call("POST", CALL, token="hf_" + "z" * 43, headers=V1, json=send())
    assert refused.status == 401
    assert counts.nothing_but_parsing, counts


async def test_a_beat_that_changes_nothing_writes_nothing_before_the_flush(quiet: Harness, counts: Counts) -> None:
    token = await quiet.enroll("a", url="http://127.0.0.1:9", delivery_mode="poll")
    beat = {"status": "ready", "boot_id": "b1", "active_tasks": 1}
    assert (await quiet.call("POST", "/workspaces/a/heartbeat", token=token, json=beat))[0].status == 200
    counts.begin()
    for _ in range(20):
        assert (await quiet.call("POST", "/workspaces/a/heartbeat", token=token, json=beat))[0].status == 200
    assert counts.nothing, counts
    await quiet.app.beats.flush()
    assert counts.calls == ["SqliteStore.record_signs"]


async def test_calls_to_a_workspace_with_deferrals_read_the_store_only_where_they_concern_one(
    quiet: Harness, agent: ScriptedAgent, counts: Counts
) -> None:
    """A context that waits is known from memory: only a send that belongs to it meets the store."""
    await agent.stop()
    await quiet.enroll("a", url=agent.url, unmanaged_away="defer")
    client = await quiet.client()
    assert (await quiet.send("a", client, message_id="m1", contextId="waits"))[0].status == 202
    route = quiet.app.routing.get("a")
    assert route is not None
    quiet.app.replayer._stopping = True  # so that it goes on waiting
    agent.handler = answer
    await agent.start()
    assert (await quiet.send("a", client, message_id="warm", contextId="other"))[0].status == 200
    await quiet.until(lambda: route.workspace.status is Status.READY)
    counts.begin()
    for number in range(10):
        got, _ = await quiet.send("a", client, message_id=f"n{number}", contextId="other")
        assert got.status == 200
    assert len(counts.parsed) == 10
    assert counts.nothing_but_parsing, counts
    assert (await quiet.send("a", client, message_id="m2", contextId="waits"))[0].status == 202
    assert "SqliteStore.enqueue" in counts.calls
