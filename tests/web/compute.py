"""Compute that says what a test wants, in a proxy that has real sockets and a real database.

Owns: the runtime "scripted", and bringing a workspace to the point from which a story begins.
Knows nothing of: the stories, agents.
"""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, ClassVar

from web.harness import Harness

from proxy.core.evidence import ProbeState
from proxy.core.lifecycle import Status
from proxy.loops.hosting import Hosting
from proxy.runtimes import Adopted, Exited, Launch, Started

AT_ONCE: Mapping[str, Any] = {
    "settle_hold": 0,
    "settle_window": 0,
    "reprobe_delay": 0.01,
    "reprobe_min_interval": 0,
    "restart_debounce": 0,
}
"""A policy under which a verdict comes at once, and a restart may follow at once."""
UNHURRIED: Mapping[str, Any] = {
    "queue__backoff": 60,
    "queue__backoff_cap": 60,
    "queue__sweep": 60,
    "health__sweep": 3600,
}
"""Settings of a proxy that looks at nothing unasked, and leaves what is stored as it was stored."""


class Compute:
    """Every workspace's compute, as the runtime "scripted" tells it: all of it `says` the same.

    A start returns while `starts` is set; what was launched is in `launches`.
    """

    name: ClassVar[str] = "scripted"
    tells: ClassVar[bool] = True
    host_bound: ClassVar[bool] = False

    def __init__(self) -> None:
        self.says = ProbeState.RUNNING
        self.starts = asyncio.Event()
        self.starts.set()
        self.launches: list[Launch] = []
        self.inspected = 0

    def check(self, _: Mapping[str, Any]) -> list[str]:
        return []

    def can_inspect(self, _: Mapping[str, Any]) -> bool:
        return True

    async def inspect(self, workspace_id: str, incarnation: int) -> ProbeState:  # noqa: ARG002 - the contract's
        self.inspected += 1
        return self.says

    async def start(self, launch: Launch) -> Started:
        self.launches.append(launch)
        await self.starts.wait()
        return Started(handle=f"{launch.workspace_id}-{launch.generation}", started_at=datetime(2026, 1, 1, tzinfo=UTC))

    async def stop(self, workspace_id: str, generation: int, grace: float) -> None:
        """Nothing to stop."""

    async def remove(self, workspace_id: str, grace: float) -> None:
        """Nothing to remove."""

    async def adopt(self) -> list[Exited | Adopted]:
        return []

    async def aclose(self) -> None:
        """Nothing to let go of."""


def host(proxy: Harness) -> Compute:
    """Let a proxy know the runtime "scripted"."""
    compute = Compute()
    hosting = proxy.app.hosting
    assert isinstance(hosting, Hosting)
    hosting._runtimes["scripted"] = compute
    return compute


def status(proxy: Harness, name: str = "a") -> Status:
    """A workspace's status as the proxy knows it now."""
    route = proxy.app.routing.get(name)
    assert route is not None
    return route.workspace.status


async def hosted(proxy: Harness, compute: Compute, url: str, name: str = "a", **members: Any) -> str:
    """Enroll a workspace that is hosted by `compute` and ready; return its token. Its next start does not return."""
    policy = {**AT_ONCE, **members.pop("policy", {})}
    token = await proxy.enroll(
        name, url=url, runtime={"type": "scripted"}, probe={"type": "runtime"}, policy=policy, **members
    )
    await proxy.until(lambda: status(proxy, name) is Status.READY)
    compute.starts.clear()
    return token


async def under(proxy: Harness, verdict: str, url: str, **members: Any) -> Compute:
    """Enroll workspace "a" so that its next failed call is judged like this."""
    compute = host(proxy)
    if verdict == "unknown":
        await proxy.enroll("a", url=url, **{"unmanaged_away": "defer", **members})
        return compute
    recent = 0 if verdict == "dead" else 3600
    await hosted(proxy, compute, url, policy={"recent_heartbeat": recent}, **members)
    compute.says = ProbeState.RUNNING if verdict == "alive" else ProbeState.NOT_RUNNING
    return compute
