"""Owns the workspace that somebody else runs. Knows nothing of where it runs, and says so.

It can neither tell whether the compute runs nor start or stop it: a verdict about such a workspace rests on signs of
life alone, and a restart is answered as unmanaged.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from proxy import runtimes
from proxy.core.liveness import ProbeState
from proxy.runtimes import Adopted, Exited, Launch, RuntimeContext, RuntimeFailure, Started


class Runtime(runtimes.Runtime):
    """No runtime: nothing is started, stopped or known."""

    name: ClassVar[str] = "none"
    tells: ClassVar[bool] = False
    host_bound: ClassVar[bool] = False

    def __init__(self, context: RuntimeContext) -> None:
        del context

    def check(self, spec: Mapping[str, Any]) -> list[str]:
        """Accept `type` alone: a launch setting here would be ignored, and whoever wrote it expects something."""
        return [f"runtime.{key}: a workspace without a runtime launches nothing" for key in spec if key != "type"]

    async def inspect(self, workspace_id: str, incarnation: int) -> ProbeState:
        """Return ERROR: it cannot tell."""
        del workspace_id, incarnation
        return ProbeState.ERROR

    async def start(self, launch: Launch) -> Started:
        """Raise RuntimeFailure `unmanaged`."""
        raise _unmanaged("started", launch.workspace_id)

    async def stop(self, workspace_id: str, generation: int, grace: float) -> None:
        """Raise RuntimeFailure `unmanaged`: to return would claim that nothing runs any more."""
        del generation, grace
        raise _unmanaged("stopped", workspace_id)

    async def remove(self, workspace_id: str, grace: float) -> None:
        """Do nothing: there is nothing to forget."""
        del workspace_id, grace

    async def adopt(self) -> list[Exited | Adopted]:
        """Return nothing."""
        return []

    async def aclose(self) -> None:
        """Do nothing."""


def _unmanaged(done: str, workspace_id: str) -> RuntimeFailure:
    return RuntimeFailure("unmanaged", f"workspace {workspace_id} has no runtime: it cannot be {done} from here")
