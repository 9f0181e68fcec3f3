"""Habits that some clients expect instead of Holdfast's own: profiles `plain` and `offline-draft`.

Owns: which profile a request has, and how it changes what comes in and what Holdfast answers.
Knows nothing of: when something is answered, how `plain` reads a request (`core.a2a.plain`).

| | `a2a` | `plain` | `offline-draft` |
| --- | --- | --- | --- |
| a request that is no JSON | the agent's to judge | 400 | the agent's to judge |
| a bare `{method, params}` | passes as it is | becomes JSON-RPC | passes as it is |
| put away | a submitted task, 202 or 200 | a plain receipt, 202 | 503 `agent_asleep`, `queued: true` |
| the queue is full | 429 in the caller's binding | 429, plain | 507 or 429 `asleep_queue_full` |
| the agent's own failure | byte for byte | its status and a plain `error` | byte for byte |
| Holdfast's own errors | in the caller's binding | plain | in the caller's binding |

`offline-draft` follows draft-chapman-a2a-offline-delivery-00.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import msgspec
from aiohttp import hdrs, web

from proxy.core import a2a
from proxy.core.a2a.plain import failure_text, normalised
from proxy.core.deferral import Deferral
from proxy.core.errors import CallerError, HoldfastError
from proxy.core.lifecycle import Status
from proxy.core.restart import MIN_RETRY_AFTER
from proxy.settings import Profile
from proxy.web.answers import REQUEST_ID, error_answer, json_answer
from proxy.web.asked import Asked
from proxy.web.passed_on import Reply, Whole

ASLEEP: Final = -32003
"""The draft's JSON-RPC code for an agent that is asleep."""
ACCEPTED, TOO_MANY, UNAVAILABLE, INSUFFICIENT_STORAGE = 202, 429, 503, 507
FIRST_FAILURE = 300
COMING = frozenset({Status.STARTING, Status.RESTARTING})
"""A workspace in one of these is expected back soon; of any other nobody knows when."""


def take_up(asked: Asked, new_id: Callable[[], str]) -> None:
    """Note which profile a request has, and read it so.

    Raises:
        CallerError: 400, there is no such profile, or the profile cannot read the request.
    """
    said = asked.fields.first(b"holdfast-profile")
    asked.profile = asked.route.effective.profile
    if said is not None:
        try:
            asked.profile = Profile(said.strip().lower())
        except ValueError:
            raise CallerError("BAD_PROFILE", f"Holdfast-Profile is one of {', '.join(Profile)}") from None
    if asked.profile is Profile.PLAIN and _is_rpc(asked):
        asked.body = asked.original_body = normalised(asked.body, new_id)


def shown(asked: Asked, reply: Reply) -> Reply:
    """An answer of the agent's as the request's profile has it."""
    if asked.profile is not Profile.PLAIN or not isinstance(reply, Whole) or reply.status < FIRST_FAILURE:
        return reply
    if not _is_rpc(asked):
        return reply
    text = failure_text(reply.status, reply.body)
    return json_answer({"error": text}, reply.status, {REQUEST_ID: asked.request_id})


def refused(asked: Asked, error: HoldfastError, headers: Mapping[str, str]) -> web.Response:
    """An error of Holdfast's own as the request's profile has it."""
    if asked.profile is Profile.PLAIN:
        return error_answer(error, None, headers)
    call = asked.call_or_none()
    if asked.profile is Profile.OFFLINE_DRAFT and error.reason == "QUEUE_FULL":
        kind = str(error.facts.get("kind", "messages"))
        status = TOO_MANY if kind == "peer" else INSUFFICIENT_STORAGE
        said = {"error": "asleep_queue_full", "queued": False, "kind": kind}
        response = web.Response(body=_asleep(call, error.message, said), status=status, headers=headers)
        response.headers[hdrs.CONTENT_TYPE] = "application/json"
        if error.retry_after is not None:
            response.headers[hdrs.RETRY_AFTER] = str(error.retry_after)
        return response
    return error_answer(error, call, headers)


class PutAway(NamedTuple):
    """How a profile says that a request was put away: in this status and body, with these fields besides."""

    status: int
    body: bytes
    fields: Mapping[str, str]


def put_away(asked: Asked, deferral: Deferral, receipt: Mapping[str, Any]) -> PutAway | None:
    """What the caller of a request that was put away gets; None: what profile `a2a` says.

    `receipt` is the plain receipt.
    """
    if asked.profile is Profile.PLAIN:
        named = {"task_id": deferral.task_id} if deferral.task_id is not None else {}
        return PutAway(ACCEPTED, msgspec.json.encode({**receipt, **named}), {})
    if asked.profile is Profile.OFFLINE_DRAFT and not deferral.adopted:  # else its agent is awake, and at work on it
        said: dict[str, Any] = {"error": "agent_asleep", "queued": True}
        fields: dict[str, str] = {}
        if asked.route.workspace.status in COMING:
            said["retryAfterSec"] = MIN_RETRY_AFTER
            fields[hdrs.RETRY_AFTER] = str(MIN_RETRY_AFTER)
        text = f"workspace {asked.route.id} is asleep; the message is stored and will be delivered"
        return PutAway(UNAVAILABLE, _asleep(asked.call_or_none(), text, said), fields)
    return None


def waits(asked: Asked, call: a2a.Call, deferral: Deferral) -> bool:
    """Whether a caller may be kept waiting for what was put away: `plain` if it asks for that, or wants a stream.

    `offline-draft`: if it wants a stream, and its agent is awake and at work on it (`journal = all`).
    """
    if asked.profile is Profile.OFFLINE_DRAFT:
        return call.streaming and deferral.adopted
    return asked.profile is Profile.A2A or call.streaming or asked.wait is not None


def _is_rpc(asked: Asked) -> bool:
    """It was POSTed to the workspace's address itself."""
    return asked.method == "POST" and asked.tail.partition("?")[0] in {"", "/"}


def _asleep(call: a2a.Call | None, text: str, said: Mapping[str, Any]) -> bytes:
    """The draft's body; over JSON-RPC the same facts as the data of an error."""
    if call is None or call.binding is not a2a.Binding.JSONRPC:
        return msgspec.json.encode({**said, "message": text})
    error = msgspec.json.encode({"code": ASLEEP, "message": text, "data": dict(said)})
    return b'{"jsonrpc":"2.0","id":' + call.rpc_id + b',"error":' + error + b"}"
