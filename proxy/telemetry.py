"""Owns the event record: what happened, once, for every sink. Knows nothing of what any sink makes of it.

Everything worth telling is one :class:`Event` with a name from one vocabulary. The log is a sink; metrics, the decision
log's mirror and the live stream are others. A sink that fails never breaks the caller that emitted: the failure is
counted, and that is all.

Secrets do not get this far by design; every field is masked all the same before a sink sees it (`core.masking`).
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum, StrEnum
from typing import Any, Final, Self, TextIO

from proxy.core.masking import masked
from proxy.core.times import rfc3339


class Level(IntEnum):
    """How loud an event is. A log shows its own level and everything above it."""

    DEBUG = 10
    INFO = 20
    WARNING = 30
    ERROR = 40


class EventName(StrEnum):
    """Every event there is: its name, how loud it is, and what it means. What is not listed cannot be emitted."""

    level: Level
    meaning: str

    def __new__(cls, name: str, level: Level, meaning: str) -> Self:
        """Make a member that is its own name and carries the other two."""
        member = str.__new__(cls, name)
        member._value_ = name
        member.level = level
        member.meaning = meaning
        return member

    PROXY_STARTED = "proxy.started", Level.INFO, "The proxy serves; fields give its address and its data."
    PROXY_STOPPING = "proxy.stopping", Level.INFO, "A stop was asked for; open requests are drained."
    PROXY_STOPPED = "proxy.stopped", Level.INFO, "Everything is closed."
    PROXY_DOUBT_BEGAN = "proxy.doubt_began", Level.ERROR, "The proxy doubts its own sight: no inferred death counts."
    PROXY_DOUBT_ENDED = "proxy.doubt_ended", Level.WARNING, "The proxy trusts its own sight again."
    CONFIG_WARNING = "config.warning", Level.WARNING, "A configuration that works, though hardly as meant."
    CLOCK_JUMPED = "clock.jumped", Level.WARNING, "The wall clock was stepped or the machine slept; ages are off."
    LOOP_FAILED = "loop.failed", Level.ERROR, "One round of a background loop failed; the loop goes on."
    STORE_FAILED = "store.failed", Level.ERROR, "The database refused or lost a unit of work."
    AUTH_REFUSED = "auth.refused", Level.INFO, "A caller was turned away; the rule says why, the answer does not."
    REQUEST_FORWARDED = "request.forwarded", Level.DEBUG, "An upstream call ended with the agent's answer."
    REQUEST_FAILED = "request.failed", Level.INFO, "An upstream call failed; the class says whether anything was sent."
    REQUEST_ANSWERED = "request.answered", Level.DEBUG, "The proxy answered by itself instead of the agent."
    VERDICT = "verdict", Level.INFO, "An evaluation of a workspace ended in a verdict, by the rule named."
    WORKSPACE_CREATED = "workspace.created", Level.INFO, "A workspace is known for the first time."
    WORKSPACE_CHANGED = "workspace.changed", Level.INFO, "A workspace's address, delivery or settings changed."
    WORKSPACE_DELETED = "workspace.deleted", Level.INFO, "A workspace was removed."
    WORKSPACE_INCARNATION = "workspace.incarnation", Level.INFO, "A new incarnation of a workspace began."
    WORKSPACE_STATUS = "workspace.status", Level.INFO, "A workspace's status changed."
    WORKSPACE_DESIRED = "workspace.desired", Level.INFO, "What is wanted of a workspace changed: pause, resume, ..."
    WORKSPACE_LIFECYCLE = "workspace.lifecycle", Level.INFO, "A workspace's own reporter told of a state."
    WORKSPACE_EXITED = "workspace.exited", Level.WARNING, "A supervisor saw the agent's process end."
    RESTART_SCHEDULED = "restart.scheduled", Level.WARNING, "A restart was recorded and will run."
    RESTART_COALESCED = "restart.coalesced", Level.INFO, "A restart was asked for while one was under way."
    RESTART_DEBOUNCED = "restart.debounced", Level.INFO, "A restart was asked for too soon; it is judged again later."
    RESTART_ANNOUNCED = "restart.announced", Level.INFO, "A workspace said that it restarts itself."
    RESTART_STARTED = "restart.started", Level.INFO, "The runtime was asked to stop and start the workspace."
    RESTART_FINISHED = "restart.finished", Level.INFO, "The workspace is ready again."
    RESTART_FAILED = "restart.failed", Level.WARNING, "What was started exited or never became ready."
    RESTART_ABANDONED = "restart.abandoned", Level.ERROR, "Too many restarts: only an admin or the workspace ends it."
    DEFERRAL_QUEUED = "deferral.queued", Level.INFO, "A request was put away durably."
    DEFERRAL_LEASED = "deferral.leased", Level.DEBUG, "A deferral was handed out for delivery."
    DEFERRAL_RETURNED = "deferral.returned", Level.INFO, "A delivery did not succeed; the deferral waits again."
    DEFERRAL_COMPLETED = "deferral.completed", Level.INFO, "The agent's answer to a deferral is stored."
    DEFERRAL_DEAD_LETTERED = "deferral.dead_lettered", Level.ERROR, "A deferral ran out of attempts or cannot succeed."
    DEFERRAL_EXPIRED = "deferral.expired", Level.WARNING, "A deferral outlived its time to live."
    DEFERRAL_CANCELLED = "deferral.cancelled", Level.INFO, "A deferral was cancelled before it ran."
    DEFERRAL_DROPPED = "deferral.dropped", Level.WARNING, "An admin dropped a stale deferral."
    DEFERRAL_UNWRITTEN = "deferral.unwritten", Level.ERROR, "The store cannot take what a delivery led to; tried on."
    DEFERRAL_REDRIVEN = "deferral.redriven", Level.INFO, "An admin had a dead letter queued again."
    DEFERRAL_REFUSED = "deferral.refused", Level.WARNING, "A request could not be put away: queue full, or no commit."
    RUNTIME_FAILED = "runtime.failed", Level.ERROR, "A runtime's interface failed or did not answer in time."


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What happened. The named fields are those that people search by; ``fields`` holds the rest, already masked."""

    name: EventName
    at: datetime
    level: Level
    workspace: str | None = None
    request_id: str | None = None
    receipt: str | None = None
    incarnation: int | None = None
    rule: str | None = None
    fields: Mapping[str, object] = field(default_factory=dict)

    def as_dict(self) -> dict[str, object]:
        """Return a JSON-able, flat form without what is unknown. The record's own names win over ``fields``."""
        known = {
            "workspace": self.workspace,
            "request_id": self.request_id,
            "receipt": self.receipt,
            "incarnation": self.incarnation,
            "rule": self.rule,
        }
        head: dict[str, object] = {"at": rfc3339(self.at), "level": self.level.name.lower(), "event": str(self.name)}
        head.update((key, value) for key, value in known.items() if value is not None)
        return head | {key: value for key, value in self.fields.items() if key not in head}


Sink = Callable[[Event], None]
"""Takes an event, at once and without waiting. Raises when it cannot."""


class Telemetry:
    """Hands each event to every sink. ``failures`` counts, per sink, the events that it could not take."""

    def __init__(self, now: Callable[[], datetime], sinks: Iterable[Sink] = ()) -> None:
        self._now = now
        self._sinks: tuple[Sink, ...] = tuple(sinks)
        self._failures: dict[str, int] = {}

    @property
    def failures(self) -> Mapping[str, int]:
        """How many events each sink failed to take, by the sink's name; a sink without failures is not listed."""
        return dict(self._failures)

    def add(self, sink: Sink) -> Callable[[], None]:
        """Add a sink; the returned function takes it away again, and may be called twice."""
        self._sinks = (*self._sinks, sink)

        def remove() -> None:
            self._sinks = tuple(other for other in self._sinks if other is not sink)

        return remove

    def emit(
        self,
        name: EventName,
        *,
        workspace: str | None = None,
        request_id: str | None = None,
        receipt: str | None = None,
        incarnation: int | None = None,
        rule: str | None = None,
        fields: Mapping[str, object] | None = None,
    ) -> None:
        """Tell every sink that ``name`` happened now. Never raises for a sink's sake and never waits."""
        event = Event(
            name=name,
            at=self._now(),
            level=name.level,
            workspace=workspace,
            request_id=request_id,
            receipt=receipt,
            incarnation=incarnation,
            rule=rule,
            fields={key: masked(key, value) for key, value in (fields or {}).items()},
        )
        for sink in self._sinks:
            try:
                sink(event)
            except Exception:  # noqa: BLE001 - whatever a sink raises, its caller has real work to do
                sink_name = getattr(sink, "__qualname__", type(sink).__qualname__)
                self._failures[sink_name] = self._failures.get(sink_name, 0) + 1


def json_line(event: Event) -> str:
    """Return the event as one JSON object, in ASCII: a line break inside a value cannot forge a second line."""
    return json.dumps(event.as_dict(), separators=(",", ":"), default=str)


def human_line(event: Event) -> str:
    """Return the event for a terminal: time, level, name, then ``key=value``, quoted where it would be ambiguous."""
    shown = event.as_dict()
    at, level, name = (str(shown.pop(key)) for key in ("at", "level", "event"))
    details = " ".join(f"{_bare(key)}={_bare(value)}" for key, value in shown.items())
    return f"{at} {level:<7} {name:<22} {details}".rstrip()


_PLAIN: Final = re.compile(r"[!#-<>-~]+", re.ASCII)  # visible ASCII without blank, quote and equals sign


def _bare(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    if isinstance(value, str) and _PLAIN.fullmatch(text) is None:
        return json.dumps(text)
    return text


LINES: Final[Mapping[str, Callable[[Event], str]]] = {"human": human_line, "json": json_line}
"""The formats of a log, by the names that the configuration gives them."""


class LogSink:
    """Writes events of ``least`` and above as lines of ``form`` to ``stream``, each in one write and flushed."""

    def __init__(self, stream: TextIO, *, form: str = "human", least: Level = Level.INFO) -> None:
        self._stream = stream
        self._least = least
        self._line = LINES[form]

    def __call__(self, event: Event) -> None:
        """Write one line, or nothing for an event below the level."""
        if event.level >= self._least:
            self._stream.write(self._line(event) + "\n")
            self._stream.flush()
