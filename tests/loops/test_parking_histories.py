"""Any history of pauses, resumes, hibernations, wakes, restarts, exits and proxies that die: what must hold in the end.

At every moment at most one instance of a workspace lives, whatever overlaps. When everybody has been quiet for a while,
exactly one lives where it is wanted, and none where it is parked; and the record says so.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulation.scripted import Hosting, SimulatedRuntime, at, clock
from simulation.virtual_time import run
from simulation.world import World

from proxy.core.lifecycle import Desired, Status
from proxy.core.liveness import ProbeState
from proxy.core.restart import OPEN_PHASES
from proxy.runtimes import Exited, Launch, RuntimeFailure, Started

QUIET = 600.0
"""Seconds after which everything that was begun must have come to its end."""


@dataclass(slots=True)
class Compute:
    """One workspace's compute, as a runtime that fences generations keeps it; `takes` seconds for each act."""

    live: dict[int, int] = field(default_factory=dict)
    fence: int = 0
    takes: float = 0.0
    failures: int = 0
    stops: list[float] = field(default_factory=list)


class FencedRuntime(SimulatedRuntime):
    """Holds to the contract of runtimes in virtual time, and to nothing more: what overlaps is seen."""

    def __init__(self, compute: Compute) -> None:
        self._compute = compute

    async def inspect(self, workspace_id: str, incarnation: int) -> ProbeState:
        del workspace_id, incarnation
        return ProbeState.RUNNING if self._compute.live else ProbeState.NOT_RUNNING

    async def start(self, launch: Launch) -> Started:
        compute = self._compute
        if compute.failures:
            compute.failures -= 1
            raise RuntimeFailure("system", "no room")
        await asyncio.sleep(compute.takes)
        if launch.generation in compute.live:
            return Started(handle=str(launch.generation), started_at=at(clock()))
        if launch.generation < compute.fence:
            raise RuntimeFailure("fenced", "stopped before it was started")
        assert not compute.live, f"generation {launch.generation} is started beside {compute.live}"
        compute.live[launch.generation] = launch.incarnation
        compute.fence = launch.generation
        return Started(handle=str(launch.generation), started_at=at(clock()))

    async def stop(self, workspace_id: str, generation: int, grace: float) -> None:
        del workspace_id, grace
        compute = self._compute
        compute.fence = max(compute.fence, generation)
        await asyncio.sleep(compute.takes)
        for older in [live for live in compute.live if live < generation]:
            del compute.live[older]


class FencedHosting(Hosting):
    """One workspace on such compute."""

    def __init__(self) -> None:
        super().__init__()
        self.compute = Compute()
        self._managed = FencedRuntime(self.compute)

    def can_inspect(self, _: Mapping[str, Any]) -> bool:
        return True


class History:
    """Plays the steps of one history."""

    def __init__(self, folder: Path) -> None:
        self.hosting = FencedHosting()
        self.world = World(folder, hosting=self.hosting)

    async def play(self, steps: list[tuple[str, float]]) -> None:
        world, compute = self.world, self.hosting.compute
        compute.live[0] = 1
        await world.given()
        await self.start()
        for step, pause in steps:
            await getattr(self, step)(pause)
            await asyncio.sleep(pause)
        compute.takes = compute.failures = 0
        await asyncio.sleep(QUIET)
        await self.check()
        await world.stop()

    async def check(self) -> None:
        row, compute = await self.world.row(), self.hosting.compute
        cycles = await self.world.cycles()
        assert not [cycle for cycle in cycles if cycle.phase in OPEN_PHASES], "a cycle is left open"
        if row.desired is Desired.RUNNING:
            assert list(compute.live) == [cycle.generation for cycle in cycles[-1:]] or (not cycles and compute.live)
            assert row.status is Status.READY
        else:
            assert compute.live == {}, f"it is {row.desired}, and runs"
            assert row.stopped_at is not None
            assert row.status in {Status.OFFLINE, Status.ABANDONED}

    # What may happen; each gets the pause that follows it, as a number to make something of

    async def start(self, _: float = 0) -> None:
        await self.world.start({"restart.intensity": 0, "restart.backoff_cap": 30, "health.sweep": 15})

    async def ask(self, verb: str) -> None:
        body = b'{"force":true}' if verb == "hibernate" else b""
        reply = await self.world.request("POST", f"/workspaces/ws/{verb}", body)
        assert reply.status in {200, 202, 409}, reply

    async def pause(self, _: float) -> None:
        await self.ask("pause")

    async def resume(self, _: float) -> None:
        await self.ask("resume")

    async def hibernate(self, _: float) -> None:
        await self.ask("hibernate")

    async def restart(self, _: float) -> None:
        await self.ask("restart")

    async def wake(self, _: float) -> None:
        self.world.app.parking.wake(self.world.route(), None)

    async def slow(self, pause: float) -> None:
        self.hosting.compute.takes = pause

    async def fail(self, _: float) -> None:
        self.hosting.compute.failures += 1

    async def exit(self, _: float) -> None:
        compute = self.hosting.compute
        if compute.live:
            _, incarnation = compute.live.popitem()
            now = self.world.app.now()
            self.world.app.on_exit(
                Exited(workspace_id="ws", incarnation=incarnation, exit_code=1, expected=False, at=now)
            )

    async def crash(self, _: float) -> None:
        await self.world.crash()
        await self.start()


STEPS = st.tuples(
    st.sampled_from(
        ["pause", "resume", "hibernate", "restart", "wake", "slow", "fail", "exit", "crash", "pause", "resume"]
    ),
    st.sampled_from([0.0, 0.0, 0.3, 1.0, 7.0, 40.0]),
)


@given(steps=st.lists(STEPS, max_size=14))
def test_whatever_happens_at_most_one_runs_and_in_the_end_what_is_wanted(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, float]]
) -> None:
    run(History(tmp_path_factory.mktemp("history")).play(steps))


@pytest.mark.parametrize(
    "steps",
    [
        [("slow", 7.0), ("restart", 0.3), ("pause", 0.3), ("crash", 0.0), ("resume", 0.0), ("pause", 1.0)],
        [("fail", 0.0), ("exit", 0.3), ("hibernate", 7.0), ("wake", 0.0), ("wake", 0.0), ("crash", 0.0)],
        [("pause", 0.0), ("resume", 0.0), ("pause", 0.0), ("resume", 0.0), ("restart", 0.0), ("pause", 0.0)],
    ],
)
def test_some_histories_again_that_are_worth_it(tmp_path: Path, steps: list[tuple[str, float]]) -> None:
    run(History(tmp_path).play(steps))
