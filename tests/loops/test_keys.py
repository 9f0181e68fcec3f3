"""Idempotency keys in the routing table: joined for as long as they should be, forgotten then, and only their own."""

import pytest
from simulation.scripted import REFUSED
from simulation.world import Reply, World, fails, message, simulated

from proxy.core.lifecycle import Desired

HOUR = 3600.0
BODY = message("once", message_id="m-1")


async def completed(world: World) -> Reply:
    """A deferral that is completed within the first seconds of the story."""
    await world.given(sign=-1)
    await world.start()
    world.agent().reacts.queue(fails(REFUSED))
    reply = await world.call(body=BODY)
    assert reply.status == 202
    await world.eventually(lambda: world.route().size.rows == 0)
    return reply


@pytest.mark.parametrize("restarted", [False, True])
@simulated
async def test_scenario_40_a_completed_deferral_is_joined_for_an_hour_and_its_key_forgotten_afterwards(
    world: World, restarted: bool
) -> None:
    first = await completed(world)
    if restarted:
        await world.stop()
        await world.start()
    heard = len(world.agent().heard)
    await world.until(HOUR - 10)
    assert (await world.call(body=BODY)).receipt == first.receipt
    assert (await world.call(body=message("other", message_id="m-1"))).status == 409
    assert len(world.agent().heard) == heard
    await world.until(HOUR + 10)
    again = await world.call(body=BODY)
    assert (again.status, "Holdfast-Receipt" in again.headers) == (200, False)
    assert len(world.agent().heard) == heard + 1
    await world.until(HOUR + 130)
    assert world.route().keys == {}


@simulated
async def test_an_end_that_is_noted_late_leaves_the_key_of_a_successor_alone(world: World) -> None:
    await world.given(desired=Desired.PAUSED)
    app = await world.start()
    first = await world.call(body=BODY)
    await world.request("POST", f"/queue/{first.receipt}/cancel")
    second = await world.call(body=BODY)
    ended = await world.deferral(first.receipt)
    app.routing.forget_key("ws", ended.caller, ended.idempotency_key, ended.id)
    assert list(world.route().keys.values()) == [second.receipt]
    assert (await world.call(body=BODY)).receipt == second.receipt
