"""Canceling deferred tasks while a message to them is being tried."""

import asyncio
from typing import Any

import pytest
from web.dialects import JSONRPC, JSONRPC_OLD
from web.harness import Harness, ScriptedAgent
from web.pollers import until
from web.task_agent import TaskAgent
from web.test_deferred_tasks import TASK_NOT_CANCELABLE, Scene


async def test_a_task_that_is_being_tried_is_canceled_when_its_agent_names_it_or_is_not(
    proxy: Harness, agent: ScriptedAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.loops.tasks.CANCEL_WAIT", 0.2)
    await proxy.enroll("a", url=agent.url, unmanaged_away="defer")
    scene = Scene(proxy, TaskAgent(agent, JSONRPC_OLD), JSONRPC_OLD, await proxy.client())
    await scene.leave()
    task = await scene.send("work")
    scene.agent.held = asyncio.Event()
    await agent.start()
    await scene.agent.came.wait()
    assert (await scene.cancel(task.id)).error == TASK_NOT_CANCELABLE
    monkeypatch.setattr("proxy.loops.tasks.CANCEL_WAIT", 20.0)
    waiting = asyncio.create_task(scene.cancel(task.id))
    scene.agent.held.set()
    assert (await waiting).state == "canceled"
    assert [op for op, _ in scene.agent.heard] == ["send", "cancel"]


async def test_a_cancel_that_crosses_the_agents_answer_is_the_agents_to_answer(
    proxy: Harness, agent: ScriptedAgent
) -> None:
    await proxy.enroll("a", url=agent.url, unmanaged_away="defer")
    scene = Scene(proxy, TaskAgent(agent, JSONRPC), JSONRPC, await proxy.client())
    await scene.leave()
    task = await scene.send("work")
    crossed = await proxy.app.store.deferral_of_task("a", task.id)
    route = proxy.app.routing.get("a")
    assert crossed is not None
    assert route is not None
    await scene.come_back()
    found = await proxy.app.tasks.cancel(route, crossed)
    assert (found.at_agent, found.withdrawn, found.deferral.state) == (True, False, "completed")


async def test_a_task_whose_next_message_is_just_being_tried_in_vain_is_canceled_with_it(
    proxy: Harness, agent: ScriptedAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    await proxy.enroll("a", url=agent.url, unmanaged_away="defer")
    scene = Scene(proxy, TaskAgent(agent, JSONRPC), JSONRPC, await proxy.client())
    monkeypatch.setattr("proxy.loops.tasks.DIALLING", 20.0)
    monkeypatch.setattr("proxy.loops.tasks.CANCEL_WAIT", 20.0)
    task = await scene.deferred("ask")
    await scene.leave()
    send, trying, go = proxy.app.replayer._tries.send, asyncio.Event(), asyncio.Event()

    async def slowly(*said: Any) -> Any:
        trying.set()
        await go.wait()
        return await send(*said)

    monkeypatch.setattr(proxy.app.replayer._tries, "send", slowly)
    await scene.send("blue", taskId=task.id)
    await trying.wait()
    canceling = asyncio.create_task(scene.cancel(task.id))
    latest = await proxy.app.store.deferral_of_task("a", task.id)
    assert latest is not None
    await until(lambda: latest.id in proxy.app.deferring.followers)
    go.set()
    assert (await canceling).state == "canceled"
    assert [op for op, _ in scene.agent.heard] == ["send"]
