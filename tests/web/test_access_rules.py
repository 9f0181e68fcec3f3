"""Who may call whom, over the wire: the tree, the lists, and what a refused caller is told."""

import json
from typing import Any

import pytest
from web.harness import V1, Harness, ScriptedAgent, send

from proxy.core import a2a

TREE = {"acme": None, "sales": "acme", "writer": "sales", "reader": "sales", "globex": None, "miner": "globex"}
CALL = "/workspaces/{}/a2a"
REFUSED = "this token may not call this workspace"


async def grown(proxy: Harness, url: str) -> dict[str, str]:
    """Enroll the tree; returns the tokens by workspace."""
    return {
        name: await proxy.enroll(name, url=url, **({"parent": parent} if parent else {}))
        for name, parent in TREE.items()
    }


@pytest.fixture
async def tree(make: Any) -> Harness:
    proxy: Harness = await make(access__rule="hierarchy")
    return proxy


@pytest.mark.parametrize("rule", ["any", "hierarchy", "list"])
async def test_scenario_27_each_rule_lets_in_whom_it_says(make: Any, agent: ScriptedAgent, rule: str) -> None:
    proxy = await make(access__rule=rule)
    tokens = await grown(proxy, agent.url)
    related = {("writer", "reader"), ("writer", "acme"), ("acme", "writer"), ("acme", "globex")}
    others = {("writer", "writer"), ("writer", "miner"), ("writer", "globex"), ("acme", "miner")}
    for caller, target in related | others:
        allowed = rule == "any" or caller == target or (rule == "hierarchy" and (caller, target) in related)
        agent.seen.clear()
        got, _ = await proxy.send(target, tokens[caller])
        assert (caller, target, got.status) == (caller, target, 200 if allowed else 403)
        assert len(agent.seen) == allowed


async def test_scenario_27_a_parent_that_there_is_not_denies(tree: Harness, agent: ScriptedAgent) -> None:
    lost = await tree.enroll("lost", url=agent.url, parent="gone")
    await tree.enroll("root", url=agent.url)
    got, _ = await tree.send("root", lost)
    assert got.status == 403
    assert agent.seen == []
    assert [event.rule for event in tree.named("auth.refused")] == ["unknown_parent"]


async def test_the_tree_is_followed_as_it_is_now(tree: Harness, agent: ScriptedAgent) -> None:
    tokens = await grown(tree, agent.url)
    assert (await tree.send("miner", tokens["writer"]))[0].status == 403
    await tree.call("PUT", "/workspaces/globex", json={"parent": "acme"})
    await tree.call("PUT", "/workspaces/writer", json={"parent": "globex"})
    assert (await tree.send("miner", tokens["writer"]))[0].status == 200
    got, body = await tree.call("PUT", "/workspaces/writer", json={"parent": None})
    assert (got.status, json.loads(body)["parent"]) == (200, None)
    assert (await tree.send("miner", tokens["writer"]))[0].status == 403
    await tree.restart()
    assert (await tree.send("miner", tokens["writer"]))[0].status == 403
    assert (await tree.send("acme", tokens["writer"]))[0].status == 200


async def test_a_parent_that_would_close_a_circle_is_refused(tree: Harness, agent: ScriptedAgent) -> None:
    await grown(tree, agent.url)
    for parent in ("acme", "writer"):
        got, body = await tree.call("PUT", "/workspaces/acme", json={"parent": parent})
        assert got.status == 400, body
    got, body = await tree.call("GET", "/workspaces/acme")
    assert json.loads(body)["parent"] is None


async def test_clients_and_the_admin_stand_outside_of_the_tree(tree: Harness, agent: ScriptedAgent) -> None:
    await grown(tree, agent.url)
    for token in (await tree.client(), tree.config.admin_token or ""):
        assert (await tree.send("writer", token))[0].status == 200


async def test_a_list_lets_in_whom_it_names_and_nobody_else(make: Any, agent: ScriptedAgent) -> None:
    proxy = await make(access__rule="list", access__allow_from="reader")
    tokens = await grown(proxy, agent.url)
    tokens["client:ci"], tokens["client:other"] = await proxy.client("ci"), await proxy.client("other")

    async def let_in() -> set[str]:
        return {name for name, token in tokens.items() if (await proxy.send("writer", token))[0].status == 200}

    assert await let_in() == {"writer", "reader"}
    got, body = await proxy.call("PUT", "/workspaces/writer", json={"allow_from": ["client:ci", "miner"]})
    assert (got.status, json.loads(body)["allow_from"]) == (200, ["client:ci", "miner"])
    assert await let_in() == {"writer", "client:ci", "miner"}
    await proxy.call("PUT", "/workspaces/writer", json={"allow_from": []})
    assert await let_in() == {"writer"}
    await proxy.call("PUT", "/workspaces/writer", json={"allow_from": ["*"]})
    assert await let_in() == set(tokens)
    await proxy.restart()
    assert await let_in() == set(tokens)
    await proxy.call("PUT", "/workspaces/writer", json={"allow_from": None})
    assert await let_in() == {"writer", "reader"}


async def test_a_list_adds_to_the_tree(tree: Harness, agent: ScriptedAgent) -> None:
    tokens = await grown(tree, agent.url)
    await tree.call("PUT", "/workspaces/writer", json={"allow_from": ["miner"]})
    assert (await tree.send("writer", tokens["miner"]))[0].status == 200
    assert (await tree.send("miner", tokens["writer"]))[0].status == 403
    assert (await tree.send("writer", tokens["acme"]))[0].status == 200


async def test_who_may_call_is_the_admins_to_say(tree: Harness, agent: ScriptedAgent) -> None:
    tokens = await grown(tree, agent.url)
    for member in ({"allow_from": ["*"]}, {"allow_from": None}, {"parent": "miner"}, {"parent": None}):
        got, _ = await tree.call("PUT", "/workspaces/writer", token=tokens["writer"], json=member)
        assert got.status == 403
    for wrong in (["client:"], ["a b"], "*", [1], ["system:x"]):
        got, body = await tree.call("PUT", "/workspaces/writer", json={"allow_from": wrong})
        assert (got.status, b"allow_from" in body) == (400, True)
    got, body = await tree.call("GET", "/workspaces/writer")
    assert json.loads(body)["allow_from"] is None


async def test_a_list_that_nobody_reads_is_told_of(proxy: Harness, agent: ScriptedAgent) -> None:
    await proxy.enroll("a", url=agent.url, allow_from=["client:ci"])
    warned = [event for event in proxy.named("config.warning") if event.workspace == "a"]
    assert "access.rule" in str(warned[0].fields["warning"])


async def test_a_refusal_is_in_the_callers_binding_and_says_nothing_of_its_cause(
    tree: Harness, agent: ScriptedAgent
) -> None:
    tokens = await grown(tree, agent.url)
    lost = await tree.enroll("lost", url=agent.url, parent="gone")
    bodies = set()
    for caller, target in ((tokens["writer"], "miner"), (tokens["acme"], "miner"), (lost, "acme")):
        got, said = await tree.call("POST", CALL.format(target), token=caller, headers=V1, json=send(rpc_id="mine"))
        assert got.status == 403
        assert got.headers["Holdfast-Request-Id"]
        bodies.add(said)
    assert len(bodies) == 1
    answer = json.loads(bodies.pop())
    assert (answer["jsonrpc"], answer["id"], answer["error"]["message"]) == ("2.0", "mine", REFUSED)
    assert answer["error"]["data"][0]["reason"] == "FORBIDDEN"
    got, said = await tree.call("POST", CALL.format("miner") + "/message:send", token=lost, headers=V1, json=send())
    assert (got.status, json.loads(said)["error"]["status"]) == (403, "PERMISSION_DENIED")
    got, said = await tree.call("GET", CALL.format("miner") + "/some/page", token=lost)
    assert (got.status, json.loads(said)) == (403, {"error": REFUSED})
    assert agent.seen == []


async def test_what_a_refused_body_says_does_not_matter(tree: Harness, agent: ScriptedAgent) -> None:
    tokens = await grown(tree, agent.url)
    for body in (b"", b"{", b"x" * 1000, b'{"jsonrpc":"2.0","id":1,"method":"GetTask","params":{"id":"%s"}}' % b"t"):
        got, _ = await tree.call("POST", CALL.format("miner"), token=tokens["writer"], headers=V1, data=body)
        assert got.status == 403
    await tree.call("DELETE", "/workspaces/miner")
    got, _ = await tree.call("POST", CALL.format("miner"), token=tokens["writer"], headers=V1, data=b"{")
    assert got.status == 404
    assert agent.seen == []


async def test_a_refusal_is_an_event_with_its_rule_and_without_secrets(tree: Harness, agent: ScriptedAgent) -> None:
    tokens = await grown(tree, agent.url)
    got, _ = await tree.send("miner", tokens["writer"])
    event = tree.named("auth.refused")[0]
    assert (event.workspace, event.rule, event.fields["caller"]) == ("miner", "unrelated", "workspace:writer")
    assert event.request_id == got.headers["Holdfast-Request-Id"]
    assert "hf_" not in json.dumps(event.as_dict(), default=str)


async def test_who_lost_his_access_still_reads_what_he_left_and_others_do_not(
    make: Any, agent: ScriptedAgent, nobody: str
) -> None:
    proxy = await make(access__rule="list", defaults__dead_action="defer")
    await proxy.enroll("a", url=nobody, unmanaged_away="defer", allow_from=["client:one", "client:two"])
    one, two = await proxy.client("one"), await proxy.client("two")
    got, said = await proxy.send("a", one)
    assert got.status == 202
    receipt, task = got.headers["Location"], said["result"]["task"]["id"]
    assert a2a.is_provisional(task)
    read = {"jsonrpc": "2.0", "id": 1, "method": "GetTask", "params": {"id": task}}
    for token, status, code in ((one, 200, None), (two, 200, -32001)):
        got, body = await proxy.call("POST", CALL.format("a"), token=token, headers=V1, json=read)
        assert (got.status, json.loads(body).get("error", {}).get("code")) == (status, code)
    await proxy.call("PUT", "/workspaces/a", json={"allow_from": ["client:two"]})
    got, _ = await proxy.call("POST", CALL.format("a"), token=one, headers=V1, json=read)
    assert got.status == 403
    assert [(await proxy.call("GET", receipt, token=token))[0].status for token in (one, two)] == [200, 404]


async def test_without_authentication_a_claim_is_believed_and_held_to_the_rule(make: Any, agent: ScriptedAgent) -> None:
    proxy = await make(dev=True, access__rule="hierarchy")
    await grown(proxy, agent.url)
    for claim, status in ({}, 200), ({"X-Workspace-ID": "reader"}, 200), ({"X-Workspace-ID": "miner"}, 403):
        got, _ = await proxy.call("POST", CALL.format("writer"), token=None, headers={**V1, **claim}, json=send())
        assert got.status == status
