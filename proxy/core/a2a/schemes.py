"""Owns which request headers a card's security schemes make into credentials.

Knows nothing of where a card comes from and what is done with such headers. Only API keys name a header of their own;
HTTP, OAuth 2 and OpenID Connect schemes all use `Authorization`, which everybody knows to be secret.

| version | a scheme that names a header |
| --- | --- |
| v0.3 | `{"type": "apiKey", "in": "header", "name": "X-Key"}` |
| v1.0 | `{"apiKeySecurityScheme": {"location": "header", "name": "X-Key"}}` |
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

_SCHEMES: Final = ("securitySchemes", "security_schemes")
_API_KEYS: Final = ("apiKeySecurityScheme", "api_key_security_scheme")
_PLACES: Final = ("in", "location", "in_")


def credential_headers(card: Mapping[str, Any] | None) -> frozenset[bytes]:
    """The header names, in lower case, in which this agent expects an API key. Never raises, however odd the card."""
    found = set()
    for name in _SCHEMES:
        schemes = (card or {}).get(name)
        for scheme in schemes.values() if isinstance(schemes, Mapping) else ():
            header = _header(scheme)
            if header is not None:
                found.add(header.lower().encode("utf-8", "surrogatepass"))
    return frozenset(found)


def credential_headers_of(body: bytes) -> frozenset[bytes]:
    """The same for a card as its agent serves it; nothing for a body that is no card."""
    try:
        card = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return frozenset()
    return credential_headers(card) if isinstance(card, dict) else frozenset()


def _header(scheme: object) -> str | None:
    if not isinstance(scheme, Mapping):
        return None
    for wrapper in _API_KEYS:
        inner = scheme.get(wrapper)
        if isinstance(inner, Mapping):
            scheme = inner
    place = next((scheme[key] for key in _PLACES if key in scheme), None)
    name = scheme.get("name")
    return name if place == "header" and isinstance(name, str) and name else None
