"""What the decision log says of a deferral that ended unanswered, or whose lease ended unheard.

Owns: these lines; they are pure, so that a store may make them inside its transaction.
Knows nothing of: tries (`loops.attempts` tells of those), when a line is written.
"""

from datetime import datetime

from proxy.core.decision import Decision, Trigger
from proxy.core.deferral import Deferral, State
from proxy.core.workspace import Workspace
from proxy.store import Watch

ENDS = {
    State.DEAD_LETTERED: "dead letter",
    State.EXPIRED: "expired",
    State.CANCELLED: "cancelled",
    State.DROPPED: "dropped",
}
"""The action of each end that brought no answer."""


def ended_line(deferral: Deferral, workspace: Workspace, state: State, reason: str, at: datetime) -> Decision:
    """A deferral ended without an answer, and nobody in particular wanted it so."""
    evidence = {
        "reason": reason,
        "tries": deferral.tries,
        "attempts": deferral.attempts,
        "waited": round((at - deferral.enqueued_at).total_seconds(), 3),
    }
    return Decision(
        workspace_id=workspace.id,
        at=at,
        trigger=Trigger.QUEUE,
        action=ENDS[state],
        evidence=evidence,
        request_id=deferral.request_id,
        receipt=deferral.id,
        incarnation=workspace.incarnation,
        generation=workspace.generation,
    )


def taken_back_line(watch: Watch, workspace: Workspace, reason: str, at: datetime) -> Decision:
    """A lease ended and its holder had said nothing: the deferral is queued again, marked."""
    return Decision(
        workspace_id=workspace.id,
        at=at,
        trigger=Trigger.QUEUE,
        action="lease ended",
        evidence={"reason": reason},
        receipt=watch.deferral_id,
        incarnation=workspace.incarnation,
        generation=workspace.generation,
    )
