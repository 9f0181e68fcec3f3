"""From "this request, to that workspace" to one upstream call, and back to one outcome.

Owns: joining URLs, the per-workspace pulse and count of calls in flight, and reading what a failure was.
Knows nothing of: verdicts, deferrals, clients.
"""

import asyncio
import functools
from collections.abc import Callable
from dataclasses import dataclass

from proxy.clock import Now
from proxy.core.outcome import GATEWAY_STATUSES, Outcome
from proxy.forward import Answer, Forward, Pulse, RawHeaders, UpstreamFailure, UpstreamRequest
from proxy.loops.routing import Route

LONGEST_KEPT = 512
"""Characters up to which what was worked out is remembered: strangers choose these texts."""
NOTED_EVERY = 0.01
"""Seconds: answers that follow each other more closely are one sign of life."""

POLLS = "polls"
"""Why a workspace is not dialled that fetches its requests itself."""


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

    def call(
        self, route: Route, *, method: str, tail: str, headers: RawHeaders, body: bytes, lines: bytes | None = None
    ) -> "Dialing":
        """Send one request and lend its answer, inside `async with`; see `Dialing`, and `UpstreamRequest.lines`."""
        pulse = Pulse()
        url = route.workspace.url
        if url is None or route.polling:
            return Dialing(self, self._forward, route, pulse, None)
        rules = self._rules
        request = UpstreamRequest(
            method,
            join(url, tail),
            headers,
            body,
            rules.connect_timeout,
            rules.idle_timeout,
            rules.head_limit,
            pulse,
            route.workspace.runtime_type == "process",
            lines,
        )
        return Dialing(self, self._forward, route, pulse, request)

    def answered(self, route: Route) -> None:
        """An answer completed through the data path: a sign of life, noted a hundred times a second at most."""
        at = asyncio.get_running_loop().time()
        if at - route.answered_at >= NOTED_EVERY or route.signs.agent_down_at is not None:
            route.answered_at = at
            route.sign(self._now())


class Dialing:
    """One call to a workspace, entered once: it is counted and its idle window kept open by heartbeats while it lasts.

    Entering raises what `Forward.send` raises, and UpstreamFailure `NOT_SENT` for a workspace that polls, whoever asks.
    """

    __slots__ = ("_answer", "_dialer", "_forward", "_pulse", "_request", "_route")

    def __init__(
        self, dialer: Dialer, forward: Forward, route: Route, pulse: Pulse, request: UpstreamRequest | None
    ) -> None:
        self._dialer = dialer
        self._forward = forward
        self._route = route
        self._pulse = pulse
        self._request = request
        self._answer: Answer | None = None

    async def __aenter__(self) -> Answer:
        route, request = self._route, self._request
        if request is None:
            raise UpstreamFailure(Outcome.NOT_SENT, POLLS if route.polling else "no_url")
        route.busy += 1
        route.pulses.add(self._pulse)
        try:
            self._answer = answer = await self._forward.send(request)
        except BaseException:
            self._end()
            raise
        return answer

    async def __aexit__(self, *_: object) -> None:
        try:
            if self._answer is not None:
                await self._answer.aclose()
        finally:
            self._end()

    def _end(self) -> None:
        route = self._route
        route.pulses.discard(self._pulse)
        route.busy -= 1
        if route.size.rows:
            self._dialer.freed(route)


def join(base: str, tail: str) -> str:
    """Put the raw tail (it starts with `/` or `?`, or is empty) behind a workspace's URL; nothing is decoded.

    The URL's own query, if it has one, comes first.
    """
    return _join_again(base, tail) if len(tail) <= LONGEST_KEPT else _join(base, tail)


def _join(base: str, tail: str) -> str:
    base, _, own_query = base.partition("?")
    path, mark, query = tail.partition("?")
    both = "&".join(part for part in (own_query, query) if part)
    url = base.rstrip("/") + path if path else base
    return f"{url}?{both}" if both or mark else url


_join_again = functools.lru_cache(maxsize=256)(_join)


def gateway(status: int) -> bool:
    """The status says that something in front of the agent, or the agent itself, could not serve."""
    return status in GATEWAY_STATUSES
