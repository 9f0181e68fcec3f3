"""The 202 for a request that was put away, and the answer to its repetition.

Owns: the receipt's headers, the deferred task in the caller's binding, the plain receipt, which status a client takes.
Knows nothing of: why a request was put away, how a row is written.
"""

from typing import Any

from aiohttp import hdrs, web

from proxy.core import a2a
from proxy.core.deferral import ACTIVE
from proxy.core.errors import CallerError
from proxy.core.times import rfc3339
from proxy.loops.deferring import Receipt
from proxy.web.answers import RECEIPT, REQUEST_ID, json_answer
from proxy.web.asked import Asked

GO_CLIENT = "go-http-client/"
ACCEPTED, OK = 202, 200
LAST_SEEN = "Holdfast-Last-Seen"
"""When a polling workspace last gave a sign of life: who waits for it wants to know."""
QUEUED_MESSAGE = "the request is stored; its receipt will hold the workspace's answer"


class Receipts:
    """Answers with receipts. `deferred_status`: `auto`, `202` or `200`."""

    def __init__(self, deferred_status: str) -> None:
        self._deferred_status = deferred_status

    def accepted(self, asked: Asked, receipt: Receipt, headers: dict[str, str]) -> web.Response:
        """A request waits in its queue, or goes on without its caller."""
        deferral = receipt.deferral
        call = asked.call()
        headers = {
            **headers,
            REQUEST_ID: asked.request_id,
            RECEIPT: deferral.id,
            hdrs.LOCATION: f"/workspaces/{asked.route.id}/queue/{deferral.id}",
        }
        seen = asked.route.signs.last_sign_at
        last_seen = rfc3339(seen) if seen is not None else None
        if asked.route.polling:
            headers[LAST_SEEN] = last_seen or "never"
        if deferral.task is not None:
            body = a2a.send_answer(call, deferral.task.json, a2a.Version(deferral.task.version))
            return web.Response(body=body, status=self._status(asked), headers=headers, content_type="application/json")
        said: dict[str, Any] = {
            "queued": True,
            "queue_id": deferral.id,
            "queue_depth": receipt.depth,
            "message": QUEUED_MESSAGE,
        }
        if asked.route.polling:
            said["last_seen"] = last_seen
        return json_answer(said, ACCEPTED, headers)

    def joined(self, asked: Asked, receipt: Receipt, headers: dict[str, str]) -> web.Response:
        """Answer a retry with what the first one has: its answer, or its place in the queue."""
        deferral = receipt.deferral
        if deferral.state in ACTIVE:
            return self.accepted(asked, receipt, headers)
        headers = {**headers, REQUEST_ID: asked.request_id, RECEIPT: deferral.id}
        if deferral.task is not None:
            body = a2a.send_answer(asked.call(), deferral.task.json, a2a.Version(deferral.task.version))
            return web.Response(body=body, status=OK, headers=headers, content_type="application/json")
        answer = deferral.answer
        if answer is None:
            raise CallerError("IDEMPOTENCY_CONFLICT", "an earlier request with this key has ended", status=409)
        response = web.Response(body=answer.body, status=answer.status, headers=headers)
        for name, value in answer.headers:
            if name.lower() == b"content-type":
                response.headers[hdrs.CONTENT_TYPE] = value.decode("latin-1")
        return response

    def _status(self, asked: Asked) -> int:
        """202, except for clients that take nothing but 200 (the official Go client) and have not asked for 202."""
        if self._deferred_status != "auto":
            return int(self._deferred_status)
        if "respond-async" in asked.prefer:
            return ACCEPTED
        return OK if asked.user_agent.lower().startswith(GO_CLIENT) else ACCEPTED
