"""What an administrator says to a proxy about a workspace, and sees of it: verbs, what is wanted, what came of it.

Owns: these words. Knows nothing of: what should come of them.
"""

import json
from typing import Any

from simulation.world import Reply, World

from proxy.core.lifecycle import Status


async def ask(world: World, verb: str, workspace_id: str = "ws", **said: Any) -> Reply:
    return await world.request("POST", f"/workspaces/{workspace_id}/{verb}", json.dumps(said).encode())


async def parked(world: World, verb: str, workspace_id: str = "ws") -> None:
    """Park it, and wait until its compute was stopped."""
    assert (await ask(world, verb, workspace_id)).status == 200
    await world.eventually(lambda: world.route(workspace_id).workspace.stopped_at is not None)


def desired(world: World, workspace_id: str = "ws") -> str:
    return world.route(workspace_id).workspace.desired.value


def status(world: World, workspace_id: str = "ws") -> Status:
    return world.route(workspace_id).workspace.status


def is_ready(world: World) -> bool:
    return status(world) is Status.READY


async def phases(world: World) -> list[str]:
    return [cycle.phase.value for cycle in await world.cycles()]
