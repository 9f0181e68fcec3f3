"""Owns what a well-formed id is. Knows nothing of who owns an id or whether it exists.

Workspaces, clients and deferrals are named by ids of one form. Some prefixes are kept for callers that live inside
the proxy; nobody outside may carry one, neither as a name of their own nor as a claimed caller (scenario 25).
"""

import re
from typing import Final

ID_PATTERN: Final = r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}"
RESERVED_PREFIXES: Final = ("webhook:", "system:", "test:", "channel:")
_ID: Final = re.compile(ID_PATTERN, re.ASCII)


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
