"""Too many requests: callers over their rate, and addresses that try tokens.

Owns: which rate is whose, the 429 and the header fields that tell a caller what is left.
Knows nothing of: how a bucket fills (`core.rates`), which requests are counted (`web.admission`, `web.auth`).
"""

import asyncio
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address

from proxy.core.errors import CallerError
from proxy.core.rates import Buckets, Rate, Taken, rate_of
from proxy.core.tokens import Owner
from proxy.setting_kinds.callers import RateSettings
from proxy.telemetry import EventName, Telemetry
from proxy.web.answers import LIMITS
from proxy.web.arrived import Asking

ROUTED_BITS = 64
"""Of an IPv6 address: what follows is its subscriber's to choose."""


def loop_seconds() -> float:
    """Seconds of the event loop's clock, which is never set back."""
    return asyncio.get_running_loop().time()


class CallerLimits:
    """A bucket for every caller; `on` says whether anybody has a limit."""

    def __init__(
        self, settings: RateSettings, telemetry: Telemetry, *, seconds: Callable[[], float] = loop_seconds
    ) -> None:
        per_minute = settings.requests_per_minute
        self._general = Rate(per_minute=per_minute, burst=settings.burst) if per_minute else None
        self._own = dict(rate_of(entry, burst=settings.burst) for entry in settings.callers)
        self._buckets = Buckets(settings.remembered)
        self._telemetry = telemetry
        self.seconds = seconds
        self.on = self._general is not None or any(self._own.values())

    def charge(self, request: Asking, caller: Owner | None) -> None:
        """Count one request; its answer will say what is left. A caller without a token is its address.

        Raises:
            CallerError: 429, with the whole seconds after which the next request is allowed.
        """
        name = caller.caller if caller is not None else f"address:{network_of(request.remote)}"
        rate = self._own.get(name, self._general)
        if rate is None:
            return
        taken = self._buckets.take(name, rate, self.seconds())
        request[LIMITS] = {
            "X-RateLimit-Limit": str(taken.limit),
            "X-RateLimit-Remaining": str(taken.remaining),
            "X-RateLimit-Reset": str(taken.reset),
        }
        if not taken.allowed:
            raise _too_many(taken, self._telemetry, {"caller": name})


class TokenFailures:
    """A bucket for every address from which requests without a valid token came."""

    def __init__(
        self, settings: RateSettings, telemetry: Telemetry, *, seconds: Callable[[], float] = loop_seconds
    ) -> None:
        self._rate = Rate(per_minute=settings.failures_per_minute) if settings.failures_per_minute else None
        self._buckets = Buckets(settings.remembered)
        self._telemetry = telemetry
        self.seconds = seconds

    def check(self, request: Asking) -> None:
        """Refuse an address that has failed too often; what token it shows now is not looked at.

        Raises:
            CallerError: 429.
        """
        if self._rate is None or len(self._buckets) == 0:
            return
        address = network_of(request.remote)
        if not self._buckets.look(address, self._rate, self.seconds()).allowed:
            taken = self._buckets.take(address, self._rate, self.seconds())
            raise _too_many(taken, self._telemetry, {"remote": address})

    def count(self, request: Asking) -> None:
        """A request came without a valid token."""
        if self._rate is not None:
            self._buckets.take(network_of(request.remote), self._rate, self.seconds())


def _too_many(taken: Taken, telemetry: Telemetry, who: dict[str, str]) -> CallerError:
    """The 429; one event a minute and caller, or a flood of requests would be one of events."""
    if taken.refused == 1:
        telemetry.emit(EventName.RATE_EXCEEDED, fields={**who, "limit": taken.limit, "retry_after": taken.retry_after})
    return CallerError("RATE_LIMITED", "too many requests", status=429, retry_after=taken.retry_after)


def network_of(remote: str | None) -> str:
    """The part of an address that one client cannot choose: an IPv4 address, an IPv6 /64; `local` for no address."""
    try:
        address = ip_address((remote or "").partition("%")[0])
    except ValueError:
        return "local"
    if not isinstance(address, IPv6Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    prefix = int(address) >> (128 - ROUTED_BITS) << (128 - ROUTED_BITS)
    return f"{IPv6Address(prefix)}/{ROUTED_BITS}"
