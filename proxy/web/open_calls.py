"""Direct calls that are open: a slow call is not a broken call.

Owns: which calls run, when one is adopted by a deferral, and what becomes of them when the proxy stops.
Knows nothing of: how a call is made, how its answer is passed on, how a deferral is written.

Theory of operation. Only its idle window ends an upstream call. A client that leaves, a deadline that passes
(`X-Timeout`, `Prefer: wait`) or a proxy that stops ends the waiting, not the work. What can be deferred is then
*adopted*: a deferral is committed that is leased already, by this proxy, while the call goes on; the call's answer
completes it, and only if the call breaks is it queued, marked. A call is adopted at most once, whoever asks first.

                    ┌── client leaves, deadline ──> adopting ──commit──> adopted ──answer──> completed
    open ──────────┤                                                       └──breaks──> queued, `maybe`
                    ├── answer begins ──> passing on (a stream is never adopted)
                    └── proxy stops ──> cut; committed as `maybe`, answered 202

Once something of a stream is passed on, the client has it and nothing is adopted any more.
"""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any

from aiohttp import ClientConnectionResetError
from aiohttp.web_protocol import RequestHandler

from proxy.core.deferral import Deferral
from proxy.web.arrived import Client
from proxy.web.asked import Asked
from proxy.web.passed_on import InParts

Adopter = Callable[[Asked], Coroutine[Any, Any, Deferral]]


class Connection(RequestHandler):
    """A client's connection that aiohttp reads (`web.arrived.Client`); it tells when the client leaves."""

    on_gone: Callable[[], None] | None = None

    def connection_lost(self, exc: BaseException | None) -> None:
        """See `asyncio.BaseProtocol`."""
        super().connection_lost(exc)
        if self.on_gone is not None:
            self.on_gone()

    @property
    def remote(self) -> str | None:
        """See `Client`."""
        peer = self.peername
        return str(peer[0]) if isinstance(peer, tuple | list) and peer else None

    def write(self, data: bytes) -> None:
        """See `Client`."""
        transport = self.transport
        if transport is None or transport.is_closing():
            raise ClientConnectionResetError("the client has left")
        transport.write(data)

    async def drain(self) -> None:
        """See `Client`."""
        await self._drain_helper()

    def hang_up(self) -> None:
        """See `Client`."""
        if self.transport is not None:
            self.transport.close()


class OpenCall:
    """One direct call.

    `response` is set once something of the answer is on its way to the client; `streaming` when that is a stream.
    `drained`: the call was cut because the proxy stops. `over`: it broke or was cut;
    somebody finds an answer for it. `left`: its client was answered otherwise; nothing of this answer goes to it.
    """

    __slots__ = ("_adopter", "_adoption", "asked", "drained", "left", "over", "response", "streaming", "task")

    def __init__(self, asked: Asked, adopter: Adopter) -> None:
        self.asked = asked
        self.response: InParts | None = None
        self.streaming = False
        self.drained = False
        self.over = False
        self.left = False
        self.task: asyncio.Task[Any] | None = None
        self._adopter = adopter
        self._adoption: asyncio.Task[Deferral] | None = None

    @property
    def adoptable(self) -> bool:
        """Whether it may go on as a deferral. One that is over may not: nothing would end that lease."""
        return not self.streaming and not self.over and self.asked.adoptable

    def client_left(self) -> None:
        """Nobody waits for the answer any more; what can be kept is kept."""
        if self.adoptable:
            self._adopt()

    def _adopt(self) -> asyncio.Task[Deferral]:
        if self._adoption is None:
            self._adoption = asyncio.create_task(self._adopter(self.asked), name="holdfast-adopt")
            # Whoever waits hears of a failure; a client that left does not.
            self._adoption.add_done_callback(lambda done: done.cancelled() or done.exception())
        return self._adoption

    @property
    def asked_to_adopt(self) -> bool:
        """Somebody has begun to adopt it."""
        return self._adoption is not None

    async def adopt(self) -> Deferral:
        """Adopt it now, or join the adoption; the deferral is committed when this returns.

        Raises:
            HoldfastError: it could not be committed.
        """
        return await asyncio.shield(self._adopt())

    async def ended(self) -> Deferral | None:
        """The call brought no answer: from now on nobody adopts it. Returns the deferral that did before."""
        self.over = True
        return await self.adopted()

    async def adopted(self) -> Deferral | None:
        """The deferral that waits for this call's answer; None when there is none, or none could be committed."""
        if self._adoption is None:
            return None
        try:
            return await asyncio.shield(self._adoption)
        except Exception:  # noqa: BLE001 - whoever asked for the adoption was told; the call has nobody to answer to
            return None


class OpenCalls:
    """Every direct call of this proxy that is open."""

    def __init__(self) -> None:
        self._calls: set[OpenCall] = set()
        self._idle: asyncio.Event | None = None  # made by who waits for it
        self._kept: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        """How many."""
        return len(self._calls)

    def begin(self, call: OpenCall, client: Client) -> None:
        """A call runs in the current task; it hears of its client's leaving until `end`."""
        call.task = asyncio.current_task()
        self._calls.add(call)
        if call.asked.method == "POST":
            client.on_gone = call.client_left

    def end(self, call: OpenCall, client: Client) -> None:
        """A call has ended."""
        if client.on_gone == call.client_left:  # a call that goes on without its client has lost it
            client.on_gone = None
        self._calls.discard(call)
        if self._idle is not None and not self._calls:
            self._idle.set()

    def keep(self, task: asyncio.Task[Any]) -> None:
        """Let a call go on without a handler that waits for it."""
        self._kept.add(task)
        task.add_done_callback(self._kept.discard)

    async def drain(self, seconds: float) -> int:
        """Let open calls end for so long, then cut the rest; returns how many were cut."""
        self._idle = asyncio.Event()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._calls:
                    self._idle.clear()
                    await self._idle.wait()
        left = list(self._calls)
        for call in left:
            call.drained = True
            if call.task is not None:
                call.task.cancel()
        await asyncio.gather(*self._kept, return_exceptions=True)
        return len(left)
