"""The credentials of a deferred request: sealed on disk, handed to the agent, gone at the end."""

import json
import sqlite3

import pytest
from aiohttp import web
from web.harness import V1, Harness, ScriptedAgent, get_task, send

SECRET = "Bearer agent-secret-0123456789"


def on_disk(proxy: Harness) -> bytes:
    """Everything in the database's files."""
    files = proxy.config.data.parent.glob("holdfast.db*")
    return b"".join(file.read_bytes() for file in files if file.is_file())


async def test_a_deferred_requests_credentials_are_sealed_used_and_dropped(
    proxy: Harness, agent: ScriptedAgent
) -> None:
    await agent.stop()
    await proxy.enroll("a", url=agent.url, unmanaged_away="defer")
    headers = {**V1, "Holdfast-Token": await proxy.client(), "Authorization": SECRET, "X-Api-Key": "key-0123456789"}
    got, _ = await proxy.call("POST", "/workspaces/a/a2a", token=None, headers=headers, json=send())
    assert got.status == 202
    assert SECRET.encode() not in on_disk(proxy)
    assert b"key-0123456789" not in on_disk(proxy)
    await proxy.restart()
    await agent.start()
    await proxy.until(lambda: bool(proxy.named("deferral.completed")))
    _, _, seen, _ = agent.seen[0]
    assert (seen["Authorization"], seen["X-Api-Key"]) == (SECRET, "key-0123456789")
    with sqlite3.connect(proxy.config.data) as database:
        (left,) = database.execute("SELECT count(*) FROM requests WHERE credentials IS NOT NULL").fetchone()
    assert left == 0


@pytest.mark.parametrize("told", ["registered", "seen"])
async def test_a_header_that_the_card_makes_a_credential_is_sealed_too(
    proxy: Harness, agent: ScriptedAgent, told: str
) -> None:
    schemes = {"key": {"apiKeySecurityScheme": {"location": "header", "name": "X-House-Key"}}}
    card = {"name": "a", "skills": [], "url": agent.url, "securitySchemes": schemes}
    if told == "registered":
        await proxy.enroll("a", url=agent.url, unmanaged_away="defer", agent_card=card)
    else:
        agent.card = card
        await proxy.enroll("a", url=agent.url, unmanaged_away="defer")
        await proxy.call("GET", "/workspaces/a/a2a/.well-known/agent-card.json")
    await agent.stop()
    headers = {**V1, "X-House-Key": "key-0123456789"}
    got, _ = await proxy.call("POST", "/workspaces/a/a2a", headers=headers, json=send())
    assert got.status == 202
    assert b"key-0123456789" not in on_disk(proxy)
    await agent.start()
    await proxy.until(lambda: bool(proxy.named("deferral.completed")))
    assert agent.seen[0][2]["X-House-Key"] == "key-0123456789"


async def test_a_replay_that_the_agent_refuses_to_admit_fails_the_task_and_says_so(
    proxy: Harness, agent: ScriptedAgent
) -> None:
    await agent.stop()
    await proxy.enroll("a", url=agent.url, unmanaged_away="defer")
    client = await proxy.client()
    _, said = await proxy.send("a", client)

    async def refuse(_: web.Request) -> web.Response:
        return web.Response(status=401, text="who are you?")

    agent.handler = refuse
    await agent.start()
    await proxy.until(lambda: bool(proxy.named("deferral.completed")))
    task = get_task(said["result"]["task"]["id"])
    _, body = await proxy.call("POST", "/workspaces/a/a2a", token=client, headers=V1, json=task)
    status = json.loads(body)["result"]["status"]
    assert status["state"] == "TASK_STATE_FAILED"
    assert "HTTP 401" in status["message"]["parts"][0]["text"]


async def test_a_key_that_is_gone_fails_the_task_instead_of_sending_it_bare(
    proxy: Harness, agent: ScriptedAgent
) -> None:
    await agent.stop()
    await proxy.enroll("a", url=agent.url, unmanaged_away="defer")
    headers = {**V1, "Holdfast-Token": await proxy.client(), "Authorization": SECRET}
    await proxy.call("POST", "/workspaces/a/a2a", token=None, headers=headers, json=send())
    await proxy.app.stop(drain=0)
    proxy.config.vault_key_file.write_text("00" * 32 + "\n")
    await proxy.start()
    await agent.start()
    await proxy.until(lambda: bool(proxy.named("deferral.dead_lettered")))
    assert agent.seen == []
