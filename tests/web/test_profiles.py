"""Profiles: habits that some clients expect instead of Holdfast's own, per workspace and per request."""

import asyncio
import base64
import json
from typing import Any

import pytest
from aiohttp import web
from web.harness import V1, Harness, ScriptedAgent, completed, send
from web.pollers import Poller

from proxy.store import StoreFailure

PLAIN = {"Holdfast-Profile": "plain"}
DRAFT = {"Holdfast-Profile": "offline-draft"}
JSON = {"Content-Type": "application/json"}


async def ask(proxy: Harness, token: str, body: Any, path: str = "", **headers: str) -> tuple[Any, Any]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    shown = {**JSON, **{name.replace("_", "-"): value for name, value in headers.items()}}
    got, said = await proxy.call(
        "POST", f"/workspaces/a/a2a{path}", token=token, headers=shown, data=data, allow_redirects=False
    )
    try:
        return got, json.loads(said)
    except ValueError:
        return got, said


def answering(status: int, body: bytes, **headers: str) -> Any:
    async def answer(_: web.Request) -> web.Response:
        await asyncio.sleep(0)
        return web.Response(status=status, body=body, headers=headers)

    return answer


# --- plain -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [b"no json", b"[1]", b"7", b""])
async def test_scenario_23_profile_plain_refuses_what_is_no_json_object(
    proxy: Harness, agent: ScriptedAgent, body: bytes
) -> None:
    await proxy.enroll("a", url=agent.url, profile="plain")
    client = await proxy.client()
    got, said = await ask(proxy, client, body)
    assert got.status == 400
    assert isinstance(said["error"], str)
    assert agent.seen == []


async def test_scenario_23_the_same_for_a_workspace_that_polls(proxy: Harness) -> None:
    await proxy.enroll("a", delivery_mode="poll", profile="plain")
    client = await proxy.client()
    got, _ = await ask(proxy, client, b"no json")
    assert got.status == 400
    assert list(await proxy.app.store.deferrals(workspace_id="a")) == []


async def test_scenario_23_without_the_profile_the_agent_judges_it(proxy: Harness, agent: ScriptedAgent) -> None:
    agent.handler = answering(418, b"odd")
    await proxy.enroll("a", url=agent.url)
    client = await proxy.client()
    got, said = await ask(proxy, client, b"no json")
    assert (got.status, said, agent.seen[0][3]) == (418, b"odd", b"no json")
    await agent.stop()
    await proxy.call("PUT", "/workspaces/a", json={"unmanaged_away": "defer", "url": agent.url})
    got, said = await ask(proxy, client, b"no json")
    assert (got.status, said["error"]["code"]) == (400, -32700)


async def test_scenario_24_profile_plain_wraps_a_bare_request(proxy: Harness, agent: ScriptedAgent) -> None:
    agent.handler = answering(200, b"{}")
    await proxy.enroll("a", url=agent.url, profile="plain")
    client = await proxy.client()
    parts = [{"kind": "text", "text": "hi"}]
    got, _ = await ask(proxy, client, {"method": "message/send", "params": {"message": {"parts": parts}}})
    assert got.status == 200
    sent = json.loads(agent.seen[0][3])
    assert (sent["jsonrpc"], sent["method"]) == ("2.0", "message/send")
    assert sent["id"]
    assert sent["params"]["message"]["messageId"]
    assert int(agent.seen[0][2]["Content-Length"]) == len(agent.seen[0][3])
    whole = {"jsonrpc": "2.0", "id": 7, "method": "message/send"}
    whole["params"] = {"message": {"messageId": "mine", "role": "user", "parts": parts}}
    await ask(proxy, client, whole)
    assert json.loads(agent.seen[1][3]) == whole


async def test_scenario_24_without_the_profile_nothing_is_rewritten(proxy: Harness, agent: ScriptedAgent) -> None:
    agent.handler = answering(200, b"{}")
    await proxy.enroll("a", url=agent.url)
    client = await proxy.client()
    bare = b'{"method": "message/send", "params": {"message": {"parts": []}}}'
    await ask(proxy, client, bare)
    assert agent.seen[0][3] == bare


@pytest.mark.parametrize(
    ("status", "body", "text"),
    [
        (500, b'{"error": {"code": 1}}', "Internal Server Error"),
        (500, b'{"error": "out of memory"}', "out of memory"),
        (404, b"<html>", "Not Found"),
        (301, b"", "Moved Permanently"),
    ],
)
async def test_scenario_30_profile_plain_tells_an_agent_s_failure_by_its_text_or_its_status(
    proxy: Harness, agent: ScriptedAgent, status: int, body: bytes, text: str
) -> None:
    agent.handler = answering(status, body, Location="/elsewhere")
    await proxy.enroll("a", url=agent.url)
    client = await proxy.client()
    got, said = await ask(proxy, client, send(), **V1, **PLAIN)
    assert (got.status, said) == (status, {"error": text})
    got, said = await ask(proxy, client, send(), **V1)
    assert got.status == status
    assert (json.dumps(said).encode() if isinstance(said, dict) else said) == body  # byte for byte


async def test_a_gateway_s_failure_of_a_living_workspace_is_told_so_too(proxy: Harness, agent: ScriptedAgent) -> None:
    agent.handler = answering(503, b'{"error": "too many"}')
    await proxy.enroll("a", url=agent.url, profile="plain", unmanaged_away="pass")
    client = await proxy.client()
    got, said = await ask(proxy, client, send(), **V1)
    assert (got.status, said) == (503, {"error": "too many"})


async def test_what_an_agent_answers_well_passes_as_it_is_in_profile_plain(
    proxy: Harness, agent: ScriptedAgent
) -> None:
    failed = b'{"jsonrpc": "2.0",  "id": 1, "error": {"code": -32603, "message": "no"}}'
    agent.handler = answering(200, failed, X_Mood="fine")
    await proxy.enroll("a", url=agent.url, profile="plain")
    client = await proxy.client()
    got, body = await proxy.call("POST", "/workspaces/a/a2a", token=client, headers={**V1, **JSON}, json=send())
    assert (got.status, body, got.headers["X_Mood"]) == (200, failed, "fine")
    card, _ = await proxy.call("GET", "/workspaces/a/a2a/.well-known/agent-card.json", token=client)
    assert card.status == 200


async def test_profile_plain_answers_with_plain_receipts_and_plain_errors(proxy: Harness, nobody: str) -> None:
    await proxy.enroll("a", url=nobody, profile="plain", unmanaged_away="defer")
    client = await proxy.client()
    got, said = await ask(proxy, client, {"method": "message/send", "params": {"message": {"content": "hi"}}})
    assert got.status == 202
    assert (said["queued"], said["queue_depth"], said["queue_id"]) == (True, 1, got.headers["Holdfast-Receipt"])
    assert said["task_id"].startswith("4a2")
    stored = await proxy.app.store.deferral(said["queue_id"])
    assert stored is not None
    assert json.loads(stored.request.body)["params"]["message"]["messageId"] == stored.idempotency_key
    _, said = await ask(proxy, client, {"method": "message/send", "params": {"message": {"content": 7}}})
    assert "parts" in said["error"]
    got, said = await ask(proxy, client, {"method": "tasks/get", "params": {"id": "unknown"}})
    assert (got.status, said["away"]) == (503, True)
    assert isinstance(said["error"], str)


async def test_a_request_names_its_own_profile(proxy: Harness, nobody: str) -> None:
    await proxy.enroll("a", url=nobody, profile="plain", unmanaged_away="defer")
    client = await proxy.client()
    _, said = await ask(proxy, client, send("m1"), **V1, Holdfast_Profile="A2A")
    assert "task" in said["result"]
    got, said = await ask(proxy, client, send("m2"), **V1, Holdfast_Profile="odd")
    assert got.status == 400
    assert "a2a, plain, offline-draft" in json.dumps(said)


async def test_the_profile_is_no_business_of_the_agent_s(proxy: Harness, agent: ScriptedAgent) -> None:
    await proxy.enroll("a", url=agent.url)
    client = await proxy.client()
    await ask(proxy, client, send(), **V1, **PLAIN)
    assert not [name for name in agent.seen[0][2] if name.lower() == "holdfast-profile"]


async def test_a_whole_holdfast_may_have_a_profile(make: Any, agent: ScriptedAgent) -> None:
    proxy = await make(defaults__profile="plain")
    await proxy.enroll("a", url=agent.url)
    client = await proxy.client()
    assert (await ask(proxy, client, b"no json"))[0].status == 400
    await proxy.call("PUT", "/workspaces/a", json={"profile": "a2a", "url": agent.url})
    agent.handler = answering(418, b"odd")
    assert (await ask(proxy, client, b"no json"))[0].status == 418


# --- offline-draft ---------------------------------------------------------------------------------------------------


async def does(request: web.Request) -> web.Response:
    """Whatever it is told, over JSON-RPC, over REST, and what is no A2A."""
    said = json.loads(await request.read())
    if "jsonrpc" in said:
        return web.json_response(completed(json.dumps(said).encode()))
    task = {"id": "up", "contextId": "theirs", "status": {"state": "TASK_STATE_COMPLETED"}}
    return web.json_response({"task": task} if "message" in said else {"done": True})


async def test_what_was_put_away_is_an_agent_asleep(proxy: Harness, agent: ScriptedAgent) -> None:
    agent.handler = does
    await agent.stop()
    await proxy.enroll("a", url=agent.url, profile="offline-draft", unmanaged_away="defer")
    client = await proxy.client()
    got, said = await ask(proxy, client, send("m1", rpc_id="x"), **V1)
    assert got.status == 503
    assert (said["id"], said["error"]["code"]) == ("x", -32003)
    assert said["error"]["data"]["error"] == "agent_asleep"
    assert said["error"]["data"]["queued"] is True
    assert got.headers["Holdfast-Receipt"]
    got, said = await ask(proxy, client, {"message": send("m2")["params"]["message"]}, "/message:send", **V1)
    assert (got.status, said["error"], said["queued"]) == (503, "agent_asleep", True)
    got, said = await ask(proxy, client, {"any": "thing"}, "/elsewhere")
    assert (got.status, said["error"], said["queued"]) == (503, "agent_asleep", True)
    again, _ = await ask(proxy, client, send("m1"), **V1)
    assert again.headers["Holdfast-Receipt"] == (await _receipts(proxy))[0]
    await proxy.restart()
    assert len(await _receipts(proxy)) == 3
    await agent.start()
    await proxy.until(lambda: len(proxy.named("deferral.completed")) == 3)
    got, said = await ask(proxy, client, send("m1"), **V1)  # the replay cache outlived the restart, too
    assert (got.status, said["result"]["task"]["status"]["state"]) == (200, "TASK_STATE_COMPLETED")
    assert len(agent.seen) == 3


async def _receipts(proxy: Harness) -> list[str]:
    return sorted(each.id for each in await proxy.app.store.deferrals(workspace_id="a"))


async def test_when_it_is_known_that_a_workspace_comes_back_the_answer_says_so(proxy: Harness, nobody: str) -> None:
    await proxy.enroll("a", url=nobody, profile="offline-draft", unmanaged_away="defer", policy={"settle_hold": 30})
    client = await proxy.client()
    await proxy.call("POST", "/workspaces/a/restarting")
    got, said = await ask(proxy, client, send(), **V1)
    data = said["error"]["data"]
    assert (data.get("retryAfterSec"), got.headers.get("Retry-After")) in {(15, "15"), (None, None)}
    route = proxy.app.routing.get("a")
    assert route is not None
    assert ("retryAfterSec" in data) == (route.workspace.status in {"starting", "restarting"})


@pytest.mark.parametrize(
    ("limits", "status", "kind"),
    [
        ({"queue__rows": 1}, 507, "messages"),
        ({"queue__bytes": 400}, 507, "bytes"),
        ({"queue__caller_rows": 1}, 429, "peer"),
    ],
)
async def test_a_full_queue_is_never_an_agent_asleep(
    make: Any, nobody: str, limits: Any, status: int, kind: str
) -> None:
    proxy = await make(**limits)
    await proxy.enroll("a", url=nobody, profile="offline-draft", unmanaged_away="defer")
    client = await proxy.client()
    texts = ("short", "x" * 400)
    got, _ = await ask(proxy, client, send("m1", texts[0]), **V1)
    assert got.status == 503
    got, said = await ask(proxy, client, send("m2", texts[1]), **V1)
    assert got.status == status
    assert said["error"]["data"] == {"error": "asleep_queue_full", "queued": False, "kind": kind}
    got, said = await ask(proxy, client, {"message": send("m3", texts[1])["params"]["message"]}, "/message:send", **V1)
    assert (got.status, said["error"], said["queued"], said["kind"]) == (status, "asleep_queue_full", False, kind)
    assert len(await _receipts(proxy)) == 1


async def test_a_store_that_fails_is_never_an_agent_asleep(
    proxy: Harness, nobody: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await proxy.enroll("a", url=nobody, profile="offline-draft", unmanaged_away="defer")
    client = await proxy.client()

    async def full(*_: Any, **__: Any) -> None:
        await asyncio.sleep(0)
        raise StoreFailure("full", "no room")

    monkeypatch.setattr(proxy.app.store, "enqueue", full)
    got, said = await ask(proxy, client, send(), **V1)
    assert got.status == 503
    assert "agent_asleep" not in json.dumps(said)
    assert said["error"]["data"][0]["reason"] == "QUEUE_UNAVAILABLE"


async def test_an_agent_that_is_slow_is_not_asleep(proxy: Harness, agent: ScriptedAgent) -> None:
    go = asyncio.Event()

    async def slow(request: web.Request) -> web.Response:
        await go.wait()
        return web.json_response(completed(await request.read()))

    agent.handler = slow
    await proxy.enroll("a", url=agent.url, profile="offline-draft")
    client = await proxy.client()
    got, said = await ask(proxy, client, send(), **V1, X_Timeout="1")
    go.set()
    assert (got.status, said["result"]["task"]["status"]["state"]) == (202, "TASK_STATE_SUBMITTED")


async def test_who_may_not_call_any_more_is_not_delivered(proxy: Harness, agent: ScriptedAgent) -> None:
    await agent.stop()
    await proxy.enroll("a", url=agent.url, profile="offline-draft", unmanaged_away="defer")
    _, made = await proxy.call("POST", "/tokens", json={"kind": "client", "name": "gone"})
    gone, stays = json.loads(made), await proxy.client("stays")
    await ask(proxy, gone["token"], send("m1"), **V1)
    await ask(proxy, stays, send("m2"), **V1)
    await proxy.call("DELETE", f"/tokens/{gone['id']}")
    await agent.start()
    await proxy.until(lambda: proxy.named("deferral.completed") != [] and proxy.named("deferral.dead_lettered") != [])
    assert [json.loads(body)["params"]["message"]["messageId"] for _, _, _, body in agent.seen] == ["m2"]
    assert "no token any more" in str(proxy.named("deferral.dead_lettered")[0].fields["reason"])


async def test_who_was_taken_off_the_list_is_not_delivered(make: Any, agent: ScriptedAgent) -> None:
    proxy = await make(access__rule="list")
    await agent.stop()
    kept = {"url": agent.url, "profile": "offline-draft", "unmanaged_away": "defer"}
    await proxy.enroll("a", **kept, allow_from=["client:one", "client:two"])
    for number, name in enumerate(("one", "two")):
        got, _ = await ask(proxy, await proxy.client(name), send(f"m{number}"), **V1)
        assert got.status == 503
    await proxy.call("PUT", "/workspaces/a", json={**kept, "allow_from": ["client:two"]})
    await agent.start()
    await proxy.until(lambda: proxy.named("deferral.completed") != [] and proxy.named("deferral.dead_lettered") != [])
    assert [json.loads(body)["params"]["message"]["messageId"] for _, _, _, body in agent.seen] == ["m1"]
    assert "may not call" in str(proxy.named("deferral.dead_lettered")[0].fields["reason"])


async def test_a_stream_that_is_put_away_is_asleep_in_the_draft_and_a_stream_in_plain(
    proxy: Harness, agent: ScriptedAgent
) -> None:
    agent.handler = does
    await agent.stop()
    await proxy.enroll("a", url=agent.url, unmanaged_away="defer")
    client = await proxy.client()
    stream = {**send("m1"), "method": "SendStreamingMessage"}
    got, said = await ask(proxy, client, stream, **V1, **DRAFT)
    assert (got.status, said["error"]["data"]["error"]) == (503, "agent_asleep")
    stream = {**send("m2"), "method": "SendStreamingMessage"}
    asking = asyncio.create_task(ask(proxy, client, stream, **V1, **PLAIN))
    await proxy.until(lambda: len(proxy.named("deferral.queued")) == 2)
    await agent.start()
    got, said = await asking
    assert (got.status, got.content_type) == (200, "text/event-stream")
    assert b"TASK_STATE_COMPLETED" in said


async def test_a_poller_gets_what_the_profile_made_of_a_request(proxy: Harness) -> None:
    poller = Poller(proxy, await proxy.enroll("a", delivery_mode="poll", profile="plain"))
    client = await proxy.client()
    got, said = await ask(proxy, client, {"method": "message/send", "params": {"message": {"content": "hi"}}})
    assert (got.status, said["queued"]) == (202, True)
    item = await poller.one()
    body = json.loads(base64.b64decode(item["body_base64"]))
    assert body["params"]["message"]["parts"] == [{"kind": "text", "text": "hi"}]
    assert (await poller.complete(item, json.dumps(completed(json.dumps(body).encode())).encode()))[0] == 200
