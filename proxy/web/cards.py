"""Agent cards as clients see them: at one address, with a validator, and also while their workspace is away.

Owns: the address that cards lead to, ETag and If-None-Match, which cards are kept and when a kept one is served, the
set of keys that signatures are verified with.
Knows nothing of: how a card is rewritten or signed (`core.a2a`), where it is kept (`loops.card_keeping`).

Only what an agent shows to everybody is kept: the card at its well-known path, asked for without credentials (or
declared public) and not declared private (RFC 9111 section 3.5). An extended card is for the client that asked for it;
while the workspace is away nobody gets it, and the kept card does not announce it: some clients ask for it first.
"""

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address

import msgspec
from aiohttp import hdrs, web

from proxy.core import a2a
from proxy.core.addresses import IPNetwork
from proxy.forward import Answer, RawHeaders
from proxy.forward.headers import answer_fields
from proxy.loops.card_keeping import CardKeeping
from proxy.loops.routing import Route
from proxy.store.card_keys import CardKeys
from proxy.web import shapes
from proxy.web.answers import REQUEST_ID, json_answer
from proxy.web.arrived import Arrived
from proxy.web.asked import Asked
from proxy.web.operations import ANYBODY, Operation
from proxy.web.operations import Answer as Answered
from proxy.web.passed_on import Whole
from proxy.web.places import is_rooted

JWKS = "/.well-known/jwks.json"
WELL_KNOWN = frozenset({"/.well-known/agent-card.json", "/.well-known/agent.json"})
READS = frozenset({"GET", "HEAD"})
OK, NOT_MODIFIED = 200, 304

REVALIDATE = "no-cache"
"""What a client is told of a kept card: the workspace may show another one as soon as it is back."""

MOST_CREDENTIALS = 256
"""Names of headers that an agent's cards made secret one after the other; when there are more, the latest card's."""

_CODINGS = frozenset({b"accept-encoding"})
_UNASKED = _CODINGS | frozenset({b"if-none-match", b"if-modified-since", b"if-match", b"if-range", b"range"})
_REPLACED = frozenset({b"etag"})
_OF_A_BODY = frozenset({b"content-type", b"content-encoding", b"content-language", b"content-range"})
_CREDENTIALS = frozenset({b"authorization", b"cookie"})
_ETAG = re.compile(r'\*|(?:W/)?"[^"]*"')
_AUTHORITY = re.compile(r"[A-Za-z0-9._~:\[\]-]{1,255}")
_PREFIX = re.compile(r"(?:/[A-Za-z0-9._~!$&'()*+,;=:@%-]+)+")


@dataclass(frozen=True, slots=True, kw_only=True)
class CardRules:
    """What is configured about cards; `max_age` in seconds."""

    public_url: str | None
    keep_others: bool
    forwarded_from: tuple[IPNetwork, ...]
    max_age: float


class Cards:
    """Shows agents' cards. Without `keys` nothing is signed."""

    def __init__(self, *, rules: CardRules, keys: CardKeys | None, keeping: CardKeeping) -> None:
        self._rules = rules
        self._keys = keys
        self._keeping = keeping

    @property
    def signs(self) -> bool:
        """Cards are signed, and whoever verifies one asks for the keys."""
        return self._keys is not None

    # The way to the agent, and back

    @staticmethod
    def plain(asked: Asked, *, card: bool) -> tuple[str, RawHeaders]:
        """Method and headers with which an agent is asked for what must be read here: for all of it, and uncoded.

        Without `Accept-Encoding` any coding would do (RFC 9110 section 12.5.3). A client's validators are of the card
        that it was shown, which its agent does not know.
        """
        unasked = _UNASKED if card else _CODINGS
        headers = tuple(pair for pair in asked.headers if pair[0].lower() not in unasked)
        method = "GET" if card and asked.method == "HEAD" else asked.method
        return method, (*headers, (b"Accept-Encoding", b"identity"))

    def show(self, arrived: Arrived, asked: Asked, answer: Answer, content: bytes) -> Whole:
        """An agent's answer that may hold a card, as its client sees it."""
        route = asked.route
        named = a2a.credential_headers_of(content)
        seen = route.seen_credentials | named
        route.seen_credentials = seen if len(seen) <= MOST_CREDENTIALS else named
        status, reason, headers = answer.status, answer.reason, answer.headers
        body = self._rewritten(arrived, route, content)
        if status == OK and asked.method in READS and a2a.is_card(content):
            if _is_for_all(asked, headers):
                self._keeping.take(route, content)
            etag = _etag(body)
            headers = self._with_validator(headers, etag)
            if _knows(arrived, etag):
                status, reason, body = NOT_MODIFIED, b"Not Modified", b""
                headers = tuple(pair for pair in headers if pair[0].lower() not in _OF_A_BODY)
        fields = answer_fields(headers, reframed=True)
        return Whole(status=status, reason=reason, fields=fields, request_id=asked.request_id, body=body)

    def _rewritten(self, arrived: Arrived, route: Route, content: bytes, *, extended: bool = True) -> bytes:
        origin = self.origin(arrived)
        return a2a.rewrite_card(
            content,
            origin if is_rooted(arrived.target) else f"{origin}/workspaces/{route.id}/a2a",
            route.workspace.url or "",
            keep_others=self._rules.keep_others,
            extended=extended,
            sign=self._signer(origin),
        )

    def _signer(self, origin: str) -> Callable[[a2a.Members], bool] | None:
        keys = self._keys
        if keys is None:
            return None
        return lambda card: a2a.sign_card(card, kid=keys.kid, jku=origin + JWKS, sign=keys.sign)

    def _with_validator(self, headers: RawHeaders, etag: str) -> RawHeaders:
        kept = tuple(pair for pair in headers if pair[0].lower() not in _REPLACED)
        caching = any(name.lower() in {b"cache-control", b"expires"} for name, _ in kept)
        if not caching and self._rules.max_age:
            kept = (*kept, (b"Cache-Control", b"private, max-age=%d" % self._rules.max_age))
        return (*kept, (b"ETag", etag.encode("ascii")))

    def origin(self, arrived: Arrived) -> str:
        """Where the client calls Holdfast: scheme, authority and what stands before its paths, without a last slash."""
        if self._rules.public_url is not None and not is_rooted(arrived.target):
            return self._rules.public_url.rstrip("/")
        if not self._rules.forwarded_from or not self._is_trusted(arrived.remote):
            return arrived.origin
        shown = arrived.headers
        scheme, _, authority = arrived.origin.partition("://")
        proto = _first(shown.first(b"x-forwarded-proto")).lower()
        host = _first(shown.first(b"x-forwarded-host"))
        prefix = _first(shown.first(b"x-forwarded-prefix")).rstrip("/")
        scheme = proto if proto in {"http", "https"} else scheme
        authority = host if _AUTHORITY.fullmatch(host) else authority
        return f"{scheme}://{authority}{prefix if _PREFIX.fullmatch(prefix) else ''}"

    def _is_trusted(self, remote: str | None) -> bool:
        try:
            address = ip_address(remote or "")
        except ValueError:
            return False
        mapped = getattr(address, "ipv4_mapped", None) or address
        return any(mapped in network for network in self._rules.forwarded_from)

    # While the workspace is away

    def offer(self, arrived: Arrived, asked: Asked) -> None:
        """Let a request for a workspace's public card be answered with the kept one, should its agent not answer."""
        if asked.method in READS and asked.tail.partition("?")[0] in WELL_KNOWN:
            asked.instead = lambda headers: self._kept(arrived, asked, headers)

    def _kept(self, arrived: Arrived, asked: Asked, headers: Mapping[str, str]) -> web.Response | None:
        card = asked.route.workspace.agent_card
        content = msgspec.json.encode(card) if card is not None else b""
        if not a2a.is_card(content):
            return None
        body = self._rewritten(arrived, asked.route, content, extended=False)
        etag = _etag(body)
        fields = {**headers, REQUEST_ID: asked.request_id, hdrs.ETAG: etag, hdrs.CACHE_CONTROL: REVALIDATE}
        if _knows(arrived, etag):
            return web.Response(status=NOT_MODIFIED, headers=fields)
        return web.Response(body=body, content_type="application/json", headers=fields)

    # The keys

    def routes(self) -> list[web.RouteDef]:
        """What this door serves."""
        return [web.get(JWKS, self.jwks)]

    async def jwks(self, _: web.Request) -> web.Response:
        """`GET /.well-known/jwks.json`: the keys that sign cards, for everybody; none where nothing is signed."""
        keys = self._keys.jwks() if self._keys is not None else {"keys": []}
        return json_answer(keys, headers={hdrs.CACHE_CONTROL: f"public, max-age={int(self._rules.max_age)}"})


OPERATIONS = (
    Operation(
        method="GET",
        path=JWKS,
        name="show_card_keys",
        text="The public keys with which Holdfast signs agent cards (RFC 7517); none where it does not sign.",
        tag="proxy",
        who=ANYBODY,
        is_counted=False,
        uses_store=False,
        answers={200: Answered(text="The set of keys.", shape=shapes.CardKeySet)},
    ),
)


def _etag(body: bytes) -> str:
    return f'"{hashlib.sha256(body).hexdigest()[:32]}"'


def _knows(arrived: Arrived, etag: str) -> bool:
    """The client has this very card (RFC 9110 section 13.1.2; the comparison is weak)."""
    known = _ETAG.findall(", ".join(arrived.headers.getall("If-None-Match")))
    return any(one == "*" or one.removeprefix("W/") == etag for one in known)


def _is_for_all(asked: Asked, headers: RawHeaders) -> bool:
    """The answer is the card that this agent shows to everybody."""
    path, _, query = asked.tail.partition("?")
    if path not in WELL_KNOWN or query:
        return False
    said = b",".join(value for name, value in headers if name.lower() == b"cache-control").lower()
    directives = {one.partition(b"=")[0].strip() for one in said.split(b",")}
    if directives & {b"private", b"no-store"}:
        return False
    secret = _CREDENTIALS | asked.route.credential_headers
    return b"public" in directives or not any(name.lower() in secret for name, _ in asked.headers)


def _first(value: str | None) -> str:
    """The first member of a list: what the outermost proxy said."""
    return (value or "").partition(",")[0].strip()
