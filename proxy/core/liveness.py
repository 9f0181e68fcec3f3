"""Is it dead? The one decision that every suspicion ends in: `judge()`, and the throttle in front of it.

Owns: the interpreter of the rules, the throttle. Re-exports the facts and answers, so that callers need one import.
Knows nothing of: who suspected, clocks and readers, what is done about a verdict.

Theory of operation. `judge()` is a pure function that is called again and again during one evaluation. It answers with
a verdict, or with `Unsettled`: what to read next, and when. The caller waits, reads exactly that, adds the reading to
the evidence and calls again. So a settle window or a second probe is never a sleep inside a decision, and "this was
not read" is a fact about the evidence and no promise. The answer depends on the readings and not on when `judge()`
is called: `now` only keeps the instant of a question from lying in the past.

What every preset has in common: a probe that fails is never a death, a recent sign of life is never a death that was
inferred, a lone "not running" inside the settle window changes nothing, and nothing is believed for ever.

rules: written by scripts/liveness-docs

combined:
   1 restarting       BUSY    a restart is in flight, or was announced less than 60 s ago
   2 exited           DEAD    its supervisor saw this incarnation exit unasked, or its sidecar said that the agent is
                              down
   3 settling         BUSY    less than 30 s after the restart's start or the runtime's return, the later
   4 external         UNKNOWN no runtime can tell whether it runs
   5 first_probe      (ask)   nothing above decided
   6 probe_error      ALIVE   the probe fails or times out
   7 running          ALIVE   the probe says running
   8 booting          BUSY    the probe says starting, less than 600 s after the restart's start
   9 exited           DEAD    the probe says gone, for this incarnation
  10 second_probe     (ask)   the probe says not running, or starting for longer
  11 probe_error      ALIVE   the second probe fails or times out
  12 running          ALIVE   the second probe says running
  13 booting          BUSY    the second probe says starting, less than 600 s after the restart's start
  14 exited           DEAD    the second probe says gone, for this incarnation
  15 signs_of_life    (ask)   nothing above decided
  16 recent_heartbeat BUSY    the last sign of life is at most 15 s old; or, less than 60 s after restart or return,
                              newer than the restart's start
  17 booting          BUSY    the latest probe says starting, less than 600 s after the last sign of life
  18 strike           BUSY    less than 60 s after restart or return, and fewer than 2 strikes in 30 s, this one
                              counted
  19 self_doubt       BUSY    the proxy doubts itself
  20 not_running      DEAD    nothing above decided

hold-first:
   1 external         ALIVE   no runtime can tell whether it runs
   2 restarting       BUSY    a restart is in flight
   3 settling         BUSY    less than 60 s after the restart's start
   4 first_probe      (ask)   nothing above decided
   5 probe_error      ALIVE   the probe fails or times out
   6 running          ALIVE   the probe says running
   7 booting          BUSY    the probe says starting, less than 600 s after the restart's start
   8 second_probe     (ask)   the probe says anything else
   9 probe_error      ALIVE   the second probe fails or times out
  10 running          ALIVE   the second probe says running
  11 booting          BUSY    the second probe says starting, less than 600 s after the restart's start
  12 signs_of_life    (ask)   nothing above decided
  13 recent_heartbeat BUSY    the last sign of life is at most 15 s old
  14 booting          BUSY    the latest probe says starting, less than 600 s after the last sign of life
  15 not_running      DEAD    nothing above decided

verify-first:
   1 external         ALIVE   no runtime can tell whether it runs
   2 restarting       ALIVE   a restart is in flight
   3 signs_of_life    (ask)   nothing above decided
   4 fresh_wait       (ask)   settling (less than 30 s after the restart's start), no fresh sign of life yet (newer
                              than that start, URL known), and less than 2 s waited for one
   5 first_probe      (ask)   nothing above decided
   6 probe_error      ALIVE   the probe fails or times out
   7 running          ALIVE   the probe says running
   8 booting          BUSY    the probe says starting, less than 600 s after the restart's start
   9 booting          BUSY    the latest probe says starting, less than 600 s after the last sign of life
  10 second_probe     (ask)   the probe says anything else, and there is doubt: a recent sign of life (first reading,
                              at most 15 s old), a fresh one, or settling
  11 probe_error      ALIVE   the second probe fails or times out
  12 running          ALIVE   the second probe says running
  13 booting          BUSY    the second probe says starting, less than 600 s after the restart's start
  14 booting          BUSY    the latest probe says starting, less than 600 s after the last sign of life
  15 recent_heartbeat BUSY    the sign of life was recent, or fresh while settling
  16 strike           ALIVE   settling, and fewer than 2 strikes in 30 s, this one counted
  17 not_running      DEAD    nothing above decided

rules: end
"""

import math
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from proxy.core.evidence import (
    Alive,
    Ask,
    Busy,
    Dead,
    Evidence,
    Life,
    ProbeReading,
    ProbeState,
    Strikes,
    Unknown,
    Unsettled,
    Verdict,
)
from proxy.core.liveness_case import Case
from proxy.core.liveness_rules import RULES, Asks, Gives, Rule
from proxy.core.presets import LivenessPolicy, Preset

__all__ = [
    "Alive",
    "Ask",
    "Busy",
    "Dead",
    "Evidence",
    "Life",
    "Previous",
    "ProbeReading",
    "ProbeState",
    "Strikes",
    "Unknown",
    "Unsettled",
    "Verdict",
    "because",
    "judge",
    "most_asks",
    "throttled",
]


def judge(policy: LivenessPolicy, evidence: Evidence, now: datetime) -> Verdict | Unsettled:
    """Decide, or say what has to be read first.

    Args:
        policy: the rules to follow and their numbers.
        evidence: what is known, with the readings of this evaluation so far.
        now: the present; an `Unsettled` names no earlier instant.

    Returns:
        A verdict with its rule and the strikes to store; or `Unsettled`. Readings that were not asked for, or are
        older than the instant they were asked for, are not consulted. After at most `most_asks(policy)` readings
        there is a verdict.
    """
    case, rule, due = _walk(policy, evidence)
    answer = rule.answer
    if isinstance(answer, Gives):
        return answer.verdict(rule=rule.name, strikes=answer.strikes(case))
    return Unsettled(ask=answer.ask, at=max(due, now), rule=rule.name)


def because(policy: LivenessPolicy, evidence: Evidence) -> str:
    """The condition of the rule at which an evaluation stands with this evidence, in words with the policy's numbers.

    A rule's name may stand on several rows; this is the row that gave the verdict (or asks).
    """
    return _walk(policy, evidence)[1].when.spelled_out(policy)


def _walk(policy: LivenessPolicy, evidence: Evidence) -> tuple[Case, Rule, datetime]:
    """Follow the rules to the first that gives a verdict, or asks for what was not read; when that is due."""
    case = Case(policy=policy, evidence=evidence)
    for rule in RULES[policy.preset]:
        while rule.when.holds(case):
            answer = rule.answer
            if isinstance(answer, Gives):
                return case, rule, case.last_read_at
            due = case.last_read_at + answer.delay(case)
            if not case.take(answer.ask, due):
                return case, rule, due
    raise AssertionError(f"the last rule of {policy.preset} must always hold")


def most_asks(policy: LivenessPolicy) -> int:
    """How many readings an evaluation may ask for at the very most."""
    asking = sum(isinstance(rule.answer, Asks) for rule in RULES[policy.preset])
    if policy.preset is not Preset.VERIFY_FIRST:
        return asking
    # Here one of the asking rules is the wait for a fresh sign of life, which asks as often as it looks.
    return asking - 1 + (math.ceil(policy.fresh_wait / policy.fresh_poll) if policy.fresh_wait > 0 else 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Previous:
    """The last evaluation of a workspace: its verdict, when it ended, and of which world it spoke."""

    verdict: Verdict
    ended_at: datetime
    incarnation: int
    generation: int


def throttled(previous: Previous | None, policy: LivenessPolicy, evidence: Evidence, now: datetime) -> Verdict | None:
    """Spare a runtime that was asked a moment ago; None means "go on and judge".

    An evaluation that opens within `reprobe_min_interval` of the last one's end gets that one's verdict, if incarnation
    and restart generation are the same and it was not DEAD, and else BUSY `throttled`. Neither adds a strike. What is
    decided without reading anything (a restart in flight, an exit that was seen) is never held back by it.
    """
    if previous is None or now - previous.ended_at >= timedelta(seconds=policy.reprobe_min_interval):
        return None
    if not isinstance(judge(policy, replace(evidence, probes=(), life=()), now), Unsettled):
        return None
    same_world = (previous.incarnation, previous.generation) == (evidence.incarnation, evidence.generation)
    if same_world and not isinstance(previous.verdict, Dead):
        return replace(previous.verdict, strikes=evidence.strikes)
    return Busy(rule="throttled", strikes=evidence.strikes)
