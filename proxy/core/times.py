"""Owns instants as values: microseconds since the epoch, and RFC 3339 text. Knows nothing of clocks.

An instant is a UTC-aware ``datetime``. It is stored as an integer number of microseconds, so that what is read back
equals what was written: no float ever stands between the two.
"""

import re
from datetime import UTC, datetime, timedelta, timezone
from typing import Final

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_SECONDS_IN_A_DAY: Final = 86_400
_MICROS_IN_A_SECOND: Final = 1_000_000
_LEAP_SECOND: Final = 60
_MINUTES_IN_AN_HOUR: Final = 60
_RFC3339: Final = re.compile(
    r"""
    (\d{4})-(\d{2})-(\d{2}) [Tt\ ] (\d{2}):(\d{2}):(\d{2}) (?:\.(\d+))?
    (?: [Zz] | ([+-])(\d{2}):(\d{2}) )
    """,
    re.VERBOSE | re.ASCII,
)


def micros(instant: datetime) -> int:
    """Return whole microseconds since 1970-01-01T00:00:00Z; ValueError for a ``datetime`` without a zone."""
    try:
        since = instant - EPOCH
    except TypeError:
        raise ValueError("an instant needs a time zone") from None
    return (since.days * _SECONDS_IN_A_DAY + since.seconds) * _MICROS_IN_A_SECOND + since.microseconds


def from_micros(count: int) -> datetime:
    """Return the UTC instant ``count`` microseconds after the epoch; the exact inverse of :func:`micros`."""
    return EPOCH + timedelta(microseconds=count)


def rfc3339(instant: datetime) -> str:
    """Write an instant as ``2026-01-31T12:00:00.000001Z``.

    Always UTC and always six digits, so that texts sort as the instants do. ValueError without a zone.
    """
    if instant.utcoffset() is None:
        raise ValueError("an instant needs a time zone")
    return instant.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def parse_rfc3339(text: str) -> datetime:
    """Read an RFC 3339 date-time (section 5.6) of any offset into a UTC instant.

    Digits beyond the microsecond are cut off (writers in other languages send nanoseconds); a leap second is the
    first instant of the next minute. ValueError for everything else.
    """
    found = _RFC3339.fullmatch(text)
    if found is None:
        raise ValueError(f"not an RFC 3339 date-time with a zone: {text[:64]!r}")
    year, month, day, hour, minute, second = (int(part) for part in found.group(1, 2, 3, 4, 5, 6))
    fraction, sign, ahead_hours, ahead_minutes = found.group(7, 8, 9, 10)
    is_leap = second == _LEAP_SECOND
    try:
        local = datetime(
            year,
            month,
            day,
            hour,
            minute,
            second - is_leap,
            0 if is_leap else int((fraction or "0")[:6].ljust(6, "0")),
            tzinfo=_zone(sign, ahead_hours, ahead_minutes),
        )
        return local.astimezone(UTC) + timedelta(seconds=is_leap)
    except (ValueError, OverflowError) as problem:
        raise ValueError(f"not an instant that exists: {text[:64]!r} ({problem})") from None


def _zone(sign: str | None, hours: str | None, minutes: str | None) -> timezone:
    if sign is None or hours is None or minutes is None:
        return UTC
    if int(minutes) >= _MINUTES_IN_AN_HOUR:
        raise ValueError("offset minutes must be below 60")
    ahead = timedelta(hours=int(hours), minutes=int(minutes))
    return timezone(-ahead if sign == "-" else ahead)
