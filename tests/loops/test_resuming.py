"""A proxy that starts takes over what its earlier life left: leases before it serves, restarts once and to the end."""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from simulation.world import World, at, simulated

from proxy.core.lifecycle import Status
from proxy.core.restart import Phase, Restart, Trigger
from proxy.runtimes import Exited
from proxy.store import Watch
from proxy.store.memory import MemoryStore
from proxy.telemetry import EventName


def left_open(phase: Phase) -> dict[str, Any]:
    """What a record says of a restart that a proxy left in that phase when it was killed."""
    cycle = Restart(
        workspace_id="ws",
        generation=1,
        incarnation=2,
        trigger=Trigger.VERDICT,
        reason="",
        rule="exited",
        phase=phase,
        started_at=at(-5),
        returned_at=at(-4),
        lease_owner="an earlier life",
        lease_until=at(-1),
    )
    return {"generation": 1, "incarnation": 2, "restart_started_at": at(-5), "cycles": (cycle,)}


@simulated
async def test_a_restart_that_an_exit_begins_while_the_proxy_starts_is_driven_once(world: World) -> None:
    await world.given(incarnation=1)
    world.hosting.outlived.append(
        Exited(workspace_id="ws", incarnation=1, exit_code=None, expected=False, at=at(-1)),
    )
    world.machine().stops.usual = 1.0
    await world.start()
    await asyncio.sleep(30)
    assert world.machine().verbs() == [("stop", 1), ("start", 1)]
    assert [cycle.phase for cycle in await world.cycles()] == [Phase.FINISHED]
    await world.stop()


@simulated
async def test_a_cycle_whose_workspace_was_ready_when_the_proxy_died_ends_with_the_next_start(world: World) -> None:
    await world.given(status=Status.READY, **left_open(Phase.STARTED))
    await world.start()
    await asyncio.sleep(1)
    assert [cycle.phase for cycle in await world.cycles()] == [Phase.FINISHED]
    assert world.machine().verbs() == []
    await world.stop()


@simulated
async def test_leases_of_an_earlier_life_are_taken_back_before_anybody_is_served(world: World) -> None:
    """Taken back later, a lease of this very life could be among them, and its request would run twice at once."""
    serving: list[bool] = []

    class Noting(MemoryStore):
        async def release_owned(self, owner: str, now: datetime) -> Sequence[Watch]:
            serving.append(any(event.name is EventName.PROXY_STARTED for event in world.events))
            return await super().release_owned(owner, now)

    world.store = Noting()
    await world.start()
    await asyncio.sleep(1)
    assert serving == [False]
    await world.stop()


@simulated
async def test_a_start_that_failed_just_before_the_proxy_died_is_made_good_with_the_next_start(world: World) -> None:
    """The cycle's failure is on record, the workspace's own record still says that it is restarting."""
    await world.given(status=Status.RESTARTING, **left_open(Phase.FAILED))
    await world.start()
    await asyncio.sleep(30)
    assert [cycle.phase for cycle in await world.cycles()] == [Phase.FAILED, Phase.FINISHED]
    assert world.machine().verbs() == [("stop", 2), ("start", 2)]
    await world.stop()
