"""Credentials at rest: sealed, bound to their row, opened by retired keys until those are gone."""

import base64
from pathlib import Path

import pytest

from proxy.store.vault import KEY_BYTES, Vault, VaultFailure, keys_from_file, open_vault

OLD, NEW = b"o" * KEY_BYTES, b"n" * KEY_BYTES
SECRET = b"Bearer of the caller's"


def test_what_was_sealed_is_opened_for_its_owner_alone() -> None:
    vault = Vault([NEW])
    sealed = vault.seal(SECRET, owner="d1")
    assert SECRET not in sealed
    assert vault.open(sealed, owner="d1") == SECRET
    with pytest.raises(VaultFailure):
        vault.open(sealed, owner="d2")


def test_the_same_secret_never_looks_the_same_twice() -> None:
    vault = Vault([NEW])
    assert vault.seal(SECRET, owner="d1") != vault.seal(SECRET, owner="d1")


@pytest.mark.parametrize("place", [0, 1, 12, 13, -1])
def test_one_changed_byte_is_noticed(place: int) -> None:
    vault = Vault([NEW])
    sealed = bytearray(vault.seal(SECRET, owner="d1"))
    sealed[place] ^= 1
    with pytest.raises(VaultFailure):
        vault.open(bytes(sealed), owner="d1")


def test_a_retired_key_opens_and_the_new_one_seals(tmp_path: Path) -> None:
    sealed = Vault([OLD]).seal(SECRET, owner="d1")
    rotated = open_vault(NEW, OLD, tmp_path / "unused")
    assert rotated.open(sealed, owner="d1") == SECRET
    again = rotated.seal(SECRET, owner="d1")
    assert Vault([NEW]).open(again, owner="d1") == SECRET
    with pytest.raises(VaultFailure):
        Vault([OLD]).open(again, owner="d1")
    assert not (tmp_path / "unused").exists()


def test_the_key_file_is_made_once_for_its_owner_alone_and_may_hold_retired_keys(tmp_path: Path) -> None:
    path = tmp_path / "key"
    (made,) = keys_from_file(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert keys_from_file(path) == [made]
    path.write_text(f"{NEW.hex()}\n{made.hex()}\n")
    sealed = Vault([made]).seal(SECRET, owner="d1")
    assert open_vault(None, None, path).open(sealed, owner="d1") == SECRET


@pytest.mark.parametrize("content", ["", "not hex", "abcd\n", base64.b64encode(NEW).decode()])
def test_a_key_file_that_holds_no_key_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "key"
    path.write_text(content)
    path.chmod(0o600)
    with pytest.raises(VaultFailure, match="does not hold"):
        keys_from_file(path)


def test_a_key_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key"
    keys_from_file(path)
    path.chmod(0o640)
    with pytest.raises(VaultFailure, match="0600"):
        keys_from_file(path)
