"""What became of every message, and whether each restart was one: counted from evidence, by plain functions.

Owns: the records of what the harness saw (sends, executions, starts, kills), and the sums over them.
Knows nothing of: how any of it was observed, how it is shown.

A *verdict-called* restart is told from the decision log: a line `restart scheduled` whose trigger is the coordinator.
It belongs to the death of the incarnation before the one that it starts. It is **true** if the harness had killed that
incarnation's process before, and **false** otherwise: the process was alive, whatever it looked like.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from proxy.core.times import parse_rfc3339

SCHEDULED = "restart scheduled"
COORDINATOR = "coordinator"


class First(StrEnum):
    """What a send got at once."""

    ANSWERED = "answered"
    DEFERRED = "deferred"
    REFUSED = "refused"
    FAILED = "failed"


@dataclass(slots=True, kw_only=True)
class Sent:
    """One send and what its client saw of it. `right` says that the answer is the one to this very message.

    `verdict`, `restart`, `retry_after` are the headers of the first answer; `said` is the error's text; `ended` is how
    a deferred task ended (its state), None while it has not.
    """

    message_id: str
    workspace: str
    context_id: str
    text: str
    first: First | None = None
    status: int | None = None
    verdict: str | None = None
    restart: str | None = None
    retry_after: str | None = None
    delivered: str | None = None
    task_id: str | None = None
    said: str | None = None
    ended: str | None = None
    right: bool = False

    @property
    def served(self) -> bool:
        """Its client has the right answer, at once or later."""
        return self.right and self.first in {First.ANSWERED, First.DEFERRED}


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """A line of an agent's own account: this process executed this message."""

    message_id: str
    marked: bool
    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """A process that an agent program says it is: which life of which workspace."""

    workspace: str
    incarnation: int
    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """A process that the harness ended, and when (taken just before the signal)."""

    pid: int
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Duplicate:
    """A message that was executed more than once; `unmarked` counts the repetitions without a mark."""

    message_id: str
    times: int
    unmarked: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Called:
    """A restart that a verdict called; `victim` is the process that it was called for, None if it never started."""

    workspace: str
    incarnation: int
    rule: str
    at: datetime
    victim: int | None
    true: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """All that was seen. `decisions` holds each workspace's decision log as the HTTP API shows it."""

    sends: Sequence[Sent]
    executions: Sequence[Execution]
    starts: Sequence[Start]
    kills: Sequence[Kill]
    decisions: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Balance:
    """The sums. `lost` names sends that got neither a right answer nor a refusal, or whose answer nobody executed."""

    sent: int
    answered: int
    deferred: int
    replayed: int
    refused: int
    lost: tuple[str, ...]
    duplicates: tuple[Duplicate, ...]
    true_restarts: tuple[Called, ...]
    false_restarts: tuple[Called, ...]

    @property
    def unmarked(self) -> tuple[Duplicate, ...]:
        """Duplicates that an agent could not have recognised."""
        return tuple(duplicate for duplicate in self.duplicates if duplicate.unmarked)

    @property
    def kept(self) -> bool:
        """The promise was kept, and it was put to the test."""
        return not self.lost and not self.unmarked and bool(self.true_restarts) and not self.false_restarts


def balance(seen: Evidence) -> Balance:
    """Count."""
    first = Counter(sent.first for sent in seen.sends)
    executed = {execution.message_id for execution in seen.executions}
    called = called_restarts(seen)
    return Balance(
        sent=len(seen.sends),
        answered=first[First.ANSWERED],
        deferred=first[First.DEFERRED],
        replayed=sum(1 for sent in seen.sends if sent.first is First.DEFERRED and sent.right),
        refused=first[First.REFUSED],
        lost=tuple(
            sent.message_id
            for sent in seen.sends
            if sent.first is not First.REFUSED and not (sent.served and sent.message_id in executed)
        ),
        duplicates=duplicates(seen.executions),
        true_restarts=tuple(one for one in called if one.true),
        false_restarts=tuple(one for one in called if not one.true),
    )


def duplicates(executions: Iterable[Execution]) -> tuple[Duplicate, ...]:
    """Messages executed more than once. The first execution needs no mark; each later one does."""
    marks: dict[str, list[bool]] = {}
    for execution in executions:
        marks.setdefault(execution.message_id, []).append(execution.marked)
    return tuple(
        Duplicate(message_id=message_id, times=len(marked), unmarked=marked[1:].count(False))
        for message_id, marked in marks.items()
        if len(marked) > 1
    )


def out_of_order(sends: Iterable[Sent], executions: Iterable[Execution]) -> tuple[str, ...]:
    """Contexts whose messages were first executed in another order than that in which they were sent."""
    wanted: dict[tuple[str, str], list[str]] = {}
    for sent in sends:
        wanted.setdefault((sent.workspace, sent.context_id), []).append(sent.message_id)
    first = {message_id: place for place, message_id in enumerate(dict.fromkeys(one.message_id for one in executions))}
    return tuple(
        context_id
        for (_, context_id), message_ids in wanted.items()
        if (places := [first[one] for one in message_ids if one in first]) != sorted(places)
    )


def called_restarts(seen: Evidence) -> tuple[Called, ...]:
    """Every restart that a verdict called, oldest first, and whether it was one to call."""
    pids = {(start.workspace, start.incarnation): start.pid for start in seen.starts}
    killed = {kill.pid: kill.at for kill in seen.kills}
    found = []
    for workspace, lines in seen.decisions.items():
        for line in lines:
            if line["action"] != SCHEDULED or line["trigger"] != COORDINATOR:
                continue
            at = parse_rfc3339(line["at"])
            victim = pids.get((workspace, line["incarnation"] - 1))
            dead_since = killed.get(victim) if victim is not None else None
            found.append(
                Called(
                    workspace=workspace,
                    incarnation=line["incarnation"] - 1,
                    rule=line["rule"] or "",
                    at=at,
                    victim=victim,
                    true=dead_since is not None and dead_since <= at,
                )
            )
    return tuple(sorted(found, key=lambda called: called.at))


def configured_restarts(lines: Iterable[Mapping[str, Any]], trigger: str) -> int:
    """How many restarts a decision log shows that were asked for by `trigger` (`config`, `admin`)."""
    return sum(1 for line in lines if line["action"] == SCHEDULED and line["trigger"] == trigger)
