"""What an admin does to deferrals: drive a dead letter again, cancel one, drop what has waited for too long.

Owns: when each may be done, the reasons that are kept, one line of the decision log for each deferral.
Knows nothing of: HTTP, who is the admin, how a deferral's end is written.
"""

import asyncio
from collections.abc import Callable, Mapping
from datetime import timedelta

from proxy.clock import Now
from proxy.core.decision import Decision, Trigger
from proxy.core.deferral import Deferral, State
from proxy.core.errors import CallerError, ProxyError
from proxy.loops.deferring import Deferring
from proxy.loops.records import Records
from proxy.loops.routing import Route, Routing
from proxy.loops.tasks import Tasks
from proxy.store import Store, StoreFailure

CHUNK = 256
"""Deferrals that are dropped side by side: they share commits, and others' writes get in between."""


class Tending:
    """Looks after queues by an admin's word. `ring` wakes the replayer."""

    def __init__(
        self,
        *,
        store: Store,
        routing: Routing,
        records: Records,
        deferring: Deferring,
        tasks: Tasks,
        now: Now,
        ring: Callable[[Route], None],
    ) -> None:
        self._store = store
        self._routing = routing
        self._records = records
        self._deferring = deferring
        self._tasks = tasks
        self._now = now
        self._ring = ring

    async def redrive(self, deferral: Deferral) -> Deferral:
        """Queue a dead letter again, with a new budget of tries and a new time to live.

        Raises:
            CallerError: 409: it is no dead letter, a newer request has its key, or its workspace is gone.
        """
        route = self._routing.get(deferral.workspace_id)
        if route is None or deferral.state is not State.DEAD_LETTERED:
            raise _not_now(deferral, "it is no dead letter" if route is not None else "its workspace is gone")
        evidence = {"attempts": deferral.attempts, "last_error": deferral.last_error}
        line = self._line(route, deferral, "redriven", evidence)
        back = await self._deferring.redrive(route, deferral, decision=line)
        if back is None:
            latest = await self._store.deferral(deferral.id) or deferral
            why = "it is no dead letter any more"
            if latest.state is State.DEAD_LETTERED:
                why = "a newer request with its idempotency key is under way, or its workspace is gone"
            raise _not_now(latest, why)
        self._ring(route)
        return back

    async def cancel(self, deferral: Deferral, reason: str) -> Deferral:
        """Cancel what was not delivered yet; a try that is under way is waited for, not for long.

        Raises:
            CallerError: 409: it has ended, or is still being tried.
        """
        text = f"cancelled by an admin: {reason}" if reason else "cancelled by an admin"
        route = self._routing.get(deferral.workspace_id)
        if route is None:
            raise _not_now(deferral, "its workspace is gone")
        line = self._line(route, deferral, "cancelled", {"reason": text})
        latest, cancelled = await self._tasks.withdraw(deferral, text, decision=line)
        if not cancelled:
            being_tried = latest.state is State.LEASED
            raise _not_now(latest, "it is being delivered" if being_tried else "it has ended")
        return latest

    async def drop_stale(self, age: timedelta, workspace_id: str | None) -> int:
        """Drop what was queued longer ago than `age`, in one workspace or in all; return how many.

        Raises:
            ProxyError: the store failed on the way; its facts say how many are dropped nevertheless.
        """
        before = self._now() - age
        reason = f"dropped by an admin: it had waited for more than {age.total_seconds() / 60:g} minutes"
        dropped = 0
        while True:
            found = await self._store.stale(before=before, workspace_id=workspace_id, limit=CHUNK)
            ends = await asyncio.gather(*(self._drop(each, reason) for each in found), return_exceptions=True)
            ended = sum(isinstance(end, Deferral) for end in ends)
            dropped += ended
            for problem in ends:
                if isinstance(problem, StoreFailure):
                    raise _stopped(problem, dropped) from problem
                if isinstance(problem, BaseException):
                    raise problem
            if len(found) < CHUNK or not ended:  # what was leased meanwhile is not stale: somebody delivers it
                return dropped

    async def _drop(self, deferral: Deferral, reason: str) -> Deferral | None:
        route = self._routing.get(deferral.workspace_id)
        line = self._line(route, deferral, "dropped", {"reason": reason}) if route is not None else None
        return await self._deferring.end(
            deferral, State.DROPPED, reason, lease_token=None, task_state="failed", decision=line
        )

    def _line(self, route: Route, deferral: Deferral, action: str, evidence: Mapping[str, object]) -> Decision:
        return self._records.decision(
            route.workspace,
            Trigger.ADMIN,
            action,
            evidence=evidence,
            request_id=deferral.request_id,
            receipt=deferral.id,
        )


def _not_now(deferral: Deferral, why: str) -> CallerError:
    return CallerError("CONFLICT", why, status=409, facts={"queue_id": deferral.id, "status": deferral.state.value})


def _stopped(problem: StoreFailure, dropped: int) -> ProxyError:
    return ProxyError(
        "STORE_UNAVAILABLE",
        f"the store failed on the way ({problem.reason})",
        retry_after=5,
        facts={"busy": True, "dropped": dropped},
    )
