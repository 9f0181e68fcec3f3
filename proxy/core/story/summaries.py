"""What a story comes to, in a sentence or two.

Owns: the answer itself. Knows nothing of: timelines.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from proxy.core.decision import Decision
from proxy.core.deferral import Deferral, State
from proxy.core.lifecycle import Status
from proxy.core.restart import OPEN_PHASES, Phase, Restart, Trigger
from proxy.core.story.about_requests import ABOUT_REQUESTS, FIRST, PUT_AWAY
from proxy.core.story.about_workspaces import ABOUT_RESTARTS, ABOUT_WORKSPACES
from proxy.core.story.saying import with_grounds
from proxy.core.story.spoken import duration, meaning, text
from proxy.core.workspace import Workspace

ENDED: Final = {
    State.COMPLETED: "The agent answered; the answer is stored for the caller",
    State.DEAD_LETTERED: "It was given up and is a dead letter",
    State.EXPIRED: "It expired undelivered",
    State.CANCELLED: "It was cancelled",
    State.DROPPED: "It was dropped",
}
"""How a deferral ended."""
_GOT: Final = {
    "deferred": "It got a receipt (202)",
    "adopted": "It got a receipt (202) while its call went on",
    "journalled": "It was put away and sent at once, and its caller was told from the journal",
    "broken off": "Its answer broke off half-way",
}


def of_request(request_id: str | None, own: Sequence[Decision], deferral: Deferral | None, now: datetime) -> str:
    """Say what a request got and why, and what became of it. `request_id`: it was asked for by that."""
    first = next((line for line in own if line.action in FIRST and (request_id in {None, line.request_id})), None)
    parts = []
    if first is not None and first.action == "joined":
        original = next((line.request_id for line in own if line.action in PUT_AWAY), None)
        repeated = f"request {original}" if original else "an earlier request"
        parts.append(f"It repeated {repeated} (same caller, same idempotency key, same content) and shares its fate")
        first = next((line for line in own if line.action in PUT_AWAY), None)
        if first is not None:
            parts.append(_got(first, own).replace("It got", "That one got", 1))
    elif first is not None:
        parts.append(_got(first, own))
    if deferral is not None:
        parts.append(_now(deferral, now))
    return ". ".join(part for part in parts if part) + "."


def _got(line: Decision, own: Sequence[Decision]) -> str:
    facts = line.evidence
    match line.action:
        case "refused":
            what = f"It was refused ({text(facts, 'status')} {text(facts, 'error')})".replace(" ( )", "")
        case "passed on":
            what = f"It got the {text(facts, 'status') or 'answer'} that came back, as it was"
        case _:
            what = _GOT[line.action]
    why = ABOUT_REQUESTS[line.action](with_grounds(line, own)).why
    rule = f" [rule {line.rule}]" if line.rule else ""
    return f"{what} because {why}{rule}" if why else f"{what}{rule}"


def _now(deferral: Deferral, now: datetime) -> str:
    tries = f"{deferral.tries} {'try' if deferral.tries == 1 else 'tries'}"
    match deferral.state:
        case State.QUEUED:
            wait = (deferral.next_attempt_at - now).total_seconds()
            due = f"the next try is due in {duration(wait)}" if wait > 0 else "it is due as soon as it can be delivered"
            left = duration((deferral.expires_at - now).total_seconds())
            return f"It waits in the queue after {tries}; {due}, and it expires in {left}"
        case State.LEASED:
            return f"It is being delivered now (try {deferral.tries})"
        case State.COMPLETED:
            status = f" ({deferral.answer.status})" if deferral.answer is not None else ""
            return f"The agent's answer{status} came {_lasted(deferral)} after it was put away, with {tries}"
    return f"{ENDED[deferral.state]} {_lasted(deferral)} after it was put away, with {tries}" + (
        f": {deferral.last_error}" if deferral.last_error else ""
    )


def _lasted(deferral: Deferral) -> str:
    ended = deferral.completed_at or deferral.enqueued_at
    return duration((ended - deferral.enqueued_at).total_seconds())


def of_restart(cycle: Restart, led: Sequence[Decision], own: Sequence[Decision], now: datetime) -> str:
    """Say who or what asked for a restart, on which evidence, and how it went."""
    scheduled = next((line for line in own if line.action in {"restart scheduled", "settle window opened"}), None)
    why = cycle.reason
    if scheduled is not None:
        why = ABOUT_RESTARTS[scheduled.action](scheduled).why or why
    death = next((line for line in reversed(led) if line.verdict == "dead"), None)
    if cycle.trigger is Trigger.VERDICT and death is not None:
        grounds = ABOUT_WORKSPACES[death.action](death).why
        found = f" (found out by request {death.request_id})" if death.request_id else ""
        why = f"the workspace was judged DEAD{found}: {grounds} [rule {death.rule}]"
    what = f"Restart {cycle.generation} of {cycle.workspace_id}"
    if cycle.trigger is Trigger.ANNOUNCED:
        return f"{what} was announced by the workspace itself" + (f": {cycle.reason}." if cycle.reason else ".")
    return f"{what} came about because {why}. {_went(cycle, now)}."


def _went(cycle: Restart, now: datetime) -> str:
    if cycle.phase in OPEN_PHASES:
        running = duration((now - cycle.started_at).total_seconds())
        steps = {
            Phase.RECORDED: "the old instance is being stopped",
            Phase.STOPPED: "the new one is being started",
            Phase.STARTED: "the new one is not ready yet",
        }
        return f"It has been under way for {running}: {steps[cycle.phase]}"
    lasted = duration(((cycle.finished_at or cycle.started_at) - cycle.started_at).total_seconds())
    if cycle.phase is Phase.FINISHED:
        return f"The workspace was ready {lasted} later"
    word = "failed" if cycle.phase is Phase.FAILED else "was superseded"
    return f"It {word} after {lasted}" + (f": {cycle.error}" if cycle.error else "")


def of_workspace(workspace: Workspace, lines: Sequence[Decision], depth: int, now: datetime) -> str:
    """Say how a workspace is, by which verdict, and what waits for it."""
    parts = [f"{workspace.id} is {workspace.status.value}"]
    if workspace.parked:
        parts[0] += f" and {workspace.desired.value}"
    if workspace.status is Status.READY and workspace.ready_at is not None:
        parts[0] += f" for {duration((now - workspace.ready_at).total_seconds())}"
    last = workspace.last_verdict
    if last is not None:
        written = next((line for line in reversed(lines) if line.verdict and line.rule == last.rule), None)
        because = written.evidence.get("because") if written is not None else None
        means = meaning(written.policy if written is not None else "", last.rule, because)
        age = duration((now - last.at).total_seconds())
        parts.append(
            f"It was last judged {last.verdict.upper()} {age} ago" + (f": {means}" if means else "") + f" [{last.rule}]"
        )
    if workspace.generation:
        count = workspace.generation
        parts.append(f"It has had {count} restart{'s' if count != 1 else ''}")
    parts.append(f"{depth} request{'s' if depth != 1 else ''} wait{'' if depth != 1 else 's'} in its queue")
    return ". ".join(parts) + "."
