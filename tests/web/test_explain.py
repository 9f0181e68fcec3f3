"""Why did my request get a 202, why was it restarted: asked over the wire, of agents that really fail."""

import asyncio
import json
import re
from typing import Any

import pytest
from aiohttp import web
from web.compute import UNHURRIED, host, hosted
from web.explaining import ID, RECEIPT, ask, in_this_order, just_restarted, sentences, story
from web.failing_agents import resets
from web.harness import V1, Harness, ScriptedAgent, completed

from proxy.core.evidence import ProbeState
from proxy.runtimes import Exited


@pytest.fixture
async def restarted(proxy: Harness, agent: ScriptedAgent) -> tuple[str, str]:
    return await just_restarted(proxy, agent)


# --- a request -------------------------------------------------------------------------------------------------------


async def test_a_202_while_settling_is_told_from_the_restart_to_the_answer(
    proxy: Harness, agent: ScriptedAgent, restarted: tuple[str, str]
) -> None:
    got, _ = await proxy.send("a", restarted[1])
    assert got.status == 202
    request_id, receipt = got.headers[ID], got.headers[RECEIPT]
    waiting = await story(proxy, request_id)
    assert "the agent's port refused the connection (nothing was sent)" in waiting["summary"]
    assert "less than 30 s after the restart's start" in waiting["summary"]
    assert "[rule settling]" in waiting["summary"]
    assert re.search(r"and it expires in (1 d|24 h|23 h 59)", waiting["summary"])
    await proxy.until(lambda: bool(proxy.named("deferral.returned")))
    await agent.start()
    await proxy.until(lambda: bool(proxy.named("deferral.completed")))
    told = await story(proxy, request_id)
    assert (told["kind"], told["workspace_id"], told["whole"], told["also"]) == ("request", "a", True, [])
    assert (told["request_id"], told["receipt"], told["generation"]) == (request_id, receipt, 2)
    in_this_order(
        told,
        "Restart 2 was scheduled: an admin asked for it: new weights",
        "Restart 2 is finished: the workspace was ready",
        "The call to the agent failed: the agent's port refused the connection (nothing was sent)",
        "The workspace was judged BUSY after a call failed: less than 30 s after the restart's start",
        "The request was put away durably, and its caller got a receipt (202): the verdict was BUSY, nothing was sent",
        "Try 1 began",
        "brought no answer; the request waits again: the agent's port refused the connection",
        "; the answer is stored for the caller",
    )
    assert "The agent's answer (200) came" in told["summary"]
    judged = next(event for event in told["timeline"] if event["verdict"] == "busy")
    assert (judged["rule"], judged["evidence"]["opened_at"] <= judged["at"]) == ("settling", True)
    assert "probes" not in judged["evidence"]
    by_receipt = await story(proxy, receipt)
    assert (by_receipt["kind"], by_receipt["timeline"]) == ("receipt", told["timeline"])


async def test_a_retry_tells_the_story_of_the_request_that_it_joined(
    proxy: Harness, restarted: tuple[str, str]
) -> None:
    first, _ = await proxy.send("a", restarted[1])
    retry, _ = await proxy.send("a", restarted[1])
    assert retry.headers[RECEIPT] == first.headers[RECEIPT]
    told = await story(proxy, retry.headers[ID])
    assert told["summary"].startswith(f"It repeated request {first.headers[ID]} (same caller, same idempotency key")
    assert told["receipt"] == first.headers[RECEIPT]
    in_this_order(told, "The request was put away", f"Request {retry.headers[ID]} repeated it and got its receipt")
    by_receipt = await story(proxy, first.headers[RECEIPT])
    in_this_order(
        by_receipt, "The request was put away", f"Request {retry.headers[ID]} repeated it and got its receipt"
    )
    assert by_receipt["summary"].startswith("It got a receipt (202) because")


async def test_requests_that_fail_together_share_an_evaluation_and_each_is_told_so(
    make: Any, agent: ScriptedAgent
) -> None:
    proxy = await make(**UNHURRIED)
    compute = host(proxy)
    await hosted(proxy, compute, agent.url, policy={"reprobe_delay": 0.2, "recent_heartbeat": 3600})
    compute.says = ProbeState.NOT_RUNNING
    await agent.stop()
    client = await proxy.client()
    sent = await asyncio.gather(*(proxy.send("a", client, message_id=f"m{number}") for number in range(3)))
    stories = [await story(proxy, got.headers[ID]) for got, _ in sent]
    openers = [told["request_id"] for told in stories if "after a call failed" in " ".join(sentences(told, own=True))]
    assert len(openers) == 1
    for told in stories:
        put_away = next(event for event in told["timeline"] if event["action"] == "deferred")
        if told["request_id"] in openers:
            assert "the verdict was BUSY" in put_away["why"]
        else:
            assert f"it shared the evaluation that request {openers[0]} had opened, which said BUSY" in put_away["why"]
            assert (
                "the probe said it does not run, the next probe, 0.2 s later, said it does not run" in put_away["why"]
            )


async def test_a_503_for_a_dead_workspace_tells_the_evidence_and_the_restart(make: Any, agent: ScriptedAgent) -> None:
    proxy = await make(**UNHURRIED)
    compute = host(proxy)
    await hosted(proxy, compute, agent.url, policy={"recent_heartbeat": 0})
    compute.says = ProbeState.NOT_RUNNING
    await agent.stop()
    client = await proxy.client()
    got, _ = await proxy.send("a", client)
    assert got.status == 503
    told = await story(proxy, got.headers[ID])
    in_this_order(
        told,
        "The call to the agent failed: the agent's port refused the connection (nothing was sent)",
        "judged DEAD after a call failed, and marked offline: it does not run, and nothing speaks for it",
        "Restart 2 was scheduled: the workspace was judged DEAD; found out by request",
        "The request was refused: 503 WORKSPACE_RESTARTING",
    )
    death = next(event for event in told["timeline"] if event["action"] == "offline")
    assert "the probe said it does not run, the next probe, " in death["why"]
    assert "its last sign of life was " in death["why"]
    refused = next(event for event in told["timeline"] if event["action"] == "refused")
    assert "the agent does not have it, a repetition is safe; a restart was scheduled" in refused["why"]
    assert "its caller was told to try again after 15 s" in refused["why"]
    assert refused["evidence"]["status"] == 503
    assert told["summary"].startswith("It was refused (503 WORKSPACE_RESTARTING) because the agent's port refused")
    # The same death, seen from the restart that it led to.
    cycle = await story(proxy, "a/restarts/2")
    assert cycle["request_id"] == got.headers[ID]
    assert "the workspace was judged DEAD (found out by request " + got.headers[ID] in cycle["summary"]
    assert "the next probe, " in cycle["summary"]
    in_this_order(cycle, "judged DEAD after a call failed", "Restart 2 was scheduled", "Restart 2: what ran before")
    # A death that stands is answered without looking again, and that is told as well.
    again, _ = await proxy.call("POST", "/workspaces/a/a2a", token=client, headers=V1, json=get_task_of("m1"))
    assert again.status == 503
    told = await story(proxy, again.headers[ID])
    assert "a restart is under way, so nothing is dialled" in told["summary"]


def get_task_of(task_id: str) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "method": "GetTask", "params": {"id": task_id}}


async def test_a_slow_call_is_told_as_adopted_and_answered(proxy: Harness, agent: ScriptedAgent) -> None:
    release = asyncio.Event()

    async def slow(request: web.Request) -> web.Response:
        body = await request.read()
        await release.wait()
        return web.json_response(completed(body))

    agent.handler = slow
    await proxy.enroll("a", url=agent.url)
    got, _ = await proxy.send("a", await proxy.client(), headers={"Prefer": "wait=1"})
    assert got.status == 202
    told = await story(proxy, got.headers[ID])
    assert "It got a receipt (202) while its call went on because there was no answer within the 1 s" in told["summary"]
    assert "It is being delivered now (try 1)" in told["summary"]
    release.set()
    await proxy.until(lambda: bool(proxy.named("deferral.completed")))
    in_this_order(await story(proxy, got.headers[RECEIPT]), "The call goes on without its caller", "answered 200")


async def test_a_dead_letter_is_told_try_by_try_with_its_reason_and_its_second_life(make: Any, listen: Any) -> None:
    proxy = await make(queue__attempts=3)
    compute = host(proxy)
    await hosted(proxy, compute, await listen(resets), redelivery="always")
    got, _ = await proxy.send("a", await proxy.client())
    assert got.status == 202
    receipt = got.headers[RECEIPT]
    await proxy.until(lambda: bool(proxy.named("deferral.dead_lettered")))
    told = await story(proxy, receipt)
    in_this_order(
        told,
        "the connection to the agent was reset (it was sent and may have reached the agent)",
        "judged ALIVE after a call failed: the probe says running",
        "The request was put away durably",
        "Try 1 began: leased to the replayer of proxy",
        "brought no answer; the request waits again: the connection to the agent was reset",
        "It was given up and is a dead letter: 3 attempts used up: reset",
    )
    assert "marked as a possible repetition" in " ".join(sentences(told))
    assert "It was given up and is a dead letter" in told["summary"]
    assert "3 attempts used up" in told["summary"]
    await proxy.call("POST", f"/queue/{receipt}/redrive")
    await proxy.until(lambda: len(proxy.named("deferral.dead_lettered")) == 2)
    in_this_order(
        await story(proxy, receipt),
        "It was given up and is a dead letter",
        "An admin put the dead letter back into its queue: 3 attempts had been made",
        "It was given up and is a dead letter",
    )


async def test_how_a_deferral_ends_by_a_cancel_and_by_a_removal_is_told(proxy: Harness, restarted: Any) -> None:
    one, _ = await proxy.send("a", restarted[1], message_id="m1")
    other, _ = await proxy.send("a", restarted[1], message_id="m2")
    await proxy.call("POST", f"/queue/{one.headers[RECEIPT]}/cancel", json={"reason": "not needed"})
    assert (await proxy.call("DELETE", "/workspaces/a"))[0].status == 200
    told = await story(proxy, one.headers[RECEIPT])
    in_this_order(told, "It was cancelled: cancelled by an admin: not needed")
    removed = await story(proxy, other.headers[ID])
    assert "It was cancelled: the workspace was removed" in sentences(removed)
    assert (await story(proxy, "a"))["summary"].startswith("a is ready and removed")


async def test_a_request_that_the_agent_answered_leaves_no_line(proxy: Harness, agent: ScriptedAgent) -> None:
    await proxy.enroll("a", url=agent.url)
    got, _ = await proxy.send("a", await proxy.client())
    assert got.status == 200
    code, said = await ask(proxy, got.headers[ID])
    assert code == 404
    assert "a request that the agent answered leaves no line" in said["error"]


# --- a restart and a workspace ---------------------------------------------------------------------------------------


async def test_a_crash_is_told_from_the_exit_to_ready(proxy: Harness, agent: ScriptedAgent) -> None:
    compute = host(proxy)
    await hosted(proxy, compute, agent.url)
    compute.starts.set()
    route = proxy.app.routing.get("a")
    assert route is not None
    life, now = route.workspace.incarnation, proxy.app.now()
    proxy.app.on_exit(Exited(workspace_id="a", incarnation=life, exit_code=-9, expected=False, at=now))
    await proxy.until(lambda: len(proxy.named("restart.finished")) == 2)
    told = await story(proxy, "a%232")  # a#2
    assert (told["kind"], told["subject"], told["generation"]) == ("restart", "a#2", 2)
    in_this_order(
        told,
        "The supervisor saw the agent's process end, which nobody here had asked for: it was killed by signal 9",
        "The workspace was judged DEAD after its supervisor saw it exit, and marked offline",
        "Restart 2 was scheduled: the workspace was judged DEAD; 0 of at most 5 restarts within 10 min had been used",
        "Restart 2: what ran before is stopped",
        "Restart 2: the new instance was started",
        "The workspace is ready",
        "Restart 2 is finished: the workspace was ready",
    )
    assert "[rule exited]. The workspace was ready " in told["summary"]
    assert all(event["own"] for event in told["timeline"] if event["action"] != "status ready")


async def test_an_admins_restart_names_its_reason_and_what_it_met(proxy: Harness, restarted: tuple[str, str]) -> None:
    told = await story(proxy, "a/restarts/2")
    assert told["summary"].startswith("Restart 2 of a came about because an admin asked for it: new weights. The ")
    _, body = await proxy.call("GET", "/workspaces/a/restarts/2")
    cycle = json.loads(body)
    assert (cycle["trigger"], cycle["reason"], cycle["state"], cycle["error"]) == (
        "admin",
        "new weights",
        "finished",
        None,
    )
    assert cycle["ready_after"] >= 0
    listed = json.loads((await proxy.call("GET", "/workspaces/a/restarts", params={"limit": 1}))[1])
    assert ([each["generation"] for each in listed["restarts"]], listed["before"]) == ([2], 2)
    page = json.loads((await proxy.call("GET", "/workspaces/a/restarts", params={"before": 2}))[1])
    assert ([each["generation"] for each in page["restarts"]], page["before"]) == ([1], None)


async def test_brakes_are_told_with_their_numbers(make: Any, agent: ScriptedAgent) -> None:
    proxy = await make(**UNHURRIED)
    compute = host(proxy)
    brakes = {"recent_heartbeat": 0, "restart_debounce": 3600}
    await hosted(proxy, compute, agent.url, policy=brakes)
    compute.says = ProbeState.NOT_RUNNING
    await agent.stop()
    got, _ = await proxy.send("a", await proxy.client())
    assert got.headers["Holdfast-Restart"] == "debounced"
    told = await story(proxy, "a")
    assert told["summary"].startswith("a is offline. It was last judged DEAD")
    in_this_order(
        told,
        "The workspace was judged DEAD after a call failed, and marked offline",
        "A restart was asked for and is held back for ",
        "The request was refused: 503 WORKSPACE_DEAD",
    )
    held = next(event for event in told["timeline"] if event["action"] == "restart debounced")
    assert (held["rule"], held["why"].startswith("the workspace was judged DEAD; ")) == ("not_running", True)
    assert "a death that was only inferred is debounced for 1 h" in held["why"]
    assert held["evidence"]["debounce"] == 3600


async def test_what_happens_to_many_requests_is_told_together_in_a_workspaces_story(
    make: Any, agent: ScriptedAgent
) -> None:
    proxy = await make(**UNHURRIED)
    await agent.stop()
    await proxy.enroll("a", url=agent.url, unmanaged_away="defer")
    client = await proxy.client()
    for number in range(4):
        got, _ = await proxy.send("a", client, message_id=f"m{number}")
        assert got.status == 202
    told = await story(proxy, "a")
    many = next(event for event in told["timeline"] if event["action"] == "deferred")
    assert (many["count"], many["what"]) == (4, "4 requests were put away durably (202)")
    assert many["until"] > many["at"]
    assert "4 requests wait in its queue" in told["summary"]
