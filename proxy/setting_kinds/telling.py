"""Owns the settings about what is told: the log, the live stream of events, the metrics.

Knows nothing of: what an event is (`telemetry`), how it is streamed or counted.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Final

from proxy.setting_kinds import About, seconds

_TICK: Final = 0.01  # the shortest interval of something that recurs, seconds


class LogLevel(StrEnum):
    """The least loud event that is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(StrEnum):
    """How the log writes an event."""

    HUMAN = "human"
    JSON = "json"


@dataclass(frozen=True, slots=True, kw_only=True)
class EventSettings:
    """The live stream of events, `GET /events`."""

    level: Annotated[LogLevel, About("The least loud event that is kept and streamed.")] = LogLevel.INFO
    rows: Annotated[int, About("Events kept in memory for readers who come back.", unit="events", least=1)] = 10_000
    readers: Annotated[int, About("Readers at a time; 0: none.", unit="readers")] = 32
    keep_alive: Annotated[float, seconds("Silence after which a stream shows that it lives.", least=_TICK)] = 15.0
    stall: Annotated[float, seconds("A reader that takes nothing for so long is let go.", least=_TICK)] = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricSettings:
    """What `GET /metrics` shows."""

    workspaces: Annotated[
        int, About("Workspaces with series of their own; all others share `_other`.", unit="workspaces")
    ] = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    """The log on standard error."""

    level: Annotated[LogLevel, About("The least loud event that is logged.")] = LogLevel.INFO
    format: Annotated[LogFormat, About("How a line is written.")] = LogFormat.HUMAN
