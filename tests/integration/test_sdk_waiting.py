"""The A2A SDK's own clients, with the timeouts they come with, while their agent is away and comes back."""

import asyncio

import httpx
import pytest
from a2a.client import Client, ClientConfig, ClientFactory
from a2a.helpers import get_artifact_text
from a2a.types import Message, Part, Role, SendMessageRequest, StreamResponse, TaskState
from integration.conftest import Scene

pytestmark = pytest.mark.asyncio(loop_scope="module")

COMPLETED = TaskState.TASK_STATE_COMPLETED
LONGER_THAN_CLIENTS_WAIT = 6.5
"""Seconds; httpx, and so the SDK, gives up after five without a byte."""


def message(text: str, message_id: str = "m1") -> SendMessageRequest:
    return SendMessageRequest(
        message=Message(message_id=message_id, role=Role.ROLE_USER, parts=[Part(text=text)], context_id="talk")
    )


async def impatient(scene: Scene, *, streaming: bool) -> Client:
    """A client as the SDK makes it: five seconds for everything."""
    http = httpx.AsyncClient(headers={"Holdfast-Token": scene.token}, timeout=5, trust_env=False)
    scene._http.append(http)
    factory = ClientFactory(ClientConfig(streaming=streaming, httpx_client=http))
    return await factory.create_from_url(scene.address(scene.name))


@pytest.mark.parametrize("away", [0.5, LONGER_THAN_CLIENTS_WAIT])
async def test_a_clients_blocking_send_sails_through_an_outage(scene: Scene, away: float) -> None:
    client = await impatient(scene, streaming=False)
    said = await scene.proxy.ask("PUT", f"/workspaces/{scene.name}", json={"hold_seconds": 60})
    assert said.status == 200, said.body
    await scene.agent.stop()
    asking = asyncio.create_task(_all(client, message("hello")))
    await scene.proxy.event("deferral.queued", workspace=scene.name)
    await asyncio.sleep(away)
    await scene.agent.start()
    (event,) = await asking
    assert event.task.status.state == COMPLETED
    assert "".join(get_artifact_text(artifact) for artifact in event.task.artifacts) == "echo: hello"
    assert len(scene.agent.executor.executed) == 1


async def test_a_clients_stream_sails_through_an_outage(scene: Scene) -> None:
    client = await impatient(scene, streaming=True)
    await scene.agent.stop()
    seen: list[str] = []
    revived: list[asyncio.Task[None]] = []

    async def revive() -> None:
        await asyncio.sleep(LONGER_THAN_CLIENTS_WAIT)
        await scene.agent.start()

    task_ids = set()
    async for event in client.send_message(message("stream")):
        if event.HasField("task"):
            seen.append(TaskState.Name(event.task.status.state))
            task_ids.add(event.task.id)
            revived.append(asyncio.create_task(revive()))
        elif event.HasField("artifact_update"):
            seen.append(get_artifact_text(event.artifact_update.artifact))
            task_ids.add(event.artifact_update.task_id)
        else:
            seen.append(TaskState.Name(event.status_update.status.state))
            task_ids.add(event.status_update.task_id)
        scene.agent.go()
    await asyncio.gather(*revived)
    assert seen == ["TASK_STATE_SUBMITTED", "TASK_STATE_WORKING", "piece 1", "piece 2", "TASK_STATE_COMPLETED"]
    assert len(task_ids) == 1


async def test_a_client_of_a_silent_agent_does_not_give_up(scene: Scene) -> None:
    """The agent is healthy and thinks for longer than its client would wait in silence."""
    client = await impatient(scene, streaming=True)
    seen = []
    async for event in client.send_message(message("stream")):
        seen.append(event)
        if len(seen) == 1:
            await asyncio.sleep(0)
            asyncio.get_running_loop().call_later(LONGER_THAN_CLIENTS_WAIT, scene.agent.go)
        else:
            scene.agent.go()
    assert len(seen) == 4


async def _all(client: Client, request: SendMessageRequest) -> list[StreamResponse]:
    return [event async for event in client.send_message(request)]
