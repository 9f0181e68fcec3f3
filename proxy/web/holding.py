"""Callers of unary requests that are kept waiting for the agent's answer, although their request was put away.

Owns: for how long each kind of caller waits, the blanks that keep it waiting, the answer in the end.
Knows nothing of: why a request was put away, streams (`web.told_streams`), how the agent gets the request.

Theory of operation. The deferral is committed before the wait begins, so the wait can end at any moment and nothing is
lost: with the agent's answer when the deferral has ended, with the receipt when the time is up, the client has left, or
the proxy stops. Clients give up on a silent connection after as little as five seconds. A JSON document may begin with
blanks, so a caller over JSON-RPC gets one whenever it has waited in silence for `keep_alive` seconds; a caller over
REST reads its answer's status, which would have left with the first blank, and so waits in silence, for `silent`
seconds only, unless it said with `Prefer: wait` that it can take more.

    committed ──ended before the first blank──────────────> 200 and the task, or the agent's error as it came
        │  └──time up, proxy stops, before the first blank─> the receipt
        └──first blank: its status is the receipt's─┬─ended──────────────> the task, or the agent's JSON-RPC error
                                                    └─time up, proxy stops─> the task as it is then
"""

import asyncio

from aiohttp import web

from proxy.core import a2a
from proxy.core.deferral import ACTIVE, Deferral
from proxy.store import Store, StoreFailure
from proxy.web import profiles
from proxy.web.arrived import Arrived
from proxy.web.asked import Asked
from proxy.web.held_callers import Held, HeldCallers
from proxy.web.passed_on import OwnInParts, Reply
from proxy.web.receipts import Receipted, Receipts
from proxy.web.told_streams import ToldStreams

BLANK = b" "


class Holding:
    """Keeps callers waiting. Seconds: `keep_alive` of silence before a blank, `silent` where none may be sent."""

    def __init__(
        self,
        *,
        store: Store,
        receipts: Receipts,
        callers: HeldCallers,
        streams: ToldStreams,
        keep_alive: float,
        silent: float,
    ) -> None:
        self._store = store
        self._receipts = receipts
        self._streams = streams
        self._keep_alive = keep_alive
        self._silent = silent
        self.callers = callers

    async def wait(self, arrived: Arrived, asked: Asked, receipted: Receipted) -> Reply:
        """Answer a request that was put away: at once, or when there is something to say."""
        call = asked.call()
        if not profiles.waits(asked, call, receipted.deferral):
            return receipted
        if call.streaming:
            return await self._streams.tell(arrived, asked, receipted)
        seconds = self._patience(asked, call) if receipted.may_wait else 0.0
        if seconds <= 0:
            return receipted
        with self.callers.hold(arrived.client, receipted.deferral.id, len(asked.body)) as held:
            if held is None:
                return receipted
            return await self._hold(arrived, asked, receipted, held, seconds)

    def _patience(self, asked: Asked, call: a2a.Call) -> float:
        """Seconds for which the caller waits; at most 0: not at all.

        Who asks for an answer at once gets one. What is no A2A has no form of "not yet" that its client could know, and
        waits only if it asks to. What it has waited for already, while its call was tried, counts.
        """
        wait = asked.wait
        waited = asyncio.get_running_loop().time() - asked.since if asked.since is not None else 0.0
        if not call.blocking or (wait is None and asked.prefers_receipt):
            return 0.0
        if wait is None:
            usual = asked.route.effective.hold_seconds
            silent = min(usual, self._silent - _silence(asked))
            limits = {a2a.Binding.JSONRPC: usual, a2a.Binding.REST: silent, a2a.Binding.OTHER: 0.0}
            wait = limits[call.binding]
        else:
            wait -= waited
        return wait if asked.deadline is None else min(wait, asked.deadline - waited)

    async def _hold(self, arrived: Arrived, asked: Asked, receipted: Receipted, held: Held, seconds: float) -> Reply:
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        wrote = loop.time() - _silence(asked)
        sends_blanks = asked.call().binding is a2a.Binding.JSONRPC
        deferral, parts, news = receipted.deferral, None, True
        while not (held.left or held.over):
            if news:
                found = await self._look(deferral)
                deferral, news = found or deferral, found is None
                if deferral.state not in ACTIVE:
                    break
            patience = until - loop.time()
            if patience <= 0:
                break
            silence = wrote + self._keep_alive - loop.time() if sends_blanks else patience
            if silence > 0 and await held.news(min(silence, patience)):
                news = True
            elif sends_blanks and loop.time() < until:
                parts = parts or OwnInParts(arrived, self._receipts.accepted_again(asked, receipted, deferral))
                parts.write(BLANK)
                wrote = loop.time()
        if deferral.state in ACTIVE and not held.left:  # what it is now, not what it was when the wait began
            deferral = await self._look(deferral) or deferral
        return self._answered(asked, receipted, deferral, parts)

    async def _look(self, deferral: Deferral) -> Deferral | None:
        """What the deferral is now; None while the store cannot say."""
        try:
            return await self._store.deferral(deferral.id) or deferral
        except StoreFailure:
            return None

    def _answered(self, asked: Asked, receipted: Receipted, deferral: Deferral, parts: OwnInParts | None) -> Reply:
        answer: web.Response
        if deferral.state in ACTIVE:
            answer = self._receipts.accepted_again(asked, receipted, deferral)
        else:
            answer = self._receipts.ended(asked, deferral, receipted.verdict)
        if parts is None:
            return answer
        body = answer.body
        parts.write(bytes(body) if isinstance(body, bytes | bytearray) else b"")
        parts.end()
        return parts


def _silence(asked: Asked) -> float:
    """Seconds for which the caller has heard nothing, if its agent was called: an unreachable one answers slowly."""
    return asyncio.get_running_loop().time() - asked.dialled_at if asked.dialled_at is not None else 0.0
