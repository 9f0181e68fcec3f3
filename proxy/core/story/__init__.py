"""Why did my request get a 202? Why was it restarted? The decision log, told as a story.

Owns: which lines belong to the story of a request, a deferral, a restart or a workspace, in which order, and what it
comes to in a sentence or two.
Knows nothing of: where lines are kept, who may read them, how a timeline is drawn.

Values in, values out: whoever shows stories (the HTTP API for the command line and for a dashboard) reads lines and
records, and gets a `Story`. The words lie in the modules beside this one: `spoken` says vocabularies and rules,
`evidence` facts, `about_requests` and `about_workspaces` the lines, `timeline` puts them in order, `summaries` sums up.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from proxy.core.decision import Decision
from proxy.core.deferral import ACTIVE, Deferral, State
from proxy.core.restart import OPEN_PHASES, Restart
from proxy.core.story import summaries
from proxy.core.story.about_requests import ENDS, PUT_AWAY
from proxy.core.story.about_workspaces import ABOUT_RESTARTS, WANTED
from proxy.core.story.timeline import SENTENCES, Event, in_order, say, told_one_by_one, told_together
from proxy.core.workspace import Workspace

__all__ = ["SENTENCES", "Event", "Kind", "Story", "of_request", "of_restart", "of_workspace", "say"]

LATELY = timedelta(minutes=10)
"""What happened so long before a request may still be why it got what it got."""
_TURNS = frozenset(
    {
        *ABOUT_RESTARTS,
        "exit seen",
        "offline",
        "status ready",
        "status degraded",
        "new incarnation",
        "configuration written",
        "removed",
        "parking undone",
        "compute stopped",
        *(f"desired {desired}" for desired in WANTED),
    }
)
"""Actions about a workspace that explain what happens to its requests."""
_SETTLED = frozenset({"status ready", "restart finished"})
"""Actions before which nothing led to a later restart."""
_LEADS = frozenset({*_TURNS, "still offline", "restart debounced", "restart backoff"}) - _SETTLED
"""Actions that may have led to a restart."""


class Kind(StrEnum):
    """What a story is about."""

    WORKSPACE = "workspace"
    REQUEST = "request"
    RECEIPT = "receipt"
    RESTART = "restart"


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """`summary` is the answer in a sentence or two, `timeline` how it came about, the oldest event first.

    `request_id`, `receipt` and `generation` lead to what belongs to it; `is_whole` is False where the log has been
    trimmed since, or where there is more than was read.
    """

    subject: str
    kind: Kind
    workspace_id: str
    summary: str
    timeline: tuple[Event, ...]
    request_id: str | None = None
    receipt: str | None = None
    generation: int | None = None
    is_whole: bool = True


def of_request(
    subject: str,
    *,
    kind: Kind,
    own: Sequence[Decision],
    around: Sequence[Decision],
    deferral: Deferral | None,
    now: datetime,
) -> Story:
    """Tell what became of a request, or of a deferral by its receipt.

    Args:
        subject: the id that was asked about.
        kind: what it is the id of: a request or a receipt.
        own: every line of the request's and its deferral's; not empty unless there is a deferral.
        around: lines of its workspace from then; what explains nothing is left out here.
        deferral: as it stands, where there is one.
        now: the present.
    """
    own = in_order(own)
    began = own[0].at if own else deferral.enqueued_at if deferral is not None else now
    ended = _end_of(own, deferral) or now
    context = [
        line for line in around if line.action in _TURNS and began - LATELY <= line.at <= ended and line not in own
    ]
    events = told_one_by_one(in_order([*context, *own]), own=own)
    if deferral is not None:
        events = _with_missing(events, own, deferral)
    first = next((line for line in own if line.request_id is not None), None)
    return Story(
        subject=subject,
        kind=kind,
        workspace_id=own[0].workspace_id if own else deferral.workspace_id if deferral is not None else "",
        summary=summaries.of_request(subject if kind is Kind.REQUEST else None, own, deferral, now),
        timeline=tuple(events),
        request_id=subject if kind is Kind.REQUEST else first.request_id if first is not None else None,
        receipt=deferral.id if deferral is not None else _receipt(own),
        generation=own[0].generation if own else None,
        is_whole=any(line.action in PUT_AWAY | {"refused", "passed on", "broken off"} for line in own),
    )


def _receipt(own: Sequence[Decision]) -> str | None:
    return next((line.receipt for line in own if line.receipt is not None), None)


def _end_of(own: Sequence[Decision], deferral: Deferral | None) -> datetime | None:
    if deferral is not None:
        return deferral.completed_at
    return own[-1].at if own else None


def _with_missing(events: list[Event], own: Sequence[Decision], deferral: Deferral) -> list[Event]:
    """Tell from the deferral itself what no line says: the log is trimmed, and a removal ends everything at once."""
    told = {line.action for line in own}
    made = list(events)
    if not told & PUT_AWAY:
        put = Event(at=deferral.enqueued_at, what="The request was put away durably", receipt=deferral.id)
        made.insert(0, put)
    last_word = [line.action for line in own if line.action in {*ENDS, "redriven"}]
    has_ended = deferral.state not in ACTIVE and deferral.completed_at is not None
    if has_ended and (not last_word or last_word[-1] not in ENDS):
        what = summaries.ENDED[deferral.state]
        why = "" if deferral.state is State.COMPLETED else deferral.last_error or ""
        made.append(Event(at=deferral.completed_at or deferral.enqueued_at, what=what, why=why, receipt=deferral.id))
    return sorted(made, key=lambda event: event.at)


def of_restart(
    subject: str, cycle: Restart, own: Sequence[Decision], before: Sequence[Decision], now: datetime
) -> Story:
    """Tell why a workspace was restarted, and how that went.

    Args:
        subject: as it was asked for.
        cycle: the restart.
        own: every line under its generation; those after its end are left out here.
        before: the lines under the generation before, of which those that led to it are kept.
        now: the present.
    """
    ended = now if cycle.phase in OPEN_PHASES or cycle.finished_at is None else cycle.finished_at
    lines = [line for line in in_order(own) if line.at <= ended]
    ours = [line for line in lines if line.action in ABOUT_RESTARTS]
    led = _what_led(in_order(before), cycle, {line.request_id for line in ours if line.request_id})
    events = told_together([*led, *lines], own=[*led, *ours])
    if not any(line.action in {"restart scheduled", "settle window opened"} for line in ours):
        events.insert(0, Event(at=cycle.started_at, what=f"Restart {cycle.generation} was scheduled", why=cycle.reason))
    return Story(
        subject=subject,
        kind=Kind.RESTART,
        workspace_id=cycle.workspace_id,
        summary=summaries.of_restart(cycle, led, ours, now),
        timeline=tuple(sorted(events, key=lambda event: event.at)),
        request_id=next((line.request_id for line in ours if line.request_id), None),
        generation=cycle.generation,
        is_whole=bool(ours),
    )


def _what_led(before: list[Decision], cycle: Restart, requests: set[str | None]) -> list[Decision]:
    """The lines of the generation before that led to this restart: since the workspace was last well."""
    led: list[Decision] = []
    for line in reversed(before):
        if line.at > cycle.started_at:
            continue
        if line.action in _SETTLED:
            break
        is_ours = line.request_id is not None and line.request_id in requests
        if line.action in _LEADS or is_ours:
            led.append(line)
    return led[::-1]


def of_workspace(workspace: Workspace, lines: Sequence[Decision], depth: int, now: datetime) -> Story:
    """Tell how a workspace is, and what happened to it of late; `depth` is how many requests wait for it."""
    ordered = in_order(lines)
    return Story(
        subject=workspace.id,
        kind=Kind.WORKSPACE,
        workspace_id=workspace.id,
        summary=summaries.of_workspace(workspace, ordered, depth, now),
        timeline=tuple(told_together(ordered, own=())),
        generation=workspace.generation or None,
    )
