"""Stories of real processes: an agent that the proxy started, killed and started again, and a proxy that is killed.

Each test decides by named pipes when the agent goes on (`agents`) and waits for events of the proxy by name (`serving`).
"""

import asyncio
import json
import os
import shutil
import signal
from typing import Any

import pytest
from e2e.agents import SmallAgent, processes_of
from e2e.serving import Answered, Serving, task_id_of
from web.harness import ScriptedAgent, completed

AWAY = {"policy": {"settle_hold": 600, "settle_window": 600}}


async def managed(proxy: Serving, agent: SmallAgent, *steps: str, **members: Any) -> str:
    """Have the proxy start the agent and wait until it is ready; return a client's token."""
    await proxy.enroll("a", **agent.described(*steps, **members))
    if "boot" in steps:
        agent.pipes["boot"].give()
    await proxy.event("restart.finished", workspace="a", phase="finished")
    return await proxy.client()


async def completion(proxy: Serving, answer: Answered, *, token: str) -> dict[str, Any]:
    """Wait until what was put away has been done; return its task."""
    await proxy.event("deferral.completed", receipt=answer.headers["Holdfast-Receipt"])
    task = await proxy.task("a", task_id_of(answer), token=token)
    assert task["status"]["state"] == "TASK_STATE_COMPLETED", task
    return task


def done(agent: SmallAgent) -> list[str]:
    """The messages that the agent was given, in order."""
    return [said["got"] for said in agent.heard("got")]


# --- the proxy dies ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", ["combined", "hold-first"])
async def test_scenario_22_the_settle_window_outlives_the_proxy(
    proxy: Serving, agent: SmallAgent, preset: str
) -> None:
    client = await managed(proxy, agent, policy={"preset": preset, "settle_hold": 600, "settle_window": 600})
    await proxy.ask("POST", "/workspaces/a/restart")
    await proxy.event("restart.finished", count=2, phase="finished")
    before, pids = await proxy.view("a"), list(processes_of(proxy.folder))
    await proxy.kill()
    await proxy.start()
    after = await proxy.view("a")
    known = ("incarnation", "generation", "settle_until", "started_at", "status", "boot_id", "url")
    assert {name: after[name] for name in known} == {name: before[name] for name in known}
    assert list(processes_of(proxy.folder)) == pids
    assert len(agent.heard("booted")) == 2
    assert (await proxy.ask("POST", "/workspaces/a/a2a/close", token=client)).status == 200
    got = await proxy.send("a", token=client)
    assert (got.status, got.headers["Holdfast-Verdict"]) == (202, "busy; rule=settling")
    assert len(agent.heard("booted")) == 2


async def test_scenario_46_a_deferral_that_was_leased_when_the_proxy_was_killed_is_delivered_by_its_next_life(
    proxy: Serving, agent: SmallAgent
) -> None:
    client = await managed(proxy, agent, "boot")
    await proxy.ask("POST", "/workspaces/a/restart")
    await agent.tells("booted", 2)
    got = await proxy.send("a", text="wait", token=client)
    assert (await proxy.deferral(got))["redelivery"] == "no"
    agent.pipes["boot"].give()
    await agent.tells("got")
    assert (await proxy.deferral(got))["status"] == "leased"
    await proxy.kill()
    await proxy.start()
    await agent.tells("got", 2)
    leased = await proxy.deferral(got)
    assert (leased["status"], leased["redelivery"]) == ("leased", "maybe")
    agent.pipes["go"].give(2)
    await completion(proxy, got, token=client)
    assert [said["redelivery"] for said in agent.heard("got")] == [None, "maybe"]
    assert len(agent.heard("booted")) == 2


async def test_scenario_46_a_lease_whose_holder_never_comes_back_ends_by_itself(make: Any) -> None:
    proxy = await make(queue__lease=1)
    agent, came, never = ScriptedAgent(), asyncio.Event(), asyncio.Event()

    async def answer(request: Any) -> Any:
        from aiohttp import web  # noqa: PLC0415 - one use

        if len(agent.seen) == 1:
            came.set()
            await never.wait()
        return web.json_response(completed(await request.read()))

    agent.handler = answer
    await agent.start()
    await agent.stop()
    await proxy.enroll("a", url=agent.url, unmanaged_away="defer", dead_action="defer")
    client = await proxy.client()
    got = await proxy.send("a", token=client)
    await agent.start()
    await came.wait()
    await proxy.kill()
    # The next life does not know itself as the one before: it must wait for the lease to end.
    proxy.settings = {**proxy.settings, "data_dir": proxy.folder / "elsewhere"}
    await proxy.start()
    assert (await proxy.deferral(got))["status"] == "leased"
    await completion(proxy, got, token=client)
    assert [seen[2].get("Holdfast-Redelivery") for seen in agent.seen] == [None, "maybe"]
    never.set()
    await agent.stop()


async def test_a_strike_and_a_debounce_outlive_the_proxy(make: Any, agent: SmallAgent) -> None:
    proxy = await make(beats__flush=60)  # no sign of life reaches the disk, so that there is doubt
    client = await managed(
        proxy, agent, policy={"settle_hold": 0, "settle_window": 600, "strike_window": 600, "restart_debounce": 600}
    )
    await proxy.kill()
    # Somebody ended it and swept its traces away: no supervisor saw an exit, the runtime knows nothing of it.
    for pid in processes_of(proxy.folder):
        os.kill(pid, signal.SIGKILL)
    shutil.rmtree(proxy.folder / "holdfast.db.d" / "process" / "a")
    await proxy.start()
    got = await proxy.send("a", "m1", token=client)
    assert (got.status, got.headers["Holdfast-Verdict"]) == (202, "busy; rule=strike")
    await proxy.kill()
    await proxy.start()
    got = await proxy.send("a", "m2", token=client)
    assert (got.status, got.headers["Holdfast-Verdict"]) == (503, "dead; rule=not_running")
    assert got.headers["Holdfast-Restart"] == "debounced"
    assert (got.metadata["restart"], got.metadata["restarting"]) == ("debounced", "false")
    assert int(got.headers["Retry-After"]) > 500
    assert len(agent.heard("booted")) == 1


# --- the agent is restarted -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", [{}, {"settle_hold": 0, "settle_window": 0}], ids=["settling", "running"])
async def test_scenario_34_a_configuration_write_that_restarts_the_agent_costs_nobody_a_message(
    proxy: Serving, agent: SmallAgent, policy: dict[str, Any]
) -> None:
    client = await managed(proxy, agent, "boot", policy=policy)
    written = await proxy.ask("PUT", "/workspaces/a/config", json={"data": {"model": "b"}})
    assert (written.status, written.json["restart"]) == (202, "scheduled")
    during = await asyncio.gather(*(proxy.send("a", f"m{number}", token=client) for number in range(3)))
    assert (await agent.tells("booted", 2))["config"] == {"model": "b"}
    await proxy.until(lambda: bool(proxy.named("request.failed")) or len(agent.heard("booted")) == 2)
    refused = await proxy.send("a", "m3", token=client)  # the new life runs and does not listen yet
    for got in (*during, refused):
        assert got.status == 202
        assert got.headers["Holdfast-Verdict"].startswith(("busy; ", "alive; rule=running"))
    view = await proxy.view("a")
    assert (view["url"], view["queue_depth"], view["status"]) == (agent.url, 4, "starting")
    agent.pipes["boot"].give()
    for got in (*during, refused):
        await completion(proxy, got, token=client)
    assert sorted(done(agent)) == ["m0", "m1", "m2", "m3"]
    assert len(agent.heard("booted")) == 2


async def test_scenario_56_ten_requests_make_two_cycles_and_the_second_sees_what_was_written_during_the_first(
    proxy: Serving, agent: SmallAgent
) -> None:
    client = await managed(proxy, agent, "stop")
    first = await proxy.ask("POST", "/workspaces/a/restart")
    await agent.tells("stopping")
    others = await asyncio.gather(*(proxy.ask("POST", "/workspaces/a/restart") for _ in range(9)))
    written = await proxy.ask("PUT", "/workspaces/a/config", json={"data": {"version": 7}})
    assert first.json == {"restart": "scheduled", "generation": 2}
    assert [got.json for got in others] == [{"restart": "coalesced", "generation": 3}] * 9
    assert (written.status, written.json["restart"]) == (202, "coalesced")
    agent.pipes["stop"].give(2)
    await proxy.event("restart.finished", generation=3, phase="finished")
    lives = agent.heard("booted")  # the second life may have been stopped before it could say a word
    assert len({said["booted"] for said in lives}) == len(lives) <= 3
    assert (lives[-1]["incarnation"] - lives[0]["incarnation"], lives[-1]["config"]) == (2, {"version": 7})
    assert list(processes_of(proxy.folder)) == [lives[-1]["booted"]]
    assert (await proxy.send("a", token=client)).status == 200


async def test_scenario_56_ten_requests_at_the_same_moment_make_at_most_two_cycles(
    proxy: Serving, agent: SmallAgent
) -> None:
    await managed(proxy, agent)
    answers = await asyncio.gather(*(proxy.ask("POST", "/workspaces/a/restart") for _ in range(10)))
    assert {got.status for got in answers} == {202}
    last = max(got.json["generation"] for got in answers)
    assert last in {2, 3}
    await proxy.event("restart.finished", generation=last, phase="finished")
    assert len(agent.heard("booted")) <= last
    assert list(processes_of(proxy.folder)) == [agent.heard("booted")[-1]["booted"]]


async def test_scenario_57_a_cycle_that_cannot_start_leaves_nothing_behind_and_the_next_request_works(
    proxy: Serving, agent: SmallAgent
) -> None:
    client = await managed(proxy, agent, policy={"restart_backoff": 600})
    good = agent.command()
    await proxy.ask("PUT", "/workspaces/a/config", json={"command": ["/nonexistent/agent"]})
    await proxy.event("workspace.status", status="offline")
    assert [event["generation"] for event in proxy.named("restart.failed")] == [2]
    assert list(processes_of(proxy.folder)) == []
    got = await proxy.send("a", token=client)
    assert (got.status, got.headers["Holdfast-Restart"]) == (503, "backoff")
    view = await proxy.view("a")
    assert (view["restart"]["state"], view["url"]) == ("failed", agent.url)
    assert "/nonexistent/agent" in view["restart"]["error"]
    await proxy.ask("PUT", "/workspaces/a/config", json={"command": good})
    await proxy.event("restart.finished", generation=3, phase="finished")
    assert (await proxy.send("a", "m2", token=client)).status == 200


async def test_a_restart_of_what_nobody_hosts_says_so_and_does_nothing(proxy: Serving, agent: SmallAgent) -> None:
    await proxy.enroll("a", url=agent.url)
    got = await proxy.ask("POST", "/workspaces/a/restart")
    assert (got.status, got.json) == (200, {"restart": "unmanaged"})
    assert (await proxy.view("a"))["generation"] == 0


# --- the agent dies ---------------------------------------------------------------------------------------------------


async def test_requests_to_a_killed_agent_are_put_away_and_done_after_one_restart(
    proxy: Serving, agent: SmallAgent
) -> None:
    client = await managed(proxy, agent, "boot", dead_action="defer")
    assert (await proxy.send("a", "before", token=client)).status == 200
    os.kill(agent.heard("booted")[0]["booted"], signal.SIGKILL)
    during = await asyncio.gather(*(proxy.send("a", f"m{number}", token=client) for number in range(5)))
    await agent.tells("booted", 2)
    during.append(await proxy.send("a", "m5", token=client))
    for got in during:
        assert got.status == 202
        assert got.headers["Holdfast-Verdict"].partition(";")[0] in {"busy", "dead"}
    agent.pipes["boot"].give()
    for got in during:
        await completion(proxy, got, token=client)
    assert sorted(done(agent)) == ["before", "m0", "m1", "m2", "m3", "m4", "m5"]
    first, second = (said["incarnation"] for said in agent.heard("booted"))
    view = await proxy.view("a")
    assert (view["status"], view["incarnation"], view["restart"]["count_in_window"]) == ("ready", second, 1)
    assert second == first + 1


async def test_a_call_that_its_agent_dies_under_is_refused_with_its_prospects_or_put_away(
    proxy: Serving, agent: SmallAgent
) -> None:
    client = await managed(proxy, agent)
    calls = [asyncio.create_task(proxy.send("a", f"m{number}", text="wait", token=client)) for number in range(4)]
    await agent.tells("got", 4)
    os.kill(agent.heard("booted")[0]["booted"], signal.SIGKILL)
    answers = await asyncio.gather(*calls)
    agent.pipes["go"].give(8)
    # Whether a call finds the death before the restart has begun is the machine's choice; both have one answer each.
    for got in answers:
        if got.status == 202:
            assert got.headers["Holdfast-Verdict"] in {"busy; rule=restarting", "busy; rule=settling"}
            assert (await proxy.deferral(got))["redelivery"] == "maybe"
            await completion(proxy, got, token=client)
        else:
            assert got.status == 503
            assert int(got.headers["Retry-After"]) >= 15
            assert got.headers["Holdfast-Restart"] in {"scheduled", "coalesced"}
            assert got.headers["Holdfast-Verdict"] == "dead; rule=exited"
            assert (got.metadata["delivered"], got.metadata["restarting"]) == ("maybe", "true")
    await proxy.event("restart.finished", generation=2, phase="finished")
    assert len(agent.heard("booted")) == 2


async def test_a_dead_agent_that_waits_for_its_next_start_refuses_with_the_time_until_then(
    proxy: Serving, agent: SmallAgent
) -> None:
    client = await managed(proxy, agent, policy={"restart_backoff": 120, "restart_backoff_cap": 120})
    agent.broken.touch()
    os.kill(agent.heard("booted")[0]["booted"], signal.SIGKILL)
    await proxy.event("restart.failed", generation=2)
    await _refused_during_backoff(proxy, client)
    before = (await proxy.view("a"))["restart"]
    await proxy.kill()
    await proxy.start()
    assert (await proxy.view("a"))["restart"] == before
    await _refused_during_backoff(proxy, client)
    deferred = await proxy.send("a", "m2", token=client, headers={"Prefer": "respond-async"})
    assert deferred.status == 202
    assert len(agent.heard("broken")) == 1
    agent.broken.unlink()
    await proxy.ask("POST", "/workspaces/a/restart")
    await completion(proxy, deferred, token=client)


async def _refused_during_backoff(proxy: Serving, client: str) -> None:
    got = await proxy.send("a", token=client)
    assert (got.status, got.headers["Holdfast-Restart"]) == (503, "backoff")
    assert got.headers["Holdfast-Verdict"] == "dead; rule=exited"
    assert 60 < int(got.headers["Retry-After"]) <= 120
    assert (got.metadata["delivered"], got.metadata["restarting"]) == ("no", "true")
    assert (await proxy.view("a"))["queue_depth"] == 0


async def test_an_agent_that_exits_at_once_each_time_is_abandoned_until_the_admin_restarts_it(
    proxy: Serving, agent: SmallAgent
) -> None:
    client = await managed(proxy, agent, policy={"restart_intensity": 3})
    agent.broken.touch()
    os.kill(agent.heard("booted")[0]["booted"], signal.SIGKILL)
    await proxy.event("restart.abandoned", workspace="a")
    assert len(agent.heard("broken")) == 3
    for life in (1, 2):  # abandoned stays abandoned when the proxy starts again
        got = await proxy.send("a", token=client, headers={"Prefer": "respond-async"})
        assert (got.status, got.headers["Holdfast-Restart"]) == (503, "abandoned"), life
        assert int(got.headers["Retry-After"]) >= 15
        assert (got.metadata["restart"], got.metadata["restarting"]) == ("abandoned", "false")
        assert (await proxy.view("a"))["status"] == "abandoned"
        if life == 1:
            await proxy.kill()
            await proxy.start()
    assert len(agent.heard("broken")) == 3
    agent.broken.unlink()
    assert (await proxy.ask("POST", "/workspaces/a/restart")).json["restart"] == "scheduled"
    await proxy.event("restart.finished", count=2, phase="finished")
    assert (await proxy.send("a", token=client)).status == 200


# --- the agent is busy ------------------------------------------------------------------------------------------------


async def test_scenario_45_a_replay_that_meets_a_busy_agent_leaves_the_message_queued_until_it_is_taken(
    make: Any, agent: SmallAgent
) -> None:
    proxy = await make(queue__gateway_backoff=0.05)
    client = await managed(proxy, agent, "boot")
    await proxy.ask("POST", "/workspaces/a/restart")
    await agent.tells("booted", 2)
    got = await proxy.send("a", token=client)
    agent.busy.touch()
    agent.pipes["boot"].give()
    await agent.tells("busy", 6)  # more often than the five tries that it has
    seen = await proxy.deferral(got)
    assert seen["status"] in {"queued", "leased"}
    assert seen["attempts"] == 0
    agent.busy.unlink()
    await completion(proxy, got, token=client)
    assert done(agent) == ["m1"]


async def test_scenario_45_a_replay_that_meets_a_closed_door_waits_longer_and_longer_and_is_not_counted(
    proxy: Serving, agent: SmallAgent
) -> None:
    client = await managed(proxy, agent, policy={"settle_hold": 0, "settle_window": 0})
    assert (await proxy.ask("POST", "/workspaces/a/a2a/close", token=client)).status == 200
    got = await proxy.send("a", token=client)
    assert (got.status, got.headers["Holdfast-Verdict"]) == (202, "alive; rule=running")
    await proxy.event("deferral.returned", count=6)
    assert {event["class"] for event in proxy.named("deferral.returned")} == {"not_sent"}
    assert (await proxy.deferral(got))["attempts"] == 0
    await proxy.ask("POST", "/workspaces/a/restart")
    await completion(proxy, got, token=client)
    assert done(agent) == ["m1"]


async def test_what_an_agent_writes_is_kept_out_of_the_proxys_own_log(proxy: Serving, agent: SmallAgent) -> None:
    await managed(proxy, agent)
    assert proxy.stray == []
    assert all("hf_" not in json.dumps(event) for event in proxy.events)
