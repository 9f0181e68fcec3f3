"""The rules of the liveness decision, as data: one ordered tuple of records per preset.

Owns: the conditions with their words, the answers, `RULES`.
Knows nothing of: how a condition is computed (`core.liveness_case`), clocks and readers, what is done about a verdict.

Theory of operation. The rules of a preset are tried from the top. A rule whose condition holds either *gives* a verdict
or *asks* for a reading; a rule that asks is tried again once it got one, until its condition holds no more. A rule
may look only at the facts that it names in `reads`, and at a reading only after a rule above it asked for it. The
tables in `core.liveness` and in docs/liveness.md and the golden tree of the tests are made from these records.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Final, TypeAlias

from proxy.core.evidence import Alive, Ask, Busy, Dead, ProbeState, Strikes, Unknown
from proxy.core.liveness_case import Case
from proxy.core.presets import LivenessPolicy, Preset


class Read(StrEnum):
    """A fact that a rule may consult; the value is its name in `Evidence`."""

    IN_FLIGHT = "restart_in_flight"
    ANNOUNCED = "announced_at"
    STARTED = "restart_started_at"
    RETURNED = "restart_returned_at"
    EXITED = "exited_at"
    AGENT_DOWN = "agent_down_at"
    EXTERNAL = "external"
    SWEEP = "sweep"
    DOUBTED = "doubted"
    STRIKES = "strikes"
    PROBES = "probes"
    LIFE = "life"


class Tally(StrEnum):
    """What a verdict makes of the stored strikes."""

    KEPT = "kept"
    RESET = "reset"
    COUNTED = "counted"


@dataclass(frozen=True, slots=True)
class Gives:
    """The evaluation ends with this verdict."""

    verdict: type[Alive | Busy | Dead | Unknown]
    tally: Tally = Tally.KEPT

    def strikes(self, case: Case) -> Strikes:
        """Return the strikes to store."""
        match self.tally:
            case Tally.KEPT:
                return case.evidence.strikes
            case Tally.RESET:
                return Strikes()
            case Tally.COUNTED:
                return case.counted()


@dataclass(frozen=True, slots=True)
class Asks:
    """The evaluation goes on with another reading, `delay` after the latest one; `words` says when that is."""

    ask: Ask
    words: str = "at once"
    delay: Callable[[Case], timedelta] = lambda _: timedelta(0)


@dataclass(frozen=True, slots=True)
class When:
    """A condition: in words, with the policy's settings in braces, and as a function of the case."""

    words: str
    holds: Callable[[Case], bool]

    def spelled_out(self, policy: LivenessPolicy) -> str:
        """Return the words with the policy's numbers in them."""
        return self.words.format(policy=policy)


Answer: TypeAlias = Gives | Asks


@dataclass(frozen=True, slots=True)
class Rule:
    """One row: `name` is what decision logs and headers show, `reads` is all that `when` and `answer` may consult."""

    name: str
    reads: tuple[Read, ...]
    when: When
    answer: Answer


_P: Final = Read.PROBES
_L: Final = Read.LIFE
_RESTART: Final = (Read.STARTED, Read.RETURNED)


def _after_probe(which: str) -> tuple[Rule, ...]:
    """Return the rules that follow a probe in every preset; `which` names the probe."""
    return (
        Rule(
            "probe_error",
            (_P,),
            When(f"{which} fails or times out", lambda c: c.probe_says(ProbeState.ERROR)),
            Gives(Alive),
        ),
        Rule(
            "running",
            (_P,),
            When(f"{which} says running", lambda c: c.probe_says(ProbeState.RUNNING)),
            Gives(Alive, Tally.RESET),
        ),
        Rule(
            "booting",
            (_P, Read.STARTED),
            When(
                f"{which} says starting, less than {{policy.provisioning_timeout:g}} s after the restart's start",
                lambda c: c.booting(c.age_at_opening(c.evidence.restart_started_at)),
            ),
            Gives(Busy),
        ),
    )


def _gone(which: str) -> Rule:
    return Rule(
        "exited",
        (_P,),
        When(f"{which} says gone, for this incarnation", lambda c: c.probe_says(ProbeState.GONE)),
        Gives(Dead, Tally.RESET),
    )


def _reprobe(words: str, reads: tuple[Read, ...], doubtful: Callable[[Case], bool]) -> Rule:
    return Rule(
        "second_probe",
        reads,
        When(words, lambda c: len(c.probes) == 1 and doubtful(c)),
        Asks(Ask.PROBE, "{policy.reprobe_delay:g} s later", lambda c: timedelta(seconds=c.policy.reprobe_delay)),
    )


_EXTERNAL: Final = When("no runtime can tell whether it runs", lambda c: c.evidence.external)
_IN_FLIGHT: Final = When("a restart is in flight", lambda c: c.evidence.restart_in_flight)
_FIRST_PROBE: Final = Rule(
    "first_probe",
    (_P,),
    When("nothing above decided", lambda c: not c.probes),
    Asks(Ask.PROBE),
)
_SIGNS_OF_LIFE: Final = Rule(
    "signs_of_life",
    (_L,),
    When("nothing above decided", lambda c: not c.life),
    Asks(Ask.LIFE),
)
# Counted from the last sign of life a boot that nobody asked us for (a pod that was moved) is believed just as long.
_STILL_BOOTING: Final = Rule(
    "booting",
    (_P, _L),
    When(
        "the latest probe says starting, less than {policy.provisioning_timeout:g} s after the last sign of life",
        lambda c: c.booting(c.age_of_sign()),
    ),
    Gives(Busy),
)
_NOT_RUNNING: Final = Rule("not_running", (), When("nothing above decided", lambda _: True), Gives(Dead, Tally.RESET))

COMBINED: Final = (
    Rule(
        "restarting",
        (Read.IN_FLIGHT, Read.ANNOUNCED),
        When(
            "a restart is in flight, or was announced less than {policy.settle_window:g} s ago",
            lambda c: c.evidence.restart_in_flight or c.opened_within(c.policy.settle_window, c.evidence.announced_at),
        ),
        Gives(Busy),
    ),
    Rule(
        "exited",
        (Read.EXITED, Read.AGENT_DOWN),
        When(
            "its supervisor saw this incarnation exit unasked, or its sidecar said that the agent is down",
            lambda c: c.evidence.exited_at is not None or c.evidence.agent_down_at is not None,
        ),
        Gives(Dead, Tally.RESET),
    ),
    Rule(
        "settling",
        _RESTART,
        When(
            "less than {policy.settle_hold:g} s after the restart's start or the runtime's return, the later",
            lambda c: c.since_restart(c.policy.settle_hold),
        ),
        Gives(Busy),
    ),
    Rule("external", (Read.EXTERNAL,), _EXTERNAL, Gives(Unknown)),
    _FIRST_PROBE,
    *_after_probe("the probe"),
    _gone("the probe"),
    _reprobe("the probe says not running, or starting for longer", (_P,), lambda _: True),
    *_after_probe("the second probe"),
    _gone("the second probe"),
    _SIGNS_OF_LIFE,
    Rule(
        "recent_heartbeat",
        (_L, *_RESTART),
        When(
            "the last sign of life is at most {policy.recent_heartbeat:g} s old; or, less than"
            " {policy.settle_window:g} s after restart or return, newer than the restart's start",
            lambda c: c.recent() or (c.settling() and c.newer_sign(c.life[0])),
        ),
        Gives(Busy),
    ),
    _STILL_BOOTING,
    Rule(
        "strike",
        (_P, *_RESTART, Read.STRIKES, Read.SWEEP),
        When(
            "less than {policy.settle_window:g} s after restart or return, and fewer than {policy.strikes} strikes"
            " in {policy.strike_window:g} s, this one counted",
            lambda c: c.settling() and c.forgiven(),
        ),
        Gives(Busy, Tally.COUNTED),
    ),
    Rule("self_doubt", (Read.DOUBTED,), When("the proxy doubts itself", lambda c: c.evidence.doubted), Gives(Busy)),
    _NOT_RUNNING,
)

HOLD_FIRST: Final = (
    Rule("external", (Read.EXTERNAL,), _EXTERNAL, Gives(Alive)),
    Rule("restarting", (Read.IN_FLIGHT,), _IN_FLIGHT, Gives(Busy)),
    Rule(
        "settling",
        (Read.STARTED,),
        When(
            "less than {policy.settle_hold:g} s after the restart's start",
            lambda c: c.since_restart_start(c.policy.settle_hold),
        ),
        Gives(Busy),
    ),
    _FIRST_PROBE,
    *_after_probe("the probe"),
    _reprobe("the probe says anything else", (_P,), lambda _: True),
    *_after_probe("the second probe"),
    _SIGNS_OF_LIFE,
    Rule(
        "recent_heartbeat",
        (_L,),
        When("the last sign of life is at most {policy.recent_heartbeat:g} s old", Case.recent),
        Gives(Busy),
    ),
    _STILL_BOOTING,
    _NOT_RUNNING,
)

VERIFY_FIRST: Final = (
    Rule("external", (Read.EXTERNAL,), _EXTERNAL, Gives(Alive)),
    Rule("restarting", (Read.IN_FLIGHT,), _IN_FLIGHT, Gives(Alive)),
    _SIGNS_OF_LIFE,
    Rule(
        "fresh_wait",
        (_L, Read.STARTED),
        When(
            "settling (less than {policy.settle_window:g} s after the restart's start), no fresh sign of life yet"
            " (newer than that start, URL known), and less than {policy.fresh_wait:g} s waited for one",
            lambda c: c.settling() and not c.fresh() and c.waited() < timedelta(seconds=c.policy.fresh_wait),
        ),
        Asks(
            Ask.LIFE,
            "{policy.fresh_poll:g} s later, and when the wait ends",
            lambda c: min(timedelta(seconds=c.policy.fresh_poll), timedelta(seconds=c.policy.fresh_wait) - c.waited()),
        ),
    ),
    _FIRST_PROBE,
    *_after_probe("the probe"),
    _STILL_BOOTING,
    _reprobe(
        "the probe says anything else, and there is doubt: a recent sign of life (first reading, at most"
        " {policy.recent_heartbeat:g} s old), a fresh one, or settling",
        (_P, _L, Read.STARTED),
        lambda c: c.recent() or c.settling(),
    ),
    *_after_probe("the second probe"),
    _STILL_BOOTING,
    Rule(
        "recent_heartbeat",
        (_L, Read.STARTED),
        When(
            "the sign of life was recent, or fresh while settling", lambda c: c.recent() or (c.settling() and c.fresh())
        ),
        Gives(Busy),
    ),
    Rule(
        "strike",
        (_P, Read.STARTED, Read.STRIKES, Read.SWEEP),
        When(
            "settling, and fewer than {policy.strikes} strikes in {policy.strike_window:g} s, this one counted",
            lambda c: c.settling() and c.forgiven(),
        ),
        Gives(Alive, Tally.COUNTED),
    ),
    _NOT_RUNNING,
)

RULES: Final[Mapping[Preset, tuple[Rule, ...]]] = MappingProxyType(
    {Preset.COMBINED: COMBINED, Preset.HOLD_FIRST: HOLD_FIRST, Preset.VERIFY_FIRST: VERIFY_FIRST}
)
"""The last rule of each tuple always holds and gives a verdict."""
