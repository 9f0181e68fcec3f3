"""Parking over HTTP with agents that are real processes: stopped, started again, woken once."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from e2e.agents import SmallAgent, processes_of
from web.harness import Harness, get_task

CARD = "/workspaces/a/a2a/.well-known/agent-card.json"


@pytest.fixture
async def small(tmp_path: Path) -> AsyncIterator[SmallAgent]:
    agent = SmallAgent(tmp_path)
    await agent.hear()
    yield agent
    await agent.close()
    for pid in processes_of(tmp_path):
        os.kill(pid, signal.SIGKILL)


async def view(proxy: Harness) -> dict[str, Any]:
    got, body = await proxy.call("GET", "/workspaces/a")
    assert got.status == 200
    return dict(json.loads(body))


async def ready(proxy: Harness) -> None:
    async def is_ready() -> bool:
        return (await view(proxy))["status"] == "ready"

    await proxy.until(is_ready)


async def stopped(proxy: Harness) -> None:
    async def is_stopped() -> bool:
        return (await view(proxy))["status"] == "offline"

    await proxy.until(is_stopped)


async def ask(proxy: Harness, verb: str, **said: Any) -> dict[str, Any]:
    got, body = await proxy.call("POST", f"/workspaces/a/{verb}", json=said)
    assert got.status == 200, body
    return dict(json.loads(body))


async def completed(proxy: Harness, receipt: str) -> dict[str, Any]:
    found: dict[str, Any] = {}

    async def is_completed() -> bool:
        _, body = await proxy.call("GET", f"/workspaces/a/queue/{receipt}")
        found.update(json.loads(body))
        return found["status"] == "completed"

    await proxy.until(is_completed)
    return found


def running(small: SmallAgent) -> list[int]:
    return sorted(set(processes_of(small.folder, "a")))


async def test_a_pause_stops_the_process_and_a_resume_starts_it_and_delivers_what_waited(
    proxy: Harness, small: SmallAgent
) -> None:
    await proxy.enroll("a", **small.described())
    await ready(proxy)
    token = await proxy.client()
    said = await ask(proxy, "pause")
    assert (said["desired"], said["changed"], said["id"]) == ("paused", 1, "a")
    await stopped(proxy)
    assert running(small) == []
    deferred, _ = await proxy.send("a", token)
    assert (deferred.status, deferred.headers["Holdfast-Verdict"]) == (202, "busy; rule=paused")
    refused, body = await proxy.call("GET", CARD, token=token)
    assert (refused.status, refused.headers["Retry-After"], json.loads(body)["away"]) == (503, "15", True)
    for verb in ("restart", "pause"):
        got, _ = await proxy.call("POST", f"/workspaces/a/{verb}", json={})
        assert got.status == {"restart": 409, "pause": 200}[verb]
    assert (await ask(proxy, "resume"))["desired"] == "running"
    found = await completed(proxy, deferred.headers["Holdfast-Receipt"])
    assert found["response"]["status"] == 200
    assert len(small.heard("booted")) == 2
    assert running(small) == [small.heard("booted")[-1]["booted"]]
    assert (await proxy.send("a", token, message_id="m2"))[0].status == 200
    exits = [event.fields for event in proxy.named("workspace.exited")]
    assert exits == [], "an end that was asked for is no event of a death"
    desired = [event.fields["desired"] for event in proxy.named("workspace.desired")]
    assert desired == ["paused", "running"]


async def test_an_open_call_gets_its_answer_before_the_process_is_stopped(proxy: Harness, small: SmallAgent) -> None:
    await proxy.enroll("a", **small.described())
    await ready(proxy)
    token = await proxy.client()
    call = asyncio.create_task(proxy.send("a", token, text="wait"))
    await small.tells("got")
    await ask(proxy, "pause")
    assert running(small), "it may finish"
    small.pipes["go"].give()
    got, answer = await call
    assert (got.status, answer["result"]["task"]["status"]["state"]) == (200, "TASK_STATE_COMPLETED")
    await stopped(proxy)
    assert running(small) == []


async def test_scenario_28_a_hibernated_process_is_woken_once_by_ten_requests_and_answers_them_all(
    proxy: Harness, small: SmallAgent
) -> None:
    await proxy.enroll("a", **small.described())
    await ready(proxy)
    token = await proxy.client()
    assert (await ask(proxy, "hibernate"))["desired"] == "hibernated"
    await stopped(proxy)
    assert running(small) == []
    answers = await asyncio.gather(*(proxy.send("a", token, message_id=f"m{number}") for number in range(10)))
    assert {got.status for got, _ in answers} == {202}
    for got, _ in answers:
        await completed(proxy, got.headers["Holdfast-Receipt"])
    assert len(small.heard("booted")) == 2
    _, body = await proxy.call("GET", "/workspaces/a/decisions?limit=1000")
    said = [line["action"] for line in json.loads(body)["decisions"]]
    assert said.count("restart scheduled") == 2, "its first start, and one wake"
    assert said.count("desired hibernated") == 1


async def test_scenario_28_what_cannot_be_deferred_is_told_in_its_own_binding_that_the_workspace_wakes(
    proxy: Harness, small: SmallAgent
) -> None:
    await proxy.enroll("a", **small.described("boot"))
    small.pipes["boot"].give()
    await ready(proxy)
    token = await proxy.client()
    await ask(proxy, "hibernate")
    await stopped(proxy)
    got, body = await proxy.call("POST", "/workspaces/a/a2a", token=token, json=get_task("t-1"))
    assert (got.status, got.headers["Retry-After"]) == (503, "15")
    error = json.loads(body)["error"]
    assert error["data"][0]["reason"] == "WORKSPACE_WAKING"
    assert error["data"][0]["metadata"]["waking"] == "true"
    plain, body = await proxy.call("GET", CARD, token=token)
    assert plain.status in {502, 503}
    if plain.headers["Holdfast-Verdict"] in {"busy; rule=hibernated", "busy; rule=restarting"}:
        said = json.loads(body)
        assert (plain.headers["Retry-After"], said["waking"], said["retry_after"]) == ("15", True, 15)
    small.pipes["boot"].give()
    await ready(proxy)
    assert len(small.heard("booted")) == 2


async def test_a_proxy_that_ended_while_it_drained_stops_the_process_at_its_next_start(
    proxy: Harness, small: SmallAgent
) -> None:
    await proxy.enroll("a", **small.described())
    await ready(proxy)
    token = await proxy.client()
    call = asyncio.create_task(proxy.send("a", token, text="wait"))
    await small.tells("got")
    await ask(proxy, "pause")
    assert running(small)
    await proxy.restart()
    got, _ = await call
    assert got.status in {202, 502, 503}
    await stopped(proxy)
    assert running(small) == []
    assert (await view(proxy))["desired"] == "paused"
    await ask(proxy, "resume")
    await ready(proxy)
    assert len(running(small)) == 1


async def test_who_is_not_the_admin_parks_nothing(proxy: Harness, small: SmallAgent) -> None:
    own = await proxy.enroll("a", **small.described())
    client = await proxy.client()
    for verb in ("pause", "resume", "hibernate"):
        for token, status in ((own, 403), (client, 403), (None, 401)):
            got, _ = await proxy.call("POST", f"/workspaces/a/{verb}", token=token, json={})
            assert got.status == status
        got, body = await proxy.call("POST", f"/workspaces/a/{verb}", json={"forse": True})
        assert (got.status, b"forse" in body) == (400, True)
        got, _ = await proxy.call("POST", f"/workspaces/nobody/{verb}", json={})
        assert got.status == 404
    assert (await view(proxy))["desired"] == "running"
    await ready(proxy)
