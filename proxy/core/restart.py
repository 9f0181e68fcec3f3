"""When a restart may start: coalescing, debounce, intensity and crash-loop backoff.

Owns: the restart record, its states, and `decide()`, which answers a request for a restart.
Knows nothing of: runtimes, storage, why a workspace is believed dead.

Theory of operation. One *cycle* at a time per workspace: stop, start, wait until ready. It is recorded before the
runtime is called, so that a crash finds it again.

* **Coalesce.** A request by an admin or a configuration write that meets a running cycle sets *pending*: one more
  cycle follows, and sees every write that was committed before it was asked for. N requests make at most two cycles.
  A verdict never sets pending: what it saw is what the running cycle mends.
* **Debounce** brakes *inferred* deaths only (`not_running`): within `debounce` seconds of the last cycle's start the
  request is recorded and judged again later.
* **Backoff** follows failed cycles: 1 s, 2 s, 4 s ... up to a cap, forgotten after a quiet time.
* **Intensity.** More than `intensity` starts asked by verdicts within `window` seconds: the workspace is *abandoned*
  until an admin, a configuration write or a new life says otherwise. A restart on demand begins the count anew.

Admin restarts and configuration writes are neither debounced nor counted. Any limit that is 0 is off.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import islice, takewhile

MIN_RETRY_AFTER = 15
MOST_DOUBLINGS = 30
"""Of the wait between failing starts, whatever its cap is."""


class Trigger(StrEnum):
    """Who asked for a restart."""

    VERDICT = "verdict"
    ADMIN = "admin"
    CONFIG = "config"
    ANNOUNCED = "announced"
    WAKE = "wake"


ON_DEMAND = frozenset({Trigger.ADMIN, Trigger.CONFIG, Trigger.WAKE})
"""Somebody's own wish: no brake holds it, and it clears what the brakes have counted."""


class Answer(StrEnum):
    """What became of the request."""

    SCHEDULED = "scheduled"
    COALESCED = "coalesced"
    DEBOUNCED = "debounced"
    BACKOFF = "backoff"
    ABANDONED = "abandoned"
    UNMANAGED = "unmanaged"


RESTARTING_ANSWERS = frozenset({Answer.SCHEDULED, Answer.COALESCED, Answer.BACKOFF})
"""The answers after which a restart is certain to follow without anybody asking again."""


class Phase(StrEnum):
    """How far a recorded cycle came; *superseded* ended because an admin asked for another, which is no failure."""

    RECORDED = "recorded"
    STOPPED = "stopped"
    STARTED = "started"
    FINISHED = "finished"
    FAILED = "failed"
    SUPERSEDED = "superseded"


OPEN_PHASES = frozenset({Phase.RECORDED, Phase.STOPPED, Phase.STARTED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Restart:
    """One cycle, as recorded. (workspace_id, generation) names it; `incarnation` is the life that it starts.

    `lease_owner` and `lease_until` say which proxy drives it; after `lease_until` any proxy may take it over.
    """

    workspace_id: str
    generation: int
    incarnation: int
    trigger: Trigger
    reason: str
    rule: str
    phase: Phase
    started_at: datetime
    returned_at: datetime | None = None
    finished_at: datetime | None = None
    error: str | None = None
    lease_owner: str | None = None
    lease_until: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartPolicy:
    """The brakes. Seconds; 0 switches a limit off."""

    debounce: float = 60.0
    intensity: int = 5
    window: float = 600.0
    backoff: float = 1.0
    backoff_cap: float = 300.0
    backoff_reset: float = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """What `decide` must know: the cycles of one workspace that may still count, oldest first."""

    managed: bool
    running: bool
    abandoned: bool = False
    cycles: tuple[Restart, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """`at` is when the next cycle may start (now, for `scheduled`); None where none will."""

    answer: Answer
    at: datetime | None = None

    def retry_after(self, now: datetime) -> int:
        """Seconds a caller is told to wait: at least 15, at least until the next allowed start."""
        if self.at is None:
            return MIN_RETRY_AFTER
        return max(MIN_RETRY_AFTER, -int(-(self.at - now).total_seconds() // 1))


def decide(  # noqa: PLR0911 - one return per answer
    trigger: Trigger, rule: str, history: History, policy: RestartPolicy, now: datetime
) -> Decision:
    """Answer a request for a restart. `rule` is the verdict's (`not_running` is inferred, `exited` was seen)."""
    if not history.managed:
        return Decision(answer=Answer.UNMANAGED)
    if history.running:
        return Decision(answer=Answer.COALESCED, at=now)
    if trigger in ON_DEMAND:
        return Decision(answer=Answer.SCHEDULED, at=now)
    if history.abandoned or _too_intense(history, policy, now):
        return Decision(answer=Answer.ABANDONED)
    last = history.cycles[-1] if history.cycles else None
    if last is not None and rule != "exited" and policy.debounce > 0:
        free_at = last.started_at + timedelta(seconds=policy.debounce)
        if now < free_at:
            return Decision(answer=Answer.DEBOUNCED, at=free_at)
    free_at = next_allowed(history, policy, now)
    if now < free_at:
        return Decision(answer=Answer.BACKOFF, at=free_at)
    return Decision(answer=Answer.SCHEDULED, at=now)


def _too_intense(history: History, policy: RestartPolicy, now: datetime) -> bool:
    if policy.intensity <= 0 or policy.window <= 0:
        return False
    since = now - timedelta(seconds=policy.window)
    # Somebody's own restart is a fresh start: what came before it is not held against what came after.
    asked_for = [cycle.started_at for cycle in history.cycles if cycle.trigger in ON_DEMAND]
    return len(counted(history, max([since, *asked_for]))) >= policy.intensity


def counted(history: History, since: datetime) -> tuple[Restart, ...]:
    """The cycles later than `since` that the intensity counts: asked by verdicts or announced by the workspace."""
    braked = {Trigger.VERDICT, Trigger.ANNOUNCED}
    return tuple(cycle for cycle in history.cycles if cycle.trigger in braked and cycle.started_at > since)


def failed_in_a_row(history: History) -> int:
    """How many of the latest cycles failed one after the other."""
    return len(failures(history.cycles))


def failures(cycles: Sequence[Restart]) -> Sequence[Restart]:
    """The latest cycles that failed one after the other, the newest first; as many as make the longest wait."""
    failed = takewhile(lambda cycle: cycle.phase is Phase.FAILED, reversed(cycles))
    return tuple(islice(failed, MOST_DOUBLINGS + 1))


def next_allowed(history: History, policy: RestartPolicy, now: datetime) -> datetime:
    """The instant at which backoff allows the next start: after n failed cycles in a row, backoff x 2^(n-1)."""
    failed = failed_in_a_row(history)
    if failed == 0 or policy.backoff <= 0:
        return now
    last = history.cycles[-1]
    ended = last.finished_at or last.started_at
    if policy.backoff_reset > 0 and now - ended >= timedelta(seconds=policy.backoff_reset):
        return now
    delay = min(policy.backoff * 2.0 ** (failed - 1), policy.backoff_cap)
    return ended + timedelta(seconds=delay)
