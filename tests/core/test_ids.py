"""Ids: one form, and some prefixes that only callers inside the proxy carry."""

import re
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.ids import ID_PATTERN, check_id, growing_uuid, is_reserved, moment


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


COUNTS = st.integers(0, 2**60 - 1)
CHANCES = st.integers(0, 2**62 - 1)


@given(COUNTS, CHANCES, st.sampled_from([7, 8]))
def test_a_growing_uuid_is_one_and_holds_all_that_it_was_given(count: int, chance: int, version: int) -> None:
    made = uuid.UUID(int=growing_uuid(count, chance, version=version))
    assert (made.version, made.variant) == (version, uuid.RFC_4122)
    assert (made.int >> 80 << 12 | made.int >> 64 & 0xFFF, made.int & 2**62 - 1) == (count, chance)


@given(COUNTS, COUNTS, CHANCES, CHANCES)
def test_growing_uuids_sort_by_their_counts_as_text_too(one: int, other: int, chance: int, another: int) -> None:
    made = [f"{growing_uuid(count, bits, version=8):032x}" for count, bits in ((one, chance), (other, another))]
    if one != other:
        assert (made[0] < made[1]) == (one < other)


@given(st.integers(0, 2**51), st.integers(0, 2**51))
def test_moments_sort_as_the_instants_do_and_begin_with_milliseconds(one: int, other: int) -> None:
    assert moment(one) >> 12 == one // 1000
    if one < other:
        assert moment(one) < moment(other)
