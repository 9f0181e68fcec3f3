"""How much waits in each workspace's queue, as this process counts it.

Owns: every change of `Route.size`, and setting it right by what the store counts.
Knows nothing of: why a deferral came or went, limits (the store holds those, by its own count).

Theory of operation. Beats and answers ask "does anything wait here?" all the time, and must not ask the disk. So the
process counts along: one more when a deferral's row is committed, one less when it ends. Such a count may go wrong: a
caller is cancelled between the commit and the counting, a write is called failed and was none, another process takes
part. Whatever is touched is therefore compared with the store's own count at the next sweep.

Between a commit and its counting the store already knows what this process does not. A count that is read then would
be added to once more, and stay one too high. So each change is announced before it is written and done with after it
is counted, and the store's count of a queue is taken over only if nothing was announced while it was read:

    announced ──write──> committed ──> counted, done with
        └──────── no count is taken over ───────┘
"""

from collections.abc import Iterator
from contextlib import contextmanager

from proxy.loops.routing import Route, Routing
from proxy.store import QueueSize, Store


class QueueSizes:
    """Counts what waits, and sets the counts right."""

    def __init__(self, *, store: Store, routing: Routing) -> None:
        self._store = store
        self._routing = routing
        self._announced: dict[str, int] = {}
        self._doubted: set[str] = set()

    @contextmanager
    def changing(self, route: Route | None) -> Iterator[None]:
        """Around a write that may change a queue, and its counting."""
        if route is None:
            yield
            return
        self._announced[route.id] = self._announced.get(route.id, 0) + 1
        self._doubted.add(route.id)
        try:
            yield
        finally:
            left = self._announced[route.id] - 1
            if left:
                self._announced[route.id] = left
            else:
                del self._announced[route.id]
            # It may have begun before a count was asked for and have ended before that came.
            self._doubted.add(route.id)

    def added(self, route: Route, size: int) -> None:
        """A deferral of that many bytes is active now."""
        route.size = QueueSize(rows=route.size.rows + 1, bytes=route.size.bytes + size)

    def removed(self, route: Route) -> None:
        """A deferral has ended; its bytes went with its body, and the next comparison knows how many they were."""
        rows = max(0, route.size.rows - 1)
        route.size = QueueSize(rows=rows, bytes=route.size.bytes if rows else 0)

    def doubt(self, route: Route) -> None:
        """Compare this one, too, the next time."""
        self._doubted.add(route.id)

    async def compare(self) -> None:
        """Take over the store's count of each queue that was touched since, and that nobody is about to change.

        Raises:
            StoreFailure: nothing was compared, everything stays in doubt.
        """
        asked = [workspace_id for workspace_id in self._doubted if workspace_id not in self._announced]
        if not asked:
            return
        self._doubted.difference_update(asked)
        try:
            sizes = await self._store.queue_sizes()
        except BaseException:
            self._doubted.update(asked)
            raise
        for workspace_id in asked:
            # Whatever was announced meanwhile is in doubt again, even if it is done with by now.
            route = self._routing.get(workspace_id)
            if route is not None and workspace_id not in self._doubted:
                route.size = sizes.get(workspace_id, QueueSize())
