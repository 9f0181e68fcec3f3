"""What an administrator does from the command line, against a real proxy: workspaces, restarts, queue, tokens."""

import asyncio
import json
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
from cli.conftest import Holdfast
from ports import free_port
from web.harness import FAST, Harness, ScriptedAgent

from proxy.cli.restart import has_ended
from proxy.store import StoreFailure

LISTENS = """
import http.server, sys
class Card(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.send_header("Content-Length", "2"); self.end_headers(); self.wfile.write(b"{}")
    def log_message(self, *_): pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Card).serve_forever()
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """An agent that listens and has a card."""
    path = tmp_path / "listens.py"
    path.write_text(LISTENS, encoding="utf-8")
    return path


# --- workspaces -------------------------------------------------------------------------------------------------------


async def test_a_workspace_is_put_looked_at_changed_and_removed(
    holdfast: Holdfast, proxy: Harness, agent: ScriptedAgent
) -> None:
    assert (await holdfast("workspaces")).lines == ["no workspaces"]
    put = await holdfast("workspaces", "put", "a", "--agent-url", agent.url, "--allow-from", "a", "--allow-from", "b")
    assert (put.code, put.lines[0]) == (0, "a is registered: starting")
    assert put.lines[1] == "it gets a token by: holdfast token create workspace a"
    await proxy.until(lambda: bool(proxy.named("workspace.status")))
    listed = await holdfast("workspaces")
    assert listed.lines[0].split()[:2] == ["ID", "STATUS"]
    assert listed.lines[1].split()[:2] == ["a", "ready"]
    changed = await holdfast("workspaces", "put", "a", "--dead-action", "defer", "--preset", "hold-first")
    assert changed.lines == ["a is changed: ready"]
    known = proxy.app.routing.get("a")
    assert known is not None
    assert (known.workspace.url, known.effective.policy.preset, known.effective.dead_action) == (
        agent.url,
        "hold-first",
        "defer",
    )
    shown = await holdfast("workspaces", "show", "a")
    assert shown.lines[0] == "a ready"
    assert ["may", "be", "called", "by", "a,", "b"] in [line.split() for line in shown.lines]
    assert ["url", agent.url] in [line.split() for line in shown.lines]
    assert (await holdfast("workspaces", "remove", "a", "--yes")).lines == ["a is removed"]
    assert (await holdfast("workspaces", "show", "a")).code == 4


async def test_json_is_the_apis_own(holdfast: Holdfast, proxy: Harness) -> None:
    made = await holdfast("workspaces", "put", "a", "--mode", "poll", "--json")
    assert made.json["token"].startswith("hf_")
    assert (await holdfast("workspaces", "show", "a", "--json")).json["delivery_mode"] == "poll"
    _, body = await proxy.call("GET", "/workspaces")
    assert (await holdfast("workspaces", "--json")).json.keys() == json.loads(body).keys()
    _, body = await proxy.call("GET", "/tokens")
    assert (await holdfast("token", "list", "--json")).out == body.decode() + "\n"


async def test_a_workspaces_token_is_printed_only_where_it_was_asked_for(holdfast: Holdfast) -> None:
    quiet = await holdfast("workspaces", "put", "a", "--mode", "poll")
    told = await holdfast("workspaces", "put", "b", "--mode", "poll", "--show-token")
    assert "hf_" not in quiet.out
    assert "its token, shown this once: hf_" in told.out


async def test_a_body_comes_from_a_file_and_options_win_over_it(
    holdfast: Holdfast, proxy: Harness, agent: ScriptedAgent
) -> None:
    body = {"url": "http://127.0.0.1:1", "policy": {"preset": "verify-first", "strikes": 4}, "max_concurrent": 2}
    words = ("workspaces", "put", "a", "--file", "-", "--agent-url", agent.url)
    assert (await holdfast(*words, stdin=json.dumps(body))).code == 0
    known = proxy.app.routing.get("a")
    assert known is not None
    assert (known.workspace.url, known.effective.policy.strikes, known.effective.max_concurrent) == (agent.url, 4, 2)


@pytest.mark.parametrize(
    ("words", "stdin", "complaint"),
    [
        (("--file", "-"), "{", "is not JSON"),
        (("--file", "-"), "[]", "must hold a JSON object"),
        (("--file", "-", "--preset", "combined"), '{"policy": 1}', "its policy must be an object"),
        (("--command", "python 'agent"), "", "No closing quotation"),
        (("--env", "NOT_THERE_AT_ALL"), "", "NOT_THERE_AT_ALL is not in the environment"),
        (("--mode", "pull"), "", "'pull' is not one of"),
        (("--file", "/nowhere/at/all"), "", "No such file"),
    ],
)
async def test_what_cannot_be_put_is_wrong_usage(
    words: tuple[str, ...], stdin: str, complaint: str, holdfast: Holdfast, proxy: Harness
) -> None:
    done = await holdfast("workspaces", "put", "a", *words, stdin=stdin)
    assert (done.code, complaint in done.err) == (2, True), done.err
    assert proxy.app.routing.get("a") is None


async def test_what_the_proxy_refuses_is_told_in_its_words(holdfast: Holdfast) -> None:
    done = await holdfast("workspaces", "put", "a", "--agent-url", "http://169.254.169.254/")
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("holdfast: url: ")


async def test_a_workspace_is_paused_hibernated_and_resumed(
    holdfast: Holdfast, proxy: Harness, agent: ScriptedAgent
) -> None:
    await holdfast("workspaces", "put", "top", "--agent-url", agent.url)
    await holdfast("workspaces", "put", "below", "--agent-url", agent.url, "--parent", "top")
    paused = await holdfast("workspaces", "pause", "top", "--reason", "moving its disk")
    assert paused.lines == ["top is paused, with 1 workspace below it"]
    assert [line.split()[1] for line in (await holdfast("workspaces")).lines[1:]] == ["paused", "paused"]
    assert (await holdfast("workspaces", "pause", "top")).lines == ["top is paused as it was"]
    assert (await holdfast("restart", "top")).code == 1
    resumed = await holdfast("workspaces", "resume", "top", "--json")
    assert resumed.json["desired"] == "running"
    assert (await holdfast("workspaces", "hibernate", "below", "--force")).lines == ["below is hibernated"]
    reasons = [
        line["evidence"].get("reason") for line in (await holdfast("decisions", "top", "--json")).json["decisions"]
    ]
    assert "moving its disk" in reasons


# --- restarts ---------------------------------------------------------------------------------------------------------


def listens(port: int) -> bool:
    """Whether somebody listens there."""
    with socket.socket() as trying:
        return trying.connect_ex(("127.0.0.1", port)) == 0


async def test_a_restart_is_waited_for_until_the_workspace_is_ready(
    holdfast: Holdfast, proxy: Harness, script: Path
) -> None:
    port = free_port()
    command = f"{sys.executable} {script} {port}"
    words = ("--agent-url", f"http://127.0.0.1:{port}", "--command", command, "--env", "COLOUR=blue")
    assert (await holdfast("workspaces", "put", "a", *words)).code == 0
    known = proxy.app.routing.get("a")
    assert known is not None
    assert known.workspace.runtime == {
        "type": "process",
        "command": [sys.executable, str(script), str(port)],
        "env": {"COLOUR": "blue"},
    }
    await proxy.until(lambda: bool(proxy.named("restart.finished")))
    waited = await holdfast("restart", "a", "--reason", "new model", "--wait")
    assert (waited.code, waited.err) == (0, "")
    assert waited.out.startswith("a is ready after ")
    view = (await holdfast("workspaces", "show", "a", "--json")).json
    assert (view["status"], view["restart"]["state"]) == ("ready", "finished")
    reasons = [
        line["evidence"].get("reason") for line in (await holdfast("decisions", "a", "--json")).json["decisions"]
    ]
    assert "new model" in reasons
    asked = await holdfast("restart", "a")
    assert asked.out in {"a: restart scheduled\n", "a: restart coalesced\n"}
    assert (await holdfast("restart", "a", "--wait", "--json")).json["status"] == "ready"
    listed = await holdfast("restarts", "a")
    assert listed.lines[0].split()[:3] == ["NO", "BEGAN", "STATE"]
    assert any("new model" in line for line in listed.lines[1:])
    status = (await holdfast("status", "--json")).json
    assert [(each["workspace"], each["last"]["state"]) for each in status["restarts"]] == [("a", "finished")]
    assert status["restarts"][0]["count"] >= 3
    assert (await holdfast("workspaces", "remove", "a", "--yes")).code == 0
    async with asyncio.timeout(20):
        while listens(port):  # noqa: ASYNC110 - no event tells of it: children outlive a proxy, not their workspace
            await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("generation", "state", "ended"),
    [
        (6, "finished", False),  # the one before; ours follows it
        (6, "running", False),
        (7, "running", False),
        (7, "superseded", False),  # by one that somebody else asked for
        (7, "finished", True),
        (7, "failed", True),
        (8, "finished", True),
    ],
)
def test_waiting_ends_with_the_restart_that_was_asked_for(generation: int, state: str, ended: bool) -> None:
    assert has_ended({"generation": generation, "restart": {"state": state}}, 7) is ended


async def test_a_restart_that_fails_is_exit_1_with_the_reason(holdfast: Holdfast) -> None:
    words = ("--agent-url", "http://127.0.0.1:1", "--command", f"{sys.executable} -c 'raise SystemExit(3)'")
    await holdfast("workspaces", "put", "a", *words)
    done = await holdfast("restart", "a", "--wait")
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("holdfast: a did not come back: exited ")


async def test_a_restart_that_takes_too_long_is_told_and_goes_on(holdfast: Holdfast) -> None:
    words = ("--agent-url", "http://127.0.0.1:1", "--command", f"{sys.executable} -c 'import time; time.sleep(60)'")
    await holdfast("workspaces", "put", "a", *words)
    done = await holdfast("restart", "a", "--wait", "--patience", "0.3")
    assert (done.code, done.err) == (1, "holdfast: a is not ready after 0.3 s; the restart goes on\n")
    await holdfast("workspaces", "remove", "a", "--yes")


async def test_what_nobody_can_restart_is_told(holdfast: Holdfast, agent: ScriptedAgent) -> None:
    await holdfast("workspaces", "put", "a", "--agent-url", agent.url)
    done = await holdfast("restart", "a")
    assert (done.code, done.err) == (1, "holdfast: a has no runtime: nothing here can restart it\n")


async def test_decisions_are_listed_with_their_evidence(holdfast: Holdfast, agent: ScriptedAgent) -> None:
    await holdfast("workspaces", "put", "a", "--agent-url", agent.url)
    done = await holdfast("decisions", "a")
    assert done.lines[0].split() == ["AT", "TRIGGER", "VERDICT", "RULE", "ACTION", "LIFE", "REQUEST", "EVIDENCE"]
    assert "created" in done.lines[-1]
    assert (await holdfast("decisions")).code == 2
    assert (await holdfast("decisions", "--receipt", "nothing")).lines == [
        "nothing is known about that; old lines are forgotten"
    ]
    assert (await holdfast("decisions", "a", "--generation", "0", "--json")).json["decisions"]


# --- the queue --------------------------------------------------------------------------------------------------------


async def put_away(proxy: Harness, count: int = 1) -> list[str]:
    """Defer sends to a workspace that is away; return their receipts."""
    url = f"http://127.0.0.1:{free_port()}"
    await proxy.enroll("away", url=url, unmanaged_away="defer", policy=FAST)
    await proxy.call("POST", "/workspaces/away/heartbeat")
    client = await proxy.client()
    receipts = []
    for number in range(count):
        got, _ = await proxy.send("away", client, message_id=f"m{number}")
        assert got.status == 202
        receipts.append(got.headers["Holdfast-Receipt"])
    return receipts


async def test_the_queue_is_listed_filtered_and_shown(holdfast: Holdfast, proxy: Harness) -> None:
    assert (await holdfast("queue")).lines == ["nothing is in the queue"]
    receipts = await put_away(proxy, 2)
    listed = await holdfast("queue", "--workspace", "away", "--status", "queued", "--status", "leased")
    assert {line.split()[0] for line in listed.lines[1:]} == set(receipts)
    assert (await holdfast("queue", "list", "--status", "completed")).lines == ["nothing is in the queue"]
    assert len((await holdfast("queue", "list", "--limit", "1", "--json")).json["items"]) == 1
    shown = await holdfast("queue", "show", receipts[0])
    assert shown.lines[0].split()[0] == receipts[0]
    assert ["workspace", "away"] in [line.split() for line in shown.lines]


async def test_one_refusal_does_not_keep_the_other_receipts(holdfast: Holdfast, proxy: Harness) -> None:
    receipts = await put_away(proxy, 2)
    done = await holdfast("queue", "cancel", receipts[0], "nothing", receipts[1], "--reason", "sent twice")
    assert (done.code, done.err) == (4, "holdfast: nothing: unknown receipt\n")
    assert done.lines == [f"{receipt} is cancelled" for receipt in receipts]
    shown = (await holdfast("queue", "show", receipts[0], "--json")).json
    assert (shown["status"], shown["last_error"]) == ("cancelled", "cancelled by an admin: sent twice")
    again = await holdfast("queue", "redrive", receipts[0], "--json")
    assert (again.code, again.err) == (1, f"holdfast: {receipts[0]}: it is no dead letter\n")
    assert again.json["error"] == "it is no dead letter"


async def test_a_caller_finds_its_own_deferral_by_its_receipt_and_nobody_elses(
    holdfast: Holdfast, proxy: Harness
) -> None:
    (receipt,) = await put_away(proxy)
    stranger = await proxy.client("stranger")
    assert (await holdfast("queue", "show", receipt, HOLDFAST_TOKEN=stranger)).code == 4
    nobody = await holdfast("queue", "show", receipt, HOLDFAST_ADMIN_TOKEN="")
    assert nobody.err == "holdfast: unknown receipt (asked without a token: HOLDFAST_TOKEN is not set)\n"


async def test_an_answered_deferral_shows_the_agents_answer(
    holdfast: Holdfast, proxy: Harness, agent: ScriptedAgent
) -> None:
    await agent.stop()
    await proxy.enroll("a", url=agent.url, unmanaged_away="defer", policy=FAST)
    await proxy.call("POST", "/workspaces/a/heartbeat")
    got, _ = await proxy.send("a", await proxy.client())
    await agent.start()
    await proxy.until(lambda: bool(proxy.named("deferral.completed")))
    shown = await holdfast("queue", "show", got.headers["Holdfast-Receipt"])
    assert shown.lines[0].split()[1] == "completed"
    assert "did m1" in shown.out


async def test_what_is_stale_is_dropped_without_asking_where_nobody_sits(holdfast: Holdfast, proxy: Harness) -> None:
    await put_away(proxy)
    done = await holdfast("queue", "drop-stale", "--max-age-minutes", "5", "--workspace", "away")
    assert (done.code, done.out) == (0, "0 deferrals dropped\n")
    assert (await holdfast("queue", "drop-stale", "--max-age-minutes", "0")).code == 2


# --- tokens -----------------------------------------------------------------------------------------------------------


async def test_a_token_is_shown_once_works_and_is_revoked(holdfast: Holdfast, proxy: Harness) -> None:
    made = await holdfast("token", "create", "read", "dashboard")
    facts = dict(line.split(maxsplit=1) for line in made.lines[:4])
    assert (facts["kind"], facts["name"]) == ("read", "dashboard")
    token = facts["token"]
    assert (await holdfast("workspaces", HOLDFAST_TOKEN=token)).code == 0
    listed = await holdfast("token")
    assert facts["id"] in listed.out
    assert token not in listed.out
    assert (await holdfast("token", "revoke", facts["id"])).lines == [f"token {facts['id']} is revoked"]
    assert (await holdfast("workspaces", HOLDFAST_TOKEN=token)).code == 5


# --- the whole --------------------------------------------------------------------------------------------------------


async def test_the_status_gathers_workspaces_queue_and_restarts(
    holdfast: Holdfast, proxy: Harness, agent: ScriptedAgent
) -> None:
    receipts = await put_away(proxy, 2)
    await proxy.enroll("a", url=agent.url)
    done = await holdfast("status")
    assert done.code == 0
    assert f"ready at {proxy.url}" in done.lines[0]
    assert done.lines[3].split() == ["queue", "2", "waiting", "·", "0", "dead_lettered"]
    assert ["away", "2", "waiting"] in [line.split() for line in done.lines]
    found = (await holdfast("status", "--json")).json
    assert found["queue"] == {"waiting": 2, "dead_lettered": 0, "by_workspace": {"away": len(receipts)}}
    assert found["workspaces"]["total"] == 2
    assert found["ready"]["ok"] is True


async def test_a_status_of_a_proxy_whose_store_fails_is_exit_1(
    holdfast: Holdfast, proxy: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: Any) -> float:
        raise StoreFailure("full", "no room")

    monkeypatch.setattr(proxy.app.store, "ping", refuse)
    done = await holdfast("status")
    assert done.code == 1
    assert done.lines[0].split()[:3] == ["proxy", "not", "ready:"]


async def test_commands_run_beside_each_other(holdfast: Holdfast, proxy: Harness) -> None:
    await proxy.enroll("a", delivery_mode="poll")
    first, second = await holdfast("workspaces"), await asyncio.create_task(holdfast("workspaces", "show", "a"))
    assert (first.code, second.code) == (0, 0)
