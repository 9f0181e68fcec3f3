"""How often a caller may call: a bucket per caller, as a function of values, and a bounded table of them.

Owns: when a request is one too many, what is left, when there is more; which bucket is forgotten when there are too
many.
Knows nothing of: who callers are, what time it is, what a refused caller is told.

Theory of operation. A bucket holds a minute's requests. It is filled anew a minute after its first request, all at
once: within a minute that a caller began, request number `per_minute + 1` is refused, however the requests before it
were spread. `burst` is a second limit below it: so many at once, which come back one by one, evenly, at the minute's
rate. Without a burst a caller may spend a minute's requests at a minute's end and the next one's right after; with one,
no stretch of 60 s sees more than `per_minute + burst`. What is refused is not counted.

Time is seconds of any clock. One that is set back makes a bucket neither fuller nor emptier: its marks move with it.

A table never holds more than its limit of buckets, which are ordered by when their minute began. A new caller takes the
place of the oldest: as long as there are idle callers, that bucket was full, and forgetting it changes nothing.
"""

import math
import re
from dataclasses import dataclass
from typing import Final, NamedTuple

from proxy.core.access import EVERYBODY, listed_caller
from proxy.core.tokens import TokenKind

MINUTE: Final = 60.0
_ROUNDING: Final = 1e-6
"""What is whole but for rounding is whole: the seconds of a minute, and the parts in which a burst comes back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """Requests a minute, and how many of them at once (0: all of them)."""

    per_minute: int
    burst: int = 0

    def __post_init__(self) -> None:
        if self.per_minute < 1 or self.burst < 0:
            raise ValueError("a rate allows at least one request a minute, and no negative burst")

    @property
    def every(self) -> float:
        """Seconds in which one request of a burst comes back."""
        return MINUTE / self.per_minute


class Bucket(NamedTuple):
    """What one caller has used.

    `since` is when its minute began, `used` what it has used of it, `refused` how often it was refused since. `spent`
    is what is missing of the burst at the instant `at`.
    """

    since: float
    at: float
    used: int = 0
    refused: int = 0
    spent: float = 0.0


class Taken(NamedTuple):
    """What became of one request.

    `remaining` requests may follow at once; after `reset` seconds the minute is over. `retry_after` is 0 for a request
    that is allowed, else the whole seconds after which the next one will be. `refused` counts the refusals of this
    minute, this one included.
    """

    allowed: bool
    limit: int
    remaining: int
    reset: int
    retry_after: int
    refused: int


def take(bucket: Bucket | None, rate: Rate, now: float) -> tuple[Bucket, Taken]:
    """Count one request, if there is room for it; None is the bucket of a caller who was not seen before."""
    since, at, used, refused, spent = bucket or Bucket(since=now, at=now)
    if now < at:
        since -= at - now
        at = now
    if now - since >= MINUTE - _ROUNDING:
        since, used, refused = now, 0, 0
    spent = max(0.0, spent - (now - at) / rate.every) if rate.burst else 0.0
    left = rate.per_minute - used
    if rate.burst:
        left = min(left, math.floor(rate.burst - spent + _ROUNDING))
    until_reset = since + MINUTE - now
    reset = max(1, math.ceil(until_reset - _ROUNDING))
    if left >= 1:
        kept = Bucket(since, now, used + 1, refused, spent + 1 if rate.burst else 0.0)
        return kept, Taken(True, rate.per_minute, left - 1, reset, 0, refused)
    until_next = until_reset if used >= rate.per_minute else (spent + 1 - rate.burst) * rate.every
    kept = Bucket(since, now, used, refused + 1, spent)
    return kept, Taken(False, rate.per_minute, 0, reset, max(1, math.ceil(until_next - _ROUNDING)), refused + 1)


_OWN_RATE: Final = re.compile(r"(?P<caller>[^=]+)=(?P<per_minute>[0-9]{1,9})(?:/(?P<burst>[0-9]{1,9}))?", re.ASCII)


def rate_of(entry: str, *, burst: int = 0) -> tuple[str, Rate | None]:
    """Read a caller's own rate: `CALLER=REQUESTS` with the general burst, or `CALLER=REQUESTS/BURST`.

    CALLER is `admin` or what an allow list calls a workspace or a client. Returns the caller and its rate; None for 0
    requests, which means no limit.

    Raises:
        ValueError: it is nothing of the kind; the text says what is accepted.
    """
    wanted = "'client:NAME=600', 'WORKSPACE=600', 'admin=600', or with a burst: 'client:NAME=600/50' (0: no limit)"
    found = _OWN_RATE.fullmatch(entry)
    if found is None or found["caller"] == EVERYBODY:
        raise ValueError(wanted)
    try:
        caller = found["caller"] if found["caller"] == TokenKind.ADMIN.value else listed_caller(found["caller"])
    except ValueError:
        raise ValueError(wanted) from None
    per_minute = int(found["per_minute"])
    own = int(found["burst"]) if found["burst"] is not None else burst
    return caller, Rate(per_minute=per_minute, burst=own) if per_minute else None


class Buckets:
    """The buckets of the callers that were seen last, `most` at a time."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._buckets: dict[str, Bucket] = {}

    def __len__(self) -> int:
        """How many are remembered."""
        return len(self._buckets)

    def take(self, caller: str, rate: Rate, now: float) -> Taken:
        """Count one request of a caller."""
        known = self._buckets.get(caller)
        bucket, taken = take(known, rate, now)
        if known is None or bucket.since != known.since:  # a new minute: its place is at the end
            self._buckets.pop(caller, None)
            if len(self._buckets) >= self._most:
                del self._buckets[next(iter(self._buckets))]
        self._buckets[caller] = bucket
        return taken

    def look(self, caller: str, rate: Rate, now: float) -> Taken:
        """What a request of a caller would meet; nothing is counted."""
        return take(self._buckets.get(caller), rate, now)[1]
