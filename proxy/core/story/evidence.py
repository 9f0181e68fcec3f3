"""Sentences about what an evaluation found: ages, probe answers, signs of life, strikes, exits.

Owns: how each fact of an evidence is said. Knows nothing of: which rule decided on it.
"""

from collections.abc import Mapping
from typing import Any, Final

from proxy.core.story.spoken import between, counted, duration, instant, number, several

PROBES: Final = {
    "running": "it runs",
    "not_running": "it does not run",
    "starting": "it is starting",
    "gone": "it is gone",
    "error": "nothing: the probe failed or timed out",
}
"""What a probe said."""
_LATELY: Final = 600.0
"""A restart is worth telling for so many seconds."""


def found(facts: Mapping[str, Any]) -> list[str]:
    """Say everything that was known or read, one part of a sentence each, the oldest kind of knowledge first."""
    parts = [*_restarts(facts), *_ends(facts), *_probes(facts), *_signs(facts), *_strikes(facts)]
    if facts.get("external"):
        parts.append("no runtime hosts it")
    if facts.get("sweep"):
        parts.append("a sweep adds no strike")
    if facts.get("doubted"):
        parts.append("the proxy doubted its own sight")
    return parts


def _restarts(facts: Mapping[str, Any]) -> list[str]:
    opened, parts = facts.get("opened_at"), []
    if facts.get("restart_in_flight"):
        parts.append("a restart was under way")
    for name, words in (
        ("restart_started_at", "its restart began"),
        ("restart_returned_at", "the runtime's start returned"),
        ("announced_at", "it announced its own restart"),
    ):
        at, then = instant(facts.get(name)), instant(opened)
        if at is not None and then is not None and (then - at).total_seconds() < _LATELY:
            parts.append(f"{words} {duration((then - at).total_seconds())} before")
    return parts


def _ends(facts: Mapping[str, Any]) -> list[str]:
    opened = facts.get("opened_at")
    seen = (("exited_at", "its process was seen to end"), ("agent_down_at", "its sidecar said that the agent is down"))
    return [f"{words} {age} before" for name, words in seen if (age := between(facts.get(name), opened)) is not None]


def _probes(facts: Mapping[str, Any]) -> list[str]:
    said, at = several(facts, "probes"), several(facts, "probed_at")
    parts = []
    for place, state in enumerate(said):
        words = PROBES.get(str(state), str(state))
        if place == 0:
            parts.append(f"the probe said {words}")
        else:
            later = between(at[place - 1], at[place]) if place < len(at) else None
            parts.append(f"the next probe{f', {later} later,' if later else ''} said {words}")
    return parts


def _signs(facts: Mapping[str, Any]) -> list[str]:
    """The last reading is what was decided on; how often was looked is said where it was more than once."""
    signs, read_at = several(facts, "last_sign_at"), several(facts, "read_at")
    if not signs:
        return []
    looks = f" ({len(signs)} looks)" if len(signs) > 1 else ""
    if signs[-1] is None:
        return [f"it never gave a sign of life{looks}"]
    age = between(signs[-1], read_at[-1] if read_at else facts.get("opened_at"))
    return [f"its last sign of life was {age} old{looks}"] if age is not None else []


def _strikes(facts: Mapping[str, Any]) -> list[str]:
    if strike := number(facts, "strike"):
        return [f"this was strike {strike:g}"]
    if stored := number(facts, "strikes"):
        return [f"{counted(stored, 'strike')} stood against it"]
    return []
