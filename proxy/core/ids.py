"""Owns what a well-formed id is. Knows nothing of who owns an id or whether it exists.

Workspaces, clients and deferrals are named by ids of one form. Some prefixes are kept for callers that live inside
the proxy; nobody outside may carry one, neither as a name of their own nor as a claimed caller (scenario 25).

Ids that Holdfast makes sort in the order in which they were made: in an index new ones then lie side by side, and
a batch of them touches one page instead of one each.
"""

import re
from typing import Final

ID_PATTERN: Final = r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}"
RESERVED_PREFIXES: Final = ("webhook:", "system:", "test:", "channel:")
_ID: Final = re.compile(ID_PATTERN, re.ASCII)
_RFC_VARIANT: Final = 0b10 << 62


def is_reserved(text: str) -> bool:
    """Whether ``text`` starts with a prefix that only callers inside the proxy carry, in any case of letters."""
    return text.lower().startswith(RESERVED_PREFIXES)


def check_id(text: str) -> str | None:
    """Return what is wrong with ``text`` as an id, as one sentence for the person who chose it, or None."""
    if _ID.fullmatch(text) is None:
        return (
            "an id is 1 to 128 letters, digits, '.', '_', ':' or '-', of which the first is a letter or a digit"
            f" (got {_shown(text)})"
        )
    if is_reserved(text):
        return f"ids that start with {', '.join(RESERVED_PREFIXES)} are reserved (got {_shown(text)})"
    return None


def _shown(text: str) -> str:
    limit = 40
    return repr(text) if len(text) <= limit else f"{text[:limit]!r}..."


def growing_uuid(count: int, chance: int, *, version: int) -> int:
    """The bits of a UUID (RFC 9562 section 5) that sorts by `count` (60 bits) and is told apart by `chance` (62 bits).

    Version 7 where the count is of time (`moment`), version 8 (the free form) for any other.
    """
    return (count >> 12) << 80 | version << 76 | (count & 0xFFF) << 64 | _RFC_VARIANT | chance


def moment(micros: int) -> int:
    """An instant as the count of a version 7: milliseconds since the epoch, then 12 bits of their fraction."""
    millis, rest = divmod(micros, 1000)
    return millis << 12 | (rest << 12) // 1000
