"""Passing an agent's answer on: byte for byte, as it comes, and honest about an end that was none.

Owns: what is read whole first and what is relayed, the rewriting of mapped ids, broken answers.
Knows nothing of: how cards are shown (`web.cards`), what a failed call then gets, deferrals, verdicts.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

from aiohttp import ClientConnectionResetError

from proxy.core import a2a
from proxy.core.errors import HoldfastError, WorkspaceError
from proxy.forward import Answer, UpstreamFailure
from proxy.forward.headers import AnswerFields, answer_fields
from proxy.telemetry import EventName, Telemetry
from proxy.web.arrived import Arrived
from proxy.web.asked import Asked
from proxy.web.cards import Cards
from proxy.web.open_calls import OpenCall
from proxy.web.passed_on import InParts, PassedOn, Reply, Whole
from proxy.web.quiet_streams import Attendant, QuietStream, may_be_commented
from proxy.web.resuming import Interrupted, can_resume

BUFFERED = 1024 * 1024
"""Answers of at most this declared length are read whole before the first byte is passed on, so that one that breaks
becomes a clean 502. Longer ones and all streams are passed on as they arrive."""

HEAD_HELD = 0.1
"""Seconds for which a stream's head waits for the first event, so that a stream that breaks at once is a clean 502."""

NO_CONTENT = 204
"""An answer of this status has no Content-Length (RFC 9110 section 8.6)."""

Broken = Callable[[Asked, UpstreamFailure], Awaitable[None]]


class Passing:
    """Passes answers on. `silence`: seconds after which a quiet event stream gets a comment; None: never.

    `resumes`: a stream that breaks may go on (`web.resuming`).
    """

    def __init__(
        self, *, telemetry: Telemetry, cards: Cards, answer_limit: int, silence: float | None, resumes: bool
    ) -> None:
        self._telemetry = telemetry
        self._cards = cards
        self._answer_limit = answer_limit
        self._attendant = Attendant(silence)
        self._resumes = resumes

    async def pass_on(
        self, arrived: Arrived, call: OpenCall, answer: Answer, *, card: bool, broken: Broken
    ) -> tuple[Reply, bytes | None]:
        """Pass an answer on; return it and, of an answer that is no stream, its body as the agent sent it.

        A `Whole` is still to be sent, and so is what `Asked.afterwards` makes of it. What went out in parts is sent
        when this returns, as far as it came.

        Raises:
            Interrupted: a stream broke that may go on.
            UpstreamFailure: the answer broke before anything of it was passed on, or while nobody waited any more.
        """
        asked = call.asked
        mapped = card or asked.rewritten
        fields = answer_fields(answer.headers, reframed=mapped or answer.status == NO_CONTENT)
        if not fields.stream and (mapped or (fields.length is not None and fields.length <= BUFFERED)):
            content = await answer.read(self._answer_limit)
            shown = a2a.rename_answer(content, asked.names, contexts=asked.contexts) if asked.renames else content
            if asked.afterwards is not None:
                instead = await asked.afterwards(answer.status, shown)
                if instead is not None:
                    return instead, content
            if card:
                return self._cards.show(arrived, asked, answer, shown), content
            whole = Whole(
                status=answer.status, reason=answer.reason, fields=fields, request_id=asked.request_id, body=shown
            )
            return whole, content
        return await self._relay(arrived, call, answer, fields, broken)

    async def _relay(
        self, arrived: Arrived, call: OpenCall, answer: Answer, fields: AnswerFields, broken: Broken
    ) -> tuple[PassedOn, bytes | None]:
        """Relay chunk by chunk, each flushed as it came. What is no stream is also kept, should its client leave.

        An answer's head leaves with its first bytes, so that one that breaks before them is a clean 502. But a stream's
        first event may be long in coming while its client waits for the head: that one waits a moment only.
        """
        asked = call.asked
        response = InParts(
            arrived, status=answer.status, reason=answer.reason, fields=fields, request_id=asked.request_id
        )
        call.streaming = fields.stream
        kept: list[bytes] | None = None if fields.stream or asked.method != "POST" else []
        left = call.left
        quiet = self._attend(arrived, call, response, answer) if fields.stream and not left else None
        relayed = asked.relayed if fields.stream else None
        first = last = b""
        size = 0
        try:
            async for chunk in answer.chunks() if relayed is None else renamed(answer.chunks(), relayed, asked):
                size += len(chunk)
                if kept is not None and size <= self._answer_limit:
                    kept.append(chunk)
                else:
                    kept = None
                left = left or call.left
                first, last = first or chunk, chunk
                if not left:
                    call.response = response
                    left = await self._write(arrived, response, chunk, asked)
                if left and kept is None:
                    # The client of a stream left: the upstream call ends with it, and that is nobody's failure.
                    return response, None
            if not left:
                self._gave_up(response.end, asked)
        except UpstreamFailure as failure:
            if left or not response.begun:
                raise
            self._interrupt(asked, response, answer, failure, first, last)
            self.break_off(arrived, response, asked, failure, streaming=fields.stream)
            await broken(asked, failure)
            return response, None
        finally:
            if quiet is not None:
                quiet.end()
            if asked.told is not None:
                await asked.told()
        return response, b"".join(kept) if kept is not None else None

    def _let_go(self, call: OpenCall, response: InParts) -> asyncio.TimerHandle:
        """Send a stream's head after a moment, unless something has happened by then."""
        loop = asyncio.get_running_loop()

        def send() -> None:
            if not (timer.cancelled() or response.begun or call.left):
                call.response = response
                self._gave_up(response.begin, call.asked)

        # One round later: the end of an answer that came together with the moment's is seen first.
        timer = loop.call_later(HEAD_HELD, lambda: loop.call_soon(send))
        return timer

    def _attend(self, arrived: Arrived, call: OpenCall, response: InParts, answer: Answer) -> QuietStream:
        """Look after a stream while it is silent: its head leaves in time, and comments where they may stand."""

        def say(comment: bytes) -> None:
            if response.begun and not arrived.lags:
                self._gave_up(lambda: response.write(comment), call.asked)

        commented = response.fields.length is None and may_be_commented(answer.headers)
        attendant = self._attendant if commented else None
        response.quiet = QuietStream(self._let_go(call, response), say, attendant=attendant)
        return response.quiet

    def _interrupt(  # noqa: PLR0917 - private, and called in one place
        self, asked: Asked, response: InParts, answer: Answer, failure: UpstreamFailure, first: bytes, last: bytes
    ) -> None:
        """Raise `Interrupted` where a stream broke that may go on."""
        quiet = response.quiet
        writable = quiet is not None and response.fields.length is None and may_be_commented(answer.headers)
        ending = quiet.boundary if quiet is not None and writable and first else None
        if ending is not None and self._resumes and can_resume(asked):
            raise Interrupted(failure, response, first=first, last=last, ending=ending) from failure

    async def _write(self, arrived: Arrived, response: InParts, chunk: bytes, asked: Asked) -> bool:
        """Write to the client and wait while it lags; True when it has left."""
        try:
            response.write(chunk)
            if response.quiet is not None:
                response.quiet.passed(chunk)
            if arrived.lags:
                await arrived.drain()
        except ConnectionError:
            return self._left(asked)
        return False

    def _gave_up(self, send: Callable[[], None], asked: Asked) -> bool:
        """Send the client something that needs no waiting for; True when it has left."""
        try:
            send()
        except ClientConnectionResetError:
            return self._left(asked)
        return False

    def _left(self, asked: Asked) -> bool:
        self._telemetry.emit(
            EventName.REQUEST_FORWARDED,
            workspace=asked.route.id,
            incarnation=asked.route.workspace.incarnation,
            request_id=asked.request_id,
            fields={"client": "left"},
        )
        return True

    def break_off(
        self, arrived: Arrived, response: InParts, asked: Asked, failure: UpstreamFailure, *, streaming: bool = True
    ) -> None:
        """End an answer that broke after something of it was passed on, so that nobody takes it for whole."""
        if streaming:
            error = stream_broken(failure)
            self._gave_up(lambda: response.write(last_event(asked, error)), asked)
        arrived.cut()

    def cut_short(self, arrived: Arrived, call: OpenCall, error: HoldfastError) -> PassedOn:
        """End an answer that has begun before its end: the caller's deadline has passed."""
        response = call.response
        if response is None:
            raise ValueError("nothing of the answer has begun")
        if call.streaming:
            self._gave_up(lambda: response.write(last_event(call.asked, error)), call.asked)
            self._gave_up(response.end, call.asked)
        else:
            arrived.cut()
        return response


async def renamed(chunks: AsyncIterator[bytes], names: a2a.EventNames, asked: Asked) -> AsyncIterator[bytes]:
    """A stream's chunks with the caller's ids in them; what of an event is not there yet stays back.

    What the stream has come to is kept before its client hears of the end.
    """
    async for chunk in chunks:
        if changed := names.feed(chunk):
            yield changed
    if rest := names.end():
        yield rest
    if asked.told is not None:
        await asked.told()


def last_event(asked: Asked, error: HoldfastError) -> bytes:
    """The event that ends a broken stream in the caller's binding."""
    body = a2a.error_answer(asked.call_or_none(), error).body
    return b"\n\nevent: error\ndata: " + body + b"\n\n"


def stream_broken(failure: UpstreamFailure) -> WorkspaceError:
    """What a caller is told of a stream that broke."""
    return WorkspaceError(
        "STREAM_BROKEN",
        "the agent's stream broke before its end",
        status=502,
        facts={"delivered": "yes", "reason": failure.reason},
    )
