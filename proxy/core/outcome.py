"""What a failed upstream call was, and what the caller then gets.

Owns: the outcome classes ("was anything sent?") and the table from (outcome class, verdict, settings) to an action.
Knows nothing of: how a verdict was reached (`core.liveness`), how an answer looks (`core.a2a`), the queue.

The question behind the classes is the only one that decides whether a repetition is safe:

| class     | what happened                                                      | was it delivered? |
| --------- | ------------------------------------------------------------------ | ----------------- |
| not_sent  | refused, DNS, connect timeout, no free connection                  | no                |
| maybe     | reset, EOF or idle timeout after the first byte was written        | nobody knows      |
| gateway   | a 502, 503, 504 or 521-524 came back from upstream                 | nobody knows      |
| lost      | the answer's headers came, its body broke                          | yes               |
"""

from dataclasses import dataclass
from enum import StrEnum

GATEWAY_STATUSES = frozenset({502, 503, 504, 521, 522, 523, 524})


class Outcome(StrEnum):
    """How an upstream call failed."""

    NOT_SENT = "not_sent"
    MAYBE = "maybe"
    GATEWAY = "gateway"
    LOST = "lost"


class DeadAction(StrEnum):
    """What a deferrable request gets when its workspace is DEAD."""

    REJECT = "reject"
    DEFER = "defer"


class UnmanagedAway(StrEnum):
    """What a deferrable request gets when nobody can tell whether its workspace lives."""

    DEFER = "defer"
    PASS = "pass"  # noqa: S105 - a setting's value, not a password


class Redelivery(StrEnum):
    """Whether a request that may have reached the agent is sent again."""

    ASK_THEN_ALWAYS = "ask_then_always"
    ALWAYS = "always"
    NEVER = "never"


class Action(StrEnum):
    """What becomes of a failed request."""

    PASS = "pass"  # the upstream's own answer, byte for byte  # noqa: S105 - not a password
    DEFER = "defer"  # put away durably, answered 202
    DEFER_MARKED = "defer_marked"  # the same, marked `redelivery: maybe`
    REJECT = "reject"  # 503 with Retry-After: the workspace is dead, a restart was asked for
    UNREACHABLE = "unreachable"  # 503 WORKSPACE_UNREACHABLE: running for long, yet nothing listens
    AWAY = "away"  # 503 with Retry-After for a request that cannot be deferred
    BAD_GATEWAY = "bad_gateway"  # 502, nothing sent, nobody can tell more
    BROKEN = "broken"  # 502, maybe delivered, redelivery is forbidden
    ANSWER_LOST = "answer_lost"  # 502, delivered, its answer broke


@dataclass(frozen=True, slots=True, kw_only=True)
class Failing:
    """The facts of one failed request.

    `verdict` is `alive | busy | dead | unknown`, `rule` the rule that gave it. `deferrable`: the request may be put
    away at all. `promised`: it is a deferral already, so that its caller holds a 202. `fresh`: the incarnation's start
    or last sign of life is recent enough to believe that a running workspace will listen soon. `abandoned`: the brake
    has given the workspace up. `known`: a workspace without a telling runtime gave a sign of life recently enough.
    `idle`: the call was ended by its idle window, so the agent may well be at work still.
    """

    outcome: Outcome
    verdict: str
    rule: str = ""
    deferrable: bool
    promised: bool = False
    fresh: bool = True
    abandoned: bool = False
    known: bool = True
    idle: bool = False
    dead_action: DeadAction = DeadAction.REJECT
    unmanaged_away: UnmanagedAway = UnmanagedAway.DEFER
    redelivery: Redelivery = Redelivery.ASK_THEN_ALWAYS


def action_for(failing: Failing) -> Action:  # noqa: PLR0911 - one return per row of the table
    """Say what a failed request gets.

    | class    | alive                                  | busy          | dead          | unknown          |
    | -------- | -------------------------------------- | ------------- | ------------- | ---------------- |
    | not_sent | defer (`running` too long: 503)        | defer         | `dead_action` | `unmanaged_away` |
    | maybe    | by `redelivery`                        | by `redelivery` | `dead_action` | by `redelivery` |
    | gateway  | passes                                 | defer         | `dead_action` | passes           |
    | lost     | 502 (a promised deferral: as *maybe*)  | same          | same          | same             |

    By `redelivery`: deferred and marked, under `never` 502. What fell silent for its whole idle window is sent again
    only under `always`. Where "defer" meets a request that cannot be deferred, it is 503 with Retry-After in its own
    binding.
    """
    outcome = failing.outcome
    if outcome is Outcome.LOST:
        if not failing.promised:
            return Action.ANSWER_LOST
        outcome = Outcome.MAYBE
    if failing.verdict == "dead":
        return _when_dead(failing, outcome)
    if outcome is Outcome.GATEWAY:
        return _defer(failing, outcome) if failing.verdict == "busy" else Action.PASS
    if outcome is Outcome.MAYBE:
        return _maybe(failing)
    if failing.verdict == "alive" and failing.rule == "running" and not failing.fresh:
        return Action.UNREACHABLE
    if failing.verdict == "unknown" and (failing.unmanaged_away is UnmanagedAway.PASS or not failing.known):
        return Action.BAD_GATEWAY
    return _defer(failing, outcome)


def _when_dead(failing: Failing, outcome: Outcome) -> Action:
    if failing.promised:
        return _maybe(failing) if outcome is Outcome.MAYBE else _defer(failing, outcome)
    if failing.dead_action is DeadAction.REJECT or failing.abandoned:
        return Action.REJECT if failing.deferrable else Action.AWAY
    return _maybe(failing) if outcome is Outcome.MAYBE else _defer(failing, outcome)


def _maybe(failing: Failing) -> Action:
    if not failing.deferrable and not failing.promised:
        return Action.AWAY
    if failing.idle and failing.redelivery is not Redelivery.ALWAYS:
        return Action.BROKEN
    return Action.BROKEN if failing.redelivery is Redelivery.NEVER else Action.DEFER_MARKED


def _defer(failing: Failing, outcome: Outcome) -> Action:
    if not failing.deferrable and not failing.promised:
        return Action.AWAY
    return Action.DEFER_MARKED if outcome is Outcome.GATEWAY else Action.DEFER
