"""Owns the settings about workspaces that fetch their requests: how much, how long, how large.

Knows nothing of how a claim is served (`loops.polling`).
"""

from dataclasses import dataclass
from typing import Annotated, Final

from proxy.setting_kinds import About, seconds

_MIB: Final = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class PollSettings:
    """Workspaces that claim their requests instead of being dialled."""

    items: Annotated[int, About("Deferrals in one claim at most; a claim for more gets so many.", least=1)] = 32
    bytes: Annotated[
        int, About("Once the requests of a claim reach this size it hands out no more.", unit="bytes", least=1)
    ] = 32 * _MIB
    wait: Annotated[float, seconds("Longest time that an empty claim waits; one that asks for more waits so long.")] = (
        60.0
    )
    waiting: Annotated[int, About("Claims of one workspace that may wait at a time.", unit="claims", least=1)] = 64
    lease_least: Annotated[float, seconds("Shortest lease; a claim that asks for less gets this.", least=0.1)] = 1.0
    lease_most: Annotated[float, seconds("Longest lease; a claim that asks for more gets this.", least=1)] = 3600.0
    event_bytes: Annotated[int, About("Longest stream event that is taken.", unit="bytes", least=1)] = _MIB
    journal_rows: Annotated[int, About("Stream events kept of one deferral; 0: no limit.", unit="events")] = 10_000
    journal_bytes: Annotated[int, About("Bytes of stream events kept of one deferral; 0: no limit.", unit="bytes")] = (
        16 * _MIB
    )
