"""A slow call is not a broken call: deadlines, clients that leave, and a proxy that stops."""

import asyncio
import json
from typing import Any

import pytest
from aiohttp import web
from web.harness import V1, Harness, ScriptedAgent, completed, get_task, send

CALL = "/workspaces/a/a2a"


class Slow:
    """An agent's handler that answers when it is told to."""

    def __init__(self) -> None:
        self.came = asyncio.Event()
        self.go = asyncio.Event()
        self.calls = 0

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        if json.loads(body)["method"] != "SendMessage":
            return web.json_response({"jsonrpc": "2.0", "id": 1, "error": {"code": -32001, "message": "no"}})
        self.calls += 1
        self.came.set()
        if self.calls == 1:
            await self.go.wait()
        return web.json_response(completed(body))


@pytest.fixture
async def slow(agent: ScriptedAgent) -> Slow:
    agent.handler = Slow()
    return agent.handler


async def result_of(proxy: Harness, token: str, task_id: str) -> dict[str, Any]:
    """What GetTask says."""
    _, body = await proxy.call("POST", CALL, token=token, headers=V1, json=get_task(task_id))
    return json.loads(body)["result"]


@pytest.mark.parametrize("header", [{"X-Timeout": "1"}, {"Prefer": "wait=1"}, {"Prefer": "wait=1, respond-async"}])
async def test_a_call_that_outlives_its_callers_patience_is_adopted_and_completes(
    proxy: Harness, agent: ScriptedAgent, slow: Slow, header: dict[str, str]
) -> None:
    await proxy.enroll("a", url=agent.url)
    client = await proxy.client()
    got, said = await proxy.send("a", client, message_id="m1", contextId="talk", headers=header)
    task = said["result"]["task"]
    assert got.status == 202
    assert got.headers["Holdfast-Verdict"] == "alive; rule=slow_call"
    _, body = await proxy.call("GET", got.headers["Location"], token=client)
    view = json.loads(body)
    assert (view["status"], view["redelivery"]) == ("leased", "no")
    # It blocks nobody of its context while its call is open, and a retry joins it.
    other, _ = await proxy.send("a", client, message_id="m2", contextId="talk")
    assert other.status == 200
    again, _ = await proxy.send("a", client, message_id="m1", contextId="talk")
    assert again.headers["Holdfast-Receipt"] == got.headers["Holdfast-Receipt"]
    slow.go.set()
    await proxy.until(lambda: bool(proxy.named("deferral.completed")))
    assert (await result_of(proxy, client, task["id"]))["artifacts"][0]["parts"][0]["text"] == "did m1"
    assert slow.calls == 2


async def test_a_deadline_on_what_cannot_be_deferred_is_504(proxy: Harness, agent: ScriptedAgent, slow: Slow) -> None:
    await proxy.enroll("a", url=agent.url)
    stream = {**send(), "method": "SendStreamingMessage"}

    async def never(_: web.Request) -> web.StreamResponse:
        await slow.go.wait()
        return web.Response()

    agent.handler = never
    got, body = await proxy.call("POST", CALL, headers={**V1, "X-Timeout": "1"}, json=stream)
    error = json.loads(body)["error"]["data"][0]
    assert (got.status, error["reason"], error["metadata"]["delivered"]) == (504, "DEADLINE_EXCEEDED", "maybe")
    slow.go.set()


@pytest.mark.parametrize("value", ["0", "soon", "-1", "", "1.5", "9" * 5000])
async def test_a_deadline_that_is_no_whole_number_above_0_is_none(
    proxy: Harness, agent: ScriptedAgent, value: str
) -> None:
    await proxy.enroll("a", url=agent.url)
    got, _ = await proxy.send("a", await proxy.client(), headers={"X-Timeout": value})
    assert got.status == 200


async def test_a_call_whose_client_left_is_adopted_and_a_retry_finds_its_answer(
    proxy: Harness, agent: ScriptedAgent, slow: Slow
) -> None:
    await proxy.enroll("a", url=agent.url)
    client = await proxy.client()
    leaving = asyncio.create_task(proxy.send("a", client, message_id="m1"))
    await slow.came.wait()
    leaving.cancel()
    await proxy.until(lambda: bool(proxy.named("deferral.queued")))
    slow.go.set()
    await proxy.until(lambda: bool(proxy.named("deferral.completed")))
    got, said = await proxy.send("a", client, message_id="m1", rpc_id="again")
    assert (got.status, said["id"]) == (200, "again")
    assert said["result"]["task"]["artifacts"][0]["parts"][0]["text"] == "did m1"
    assert slow.calls == 1


async def test_an_adopted_call_that_breaks_is_queued_again_and_marked(proxy: Harness, agent: ScriptedAgent) -> None:
    came, go = asyncio.Event(), asyncio.Event()

    async def break_once(request: web.Request) -> web.Response:
        body = await request.read()
        if len(agent.seen) == 1:
            came.set()
            await go.wait()
            assert request.transport is not None
            request.transport.abort()
        return web.json_response(completed(body))

    agent.handler = break_once
    await proxy.enroll("a", url=agent.url)
    client = await proxy.client()
    got, _ = await proxy.send("a", client, headers={"X-Timeout": "1"})
    go.set()
    await proxy.until(lambda: bool(proxy.named("deferral.completed")))
    _, body = await proxy.call("GET", got.headers["Location"], token=client)
    view = json.loads(body)
    assert (view["status"], view["redelivery"], view["attempts"]) == ("completed", "maybe", 1)
    assert agent.seen[1][2]["Holdfast-Redelivery"] == "maybe"


async def test_a_call_that_broke_is_not_adopted_any_more_while_its_workspace_is_judged(
    proxy: Harness, agent: ScriptedAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def break_once(request: web.Request) -> web.Response:
        body = await request.read()
        if len(agent.seen) == 1:
            assert request.transport is not None
            request.transport.abort()
        return web.json_response(completed(body))

    judging, go, ask = asyncio.Event(), asyncio.Event(), proxy.app.gate.ask

    async def slowly(*words: Any, **more: Any) -> Any:
        judging.set()
        await go.wait()
        return await ask(*words, **more)

    monkeypatch.setattr(proxy.app.gate, "ask", slowly)
    agent.handler = break_once
    await proxy.enroll("a", url=agent.url, unmanaged_away="defer")
    client = await proxy.client()
    impatient = asyncio.create_task(proxy.send("a", client, message_id="m1", headers={"X-Timeout": "3"}))
    await judging.wait()
    assert not (await asyncio.wait({impatient}, timeout=3.2))[0]
    go.set()
    got, _ = await impatient
    assert (got.status, got.headers["Holdfast-Verdict"] == "alive; rule=slow_call") == (202, False)
    await proxy.until(lambda: bool(proxy.named("deferral.completed")))
    assert [headers.get("Holdfast-Redelivery") for _, _, headers, _ in agent.seen] == [None, "maybe"]


async def test_an_adopted_call_that_breaks_is_a_dead_letter_where_nothing_is_sent_twice(
    proxy: Harness, agent: ScriptedAgent
) -> None:
    go = asyncio.Event()

    async def break_off(request: web.Request) -> web.Response:
        await go.wait()
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    agent.handler = break_off
    await proxy.enroll("a", url=agent.url, redelivery="never")
    client = await proxy.client()
    _, said = await proxy.send("a", client, headers={"X-Timeout": "1"})
    go.set()
    await proxy.until(lambda: bool(proxy.named("deferral.dead_lettered")))
    status = (await result_of(proxy, client, said["result"]["task"]["id"]))["status"]
    assert status["state"] == "TASK_STATE_FAILED"
    assert "redelivery is never" in status["message"]["parts"][0]["text"]
    assert len(agent.seen) == 1


async def test_a_stop_defers_the_open_calls_that_did_not_end_in_time(
    proxy: Harness, agent: ScriptedAgent, slow: Slow
) -> None:
    await proxy.enroll("a", url=agent.url)
    client = await proxy.client()
    call = asyncio.create_task(proxy.send("a", client, message_id="m1"))
    await slow.came.wait()
    await proxy.app.stop(drain=0.05)
    got, said = await call
    assert got.status == 202
    assert got.headers["Holdfast-Verdict"] == "busy; rule=stopping"
    slow.go.set()
    await proxy.start()
    await proxy.until(lambda: bool(proxy.named("deferral.completed")))
    done = await result_of(proxy, client, said["result"]["task"]["id"])
    assert done["status"]["state"] == "TASK_STATE_COMPLETED"
    assert [headers.get("Holdfast-Redelivery") for _, _, headers, _ in agent.seen] == [None, "maybe"]


async def test_a_stop_puts_nothing_away_that_would_have_to_be_sent_twice_where_nothing_is(
    proxy: Harness, agent: ScriptedAgent, slow: Slow
) -> None:
    await proxy.enroll("a", url=agent.url, redelivery="never")
    call = asyncio.create_task(proxy.send("a", await proxy.client(), message_id="m1"))
    await slow.came.wait()
    await proxy.app.stop(drain=0.05)
    got, said = await call
    slow.go.set()
    error = said["error"]["data"][0]
    assert (got.status, error["reason"], error["metadata"]["delivered"]) == (502, "CALL_BROKEN", "maybe")
    assert proxy.named("deferral.queued") == []


@pytest.mark.parametrize("redelivery", ["never", "always"])
async def test_a_call_that_was_adopted_when_its_proxy_ended_is_sent_again_only_where_that_is_allowed(
    proxy: Harness, agent: ScriptedAgent, slow: Slow, redelivery: str
) -> None:
    await proxy.enroll("a", url=agent.url, redelivery=redelivery)
    client = await proxy.client()
    _, said = await proxy.send("a", client, headers={"X-Timeout": "1"})
    await proxy.app.stop(drain=0.05)
    slow.go.set()
    await proxy.start()
    await proxy.until(lambda: bool(proxy.named("deferral.completed") or proxy.named("deferral.dead_lettered")))
    status = (await result_of(proxy, client, said["result"]["task"]["id"]))["status"]
    if redelivery == "always":
        assert (status["state"], len(agent.seen)) == ("TASK_STATE_COMPLETED", 2)
        return
    assert (status["state"], len(agent.seen)) == ("TASK_STATE_FAILED", 1)
    assert "redelivery is never: the proxy that held the lease is gone" in status["message"]["parts"][0]["text"]
    # An admin who has it driven again decides otherwise, knowingly.
    receipt = proxy.named("deferral.dead_lettered")[0].receipt
    driven, _ = await proxy.call("POST", f"/queue/{receipt}/redrive")
    assert driven.status == 200
    await proxy.until(lambda: bool(proxy.named("deferral.completed")))
    assert [headers.get("Holdfast-Redelivery") for _, _, headers, _ in agent.seen] == [None, "maybe"]


async def test_a_stop_lets_a_call_end_that_can(proxy: Harness, agent: ScriptedAgent, slow: Slow) -> None:
    await proxy.enroll("a", url=agent.url)
    client = await proxy.client()
    call = asyncio.create_task(proxy.send("a", client, message_id="m1"))
    await slow.came.wait()
    stopping = asyncio.create_task(proxy.app.stop(drain=10))
    slow.go.set()
    got, _ = await call
    await stopping
    assert got.status == 200


async def test_silence_for_the_whole_idle_window_is_not_sent_twice_unless_always(
    make: Any, agent: ScriptedAgent, slow: Slow
) -> None:
    proxy = await make(upstream__idle_timeout=0.1)
    await proxy.enroll("a", url=agent.url)
    got, said = await proxy.send("a", await proxy.client())
    slow.go.set()
    assert got.status == 502
    assert said["error"]["data"][0]["metadata"]["delivered"] == "maybe"
    assert slow.calls == 1


async def test_scenario_37_heartbeats_keep_a_silent_call_open_and_without_progress_they_do_not(
    make: Any, agent: ScriptedAgent, slow: Slow
) -> None:
    proxy = await make(upstream__idle_timeout=0.3)
    token = await proxy.enroll("a", url=agent.url)
    client = await proxy.client()
    call = asyncio.create_task(proxy.send("a", client, message_id="m1"))
    await slow.came.wait()
    loop = asyncio.get_running_loop()
    begun = loop.time()
    while loop.time() - begun < 0.7:
        await proxy.call("POST", "/workspaces/a/heartbeat", token=token, json={})
    slow.go.set()
    got, _ = await call
    assert got.status == 200
    slow.calls = 0
    slow.go.clear()
    slow.came.clear()
    await proxy.call("POST", "/workspaces/a/heartbeat", token=token, json={"progress": 7})
    call = asyncio.create_task(proxy.send("a", client, message_id="m2"))
    while not call.done():
        await proxy.call("POST", "/workspaces/a/heartbeat", token=token, json={"progress": 7})
    got, _ = await call
    slow.go.set()
    assert got.status == 502
