"""Requests that the agent did not answer: what their callers get, and what becomes of them."""

import asyncio
import json
from typing import Any

import pytest
from aiohttp import web
from web.harness import V1, Harness, ScriptedAgent, completed, get_task, send

TERMINAL = {"TASK_STATE_COMPLETED", "TASK_STATE_FAILED", "TASK_STATE_CANCELED", "TASK_STATE_REJECTED"}


async def state_of(proxy: Harness, token: str, task_id: str) -> dict[str, Any]:
    """What GetTask says of a task."""
    got, body = await proxy.call("POST", "/workspaces/a/a2a", token=token, headers=V1, json=get_task(task_id))
    assert got.status == 200, body
    return json.loads(body)["result"]


async def follow(proxy: Harness, token: str, task_id: str) -> dict[str, Any]:
    """Follow a task to its end."""
    found: dict[str, Any] = {}

    async def ended() -> bool:
        found.update(await state_of(proxy, token, task_id))
        return found["status"]["state"] in TERMINAL

    await proxy.until(ended)
    return found


async def test_a_deferred_send_is_answered_by_a_task_that_can_be_followed_to_its_end(
    proxy: Harness, agent: ScriptedAgent
) -> None:
    await agent.stop()
    await proxy.enroll("a", url=agent.url, unmanaged_away="defer")
    client = await proxy.client()
    got, said = await proxy.send("a", client, message_id="m1", rpc_id="seven")
    task = said["result"]["task"]
    assert got.status == 202
    assert said["id"] == "seven"
    assert task["status"]["state"] == "TASK_STATE_SUBMITTED"
    assert task["id"].startswith("4a2")
    assert got.headers["Location"] == f"/workspaces/a/queue/{got.headers['Holdfast-Receipt']}"
    assert got.headers["Holdfast-Verdict"].startswith("unknown; rule=")
    assert (await state_of(proxy, client, task["id"]))["status"]["state"] == "TASK_STATE_SUBMITTED"
    await proxy.restart()
    assert (await state_of(proxy, client, task["id"]))["status"]["state"] == "TASK_STATE_SUBMITTED"
    await agent.start()
    done = await follow(proxy, client, task["id"])
    assert done["artifacts"][0]["parts"][0]["text"] == "did m1"
    assert done["id"] == task["id"]
    assert done["contextId"] == task["contextId"]
    assert json.loads(agent.seen[0][3])["params"]["message"]["contextId"] == task["contextId"]
    await proxy.restart()
    assert (await state_of(proxy, client, task["id"]))["artifacts"] == done["artifacts"]


async def test_a_deferred_task_is_unknown_to_everybody_but_its_caller(proxy: Harness, nobody: str) -> None:
    await proxy.enroll("a", url=nobody, unmanaged_away="defer")
    owner, stranger = await proxy.client("owner"), await proxy.client("stranger")
    got, said = await proxy.send("a", owner)
    task_id = said["result"]["task"]["id"]
    _, body = await proxy.call("POST", "/workspaces/a/a2a", token=stranger, headers=V1, json=get_task(task_id))
    assert json.loads(body)["error"]["code"] == -32001
    receipt = got.headers["Location"]
    hidden, _ = await proxy.call("GET", receipt, token=stranger)
    unknown, _ = await proxy.call("GET", "/workspaces/a/queue/nothing", token=owner)
    anonymous, _ = await proxy.call("GET", receipt, token=None)
    assert hidden.status == unknown.status == anonymous.status == 404
    shown, body = await proxy.call("GET", receipt, token=owner)
    assert shown.status == 200
    assert "hello" not in body.decode()
    assert json.loads(body)["response"] is None


async def test_scenario_32_a_read_that_times_out_while_the_compute_lives_is_deferred(
    make: Any, agent: ScriptedAgent
) -> None:
    proxy = await make(upstream__idle_timeout=0.1, defaults__redelivery="always")
    release = asyncio.Event()

    async def slow_once(request: web.Request) -> web.Response:
        body = await request.read()
        if len(agent.seen) == 1:
            await release.wait()
        return web.json_response(completed(body))

    agent.handler = slow_once
    await proxy.enroll("a", url=agent.url)
    client = await proxy.client()
    got, said = await proxy.send("a", client)
    assert got.status == 202
    view, body = await proxy.call("GET", got.headers["Location"], token=client)
    assert json.loads(body)["redelivery"] == "maybe"
    done = await follow(proxy, client, said["result"]["task"]["id"])
    release.set()
    assert done["status"]["state"] == "TASK_STATE_COMPLETED"
    first, *others = [headers.get("Holdfast-Redelivery") for _, _, headers, _ in agent.seen]
    assert (first, set(others)) == (None, {"maybe"})  # on a machine that stands still a second try may time out, too
    assert view.status == 200


async def test_scenario_32_a_post_that_is_not_a2a_gets_the_plain_receipt(proxy: Harness, agent: ScriptedAgent) -> None:
    await agent.stop()
    await proxy.enroll("a", url=agent.url, unmanaged_away="defer")
    got, body = await proxy.call("POST", "/workspaces/a/a2a/hook", data=b"plain", headers={"Content-Type": "text/x"})
    said = json.loads(body)
    assert got.status == 202
    assert said["queued"] is True
    assert said["queue_depth"] >= 1
    assert said["message"]
    assert said["queue_id"] == got.headers["Holdfast-Receipt"]

    async def ok(_: web.Request) -> web.Response:
        return web.Response(text="thanks")

    agent.handler = ok
    await agent.start()
    await proxy.until(lambda: bool(proxy.named("deferral.completed")))
    assert agent.seen[0][:2] == ("POST", "/hook")
    assert agent.seen[0][3] == b"plain"
    _, body = await proxy.call("GET", got.headers["Location"])
    assert json.loads(body)["response"]["body_base64"] == "dGhhbmtz"


@pytest.mark.parametrize("fault", ["full", "locked", "closed"])
async def test_scenario_33_no_commit_no_202(
    proxy: Harness, nobody: str, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from proxy.store import StoreFailure  # noqa: PLC0415 - one use

    await proxy.enroll("a", url=nobody, unmanaged_away="defer")

    async def refuse(*_: Any, **__: Any) -> None:
        raise StoreFailure(fault, "the test says so")

    monkeypatch.setattr(proxy.app.store, "enqueue", refuse)
    got, body = await proxy.call("POST", "/workspaces/a/a2a", headers=V1, json=send())
    assert got.status == 503
    assert got.headers["Retry-After"] == "30"
    metadata = json.loads(body)["error"]["data"][0]["metadata"]
    assert metadata["busy"] == "true"
    assert metadata["retry_after"] == "30"


async def test_scenario_35_an_agents_own_503_passes_unchanged_while_it_lives(
    proxy: Harness, agent: ScriptedAgent
) -> None:
    async def busy(_: web.Request) -> web.Response:
        return web.Response(status=503, reason="Out For Lunch", body=b"{ not json", headers={"X-Mood": "tired"})

    agent.handler = busy
    await proxy.enroll("a", url=agent.url)
    got, body = await proxy.call("POST", "/workspaces/a/a2a", headers=V1, json=send())
    assert (got.status, got.reason, body, got.headers["X-Mood"]) == (503, "Out For Lunch", b"{ not json", "tired")
    assert "Holdfast-Receipt" not in got.headers


async def test_scenario_36_a_client_that_leaves_stops_neither_the_call_nor_the_deferral(
    proxy: Harness, agent: ScriptedAgent
) -> None:
    came, go = asyncio.Event(), asyncio.Event()

    async def break_off(request: web.Request) -> web.Response:
        body = await request.read()
        if len(agent.seen) == 1:
            came.set()
            await go.wait()
            assert request.transport is not None
            request.transport.abort()
        return web.json_response(completed(body))

    agent.handler = break_off
    await proxy.enroll("a", url=agent.url)
    call = asyncio.create_task(proxy.send("a", await proxy.client()))
    await came.wait()
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    go.set()
    await proxy.until(lambda: bool(proxy.named("deferral.completed")))
    assert len(agent.seen) == 2


async def test_malformed_json_reaches_a_healthy_agent_and_is_refused_when_it_would_have_to_be_stored(
    proxy: Harness, agent: ScriptedAgent
) -> None:
    async def judge(request: web.Request) -> web.Response:
        return web.Response(status=200, body=await request.read())

    agent.handler = judge
    await proxy.enroll("a", url=agent.url, unmanaged_away="defer")
    fields = {**V1, "Content-Type": "application/json"}
    got, body = await proxy.call("POST", "/workspaces/a/a2a", headers=fields, data=b'{"jsonrpc": "2.0", ')
    assert (got.status, body) == (200, b'{"jsonrpc": "2.0", ')
    await agent.stop()
    got, body = await proxy.call("POST", "/workspaces/a/a2a", headers=fields, data=b'{"jsonrpc": "2.0", ')
    assert got.status == 400
    assert json.loads(body)["error"]["code"] == -32700
    assert proxy.named("deferral.queued") == []


async def test_what_cannot_be_deferred_is_refused_in_its_own_binding(proxy: Harness, nobody: str) -> None:
    await proxy.enroll("a", url=nobody, unmanaged_away="defer")
    got, body = await proxy.call("POST", "/workspaces/a/a2a", headers=V1, json=get_task("the agent's"))
    assert (got.status, json.loads(body)["error"]["data"][0]["reason"]) == (503, "WORKSPACE_AWAY")
    assert int(got.headers["Retry-After"]) >= 15
    got, body = await proxy.call("GET", "/workspaces/a/a2a/tasks/theirs", headers=V1)
    error = json.loads(body)["error"]
    assert (got.status, error["code"], error["details"][0]["reason"]) == (503, 503, "WORKSPACE_AWAY")
    got, body = await proxy.call("GET", "/workspaces/a/a2a/anything")
    assert (got.status, json.loads(body)["away"]) == (503, True)


@pytest.mark.parametrize("preset", ["combined", "hold-first", "verify-first"])
async def test_scenario_16_a_workspace_that_nobody_can_tell_about_passes_its_absence_on(
    proxy: Harness, nobody: str, preset: str
) -> None:
    await proxy.enroll("a", url=nobody, policy={"preset": preset})
    got, body = await proxy.call("POST", "/workspaces/a/a2a", headers=V1, json=send())
    assert got.status == 502
    assert json.loads(body)["error"]["data"][0]["metadata"]["delivered"] == "no"
    assert got.headers["Holdfast-Restart"] == "unmanaged"
    assert proxy.named("deferral.queued") == []


async def test_a_retry_joins_the_deferral_and_other_content_under_its_id_conflicts(proxy: Harness, nobody: str) -> None:
    await proxy.enroll("a", url=nobody, unmanaged_away="defer")
    client, other = await proxy.client("one"), await proxy.client("two")
    first, said = await proxy.send("a", client, message_id="m1", rpc_id=1)
    again, repeated = await proxy.send("a", client, message_id="m1", rpc_id=2)
    assert again.headers["Holdfast-Receipt"] == first.headers["Holdfast-Receipt"]
    assert repeated["id"] == 2
    assert repeated["result"]["task"]["id"] == said["result"]["task"]["id"]
    changed, body = await proxy.send("a", client, message_id="m1", text="something else")
    assert (changed.status, body["error"]["code"]) == (409, -32602)
    foreign, _ = await proxy.send("a", other, message_id="m1")
    assert foreign.headers["Holdfast-Receipt"] != first.headers["Holdfast-Receipt"]


async def test_a_send_waits_behind_the_deferrals_of_its_context(proxy: Harness, agent: ScriptedAgent) -> None:
    await agent.stop()
    await proxy.enroll("a", url=agent.url, unmanaged_away="defer")
    client = await proxy.client()
    names = [f"m{number}" for number in range(6)]
    for name in names:
        got, _ = await proxy.send("a", client, message_id=name, contextId="talk")
        assert got.status == 202
    await agent.start()
    await proxy.until(lambda: len(proxy.named("deferral.completed")) == len(names))
    assert [json.loads(seen[3])["params"]["message"]["messageId"] for seen in agent.seen] == names


async def test_the_go_client_gets_200_where_others_get_202(proxy: Harness, nobody: str) -> None:
    await proxy.enroll("a", url=nobody, unmanaged_away="defer")
    client = await proxy.client()
    got, _ = await proxy.send("a", client, message_id="g1", headers={"User-Agent": "Go-http-client/1.1"})
    assert got.status == 200
    asked = {"User-Agent": "Go-http-client/1.1", "Prefer": "respond-async"}
    got, _ = await proxy.send("a", client, message_id="g2", headers=asked)
    assert got.status == 202


async def test_a_full_queue_is_429_and_stores_nothing(make: Any, nobody: str) -> None:
    proxy = await make(queue__rows=2)
    await proxy.enroll("a", url=nobody, unmanaged_away="defer")
    client = await proxy.client()
    for name in ("m1", "m2"):
        assert (await proxy.send("a", client, message_id=name))[0].status == 202
    got, body = await proxy.send("a", client, message_id="m3")
    assert got.status == 429
    metadata = body["error"]["data"][0]["metadata"]
    assert (metadata["queue_full"], metadata["queue_depth"]) == ("true", "2")


async def test_a_canceled_deferral_never_runs(proxy: Harness, agent: ScriptedAgent) -> None:
    await agent.stop()
    await proxy.enroll("a", url=agent.url, unmanaged_away="defer")
    client = await proxy.client()
    _, said = await proxy.send("a", client, message_id="m1", contextId="talk")
    await proxy.send("a", client, message_id="m2", contextId="talk")
    task_id = said["result"]["task"]["id"]
    cancel = {"jsonrpc": "2.0", "id": 5, "method": "CancelTask", "params": {"id": task_id}}
    for code in (None, -32002):
        _, body = await proxy.call("POST", "/workspaces/a/a2a", token=client, headers=V1, json=cancel)
        answer = json.loads(body)
        if code is None:
            assert answer["result"]["status"]["state"] == "TASK_STATE_CANCELED"
        else:
            assert answer["error"]["code"] == code
    await agent.start()
    await proxy.until(lambda: bool(proxy.named("deferral.completed")))
    assert [json.loads(seen[3])["params"]["message"]["messageId"] for seen in agent.seen] == ["m2"]


async def test_interface_addresses_in_a_card_lead_back_to_the_proxy(proxy: Harness, agent: ScriptedAgent) -> None:
    await proxy.enroll("a", url=agent.url)
    got, body = await proxy.call("GET", "/workspaces/a/a2a/.well-known/agent-card.json")
    assert got.status == 200
    assert json.loads(body)["url"] == f"{proxy.url}/workspaces/a/a2a"
    assert int(got.headers["Content-Length"]) == len(body)


async def test_a_workspace_that_polls_is_not_dialled_even_where_its_url_is_known(
    proxy: Harness, agent: ScriptedAgent
) -> None:
    await proxy.enroll("a", url=agent.url, delivery_mode="poll")
    client = await proxy.client()
    got, _ = await proxy.send("a", client)
    assert got.status == 202
    assert got.headers["Holdfast-Verdict"] == "busy; rule=poll"
    got, _ = await proxy.call("GET", "/workspaces/a/a2a/status", token=client)
    assert got.status == 503
    assert agent.seen == []
    got, _ = await proxy.call("PUT", "/workspaces/a", json={"delivery_mode": "push"})
    assert got.status == 200
    await proxy.until(lambda: bool(proxy.named("deferral.completed")))
    assert len(agent.seen) == 1


async def test_what_a_deferral_says_of_itself_is_true_of_a_workspace_that_is_there_too(
    proxy: Harness, agent: ScriptedAgent
) -> None:
    slow = asyncio.Event()

    async def answer(request: web.Request) -> web.StreamResponse:
        await slow.wait()
        return web.json_response(completed(await request.read()))

    agent.handler = answer
    await proxy.enroll("a", url=agent.url)
    got, said = await proxy.send("a", await proxy.client(), headers={"X-Timeout": "1"})
    assert got.headers["Holdfast-Verdict"] == "alive; rule=slow_call"
    assert "away" not in said["result"]["task"]["status"]["message"]["parts"][0]["text"]
    slow.set()
    await proxy.until(lambda: bool(proxy.named("deferral.completed")))
