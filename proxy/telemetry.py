"""Owns the event record: what happened, once, for every sink. Knows nothing of what any sink makes of it.

Everything worth telling is one :class:`Event` with a name from one vocabulary. The log is a sink; the counters behind
the metrics and the live stream are others. A sink that fails never breaks the caller that emitted: the failure is
counted, and that is all.

A sink may say which events it wants (`wants`); an event that no sink wants is not even made. What is told of every
healthy request costs a look-up, unless a log or a stream asks for it.

Secrets do not get this far by design; every field is masked all the same before a sink sees it (`core.masking`).
"""

import json
import logging
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum, StrEnum
from pathlib import Path
from traceback import extract_tb
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
    CONFIG_WARNING = "config.warning", Level.WARNING, "A configuration that works, though hardly as meant."
    CLOCK_JUMPED = "clock.jumped", Level.WARNING, "The wall clock was stepped or the machine slept; ages are off."
    LIBRARY_LOGGED = "library.logged", Level.WARNING, "A library that the proxy stands on logged a warning or an error."
    LOOP_FAILED = "loop.failed", Level.ERROR, "One round of a background loop failed; the loop goes on."
    STORE_FAILED = "store.failed", Level.ERROR, "The database refused or lost a unit of work."
    RATE_EXCEEDED = "rate.exceeded", Level.WARNING, "A caller or an address met its rate limit; told once a minute."
    AUTH_REFUSED = "auth.refused", Level.INFO, "A caller was turned away; the rule says why, the answer does not."
    REQUEST_FORWARDED = "request.forwarded", Level.DEBUG, "An upstream call ended with the agent's answer."
    REQUEST_FAILED = "request.failed", Level.INFO, "An upstream call failed; the class says whether anything was sent."
    REQUEST_ANSWERED = "request.answered", Level.DEBUG, "The proxy answered by itself instead of the agent."
    REQUEST_CRASHED = "request.crashed", Level.ERROR, "Serving a request met a fault of the proxy's own; it got a 500."
    VERDICT = "verdict", Level.INFO, "An evaluation of a workspace ended in a verdict, by the rule named."
    STREAM_RESUMED = "stream.resumed", Level.INFO, "A caller's stream whose agent was lost goes on with the same task."
    WORKSPACE_CREATED = "workspace.created", Level.INFO, "A workspace is known for the first time."
    WORKSPACE_CHANGED = "workspace.changed", Level.INFO, "A workspace's address, delivery or settings changed."
    CARD_KEPT = "card.kept", Level.INFO, "A workspace's agent showed another card than the kept one; it was written."
    WORKSPACE_DELETED = "workspace.deleted", Level.INFO, "A workspace was removed."
    WORKSPACE_INCARNATION = "workspace.incarnation", Level.INFO, "A new incarnation of a workspace began."
    WORKSPACE_STATUS = "workspace.status", Level.INFO, "A workspace's status changed."
    WORKSPACE_DESIRED = "workspace.desired", Level.INFO, "What is wanted of a workspace changed: pause, resume, ..."
    WORKSPACE_EXITED = "workspace.exited", Level.WARNING, "A supervisor saw the agent's process end."
    RESTART_SCHEDULED = "restart.scheduled", Level.WARNING, "A restart was recorded and will run."
    RESTART_COALESCED = "restart.coalesced", Level.INFO, "A restart was asked for while one was under way."
    RESTART_DEBOUNCED = "restart.debounced", Level.INFO, "A restart was asked for too soon; it is judged again later."
    RESTART_BACKOFF = "restart.backoff", Level.INFO, "A restart waits, since earlier ones failed."
    RESTART_ANNOUNCED = "restart.announced", Level.INFO, "A workspace said that it restarts itself."
    RESTART_STARTED = "restart.started", Level.INFO, "The runtime was asked to stop and start the workspace."
    RESTART_FINISHED = "restart.finished", Level.INFO, "The workspace is ready again."
    RESTART_FAILED = "restart.failed", Level.WARNING, "What was started exited or never became ready."
    RESTART_ABANDONED = "restart.abandoned", Level.ERROR, "Too many restarts: only an admin or the workspace ends it."
    DEFERRAL_QUEUED = "deferral.queued", Level.INFO, "A request was put away durably."
    DEFERRAL_LEASED = "deferral.leased", Level.DEBUG, "A deferral was handed out for delivery."
    DEFERRAL_RETURNED = "deferral.returned", Level.INFO, "A delivery did not succeed; the deferral waits again."
    DEFERRAL_TAKEN_UP = "deferral.taken_up", Level.INFO, "An agent was asked for a task that it had, and still has it."
    DEFERRAL_COMPLETED = "deferral.completed", Level.INFO, "The agent's answer to a deferral is stored."
    DEFERRAL_DEAD_LETTERED = "deferral.dead_lettered", Level.ERROR, "A deferral ran out of attempts or cannot succeed."
    DEFERRAL_EXPIRED = "deferral.expired", Level.WARNING, "A deferral outlived its time to live."
    DEFERRAL_CANCELLED = "deferral.cancelled", Level.INFO, "A deferral was cancelled before it ran."
    DEFERRAL_DROPPED = "deferral.dropped", Level.WARNING, "An admin dropped a stale deferral."
    DEFERRAL_UNWRITTEN = "deferral.unwritten", Level.ERROR, "The store cannot take what a delivery led to; tried on."
    DEFERRAL_REDRIVEN = "deferral.redriven", Level.INFO, "An admin had a dead letter queued again."
    DEFERRAL_REFUSED = "deferral.refused", Level.WARNING, "A request could not be put away: queue full, or no commit."
    PUSH_DELIVERED = "push.delivered", Level.DEBUG, "A receiver took a push notification about a deferred task."
    PUSH_FAILED = "push.failed", Level.INFO, "A receiver did not take a push notification; it is tried again."
    PUSH_GIVEN_UP = "push.given_up", Level.WARNING, "A push notification was given up: refused, or tried long enough."
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
    """Hands each event to every sink that wants it. `failures` counts, per sink, the events that it could not take."""

    def __init__(self, now: Callable[[], datetime], sinks: Iterable[Sink] = ()) -> None:
        self._now = now
        self._sinks: tuple[Sink, ...] = ()
        self._wanting: dict[EventName, tuple[Sink, ...]] = {}
        self._failures: dict[str, int] = {}
        for sink in sinks:
            self.add(sink)

    @property
    def failures(self) -> Mapping[str, int]:
        """How many events each sink failed to take, by the sink's name; a sink without failures is not listed."""
        return dict(self._failures)

    def add(self, sink: Sink) -> Callable[[], None]:
        """Add a sink; the returned function takes it away again, and may be called twice.

        A sink with a method `wants(name) -> bool` is handed the events whose names it wants; it is asked once a name.
        """
        self._take((*self._sinks, sink))

        def remove() -> None:
            self._take(tuple(other for other in self._sinks if other is not sink))

        return remove

    def _take(self, sinks: tuple[Sink, ...]) -> None:
        self._sinks = sinks
        self._wanting = {name: tuple(sink for sink in sinks if _wants(sink, name)) for name in EventName}

    def wanted(self, name: EventName) -> bool:
        """Whether any sink wants it: what is told of every healthy request is not made for nobody."""
        return bool(self._wanting.get(name))

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
        sinks = self._wanting.get(name)
        if not sinks:
            return
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
        for sink in sinks:
            try:
                sink(event)
            except Exception:  # noqa: BLE001 - whatever a sink raises, its caller has real work to do
                sink_name = getattr(sink, "__qualname__", type(sink).__qualname__)
                self._failures[sink_name] = self._failures.get(sink_name, 0) + 1


def _wants(sink: Sink, name: EventName) -> bool:
    asked = getattr(sink, "wants", None)
    return asked is None or bool(asked(name))


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

    def wants(self, name: EventName) -> bool:
        """Events of the level and above."""
        return name.level >= self._least

    def __call__(self, event: Event) -> None:
        """Write one line, or nothing for an event below the level."""
        if event.level >= self._least:
            self._stream.write(self._line(event) + "\n")
            self._stream.flush()


class LibraryLog(logging.Handler):
    """Turns what libraries log (the server, the event loop) into events, so that the log has one form.

    Of a record only what cannot hold a value is told: the logger, the first line of the text before its values are put
    in, and the kind and places of an exception. What a library formats may be a token or a body.
    """

    def __init__(self, telemetry: Telemetry) -> None:
        super().__init__(logging.WARNING)
        self._telemetry = telemetry

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler`."""
        fields: dict[str, object] = {"logger": record.name, "message": str(record.msg).partition("\n")[0][:200]}
        if record.exc_info and record.exc_info[1] is not None:
            fields |= fault(record.exc_info[1])
        self._telemetry.emit(EventName.LIBRARY_LOGGED, fields=fields)

    def install(self) -> Callable[[], None]:
        """Take over what libraries log in this process; the returned function gives it back."""
        root = logging.getLogger()
        root.addHandler(self)
        return lambda: root.removeHandler(self)


def fault(problem: BaseException) -> dict[str, object]:
    """Return the kind of an exception, its `reason` if it has one, and where it came from, innermost first.

    Not its text, which may hold values.
    """
    places = [f"{Path(place.filename).name}:{place.lineno}" for place in reversed(extract_tb(problem.__traceback__))]
    reason = getattr(problem, "reason", None)
    known = {"reason": reason} if isinstance(reason, str) else {}
    return {"error": type(problem).__name__, **known, "where": " < ".join(places[:8])}
