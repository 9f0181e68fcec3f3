"""Owns the runtime section of a `process` workspace: what it may say, and the launcher's job that comes of it.

Knows nothing of records, sessions or how the job is carried out.
"""

import base64
import json
import os
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from proxy.core.times import micros
from proxy.runtimes import Launch, output

INHERITED: Final = ("HOME", "LANG", "LANGUAGE", "LOGNAME", "PATH", "SHELL", "TMPDIR", "TZ", "USER")
"""What a child gets of the proxy's own environment, besides LC_*. Nothing else: the rest may hold secrets."""

CONFIG_VARIABLE: Final = "HOLDFAST_CONFIG_PATH"

RESERVED: Final = frozenset(
    {
        "HOLDFAST_WORKSPACE_ID",
        "HOLDFAST_INCARNATION",
        "HOLDFAST_BOOT_ID",
        "HOLDFAST_URL",
        "HOLDFAST_TOKEN",
        CONFIG_VARIABLE,
    }
)
"""What the proxy says to every child: a section that sets one of these would be overruled."""

_VARIABLE: Final = re.compile(r"[^=\0]+")


def check_spec(spec: Mapping[str, Any]) -> list[str]:
    """Return every problem of the section as a sentence that opens with the key; values are never repeated."""
    problems = [f"runtime.{key}: there is no such setting" for key in spec if key not in _CHECKS]
    problems += [] if "command" in spec else ["runtime.command: is required"]
    for key, check in _CHECKS.items():
        if key in spec:
            problems += [f"runtime.{key}: {problem}" for problem in check(spec[key])]
    if not hasattr(os, "pidfd_open") or not hasattr(os, "P_PIDFD"):
        problems.append("runtime.type: process needs Linux 5.4 or later, and a Python that was built for it")
    return problems


def make_job(launch: Launch, *, owner: str, folder: Path, at: datetime) -> bytes:
    """Write the launcher's job, as JSON. It holds the child's token: it is passed on in memory and kept nowhere."""
    spec = launch.spec
    inherited = {name: text for name, text in os.environ.items() if name in INHERITED or name.startswith("LC_")}
    config_path = launch.env.get(CONFIG_VARIABLE) or str(folder / "config.json")
    job = {
        "workspace_id": launch.workspace_id,
        "incarnation": launch.incarnation,
        "generation": launch.generation,
        "owner": owner,
        "started_at": micros(at),
        "log_limit": spec.get("log_max_bytes", output.DEFAULT_LIMIT),
        "command": list(spec["command"]),
        "cwd": spec.get("cwd"),
        "env": {**inherited, **spec.get("env", {}), **launch.env, CONFIG_VARIABLE: config_path},
        "config_path": config_path,
        "config": base64.b64encode(b"{}" if launch.data is None else launch.data).decode(),
    }
    return json.dumps(job).encode()


def _check_type(value: Any) -> list[str]:
    return [] if value == "process" else ["must be 'process'"]


def _check_command(value: Any) -> list[str]:
    if not isinstance(value, list | tuple) or not value or not all(isinstance(part, str) for part in value):
        return ["must be a list of strings that is not empty: the program, then its arguments; no shell reads it"]
    if not value[0]:
        return ["the program's name is empty"]
    return ["must not hold NUL characters"] if any("\0" in part for part in value) else []


def _check_env(value: Any) -> list[str]:
    if not isinstance(value, Mapping):
        return ["must be a table of strings"]
    problems = []
    for name, text in value.items():
        if not isinstance(name, str) or _VARIABLE.fullmatch(name) is None:
            problems.append(f"{name!r} cannot be a variable's name")
        elif name in RESERVED:
            problems.append(f"{name} is set by the proxy")
        elif not isinstance(text, str) or "\0" in text:
            problems.append(f"{name} must be a string without NUL characters")
    return problems


def _check_cwd(value: Any) -> list[str]:
    fits = isinstance(value, str) and value.startswith("/") and "\0" not in value
    return [] if fits else ["must be an absolute path"]


def _check_stop_grace(value: Any) -> list[str]:
    fits = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < float("inf")
    return [] if fits else ["must be a number of seconds, 0 or more"]


def _check_log_max_bytes(value: Any) -> list[str]:
    fits = isinstance(value, int) and not isinstance(value, bool) and value > 0
    return [] if fits else ["must be a whole number of bytes, 1 or more"]


_CHECKS: Final[Mapping[str, Callable[[Any], list[str]]]] = {
    "type": _check_type,
    "command": _check_command,
    "env": _check_env,
    "cwd": _check_cwd,
    "stop_grace": _check_stop_grace,
    "log_max_bytes": _check_log_max_bytes,
}
