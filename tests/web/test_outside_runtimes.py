"""Workspaces behind commands and behind a webhook, through a whole proxy: started, found dead, restarted, removed."""

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from web.harness import FAST, Harness, ScriptedAgent

SECRET = "the secret of this hook, which nobody sees"


@dataclass
class Platform:
    """A service that hosts agents when it is told so, and refuses what is not signed; first it `fails` so often."""

    agent: ScriptedAgent
    url: str = ""
    fails: int = 0
    deaf: bool = False
    actions: list[tuple[str, str]] = field(default_factory=list)
    launched: list[dict[str, Any]] = field(default_factory=list)
    known: set[str] = field(default_factory=set)
    removed: asyncio.Event = field(default_factory=asyncio.Event)

    async def answer(self, request: web.Request) -> web.Response:
        body = await request.read()
        message_id, at = request.headers["webhook-id"], request.headers["webhook-timestamp"]
        expected = hmac.new(SECRET.encode(), f"{message_id}.{at}.".encode() + body, hashlib.sha256).digest()
        if request.headers["webhook-signature"] != f"v1,{base64.b64encode(expected).decode()}":
            return web.json_response({"error": "bad signature"}, status=401)
        said = json.loads(body)
        if said["action"] == "inspect" and self.deaf:
            return web.json_response({"error": "no database"}, status=500)
        if said["action"] == "inspect":
            return web.json_response({"state": "running" if self.agent.runner is not None else "stopped"})
        self.actions.append((said["action"], message_id))
        if self.fails:
            self.fails -= 1
            return web.json_response({"error": "try later"}, status=503)
        if message_id not in self.known:
            self.known.add(message_id)
            if said["action"] == "start":
                self.launched.append(said)
                await self.agent.start()
            else:
                await self.agent.stop()
                self.removed.set()
        return web.json_response({})


@pytest.fixture
async def platform() -> AsyncIterator[Platform]:
    made = Platform(ScriptedAgent())
    await made.agent.start()  # to know its port
    await made.agent.stop()
    application = web.Application()
    application.router.add_post("/hook", made.answer)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    yield made
    await runner.cleanup()
    await made.agent.stop()


def hosted(platform: Platform, **members: Any) -> dict[str, Any]:
    section = {"type": "webhook", "url": platform.url, "secret": SECRET, "watch": 0.05, "start_grace": 0, **members}
    return {"url": platform.agent.url, "runtime": section, "policy": {**FAST, "restart_backoff": 0.05}}


async def is_ready(proxy: Harness) -> bool:
    _, body = await proxy.call("GET", "/workspaces/a")
    return bool(json.loads(body)["status"] == "ready")


async def test_a_hook_that_fails_twice_starts_its_workspace_once_and_its_secret_is_seen_nowhere(
    proxy: Harness, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.runtimes.webhook.FIRST_WAIT", 0.01)
    platform.fails = 2
    await proxy.enroll("a", **hosted(platform))
    await proxy.until(lambda: is_ready(proxy))
    assert platform.actions == [("start", "a:1:start")] * 3
    [launched] = platform.launched
    token = launched["env"]["HOLDFAST_TOKEN"]
    got, _ = await proxy.call("POST", "/workspaces/a/heartbeat", token=token, json={"status": "ready"})
    assert got.status == 200, "the agent speaks with the token that the start carried"
    assert (launched["incarnation"], launched["generation"]) == (2, 1)
    assert launched["env"]["HOLDFAST_URL"] == proxy.url
    client = await proxy.client()
    assert (await proxy.send("a", client))[0].status == 200
    shown = [str(event.as_dict()) for event in proxy.events]
    for path in ("/workspaces", "/workspaces/a", "/workspaces/a/decisions?limit=1000", "/queue", "/tokens"):
        _, body = await proxy.call("GET", path)
        shown.append(body.decode())
    assert not [text for text in shown if SECRET in text or token in text]


async def test_what_ends_behind_a_hook_is_seen_and_started_again(proxy: Harness, platform: Platform) -> None:
    await proxy.enroll("a", **hosted(platform))
    await proxy.until(lambda: is_ready(proxy))
    await platform.agent.stop()
    await proxy.until(lambda: bool(proxy.named("workspace.exited")))
    await proxy.until(lambda: len(platform.launched) == 2)
    await proxy.until(lambda: is_ready(proxy))
    assert [action for action, _ in platform.actions] == ["start", "stop", "start"]
    assert platform.launched[1]["incarnation"] == 3
    old, new = (launch["env"]["HOLDFAST_TOKEN"] for launch in platform.launched)
    assert (await proxy.call("POST", "/workspaces/a/heartbeat", token=old, json={}))[0].status == 401
    assert (await proxy.call("POST", "/workspaces/a/heartbeat", token=new, json={}))[0].status == 200


async def test_a_hook_that_cannot_be_asked_costs_no_workspace_its_life(proxy: Harness, platform: Platform) -> None:
    await proxy.enroll("a", **hosted(platform))
    await proxy.until(lambda: is_ready(proxy))
    platform.deaf = True
    await platform.agent.stop()
    deferred, _ = await proxy.send("a", await proxy.client())
    assert (deferred.status, deferred.headers["Holdfast-Verdict"]) == (202, "alive; rule=probe_error")
    assert [action for action, _ in platform.actions] == ["start"]
    assert proxy.named("workspace.exited") == []


async def test_a_hook_with_another_secret_starts_nothing_and_says_why(proxy: Harness, platform: Platform) -> None:
    await proxy.enroll("a", **hosted(platform, secret="another secret than the platform's"))
    await proxy.until(lambda: bool(proxy.named("restart.failed")))
    assert platform.launched == [], "what is not signed right is refused"
    failed = json.loads((await proxy.call("GET", "/workspaces/a"))[1])["restart"]["error"]
    assert failed == "the hook answered 401: bad signature"


async def test_parking_and_removing_end_with_nothing_hosted(proxy: Harness, platform: Platform) -> None:
    await proxy.enroll("a", **hosted(platform))
    await proxy.until(lambda: is_ready(proxy))
    assert (await proxy.call("POST", "/workspaces/a/hibernate", json={}))[0].status == 200
    await proxy.until(lambda: platform.agent.runner is None)
    client = await proxy.client()
    deferred, _ = await proxy.send("a", client)
    assert deferred.status == 202
    await proxy.until(lambda: is_ready(proxy))
    await proxy.until(lambda: len(platform.agent.seen) == 1)
    platform.removed.clear()
    assert (await proxy.call("DELETE", "/workspaces/a"))[0].status == 200
    await platform.removed.wait()
    assert proxy.named("workspace.exited") == []


@pytest.mark.parametrize(
    ("members", "problem"),
    [
        ({"url": "http://169.254.169.254/hook"}, "runtime: runtime.url: "),
        ({"secret": "short"}, "runtime: runtime.secret: must hold at least 16 bytes"),
    ],
)
async def test_a_hook_that_cannot_be_is_refused_before_anything_is_written(
    proxy: Harness, platform: Platform, members: dict[str, Any], problem: str
) -> None:
    got, body = await proxy.call("PUT", "/workspaces/a", json=hosted(platform, **members))
    assert got.status == 400
    assert any(found.startswith(problem) for found in json.loads(body)["problems"]), body
    assert (await proxy.call("GET", "/workspaces/a"))[0].status == 404


async def test_a_hook_s_name_that_leads_inside_is_refused_when_it_is_configured(
    proxy: Harness, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def look_up(host: str) -> list[str]:
        return {"hooks.example": ["169.254.169.254"]}[host]

    assert proxy.app._pool is not None
    monkeypatch.setattr(proxy.app._pool._resolver, "_lookup", look_up)
    body = hosted(platform, url="https://hooks.example/x")
    got, said = await proxy.call("PUT", "/workspaces/a", json=body)
    assert got.status == 400
    assert b"runtime.url: hooks.example" in said


async def test_a_workspace_behind_commands_is_hosted_restarted_and_configured_anew(
    proxy: Harness, agent: ScriptedAgent, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    script = tmp_path / "keep"
    script.write_text(
        f'echo "$HOLDFAST_ACTION $HOLDFAST_GENERATION ${{COLOUR-}}" >> {log}.$HOLDFAST_ACTION\n'
        f"case $HOLDFAST_ACTION in start) touch {tmp_path}/up;; stop) rm -f {tmp_path}/up;;\n"
        f"*) test -e {tmp_path}/up || exit 3;; esac\n"
    )
    command = ["sh", str(script)]
    section = {"type": "command", "start": command, "stop": command, "inspect": command, "watch": 0.05}
    await proxy.enroll("a", url=agent.url, runtime=section, policy={**FAST, "restart_backoff": 0.05})
    await proxy.until(lambda: is_ready(proxy))
    got, body = await proxy.call("PUT", "/workspaces/a/config", json={"env": {"COLOUR": "blue"}})
    assert got.status == 202, body
    await proxy.until(lambda: len(proxy.named("restart.finished")) == 2)
    assert (tmp_path / "log.start").read_text().splitlines() == ["start 1 ", "start 2 blue"]
    assert (tmp_path / "log.stop").read_text().splitlines() == ["stop 1 "], "by the section that started it"
    (tmp_path / "up").unlink()
    await proxy.until(lambda: len(proxy.named("restart.finished")) == 3)
    assert (tmp_path / "up").exists()
    assert [event.incarnation for event in proxy.named("workspace.exited")] == [3]
