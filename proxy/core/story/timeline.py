"""Events in the order in which they happened, made from lines of the decision log.

Owns: the record of an event, what a line becomes on a timeline, and how many lines are told together.
Knows nothing of: which lines belong to a story, and what it comes to (`core.story`).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import groupby
from typing import Any

from proxy.core.decision import Decision
from proxy.core.story.about_requests import ABOUT_REQUESTS, MANY, failed_call, verdict_in_short
from proxy.core.story.about_workspaces import ABOUT_RESTARTS, ABOUT_WORKSPACES
from proxy.core.story.saying import JUDGED, Said, verdict, with_grounds
from proxy.core.story.spoken import NOT_DIALLED, SHELL_RULES, instant, meaning, number, text

_FEW_TRIES = 3
"""So many tries that failed alike are told one by one."""

SENTENCES = {**ABOUT_REQUESTS, **ABOUT_RESTARTS, **ABOUT_WORKSPACES}
"""The sentence of each action."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One thing that happened, or several of a kind told together (`count`, from `at` to `until`).

    `what` and `why` are sentences without their full stops. `is_own`: it is about the story's subject itself, and not
    about what went on around it. The rest is the line's, as it was written; `action` is empty where no line says it.
    """

    at: datetime
    what: str
    why: str = ""
    is_own: bool = True
    count: int = 1
    until: datetime | None = None
    action: str = ""
    trigger: str = ""
    verdict: str = ""
    rule: str = ""
    evidence: Mapping[str, Any] = field(default_factory=dict)
    request_id: str | None = None
    receipt: str | None = None
    incarnation: int | None = None
    generation: int | None = None


def say(line: Decision) -> Said:
    """Say one line; one of an unknown action by its bare words."""
    sentence = SENTENCES.get(line.action)
    if sentence is not None:
        return sentence(line)
    return Said(f"Holdfast noted: {line.action}", text(line.evidence, "reason") or verdict(line))


def event(line: Decision, *, is_own: bool) -> Event:
    """A line as an event."""
    said = say(line)
    return Event(
        at=line.at,
        what=said.what,
        why=said.why,
        is_own=is_own,
        action=line.action,
        trigger=line.trigger.value,
        verdict=line.verdict,
        rule=line.rule,
        evidence=line.evidence,
        request_id=line.request_id,
        receipt=line.receipt,
        incarnation=line.incarnation,
        generation=line.generation,
    )


def in_order(lines: Iterable[Decision]) -> list[Decision]:
    """Lines in the order in which they were decided, each once."""
    return sorted({(line.id, line.at): line for line in lines}.values(), key=lambda line: (line.at, line.id))


def told_one_by_one(lines: Sequence[Decision], *, own: Sequence[Decision]) -> list[Event]:
    """Every line as an event. A failed call gets one of its own, before the verdict that it led to."""
    ours = {line.id for line in own}
    judged = {line.request_id for line in lines if line.verdict and line.action in JUDGED}
    events: list[Event] = []
    for line in lines:
        made = replace(event(with_grounds(line, own), is_own=line.id in ours), evidence=line.evidence)
        failed_at = instant(line.evidence.get("failed_at"))
        if failed_at is not None and (why := failed_call(line.evidence)):
            events.append(Event(at=failed_at, what="The call to the agent failed", why=why, request_id=line.request_id))
            if line.request_id in judged:
                made = replace(made, why=_in_short(line))
        events.append(made)
    return folded(sorted(events, key=lambda each: each.at))


def _in_short(line: Decision) -> str:
    """Why a request got what it got, where the failed call and the verdict stand on the timeline already."""
    told = {"class", "reason", "because"}
    rest = {name: value for name, value in line.evidence.items() if name not in told}
    return "; ".join(filter(None, (verdict_in_short(line), say(replace(line, verdict="", rule="", evidence=rest)).why)))


def folded(events: Sequence[Event]) -> list[Event]:
    """Tell tries that failed one after the other in the same way together, except for the first of them."""
    told: list[Event] = []
    at = 0
    while at < len(events):
        tries: list[Sequence[Event]] = []
        after = at
        while (end := _end_of_try(events, after)) and (
            not tries or _outcome(events[end - 1]) == _outcome(tries[0][-1])
        ):
            tries.append(events[after:end])
            after = end
        if len(tries) > _FEW_TRIES:
            told += [*tries[0], _repeated(tries[1:])]
        elif tries:
            told += events[at:after]
        else:
            told.append(events[at])
        at = max(after, at + 1)
    return told


def _end_of_try(events: Sequence[Event], at: int) -> int | None:
    """Where a failed try that begins at an event has ended; None where none begins there, or other things happened."""
    if at >= len(events) or events[at].action != "leased":
        return None
    for place in range(at + 1, len(events)):
        if events[place].action == "queued again":
            return place + 1
        if events[place].action not in {"none", "still offline"}:
            return None
    return None


def _outcome(failed: Event) -> tuple[Any, ...]:
    return (failed.evidence.get("reason"), failed.evidence.get("class"), failed.verdict, failed.rule)


def _repeated(tries: Sequence[Sequence[Event]]) -> Event:
    """Several tries as one event. Not every try has lines; their numbers say how many there were."""
    first, last = tries[0][0], tries[-1][-1]
    numbers = number(first.evidence, "try"), number(tries[-1][0].evidence, "try")
    count = len(tries)
    if numbers[0] is not None and numbers[1] is not None:
        count = max(count, round(numbers[1] - numbers[0]) + 1)
    return replace(last, at=first.at, until=last.at, count=count, what=f"{count} more tries went the same way")


def told_together(lines: Sequence[Decision], *, own: Iterable[Decision]) -> list[Event]:
    """Lines about requests that follow each other are told together, by action; every other line by itself."""
    ours = {line.id for line in own}
    events: list[Event] = []
    for is_queue, run in groupby(lines, key=lambda line: line.action in MANY and line.id not in ours):
        if is_queue:
            events += _bundled(list(run))
        else:
            events += [event(line, is_own=line.id in ours) for line in run]
    return events


def _because(lines: Sequence[Decision]) -> str:
    """Why a verdict was given several times: the words written with one of them, or those that hold no numbers."""
    written = (text(line.evidence, "because") for line in lines)
    words = next((because for because in written if because), "")
    rule = lines[0].rule
    return NOT_DIALLED.get(rule) or (meaning(lines[0].policy, rule, words) if words or rule in SHELL_RULES else "")


def _bundled(run: list[Decision]) -> Iterator[Event]:
    kinds: dict[tuple[str, str, str], list[Decision]] = {}
    for line in run:
        kinds.setdefault((line.action, line.verdict, line.rule), []).append(line)
    for (action, verdict_, rule), lines in kinds.items():
        if len(lines) == 1:
            yield event(lines[0], is_own=False)
            continue
        first, last = lines[0], lines[-1]
        yield Event(
            at=first.at,
            until=last.at,
            count=len(lines),
            what=MANY[action].format(count=len(lines), verdict=verdict_.upper()),
            why=_because(lines),
            is_own=False,
            action=action,
            trigger=first.trigger.value,
            verdict=verdict_,
            rule=rule,
            generation=first.generation,
        )
