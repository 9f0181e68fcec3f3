"""Owns the settings about callers: whom they may call, and how often.

Knows nothing of how either is decided (`core.access`, `core.rates`).
"""

from dataclasses import dataclass
from typing import Annotated

from proxy.core.access import AccessRule, listed_caller
from proxy.core.rates import rate_of
from proxy.setting_kinds import About


def is_listed(text: str) -> str | None:
    """Check that a text is an entry of an allow list."""
    try:
        listed_caller(text)
    except ValueError as problem:
        return str(problem)
    return None


def is_rate(text: str) -> str | None:
    """Check that a text gives one caller its own rate."""
    try:
        rate_of(text)
    except ValueError as problem:
        return str(problem)
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessSettings:
    """Who may call whom; the rules are explained in security.md."""

    rule: Annotated[AccessRule, About("Who may call a workspace, beside the admin and itself.")] = AccessRule.ANY
    allow_from: Annotated[
        tuple[str, ...],
        About(
            "The allow list of workspaces without one of their own; read by `list` and `hierarchy`.", check=is_listed
        ),
    ] = ()
    depth: Annotated[
        int, About("At how many parents the way up ends under `hierarchy`.", unit="parents", least=1, most=1000)
    ] = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class RateSettings:
    """How often callers may call, each counted by itself. They are counted per proxy, and in memory."""

    requests_per_minute: Annotated[
        int, About("Requests of one caller within a minute; more are 429; 0: no limit.", unit="requests")
    ] = 0
    burst: Annotated[
        int, About("How many of them at once, the rest evenly over the minute; 0: all of them.", unit="requests")
    ] = 0
    callers: Annotated[
        tuple[str, ...],
        About("Callers with a limit of their own, `CALLER=REQUESTS` or `CALLER=REQUESTS/BURST`.", check=is_rate),
    ] = ()
    failures_per_minute: Annotated[
        int,
        About(
            "Requests without a valid token from one address (IPv6: from one /64) within a minute, after which it gets "
            "429 whatever token it shows; 0: no limit.",
            unit="requests",
        ),
    ] = 0
    remembered: Annotated[
        int,
        About("Callers, and addresses, that are counted at a time; the oldest is forgotten.", unit="callers", least=1),
    ] = 10_000
