"""The data path over sockets: pooled keep-alive connections to upstreams, one request out, one answer back.

Owns: how many connections an origin may have, who waits for one, when an idle one is too old, connecting and its
failures. Knows nothing of: HTTP syntax (`forward.connection`), workspaces, verdicts, deferrals.

Theory of operation. An *origin* is scheme, host and port as the URL writes them. It owns a number of slots; a slot is
either a connection (busy or idle) or somebody who is connecting. A request takes the youngest idle connection whose
address is among those that the host's name stands for *now* and that the policy allows; else a free slot; else it waits
in line. What becomes free goes to the line first: an idle connection by hand, a lost connection as a free slot. So
while somebody waits, nothing lies idle, and first come is first served. A slot is counted from the moment it is taken
until the socket is closed, whoever is cancelled in between.

Nothing is sent twice: a request whose reused connection turns out to be dead after the first byte is `MAYBE`, because
the bytes may have been read. What makes that rare is to let connections idle for less time than upstreams do
(`keepalive` and the upstream's own hint) and to look at the socket before it is used.
"""

import asyncio
import contextlib
import errno
import functools
import ssl
from collections import deque
from dataclasses import dataclass

from proxy.core.addresses import AddressPolicy, CheckedUrl, UnsafeUrl, read_url
from proxy.forward import Outcome, UpstreamFailure, UpstreamRequest
from proxy.forward.connection import Connection
from proxy.forward.exchange import Exchange
from proxy.forward.headers import request_head
from proxy.forward.resolver import Lookup, Resolver, system_lookup

LONGEST_KEPT = 512
"""Characters up to which what was worked out is remembered: strangers choose these texts."""
_OUR_OWN_SHORTAGE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSettings:
    """The limits of the upstream side; 0 switches a limit off.

    Args:
        connections_per_origin: open connections per scheme, host and port; streams hold theirs.
        pool_wait: seconds to wait for one of them.
        keepalive: seconds an unused connection is kept; 0 = every request connects anew.
        dns_ttl: seconds a name's addresses are remembered; 0 = every request asks.
        read_buffer: bytes of one answer that may wait for a slow reader.
    """

    connections_per_origin: int = 1000
    pool_wait: float = 5.0
    keepalive: float = 4.0
    dns_ttl: float = 5.0
    read_buffer: int = 262144


class _Origin:
    __slots__ = ("authority", "claims", "idle", "limit", "open", "place", "slots", "text", "waiters")

    def __init__(self, text: str, place: CheckedUrl, limit: int) -> None:
        self.text = text
        self.place = place
        self.authority = place.authority
        self.limit = limit
        self.slots = 0
        self.claims = 0  # those who still want something of it, so that it must not be forgotten
        self.open: set[Connection] = set()
        self.idle: list[Connection] = []
        self.waiters: deque[asyncio.Future[Connection | None]] = deque()

    def take_idle(self, addresses: tuple[str, ...], now: float) -> Connection | None:
        idle = self.idle
        while idle:
            connection = idle.pop()
            if connection.address in addresses and connection.fresh(now):
                return connection
            connection.close()
        return None

    def take_slot(self) -> bool:
        if self.limit and self.slots >= self.limit:
            return False
        self.slots += 1
        return True

    def offer(self, connection: Connection) -> None:
        """Hand an idle connection to the first who waits, or keep it."""
        while self.waiters:
            waiter = self.waiters.popleft()
            if not waiter.done():
                waiter.set_result(connection)
                return
        self.idle.append(connection)

    def give_back_slot(self) -> None:
        """Hand a slot to the first who waits, or free it."""
        while self.waiters:
            waiter = self.waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
        self.slots -= 1

    def pass_on(self, granted: Connection | None) -> None:
        """Hand what somebody was given and cannot use to the next."""
        if granted is None:
            self.give_back_slot()
        elif granted.open:
            self.offer(granted)


class Pool:
    """A `Forward` over real sockets. It belongs to the loop it is first used on.

    Args:
        policy: which private networks may be dialled.
        settings: limits.
        lookup: replaces the operating system's name resolution.
        tls: context for https upstreams; default is the system's trust store with host name verification.
    """

    def __init__(
        self,
        policy: AddressPolicy,
        settings: PoolSettings | None = None,
        *,
        lookup: Lookup = system_lookup,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._settings = settings or PoolSettings()
        self._resolver = Resolver(policy, ttl=self._settings.dns_ttl, lookup=lookup)
        self._tls = tls
        self._origins: dict[str, _Origin] = {}
        self._sweep: asyncio.TimerHandle | None = None
        self._closing = False
        self._empty = asyncio.Event()

    async def send(self, request: UpstreamRequest) -> Exchange:
        """See `Forward.send`."""
        origin_text, target = _split(request.url)
        origin = self._origins.get(origin_text)
        place = origin.place if origin is not None else _read_place(origin_text)
        authority = origin.authority if origin is not None else place.authority
        head = request_head(request.method, target, authority, request.headers, len(request.body), lines=request.lines)
        deadline = None
        now = asyncio.get_running_loop().time()
        addresses = self._resolver.known(place, now, own_child=request.own_child)
        if addresses is None:
            deadline = _deadline(request.connect_timeout)
            addresses = await self._resolve(place, request.own_child, deadline)
            now = asyncio.get_running_loop().time()
            origin = self._origins.get(origin_text)  # it may have come or gone meanwhile
        if self._closing:
            raise _stopping()
        if origin is None:
            origin = self._origins[origin_text] = _Origin(origin_text, place, self._settings.connections_per_origin)
        connection = origin.take_idle(addresses, now)
        if connection is None:
            connection = await self._obtain(origin, addresses, request, deadline)
        exchange = connection.send(request, head)
        try:
            await exchange.head()
        except asyncio.CancelledError:
            exchange.abandon()
            raise
        return exchange

    async def aclose(self) -> None:
        """See `Forward.aclose`; returns when every socket is closed."""
        self._closing = True
        await self._resolver.aclose()
        for origin in list(self._origins.values()):
            for waiter in origin.waiters:
                if not waiter.done():
                    waiter.set_exception(_stopping())
            origin.waiters.clear()
            for connection in list(origin.open):
                connection.close()
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        while self._origins:
            self._empty.clear()
            await self._empty.wait()

    async def resolve(self, place: CheckedUrl, *, own_child: bool) -> tuple[str, ...]:
        """Look a place up as a request to it would, for those who register it or only look whether it listens.

        Raises:
            UpstreamFailure: `NOT_SENT`, `dns` or `forbidden_address`.
        """
        return await self._resolver.resolve(place, own_child=own_child)

    async def _resolve(self, place: CheckedUrl, own_child: bool, deadline: float | None) -> tuple[str, ...]:
        try:
            async with asyncio.timeout_at(deadline):
                return await self._resolver.resolve(place, own_child=own_child)
        except TimeoutError as late:
            raise UpstreamFailure(Outcome.NOT_SENT, "dns", f"{place.host} was not resolved in time") from late

    async def _obtain(
        self, origin: _Origin, addresses: tuple[str, ...], request: UpstreamRequest, deadline: float | None
    ) -> Connection:
        """Wait for an idle connection or a slot, and connect in the latter case."""
        origin.claims += 1
        try:
            wait_until = _deadline(self._settings.pool_wait)
            while not origin.take_slot():
                deadline = None  # waiting in line is not part of connecting
                granted = await self._wait_in_line(origin, wait_until)
                if granted is None:
                    break
                if granted.address in addresses and granted.fresh(asyncio.get_running_loop().time()):
                    return granted
                granted.close()
            return await self._connect(origin, addresses, deadline or _deadline(request.connect_timeout))
        finally:
            origin.claims -= 1
            self._forget_unused(origin)

    async def _connect(self, origin: _Origin, addresses: tuple[str, ...], deadline: float | None) -> Connection:
        """Fill a slot that is counted already with a new connection."""
        try:
            connection = await self._dial(origin.place, addresses, deadline)
        except BaseException:
            origin.give_back_slot()
            raise
        if connection.closed:
            origin.give_back_slot()
        else:
            origin.open.add(connection)
            connection.on_idle = functools.partial(self._on_idle, origin)
            connection.on_closed = functools.partial(self._on_closed, origin)
        if self._closing:
            connection.close()
            raise _stopping()
        if not connection.open:
            raise UpstreamFailure(Outcome.NOT_SENT, "eof", f"{origin.authority} closed the new connection")
        return connection

    async def _wait_in_line(self, origin: _Origin, until: float | None) -> Connection | None:
        """Wait for what becomes free: an idle connection, or None for a slot that is already counted as ours."""
        if self._closing:
            raise _stopping()
        waiter: asyncio.Future[Connection | None] = asyncio.get_running_loop().create_future()
        origin.waiters.append(waiter)
        try:
            async with asyncio.timeout_at(until):
                return await waiter
        except (TimeoutError, asyncio.CancelledError) as late:
            if waiter.cancelled():
                with contextlib.suppress(ValueError):  # passed over already
                    origin.waiters.remove(waiter)
            elif waiter.exception() is None:  # granted in the same moment: the next in line gets it
                origin.pass_on(waiter.result())
            if isinstance(late, asyncio.CancelledError):
                raise
            detail = f"all {origin.limit} connections to {origin.authority} are in use"
            raise UpstreamFailure(Outcome.NOT_SENT, "pool", detail) from late

    async def _dial(self, place: CheckedUrl, addresses: tuple[str, ...], deadline: float | None) -> Connection:
        """Connect to the first address that answers; each gets an equal part of the time that is left."""
        loop = asyncio.get_running_loop()
        tls = self._tls_context() if place.scheme == "https" else None
        failure = UpstreamFailure(Outcome.NOT_SENT, "dns", f"{place.host} has no address")
        for position, address in enumerate(addresses):
            now = loop.time()
            until = None if deadline is None else now + (deadline - now) / (len(addresses) - position)
            make = functools.partial(
                Connection, address, keepalive=self._settings.keepalive, high_water=self._settings.read_buffer
            )
            try:
                async with asyncio.timeout_at(until):
                    _, connection = await loop.create_connection(
                        make, address, place.port, ssl=tls, server_hostname=place.host if tls else None
                    )
            except OSError as problem:
                if position == 0 or failure.reason == "unreachable":
                    failure = _connect_failure(address, place, problem)
            else:
                return connection
        raise failure

    def _tls_context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = ssl.create_default_context()
            self._tls.set_alpn_protocols(["http/1.1"])
        return self._tls

    def _on_idle(self, origin: _Origin, connection: Connection) -> None:
        origin.offer(connection)
        if self._sweep is None:
            self._sweep = asyncio.get_running_loop().call_later(self._settings.keepalive, self._close_stale)

    def _close_stale(self) -> None:
        self._sweep = None
        loop = asyncio.get_running_loop()
        now = loop.time()
        remaining = False
        for origin in self._origins.values():
            stale = [connection for connection in origin.idle if not connection.fresh(now)]
            remaining = remaining or len(stale) < len(origin.idle)
            for connection in stale:
                origin.idle.remove(connection)
                connection.close()
        if remaining:
            self._sweep = loop.call_later(self._settings.keepalive / 2, self._close_stale)

    def _on_closed(self, origin: _Origin, connection: Connection) -> None:
        origin.open.discard(connection)
        if connection in origin.idle:
            origin.idle.remove(connection)
        origin.give_back_slot()
        self._forget_unused(origin)

    def _forget_unused(self, origin: _Origin) -> None:
        if origin.slots == 0 and origin.claims == 0:
            del self._origins[origin.text]
            if not self._origins:
                self._empty.set()


def _split(url: str) -> tuple[str, bytes]:
    """Cut a URL into scheme with authority, and the request target as it stands; short ones are remembered."""
    return _cut_again(url) if len(url) <= LONGEST_KEPT else _cut(url)


def _cut(url: str) -> tuple[str, bytes]:
    start = url.find("://") + 3
    path = url.find("/", start)
    query = url.find("?", start)
    try:
        if query != -1 and (path == -1 or query < path):
            return url[:query], b"/" + url[query:].encode("utf-8", "surrogateescape")
        if path == -1:
            return url, b"/"
        return url[:path], url[path:].encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as problem:
        raise UpstreamFailure(Outcome.NOT_SENT, "bad_request", "the target is no text") from problem


_cut_again = functools.lru_cache(maxsize=256)(_cut)


def _read_place(origin_text: str) -> CheckedUrl:
    """Judge the form here; the resolver judges the addresses, at every request."""
    try:
        return read_url(origin_text)
    except UnsafeUrl as refusal:
        raise UpstreamFailure(Outcome.NOT_SENT, "bad_request", str(refusal)) from refusal


def _deadline(seconds: float) -> float | None:
    return asyncio.get_running_loop().time() + seconds if seconds else None


def _stopping() -> UpstreamFailure:
    return UpstreamFailure(Outcome.NOT_SENT, "closed", "Holdfast is stopping")


def _connect_failure(address: str, place: CheckedUrl, problem: OSError) -> UpstreamFailure:
    # An IPv6 address that cannot be assigned is a host without IPv6, not one that has run out of ports.
    shortage = problem.errno in _OUR_OWN_SHORTAGE or (problem.errno == errno.EADDRNOTAVAIL and ":" not in address)
    if isinstance(problem, TimeoutError):
        reason = "connect_timeout"
    elif isinstance(problem, ConnectionRefusedError):
        reason = "refused"
    elif isinstance(problem, ssl.SSLError):
        reason = "tls"
    elif isinstance(problem, ConnectionError):
        reason = "reset"
    else:
        reason = "resources" if shortage else "unreachable"
    detail = f"{place.host}:{place.port} ({address}): {type(problem).__name__}"
    return UpstreamFailure(Outcome.NOT_SENT, reason, detail)
