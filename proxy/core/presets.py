"""The numbers of a liveness decision: the policy record, its three presets, and what makes a policy impossible.

Owns: names, defaults and limits of the settings. Knows nothing of: what the rules do with them (`core.liveness_rules`).

| preset         | in one sentence                                                                              |
| -------------- | -------------------------------------------------------------------------------------------- |
| `combined`     | hold for half of the settle window without looking, then look twice and count strikes        |
| `hold-first`   | inside the settle window nothing is looked at; after it, two probes and one look at the signs |
| `verify-first` | always look at once, give a fresh sign of life two seconds, re-probe only where there is doubt |
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Final, NamedTuple

LONGEST: Final = 366 * 86_400.0
"""The longest duration that a setting may name, in seconds: one year. More is a unit mixed up."""

SHORTEST_WAIT: Final = 0.001
"""The shortest pause between two readings, in seconds."""


class Preset(StrEnum):
    """Which rules are followed."""

    COMBINED = "combined"
    HOLD_FIRST = "hold-first"
    VERIFY_FIRST = "verify-first"


@dataclass(frozen=True, slots=True, kw_only=True)
class LivenessPolicy:
    """One preset with its numbers. Seconds, except `strikes`; 0 switches a limit off unless said otherwise.

    Build it with :func:`policy_from`, which refuses impossible numbers.

    Attributes:
        preset: whose rules are followed.
        settle_hold: after a restart nothing is looked at for this long: busy.
        settle_window: after a restart a "not running" is doubted for this long (never shorter than the hold).
        reprobe_delay: between the first probe and the second; at least 1 ms.
        recent_heartbeat: a sign of life of at most this age is recent (the limit itself still is).
        strikes: that many doubtful evaluations inside the settle window are believed.
        strike_window: how long strikes add up, from the first one on.
        reprobe_min_interval: an evaluation that would read anything within this time of the last one's end does not.
        fresh_wait: how long a sign of life newer than the restart is waited for.
        fresh_poll: how often it is looked for meanwhile; at least 1 ms where anything is waited for.
        provisioning_timeout: how long `starting` is believed; 0: for ever.
        heartbeat_ttl: silence for this long opens an evaluation; no rule reads it.
    """

    preset: Preset
    settle_hold: float
    settle_window: float
    reprobe_delay: float
    recent_heartbeat: float = 15.0
    strikes: int = 2
    strike_window: float = 30.0
    reprobe_min_interval: float = 1.0
    fresh_wait: float = 0.0
    fresh_poll: float = 0.5
    provisioning_timeout: float = 600.0
    heartbeat_ttl: float = 180.0


PRESETS: Final[Mapping[str, LivenessPolicy]] = MappingProxyType(
    {
        Preset.COMBINED.value: LivenessPolicy(
            preset=Preset.COMBINED,
            settle_hold=30.0,
            settle_window=60.0,
            reprobe_delay=2.0,
        ),
        Preset.HOLD_FIRST.value: LivenessPolicy(
            preset=Preset.HOLD_FIRST,
            settle_hold=60.0,
            settle_window=60.0,
            reprobe_delay=2.0,
            strikes=0,
        ),
        Preset.VERIFY_FIRST.value: LivenessPolicy(
            preset=Preset.VERIFY_FIRST,
            settle_hold=0.0,
            settle_window=30.0,
            reprobe_delay=0.5,
            reprobe_min_interval=0.0,
            fresh_wait=2.0,
        ),
    }
)

UNREAD: Final[Mapping[Preset, frozenset[str]]] = MappingProxyType(
    {
        Preset.COMBINED: frozenset({"fresh_wait", "fresh_poll"}),
        Preset.HOLD_FIRST: frozenset({"settle_window", "strikes", "strike_window", "fresh_wait", "fresh_poll"}),
        Preset.VERIFY_FIRST: frozenset({"settle_hold"}),
    }
)
"""Settings that no rule of a preset reads. Changing one of them there changes nothing, and start-up warns of it."""

SETTINGS: Final = tuple(field.name for field in fields(LivenessPolicy) if field.name != "preset")
"""The names that may be overridden, in the order of the record."""


class PolicyError(ValueError):
    """A policy that cannot be. `problems` holds every one of them, one sentence each."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class Findings(NamedTuple):
    """What is wrong with a policy (`errors`: it must not be used) and what is merely odd (`warnings`)."""

    errors: tuple[str, ...]
    warnings: tuple[str, ...]


def policy_from(preset: str, overrides: Mapping[str, float]) -> LivenessPolicy:
    """Return the preset's policy with some settings changed.

    Raises PolicyError that names all problems at once: an unknown preset, unknown settings, numbers that cannot be.
    """
    base = PRESETS.get(preset)
    problems: list[str] = []
    if base is None:
        problems.append(f"preset: {preset!r} is none of {', '.join(PRESETS)}")
        base = PRESETS[Preset.COMBINED]
    problems += [
        f"{name}: no such setting; there are {', '.join(SETTINGS)}" for name in overrides if name not in SETTINGS
    ]
    numbers: dict[str, float | int] = {}
    for name, value in overrides.items():
        if name not in SETTINGS:
            continue
        problem = _number_problem(name, value)
        if problem is None:
            numbers[name] = int(value) if name == "strikes" else float(value)
        else:
            problems.append(problem)
    policy = replace(base, **numbers)  # type: ignore[arg-type]  # names were checked above, numbers are what the fields hold
    # With an unknown preset the missing half of the numbers is a guess: nothing can be said about how they fit.
    if preset in PRESETS:
        problems += _misfits(policy)
    if problems:
        raise PolicyError(tuple(problems))
    return policy


def validate(policy: LivenessPolicy, restart_debounce: float) -> Findings:
    """Judge a finished policy beside the restart debounce (seconds, 0: off): what is impossible, and what is odd."""
    alone = (_number_problem(name, getattr(policy, name)) for name in SETTINGS)
    errors = (*(problem for problem in alone if problem is not None), *_misfits(policy))
    return Findings(errors, tuple(_oddities(policy, restart_debounce)))


def _number_problem(name: str, value: object) -> str | None:
    """Say what is wrong with one number by itself, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"{name}: {value!r} is not a number"
    if not math.isfinite(value) or not 0 <= value <= LONGEST:
        return f"{name}: {value} is not between 0 and {LONGEST:.0f}"
    if name == "strikes" and value != int(value):
        return f"strikes: {value} is not a whole number"
    if name == "reprobe_delay" and value < SHORTEST_WAIT:
        return f"reprobe_delay: {value} is below {SHORTEST_WAIT} (a death is never believed without a second look)"
    return None


def _misfits(policy: LivenessPolicy) -> Iterator[str]:
    """Say which numbers, each fine by itself, do not fit together."""
    if policy.settle_hold > policy.settle_window:
        yield f"settle_hold: {policy.settle_hold:g} is longer than settle_window {policy.settle_window:g}"
    if policy.strikes > 1 and policy.strike_window <= 0:
        yield f"strike_window: must be above 0 for {policy.strikes} strikes to add up"
    if policy.fresh_wait > 0 and policy.fresh_poll < SHORTEST_WAIT:
        yield f"fresh_poll: {policy.fresh_poll} is below {SHORTEST_WAIT} while fresh_wait is {policy.fresh_wait:g}"


def _oddities(policy: LivenessPolicy, restart_debounce: float) -> Iterator[str]:
    """Say what will work, but hardly as meant."""
    doubt = policy.settle_hold if "settle_window" in UNREAD[policy.preset] else policy.settle_window
    if doubt < restart_debounce:
        yield (
            f"settle_window: {doubt:g} is shorter than the restart debounce {restart_debounce:g}: a death found between"
            " the two is recorded, but its restart has to wait for the debounce"
        )
    own = PRESETS[policy.preset]
    for name in SETTINGS:
        if name in UNREAD[policy.preset] and getattr(policy, name) != getattr(own, name):
            yield f"{name}: no rule of {policy.preset} reads it; setting it changes nothing"
