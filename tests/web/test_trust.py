"""Who may call, who may see, and what is refused at the door."""

import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from web.harness import V1, Harness, ScriptedAgent, config_for, send

CALL = "/workspaces/a/a2a"


def reason(body: bytes) -> str:
    """The machine-readable reason of an error in JSON-RPC."""
    return str(json.loads(body)["error"]["data"][0]["reason"])


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer hf_" + "x" * 43},
        {"Holdfast-Token": "hf_" + "x" * 43},
        {"Holdfast-Token": "nonsense"},
        {"Authorization": "Basic abc"},
    ],
)
async def test_every_bad_credential_gets_the_same_401(
    proxy: Harness, agent: ScriptedAgent, headers: dict[str, str]
) -> None:
    await proxy.enroll("a", url=agent.url)
    got, body = await proxy.call("POST", CALL, token=None, headers={**V1, **headers}, json=send())
    assert got.status == 401
    assert json.loads(body)["error"]["message"] == "a valid Holdfast token is required"
    assert agent.seen == []


@pytest.mark.parametrize("claim", ["system:x", "webhook:x", "test:x", "channel:x", "SYSTEM:x"])
async def test_scenario_25_a_reserved_caller_claim_is_403(proxy: Harness, agent: ScriptedAgent, claim: str) -> None:
    await proxy.enroll("a", url=agent.url)
    got, body = await proxy.call("POST", CALL, headers={**V1, "X-Workspace-ID": claim}, json=send())
    assert got.status == 403
    assert reason(body) == "INVALID_CALLER"
    assert agent.seen == []


async def test_scenario_26_a_token_speaks_for_its_owner_alone(proxy: Harness, agent: ScriptedAgent) -> None:
    await proxy.enroll("a", url=agent.url)
    token_of_b = await proxy.enroll("b", url=agent.url)
    got, _ = await proxy.call("POST", CALL, token=token_of_b, headers={**V1, "X-Workspace-ID": "c"}, json=send())
    assert got.status == 403
    got, _ = await proxy.call("POST", CALL, token=token_of_b, headers={**V1, "X-Workspace-ID": "b"}, json=send())
    assert got.status == 200
    assert len(agent.seen) == 1


async def test_tokens_never_reach_the_agent_and_its_own_credentials_do(proxy: Harness, agent: ScriptedAgent) -> None:
    await proxy.enroll("a", url=agent.url)
    client = await proxy.client()
    await proxy.call(
        "POST",
        CALL,
        token=None,
        headers={**V1, "Holdfast-Token": client, "Authorization": "Bearer for-the-agent"},
        json=send("m1"),
    )
    await proxy.call("POST", CALL, token=client, headers=V1, json=send("m2"))
    first, second = (headers for _, _, headers, _ in agent.seen)
    assert first["Authorization"] == "Bearer for-the-agent"
    assert "Authorization" not in second
    assert not any("hf_" in value for headers in (first, second) for value in headers.values())
    assert first["Holdfast-Request-Id"] != second["Holdfast-Request-Id"]


@pytest.mark.parametrize("other", ["hf_" + "x" * 43, "hf_", "of-another-client"])
async def test_holdfast_token_counts_alone_and_a_token_beside_it_goes_nowhere(
    proxy: Harness, agent: ScriptedAgent, other: str
) -> None:
    await proxy.enroll("a", url=agent.url)
    client = await proxy.client()
    bearer = await proxy.client("another") if other == "of-another-client" else other
    got, _ = await proxy.call(
        "POST",
        CALL,
        token=None,
        headers={**V1, "Holdfast-Token": client, "Authorization": f"Bearer {bearer}"},
        json=send(),
    )
    assert got.status == 200
    assert "hf_" not in str(agent.seen[0][2])
    got, _ = await proxy.call(
        "POST",
        CALL,
        token=None,
        headers={**V1, "Holdfast-Token": "hf_" + "y" * 43, "Authorization": f"Bearer {client}"},
        json=send("m2"),
    )
    assert got.status == 401


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest/meta-data",
        "http://[fe80::1]:80",
        "http://10.0.0.1:80",
        "http://0177.0.0.1/",
        "ftp://127.0.0.1/",
        "http://user:secret@127.0.0.1/",
        "http:///nohost",
        "not a url",
    ],
)
async def test_scenario_29_an_unsafe_url_is_refused_when_it_is_registered(proxy: Harness, url: str) -> None:
    got, body = await proxy.call("PUT", "/workspaces/a", json={"url": url})
    assert got.status == 400, body
    assert "secret" not in body.decode()
    got, _ = await proxy.call("GET", "/workspaces/a")
    assert got.status == 404


async def test_scenario_29_a_redirect_is_passed_on_and_never_followed(proxy: Harness, agent: ScriptedAgent) -> None:
    from aiohttp import web  # noqa: PLC0415 - one use

    async def elsewhere(_: web.Request) -> web.Response:
        return web.Response(status=307, headers={"Location": "http://169.254.169.254/"})

    agent.handler = elsewhere
    await proxy.enroll("a", url=agent.url)
    got, _ = await proxy.call("POST", CALL, headers=V1, json=send(), allow_redirects=False)
    assert (got.status, got.headers["Location"]) == (307, "http://169.254.169.254/")
    assert len(agent.seen) == 1


async def test_scenario_38_an_oversize_body_is_413_and_never_truncated(make: Any, agent: ScriptedAgent) -> None:
    proxy = await make(server__body_limit=1000)
    await proxy.enroll("a", url=agent.url)
    for data in (b"x" * 1001, _chunks()):
        got, body = await proxy.call("POST", CALL, headers=V1, data=data)
        assert got.status == 413
        assert json.loads(body)["max_bytes"] == 1000
    assert agent.seen == []
    got, _ = await proxy.call("POST", CALL, headers=V1, data=b"x" * 1000)
    assert agent.seen[0][3] == b"x" * 1000


async def _chunks() -> Any:
    for _ in range(11):
        yield b"x" * 100


async def test_a_workspace_changes_its_own_address_and_nothing_that_is_the_admins(proxy: Harness, nobody: str) -> None:
    token = await proxy.enroll("a", url=nobody)
    got, _ = await proxy.call("PUT", "/workspaces/a", token=token, json={"url": nobody, "boot_id": "b1"})
    assert got.status == 200
    for member in ({"runtime": {"type": "process", "command": ["x"]}}, {"dead_action": "defer"}, {"parent": "b"}):
        got, body = await proxy.call("PUT", "/workspaces/a", token=token, json=member)
        assert got.status == 403
        assert next(iter(member)) in json.loads(body)["error"]


async def test_a_join_token_creates_and_changes_nothing(make: Any, nobody: str) -> None:
    join = "hf_" + "j" * 43
    proxy = await make(join_token=join)
    got, _ = await proxy.call("PUT", "/workspaces/new", token=join, json={"url": nobody})
    assert got.status == 201
    got, _ = await proxy.call("PUT", "/workspaces/new", token=join, json={"url": nobody})
    assert got.status == 403
    got, _ = await proxy.call("POST", "/workspaces/new/a2a", token=join, json=send())
    assert got.status == 403


async def test_strangers_cannot_tell_a_hidden_workspace_from_an_unknown_one(proxy: Harness, nobody: str) -> None:
    await proxy.enroll("a", url=nobody)
    client = await proxy.client()
    hidden, unknown = [await proxy.call("GET", f"/workspaces/{name}", token=client) for name in ("a", "zz")]
    assert hidden[0].status == unknown[0].status == 404
    assert hidden[1].replace(b" a", b" ?") == unknown[1].replace(b" zz", b" ?")


async def test_a_removed_workspaces_token_is_dead_and_only_the_admin_brings_it_back(
    proxy: Harness, nobody: str
) -> None:
    token = await proxy.enroll("a", url=nobody)
    got, _ = await proxy.call("DELETE", "/workspaces/a")
    assert got.status == 200
    got, _ = await proxy.call("PUT", "/workspaces/a", token=token, json={"url": nobody})
    assert got.status == 401
    got, body = await proxy.call("PUT", "/workspaces/a", json={"url": nobody})
    assert got.status == 201
    assert json.loads(body)["incarnation"] == 2


@pytest.mark.parametrize("name", ["system:x", "-x", "x" * 129, "a%20b"])
async def test_an_impossible_id_is_400(proxy: Harness, nobody: str, name: str) -> None:
    got, _ = await proxy.call("PUT", f"/workspaces/{name}", json={"url": nobody})
    assert got.status == 400


async def test_the_token_of_a_process_on_this_host_leads_to_loopback_and_nowhere_else_inside(tmp_path: Path) -> None:
    async with aiohttp.ClientSession() as session:
        strict = Harness(config_for(tmp_path, upstream_allow=""), session)
        await strict.start()
        try:
            runtime = {"type": "process", "command": ["sleep", "3"]}
            token = await strict.enroll("a", url="http://127.0.0.1:9", runtime=runtime)
            for url, status in (("http://127.0.0.1:10", 200), ("http://10.0.0.1", 400), ("http://169.254.1.1", 400)):
                got, _ = await strict.call("PUT", "/workspaces/a", token=token, json={"url": url})
                assert (url, got.status) == (url, status)
            await strict.call("DELETE", "/workspaces/a")
        finally:
            await strict.app.stop(drain=0)
