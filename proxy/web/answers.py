"""Answers that Holdfast makes itself.

Owns: turning a `HoldfastError` or a JSON-able value into a response.
Knows nothing of: why; answers that are passed on (`web.passed_on`).
"""

from collections.abc import Mapping
from typing import Any

import msgspec
from aiohttp import hdrs, web
from aiohttp.helpers import rfc822_formatted_time

from proxy.core import a2a
from proxy.core.errors import HoldfastError, ProxyError
from proxy.store import StoreFailure
from proxy.web.arrived import Asking

REQUEST_ID = "Holdfast-Request-Id"
VERDICT = "Holdfast-Verdict"
RESTART = "Holdfast-Restart"
RECEIPT = "Holdfast-Receipt"
BODILESS = frozenset({204, 304})
"""Statuses without a body; a length there would be another answer's (RFC 9110 section 8.6)."""
FRAMING = frozenset({hdrs.CONTENT_LENGTH, hdrs.CONNECTION, hdrs.DATE, hdrs.TRANSFER_ENCODING})
LIMITS = web.RequestKey("limits", dict[str, str])
"""The key under which a request keeps the header fields that tell its caller what is left of its rate."""


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


def show_limits(request: Asking, response: web.StreamResponse) -> None:
    """Let an answer say what is left of its caller's rate, if that is counted; an agent's own such fields stay."""
    fields = request.get(LIMITS, {})
    if not any(name in response.headers for name in fields):
        response.headers.update(fields)


def signed(response: web.StreamResponse, request: Asking) -> web.StreamResponse:
    """Name ourselves on our own answers; what we are made of is nobody's business."""
    if not response.prepared:
        response.headers[hdrs.SERVER] = "Holdfast"
        show_limits(request, response)
    return response


def written(response: web.Response, *, keep_alive: bool, with_body: bool) -> bytes:
    """An answer of our own as it goes over HTTP/1.1, for connections that aiohttp does not write to.

    Raises:
        ValueError: a field holds a line end.
    """
    body = response.body
    if body is not None and not isinstance(body, bytes | bytearray):
        raise TypeError("an answer of our own is made of bytes")
    fields = [f"{name}: {value}" for name, value in response.headers.items() if name not in FRAMING]
    fields.append(f"Date: {rfc822_formatted_time()}")
    if response.status not in BODILESS:
        fields.append(f"Content-Length: {len(body or b'')}")
    if not keep_alive:
        fields.append("Connection: close")
    if any(mark in field for field in fields for mark in "\r\n\0"):
        raise ValueError("a header field of our own holds a line end")
    head = "\r\n".join((f"HTTP/1.1 {response.status} {response.reason}", *fields, "", ""))
    return head.encode("utf-8", "surrogateescape") + (body or b"" if with_body else b"")
