"""What Holdfast needs of a store: the contract that every store keeps.

Owns: the Protocol and the small records that only the contract needs.
Knows nothing of: SQL, files, how a write is batched.

Laws, each held by the conformance suite in `tests/store/`:

* A method that writes returns after its commit is durable, or raises and has changed nothing.
* Acting is compare-and-set: `replace` on the row's version, `save_restart` on the open phase and its lease, everything
  about a leased deferral on the lease token. A write that names the past changes nothing and says so.
* What belongs together is one transaction: a new workspace and its token, a restart record and the new incarnation, a
  deferral and its decision.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from proxy.core.decision import Decision
from proxy.core.deferral import Deferral, Lease, State, StoredAnswer, StoredTask
from proxy.core.restart import Restart
from proxy.core.workspace import Workspace
from proxy.store.journal import Journal
from proxy.store.outlook import Outlooks
from proxy.store.pushes import Pushes
from proxy.store.task_lists import ForeignContext, TaskLists

WORKSPACE_TOKEN = "workspace"  # noqa: S105 - a kind, not a token
"""A token of this kind belongs to the workspace of its name: it dies with it, and when it is retired."""


class StoreFailure(Exception):  # noqa: N818 - it names what happened to the caller's write
    """The store could not do it; nothing was changed. `reason` is one of these words.

    * full: no room on the disk. locked: another process holds the database. readonly: it may not be written.
    * corrupt: it is no database, or a damaged one. closed: this store is not open. io: anything else underneath.
    * conflict: a row with that id (or token digest, or restart generation) exists already.
    * newer, changed: a later Holdfast wrote it; it is no database of Holdfast's, or an applied migration was edited.
    * missing: its directory does not exist. in_use: another live proxy has it. outdated: the library underneath is.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRecord:
    """A token as stored: never the token, only its SHA-256 (hex) and the first characters for people.

    `incarnation` is set on the token that a started child got: it dies with that life. A workspace's registration token
    has none and stays.
    """

    id: str
    kind: str
    name: str
    digest: str
    prefix: str
    created_at: datetime
    incarnation: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Signs:
    """Signs of life of one workspace. `agent_down_at`: a sidecar said so, and no later sign contradicts it."""

    last_sign_at: datetime | None = None
    last_heartbeat_at: datetime | None = None
    agent_down_at: datetime | None = None
    active_tasks: int | None = None
    max_concurrent: int | None = None
    progress: int | None = None


class Placed(StrEnum):
    """What `enqueue` did."""

    INSERTED = "inserted"
    JOINED = "joined"
    CONFLICT = "conflict"
    FULL_ROWS = "full_rows"
    FULL_BYTES = "full_bytes"
    FULL_CALLER = "full_caller"
    GONE = "gone"  # no such workspace, or it was removed meanwhile


@dataclass(frozen=True, slots=True, kw_only=True)
class Enqueued:
    """`deferral` is the new one as it was given, or the stored one that was joined or that conflicts.

    `depth`: the active rows after it. `seq`: the deferral's place in the order of acceptance; 0 without a deferral.
    `expired` had the same key and was overdue: it was ended in this transaction, and its caller must be told.
    """

    placed: Placed
    deferral: Deferral | None
    depth: int
    expired: Deferral | None = None
    seq: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueLimits:
    """Per workspace; 0 = no limit. `idempotency_since`: completed rows younger than this are joined.

    `caller_rows`: active rows of one caller; who is not authenticated is nobody in particular and not counted.
    """

    rows: int
    bytes: int
    idempotency_since: datetime | None
    caller_rows: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueSize:
    """Active rows of one workspace and their bytes."""

    rows: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """What the routing table must know of one active or lately completed deferral, without reading its body."""

    deferral_id: str
    workspace_id: str
    caller: str | None
    idempotency_key: str | None
    context_id: str | None
    task_id: str | None
    upstream_task_id: str | None
    active: bool
    adopted: bool
    completed_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a leased or queued deferral ends. `maybe`: its last try may have reached the agent; mark and count it."""

    state: State
    at: datetime
    error: str | None = None
    maybe: bool = False
    answer: StoredAnswer | None = None
    task: StoredTask | None = None
    upstream_task_id: str | None = None
    upstream_context_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Requeue:
    """How a leased deferral goes back."""

    next_attempt_at: datetime
    attempts: int
    maybe: bool
    gateway_since: datetime | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """All that a starting proxy reads at once to fill its routing table."""

    workspaces: Sequence[Workspace] = ()
    signs: Mapping[str, Signs] = field(default_factory=dict)
    tokens: Sequence[TokenRecord] = ()
    restarts: Sequence[Restart] = ()
    sizes: Mapping[str, QueueSize] = field(default_factory=dict)
    watched: Sequence[Watch] = ()
    contexts: Sequence[ForeignContext] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sought:
    """Which lines of the decision log are read; what is None does not matter.

    `before`: only lines of a lower id. `until`: only what was decided then or earlier.
    A generation is one of a workspace's: ValueError without the workspace.
    """

    workspace_id: str | None = None
    request_id: str | None = None
    receipt: str | None = None
    generation: int | None = None
    before: int | None = None
    until: datetime | None = None

    def __post_init__(self) -> None:
        if self.generation is not None and self.workspace_id is None:
            raise ValueError("a generation is one of a workspace's")


TaskOf = Callable[[Deferral], StoredTask | None]
"""What a deferral's caller is left with when a store ends it by itself. Pure: it may be called on any thread."""


def no_task(_: Deferral) -> None:
    """The task stays as it is."""


LineOf = Callable[[Deferral], Decision | None]
"""What the decision log says of a deferral that a store has just changed. Pure, like `TaskOf`."""


def no_line(_: Deferral) -> None:
    """The decision log says nothing of it."""


class Store(Journal, Outlooks, Pushes, TaskLists, Protocol):
    """The truth. Every method raises `StoreFailure` when it cannot do its work; then nothing was changed."""

    async def open(self) -> None:
        """Open, migrate forward; refuse (`newer`) what a later Holdfast wrote."""

    async def aclose(self) -> None:
        """Finish what was accepted, then close. Idempotent."""

    async def ping(self) -> float:
        """Commit nothing durably and return the seconds that it took."""

    async def snapshot(self, *, restarts_since: datetime, completed_since: datetime) -> Snapshot:
        """Read what a starting proxy needs: restarts open, younger or a workspace's last, watches active or younger."""

    # Workspaces

    async def workspace(self, workspace_id: str) -> Workspace | None:
        """Read one."""

    async def create(
        self, workspace: Workspace, *, token: TokenRecord | None = None, decision: Decision | None = None
    ) -> Workspace | None:
        """Insert a new workspace with its token; None when the id exists already."""

    async def replace(
        self,
        workspace: Workspace,
        *,
        restart: Restart | None = None,
        token: TokenRecord | None = None,
        retire_tokens: bool = False,
        no_sign_after: datetime | None = None,
        decision: Decision | None = None,
    ) -> Workspace | None:
        """Write `workspace` if the row still has its `version`; return it with the next version, None when lost.

        `restart` is inserted, `token` added (`retire_tokens`: the workspace's tokens of earlier incarnations die).
        `no_sign_after`: also lose when the stored last sign of life is later than that. All in one transaction with
        `decision`.
        """

    async def remove(self, workspace: Workspace, *, at: datetime, reason: str, decision: Decision) -> bool:
        """Mark as removed by compare-and-set; its tokens die, its active deferrals are cancelled with `reason`."""

    async def record_signs(self, signs: Mapping[str, Signs]) -> None:
        """Merge signs of life: instants only move forward, fields that are None keep what is stored.

        Many are written in steps. Where it fails some may have been merged; to repeat all of them does no harm.
        """

    async def amend(self, now: datetime, *, latest_try: datetime) -> int:
        """Move what is written down as later than now back to now; return how many records that changed.

        For a proxy that starts after the clock was set back: nothing has happened yet that is to come. A queued
        deferral becomes due where its next try is later than `latest_try`, which no wait reaches. Times to live, ends
        and the decision log stay as they were written.
        """

    # Restarts

    async def save_restart(
        self,
        restart: Restart,
        *,
        held_by: str | None,
        now: datetime | None = None,
        decision: Decision | None = None,
    ) -> bool:
        """Update an open restart whose lease is `held_by`'s (None: take over one whose lease ran out by `now`).

        The decision is written only when the restart was.

        Raises:
            ValueError: neither `held_by` nor `now` was given.
        """

    async def restart(self, workspace_id: str, generation: int) -> Restart | None:
        """Read one cycle."""

    async def restarts(self, workspace_id: str, *, limit: int, before: int | None = None) -> Sequence[Restart]:
        """The latest cycles, newest first; those of a lower generation than `before`, where it is given."""

    async def trim_restarts(self, *, after: datetime | None, before: datetime, limit: int) -> datetime | None:
        """Delete, of a page of old cycles, the ended ones but a workspace's last; return where to go on, None: done."""

    # Tokens

    async def add_token(self, token: TokenRecord) -> None:
        """Insert."""

    async def drop_token(self, token_id: str) -> TokenRecord | None:
        """Delete and return what was deleted."""

    # Deferrals

    async def enqueue(
        self,
        deferral: Deferral,
        *,
        limits: QueueLimits,
        decision: Decision | None = None,
        expired_task: TaskOf = no_task,
        expired_line: LineOf = no_line,
    ) -> Enqueued:
        """Put a request away, queued or already leased, or say why not.

        A row with the same (workspace, caller, idempotency_key) that is active or completed since
        `limits.idempotency_since` is joined (same digest) or conflicts (another): nothing is inserted then. Head and
        rank are computed here. The decision is written only when a row was inserted. A queued row with that key whose
        time has passed is ended as expired first; `expired_task` makes its task, `expired_line` its line of the log.
        """

    async def deferral(self, deferral_id: str) -> Deferral | None:
        """Read one, whatever its state."""

    async def deferral_of_task(self, workspace_id: str, task_id: str) -> Deferral | None:
        """Read the deferral whose provisional task id that is."""

    async def deferrals(
        self,
        *,
        workspace_id: str | None = None,
        states: Sequence[State] = (),
        caller: str | None = None,
        limit: int = 100,
    ) -> Sequence[Deferral]:
        """List the newest first, without bodies (`request.body`, `answer`, `credentials` are empty).

        `caller`: only that caller's, of one workspace; ValueError without a workspace.
        """

    async def claim(
        self,
        workspace_id: str,
        *,
        leases: Sequence[Lease],
        now: datetime,
        line: LineOf = no_line,
        most_bytes: int = 0,
    ) -> Sequence[Deferral]:
        """Lease up to len(leases) claimable heads (queued, due, not expired) by rank, then age; increments `tries`.

        `line` makes what the decision log says of each, in the same transaction. Once their sizes together reach
        `most_bytes` (0: never) no more are leased.
        """

    async def extend(self, deferral_id: str, lease_token: str, *, until: datetime) -> bool:
        """Renew a lease; False when it is no longer the caller's."""

    async def finish(
        self, deferral_id: str, lease_token: str | None, ending: Ending, *, decision: Decision | None = None
    ) -> Deferral | None:
        """End a leased deferral (by its token) or a queued one (token None); None when lost.

        Credentials are dropped, the body too unless the end is a dead letter; the next of its context becomes head.
        """

    async def redrive(
        self,
        deferral_id: str,
        *,
        now: datetime,
        expires_at: datetime,
        task: StoredTask | None = None,
        decision: Decision | None = None,
    ) -> Deferral | None:
        """Queue a dead letter again, due now, in its old place in its context; None when it is none.

        Its budget begins anew; `maybe`, `tries` and `last_error` stay, a `task` replaces the one that said "failed".
        Also None when another active deferral has its key, or its workspace was removed. No limit holds it off.
        """

    async def learn_task(self, deferral_id: str, lease_token: str, upstream_task_id: str, task: StoredTask) -> bool:
        """Note the upstream's task id as soon as it is known, while the lease lasts."""

    async def update_task(self, deferral_id: str, task: StoredTask) -> bool:
        """Keep a later state of a completed deferral's task (a non-terminal task that went on)."""

    async def release(
        self, deferral_id: str, lease_token: str, requeue: Requeue, *, decision: Decision | None = None
    ) -> bool:
        """Put a leased deferral back into its queue; the decision is written only then."""

    async def hasten(self, workspace_id: str, now: datetime, *, turned_away: bool = False) -> None:
        """Make a workspace's queued heads due now: it is back, and what they waited for was that.

        Those that wait because a gateway answered (`gateway_since`) go on waiting unless `turned_away`: there somebody
        did listen.
        """

    async def release_expired(self, now: datetime) -> Sequence[Watch]:
        """Queue again, marked `maybe` and counted as an attempt, every deferral whose lease ran out; return them.

        `Watch.adopted` says whether it was adopted until now: from now on it blocks its context like any other.
        """

    async def release_polled(self, workspace_id: str, *, but: str | None, error: str, now: datetime) -> Sequence[Watch]:
        """The same for what lives of a polling workspace hold, other than the owner `but` (`core.deferral.poller`)."""

    async def release_owned(self, owner: str, now: datetime) -> Sequence[Watch]:
        """Queue again, marked `maybe`, what a dead proxy (this one's earlier life) had leased; return as above.

        Uncounted: that a proxy died says nothing about what it was sending.
        """

    async def queue_sizes(self) -> Mapping[str, QueueSize]:
        """Count every queue that is not empty, by workspace id."""

    async def due(self, now: datetime, *, limit: int) -> Sequence[str]:
        """Ids of workspaces that have a claimable head."""

    async def overdue(self, now: datetime, *, limit: int) -> Sequence[Deferral]:
        """Queued deferrals whose TTL has passed, without bodies."""

    async def stale(self, *, before: datetime, workspace_id: str | None = None, limit: int) -> Sequence[Deferral]:
        """Queued deferrals accepted earlier than `before`, without bodies: by workspace, the oldest first."""

    async def purge(self, *, ended_before: datetime, limit: int) -> int:
        """Delete ended deferrals (with aliases and journal) older than that; return how many."""

    # Decision log

    async def log(self, decisions: Sequence[Decision]) -> None:
        """Append."""

    async def decisions(self, workspace_id: str, *, limit: int) -> Sequence[Decision]:
        """About one workspace, newest first."""

    async def sought(self, sought: Sought, *, limit: int) -> Sequence[Decision]:
        """The lines that are sought, newest first; each knows its `id`."""

    async def trim_decisions(self, *, before: datetime, rows: int) -> int:
        """Delete what is older, or beyond the newest `rows` of a workspace; return how many."""
