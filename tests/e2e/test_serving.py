"""`holdfast serve` and `holdfast healthcheck` as an operator meets them: first lines, exit codes, sentences."""

import asyncio
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from chaos.waiting import until
from e2e.serving import ADMIN_TOKEN, PATIENCE, QUICK, ROOT, Serving, environment, free_port
from web.harness import ScriptedAgent, completed

Make = Callable[..., Any]
on_the_modules_loop = pytest.mark.asyncio(loop_scope="module")


def run(*words: str, **settings: Any) -> subprocess.CompletedProcess[str]:
    """Run `holdfast` to its end."""
    return subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-m", "proxy", *words],
        cwd=ROOT,
        env=environment(settings),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def sentence_of(done: subprocess.CompletedProcess[str]) -> str:
    """The one line that a failed start leaves on standard error, once the log's own lines are taken away."""
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    return line


def files_below(folder: Path) -> list[Path]:
    """Every file of a proxy."""
    return [path for path in folder.rglob("*") if path.is_file()]


# --- it serves --------------------------------------------------------------------------------------------------------


@on_the_modules_loop
async def test_the_first_line_says_where_it_serves_and_port_0_takes_a_free_one(tmp_path: Path) -> None:
    proxy = Serving(tmp_path, port=0)
    await proxy.start()
    assert re.fullmatch(r"holdfast: serving on http://127\.0\.0\.1:[1-9][0-9]*\n", proxy.said[0])
    health = await proxy.ask("GET", "/healthz", token=None)
    ready = await proxy.ask("GET", "/readyz", token=None)
    assert (health.status, ready.status, ready.json["status"]) == (200, 200, "ok")
    assert await proxy.end() == 0
    assert proxy.said == proxy.said[:1]
    assert [event["event"] for event in proxy.events if event["event"].startswith("proxy.")] == [
        "proxy.started",
        "proxy.stopping",
        "proxy.stopped",
    ]
    assert proxy.stray == []


@on_the_modules_loop
async def test_an_admin_token_that_is_made_is_shown_once_and_kept_only_as_its_hash(tmp_path: Path) -> None:
    proxy = Serving(tmp_path, admin_token=None)
    await proxy.start()
    await proxy.until(lambda: len(proxy.said) == 2, "the line with the token")
    found = re.fullmatch(r"holdfast: admin token, shown this once: (hf_[A-Za-z0-9_-]{43,})\n", proxy.said[1])
    assert found is not None, proxy.said
    token = found[1]
    assert (await proxy.ask("GET", "/workspaces", token=token)).status == 200
    assert (await proxy.ask("GET", "/workspaces", token=token[:-1] + "?")).status == 401
    await proxy.kill()
    await proxy.start()
    assert (await proxy.ask("GET", "/workspaces", token=token)).status == 200
    assert await proxy.end() == 0
    assert len(proxy.said) == 3
    kept = files_below(tmp_path)
    assert proxy.database in kept
    assert [path for path in kept if token.encode() in path.read_bytes()] == []
    assert token not in str(proxy.events)


@on_the_modules_loop
async def test_secrets_lie_in_files_that_only_their_owner_reads(proxy: Serving) -> None:
    await proxy.enroll("a", url="http://127.0.0.1:9", runtime={"type": "process", "command": ["/bin/true"]})
    await proxy.event("workspace.exited")
    open_to_all = {"owner"}  # the name of this proxy
    kept = [path for path in files_below(proxy.folder) if path.name not in open_to_all]
    found = {path.name: path.stat().st_mode & 0o077 for path in kept}
    assert {"holdfast.db", "holdfast.db.key", "config.json"} <= found.keys()
    assert {name: mode for name, mode in found.items() if mode} == {}


@on_the_modules_loop
async def test_healthcheck_says_by_its_exit_code_whether_somebody_serves(shared: Serving) -> None:
    healthy = await asyncio.to_thread(run, "healthcheck", port=shared.port)
    assert (healthy.returncode, healthy.stdout, healthy.stderr) == (0, "healthy\n", "")
    nobody = await asyncio.to_thread(run, "healthcheck", "--url", f"http://127.0.0.1:{free_port()}")
    assert (nobody.returncode, nobody.stdout) == (1, "")
    assert re.fullmatch(r"holdfast: not healthy: .*refused.*\n", nobody.stderr)


# --- it does not serve ------------------------------------------------------------------------------------------------


def test_everything_that_is_wrong_with_a_configuration_is_said_at_once(tmp_path: Path) -> None:
    file = tmp_path / "holdfast.toml"
    file.write_text(
        'prot = 1\nport = "high"\n[queue]\nlease = -1\n[workspaces."-x"]\n[workspaces.a]\nurrl = "http://h"\n',
        encoding="utf-8",
    )
    done = run("serve", "--config", str(file), **{"queue.rwos": 5, "restart.window": "soon"})
    assert (done.returncode, done.stdout) == (2, "")
    head, *problems = done.stderr.splitlines()
    assert head == "holdfast: the configuration cannot be used:"
    for name in ("prot", "port", "queue.lease", "-x", "urrl", "HOLDFAST_QUEUE_RWOS", "HOLDFAST_RESTART_WINDOW"):
        assert len([line for line in problems if name in line and line.startswith("  - ")]) >= 1, (name, problems)
    assert len(problems) == 7
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--config", "/nonexistent.toml"], "/nonexistent.toml: cannot be read: No such file or directory"),
        (["--dev", "--host", "0.0.0.0"], "dev"),  # noqa: S104 - that it is refused is the point
        (["--frobnicate"], "frobnicate"),
    ],
)
def test_wrong_usage_is_exit_code_2_and_a_sentence(words: list[str], complaint: str, tmp_path: Path) -> None:
    done = run("serve", "--data", str(tmp_path / "h.db"), *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_database_is_named_and_left_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "h.db"
    file.write_bytes(b"these are my notes, not a database\n" * 100)
    before = file.read_bytes()
    done = run("serve", "--port", "0", "--data", str(file))
    assert done.returncode == 1
    assert sentence_of(done).startswith(f"holdfast: the database {file} cannot be used: ")
    assert file.read_bytes() == before


def test_a_directory_that_there_is_not_or_that_nobody_may_write_to_is_named(tmp_path: Path) -> None:
    for folder in (tmp_path / "missing", Path("/sys")):  # not even the administrator may write to the latter
        done = run("serve", "--port", "0", "--data", str(folder / "h.db"))
        assert done.returncode == 1
        assert str(folder) in sentence_of(done)


def test_an_address_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("serve", "--port", str(port), "--data", str(tmp_path / "h.db"))
    assert done.returncode == 1
    assert sentence_of(done).startswith(f"holdfast: cannot listen on 127.0.0.1:{port}: ")


@on_the_modules_loop
async def test_a_second_proxy_on_one_database_and_a_newer_database_are_refused_in_a_sentence(proxy: Serving) -> None:
    second = await asyncio.to_thread(run, "serve", "--port", "0", "--data", str(proxy.database))
    assert second.returncode == 1
    assert proxy.process is not None
    assert f"process {proxy.process.pid} holds" in sentence_of(second)
    assert (await proxy.ask("GET", "/readyz", token=None)).status == 200
    assert await proxy.end() == 0
    with sqlite3.connect(proxy.database) as database:
        database.execute("INSERT INTO schema_migrations (number, name, sha256) VALUES (9999, 'later', 'x')")
    database.close()
    newer = await asyncio.to_thread(run, "serve", "--port", "0", "--data", str(proxy.database))
    assert newer.returncode == 1
    assert "newer" in sentence_of(newer)


# --- it stops ---------------------------------------------------------------------------------------------------------


@on_the_modules_loop
async def test_sigterm_lets_an_open_call_end_and_takes_no_new_ones(proxy: Serving) -> None:
    agent, came, go = ScriptedAgent(), asyncio.Event(), asyncio.Event()

    async def slow(request: Any) -> Any:
        from aiohttp import web  # noqa: PLC0415 - one use

        came.set()
        await go.wait()
        return web.json_response(completed(await request.read()))

    agent.handler = slow
    await agent.start()
    await proxy.enroll("a", url=agent.url)
    client = await proxy.client()
    call = asyncio.create_task(proxy.send("a", token=client))
    await came.wait()
    assert proxy.process is not None
    proxy.process.send_signal(signal.SIGTERM)
    await proxy.event("proxy.stopping")
    assert await until(lambda: refused(proxy.port), within=PATIENCE)
    assert not call.done()
    go.set()
    assert (await call).status == 200
    assert await proxy.end() == 0
    assert proxy.stray == []
    await agent.stop()


async def refused(port: int) -> bool:
    """Whether nobody listens there."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionRefusedError:
        return True
    writer.close()
    return False


@on_the_modules_loop
async def test_what_sigterm_cuts_off_is_put_away_and_done_by_the_next_life(make: Make) -> None:
    proxy = await make(server__drain_seconds=0)
    agent, came, never = ScriptedAgent(), asyncio.Event(), asyncio.Event()

    async def first_never(request: Any) -> Any:
        from aiohttp import web  # noqa: PLC0415 - one use

        if len(agent.seen) == 1:
            came.set()
            await never.wait()
        return web.json_response(completed(await request.read()))

    agent.handler = first_never
    await agent.start()
    await proxy.enroll("a", url=agent.url)
    client = await proxy.client()
    call = asyncio.create_task(proxy.send("a", token=client))
    await came.wait()
    assert await proxy.end() == 0
    got = await call
    assert got.status == 202
    await proxy.start()
    await proxy.event("deferral.completed", receipt=got.headers["Holdfast-Receipt"])
    assert [seen[2].get("Holdfast-Redelivery") for seen in agent.seen] == [None, "maybe"]
    never.set()
    await agent.stop()


# --- what is no request -----------------------------------------------------------------------------------------------


async def raw(port: int, sent: bytes) -> bytes:
    """Everything that comes back, up to the end of the connection, for bytes that no client library would send."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    async with asyncio.timeout(PATIENCE):
        answer = await reader.read()
    writer.close()
    return answer


@on_the_modules_loop
async def test_what_is_not_http_gets_a_400_in_json_and_leaves_no_traceback(shared: Serving) -> None:
    for sent in (
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + os.urandom(32) + b"\r\n\r\n",
        b"HELO example.org\r\n\r\n",
        b"BREW /healthz HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: h\r\nBad Header: x\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: h\r\nX: " + b"y" * 70_000 + b"\r\n\r\n",
        b"POST /tokens HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
        b"POST /tokens HTTP/1.1\r\nHost: h\r\nContent-Length: many\r\n\r\n",
        b"POST /tokens HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    ):
        head, _, body = (await raw(shared.port, sent)).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.0 400 "), (sent[:80], head)
        assert b"application/json" in head
        assert body == b'{"error":"this is not valid HTTP"}'
    got = await shared.ask("GET", "/healthz")
    assert got.status == 200
    assert shared.stray == []


@on_the_modules_loop
async def test_a_connection_that_says_nothing_or_half_a_request_costs_nothing(shared: Serving) -> None:
    for sent in (b"", b"GET /heal", b"POST /tokens HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\nhalf"):
        _, writer = await asyncio.open_connection("127.0.0.1", shared.port)
        writer.write(sent)
        await writer.drain()
        writer.close()
    assert (await shared.ask("GET", "/healthz")).status == 200
    assert shared.stray == []


@on_the_modules_loop
async def test_unknown_paths_and_methods_are_answered_in_json(shared: Serving) -> None:
    for method, path in [
        ("GET", "/"),
        ("POST", "/nothing"),
        ("GET", "/workspaces/a/nothing"),
        ("GET", "/workspaces//a2a"),
    ]:
        got = await shared.ask(method, path)
        assert (got.status, got.headers["Content-Type"]) == (404, "application/json"), path
        assert got.json["error"]
    for method, path, allowed in [
        ("PATCH", "/workspaces/a", "DELETE, GET, HEAD, PUT"),
        ("GET", "/workspaces/a/restart", "POST"),
        ("DELETE", "/tokens", "GET, HEAD, POST"),
        ("POST", "/healthz", "GET, HEAD"),
    ]:
        got = await shared.ask(method, path)
        assert (got.status, got.headers["Allow"]) == (405, allowed)
        assert allowed in got.json["error"]
    assert (await shared.ask("GET", "/workspaces", token="hf_" + "x" * 43)).status == 401
    assert (await shared.ask("GET", "/workspaces", token=ADMIN_TOKEN)).status == 200


@on_the_modules_loop
async def test_dev_needs_no_token_and_is_said_aloud(tmp_path: Path) -> None:
    proxy = Serving(tmp_path, QUICK, arguments=("--dev",))
    await proxy.start()
    got = await proxy.ask("PUT", "/workspaces/a", token=None, json={"url": "http://127.0.0.1:9"})
    assert got.status == 201
    assert (await proxy.ask("GET", "/workspaces", token="hf_" + "x" * 43)).status == 401
    assert await proxy.end() == 0
