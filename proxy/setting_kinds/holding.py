"""Owns the settings about callers that wait: how many at a time, how long silence may last.

Knows nothing of how a caller is kept waiting (`web.holding`, `web.told_streams`).
"""

from dataclasses import dataclass
from typing import Annotated, Final

from proxy.setting_kinds import About, seconds

_MIB: Final = 1024 * 1024
_TICK: Final = 0.01  # the shortest interval of something that recurs, seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldSettings:
    """Callers that are kept waiting for the answer to a deferred request."""

    count: Annotated[
        int, About("Callers that are held at a time; more get their receipt at once. 0: none is held.", unit="callers")
    ] = 1000
    bytes: Annotated[
        int, About("Bytes of the requests of held callers; more get their receipt at once. 0: no limit.", unit="bytes")
    ] = 64 * _MIB
    keep_alive: Annotated[
        float,
        seconds("Silence after which a held caller is sent a blank, the reader of a stream a comment.", least=_TICK),
    ] = 2.0
    silent: Annotated[float, seconds("How long a caller is held that must not be sent blanks (REST); 0: not.")] = 4.0
    resume: Annotated[
        bool, About("Hold the caller of a stream whose agent is lost, too, and let the stream go on when it is back.")
    ] = True
    comments: Annotated[
        bool, About("Send such comments into the quiet event streams of agents, too, between two events.")
    ] = True
