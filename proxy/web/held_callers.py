"""The callers that are kept waiting: how many there may be, and when waiting is over for one of them.

Owns: the bounds, the places, hearing that a client has left, letting all go when the proxy stops.
Knows nothing of: what a caller waits for, what it is sent meanwhile or in the end.

A place is taken for the length of a wait. Whoever finds none is answered as if there were no waiting: the request is
committed before anybody asks for a place, so nothing is lost by that.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from proxy.core.errors import ProxyError
from proxy.loops.followers import Followers, Following
from proxy.web.arrived import Client

SOON = 1
"""Seconds."""


class Held:
    """One caller that waits for news of one deferral.

    `left`: its client is gone. `over`: the proxy stops. Both wake it.
    """

    __slots__ = ("_following", "left", "over")

    def __init__(self, following: Following) -> None:
        self._following = following
        self.left = False
        self.over = False

    async def news(self, seconds: float | None) -> bool:
        """Wait for news, at most so long; whether there is any."""
        return await self._following.news(seconds)

    def leave(self) -> None:
        """Its client is gone."""
        self.left = True
        self._following.ring()

    def end(self) -> None:
        """The proxy stops."""
        self.over = True
        self._following.ring()


class HeldCallers:
    """Everybody who is kept waiting. `most` callers; `most_bytes` of their requests, 0: no limit."""

    def __init__(self, *, followers: Followers, most: int, most_bytes: int) -> None:
        self._followers = followers
        self._most = most
        self._most_bytes = most_bytes
        self._held: set[Held] = set()
        self._bytes = 0
        self._closed = False

    def __len__(self) -> int:
        """How many."""
        return len(self._held)

    @contextmanager
    def hold(self, client: Client, deferral_id: str, size: int) -> Iterator[Held | None]:
        """Take a place for the length of the body; None where there is none. `size`: bytes of the request."""
        if self._closed or self._is_full(size):
            yield None
            return
        with self._followers.follow(deferral_id) as following:
            held = Held(following)
            self._held.add(held)
            self._bytes += size
            client.on_gone = held.leave
            try:
                yield held
            finally:
                client.on_gone = None
                self._held.discard(held)
                self._bytes -= size

    def check(self, size: int) -> None:
        """Refuse whom there is no place for now. For who must be told by waiting or not at all.

        Raises:
            ProxyError: 503, there is no place, or the proxy stops.
        """
        if self._closed:
            raise ProxyError("STOPPING", "Holdfast is stopping", retry_after=SOON)
        if self._is_full(size):
            raise no_room()

    def _is_full(self, size: int) -> bool:
        return len(self._held) >= self._most or 0 < self._most_bytes < self._bytes + size

    def close(self) -> None:
        """Let everybody go with what there is; from now on nobody is held."""
        self._closed = True
        for held in tuple(self._held):
            held.end()


def no_room() -> ProxyError:
    """The refusal of a stream that nobody could tell."""
    return ProxyError("TOO_MANY_READERS", "there is no room for another stream", retry_after=SOON)
