"""What an admin does to deferrals, who may look at them, and how many one caller may have."""

import asyncio
import json
from typing import Any

import pytest
from aiohttp import web
from web.harness import V1, Harness, ScriptedAgent, completed, get_task

from proxy.core.deferral import State
from proxy.loops import tasks
from proxy.loops.routing import Route
from proxy.store import StoreFailure

DEFERRING: dict[str, Any] = {"unmanaged_away": "defer"}


def route(proxy: Harness) -> Route:
    found = proxy.app.routing.get("a")
    assert found is not None
    return found


async def admin(proxy: Harness, method: str, path: str, status: int = 200, **more: Any) -> dict[str, Any]:
    """One request of the admin's; return its JSON."""
    got, body = await proxy.call(method, path, **more)
    assert got.status == status, body
    said: dict[str, Any] = json.loads(body)
    return said


async def view(proxy: Harness, receipt: str) -> dict[str, Any]:
    return await admin(proxy, "GET", f"/workspaces/a/queue/{receipt}")


async def task_of(proxy: Harness, token: str, task_id: str) -> dict[str, Any]:
    got, body = await proxy.call("POST", "/workspaces/a/a2a", token=token, headers=V1, json=get_task(task_id))
    assert got.status == 200, body
    task: dict[str, Any] = json.loads(body)["result"]
    return task


async def put_away(proxy: Harness, token: str, **message: Any) -> tuple[str, str]:
    """Send a message that is deferred; return its receipt and its task's id."""
    got, said = await proxy.send("a", token, **message)
    assert got.status == 202, said
    return got.headers["Holdfast-Receipt"], said["result"]["task"]["id"]


async def actions(proxy: Harness, receipt: str) -> list[tuple[str, str]]:
    """What the decision log says was done about a deferral, the latest first, and who made it so."""
    lines = (await admin(proxy, "GET", "/workspaces/a/decisions"))["decisions"]
    return [(line["action"], line["trigger"]) for line in lines if line["receipt"] == receipt]


async def breaks_off(request: web.Request) -> web.Response:
    """Take a request and answer nothing."""
    await request.read()
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def dead_letter(proxy: Harness, agent: ScriptedAgent, token: str, **message: Any) -> tuple[str, str]:
    """Have a message given up, and the agent gone; `proxy` allows one try that may have arrived."""
    agent.handler = breaks_off
    receipt, task_id = await put_away(proxy, token, **message)
    await proxy.until(lambda: receipt in [event.receipt for event in proxy.named("deferral.dead_lettered")])
    await agent.stop()
    agent.handler = None
    return receipt, task_id


# --- redriving -------------------------------------------------------------------------------------------------------


async def test_a_dead_letter_is_driven_again_to_its_end(make: Any, agent: ScriptedAgent) -> None:
    proxy = await make(queue__attempts=1)
    await proxy.enroll("a", url=agent.url, **DEFERRING)
    client = await proxy.client()
    receipt, task_id = await dead_letter(proxy, agent, client, message_id="m1", contextId="talk")
    dead = await view(proxy, receipt)
    assert (dead["status"], dead["redelivery"]) == ("dead_lettered", "maybe")
    assert dead["completed_at"] is not None
    assert (await task_of(proxy, client, task_id))["status"]["state"] == "TASK_STATE_FAILED"

    back = await admin(proxy, "POST", f"/queue/{receipt}/redrive")
    assert (back["queue_id"], back["status"], back["attempts"]) == (receipt, "queued", 0)
    assert (back["completed_at"], back["last_error"]) == (None, dead["last_error"])
    assert back["expires_at"] > dead["expires_at"]
    waiting = await task_of(proxy, client, task_id)
    assert waiting["status"]["state"] == "TASK_STATE_SUBMITTED"
    assert waiting["history"][0]["parts"][0]["text"] == "hello"
    assert ("redriven", "admin") in await actions(proxy, receipt)
    assert (route(proxy).size.rows, dict(route(proxy).contexts)) == (1, {"talk": 1})
    behind, _ = await put_away(proxy, client, message_id="m2", contextId="talk")

    await agent.start()
    await proxy.until(lambda: len(proxy.named("deferral.completed")) == 2)
    assert [event.receipt for event in proxy.named("deferral.completed")] == [receipt, behind]
    done = await task_of(proxy, client, task_id)
    assert (done["status"]["state"], done["artifacts"][0]["parts"][0]["text"]) == ("TASK_STATE_COMPLETED", "did m1")
    marks = [headers.get("Holdfast-Redelivery") for _, _, headers, body in agent.seen if b'"m1"' in body]
    assert marks[0] is None
    assert set(marks[1:]) == {"maybe"}
    assert (route(proxy).size.rows, dict(route(proxy).contexts)) == (0, {})
    assert await admin(proxy, "POST", f"/queue/{receipt}/redrive", 409) == {
        "error": "it is no dead letter",
        "queue_id": receipt,
        "status": "completed",
    }


async def test_only_a_dead_letter_is_driven_again(proxy: Harness, nobody: str) -> None:
    await proxy.enroll("a", url=nobody, **DEFERRING)
    receipt, _ = await put_away(proxy, await proxy.client())
    refused = await admin(proxy, "POST", f"/queue/{receipt}/redrive", 409)
    assert refused["status"] in {"queued", "leased"}
    assert await admin(proxy, "POST", "/queue/nothing/redrive", 404) == {"error": "unknown receipt"}
    await admin(proxy, "POST", f"/queue/{receipt}/cancel")
    await admin(proxy, "DELETE", "/workspaces/a")
    refused = await admin(proxy, "POST", f"/queue/{receipt}/redrive", 409)
    assert refused["error"] == "its workspace is gone"


async def test_a_dead_letter_with_a_successor_stays_dead(make: Any, agent: ScriptedAgent) -> None:
    proxy = await make(queue__attempts=1)
    await proxy.enroll("a", url=agent.url, **DEFERRING)
    client = await proxy.client()
    receipt, _ = await dead_letter(proxy, agent, client, message_id="m1")
    successor, _ = await put_away(proxy, client, message_id="m1")
    assert successor != receipt
    refused = await admin(proxy, "POST", f"/queue/{receipt}/redrive", 409)
    assert (refused["status"], "idempotency key" in refused["error"]) == ("dead_lettered", True)
    assert route(proxy).size.rows == 1
    again, _ = await put_away(proxy, client, message_id="m1")
    assert again == successor, "the refusal left the successor's key alone"


# --- cancelling ------------------------------------------------------------------------------------------------------


async def test_a_queued_deferral_is_cancelled_with_a_reason_that_its_caller_hears(
    proxy: Harness, agent: ScriptedAgent
) -> None:
    await agent.stop()
    await proxy.enroll("a", url=agent.url, **DEFERRING)
    client = await proxy.client()
    receipt, task_id = await put_away(proxy, client, message_id="m1", contextId="talk")
    gone = await admin(proxy, "POST", f"/queue/{receipt}/cancel", json={"reason": "wrong recipient"})
    assert (gone["status"], gone["last_error"]) == ("cancelled", "cancelled by an admin: wrong recipient")
    assert gone["completed_at"] is not None
    status = (await task_of(proxy, client, task_id))["status"]
    assert status["state"] == "TASK_STATE_CANCELED"
    assert status["message"]["parts"][0]["text"] == "cancelled by an admin: wrong recipient"
    assert (await actions(proxy, receipt))[0] == ("cancelled", "admin")
    known = route(proxy)
    assert (known.size.rows, known.size.bytes, dict(known.contexts), known.keys) == (0, 0, {}, {})
    assert (await admin(proxy, "POST", f"/queue/{receipt}/cancel", 409))["error"] == "it has ended"
    assert len(proxy.named("deferral.cancelled")) == 1

    again, _ = await put_away(proxy, client, message_id="m1", contextId="talk")
    assert again != receipt
    await agent.start()
    await proxy.until(lambda: bool(proxy.named("deferral.completed")))
    assert len(agent.seen) == 1


async def test_a_cancel_needs_no_reason_and_takes_no_nonsense(proxy: Harness, nobody: str) -> None:
    await proxy.enroll("a", url=nobody, **DEFERRING)
    receipt, _ = await put_away(proxy, await proxy.client())
    await admin(proxy, "POST", "/queue/nothing/cancel", 404)
    for wrong in ({"reason": 7}, {"why": "x"}, [], {"reason": "x" * 1025}):
        await admin(proxy, "POST", f"/queue/{receipt}/cancel", 400, json=wrong)
    assert (await view(proxy, receipt))["status"] in {"queued", "leased"}
    gone = await admin(proxy, "POST", f"/queue/{receipt}/cancel")
    assert gone["last_error"] == "cancelled by an admin"


class Trial:
    """A replay that is under way, and stays so until the test lets it go."""

    def __init__(self, agent: ScriptedAgent) -> None:
        self.came, self.go = asyncio.Event(), asyncio.Event()
        self.fails = False
        agent.handler = self.answer

    async def answer(self, request: web.Request) -> web.Response:
        self.came.set()
        await self.go.wait()
        if self.fails:
            return await breaks_off(request)
        return web.json_response(completed(await request.read()))


@pytest.mark.parametrize("fails", [False, True])
async def test_a_cancel_waits_for_the_try_that_is_under_way(proxy: Harness, agent: ScriptedAgent, fails: bool) -> None:
    await agent.stop()
    await proxy.enroll("a", url=agent.url, **DEFERRING)
    receipt, _ = await put_away(proxy, await proxy.client())
    trial = Trial(agent)
    trial.fails = fails
    await agent.start()
    await trial.came.wait()
    assert (await view(proxy, receipt))["status"] == "leased"
    cancelling = asyncio.create_task(proxy.call("POST", f"/queue/{receipt}/cancel"))
    await asyncio.wait({cancelling}, timeout=0)
    trial.go.set()
    got, body = await cancelling
    said = json.loads(body)
    assert (got.status, said["status"]) == ((200, "cancelled") if fails else (409, "completed"))
    assert (await view(proxy, receipt))["status"] == said["status"]


async def test_a_cancel_does_not_wait_for_ever(
    proxy: Harness, agent: ScriptedAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "CANCEL_WAIT", 0.05)
    await agent.stop()
    await proxy.enroll("a", url=agent.url, **DEFERRING)
    receipt, _ = await put_away(proxy, await proxy.client())
    trial = Trial(agent)
    await agent.start()
    await trial.came.wait()
    refused = await admin(proxy, "POST", f"/queue/{receipt}/cancel", 409)
    assert refused == {"error": "it is being delivered", "queue_id": receipt, "status": "leased"}
    trial.go.set()
    await proxy.until(lambda: bool(proxy.named("deferral.completed")))


# --- dropping --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("age", ["0", "x", "-1", "1.5", "", "%20", "1e3", "\N{SUPERSCRIPT TWO}", "9" * 30])
async def test_scenario_49_an_age_that_is_none_drops_nothing(proxy: Harness, nobody: str, age: str) -> None:
    await proxy.enroll("a", url=nobody, **DEFERRING)
    receipt, _ = await put_away(proxy, await proxy.client())
    refused = await admin(proxy, "POST", f"/queue/drop-stale?max_age_minutes={age}", 400)
    assert "max_age_minutes" in refused["error"]
    assert (await view(proxy, receipt))["status"] in {"queued", "leased"}


async def test_what_is_to_be_dropped_must_be_said_without_a_mistake(proxy: Harness, nobody: str) -> None:
    await proxy.enroll("a", url=nobody, **DEFERRING)
    await put_away(proxy, await proxy.client())
    assert await admin(proxy, "POST", "/queue/drop-stale?workspace_id=nobody", 404) == {
        "error": "unknown workspace nobody"
    }
    refused = await admin(proxy, "POST", "/queue/drop-stale?workspace=a", 400)
    assert refused["error"] == "there is no parameter workspace"
    for query in ("", "?max_age_minutes=1", "?max_age_minutes=60&workspace_id=", "?workspace_id=a"):
        assert await admin(proxy, "POST", f"/queue/drop-stale{query}") == {"dropped": 0}
    assert route(proxy).size.rows == 1


async def test_a_store_that_fails_while_dropping_is_told(
    proxy: Harness, nobody: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await proxy.enroll("a", url=nobody, **DEFERRING)
    receipt, _ = await put_away(proxy, await proxy.client())
    store = proxy.app.store

    async def listed(**_: Any) -> Any:
        return await store.deferrals(workspace_id="a")

    async def refuse(*_: Any, **__: Any) -> None:
        raise StoreFailure("full", "the test says so")

    monkeypatch.setattr(store, "stale", listed)
    monkeypatch.setattr(store, "finish", refuse)
    refused = await admin(proxy, "POST", "/queue/drop-stale", 503)
    assert (refused["dropped"], refused["busy"]) == (0, True)
    monkeypatch.undo()
    assert (await view(proxy, receipt))["status"] in {"queued", "leased"}


# --- looking ---------------------------------------------------------------------------------------------------------


async def test_the_admin_looks_into_all_queues_and_a_reader_may_too(proxy: Harness, nobody: str) -> None:
    for name in ("a", "b"):
        await proxy.enroll(name, url=nobody, **DEFERRING)
    client = await proxy.client()
    receipts = []
    for workspace, message_id in (("a", "m1"), ("b", "m2"), ("a", "m3")):
        got, _ = await proxy.send(workspace, client, message_id=message_id)
        receipts.append(got.headers["Holdfast-Receipt"])
    await admin(proxy, "POST", f"/queue/{receipts[0]}/cancel")
    reader = json.loads((await proxy.call("POST", "/tokens", json={"kind": "read", "name": "r"}))[1])["token"]

    async def listed(query: str, token: str | None = None) -> list[str]:
        more = {"token": token} if token else {}
        return [item["queue_id"] for item in (await admin(proxy, "GET", f"/queue{query}", **more))["items"]]

    newest_first = receipts[::-1]
    assert await listed("") == newest_first
    assert await listed("?status=&workspace_id=") == newest_first
    assert await listed("", reader) == newest_first
    assert await listed("?limit=1") == newest_first[:1]
    assert await listed("?workspace_id=b") == [receipts[1]]
    assert await listed("?status=cancelled") == [receipts[0]]
    assert await listed("?status=queued,leased&workspace_id=a") == [receipts[2]]
    assert await listed("?workspace_id=unknown") == []
    for wrong in ("?status=lost", "?limit=0", "?limit=x", "?limit=1001"):
        await admin(proxy, "GET", f"/queue{wrong}", 400)
    for path in (f"{receipts[1]}/redrive", f"{receipts[1]}/cancel", "drop-stale"):
        got, _ = await proxy.call("POST", f"/queue/{path}", token=reader)
        assert got.status == 403


async def test_scenario_50_a_deferral_is_seen_by_its_caller_its_target_and_the_admin_alone(
    proxy: Harness, agent: ScriptedAgent
) -> None:
    await agent.stop()
    target = await proxy.enroll("a", url=agent.url, **DEFERRING)
    neighbour = await proxy.enroll("b", url=agent.url)
    caller, stranger = await proxy.client("caller"), await proxy.client("stranger")
    secret = {"message_id": "m1", "text": "the secret text"}
    receipt, _ = await put_away(proxy, caller, **secret, headers={"Authorization": f"Bearer {caller}"})
    path = f"/workspaces/a/queue/{receipt}"

    async def looks(token: str | None, path: str) -> tuple[int, bytes]:
        got, body = await proxy.call("GET", path, token=token)
        return got.status, body

    nothing = await looks(caller, "/workspaces/a/queue/nothing")
    assert nothing[0] == 404
    for token in (stranger, neighbour, None, "hf_" + "x" * 43):
        assert await looks(token, path) == nothing
    assert await looks(caller, f"/workspaces/b/queue/{receipt}") == nothing
    for token in (caller, target, None):
        more = {} if token is None else {"token": token}
        got, body = await proxy.call("GET", path, **more)
        said = json.loads(body)
        assert (got.status, said["queue_id"], said["response"]) == (200, receipt, None)
        assert b"secret" not in body
    await agent.start()
    await proxy.until(lambda: bool(proxy.named("deferral.completed")))
    _, body = await proxy.call("GET", path, token=caller)
    assert json.loads(body)["response"]["status"] == 200
    assert b"secret" not in body
    assert (await looks(stranger, path)) == nothing


async def test_the_limit_of_a_caller_s_listing_counts_its_own_only(proxy: Harness, nobody: str) -> None:
    target = await proxy.enroll("a", url=nobody, **DEFERRING)
    mine, theirs = await proxy.client("me"), await proxy.client("them")
    own, _ = await put_away(proxy, mine, message_id="mine")
    others = [(await put_away(proxy, theirs, message_id=f"theirs{number}"))[0] for number in range(3)]

    async def seen(token: str, query: str) -> list[str]:
        got, body = await proxy.call("GET", f"/workspaces/a/queue{query}", token=token)
        assert got.status == 200
        return [item["queue_id"] for item in json.loads(body)["items"]]

    assert await seen(mine, "?limit=1") == [own]
    assert await seen(theirs, "?limit=2") == others[:0:-1]
    assert await seen(target, "") == [*reversed(others), own]
    await admin(proxy, "POST", f"/queue/{own}/cancel")
    assert await seen(mine, "?limit=1&status=cancelled") == [own]
    assert await seen(mine, "?status=queued") == []


# --- repetitions and limits ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("retention", [3600, 0])
async def test_scenario_40_a_completed_deferral_is_joined_unless_its_key_is_free_at_once(
    make: Any, agent: ScriptedAgent, retention: float
) -> None:
    proxy = await make(queue__idempotency_retention=retention)
    await agent.stop()
    await proxy.enroll("a", url=agent.url, **DEFERRING)
    client = await proxy.client()
    receipt, task_id = await put_away(proxy, client, message_id="m1")
    assert await put_away(proxy, client, message_id="m1", rpc_id=2) == (receipt, task_id)
    await agent.start()
    await proxy.until(lambda: bool(proxy.named("deferral.completed")))
    got, said = await proxy.send("a", client, message_id="m1", rpc_id=3)
    assert (got.status, said["id"]) == (200, 3)
    if retention:
        assert (got.headers["Holdfast-Receipt"], said["result"]["task"]["id"]) == (receipt, task_id)
        assert len(agent.seen) == 1
        changed, _ = await proxy.send("a", client, message_id="m1", text="something else")
        assert changed.status == 409
    else:
        assert "Holdfast-Receipt" not in got.headers
        assert len(agent.seen) == 2
        assert route(proxy).keys == {}


async def test_one_caller_has_no_more_in_a_queue_than_its_share(make: Any, nobody: str) -> None:
    proxy = await make(queue__caller_rows=2)
    for name in ("a", "b"):
        await proxy.enroll(name, url=nobody, **DEFERRING)
    greedy, other = await proxy.client("greedy"), await proxy.client("other")
    first, _ = await put_away(proxy, greedy, message_id="m1")
    await put_away(proxy, greedy, message_id="m2")
    got, said = await proxy.send("a", greedy, message_id="m3")
    facts = said["error"]["data"][0]["metadata"]
    assert (got.status, got.headers["Retry-After"]) == (429, "30")
    assert (facts["queue_full"], facts["kind"], facts["queue_depth"]) == ("true", "peer", "2")
    got, body = await proxy.call("POST", "/workspaces/a/a2a/hook", token=greedy, data=b"x")
    assert got.status == 429
    plain = json.loads(body)
    assert (plain["queue_full"], plain["kind"], plain["queue_depth"]) == (True, "peer", 2)
    assert "caller" in plain["error"]

    again, _ = await put_away(proxy, greedy, message_id="m1")
    assert again == first, "a repetition takes no room"
    await put_away(proxy, other, message_id="m3")
    assert (await proxy.send("b", greedy, message_id="m3"))[0].status == 202
    await admin(proxy, "POST", f"/queue/{first}/cancel")
    await put_away(proxy, greedy, message_id="m3")
    states = [row.state for row in await proxy.app.store.deferrals(workspace_id="a")]
    assert sum(state in {State.QUEUED, State.LEASED} for state in states) == route(proxy).size.rows == 3
