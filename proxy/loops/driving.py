"""Driving one restart: stop what runs, start what comes next, each step on record before the next one.

Owns: the steps of a recorded cycle, its lease, and the token and environment that a started child gets.
Knows nothing of: who asked for a restart, brakes, when a workspace is ready, what follows a failure.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Protocol

from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_exponential

from proxy.clock import Now
from proxy.core.decision import Decision
from proxy.core.lifecycle import Desired
from proxy.core.restart import OPEN_PHASES, Phase, Restart
from proxy.core.workspace import Workspace
from proxy.loops.background import Background
from proxy.loops.records import Records
from proxy.loops.restart_lines import RestartLines
from proxy.loops.routing import Route, Routing
from proxy.runtimes import Launch, Runtime, RuntimeFailure
from proxy.store import Store, TokenRecord

STOP_TRIES = 3


class TokenMint(Protocol):
    """Makes the token that a started child gets."""

    def __call__(self, workspace_id: str, incarnation: int) -> tuple[str, TokenRecord]:
        """Return the token itself and its record."""


class LeaseLost(Exception):  # noqa: N818 - it says what happened: somebody else acts now
    """This proxy does not drive the cycle any more: another one took it over, or it has ended."""


class Parked(Exception):  # noqa: N818 - it says what happened: its compute is not wanted just now
    """Administration keeps the workspace from running; what the cycle has started so far is to be stopped."""


class Driving:
    """Carries cycles out."""

    def __init__(
        self,
        *,
        records: Records,
        store: Store,
        routing: Routing,
        runtimes: Callable[[Workspace], Runtime],
        background: Background,
        now: Now,
        mint: TokenMint,
        chance_boot_id: Callable[[], str],
        own_url: Callable[[], str],
        owner: str,
        lease: float,
        stop_grace: float,
    ) -> None:
        self._lines = RestartLines(records)
        self._store = store
        self._routing = routing
        self._runtime = runtimes
        self._background = background
        self._now = now
        self._mint = mint
        self._boot_id = chance_boot_id
        self._own_url = own_url
        self._owner = owner
        self._lease = lease
        self._stop_grace = stop_grace

    async def drive(self, route: Route, cycle: Restart) -> Restart:
        """Stop the old generation, start this one; return the cycle as it then stands.

        Raises:
            RuntimeFailure: the runtime could not; `removed` when nobody wants the workspace any more.
            LeaseLost: another proxy drives it.
            Parked: it was parked meanwhile.
        """
        async with self._background.ticking(self._lease / 3, lambda: self._renew(route, cycle)):
            await self.stop(route, cycle.generation)
            stopped = replace(cycle, phase=Phase.STOPPED)
            cycle = await self.save(route, stopped, self._lines.came_to(route.workspace, stopped, self._now()))
            await self._start(route, cycle)
        return cycle

    async def stop(self, route: Route, generation: int) -> None:
        """Stop what is older than `generation`; RuntimeFailure when it could not be done in several tries."""
        tries = AsyncRetrying(
            stop=stop_after_attempt(STOP_TRIES),
            wait=wait_exponential(multiplier=1, min=1),
            retry=retry_if_exception_type(RuntimeFailure),
            reraise=True,
        )
        async for attempt in tries:
            with attempt:
                await self._runtime(route.workspace).stop(route.id, generation, self._grace(route))

    def _grace(self, route: Route) -> float:
        return float((route.workspace.runtime or {}).get("stop_grace", self._stop_grace))

    async def _start(self, route: Route, cycle: Restart) -> None:
        _check_wanted(route)
        workspace = route.workspace
        token, record = self._mint(workspace.id, cycle.incarnation)
        boot_id = self._boot_id()
        await self._store.add_token(record)
        self._routing.add_token(record)
        env = {
            "HOLDFAST_WORKSPACE_ID": workspace.id,
            "HOLDFAST_INCARNATION": str(cycle.incarnation),
            "HOLDFAST_BOOT_ID": boot_id,
            "HOLDFAST_URL": self._own_url(),
            "HOLDFAST_TOKEN": token,
        }
        runtime = self._runtime(workspace)
        await runtime.start(
            Launch(
                workspace_id=workspace.id,
                incarnation=cycle.incarnation,
                generation=cycle.generation,
                spec=workspace.runtime or {},
                env=env,
                data=workspace.data.encode() if workspace.data is not None else None,
            )
        )
        if route.workspace.desired is Desired.REMOVED:
            # Its removal may have been carried out before this start was.
            await runtime.remove(route.id, self._grace(route))
        _check_wanted(route)

    async def save(self, route: Route, cycle: Restart, line: Decision | None = None) -> Restart:
        """Write a phase of our own cycle, and what the decision log says of it.

        Raises:
            LeaseLost: it is not ours any more; nothing was written.
        """
        held = route.open_cycle
        owner = held.lease_owner if held is not None else self._owner
        if cycle.phase in OPEN_PHASES:
            cycle = replace(cycle, lease_owner=self._owner, lease_until=self._now() + timedelta(seconds=self._lease))
        if not await self._store.save_restart(cycle, held_by=owner, decision=line):
            raise LeaseLost(f"generation {cycle.generation} of workspace {route.id}")
        route.note_cycle(cycle)
        return cycle

    async def _renew(self, route: Route, cycle: Restart) -> None:
        current = route.open_cycle
        if current is not None and current.generation == cycle.generation:
            await self.save(route, current)


def _check_wanted(route: Route) -> None:
    if route.workspace.desired is Desired.REMOVED:
        raise RuntimeFailure("removed", "the workspace was removed during its restart")
    if route.workspace.parked:
        raise Parked
