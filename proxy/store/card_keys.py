"""The keys with which Holdfast signs agent cards.

Owns: their file, signing, the set of public keys that clients verify with (RFC 7517).
Knows nothing of: cards.

The file holds private keys on the curve P-256 as PEM, one behind the other: the first signs, the others are only
published, so that what they signed is verified until it is forgotten (rotation). A key is named by its thumbprint
(RFC 7638). Signatures are deterministic (RFC 6979): one card, one signature, so that a card that did not change keeps
its ETag.
"""

import base64
import hashlib
import os
import re
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from proxy.store.vault import VaultFailure

HALF = 32
"""Bytes of each of a signature's two numbers, and of a point's (RFC 7518 sections 3.4 and 6.2.1)."""

_PEM = re.compile(rb"-----BEGIN [A-Z ]+-----.*?-----END [A-Z ]+-----", re.DOTALL)


class CardKeyFailure(VaultFailure):
    """The file of the keys cannot be used."""


class CardKeys:
    """Signs with ES256."""

    def __init__(self, keys: Sequence[ec.EllipticCurvePrivateKey]) -> None:
        self._signer = keys[0]
        self._public = [_jwk(key) for key in keys]
        self.kid = str(self._public[0]["kid"])

    def sign(self, data: bytes) -> bytes:
        """The signature of bytes, as a JWS holds it."""
        signature = self._signer.sign(data, ec.ECDSA(hashes.SHA256(), deterministic_signing=True))
        return b"".join(number.to_bytes(HALF, "big") for number in decode_dss_signature(signature))

    def jwks(self) -> dict[str, Any]:
        """The public keys, to be served as JSON."""
        return {"keys": [dict(key) for key in self._public]}


def open_card_keys(path: Path) -> CardKeys:
    """The keys of the file; one is made (mode 0600, synced) where there is no file.

    Raises:
        CardKeyFailure: the file is readable by others, does not hold such keys, or can be neither read nor made.
    """
    try:
        return _opened(path)
    except OSError as problem:
        raise CardKeyFailure(f"the key file {path.name} cannot be used: {problem.strerror or problem}") from problem


def _opened(path: Path) -> CardKeys:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return CardKeys(_read(path))
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    with os.fdopen(descriptor, "wb") as file:
        file.write(pem)
        file.flush()
        os.fsync(file.fileno())
    return CardKeys([key])


def _read(path: Path) -> list[ec.EllipticCurvePrivateKey]:
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        raise CardKeyFailure(f"the key file {path.name} is open to others (mode {mode:o}): make it 0600")
    try:
        keys = [serialization.load_pem_private_key(pem, None) for pem in _PEM.findall(path.read_bytes())]
    except (ValueError, TypeError):
        keys = []
    curved = [key for key in keys if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name == "secp256r1"]
    if not curved or len(curved) != len(keys):
        raise CardKeyFailure(f"the key file {path.name} does not hold private keys on the curve P-256 as PEM")
    return curved


def _jwk(key: ec.EllipticCurvePrivateKey) -> dict[str, str]:
    numbers = key.public_key().public_numbers()
    point = {"crv": "P-256", "kty": "EC", "x": _base64url(numbers.x), "y": _base64url(numbers.y)}
    thumbprint = hashlib.sha256(msgspec.json.encode(point)).digest()  # the members' order is that of RFC 7638
    kid = base64.urlsafe_b64encode(thumbprint).rstrip(b"=").decode("ascii")
    return {**point, "kid": kid, "alg": "ES256", "use": "sig"}


def _base64url(number: int) -> str:
    return base64.urlsafe_b64encode(number.to_bytes(HALF, "big")).rstrip(b"=").decode("ascii")
