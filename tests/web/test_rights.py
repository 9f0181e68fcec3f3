"""What each kind of token may do: every kind is sent to every route there is, and a route without an entry fails.

The page on security shows the same table.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from web.harness import ADMIN_TOKEN, V1, Harness, send

from proxy.web import openapi, operations
from proxy.web.admission import LIFELINE, OPEN

PAGE = Path(__file__).parent.parent.parent / "docs" / "security.md"
JOIN = "hf_" + "j" * 43


class Who(StrEnum):
    """Whoever may come to a door."""

    NOBODY = "nobody"
    GUESSER = "a wrong token"
    STRANGER = "a client"
    CALLER = "the client whose deferral it is"
    JOINER = "join"
    READER = "read"
    OTHER = "another workspace"
    ITSELF = "itself"
    ADMIN = "admin"


TOKENLESS = {Who.NOBODY, Who.GUESSER}
EVERYBODY = frozenset(Who)
OPERATORS = frozenset({Who.ADMIN, Who.READER})
THE_ADMIN = frozenset({Who.ADMIN})
WORKER = frozenset({Who.ADMIN, Who.ITSELF})
LOOKERS = frozenset({Who.ADMIN, Who.READER, Who.ITSELF})
CONCERNED = frozenset({Who.ADMIN, Who.READER, Who.ITSELF, Who.CALLER})
CALLERS = frozenset({Who.ADMIN, Who.CALLER, Who.STRANGER, Who.ITSELF, Who.OTHER})
JOINERS = frozenset({Who.ADMIN, Who.ITSELF, Who.JOINER})
TOKENED = EVERYBODY - TOKENLESS

WORDS: Mapping[frozenset[Who], str] = {
    EVERYBODY: "anybody, without a token",
    OPERATORS: "admin, `read`",
    THE_ADMIN: "admin",
    WORKER: "admin, itself",
    LOOKERS: "admin, `read`, itself",
    CONCERNED: "admin, `read`, itself, the caller that made it",
    CALLERS: "admin, clients, workspaces; by the access rule",
    JOINERS: "admin; `join` for a new id; itself for its url, boot_id, card and delivery mode",
    TOKENED: "whoever has a token sees its own; admin and `read` see all",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Right:
    """One route: who may, what the others get, and what it answers to those who may, after a post to `before`."""

    method: str
    path: str
    who: frozenset[Who]
    answers: frozenset[int] = frozenset({200})
    others: int = 403
    tokenless: int = 401
    body: Any = None
    streams: bool = False
    before: str | None = None

    @property
    def row(self) -> str:
        """The line of the page."""
        others = "hidden" if self.others == 404 else "403"
        if not EVERYBODY - TOKENLESS - self.who:
            others = ""
        return f"| `{self.method} {self.path}` | {WORDS[self.who]} | {others} |"


def right(
    route: str,
    who: frozenset[Who],
    *answers: int,
    others: int = 403,
    tokenless: int = 401,
    body: Any = None,
    streams: bool = False,
    before: str | None = None,
) -> Right:
    method, path = route.split()
    return Right(
        method=method,
        path=path,
        who=who,
        answers=frozenset(answers or (200,)),
        others=others,
        tokenless=tokenless,
        body=body,
        streams=streams,
        before=before,
    )


LEASE = {"lease_token": "not-mine"}
RIGHTS = (
    right("* /workspaces/{id}/a2a", CALLERS, 200, 202, body=send()),
    right("GET /workspaces", OPERATORS),
    right("PUT /workspaces/{id}", JOINERS, 200, 201, body={"boot_id": "b1"}),
    right("GET /workspaces/{id}", LOOKERS, others=404),
    right("DELETE /workspaces/{id}", THE_ADMIN),
    right("POST /workspaces/{id}/heartbeat", WORKER),
    right("POST /workspaces/{id}/restarting", WORKER),
    right("POST /workspaces/{id}/restart", THE_ADMIN),
    right("PUT /workspaces/{id}/config", THE_ADMIN, 202, body={"data": {}}),
    right("POST /workspaces/{id}/pause", THE_ADMIN),
    right("POST /workspaces/{id}/resume", THE_ADMIN),
    right("POST /workspaces/{id}/hibernate", THE_ADMIN, 409),  # nothing hosts it that could start it again
    right("GET /workspaces/{id}/decisions", LOOKERS, others=404),
    right("GET /workspaces/{id}/restarts", LOOKERS, others=404),
    right("GET /workspaces/{id}/restarts/{generation}", LOOKERS, others=404, before="/workspaces/a/restarting"),
    right("GET /decisions", OPERATORS),
    right("GET /explain/{subject}", CONCERNED, others=404),
    right("GET /workspaces/{id}/queue", TOKENED),
    right("GET /workspaces/{id}/queue/{deferral_id}", CONCERNED, others=404, tokenless=404),
    right("POST /workspaces/{id}/queue/claim", WORKER, 409, others=404),  # it does not poll
    right("POST /workspaces/{id}/queue/{deferral_id}/extend", WORKER, 409, others=404, body=LEASE),
    right("POST /workspaces/{id}/queue/{deferral_id}/events", WORKER, 409, others=404),
    right("POST /workspaces/{id}/queue/{deferral_id}/complete", WORKER, 409, others=404, body={**LEASE, "status": 200}),
    right("POST /workspaces/{id}/queue/{deferral_id}/fail", WORKER, 409, others=404, body=LEASE),
    right("GET /queue", OPERATORS),
    right("GET /queue/{deferral_id}", CONCERNED, others=404, tokenless=404),
    right("POST /queue/drop-stale", THE_ADMIN),
    right("POST /queue/{queue_id}/redrive", THE_ADMIN, 409),
    right("POST /queue/{queue_id}/cancel", THE_ADMIN),
    right("POST /tokens", THE_ADMIN, 201, body={"kind": "client", "name": "made"}),
    right("GET /tokens", THE_ADMIN),
    right("DELETE /tokens/{token_id}", THE_ADMIN),
    right("GET /events", OPERATORS, streams=True),
    right("GET /metrics", OPERATORS),
    right("GET /openapi.json", EVERYBODY),
    right("GET /.well-known/jwks.json", EVERYBODY),
    right("GET /healthz", EVERYBODY),
    right("GET /readyz", EVERYBODY),
)


def routes_of(proxy: Harness) -> set[tuple[str, str]]:
    """Return every route of the running application; HEAD comes with GET."""
    application: web.Application = proxy.app.server._application
    found = set()
    for route in application.router.routes():
        assert route.resource is not None
        if route.method != "HEAD":
            found.add((route.method, route.resource.canonical))
    return found


async def test_every_route_has_its_rights_written_down(proxy: Harness) -> None:
    written = {(each.method, each.path) for each in RIGHTS if each.method != "*"}
    missing, gone = routes_of(proxy) - written, written - routes_of(proxy)
    assert not missing, f"without an entry in RIGHTS: {sorted(missing)}"
    assert not gone, f"not served any more: {sorted(gone)}"
    assert len(RIGHTS) == len(written) + 1


class Scene:
    """A workspace that is away with a deferral in its queue, and a token of every kind."""

    def __init__(self, proxy: Harness, tokens: Mapping[Who, str | None], names: Mapping[str, str]) -> None:
        self.proxy = proxy
        self.tokens = tokens
        self.names = names

    async def ask(self, right: Right, who: Who) -> int:
        """Send one kind of token to a route; the status."""
        path, new = right.path, who is Who.JOINER and right.path == "/workspaces/{id}"
        for name, value in {**self.names, **({"id": "new"} if new else {})}.items():
            path = path.replace(f"{{{name}}}", value)
        assert "{" not in path
        body = {"url": self.names["url"]} if new else right.body
        method = "POST" if right.method == "*" else right.method
        async with self.proxy.session.request(
            method, self.proxy.url + path, headers=self._headers(who), json=body
        ) as answer:
            if not (right.streams and answer.status == 200):
                await answer.read()
            return int(answer.status)

    def _headers(self, who: Who) -> dict[str, str]:
        token = self.tokens[who]
        return {**V1, "Authorization": f"Bearer {token}"} if token else dict(V1)


async def set_scene(make: Callable[..., Any], nobody: str) -> Scene:
    proxy: Harness = await make(join_token=JOIN)
    itself = await proxy.enroll("a", url=nobody, unmanaged_away="defer")
    caller = await proxy.client("caller")
    tokens: dict[Who, str | None] = {
        Who.NOBODY: None,
        Who.GUESSER: "hf_" + "x" * 43,
        Who.STRANGER: await proxy.client("stranger"),
        Who.CALLER: caller,
        Who.JOINER: JOIN,
        Who.OTHER: await proxy.enroll("b", url=nobody),
        Who.ITSELF: itself,
        Who.ADMIN: ADMIN_TOKEN,
    }
    _, body = await proxy.call("POST", "/tokens", json={"kind": "read", "name": "reader"})
    tokens[Who.READER] = json.loads(body)["token"]
    _, body = await proxy.call("POST", "/tokens", json={"kind": "client", "name": "spare"})
    got, _ = await proxy.send("a", caller, message_id="deferred")
    assert got.status == 202
    receipt = got.headers["Holdfast-Receipt"]
    names = {
        "id": "a",
        "queue_id": receipt,
        "deferral_id": receipt,
        "subject": receipt,
        "token_id": json.loads(body)["id"],
        "generation": "1",
        "url": nobody,
    }
    return Scene(proxy, tokens, names)


@pytest.mark.parametrize("right", RIGHTS, ids=lambda right: f"{right.method} {right.path}")
async def test_a_route_serves_whom_it_may_and_nobody_else(make: Callable[..., Any], nobody: str, right: Right) -> None:
    scene = await set_scene(make, nobody)
    if right.before is not None:
        got, _ = await scene.proxy.call("POST", right.before)
        assert got.status == 200
    expected = {
        who: frozenset({right.tokenless if who in TOKENLESS else right.others}) for who in EVERYBODY - right.who
    }
    expected |= dict.fromkeys(right.who, right.answers)
    found = {}
    for who in sorted(Who, key=lambda who: (who in right.who, who is Who.ADMIN)):  # who may change things comes last
        found[who] = await scene.ask(right, who)
    wrong = {who: status for who, status in found.items() if status not in expected[who]}
    assert not wrong
    if right.others == 404 or right.tokenless == 404:
        unknown = Scene(scene.proxy, scene.tokens, {**scene.names, "id": "zz", "deferral_id": "zz", "subject": "zz"})
        assert {await unknown.ask(right, who) for who in EVERYBODY - right.who - TOKENLESS} == {404}


async def test_a_listing_shows_callers_their_own_only(make: Callable[..., Any], nobody: str) -> None:
    scene = await set_scene(make, nobody)
    seen = {}
    for who in sorted(EVERYBODY - TOKENLESS):
        _, body = await scene.proxy.call("GET", "/workspaces/a/queue", token=scene.tokens[who])
        seen[who] = len(json.loads(body)["items"])
    assert seen == {who: int(who in CONCERNED) for who in seen}


async def test_a_kept_admin_token_lives_beside_a_configured_one_until_it_is_deleted(make: Callable[..., Any]) -> None:
    proxy: Harness = await make(admin_token=None)
    listed = [token for token in proxy.app.routing.tokens() if token.kind == "admin"]
    assert len(listed) == 1
    proxy.config = type(proxy.config)(**{**_fields(proxy.config), "admin_token": ADMIN_TOKEN})
    await proxy.restart()
    _, body = await proxy.call("GET", "/tokens")
    assert [token["id"] for token in json.loads(body)["tokens"] if token["kind"] == "admin"] == [listed[0].id]
    assert proxy.app.routing.owner(listed[0].digest) is not None
    got, _ = await proxy.call("DELETE", f"/tokens/{listed[0].id}")
    assert got.status == 200
    assert proxy.app.routing.owner(listed[0].digest) is None
    await proxy.restart()
    assert proxy.app.routing.owner(listed[0].digest) is None


def _fields(config: Any) -> dict[str, Any]:
    return {name: getattr(config, name) for name in config.__dataclass_fields__}


async def test_what_is_never_counted_is_served(proxy: Harness) -> None:
    assert routes_of(proxy) >= {("GET", path) for path in OPEN} | LIFELINE


SAID: Mapping[frozenset[Who], set[str]] = {
    EVERYBODY: set(),
    OPERATORS: {operations.ADMIN, operations.READ},
    THE_ADMIN: {operations.ADMIN},
    WORKER: {operations.ADMIN, operations.OWN},
    LOOKERS: {operations.ADMIN, operations.READ, operations.OWN},
    CONCERNED: {operations.ADMIN, operations.READ, operations.OWN, operations.CALLER},
    TOKENED: {operations.ADMIN, operations.READ, operations.OWN, operations.CALLER},
    JOINERS: {operations.ADMIN, operations.JOIN, operations.OWN},
}


@pytest.mark.parametrize("operation", openapi.declared(), ids=lambda each: f"{each.method} {each.path}")
def test_the_described_api_says_the_same(operation: operations.Operation) -> None:
    right = next(each for each in RIGHTS if (each.method, each.path) == (operation.method, operation.path))
    assert set(operation.who) == SAID[right.who]
    assert operation.hidden is (right.others == 404)
    assert operation.is_counted is (right.path not in OPEN)


def table() -> str:
    """Return the table as the page shows it."""
    head = ["| route | who may | others |", "| --- | --- | --- |"]
    return "\n".join([*head, *(each.row.replace("`* ", "`any ") for each in RIGHTS)])


def test_the_page_shows_this_table() -> None:
    shown = PAGE.read_text(encoding="utf-8").split("<!-- rights -->\n", 1)[1].split("\n<!-- end of rights -->", 1)[0]
    assert shown == table()
