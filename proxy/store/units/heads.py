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
    seq, rank, *_ = heads[0]
    if priority > rank:
        yield sql.PROMOTE, {"seq": seq, "rank": priority}
    return NOT_HEAD


def settle(workspace: int, context_id: str) -> Unit[None]:
    """Find the head of a context anew, after one of its deferrals ended, came back, or came already leased."""
    context: Params = {"workspace": workspace, "context_id": context_id}
    heads = yield sql.HEAD_OF_CONTEXT, context
    behind = yield sql.NEXT_OF_CONTEXT, context
    if not behind:
        if heads and heads[0][1] != heads[0][3]:
            yield sql.PROMOTE, {"seq": heads[0][0], "rank": heads[0][3]}
        return
    seq, state = behind[0]
    rank = (yield sql.TOP_OF_CONTEXT, context)[0][0]
    if heads:
        head, known_rank, head_state, priority = heads[0]
        rank = max(rank, priority)
        if (head_state != State.LEASED, head) < (state != State.LEASED, seq):
            if rank != known_rank:
                yield sql.PROMOTE, {"seq": head, "rank": rank}
            return
        yield sql.DEMOTE, {"seq": head}
    yield sql.PROMOTE, {"seq": seq, "rank": rank}
