"""What the decision log's lines about workspaces and restarts say in English.

Owns: the sentences of these actions. Knows nothing of: requests and deferrals.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from proxy.core import restart
from proxy.core.decision import Decision, Trigger
from proxy.core.lifecycle import Desired, Status
from proxy.core.story.saying import Said, grounds
from proxy.core.story.spoken import TRIGGERS, between, counted, duration, meaning, number, text
from proxy.core.times import rfc3339

CAUSES: Final = {
    "probe": "its probe passed",
    "beat": "its heartbeat said so",
    "registration": "it registered",
    "new_boot": "it showed another boot_id",
    "verdict": "it was judged dead",
    "coordinator": "its restart came so far",
    "brake": "the brake has given it up",
    "admin": "an admin said so",
    "stale": "it was silent for too long",
}
"""What moved a status."""
WANTED: Final = {
    Desired.RUNNING: "The workspace is to run again",
    Desired.PAUSED: "The workspace was paused: its requests wait",
    Desired.HIBERNATED: "The workspace was hibernated: the next request wakes it",
    Desired.DRAINING: "The workspace is drained: it gets nothing new",
}
"""What is wanted of a workspace now; a removal has a sentence of its own."""


# Verdicts


def _judged(line: Decision) -> Said:
    judged = f"was judged {line.verdict.upper()}" if line.verdict else "was judged"
    return Said(f"The workspace {judged} {TRIGGERS[line.trigger]}", grounds(line))


def _offline(line: Decision) -> Said:
    if line.verdict == "dead":
        return Said(f"The workspace was judged DEAD {TRIGGERS[line.trigger]}, and marked offline", grounds(line))
    reason = text(line.evidence, "reason")
    return Said("The workspace was marked offline", reason or meaning(line.policy, line.rule))


def _still_offline(line: Decision) -> Said:
    return Said(f"The workspace was judged DEAD again {TRIGGERS[line.trigger]}, and stays offline", grounds(line))


# What a workspace or an admin said


def _created(_: Decision) -> Said:
    return Said("The workspace was enrolled")


def _created_again(_: Decision) -> Said:
    return Said("The workspace was enrolled again after its removal")


def _registered(_: Decision) -> Said:
    return Said("The workspace was registered anew, by itself or by an admin")


def _removed(_: Decision) -> Said:
    return Said("The workspace was removed, and what waited for it cancelled", "an admin said so")


def _configured(line: Decision) -> Said:
    version = text(line.evidence, "version")
    return Said(f"A configuration was written{f' (version {version})' if version else ''}", "an admin said so")


def _announced(line: Decision) -> Said:
    reason = text(line.evidence, "reason")
    return Said("The workspace said that it restarts itself: its settle window opened, nothing was touched", reason)


def _new_incarnation(line: Decision) -> Said:
    return Said(f"Another life of the agent began: incarnation {line.incarnation}", "it showed another boot_id")


def _bound(line: Decision) -> Said:
    return Said(f"The agent showed the boot_id of incarnation {line.incarnation}")


def _exit_seen(line: Decision) -> Said:
    code = number(line.evidence, "exit_code")
    if code is None:
        how = "its exit code is not known"
    elif code < 0:
        how = f"it was killed by signal {-code:g}"
    else:
        how = f"its exit code was {code:g}"
    return Said("The supervisor saw the agent's process end, which nobody here had asked for", how)


def _status(status: Status) -> Callable[[Decision], Said]:
    words = {Status.READY: "The workspace is ready", Status.STARTING: "The workspace is starting"}
    what = words.get(status, f"The workspace is {status.value} now")

    def say(line: Decision) -> Said:
        itself = "it said so itself" if line.trigger is Trigger.REGISTRATION else ""
        return Said(what, CAUSES.get(text(line.evidence, "cause"), itself))

    return say


def _desired(desired: Desired) -> Callable[[Decision], Said]:
    what = WANTED[desired]

    def say(line: Decision) -> Said:
        return Said(what, _parker(line))

    return say


def _parker(line: Decision) -> str:
    reason = text(line.evidence, "reason")
    if line.trigger is Trigger.ADMIN:
        return f"an admin said so: {reason}" if reason else "an admin said so"
    return reason


def _parking_undone(line: Decision) -> Said:
    return Said("The workspace is wanted again before its compute was touched: it goes on", _parker(line))


def _compute_stopped(_: Decision) -> Said:
    return Said("What hosted the workspace is stopped", "it is parked")


# Restarts


def _asker(line: Decision) -> str:
    reason = text(line.evidence, "reason")
    match line.trigger:
        case Trigger.ADMIN:
            return f"an admin asked for it: {reason}" if reason else "an admin asked for it"
        case Trigger.CONFIG:
            return f"a configuration write asked for it: {reason}" if reason else "a configuration write asked for it"
        case Trigger.ANNOUNCED:
            return "the workspace announced it"
        case Trigger.PARKED:
            return f"a hibernated workspace was needed: {reason}" if reason else "a hibernated workspace was needed"
    return "the workspace was judged DEAD" if line.rule else reason


def _scheduled(line: Decision) -> Said:
    facts = line.evidence
    parts = [_asker(line)]
    if line.request_id is not None and line.trigger is Trigger.COORDINATOR:
        parts.append(f"found out by request {line.request_id}")
    most, window = number(facts, "intensity"), number(facts, "window")
    if most and window and line.trigger is Trigger.COORDINATOR:
        used = number(facts, "count") or 0
        parts.append(f"{used:g} of at most {counted(most, 'restart')} within {duration(window)} had been used")
    return Said(f"Restart {line.generation} was scheduled", "; ".join(part for part in parts if part))


def _coalesced(line: Decision) -> Said:
    joined = number(line.evidence, "joined") or line.generation
    if line.trigger in {Trigger.ADMIN, Trigger.CONFIG}:
        what = f"One more restart was asked for and follows as soon as restart {line.generation} has started"
        return Said(what, _asker(line))
    return Said(f"A restart was asked for and joined restart {joined:g}, which is under way")


def _until(line: Decision) -> str:
    wait = between(rfc3339(line.at), line.evidence.get("until"))
    return f"for {wait} more" if wait is not None else "for now"


def _debounced(line: Decision) -> Said:
    facts = line.evidence
    age = between(facts.get("last_started_at"), rfc3339(line.at))
    parts = [_asker(line)]
    debounce = number(facts, "debounce")
    if age is not None and debounce:
        parts.append(
            f"the last restart began {age} before, and a death that was only inferred is debounced for"
            f" {duration(debounce)}; the workspace is judged again then"
        )
    return Said(f"A restart was asked for and is held back {_until(line)} (debounce)", "; ".join(filter(None, parts)))


def _backoff(line: Decision) -> Said:
    facts = line.evidence
    parts = [_asker(line)]
    if failures := number(facts, "failures"):
        first, cap = number(facts, "backoff") or 0, number(facts, "backoff_cap") or 0
        parts.append(
            f"the last {counted(failures, 'restart')} failed, and the pause doubles from {duration(first)} up to"
            f" {duration(cap)}"
        )
    return Said(f"A restart was asked for and waits {_until(line)} (backoff)", "; ".join(filter(None, parts)))


def _abandoned(line: Decision) -> Said:
    facts = line.evidence
    parts = [_asker(line)]
    count, most, window = (number(facts, name) for name in ("count", "intensity", "window"))
    if count is not None and most and window:
        parts.append(f"{counted(count, 'restart')} within {duration(window)}, where {most:g} are allowed")
    parts.append("an admin's restart, a configuration write or a new life of the agent ends this")
    return Said("The workspace was given up: no restart follows", "; ".join(filter(None, parts)))


def _unmanaged(_: Decision) -> Said:
    return Said("Nobody restarts it", "no runtime hosts this workspace")


def _after(line: Decision) -> str:
    seconds = number(line.evidence, "seconds")
    return f" {duration(seconds)} after it was scheduled" if seconds is not None else ""


def _stopped(line: Decision) -> Said:
    return Said(f"Restart {line.generation}: what ran before is stopped{_after(line)}")


def _started(line: Decision) -> Said:
    return Said(f"Restart {line.generation}: the new instance was started{_after(line)}, and boots")


def _finished(line: Decision) -> Said:
    return Said(f"Restart {line.generation} is finished: the workspace was ready{_after(line)}")


def _failed(line: Decision) -> Said:
    return Said(f"Restart {line.generation} failed{_after(line)}", text(line.evidence, "reason"))


def _superseded(line: Decision) -> Said:
    return Said(f"Restart {line.generation} was superseded{_after(line)}", text(line.evidence, "reason"))


ABOUT_RESTARTS: Final[Mapping[str, Callable[[Decision], Said]]] = MappingProxyType(
    {
        "restart scheduled": _scheduled,
        "restart coalesced": _coalesced,
        "restart debounced": _debounced,
        "restart backoff": _backoff,
        "restart abandoned": _abandoned,
        "restart unmanaged": _unmanaged,
        "restart stopped": _stopped,
        "restart started": _started,
        "restart finished": _finished,
        "restart failed": _failed,
        "restart superseded": _superseded,
        "settle window opened": _announced,
    }
)
"""By action: `restart` with each of `core.restart.Answer` and `core.restart.Phase`."""

ABOUT_WORKSPACES: Final[Mapping[str, Callable[[Decision], Said]]] = MappingProxyType(
    {
        "none": _judged,
        "offline": _offline,
        "still offline": _still_offline,
        "created": _created,
        "created again": _created_again,
        "registered": _registered,
        "removed": _removed,
        "configuration written": _configured,
        "new incarnation": _new_incarnation,
        "boot_id bound": _bound,
        "exit seen": _exit_seen,
        **{f"status {status.value}": _status(status) for status in Status},
        **{f"desired {desired.value}": _desired(desired) for desired in WANTED},
        "parking undone": _parking_undone,
        "compute stopped": _compute_stopped,
    }
)
"""By action: what is decided and heard about a workspace itself."""

CYCLE_ENDS: Final = frozenset(f"restart {phase.value}" for phase in restart.Phase if phase not in restart.OPEN_PHASES)
"""Actions that end a cycle."""
