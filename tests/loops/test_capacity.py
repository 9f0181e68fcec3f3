"""How much of a queue is replayed at once: what beats say of an agent's other work, for how long that is believed."""

import asyncio

import pytest
from simulation.world import Reacts, World, clock, fails, message, simulated

from proxy.core.lifecycle import Status
from proxy.core.restart import Trigger
from proxy.loops.beats import Beat

LONG = Reacts(after=1000.0)


async def waiting(world: World, count: int = 6, **settings: object) -> None:
    """Put requests away for a workspace that does not listen yet; it takes four calls at once."""
    await world.given(managed=False, sign=-1)
    await world.start({"queue.sweep": 10, "queue.backoff": 5, "defaults.max_concurrent": 4, **settings})
    world.machine().ready.usual = False
    world.agent().reacts.usual = fails()
    for number in range(count):
        assert (await world.call(body=message(f"{number}", message_id=f"m-{number}"))).status == 202
    world.agent().heard.clear()


async def beats(world: World, active: int | None = None, most: int | None = None) -> None:
    await world.app.beats.take(world.route(), Beat(active_tasks=active, max_concurrent=most))


async def opens_up(world: World) -> int:
    """Let the replays' slow start be over; return how many calls the agent then has at once."""
    drain = world.app.replayer._drains[world.route().id]
    drain.window = 100
    world.agent().reacts.usual = LONG
    world.app.replayer.ring(world.route())
    await asyncio.sleep(30)
    return world.agent().open


@simulated
async def test_scenario_43_an_agent_that_is_at_its_limit_is_sent_nothing(world: World) -> None:
    await waiting(world)
    await beats(world, active=4)
    assert await opens_up(world) == 0
    assert world.agent().heard == []


@pytest.mark.parametrize(
    ("active", "most", "sent"), [(0, None, 4), (1, None, 3), (3, None, 1), (None, None, 4), (1, 3, 2), (9, None, 0)]
)
@simulated
async def test_scenario_43_below_its_limit_an_agent_is_sent_as_much_as_is_free(
    world: World, active: int | None, most: int | None, sent: int
) -> None:
    await waiting(world)
    await beats(world, active, most)
    assert await opens_up(world) == sent


@simulated
async def test_scenario_43_the_next_beat_opens_up_what_the_last_one_closed(world: World) -> None:
    await waiting(world)
    await beats(world, active=4)
    assert await opens_up(world) == 0
    await beats(world, active=2)
    await asyncio.sleep(0.1)
    assert world.agent().open == 2


@simulated
async def test_calls_of_ours_that_an_agent_counts_as_its_tasks_count_once(world: World) -> None:
    await waiting(world)
    world.agent().reacts.queue(*[LONG] * 2)
    direct = [asyncio.create_task(world.call(body=message(f"d{n}", message_id=f"d-{n}"))) for n in range(2)]
    await asyncio.sleep(0.1)
    await beats(world, active=3)  # two of ours, and one of its own
    assert await opens_up(world) == 3
    for task in direct:
        task.cancel()


@simulated
async def test_what_an_agent_said_before_it_fell_silent_strands_no_queue(world: World) -> None:
    await waiting(world)
    await beats(world, active=4)
    said = clock()
    world.app.replayer._drains[world.route().id].window = 100
    world.agent().reacts.usual = LONG
    await world.until(said + 179)
    assert world.agent().open == 0
    await world.until(said + 195)  # the heartbeat TTL is over, and the sweep has come by
    assert world.agent().open == 4


@simulated
async def test_what_the_old_life_was_at_is_no_matter_to_the_new_one(world: World) -> None:
    await world.given(sign=-1)
    app = await world.start({"defaults.max_concurrent": 4})
    await beats(world, active=4)
    assert world.route().room(app.now()) == 0
    await asyncio.sleep(1)
    await app.coordinator.on_demand(world.route(), Trigger.ADMIN, "", request_id=None)
    await world.eventually(lambda: world.route().workspace.status is Status.READY)
    assert world.route().room(app.now()) == 4
