"""Runtimes and probes as the loops use them: made once by name, asked by workspace.

Owns: the instances, their contexts, the network access that probes get.
Knows nothing of: when to ask, what an answer means.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Protocol

from proxy import probes, runtimes
from proxy.core.addresses import read_url
from proxy.core.evidence import ProbeState
from proxy.core.workspace import Workspace
from proxy.forward import UpstreamFailure, UpstreamRequest
from proxy.forward.pool import Pool
from proxy.probes import Fetched
from proxy.runtimes import Adopted, Exited, Posted, Runtime, RuntimeContext

DEFAULT_PROBE = "agent_card"


class Hosts(Protocol):
    """What the loops need of runtimes and probes. `on_card` hears of every card that a probe is shown, by workspace."""

    on_card: Callable[[str, bytes], None]

    def runtime(self, workspace: Workspace) -> Runtime:
        """The runtime that hosts a workspace."""

    def tells(self, workspace: Workspace) -> bool:
        """Whether anybody can say if its compute runs."""

    async def inspect(self, workspace: Workspace) -> ProbeState:
        """Ask the runtime about this incarnation."""

    def check_runtime(self, spec: Mapping[str, Any]) -> list[str]:
        """Every problem of a runtime section."""

    def check_probe(self, spec: Mapping[str, Any]) -> list[str]:
        """Every problem of a probe section."""

    async def probe(self, workspace: Workspace) -> bool:
        """Ask the workspace's probe whether it is ready."""

    async def adopt(self) -> list[Exited | Adopted]:
        """Take charge of what an earlier life of this proxy started."""

    async def remove(self, workspace: Workspace, grace: float) -> None:
        """Stop what a removed workspace runs."""

    async def forget(self, workspace_id: str, grace: float) -> None:
        """Stop whatever runs under a name that is no workspace's any more."""

    async def aclose(self) -> None:
        """Let go."""


class Hosting:
    """Every runtime and probe there is; the `Hosts` of production."""

    def __init__(self, context: RuntimeContext, pool: Pool, *, probe_timeout: float) -> None:
        self._pool = pool
        self.on_card: Callable[[str, bytes], None] = lambda _id, _card: None
        context = replace(context, post=_Reach(pool, own_child=False).post)
        self._runtimes: dict[str, Runtime] = {name: runtimes.create(name, context) for name in runtimes.names()}
        self._probe_timeout = probe_timeout
        self._probes = {
            (name, own_child): probes.create(name, self._probe_context(own_child=own_child))
            for name in probes.names()
            for own_child in (False, True)
        }

    # Runtimes

    def runtime(self, workspace: Workspace) -> Runtime:
        """The runtime that hosts a workspace; one that there is no more cannot tell anything."""
        return self._runtimes.get(workspace.runtime_type) or self._runtimes["none"]

    def tells(self, workspace: Workspace) -> bool:
        """Whether anybody can say if its compute runs."""
        return self.runtime(workspace).can_inspect(workspace.runtime or {})

    async def inspect(self, workspace: Workspace) -> ProbeState:
        """Ask the runtime about this incarnation."""
        return await self.runtime(workspace).inspect(workspace.id, workspace.incarnation)

    def check_runtime(self, spec: Mapping[str, Any]) -> list[str]:
        """Every problem of a runtime section."""
        name = spec.get("type")
        if not isinstance(name, str) or name not in self._runtimes:
            return [f"runtime.type: one of {', '.join(self._runtimes)}"]
        return [f"runtime: {problem}" for problem in self._runtimes[name].check(spec)]

    async def adopt(self) -> list[Exited | Adopted]:
        """Take charge of what an earlier life of this proxy started."""
        found: list[Exited | Adopted] = []
        for runtime in self._runtimes.values():
            found += await runtime.adopt()
        return found

    async def remove(self, workspace: Workspace, grace: float) -> None:
        """Stop what a removed workspace runs."""
        await self.runtime(workspace).remove(workspace.id, grace)

    async def forget(self, workspace_id: str, grace: float) -> None:
        """Stop whatever runs under a name that is no workspace's any more."""
        for runtime in self._runtimes.values():
            if runtime.tells:
                await runtime.remove(workspace_id, grace)

    async def aclose(self) -> None:
        """Let go; what runs keeps running."""
        for runtime in self._runtimes.values():
            await runtime.aclose()

    # Probes

    def check_probe(self, spec: Mapping[str, Any]) -> list[str]:
        """Every problem of a probe section."""
        name = spec.get("type")
        if not isinstance(name, str) or (name, False) not in self._probes:
            return [f"probe.type: one of {', '.join(probes.names())}"]
        return [f"probe: {problem}" for problem in self._probes[(name, False)].check(spec)]

    async def probe(self, workspace: Workspace) -> bool:
        """Ask the workspace's probe whether it is ready."""
        spec = workspace.settings.probe or {"type": DEFAULT_PROBE}
        probe = self._probes[(str(spec["type"]), workspace.runtime_type == "process")]
        target = probes.Target(
            workspace_id=workspace.id, incarnation=workspace.incarnation, url=workspace.url, spec=spec
        )
        reading = await probe.probe(target, self._probe_timeout)
        if reading.card is not None:
            self.on_card(workspace.id, reading.card)
        return reading.ready

    def _probe_context(self, *, own_child: bool) -> probes.ProbeContext:
        reach = _Reach(self._pool, own_child=own_child)
        return probes.ProbeContext(inspect=self._inspect_any, fetch=reach.fetch, connect=reach.connect)

    async def _inspect_any(self, workspace_id: str, incarnation: int) -> ProbeState:
        for runtime in self._runtimes.values():
            if runtime.tells:
                state = await runtime.inspect(workspace_id, incarnation)
                if state is not ProbeState.NOT_RUNNING:
                    return state
        return ProbeState.NOT_RUNNING


class _Reach:
    """The network as probes and runtimes may use it: checked addresses, no redirects, no credentials."""

    def __init__(self, pool: Pool, *, own_child: bool) -> None:
        self._pool = pool
        self._own_child = own_child

    async def fetch(self, url: str, *, timeout: float, max_bytes: int) -> Fetched:  # noqa: ASYNC109 - the contract's word
        request = UpstreamRequest(
            method="GET",
            url=url,
            headers=((b"Accept", b"*/*"),),
            connect_timeout=timeout,
            idle_timeout=timeout,
            own_child=self._own_child,
        )
        try:
            async with asyncio.timeout(timeout):
                answer = await self._pool.send(request)
                body: bytes | None = None
                try:
                    body = await answer.read(max_bytes)
                except UpstreamFailure as failure:
                    if failure.reason != "too_large":
                        raise
                finally:
                    await answer.aclose()
                return Fetched(status=answer.status, headers=answer.headers, body=body)
        except UpstreamFailure as failure:
            raise ConnectionError(failure.reason) from failure

    async def post(
        self,
        url: str,
        *,
        headers: tuple[tuple[bytes, bytes], ...],
        body: bytes,
        timeout: float,  # noqa: ASYNC109 - the contract's word
        max_bytes: int,
    ) -> Posted:
        request = UpstreamRequest(
            method="POST",
            url=url,
            headers=headers,
            body=body,
            connect_timeout=timeout,
            idle_timeout=timeout,
            own_child=self._own_child,
        )
        try:
            async with asyncio.timeout(timeout):
                answer = await self._pool.send(request)
                content: bytes | None = None
                try:
                    content = await answer.read(max_bytes)
                except UpstreamFailure as failure:
                    if failure.reason != "too_large":
                        raise
                finally:
                    await answer.aclose()
        except UpstreamFailure as failure:
            refused = failure.reason == "forbidden_address"
            raise (PermissionError if refused else ConnectionError)(failure.reason) from failure
        waits = (value.decode("latin-1") for name, value in answer.headers if name.lower() == b"retry-after")
        return Posted(status=answer.status, body=content, retry_after=next(waits, None))

    async def connect(self, host: str, port: int, *, timeout: float) -> None:  # noqa: ASYNC109 - the contract's word
        shown = f"[{host}]" if ":" in host else host
        try:
            async with asyncio.timeout(timeout):
                place = read_url(f"http://{shown}:{port}")
                addresses = await self._pool.resolve(place, own_child=self._own_child)
                _, writer = await asyncio.open_connection(addresses[0], port)
                writer.close()
                await writer.wait_closed()
        except UpstreamFailure as failure:
            raise ConnectionError(failure.reason) from failure
