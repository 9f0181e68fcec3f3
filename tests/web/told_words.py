"""What the tests about event streams of deferred tasks say and read.

Owns: requests, an agent's events, a polling workspace, a stream in words. Knows nothing of: what a test is about.
"""

import json
from typing import Any

from simulation.polling_agents import Poller
from simulation.waiting_clients import Client
from simulation.world import World

from proxy.core.workspace import DeliveryMode

V1 = {"A2A_Version": "1.0"}


def stream(message_id: str = "m-1", rpc_id: Any = 7) -> bytes:
    said = {"messageId": message_id, "role": "ROLE_USER", "parts": [{"text": "hi"}]}
    return json.dumps(
        {"jsonrpc": "2.0", "id": rpc_id, "method": "SendStreamingMessage", "params": {"message": said}}
    ).encode()


def subscribe(task_id: str, rpc_id: Any = "again") -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": rpc_id, "method": "SubscribeToTask", "params": {"id": task_id}}).encode()


IDS = {"taskId": "up", "contextId": "their-talk"}


def status(state: str) -> dict[str, Any]:
    return {"result": {"statusUpdate": {**IDS, "status": {"state": f"TASK_STATE_{state.upper()}"}}}, "jsonrpc": "2.0"}


def piece(text: str, *, append: bool = True) -> dict[str, Any]:
    artifact = {"artifactId": "a", "parts": [{"text": text}]}
    return {"result": {"artifactUpdate": {**IDS, "artifact": artifact, "append": append}}, "jsonrpc": "2.0"}


async def polled(world: World, **settings: Any) -> Poller:
    await world.given(delivery_mode=DeliveryMode.POLL)
    await world.start(settings)
    return Poller(world)


def what(client: Client) -> list[str]:
    """A stream's events in a word each."""
    words = []
    for _, said in client.events:
        result = said.get("result", {})
        if "task" in result:
            words.append("task " + result["task"]["status"]["state"].removeprefix("TASK_STATE_").lower())
        elif "statusUpdate" in result:
            words.append(result["statusUpdate"]["status"]["state"].removeprefix("TASK_STATE_").lower())
        elif "artifactUpdate" in result:
            words.append(result["artifactUpdate"]["artifact"]["parts"][0]["text"])
        else:
            words.append(f"error {said['error']['data'][0]['reason']}")
    return words


def task_of(client: Client) -> str:
    return str(client.events[0][1]["result"]["task"]["id"])
