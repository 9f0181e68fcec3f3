"""The decision log in plain lists: the model of what the SQL stores must do.

Owns: the lines, their ids, reading and trimming them. Knows nothing of: asyncio, what a line is about.
"""

from dataclasses import replace
from datetime import datetime

from proxy.core.decision import Decision
from proxy.store import Sought


class MemoryLog:
    """Every line of every workspace, in the order in which they were written."""

    def __init__(self) -> None:
        self._lines: list[Decision] = []
        self._last_id = 0

    def append(self, decision: Decision | None) -> None:
        """Take a line, if there is one."""
        if decision is not None:
            self._last_id += 1
            self._lines.append(replace(decision, id=self._last_id))

    def sought(self, sought: Sought, limit: int) -> list[Decision]:
        """See `Store.sought`."""
        found = [line for line in reversed(self._lines) if _is_sought(line, sought)]
        return found[:limit]

    def trim(self, before: datetime, rows: int) -> int:
        """See `Store.trim_decisions`."""
        kept: list[Decision] = []
        counts: dict[str, int] = {}
        for line in reversed(self._lines):
            if line.at < before or (0 < rows <= counts.get(line.workspace_id, 0)):
                continue
            counts[line.workspace_id] = counts.get(line.workspace_id, 0) + 1
            kept.append(line)
        trimmed = len(self._lines) - len(kept)
        self._lines = kept[::-1]
        return trimmed


def _is_sought(line: Decision, sought: Sought) -> bool:
    wanted = {
        "workspace_id": sought.workspace_id,
        "request_id": sought.request_id,
        "receipt": sought.receipt,
        "generation": sought.generation,
    }
    if sought.before is not None and line.id >= sought.before:
        return False
    if sought.until is not None and line.at > sought.until:
        return False
    return all(value is None or getattr(line, name) == value for name, value in wanted.items())
