"""From a host to addresses that may be dialled.

Owns: the look-up of names, a short memory of the answers, and the judging of every address found.
Knows nothing of: connections, ports, requests; which addresses are forbidden is `core.addresses`.

A name is looked up once and the addresses found are judged *and* dialled: a second look-up behind the check would let
a name point elsewhere in between (DNS rebinding). The memory holds judged answers only for `ttl` seconds, forbidden
ones included; failed look-ups are not remembered. Concurrent look-ups of one name share one, which nobody's leaving
cancels.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from proxy.core.addresses import AddressPolicy, CheckedUrl, UnsafeUrl, check_addresses
from proxy.forward import Outcome, UpstreamFailure

Lookup = Callable[[str], Awaitable[Sequence[str]]]
"""Finds the addresses of a name, as text, best first. Raises OSError (or UnicodeError) when it cannot."""

_REMEMBERED_NAMES = 4096
_FOREVER = float("inf")


async def system_lookup(host: str) -> Sequence[str]:
    """Ask the operating system (hosts file, DNS) in a thread of the loop's executor."""
    found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Judged:
    addresses: tuple[str, ...]
    refusal: UnsafeUrl | None
    expires_at: float


class Resolver:
    """Finds addresses that the policy allows.

    Args:
        policy: what the administrator lifted.
        ttl: seconds for which an answer is remembered; 0 = every request asks again.
        lookup: replaces the operating system's.
    """

    def __init__(self, policy: AddressPolicy, *, ttl: float = 5.0, lookup: Lookup = system_lookup) -> None:
        self._policy = policy
        self._ttl = ttl
        self._lookup = lookup
        self._judged: dict[tuple[str, bool], _Judged] = {}
        self._running: dict[str, asyncio.Task[Sequence[str] | Exception]] = {}

    def known(self, place: CheckedUrl, now: float, *, own_child: bool) -> tuple[str, ...] | None:
        """Give the addresses of a place as far as they are remembered at this time of the loop; None = ask `resolve`.

        Raises:
            UpstreamFailure: `NOT_SENT` `forbidden_address`.
        """
        judged = self._judged.get((place.host, own_child))
        if judged is None or judged.expires_at <= now:
            return None
        return _allowed(place.host, judged)

    async def resolve(self, place: CheckedUrl, *, own_child: bool) -> tuple[str, ...]:
        """Look a place's host up (a literal address is its own answer) and judge every address found.

        Raises:
            UpstreamFailure: `NOT_SENT` `dns` or `forbidden_address`.
        """
        if place.address is not None:
            return self._judge(place.host, (str(place.address),), _FOREVER, own_child=own_child)
        task = self._running.get(place.host)
        if task is None:
            task = asyncio.create_task(self._find(place.host))
            self._running[place.host] = task
            task.add_done_callback(lambda _: self._running.pop(place.host, None))
        found = await asyncio.shield(task)
        if isinstance(found, Exception):
            raise UpstreamFailure(Outcome.NOT_SENT, "dns", f"{place.host} cannot be resolved: {found}") from found
        if not found:
            raise UpstreamFailure(Outcome.NOT_SENT, "dns", f"{place.host} has no address")
        expires_at = asyncio.get_running_loop().time() + self._ttl
        return self._judge(place.host, found, expires_at, own_child=own_child)

    async def aclose(self) -> None:
        """End look-ups that still run."""
        running = list(self._running.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def _find(self, host: str) -> Sequence[str] | Exception:
        """Give the failure as a value, so that a look-up nobody waits for any more stays silent."""
        try:
            return await self._lookup(host)
        except (OSError, UnicodeError) as problem:
            return problem
        except asyncio.CancelledError:  # by `aclose`: those who wait must see a failed call, not their own cancellation
            return ConnectionAbortedError("the look-up was ended")

    def _judge(self, host: str, found: Sequence[str], expires_at: float, *, own_child: bool) -> tuple[str, ...]:
        try:
            addresses = check_addresses(found, self._policy, own_child=own_child)
            judged = _Judged(addresses=addresses, refusal=None, expires_at=expires_at)
        except UnsafeUrl as refusal:
            judged = _Judged(addresses=(), refusal=refusal, expires_at=expires_at)
        if len(self._judged) >= _REMEMBERED_NAMES:
            self._judged.clear()
        self._judged[host, own_child] = judged
        return _allowed(host, judged)


def _allowed(host: str, judged: _Judged) -> tuple[str, ...]:
    if judged.refusal is not None:
        detail = f"{host}: {judged.refusal}"
        raise UpstreamFailure(Outcome.NOT_SENT, "forbidden_address", detail) from judged.refusal
    return judged.addresses
