"""Owns what a Holdfast token looks like, how it is hashed, and where a request carries it.

Knows nothing of which tokens exist: the store keeps digests only, and looking one up is its work. A token is ``hf_``
and 256 bits of chance, so a plain SHA-256 is digest enough: there is nothing to guess that a slow hash would protect.
"""

import base64
import hashlib
import hmac
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

PREFIX: Final = "hf_"
TOKEN_BYTES: Final = 32
# Tokens an operator chooses may be of any length up to this; the characters are those of RFC 6750's b64token.
WELL_FORMED: Final = re.compile(r"hf_[A-Za-z0-9._~+/-]{1,509}=*", re.ASCII)
_BEARER_HOLDFAST: Final = re.compile(r"\s*(?i:bearer)\s+(hf_.*)", re.ASCII | re.DOTALL)


class TokenKind(StrEnum):
    """Whom a token speaks for."""

    ADMIN = "admin"
    WORKSPACE = "workspace"
    CLIENT = "client"
    JOIN = "join"
    READ = "read"


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """The one owner of a token: the admin (who has no name), or a named workspace, client, joiner or reader."""

    kind: TokenKind
    name: str = ""

    def __post_init__(self) -> None:
        if (self.kind is TokenKind.ADMIN) == bool(self.name):
            raise ValueError("the admin has no name; every other owner has one")

    @property
    def caller(self) -> str:
        """The owner as one string, ``workspace:a``, ``client:x`` or ``admin``: scopes idempotency keys and queues."""
        return f"{self.kind}:{self.name}" if self.name else str(self.kind)


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """What a request's headers say about its caller.

    ``token`` is well formed but unverified; None means that the caller showed none. ``strip_authorization`` says that
    ``Authorization`` holds a Holdfast token and must not reach the agent. ``denied`` means that the header that counts
    is given twice or holds a malformed token: answer 401, whatever else there is.
    """

    token: str | None
    strip_authorization: bool
    denied: bool = False

    def __repr__(self) -> str:
        shown = None if self.token is None else f"{PREFIX}***"
        return f"Credentials(token={shown!r}, strip_authorization={self.strip_authorization!r}, denied={self.denied!r})"


def new_token(chance_bytes: Callable[[int], bytes]) -> str:
    """Make a token from 32 bytes of chance (``secrets.token_bytes`` in production): ``hf_`` and 43 characters."""
    chance = chance_bytes(TOKEN_BYTES)
    if len(chance) != TOKEN_BYTES:
        raise ValueError(f"a token needs {TOKEN_BYTES} bytes of chance, got {len(chance)}")
    return PREFIX + base64.urlsafe_b64encode(chance).rstrip(b"=").decode("ascii")


def check_token(text: str) -> str | None:
    """Return why ``text`` cannot be a token, without repeating it, or None. For tokens that an operator chose."""
    if WELL_FORMED.fullmatch(text) is not None:
        return None
    return f"a token is '{PREFIX}' and then 1 to 509 letters, digits or '.', '_', '~', '+', '/', '-'"


def digest(token: str) -> str:
    """Return the SHA-256 of a token in lower-case hexadecimal: the only form in which a token is kept."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def matches(token: str, stored: str) -> bool:
    """Whether ``token`` has the digest ``stored``, compared in constant time; False for a malformed digest."""
    return same(digest(token), stored)


def same(hashed: str, stored: str) -> bool:
    """Whether two digests are one, compared in constant time; False for a malformed one."""
    return hmac.compare_digest(hashed.encode("utf-8", "surrogateescape"), stored.encode("utf-8", "surrogateescape"))


def read_credentials(*, holdfast_token: Sequence[str], authorization: Sequence[str]) -> Credentials:
    """Read the caller's token from every value of ``Holdfast-Token`` and of ``Authorization``.

    ``Holdfast-Token`` comes first, else ``Authorization: Bearer hf_...``; any other ``Authorization`` is the agent's
    and stays, however odd. Where ``Holdfast-Token`` is given, nothing else is read: a Holdfast token that stands in
    ``Authorization`` as well, the same or another, is only kept from the agent. The header that counts must hold one
    well-formed token and be given once: of two values, somebody between us and the caller might have picked the other.
    """
    bearers = (
        [found.group(1).strip() for value in authorization if (found := _BEARER_HOLDFAST.fullmatch(value))]
        if authorization
        else []
    )
    strip = bool(bearers)
    if holdfast_token:
        shown, given = holdfast_token[0].strip(), len(holdfast_token)
    elif bearers:
        shown, given = bearers[0], len(authorization)
    else:
        return Credentials(token=None, strip_authorization=False)
    if given > 1 or WELL_FORMED.fullmatch(shown) is None:
        return Credentials(token=None, strip_authorization=strip, denied=True)
    return Credentials(token=shown, strip_authorization=strip)
