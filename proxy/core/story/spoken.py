"""How facts of the decision log are said in English: durations, failures, probe answers, rules, triggers.

Owns: the words for every vocabulary that a story speaks of; what a rule means is taken from the rules' own table.
Knows nothing of: lines and timelines.
"""

import re
from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final

from proxy.core.decision import Trigger
from proxy.core.liveness_rules import RULES
from proxy.core.outcome import Outcome
from proxy.core.presets import PRESETS, Preset
from proxy.core.times import parse_rfc3339

_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_NO_TIME, _SHORT, _EXACT = 0.0005, 0.1, 10
"""Durations below are said as none, in milliseconds, and with one decimal; seconds."""
ELSE: Final = "nothing above decided"
"""What the rules' table says of a rule that catches what is left; alone it explains nothing."""

FAILURES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "refused": "the agent's port refused the connection",
        "dns": "the name in the agent's URL did not resolve",
        "connect_timeout": "no connection to the agent stood within the connect timeout",
        "tls": "the TLS handshake with the agent failed",
        "unreachable": "the agent's address could not be reached",
        "pool": "no upstream connection came free in time",
        "resources": "this host had no socket, file or memory left for the call",
        "forbidden_address": "the agent's address is one that must not be called",
        "bad_request": "the request could not be written as HTTP/1.1",
        "closed": "Holdfast was stopping",
        "reset": "the connection to the agent was reset",
        "eof": "the agent closed the connection",
        "idle_timeout": "nothing was heard from the agent for the whole idle timeout",
        "bad_response": "what came back was no HTTP answer",
        "too_large": "the answer was larger than allowed",
        "no_url": "nobody has said where the agent listens",
        "stopping": "Holdfast was stopping",
    }
)
"""What made a call fail, by the word that the upstream side gave it."""

SENT: Final[Mapping[str, str]] = MappingProxyType(
    {
        Outcome.NOT_SENT.value: "nothing was sent",
        Outcome.MAYBE.value: "it was sent and may have reached the agent",
        Outcome.GATEWAY.value: "nobody knows whether the agent itself has it",
        Outcome.LOST.value: "the agent has it, its answer broke",
        "idle": "the agent may still be at work on it",
    }
)
"""Whether the request was delivered, by the outcome's class; `idle` is the queue's word for a call that fell silent."""

DELIVERED: Final[Mapping[str, str]] = MappingProxyType(
    {
        "no": "the agent does not have it, a repetition is safe",
        "maybe": "it may have reached the agent",
        "yes": "the agent has it",
    }
)

TRIGGERS: Final[Mapping[Trigger, str]] = MappingProxyType(
    {
        Trigger.FORWARD: "after a call failed",
        Trigger.REPLAY: "after a try from the queue failed",
        Trigger.SWEEP: "in the health sweep",
        Trigger.HEARTBEAT_TTL: "after its heartbeats stopped",
        Trigger.EXIT: "after its supervisor saw it exit",
        Trigger.PARKED: "while it is not dialled",
        Trigger.REGISTRATION: "at its registration",
        Trigger.READINESS: "after it did not get ready in time",
        Trigger.ADMIN: "on an admin's word",
        Trigger.CONFIG: "after a configuration write",
        Trigger.ANNOUNCED: "after it announced a restart of its own",
        Trigger.COORDINATOR: "after a brake let go or the proxy started",
        Trigger.QUEUE: "for the queue's sake",
    }
)
"""What opened an evaluation."""

SHELL_RULES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "throttled": "it was judged a moment before, and is not looked at again so soon",
        "raced": "something happened to the workspace while it was judged; nothing was done",
        "paused": "an admin has paused it",
        "hibernated": "an admin has hibernated it",
        "draining": "an admin drains it",
        "removed": "it was removed",
        "waking": "it is being woken from hibernation",
        "parked": "an admin keeps it, or a workspace above it, from running",
        "poll": "it fetches its requests itself and is never dialled",
        "no_url": "nobody has said where its agent listens",
        "order": "requests of the same context are delivered one after the other",
        "slow_call": "its caller waited no longer, and the call goes on",
        "journal": "the workspace keeps the events of all streams",
        "stopping": "Holdfast was stopping while the call was open",
        "stale": "it was silent for too long, and no runtime can tell whether it runs",
        "respond_async": "its caller asked for an answer later",
        "held": "it was held for a while first, and the workspace did not come back in time",
    }
)
"""Rules that are no rows of the liveness tables: what is decided about a request around them."""

NOT_DIALLED: Final[Mapping[str, str]] = MappingProxyType(
    {
        "restarting": "a restart is under way, so nothing is dialled",
    }
)
"""Rules of the liveness tables that also keep a request from being dialled at all."""

CATCHES_ALL: Final[Mapping[str, str]] = MappingProxyType({"not_running": "it does not run, and nothing speaks for it"})
"""What the last rule of each liveness table means, of which the table says only that nothing above decided."""


def duration(seconds: float) -> str:
    """Say a length of time with its unit: `40 ms`, `0.4 s`, `12 s`, `3 min 20 s`, `2 h 5 min`, `3 d 4 h`."""
    length = abs(seconds)
    whole = round(length)
    if _NO_TIME <= length < _SHORT - _NO_TIME:
        return f"{length * 1000:.0f} ms"
    if length < _EXACT:
        return f"{round(length, 1):g} s"
    if whole < _MINUTE:
        return f"{whole} s"
    if whole < _HOUR:
        return _in_two(whole, (_MINUTE, "min"), (1, "s"))
    if whole < _DAY:
        return _in_two(whole, (_HOUR, "h"), (_MINUTE, "min"))
    return _in_two(whole, (_DAY, "d"), (_HOUR, "h"))


def _in_two(whole: int, large: tuple[int, str], small: tuple[int, str]) -> str:
    count, rest = divmod(round(whole / small[0]), large[0] // small[0])
    return f"{count} {large[1]}" + (f" {rest} {small[1]}" if rest else "")


def instant(value: Any) -> datetime | None:
    """Read an instant of an evidence; None for anything else, since a log may have been written by another version."""
    try:
        return parse_rfc3339(value)
    except (TypeError, ValueError):
        return None


def between(earlier: Any, later: Any) -> str | None:
    """Say the time from one instant of an evidence to another; None where one is missing."""
    one, other = instant(earlier), instant(later)
    return None if one is None or other is None else duration((other - one).total_seconds())


def failure(reason: str) -> str:
    """Say what made a call fail; what is no word of the table is a sentence already."""
    answered = re.fullmatch(r"upstream answered (\d+)", reason)
    if answered is not None:
        return f"a gateway (or the agent) answered {answered[1]}"
    return FAILURES.get(reason, reason)


def meaning(preset: str, rule: str, because: Any = None) -> str:
    """Say what a rule means: the words that were written with the verdict, else those of the rules' table.

    Rows of one name are joined; numbers are the preset's defaults then, since nobody knows what they were.
    """
    if isinstance(because, str) and because and because != ELSE:
        return because
    if rule in SHELL_RULES:
        return SHELL_RULES[rule]
    if preset not in PRESETS:
        return ""
    rows = [row.when.spelled_out(PRESETS[preset]) for row in RULES[Preset(preset)] if row.name == rule]
    words = [row for row in dict.fromkeys(rows) if row != ELSE]
    return "; or ".join(words) or CATCHES_ALL.get(rule, "")


def number(facts: Mapping[str, Any], name: str) -> float | None:
    """A number of an evidence; None for anything else, like `instant`."""
    value = facts.get(name)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def text(facts: Mapping[str, Any], name: str) -> str:
    """A text (or a number as one) of an evidence, empty for anything else."""
    value = facts.get(name)
    return value.strip() if isinstance(value, str) else f"{value:g}" if number(facts, name) is not None else ""


def several(facts: Mapping[str, Any], name: str) -> list[Any]:
    """A list of an evidence, empty for anything else."""
    value = facts.get(name)
    return value if isinstance(value, list) else []


def counted(count: float, noun: str) -> str:
    """Say how many: `1 restart`, `2 restarts`."""
    return f"{count:g} {noun}" + ("" if count == 1 else "s")


def listed(parts: list[str]) -> str:
    """Join parts of a sentence."""
    return ", ".join(part for part in parts if part)
