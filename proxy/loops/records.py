"""Compare-and-set on workspace records: read, derive, write, and again when somebody else was faster.

Owns: the retry of a lost race, and the rule that the routing table takes what the store returned.
Knows nothing of: what a change means; callers pass a pure function from record to record.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from proxy.clock import Now
from proxy.core.decision import Decision, Trigger
from proxy.core.lifecycle import Desired
from proxy.core.restart import Restart
from proxy.core.workspace import Workspace
from proxy.loops.routing import Route, Routing
from proxy.store import Store, TokenRecord

MOST_RACES = 50
"""A change that loses this often has met a bug, not a race."""


class Records:
    """Writes workspace records and keeps the routing table equal to them."""

    def __init__(self, store: Store, routing: Routing, now: Now) -> None:
        self._store = store
        self._routing = routing
        self._now = now

    async def change(
        self,
        route: Route,
        derive: Callable[[Workspace], Workspace | None],
        *,
        decide: Callable[[Workspace], Decision] | None = None,
    ) -> Workspace | None:
        """Write what `derive` makes of the record; None when it makes nothing or nothing new of it.

        `derive` may be called again with a fresher record, so it must be pure. `decide` makes the line of the decision
        log that is committed with the change.
        """
        for _ in range(MOST_RACES):
            before = route.workspace
            after = derive(before)
            if after is None or after == before:
                return None
            saved = await self._store.replace(after, decision=decide(after) if decide else None)
            if saved is not None:
                self._routing.put(saved)
                return saved
            if not await self.refresh(route):
                return None
        raise RuntimeError(f"workspace {route.id}: {MOST_RACES} lost races in a row")

    async def write(
        self,
        workspace: Workspace,
        *,
        restart: Restart | None = None,
        token: TokenRecord | None = None,
        retire_tokens: bool = False,
        decision: Decision | None = None,
        route: Route,
    ) -> Workspace | None:
        """Write one record with what belongs to it, once; None when the race was lost (the route is fresh then)."""
        saved = await self._store.replace(
            workspace, restart=restart, token=token, retire_tokens=retire_tokens, decision=decision
        )
        if saved is None:
            await self.refresh(route)
            return None
        self._routing.put(saved)
        if restart is not None:
            route.note_cycle(restart)
        if retire_tokens:
            self._routing.retire_tokens(saved.id, saved.incarnation)
        if token is not None:
            self._routing.add_token(token)
        return saved

    def took(self, route: Route, saved: Workspace) -> None:
        """Take over a record that a caller wrote by itself."""
        self._routing.put(saved)
        route.workspace = saved

    async def refresh(self, route: Route) -> bool:
        """Read the record again; False when the workspace is gone, and then its route says so."""
        fresh = await self._store.workspace(route.id)
        if fresh is None or fresh.desired is Desired.REMOVED:
            route.workspace = fresh or replace(route.workspace, desired=Desired.REMOVED)
            if self._routing.get(route.id) is route:
                self._routing.drop(route.id)
            return False
        self._routing.put(fresh)
        return True

    def decision(
        self,
        workspace: Workspace,
        trigger: Trigger,
        action: str,
        *,
        verdict: str = "",
        rule: str = "",
        policy: str = "",
        evidence: Mapping[str, Any] | None = None,
        request_id: str | None = None,
        receipt: str | None = None,
    ) -> Decision:
        """Make a line of the decision log about this record, stamped now."""
        return Decision(
            workspace_id=workspace.id,
            at=self._now(),
            trigger=trigger,
            action=action,
            verdict=verdict,
            rule=rule,
            policy=policy,
            evidence=evidence or {},
            request_id=request_id,
            receipt=receipt,
            incarnation=workspace.incarnation,
            generation=workspace.generation,
        )
