"""Units of work about the stream journal.

Owns: fencing an append by the lease, the journal's bounds, which try an event belongs to.
Knows nothing of: what an event says.
"""

from collections.abc import Sequence
from datetime import datetime

from proxy.core.times import from_micros, micros
from proxy.store import deferral_rows as deferred
from proxy.store.journal import Appended, Events, JournalEvent, JournalLimits
from proxy.store.statements import deferrals as queue
from proxy.store.statements import delivery as sql
from proxy.store.statements import journal as journal_sql
from proxy.store.units import Params, Unit


def append(
    deferral_id: str, lease_token: str, events: Events, until: datetime, limits: JournalLimits
) -> Unit[Appended | None]:
    """Append events, renew the lease, keep what they say of the task: all of it or nothing."""
    found = yield journal_sql.JOURNAL_END, {"id": deferral_id}
    if not found:
        return None
    seq, tries, told_in, last, through, first = found[0]
    is_new_story = told_in != tries and not events.continues
    told = 0 if is_new_story or last is None else last - first + 1
    through = 0 if is_new_story or last is None else through
    size = sum(len(event) for event in events.data)
    if not limits.hold(rows=told + len(events.data), size=through + size):
        held = yield sql.HELD, {"id": deferral_id, "lease_token": lease_token}
        return Appended(total=told, full=True) if held else None
    renewed = yield sql.EXTEND, {"id": deferral_id, "lease_token": lease_token, "until": micros(until)}
    if not renewed:
        return None
    if events.data and told_in is not None and told_in != tries:
        earlier = journal_sql.ADOPT_EVENTS if events.continues else journal_sql.FORGET_TRIES
        yield earlier, {"seq": seq, "tries": tries}
    last = last or 0
    added: list[Params] = []
    for event in events.data:
        last, through = last + 1, through + len(event)
        place = {"seq": seq, "sequence": last, "tries": tries, "through": through}
        added.append({**place, "event": event, "at": micros(events.at)})
    if added:
        yield journal_sql.ADD_EVENT, added
    if events.task is not None:
        task = deferred.task_values(events.task)
        yield sql.LEARN_TASK, {"id": deferral_id, "lease_token": lease_token, **task}
    if events.upstream_task_id is not None or events.upstream_context_id is not None:
        yield (
            queue.SET_ALIAS,
            {
                "seq": seq,
                "upstream_task_id": events.upstream_task_id,
                "upstream_context_id": events.upstream_context_id,
            },
        )
    return Appended(total=told + len(events.data), full=False)


def size(deferral_id: str) -> Unit[int]:
    """Count the events of the latest try."""
    found = yield journal_sql.JOURNAL_END, {"id": deferral_id}
    return int(found[0][3] - found[0][5] + 1) if found and found[0][1] == found[0][2] else 0


def read(deferral_id: str, after: int, limit: int) -> Unit[Sequence[JournalEvent]]:
    """Read events of the try that told last."""
    found = yield journal_sql.JOURNAL, {"id": deferral_id, "after": after, "limit": limit}
    return [JournalEvent(sequence=number, data=bytes(data), at=from_micros(at)) for number, data, at in found]
