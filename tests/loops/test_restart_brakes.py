"""The brakes on restarts as stories: debounce, backoff, abandoning, and restarts that a workspace announces."""

import asyncio
from collections.abc import Mapping

import pytest
from simulation.scripted import Reacts
from simulation.suspects import GET_TASK, nobody_answers, restarted
from simulation.world import World, at, message, simulated

from proxy.core.decision import Trigger as LogTrigger
from proxy.core.lifecycle import Status
from proxy.core.restart import Trigger
from proxy.runtimes import RuntimeFailure
from proxy.telemetry import EventName

NOTHING_SETTLES: Mapping[str, object] = {"policy.settle_hold": 0, "policy.settle_window": 0}
"""What fails is judged at once, so that only the brakes are in the way."""


async def begun(world: World) -> list[float]:
    """Return the seconds at which restarts began, rounded."""
    return [round((cycle.started_at - at(0)).total_seconds(), 1) for cycle in await world.cycles()]


def is_ready(world: World) -> bool:
    return world.route().workspace.status is Status.READY


# --- debounce --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dead_at", "answer", "began"),
    [(59.0, "debounced", [0.0, 62.0]), (60.0, "scheduled", [0.0, 60.0]), (61.0, "scheduled", [0.0, 61.0])],
)
@simulated
async def test_scenario_58_an_inferred_death_is_debounced_for_60_s_after_a_start_and_judged_again(
    world: World, dead_at: float, answer: str, began: list[float]
) -> None:
    await world.given(**restarted(0))
    await world.start(NOTHING_SETTLES)
    nobody_answers(world)
    world.machine().starts.usual = 1000.0
    await world.until(dead_at - 2)  # the second look comes two seconds later
    reply = await world.call(body=GET_TASK)
    assert (reply.verdict, reply.restart) == ("dead; rule=not_running", answer)
    debounced = [line for line in await world.decisions() if line.action == "restart debounced"]
    assert [line.at for line in debounced] == ([at(dead_at)] if answer == "debounced" else [])
    await world.until(100)
    assert await begun(world) == began


@simulated
async def test_scenario_58_an_admin_is_never_debounced(world: World) -> None:
    await world.given(**restarted(0))
    app = await world.start()
    for moment in (1.0, 2.0, 3.0):
        await world.until(moment)
        asked = await app.coordinator.on_demand(world.route(), Trigger.ADMIN, "", request_id=None)
        assert asked.decision.answer == "scheduled"
    await world.until(5)
    assert await begun(world) == [0.0, 1.0, 2.0, 3.0]


@simulated
async def test_who_is_back_before_the_debounce_ends_is_not_restarted(world: World) -> None:
    await world.given(announced=True, **restarted(0))
    app = await world.start(NOTHING_SETTLES)
    nobody_answers(world)
    await world.until(40)
    assert (await world.call(body=GET_TASK)).restart == "debounced"
    await app.enrolling.put("ws", {"url": world.url()}, by_admin=False)
    probes = world.machine().inspected
    await world.until(200)
    assert (await begun(world), world.machine().inspected) == ([0.0], probes)


# --- backoff and abandoning ------------------------------------------------------------------------------------------


@simulated
async def test_the_waits_between_failing_starts_double_until_the_workspace_is_abandoned(world: World) -> None:
    await world.given()
    await world.start()
    world.machine().starts.usual = RuntimeFailure("command_not_found", "there is no such command")
    await world.exits()
    await world.until(600)
    assert await begun(world) == [0.0, 1.0, 3.0, 7.0, 15.0]
    row = await world.row()
    assert (row.status, row.abandoned_at) == (Status.ABANDONED, at(15))
    assert len(world.told(EventName.RESTART_ABANDONED)) == 1


@simulated
async def test_without_a_limit_of_intensity_the_waits_go_on_at_their_cap(world: World) -> None:
    await world.given()
    await world.start({"restart.intensity": 0, "restart.backoff_cap": 4})
    world.machine().starts.usual = RuntimeFailure("command_not_found", "there is no such command")
    await world.exits()
    await world.until(20)
    assert await begun(world) == [0.0, 1.0, 3.0, 7.0, 11.0, 15.0, 19.0]


@simulated
async def test_a_workspace_that_gets_ready_and_exits_again_and_again_is_abandoned_after_five_restarts(
    world: World,
) -> None:
    await world.given()
    await world.start()
    for _ in range(6):
        await world.exits()
        await asyncio.sleep(5)
    assert await begun(world) == [0.0, 5.0, 10.0, 15.0, 20.0]
    assert (await world.row()).status is Status.ABANDONED


async def abandoned(world: World) -> None:
    """Let a workspace use up its restarts, by 15 s."""
    await world.given()
    await world.start()
    world.agent().reacts.usual = Reacts()
    nobody_answers(world)
    world.machine().starts.usual = RuntimeFailure("command_not_found", "there is no such command")
    await world.exits()
    await world.until(20)
    assert (await world.row()).status is Status.ABANDONED


@simulated
async def test_an_abandoned_workspace_refuses_new_requests_and_keeps_those_that_wait(world: World) -> None:
    await world.given()
    await world.start()
    nobody_answers(world)
    world.machine().starts.usual = RuntimeFailure("command_not_found", "there is no such command")
    await world.exits()
    early = await world.call(Prefer="respond-async")
    assert early.status == 202
    await world.until(20)
    late = await world.call(body=message(message_id="m-2"), Prefer="respond-async")
    assert (late.status, late.verdict, late.restart) == (503, "dead; rule=exited", "abandoned")
    assert late.facts["restarting"] == "false"
    assert [waiting.id for waiting in await world.waiting()] == [early.receipt]


@pytest.mark.parametrize("asked_by", ["an admin", "a configuration write"])
@simulated
async def test_only_somebody_s_word_brings_an_abandoned_workspace_back(world: World, asked_by: str) -> None:
    await abandoned(world)
    await world.until(2000)
    assert len(await world.cycles()) == 5
    world.machine().starts.usual = 0.0
    world.machine().ready.usual = True
    if asked_by == "an admin":
        assert (await world.request("POST", "/workspaces/ws/restart")).status == 202
    else:
        assert (await world.request("PUT", "/workspaces/ws/config", b'{"command": ["/bin/right"]}')).status == 202
    await world.eventually(lambda: is_ready(world))
    row = await world.row()
    assert (row.abandoned_at, row.offline_rule, row.exited_at) == (None, None, None)


@simulated
async def test_a_new_boot_brings_an_abandoned_workspace_back_without_us(world: World) -> None:
    await abandoned(world)
    app = world.app
    await app.enrolling.put("ws", {"url": world.url(), "boot_id": "by hand"}, by_admin=False)
    await app.enrolling.put("ws", {"url": world.url(), "boot_id": "by hand again"}, by_admin=False)
    assert (await world.row()).status is Status.READY
    assert len(await world.cycles()) == 5


@simulated
async def test_brakes_outlive_the_proxy(world: World) -> None:
    await abandoned(world)
    await world.crash()
    await world.start()
    await world.until(100)
    assert len(await world.cycles()) == 5
    assert (await world.call(body=GET_TASK)).restart == "abandoned"


@simulated
async def test_a_backoff_that_the_proxy_did_not_live_to_see_ends_in_its_next_life(world: World) -> None:
    await world.given()
    await world.start({"restart.backoff": 60})
    world.machine().starts.queue(RuntimeFailure("no_room", "no room"))
    await world.exits()
    await world.until(10)
    await world.crash()
    await world.start({"restart.backoff": 60})
    await world.until(100)
    assert await begun(world) == [0.0, 60.0]
    assert is_ready(world)


# --- announced restarts ----------------------------------------------------------------------------------------------


async def announce(world: World) -> bool:
    return await world.app.coordinator.on_announcement(world.route(), "an update")


@simulated
async def test_an_announced_restart_opens_one_window_per_life_in_which_nobody_looks(world: World) -> None:
    await world.given(boot_id="one", bound=True)
    app = await world.start()
    nobody_answers(world)
    assert await announce(world)
    await world.until(30)
    assert not await announce(world)  # no extension
    await world.until(59.9)
    assert (await world.call(body=GET_TASK)).verdict == "busy; rule=restarting"
    assert world.machine().inspected == 0
    await world.until(61)
    assert (await world.call(body=GET_TASK)).verdict == "dead; rule=not_running"
    await app.enrolling.put("ws", {"url": world.url(), "boot_id": "two"}, by_admin=False)
    assert world.route().workspace.announced_at is None


@simulated
async def test_a_new_life_may_announce_a_restart_of_its_own(world: World) -> None:
    await world.given(boot_id="one", bound=True)
    app = await world.start()
    assert await announce(world)
    await world.until(5)
    await app.enrolling.put("ws", {"url": world.url(), "boot_id": "two"}, by_admin=False)
    assert await announce(world)
    assert [(cycle.trigger, cycle.phase) for cycle in await world.cycles()] == [("announced", "finished")] * 2


@simulated
async def test_announced_restarts_count_against_the_intensity(world: World) -> None:
    await world.given(boot_id="0", bound=True)
    app = await world.start()
    opened = []
    for number in range(7):
        opened.append(await announce(world))
        await app.enrolling.put("ws", {"url": world.url(), "boot_id": str(number + 1)}, by_admin=False)
        await asyncio.sleep(1)
    assert opened == [True] * 5 + [False] * 2


@simulated
async def test_nothing_is_announced_during_a_restart_of_ours(world: World) -> None:
    await world.given()
    app = await world.start()
    world.machine().ready.usual = False
    await app.coordinator.on_demand(world.route(), Trigger.ADMIN, "", request_id=None)
    assert not await announce(world)
    await world.until(1)
    assert not await announce(world)
    assert await begun(world) == [0.0]


@simulated
async def test_an_exit_inside_an_announced_window_is_expected_and_one_after_it_is_a_death(world: World) -> None:
    await world.given()
    app = await world.start()
    nobody_answers(world)
    assert await announce(world)
    await world.until(10)
    await world.exits()
    assert (await world.call(body=GET_TASK)).verdict == "busy; rule=restarting"
    await world.until(61)
    assert (await app.gate.ask(world.route(), LogTrigger.FORWARD)).header == "dead; rule=exited"
