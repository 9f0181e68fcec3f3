"""Units of work that put requests away and read them.

Owns: joining and limits of a queue. Knows nothing of: leases and ends (`units.delivery`), order (`units.heads`), how
many are put away at once (`units.crowds`).
"""

from collections.abc import Sequence
from dataclasses import replace

from proxy.core.decision import Decision
from proxy.core.deferral import ACTIVE, Deferral, State
from proxy.core.times import micros
from proxy.store import Ending, Enqueued, LineOf, Placed, QueueLimits, TaskOf, rows
from proxy.store import deferral_rows as deferred
from proxy.store.laws import SUPERSEDED, check_listing, check_new
from proxy.store.pushes import Progress
from proxy.store.statements import deferrals as sql
from proxy.store.statements import log
from proxy.store.units import Unit, pushes
from proxy.store.units.delivery import end
from proxy.store.units.heads import ALONE, NOT_HEAD, place, settle


def enqueue(
    deferral: Deferral,
    limits: QueueLimits,
    decision: Decision | None,
    expired_task: TaskOf,
    expired_line: LineOf,
) -> Unit[Enqueued]:
    """Put a request away, join it to what is known of its key, or say why not."""
    check_new(deferral)
    queue = yield sql.TAKE_QUEUE, {"workspace_id": deferral.workspace_id}
    if not queue:
        return Enqueued(placed=Placed.GONE, deferral=None, depth=0)
    workspace, depth, size = queue[0]
    expired = None
    if deferral.caller is not None and deferral.idempotency_key is not None:
        known, expired = yield from _known(workspace, deferral, limits, expired_task, expired_line)
        if known is not None:
            placed = Placed.JOINED if known.digest == deferral.digest else Placed.CONFLICT
            return Enqueued(placed=placed, deferral=known, depth=depth, expired=expired, seq=known.seq)
        if expired is not None:
            depth, size = depth - 1, size - expired.size
    own = deferral.size
    if 0 < limits.rows <= depth:
        return Enqueued(placed=Placed.FULL_ROWS, deferral=None, depth=depth, expired=expired)
    if 0 < limits.bytes < size + own:
        return Enqueued(placed=Placed.FULL_BYTES, deferral=None, depth=depth, expired=expired)
    if deferral.caller is not None and limits.caller_rows > 0:
        of_caller = {"workspace": workspace, "caller": deferral.caller, "skipped": limits.caller_rows - 1}
        if (yield sql.NTH_OF_CALLER, of_caller):
            return Enqueued(placed=Placed.FULL_CALLER, deferral=None, depth=depth, expired=expired)
    seq = yield from _insert(workspace, deferral, own)
    yield sql.GROW_QUEUE, {"workspace": workspace, "rows": 1, "bytes": own}
    if decision is not None:
        yield log.ADD_DECISION, rows.decision_values(decision)
    return Enqueued(placed=Placed.INSERTED, deferral=deferral, depth=depth + 1, expired=expired, seq=seq)


def _known(
    workspace: int, deferral: Deferral, limits: QueueLimits, expired_task: TaskOf, expired_line: LineOf
) -> Unit[tuple[Deferral | None, Deferral | None]]:
    """Find what a key stands for: the deferral to join, if any, and one that had to be ended as expired, if any."""
    key = {"workspace": workspace, "caller": deferral.caller, "idempotency_key": deferral.idempotency_key}
    expired = None
    active = yield sql.ACTIVE_OF_KEY, key
    if active:
        seq, _, state, expires_at = active[0]
        found = yield sql.DEFERRAL_AT, {"seq": seq}
        known = deferred.whole(found[0])
        if state != State.QUEUED or expires_at > micros(deferral.enqueued_at):
            return known, None
        # Its time has passed and no sweep has met it yet: it must not swallow the new request (scenario 47).
        ending = Ending(state=State.EXPIRED, at=deferral.enqueued_at, error=SUPERSEDED, task=expired_task(known))
        ended = yield from end(known.id, None, ending)
        # As it was, so that its size can be told; as it is, in everything else.
        expired = None if ended is None else replace(ended, request=known.request)
        if expired is not None and (line := expired_line(expired)) is not None:
            yield log.ADD_DECISION, rows.decision_values(line)
    if limits.idempotency_since is not None:
        completed = yield sql.COMPLETED_OF_KEY, {**key, "since": micros(limits.idempotency_since)}
        if completed:
            found = yield sql.DEFERRAL_AT, {"seq": completed[0][0]}
            return deferred.whole(found[0]), expired
    return None, expired


def _insert(workspace: int, deferral: Deferral, size: int) -> Unit[int]:
    context = deferral.context_id
    is_leased = deferral.state is State.LEASED
    if deferral.adopted:
        head = NOT_HEAD
    elif context is None:
        head = ALONE
    elif is_leased:
        head = NOT_HEAD  # until `settle` sees it: two heads at once are no state to pass through
    else:
        head = yield from place(workspace, context, deferral.priority)
    reserved = yield sql.RESERVE, {"count": 1}
    seq: int = reserved[0][0]
    yield sql.ADD_DEFERRAL, deferred.new_row(deferral, seq=seq, workspace=workspace, size=size, head=head)
    body = deferral.request.body
    if body or deferral.credentials is not None:
        yield sql.ADD_REQUEST, {"seq": seq, "body": body, "credentials": deferral.credentials}
    if deferral.upstream_task_id is not None or deferral.upstream_context_id is not None:
        yield (
            sql.SET_ALIAS,
            {
                "seq": seq,
                "upstream_task_id": deferral.upstream_task_id,
                "upstream_context_id": deferral.upstream_context_id,
            },
        )
    if deferral.push is not None:
        yield from pushes.add(seq, deferral.push, Progress())
    if is_leased and context is not None and not deferral.adopted:
        yield from settle(workspace, context)
    return seq


def deferral(deferral_id: str) -> Unit[Deferral | None]:
    """Read one with everything."""
    found = yield sql.DEFERRAL, {"id": deferral_id}
    return deferred.whole(found[0]) if found else None


def brief(deferral_id: str) -> Unit[Deferral | None]:
    """Read one without its body."""
    found = yield sql.BRIEF, {"id": deferral_id}
    return deferred.brief(found[0]) if found else None


def deferral_of_task(workspace_id: str, task_id: str) -> Unit[Deferral | None]:
    """Read the latest deferral of a provisional task id with everything."""
    found = yield sql.DEFERRAL_OF_TASK, {"workspace_id": workspace_id, "task_id": task_id}
    return deferred.whole(found[0]) if found else None


def deferrals(
    workspace_id: str | None, states: Sequence[State], caller: str | None, limit: int
) -> Unit[Sequence[Deferral]]:
    """List the newest first: the newest of each state by an index that has them in order, then the newest of those."""
    check_listing(workspace_id, caller)
    seqs: list[int] = []
    for state in set(states) or set(State):
        if workspace_id is None:
            found = yield sql.LIST, {"state": state.value, "limit": limit}
        elif caller is not None:
            named = {"workspace_id": workspace_id, "caller": caller, "state": state.value, "limit": limit}
            found = yield sql.ACTIVE_OF_CALLER if state in ACTIVE else sql.ENDED_OF_CALLER, named
        else:
            found = yield sql.LIST_OF, {"workspace_id": workspace_id, "state": state.value, "limit": limit}
        seqs += [row[0] for row in found]
    listed = []
    for seq in sorted(seqs, reverse=True)[:limit]:
        found = yield sql.BRIEF_AT, {"seq": seq}
        listed.append(deferred.brief(found[0]))
    return listed
