"""Owns the probe that asks the runtime. Knows nothing of the network: that compute runs does not make it serve."""

import asyncio
from collections.abc import Mapping
from typing import Any, ClassVar

from proxy import probes
from proxy.core.liveness import ProbeState
from proxy.probes import ProbeContext, Reading, Target, unknown_keys


class Probe(probes.Probe):
    """Ready when the runtime says that this incarnation runs."""

    name: ClassVar[str] = "runtime"
    network: ClassVar[bool] = False

    def __init__(self, context: ProbeContext) -> None:
        self._inspect = context.inspect

    def check(self, spec: Mapping[str, Any]) -> list[str]:
        """Accept `type` alone."""
        return unknown_keys(spec)

    async def probe(self, target: Target, timeout: float) -> Reading:  # noqa: ASYNC109 - the contract's
        """Return the runtime's word; one that fails or takes too long has not told anything: ERROR."""
        try:
            async with asyncio.timeout(timeout):
                state = await self._inspect(target.workspace_id, target.incarnation)
        except TimeoutError:
            return Reading(ready=False, state=ProbeState.ERROR, detail=f"the runtime said nothing within {timeout:g} s")
        except Exception as problem:  # noqa: BLE001 - whatever a runtime's API throws, it is never a death
            return Reading(ready=False, state=ProbeState.ERROR, detail=f"the runtime failed: {type(problem).__name__}")
        return Reading(ready=state is ProbeState.RUNNING, state=state, detail=f"the runtime says {state.value}")
