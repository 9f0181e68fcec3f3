"""Owns the signature of an agent card: what is signed, and how the signature stands in the card (A2A v1.0 section 8.4).

Knows nothing of keys, of where they are kept, and of why a card is signed.

A signature is a JWS with a detached payload (RFC 7515 appendix F). The payload is the card without its `signatures`,
as a reader of the protobuf sees it: fields that the protocol does not know are gone, so are empty ones and those that
hold their default, while `false` in a field with presence stays; written in canonical JSON (RFC 8785). A card that a
reader of the protobuf would refuse has no payload and cannot be signed, nor can a card of v0.3 alone, whose signed
form was never settled.
"""

import base64
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from proxy.core.a2a import members as m
from proxy.core.a2a.members import Members

MOST_DEPTH: Final = 128
"""Objects and lists within each other; verifiers refuse more, too."""

_LARGEST_WHOLE: Final = 2**53 - 1
_PLAIN_BELOW, _PLAIN_ABOVE = 21, -7  # exponents of numbers that ECMAScript writes without one
_ESCAPED: Final = re.compile(r'[\x00-\x1f\\"]')
_SHORT: Final = {"\\": "\\\\", '"': '\\"', "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}

# What a member may be: a text; a flag (`false` is the default, and not written); a flag with presence; free JSON; a
# list or a map of one kind; or an object, by its members.
_TEXT, _FLAG, _PRESENT_FLAG, _FREE = "text", "flag", "present flag", "free"
_LIST, _MAP = "list", "map"
_Kind = Any
"""One of the words above, a pair of list or map with a kind, or a dict of kinds."""


def _texts(*names: str) -> dict[str, _Kind]:
    return dict.fromkeys(names, _TEXT)


def _flow(*addresses: str) -> dict[str, _Kind]:
    return {**_texts(*addresses, "refreshUrl"), "scopes": (_MAP, _TEXT)}


_TEXTS: Final = (_LIST, _TEXT)
_REQUIREMENTS: Final = (_LIST, {"schemes": (_MAP, {"list": _TEXTS})})
_SCHEME: Final = {
    "apiKeySecurityScheme": _texts("description", "location", "name"),
    "httpAuthSecurityScheme": _texts("description", "scheme", "bearerFormat"),
    "oauth2SecurityScheme": {
        **_texts("description", "oauth2MetadataUrl"),
        "flows": {
            "authorizationCode": {**_flow("authorizationUrl", "tokenUrl"), "pkceRequired": _FLAG},
            "clientCredentials": _flow("tokenUrl"),
            "implicit": _flow("authorizationUrl"),
            "password": _flow("tokenUrl"),
            "deviceCode": _flow("deviceAuthorizationUrl", "tokenUrl"),
        },
    },
    "openIdConnectSecurityScheme": _texts("description", "openIdConnectUrl"),
    "mtlsSecurityScheme": _texts("description"),
}
_CARD: Final[dict[str, _Kind]] = {
    **_texts("name", "description", "version", "documentationUrl", "iconUrl"),
    "supportedInterfaces": (_LIST, _texts("url", "protocolBinding", "tenant", "protocolVersion")),
    "provider": _texts("url", "organization"),
    "capabilities": {
        **dict.fromkeys(("streaming", "pushNotifications", "extendedAgentCard"), _PRESENT_FLAG),
        "extensions": (_LIST, {**_texts("uri", "description"), "required": _FLAG, "params": _FREE}),
    },
    "securitySchemes": (_MAP, _SCHEME),
    "securityRequirements": _REQUIREMENTS,
    "defaultInputModes": _TEXTS,
    "defaultOutputModes": _TEXTS,
    "skills": (
        _LIST,
        {
            **_texts("id", "name", "description"),
            **dict.fromkeys(("tags", "examples", "inputModes", "outputModes"), _TEXTS),
            "securityRequirements": _REQUIREMENTS,
        },
    ),
}
_SCHEMES_V03: Final = {
    "apiKey": "apiKeySecurityScheme",
    "http": "httpAuthSecurityScheme",
    "oauth2": "oauth2SecurityScheme",
    "openIdConnect": "openIdConnectSecurityScheme",
    "mutualTLS": "mtlsSecurityScheme",
}


class Unsignable(ValueError):  # noqa: N818 - it says what the card is
    """There is no signed form of this card."""


def sign_card(card: Members, *, kid: str, jku: str, sign: Callable[[bytes], bytes]) -> bool:
    """Put a signature into a card; False, and nothing changed, for a card that has no signed form.

    `sign` makes an ES256 signature (RFC 7518 section 3.4) of bytes; `kid` names its key, `jku` the address of the set
    of keys in which that one is found.
    """
    try:
        payload = signed_form(msgspec.json.decode(m.encode(card)))
    except (Unsignable, *m.UNREADABLE):
        return False
    header = canonical({"alg": "ES256", "jku": jku, "kid": kid, "typ": "JOSE"})
    protected = _base64url(header)
    signature = _base64url(sign(f"{protected}.{_base64url(payload)}".encode("ascii")))
    card["signatures"] = m.raw([{"protected": protected, "signature": signature}])
    return True


def signed_form(card: Mapping[str, Any]) -> bytes:
    """The bytes that a card's signatures sign.

    Raises:
        Unsignable: readers of the protobuf would refuse it, or read something else than what it says.
    """
    if not card.get("supportedInterfaces"):
        raise Unsignable("a card of v0.3 alone")
    if not _speaks_for_itself(card):
        raise Unsignable("it says in the words of v0.3 what it does not say in those of v1.0")
    return canonical(_fit(card, _CARD, 1) or {})


def _speaks_for_itself(card: Mapping[str, Any]) -> bool:
    """Readers that know v0.3 as well see the same card as those that do not."""
    capabilities, schemes = card.get("capabilities"), card.get("securitySchemes")
    known = capabilities if isinstance(capabilities, Mapping) else {}
    if card.get("supportsAuthenticatedExtendedCard") and "extendedAgentCard" not in known:
        return False
    skills = card.get("skills")
    listed = [one for one in skills if isinstance(one, Mapping)] if isinstance(skills, list) else []
    if any(one.get("security") and "securityRequirements" not in one for one in (card, *listed)):
        return False
    return all(_is_one_scheme(scheme) for scheme in schemes.values()) if isinstance(schemes, Mapping) else True


def _is_one_scheme(scheme: Any) -> bool:
    """A security scheme in the words of both versions says the same in both."""
    wrapper = _SCHEMES_V03.get(str(scheme.get("type"))) if isinstance(scheme, dict) else None
    if wrapper is None:
        return True
    old = {("location" if name == "in" else name): value for name, value in scheme.items()}
    return bool(_fit({wrapper: old}, _SCHEME, 1) == _fit(scheme, _SCHEME, 1))


def canonical(value: object) -> bytes:
    """Write JSON canonically (RFC 8785).

    Raises:
        Unsignable: a number that JSON readers do not agree on, or a text that is no Unicode.
    """
    try:
        return _written(value).encode("utf-8")
    except UnicodeEncodeError as problem:
        raise Unsignable("a text that is no Unicode") from problem


def _fit(value: Any, kind: _Kind, depth: int) -> Any:
    """What a reader of the protobuf sees of a value; None for what it takes for absent."""
    if value is None:
        return None
    if depth > MOST_DEPTH:
        raise Unsignable("it is nested too deeply")
    if isinstance(kind, dict):
        return _fit_object(_typed(value, dict), kind, depth)
    if isinstance(kind, tuple):
        return _fit_several(value, kind, depth)
    if kind == _FREE:
        return _free(_typed(value, dict), depth)
    seen = _typed(value, str if kind == _TEXT else bool)
    return seen if kind == _PRESENT_FLAG else seen or None


def _fit_several(value: Any, kind: _Kind, depth: int) -> Any:
    container, inner = kind
    several = _typed(value, list if container == _LIST else dict)
    if any(one is None for one in (several if container == _LIST else several.values())):
        raise Unsignable(f"null in a {container}")
    if container == _LIST:
        return [seen for one in several if (seen := _fit(one, inner, depth + 1)) is not None] or None
    return _kept({name: _fit(one, inner, depth + 1) for name, one in several.items()})


def _fit_object(value: dict[str, Any], kinds: Mapping[str, _Kind], depth: int) -> dict[str, Any] | None:
    seen = {}
    for name, kind in kinds.items():
        snake = re.sub(r"[A-Z]", lambda letter: f"_{letter[0].lower()}", name)
        if snake != name and snake in value and name in value:
            raise Unsignable(f"{name} stands there twice")
        seen[name] = _fit(value.get(name, value.get(snake)), kind, depth + 1)
    return _kept(seen)


def _free(value: Any, depth: int) -> Any:
    """The same for JSON of any shape, in which every number is a double."""
    if depth > MOST_DEPTH:
        raise Unsignable("it is nested too deeply")
    if isinstance(value, dict):
        return _kept({name: _free(one, depth + 1) for name, one in value.items()})
    if isinstance(value, list):
        return [seen for one in value if (seen := _free(one, depth + 1)) is not None] or None
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError as problem:
            raise Unsignable("a number beyond doubles") from problem
        return int(number) if number.is_integer() else number
    return None if value == "" else value


def _kept(seen: dict[str, Any]) -> dict[str, Any] | None:
    return {name: one for name, one in seen.items() if one is not None} or None


def _typed(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise Unsignable(f"{type(value).__name__} where {kind.__name__} belongs")
    return value


def _written(value: object) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str):
        return f'"{_ESCAPED.sub(_escape, value)}"'
    if isinstance(value, int | float):
        return _number(value)
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_written, value))}]"
    if isinstance(value, Mapping):
        names = sorted(value, key=lambda name: str(name).encode("utf-16-be", "surrogatepass"))
        return "{" + ",".join(f"{_written(name)}:{_written(value[name])}" for name in names) + "}"
    raise Unsignable(f"{type(value).__name__} is not JSON")


def _escape(found: re.Match[str]) -> str:
    return _SHORT.get(found[0]) or f"\\u{ord(found[0]):04x}"


def _number(value: float) -> str:
    """As ECMAScript writes it (ECMA-262, Number::toString)."""
    if isinstance(value, int):
        if abs(value) > _LARGEST_WHOLE:
            raise Unsignable("a whole number that doubles cannot hold")
        return str(value)
    if not math.isfinite(value):
        raise Unsignable("a number that JSON does not know")
    if value == 0:
        return "0"
    sign = "-" if value < 0 else ""
    mantissa, _, exponent = f"{abs(value)!r}".partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    point = len(whole) + int(exponent or 0) - (len(whole + fraction) - len(digits))  # of the digits stand before it
    digits = digits.rstrip("0")
    if point > _PLAIN_BELOW or point <= _PLAIN_ABOVE + 1:
        rest = f".{digits[1:]}" if digits[1:] else ""
        return f"{sign}{digits[0]}{rest}e{point - 1:+d}"
    if point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    if point >= len(digits):
        return sign + digits + "0" * (point - len(digits))
    return f"{sign}{digits[:point]}.{digits[point:]}"


def _base64url(data: bytes) -> str:
    """Without padding (RFC 7515 section 2)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")
