"""Owns what members of a runtime section may be: the checks that several runtimes share. Knows no runtime.

A check takes a value and returns what is wrong with it, as the ends of sentences that open with the member's name;
values are never repeated, because they may be secrets.
"""

import math
import os
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

Check = Callable[[Any], list[str]]

_VARIABLE: Final = re.compile(r"[^=\0]+")
_LONGEST: Final = 86_400.0


def problems_of(spec: Mapping[str, Any], checks: Mapping[str, Check], *required: str) -> list[str]:
    """Return every problem of a section as a sentence: unknown members, missing ones, and what `checks` find."""
    problems = [f"runtime.{key}: there is no such setting" for key in spec if key not in checks]
    problems += [f"runtime.{key}: is required" for key in required if key not in spec]
    for key, check in checks.items():
        if key in spec:
            problems += [f"runtime.{key}: {problem}" for problem in check(spec[key])]
    return problems


def one_word(word: str) -> Check:
    """Make the check that the value is this very word."""
    return lambda value: [] if value == word else [f"must be {word!r}"]


def is_command(value: Any) -> list[str]:
    """A program and its arguments."""
    if not isinstance(value, list | tuple) or not value or not all(isinstance(part, str) for part in value):
        return ["must be a list of strings that is not empty: the program, then its arguments; no shell reads it"]
    if not value[0]:
        return ["the program's name is empty"]
    return ["must not hold NUL characters"] if any("\0" in part for part in value) else []


def environment(reserved: Callable[[str], bool]) -> Check:
    """Make the check of a table of variables; `reserved` says which names are the proxy's own."""

    def check(value: Any) -> list[str]:
        if not isinstance(value, Mapping):
            return ["must be a table of strings"]
        problems = []
        for name, text in value.items():
            if not isinstance(name, str) or _VARIABLE.fullmatch(name) is None:
                problems.append(f"{name!r} cannot be a variable's name")
            elif reserved(name):
                problems.append(f"{name} is set by the proxy")
            elif not isinstance(text, str) or "\0" in text:
                problems.append(f"{name} must be a string without NUL characters")
        return problems

    return check


def is_ours(name: str) -> bool:
    """The variable's name is one of those that Holdfast keeps for itself."""
    return name.startswith("HOLDFAST_")


def is_absolute_path(value: Any) -> list[str]:
    """An absolute path, of a file or folder that need not exist yet."""
    fits = isinstance(value, str) and value.startswith("/") and "\0" not in value
    return [] if fits else ["must be an absolute path"]


def is_seconds(value: Any) -> list[str]:
    """A duration, 0 included."""
    return [] if _is_number(value) and value >= 0 else ["must be a number of seconds, 0 or more"]


def is_patience(value: Any) -> list[str]:
    """A duration that something may take: more than nothing, at most a day."""
    return [] if _is_number(value) and 0 < value <= _LONGEST else ["must be a number of seconds above 0, at most 86400"]


def is_switch(value: Any) -> list[str]:
    """True or false."""
    return [] if isinstance(value, bool) else ["must be true or false"]


def count(least: int, most: int) -> Check:
    """Make the check of a whole number within limits, which are included."""

    def check(value: Any) -> list[str]:
        fits = isinstance(value, int) and not isinstance(value, bool) and least <= value <= most
        return [] if fits else [f"must be a whole number from {least} to {most}"]

    return check


def needs_process_handles() -> list[str]:
    """Say what this system lacks for watching processes of its own: pidfds, that is Linux 5.4 and a fitting Python."""
    if hasattr(os, "pidfd_open") and hasattr(os, "P_PIDFD"):
        return []
    return ["runtime.type: needs Linux 5.4 or later, and a Python that was built for it"]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
