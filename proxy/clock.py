"""Owns what time it is: one injected ``Now``. Knows nothing of who asks.

Theory of operation. Ages decide about life and death here, so a step of the wall clock must not age every heartbeat
at once, and a machine that slept must not believe that no time has passed. Therefore now is

    an anchor of the wall clock + the time elapsed since then on a clock that counts suspension (CLOCK_BOOTTIME).

Each call also looks at the wall. Where the two differ by more than ``TOLERANCE``:

* the wall is ahead: the anchor moves forward to it. Now never moves backward, so ages never turn negative;
* the wall is behind: now keeps its own course (the wall catches up, or somebody corrects it).

A suspension is seen as well, by the clock that does not count it: nothing is re-anchored, but nobody could have heard
a heartbeat meanwhile. Each of these is a *jump*: reported once, and remembered in ``jumped_at``, because an age that
spans a jump proves nothing. The proxy's own start is a jump for the same reason, but is not reported.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from proxy.core.times import from_micros

Now = Callable[[], datetime]
"""Returns the present instant, UTC-aware. The only way in which the proxy learns the time."""

Stopwatch = Callable[[], float]
stopwatch: Final[Stopwatch] = time.perf_counter
"""Seconds of which only differences mean anything: for measuring how long work took, never for deciding."""

TOLERANCE: Final = timedelta(seconds=2)
_NANOS_IN_A_MICRO: Final = 1_000
_TOLERANCE_NANOS: Final = int(TOLERANCE.total_seconds()) * 1_000_000_000


class JumpKind(StrEnum):
    """Why an age that spans this instant proves nothing."""

    STARTED = "started"
    FORWARD = "forward"
    BACKWARD = "backward"
    SUSPENDED = "suspended"


@dataclass(frozen=True, slots=True, kw_only=True)
class Jump:
    """One jump: at which instant (after any re-anchoring), of which kind, and by how many seconds (signed)."""

    at: datetime
    kind: JumpKind
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """The three clocks below, each a function that returns nanoseconds.

    ``wall`` is the time of day and may step; ``elapsed`` counts suspension and never steps; ``awake`` is like
    ``elapsed`` but stands still during suspension.
    """

    wall: Callable[[], int]
    elapsed: Callable[[], int]
    awake: Callable[[], int]


def system_sources() -> Sources:
    """Return this machine's clocks. Where there is no CLOCK_BOOTTIME a suspension shows as a step of the wall."""
    boottime = getattr(time, "CLOCK_BOOTTIME", None)
    if boottime is None:
        return Sources(wall=time.time_ns, elapsed=time.monotonic_ns, awake=time.monotonic_ns)
    return Sources(wall=time.time_ns, elapsed=lambda: time.clock_gettime_ns(boottime), awake=time.monotonic_ns)


class SystemClock:
    """A ``Now`` over three clocks (see the module). May be called from any thread; a call costs a few microseconds.

    ``on_jump`` is called once per jump, by whoever asked for the time, after the clock has settled; it may ask for the
    time itself. It can be set later, because what it reports to usually needs the clock first.
    """

    def __init__(self, sources: Sources | None = None, on_jump: Callable[[Jump], None] | None = None) -> None:
        sources = sources or system_sources()
        self.on_jump = on_jump
        self._wall, self._elapsed, self._awake = sources.wall, sources.elapsed, sources.awake
        self._lock = threading.Lock()
        # Each is one integer, so that a reader in another thread sees the old or the new one, never half of both.
        self._anchor = self._wall() - self._elapsed()
        self._slept = self._elapsed() - self._awake()
        self._known_lag = 0
        self._jumped_at = from_micros((self._elapsed() + self._anchor) // _NANOS_IN_A_MICRO)

    @property
    def jumped_at(self) -> datetime:
        """The instant of the last jump; at first that of the clock's own start."""
        return self._jumped_at

    def trusts_ages(self, now: datetime, ttl: timedelta) -> bool:
        """Whether one ``ttl`` has passed since the last jump, so that silence for that long means something."""
        return now - self._jumped_at >= ttl

    def __call__(self) -> datetime:
        """Return the present instant in UTC, never earlier than one returned before."""
        elapsed = self._elapsed()
        lag = self._wall() - elapsed - self._anchor
        slept = elapsed - self._awake() - self._slept
        if abs(lag - self._known_lag) > _TOLERANCE_NANOS or slept > _TOLERANCE_NANOS:
            for jump in self._settle():
                if self.on_jump is not None:
                    self.on_jump(jump)
            elapsed = self._elapsed()
        return from_micros((elapsed + self._anchor) // _NANOS_IN_A_MICRO)

    def _settle(self) -> list[Jump]:
        """Take in what changed below, once, whichever thread comes first; return the jumps to report."""
        jumps: list[Jump] = []
        with self._lock:
            elapsed = self._elapsed()
            slept = elapsed - self._awake() - self._slept
            if slept > _TOLERANCE_NANOS:
                self._slept += slept
                jumps.append(self._jump(elapsed, JumpKind.SUSPENDED, slept))
            lag = self._wall() - elapsed - self._anchor
            moved = lag - self._known_lag
            if abs(moved) <= _TOLERANCE_NANOS:
                return jumps
            if lag > _TOLERANCE_NANOS:
                self._anchor += lag
                self._known_lag = 0
                jumps.append(self._jump(elapsed, JumpKind.FORWARD, lag))
            elif lag < -_TOLERANCE_NANOS:
                self._known_lag = lag
                jumps.append(self._jump(elapsed, JumpKind.BACKWARD, moved))
            else:  # the wall came back to where now has been all along: nothing aged, so there is nothing to report
                self._known_lag = 0
        return jumps

    def _jump(self, elapsed: int, kind: JumpKind, nanos: int) -> Jump:
        self._jumped_at = from_micros((elapsed + self._anchor) // _NANOS_IN_A_MICRO)
        return Jump(at=self._jumped_at, kind=kind, seconds=nanos / 1e9)
