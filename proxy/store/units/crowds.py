"""Many requests put away at once: the same as one after the other, with a handful of statements for all of them.

Owns: which of a crowd are *plain*, and their common way in.
Knows nothing of: what the others need (each goes its own way: `units.deferrals`), who made the crowd.

Theory of operation. A request is plain when it comes queued, its key is new and nobody wants to be notified of it:
nothing that is stored concerns it but the size of its queue and the head of its context. Neighbours that are plain are
looked up together, placed in memory one after the other (each sees the rows, bytes and heads that those before it will
leave), and inserted together. Whatever is not plain (a key that is known, or that comes twice in the crowd; a call
adopted with its lease) goes alone, between its neighbours: so the order in which they came is the order of their
sequences.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from proxy.core.decision import Decision
from proxy.core.deferral import Deferral, State
from proxy.store import Enqueued, LineOf, Placed, QueueLimits, TaskOf, rows
from proxy.store import deferral_rows as deferred
from proxy.store.laws import check_new
from proxy.store.statements import deferrals as sql
from proxy.store.statements import log
from proxy.store.units import Joinable, Params, Unit
from proxy.store.units.deferrals import enqueue
from proxy.store.units.heads import ALONE, NOT_HEAD


@dataclass(frozen=True, slots=True)
class Enqueue(Joinable):
    """Makes the unit that puts one request away; see `Store.enqueue`."""

    deferral: Deferral
    limits: QueueLimits
    decision: Decision | None
    expired_task: TaskOf
    expired_line: LineOf

    def __call__(self) -> Unit[Enqueued]:
        """See `Joinable`."""
        return enqueue(self.deferral, self.limits, self.decision, self.expired_task, self.expired_line)

    @classmethod
    def join(cls, crowd: Sequence[Any]) -> Unit[list[Enqueued]]:
        """See `Joinable`."""
        return _enqueue_all(crowd)


@dataclass(slots=True)
class _Queue:
    """A workspace's queue while a crowd goes in: what it holds by now, and how much of that is new."""

    number: int
    depth: int
    size: int
    rows: int = 0
    bytes: int = 0

    def grow(self, size: int) -> None:
        """Take one of that size in."""
        self.depth, self.rows = self.depth + 1, self.rows + 1
        self.size, self.bytes = self.size + size, self.bytes + size


@dataclass(slots=True)
class _Head:
    """The head of a context: stored under `seq`, or one of this crowd."""

    rank: int
    seq: int | None = None
    raised: bool = False

    def raise_to(self, priority: int) -> None:
        """Let one of that priority pull the head along."""
        if priority > self.rank:
            self.rank = priority
            self.raised = True


@dataclass(slots=True)
class _New:
    """One that goes in. `place`: whose it is; `depth`: the rows with it; `head`: the head that it is itself."""

    place: int
    deferral: Deferral
    workspace: int
    size: int
    depth: int
    head: _Head | None


def _enqueue_all(crowd: Sequence[Enqueue]) -> Unit[list[Enqueued]]:
    for each in crowd:
        check_new(each.deferral)
    alone = yield from _not_plain(crowd)
    outcomes: list[Enqueued] = []
    for goes_alone, places in groupby(range(len(crowd)), key=alone.__contains__):
        neighbours = [crowd[place] for place in places]
        if goes_alone:
            for each in neighbours:
                outcomes.append((yield from each()))  # noqa: PERF401 - a comprehension cannot yield
        else:
            outcomes += yield from _put_plain(neighbours)
    return outcomes


def _not_plain(crowd: Sequence[Enqueue]) -> Unit[set[int]]:
    """Find the places of those that must go alone."""
    alone: set[int] = set()
    keys: set[tuple[str, str, str]] = set()
    asked: list[Params] = []
    for place, each in enumerate(crowd):
        deferral, since = each.deferral, each.limits.idempotency_since
        plain = deferral.state is State.QUEUED
        plain = plain and deferral.upstream_task_id is None and deferral.upstream_context_id is None
        plain = plain and deferral.push is None
        if deferral.caller is not None and deferral.idempotency_key is not None:
            key = (deferral.workspace_id, deferral.caller, deferral.idempotency_key)
            plain = plain and key not in keys
            keys.add(key)
            if plain:
                asked.append((place, *key, rows.instant(since)))
        if not plain:
            alone.add(place)
    if asked:
        known = yield sql.KNOWN_KEYS, asked
        alone.update(row[0] for row in known)
    return alone


def _put_plain(crowd: Sequence[Enqueue]) -> Unit[list[Enqueued]]:
    """Place each behind those before it, then insert all that have room."""
    names = dict.fromkeys(each.deferral.workspace_id for each in crowd)
    taken = yield sql.TAKE_QUEUES, [(name,) for name in names]
    queues = {name: _Queue(number, depth, size) for name, number, depth, size in taken}
    heads = yield from _heads(crowd, queues)
    of_callers = yield from _rows_of_callers(crowd, queues)
    outcomes: dict[int, Enqueued] = {}
    going: list[_New] = []
    lines: list[Params] = []
    for place, each in enumerate(crowd):
        deferral, size = each.deferral, each.deferral.size
        queue = queues.get(deferral.workspace_id)
        placed = Placed.GONE if queue is None else _room(each, size, queue, of_callers)
        if queue is None or placed is not Placed.INSERTED:
            outcomes[place] = Enqueued(placed=placed, deferral=None, depth=0 if queue is None else queue.depth)
            continue
        queue.grow(size)
        going.append(_New(place, deferral, queue.number, size, queue.depth, _head(deferral, queue, heads)))
        if each.decision is not None:
            lines.append(rows.decision_values(each.decision))
    if going:
        for seq, new in enumerate(going, (yield from _insert(going))):
            outcomes[new.place] = Enqueued(placed=Placed.INSERTED, deferral=new.deferral, depth=new.depth, seq=seq)
        yield sql.GROW_QUEUES, [(queue.number, queue.rows, queue.bytes) for queue in queues.values() if queue.rows]
    raised: list[Params] = [(head.rank, head.seq) for head in heads.values() if head.seq is not None and head.raised]
    if raised:
        yield sql.PROMOTE, raised
    if lines:
        yield log.ADD_DECISION, lines
    return [outcomes[place] for place in range(len(crowd))]


def _heads(crowd: Sequence[Enqueue], queues: dict[str, _Queue]) -> Unit[dict[tuple[int, str], _Head]]:
    """Find the heads of the contexts that the crowd belongs to."""
    asked: dict[Params, None] = {}
    for each in crowd:
        queue, context = queues.get(each.deferral.workspace_id), each.deferral.context_id
        if queue is not None and context is not None:
            asked[queue.number, context] = None
    if not asked:
        return {}
    found = yield sql.HEADS_OF_CONTEXTS, list(asked)
    return {(workspace, context): _Head(rank, seq) for workspace, context, seq, rank in found}


def _head(deferral: Deferral, queue: _Queue, heads: dict[tuple[int, str], _Head]) -> _Head | None:
    """The head that a new one is itself; None, when it comes behind another, whose rank it may raise."""
    if deferral.context_id is None:
        return _Head(deferral.priority)
    key = (queue.number, deferral.context_id)
    if key not in heads:
        heads[key] = _Head(deferral.priority)
        return heads[key]
    heads[key].raise_to(deferral.priority)
    return None


def _rows_of_callers(crowd: Sequence[Enqueue], queues: dict[str, _Queue]) -> Unit[dict[tuple[int, str], int]]:
    """Count what callers whose rows are limited have in the queues."""
    asked: dict[Params, None] = {}
    for each in crowd:
        queue, caller = queues.get(each.deferral.workspace_id), each.deferral.caller
        if queue is not None and caller is not None and each.limits.caller_rows > 0:
            asked[queue.number, caller] = None
    if not asked:
        return {}
    counted = yield sql.ROWS_OF_CALLERS, list(asked)
    return {(workspace, caller): count for workspace, caller, count in counted}


def _room(each: Enqueue, size: int, queue: _Queue, of_callers: dict[tuple[int, str], int]) -> Placed:
    """Say whether a queue takes one more; if it does, that counts for its caller."""
    limits, caller = each.limits, each.deferral.caller
    if 0 < limits.rows <= queue.depth:
        return Placed.FULL_ROWS
    if 0 < limits.bytes < queue.size + size:
        return Placed.FULL_BYTES
    if caller is not None and (queue.number, caller) in of_callers:
        if 0 < limits.caller_rows <= of_callers[queue.number, caller]:
            return Placed.FULL_CALLER
        of_callers[queue.number, caller] += 1
    return Placed.INSERTED


def _insert(going: Sequence[_New]) -> Unit[int]:
    """Insert them under sequences in a row; return the first."""
    reserved = yield sql.RESERVE, {"count": len(going)}
    first: int = reserved[0][0] - len(going) + 1
    new_rows: list[Params] = []
    requests: list[Params] = []
    for seq, new in enumerate(going, first):
        deferral, head = new.deferral, new.head
        new_rows.append(
            deferred.new_row(
                deferral,
                seq=seq,
                workspace=new.workspace,
                size=new.size,
                head=NOT_HEAD if head is None else ALONE,
                rank=None if head is None else head.rank,
            )
        )
        if deferral.request.body or deferral.credentials is not None:
            requests.append((seq, deferral.request.body, deferral.credentials))
    yield sql.ADD_DEFERRAL, new_rows
    if requests:
        yield sql.ADD_REQUEST, requests
    return first
