"""Owns what a secret looks like when something is about to be shown. Knows nothing of logs or configurations.

Secrets do not get near a log by design; this is the net below. A value whose name says that it holds a secret is
masked, and so is anything that looks like a Holdfast token or like the user part of a URL, wherever it stands.
"""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Final

from proxy.core.times import rfc3339

MASK: Final = "***"
_SECRET_WORDS: Final = frozenset(
    {"token", "secret", "password", "passwd", "passphrase", "authorization", "bearer", "cookie", "apikey"}
)
_SECRET_NAMES: Final = frozenset(
    {"credential", "credentials", "api_key", "x_api_key", "private_key", "encryption_key", "vault_key"}
)
_CAMEL: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_TOKEN_ANYWHERE: Final = re.compile(r"hf_[A-Za-z0-9._~+/-]+=*", re.ASCII)
_USERINFO: Final = re.compile(r"(?<=://)[^/@\s]+(?=@)")


def masked(name: str, value: object) -> object:
    """Return ``value`` as JSON-able data with ``***`` for every secret in it.

    Mappings and sequences are looked into; an object of any other kind becomes its text, an instant RFC 3339.
    """
    if value is None or isinstance(value, bool | int | float):
        return value
    if _is_secret(name):
        return MASK
    if isinstance(value, Mapping):
        return {str(key): masked(str(key), inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [masked("", inner) for inner in value]
    text = value if isinstance(value, str) else rfc3339(value) if isinstance(value, datetime) else str(value)
    return _USERINFO.sub(MASK, _TOKEN_ANYWHERE.sub(f"hf_{MASK}", text))


def _is_secret(name: str) -> bool:
    words = re.split(r"[^a-z0-9]+", _CAMEL.sub("_", name).lower())
    return not _SECRET_WORDS.isdisjoint(words) or "_".join(words) in _SECRET_NAMES
