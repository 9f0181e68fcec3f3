"""Owns the settings about push notifications: where they may go, how often one is tried, how much goes out at a time.

Knows nothing of what a notification says or when one is due (`loops.notifying`).
"""

from dataclasses import dataclass
from typing import Annotated, Final

from proxy.core.addresses import IPNetwork
from proxy.setting_kinds import About, seconds

_KIB: Final = 1024
_MIB: Final = 1024 * _KIB
_TICK: Final = 0.01  # the shortest interval of something that recurs, seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class PushSettings:
    """Push notifications about deferred tasks."""

    allow: Annotated[
        tuple[IPNetwork, ...] | None,
        About(
            "Loopback and private networks in which callers' receivers may be called.",
            absent="the networks of `upstream_allow`",
        ),
    ] = None
    receivers: Annotated[
        int, About("Configurations that one task may have; one more is refused.", unit="receivers", least=1)
    ] = 10
    concurrent: Annotated[int, About("Notifications under way at a time; more wait.", unit="calls", least=1)] = 16
    timeout: Annotated[float, seconds("How long a receiver may take to answer.", least=_TICK, most=600)] = 10.0
    tries: Annotated[
        int, About("Failed tries after which a notification is given up, with all that wait behind it.", least=1)
    ] = 10
    age: Annotated[float, seconds("How long a notification is tried; then it is given up likewise.", least=1)] = (
        21_600.0
    )
    backoff: Annotated[float, seconds("Wait after the first failed try; doubles with each.", least=_TICK)] = 1.0
    backoff_cap: Annotated[float, seconds("Longest such wait, also where a receiver asks for more.", least=_TICK)] = (
        300.0
    )
    bytes: Annotated[
        int,
        About("Longest notification; a longer task is sent without artifacts and history.", unit="bytes", least=_KIB),
    ] = _MIB
    look: Annotated[
        float,
        seconds(
            "First pause before an agent is asked after a task that it goes on with; doubles each time.", least=_TICK
        ),
    ] = 2.0
    look_cap: Annotated[float, seconds("Longest such pause.", least=_TICK)] = 60.0
    sweep: Annotated[
        float, seconds("How often receivers are looked after that do not know their task's end.", least=_TICK)
    ] = 60.0
