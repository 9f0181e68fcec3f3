"""Owns how single values look to a person: instants, spans, counts, and texts that somebody else wrote.

Knows nothing of tables, terminals, and what the values mean.
"""

import json
import unicodedata
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from proxy.core.times import parse_rfc3339

_WIDE: Final = frozenset("WF")
_UNITS: Final = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))
_SWITCH: Final = 2
"""A unit is left for the smaller one below this many of it: 90 s and 119 min say more than 1 min and 1 h."""
NOTHING: Final = "-"
"""What stands where there is no value."""


def clean(text: str) -> str:
    """Return a text that cannot move a terminal's cursor: unprintable characters as escapes, line ends as blanks.

    Errors and reasons come from agents; what an agent writes must not look like what Holdfast says.
    """
    flat = " ".join(text.splitlines()) if "\n" in text or "\r" in text else text
    if flat.isprintable():
        return flat
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in flat)


def columns(text: str) -> int:
    """How many columns of a terminal a text takes."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(one) else 2 if unicodedata.east_asian_width(one) in _WIDE else 1 for one in text
    )


def cut(text: str, width: int) -> str:
    """Return a text of at most that many columns, with an ellipsis where something is missing."""
    if columns(text) <= width:
        return text
    kept, taken = [], 1
    for one in text:
        taken += columns(one)
        if taken > width:
            break
        kept.append(one)
    return "".join(kept) + "…"


def span(seconds: float) -> str:
    """Write a duration with its largest sensible unit: ``12 s``, ``90 s``, ``5 min``, ``3 h``, ``4 d``."""
    for size, unit in _UNITS:
        if seconds >= size * _SWITCH:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def ago(at: datetime, now: datetime) -> str:
    """Write an instant as its distance: ``12 s ago``, ``in 3 min``, ``now``."""
    seconds = (now - at).total_seconds()
    if abs(seconds) < 1:
        return "now"
    return f"{span(seconds)} ago" if seconds > 0 else f"in {span(-seconds)}"


def instant(at: datetime) -> str:
    """Write an instant to the second: ``2026-01-31 12:00:00 UTC``."""
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"


def read_instant(value: Any) -> datetime | None:
    """Return the instant of an API's RFC 3339 text; None for null and for what is none."""
    try:
        return parse_rfc3339(value) if isinstance(value, str) else None
    except ValueError:
        return None


def count(number: int, one: str, many: str | None = None) -> str:
    """Write a number with its noun: ``1 restart``, ``2 restarts``."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def facts(members: Mapping[str, Any]) -> str:
    """Write an object in one line: ``age=12.5 exit_code=1``; what is null or empty is left out."""
    return " ".join(
        f"{name}={value if isinstance(value, str) else json.dumps(value)}"
        for name, value in members.items()
        if value is not None and value not in ("", [], {})
    )
