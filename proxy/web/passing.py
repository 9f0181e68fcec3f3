"""Passing an agent's answer on: byte for byte, as it comes, and honest about an end that was none.

Owns: what is read whole first and what is relayed, the rewriting of cards and mapped ids, broken answers.
Knows nothing of: what a failed call then gets, deferrals, verdicts.
"""

from collections.abc import Awaitable, Callable

from aiohttp import ClientConnectionResetError, web

from proxy.core import a2a
from proxy.core.errors import HoldfastError, WorkspaceError
from proxy.forward import Answer, RawHeaders, UpstreamFailure
from proxy.forward.headers import answer_headers
from proxy.telemetry import EventName, Telemetry
from proxy.web.answers import PassedOn, Whole
from proxy.web.asked import Asked
from proxy.web.open_calls import OpenCall

BUFFERED = 1024 * 1024
"""Answers of at most this declared length are read whole before the first byte is passed on, so that one that breaks
becomes a clean 502. Longer ones and all streams are passed on as they arrive."""

Broken = Callable[[Asked, UpstreamFailure], Awaitable[None]]


class Passing:
    """Passes answers on. `public_base` says where a workspace's cards shall lead."""

    def __init__(self, *, telemetry: Telemetry, public_url: str | None, answer_limit: int) -> None:
        self._telemetry = telemetry
        self._public_url = public_url
        self._answer_limit = answer_limit

    async def pass_on(
        self, request: web.BaseRequest, call: OpenCall, answer: Answer, *, card: bool, broken: Broken
    ) -> tuple[web.StreamResponse, bytes | None]:
        """Pass an answer on; return the response and, of an answer that is no stream, its body as the agent sent it.

        Raises:
            UpstreamFailure: the answer broke before anything of it was passed on, or while nobody waited any more.
        """
        asked = call.asked
        mapped = card or bool(asked.names)
        length = _length(answer.headers)
        if not is_stream(answer.headers) and (mapped or (length is not None and length <= BUFFERED)):
            content = await answer.read(self._answer_limit)
            return self._whole(request, asked, answer, content, card=card), content
        return await self._relay(request, call, answer, broken)

    def _whole(
        self, request: web.BaseRequest, asked: Asked, answer: Answer, content: bytes, *, card: bool
    ) -> web.StreamResponse:
        shown = content
        if card:
            asked.route.seen_credentials |= a2a.credential_headers_of(content)
            shown = a2a.rewrite_card(content, self._public_base(request, asked), asked.route.workspace.url or "")
        elif asked.names:
            shown = a2a.rename_answer(content, asked.names, contexts={})
        mapped = card or bool(asked.names)
        fields = own_headers(answer_headers(answer.headers, reframed=mapped), asked)
        response = Whole(status=answer.status, reason=answer.reason, headers=fields, body=shown)
        if mapped:
            response.content_length = len(shown)
        return response

    async def _relay(
        self, request: web.BaseRequest, call: OpenCall, answer: Answer, broken: Broken
    ) -> tuple[web.StreamResponse, bytes | None]:
        """Relay chunk by chunk, each flushed as it came. What is no stream is also kept, should its client leave."""
        asked = call.asked
        fields = own_headers(answer_headers(answer.headers, reframed=bool(asked.names)), asked)
        response = PassedOn(status=answer.status, reason=answer.reason, headers=fields)
        streaming = is_stream(answer.headers)
        call.streaming = streaming
        kept: list[bytes] | None = None if streaming or asked.method != "POST" else []
        size, left = 0, False
        try:
            async for chunk in answer.chunks():
                size += len(chunk)
                if kept is not None and size <= self._answer_limit:
                    kept.append(chunk)
                else:
                    kept = None
                if left and kept is None:
                    return response, None
                call.response = response
                left = left or await self._gave_up(_write(request, response, chunk), asked)
                if left and kept is None:
                    # The client of a stream left: the upstream call ends with it, and that is nobody's failure.
                    return response, None
            if not left:
                await self._gave_up(_write(request, response, None), asked)
        except UpstreamFailure as failure:
            if left or not response.prepared:
                raise
            await self._break_off(request, response, asked, failure, streaming=streaming)
            await broken(asked, failure)
            return response, None
        return response, b"".join(kept) if kept is not None else None

    async def _gave_up(self, writing: Awaitable[None], asked: Asked) -> bool:
        """Write to the client; True when it has left."""
        try:
            await writing
        except ClientConnectionResetError:
            self._telemetry.emit(
                EventName.REQUEST_FORWARDED,
                workspace=asked.route.id,
                request_id=asked.request_id,
                fields={"client": "left"},
            )
            return True
        return False

    async def _break_off(
        self,
        request: web.BaseRequest,
        response: web.StreamResponse,
        asked: Asked,
        failure: UpstreamFailure,
        *,
        streaming: bool,
    ) -> None:
        """End an answer that broke after something of it was passed on, so that nobody takes it for whole."""
        if streaming:
            error = stream_broken(failure)
            await self._gave_up(response.write(last_event(asked, error)), asked)
        if request.transport is not None:
            request.transport.close()

    async def cut_short(self, request: web.BaseRequest, call: OpenCall, error: HoldfastError) -> web.StreamResponse:
        """End an answer that has begun before its end: the caller's deadline has passed."""
        response = call.response
        if response is None:
            raise ValueError("nothing of the answer has begun")
        if call.streaming:
            await self._gave_up(response.write(last_event(call.asked, error)), call.asked)
            await self._gave_up(response.write_eof(), call.asked)
        elif request.transport is not None:
            request.transport.close()
        return response

    def _public_base(self, request: web.BaseRequest, asked: Asked) -> str:
        base = self._public_url or f"{request.scheme}://{request.host}"
        return f"{base.rstrip('/')}/workspaces/{asked.route.id}/a2a"


async def _write(request: web.BaseRequest, response: web.StreamResponse, chunk: bytes | None) -> None:
    if not response.prepared:
        await response.prepare(request)
    if chunk is None:
        await response.write_eof()
    else:
        await response.write(chunk)


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


def own_headers(fields: RawHeaders, asked: Asked) -> RawHeaders:
    """An agent's header fields and Holdfast's request id."""
    return (*fields, (b"Holdfast-Request-Id", asked.request_id.encode()))


def _header(headers: RawHeaders, wanted: bytes) -> bytes | None:
    return next((value for name, value in headers if name.lower() == wanted), None)


def _length(headers: RawHeaders) -> int | None:
    value = _header(headers, b"content-length")
    return int(value) if value is not None and value.isdigit() else None


def is_stream(headers: RawHeaders) -> bool:
    """The answer is a stream of server-sent events."""
    return (_header(headers, b"content-type") or b"").lower().startswith(b"text/event-stream")
