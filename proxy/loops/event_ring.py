"""The latest events of this life, numbered, for readers who come and go.

Owns: an event's id, how many are kept, finding a reader's place again, waking readers.
Knows nothing of: HTTP, server-sent events, what an event means.

Theory of operation. The ring is a sink. It gives each event the next number and keeps the newest `rows`. A reader is no
more than a place in it, the number of the last event it has: readers share the one ring, so a slow one costs no memory
and never holds up whoever emits. A reader that stays behind until the ring has overwritten what it had not read yet
learns how much it missed.

An id is `<life>-<number>`: the life is the instant at which this ring was made, in microseconds, so an id of an earlier
life of the proxy is told from one of ours. A place is *known* while every event after it is still kept.
"""

import asyncio
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from proxy.core.times import micros
from proxy.telemetry import Event, EventName, Level, json_line

_ID: Final = re.compile(r"([0-9]{1,20})-([0-9]{1,20})", re.ASCII)


@dataclass(slots=True)
class Numbered:
    """An event with its number. Its JSON is made when the first reader wants it, and kept."""

    number: int
    event: Event
    _json: str | None = field(default=None, repr=False)

    @property
    def json(self) -> str:
        """The event as one line of JSON."""
        if self._json is None:
            self._json = json_line(self.event)
        return self._json


class Place:
    """How far one reader has come. `missed`: events overwritten before this reader had them."""

    __slots__ = ("bell", "left", "missed", "number")

    def __init__(self, number: int) -> None:
        self.number = number
        self.missed = 0
        self.left = False
        self.bell = asyncio.Event()

    def leave(self) -> None:
        """The reader is gone."""
        self.left = True
        self.bell.set()


class EventRing:
    """Keeps events of `least` and above. `close` ends every reader."""

    def __init__(self, *, born: datetime, rows: int, least: Level) -> None:
        self._life = micros(born)
        self.least = least
        self._rows = rows
        self._kept: list[Numbered] = []  # event n stands at (n - 1) % rows
        self._last = 0
        self._places: set[Place] = set()
        self.closed = False
        self.gaps = 0
        """How many readers fell so far behind that they missed something."""

    def wants(self, name: EventName) -> bool:
        """Events of the level and above."""
        return name.level >= self.least

    def __call__(self, event: Event) -> None:
        """Keep an event and wake the readers."""
        numbered = Numbered(self._last + 1, event)
        if len(self._kept) < self._rows:
            self._kept.append(numbered)
        else:
            self._kept[self._last % self._rows] = numbered
        self._last += 1
        for place in self._places:
            place.bell.set()

    def __len__(self) -> int:
        """How many readers there are."""
        return len(self._places)

    @property
    def rows(self) -> int:
        """How many events are kept now."""
        return len(self._kept)

    def close(self) -> None:
        """The proxy stops: readers get what is left, and then the end."""
        self.closed = True
        for place in self._places:
            place.bell.set()

    # Ids

    def name(self, number: int) -> str:
        """The id of an event."""
        return f"{self._life}-{number}"

    @property
    def latest(self) -> str:
        """The id of the newest event; the place of a reader who wants only what comes."""
        return self.name(self._last)

    @property
    def oldest(self) -> str:
        """The id of the oldest event that is kept; of the next one, while there is none."""
        return self.name(self._before + 1)

    @property
    def start(self) -> str:
        """The place before the oldest event: whoever reads on from here gets everything that is kept."""
        return self.name(self._before)

    @property
    def _before(self) -> int:
        return self._last - len(self._kept)

    @staticmethod
    def well_formed(text: str) -> bool:
        """Whether a text could be an id of some life's."""
        return _ID.fullmatch(text) is not None

    def number(self, text: str) -> int | None:
        """The number of a place, given as an id; None when it is not known: another life's, or something is gone."""
        found = _ID.fullmatch(text)
        if found is None or int(found[1]) != self._life:
            return None
        number = int(found[2])
        return number if self._before <= number <= self._last else None

    # Reading

    @contextmanager
    def reading(self, number: int | None) -> Iterator[Place]:
        """Lend a place after that event, or after the newest one; it is given up at the end."""
        place = Place(self._last if number is None else number)
        self._places.add(place)
        try:
            yield place
        finally:
            self._places.discard(place)

    def next(self, place: Place, wanted: Callable[[Event], bool], most: int) -> list[Numbered]:
        """Move a reader on and return at most `most` events that it wants, oldest first.

        Sets `missed` when events were overwritten meanwhile; the place then stands before the oldest that is kept.
        """
        place.bell.clear()
        behind = self._before - place.number
        if behind > 0:
            place.missed += behind
            place.number = self._before
            self.gaps += 1
            return []
        found: list[Numbered] = []
        for number in range(place.number, self._last):
            numbered = self._kept[number % self._rows]
            place.number = numbered.number
            if wanted(numbered.event):
                found.append(numbered)
                if len(found) == most:
                    place.bell.set()
                    break
        return found
