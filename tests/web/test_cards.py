"""Agent cards over HTTP: where they lead, validators, signatures, and what is shown while a workspace is away."""

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from core.card_signatures import check, read_as_the_sdk_does
from cryptography.exceptions import InvalidSignature
from web.harness import FAST, Harness, ScriptedAgent
from yarl import URL

Make = Callable[..., Awaitable[Harness]]

BASE = "/workspaces/a/a2a"
CARD = f"{BASE}/.well-known/agent-card.json"
OLD_CARD = f"{BASE}/.well-known/agent.json"


def card_of(agent: ScriptedAgent, **more: Any) -> dict[str, Any]:
    """A card for both versions with everything that a proxy must not leave alone."""
    return {
        "name": "scripted",
        "description": "says it again",
        "version": "1",
        "supportedInterfaces": [
            {"url": f"{agent.url}/rpc", "protocolBinding": "JSONRPC", "protocolVersion": "1.0"},
            {"url": f"127.0.0.1:{agent.port}", "protocolBinding": "GRPC", "protocolVersion": "1.0"},
            {"url": "https://elsewhere.example/rest", "protocolBinding": "HTTP+JSON", "protocolVersion": "1.0"},
            {"url": f"http://localhost:{agent.port}/", "protocolBinding": "HTTP+JSON", "protocolVersion": "1.0"},
        ],
        "url": f"127.0.0.1:{agent.port}",
        "preferredTransport": "GRPC",
        "additionalInterfaces": [{"url": f"{agent.url}/v03", "transport": "JSONRPC"}],
        "provider": {"url": f"{agent.url}/provider", "organization": "o"},
        "capabilities": {"streaming": True},
        "defaultInputModes": ["text/plain"],
        "defaultOutputModes": ["text/plain"],
        "skills": [{"id": "s", "name": "s", "description": "d", "tags": ["t"]}],
        "x-own": {"n": 1.50, "big": 12345678901234567890},
        "signatures": [{"protected": "e30", "signature": "AA"}],
        **more,
    }


def addresses(card: dict[str, Any]) -> list[str]:
    listed = [*card.get("supportedInterfaces", ()), *card.get("additionalInterfaces", ())]
    return [*(one["url"] for one in listed), *([card["url"]] if "url" in card else [])]


class Scripted:
    """An agent whose card is answered by a function of the request."""

    def __init__(self, agent: ScriptedAgent) -> None:
        self.agent = agent
        self.body = json.dumps(card_of(agent)).encode()
        self.headers: dict[str, str] = {}
        self.asked: list[dict[str, str]] = []
        self.methods: list[str] = []

    async def answer(self, request: web.Request) -> web.StreamResponse:
        await request.read()
        self.asked.append(dict(request.headers))
        self.methods.append(request.method)
        return web.Response(body=self.body, content_type="application/json", headers=self.headers)


@pytest.fixture
async def scripted(agent: ScriptedAgent, monkeypatch: pytest.MonkeyPatch) -> Scripted:
    made = Scripted(agent)
    monkeypatch.setattr(agent, "_answer", made.answer)
    if agent.runner is not None:  # the route was bound to the method that was there
        await agent.stop()
        await agent.start()
        made.body = json.dumps(card_of(agent)).encode()
    return made


async def fetch(
    proxy: Harness, path: str = CARD, method: str = "GET", **headers: str
) -> tuple[aiohttp.ClientResponse, bytes]:
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    return await proxy.call(method, path, headers=fields)


async def test_every_address_of_a_card_is_of_one_origin_the_one_that_the_client_called(
    proxy: Harness, agent: ScriptedAgent, scripted: Scripted
) -> None:
    await proxy.enroll("a", url=agent.url)
    for path in (CARD, OLD_CARD):
        got, body = await fetch(proxy, path)
        assert got.status == 200
        shown, sent = json.loads(body), json.loads(scripted.body)
        assert [one["url"] for one in shown["supportedInterfaces"]] == [f"{proxy.url}{BASE}/rpc", f"{proxy.url}{BASE}"]
        assert shown["additionalInterfaces"] == [{"url": f"{proxy.url}{BASE}/v03", "transport": "JSONRPC"}]
        assert (shown["url"], shown["preferredTransport"]) == (f"{proxy.url}{BASE}/v03", "JSONRPC")
        assert {URL(url).origin() for url in addresses(shown)} == {URL(proxy.url)}
        rewritten = {"supportedInterfaces", "additionalInterfaces", "url", "preferredTransport", "signatures"}
        assert {name: shown[name] for name in shown.keys() - rewritten} == {
            name: sent[name] for name in sent.keys() - rewritten
        }
        assert b'"x-own":' + json.dumps(sent["x-own"]).encode() in body
        assert "signatures" not in shown


async def test_a_card_leads_to_the_public_url_where_there_is_one(make: Make, agent: ScriptedAgent) -> None:
    proxy = await make(public_url="https://agents.example/a/")
    await proxy.enroll("a", url=agent.url)
    _, body = await fetch(proxy, X_Forwarded_Host="evil.example")
    assert addresses(json.loads(body)) == [f"https://agents.example/a{BASE}"]


@pytest.mark.parametrize(
    ("trusted", "headers", "origin"),
    [
        ("", {"X_Forwarded_Proto": "https", "X_Forwarded_Host": "evil.example"}, "http://called.example"),
        ("10.0.0.0/8", {"X_Forwarded_Proto": "https", "X_Forwarded_Host": "evil.example"}, "http://called.example"),
        ("127.0.0.0/8", {"X_Forwarded_Proto": "https"}, "https://called.example"),
        ("127.0.0.0/8", {"X_Forwarded_Host": "front.example:8443, inner"}, "http://front.example:8443"),
        ("127.0.0.0/8", {"X_Forwarded_Proto": "ftp", "X_Forwarded_Host": "a/b"}, "http://called.example"),
        (
            "127.0.0.0/8",
            {"X_Forwarded_Proto": "HTTPS", "X_Forwarded_Host": "front.example", "X_Forwarded_Prefix": "/agents/"},
            "https://front.example/agents",
        ),
    ],
)
async def test_what_a_reverse_proxy_forwards_is_believed_only_from_those_that_are_trusted(
    make: Make, agent: ScriptedAgent, trusted: str, headers: dict[str, str], origin: str
) -> None:
    proxy = await make(cards__forwarded_from=trusted)
    await proxy.enroll("a", url=agent.url)
    _, body = await fetch(proxy, Host="called.example", **headers)
    assert addresses(json.loads(body)) == [f"{origin}{BASE}"]


# Validators


async def test_a_client_that_has_the_card_is_told_so_and_its_agent_is_not_asked_about_our_validator(
    proxy: Harness, agent: ScriptedAgent, scripted: Scripted
) -> None:
    scripted.headers = {"ETag": '"theirs"', "Cache-Control": "max-age=7, public"}
    await proxy.enroll("a", url=agent.url)
    got, body = await fetch(proxy)
    etag = got.headers["ETag"]
    assert etag.startswith('"')
    assert etag != '"theirs"'
    assert got.headers.getall("Cache-Control") == ["max-age=7, public"]
    for known in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        again, nothing = await fetch(proxy, If_None_Match=known)
        assert (again.status, nothing, again.headers["ETag"]) == (304, b"", etag)
        assert again.headers["Cache-Control"] == "max-age=7, public"
        assert "Content-Type" not in again.headers
        assert not {"if-none-match", "range"} & {name.lower() for name in scripted.asked[-1]}
    for unknown in ('"theirs"', "nonsense", etag.strip('"')):
        again, whole = await fetch(proxy, If_None_Match=unknown, Range="bytes=0-3")
        assert (again.status, whole) == (200, body)
    scripted.body = json.dumps(card_of(agent, version="2")).encode()
    changed, _ = await fetch(proxy, If_None_Match=etag)
    assert (changed.status, changed.headers["ETag"] != etag) == (200, True)


async def test_a_head_request_gets_the_fields_of_the_card(
    proxy: Harness, agent: ScriptedAgent, scripted: Scripted
) -> None:
    await proxy.enroll("a", url=agent.url)
    got, _ = await fetch(proxy)
    head, nothing = await fetch(proxy, method="HEAD")
    assert (head.status, nothing, head.headers["ETag"]) == (200, b"", got.headers["ETag"])
    assert scripted.methods[-1] == "GET"


async def test_an_agent_that_says_nothing_of_caching_gets_the_configured_age(
    proxy: Harness, agent: ScriptedAgent, scripted: Scripted
) -> None:
    await proxy.enroll("a", url=agent.url)
    got, _ = await fetch(proxy)
    assert got.headers["Cache-Control"] == "private, max-age=60"
    scripted.headers = {"Expires": "Thu, 01 Jan 2026 00:00:00 GMT"}
    got, _ = await fetch(proxy)
    assert "Cache-Control" not in got.headers
    scripted.headers, scripted.body = {}, b'{"error": "there is no card"}'
    got, body = await fetch(proxy)
    assert (body, "ETag" in got.headers, "Cache-Control" in got.headers) == (scripted.body, False, False)


# Away


async def kept(proxy: Harness) -> None:
    """Wait until a card is in the store."""
    await proxy.until(lambda: bool(proxy.named("card.kept")))


@pytest.fixture
async def hurried(make: Make) -> Harness:
    """A proxy that writes cards at once, and doubts nothing."""
    return await make(cards__write=0.01, **{f"policy.{name}": value for name, value in FAST.items()})


async def test_the_last_card_that_passed_is_served_while_the_workspace_is_away_and_after_a_restart_of_the_proxy(
    hurried: Harness, agent: ScriptedAgent, scripted: Scripted
) -> None:
    await hurried.enroll("a", url=agent.url, unmanaged_away="defer")
    live_card = json.loads((await fetch(hurried))[1])
    await kept(hurried)
    await agent.stop()
    for _ in range(2):
        got, body = await fetch(hurried)
        assert (got.status, json.loads(body)) == (200, live_card)
        assert got.headers["Holdfast-Verdict"].startswith("unknown")
        assert got.headers["Cache-Control"] == "no-cache"
        again, nothing = await fetch(hurried, If_None_Match=got.headers["ETag"])
        assert (again.status, nothing) == (304, b"")
        head, _ = await fetch(hurried, method="HEAD")
        assert (head.status, head.headers["ETag"]) == (200, got.headers["ETag"])
        before = hurried.url
        await hurried.restart()
        live_card = json.loads(json.dumps(live_card).replace(before, hurried.url))
    sent, _ = await hurried.send("a", await hurried.client())
    assert sent.status == 202


async def test_the_card_that_the_readiness_probe_was_shown_is_kept_although_no_client_ever_asked(
    hurried: Harness, agent: ScriptedAgent
) -> None:
    agent.card = card_of(agent, name="probed", capabilities={"extendedAgentCard": True, "streaming": True})
    await hurried.enroll("a", url=agent.url, unmanaged_away="defer")
    await kept(hurried)
    await agent.stop()
    got, body = await fetch(hurried)
    shown = json.loads(body)
    assert (got.status, shown["name"], shown["capabilities"]) == (200, "probed", {"streaming": True})


async def test_without_a_card_a_workspace_that_is_away_has_none_to_show(proxy: Harness, agent: ScriptedAgent) -> None:
    await proxy.enroll("a", url=agent.url, unmanaged_away="defer", agent_card={"odd": True})
    await agent.stop()
    got, _ = await fetch(proxy)
    assert got.status == 503


async def test_a_polling_workspace_shows_the_card_that_it_registered(proxy: Harness, agent: ScriptedAgent) -> None:
    await proxy.enroll("a", delivery_mode="poll", agent_card=card_of(agent))
    got, body = await fetch(proxy)
    assert got.status == 200
    assert {URL(url).origin() for url in addresses(json.loads(body))} == {URL(proxy.url)}
    for path in (f"{BASE}/extendedAgentCard", f"{BASE}/v1/card"):
        got, _ = await fetch(proxy, path)
        assert got.status == 503


async def test_a_card_that_does_not_change_is_written_once(
    hurried: Harness, agent: ScriptedAgent, scripted: Scripted
) -> None:
    await hurried.enroll("a", url=agent.url)
    for _ in range(3):
        await fetch(hurried)
        await kept(hurried)
    assert len(hurried.named("card.kept")) == 1
    stored = await hurried.app.store.workspace("a")
    assert stored is not None
    assert stored.agent_card == json.loads(scripted.body)


async def test_a_card_that_flickers_waits_for_one_write(make: Make, agent: ScriptedAgent, scripted: Scripted) -> None:
    proxy = await make(cards__write=0.3)
    await proxy.enroll("a", url=agent.url)
    latest: list[object] = []
    while not proxy.named("card.kept"):
        scripted.body = json.dumps(card_of(agent, version=str(len(latest)))).encode()
        await fetch(proxy)
        latest.append(json.loads(scripted.body))
    assert len(latest) > 1
    assert len(proxy.named("card.kept")) == 1
    stored = await proxy.app.store.workspace("a")
    assert stored is not None
    assert stored.agent_card in latest[1:]


@pytest.mark.parametrize(
    ("asked", "answered", "path", "is_kept"),
    [
        ({}, {}, CARD, True),
        ({}, {}, OLD_CARD, True),
        ({"Authorization": "Bearer agents-own"}, {}, CARD, False),
        ({"Cookie": "a=b"}, {}, CARD, False),
        ({"Authorization": "Bearer agents-own"}, {"Cache-Control": "public, max-age=1"}, CARD, True),
        ({}, {"Cache-Control": "private"}, CARD, False),
        ({}, {"Cache-Control": "no-store"}, CARD, False),
        ({}, {}, f"{CARD}?who=me", False),
        ({}, {}, f"{BASE}/extendedAgentCard", False),
    ],
)
async def test_only_what_an_agent_shows_to_everybody_is_kept(  # noqa: PLR0917 - one argument for each column of the table
    proxy: Harness,
    agent: ScriptedAgent,
    scripted: Scripted,
    asked: dict[str, str],
    answered: dict[str, str],
    path: str,
    is_kept: bool,
) -> None:
    await proxy.enroll("a", url=agent.url, probe={"type": "tcp"})
    scripted.headers = answered
    token = await proxy.client()
    got, body = await proxy.call("GET", path, token=None, headers={"Holdfast-Token": token, **asked})
    assert (got.status, json.loads(body)["name"]) == (200, "scripted")
    assert proxy.app.background.pending("card-a") is is_kept


async def test_the_extended_card_over_json_rpc_is_rewritten_and_never_kept_or_served_from_the_store(
    proxy: Harness, agent: ScriptedAgent
) -> None:
    async def extended(request: web.Request) -> web.StreamResponse:
        said = json.loads(await request.read())
        return web.json_response({"jsonrpc": "2.0", "id": said["id"], "result": card_of(agent, name="extended")})

    agent.handler = extended
    await proxy.enroll("a", url=agent.url, unmanaged_away="defer", agent_card=card_of(agent), probe={"type": "tcp"})
    for method in ("GetExtendedAgentCard", "agent/getAuthenticatedExtendedCard"):
        ask = {"jsonrpc": "2.0", "id": 7, "method": method}
        got, body = await proxy.call("POST", BASE, json=ask)
        result = json.loads(body)["result"]
        assert (got.status, result["name"], "ETag" in got.headers) == (200, "extended", False)
        assert all(url.startswith(f"{proxy.url}{BASE}") for url in addresses(result))
        assert not proxy.app.background.pending("card-a")
    await agent.stop()
    for method in ("GetExtendedAgentCard", "agent/getAuthenticatedExtendedCard"):
        ask = {"jsonrpc": "2.0", "id": 7, "method": method}
        got, body = await proxy.call("POST", BASE, json=ask)
        assert (got.status, json.loads(body)["id"], "error" in json.loads(body)) == (503, 7, True)
    got, _ = await fetch(proxy)
    assert got.status == 200  # the public one


# Signatures


async def test_a_rewritten_card_is_signed_with_a_key_that_outlives_the_proxy(
    make: Make, tmp_path: Path, agent: ScriptedAgent, scripted: Scripted
) -> None:
    proxy = await make(cards__signatures="resign", public_url="https://agents.example")
    await proxy.enroll("a", url=agent.url)
    first, body = await fetch(proxy)
    got, keys = await proxy.call("GET", "/.well-known/jwks.json", token=None)
    assert got.status == 200
    card = json.loads(body)
    header = check(read_as_the_sdk_does(card), json.loads(keys))
    assert header["jku"] == "https://agents.example/.well-known/jwks.json"
    with pytest.raises(InvalidSignature):
        check(read_as_the_sdk_does({**card, "name": "another"}), json.loads(keys))
    assert (tmp_path / "holdfast.db.card-key").stat().st_mode & 0o777 == 0o600
    await proxy.restart()
    again, same = await fetch(proxy, If_None_Match=first.headers["ETag"])
    assert (again.status, same) == (304, b"")
    _, same_keys = await proxy.call("GET", "/.well-known/jwks.json", token=None)
    assert same_keys == keys


async def test_without_signing_there_is_no_key(proxy: Harness, tmp_path: Path) -> None:
    got, body = await proxy.call("GET", "/.well-known/jwks.json", token=None)
    assert (got.status, json.loads(body)) == (200, {"keys": []})
    assert not (tmp_path / "holdfast.db.card-key").exists()


async def test_a_signed_card_that_leads_to_holdfast_already_passes_byte_for_byte(
    proxy: Harness, agent: ScriptedAgent, scripted: Scripted
) -> None:
    own = f"{proxy.url}{BASE}/rpc"
    interfaces = [{"url": own, "protocolBinding": "JSONRPC", "protocolVersion": "1.0"}]
    card = {"name": "a", "supportedInterfaces": interfaces, "signatures": [{"protected": "e30", "signature": "AA"}]}
    scripted.body = json.dumps(card, indent=3).encode()
    await proxy.enroll("a", url=agent.url)
    got, body = await fetch(proxy)
    assert (got.status, body) == (200, scripted.body)
