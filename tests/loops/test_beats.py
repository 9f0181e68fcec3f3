"""Heartbeats: what they change, what they leave alone, and how they reach the store."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from simulation.scripted import Reacts
from simulation.world import World, at, clock, fails, message, simulated

from proxy.core.lifecycle import Status
from proxy.loops.beats import Beat
from proxy.store import Signs, StoreFailure
from proxy.store.memory import MemoryStore
from proxy.telemetry import EventName


class CountingStore(MemoryStore):
    """Notes every write of signs of life, and refuses them while it `fails`."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[tuple[float, list[str]]] = []
        self.fails = False

    async def record_signs(self, signs: Mapping[str, Signs]) -> None:
        if self.fails:
            raise StoreFailure("full", "no room")
        await super().record_signs(signs)
        self.written.append((clock(), sorted(signs)))


async def beat(world: World, workspace_id: str = "ws", **said: Any) -> None:
    await world.app.beats.take(world.route(workspace_id), Beat(**said))


# --- what a beat changes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "said", "after"),
    [
        (Status.STARTING, None, Status.STARTING),
        (Status.STARTING, "starting", Status.STARTING),
        (Status.STARTING, "ready", Status.READY),
        (Status.STARTING, "degraded", Status.STARTING),
        (Status.READY, None, Status.READY),
        (Status.READY, "starting", Status.READY),
        (Status.READY, "ready", Status.READY),
        (Status.READY, "degraded", Status.DEGRADED),
        (Status.DEGRADED, None, Status.DEGRADED),
        (Status.DEGRADED, "starting", Status.DEGRADED),
        (Status.DEGRADED, "ready", Status.READY),
        (Status.OFFLINE, None, Status.READY),
        (Status.OFFLINE, "starting", Status.STARTING),
        (Status.OFFLINE, "ready", Status.READY),
        (Status.ABANDONED, None, Status.ABANDONED),
        (Status.ABANDONED, "ready", Status.ABANDONED),
    ],
)
@simulated
async def test_a_beat_moves_a_status_along_its_edges_only(
    world: World, status: Status, said: str | None, after: Status
) -> None:
    await world.given(status=status)
    await world.start()
    world.machine().ready.usual = False
    await beat(world, status=said)
    assert (await world.row()).status is after
    assert world.route().signs.last_heartbeat_at == at(0)


@simulated
async def test_a_beat_that_changes_nothing_writes_no_record(world: World) -> None:
    await world.given(boot_id="one", bound=True)
    await world.start()
    before = await world.row()
    for moment in range(1, 10):
        await world.until(moment)
        await beat(world, boot_id="one", status="ready", active_tasks=moment)
    assert await world.row() == before


@simulated
async def test_another_boot_id_is_a_new_life_and_the_first_one_is_not(world: World) -> None:
    await world.given()
    await world.start()
    for boot_id, incarnation in (("one", 1), ("one", 1), ("two", 2), ("two", 2), ("three", 3)):
        await beat(world, boot_id=boot_id, status="ready")
        row = await world.row()
        assert (row.incarnation, row.boot_id, row.status) == (incarnation, boot_id, Status.READY)
    actions = [line.action for line in await world.decisions()]
    assert actions == ["boot_id bound", "new incarnation", "new incarnation"]


@simulated
async def test_what_is_left_of_an_earlier_life_begins_no_new_one_and_shows_no_life(world: World) -> None:
    await world.given()
    await world.start()
    for boot_id in ("one", "two"):
        await beat(world, boot_id=boot_id, status="ready")
    await world.until(5)
    await beat(world, boot_id="one", status="ready")
    row = await world.row()
    assert (row.incarnation, row.boot_id) == (2, "two")
    assert world.route().signs.last_sign_at == at(0)


@simulated
async def test_a_sidecar_s_down_is_remembered_from_when_it_was_said_first(world: World) -> None:
    await world.given(heartbeat=-5)
    await world.start()
    for moment in (1, 2, 3):
        await world.until(moment)
        await beat(world, agent="down")
    signs = world.route().signs
    assert (signs.agent_down_at, signs.last_sign_at, signs.last_heartbeat_at) == (at(1), at(-5), at(-5))
    await world.until(4)
    await beat(world, agent="up")
    signs = world.route().signs
    assert (signs.agent_down_at, signs.last_sign_at, signs.last_heartbeat_at) == (None, at(4), at(4))


@pytest.mark.parametrize(("said", "capacity"), [(None, 4), (2, 2), (1, 1), (9, 4)])
@simulated
async def test_a_beat_may_lower_the_capacity_and_never_raise_it(world: World, said: int | None, capacity: int) -> None:
    await world.given()
    await world.start({"defaults.max_concurrent": 4})
    await beat(world, max_concurrent=said)
    assert world.route().capacity == capacity
    await beat(world)
    assert world.route().capacity == 4


@simulated
async def test_a_beat_keeps_open_calls_alive_and_one_that_counts_progress_only_when_it_made_some(
    world: World,
) -> None:
    await world.given()
    await world.start()
    world.agent().reacts.usual = Reacts(after=100)
    calling = asyncio.create_task(world.call())
    touched = []
    for moment, progress in ((10, None), (20, 1), (30, 1), (40, 2), (50, None)):
        await world.until(moment)
        await beat(world, progress=progress)
        [pulse] = world.agent().heard
        assert pulse.request.pulse is not None
        touched.append(pulse.request.pulse.touched_at)
    assert touched == [10, 20, 20, 40, 50]
    await calling


@simulated
async def test_a_beat_of_a_workspace_that_was_away_brings_it_what_waited(world: World) -> None:
    await world.given(status=Status.STARTING, sign=-60)
    await world.start()
    world.machine().ready.usual = False
    world.agent().reacts.usual = fails()
    reply = await world.call(body=message("waited"))
    assert reply.status == 202
    await world.until(3)
    world.agent().reacts.usual = Reacts()
    await beat(world, status="ready")
    await asyncio.sleep(0.01)
    assert world.agent().heard[-1].at == pytest.approx(3, abs=0.01)
    assert (await world.deferral(reply.receipt)).state == "completed"


# --- how they reach the store ----------------------------------------------------------------------------------------


@simulated
async def test_all_beats_of_a_second_are_one_write_and_a_second_without_beats_is_none(world: World) -> None:
    world.store = store = CountingStore()
    for name in ("a", "b", "c"):
        await world.given(name)
    await world.start()
    for _ in range(20):
        await beat(world, "a")
        await beat(world, "b")
        await asyncio.sleep(0.04)
    await world.until(5)
    assert store.written == [(1.0, ["a", "b"])]


@simulated
async def test_the_beats_of_very_many_are_gathered_for_longer(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.loops.beats.MANY", 2)
    world.store = store = CountingStore()
    for name in ("a", "b", "c"):
        await world.given(name)
    await world.start({"beats.flush": 1, "beats.longest": 4})
    for tenth in range(10, 120, 5):
        await world.until(tenth / 10 + 0.2)
        for name in ("a", "b", "c") if tenth < 70 else ("b",):
            await beat(world, name)
    assert [at for at, names in store.written if len(names) == 3] == [2.0, 6.0, 10.0], "every fourth second"
    assert store.written[-1] == (11.0, ["b"]), "few are written at once"


@simulated
async def test_beats_that_could_not_be_written_are_written_later(world: World) -> None:
    world.store = store = CountingStore()
    await world.given()
    await world.start()
    store.fails = True
    await world.until(0.5)
    await beat(world)
    await world.until(3.5)
    assert store.written == []
    assert len([event for event in world.events if event.name == EventName.LOOP_FAILED]) == 3
    store.fails = False
    await world.until(4.5)
    assert store.written == [(4.0, ["ws"])]


@simulated
async def test_a_crash_loses_at_most_one_interval_of_beats(world: World) -> None:
    await world.given()
    await world.start()
    for moment in range(1, 41):
        await world.until(moment / 4 + 0.1)
        await beat(world)
    await world.crash()
    await world.start()
    kept = world.route().signs.last_heartbeat_at
    assert kept is not None
    assert 0 < (at(10.1) - kept).total_seconds() <= 1.0


@simulated
async def test_a_proxy_that_stops_writes_the_last_beats(world: World) -> None:
    await world.given()
    await world.start()
    await world.until(10.4)
    await beat(world)
    await world.stop()
    await world.start()
    assert world.route().signs.last_heartbeat_at == at(10.4)
