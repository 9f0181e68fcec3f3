"""What the holder of a polling workspace's lease does with it: renews it, tells, completes, fails.

Owns: whether a lease is still the caller's.
Knows nothing of: HTTP, how leases come to be (`loops.polling`), what an outcome makes of a deferral (`loops.attempts`).

Theory of operation. A lease proves two things: its token says which lease, its owner says which life of the workspace.
What comes with a token of an earlier life, or after the lease's end, is refused, although nobody else may have the
deferral yet: whoever takes it next must be the only one who can finish it. Every write is fenced by the token once more
in the store, so a lease that is taken back between the look and the write changes nothing either.
"""

from datetime import datetime, timedelta
from hmac import compare_digest

from proxy.clock import Now
from proxy.core.deferral import Deferral, Mishap, State, StoredAnswer, poller
from proxy.core.errors import CallerError
from proxy.loops.attempts import Attempts, Settled
from proxy.loops.routing import Route
from proxy.loops.stored_requests import stored_call
from proxy.loops.telling import Story, Telling
from proxy.store import Store


class HeldLeases:
    """Serves those who hold leases."""

    def __init__(self, *, store: Store, attempts: Attempts, telling: Telling, now: Now) -> None:
        self._store = store
        self._attempts = attempts
        self._telling = telling
        self._now = now

    async def held(
        self, route: Route, deferral_id: str, token: str, *, boot_id: str | None, whole: bool = False
    ) -> Deferral | None:
        """The deferral that this token holds, with its body if `whole`; None where there is no such deferral here.

        Raises:
            CallerError: 409: the lease has ended, was taken back, or is that of an earlier life.
        """
        deferral = await (self._store.deferral if whole else self._store.brief)(deferral_id)
        if deferral is None or deferral.workspace_id != route.id:
            return None
        lease, known = deferral.lease, route.workspace
        if boot_id is not None and known.boot_id is not None and boot_id != known.boot_id:
            raise old_life(route)
        if lease is None or not compare_digest(lease.token.encode(), token.encode()):
            raise lease_lost(deferral)
        if lease.owner != poller(route.id, known.incarnation):
            raise old_life(route)
        if lease.until <= self._now():
            raise lease_lost(deferral)
        route.sign(self._now(), heartbeat=True)
        return deferral

    async def extend(self, deferral: Deferral, token: str, seconds: float) -> datetime:
        """Renew a lease; returns its new end."""
        until = self._now() + timedelta(seconds=seconds)
        if not await self._store.extend(deferral.id, token, until=until):
            raise lease_lost(deferral)
        return until

    async def listen(self, deferral: Deferral) -> Story:
        """Take up a deferral's story."""
        return await self._telling.listen(deferral)

    async def complete(self, route: Route, deferral: Deferral, answer: StoredAnswer | None, status: int) -> Deferral:
        """The agent's answer; None: what it has told in events, with this status.

        Raises:
            CallerError: 409: the lease was lost.
            StoreFailure: nothing was written, the lease stands.
        """
        task = None
        if answer is None:
            told = await self._telling.answer(deferral)
            answer = StoredAnswer(status=status, headers=(), body=b"")
            if told is not None:
                answer, task = told, deferral.task
        ended = await self._attempts.complete(route, deferral, stored_call(deferral), answer, task=task)
        if ended is None:
            raise lease_lost(deferral)
        return ended

    async def fail(self, route: Route, deferral: Deferral, error: str, *, retry: bool) -> Settled:
        """The workspace gives a deferral up, for now or for good; it may have begun, so it is marked and counted."""
        if retry:
            settled = await self._attempts.failed(
                route, deferral, outcome=Mishap.MAYBE, reason=error, alive_lately=True
            )
        else:
            buried = await self._attempts.bury(deferral, error, maybe=True)
            settled = Settled(state=State.DEAD_LETTERED) if buried is not None else None
        if settled is None:
            raise lease_lost(deferral)
        return settled


def lease_lost(deferral: Deferral) -> CallerError:
    """The answer to whoever comes with a lease that is not, or no longer, theirs. `status` says where it stands now."""
    return CallerError(
        "LEASE_LOST",
        "this lease is not, or no longer, yours; nothing was changed",
        status=409,
        facts={"queue_id": deferral.id, "status": deferral.state.value},
    )


def old_life(route: Route) -> CallerError:
    """The answer to an earlier life of a workspace."""
    known = route.workspace
    return CallerError(
        "OLD_LIFE",
        f"another life of workspace {route.id} has begun; this one claims and finishes nothing any more",
        status=409,
        facts={"incarnation": known.incarnation},
    )
