"""Agents on the SDK's server that are lost in the middle of a stream: replayed ones, and direct ones."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from a2a.client import Client
from a2a.helpers import get_artifact_text, get_message_text
from a2a.types import GetTaskRequest, SendMessageRequest, StreamResponse, Task, TaskState
from chaos.waiting import until
from e2e.serving import PATIENCE, Serving, free_port
from integration.conftest import NUMBERS, Scene
from integration.sdk_agent import SdkAgent
from integration.test_sdk_clients import message, now, task_for

pytestmark = pytest.mark.asyncio(loop_scope="module")

AGENT = Path(__file__).parent / "streaming_agent.py"
WORDS = "one two three four five six"
NAMES = TaskState.Name


@pytest_asyncio.fixture(loop_scope="module")
async def lasting(shared: Serving, version: str) -> AsyncIterator[Scene]:
    """An agent whose door may close while it works on, and a workspace that holds its callers."""
    agent, name = SdkAgent(version, lasting=True), f"lasting-{next(NUMBERS)}"
    await agent.start()
    await shared.enroll(name, url=agent.url, unmanaged_away="defer", hold_seconds=30)
    await shared.event("workspace.status", workspace=name, status="ready")
    ready = Scene(shared, agent, name, await shared.client(f"caller-of-{name}"))
    yield ready
    await ready.aclose()
    await agent.stop()


class Process:
    """A workspace whose agent is a process of the proxy's."""

    def __init__(self, scene: Scene, name: str, log: Path) -> None:
        self.scene = scene
        self.name = name
        self.log = log

    @property
    def executed(self) -> list[dict[str, Any]]:
        """What the agent has begun to do, in all of its lives."""
        text = self.log.read_text(encoding="utf-8") if self.log.exists() else ""
        return [json.loads(line) for line in text.splitlines()]

    async def has_executed(self, count: int) -> None:
        assert await until(lambda: len(self.executed) >= count, within=PATIENCE)

    def kill(self) -> None:
        """SIGKILL the agent's latest life."""
        os.kill(self.executed[-1]["pid"], signal.SIGKILL)

    async def put_away(self, client: Client, request: SendMessageRequest) -> Any:
        """Send a message while the workspace is paused, then let it go on."""
        await self.scene.proxy.ask("POST", f"/workspaces/{self.name}/pause")
        task = await task_for(client, request)
        assert task.status.state == TaskState.TASK_STATE_SUBMITTED
        await self.scene.proxy.ask("POST", f"/workspaces/{self.name}/resume")
        return task


async def started(scene: Scene, folder: Path, **more: Any) -> Process:
    name, port = f"{scene.name}-process", free_port()
    command = [sys.executable, str(AGENT), "--port", str(port), "--log", str(folder / "executed.jsonl")]
    await scene.proxy.enroll(
        name,
        url=f"http://127.0.0.1:{port}",
        runtime={"type": "process", "command": command},
        dead_action="defer",
        policy={"settle_hold": 0, "settle_window": 0, "restart_backoff": 0.1, "restart_debounce": 0},
        **more,
    )
    await scene.proxy.event("restart.finished", workspace=name, phase="finished")
    return Process(scene, name, folder / "executed.jsonl")


async def announced(scene: Scene, name: str | None = None) -> Client:
    """A client; the card that it fetched, which announces streams, is kept by now."""
    client = await scene.client(name=name)
    await scene.proxy.event("card.kept", workspace=name or scene.name)
    return client


def text_of(task: Task) -> str:
    """What the agent made of it, so far."""
    return "".join(part.text for artifact in task.artifacts for part in artifact.parts)


def words(event: StreamResponse) -> str:
    """An event of a stream, in short."""
    if event.HasField("task"):
        return NAMES(event.task.status.state)
    if event.HasField("artifact_update"):
        return get_artifact_text(event.artifact_update.artifact)
    return NAMES(event.status_update.status.state)


# --- direct streams --------------------------------------------------------------------------------------------------


async def test_a_stream_goes_on_with_the_task_that_its_agent_is_at(lasting: Scene, version: str) -> None:
    client = await lasting.client(streaming=True)
    seen: list[str] = []
    ids: set[str] = set()
    async for event in client.send_message(message("stream")):
        seen.append(words(event))
        ids.add(event.task.id or event.artifact_update.task_id or event.status_update.task_id)
        if seen == ["TASK_STATE_WORKING", "piece 1"]:
            await lasting.agent.stop()
            await lasting.agent.start()
        lasting.agent.go()
    del version
    assert (seen[:2], seen[-1]) == (["TASK_STATE_WORKING", "piece 1"], "TASK_STATE_COMPLETED")
    assert "piece 2" in "".join(seen)
    assert len(ids) == 1
    assert len(lasting.agent.executor.executed) == 1


@pytest.mark.parametrize("version", ["1.0"])
async def test_a_stream_whose_agent_was_killed_ends_in_a_failure_that_says_why(scene: Scene, tmp_path: Path) -> None:
    process = await started(scene, tmp_path, hold_seconds=30)
    client = await scene.client(streaming=True, name=process.name)
    seen: list[StreamResponse] = []
    async for event in client.send_message(message(WORDS)):
        seen.append(event)
        if len(seen) == 3:
            process.kill()
    assert [words(event) for event in seen[:3]] == ["TASK_STATE_WORKING", "one ", "two "]
    last = seen[-1].status_update.status
    assert NAMES(last.state) == "TASK_STATE_FAILED"
    assert get_message_text(last.message) == (
        "The agent was lost while it worked on this, and does not know the task any more."
    )
    await scene.proxy.event("restart.finished", workspace=process.name, count=2, phase="finished")


# --- replays ---------------------------------------------------------------------------------------------------------


async def test_a_replay_shows_its_task_while_the_agent_works_on_it(scene: Scene, version: str) -> None:
    client = await announced(scene)
    await scene.agent.stop()
    task = await task_for(client, message("stream"))
    await scene.agent.start()
    await state_is(client, task, lambda known: NAMES(known.status.state) == "TASK_STATE_WORKING")
    scene.agent.go()
    await state_is(client, task, lambda known: text_of(known) == "piece 1")
    scene.agent.go()
    scene.agent.go()
    await scene.completed()
    done = await now(client, task)
    assert (NAMES(done.status.state), text_of(done)) == ("TASK_STATE_COMPLETED", "piece 1piece 2")
    assert [name for name, _ in scene.agent.executor.executed] == ["m1"]
    del version


async def state_is(client: Client, task: Any, holds: Callable[[Any], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not holds(await client.get_task(GetTaskRequest(id=task.id))):  # noqa: ASYNC110 - it is another process
            await asyncio.sleep(0.02)


@pytest.mark.long  # the agent's server takes half a minute to stop while somebody listens
async def test_a_replay_goes_on_with_the_task_that_its_agent_is_at(lasting: Scene, version: str) -> None:
    client = await announced(lasting)
    await lasting.agent.stop()
    task = await task_for(client, message("stream"))
    await lasting.agent.start()
    lasting.agent.go()
    await state_is(client, task, lambda known: text_of(known) == "piece 1")
    await lasting.agent.stop()
    await lasting.proxy.event("deferral.returned", workspace=lasting.name)
    await lasting.agent.start()
    lasting.agent.go()
    lasting.agent.go()
    await lasting.completed()
    assert text_of(await now(client, task)) == "piece 1piece 2"
    assert len(lasting.agent.executor.executed) == 1
    assert len(lasting.proxy.named("deferral.taken_up", workspace=lasting.name)) == 1
    del version


@pytest.mark.parametrize("version", ["1.0"])
async def test_a_replay_whose_agent_was_killed_is_begun_again_marked(scene: Scene, tmp_path: Path) -> None:
    process = await started(scene, tmp_path)
    client = await announced(scene, process.name)
    task = await process.put_away(client, message(WORDS))
    await process.has_executed(1)
    await state_is(client, task, lambda known: text_of(known).startswith("one "))
    process.kill()
    await scene.completed(1, process.name)
    assert text_of(await now(client, task)) == WORDS + " "
    assert [(line["message_id"], line["redelivery"]) for line in process.executed] == [("m1", None), ("m1", "maybe")]


@pytest.mark.parametrize("version", ["1.0"])
async def test_a_replay_that_must_not_be_begun_again_fails_with_the_reason(scene: Scene, tmp_path: Path) -> None:
    process = await started(scene, tmp_path, redelivery="never")
    client = await announced(scene, process.name)
    task = await process.put_away(client, message(WORDS))
    await process.has_executed(1)
    await state_is(client, task, lambda known: text_of(known).startswith("one "))
    process.kill()
    await scene.proxy.event("deferral.dead_lettered", workspace=process.name)
    failed = await now(client, task)
    assert NAMES(failed.status.state) == "TASK_STATE_FAILED"
    assert "does not know its task any more" in get_message_text(failed.status.message)
    assert len(process.executed) == 1


@pytest.mark.parametrize("version", ["1.0"])
async def test_a_proxy_that_was_killed_does_not_send_again_what_the_agent_is_at(scene: Scene, tmp_path: Path) -> None:
    process = await started(scene, tmp_path)
    client = await announced(scene, process.name)
    task = await process.put_away(client, message(WORDS))
    await process.has_executed(1)
    await state_is(client, task, lambda known: text_of(known).startswith("one "))
    await scene.revive_proxy()
    await scene.completed(1, process.name)
    assert text_of(await now(client, task)) == WORDS + " "
    assert len(process.executed) == 1


async def test_what_an_agent_without_streams_is_at_is_found_by_its_message(shared: Serving) -> None:
    """The proxy is killed while it waits for the answer; nobody has named the task, but the agent lists it."""
    agent, name = SdkAgent("1.0", streaming=False), f"unary-{next(NUMBERS)}"
    await agent.start()
    await shared.enroll(name, url=agent.url, unmanaged_away="defer")
    await shared.event("workspace.status", workspace=name, status="ready")
    scene = Scene(shared, agent, name, await shared.client(f"caller-of-{name}"))
    client = await announced(scene)
    await agent.stop()
    task = await task_for(client, message("stream"))
    await agent.start()
    assert await until(lambda: len(agent.executor.executed) == 1, within=PATIENCE)
    await scene.revive_proxy()
    await scene.completed()
    for _ in range(3):
        agent.go()
    await state_is(client, task, lambda known: NAMES(known.status.state) == "TASK_STATE_COMPLETED")
    assert text_of(await now(client, task)) == "piece 1piece 2"
    assert len(agent.executor.executed) == 1
    (found,) = shared.named("deferral.taken_up", workspace=name)
    assert found["asked"] == "get"
    await scene.aclose()
    await agent.stop()
