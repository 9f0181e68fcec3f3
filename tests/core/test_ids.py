"""Ids: one form, and some prefixes that only callers inside the proxy carry."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.ids import ID_PATTERN, check_id, is_reserved


@pytest.mark.parametrize(
    "text", ["a", "A", "0", "agent-1", "team.agent_1:blue", "a" * 128, "tests", "systematic:a", "a:system:"]
)
def test_a_well_formed_id_has_no_problem(text: str) -> None:
    assert check_id(text) is None


@pytest.mark.parametrize(
    "text", ["", "-a", ".a", "_a", ":a", "a" * 129, "a b", "a/b", "a\n", "\na", "ä", "a\u0661", "a%20", "a\x00", "../a"]
)
def test_a_malformed_id_is_refused_with_what_is_accepted(text: str) -> None:
    assert "1 to 128" in (check_id(text) or "")


@pytest.mark.parametrize("text", ["webhook:x", "system:x", "test:x", "channel:x", "System:x", "TEST:"])
def test_scenario_25_an_id_with_a_reserved_prefix_is_refused(text: str) -> None:
    assert is_reserved(text)
    assert "reserved" in (check_id(text) or "")


@given(st.from_regex(ID_PATTERN, fullmatch=True).filter(lambda text: text.isascii()))
def test_only_a_reserved_prefix_spoils_a_matching_id(text: str) -> None:
    assert (check_id(text) is None) == (not is_reserved(text))


@given(st.text(max_size=200))
def test_a_problem_never_repeats_a_long_text_or_control_characters(text: str) -> None:
    problem = check_id(text)
    if problem is not None:
        assert len(problem) < 600
        assert re.search(r"[\x00-\x1f]", problem) is None
