"""The 202 for a request that was put away, the answer to its repetition, and the answer when it has ended.

Owns: the receipt's headers, the deferred task in the caller's binding, the plain receipt, which status a client takes.
Knows nothing of: why a request was put away, how a row is written, who is kept waiting (`web.holding`).
"""

from collections.abc import Mapping
from typing import Any

import msgspec
from aiohttp import hdrs, web

from proxy.core import a2a
from proxy.core.deferral import ACTIVE, Deferral, State
from proxy.core.errors import HoldfastError, WorkspaceError
from proxy.core.times import rfc3339
from proxy.loops.deferring import Receipt
from proxy.settings import Profile
from proxy.web import profiles
from proxy.web.answers import RECEIPT, REQUEST_ID, RESTART, VERDICT
from proxy.web.asked import Asked

GO_CLIENT = "go-http-client/"
ACCEPTED, OK = 202, 200
JSON = "application/json"
LAST_SEEN = "Holdfast-Last-Seen"
"""When a polling workspace last gave a sign of life: who waits for it wants to know."""
QUEUED_MESSAGE = "the request is stored; its receipt will hold the workspace's answer"


class Receipted(web.Response):
    """A receipt, ready to be sent, and the deferral that it is for.

    `may_wait`: its caller has not waited for a call of its own, and may be kept waiting. `joined`: the deferral is an
    earlier request's. `depth` and the headers are what it was made with.
    """

    deferral: Deferral
    depth: int
    joined: bool
    may_wait: bool

    @property
    def verdict(self) -> Mapping[str, str]:
        """Why the request was put away, as header fields."""
        return {name: self.headers[name] for name in (VERDICT, RESTART) if name in self.headers}


class Receipts:
    """Answers with receipts. `deferred_status`: `auto`, `202` or `200`."""

    def __init__(self, deferred_status: str) -> None:
        self._deferred_status = deferred_status

    def accepted(
        self, asked: Asked, receipt: Receipt, headers: Mapping[str, str], *, may_wait: bool = False
    ) -> Receipted:
        """A request waits in its queue, or goes on without its caller."""
        deferral = receipt.deferral
        call = asked.call()
        fields: dict[str, str] = {
            **headers,
            REQUEST_ID: asked.request_id,
            RECEIPT: deferral.id,
            hdrs.LOCATION: f"/workspaces/{asked.route.id}/queue/{deferral.id}",
        }
        seen = asked.route.signs.last_sign_at
        last_seen = rfc3339(seen) if seen is not None else None
        if asked.route.polling:
            fields[LAST_SEEN] = last_seen or "never"
        said: dict[str, Any] = {
            "queued": True,
            "queue_id": deferral.id,
            "queue_depth": receipt.depth,
            "message": QUEUED_MESSAGE,
        }
        if asked.route.polling:
            said["last_seen"] = last_seen
        own = profiles.put_away(asked, deferral, said) if asked.profile is not Profile.A2A else None
        if own is not None:
            status, body = own.status, own.body
            fields |= own.fields
        elif deferral.task is not None:
            body = a2a.send_answer(call, deferral.task.json, a2a.Version(deferral.task.version))
            status = self._status(asked)
        else:
            body, status = msgspec.json.encode(said), ACCEPTED
        made = Receipted(body=body, status=status, headers=fields)
        made.headers[hdrs.CONTENT_TYPE] = JSON
        made.deferral, made.depth, made.joined, made.may_wait = deferral, receipt.depth, receipt.joined, may_wait
        return made

    def accepted_again(self, asked: Asked, receipted: Receipted, deferral: Deferral) -> Receipted:
        """The same receipt with what the deferral is now."""
        again = Receipt(deferral=deferral, depth=receipted.depth, joined=receipted.joined)
        return self.accepted(asked, again, receipted.verdict)

    def joined(self, asked: Asked, receipt: Receipt, headers: Mapping[str, str]) -> web.Response:
        """Answer a retry with what the first one has: its answer, or its place in the queue."""
        if receipt.deferral.state in ACTIVE or asked.call().streaming:
            return self.accepted(asked, receipt, headers, may_wait=True)
        return self._ended(asked, receipt.deferral, headers)

    def ended(self, asked: Asked, deferral: Deferral, headers: Mapping[str, str]) -> web.Response:
        """What a caller gets who has waited for the end: the task, or the agent's own error.

        An error in the caller's binding is passed on as the agent made it; a caller of either kind that gets an answer
        at all has not been sent its status yet, or reads errors in the body (JSON-RPC).
        """
        answer, call = deferral.answer, asked.call()
        if answer is not None and deferral.state is State.COMPLETED and call.binding is not a2a.Binding.OTHER:
            ids = {deferral.upstream_task_id or "": deferral.task_id or ""}
            error = a2a.passed_error(call, answer.status, answer.body, ids)
            if error is not None:
                status = answer.status if call.binding is a2a.Binding.REST else OK
                return self._made(asked, deferral, headers, status=status, body=error)
        return self._ended(asked, deferral, headers)

    def _ended(self, asked: Asked, deferral: Deferral, headers: Mapping[str, str]) -> web.Response:
        if deferral.task is not None:
            body = a2a.send_answer(asked.call(), deferral.task.json, a2a.Version(deferral.task.version))
            return self._made(asked, deferral, headers, status=OK, body=body)
        answer = deferral.answer
        if answer is None:
            raise _unanswered(deferral)
        response = self._made(asked, deferral, headers, status=answer.status, body=answer.body)
        for name, value in answer.headers:
            if name.lower() == b"content-type":
                response.headers[hdrs.CONTENT_TYPE] = value.decode("latin-1")
        return response

    @staticmethod
    def _made(
        asked: Asked, deferral: Deferral, headers: Mapping[str, str], *, status: int, body: bytes
    ) -> web.Response:
        fields = {**headers, REQUEST_ID: asked.request_id, RECEIPT: deferral.id}
        return web.Response(body=body, status=status, headers=fields, content_type="application/json")

    def _status(self, asked: Asked) -> int:
        """202, except for clients that take nothing but 200 (the official Go client) and have not asked for 202."""
        if self._deferred_status != "auto":
            return int(self._deferred_status)
        if asked.prefers_receipt:
            return ACCEPTED
        return OK if asked.user_agent.lower().startswith(GO_CLIENT) else ACCEPTED


def _unanswered(deferral: Deferral) -> HoldfastError:
    """What is said of a request that is no A2A, and so has no task that could tell, when it has ended unanswered."""
    facts = {"receipt": deferral.id, "state": deferral.state.value, "delivered": "maybe" if deferral.maybe else "no"}
    text = f"the request was put away and has ended without an answer: {deferral.last_error or deferral.state.value}"
    if deferral.state is State.DEAD_LETTERED:
        return WorkspaceError("CALL_BROKEN", text, status=502, facts=facts)
    return WorkspaceError("WORKSPACE_AWAY", text, facts=facts)
