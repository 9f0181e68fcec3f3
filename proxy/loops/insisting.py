"""Writing what must not be lost although the store fails just now: again and again, for a bounded time.

Owns: the waits between the tries, and when to give up.
Knows nothing of: what is written.

Theory of operation. The agent has answered, and its answer exists nowhere but in this process: a full disk or a locked
database would make the work be done twice. So the write is repeated while its lease is renewed. Each repetition is
fenced by the lease's token: one that comes after somebody else took the lease changes nothing. When the time is over
the failure goes to the caller, the lease ends by itself, and the deferral is delivered again, marked.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from proxy.core.deferral import Deferral
from proxy.store import StoreFailure
from proxy.telemetry import EventName, Telemetry

T = TypeVar("T")

INSISTENCE = 10
"""So many leases long the outcome of a try is kept at hand while the store cannot take it."""
FIRST_WAIT = 0.1
LONGEST_WAIT = 2.0
"""Seconds; shorter than the pause between sweeps for leases that ran out, so that this one comes first."""


async def insist(
    write: Callable[[], Awaitable[T]], *, seconds: float, failed: Callable[[StoreFailure], None] = lambda _: None
) -> T:
    """Return what `write` returns; repeat it while the store fails. `failed` hears of the first failure.

    Raises:
        StoreFailure: it still failed after `seconds`, or the store is closed.
    """
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    wait = FIRST_WAIT
    while True:
        try:
            return await write()
        except StoreFailure as problem:
            if wait == FIRST_WAIT:
                failed(problem)
            if problem.reason == "closed" or loop.time() + wait > until:
                raise
        await asyncio.sleep(wait)
        wait = min(wait * 2, LONGEST_WAIT)


class Insistence:
    """Insists on what tries at deliveries led to, for so many seconds, and tells when the store does not take it."""

    def __init__(self, telemetry: Telemetry, *, seconds: float) -> None:
        self._telemetry = telemetry
        self._seconds = seconds

    async def written(self, deferral: Deferral, write: Callable[[], Awaitable[T]]) -> T:
        """What `write` returns, as soon as the store can.

        Raises:
            StoreFailure: it still could not when the time was over.
        """

        def tell(problem: StoreFailure) -> None:
            self._telemetry.emit(
                EventName.DEFERRAL_UNWRITTEN,
                workspace=deferral.workspace_id,
                receipt=deferral.id,
                request_id=deferral.request_id,
                fields={"problem": problem.reason},
            )

        return await insist(write, seconds=self._seconds, failed=tell)
