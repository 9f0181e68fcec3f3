"""Owns asking whether somebody listens. Knows nothing of what they speak."""

import asyncio
from collections.abc import Mapping
from typing import Any, ClassVar, Final

from proxy import probes
from proxy.probes import ProbeContext, Reading, Target, unknown_keys
from proxy.probes.http import no_url, not_ready, parsed

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_LAST_PORT: Final = 65535


class Probe(probes.Probe):
    """Ready when a TCP connection to the host of the workspace's URL opens, at its port or the one that is set."""

    name: ClassVar[str] = "tcp"
    network: ClassVar[bool] = True

    def __init__(self, context: ProbeContext) -> None:
        self._connect = context.connect

    def check(self, spec: Mapping[str, Any]) -> list[str]:
        """Accept `port`: 1 to 65535."""
        problems = unknown_keys(spec, "port")
        port = spec.get("port", 1)
        if not isinstance(port, int) or isinstance(port, bool) or not 1 <= port <= _LAST_PORT:
            problems.append(f"probe.port: must be a whole number from 1 to {_LAST_PORT}")
        return problems

    async def probe(self, target: Target, timeout: float) -> Reading:  # noqa: ASYNC109 - the contract's
        """Connect once; not ready when there is no URL, or no connection in time."""
        url = parsed(target.url)
        if url is None:
            return no_url()
        try:
            port = target.spec.get("port") or url.port or _DEFAULT_PORTS.get(url.scheme)
            if url.hostname is None or port is None:
                return not_ready("the URL names no host or no port")
            async with asyncio.timeout(timeout):
                await self._connect(url.hostname, port, timeout=timeout)
        except TimeoutError:
            return not_ready(f"no connection within {timeout:g} s")
        except (OSError, ValueError) as problem:
            return not_ready(f"no connection: {type(problem).__name__}")
        return Reading(ready=True, state=None, detail=f"connected to port {port}")
