"""Explanations: who hears which, what is never in one, how lines are found, and how many are kept."""

import json
from typing import Any

import pytest
from web.compute import UNHURRIED, host, hosted, status
from web.explaining import ID, RECEIPT, ask, in_this_order, just_restarted, story
from web.harness import V1, Harness, ScriptedAgent, get_task, send

from proxy.core.evidence import ProbeState
from proxy.core.lifecycle import Status
from proxy.store import StoreFailure


@pytest.fixture
async def restarted(proxy: Harness, agent: ScriptedAgent) -> tuple[str, str]:
    return await just_restarted(proxy, agent)


# --- who may ask -----------------------------------------------------------------------------------------------------


async def test_a_story_is_hidden_from_strangers_and_a_caller_hears_of_its_own_request_alone(
    proxy: Harness, restarted: tuple[str, str]
) -> None:
    client, stranger = restarted[1], await proxy.client("stranger")
    reader = json.loads((await proxy.call("POST", "/tokens", json={"kind": "read", "name": "r"}))[1])["token"]
    itself = json.loads((await proxy.call("POST", "/tokens", json={"kind": "workspace", "name": "a"}))[1])["token"]
    await proxy.enroll("b", url="http://127.0.0.1:9")
    other = json.loads((await proxy.call("POST", "/tokens", json={"kind": "workspace", "name": "b"}))[1])["token"]
    got, _ = await proxy.send("a", client)
    refused, _ = await proxy.call(
        "POST", "/workspaces/a/a2a", token=client, headers=V1, json=send(parts=[{"text": "else"}])
    )
    assert refused.status == 409
    nothing = (await ask(proxy, "0" * 32, token=stranger))[1]["error"]
    for subject in (got.headers[ID], got.headers[RECEIPT], refused.headers[ID], "a", "a/restarts/2"):
        for token in (stranger, other):
            code, said = await ask(proxy, subject, token=token)
            assert code == 404
            assert said["error"] == nothing.replace("0" * 32, subject)
        assert (await ask(proxy, subject, token=None))[0] == 401
        for token in (reader, itself):
            assert (await ask(proxy, subject, token=token))[0] == 200
    for subject in ("a", "a/restarts/2"):
        assert (await ask(proxy, subject, token=client))[0] == 404
    for subject in (got.headers[ID], got.headers[RECEIPT], refused.headers[ID]):
        code, told = await ask(proxy, subject, token=client)
        assert code == 200
        assert all(event["own"] for event in told["timeline"])
        assert "new weights" not in json.dumps(told)
    assert "409 IDEMPOTENCY_CONFLICT" in (await ask(proxy, refused.headers[ID], token=client))[1]["summary"]


@pytest.mark.parametrize("path", ["/decisions", "/workspaces/a/restarts", "/workspaces/a/restarts/1"])
async def test_lines_and_restarts_are_for_the_admin_readers_and_the_workspace_itself(
    proxy: Harness, restarted: tuple[str, str], path: str
) -> None:
    itself = json.loads((await proxy.call("POST", "/tokens", json={"kind": "workspace", "name": "a"}))[1])["token"]
    reader = json.loads((await proxy.call("POST", "/tokens", json={"kind": "read", "name": "r"}))[1])["token"]
    assert (await proxy.call("GET", path, token=reader))[0].status == 200
    assert (await proxy.call("GET", path, token=itself))[0].status == (403 if path == "/decisions" else 200)
    assert (await proxy.call("GET", path, token=restarted[1]))[0].status == (403 if path == "/decisions" else 404)


async def test_no_body_no_header_and_no_secret_is_in_any_explanation(make: Any, agent: ScriptedAgent) -> None:
    proxy = await make(**UNHURRIED)
    await agent.stop()
    secret = "sEcReT-in-it"
    url = f"http://user:{secret}-url@127.0.0.1:{agent.port}/{secret}-path?key={secret}-query"
    await proxy.enroll("a", url=url.replace(f"user:{secret}-url@", ""), unmanaged_away="defer", dead_action="defer")
    client = await proxy.client()
    headers = {"Authorization": f"Bearer {secret}", "X-Api-Key": secret, "Cookie": f"s={secret}"}
    got, _ = await proxy.call(
        "POST",
        f"/workspaces/a/a2a?key={secret}",
        token=None,
        headers={**V1, **headers, "Holdfast-Token": client},
        json=send(text=secret),
    )
    assert got.status == 202
    asked, _ = await proxy.call("POST", "/workspaces/a/a2a", token=client, headers=V1, json=get_task(secret))
    said = []
    for subject in ("a", got.headers[ID], got.headers[RECEIPT], asked.headers[ID]):
        code, told = await ask(proxy, subject)
        said.append(told)
        assert code == 200, told
    said.append(json.loads((await proxy.call("GET", "/decisions"))[1]))
    assert secret not in json.dumps(said)
    assert client not in json.dumps(said)
    assert "hf_" not in json.dumps(said)


# --- subjects, filters, pages ----------------------------------------------------------------------------------------


async def test_a_workspace_that_has_the_id_of_a_receipt_is_meant_first_and_the_other_is_named(
    proxy: Harness, restarted: tuple[str, str]
) -> None:
    got, _ = await proxy.send("a", restarted[1])
    receipt = got.headers[RECEIPT]
    await proxy.enroll(receipt, url="http://127.0.0.1:9")
    told = await story(proxy, receipt)
    assert (told["kind"], told["also"]) == ("workspace", ["receipt"])
    assert (await story(proxy, receipt, kind="receipt"))["workspace_id"] == "a"
    assert (await ask(proxy, receipt, kind="request"))[0] == 404


@pytest.mark.parametrize(
    ("subject", "query", "code"),
    [
        ("nobody", {}, 404),
        ("a/restarts/99", {}, 404),
        ("a/restarts/x", {}, 404),
        ("a%23" + "9" * 30, {}, 404),
        ("%00%ff", {}, 404),
        ("a b", {}, 404),
        ("a", {"kind": "elephant"}, 400),
        ("a", {"limit": "0"}, 400),
    ],
)
async def test_what_cannot_be_explained_is_said_clearly(
    proxy: Harness, restarted: tuple[str, str], subject: str, query: dict[str, str], code: int
) -> None:
    found, said = await ask(proxy, subject, **query)
    assert (found, bool(said["error"])) == (code, True)


async def decisions(proxy: Harness, **query: Any) -> tuple[int, Any]:
    got, body = await proxy.call("GET", "/decisions", params=query)
    return got.status, json.loads(body)


async def test_lines_are_found_by_what_they_are_about(proxy: Harness, restarted: tuple[str, str]) -> None:
    got, _ = await proxy.send("a", restarted[1])
    await proxy.until(lambda: bool(proxy.named("deferral.returned")))
    _, said = await decisions(proxy, request_id=got.headers[ID])
    assert {line["request_id"] for line in said["decisions"]} == {got.headers[ID]}
    assert said["decisions"][-1]["action"] == "none"
    _, said = await decisions(proxy, receipt=got.headers[RECEIPT], workspace_id="a", generation=2)
    assert {line["receipt"] for line in said["decisions"]} == {got.headers[RECEIPT]}
    _, said = await decisions(proxy, workspace_id="a", generation=0)
    assert [line["action"] for line in said["decisions"]] == ["created"]
    _, whole = await decisions(proxy, workspace_id="a", generation=1)
    ids, before = [], None
    while True:
        _, page = await decisions(
            proxy, workspace_id="a", generation=1, limit=2, **({"before": before} if before else {})
        )
        ids += [line["id"] for line in page["decisions"]]
        before = page["before"]
        if before is None:
            break
    assert ids == [line["id"] for line in whole["decisions"]]
    assert len(ids) > 2


@pytest.mark.parametrize(
    "query", [{"generation": "1"}, {"before": "-1"}, {"before": "x"}, {"request": "r"}, {"limit": "1001"}]
)
async def test_a_filter_that_cannot_be_shows_nothing(proxy: Harness, query: dict[str, str]) -> None:
    code, said = await decisions(proxy, **query)
    assert (code, "decisions" in said) == (400, False)


# --- notes -----------------------------------------------------------------------------------------------------------


async def test_refusals_are_noted_in_bounds_and_the_rest_is_counted(make: Any, agent: ScriptedAgent) -> None:
    proxy = await make(decisions__notes=5, decisions__write=60, **UNHURRIED)
    compute = host(proxy)
    await hosted(proxy, compute, agent.url, policy={"recent_heartbeat": 0, "restart_debounce": 3600})
    compute.says = ProbeState.NOT_RUNNING
    await agent.stop()
    client = await proxy.client()
    for number in range(8):
        assert (await proxy.send("a", client, message_id=f"m{number}"))[0].status == 503
    _, said = await decisions(proxy, workspace_id="a")
    actions = [line["action"] for line in said["decisions"]]
    assert actions.count("refused") == 5
    assert [line["evidence"] for line in said["decisions"] if line["action"] == "not noted"] == [{"count": 3}]
    in_this_order(await story(proxy, "a"), "3 more requests were refused or repeated: so many")


async def test_tries_that_go_on_failing_the_same_way_leave_fewer_and_fewer_lines_and_are_all_told(
    proxy: Harness, restarted: tuple[str, str]
) -> None:
    got, _ = await proxy.send("a", restarted[1])
    receipt = got.headers[RECEIPT]

    async def tried_often() -> bool:
        deferral = await proxy.app.store.deferral(receipt)
        return deferral is not None and deferral.tries >= 17

    await proxy.until(tried_often)
    _, said = await decisions(proxy, receipt=receipt)
    begun = [line["evidence"]["try"] for line in said["decisions"] if line["action"] == "leased"]
    assert begun[::-1][:7] == [1, 2, 3, 4, 5, 8, 16]
    ended = [line["evidence"]["try"] for line in said["decisions"] if line["action"] == "queued again"]
    assert ended[::-1][:7] == [1, 2, 3, 4, 5, 8, 16]
    _, said = await decisions(proxy, request_id=got.headers[ID])
    judged = [line for line in said["decisions"] if line["action"] == "none"]
    assert [line["trigger"] for line in judged] == ["forward"], "the same verdict is not written again for each try"
    told = await story(proxy, receipt)
    folded = next(event for event in told["timeline"] if event["count"] > 1)
    assert (folded["count"], folded["what"]) == (15, "15 more tries went the same way")


async def test_a_store_that_fails_loses_no_note_and_refuses_no_answer(make: Any, agent: ScriptedAgent) -> None:
    proxy = await make(decisions__write=60, **UNHURRIED)
    compute = host(proxy)
    await hosted(proxy, compute, agent.url, policy={"recent_heartbeat": 0, "restart_debounce": 3600})
    compute.says = ProbeState.NOT_RUNNING
    await agent.stop()
    client = await proxy.client()
    first, _ = await proxy.send("a", client, message_id="m1")
    log = proxy.app.store.log

    async def full(_: Any) -> None:
        raise StoreFailure("full", "no room")

    proxy.app.store.log = full  # type: ignore[method-assign]  # the disk is full for a while
    assert (await ask(proxy, "a"))[0] == 200
    second, _ = await proxy.send("a", client, message_id="m2")
    assert second.status == 503
    proxy.app.store.log = log  # type: ignore[method-assign]  # there is room again
    for got in (first, second):
        assert "503 WORKSPACE_DEAD" in (await story(proxy, got.headers[ID]))["summary"]
    assert status(proxy) is Status.OFFLINE
