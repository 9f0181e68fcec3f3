r"""Owns JSON as members: objects whose values stay the raw text they came as, until somebody asks.

Knows nothing of A2A. Everything that is changed in a document is changed by name, member by member; what is not named
keeps its bytes, so that a number, a nested structure or an escape in somebody's `metadata` survives exactly. Reading
never raises: what is no object, list or text is None (also when it is nested too deeply or no UTF-8). Of equal names
in one object the last one counts, as in the JSON readers of the A2A SDKs.
"""

from collections.abc import Callable, Iterable
from typing import Final

import msgspec
from msgspec import Raw

Members = dict[str, Raw]

NULL: Final = Raw(b"null")
BOM: Final = b"\xef\xbb\xbf"
UNREADABLE: Final = (ValueError, RecursionError)  # msgspec.DecodeError and UnicodeDecodeError are ValueErrors

_MEMBERS: Final = msgspec.json.Decoder(Members)
_ITEMS: Final = msgspec.json.Decoder(list[Raw])
_TEXT: Final = msgspec.json.Decoder(str)
_WHOLE: Final = msgspec.json.Decoder(int)
_encode: Final = msgspec.json.Encoder().encode


def document(body: bytes) -> Members | None:
    """The members of a whole body, or None when it is not a JSON object in UTF-8 through and through.

    A byte order mark before it is passed over, as readers may (RFC 8259 section 8.1).
    """
    try:
        body.decode()  # a skipped value is not checked by the decoder, yet it would leave again in an answer
    except UnicodeDecodeError:
        return None
    return members(body.removeprefix(BOM))


def members(value: Raw | bytes | None) -> Members | None:
    """The members of an object; None for everything else."""
    if value is None:
        return None
    try:
        return _MEMBERS.decode(value)
    except UNREADABLE:
        return None


def items(value: Raw | bytes | None) -> list[Raw] | None:
    """The items of a list; None for everything else."""
    if value is None:
        return None
    try:
        return _ITEMS.decode(value)
    except UNREADABLE:
        return None


def text(value: Raw | bytes | None) -> str | None:
    """The string a value is; None for everything else."""
    if value is None:
        return None
    try:
        return _TEXT.decode(value)
    except UNREADABLE:
        return None


def whole(value: Raw | bytes | None) -> int | None:
    """The integer a value is; None for everything else."""
    if value is None:
        return None
    try:
        return _WHOLE.decode(value)
    except UNREADABLE:
        return None


def is_null(value: Raw) -> bool:
    """Whether a value is `null` (ProtoJSON: the same as absent)."""
    return bytes(value) == b"null"


def encode(value: object) -> bytes:
    """Write a value as JSON; Raw parts go out as they are."""
    return _encode(value)


def raw(value: object) -> Raw:
    """A value as raw JSON, to stand as a member."""
    return Raw(_encode(value))


def change_member(owner: Members, name: str, change: Callable[[Members], bool]) -> bool:
    """Change the object that `owner` holds under `name`; whether anything was changed."""
    inner = members(owner.get(name))
    if inner is None or not change(inner):
        return False
    owner[name] = raw(inner)
    return True


def change_items(owner: Members, name: str, change: Callable[[Members], bool]) -> bool:
    """Change every object of the list that `owner` holds under `name`; whether anything was changed."""
    listed = items(owner.get(name))
    if not listed:
        return False
    changed = change_each(listed, change)
    if changed:
        owner[name] = raw(listed)
    return changed


def change_each(listed: list[Raw], change: Callable[[Members], bool]) -> bool:
    """Change every object of a list in place; whether anything was changed."""
    changed = False
    for index, item in enumerate(listed):
        inner = members(item)
        if inner is not None and change(inner):
            listed[index] = raw(inner)
            changed = True
    return changed


def any_of(changes: Iterable[bool]) -> bool:
    """Whether any change happened, having made them all (unlike `any`, which stops at the first)."""
    return sum(changes) > 0
