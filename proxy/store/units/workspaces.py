"""Units of work about workspaces, their signs of life, restarts and tokens.

Owns: what belongs together in one transaction. Knows nothing of: who asks, and why.
"""

from collections.abc import Sequence
from dataclasses import replace as altered
from datetime import datetime
from typing import Final

from proxy.core.decision import Decision
from proxy.core.lifecycle import Desired
from proxy.core.restart import Restart
from proxy.core.times import from_micros, micros
from proxy.core.workspace import Workspace
from proxy.store import WORKSPACE_TOKEN, Signs, Snapshot, TokenRecord, rows
from proxy.store import deferral_rows as deferred
from proxy.store.statements import deferrals as queue
from proxy.store.statements import log, task_lists
from proxy.store.statements import workspaces as sql
from proxy.store.task_lists import ForeignContext
from proxy.store.units import Params, Unit
from proxy.store.units.delivery import cancel_all, queue_sizes

_NEVER: Final = 2**62
"""Later than every sign of life, and higher than every generation."""


def snapshot(restarts_since: datetime, completed_since: datetime) -> Unit[Snapshot]:
    """Read everything that a starting proxy needs."""
    found = yield sql.WORKSPACES, {}
    signs = yield sql.SIGNS, {}
    tokens = yield sql.TOKENS, {}
    opened = yield sql.RESTARTS_OPEN, {}
    since = yield sql.RESTARTS_SINCE, {"since": micros(restarts_since)}
    newest = yield sql.RESTARTS_NEWEST, {}
    sizes = yield from queue_sizes()
    active = yield queue.WATCHES_ACTIVE, {}
    completed = yield queue.WATCHES_COMPLETED, {"since": micros(completed_since)}
    contexts = yield task_lists.CONTEXTS, {}
    known = map(rows.restart, [*opened, *since, *newest])
    restarts = {(cycle.workspace_id, cycle.generation): cycle for cycle in known}
    return Snapshot(
        workspaces=[rows.workspace(row) for row in found],
        signs=dict(rows.signs(row) for row in signs),
        tokens=[rows.token(row) for row in tokens],
        restarts=[restarts[key] for key in sorted(restarts)],
        sizes=sizes,
        watched=[deferred.watch(row) for row in [*active, *completed]],
        contexts=[
            ForeignContext(workspace_id=workspace_id, caller=caller, context_id=ours, upstream_id=theirs)
            for workspace_id, caller, ours, theirs in contexts
        ],
    )


def workspace(workspace_id: str) -> Unit[Workspace | None]:
    """Read one."""
    found = yield sql.WORKSPACE, {"id": workspace_id}
    return rows.workspace(found[0]) if found else None


def create(new: Workspace, token: TokenRecord | None, decision: Decision | None) -> Unit[Workspace | None]:
    """Insert a workspace with its queue and token."""
    added = yield sql.ADD_WORKSPACE, rows.workspace_values(new)
    if not added:
        return None
    yield sql.ADD_QUEUE, {"workspace": added[0][0]}
    if token is not None:
        yield sql.ADD_TOKEN, rows.token_values(token)
    if decision is not None:
        yield log.ADD_DECISION, rows.decision_values(decision)
    return new


def replace(
    updated: Workspace,
    *,
    restart: Restart | None,
    token: TokenRecord | None,
    retire_tokens: bool,
    no_sign_after: datetime | None,
    decision: Decision | None,
) -> Unit[Workspace | None]:
    """Compare-and-set a workspace, with everything that belongs to the change."""
    latest_sign = _NEVER if no_sign_after is None else micros(no_sign_after)
    changed = yield sql.REPLACE_WORKSPACE, {**rows.workspace_values(updated), "no_sign_after": latest_sign}
    if not changed:
        return None
    if restart is not None:
        yield sql.ADD_RESTART, {**rows.restart_values(restart), "workspace": changed[0][0]}
    if retire_tokens:
        earlier: Params = {"kind": WORKSPACE_TOKEN, "name": updated.id, "incarnation": updated.incarnation}
        yield sql.RETIRE_TOKENS, earlier
    if token is not None:
        yield sql.ADD_TOKEN, rows.token_values(token)
    if decision is not None:
        yield log.ADD_DECISION, rows.decision_values(decision)
    return altered(updated, version=updated.version + 1)


def remove(doomed: Workspace, at: datetime, reason: str, decision: Decision) -> Unit[bool]:
    """Mark as removed; nobody may speak for it any more, and nothing waits for it."""
    values = rows.workspace_values(altered(doomed, desired=Desired.REMOVED))
    changed = yield sql.REPLACE_WORKSPACE, {**values, "no_sign_after": _NEVER}
    if not changed:
        return False
    yield sql.DROP_TOKENS, {"kind": WORKSPACE_TOKEN, "name": doomed.id}
    yield from cancel_all(changed[0][0], at, reason)
    yield log.ADD_DECISION, rows.decision_values(decision)
    return True


def all_numbers() -> Unit[dict[str, int]]:
    """Read the numbers of all workspaces at once: one by one, they cost as much as two beats of each."""
    found = yield sql.ALL_NUMBERS, {}
    return {name: number for name, number in found}  # noqa: C416 - a row is no pair that `dict` takes


def numbers(names: Sequence[str]) -> Unit[dict[str, int]]:
    """Find the numbers of workspaces; who is unknown has none."""
    found = yield sql.NUMBERS, [(name,) for name in names]
    return {name: number for name, number in found}  # noqa: C416 - a row is no pair that `dict` takes


def record_signs(signs: Sequence[tuple[int, Signs]], instants: Sequence[tuple[int, Signs]]) -> Unit[None]:
    """Merge signs of life by the numbers of their workspaces; of `instants` nothing else has changed."""
    yield sql.MERGE_SIGNS, [rows.signs_row(number, each) for number, each in signs]
    yield sql.MERGE_INSTANTS, [rows.instants_row(number, each) for number, each in instants]
    yield sql.CONTRADICT_DOWN, {}


def save_restart(restart: Restart, held_by: str | None, now: datetime | None, decision: Decision | None) -> Unit[bool]:
    """Update an open restart by the right of its lease, or take it over; log what was done."""
    values = rows.restart_values(restart)
    if held_by is not None:
        saved = yield sql.KEEP_RESTART, {**values, "held_by": held_by}
    elif now is None:
        raise ValueError("taking a restart over needs now, to know whether its lease ran out")
    else:
        saved = yield sql.TAKE_RESTART, {**values, "now": micros(now)}
    if saved and decision is not None:
        yield log.ADD_DECISION, rows.decision_values(decision)
    return bool(saved)


def restart(workspace_id: str, generation: int) -> Unit[Restart | None]:
    """Read one."""
    found = yield sql.RESTART, {"workspace_id": workspace_id, "generation": generation}
    return rows.restart(found[0]) if found else None


def trim_restarts(after: datetime | None, before: datetime, limit: int) -> Unit[datetime | None]:
    """Look at `limit` restarts that started between the two, and delete what is not to stay; None: that were all."""
    since = 0 if after is None else micros(after)
    ((last, found),) = yield sql.OLD_RESTARTS, {"after": since, "before": micros(before), "limit": limit}
    if found:
        yield sql.TRIM_RESTARTS, {"after": since, "last": last}
    return from_micros(last + 1) if found == limit else None


def restarts(workspace_id: str, limit: int, before: int | None) -> Unit[Sequence[Restart]]:
    """Read the latest, newest first."""
    params: Params = {
        "workspace_id": workspace_id,
        "limit": limit,
        "before": _NEVER if before is None else before,
    }
    found = yield sql.RESTARTS_OF, params
    return [rows.restart(row) for row in found]


def add_token(token: TokenRecord) -> Unit[None]:
    """Insert."""
    yield sql.ADD_TOKEN, rows.token_values(token)


def drop_token(token_id: str) -> Unit[TokenRecord | None]:
    """Delete and return."""
    dropped = yield sql.DROP_TOKEN, {"id": token_id}
    return rows.token(dropped[0]) if dropped else None
