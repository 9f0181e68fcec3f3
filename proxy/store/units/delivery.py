"""Units of work about leases and the ends of deferrals.

Owns: fencing by lease token, the edges of a deferral's state, what an end leaves behind.
Knows nothing of: how a deferral came into its queue (`units.deferrals`), order (`units.heads`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from proxy.core.decision import Decision
from proxy.core.deferral import Deferral, Lease, State, StoredTask
from proxy.core.times import micros
from proxy.store import Ending, LineOf, QueueSize, Requeue, Watch, rows
from proxy.store import deferral_rows as deferred
from proxy.store.laws import HOLDER_GONE, LEASE_RAN_OUT, check_end
from proxy.store.outlook import Outlook
from proxy.store.statements import deferrals as queue
from proxy.store.statements import delivery as sql
from proxy.store.statements import log
from proxy.store.units import Params, Rows, Unit
from proxy.store.units.heads import settle


def claim(
    workspace_id: str, leases: Sequence[Lease], now: datetime, line: LineOf, most_bytes: int
) -> Unit[Sequence[Deferral]]:
    """Lease as many claimable heads as there are leases, or as reach a size, and log it."""
    at = micros(now)
    found = yield sql.CLAIMABLE, {"workspace_id": workspace_id, "now": at, "limit": len(leases)}
    claimed: list[Deferral] = []
    size = 0
    for (seq,), lease in zip(found, leases, strict=False):
        if 0 < most_bytes <= size:
            break
        leased = yield sql.LEASE, {"seq": seq, "now": at, **deferred.lease_values(lease)}
        if leased:
            loaded = yield queue.DEFERRAL_AT, {"seq": seq}
            claimed.append(deferred.whole(loaded[0]))
            size += claimed[-1].size
    lines: list[Params] = [rows.decision_values(said) for each in claimed if (said := line(each)) is not None]
    if lines:
        yield log.ADD_DECISION, lines
    return claimed


def extend(deferral_id: str, lease_token: str, until: datetime) -> Unit[bool]:
    """Renew a lease."""
    extended = yield sql.EXTEND, {"id": deferral_id, "lease_token": lease_token, "until": micros(until)}
    return bool(extended)


def learn_task(deferral_id: str, lease_token: str, upstream_task_id: str, task: StoredTask) -> Unit[bool]:
    """Note the agent's own task id while the lease lasts."""
    learnt = yield (
        sql.LEARN_TASK,
        {"id": deferral_id, "lease_token": lease_token, **deferred.task_values(task)},
    )
    if not learnt:
        return False
    alias = {"seq": learnt[0][0], "upstream_task_id": upstream_task_id, "upstream_context_id": None}
    yield queue.SET_ALIAS, alias
    return True


def update_task(deferral_id: str, task: StoredTask) -> Unit[bool]:
    """Keep a later state of a completed deferral's task."""
    updated = yield sql.UPDATE_TASK, {"id": deferral_id, **deferred.task_values(task)}
    return bool(updated)


def release(deferral_id: str, lease_token: str, requeue: Requeue, decision: Decision | None) -> Unit[bool]:
    """Put a leased deferral back, and log why."""
    released = yield (
        sql.RELEASE,
        {
            "id": deferral_id,
            "lease_token": lease_token,
            "next_attempt_at": micros(requeue.next_attempt_at),
            "attempts": requeue.attempts,
            "maybe": int(requeue.maybe),
            "gateway_since": rows.instant(requeue.gateway_since),
            "error": requeue.error,
        },
    )
    if not released:
        return False
    workspace, context_id = released[0]
    if context_id is not None:
        yield from settle(workspace, context_id)
    if decision is not None:
        yield log.ADD_DECISION, rows.decision_values(decision)
    return True


def hasten(workspace_id: str, now: datetime, *, turned_away: bool) -> Unit[None]:
    """Make the queued heads of a workspace due now."""
    yield sql.HASTEN, {"workspace_id": workspace_id, "now": micros(now), "turned_away": int(turned_away)}


def release_expired(now: datetime) -> Unit[Sequence[Watch]]:
    """Take back every deferral whose lease ran out."""
    over = yield sql.LEASES_OVER, {"now": micros(now)}
    return (yield from _take_back(over, LEASE_RAN_OUT, now))


def release_polled(workspace_id: str, but: str | None, error: str, now: datetime) -> Unit[Sequence[Watch]]:
    """Take back what other lives of a polling workspace hold."""
    held = yield sql.LEASES_POLLED, {"workspace_id": workspace_id, "but": but or ""}
    return (yield from _take_back(held, error, now))


def outlook(workspace_id: str, now: datetime) -> Unit[Outlook]:
    """Find when a queue will have something to do by itself."""
    due = yield sql.DUE_AT, {"workspace_id": workspace_id, "now": micros(now)}
    leases = yield sql.LEASES_OF, {"workspace_id": workspace_id}
    leased, ends_at = leases[0]
    return Outlook(
        leased=leased,
        due_at=rows.from_instant(due[0][0]) if due else None,
        lease_ends_at=rows.from_instant(ends_at),
    )


def release_owned(owner: str, now: datetime) -> Unit[Sequence[Watch]]:
    """Take back everything that a dead proxy had leased."""
    owned = yield sql.LEASES_OWNED, {"owner": owner}
    return (yield from _take_back(owned, HOLDER_GONE, now, counted=False))


def _take_back(found: Rows, error: str, now: datetime, *, counted: bool = True) -> Unit[Sequence[Watch]]:
    watches = []
    for seq, adopted in found:
        taken = yield sql.TAKE_BACK, {"seq": seq, "error": error, "now": micros(now), "counted": int(counted)}
        workspace, context_id = taken[0]
        if context_id is not None:
            yield from settle(workspace, context_id)
        watched = yield queue.WATCH_AT, {"seq": seq}
        watches.append(replace(deferred.watch(watched[0]), adopted=bool(adopted)))
    return watches


def finish(
    deferral_id: str, lease_token: str | None, ending: Ending, decision: Decision | None
) -> Unit[Deferral | None]:
    """End a deferral, and log why."""
    ended = yield from end(deferral_id, lease_token, ending)
    if ended is not None and decision is not None:
        yield log.ADD_DECISION, rows.decision_values(decision)
    return ended


def end(deferral_id: str, lease_token: str | None, ending: Ending) -> Unit[Deferral | None]:
    """End a deferral, drop what nobody may need again, let the next of its context come."""
    source = check_end(lease_token, ending)
    ended = yield (
        sql.END,
        {
            "id": deferral_id,
            "source": source.value,
            "lease_token": lease_token or "",
            "state": ending.state.value,
            "at": micros(ending.at),
            "error": ending.error,
            "maybe": int(ending.maybe),
            **deferred.task_values(ending.task),
        },
    )
    if not ended:
        return None
    seq, workspace, context_id, adopted, size = ended[0]
    yield queue.GROW_QUEUE, {"workspace": workspace, "rows": -1, "bytes": -size}
    yield (sql.DROP_CREDENTIALS if ending.state is State.DEAD_LETTERED else sql.DROP_REQUEST), {"seq": seq}
    yield from _keep_result(seq, ending)
    if context_id is not None and not adopted:
        yield from settle(workspace, context_id)
    loaded = yield queue.DEFERRAL_AT, {"seq": seq}
    return deferred.whole(loaded[0])


def _keep_result(seq: int, ending: Ending) -> Unit[None]:
    if ending.answer is not None:
        yield (
            sql.ADD_ANSWER,
            {
                "seq": seq,
                "status": ending.answer.status,
                "headers": deferred.headers_text(ending.answer.headers),
                "body": ending.answer.body,
            },
        )
    if ending.upstream_task_id is not None or ending.upstream_context_id is not None:
        yield (
            queue.SET_ALIAS,
            {
                "seq": seq,
                "upstream_task_id": ending.upstream_task_id,
                "upstream_context_id": ending.upstream_context_id,
            },
        )


def cancel_all(workspace: int, at: datetime, reason: str) -> Unit[None]:
    """Cancel everything that waits for a workspace, leased or not. No head is left, so none has to be found."""
    active = yield sql.ACTIVE_IDS, {"workspace": workspace}
    seqs = [row[0] for row in active]
    yield sql.CANCEL, [{"seq": seq, "at": micros(at), "reason": reason} for seq in seqs]
    yield sql.DROP_REQUEST, [{"seq": seq} for seq in seqs]
    yield sql.EMPTY_QUEUE, {"workspace": workspace}


def redrive(
    deferral_id: str, now: datetime, expires_at: datetime, task: StoredTask | None, decision: Decision | None
) -> Unit[Deferral | None]:
    """Queue a dead letter again, unless its key is in use by another or its workspace is gone."""
    found = yield sql.DEAD_LETTER, {"id": deferral_id}
    if not found:
        return None
    seq, workspace, caller, key, context_id, size = found[0]
    if caller is not None and key is not None:
        active = yield queue.ACTIVE_OF_KEY, {"workspace": workspace, "caller": caller, "idempotency_key": key}
        if active:
            return None
    moments = {"now": micros(now), "expires_at": micros(expires_at)}
    yield sql.REDRIVE, {"seq": seq, **moments, **deferred.task_values(task)}
    yield sql.DROP_ANSWER, {"seq": seq}
    yield queue.GROW_QUEUE, {"workspace": workspace, "rows": 1, "bytes": size}
    if context_id is not None:
        yield from settle(workspace, context_id)
    if decision is not None:
        yield log.ADD_DECISION, rows.decision_values(decision)
    loaded = yield queue.DEFERRAL_AT, {"seq": seq}
    return deferred.whole(loaded[0])


def queue_sizes() -> Unit[Mapping[str, QueueSize]]:
    """Count every queue that is not empty."""
    sizes = yield queue.SIZES, {}
    return {workspace_id: deferred.size(depth, size) for workspace_id, depth, size in sizes}


def due(now: datetime, limit: int) -> Unit[Sequence[str]]:
    """Find workspaces that have a claimable head."""
    found = yield sql.DUE, {"now": micros(now), "limit": limit}
    return [row[0] for row in found]


def overdue(now: datetime, limit: int) -> Unit[Sequence[Deferral]]:
    """Find queued deferrals whose time has passed."""
    found = yield sql.OVERDUE, {"now": micros(now), "limit": limit}
    return (yield from _brief(found))


def stale(before: datetime, workspace_id: str | None, limit: int) -> Unit[Sequence[Deferral]]:
    """Find queued deferrals that have waited since before an instant."""
    asked = {"before": micros(before), "limit": limit}
    if workspace_id is None:
        found = yield sql.STALE, asked
    else:
        found = yield sql.STALE_OF, {**asked, "workspace_id": workspace_id}
    return (yield from _brief(found))


def _brief(found: Rows) -> Unit[Sequence[Deferral]]:
    loaded = []
    for (seq,) in found:
        row = yield queue.BRIEF_AT, {"seq": seq}
        loaded.append(deferred.brief(row[0]))
    return loaded


def purge(ended_before: datetime, limit: int) -> Unit[int]:
    """Delete ended deferrals, at most `limit`."""
    purged = yield sql.PURGE, {"before": micros(ended_before), "limit": limit}
    return len(purged)
