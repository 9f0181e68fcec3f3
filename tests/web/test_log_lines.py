"""What is told of requests: every line names what it is about, and no line, stream or metric holds a secret."""

import io
import json
import logging
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from aiohttp import web
from web.harness import ADMIN_TOKEN, V1, Harness, ScriptedAgent, send
from web.test_events import reading

from proxy.telemetry import EventName, Level, LibraryLog, LogSink, Telemetry

AT = datetime(2026, 1, 31, 12, tzinfo=UTC)
Make = Callable[..., Awaitable[Harness]]

SECRETS = {
    "body": "the-body-is-nobodys-business",
    "agent_bearer": "agent-bearer-5d2f",
    "cookie": "session-cookie-77aa",
    "user": "url-password-91bc",
    "query": "url-query-key-42de",
    "environment": "env-value-13ef",
    "wrong": "hf_" + "w" * 43,
    "join": "hf_" + "j" * 43,
    "data": "config-data-66fa",
    "answer": "what-the-agent-answered",
}


class Log:
    """The proxy's own log, in both formats, from the first event on."""

    def __init__(self, proxy: Harness) -> None:
        self.streams = {form: io.StringIO() for form in ("human", "json")}
        for form, stream in self.streams.items():
            proxy.app.telemetry.add(LogSink(stream, form=form, least=Level.DEBUG))

    @property
    def text(self) -> str:
        return "".join(stream.getvalue() for stream in self.streams.values())

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.streams["json"].getvalue().splitlines()]

    def named(self, name: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["event"] == name]


@pytest.fixture
def libraries() -> Iterator[logging.Logger]:
    """The root logger as it was, whatever a test installs."""
    root = logging.getLogger()
    before = list(root.handlers)
    yield root
    root.handlers[:] = before


async def everything(proxy: Harness, agent: ScriptedAgent, nobody: str) -> list[str]:
    """Drive requests with secrets in them through every kind of end; return the tokens that were made."""
    headers = {
        **V1,
        "Authorization": f"Bearer {SECRETS['agent_bearer']}",
        "Cookie": f"session={SECRETS['cookie']}",
    }
    tokens = [await proxy.client()]
    query = f"?api_key={SECRETS['query']}"

    async def call(workspace: str, token: str | None, message_id: str, **more: Any) -> int:
        fields = {**headers, **({"Holdfast-Token": token} if token else {}), **more.pop("headers", {})}
        body = send(message_id, SECRETS["body"], **more)
        path = f"{proxy.url}/workspaces/{workspace}/a2a{query}"
        async with proxy.session.post(path, headers=fields, json=body) as got:
            await got.read()
            return got.status

    tokens.append(await proxy.enroll("here", url=f"{agent.url}/base{query}"))
    tokens.append(await proxy.enroll("away", url=f"{nobody}{query}", unmanaged_away="defer", redelivery="never"))
    tokens.append(await proxy.enroll("lost", url=nobody, unmanaged_away="pass"))
    assert await call("here", tokens[0], "m1") == 200
    assert await call("away", tokens[0], "m2", contextId="c2") == 202
    assert await call("lost", tokens[0], "m3") == 502
    assert await call("here", SECRETS["wrong"], "m4") == 401
    assert await call("here", None, "m5") == 401
    assert await call("nowhere", tokens[0], "m6") == 404
    assert await call("here", tokens[0], "m7", headers={"X-Workspace-ID": "somebody"}) == 403
    got, _ = await proxy.call("PUT", "/workspaces/bad", json={"url": f"http://me:{SECRETS['user']}@127.0.0.1/{query}"})
    assert got.status == 400
    got, _ = await proxy.call("PUT", "/workspaces/here/config", json={"data": {"secret": SECRETS["data"]}})
    assert got.status == 202
    got, _ = await proxy.call("PUT", "/workspaces/here/config", json={"env": {"KEY": SECRETS["environment"]}})
    assert got.status < 500
    return tokens


async def dead_letter(proxy: Harness, agent: ScriptedAgent) -> None:
    """The deferral reaches an agent that takes it and answers nothing: under `never` that is its end."""

    async def breaks_off(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.close()
        return web.Response(text=SECRETS["answer"])

    agent.handler = breaks_off
    got, body = await proxy.call("PUT", "/workspaces/away", json={"url": agent.url})
    assert got.status == 200, body
    await proxy.call("POST", "/workspaces/away/heartbeat", json={"status": "ready"})
    await proxy.until(lambda: bool(proxy.named("deferral.dead_lettered")))


async def crash(proxy: Harness, token: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A fault of Holdfast's own whose text holds the body and a token; return the request's id."""

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError(f"cannot do {SECRETS['body']} of {ADMIN_TOKEN}")

    with monkeypatch.context() as patch:
        patch.setattr(type(proxy.app.dialer), "call", broken)
        got, _ = await proxy.call("POST", "/workspaces/here/a2a", token=token, json=send("m9", SECRETS["body"]))
        assert got.status == 500
        patch.setattr(proxy.app.routing, "tokens", broken)
        other, _ = await proxy.call("GET", "/tokens")
        assert other.status == 500
    return got.headers["Holdfast-Request-Id"]


async def test_no_secret_is_in_any_line_event_or_metric(
    make: Make, agent: ScriptedAgent, nobody: str, monkeypatch: pytest.MonkeyPatch, libraries: logging.Logger
) -> None:
    proxy = await make(join_token=SECRETS["join"], events__level="debug", queue__backoff=0.01)
    log = Log(proxy)
    LibraryLog(proxy.app.telemetry).install()
    place = proxy.app.ring.start
    tokens = await everything(proxy, agent, nobody)
    await dead_letter(proxy, agent)
    request_id = await crash(proxy, tokens[0], monkeypatch)
    logging.getLogger("asyncio").error("no luck with %s\n%s", SECRETS["body"], tokens, exc_info=ValueError(tokens))
    last = proxy.app.ring.latest
    told = ""
    async with reading(proxy, Last_Event_ID=place) as stream:
        block = await stream.block()
        while block.fields.get("id") != last:
            block = await stream.block()
            told += str(block.fields)
    _, metrics = await proxy.call("GET", "/metrics")
    names = {line["event"] for line in log.lines}
    assert {"request.failed", "deferral.queued", "deferral.dead_lettered", "auth.refused", "request.crashed"} <= names
    assert "library.logged" in names
    for text in (log.text, told, metrics.decode()):
        assert len(text) > 1000
        found = [name for name, secret in SECRETS.items() if secret in text]
        assert not found
        assert not [token for token in (ADMIN_TOKEN, *tokens) if token in text]
    crashed = log.named("request.crashed")
    assert (crashed[0]["request_id"], crashed[0]["workspace"], crashed[0]["error"]) == (
        request_id,
        "here",
        "RuntimeError",
    )
    assert "test_log_lines.py" in crashed[0]["where"]


async def test_every_line_about_a_request_names_what_it_is_about(
    make: Make, agent: ScriptedAgent, nobody: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = await make(queue__backoff=0.01)
    log = Log(proxy)
    await everything(proxy, agent, nobody)
    await dead_letter(proxy, agent)
    about = [line for line in log.lines if line["event"].startswith(("request.", "deferral."))]
    assert len(about) > 5
    assert all(line.get("request_id") and line.get("workspace") for line in about)
    deferred = [line for line in about if line["event"].startswith("deferral.")]
    assert {line["event"] for line in deferred} >= {"deferral.queued", "deferral.leased", "deferral.dead_lettered"}
    assert all(line.get("receipt") for line in deferred)
    assert all(line.get("incarnation") for line in about if line["event"] != "request.forwarded")
    queued = log.named("deferral.queued")
    assert [line["rule"] for line in queued] == [log.named("verdict")[0]["rule"]]
    story = {line["request_id"] for line in deferred}
    assert len(story) == 1, "one request can be followed by its id from its call to the end of its deferral"


def test_what_a_library_logs_becomes_one_line_without_values(libraries: logging.Logger) -> None:
    telemetry = Telemetry(lambda: AT)
    events: list[Any] = []
    telemetry.add(events.append)
    give_back = LibraryLog(telemetry).install()
    logging.getLogger("some.package").warning("lost %s\nand more", "a value")
    logging.getLogger("some.package").info("not told")
    give_back()
    logging.getLogger("some.package").warning("not told any more")
    assert [(event.name, dict(event.fields)) for event in events] == [
        (EventName.LIBRARY_LOGGED, {"logger": "some.package", "message": "lost %s"})
    ]
