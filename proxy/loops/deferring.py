"""Putting requests away: one committed row, and a receipt that the caller can follow.

Owns: what of a request is stored and how, the provisional ids, the retry that joins, the routing table's bookkeeping.
Knows nothing of: why a request is deferred, how the 202 looks, who delivers later.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from proxy.clock import Now
from proxy.core import a2a
from proxy.core.decision import Decision
from proxy.core.deferral import ACTIVE, Deferral, Lease, Priority, RawHeaders, State, StoredRequest
from proxy.core.errors import CallerError, ProxyError
from proxy.core.times import rfc3339
from proxy.loops.continuing import Continued, continued, submitted
from proxy.loops.deferral_lines import ended_line, taken_back_line
from proxy.loops.followers import Followers
from proxy.loops.push_configs import PushConfigs
from proxy.loops.queue_sizes import QueueSizes
from proxy.loops.routing import Route, Routing
from proxy.loops.stored_requests import ended_task, pack, resubmitted_task, split_credentials, unpack
from proxy.store import Ending, Enqueued, Placed, QueueLimits, Store, StoreFailure, Watch
from proxy.store.laws import SUPERSEDED
from proxy.store.vault import Vault
from proxy.telemetry import EventName, Telemetry

BUSY_RETRY_AFTER = 30
QUEUED_TEXT = "The request is stored; this task will hold the workspace's answer."
"""True of every deferral: of one whose workspace is away, and of a slow call that goes on without its caller."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Incoming:
    """A request as it came, and what it says. `headers` are end to end, credentials included."""

    call: a2a.Call
    method: str
    tail: str
    headers: RawHeaders
    body: bytes
    caller: str | None
    request_id: str
    idempotency_key: str | None = None
    priority: int = Priority.TASK


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What the caller is told. `joined` says that an earlier request with the same key is answered for."""

    deferral: Deferral
    depth: int
    joined: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueRules:
    """Limits per workspace: rows, bytes, rows of one caller, seconds to live, seconds in which a finished key joins.

    0 = off.
    """

    rows: int
    bytes: int
    caller_rows: int
    ttl: float
    idempotency_retention: float


class Deferring:
    """Writes deferrals, and ends those that never run."""

    def __init__(
        self,
        *,
        store: Store,
        routing: Routing,
        vault: Vault,
        now: Now,
        telemetry: Telemetry,
        chance: random.Random,
        new_id: Callable[[], str],
        rules: QueueRules,
        sizes: QueueSizes,
        followers: Followers,
        pushes: PushConfigs,
    ) -> None:
        self._store = store
        self._sizes = sizes
        self.followers = followers
        self._pushes = pushes
        self._routing = routing
        self._vault = vault
        self._now = now
        self._telemetry = telemetry
        self._chance = chance
        self._new_id = new_id
        self._rules = rules
        self.moved: Callable[[Route], None] = lambda _: None
        """Hears that a queue may have something new to hand out: a deferral came, went back, or made room."""

    async def put(
        self,
        route: Route,
        incoming: Incoming,
        *,
        maybe: bool,
        error: str | None,
        decision: Decision | None,
        lease: Lease | None = None,
    ) -> Receipt:
        """Put a request away; the row is committed when this returns. With a lease it is adopted: a call is running.

        Raises:
            CallerError: the key is in use for other content (409), the queue is full (429), the workspace gone (404),
                its push notification configuration cannot be used (400).
            ProxyError: the store could not commit (503, `busy`); nothing was stored.
        """
        try:
            goes_on = await continued(self._store, route, incoming.call, incoming.caller)
        except StoreFailure as problem:
            self._refused(route, incoming, problem.reason)
            raise queue_unavailable() from problem
        made = self._deferral(route, incoming, goes_on, maybe=maybe, error=error)
        deferral = await self._pushes.taken(made, incoming.call)
        now = deferral.enqueued_at
        if lease is not None:
            deferral = replace(
                deferral, state=State.LEASED, lease=lease, leased_at=deferral.enqueued_at, adopted=True, tries=1
            )
        limits = QueueLimits(
            rows=self._rules.rows,
            bytes=self._rules.bytes,
            idempotency_since=self._joined_since(deferral.enqueued_at),
            caller_rows=self._rules.caller_rows,
        )
        line = replace(decision, receipt=deferral.id) if decision is not None else None
        with self._sizes.changing(route):
            try:
                placed = await self._store.enqueue(
                    deferral,
                    limits=limits,
                    decision=line,
                    expired_task=lambda old: ended_task(old, "failed", SUPERSEDED, deferral.enqueued_at),
                    expired_line=lambda old: ended_line(old, route.workspace, State.EXPIRED, SUPERSEDED, now),
                )
            except StoreFailure as problem:
                self._refused(route, incoming, problem.reason)
                raise queue_unavailable() from problem
            if placed.expired is not None:
                self.ended(placed.expired)
            receipt = self._placed(route, incoming, placed, rule=decision.rule if decision is not None else None)
        if goes_on is not None and not receipt.joined:
            await self._pushes.carried_on(receipt.deferral)
        return receipt

    def _refused(self, route: Route, incoming: Incoming, problem: str) -> None:
        self._telemetry.emit(
            EventName.DEFERRAL_REFUSED,
            workspace=route.id,
            incarnation=route.workspace.incarnation,
            request_id=incoming.request_id,
            fields={"problem": problem},
        )

    def _joined_since(self, now: datetime) -> datetime | None:
        """What was completed later than this is joined by repetitions; None where nothing is."""
        kept = self._rules.idempotency_retention
        return now - timedelta(seconds=kept) if kept > 0 else None

    def joins(self, deferral: Deferral) -> bool:
        """Whether a repetition gets this one's place or answer now, as `Store.enqueue` has it (scenarios 40, 47)."""
        now = self._now()
        if deferral.state in ACTIVE:
            return deferral.state is State.LEASED or deferral.expires_at > now
        since, ended = self._joined_since(now), deferral.completed_at
        if deferral.state is not State.COMPLETED or since is None or ended is None:
            return False
        return ended > since

    def forget_keys(self) -> None:
        """Let go of the keys of deferrals that nothing joins any more."""
        self._routing.forget_keys(self._joined_since(self._now()) or self._now())

    def _placed(self, route: Route, incoming: Incoming, placed: Enqueued, *, rule: str | None) -> Receipt:
        if placed.deferral is None:
            self._refused(route, incoming, placed.placed.value)
            raise refusal(route.id, placed)
        if placed.placed is Placed.CONFLICT:
            raise key_conflict(placed.deferral.id)
        stored = placed.deferral
        if placed.placed is Placed.INSERTED:
            self._queued(route, stored)
            self._telemetry.emit(
                EventName.DEFERRAL_QUEUED,
                workspace=route.id,
                incarnation=route.workspace.incarnation,
                request_id=incoming.request_id,
                receipt=stored.id,
                rule=rule,
                fields={"depth": placed.depth, "redelivery": "maybe" if stored.maybe else "no"},
            )
        return Receipt(deferral=stored, depth=placed.depth, joined=placed.placed is Placed.JOINED)

    def _queued(self, route: Route, deferral: Deferral) -> None:
        """Take note in the routing table that a deferral is active now."""
        self._sizes.added(route, deferral.size)
        self._routing.watch(watch_of(deferral))
        if deferral.push is not None:
            self._pushes.added(deferral.id, deferral.push.id)
        self.moved(route)

    def _deferral(
        self, route: Route, incoming: Incoming, goes_on: Continued | None, *, maybe: bool, error: str | None
    ) -> Deferral:
        now = self._now()
        call = incoming.call
        is_a2a = call.binding is not a2a.Binding.OTHER
        deferral_id = self._new_id()
        key = incoming.idempotency_key or call.message_id
        sealed, plain = split_credentials(incoming.headers, route.credential_headers)
        context_id = call.context_id or (a2a.new_context_id(self._chance, now) if is_a2a else None)
        task_id = a2a.provisional_id(self._chance, now) if is_a2a else None
        if goes_on is not None:
            context_id, task_id = goes_on.context_id or context_id, goes_on.task_id
        task = None
        if task_id is not None and context_id is not None:
            task = submitted(
                call, goes_on, task_id=task_id, context_id=context_id, at=now, text=QUEUED_TEXT, metadata=_seen(route)
            )
        return Deferral(
            id=deferral_id,
            workspace_id=route.id,
            caller=incoming.caller,
            request=StoredRequest(method=incoming.method, tail=incoming.tail, headers=plain, body=incoming.body),
            enqueued_at=now,
            expires_at=self._expiry(now),
            next_attempt_at=now,
            priority=incoming.priority,
            binding=call.binding.value,
            protocol=call.version.value if is_a2a else "",
            operation=call.operation.value,
            streaming=call.streaming,
            rpc_id=call.rpc_id,
            message_id=call.message_id,
            context_id=context_id,
            task_id=task_id,
            task=task,
            idempotency_key=key if incoming.caller is not None else None,
            digest=a2a.digest(incoming.body, binding=call.binding),
            maybe=maybe,
            attempts=1 if maybe else 0,
            last_error=error,
            request_id=incoming.request_id,
            credentials=self._vault.seal(pack(sealed), owner=deferral_id) if sealed else None,
        )

    def _expiry(self, now: datetime) -> datetime:
        return now + timedelta(seconds=self._rules.ttl or FOREVER)

    def headers_of(self, deferral: Deferral) -> RawHeaders:
        """The stored headers with the credentials back in them."""
        if deferral.credentials is None:
            return deferral.request.headers
        return (*deferral.request.headers, *unpack(self._vault.open(deferral.credentials, owner=deferral.id)))

    async def end(
        self,
        deferral: Deferral,
        state: State,
        reason: str,
        *,
        lease_token: str | None,
        task_state: str,
        maybe: bool = False,
        decision: Decision | None = None,
    ) -> Deferral | None:
        """End a deferral without an answer of the agent's; its caller's task says why. None when the race was lost.

        `maybe`: a try of it may have reached the agent, and whoever drives it again must know.
        """
        now = self._now()
        task = ended_task(deferral, task_state, reason, now)
        ending = Ending(state=state, at=now, error=reason, maybe=maybe, task=task)
        route = self._routing.get(deferral.workspace_id)
        if decision is None and route is not None:
            decision = ended_line(deferral, route.workspace, state, reason, now)
        return await self.finish(deferral, lease_token, ending, decision)

    async def finish(
        self, deferral: Deferral, lease_token: str | None, ending: Ending, decision: Decision | None
    ) -> Deferral | None:
        """Write an end; None when the race for it was lost.

        Raises:
            StoreFailure: nothing was written.
        """
        with self._sizes.changing(self._routing.get(deferral.workspace_id)):
            ended = await self._store.finish(deferral.id, lease_token, ending, decision=decision)
            if ended is not None:
                self.ended(ended)
            return ended

    async def took_back(self, watches: Sequence[Watch], reason: str) -> None:
        """Log that leases ended without their holders' word, and hold the contexts that are blocked from now on."""
        now, lines = self._now(), []
        for watch in watches:
            if watch.adopted:
                # Its call is nobody's any more: from now on it holds its context back.
                self._routing.hold_context(watch.workspace_id, watch.context_id)
            if (route := self._routing.get(watch.workspace_id)) is not None:
                lines.append(taken_back_line(watch, route.workspace, reason, now))
                self.moved(route)
        if lines:
            await self._store.log(lines)

    def ended(self, deferral: Deferral) -> None:
        """Take note in the routing table that a deferral has ended, however it did."""
        route = self._routing.get(deferral.workspace_id)
        if route is not None:
            self._sizes.removed(route)
            self.moved(route)
        where, context = deferral.workspace_id, deferral.context_id
        self._routing.unwatch_task(where, deferral.task_id)
        self._routing.know_context(where, deferral.caller, context, deferral.upstream_context_id)
        if not deferral.adopted:
            self._routing.unwatch_context(deferral.workspace_id, deferral.context_id)
        if deferral.state is State.COMPLETED and self._rules.idempotency_retention > 0:
            self._routing.watch(watch_of(deferral))
        else:
            self._routing.forget_key(deferral.workspace_id, deferral.caller, deferral.idempotency_key, deferral.id)
        self.followers.tell(deferral.id)
        self._telemetry.emit(
            ENDED_EVENTS[deferral.state],
            workspace=deferral.workspace_id,
            incarnation=route.workspace.incarnation if route is not None else None,
            receipt=deferral.id,
            request_id=deferral.request_id,
            fields={"reason": deferral.last_error} if deferral.state is not State.COMPLETED else {},
        )

    async def redrive(self, route: Route, deferral: Deferral, *, decision: Decision) -> Deferral | None:
        """Queue a dead letter again, its task as submitted; None when it is none, or its key is in use."""
        now = self._now()
        task = resubmitted_task(deferral, now)
        with self._sizes.changing(route):
            back = await self._store.redrive(
                deferral.id, now=now, expires_at=self._expiry(now), task=task, decision=decision
            )
            if back is not None:
                self._queued(route, back)
        if back is not None:
            self._telemetry.emit(
                EventName.DEFERRAL_REDRIVEN,
                workspace=route.id,
                incarnation=route.workspace.incarnation,
                receipt=back.id,
                request_id=back.request_id,
            )
        return back


def _seen(route: Route) -> dict[str, object] | None:
    """What the task says of a request that waits until its workspace asks: when that last gave a sign of life."""
    at = route.signs.last_sign_at
    return {"holdfast": {"last_seen": rfc3339(at) if at is not None else None}} if route.polling else None


FOREVER = 100 * 365 * 86400.0
ENDED_EVENTS = {
    State.COMPLETED: EventName.DEFERRAL_COMPLETED,
    State.DEAD_LETTERED: EventName.DEFERRAL_DEAD_LETTERED,
    State.EXPIRED: EventName.DEFERRAL_EXPIRED,
    State.CANCELLED: EventName.DEFERRAL_CANCELLED,
    State.DROPPED: EventName.DEFERRAL_DROPPED,
}


def watch_of(deferral: Deferral) -> Watch:
    """What the routing table keeps of a deferral."""
    return Watch(
        deferral_id=deferral.id,
        workspace_id=deferral.workspace_id,
        caller=deferral.caller,
        idempotency_key=deferral.idempotency_key,
        context_id=deferral.context_id,
        task_id=deferral.task_id,
        upstream_task_id=deferral.upstream_task_id,
        active=deferral.state in ACTIVE,
        adopted=deferral.adopted,
        completed_at=deferral.completed_at,
    )


def refusal(workspace_id: str, placed: Enqueued) -> CallerError:
    """The answer to a request for which there is no room, or no workspace any more."""
    if placed.placed is Placed.GONE:
        return CallerError("WORKSPACE_NOT_FOUND", f"workspace {workspace_id} was removed", status=404)
    kind, text = FULL[placed.placed]
    return CallerError(
        "QUEUE_FULL",
        f"the queue of workspace {workspace_id} {text}",
        status=429,
        retry_after=BUSY_RETRY_AFTER,
        facts={"queue_full": True, "kind": kind, "queue_depth": placed.depth},
    )


FULL = {
    Placed.FULL_ROWS: ("messages", "is full (messages)"),
    Placed.FULL_BYTES: ("bytes", "is full (bytes)"),
    Placed.FULL_CALLER: ("peer", "holds as many requests of this caller as one caller may have there"),
}


def queue_unavailable(delivered: str = "no") -> ProxyError:
    """The answer when a request should be put away and the store cannot; `delivered` says whether the agent has it."""
    return ProxyError(
        "QUEUE_UNAVAILABLE",
        "the request could not be put away; it was not accepted",
        retry_after=BUSY_RETRY_AFTER,
        facts={"busy": True, "delivered": delivered},
    )


def key_conflict(deferral_id: str) -> CallerError:
    """The answer to another request under a key that is in use."""
    return CallerError(
        "IDEMPOTENCY_CONFLICT",
        "this message id (or Idempotency-Key) was used for other content; nothing was stored",
        status=409,
        facts={"receipt": deferral_id},
    )


def states_of(names: Sequence[str]) -> list[State]:
    """Parse state names; CallerError for an unknown one."""
    try:
        return [State(name) for name in names]
    except ValueError:
        known = ", ".join(state.value for state in State)
        raise CallerError("BAD_STATUS", f"there is no such status; there are {known}") from None
