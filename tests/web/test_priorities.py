"""Which deferral goes first when a workspace is back, and who may say so."""

import json

import pytest
from web.compute import host, hosted
from web.harness import V1, Harness, ScriptedAgent, send

WAITS = {"unmanaged_away": "defer", "max_concurrent": 1}


def heard(agent: ScriptedAgent) -> list[str]:
    """The messages that reached an agent, in order."""
    return [json.loads(body)["params"]["message"]["messageId"] for _, _, _, body in agent.seen]


async def test_scenario_41_between_contexts_the_higher_priority_goes_first_and_then_the_older(
    proxy: Harness, agent: ScriptedAgent
) -> None:
    compute = host(proxy)
    await hosted(proxy, compute, agent.url, max_concurrent=1)
    assert (await proxy.call("POST", "/workspaces/a/restart"))[0].status == 202  # so that nobody dials it meanwhile
    for context, message_id, priority in [
        ("one", "1 info", "info"),
        ("two", "2 task", "task"),
        ("three", "3 unsaid", None),
        ("four", "4 critical", "critical"),
        ("two", "5 critical behind 2", "critical"),  # in order, but its context has its priority
        ("five", "6 critical", "Critical"),
        ("one", "7 task behind 1", "task"),
    ]:
        headers = {**V1, **({"Holdfast-Priority": priority} if priority else {})}
        body = send(message_id, contextId=context)
        got, _ = await proxy.call("POST", "/workspaces/a/a2a", headers=headers, json=body)
        assert got.status == 202
    assert agent.seen == []
    compute.starts.set()
    await proxy.until(lambda: len(proxy.named("deferral.completed")) == 7)
    assert heard(agent) == [
        "2 task",
        "4 critical",
        "5 critical behind 2",
        "6 critical",
        "1 info",
        "3 unsaid",
        "7 task behind 1",
    ]


@pytest.mark.parametrize(
    ("priority", "status", "reason"),
    [
        ("critical", 403, "FORBIDDEN"),
        ("urgent", 400, "BAD_PRIORITY"),
        ("", 400, "BAD_PRIORITY"),
        ("100", 400, "BAD_PRIORITY"),
    ],
)
async def test_a_priority_that_a_caller_may_not_give_is_refused_and_nothing_is_stored(
    proxy: Harness, nobody: str, priority: str, status: int, reason: str
) -> None:
    await proxy.enroll("a", url=nobody, **WAITS)
    client = await proxy.client()
    got, said = await proxy.send("a", client, headers={"Holdfast-Priority": priority})
    assert (got.status, said["error"]["data"][0]["reason"]) == (status, reason)
    assert await proxy.app.store.deferrals(workspace_id="a") == []
    assert (await proxy.send("a", client, headers={"Holdfast-Priority": " TASK "}))[0].status == 202


async def test_a_healthy_agent_is_called_whatever_priority_is_given(proxy: Harness, agent: ScriptedAgent) -> None:
    """Only what waits has a place among others; the header goes no further than the proxy."""
    await proxy.enroll("a", url=agent.url)
    got, _ = await proxy.send("a", await proxy.client(), headers={"Holdfast-Priority": "critical"})
    assert got.status == 200
    assert not [name for name in agent.seen[0][2] if name.lower() == "holdfast-priority"]
