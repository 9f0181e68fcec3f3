"""Owns the runtime section of a `process` workspace: what it may say, and the launcher's job that comes of it.

Knows nothing of records, sessions or how the job is carried out.
"""

import base64
import json
import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from proxy.core.times import micros
from proxy.runtimes import Launch, output, section

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


def check_spec(spec: Mapping[str, Any]) -> list[str]:
    """Return every problem of the section as a sentence that opens with the key; values are never repeated."""
    return section.problems_of(spec, _CHECKS, "command") + section.needs_process_handles()


def inherited() -> dict[str, str]:
    """Return what a child, or a command, gets of the proxy's own environment."""
    return {name: text for name, text in os.environ.items() if name in INHERITED or name.startswith("LC_")}


def make_job(launch: Launch, *, owner: str, folder: Path, at: datetime) -> bytes:
    """Write the launcher's job, as JSON. It holds the child's token: it is passed on in memory and kept nowhere."""
    spec = launch.spec
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
        "env": {**inherited(), **spec.get("env", {}), **launch.env, CONFIG_VARIABLE: config_path},
        "config_path": config_path,
        "config": base64.b64encode(b"{}" if launch.data is None else launch.data).decode(),
    }
    return json.dumps(job).encode()


def _is_log_limit(value: Any) -> list[str]:
    fits = isinstance(value, int) and not isinstance(value, bool) and value > 0
    return [] if fits else ["must be a whole number of bytes, 1 or more"]


_CHECKS: Final[Mapping[str, section.Check]] = {
    "type": section.one_word("process"),
    "command": section.is_command,
    "env": section.environment(RESERVED.__contains__),
    "cwd": section.is_absolute_path,
    "stop_grace": section.is_seconds,
    "log_max_bytes": _is_log_limit,
}
