"""Owns what a client sees of an agent's card: its addresses, all below the one where Holdfast stands.

Knows nothing of caching, ETags, and of where cards are kept.

Clients refuse cards whose interfaces have several origins, and go past the proxy where one is left alone. So every
interface that Holdfast carries is rewritten, every other (gRPC, addresses that are not HTTP) is dropped, and the
`signatures` go, since they no longer hold: a broken signature looks like tampering (A2A v1.0 section 8.4). Addresses of
other things (provider, documentation, icons, OAuth servers) are not interfaces and stay. So does every unknown field.
"""

from typing import Final
from urllib.parse import unquote, urlsplit

from msgspec import Raw

from proxy.core.a2a import members as m
from proxy.core.a2a.members import Members

_NEW_LISTS: Final = ("supportedInterfaces", "supported_interfaces")
_OLD_LISTS: Final = ("additionalInterfaces", "additional_interfaces")
_TRANSPORTS: Final = ("protocolBinding", "protocol_binding", "transport")
_PREFERRED: Final = ("preferredTransport", "preferred_transport")
_MARKS: Final = ("name", "skills", "capabilities")


def rewrite_card(body: bytes, public_base: str, upstream_base: str) -> bytes:
    """The card in `body` with its interfaces below `public_base`; any body that is no card as it is.

    `body` is a card or the JSON-RPC answer to a request for the extended one. An interface's path below that of
    `upstream_base` is kept, since that is what Holdfast forwards; one that lies elsewhere leads to `public_base`.
    """
    document = m.document(body)
    if document is None:
        return body
    base = _Addresses(public=public_base.rstrip("/"), path=_path(upstream_base).rstrip("/"))

    def rewrite(card: Members) -> bool:
        return _rewrite(card, base)

    changed = m.change_member(document, "result", rewrite) if "jsonrpc" in document else rewrite(document)
    return m.encode(document) if changed else body


class _Addresses:
    """Where interfaces are now, and where they are to be."""

    __slots__ = ("path", "public")

    def __init__(self, *, public: str, path: str) -> None:
        self.public = public
        self.path = path

    def moved(self, url: str) -> str:
        """The public address of an upstream address. The host does not matter: agents often do not know their own."""
        parts = urlsplit(url)
        below = parts.path[len(self.path) :] if _lies_below(parts.path, self.path) else ""
        if below == "/" and not self.path:
            below = ""  # `http://host` and `http://host/` are one address
        if any(unquote(segment) in {".", ".."} for segment in below.split("/")):
            below = ""  # a client would resolve it, and leave the workspace
        return self.public + below + (f"?{parts.query}" if parts.query else "")


def _rewrite(card: Members, base: _Addresses) -> bool:
    if not _is_card(card):
        return False
    card.pop("signatures", None)
    for name in _NEW_LISTS:
        if name in card:
            card[name] = m.raw(_carried(card[name], base))
    remaining: list[Members] = []
    for name in _OLD_LISTS:
        if name in card:
            remaining = _carried(card[name], base)
            card[name] = m.raw(remaining)
    url = m.text(card.get("url"))
    if url is None:
        return True
    transport = next((m.text(card[name]) for name in _PREFERRED if name in card), None)
    if _is_carried(url, transport):
        card["url"] = m.raw(base.moved(url))
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


def _carried(interfaces: Raw, base: _Addresses) -> list[Members]:
    kept = []
    for item in m.items(interfaces) or ():
        interface = m.members(item)
        url = m.text((interface or {}).get("url"))
        if interface is None or url is None:
            continue
        transport = next((m.text(interface[name]) for name in _TRANSPORTS if name in interface), None)
        if _is_carried(url, transport):
            kept.append(interface | {"url": m.raw(base.moved(url))})
    return kept


def _is_carried(url: str, transport: str | None) -> bool:
    if (transport or "").upper() == "GRPC":
        return False
    try:
        return urlsplit(url).scheme.lower() in {"http", "https"}
    except ValueError:
        return False


def _is_card(value: Members) -> bool:
    if not any(name in value for name in _MARKS):
        return False
    return any(m.items(value.get(name)) is not None for name in _NEW_LISTS) or m.text(value.get("url")) is not None


def _lies_below(path: str, base: str) -> bool:
    return path == base or path.startswith(f"{base}/")


def _path(url: str) -> str:
    try:
        return urlsplit(url).path
    except ValueError:
        return ""
