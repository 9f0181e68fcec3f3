"""The order of a context, kept in two columns.

Owns: which deferral of a context is its head, and the head's rank.
Knows nothing of: why a deferral came, went or was leased.

Theory of operation. Deferrals of one context that are active and not adopted *block* it. The head is the leased one, if
any is leased, else the earliest; nobody else has the flag (a unique index holds that), and only a queued head is
claimable: so at most one is leased at a time, in acceptance order. The head's rank is the highest priority that blocks,
so that a critical message pulls those before it along. A deferral without a context is always its own head.
"""

from typing import Final

from proxy.core.deferral import State
from proxy.store.statements import deferrals as sql
from proxy.store.units import Params, Unit

ALONE: Final = 1
NOT_HEAD: Final = 0


def place(workspace: int, context_id: str, priority: int) -> Unit[int]:
    """Return the head flag of a deferral that joins the end of a context, and raise the head's rank where needed."""
    heads = yield sql.HEAD_OF_CONTEXT, {"workspace": workspace, "context_id": context_id}
    if not heads:
        return ALONE
    seq, rank = heads[0]
    if priority > rank:
        yield sql.PROMOTE, {"seq": seq, "rank": priority}
    return NOT_HEAD


def settle(workspace: int, context_id: str) -> Unit[None]:
    """Find the head of a context anew, after one of its deferrals ended, came back, or came already leased."""
    context: Params = {"workspace": workspace, "context_id": context_id}
    first = yield sql.FIRST_OF_CONTEXT, {**context, "state": State.LEASED.value}
    if not first:
        first = yield sql.FIRST_OF_CONTEXT, {**context, "state": State.QUEUED.value}
    if not first:
        return
    seq = first[0][0]
    top = yield sql.TOP_OF_CONTEXT, context
    yield sql.DEMOTE, {**context, "seq": seq}
    yield sql.PROMOTE, {"seq": seq, "rank": top[0][0]}
