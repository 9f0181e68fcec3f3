"""Owns what is on disk about a workload that something outside runs: one record per workspace, replaced whole.

Knows nothing of how the workload is started, stopped or looked at. Only the proxy that uses the state directory writes
here, one change at a time per workspace (`outside` sees to it).
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from proxy.core.times import from_micros
from proxy.runtimes import Adopted, Exited, RuntimeFailure
from proxy.runtimes.launcher import write_private

RECORD_FILE: Final = "record.json"


class Phase(StrEnum):
    """How far an instance came. `asked`: its start was asked for, and nobody knows yet whether it happened."""

    ASKED = "asked"
    RUNNING = "running"
    ENDED = "ended"


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """One workload that was started outside.

    `spec` is the section that started it, and therefore the one that stops it. `seen`: it was seen running. `stopping`:
    our stop was decided before its end, so its end is expected. `stopped`: our stop was carried out, nothing is left.
    Instants are microseconds since the epoch.
    """

    incarnation: int
    generation: int
    owner: str
    spec: Mapping[str, Any] = field(repr=False)
    started_at: int
    handle: str = ""
    phase: Phase = Phase.ASKED
    seen: bool = False
    stopping: bool = False
    stopped: bool = False
    ended_at: int | None = None
    exit_code: int | None = None

    @property
    def ended(self) -> bool:
        """Its end is known."""
        return self.phase is Phase.ENDED


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """The lowest generation that may still start, and the latest instance."""

    fence: int = 0
    instance: Instance | None = None


def read(folder: Path) -> Record:
    """Read a record, the empty one where there is none; OSError; RuntimeFailure `bad_record`."""
    path = folder / RECORD_FILE
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        return Record()
    except ValueError as problem:
        raise RuntimeFailure("bad_record", f"{path} is not JSON: {problem}") from None
    try:
        found = content["instance"]
        instance = None if found is None else Instance(**{**found, "phase": Phase(found["phase"])})
        return Record(fence=int(content["fence"]), instance=instance)
    except (KeyError, TypeError, ValueError) as problem:
        raise RuntimeFailure("bad_record", f"{path} is not a record of this version: {problem!r}") from None


def write(folder: Path, record: Record) -> None:
    """Replace the record at once and durably, readable by this user alone; OSError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    last = record.instance
    instance = None if last is None else {each.name: getattr(last, each.name) for each in fields(last)}
    content = json.dumps({"fence": record.fence, "instance": instance}, indent=1, default=dict)
    write_private(folder / RECORD_FILE, content.encode())


def remove(folder: Path) -> None:
    """Delete the record with everything beside it; OSError."""
    if folder.exists():
        shutil.rmtree(folder)


def recorded(root: Path) -> list[str]:
    """List the workspaces that have a record, sorted; OSError."""
    if not root.is_dir():
        return []
    return sorted(folder.name for folder in root.iterdir() if (folder / RECORD_FILE).exists())


def exited(workspace_id: str, instance: Instance, at: datetime) -> Exited:
    """Tell an instance's end as the record has it; `at` where the record does not say when."""
    return Exited(
        workspace_id=workspace_id,
        incarnation=instance.incarnation,
        exit_code=instance.exit_code,
        expected=instance.stopping,
        at=at if instance.ended_at is None else from_micros(instance.ended_at),
    )


def adopted(workspace_id: str, instance: Instance) -> Adopted:
    """Tell an instance whose end is not known."""
    return Adopted(
        workspace_id=workspace_id,
        incarnation=instance.incarnation,
        generation=instance.generation,
        handle=instance.handle,
        started_at=from_micros(instance.started_at),
    )
