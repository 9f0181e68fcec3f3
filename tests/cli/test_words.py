"""How single values look: instants, spans, and texts that an agent wrote."""

from datetime import timedelta

import pytest
from cli.commandline import NOW
from hypothesis import given
from hypothesis import strategies as st

from proxy.cli import words


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.2, "0 s"),
        (1, "1 s"),
        (12.4, "12 s"),
        (90, "90 s"),
        (119.9, "120 s"),
        (120, "2 min"),
        (7_199, "120 min"),
        (7_200, "2 h"),
        (172_799, "48 h"),
        (172_800, "2 d"),
        (30 * 86_400, "30 d"),
    ],
)
def test_a_duration_is_written_in_its_largest_sensible_unit(seconds: float, shown: str) -> None:
    assert words.span(seconds) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(-0.9, "now"), (0.9, "now"), (12, "12 s ago"), (-12, "in 12 s"), (3_600, "60 min ago"), (-7_200, "in 2 h")],
)
def test_an_instant_is_written_as_its_distance(seconds: float, shown: str) -> None:
    assert words.ago(NOW - timedelta(seconds=seconds), NOW) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("refused", "refused"),
        ("größer 大", "größer 大"),
        ("\x1b[2Jgone", "\\x1b[2Jgone"),
        ("one\ntwo\r\nthree", "one two three"),
        ("bell\x07 zero\x00", "bell\\x07 zero\\x00"),
        ("right-to-left \u202e", "right-to-left \\u202e"),
    ],
)
def test_a_foreign_text_cannot_move_the_cursor(text: str, shown: str) -> None:
    assert words.clean(text) == shown


@given(st.text())
def test_a_foreign_text_is_one_printable_line_whatever_it_was(text: str) -> None:
    assert words.clean(text).isprintable()


@given(st.text(), st.integers(min_value=1, max_value=40))
def test_a_text_that_is_cut_is_as_wide_as_it_may_be_at_most(text: str, width: int) -> None:
    shown = words.cut(words.clean(text), width)
    assert words.columns(shown) <= width
    assert shown == words.clean(text) or shown.endswith("…")


def test_a_wide_character_takes_two_columns_and_a_combining_one_none() -> None:
    assert [words.columns(text) for text in ("ab", "大b", "e\u0301")] == [2, 3, 1]


def test_facts_are_written_in_one_line_without_what_is_empty() -> None:
    found = {"age": 12.5, "because": "no beat", "nothing": None, "empty": {}, "zero": 0, "exited": False}
    assert words.facts(found) == "age=12.5 because=no beat zero=0 exited=false"


@pytest.mark.parametrize(("number", "shown"), [(0, "0 restarts"), (1, "1 restart"), (2, "2 restarts")])
def test_a_number_agrees_with_its_noun(number: int, shown: str) -> None:
    assert words.count(number, "restart") == shown


@pytest.mark.parametrize("value", [None, 7, "", "yesterday", "2026-01-31T12:00:00"])
def test_what_is_no_instant_of_the_api_is_none(value: object) -> None:
    assert words.read_instant(value) is None
