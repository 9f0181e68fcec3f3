"""Who waits for news of a deferral: a held caller, an open stream, a notification that is to be sent.

Owns: waking them.
Knows nothing of: what the news is; whoever is woken reads the store.

Theory of operation. News is rung after its commit and carries nothing, so a bell that rings twice costs one look-up
too many and never shows a caller what might be undone. A follower that was told while it was busy finds the bell rung
when it waits next: between looking and waiting nothing is missed, as long as it looks after it began to follow.

    follow ──> look at the store ──nothing yet──> wait for news ──┐
                  ^──────────────────────────────────────────────┘
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Following:
    """One follower of one deferral."""

    __slots__ = ("_bell",)

    def __init__(self) -> None:
        self._bell = asyncio.Event()

    def ring(self) -> None:
        """There is news."""
        self._bell.set()

    async def news(self, seconds: float | None = None) -> bool:
        """Wait for news, at most so long (None: for ever); whether there is any. What was told before counts."""
        try:
            async with asyncio.timeout(seconds):
                await self._bell.wait()
        except TimeoutError:
            return False
        self._bell.clear()
        return True


class Followers:
    """Everybody who follows something, by deferral."""

    def __init__(self) -> None:
        self._following: dict[str, set[Following]] = {}
        self.heard: Callable[[str], None] = lambda _: None
        """Hears all news: whoever follows many deferrals for long, and not one at a time."""

    @contextmanager
    def follow(self, deferral_id: str) -> Iterator[Following]:
        """Follow a deferral for the length of the body; look at the store after this has begun."""
        following = Following()
        others = self._following.setdefault(deferral_id, set())
        others.add(following)
        try:
            yield following
        finally:
            others.discard(following)
            if not others:
                self._following.pop(deferral_id, None)

    def tell(self, deferral_id: str) -> None:
        """Something about this deferral was committed: an event, an end, a way back into the queue."""
        for following in self._following.get(deferral_id, ()):
            following.ring()
        self.heard(deferral_id)

    def __contains__(self, deferral_id: str) -> bool:
        """Whether anybody follows it."""
        return deferral_id in self._following
