"""Who may call whom: the rules as tables, and what holds in every tree, however wrong."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.access import (
    Above,
    Access,
    AccessRule,
    closes_circle,
    judge_access,
    listed_caller,
    listed_callers,
    related,
)
from proxy.core.tokens import Owner, TokenKind

DEPTH = 32
ANY, HIERARCHY, LIST = AccessRule
TREE: Mapping[str, str | None] = {
    # two companies, a loner, and what administration got wrong
    "acme": None,
    "sales": "acme",
    "legal": "acme",
    "writer": "sales",
    "reader": "sales",
    "poet": "writer",
    "globex": None,
    "miner": "globex",
    "orphan": "gone",
    "stray": "gone",
    "lost": "orphan",
    "egg": "hen",
    "hen": "egg",
    "chick": "hen",
}


def workspace(name: str) -> Owner:
    return Owner(kind=TokenKind.WORKSPACE, name=name)


def decided(
    caller: Owner | None,
    target: str,
    *,
    rule: AccessRule = HIERARCHY,
    above: Above = TREE.__getitem__,
    listed: frozenset[str] = frozenset(),
    depth: int = DEPTH,
) -> Access:
    return judge_access(rule, caller, target, above=above, listed=listed, depth=depth)


ALLOWED = [
    ("writer", "writer", "self"),
    ("egg", "egg", "self"),
    ("writer", "reader", "same_parent"),
    ("sales", "legal", "same_parent"),
    ("orphan", "stray", "same_parent"),  # grouped by a parent that is no workspace itself
    ("chick", "egg", "same_parent"),
    ("acme", "globex", "both_roots"),
    ("writer", "sales", "ancestor"),
    ("poet", "acme", "ancestor"),
    ("sales", "writer", "descendant"),
    ("acme", "poet", "descendant"),
    ("lost", "orphan", "ancestor"),
]
DENIED = [
    ("writer", "legal", "unrelated"),  # an uncle
    ("writer", "miner", "unrelated"),
    ("writer", "globex", "unrelated"),
    ("acme", "miner", "unrelated"),
    ("lost", "acme", "unknown_parent"),
    ("acme", "orphan", "unknown_parent"),  # a parent that there is not makes no root
    ("egg", "hen", "circle"),
    ("chick", "hen", "circle"),
    ("chick", "acme", "circle"),
    ("nobody", "acme", "unknown_workspace"),
]


@pytest.mark.parametrize(("caller", "target", "rule"), ALLOWED)
def test_scenario_27_siblings_ancestors_and_distant_descendants_are_allowed(
    caller: str, target: str, rule: str
) -> None:
    assert decided(workspace(caller), target) == Access(allowed=True, rule=rule)


@pytest.mark.parametrize(("caller", "target", "rule"), DENIED)
def test_scenario_27_the_unrelated_and_every_doubt_are_denied(caller: str, target: str, rule: str) -> None:
    assert decided(workspace(caller), target) == Access(allowed=False, rule=rule)


def test_the_way_up_ends_at_the_limit() -> None:
    chain: dict[str, str | None] = {f"w{step}": f"w{step + 1}" for step in range(40)} | {"w40": None}
    at_the_limit = decided(workspace("w0"), "w32", above=chain.__getitem__)
    beyond = decided(workspace("w0"), "w33", above=chain.__getitem__)
    assert at_the_limit == Access(allowed=True, rule="ancestor")
    assert beyond == Access(allowed=False, rule="too_deep")
    assert decided(workspace("w33"), "w0", above=chain.__getitem__) == beyond
    assert decided(workspace("w0"), "w33", above=chain.__getitem__, depth=33).allowed


CLIENT = Owner(kind=TokenKind.CLIENT, name="ci")
ADMIN = Owner(kind=TokenKind.ADMIN)


@pytest.mark.parametrize(
    ("rule", "caller", "listed", "expected"),
    [
        (ANY, workspace("miner"), (), "any"),
        (ANY, CLIENT, (), "any"),
        (ANY, None, (), "no_authentication"),
        (HIERARCHY, ADMIN, (), "admin"),
        (HIERARCHY, CLIENT, (), "client"),
        (HIERARCHY, None, (), "no_authentication"),
        (HIERARCHY, workspace("miner"), ("miner",), "listed"),
        (HIERARCHY, workspace("nobody"), ("*",), "listed"),
        (HIERARCHY, workspace("reader"), ("miner",), "same_parent"),
        (HIERARCHY, workspace("miner"), ("client:miner", "reader"), None),
        (LIST, ADMIN, (), "admin"),
        (LIST, None, (), "no_authentication"),
        (LIST, workspace("writer"), (), "self"),
        (LIST, workspace("reader"), (), None),
        (LIST, workspace("sales"), ("acme",), None),
        (LIST, workspace("miner"), ("miner",), "listed"),
        (LIST, workspace("miner"), ("workspace:miner",), "listed"),
        (LIST, workspace("ci"), ("client:ci",), None),
        (LIST, CLIENT, (), None),
        (LIST, CLIENT, ("ci",), None),
        (LIST, CLIENT, ("client:ci",), "listed"),
        (LIST, CLIENT, ("client:*",), None),
        (LIST, CLIENT, ("*",), "listed"),
        (HIERARCHY, Owner(kind=TokenKind.READ, name="r"), (), None),
        (HIERARCHY, Owner(kind=TokenKind.JOIN, name="join"), (), None),
    ],
)
def test_a_rule_lets_in_whom_it_says(
    rule: AccessRule, caller: Owner | None, listed: tuple[str, ...], expected: str | None
) -> None:
    access = decided(caller, "writer", rule=rule, listed=listed_callers(listed))
    assert access.allowed is (expected is not None)
    assert expected is None or access.rule == expected


@pytest.mark.parametrize(
    ("entry", "caller"),
    [
        ("*", "*"),
        ("writer", "workspace:writer"),
        ("workspace:writer", "workspace:writer"),
        ("client:ci", "client:ci"),
        ("workspace:client:ci", "workspace:client:ci"),  # a workspace whose id begins like that
    ],
)
def test_an_entry_of_a_list_names_one_caller(entry: str, caller: str) -> None:
    assert listed_caller(entry) == caller


@pytest.mark.parametrize("entry", ["", "**", "a*", "client:", "client:*", "-x", "a b", "system:x", "client:system:x"])
def test_what_is_no_entry_is_refused_and_allows_nobody(entry: str) -> None:
    with pytest.raises(ValueError, match="client:NAME"):
        listed_caller(entry)
    assert listed_callers([entry, "a"]) == {"workspace:a"}


NAMES = [f"w{number}" for number in range(8)]
TREES = st.dictionaries(st.sampled_from(NAMES), st.none() | st.sampled_from([*NAMES, "gone"]), min_size=2)


@given(TREES, st.sampled_from(NAMES), st.sampled_from(NAMES), st.integers(1, 9))
def test_scenario_27_the_hierarchy_is_symmetric_in_any_tree(
    tree: dict[str, str | None], one: str, other: str, depth: int
) -> None:
    there = related(one, other, tree.__getitem__, depth)
    back = related(other, one, tree.__getitem__, depth)
    assert there.allowed is back.allowed


def soundly_above(tree: dict[str, str | None], name: str) -> list[str]:
    """Return the ancestors of a workspace up to a root; nothing in or below a circle."""
    found: list[str] = []
    current = tree.get(name)
    while current is not None:
        if current == name or current in found:
            return []
        found.append(current)
        current = tree.get(current)
    return found


@given(TREES, st.data())
def test_who_is_let_in_has_a_reason_in_the_tree(tree: dict[str, str | None], data: st.DataObject) -> None:
    one, other = (data.draw(st.sampled_from(sorted(tree))) for _ in range(2))
    access = related(one, other, tree.__getitem__, DEPTH)
    related_here = other in soundly_above(tree, one) or one in soundly_above(tree, other)
    assert access.allowed is (tree[one] == tree[other] or related_here)


@given(TREES, st.sampled_from(NAMES), st.sampled_from(NAMES))
def test_a_parent_closes_a_circle_exactly_when_the_workspace_would_be_above_itself(
    tree: dict[str, str | None], name: str, parent: str
) -> None:
    changed = tree | {name: parent}
    seen, current = set(), changed.get(name)
    while current is not None and current not in seen:
        seen.add(current)
        current = changed.get(current)
    assert closes_circle(name, parent, tree.__getitem__) is (name in seen)
