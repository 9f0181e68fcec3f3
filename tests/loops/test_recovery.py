"""A workspace that is back gets what waited for it: at once, and slowly at first, however long it was away."""

import asyncio

from simulation.world import Reacts, World, at, clock, fails, message, simulated

from proxy.core.deferral import State
from proxy.core.lifecycle import Status
from proxy.core.outcome import UnmanagedAway
from proxy.core.workspace import Settings

AWAY = 200.0
"""Seconds; long enough that the backoff of a deferral that was tried meanwhile has reached its cap."""


async def away_with(world: World, messages: int) -> None:
    """Restart the workspace, send it messages while it boots, and let it boot for AWAY seconds."""
    await world.given()
    await world.start()
    world.agent().reacts.usual = fails()
    world.machine().ready.usual = False
    await world.request("POST", "/workspaces/ws/restart")
    for number in range(messages):
        assert (await world.call(body=message(message_id=f"m-{number}"))).status == 202
    await world.until(AWAY)
    assert len(world.agent().heard) > messages  # it was tried in vain, so everything has backed off


async def is_back(world: World) -> None:
    """Let it listen, and wait until the proxy has seen it."""
    world.machine().ready.usual = True
    await world.eventually(lambda: world.route().workspace.status is Status.READY)


@simulated
async def test_what_backed_off_while_nobody_listened_is_sent_at_once_when_somebody_does(world: World) -> None:
    await away_with(world, 3)
    world.agent().reacts.usual = Reacts()
    await is_back(world)
    back = clock()
    done = await world.eventually(lambda: world.route().size.rows == 0)
    assert done - back < 0.2
    assert {deferral.state for deferral in await world.store.deferrals(workspace_id="ws")} == {State.COMPLETED}


@simulated
async def test_a_slow_start_doubles_with_each_answer_and_heartbeats_do_not_begin_it_anew(world: World) -> None:
    await away_with(world, 15)
    before = len(world.agent().heard)
    world.agent().reacts.usual = Reacts(after=1.0)
    await is_back(world)
    await world.eventually(lambda: world.route().size.rows == 0)
    assert len(world.agent().heard) == before + 15
    back = (await world.row()).ready_at
    assert back is not None
    begun = [heard.at for heard in world.agent().heard[before:] if at(heard.at) >= back]
    assert len(begun) >= 10  # the ends of their own backoffs sent some a little earlier
    assert begun[1] >= begun[0] + 1.0  # one alone, until it is answered
    assert begun[-1] - begun[0] < 5.0  # then 2, 4, 8 at a time
    window = world.app.replayer._drains["ws"].window
    assert window == world.route().capacity
    reply = await world.request("POST", "/workspaces/ws/heartbeat", b'{"status":"ready"}')
    assert reply.status == 200, reply
    await asyncio.sleep(1)
    assert world.app.replayer._drains["ws"].window == window


@simulated
async def test_a_workspace_that_nobody_hosts_is_back_when_it_says_so(world: World) -> None:
    await world.given(managed=False, status=Status.OFFLINE, sign=-1)
    await world.start()
    world.agent().reacts.usual = fails()
    world.machine().ready.usual = False
    assert (await world.call()).status == 202
    await world.until(AWAY)
    world.agent().reacts.usual = Reacts()
    await world.request("POST", "/workspaces/ws/heartbeat", b'{"status":"ready"}')
    said = clock()
    assert await world.eventually(lambda: world.route().size.rows == 0) - said < 0.2


# --- an agent that nobody hosts, away for less time than anybody notices ----------------------------------------------


async def unnoticed_with(world: World, messages: int) -> None:
    """Let the agent refuse everything, send it messages; its workspace counts as ready all the while."""
    await world.given(managed=False, sign=-1, settings=Settings(unmanaged_away=UnmanagedAway.DEFER))
    await world.start()
    world.agent().reacts.usual = fails()
    for number in range(messages):
        assert (await world.call(body=message(message_id=f"m-{number}"))).status == 202


@simulated
async def test_what_backed_off_is_sent_within_a_probe_s_pause_of_the_agent_s_return(world: World) -> None:
    await unnoticed_with(world, 10)
    world.machine().ready.usual = False
    await world.until(60.0)
    assert world.route().workspace.status is Status.READY
    world.machine().ready.usual = True
    world.agent().reacts.usual = Reacts()
    back = clock()
    assert await world.eventually(lambda: world.route().size.rows == 0) - back < 5.5
    assert {deferral.state for deferral in await world.store.deferrals(workspace_id="ws")} == {State.COMPLETED}


@simulated
async def test_a_probe_that_passes_all_the_time_shortens_no_backoff(world: World) -> None:
    await unnoticed_with(world, 1)
    await world.until(AWAY)
    tries = (await world.waiting())[0].tries
    assert len(world.machine().ready.taken) == tries  # each refusal asked once, and learned nothing
    assert tries < 20


@simulated
async def test_nobody_is_probed_for_whom_nothing_waits(world: World) -> None:
    await unnoticed_with(world, 1)
    world.machine().ready.usual = False
    await world.until(30.0)
    assert len(world.machine().ready.taken) > 5
    (deferral,) = await world.waiting()
    assert (await world.request("POST", f"/queue/{deferral.id}/cancel")).status == 200
    asked = len(world.machine().ready.taken)
    await world.until(120.0)
    assert len(world.machine().ready.taken) <= asked + 1
