"""Lines of the decision log that nothing waits for: refused requests, repetitions, answers that were passed on.

Owns: keeping them until they are written together, and how many are kept.
Knows nothing of: what a line says.

Theory of operation. A refusal must cost no commit of its own: a caller that hammers on a dead workspace would wear out
the disk. So a note is taken in memory at once and written with all others every few seconds; a crash loses the notes
of those seconds, and no request. Of each workspace at most `most` are kept between two writes; what is more is counted,
and the count is one line. Whoever reads the log flushes first. While the store fails, the oldest notes are kept and
later ones counted.
"""

import asyncio
from collections import Counter
from dataclasses import replace

from proxy.core.decision import Decision
from proxy.store import Store

MORE = "not noted"
"""The action of the line that counts what was too much."""


class Notes:
    """Takes lines at once and writes them later. `most`: of each workspace between two writes; 0: none is taken."""

    def __init__(self, store: Store, *, most: int) -> None:
        self._store = store
        self._most = most
        self._lines: list[Decision] = []
        self._taken: Counter[str] = Counter()
        self._more: dict[str, Decision] = {}
        self._writing = asyncio.Lock()

    def take(self, line: Decision) -> None:
        """Keep a line, or count it where there are too many of its workspace."""
        if self._most <= 0:
            return
        if self._taken[line.workspace_id] < self._most:
            self._taken[line.workspace_id] += 1
            self._lines.append(line)
        else:
            self._count(line, 1)

    def _count(self, line: Decision, more: int) -> None:
        known = self._more.get(line.workspace_id)
        count = more if known is None else known.evidence["count"] + more
        self._more[line.workspace_id] = replace(
            line, action=MORE, verdict="", rule="", evidence={"count": count}, request_id=None, receipt=None
        )

    async def flush(self) -> None:
        """Write what was taken before this call; StoreFailure when the store cannot, and then it is still kept."""
        if not self._lines and not self._writing.locked():
            return
        async with self._writing:
            if not self._lines:
                return
            lines, taken, more = self._lines, self._taken, self._more
            self._lines, self._taken, self._more = [], Counter(), {}
            try:
                await self._store.log([*lines, *more.values()])
            except BaseException:
                later, counted = self._lines, self._more
                self._lines, self._taken, self._more = lines, taken, more
                for line in later:
                    self.take(line)
                for line in counted.values():
                    self._count(line, line.evidence["count"])
                raise
