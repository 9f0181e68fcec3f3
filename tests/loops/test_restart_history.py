"""What a starting proxy knows of earlier restarts, and which records of them are kept."""

from dataclasses import replace

import pytest
from simulation.world import World, at, simulated

from proxy.core.lifecycle import Status
from proxy.core.restart import Phase, Restart, Trigger
from proxy.core.workspace import Settings
from proxy.loops import restart_history
from proxy.runtimes import Exited, RuntimeFailure

HOUR, DAY = 3600.0, 86_400.0


def past(*moments: float, phase: Phase = Phase.FINISHED) -> tuple[Restart, ...]:
    """Cycles that verdicts asked for, and that have ended."""
    return tuple(
        Restart(
            workspace_id="ws",
            generation=number,
            incarnation=1 + number,
            trigger=Trigger.VERDICT,
            reason="",
            rule="exited",
            phase=phase,
            started_at=at(moment),
            finished_at=at(moment + 1),
        )
        for number, moment in enumerate(moments, start=1)
    )


async def given(world: World, cycles: tuple[Restart, ...], **known: object) -> None:
    last = cycles[-1].generation
    await world.given(cycles=cycles, generation=last, incarnation=last + 1, **known)


async def kept(world: World) -> list[int]:
    return sorted(cycle.generation for cycle in await world.cycles())


@pytest.mark.parametrize("own", [False, True])
@simulated
async def test_a_brake_that_looks_back_a_day_does_so_after_a_start_of_the_proxy(world: World, own: bool) -> None:
    window = {"restart_window": DAY}
    await given(
        world,
        past(*(-number * HOUR for number in (30, 5, 4, 3, 2, 1))),
        settings=Settings(policy=window) if own else Settings(),
    )
    await world.start({} if own else {"restart.window": DAY})
    assert [cycle.generation for cycle in world.route().cycles] == [2, 3, 4, 5, 6]
    await world.exits()
    await world.eventually(lambda: world.route().workspace.status is Status.ABANDONED)
    assert await kept(world) == [1, 2, 3, 4, 5, 6]


@simulated
async def test_every_page_of_a_long_memory_is_read(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restart_history, "PAGE", 3)
    await given(world, past(*(-number * HOUR for number in range(30, 0, -1))))
    await world.start({"restart.window": DAY + 1, "restart.intensity": 0})
    assert [cycle.generation for cycle in world.route().cycles] == list(range(7, 31))


@simulated
async def test_the_newest_restart_is_known_however_long_ago_it_was(world: World) -> None:
    await given(world, past(-3 * DAY, -2 * DAY))
    await world.start()
    assert [cycle.generation for cycle in world.route().cycles] == [2]


@simulated
async def test_records_are_kept_as_long_as_decisions(world: World) -> None:
    await given(world, past(-9 * DAY, -8 * DAY, -7 * DAY + 2 * HOUR, -DAY))
    await world.start()
    await world.until(0.5 * HOUR)
    assert await kept(world) == [3, 4]
    await world.until(2.5 * HOUR)
    assert await kept(world) == [4]


@simulated
async def test_the_newest_record_is_kept_for_ever(world: World) -> None:
    await given(world, past(-90 * DAY, -80 * DAY))
    await world.start()
    await world.until(HOUR + 1)
    assert await kept(world) == [2]


@simulated
async def test_what_a_brake_looks_back_at_is_kept_longer(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restart_history, "PAGE", 1)
    await given(world, past(-31 * DAY, -30.5 * DAY, -20 * DAY, -10 * DAY))
    await world.start({"restart.window": 30 * DAY})
    await world.until(HOUR + 1)
    assert await kept(world) == [3, 4]


@simulated
async def test_starts_that_failed_in_a_row_count_however_long_ago_the_first_was(world: World) -> None:
    await given(world, past(*(-number * HOUR for number in (9, 7, 5, 3)), phase=Phase.FAILED))
    waits = {"restart.backoff": 600, "restart.backoff_cap": DAY, "restart.backoff_reset": 4 * HOUR}
    await world.start({**waits, "restart.intensity": 0})
    assert [cycle.generation for cycle in world.route().cycles] == [1, 2, 3, 4]
    world.machine().starts.usual = RuntimeFailure("command_not_found", "there is no such command")
    await world.exits()
    await world.until(4 * HOUR)
    begun = [cycle.started_at for cycle in await world.cycles() if cycle.generation > 4]
    assert begun == [at(0), at(2 * HOUR + 40 * 60)]
    assert [cycle.generation for cycle in world.route().cycles] == [1, 2, 3, 4, 5, 6]


@simulated
async def test_an_exit_is_heard_after_a_start_although_the_agent_announced_a_later_life(world: World) -> None:
    started, announced = past(-3 * HOUR, -2.5 * HOUR)
    announced = replace(announced, trigger=Trigger.ANNOUNCED, incarnation=started.incarnation)
    await world.given(cycles=(started, announced), generation=2, incarnation=started.incarnation + 1)
    await world.start()
    assert world.route().lives_in(started.incarnation)
    told = Exited(workspace_id="ws", incarnation=started.incarnation, exit_code=1, expected=False, at=at(0))
    world.app.on_exit(told)
    await world.eventually(lambda: world.route().cycles[-1].generation == 3)
