"""Deferrals in plain dictionaries: the model of what the SQL stores must do.

Owns: the rows, and every rule about them said as directly as it can be: heads, ranks and sizes are computed from the
rows each time, never stored, so that no forgotten update can hide. Knows nothing of: asyncio, workspaces' own state.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime

from proxy.core.deferral import ACTIVE, POLLED, Deferral, Lease, State, StoredRequest, StoredTask
from proxy.store import Ending, Enqueued, Placed, QueueLimits, QueueSize, Requeue, StoreFailure, TaskOf, Watch
from proxy.store.laws import HOLDER_GONE, LEASE_RAN_OUT, SUPERSEDED, check_end, check_listing
from proxy.store.outlook import Outlook


class MemoryQueues:
    """The queues of all workspaces. Rows are frozen records: a change puts another one in their place."""

    def __init__(self) -> None:
        self._rows: dict[str, Deferral] = {}
        self._active: dict[str, dict[str, None]] = {}
        self._seq = 0

    def add_workspace(self, workspace_id: str) -> None:
        """Give it an empty queue."""
        self._active[workspace_id] = {}

    # Reading

    def get(self, deferral_id: str) -> Deferral | None:
        """One row."""
        return self._rows.get(deferral_id)

    def brief(self, deferral_id: str) -> Deferral | None:
        """One row without its body."""
        row = self._rows.get(deferral_id)
        return None if row is None else _brief(row)

    def all(self) -> list[Deferral]:
        """Every row, in the order of acceptance."""
        return sorted(self._rows.values(), key=lambda row: row.seq)

    def newest(self, workspace_id: str) -> list[Deferral]:
        """A workspace's rows, the newest first, brief."""
        found = [_brief(row) for row in self._rows.values() if row.workspace_id == workspace_id]
        return sorted(found, key=lambda row: -row.seq)

    def of_task(self, workspace_id: str, task_id: str) -> Deferral | None:
        """The latest of that provisional task id."""
        found = [row for row in self._rows.values() if (row.workspace_id, row.task_id) == (workspace_id, task_id)]
        return max(found, key=lambda row: row.seq, default=None)

    def listed(
        self, workspace_id: str | None, states: Sequence[State], caller: str | None, limit: int
    ) -> list[Deferral]:
        """The newest first, brief."""
        check_listing(workspace_id, caller)
        found = [
            row
            for row in self._rows.values()
            if workspace_id in {None, row.workspace_id}
            and (not states or row.state in states)
            and caller in {None, row.caller}
        ]
        found.sort(key=lambda row: -row.seq)
        return [_brief(row) for row in found[:limit]]

    def watched(self, completed_since: datetime) -> list[Watch]:
        """Leased rows, queued ones, and in the order of their ends those completed later than an instant."""
        rows = sorted(self._rows.values(), key=lambda row: row.seq)
        completed = [row for row in rows if row.state is State.COMPLETED and _ended_at(row) > completed_since]
        completed.sort(key=_ended_at)
        active = [row for state in (State.LEASED, State.QUEUED) for row in rows if row.state is state]
        return [_watch(row) for row in [*active, *completed]]

    def sizes(self) -> dict[str, QueueSize]:
        """Of all queues that are not empty."""
        return {workspace_id: self._size(workspace_id) for workspace_id, active in self._active.items() if active}

    def _size(self, workspace_id: str) -> QueueSize:
        active = list(self._active_of(workspace_id))
        return QueueSize(rows=len(active), bytes=sum(row.size for row in active))

    def _active_of(self, workspace_id: str) -> Iterator[Deferral]:
        return (self._rows[deferral_id] for deferral_id in self._active.get(workspace_id, ()))

    def _heads(self, workspace_id: str) -> Iterator[tuple[int, Deferral]]:
        """Every head with its rank: of each context the leased one, else the earliest; and all without a context."""
        contexts: dict[str, list[Deferral]] = {}
        for row in self._active_of(workspace_id):
            if row.adopted:
                continue
            if row.context_id is None:
                yield row.priority, row
            else:
                contexts.setdefault(row.context_id, []).append(row)
        for blocking in contexts.values():
            head = min(blocking, key=lambda row: (row.state is not State.LEASED, row.seq))
            yield max(row.priority for row in blocking), head

    def _claimable(self, workspace_id: str, now: datetime) -> list[tuple[int, Deferral]]:
        return [
            (rank, row)
            for rank, row in self._heads(workspace_id)
            if row.state is State.QUEUED and row.next_attempt_at <= now < row.expires_at
        ]

    # Putting away

    def enqueue(self, deferral: Deferral, limits: QueueLimits, expired_task: TaskOf) -> Enqueued:
        """See `Store.enqueue`; the deferral is one that a store may take, its workspace is known."""
        known, expired = self._known(deferral, limits)
        if expired is not None:
            expired = replace(expired, task=expired_task(expired) or expired.task)
        size = self._size(deferral.workspace_id)
        if known is not None:
            placed = Placed.JOINED if known.digest == deferral.digest else Placed.CONFLICT
            depth = size.rows - (expired is not None)
            self._end_expired(expired)
            return Enqueued(placed=placed, deferral=known, depth=depth, expired=expired, seq=known.seq)
        if expired is not None:
            size = QueueSize(rows=size.rows - 1, bytes=size.bytes - expired.size)
        placed = Placed.INSERTED
        if 0 < limits.rows <= size.rows:
            placed = Placed.FULL_ROWS
        elif 0 < limits.bytes < size.bytes + deferral.size:
            placed = Placed.FULL_BYTES
        elif 0 < limits.caller_rows <= self._rows_of_caller(deferral) - (expired is not None):
            placed = Placed.FULL_CALLER
        elif deferral.id in self._rows:
            raise StoreFailure("conflict", f"there is a deferral {deferral.id}")
        self._end_expired(expired)
        if placed is not Placed.INSERTED:
            return Enqueued(placed=placed, deferral=None, depth=size.rows, expired=expired)
        self._seq += 1
        new = replace(deferral, seq=self._seq, push=None)
        self._rows[new.id] = new
        self._active[new.workspace_id][new.id] = None
        return Enqueued(placed=placed, deferral=deferral, depth=size.rows + 1, expired=expired, seq=new.seq)

    def _rows_of_caller(self, new: Deferral) -> int:
        if new.caller is None:
            return 0
        return sum(row.caller == new.caller for row in self._active_of(new.workspace_id))

    def _known(self, new: Deferral, limits: QueueLimits) -> tuple[Deferral | None, Deferral | None]:
        if new.caller is None or new.idempotency_key is None:
            return None, None
        key = (new.workspace_id, new.caller, new.idempotency_key)
        same = [row for row in self._rows.values() if (row.workspace_id, row.caller, row.idempotency_key) == key]
        expired = None
        for row in same:
            if row.state in ACTIVE:
                if row.state is State.LEASED or row.expires_at > new.enqueued_at:
                    return row, None
                expired = replace(
                    row, state=State.EXPIRED, completed_at=new.enqueued_at, last_error=SUPERSEDED, credentials=None
                )
        since = limits.idempotency_since
        late = [row for row in same if row.state is State.COMPLETED and since is not None and _ended_at(row) > since]
        return max(late, key=lambda row: (_ended_at(row), row.seq), default=None), expired

    def _end_expired(self, expired: Deferral | None) -> None:
        if expired is not None:
            self._put(replace(expired, request=_without_body(expired.request)))

    def _put(self, row: Deferral) -> None:
        self._rows[row.id] = row
        if row.state in ACTIVE:
            self._active[row.workspace_id][row.id] = None
        else:
            del self._active[row.workspace_id][row.id]

    # Leases

    def claim(self, workspace_id: str, leases: Sequence[Lease], now: datetime, most_bytes: int) -> list[Deferral]:
        """See `Store.claim`."""
        ordered = sorted(self._claimable(workspace_id, now), key=lambda ranked: (-ranked[0], ranked[1].seq))
        claimed: list[Deferral] = []
        for (_, row), lease in zip(ordered, leases, strict=False):
            if 0 < most_bytes <= sum(each.size for each in claimed):
                break
            leased = replace(row, state=State.LEASED, lease=lease, leased_at=now, tries=row.tries + 1)
            self._put(leased)
            claimed.append(leased)
        return claimed

    def leased(self, deferral_id: str, lease_token: str) -> Deferral | None:
        """The row, if it is leased under that token."""
        row = self._rows.get(deferral_id)
        return row if row is not None and row.lease is not None and row.lease.token == lease_token else None

    def extend(self, deferral_id: str, lease_token: str, until: datetime) -> bool:
        """See `Store.extend`."""
        row = self.leased(deferral_id, lease_token)
        if row is None or row.lease is None:
            return False
        self._put(replace(row, lease=replace(row.lease, until=until)))
        return True

    def learn(self, deferral_id: str, change: Callable[[Deferral], Deferral]) -> None:
        """Keep what became known of a leased row."""
        self._put(change(self._rows[deferral_id]))

    def learn_task(self, deferral_id: str, lease_token: str, upstream_task_id: str, task: StoredTask) -> bool:
        """See `Store.learn_task`."""
        row = self.leased(deferral_id, lease_token)
        if row is None:
            return False
        self._put(replace(row, upstream_task_id=upstream_task_id, task=task))
        return True

    def update_task(self, deferral_id: str, task: StoredTask) -> bool:
        """See `Store.update_task`."""
        row = self._rows.get(deferral_id)
        if row is None or row.state is not State.COMPLETED:
            return False
        self._rows[row.id] = replace(row, task=task)
        return True

    def release(self, deferral_id: str, lease_token: str, requeue: Requeue) -> bool:
        """See `Store.release`."""
        row = self.leased(deferral_id, lease_token)
        if row is None:
            return False
        self._put(
            replace(
                row,
                state=State.QUEUED,
                lease=None,
                adopted=False,
                next_attempt_at=requeue.next_attempt_at,
                attempts=requeue.attempts,
                maybe=requeue.maybe,
                gateway_since=requeue.gateway_since,
                last_error=row.last_error if requeue.error is None else requeue.error,
            )
        )
        return True

    def hasten(self, workspace_id: str, now: datetime, *, turned_away: bool) -> None:
        """See `Store.hasten`."""
        for _, row in tuple(self._heads(workspace_id)):
            waits = row.state is State.QUEUED and row.next_attempt_at > now
            if waits and (turned_away or row.gateway_since is None):
                self._put(replace(row, next_attempt_at=now))

    def amend(self, now: datetime, latest_try: datetime) -> int:
        """See `Store.amend`."""
        late = [row for row in self._rows.values() if row.state is State.QUEUED and row.next_attempt_at > latest_try]
        for row in late:
            since = row.gateway_since
            self._put(replace(row, next_attempt_at=now, gateway_since=min(since, now) if since else None))
        return len(late)

    def release_expired(self, now: datetime) -> list[Watch]:
        """See `Store.release_expired`."""
        over = [(row.lease.until, row.seq, row) for row in self._rows.values() if row.lease and row.lease.until <= now]
        return self._take_back([row for _, _, row in sorted(over, key=lambda each: each[:2])], LEASE_RAN_OUT, now)

    def release_owned(self, owner: str, now: datetime) -> list[Watch]:
        """See `Store.release_owned`."""
        owned = [row for row in self._rows.values() if row.lease and row.lease.owner == owner]
        return self._take_back(sorted(owned, key=lambda row: row.seq), HOLDER_GONE, now, counted=False)

    def release_polled(self, workspace_id: str, but: str | None, error: str, now: datetime) -> list[Watch]:
        """See `Store.release_polled`."""
        held = [
            row
            for row in self._active_of(workspace_id)
            if row.lease and row.lease.owner.startswith(POLLED) and row.lease.owner != but
        ]
        return self._take_back(sorted(held, key=lambda row: row.seq), error, now)

    def outlook(self, workspace_id: str, now: datetime) -> Outlook:
        """See `Store.outlook`."""
        ends = [row.lease.until for row in self._active_of(workspace_id) if row.lease]
        due = [
            row.next_attempt_at
            for _, row in self._heads(workspace_id)
            if row.state is State.QUEUED and now < row.next_attempt_at < row.expires_at
        ]
        return Outlook(leased=len(ends), due_at=min(due, default=None), lease_ends_at=min(ends, default=None))

    def _take_back(self, found: Sequence[Deferral], error: str, now: datetime, *, counted: bool = True) -> list[Watch]:
        for row in found:
            self._put(
                replace(
                    row,
                    state=State.QUEUED,
                    lease=None,
                    adopted=False,
                    maybe=True,
                    attempts=row.attempts + counted,
                    next_attempt_at=now,
                    last_error=error,
                )
            )
        return [_watch(row) for row in found]

    # Ends

    def finish(self, deferral_id: str, lease_token: str | None, ending: Ending) -> Deferral | None:
        """See `Store.finish`."""
        source = check_end(lease_token, ending)
        row = self._rows.get(deferral_id) if lease_token is None else self.leased(deferral_id, lease_token)
        if row is None or row.state is not source:
            return None
        ended = replace(
            row,
            state=ending.state,
            lease=None,
            completed_at=ending.at,
            last_error=row.last_error if ending.error is None else ending.error,
            maybe=row.maybe or ending.maybe,
            attempts=row.attempts + ending.maybe,
            task=ending.task or row.task,
            answer=ending.answer,
            upstream_task_id=ending.upstream_task_id or row.upstream_task_id,
            upstream_context_id=ending.upstream_context_id or row.upstream_context_id,
            request=row.request if ending.state is State.DEAD_LETTERED else _without_body(row.request),
            credentials=None,
        )
        self._put(ended)
        return ended

    def redrive(
        self, deferral_id: str, now: datetime, expires_at: datetime, task: StoredTask | None
    ) -> Deferral | None:
        """See `Store.redrive`; its workspace is there."""
        row = self._rows.get(deferral_id)
        if row is None or row.state is not State.DEAD_LETTERED or self._is_replaced(row):
            return None
        back = replace(
            row,
            state=State.QUEUED,
            adopted=False,
            attempts=0,
            gateway_since=None,
            next_attempt_at=now,
            expires_at=expires_at,
            completed_at=None,
            task=task or row.task,
            answer=None,
        )
        self._put(back)
        return back

    def _is_replaced(self, row: Deferral) -> bool:
        if row.caller is None or row.idempotency_key is None:
            return False
        key = (row.caller, row.idempotency_key)
        return any((other.caller, other.idempotency_key) == key for other in self._active_of(row.workspace_id))

    def cancel_all(self, workspace_id: str, at: datetime, reason: str) -> None:
        """Cancel what waits for a workspace that is removed."""
        for row in list(self._active_of(workspace_id)):
            self._put(
                replace(
                    row,
                    state=State.CANCELLED,
                    lease=None,
                    completed_at=at,
                    last_error=reason,
                    request=_without_body(row.request),
                    credentials=None,
                )
            )

    def due(self, now: datetime, limit: int) -> list[str]:
        """See `Store.due`."""
        return [workspace_id for workspace_id in self._active if self._claimable(workspace_id, now)][:limit]

    def overdue(self, now: datetime, limit: int) -> list[Deferral]:
        """See `Store.overdue`."""
        found = [row for row in self._rows.values() if row.state is State.QUEUED and row.expires_at <= now]
        found.sort(key=lambda row: (row.expires_at, row.seq))
        return [_brief(row) for row in found[:limit]]

    def stale(self, before: datetime, workspace_id: str | None, limit: int) -> list[Deferral]:
        """See `Store.stale`."""
        found = []
        for each in self._active if workspace_id is None else [workspace_id]:
            aged = [row for row in self._active_of(each) if row.state is State.QUEUED and row.enqueued_at < before]
            found += sorted(aged, key=lambda row: row.seq)
        return [_brief(row) for row in found[:limit]]

    def purge(self, ended_before: datetime, limit: int) -> int:
        """See `Store.purge`."""
        ended = [row for row in self._rows.values() if row.completed_at is not None and row.completed_at < ended_before]
        ended.sort(key=lambda row: (_ended_at(row), row.seq))
        for row in ended[:limit]:
            del self._rows[row.id]
        return len(ended[:limit])


def _without_body(request: StoredRequest) -> StoredRequest:
    return replace(request, body=b"")


def _brief(row: Deferral) -> Deferral:
    return replace(row, request=_without_body(row.request), answer=None, credentials=None)


def _ended_at(row: Deferral) -> datetime:
    if row.completed_at is None:
        raise ValueError(f"deferral {row.id} has not ended")
    return row.completed_at


def _watch(row: Deferral) -> Watch:
    return Watch(
        deferral_id=row.id,
        workspace_id=row.workspace_id,
        caller=row.caller,
        idempotency_key=row.idempotency_key,
        context_id=row.context_id,
        task_id=row.task_id,
        upstream_task_id=row.upstream_task_id,
        active=row.state in ACTIVE,
        adopted=row.adopted,
        completed_at=row.completed_at,
    )
