"""Answers that Holdfast makes itself, and answers that it passes on.

Owns: turning a `HoldfastError` or a JSON-able value into a response, and the response that carries an agent's answer.
Knows nothing of: why.
"""

from collections.abc import Mapping
from typing import Any

import msgspec
from aiohttp import hdrs, web
from multidict import CIMultiDict

from proxy.core import a2a
from proxy.core.errors import HoldfastError, ProxyError
from proxy.forward import RawHeaders
from proxy.store import StoreFailure

REQUEST_ID = "Holdfast-Request-Id"
VERDICT = "Holdfast-Verdict"
RESTART = "Holdfast-Restart"
RECEIPT = "Holdfast-Receipt"


def json_answer(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """A JSON answer of our own."""
    return web.Response(
        body=msgspec.json.encode(value), status=status, content_type="application/json", headers=headers
    )


def error_answer(
    error: HoldfastError, call: a2a.Call | None = None, headers: Mapping[str, str] | None = None
) -> web.Response:
    """An error in the caller's own binding; plain JSON without a call."""
    said = a2a.error_answer(call, error)
    response = web.Response(body=said.body, status=said.status, headers=headers)
    response.headers[hdrs.CONTENT_TYPE] = said.content_type
    if error.retry_after is not None:
        response.headers[hdrs.RETRY_AFTER] = str(error.retry_after)
    return response


def store_failed(problem: StoreFailure) -> ProxyError:
    """The error for a request that needed the store, when the store could not."""
    return ProxyError(
        "STORE_UNAVAILABLE",
        f"the store could not do it ({problem.reason}); nothing was changed",
        retry_after=5,
        facts={"busy": True},
    )


class PassedOn(web.StreamResponse):
    """An agent's answer on its way to the client: its status, reason and header fields as they came.

    aiohttp adds a Content-Type and a Server where there is none; an agent's answer keeps what it has. The Date that it
    adds as well is a gateway's to add (RFC 9110, section 6.6.1).
    """

    def __init__(self, *, status: int, reason: bytes, headers: RawHeaders) -> None:
        fields: CIMultiDict[str] = CIMultiDict()
        for name, value in headers:
            fields.add(name.decode("latin-1"), value.decode("utf-8", "surrogateescape"))
        super().__init__(status=status, reason=reason.decode("latin-1"), headers=fields)
        self._absent = tuple(name for name in (hdrs.CONTENT_TYPE, hdrs.SERVER) if name not in fields)

    async def _prepare_headers(self) -> None:
        await super()._prepare_headers()
        for name in self._absent:
            self._headers.popall(name, None)


class Whole(PassedOn):
    """An agent's answer that is at hand as a whole."""

    def __init__(self, *, status: int, reason: bytes, headers: RawHeaders, body: bytes) -> None:
        super().__init__(status=status, reason=reason, headers=headers)
        self._whole = body

    async def write_eof(self, data: bytes = b"") -> None:
        """Send the body and end."""
        await super().write_eof(data or self._whole)
