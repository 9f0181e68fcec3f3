"""The A2A SDK's own clients, of v1.0 and v0.3, through a Holdfast process to agents on the SDK's own server."""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from a2a.client import Client
from a2a.helpers import get_artifact_text
from a2a.types import (
    CancelTaskRequest,
    GetTaskRequest,
    Message,
    Part,
    Role,
    SendMessageRequest,
    StreamResponse,
    Task,
    TaskState,
)
from a2a.utils.errors import A2AError, TaskNotCancelableError
from chaos.waiting import until
from e2e.serving import PATIENCE, ROOT, free_port
from integration.conftest import Scene

pytestmark = pytest.mark.asyncio(loop_scope="module")

SUBMITTED = TaskState.TASK_STATE_SUBMITTED
COMPLETED = TaskState.TASK_STATE_COMPLETED
CANCELED = TaskState.TASK_STATE_CANCELED


def message(text: str, message_id: str = "m1", **more: Any) -> SendMessageRequest:
    """What a client sends."""
    said = Message(message_id=message_id, role=Role.ROLE_USER, parts=[Part(text=text)], **more)
    return SendMessageRequest(message=said)


async def events(client: Client, request: SendMessageRequest) -> list[StreamResponse]:
    """Everything that comes back for one message."""
    return [event async for event in client.send_message(request)]


async def task_for(client: Client, request: SendMessageRequest) -> Task:
    """The task that a message is answered with, where there is nothing else."""
    (event,) = await events(client, request)
    assert event.HasField("task"), event
    return event.task


async def now(client: Client, task: Task) -> Task:
    """What the task is now."""
    return await client.get_task(GetTaskRequest(id=task.id))


def text_of(task: Task) -> str:
    """What the agent made of it."""
    return "".join(get_artifact_text(artifact) for artifact in task.artifacts)


async def test_a_card_that_was_fetched_through_the_proxy_leads_back_to_it(scene: Scene, version: str) -> None:
    client = await scene.client()
    card = client._card  # type: ignore[attr-defined]  # there is no public way to it
    assert [interface.url.rstrip("/") for interface in card.supported_interfaces] == [scene.address(scene.name)]
    assert [interface.protocol_version for interface in card.supported_interfaces] == [version]
    assert card.name == "scripted"


async def test_a_message_to_a_healthy_agent_is_answered_by_the_agent_itself(scene: Scene) -> None:
    client = await scene.client()
    task = await task_for(client, message("hello", context_id="talk"))
    assert (task.status.state, text_of(task), task.context_id) == (COMPLETED, "echo: hello", "talk")
    assert scene.agent.executor.executed == [("m1", task.id)]
    assert (await now(client, task)).status.state == COMPLETED
    assert scene.proxy.named("deferral.queued", workspace=scene.name) == []


async def test_a_healthy_agents_stream_reaches_the_client_event_by_event(scene: Scene) -> None:
    client = await scene.client(streaming=True)
    seen: list[str] = []
    async for event in client.send_message(message("stream")):
        if event.HasField("task"):
            seen.append(TaskState.Name(event.task.status.state))
        elif event.HasField("artifact_update"):
            seen.append(get_artifact_text(event.artifact_update.artifact))
        else:
            seen.append(TaskState.Name(event.status_update.status.state))
        scene.agent.go()  # the agent makes the next event only after this one was seen
    assert seen == ["TASK_STATE_WORKING", "piece 1", "piece 2", "TASK_STATE_COMPLETED"]


async def test_a_message_to_an_absent_agent_is_a_submitted_task_that_its_client_follows_to_the_end(
    scene: Scene,
) -> None:
    client = await scene.client()
    await scene.agent.stop()
    task = await task_for(client, message("hello"))
    assert task.status.state == SUBMITTED
    assert task.context_id
    assert (await now(client, task)).status.state == SUBMITTED
    await scene.revive_proxy()
    known = await now(client, task)
    assert (known.id, known.context_id, known.status.state) == (task.id, task.context_id, SUBMITTED)
    assert scene.agent.executor.executed == []
    await scene.agent.start()
    await scene.completed()
    done = await now(client, task)
    assert (done.id, done.context_id, done.status.state) == (task.id, task.context_id, COMPLETED)
    assert text_of(done) == "echo: hello"
    await scene.revive_proxy()
    await scene.agent.stop()
    assert text_of(await now(client, task)) == "echo: hello"
    ((message_id, upstream_id),) = scene.agent.executor.executed
    assert message_id == "m1"
    assert upstream_id != task.id


async def test_messages_of_one_context_are_done_in_the_order_in_which_they_were_sent(scene: Scene) -> None:
    client = await scene.client()
    await scene.agent.stop()
    names = [f"m{number}" for number in range(4)]
    for name in names:
        await task_for(client, message(name, name, context_id="talk"))
    await scene.agent.start()
    await scene.completed(len(names))
    assert [name for name, _ in scene.agent.executor.executed] == names


async def test_a_task_that_is_canceled_before_it_was_delivered_never_runs(scene: Scene) -> None:
    client = await scene.client()
    await scene.agent.stop()
    task = await task_for(client, message("never", "m1", context_id="talk"))
    other = await task_for(client, message("later", "m2", context_id="talk"))
    canceled = await client.cancel_task(CancelTaskRequest(id=task.id))
    assert (canceled.id, canceled.status.state) == (task.id, CANCELED)
    assert (await now(client, task)).status.state == CANCELED
    with pytest.raises(TaskNotCancelableError):
        await client.cancel_task(CancelTaskRequest(id=task.id))
    await scene.agent.start()
    await scene.completed()
    assert (await now(client, other)).status.state == COMPLETED
    assert (await now(client, task)).status.state == CANCELED
    assert [name for name, _ in scene.agent.executor.executed] == ["m2"]


async def test_a_task_that_was_deferred_goes_on_under_its_first_id(scene: Scene) -> None:
    client = await scene.client()
    await scene.agent.stop()
    task = await task_for(client, message("ask"))
    await scene.agent.start()
    await scene.completed()
    assert (await now(client, task)).status.state == TaskState.TASK_STATE_INPUT_REQUIRED
    answered = await task_for(client, message("blue", "m2", task_id=task.id, context_id=task.context_id))
    assert (answered.id, answered.status.state, text_of(answered)) == (task.id, COMPLETED, "echo: blue")
    (_, first), (_, second) = scene.agent.executor.executed
    assert first == second != task.id
    assert (await now(client, task)).status.state == COMPLETED


async def test_a_strangers_task_is_unknown(scene: Scene) -> None:
    client = await scene.client()
    await scene.agent.stop()
    task = await task_for(client, message("mine"))
    scene.token = await scene.proxy.client(f"stranger-to-{scene.name}")
    await scene.agent.start()
    stranger = await scene.client()
    with pytest.raises(A2AError, match="not found"):
        await now(stranger, task)


@pytest.mark.parametrize("version", ["1.0"])
async def test_an_agent_that_is_killed_costs_its_clients_nothing(scene: Scene, tmp_path: Path) -> None:
    """The demo's agent, a process that the proxy started, ended by SIGKILL while it has a message."""
    name, log = f"{scene.name}-process", tmp_path / "executed.jsonl"
    port = free_port()
    command = [sys.executable, "-m", "proxy.demo.agent", "--port", str(port), "--log", str(log)]
    await scene.proxy.enroll(
        name,
        url=f"http://127.0.0.1:{port}",
        runtime={"type": "process", "command": command, "cwd": str(ROOT)},
        dead_action="defer",
        policy={"settle_hold": 0, "settle_window": 0, "restart_backoff": 0.1},
    )
    await scene.proxy.event("restart.finished", workspace=name, phase="finished")
    client = await scene.client(name=name)
    assert text_of(await task_for(client, message("hello", "m1"))) == "echo: hello"
    slow = asyncio.create_task(task_for(client, message("take 2.5 s", "m2")))
    assert await until(lambda: len(executed(log)) == 2, within=PATIENCE)
    os.kill(executed(log)[1]["pid"], signal.SIGKILL)
    tasks = [await slow, await task_for(client, message("again", "m3"))]
    assert [task.status.state for task in tasks] == [SUBMITTED, SUBMITTED]
    await scene.completed(2, name)
    assert [text_of(await now(client, task)) for task in tasks] == ["echo: take 2.5 s", "echo: again"]
    after = {said["message_id"]: said["redelivery"] for said in executed(log)[2:]}
    assert after == {"m2": "maybe", "m3": None}


def executed(log: Path) -> list[dict[str, Any]]:
    """What the demo's agent has begun to do, in order."""
    return [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
