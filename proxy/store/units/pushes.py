"""Units of work about push notifications.

Owns: fencing by the lease, how many receivers a deferral has. Knows nothing of: what the sealed bytes hold.
"""

from collections.abc import Sequence
from datetime import datetime

from proxy.core.deferral import Lease, StoredPush
from proxy.core.times import micros
from proxy.store import deferral_rows as deferred
from proxy.store.pushes import Progress, Push, Receiver
from proxy.store.rows import Row, Value, from_instant, instant
from proxy.store.statements import pushes as sql
from proxy.store.units import Unit


def put(deferral_id: str, stored: StoredPush, progress: Progress, most: int) -> Unit[bool | None]:
    """Add a receiver, or put another in its place."""
    found = yield sql.FIND_DEFERRAL, {"deferral": deferral_id}
    if not found:
        return None
    seq = found[0][0]
    others = yield sql.OTHER_PUSHES, {"seq": seq, "id": stored.id}
    if others[0][0] >= most:
        return False
    yield from add(seq, stored, progress)
    return True


def add(seq: int, stored: StoredPush, progress: Progress) -> Unit[None]:
    """Insert a receiver of a deferral that is known to be there."""
    row: dict[str, Value] = {"seq": seq, "id": stored.id, "protocol": stored.protocol, "sealed": stored.sealed}
    yield sql.PUT_PUSH, {**row, **_values(progress)}


def pushes(deferral_id: str) -> Unit[Sequence[Push]]:
    """Read a deferral's receivers."""
    found = yield sql.PUSHES, {"deferral": deferral_id}
    return [_push(row) for row in found]


def of_task(workspace_id: str, task_id: str) -> Unit[Sequence[Push]]:
    """Read a task's receivers."""
    found = yield sql.PUSHES_OF_TASK, {"workspace_id": workspace_id, "task_id": task_id}
    return sorted((_push(row) for row in found), key=lambda push: push.stored.id)


def move(deferral_id: str, push_id: str, to: str, progress: Progress) -> Unit[bool]:
    """Let one follow another deferral."""
    target = yield sql.FIND_DEFERRAL, {"deferral": to}
    taken = (yield sql.TAKE_PUSH, {"deferral": deferral_id, "id": push_id}) if target else []
    if not taken:
        return False
    protocol, sealed = taken[0]
    if not (yield sql.PUSH, {"deferral": to, "id": push_id}):
        yield from add(target[0][0], StoredPush(id=push_id, protocol=protocol, sealed=bytes(sealed)), progress)
    return True


def drop(deferral_id: str, push_id: str) -> Unit[bool]:
    """Forget one."""
    return bool((yield sql.DROP_PUSH, {"deferral": deferral_id, "id": push_id}))


def receivers() -> Unit[Sequence[Receiver]]:
    """List every receiver."""
    found = yield sql.RECEIVERS, {}
    return [Receiver(*row) for row in found]


def lease(deferral_id: str, push_id: str, taken: Lease, now: datetime) -> Unit[Push | None]:
    """Take the right to notify one."""
    named: dict[str, Value] = {"deferral": deferral_id, "id": push_id}
    leased = yield sql.LEASE_PUSH, {**named, **deferred.lease_values(taken), "now": micros(now)}
    if not leased:
        return None
    found = yield sql.PUSH, named
    return _push(found[0])


def told(deferral_id: str, push_id: str, lease_token: str, progress: Progress) -> Unit[bool]:
    """Write how far one was told."""
    row: dict[str, Value] = {"deferral": deferral_id, "id": push_id, "lease_token": lease_token, **_values(progress)}
    return bool((yield sql.TOLD_PUSH, row))


def release(owner: str) -> Unit[int]:
    """End the leases of a proxy that is gone."""
    return len((yield sql.RELEASE_PUSHES, {"owner": owner}))


def _values(progress: Progress) -> dict[str, Value]:
    return {
        "through": progress.through,
        "told": progress.told,
        "tries": progress.tries,
        "failing_since": instant(progress.failing_since),
        "next_at": instant(progress.next_at),
    }


def _push(row: Row) -> Push:
    deferral_id, push_id, protocol, sealed, through, told_of, tries, failing_since, next_at, owner, until = row
    return Push(
        deferral_id=deferral_id,
        stored=StoredPush(id=push_id, protocol=protocol, sealed=bytes(sealed)),
        progress=Progress(
            through=through,
            told=told_of,
            tries=tries,
            failing_since=from_instant(failing_since),
            next_at=from_instant(next_at),
        ),
        owner=owner,
        leased_until=from_instant(until),
    )
