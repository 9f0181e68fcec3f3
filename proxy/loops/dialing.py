"""From "this request, to that workspace" to one upstream call, and back to one outcome.

Owns: joining URLs, the per-workspace pulse and count of calls in flight, and reading what a failure was.
Knows nothing of: verdicts, deferrals, clients.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from proxy.clock import Now
from proxy.core.outcome import GATEWAY_STATUSES, Outcome
from proxy.forward import Answer, Forward, Pulse, RawHeaders, UpstreamFailure, UpstreamRequest
from proxy.loops.routing import Route


@dataclass(frozen=True, slots=True, kw_only=True)
class DialRules:
    """Seconds and bytes of an upstream call."""

    connect_timeout: float
    idle_timeout: float
    head_limit: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """A call that brought no usable answer."""

    outcome: Outcome
    reason: str

    @property
    def idle(self) -> bool:
        """Nothing was heard for the whole idle window."""
        return self.reason == "idle_timeout"


class Dialer:
    """Sends requests to workspaces. `freed` hears of every call that ended while deferrals wait."""

    def __init__(self, forward: Forward, rules: DialRules, now: Now) -> None:
        self._forward = forward
        self._rules = rules
        self._now = now
        self.freed: Callable[[Route], None] = lambda _: None

    @asynccontextmanager
    async def call(
        self, route: Route, *, method: str, tail: str, headers: RawHeaders, body: bytes
    ) -> AsyncIterator[Answer]:
        """Send one request and lend its answer; count it, keep its idle window open by heartbeats, close it.

        Raises:
            UpstreamFailure: as `Forward.send` and the answer's body do.
        """
        workspace = route.workspace
        if workspace.url is None:
            raise UpstreamFailure(Outcome.NOT_SENT, "no_url")
        pulse = Pulse()
        route.busy += 1
        route.pulses.add(pulse)
        try:
            answer = await self._forward.send(
                UpstreamRequest(
                    method=method,
                    url=join(workspace.url, tail),
                    headers=headers,
                    body=body,
                    connect_timeout=self._rules.connect_timeout,
                    idle_timeout=self._rules.idle_timeout,
                    max_head_bytes=self._rules.head_limit,
                    pulse=pulse,
                    own_child=workspace.runtime_type == "process",
                )
            )
            try:
                yield answer
            finally:
                await answer.aclose()
        finally:
            route.pulses.discard(pulse)
            route.busy -= 1
            if route.size.rows:
                self.freed(route)

    def answered(self, route: Route) -> None:
        """An answer completed through the data path: a sign of life."""
        route.sign(self._now())


def join(base: str, tail: str) -> str:
    """Put the raw tail (it starts with `/` or `?`, or is empty) behind a workspace's URL; nothing is decoded.

    The URL's own query, if it has one, comes first.
    """
    base, _, own_query = base.partition("?")
    path, mark, query = tail.partition("?")
    both = "&".join(part for part in (own_query, query) if part)
    url = base.rstrip("/") + path if path else base
    return f"{url}?{both}" if both or mark else url


def gateway(status: int) -> bool:
    """The status says that something in front of the agent, or the agent itself, could not serve."""
    return status in GATEWAY_STATUSES
