"""The reconciler: workspaces whose way back was lost on the way are put on it again.

Owns: looking for a death that stands while nothing is about to happen, and for a start that nobody watches.
Knows nothing of: verdicts, brakes, how a restart runs.

Theory of operation. What follows a death or a start is normally begun by whoever wrote it down: a brake's timer, a
readiness watch. If the store fails just then, that follower ends with an error and nobody comes back to it: the record
says "offline", a standing death is not judged again, and the workspace would stay away until this proxy's next start.
So every round looks at the routing table alone and asks again where a workspace is down, its runtime could tell, no
cycle is open and no timer is set, or where something was started and nobody waits for it. All of it is idempotent:
the verdict is reached and the brakes are asked anew.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from proxy.core.decision import Trigger
from proxy.core.lifecycle import Status
from proxy.core.restart import Phase
from proxy.core.workspace import Workspace
from proxy.loops.braking import braked
from proxy.loops.readiness import AWAY
from proxy.loops.routing import Route, Routing

IN_A_ROW = 500
"""Workspaces that are looked at without letting others in: about a millisecond."""


class Reconciler:
    """Makes sure that every workspace that is away has somebody who brings it back."""

    def __init__(
        self,
        *,
        routing: Routing,
        tells: Callable[[Workspace], bool],
        pending: Callable[[str], bool],
        watch: Callable[[Route], None],
        settle: Callable[[Route], Coroutine[Any, Any, None]],
        judge_again: Callable[[Route, Trigger], Coroutine[Any, Any, None]],
    ) -> None:
        self._routing = routing
        self._tells = tells
        self._pending = pending
        self._watch = watch
        self._settle = settle
        self._judge_again = judge_again

    async def sweep(self) -> None:
        """One round over all workspaces.

        Raises:
            Exception: the last thing that went wrong; the others were looked at all the same.
        """
        problem: Exception | None = None
        for number, route in enumerate(self._routing, 1):
            if number % IN_A_ROW == 0:
                await asyncio.sleep(0)
            try:
                await self._look(route)
            except Exception as failure:  # noqa: BLE001 - one workspace's trouble must not hide another's
                problem = failure
        if problem is not None:
            raise problem

    async def _look(self, route: Route) -> None:
        workspace, cycle = route.workspace, route.open_cycle
        if workspace.parked:
            return
        if cycle is not None:
            if cycle.phase is Phase.STARTED:
                await self._settle(route)  # does nothing before it is ready
                self._watch(route)
            return
        if _dead(workspace) and self._tells(workspace):
            if not self._pending(braked(route)):
                await self._judge_again(route, Trigger.COORDINATOR)
        elif workspace.status in AWAY:
            self._watch(route)


def _dead(workspace: Workspace) -> bool:
    """It was declared dead and not abandoned, or it exited and nobody has said yet what that means."""
    if workspace.status in {Status.ABANDONED, Status.RESTARTING}:
        return False
    return workspace.exited_at is not None or (
        workspace.status is Status.OFFLINE and workspace.offline_rule is not None
    )
