"""Stories of agent processes that a proxy process hosts: killed, restarted, broken, busy.

Each test decides by named pipes when its agent goes on (`agents`), and waits for the proxy's events (`serving`).
"""

import asyncio
from typing import Any

import pytest
from chaos.waiting import until
from e2e.serving import PATIENCE
from e2e.stage import Stage

pytestmark = pytest.mark.asyncio(loop_scope="module")


# --- somebody restarts it ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", [{}, {"settle_hold": 0, "settle_window": 0}], ids=["settling", "running"])
async def test_scenario_34_a_configuration_write_that_restarts_the_agent_costs_nobody_a_message(
    stage: Stage, policy: dict[str, Any]
) -> None:
    await stage.set("boot", policy=policy)
    written = await stage.configure(data={"model": "b"})
    assert (written.status, written.json["restart"]) == (202, "scheduled")
    during = await asyncio.gather(*(stage.send(f"m{number}") for number in range(3)))
    assert (await stage.agent.tells("booted", 2))["config"] == {"model": "b"}
    during.append(await stage.send("m3"))  # the new life runs and does not listen yet
    for got in during:
        assert got.status == 202
        assert got.headers["Holdfast-Verdict"].startswith(("busy; ", "alive; rule=running"))
    view = await stage.view()
    assert (view["url"], view["queue_depth"]) == (stage.agent.url, 4)
    assert view["status"] in {"restarting", "starting"}
    stage.agent.pipes["boot"].give()
    for got in during:
        await stage.completion(got)
    assert sorted(stage.done()) == ["m0", "m1", "m2", "m3"]
    assert len(stage.agent.heard("booted")) == 2


async def test_scenario_56_ten_requests_make_two_cycles_and_the_second_sees_what_was_written_during_the_first(
    stage: Stage,
) -> None:
    await stage.set("stop")
    first = await stage.restart()
    await stage.agent.tells("stopping")
    others = await asyncio.gather(*(stage.restart() for _ in range(9)))
    written = await stage.configure(data={"version": 7})
    assert first.json == {"restart": "scheduled", "generation": 2}
    assert [got.json for got in others] == [{"restart": "coalesced", "generation": 3}] * 9
    assert (written.status, written.json["restart"]) == (202, "coalesced")
    stage.agent.pipes["stop"].give(2)
    await stage.finished(generation=3)
    lives = stage.agent.heard("booted")  # the second life may have been stopped before it could say a word
    assert len({said["booted"] for said in lives}) == len(lives) <= 3
    assert (lives[-1]["incarnation"] - lives[0]["incarnation"], lives[-1]["config"]) == (2, {"version": 7})
    assert stage.processes() == [lives[-1]["booted"]]
    assert (await stage.send()).status == 200


async def test_scenario_56_ten_requests_at_the_same_moment_make_at_most_two_cycles(stage: Stage) -> None:
    await stage.set()
    answers = await asyncio.gather(*(stage.restart() for _ in range(10)))
    assert {got.status for got in answers} == {202}
    last = max(got.json["generation"] for got in answers)
    assert last in {2, 3}
    await stage.finished(generation=last)
    lives = stage.agent.heard("booted")
    assert len(lives) <= last
    assert stage.processes() == [lives[-1]["booted"]]


async def test_scenario_57_a_cycle_that_cannot_start_leaves_nothing_behind_and_the_next_request_works(
    stage: Stage,
) -> None:
    await stage.set(policy={"restart_backoff": 600, "restart_backoff_cap": 600})
    await stage.configure(command=["/nonexistent/agent"])
    await stage.event("workspace.status", status="offline")
    assert stage.processes() == []
    got = await stage.send()
    assert (got.status, got.headers["Holdfast-Restart"]) == (503, "backoff")
    view = await stage.view()
    assert (view["restart"]["state"], view["url"]) == ("failed", stage.agent.url)
    assert "/nonexistent/agent" in view["restart"]["error"]
    await stage.configure(command=stage.agent.command())
    await stage.finished(generation=3)
    assert (await stage.send("m2")).status == 200


async def test_a_restart_of_what_nobody_hosts_says_so_and_does_nothing(stage: Stage) -> None:
    await stage.proxy.enroll(stage.agent.name, url=stage.agent.url)
    got = await stage.restart()
    assert (got.status, got.json) == (200, {"restart": "unmanaged"})
    assert (await stage.view())["generation"] == 0


# --- it dies ----------------------------------------------------------------------------------------------------------


async def test_requests_to_a_killed_agent_are_put_away_and_done_after_one_restart(stage: Stage) -> None:
    await stage.set("boot", dead_action="defer")
    assert (await stage.send("before")).status == 200
    stage.kill_agent()
    during = await asyncio.gather(*(stage.send(f"m{number}") for number in range(5)))
    await stage.agent.tells("booted", 2)
    during.append(await stage.send("m5"))
    for got in during:
        assert got.status == 202
        assert got.headers["Holdfast-Verdict"].partition(";")[0] in {"busy", "dead"}
    stage.agent.pipes["boot"].give()
    for got in during:
        await stage.completion(got)
    assert sorted(stage.done()) == ["before", "m0", "m1", "m2", "m3", "m4", "m5"]
    await stage.finished(2)
    first, second = (said["incarnation"] for said in stage.agent.heard("booted"))
    assert second == first + 1
    view = await stage.view()
    assert (view["status"], view["incarnation"], view["restart"]["count_in_window"]) == ("ready", second, 1)


async def test_calls_that_their_agent_dies_under_are_refused_with_their_prospects_or_put_away(stage: Stage) -> None:
    await stage.set()
    calls = [asyncio.create_task(stage.send(f"m{number}", text="wait")) for number in range(4)]
    await stage.agent.tells("got", 4)
    stage.kill_agent()
    answers = await asyncio.gather(*calls)
    stage.agent.pipes["go"].give(8)
    # Whether a call finds the death before the restart has begun is the machine's choice; each has one right answer.
    for got in answers:
        if got.status == 202:
            assert got.headers["Holdfast-Verdict"] in {"busy; rule=restarting", "busy; rule=settling"}
            assert (await stage.proxy.deferral(got))["redelivery"] == "maybe"
            await stage.completion(got)
        else:
            assert got.status == 503
            assert int(got.headers["Retry-After"]) >= 15
            assert got.headers["Holdfast-Restart"] in {"scheduled", "coalesced"}
            assert got.headers["Holdfast-Verdict"] == "dead; rule=exited"
            assert (got.metadata["delivered"], got.metadata["restarting"]) == ("maybe", "true")
    await stage.finished(generation=2)
    assert len(stage.agent.heard("booted")) == 2


async def test_a_stopped_process_group_takes_the_agents_own_children_with_it(stage: Stage) -> None:
    await stage.set()
    # A shell that stays the agent's parent, and a child of its own beside it: one session, all of it the workspace's.
    words = " ".join(stage.agent.command())
    await stage.configure(command=["/bin/sh", "-c", f"sleep 600 & {words}; true"])
    await stage.finished(2)
    assert len(stage.processes()) == 3
    await stage.configure(command=stage.agent.command())
    await stage.finished(3)
    assert stage.processes() == [stage.agent.heard("booted")[-1]["booted"]]


async def test_an_agent_that_ignores_sigterm_is_killed_after_its_grace(stage: Stage) -> None:
    runtime = {**stage.agent.described("stop")["runtime"], "stop_grace": 0.1}
    await stage.set("stop", runtime=runtime)
    await stage.restart()
    await stage.agent.tells("stopping")  # and is never allowed to
    await stage.finished(2)
    assert stage.processes() == [stage.agent.heard("booted")[-1]["booted"]]


# --- it is busy -------------------------------------------------------------------------------------------------------


async def test_scenario_45_a_replay_that_meets_a_busy_agent_leaves_the_message_queued_until_it_is_taken(
    stage: Stage,
) -> None:
    await stage.set("boot")
    await stage.restart()
    await stage.agent.tells("booted", 2)
    got = await stage.send()
    stage.agent.busy.touch()
    stage.agent.pipes["boot"].give()
    await stage.agent.tells("busy", 6)  # more often than the five tries that it has
    seen = await stage.proxy.deferral(got)
    assert seen["status"] in {"queued", "leased"}
    assert seen["attempts"] == 0
    stage.agent.busy.unlink()
    await stage.completion(got)
    assert stage.done() == ["m1"]


async def test_scenario_45_a_replay_that_meets_a_closed_door_is_not_counted_and_comes_back(stage: Stage) -> None:
    await stage.set(policy={"settle_hold": 0, "settle_window": 0})
    await stage.close()
    got = await stage.send()
    assert (got.status, got.headers["Holdfast-Verdict"]) == (202, "alive; rule=running")
    await stage.event("deferral.returned", count=6)
    assert {event["class"] for event in stage.proxy.named("deferral.returned", workspace=stage.agent.name)} == {
        "not_sent"
    }
    assert (await stage.proxy.deferral(got))["attempts"] == 0
    await stage.restart()
    await stage.completion(got)
    assert stage.done() == ["m1"]


async def test_a_removed_workspaces_agent_ends_and_what_waited_for_it_never_runs(stage: Stage) -> None:
    await stage.set("boot")
    await stage.restart()
    await stage.agent.tells("booted", 2)
    got = await stage.send()
    assert got.status == 202
    assert (await stage.ask("DELETE", "")).status == 200
    await stage.event("workspace.deleted")
    assert (await stage.send("m2")).status == 404
    folder = stage.proxy.folder / "holdfast.db.d" / "process" / stage.agent.name
    assert await until(lambda: not folder.exists(), within=PATIENCE)
    assert stage.processes() == []
    assert stage.done() == []
