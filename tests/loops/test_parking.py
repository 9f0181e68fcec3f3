"""Parking in virtual time: what is stopped and started, when, how often, and what a crash in between leaves to do."""

import asyncio
import json

import pytest
from simulation.administration import ask, desired, is_ready, parked, phases, status
from simulation.suspects import GET_TASK, NOT_RUNNING
from simulation.world import Reacts, World, message, simulated

from proxy.core.lifecycle import Desired, Status
from proxy.core.restart import Trigger
from proxy.runtimes import Exited, Launch, RuntimeFailure, Started
from proxy.telemetry import EventName

# --- pause and resume ------------------------------------------------------------------------------------------------


@simulated
async def test_a_paused_workspace_is_stopped_and_left_alone_and_its_requests_wait(world: World) -> None:
    await world.given()
    await world.start({"health.sweep": 1, "queue.sweep": 1})
    reply = await ask(world, "pause", reason="the bill")
    assert (reply.status, reply.json["desired"], reply.json["changed"]) == (200, "paused", 1)
    await world.until(1)
    assert world.machine().verbs() == [("stop", 1)]
    inspected, heard = world.machine().inspected, len(world.agent().heard)
    world.machine().says.usual = NOT_RUNNING
    waiting = await world.call()
    assert (waiting.status, waiting.verdict) == (202, "busy; rule=paused")
    refused = await world.call(body=GET_TASK)
    assert (refused.status, refused.headers["Retry-After"]) == (503, "15")
    await world.until(600)
    row = await world.row()
    assert (row.desired, row.status, row.offline_rule) == (Desired.PAUSED, Status.OFFLINE, None)
    assert (world.machine().inspected, len(world.agent().heard)) == (inspected, heard)
    assert world.machine().verbs() == [("stop", 1)]
    assert await phases(world) == []
    said = [line for line in await world.decisions() if line.action in {"desired paused", "compute stopped"}]
    assert [line.action for line in said] == ["desired paused", "compute stopped"]
    assert said[0].evidence == {"reason": "the bill"}
    assert [event.fields for event in world.told(EventName.WORKSPACE_DESIRED)] == [{"desired": "paused"}]


@simulated
async def test_a_resumed_workspace_is_started_by_a_recorded_cycle_and_what_waited_is_delivered(world: World) -> None:
    await world.given()
    await world.start()
    await parked(world, "pause")
    receipts = [(await world.call(body=message(message_id=f"m-{number}"))).receipt for number in range(3)]
    reply = await ask(world, "resume")
    assert (reply.status, reply.json["desired"], reply.json["changed"]) == (200, "running", 1)
    await world.eventually(lambda: is_ready(world))
    await world.eventually(lambda: len(world.agent().heard) == 3)
    [cycle] = await world.cycles()
    assert (cycle.trigger, cycle.reason, cycle.phase.value) == (Trigger.ADMIN, "resumed", "finished")
    assert world.machine().verbs() == [("stop", 1), ("stop", 1), ("start", 1)]
    await world.eventually(lambda: world.route().size.rows == 0)
    assert {(await world.deferral(receipt)).state.value for receipt in receipts} == {"completed"}
    assert (await world.row()).incarnation == 2


@simulated
async def test_pausing_twice_and_resuming_twice_change_it_once(world: World) -> None:
    await world.given()
    await world.start()
    await parked(world, "pause")
    again = await ask(world, "pause")
    assert (again.status, again.json["desired"], again.json["changed"]) == (200, "paused", 0)
    resumed = await asyncio.gather(*(ask(world, "resume") for _ in range(5)))
    assert [reply.status for reply in resumed] == [200] * 5
    assert sorted(reply.json["changed"] for reply in resumed) == [0, 0, 0, 0, 1]
    await world.eventually(lambda: is_ready(world))
    assert await phases(world) == ["finished"]
    assert [event.fields["desired"] for event in world.told(EventName.WORKSPACE_DESIRED)] == ["paused", "running"]


@simulated
async def test_open_calls_finish_before_the_stop(world: World) -> None:
    await world.given()
    await world.start()
    world.agent().reacts.queue(Reacts(after=12))
    call = asyncio.create_task(world.call())
    await world.until(1)
    await ask(world, "pause")
    await world.until(11)
    assert world.machine().verbs() == []
    assert (await call).status == 200
    await world.until(13)
    assert world.machine().verbs() == [("stop", 1)]


@pytest.mark.parametrize(("force", "stopped_at"), [(False, 31.0), (True, 1.0)])
@simulated
async def test_open_calls_are_waited_for_no_longer_than_the_drain_and_not_at_all_with_force(
    world: World, force: bool, stopped_at: float
) -> None:
    await world.given()
    await world.start({"parking.drain": 30})
    world.agent().reacts.queue(Reacts(after=300))
    call = asyncio.create_task(world.call())
    await world.until(1)
    await ask(world, "pause", force=force)
    await world.until(400)
    [stop] = world.machine().acts
    assert stop.begun == pytest.approx(stopped_at, abs=0.2)
    await call


@simulated
async def test_resuming_while_calls_drain_leaves_the_compute_untouched(world: World) -> None:
    await world.given()
    await world.start()
    world.agent().reacts.queue(Reacts(after=10))
    call = asyncio.create_task(world.call())
    await world.until(1)
    await ask(world, "pause")
    deferred = await world.call(body=message(message_id="m-2"))
    assert deferred.verdict == "busy; rule=paused"
    await world.until(3)
    assert (await ask(world, "resume")).json["changed"] == 1
    assert (await call).status == 200
    await world.until(60)
    assert world.machine().acts == []
    assert is_ready(world)
    assert (await world.deferral(deferred.receipt)).state.value == "completed"


@simulated
async def test_an_exit_while_it_drains_is_no_death_until_it_is_wanted_again(world: World) -> None:
    await world.given()
    app = await world.start()
    world.agent().reacts.queue(Reacts(after=20))
    call = asyncio.create_task(world.call())
    await world.until(1)
    await ask(world, "pause")
    app.on_exit(Exited(workspace_id="ws", incarnation=1, exit_code=1, expected=False, at=app.now()))
    await world.until(5)
    assert await phases(world) == []
    await ask(world, "resume")
    await world.eventually(lambda: world.machine().verbs() == [("stop", 1), ("start", 1)])
    [cycle] = await world.cycles()
    assert (cycle.trigger, cycle.rule) == (Trigger.VERDICT, "exited")
    await call


# --- pause and restart cycles ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", [1.0, 6.0], ids=["during its stop", "during its start"])
@simulated
async def test_a_pause_during_a_restart_ends_with_nothing_running(world: World, moment: float) -> None:
    await world.given()
    await world.start()
    world.machine().stops.queue(5.0)
    world.machine().starts.queue(5.0)
    await ask(world, "restart")
    await world.until(moment)
    assert (await ask(world, "pause")).status == 200
    await world.eventually(lambda: world.route().workspace.stopped_at is not None)
    await world.until(120)
    world.machine().assert_never_overlapping()
    starts = [("start", 1)] if moment > 5 else []
    assert world.machine().verbs() == [("stop", 1), *starts, ("stop", 2)], "what is not wanted is not started"
    assert await phases(world) == ["superseded"]
    assert (await world.row()).status is Status.OFFLINE
    await ask(world, "resume")
    await world.eventually(lambda: is_ready(world))
    assert await phases(world) == ["superseded", "finished"]


@simulated
async def test_a_resume_right_after_a_pause_during_a_restart_starts_it_once_more_and_never_twice_at_once(
    world: World,
) -> None:
    await world.given()
    await world.start()
    world.machine().stops.usual = world.machine().starts.usual = 3.0
    for verb in ("restart", "pause", "resume", "pause", "resume"):
        assert (await ask(world, verb)).status < 300
        await asyncio.sleep(0.5)
    await world.eventually(lambda: is_ready(world), within=120)
    world.machine().assert_never_overlapping()
    assert world.machine().verbs()[-1][0] == "start"
    assert (await phases(world))[-1] == "finished"


@simulated
async def test_a_stop_that_fails_is_repeated_until_it_is_done_or_not_wanted(world: World) -> None:
    await world.given()
    await world.start()
    world.machine().stops.queue(*[RuntimeFailure("system", "no")] * 7)
    await ask(world, "pause")
    await world.eventually(lambda: world.route().workspace.stopped_at is not None, within=300)
    assert len(world.machine().acts) == 8
    assert {event.fields["work"] for event in world.told(EventName.RUNTIME_FAILED)} == {"parking"}
    await ask(world, "resume")
    await world.eventually(lambda: is_ready(world))


@simulated
async def test_a_restart_and_a_configuration_write_are_refused_while_it_or_one_above_it_is_parked(
    world: World,
) -> None:
    await world.given("top")
    await world.given("below", parent="top")
    await world.start()
    await parked(world, "pause", "top")
    for name in ("top", "below"):
        reply = await ask(world, "restart", name)
        assert reply.status == 409
        assert reply.json["workspace"] in {"top", "below"}


@simulated
async def test_a_backoff_that_ends_while_it_is_paused_starts_nothing(world: World) -> None:
    await world.given(status=Status.READY)
    app = await world.start({"restart.backoff": 20, "restart.backoff_cap": 20})
    world.machine().starts.queue(RuntimeFailure("command_not_found", "no"))
    app.on_exit(Exited(workspace_id="ws", incarnation=1, exit_code=1, expected=False, at=app.now()))
    await world.eventually(lambda: status(world) is Status.OFFLINE and not world.route().open_cycle)
    await ask(world, "pause")
    await world.until(600)
    assert [verb for verb, _ in world.machine().verbs()] == ["stop", "start", "stop"]
    assert (await world.row()).status is Status.OFFLINE


@simulated
async def test_a_start_that_fails_after_the_pause_came_is_held_against_nobody(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.given()
    app = await world.start({"restart.intensity": 1})

    async def start(_: Launch) -> Started:
        await asyncio.sleep(5)
        raise RuntimeFailure("system", "no room")

    monkeypatch.setattr(world.hosting._managed, "start", start)
    app.on_exit(Exited(workspace_id="ws", incarnation=1, exit_code=1, expected=False, at=app.now()))
    await world.until(1)
    assert status(world) is Status.RESTARTING
    await ask(world, "pause")
    await world.eventually(lambda: world.route().workspace.stopped_at is not None)
    assert status(world) is Status.OFFLINE
    assert not [line for line in await world.decisions() if line.action in {"restart backoff", "restart abandoned"}]


# --- a proxy that dies in between ------------------------------------------------------------------------------------


@simulated
async def test_a_proxy_killed_between_the_pause_and_its_stop_finishes_it_at_its_next_start(world: World) -> None:
    await world.given()
    await world.start()
    world.machine().stops.queue(50.0)
    await ask(world, "pause")
    await world.until(1)
    assert (await world.row()).stopped_at is None
    await world.crash()
    await world.start()
    await world.eventually(lambda: world.route().workspace.stopped_at is not None)
    assert world.machine().verbs() == [("stop", 1), ("stop", 1)]
    assert (desired(world), status(world)) == ("paused", Status.OFFLINE)


@simulated
async def test_a_proxy_killed_with_a_paused_cycle_open_starts_nothing_at_its_next_start(world: World) -> None:
    await world.given()
    await world.start()
    world.machine().stops.queue(50.0)
    await ask(world, "restart")
    await world.until(1)
    await ask(world, "pause")
    await world.crash()
    await world.start()
    await world.eventually(lambda: world.route().workspace.stopped_at is not None)
    await world.until(60)
    assert "start" not in {verb for verb, _ in world.machine().verbs()}
    assert await phases(world) == ["superseded"]


@simulated
async def test_a_proxy_killed_right_after_a_resume_starts_it_at_its_next_start(world: World) -> None:
    await world.given()
    await world.start()
    await parked(world, "pause")
    await world.app.parking.resume(world.route(), "", request_id=None)
    await world.crash()
    assert world.machine().verbs() == [("stop", 1)]
    await world.start()
    await world.eventually(lambda: is_ready(world))
    assert world.machine().verbs()[-1] == ("start", 1)
    assert desired(world) == "running"


# --- below and above -------------------------------------------------------------------------------------------------


@simulated
async def test_a_pause_and_a_resume_take_everything_below_with_them(world: World) -> None:
    for name, parent in (("top", None), ("middle", "top"), ("ws", "middle"), ("other", None)):
        await world.given(name, parent=parent)
    await world.start()
    assert (await ask(world, "pause", "top")).json["changed"] == 3
    await world.eventually(lambda: all(world.route(name).workspace.stopped_at for name in ("top", "middle", "ws")))
    assert [desired(world, name) for name in ("top", "middle", "ws", "other")] == ["paused"] * 3 + ["running"]
    refused = await ask(world, "resume", "ws")
    assert (refused.status, refused.json["workspace"]) == (409, "middle")
    assert (await ask(world, "resume", "top")).json["changed"] == 3
    await world.eventually(lambda: all(status(world, name) is Status.READY for name in ("top", "middle", "ws")))


@simulated
async def test_two_workspaces_that_call_each_other_parent_are_parked_all_the_same(world: World) -> None:
    await world.given("ws", parent="other")
    await world.given("other", parent="ws")
    await world.start()
    assert (await ask(world, "pause")).json["changed"] == 2
    assert (await ask(world, "resume")).status == 409


# --- without a runtime -----------------------------------------------------------------------------------------------


@simulated
async def test_a_workspace_without_a_runtime_is_not_dialled_while_it_is_paused_and_dialled_again_afterwards(
    world: World,
) -> None:
    await world.given(managed=False, sign=-1)
    await world.start()
    await ask(world, "pause")
    reply = await world.call()
    assert (reply.status, reply.verdict) == (202, "busy; rule=paused")
    assert (status(world), world.machine().acts) == (Status.READY, [])
    beat = json.dumps({"status": "ready"}).encode()
    assert (await world.request("POST", "/workspaces/ws/heartbeat", beat)).status == 200
    assert desired(world) == "paused", "only an administrator ends a pause"
    await ask(world, "resume")
    await world.eventually(lambda: len(world.agent().heard) == 1)
    assert (await world.call(body=message(message_id="m-2"))).status == 200


# --- who may, and what is said ----------------------------------------------------------------------------------------


@simulated
async def test_parking_is_the_admin_s(world: World) -> None:
    await world.given()
    await world.start()
    for verb in ("pause", "resume", "hibernate"):
        path = f"/workspaces/ws/{verb}"
        assert (await world.request("POST", path, Holdfast_Token="hf_" + "x" * 43)).status == 401
        assert (await ask(world, verb, "nobody")).status == 404
        assert (await ask(world, verb, because="typo")).status == 400
    assert desired(world) == "running"
