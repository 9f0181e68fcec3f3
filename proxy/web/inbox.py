"""The inbox: a polling workspace fetches its requests here, says how far it is, and brings the answers.

Owns: routes below `/workspaces/{id}/queue` that need a lease; how an item looks, what an answer may be.
Knows nothing of: who may hold a lease, what an outcome makes of a deferral
(`loops.polling`, `loops.held_leases`).

Every one of these is a sign of life. Nobody but the workspace itself and the admin learns that there is an inbox.
"""

import asyncio
import base64
import binascii
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import msgspec
from aiohttp import hdrs, web

from proxy.clock import Now
from proxy.core.deferral import Deferral, RawHeaders, StoredAnswer
from proxy.core.errors import CallerError
from proxy.core.event_body import EventBody
from proxy.core.times import rfc3339
from proxy.forward.headers import answer_headers
from proxy.loops.attempts import Ready
from proxy.loops.held_leases import HeldLeases, lease_lost
from proxy.loops.parking import Parking
from proxy.loops.polling import Claim, Listener, Polling
from proxy.loops.routing import Route, Routing
from proxy.loops.telling import Story
from proxy.web import bodies
from proxy.web.answers import json_answer
from proxy.web.auth import Auth, unknown_workspace
from proxy.web.inbox_bodies import (
    ClaimBody,
    Claimed,
    CompleteBody,
    Ended,
    EventsTaken,
    ExtendBody,
    Extended,
    FailBody,
    FailedItem,
)
from proxy.web.open_calls import Connection
from proxy.web.operations import ADMIN, OWN, Answer, Operation, Parameter
from proxy.web.queue import unknown_deferral

LEASE_TOKEN = "Holdfast-Lease-Token"  # noqa: S105 - the name of a header
BOOT_ID = "Holdfast-Boot-Id"
LARGE = 256 * 1024
"""Bytes of JSON from which on it is read and written beside the event loop."""
KEPT_ALIVE = timedelta(seconds=1)
"""A stream without events renews its lease so often at most."""
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_BROKEN_VALUE = re.compile(r"[\x00\r\n]")


@dataclass(frozen=True, slots=True, kw_only=True)
class InboxLimits:
    """Bytes of an answer, and of one event."""

    answer: int
    event: int


class Inbox:
    """Serves polling workspaces."""

    def __init__(
        self,
        *,
        routing: Routing,
        auth: Auth,
        polling: Polling,
        parking: Parking,
        leases: HeldLeases,
        now: Now,
        limits: InboxLimits,
    ) -> None:
        self._routing = routing
        self._auth = auth
        self._polling = polling
        self._parking = parking
        self._leases = leases
        self._now = now
        self._limits = limits

    def routes(self) -> list[web.RouteDef]:
        """What this door serves."""
        below = "/workspaces/{id}/queue/{deferral_id}"
        return [
            web.post("/workspaces/{id}/queue/claim", self.claim),
            web.post(f"{below}/extend", self.extend),
            web.post(f"{below}/events", self.events),
            web.post(f"{below}/complete", self.complete),
            web.post(f"{below}/fail", self.fail),
        ]

    def _route(self, request: web.Request) -> Route:
        """The workspace that asks, or that the admin asks for; everybody else gets the 404 of an unknown one."""
        workspace_id = request.match_info["id"]
        self._auth.require(request, workspace=workspace_id, hide=True)
        route = self._routing.get(workspace_id)
        if route is None:
            raise unknown_workspace(workspace_id)
        return route

    async def _held(
        self, request: web.Request, route: Route, token: str, boot_id: str | None, *, whole: bool = False
    ) -> Deferral:
        deferral_id = request.match_info["deferral_id"]
        deferral = await self._leases.held(route, deferral_id, token, boot_id=boot_id, whole=whole)
        if deferral is None:
            raise unknown_deferral()
        return deferral

    # Claiming

    async def claim(self, request: web.Request) -> web.StreamResponse:
        """`POST /workspaces/{id}/queue/claim`: lease what there is, or wait for something."""
        route = self._route(request)
        said = await bodies.read(request, ClaimBody)
        await self._parking.heard(route, said.boot_id)
        rules = self._polling.rules
        claim = Claim(
            boot_id=said.boot_id,
            count=min(said.max_items, rules.items),
            wait=min(said.wait_seconds, rules.wait),
            lease=rules.lease_of(said.lease_seconds),
        )
        async with _listening(request) as listener:
            items = await self._polling.claim(route, claim, listener)
            if not self._auth.stands(request):  # it was dropped while the claim waited
                await asyncio.shield(self._polling.give_back(route, items))
                self._route(request)
            return await self._hand_over(request, route, items, claim.lease)

    async def _hand_over(
        self, request: web.Request, route: Route, items: Sequence[Ready], lease: float
    ) -> web.StreamResponse:
        """Write the answer here, so that what did not leave as a whole goes back at once."""
        response = web.Response(content_type="application/json", headers={hdrs.SERVER: "Holdfast"})
        is_handed_over = False
        try:
            response.body = await _aside(
                sum(len(item.body) for item in items),
                lambda: msgspec.json.encode({"items": [_item(item) for item in items], "lease_seconds": lease}),
            )
            transport = request.transport
            if transport is not None and not transport.is_closing():
                await response.prepare(request)
                await response.write_eof()
                is_handed_over = True
        except ConnectionError:
            pass  # the server finds that out for itself
        finally:
            if items and not is_handed_over:
                await asyncio.shield(self._polling.give_back(route, items))
        return response

    # Working

    async def extend(self, request: web.Request) -> web.Response:
        """`POST .../extend`: keep a lease for so many seconds from now on."""
        route = self._route(request)
        said = await bodies.read(request, ExtendBody)
        deferral = await self._held(request, route, said.lease_token, said.boot_id)
        seconds = self._polling.rules.lease_of(said.lease_seconds)
        until = await self._leases.extend(deferral, said.lease_token, seconds)
        return json_answer({"queue_id": deferral.id, "lease_seconds": seconds, "lease_until": rfc3339(until)})

    async def events(self, request: web.Request) -> web.Response:
        """`POST .../events`: what the agent tells while it works, as it comes; each renews the lease."""
        route = self._route(request)
        token = request.headers.get(LEASE_TOKEN) or request.query.get("lease_token") or ""
        token = token if token.isascii() else ""  # ours are
        boot_id = request.headers.get(BOOT_ID) or request.query.get("boot_id")
        lease = self._polling.rules.lease_of(_number(request, "lease_seconds"))
        deferral = await self._held(request, route, token, boot_id, whole=True)
        story = await self._leases.listen(deferral)
        told = _Told(story, first=_number(request, "first"))
        body = EventBody(request.headers.get(hdrs.CONTENT_TYPE, ""), most=self._limits.event)
        renewed_at = self._now()
        try:
            async for part in request.content.iter_any():
                if not self._auth.stands(request):
                    self._route(request)
                events = told.new(body.feed(part))
                now = self._now()
                if events:
                    await self._keep(route, deferral, story, events, token, lease)
                    renewed_at = now
                elif now - renewed_at >= KEPT_ALIVE:
                    await self._held(request, route, token, boot_id)
                    await self._leases.extend(deferral, token, lease)
                    renewed_at = now
        except bodies.BROKEN as problem:
            facts = {"events": story.total}
            raise CallerError("BROKEN_BODY", "the stream of events did not end", facts=facts) from problem
        if rest := told.new(body.end()):
            await self._keep(route, deferral, story, rest, token, lease)
        return json_answer({"queue_id": deferral.id, "events": story.total, "lease_seconds": lease})

    async def _keep(  # noqa: PLR0917 - the six are all of what an append is about, in the order in which it reads
        self, route: Route, deferral: Deferral, story: Story, events: Sequence[bytes], token: str, lease: float
    ) -> None:
        now = self._now()
        if await story.take(events, token=token, until=now + timedelta(seconds=lease)) is None:
            raise lease_lost(deferral)
        route.sign(now, heartbeat=True)

    # Ends

    async def complete(self, request: web.Request) -> web.Response:
        """`POST .../complete`: the agent's answer; without one, the answer is what was told in events."""
        route = self._route(request)
        most = self._limits.answer
        raw = await bodies.read_whole(request, most=most * 4 // 3 + bodies.MOST_BODY)
        said, content = await _aside(len(raw), lambda: _read_answer(raw, most))
        deferral = await self._held(request, route, said.lease_token, said.boot_id, whole=True)
        answer = None
        if content is not None:
            answer = StoredAnswer(status=said.status, headers=_fields(said.headers), body=content)
        ended = await self._leases.complete(route, deferral, answer, said.status)
        return json_answer({"queue_id": ended.id, "status": ended.state.value})

    async def fail(self, request: web.Request) -> web.Response:
        """`POST .../fail`: give it up, to be tried again (`retry`) or for good."""
        route = self._route(request)
        said = await bodies.read(request, FailBody)
        deferral = await self._held(request, route, said.lease_token, said.boot_id)
        error = said.error or "the workspace failed at it and did not say why"
        settled = await self._leases.fail(route, deferral, error, retry=said.retry)
        return json_answer(
            {"queue_id": deferral.id, "status": settled.state.value, "retry_after": round(settled.delay, 3)}
        )


class _Told:
    """Which events of a body are new: one that says which event it begins with may repeat what was taken before."""

    def __init__(self, story: Story, *, first: float | None) -> None:
        begins = story.total if first is None else int(first) - 1
        if begins > story.total or begins < 0:
            text = f"the body begins with event {begins + 1}, and {story.total} are known"
            raise CallerError("EVENTS_MISSING", text, status=409, facts={"events": story.total})
        self._known = story.total - begins

    def new(self, events: list[bytes]) -> list[bytes]:
        """Without those that are known."""
        known = min(self._known, len(events))
        self._known -= known
        return events[known:]


@asynccontextmanager
async def _listening(request: web.Request) -> AsyncIterator[Listener]:
    """Hear of it when the client leaves."""
    listener, protocol = Listener(), request.protocol
    if isinstance(protocol, Connection):
        protocol.on_gone = listener.leave
    try:
        yield listener
    finally:
        if isinstance(protocol, Connection):
            protocol.on_gone = None


async def _aside(size: int, work: Any) -> Any:
    """Do it at once; beside the event loop where it is large enough to be felt by others."""
    return await asyncio.to_thread(work) if size > LARGE else work()


def _item(ready: Ready) -> dict[str, Any]:
    """A leased deferral as its poller gets it."""
    deferral = ready.deferral
    tail = deferral.request.tail
    return {
        "queue_id": deferral.id,
        "lease_token": ready.token,
        "attempt": deferral.attempts + 1,
        "redelivery": "maybe" if deferral.maybe else "no",
        "method": deferral.request.method,
        "path": tail if tail.startswith("/") else f"/{tail}",
        "headers": _combined(ready.headers),
        "body_base64": base64.b64encode(ready.body).decode(),
        "enqueued_at": rfc3339(deferral.enqueued_at),
        "task_id": deferral.task_id,
        "context_id": deferral.context_id,
    }


def _combined(headers: RawHeaders) -> dict[str, str]:
    """Fields by name; of several of one name the values are combined (RFC 9110, 5.3; cookies: RFC 6265, 5.4)."""
    names: dict[bytes, str] = {}
    combined: dict[str, str] = {}
    for name, value in headers:
        known = names.setdefault(name.lower(), name.decode("latin-1"))
        text = value.decode("latin-1")
        mark = "; " if known.lower() == "cookie" else ", "
        combined[known] = f"{combined[known]}{mark}{text}" if known in combined else text
    return combined


def _fields(headers: Mapping[str, str | list[str]]) -> RawHeaders:
    """The answer's header fields, without what concerns its way here.

    Raises:
        CallerError: 400 for what is no header field.
    """
    fields: list[tuple[bytes, bytes]] = []
    for name, values in headers.items():
        for value in [values] if isinstance(values, str) else values:
            if not _NAME.fullmatch(name) or _BROKEN_VALUE.search(value):
                raise CallerError("BAD_HEADERS", f"{name[:64]!r} and its value cannot stand in a header")
            try:
                fields.append((name.encode(), value.encode("latin-1")))
            except UnicodeEncodeError:
                raise CallerError("BAD_HEADERS", f"the value of {name[:64]!r} is not Latin-1") from None
    return answer_headers(tuple(fields), reframed=True)


def _read_answer(raw: bytes, most: int) -> tuple[CompleteBody, bytes | None]:
    """What a `complete` says, and the answer's body; None where it has none.

    Raises:
        CallerError: 400 for what is no answer, 413 for one over the limit.
    """
    said = bodies.parse(raw or b"{}", CompleteBody)
    if said.body_base64 is None:
        return said, None
    try:
        content = base64.b64decode(said.body_base64, validate=True)
    except (binascii.Error, ValueError):
        raise CallerError("BAD_BODY", "body_base64 is not base64 (RFC 4648, 4)") from None
    if len(content) > most:
        raise CallerError(
            "BODY_TOO_LARGE", f"the answer is larger than {most} bytes", status=413, facts={"max_bytes": most}
        )
    return said, content


def _number(request: web.Request, name: str) -> float | None:
    """A number in the query; None where there is none."""
    text = request.query.get(name)
    if text is None:
        return None
    if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text, re.ASCII) is None:
        raise CallerError("BAD_PARAMETER", f"{name} is a number, not {text[:40]!r}")
    return float(text)


_WHO = (ADMIN, OWN)
_GONE = "There is no such workspace or receipt, or this token may not know of it."
_LOST = "The lease is not, or no longer, the caller's; nothing was changed."
_BELOW = "/workspaces/{id}/queue/{deferral_id}"
OPERATIONS = (
    Operation(
        method="POST",
        path="/workspaces/{id}/queue/claim",
        name="claim",
        text="Lease what waits for a polling workspace, or wait until there is something.",
        tag="delivery",
        who=_WHO,
        hidden=True,
        body=ClaimBody,
        answers={200: Answer(text="What was leased; nothing if nothing came in time.", shape=Claimed)},
        errors={
            409: "Another life of the workspace has begun, or it is reached by push.",
            429: "Too many claims of this workspace wait, or too many requests of this caller.",
        },
    ),
    Operation(
        method="POST",
        path=f"{_BELOW}/extend",
        name="extend",
        text="Keep a lease for so many seconds from now on.",
        tag="delivery",
        who=_WHO,
        hidden=True,
        body=ExtendBody,
        answers={200: Answer(text="It lasts longer.", shape=Extended)},
        errors={404: _GONE, 409: _LOST},
    ),
    Operation(
        method="POST",
        path=f"{_BELOW}/events",
        name="tell_events",
        text="Tell what the agent streams while it works: server-sent events, or one JSON document a line.",
        tag="delivery",
        who=_WHO,
        hidden=True,
        parameters=(
            Parameter(
                name=LEASE_TOKEN, text="The lease's token; `lease_token` in the query is the same.", where="header"
            ),
            Parameter(
                name=BOOT_ID, text="The boot_id of who tells; `boot_id` in the query is the same.", where="header"
            ),
            Parameter(
                name="lease_seconds",
                text="For how long each event renews the lease.",
                schema={"type": "number", "minimum": 0},
            ),
            Parameter(
                name="first",
                text="The number of the body's first event; what was taken before is skipped.",
                schema={"type": "integer", "minimum": 1},
            ),
        ),
        answers={200: Answer(text="All of them are kept.", shape=EventsTaken)},
        errors={
            400: "An event is none, or a parameter cannot be; what came before it is kept.",
            404: _GONE,
            409: f"{_LOST} Or the body begins after an event that is not known.",
            413: "An event is too long, or the journal is full; what came before it is kept.",
        },
    ),
    Operation(
        method="POST",
        path=f"{_BELOW}/complete",
        name="complete",
        text="Bring the agent's answer; without a body, the answer is what was told in events.",
        tag="delivery",
        who=_WHO,
        hidden=True,
        body=CompleteBody,
        answers={200: Answer(text="The caller has its answer.", shape=Ended)},
        errors={404: _GONE, 409: _LOST},
    ),
    Operation(
        method="POST",
        path=f"{_BELOW}/fail",
        name="fail",
        text="Give a request up: to be handed out again, marked, or for good.",
        tag="delivery",
        who=_WHO,
        hidden=True,
        body=FailBody,
        answers={200: Answer(text="Where it stands now.", shape=FailedItem)},
        errors={404: _GONE, 409: _LOST},
    ),
)
