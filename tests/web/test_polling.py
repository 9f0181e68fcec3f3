"""Workspaces that poll: what they are handed, what becomes of it, and what their callers see."""

import asyncio
import base64
import json
from dataclasses import replace
from typing import Any

import aiohttp
import pytest
from multidict import CIMultiDict
from web.harness import ADMIN, V1, Harness, ScriptedAgent, completed, get_task, send
from web.pollers import Poller, body_of, message_of
from web.test_deferral import follow, state_of
from yarl import URL


async def polling(proxy: Harness, name: str = "a", **members: Any) -> Poller:
    token = await proxy.enroll(name, delivery_mode="poll", **members)
    return Poller(proxy, token, name)


async def receipt(proxy: Harness, got: aiohttp.ClientResponse) -> dict[str, Any]:
    _, body = await proxy.call("GET", got.headers["Location"])
    return dict(json.loads(body))


# --- what a caller sees ----------------------------------------------------------------------------------------------


async def test_scenario_51_the_row_is_durable_before_the_answer_and_nobody_is_dialled(
    proxy: Harness, agent: ScriptedAgent
) -> None:
    await polling(proxy, url=agent.url)
    client = await proxy.client()
    got, said = await proxy.send("a", client, message_id="m1")
    assert (got.status, got.headers["Holdfast-Verdict"]) == (202, "busy; rule=poll")
    # Whatever happens to this proxy after its answer: another one finds the row.
    proxy.app.store, kept = proxy.app.store, await proxy.app.store.deferral(got.headers["Holdfast-Receipt"])
    assert kept is not None
    assert json.loads(kept.request.body)["params"]["message"]["messageId"] == "m1"
    assert said["result"]["task"]["status"]["state"] == "TASK_STATE_SUBMITTED"
    assert agent.seen == []


async def test_the_answer_of_a_poller_is_the_caller_s_task_and_its_receipt(proxy: Harness) -> None:
    poller = await polling(proxy)
    client = await proxy.client()
    got, said = await proxy.send("a", client, message_id="m1", rpc_id="seven")
    task = said["result"]["task"]
    item = await poller.one(lease_seconds=30)
    assert (item["method"], item["path"], item["attempt"], item["redelivery"]) == ("POST", "/", 1, "no")
    assert (item["task_id"], item["context_id"]) == (task["id"], task["contextId"])
    assert message_of(item)["contextId"] == task["contextId"]
    assert item["headers"]["A2A-Version"] == "1.0"
    assert item["headers"]["Holdfast-Request-Id"] == got.headers["Holdfast-Request-Id"]
    assert "Holdfast-Redelivery" not in item["headers"]
    assert (await receipt(proxy, got))["status"] == "leased"
    assert await poller.complete(item) == (200, {"queue_id": item["queue_id"], "status": "completed"})
    done = await follow(proxy, client, task["id"])
    assert done["artifacts"][0]["parts"][0]["text"] == "did m1"
    shown = await receipt(proxy, got)
    assert shown["status"] == "completed"
    assert json.loads(base64.b64decode(shown["response"]["body_base64"])) == completed(body_of(item))
    again, repeated = await proxy.send("a", client, message_id="m1", rpc_id=8)
    assert (again.status, repeated["result"]["task"]["id"], repeated["id"]) == (200, task["id"], 8)
    assert await poller.claim() == []


async def test_who_waits_for_a_poller_hears_when_it_was_last_seen(proxy: Harness) -> None:
    poller = await polling(proxy)
    got, said = await proxy.send("a", await proxy.client(), message_id="m1")
    assert got.headers["Holdfast-Last-Seen"] == "never"
    assert said["result"]["task"]["metadata"] == {"holdfast": {"last_seen": None}}
    await poller.one()
    _, body = await proxy.call("GET", "/workspaces/a")
    seen = json.loads(body)["last_seen"]
    got, said = await proxy.send("a", await proxy.client("other"), message_id="m2")
    assert got.headers["Holdfast-Last-Seen"] == said["result"]["task"]["metadata"]["holdfast"]["last_seen"] == seen
    got, body = await proxy.call("POST", "/workspaces/a/a2a/hook", data=b"x", headers={"Content-Type": "text/plain"})
    assert json.loads(body)["last_seen"] == got.headers["Holdfast-Last-Seen"] == seen


async def test_a_post_that_is_not_a2a_reaches_the_poller_as_it_came(proxy: Harness) -> None:
    poller = await polling(proxy)
    body = bytes(range(256))
    url = URL(f"{proxy.url}/workspaces/a/a2a/hook/%2Fdeep?x=%41&y", encoded=True)
    fields = [("Content-Type", "application/x"), ("X-Two", "1"), ("X-Two", "2"), ("Holdfast-Faked", "no")]
    async with proxy.session.post(url, data=body, headers=CIMultiDict([*fields, *ADMIN.items()])) as got:
        await got.read()
    item = await poller.one()
    assert (item["path"], body_of(item)) == ("/hook/%2Fdeep?x=%41&y", body)
    assert (item["headers"]["X-Two"], item["headers"]["Content-Type"]) == ("1, 2", "application/x")
    assert "Holdfast-Faked" not in item["headers"]
    assert "Authorization" not in item["headers"]
    answer = {"X-Mood": ["good", "bad"], "Connection": "close", "Content-Length": "9", "Holdfast-Verdict": "alive"}
    assert (await poller.complete(item, b"thanks", status=201, headers=answer))[0] == 200
    response = (await receipt(proxy, got))["response"]
    assert (response["status"], base64.b64decode(response["body_base64"])) == (201, b"thanks")
    assert list(response["headers"]) == ["X-Mood"]


async def test_credentials_reach_the_poller_and_are_gone_afterwards(proxy: Harness) -> None:
    poller = await polling(proxy)
    client = await proxy.client()
    headers = {"Authorization": "Bearer agents-own", "Holdfast-Token": client, **V1}
    await proxy.call("POST", "/workspaces/a/a2a", token=None, headers=headers, json=send("m1"))
    item = await poller.one()
    assert item["headers"]["Authorization"] == "Bearer agents-own"
    assert "Holdfast-Token" not in item["headers"]
    await poller.complete(item)
    kept = await proxy.app.store.deferral(item["queue_id"])
    assert kept is not None
    assert kept.credentials is None


async def test_what_cannot_wait_for_a_poller_is_refused_in_kind(proxy: Harness) -> None:
    await polling(proxy)
    got, body = await proxy.call("POST", "/workspaces/a/a2a", headers=V1, json=get_task("somebody-else-s"))
    assert (got.status, json.loads(body)["error"]["data"][0]["reason"]) == (503, "WORKSPACE_AWAY")
    assert int(got.headers["Retry-After"]) >= 15
    got, body = await proxy.call("GET", "/workspaces/a/a2a/anything")
    assert (got.status, json.loads(body)["away"]) == (503, True)


async def test_a_task_that_a_poller_left_open_is_shown_from_the_store(proxy: Harness, agent: ScriptedAgent) -> None:
    poller = await polling(proxy, url=agent.url)
    client = await proxy.client()
    _, said = await proxy.send("a", client, message_id="m1")
    task_id = said["result"]["task"]["id"]
    item = await poller.one()
    asks = completed(body_of(item))
    asks["result"]["task"]["status"] = {"state": "TASK_STATE_INPUT_REQUIRED"}
    await poller.complete(item, json.dumps(asks).encode())
    shown = await state_of(proxy, client, task_id)
    assert (shown["id"], shown["status"]["state"]) == (task_id, "TASK_STATE_INPUT_REQUIRED")
    assert agent.seen == []
    got, more = await proxy.send("a", client, message_id="m2", taskId=task_id)
    assert got.status == 202
    second = await poller.one()
    assert message_of(second)["taskId"] == "up-m1"
    assert more["result"]["task"]["id"] == task_id


async def test_a_caller_may_withdraw_what_no_poller_has(proxy: Harness) -> None:
    poller = await polling(proxy)
    client = await proxy.client()
    _, said = await proxy.send("a", client, message_id="m1")
    cancel = {"jsonrpc": "2.0", "id": 5, "method": "CancelTask", "params": {"id": said["result"]["task"]["id"]}}
    _, body = await proxy.call("POST", "/workspaces/a/a2a", token=client, headers=V1, json=cancel)
    assert json.loads(body)["result"]["status"]["state"] == "TASK_STATE_CANCELED"
    assert await poller.claim() == []


# --- claiming --------------------------------------------------------------------------------------------------------


async def test_a_claim_gets_as_much_as_it_asks_for_in_order_and_one_of_a_context(proxy: Harness) -> None:
    poller = await polling(proxy)
    client = await proxy.client()
    for number in range(4):
        await proxy.send("a", client, message_id=f"free-{number}")
    for number in range(3):
        await proxy.send("a", client, message_id=f"talk-{number}", contextId="talk")
    first = await poller.claim(max_items=3)
    assert [message_of(item)["messageId"] for item in first] == ["free-0", "free-1", "free-2"]
    rest = await poller.claim(max_items=100)
    assert [message_of(item)["messageId"] for item in rest] == ["free-3", "talk-0"]
    assert await poller.claim(max_items=100) == []
    await poller.complete(rest[1])
    (following,) = await poller.claim(max_items=100)
    assert message_of(following)["messageId"] == "talk-1"


async def test_a_claim_hands_out_no_more_bytes_than_one_answer_should_have(make: Any) -> None:
    proxy = await make(poll__bytes=5000)
    poller = await polling(proxy)
    client = await proxy.client()
    for number in range(5):
        await proxy.send("a", client, message_id=f"m{number}", text="x" * 2000)
    sizes = [len(await poller.claim(max_items=10)) for _ in range(3)]
    assert sum(sizes) == 5
    assert sizes[0] < 5


async def test_a_limit_that_was_set_for_the_workspace_holds_and_the_default_does_not(proxy: Harness) -> None:
    poller = await polling(proxy)
    client = await proxy.client()
    for number in range(12):
        await proxy.send("a", client, message_id=f"m{number}")
    first = await poller.claim(max_items=10)
    assert len(first) == 10  # more than the default of 8
    await proxy.call("PUT", "/workspaces/a", json={"max_concurrent": 11})
    (last,) = await poller.claim(max_items=10)
    assert await poller.claim(max_items=10) == []
    await poller.complete(last)
    assert len(await poller.claim(max_items=10)) == 1


async def test_a_waiting_claim_is_woken_by_what_comes(proxy: Harness) -> None:
    poller = await polling(proxy)
    waiting = asyncio.create_task(poller.one())
    await waited_for(proxy, 1)
    await proxy.send("a", await proxy.client(), message_id="m1")
    assert message_of(await waiting)["messageId"] == "m1"


async def test_each_of_many_waiting_claims_gets_another_deferral(proxy: Harness) -> None:
    poller = await polling(proxy)
    client = await proxy.client()
    waiting = [asyncio.create_task(poller.one()) for _ in range(6)]
    await waited_for(proxy, 6)
    for number in range(6):
        await proxy.send("a", client, message_id=f"m{number}")
    items = await asyncio.gather(*waiting)
    assert sorted(message_of(item)["messageId"] for item in items) == [f"m{number}" for number in range(6)]


async def waited_for(proxy: Harness, count: int, name: str = "a") -> None:
    """Wait until so many claims of a workspace wait."""
    async with asyncio.timeout(20):
        while True:
            bell = proxy.app.polling._bells.get(name)
            if bell is not None and len(bell.waiting) == count:
                return
            await asyncio.sleep(0)


async def test_an_empty_claim_that_does_not_wait_says_so_at_once(proxy: Harness) -> None:
    poller = await polling(proxy)
    got, answer = await poller.post("claim", {})
    assert (got.status, answer) == (200, {"items": [], "lease_seconds": 60})
    got, answer = await poller.post("claim")
    assert (got.status, answer["items"]) == (200, [])


async def test_nothing_is_leased_to_a_client_that_left(proxy: Harness, session: aiohttp.ClientSession) -> None:
    poller = await polling(proxy)
    claim = asyncio.create_task(poller.one())
    await waited_for(proxy, 1)
    claim.cancel()
    await asyncio.gather(claim, return_exceptions=True)
    await waited_for(proxy, 0)
    got, _ = await proxy.send("a", await proxy.client(), message_id="m1")
    assert (await receipt(proxy, got))["status"] == "queued"
    item = await poller.one()
    assert (item["attempt"], item["redelivery"]) == (1, "no")


async def test_what_could_not_be_handed_over_goes_back_at_once_unmarked(
    proxy: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    poller = await polling(proxy)
    got, _ = await proxy.send("a", await proxy.client(), message_id="m1")
    began, go = asyncio.Event(), asyncio.Event()
    claimed = proxy.app.store.claim

    async def slow(*asked: Any, **more: Any) -> Any:
        found = await claimed(*asked, **more)
        began.set()
        await go.wait()
        return found

    monkeypatch.setattr(proxy.app.store, "claim", slow)
    claim = asyncio.create_task(poller.one())
    await began.wait()
    assert (await receipt(proxy, got))["status"] == "leased"
    claim.cancel()  # the connection is closed while the lease is being committed
    await asyncio.gather(claim, return_exceptions=True)
    monkeypatch.undo()
    go.set()
    await proxy.until(lambda: bool(proxy.named("deferral.returned")))
    shown = await receipt(proxy, got)
    assert (shown["status"], shown["attempts"], shown["redelivery"], shown["last_error"]) == ("queued", 0, "no", "poll")
    item = await poller.one()
    assert (item["attempt"], item["redelivery"]) == (1, "no")


async def test_a_proxy_that_stops_ends_open_long_polls_with_nothing(proxy: Harness) -> None:
    poller = await polling(proxy)
    claim = asyncio.create_task(poller.claim(wait_seconds=60))
    await waited_for(proxy, 1)
    await proxy.app.stop(drain=0)
    assert await claim == []


async def test_too_many_waiting_claims_are_turned_away(make: Any) -> None:
    proxy = await make(poll__waiting=2)
    poller = await polling(proxy)
    waiting = [asyncio.create_task(poller.claim(wait_seconds=60)) for _ in range(2)]
    await waited_for(proxy, 2)
    got, answer = await poller.post("claim", {"wait_seconds": 1})
    assert (got.status, got.headers["Retry-After"]) == (429, "1"), answer
    await proxy.app.stop(drain=0)
    assert await asyncio.gather(*waiting) == [[], []]


async def test_a_removed_workspace_s_long_poll_ends(proxy: Harness) -> None:
    poller = await polling(proxy)
    claim = asyncio.create_task(poller.post("claim", {"wait_seconds": 60}))
    await waited_for(proxy, 1)
    await proxy.call("DELETE", "/workspaces/a")
    got, _ = await claim
    assert got.status == 404


# --- who may ---------------------------------------------------------------------------------------------------------


async def test_an_inbox_is_its_workspace_s_and_the_admin_s_and_unknown_to_everybody_else(proxy: Harness) -> None:
    poller = await polling(proxy)
    other = await proxy.enroll("b", delivery_mode="poll")
    client = await proxy.client()
    await proxy.send("a", client, message_id="m1")
    item = await poller.one()
    paths = ["claim", *(f"{item['queue_id']}/{verb}" for verb in ("extend", "events", "complete", "fail"))]
    said = {"lease_token": item["lease_token"]}
    for path in paths:
        for token in (other, client):
            got, _ = await Poller(proxy, token).post(path, said)
            unknown, _ = await Poller(proxy, token, "nothing").post(path, said)
            assert got.status == unknown.status == 404
        got, _ = await Poller(proxy, "hf_" + "x" * 43).post(path, said)
        assert got.status == 401
    stolen = await Poller(proxy, other, "b").complete(item)
    assert stolen[0] == 404
    got, _ = await poller.post("nothing/complete", said)
    assert got.status == 404
    admin = Poller(proxy, "hf_" + "a" * 43)
    assert (await admin.complete(item))[0] == 200


async def test_a_workspace_that_is_dialled_claims_nothing(proxy: Harness, nobody: str) -> None:
    token = await proxy.enroll("a", url=nobody)
    got, answer = await Poller(proxy, token).post("claim")
    assert (got.status, answer["delivery_mode"]) == (409, "push")


# --- liveness --------------------------------------------------------------------------------------------------------


async def status_of(proxy: Harness) -> dict[str, Any]:
    _, body = await proxy.call("GET", "/workspaces/a")
    return dict(json.loads(body))


async def test_a_claim_makes_a_workspace_ready_and_one_that_fell_silent_comes_back_by_one(
    make: Any, agent: ScriptedAgent
) -> None:
    proxy = await make(health__sweep=0.05, health__stale=60)
    poller = await polling(proxy, url=agent.url)
    assert (await status_of(proxy))["status"] == "starting"
    await poller.claim()
    view = await status_of(proxy)
    assert (view["status"], view["last_seen"]) == ("ready", view["last_heartbeat_at"])
    proxy.app.health._trusts_ages = lambda *_: True
    rules = proxy.app.health._rules
    proxy.app.health._rules = replace(rules, stale=0.05)
    await proxy.until(lambda: proxy.app.routing.get("a").workspace.status == "offline")
    proxy.app.health._rules = rules
    await poller.claim()
    assert (await status_of(proxy))["status"] == "ready"
    assert agent.seen == []


async def test_an_open_long_poll_is_a_sign_of_life(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.loops.polling.PULSE", 0.02)
    proxy = await make()
    poller = await polling(proxy)
    claim = asyncio.create_task(poller.claim(wait_seconds=60))
    await waited_for(proxy, 1)
    route = proxy.app.routing.get("a")
    assert route is not None
    seen = set()
    async with asyncio.timeout(20):
        while len(seen) < 4:
            seen.add(route.signs.last_sign_at)
            await asyncio.sleep(0)
    await proxy.app.stop(drain=0)
    await claim


async def test_waiting_asks_the_store_nothing(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.loops.polling.PULSE", 0.01)
    proxy = await make()
    poller = await polling(proxy)
    waiting = [asyncio.create_task(poller.claim(wait_seconds=60)) for _ in range(5)]
    await waited_for(proxy, 5)
    asked: list[str] = []
    for name in ("claim", "outlook"):
        known = getattr(proxy.app.store, name)

        async def counted(*said: Any, _known: Any = known, _name: str = name, **more: Any) -> Any:
            asked.append(_name)
            return await _known(*said, **more)

        monkeypatch.setattr(proxy.app.store, name, counted)
    route = proxy.app.routing.get("a")
    assert route is not None

    async def pulses(count: int) -> None:
        seen = set()
        async with asyncio.timeout(20):
            while len(seen) < count:
                seen.add(route.signs.last_sign_at)
                await asyncio.sleep(0)

    await pulses(20)  # by now every claim has looked once
    asked.clear()
    await pulses(20)
    assert asked == []
    await proxy.send("a", await proxy.client(), message_id="m1")
    done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    assert len(done) == 1
    assert len(asked) <= 4
    await proxy.app.stop(drain=0)
    await asyncio.gather(*waiting)
