"""Owns the signature of a webhook, by the convention of Standard Webhooks (symmetric, `v1`). Knows no requests.

What is signed is `ID.TIMESTAMP.BODY`, with HMAC-SHA256. The receiver computes the same over what it got, compares in
constant time, and refuses a timestamp that is far from its own clock: then nobody can send an old request again.
"""

import base64
import binascii
import hashlib
import hmac
from typing import Final

PREFIX: Final = "whsec_"
"""How a secret begins whose rest is base64; any other secret is its own bytes."""

SHORTEST: Final = 16
"""Bytes of a secret, at the least."""


class BadSecret(ValueError):  # noqa: N818 - it says what is true of the secret
    """The secret cannot be used; the message never holds it."""


def key_of(secret: str) -> bytes:
    """Return the bytes of a secret; BadSecret when it is too short, or no base64 where it should be."""
    text = secret.strip()
    if text.startswith(PREFIX):
        try:
            key = base64.b64decode(text.removeprefix(PREFIX), validate=True)
        except binascii.Error:
            raise BadSecret(f"what follows {PREFIX} must be base64") from None
    else:
        key = text.encode()
    if len(key) < SHORTEST:
        raise BadSecret(f"must hold at least {SHORTEST} bytes")
    return key


def sign(key: bytes, message_id: str, timestamp: int, body: bytes) -> str:
    """Return the value of `webhook-signature`; `timestamp` is in whole seconds since the epoch."""
    signed = b".".join((message_id.encode(), str(timestamp).encode(), body))
    return "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
