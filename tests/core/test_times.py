"""Instants as numbers and as text: exact to the microsecond, both ways."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.times import from_micros, micros, parse_rfc3339, rfc3339

INSTANTS = st.datetimes(timezones=st.just(UTC))


@given(INSTANTS)
def test_microseconds_lose_nothing(instant: datetime) -> None:
    assert from_micros(micros(instant)) == instant


@given(INSTANTS)
def test_text_loses_nothing(instant: datetime) -> None:
    assert parse_rfc3339(rfc3339(instant)) == instant


@given(INSTANTS, INSTANTS)
def test_texts_and_numbers_sort_as_instants_do(one: datetime, other: datetime) -> None:
    assert (rfc3339(one) < rfc3339(other)) == (one < other) == (micros(one) < micros(other))


@given(st.datetimes(min_value=datetime(2, 1, 1), max_value=datetime(9998, 1, 1)), st.integers(-1439, 1439))  # noqa: DTZ001 - the zone is put on below
def test_the_offset_of_a_text_does_not_matter(local: datetime, minutes: int) -> None:
    instant = local.replace(tzinfo=timezone(timedelta(minutes=minutes)))
    assert parse_rfc3339(instant.isoformat(timespec="microseconds")) == instant
    assert micros(instant) == micros(instant.astimezone(UTC))
    assert rfc3339(instant) == rfc3339(instant.astimezone(UTC))


def test_the_epoch_is_zero_and_a_day_before_is_negative() -> None:
    assert micros(datetime(1970, 1, 1, tzinfo=UTC)) == 0
    assert micros(datetime(1969, 12, 31, tzinfo=UTC)) == -86_400_000_000


def test_text_always_has_six_digits_and_a_z() -> None:
    assert rfc3339(datetime(2026, 1, 31, 12, tzinfo=UTC)) == "2026-01-31T12:00:00.000000Z"
    assert (
        rfc3339(datetime(2026, 1, 31, 12, 0, 0, 1, tzinfo=timezone(timedelta(hours=2))))
        == "2026-01-31T10:00:00.000001Z"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-01-31T12:00:00Z", datetime(2026, 1, 31, 12, tzinfo=UTC)),
        ("2026-01-31t12:00:00z", datetime(2026, 1, 31, 12, tzinfo=UTC)),
        ("2026-01-31 12:00:00.5Z", datetime(2026, 1, 31, 12, 0, 0, 500_000, tzinfo=UTC)),
        ("2026-01-31T12:00:00.123456999Z", datetime(2026, 1, 31, 12, 0, 0, 123_456, tzinfo=UTC)),
        ("2026-01-31T12:00:00+05:30", datetime(2026, 1, 31, 6, 30, tzinfo=UTC)),
        ("2026-01-31T12:00:00-00:00", datetime(2026, 1, 31, 12, tzinfo=UTC)),
        ("2016-12-31T23:59:60Z", datetime(2017, 1, 1, tzinfo=UTC)),
        ("2016-12-31T23:59:60.75Z", datetime(2017, 1, 1, tzinfo=UTC)),
    ],
)
def test_what_rfc_3339_allows_is_read(text: str, expected: datetime) -> None:
    assert parse_rfc3339(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "1767225600",
        "2026-01-31",
        "2026-01-31T12:00:00",  # no zone: whose noon?
        "2026-02-30T12:00:00Z",
        "2026-01-31T24:00:00Z",
        "2026-01-31T12:60:00Z",
        "2026-01-31T12:00:61Z",
        "2026-01-31T12:00:00.Z",
        "2026-01-31T12:00:00+0530",
        "2026-01-31T12:00:00+05:60",
        "2026-01-31T12:00:00+24:00",
        "0000-01-31T12:00:00Z",
        "0001-01-01T00:00:00+23:59",  # before the first instant there is
        "9999-12-31T23:59:60Z",
        "2026-01-31T12:00:00Z\n",
        "٢٠٢٦-01-31T12:00:00Z",
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"RFC 3339|not an instant"):
        parse_rfc3339(text)


def test_an_instant_without_a_zone_is_refused() -> None:
    naive = datetime(2026, 1, 1)  # noqa: DTZ001 - the point of the test
    with pytest.raises(ValueError, match="time zone"):
        micros(naive)
    with pytest.raises(ValueError, match="time zone"):
        rfc3339(naive)
