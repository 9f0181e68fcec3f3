"""A shell for `judge()` without clocks and wires: scripted probes and signs of life, everything that is read counted.

Owns: the loop "judge, wait, read what is asked, judge again". Knows nothing of: the rules.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from proxy.core.liveness import Ask, Evidence, Life, ProbeReading, ProbeState, Strikes, Unsettled, Verdict, judge
from proxy.core.presets import PRESETS, LivenessPolicy

COMBINED = PRESETS["combined"]
HOLD_FIRST = PRESETS["hold-first"]
VERIFY_FIRST = PRESETS["verify-first"]

OPENED = datetime(2026, 3, 1, 9, 30, tzinfo=UTC)

RUNNING = ProbeState.RUNNING
NOT_RUNNING = ProbeState.NOT_RUNNING
STARTING = ProbeState.STARTING
GONE = ProbeState.GONE
ERROR = ProbeState.ERROR


def after(seconds: float) -> datetime:
    """Return the instant that many seconds after the evaluation opened."""
    return OPENED + timedelta(seconds=seconds)


def ago(seconds: float) -> datetime:
    """Return the instant that many seconds before the evaluation opened."""
    return OPENED - timedelta(seconds=seconds)


def facts(**known: Any) -> Evidence:
    """Return the evidence of an evaluation that opens at `OPENED`, unless said otherwise."""
    return Evidence(**{"opened_at": OPENED, "incarnation": 1, **known})


def preset_name(value: object) -> str:
    """Name a parameter: a policy by its preset."""
    return str(getattr(value, "preset", value))


EVERY_PRESET = pytest.mark.parametrize("policy", [COMBINED, HOLD_FIRST, VERIFY_FIRST], ids=preset_name)
ONE_STRIKE = Strikes(count=1, first_at=ago(4))


@dataclass(frozen=True, slots=True)
class Sign:
    """A sign of life, and whether the workspace's URL is known from then on."""

    at: datetime
    has_url: bool = True


@dataclass(frozen=True, slots=True)
class Played:
    """How an evaluation went. `steps` is the evidence as it stood before each question and before the verdict."""

    verdict: Verdict
    asked: tuple[Unsettled, ...]
    steps: tuple[Evidence, ...]
    ended_at: datetime

    @property
    def evidence(self) -> Evidence:
        """All that was known in the end."""
        return self.steps[-1]

    @property
    def probes(self) -> int:
        """How often the runtime was asked."""
        return len(self.evidence.probes)

    @property
    def life_reads(self) -> int:
        """How often the signs of life were read."""
        return len(self.evidence.life)

    @property
    def seen(self) -> tuple[str, str, int, int]:
        """The verdict and its rule, and how many probes and readings of the signs of life it took."""
        return self.verdict.name, self.verdict.rule, self.probes, self.life_reads


def play(
    policy: LivenessPolicy,
    evidence: Evidence,
    probes: Iterable[ProbeState] = (),
    signs: Sequence[Sign] = (),
    latency: float = 0.0,
) -> Played:
    """Run one evaluation to its verdict.

    `probes` are the runtime's answers in order; one more question than answers fails the test. `signs` are all signs of
    life there will ever be; a reading finds the latest one up to its instant. A reading takes `latency` seconds.
    """
    script = iter(probes)
    asked: list[Unsettled] = []
    steps = [evidence]
    now = evidence.opened_at
    while isinstance(answer := judge(policy, evidence, now), Unsettled):
        assert answer.at >= now, "a question lies in the past"
        asked.append(answer)
        now = answer.at + timedelta(seconds=latency)
        if answer.ask is Ask.PROBE:
            state = next(script, None)
            assert state is not None, f"nobody scripted the probe that was asked for by {answer.rule}"
            evidence = replace(evidence, probes=(*evidence.probes, ProbeReading(at=now, state=state)))
        else:
            evidence = replace(evidence, life=(*evidence.life, _look(signs, now)))
        steps.append(evidence)
    return Played(answer, tuple(asked), tuple(steps), now)


def _look(signs: Sequence[Sign], now: datetime) -> Life:
    landed = [sign for sign in signs if sign.at <= now]
    latest = max(landed, key=lambda sign: sign.at, default=None)
    return Life(
        read_at=now,
        last_sign_at=latest.at if latest else None,
        has_url=latest.has_url if latest else False,
    )
