"""A workspace's states and the legal ways between them.

Owns: the vocabulary of `status`, `desired` and `lifecycle`, and the edges of `status` as data.
Knows nothing of: how a workspace got there (restart, registration and liveness say so), storage.

Theory of operation. Three words describe a workspace and never overlap:

* `status` is its health, as Holdfast sees it. It moves only along `EDGES`.
* `desired` is administration: what an operator wants. It never says whether anything runs.
* `lifecycle` is what the agent's own reporter said last. It is shown, it is evidence, it moves no status by itself.

An edge names what may cause it; an illegal move is an error and changes nothing.
"""

from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """A workspace's health."""

    STARTING = "starting"
    READY = "ready"
    DEGRADED = "degraded"
    RESTARTING = "restarting"
    OFFLINE = "offline"
    ABANDONED = "abandoned"


class Desired(StrEnum):
    """What administration wants of a workspace."""

    RUNNING = "running"
    PAUSED = "paused"
    HIBERNATED = "hibernated"
    DRAINING = "draining"
    REMOVED = "removed"


class Lifecycle(StrEnum):
    """What an agent's lifecycle reporter says."""

    CREATED = "created"
    STARTING = "starting"
    START_TIMEOUT = "start_timeout"
    START_ERROR = "start_error"
    READY = "ready"
    SHUTTING_DOWN = "shutting_down"
    SHUTDOWN_TIMEOUT = "shutdown_timeout"
    SHUTDOWN_ERROR = "shutdown_error"
    OFF = "off"


PARKED = frozenset({Desired.PAUSED, Desired.HIBERNATED, Desired.DRAINING, Desired.REMOVED})
RESTING = frozenset({Desired.PAUSED, Desired.HIBERNATED})
"""Parked with the prospect of running again: the compute is stopped, requests wait."""
SERVING = frozenset({Status.STARTING, Status.READY, Status.DEGRADED})


class Cause(StrEnum):
    """What may move a workspace along an edge."""

    PROBE = "probe"
    BEAT = "beat"
    REGISTRATION = "registration"
    NEW_BOOT = "new_boot"
    VERDICT = "verdict"
    COORDINATOR = "coordinator"
    BRAKE = "brake"
    ADMIN = "admin"
    STALE = "stale"


@dataclass(frozen=True, slots=True)
class Edge:
    """One legal move of `status`."""

    source: Status
    target: Status
    causes: frozenset[Cause]


def _edges() -> tuple[Edge, ...]:
    s, c = Status, Cause
    rows: tuple[tuple[tuple[Status, ...], Status, tuple[Cause, ...]], ...] = (
        ((s.STARTING,), s.READY, (c.PROBE, c.BEAT, c.REGISTRATION)),
        ((s.READY,), s.DEGRADED, (c.BEAT, c.PROBE)),
        ((s.DEGRADED,), s.READY, (c.BEAT, c.PROBE, c.REGISTRATION)),
        ((s.READY, s.DEGRADED), s.STARTING, (c.NEW_BOOT,)),
        ((s.READY, s.DEGRADED, s.STARTING, s.OFFLINE, s.ABANDONED), s.RESTARTING, (c.COORDINATOR,)),
        ((s.READY, s.DEGRADED, s.STARTING), s.OFFLINE, (c.VERDICT, c.STALE, c.ADMIN)),
        ((s.RESTARTING,), s.STARTING, (c.COORDINATOR, c.NEW_BOOT)),
        ((s.RESTARTING,), s.OFFLINE, (c.COORDINATOR,)),
        ((s.RESTARTING, s.OFFLINE, s.STARTING), s.ABANDONED, (c.BRAKE,)),
        ((s.OFFLINE, s.ABANDONED), s.STARTING, (c.REGISTRATION, c.NEW_BOOT, c.ADMIN)),
        ((s.OFFLINE,), s.READY, (c.REGISTRATION, c.BEAT, c.PROBE)),
    )
    return tuple(Edge(source, target, frozenset(causes)) for sources, target, causes in rows for source in sources)


EDGES: tuple[Edge, ...] = _edges()
_BY_PAIR = {(edge.source, edge.target): edge.causes for edge in EDGES}


class IllegalMove(ValueError):  # noqa: N818 - it names the event, as the field's state machines do
    """A status was asked to move along no edge; nothing changed."""


def move(source: Status, target: Status, cause: Cause) -> Status:
    """Return `target` if the edge exists for that cause; staying put is always legal.

    Raises:
        IllegalMove: there is no such edge, or not for this cause.
    """
    if source is target:
        return target
    if cause not in _BY_PAIR.get((source, target), frozenset()):
        raise IllegalMove(f"{source} -> {target} by {cause} is no edge of a workspace's status")
    return target


def may_move(source: Status, target: Status, cause: Cause) -> bool:
    """Say whether `move` would succeed."""
    return source is target or cause in _BY_PAIR.get((source, target), frozenset())


class Word(StrEnum):
    """What changes `desired`: an administrator's verb, or somebody who needs a hibernated workspace."""

    PAUSE = "pause"
    RESUME = "resume"
    HIBERNATE = "hibernate"
    WAKE = "wake"
    REMOVE = "remove"


DESIRED_EDGES: tuple[tuple[Desired, Desired, frozenset[Word]], ...] = (
    (Desired.RUNNING, Desired.PAUSED, frozenset({Word.PAUSE})),
    (Desired.HIBERNATED, Desired.PAUSED, frozenset({Word.PAUSE})),
    (Desired.RUNNING, Desired.HIBERNATED, frozenset({Word.HIBERNATE})),
    (Desired.PAUSED, Desired.HIBERNATED, frozenset({Word.HIBERNATE})),
    (Desired.PAUSED, Desired.RUNNING, frozenset({Word.RESUME})),
    (Desired.HIBERNATED, Desired.RUNNING, frozenset({Word.RESUME, Word.WAKE})),
    *((source, Desired.REMOVED, frozenset({Word.REMOVE})) for source in Desired if source is not Desired.REMOVED),
)
"""Every legal change of `desired`, and who may ask for it. Nothing asks for `draining` yet."""


def may_want(source: Desired, target: Desired) -> bool:
    """Say whether `desired` may change like that."""
    return any((source, target) == edge[:2] for edge in DESIRED_EDGES)
