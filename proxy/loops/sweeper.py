"""Sweeps: what time does to deferrals and to the decision log.

Owns: TTL, ends of leases, retention, trimming; each in bounded steps over indexed statements.
Knows nothing of: replay, verdicts.
"""

from datetime import timedelta

from proxy.clock import Now
from proxy.core.deferral import State
from proxy.loops.deferring import Deferring
from proxy.store import Store
from proxy.store.laws import LEASE_RAN_OUT

CHUNK = 500


class Sweeper:
    """Does what is due, a chunk at a time."""

    def __init__(
        self,
        *,
        store: Store,
        deferring: Deferring,
        now: Now,
        retention: float,
        decision_rows: int,
        decision_days: float,
    ) -> None:
        self._store = store
        self._deferring = deferring
        self._now = now
        self._retention = retention
        self._decision_rows = decision_rows
        self._decision_days = decision_days

    async def leases(self) -> None:
        """Queue again what a lease holder did not finish in time; the replay sweep finds it (scenario 46)."""
        await self._deferring.took_back(await self._store.release_expired(self._now()), LEASE_RAN_OUT)

    async def expiries(self) -> None:
        """End queued deferrals whose time to live has passed; their callers' tasks fail and say so (scenario 47)."""
        for deferral in await self._store.overdue(self._now(), limit=CHUNK):
            await self._deferring.end(
                deferral,
                State.EXPIRED,
                "the request outlived its time to live before the workspace was back",
                lease_token=None,
                task_state="failed",
            )

    async def retention(self) -> None:
        """Forget keys, answers and decisions that are older than they are kept."""
        self._deferring.forget_keys()
        now = self._now()
        if self._retention > 0:
            before = now - timedelta(seconds=self._retention)
            while await self._store.purge(ended_before=before, limit=CHUNK) == CHUNK:
                pass
        if self._decision_days > 0 or self._decision_rows > 0:
            before = now - timedelta(days=self._decision_days or 36500)
            await self._store.trim_decisions(before=before, rows=self._decision_rows)
