"""Owns what a client sees of an agent's card: its addresses, all below the one where Holdfast stands.

Knows nothing of caching, ETags, keys, and of where cards are kept.

Clients refuse cards whose interfaces have several origins, and go past the proxy where one is left alone. So every
interface that Holdfast carries is rewritten and every other is dropped: gRPC, addresses that are not HTTP, and other
servers than the agent. Agents often do not know under which name they are dialled; the agent's own server is the one
that Holdfast dials where the card names it, else the one of the card's first HTTP interface. Addresses of other things
(provider, documentation, icons, OAuth servers) are not interfaces and stay. So does every unknown field.

A card in which no interface had to change passes as it is, byte for byte. In every other one the agent's `signatures`
no longer hold, and a broken signature looks like tampering (A2A v1.0 section 8.4): they go, or Holdfast's own takes
their place.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit

from msgspec import Raw

from proxy.core.a2a import members as m
from proxy.core.a2a.members import Members

_NEW_LISTS: Final = ("supportedInterfaces", "supported_interfaces")
_OLD_LISTS: Final = ("additionalInterfaces", "additional_interfaces")
_TRANSPORTS: Final = ("protocolBinding", "protocol_binding", "transport")
_PREFERRED: Final = ("preferredTransport", "preferred_transport")
_MARKS: Final = ("name", "skills", "capabilities")
_SIGNATURES: Final = "signatures"
_EXTENDED: Final = ("supportsAuthenticatedExtendedCard", "supports_authenticated_extended_card")
_EXTENDED_CAPABILITY: Final = ("extendedAgentCard", "extended_agent_card")
_PORTS: Final = {"http": 80, "https": 443}
_MYSELF: Final = frozenset({"localhost", "0.0.0.0", "::", "::1"})  # noqa: S104 - names that agents give themselves
_LOOPBACK: Final = "127."

Sign = Callable[[Members], bool]
"""Puts a signature into a card; False for a card that cannot be signed."""

_Server = tuple[str, int | None]
_NOBODY: Final[_Server] = ("", None)


def is_card(body: bytes) -> bool:
    """Whether a body is an agent's card by itself (not one inside a JSON-RPC answer)."""
    document = m.document(body)
    return document is not None and "jsonrpc" not in document and _is_card(document)


def rewrite_card(
    body: bytes,
    public_base: str,
    upstream_base: str,
    *,
    keep_others: bool = False,
    extended: bool = True,
    sign: Sign | None = None,
) -> bytes:
    """The card in `body` with its interfaces below `public_base`; any body that is no card as it is.

    `body` is a card or the JSON-RPC answer to a request for the extended one. An interface's path below that of
    `upstream_base` is kept, since that is what Holdfast forwards; one that lies elsewhere leads to `public_base`, one
    that lies below `public_base` already stays. `keep_others` leaves interfaces that Holdfast does not carry where they
    are. Not `extended`: the card announces no extended one. `sign` signs a card that was changed, or had no signature.
    """
    document = m.document(body)
    if document is None:
        return body
    base = _Addresses(public=public_base.rstrip("/"), upstream=upstream_base, keep_others=keep_others)

    def show(card: Members) -> bool:
        if not _is_card(card):
            return False
        changed = _rewrite(card, base)
        if not extended:
            changed = m.any_of((changed, _announce_no_extended(card)))
        if changed:
            card.pop(_SIGNATURES, None)
        if sign is not None and not m.items(card.get(_SIGNATURES)):
            return sign(card) or changed
        return changed

    changed = m.change_member(document, "result", show) if "jsonrpc" in document else show(document)
    return m.encode(document) if changed else body


def _announce_no_extended(card: Members) -> bool:
    """Say nothing of an extended card; whether it was announced."""

    def without(names: tuple[str, ...], owner: Members) -> bool:
        return m.any_of(owner.pop(name, None) is not None for name in names)

    announced = without(_EXTENDED, card)
    return m.change_member(card, "capabilities", partial(without, _EXTENDED_CAPABILITY)) or announced


class _Addresses:
    """Where a card's interfaces are now, and where they are to be."""

    __slots__ = ("keep_others", "own", "path", "public", "upstream")

    def __init__(self, *, public: str, upstream: str, keep_others: bool) -> None:
        parts = _split(upstream)
        self.public = public
        self.path = parts.path.rstrip("/") if parts is not None else ""
        self.upstream = _server(parts)
        self.own = self.upstream
        self.keep_others = keep_others

    def meet(self, card: Members) -> None:
        """Find out which server is the agent's own."""
        named = [_server(_split(url)) for url in _addresses(card) if not self.is_public(url)]
        self.own = self.upstream if self.upstream in named or not named else named[0]

    def is_public(self, url: str) -> bool:
        """It leads to the workspace behind Holdfast already."""
        return url == self.public or url.startswith((f"{self.public}/", f"{self.public}?"))

    def carries(self, url: str, transport: str | None) -> bool:
        """Requests to that interface are what Holdfast forwards."""
        if (transport or "").upper() == "GRPC":
            return False
        parts = _split(url)
        return parts is not None and (self.is_public(url) or _server(parts) == self.own)

    def moved(self, url: str) -> str:
        """The public address of an upstream address."""
        parts = _split(url)
        if parts is None:
            return self.public
        path = parts.path
        below = path[len(self.path) :] if path == self.path or path.startswith(f"{self.path}/") else ""
        if self.is_public(url):
            path = urlsplit(self.public).path
            below = parts.path[len(path) :]
        elif below == "/" and not self.path:
            below = ""  # `http://host` and `http://host/` are one address
        if any(unquote(segment) in {".", ".."} for segment in below.split("/")):
            below = ""  # a client would resolve it, and leave the workspace
        return self.public + below + (f"?{parts.query}" if parts.query else "")


def _rewrite(card: Members, base: _Addresses) -> bool:
    """Rewrite every interface; whether any of them is another now."""
    base.meet(card)
    changed = False
    remaining: list[Members] = []
    for name in (*_NEW_LISTS, *_OLD_LISTS):
        if name not in card:
            continue
        shown, differs = _shown(card[name], base)
        if differs:
            card[name] = m.raw(shown)
            changed = True
        if name in _OLD_LISTS:
            remaining = shown
    url = m.text(card.get("url"))
    if url is None:
        return changed
    if base.carries(url, next((m.text(card[name]) for name in _PREFERRED if name in card), None)):
        moved = base.moved(url)
        if moved == url:
            return changed
        card["url"] = m.raw(moved)
    elif base.keep_others:
        return changed
    else:
        _prefer_another(card, remaining, base)
    return True


def _prefer_another(card: Members, remaining: list[Members], base: _Addresses) -> None:
    """The main address is one Holdfast does not carry: the first additional interface takes its place."""
    for name in _PREFERRED:
        card.pop(name, None)
    card["url"] = m.raw(base.public)
    if remaining:
        card["url"] = remaining[0]["url"]
        transport = remaining[0].get("transport")
        if transport is not None:
            card["preferredTransport"] = transport


def _shown(interfaces: Raw, base: _Addresses) -> tuple[list[Members], bool]:
    """The interfaces that a client sees, and whether they differ from those that the agent named."""
    shown, differs = [], False
    for item in m.items(interfaces) or ():
        interface = m.members(item)
        url = m.text((interface or {}).get("url"))
        if interface is None or url is None:
            differs = True
            continue
        if base.carries(url, _transport(interface)):
            moved = base.moved(url)
            differs = differs or moved != url
            shown.append(interface | {"url": m.raw(moved)})
        elif base.keep_others:
            shown.append(interface)
        else:
            differs = True
    return shown, differs


def _addresses(card: Members) -> Iterator[str]:
    """The addresses of all HTTP interfaces, the preferred first (A2A v1.0 section 8.3.1)."""

    def listed(names: tuple[str, ...]) -> Iterator[tuple[str | None, str | None]]:
        for name in names:
            for item in m.items(card.get(name)) or ():
                interface = m.members(item) or {}
                yield m.text(interface.get("url")), _transport(interface)

    main = (m.text(card.get("url")), next((m.text(card[name]) for name in _PREFERRED if name in card), None))
    for url, transport in (*listed(_NEW_LISTS), main, *listed(_OLD_LISTS)):
        if url is not None and (transport or "").upper() != "GRPC" and _split(url) is not None:
            yield url


def _transport(interface: Members) -> str | None:
    return next((m.text(interface[name]) for name in _TRANSPORTS if name in interface), None)


def _is_card(value: Members) -> bool:
    if not any(name in value for name in _MARKS):
        return False
    return any(m.items(value.get(name)) is not None for name in _NEW_LISTS) or m.text(value.get("url")) is not None


def _split(url: str) -> SplitResult | None:
    """The parts of an HTTP address, None for any other."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return None
    return parts if parts.scheme.lower() in _PORTS else None


def _server(parts: SplitResult | None) -> _Server:
    """Which server an address names: host and port, in one spelling."""
    if parts is None:
        return _NOBODY
    host = (parts.hostname or "").rstrip(".")
    if host in _MYSELF or host.startswith(_LOOPBACK):
        host = "localhost"
    return host, parts.port or _PORTS[parts.scheme.lower()]
