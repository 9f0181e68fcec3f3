"""The words of a liveness decision: what is known of one workspace, and what can be said about it.

Owns: the facts (`Evidence` and its readings) and the answers (`Verdict`, `Unsettled`), as values.
Knows nothing of: which fact leads to which answer (`core.liveness_rules`), who collects facts, who acts on answers.

Instants are UTC-aware. An *evaluation* opens once, reads only what it is asked for, and ends with one verdict.
"""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import ClassVar, Literal, TypeAlias


class ProbeState(StrEnum):
    """What the runtime says about the compute that hosts a workspace.

    `starting`: it is on its way (pod pending, machine booting). `gone`: what was started for this incarnation no longer
    exists or has ended for good. `error`: the runtime did not answer, or not in time; that says nothing about the
    workspace. A network probe that fails means "not ready" and never becomes `not_running`: that is the shell's part.
    """

    RUNNING = "running"
    NOT_RUNNING = "not_running"
    STARTING = "starting"
    GONE = "gone"
    ERROR = "error"


class Ask(StrEnum):
    """What a decision may ask the shell to read."""

    PROBE = "probe"
    LIFE = "life"


@dataclass(frozen=True, slots=True, kw_only=True)
class Strikes:
    """How many doubtful evaluations were counted, and when the first of them was; `Strikes()` is none."""

    count: int = 0
    first_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """One reading of the signs of life: the latest sign of this workspace (None: never one), as of `read_at`."""

    read_at: datetime
    last_sign_at: datetime | None
    has_url: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeReading:
    """One answer of the runtime. `at` is when it came."""

    at: datetime
    state: ProbeState


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Everything one evaluation may consult. The first group is known when it opens; readings are added when asked for.

    Attributes:
        opened_at: when the evaluation opened. Hold and settle ages are taken here, so that an evaluation which waits
            for its re-probe does not age out of a window meanwhile.
        incarnation: the life that is judged; facts about an earlier life must not be put in.
        generation: how many restarts were recorded; with the incarnation it says whether two evaluations saw one world.
        restart_in_flight: a restart was recorded and has not ended.
        announced_at: the workspace said that it restarts itself.
        restart_started_at: the start of the latest restart known, whoever asked for it.
        restart_returned_at: when the runtime's start call of that restart returned.
        exited_at: an exit of this incarnation that nobody asked for, seen by the supervisor itself. It is final.
        agent_down_at: the sidecar said that its agent is down, and no sign of life came later (the caller sees to it).
        external: no runtime can tell whether it runs.
        sweep: opened by a periodic check and not by a failed call. It adds no strike.
        doubted: the proxy has reason to doubt its own view.
        strikes: as stored.
        probes: the runtime's answers in this evaluation, in order.
        life: the readings of the signs of life in this evaluation, in order.
    """

    opened_at: datetime
    incarnation: int
    generation: int = 0
    restart_in_flight: bool = False
    announced_at: datetime | None = None
    restart_started_at: datetime | None = None
    restart_returned_at: datetime | None = None
    exited_at: datetime | None = None
    agent_down_at: datetime | None = None
    external: bool = False
    sweep: bool = False
    doubted: bool = False
    strikes: Strikes = field(default_factory=Strikes)
    probes: tuple[ProbeReading, ...] = ()
    life: tuple[Life, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Alive:
    """The failure is not the workspace's death: it is classed like any other. `strikes` is what to store."""

    rule: str
    strikes: Strikes
    name: ClassVar[Literal["alive"]] = "alive"


@dataclass(frozen=True, slots=True, kw_only=True)
class Busy:
    """It lives, or there is good reason not to call it dead yet: defer, never restart. `strikes` is what to store."""

    rule: str
    strikes: Strikes
    name: ClassVar[Literal["busy"]] = "busy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Dead:
    """It is dead: mark it offline and ask for a restart. `strikes` is what to store."""

    rule: str
    strikes: Strikes
    name: ClassVar[Literal["dead"]] = "dead"


@dataclass(frozen=True, slots=True, kw_only=True)
class Unknown:
    """Nobody can tell. Never a reason to restart. `strikes` is what to store."""

    rule: str
    strikes: Strikes
    name: ClassVar[Literal["unknown"]] = "unknown"


Verdict: TypeAlias = Alive | Busy | Dead | Unknown


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsettled:
    """Not enough evidence yet: read `ask` once your clock has reached `at`, add the reading, judge again.

    A reading whose instant is earlier than `at` was not asked for and is not consulted. `rule` says why it is asked.
    """

    ask: Ask
    at: datetime
    rule: str
