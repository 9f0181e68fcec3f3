"""What agents call the contexts that they did not take over, by the names that their callers know; bounded.

Owns: these names, of one workspace, and which of them is forgotten first.
Knows nothing of: tasks, the store, who asks.
"""

from collections.abc import Mapping
from types import MappingProxyType

NONE: Mapping[str, str] = MappingProxyType({})


class ForeignContexts:
    """The agent's names of contexts, by caller; of more than `most` the one learnt longest ago is forgotten."""

    __slots__ = ("_most", "_names", "_order")

    def __init__(self, most: int) -> None:
        self._most = most
        self._names: dict[str | None, dict[str, str]] = {}
        self._order: dict[tuple[str | None, str], None] = {}

    def __bool__(self) -> bool:
        """Whether there is any: while there is none, no body is read for their sake."""
        return bool(self._order)

    def of(self, caller: str | None) -> Mapping[str, str]:
        """The agent's name of each context, by the name that this caller knows."""
        return self._names.get(caller, NONE)

    def learn(self, caller: str | None, ours: str, theirs: str) -> None:
        """Take over a name; it becomes the newest."""
        key = (caller, ours)
        self._order.pop(key, None)
        self._order[key] = None
        self._names.setdefault(caller, {})[ours] = theirs
        if len(self._order) > self._most:
            self._forget(*next(iter(self._order)))

    def _forget(self, caller: str | None, ours: str) -> None:
        del self._order[caller, ours]
        names = self._names[caller]
        del names[ours]
        if not names:
            del self._names[caller]
