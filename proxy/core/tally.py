"""Plain numbers about how much and how long: what a metric is made of before anybody asks for it.

Owns: distributions over fixed bounds.
Knows nothing of: what is measured, how it is shown.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence


class Distribution:
    """Counts values by the first of `bounds` that is not smaller; larger ones count in a last place of their own."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        if list(bounds) != sorted(set(bounds)):
            raise ValueError("bounds grow")
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0
        """The sum of all values."""

    def observe(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def cumulative(self) -> Iterator[tuple[float, int]]:
        """Each bound with how many values were not above it; the last one is infinite and counts all."""
        seen = 0
        for bound, count in zip((*self.bounds, float("inf")), self.counts, strict=True):
            seen += count
            yield bound, seen
