"""Credentials of deferred requests, sealed at rest.

Owns: the key file, sealing and opening.
Knows nothing of: which headers are credentials, what they are sealed for.

AES-256-GCM with a random 96-bit nonce per seal; the deferral's id is authenticated with it, so that sealed bytes moved
to another row do not open. The key is 32 bytes: from configuration, or a 0600 file made at first start. Several keys
may be known (rotation): the first seals, each may open; a byte in front names the format.
"""

import os
import secrets
import stat
from collections.abc import Callable, Sequence
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES = 32
NONCE_BYTES = 12
FORMAT = b"\x01"


class VaultFailure(Exception):  # noqa: N818 - it names what happened
    """The key is missing or wrong, or sealed bytes were changed."""


class Vault:
    """Seals and opens bytes that belong to one deferral."""

    def __init__(self, keys: Sequence[bytes], *, chance_bytes: Callable[[int], bytes] = secrets.token_bytes) -> None:
        if not keys or any(len(key) != KEY_BYTES for key in keys):
            raise VaultFailure(f"the vault needs keys of {KEY_BYTES} bytes")
        self._ciphers = [AESGCM(key) for key in keys]
        self._chance_bytes = chance_bytes

    def seal(self, plain: bytes, *, owner: str) -> bytes:
        """Encrypt for `owner` (a deferral's id)."""
        nonce = self._chance_bytes(NONCE_BYTES)
        return FORMAT + nonce + self._ciphers[0].encrypt(nonce, plain, owner.encode())

    def open(self, sealed: bytes, *, owner: str) -> bytes:
        """Decrypt what was sealed for `owner`; VaultFailure when no known key opens it."""
        if sealed[:1] != FORMAT:
            raise VaultFailure("sealed by a later format")
        nonce, body = sealed[1 : 1 + NONCE_BYTES], sealed[1 + NONCE_BYTES :]
        for cipher in self._ciphers:
            try:
                return cipher.decrypt(nonce, body, owner.encode())
            except InvalidTag:
                continue
        raise VaultFailure("no known key opens it")


def open_vault(key: bytes | None, old_key: bytes | None, key_file: Path) -> Vault:
    """The vault with the configured keys, or with those of the key file.

    Rotation: make the new key the first and keep the old one beside it (as `vault.old_key`, or as the next line of the
    key file) until what it sealed has ended, at the latest one queue TTL later.

    Raises:
        VaultFailure: there is no usable key.
    """
    first = [key] if key is not None else keys_from_file(key_file)
    return Vault([*first, *([old_key] if old_key is not None else [])])


def keys_from_file(path: Path) -> list[bytes]:
    """Read the key file, a key a line in hexadecimal; make it (mode 0600, synced) where there is none.

    Raises:
        VaultFailure: the file is readable by others, or a line does not hold a key.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return _read(path)
    key = secrets.token_bytes(KEY_BYTES)
    with os.fdopen(descriptor, "wb") as file:
        file.write(key.hex().encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
    return [key]


def _read(path: Path) -> list[bytes]:
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        raise VaultFailure(f"the key file {path.name} is open to others (mode {mode:o}): make it 0600")
    try:
        keys = [bytes.fromhex(line) for line in path.read_text().split()]
    except ValueError:
        keys = []
    if not keys or any(len(key) != KEY_BYTES for key in keys):
        raise VaultFailure(f"the key file {path.name} does not hold {KEY_BYTES} bytes in hexadecimal, a key a line")
    return keys
