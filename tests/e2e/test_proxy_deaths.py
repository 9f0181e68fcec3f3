"""Stories of a proxy process that is killed: what it knew and what it owed is known and owed by its next life."""

import asyncio
import os
import shutil
import signal
from collections.abc import Callable
from typing import Any

import pytest
from aiohttp import web
from e2e.agents import SmallAgent
from e2e.stage import Stage
from web.harness import ScriptedAgent, completed

pytestmark = pytest.mark.asyncio(loop_scope="module")

Make = Callable[..., Any]


@pytest.mark.parametrize("preset", ["combined", "hold-first"])
async def test_scenario_22_the_settle_window_outlives_the_proxy(stage: Stage, preset: str) -> None:
    await stage.set(policy={"preset": preset, "settle_hold": 600, "settle_window": 600})
    await stage.restart()
    await stage.finished(2)
    before, processes = await stage.view(), stage.processes()
    await stage.revive_proxy()
    after = await stage.view()
    known = ("incarnation", "generation", "settle_until", "started_at", "status", "boot_id", "url")
    assert {name: after[name] for name in known} == {name: before[name] for name in known}
    assert stage.processes() == processes
    await stage.close()
    got = await stage.send()
    assert (got.status, got.headers["Holdfast-Verdict"]) == (202, "busy; rule=settling")
    assert len(stage.agent.heard("booted")) == 2


async def test_scenario_46_a_deferral_that_was_leased_when_the_proxy_was_killed_is_delivered_by_its_next_life(
    stage: Stage,
) -> None:
    await stage.set("boot")
    await stage.restart()
    await stage.agent.tells("booted", 2)
    got = await stage.send(text="wait")
    assert (await stage.proxy.deferral(got))["redelivery"] == "no"
    stage.agent.pipes["boot"].give()
    await stage.agent.tells("got")
    assert (await stage.proxy.deferral(got))["status"] == "leased"
    await stage.revive_proxy()
    await stage.agent.tells("got", 2)
    leased = await stage.proxy.deferral(got)
    assert (leased["status"], leased["redelivery"]) == ("leased", "maybe")
    stage.agent.pipes["go"].give(2)
    await stage.completion(got)
    assert [said["redelivery"] for said in stage.agent.heard("got")] == [None, "maybe"]
    assert len(stage.agent.heard("booted")) == 2


async def test_scenario_46_a_lease_whose_holder_never_comes_back_ends_by_itself(make: Make) -> None:
    proxy = await make(queue__lease=1)
    agent, came, never = ScriptedAgent(), asyncio.Event(), asyncio.Event()

    async def first_never(request: web.Request) -> web.Response:
        if len(agent.seen) == 1:
            came.set()
            await never.wait()
        return web.json_response(completed(await request.read()))

    agent.handler = first_never
    await agent.start()
    await agent.stop()
    await proxy.enroll("a", url=agent.url, unmanaged_away="defer")
    client = await proxy.client()
    got = await proxy.send("a", token=client)
    await agent.start()
    await came.wait()
    await proxy.kill()
    # The next life does not know itself as the one before: it must wait for the lease to end.
    proxy.settings = {**proxy.settings, "data_dir": proxy.folder / "elsewhere"}
    await proxy.start()
    await proxy.event("deferral.completed", receipt=got.headers["Holdfast-Receipt"])
    assert [seen[2].get("Holdfast-Redelivery") for seen in agent.seen] == [None, "maybe"]
    never.set()
    await agent.stop()


async def test_a_strike_and_a_debounce_outlive_the_proxy(make: Make, agent: SmallAgent) -> None:
    # No sign of life reaches the disk, so that there is doubt.
    stage = Stage(await make(beats__flush=60), agent)
    doubt = {"settle_hold": 0, "settle_window": 600, "strike_window": 600, "restart_debounce": 600}
    await stage.set(policy=doubt)
    await stage.proxy.kill()
    # Somebody ended it and swept its traces away: no supervisor saw an exit, the runtime knows nothing of it.
    for pid in stage.processes():
        os.kill(pid, signal.SIGKILL)
    shutil.rmtree(stage.proxy.folder / "holdfast.db.d" / "process" / agent.name)
    await stage.proxy.start()
    got = await stage.send("m1")
    assert (got.status, got.headers["Holdfast-Verdict"]) == (202, "busy; rule=strike")
    await stage.revive_proxy()
    got = await stage.send("m2")
    assert (got.status, got.headers["Holdfast-Verdict"]) == (503, "dead; rule=not_running")
    assert got.headers["Holdfast-Restart"] == "debounced"
    assert (got.metadata["restart"], got.metadata["restarting"]) == ("debounced", "false")
    assert int(got.headers["Retry-After"]) > 500
    assert len(agent.heard("booted")) == 1


async def test_an_agent_that_died_while_no_proxy_looked_is_restarted_by_the_next_life(stage: Stage) -> None:
    await stage.set()
    await stage.proxy.kill()
    stage.kill_agent()
    await stage.proxy.start()
    await stage.finished(2)
    assert len(stage.agent.heard("booted")) == 2
    assert (await stage.view())["restart"]["count_in_window"] == 1
    assert (await stage.send()).status == 200


@pytest.mark.parametrize("moment", ["stopping", "booting"])
async def test_a_restart_that_was_under_way_is_carried_to_its_end_by_the_next_life(stage: Stage, moment: str) -> None:
    await stage.set("boot", "stop")
    await stage.restart()
    await stage.agent.tells("stopping")
    if moment == "booting":
        stage.agent.pipes["stop"].give()
        await stage.agent.tells("booted", 2)
    await stage.revive_proxy()
    stage.agent.pipes["stop"].give()
    stage.agent.pipes["boot"].give()
    await stage.finished(2)
    assert (await stage.view())["generation"] == 2
    assert len(stage.agent.heard("booted")) == 2
    assert stage.processes() == [stage.agent.heard("booted")[1]["booted"]]


async def test_a_dead_agent_that_waits_for_its_next_start_refuses_with_the_time_until_then(stage: Stage) -> None:
    await stage.set(policy={"restart_backoff": 120, "restart_backoff_cap": 120})
    stage.agent.broken.touch()
    stage.kill_agent()
    await stage.event("restart.failed", generation=2)
    await _refused_during_backoff(stage)
    before = (await stage.view())["restart"]
    await stage.revive_proxy()
    assert (await stage.view())["restart"] == before
    await _refused_during_backoff(stage)
    deferred = await stage.send("m2", headers={"Prefer": "respond-async"})
    assert deferred.status == 202
    assert len(stage.agent.heard("broken")) == 1
    stage.agent.broken.unlink()
    await stage.restart()
    await stage.completion(deferred)


async def _refused_during_backoff(stage: Stage) -> None:
    got = await stage.send()
    assert (got.status, got.headers["Holdfast-Restart"]) == (503, "backoff")
    assert got.headers["Holdfast-Verdict"] == "dead; rule=exited"
    assert 60 < int(got.headers["Retry-After"]) <= 120
    assert (got.metadata["delivered"], got.metadata["restarting"]) == ("no", "true")
    assert (await stage.view())["queue_depth"] == 0


async def test_an_agent_that_exits_at_once_each_time_is_abandoned_until_the_admin_restarts_it(stage: Stage) -> None:
    await stage.set(policy={"restart_intensity": 3})
    stage.agent.broken.touch()
    stage.kill_agent()
    await stage.event("restart.abandoned")
    await _abandoned(stage)
    await stage.revive_proxy()
    await _abandoned(stage)
    assert len(stage.agent.heard("broken")) == 3
    stage.agent.broken.unlink()
    assert (await stage.restart()).json["restart"] == "scheduled"
    await stage.finished(2)
    assert (await stage.send()).status == 200


async def _abandoned(stage: Stage) -> None:
    got = await stage.send(headers={"Prefer": "respond-async"})
    assert (got.status, got.headers["Holdfast-Restart"]) == (503, "abandoned")
    assert int(got.headers["Retry-After"]) >= 15
    assert (got.metadata["restart"], got.metadata["restarting"]) == ("abandoned", "false")
    assert (await stage.view())["status"] == "abandoned"
