"""What the stories of dead detection share: presets, suspects, and what an evaluation left behind.

Owns: these words. Knows nothing of: the stories.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from simulation.world import World, at, fails

from proxy.core.decision import Decision
from proxy.core.liveness import ProbeState
from proxy.core.restart import Phase, Restart, Trigger
from proxy.core.workspace import Workspace
from proxy.telemetry import EventName

COMBINED: Mapping[str, object] = {}
HOLD_FIRST: Mapping[str, object] = {"policy.preset": "hold-first"}
VERIFY_FIRST: Mapping[str, object] = {"policy.preset": "verify-first"}
EVERY_PRESET = pytest.mark.parametrize(
    "preset", [COMBINED, HOLD_FIRST, VERIFY_FIRST], ids=["combined", "hold-first", "verify-first"]
)
TWO_PROBE_PRESETS = pytest.mark.parametrize("preset", [COMBINED, HOLD_FIRST], ids=["combined", "hold-first"])

RUNNING, NOT_RUNNING = ProbeState.RUNNING, ProbeState.NOT_RUNNING
GET_TASK = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tasks/get", "params": {"id": "t-1"}}).encode()
"""A call that cannot be deferred: it fails, it is answered, and nothing goes on behind it."""


def restarted(seconds_ago: float) -> dict[str, Any]:
    """Return what a record says of a restart that began and returned that long before the story."""
    moment = at(-seconds_ago)
    cycle = Restart(
        workspace_id="ws",
        generation=1,
        incarnation=2,
        trigger=Trigger.ADMIN,
        reason="",
        rule="",
        phase=Phase.FINISHED,
        started_at=moment,
        returned_at=moment,
        finished_at=moment,
    )
    return {
        "generation": 1,
        "incarnation": 2,
        "restart_started_at": moment,
        "restart_returned_at": moment,
        "cycles": (cycle,),
    }


def nobody_answers(world: World) -> None:
    """Let every call to the agent be refused, the runtime say "not running", and no probe find it ready."""
    world.agent().reacts.usual = fails()
    world.machine().says.usual = NOT_RUNNING
    world.machine().ready.usual = False


async def judged(world: World) -> Decision:
    """Return the latest line of the decision log that a verdict wrote."""
    return [line for line in await world.decisions() if line.verdict and line.action in {"none", "offline"}][-1]


async def readings(world: World) -> tuple[int, int]:
    """Return how many probes and readings of the signs of life the latest evaluation took, as it logged them."""
    evidence = (await judged(world)).evidence
    return len(evidence.get("probes", ())), len(evidence.get("last_sign_at", ()))


def told_offline(world: World) -> int:
    return len([event for event in world.told(EventName.WORKSPACE_STATUS) if event.fields.get("verdict") == "dead"])


def unchanged(before: Workspace, after: Workspace) -> bool:
    """Say whether nothing but the note of the last verdict was written."""
    return replace(after, version=before.version, last_verdict=before.last_verdict) == before
