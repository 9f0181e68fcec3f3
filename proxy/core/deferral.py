"""A request put away exactly as it came, and what may become of it.

Owns: the record, its states and edges, retry arithmetic, the order of a queue.
Knows nothing of: storage, how it is sent, what its body means (`core.a2a` does).

Theory of operation. A deferral is *queued* until somebody *leases* it: the replayer inside the proxy or a polling
workspace. A lease is a fencing token with an end; whoever comes with another token changes nothing, so a holder that
was slow, dead or partitioned cannot overwrite what its successor did. A lease that ends unheard is a queued deferral
again, marked `maybe`: nobody knows whether the old holder sent it.

    queued ──lease──> leased ──answer──> completed
      ^  └─TTL─> expired  │ │
      │  └─caller─> cancelled
      │  └─admin─> dropped  │
      └──release, lease end─┘ └─> dead_lettered    (attempts used up, or redelivery forbidden)

Order. Deferrals of one (workspace, context) go in acceptance order, at most one leased at a time: only the *head* of a
context is claimable. Deferrals without a context are their own heads. Between heads the *rank* decides (the highest
priority waiting in that context), then age. Head and rank are stored, so that a claim reads one index row.
"""

import random
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import chain


class State(StrEnum):
    """Where a deferral stands."""

    QUEUED = "queued"
    LEASED = "leased"
    COMPLETED = "completed"
    DEAD_LETTERED = "dead_lettered"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    DROPPED = "dropped"


ACTIVE = frozenset({State.QUEUED, State.LEASED})

EDGES: frozenset[tuple[State, State]] = frozenset(
    {
        (State.QUEUED, State.LEASED),
        (State.QUEUED, State.EXPIRED),
        (State.QUEUED, State.CANCELLED),
        (State.QUEUED, State.DROPPED),
        (State.LEASED, State.QUEUED),
        (State.LEASED, State.COMPLETED),
        (State.LEASED, State.DEAD_LETTERED),
        (State.LEASED, State.EXPIRED),
        (State.LEASED, State.CANCELLED),
        (State.DEAD_LETTERED, State.QUEUED),  # an admin's redrive
    }
)


class Priority:
    """The three priorities of `Holdfast-Priority`; higher goes first."""

    CRITICAL = 100
    TASK = 50
    INFO = 10

    BY_NAME = {"critical": CRITICAL, "task": TASK, "info": INFO}  # noqa: RUF012 - a constant table


class JournalMode(StrEnum):
    """Which streams' events are kept: none (only what they make of the task is), those of deferred requests, or all.

    With `all` a streaming send is put away before its agent gets it, and its caller is told from the journal.
    """

    OFF = "off"
    DEFERRED = "deferred"
    ALL = "all"


RawHeaders = tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRequest:
    """What came over the wire: method, raw tail below the workspace's URL (with its query), headers, body.

    `headers` holds no credentials: those are sealed in `Deferral.credentials`.
    """

    method: str
    tail: str
    headers: RawHeaders
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredAnswer:
    """What the agent answered to the replay."""

    status: int
    headers: RawHeaders
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTask:
    """The task under its provisional id as Holdfast last knew it: A2A JSON of `version`, neutral state name."""

    json: bytes
    version: str
    state: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPush:
    """Who wants to be notified of a deferral's task: `sealed` holds the address, `protocol` is its version of A2A."""

    id: str
    protocol: str
    sealed: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """A fencing token with an end. `owner` names the holder for people; the token alone decides."""

    token: str
    owner: str
    until: datetime


POLLED = "poll:"
"""How the owner of a polling workspace's lease begins; no proxy is called so."""


def poller(workspace_id: str, incarnation: int) -> str:
    """The owner of what one life of a polling workspace claims."""
    return f"{POLLED}{workspace_id}:{incarnation}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Deferral:
    """A deferred request. `seq` is given by the store and grows in acceptance order.

    `maybe`: the request may have reached the agent before. `attempts` counts tries that may have reached it;
    `tries` counts all. `gateway_since`: since when gateways answered for a workspace that showed signs of life.
    `adopted`: it was committed while its first call was still running, and blocks nobody until that call breaks.
    `credentials` are sealed bytes, gone at the end. `push` is set on what is about to be stored, never on what is read.
    """

    id: str
    workspace_id: str
    caller: str | None
    request: StoredRequest
    enqueued_at: datetime
    expires_at: datetime
    next_attempt_at: datetime
    seq: int = 0
    state: State = State.QUEUED
    priority: int = Priority.TASK
    binding: str = "other"
    protocol: str = ""
    operation: str = "unknown"
    streaming: bool = False
    rpc_id: bytes = b"null"
    message_id: str | None = None
    context_id: str | None = None
    task_id: str | None = None
    idempotency_key: str | None = None
    digest: str | None = None
    maybe: bool = False
    attempts: int = 0
    tries: int = 0
    gateway_since: datetime | None = None
    adopted: bool = False
    lease: Lease | None = None
    leased_at: datetime | None = None
    completed_at: datetime | None = None
    last_error: str | None = None
    request_id: str | None = None
    upstream_task_id: str | None = None
    upstream_context_id: str | None = None
    task: StoredTask | None = None
    answer: StoredAnswer | None = None
    credentials: bytes | None = None
    push: StoredPush | None = None

    @property
    def size(self) -> int:
        """Bytes that count against a queue's limit."""
        return len(self.request.body) + sum(map(len, chain.from_iterable(self.request.headers)))


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """Seconds, and the budget of tries that may have reached the agent."""

    attempts: int = 5
    backoff: float = 0.5
    backoff_cap: float = 60.0
    gateway_backoff: float = 5.0
    gateway_ceiling: float = 180.0


def backoff(tries: int, policy: RetryPolicy, chance: random.Random) -> timedelta:
    """Full jitter over backoff x 2^(tries-1), capped: the n-th failed try waits between 0 and that."""
    ceiling = min(policy.backoff * 2.0 ** min(max(tries - 1, 0), 30), policy.backoff_cap)
    return timedelta(seconds=chance.uniform(0, ceiling))


@dataclass(frozen=True, slots=True, kw_only=True)
class Again:
    """The deferral goes back to the queue."""

    at: datetime
    attempts: int
    maybe: bool
    gateway_since: datetime | None
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Bury:
    """The deferral is a dead letter; its caller's task fails with the reason."""

    reason: str


class Mishap(StrEnum):
    """How a try failed, as far as its deferral is concerned."""

    NOT_SENT = "not_sent"  # nothing left this proxy
    GATEWAY = "gateway"  # a gateway answered
    IDLE = "idle"  # nothing was heard for the whole idle window
    MAYBE = "maybe"  # it broke, and the request may have reached the agent
    TOLD = "told"  # the same, but the agent had named its task
    FOLLOWED = "followed"  # it asked for the agent's task, and that broke; nothing was delivered
    SILENT = "silent"  # the same, and the agent said nothing at all


def not_again(error: str | None) -> str:
    """Why what may have reached the agent is not sent to it again where redelivery is `never`."""
    return f"it may have reached the agent and redelivery is never: {error}"


def attempts_used_up(attempts: int, error: str | None) -> str:
    """Why a deferral is given up whose budget is spent."""
    return f"{attempts} attempts used up: {error}"


def after_failed_try(  # noqa: PLR0911 - one return per row of the table
    deferral: Deferral,
    *,
    outcome: Mishap,
    error: str,
    redelivery: str,
    alive_lately: bool,
    policy: RetryPolicy,
    now: datetime,
    chance: random.Random,
) -> Again | Bury:
    """Say what becomes of a leased deferral whose try failed.

    | outcome  | counts? | then                                                                       |
    | -------- | ------- | -------------------------------------------------------------------------- |
    | not_sent | no      | backs off until its TTL                                                    |
    | gateway  | no, for `gateway_ceiling` after the first, while the workspace shows life; at least `gateway_backoff` |
    | idle     | yes     | dead letter `idle_timeout`, unless redelivery is `always`                  |
    | maybe    | yes     | dead letter under `never`; else again, marked                              |
    | told     | yes     | again, marked, whatever `redelivery` says: the next try asks for the task first |
    | followed | no      | again, marked: as above                                                    |
    | silent   | yes     | again, marked: as above, while there are attempts left                     |

    A try that asks for a task delivers nothing, so `redelivery` is not asked. What was asked about has been delivered
    once at least; whoever finds the task forgotten counts on that.
    """
    wait = backoff(deferral.tries, policy, chance)
    if outcome == Mishap.NOT_SENT:
        return Again(at=now + wait, attempts=deferral.attempts, maybe=deferral.maybe, gateway_since=None, error=error)
    if outcome == Mishap.GATEWAY and alive_lately:
        since = deferral.gateway_since or now
        if now - since < timedelta(seconds=policy.gateway_ceiling):
            wait = max(wait, timedelta(seconds=policy.gateway_backoff))
            return Again(
                at=now + wait, attempts=deferral.attempts, maybe=deferral.maybe, gateway_since=since, error=error
            )
        return Bury(reason=f"gateway answers for {policy.gateway_ceiling:g} s: {error}")
    if outcome in {Mishap.TOLD, Mishap.FOLLOWED}:
        attempts = deferral.attempts + 1 if outcome == Mishap.TOLD else max(deferral.attempts, 1)
        return Again(at=now + wait, attempts=attempts, maybe=True, gateway_since=None, error=error)
    if redelivery == "never" and outcome != Mishap.SILENT:
        return Bury(reason=not_again(error))
    if outcome == Mishap.IDLE and redelivery != "always":
        return Bury(reason="idle_timeout")
    attempts = deferral.attempts + 1
    if 0 < policy.attempts <= attempts:
        return Bury(reason=attempts_used_up(attempts, error))
    return Again(at=now + wait, attempts=attempts, maybe=True, gateway_since=None, error=error)
