"""Who may call whom: the access rules of the data path, as a function of values.

Owns: the three rules, what stands in an allow list, the tree of parents as far as access is concerned.
Knows nothing of: tokens and how they are checked, what a refused caller is told.

Theory of operation. The caller is known by the time this is asked: the owner of a verified token, or nobody where
authentication is off. The admin may call every workspace, and a workspace may call itself, under every rule. Otherwise:

    any          every caller may
    hierarchy    workspaces: same parent, both without one, or one above the other, at any distance; clients stand
                 outside of the tree and may; whoever is listed may, too
    list         whoever is listed may

The tree is what administration wrote into each workspace's `parent`, and it may be wrong. A parent that there is not
ends the way up where it stands, a way that is too long ends at the limit, and what was not found by then is not
related. A circle says nothing about who is above whom, so whoever stands in or below one is related to its siblings
only. Every doubt denies.
"""

import re
from collections.abc import Callable, Collection, Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

from proxy.core.ids import check_id
from proxy.core.tokens import Owner, TokenKind

EVERYBODY: Final = "*"
_NAMED: Final = re.compile(r"(client|workspace):(.*)", re.ASCII | re.DOTALL)

Above = Callable[[str], str | None]
"""Gives a workspace's parent, None for a root. Raises LookupError for a workspace that there is not."""


class AccessRule(StrEnum):
    """Who may call a workspace."""

    ANY = "any"
    HIERARCHY = "hierarchy"
    LIST = "list"


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """What was decided, and by what: `rule` is for the admin's eyes, never for the caller's."""

    allowed: bool
    rule: str


def judge_access(
    rule: AccessRule, caller: Owner | None, target: str, *, above: Above, listed: Collection[str], depth: int
) -> Access:
    """Say whether `caller` may send requests to the workspace `target`.

    Args:
        rule: the configured rule.
        caller: the owner of the caller's token; None where nobody is authenticated.
        target: the id of a workspace that there is.
        above: the tree.
        listed: the target's allow list, as callers (`listed_caller`).
        depth: at how many steps a way up ends.
    """
    if rule is AccessRule.ANY or caller is None:
        return Access(allowed=True, rule="any" if caller is not None else "no_authentication")
    if caller.kind is TokenKind.ADMIN:
        return Access(allowed=True, rule="admin")
    if caller.kind is TokenKind.WORKSPACE and caller.name == target:
        return Access(allowed=True, rule="self")
    found = Access(allowed=False, rule="unlisted")
    if rule is AccessRule.HIERARCHY:
        found = _by_hierarchy(caller, target, above, depth)
    if not found.allowed and (EVERYBODY in listed or caller.caller in listed):
        return Access(allowed=True, rule="listed")
    return found


def _by_hierarchy(caller: Owner, target: str, above: Above, depth: int) -> Access:
    if caller.kind is TokenKind.CLIENT:
        return Access(allowed=True, rule="client")
    if caller.kind is not TokenKind.WORKSPACE:
        return Access(allowed=False, rule="no_workspace")
    return related(caller.name, target, above, depth)


def related(one: str, other: str, above: Above, depth: int) -> Access:
    """Say whether two workspaces are related: symmetric, whatever the tree looks like."""
    try:
        parents = above(one), above(other)
    except LookupError:
        return Access(allowed=False, rule="unknown_workspace")
    if parents[0] == parents[1]:
        return Access(allowed=True, rule="both_roots" if parents[0] is None else "same_parent")
    over_one = _way_up(one, above, depth)
    if other in over_one.ancestors:
        return Access(allowed=True, rule="ancestor")
    over_other = _way_up(other, above, depth)
    if one in over_other.ancestors:
        return Access(allowed=True, rule="descendant")
    return Access(allowed=False, rule=over_one.fault or over_other.fault or "unrelated")


class _Way(NamedTuple):
    """The ancestors on a way up, and why it did not end at a root."""

    ancestors: AbstractSet[str]
    fault: str | None = None


def _way_up(start: str, above: Above, depth: int) -> _Way:
    seen: set[str] = set()
    current = start
    for _ in range(depth):
        try:
            parent = above(current)
        except LookupError:
            return _Way(seen, "unknown_parent")
        if parent is None:
            return _Way(seen)
        if parent == start or parent in seen:
            return _Way(frozenset(), "circle")
        seen.add(parent)
        current = parent
    return _Way(seen, "too_deep")


def closes_circle(workspace_id: str, parent: str, above: Above) -> bool:
    """Say whether a workspace would be above itself with that parent."""
    seen: set[str] = set()
    current: str | None = parent
    while current is not None and current not in seen:
        if current == workspace_id:
            return True
        seen.add(current)
        try:
            current = above(current)
        except LookupError:
            return False
    return False


def listed_caller(entry: str) -> str:
    """Read an entry of an allow list: `*`, a workspace's id, `workspace:ID` or `client:NAME`; returns the caller.

    Raises:
        ValueError: it is none of them; the text says what is accepted.
    """
    if entry == EVERYBODY:
        return entry
    found = _NAMED.fullmatch(entry)
    kind, name = found.groups() if found is not None else (TokenKind.WORKSPACE.value, entry)
    if check_id(name) is not None:
        raise ValueError("'*', a workspace's id, 'workspace:ID' or 'client:NAME'")
    return f"{kind}:{name}"


def listed_callers(entries: Iterable[str]) -> frozenset[str]:
    """Read a whole allow list; what is no entry allows nobody."""
    return frozenset(caller for entry in entries if (caller := _or_none(entry)) is not None)


def _or_none(entry: str) -> str | None:
    try:
        return listed_caller(entry)
    except ValueError:
        return None
