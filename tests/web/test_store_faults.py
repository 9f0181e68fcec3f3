"""A full or locked database: never a 202 before the commit, nothing half-written, and it heals without a hand."""

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from web.harness import Harness, ScriptedAgent, completed
from web.looking import look, rows

Make = Callable[..., Any]


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

    async def slow(request: web.Request) -> web.Response:
        body = await request.read()
        came.set()
        await go.wait()
        return web.json_response(completed(body))

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


@pytest.mark.parametrize("kind", ["locked", "full"])
async def test_a_call_that_broke_and_cannot_be_put_away_says_that_the_agent_may_have_it(
    make: Make, agent: ScriptedAgent, kind: str
) -> None:
    proxy = await make(store__busy_timeout=0.05)

    async def break_off(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    agent.handler = break_off
    await proxy.enroll("a", url=agent.url)
    client = await proxy.client()
    async with fault(proxy, kind):
        got, body = await proxy.send("a", client, text="x" * 200_000)
    metadata = body["error"]["data"][0]["metadata"]
    assert (got.status, got.headers["Retry-After"]) == (503, "30")
    assert (metadata["busy"], metadata["delivered"]) == ("true", "maybe")
    assert rows(proxy.config.data)["deferrals"] == 0


async def test_a_slow_call_that_cannot_be_adopted_says_that_the_agent_may_have_it(
    make: Make, agent: ScriptedAgent
) -> None:
    proxy = await make(store__busy_timeout=0.05)
    go = asyncio.Event()

    async def slow(request: web.Request) -> web.Response:
        body = await request.read()
        await go.wait()
        return web.json_response(completed(body))

    agent.handler = slow
    await proxy.enroll("a", url=agent.url)
    client = await proxy.client()
    with locked(proxy.config.data):
        got, body = await proxy.send("a", client, headers={"X-Timeout": "1"})
    go.set()
    metadata = body["error"]["data"][0]["metadata"]
    assert (got.status, got.headers["Retry-After"]) == (503, "30")
    assert (metadata["busy"], metadata["delivered"]) == ("true", "maybe")
    assert len(agent.seen) == 1


async def test_what_was_written_by_a_clock_that_was_ahead_holds_nothing_up_once_it_is_right_again(
    make: Make, agent: ScriptedAgent
) -> None:
    proxy = await make()
    await agent.stop()
    await proxy.enroll("a", url=agent.url, unmanaged_away="defer")
    client = await proxy.client()
    got, _ = await proxy.send("a", client)
    assert got.status == 202
    await proxy.app.stop(drain=0)
    with closing(sqlite3.connect(proxy.config.data, isolation_level=None)) as database:
        database.execute("UPDATE deferrals SET next_attempt_at = next_attempt_at + 3600000000, gateway_since = NULL")
        database.execute("UPDATE workspaces SET started_at = created_at + 3600000000")
    await agent.start()
    await proxy.start()
    await proxy.until(lambda: bool(proxy.named("deferral.completed")))
    assert len(agent.seen) == 1
    assert json.loads((await proxy.call("GET", "/workspaces/a"))[1])["status"] != "starting"
    assert [event.fields["kind"] for event in proxy.named("clock.jumped")] == ["backward"]
