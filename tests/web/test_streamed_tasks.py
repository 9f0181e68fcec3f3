"""Streams about deferred tasks that are passed on, and tasks that are being told."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from web.dialects import JSONRPC, NEW, Dialect, Request
from web.harness import Harness, ScriptedAgent
from web.task_agent import TaskAgent
from web.test_deferred_tasks import Scene


@pytest.fixture(params=NEW, ids=str)
async def scene(proxy: Harness, agent: ScriptedAgent, request: pytest.FixtureRequest) -> Scene:
    dialect: Dialect = request.param
    await proxy.enroll("a", url=agent.url, unmanaged_away="defer")
    return Scene(proxy, TaskAgent(agent, dialect), dialect, await proxy.client())


async def streamed(
    scene: Scene, request: Request, step: Callable[[], Any], chunks: list[bytes] | None = None
) -> list[dict[str, Any]]:
    """The events that came, one step of the agent's before each."""
    found: list[dict[str, Any]] = []
    url = f"{scene.proxy.url}/workspaces/a/a2a{request.tail}"
    headers = {**request.headers, "Authorization": f"Bearer {scene.token}"}
    async with aiohttp.ClientSession() as session, session.post(url, data=request.body, headers=headers) as got:
        assert got.headers["Content-Type"].startswith("text/event-stream")
        step()
        async for line in got.content:
            if chunks is not None:
                chunks.append(line)
            if line.startswith(b"data:"):
                event = json.loads(line[5:])
                found.append(event.get("result", event))
                step()
    return found


async def test_a_stream_about_a_deferred_task_is_passed_on_event_by_event_under_the_callers_id(scene: Scene) -> None:
    task = await scene.deferred("ask", contextId="talk")
    (theirs,) = scene.agent.ids
    chunks: list[bytes] = []
    request = scene.dialect.send("blue", "m2", stream=True, taskId=task.id)
    events = await streamed(scene, request, lambda: scene.agent.steps.put_nowait(None), chunks)
    names = [next(iter(event.values())) for event in events]
    assert [(event["taskId"], event["contextId"]) for event in names] == [(task.id, "talk")] * 3
    assert names[1]["artifact"] == {
        "artifactId": "a",
        "parts": [{"text": f"{theirs} in a text"}],
        "metadata": {"taskId": theirs},
    }
    assert chunks.count(b": quiet\r\n") == 3
    assert chunks.count(b"event: message\r\n") == 3
    scene.agent.forget()
    found = await scene.get(task.id)
    assert (found.state, found.task["artifacts"][0]["artifactId"]) == ("completed", "a")
    assert [op for op, _ in scene.agent.heard if op == "get"] == []


async def test_a_stream_that_names_no_deferred_task_is_not_touched(proxy: Harness, agent: ScriptedAgent) -> None:
    await proxy.enroll("a", url=agent.url)
    scene = Scene(proxy, TaskAgent(agent, JSONRPC), JSONRPC, await proxy.client())
    events = await streamed(scene, JSONRPC.send("hello", "m1", stream=True), lambda: scene.agent.steps.put_nowait(None))
    assert events[0]["statusUpdate"]["taskId"] == scene.agent.ids[0]


async def test_half_an_event_of_a_stream_that_broke_is_forgotten_when_it_goes_on(
    make: Callable[..., Awaitable[Harness]], agent: ScriptedAgent
) -> None:
    proxy = await make(defaults__hold_seconds=10)
    await proxy.enroll("a", url=agent.url, unmanaged_away="defer")
    scene = Scene(proxy, TaskAgent(agent, JSONRPC), JSONRPC, await proxy.client())
    task = await scene.deferred("ask")
    (theirs,) = scene.agent.ids

    async def answer(request: web.Request) -> web.StreamResponse:
        body = await request.read()
        if b"SubscribeToTask" in body:
            return web.Response(status=501)
        operation, _, rpc_id = JSONRPC.heard(request.raw_path, body)
        if operation == "get":
            scene.agent.finish(theirs)
            return web.json_response(JSONRPC.answer(scene.agent.tasks[theirs], rpc_id, sent=False))
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        update = {"taskId": theirs, "contextId": "c", "status": {"state": "TASK_STATE_WORKING"}}
        event = json.dumps({"jsonrpc": "2.0", "id": rpc_id, "result": {"statusUpdate": update}}).encode()
        await response.write(b"data: " + event + b"\n\n" + b"data: " + event[:40])
        assert request.transport is not None
        request.transport.close()
        return response

    agent.handler = answer
    events = await streamed(scene, JSONRPC.send("blue", "m2", stream=True, taskId=task.id), lambda: None)
    states = [event["statusUpdate"]["status"]["state"] for event in events]
    assert (states[0], states[-1]) == ("TASK_STATE_WORKING", "TASK_STATE_COMPLETED")
    assert {event["statusUpdate"]["taskId"] for event in events} == {task.id}


@pytest.mark.parametrize("dialect", NEW, ids=str)
async def test_a_task_that_is_being_told_is_canceled_by_its_agent_at_once(
    proxy: Harness, agent: ScriptedAgent, dialect: Dialect
) -> None:
    """The replay is a stream: the agent has named its task, and goes on with it."""
    card = {"name": "scripted", "capabilities": {"streaming": True}, "skills": [], "url": agent.url}
    await proxy.enroll("a", url=agent.url, unmanaged_away="defer", agent_card=card)
    scene = Scene(proxy, TaskAgent(agent, dialect), dialect, await proxy.client())
    await scene.leave()
    task = await scene.send("work")
    await agent.start()
    scene.agent.steps.put_nowait(None)

    await scene.agent.came.wait()
    deferral = await proxy.app.store.deferral_of_task("a", task.id)
    assert deferral is not None
    with proxy.app.followers.follow(deferral.id) as following:
        while (await scene.get(task.id)).state != "working":
            assert await following.news(10)
    assert [op for op, _ in scene.agent.heard] == ["stream"]
    canceled = await scene.cancel(task.id)
    assert (canceled.id, canceled.state) == (task.id, "canceled")
    assert scene.agent.heard[-1] == ("cancel", {"id": scene.agent.ids[0]})
    assert scene.ended == 0
    for _ in range(2):
        scene.agent.steps.put_nowait(None)
    await proxy.until(lambda: scene.ended == 1)
