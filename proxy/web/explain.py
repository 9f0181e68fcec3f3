"""The explaining door: why did my request get a 202, why was it restarted?

Owns: what a subject names, who may hear which story, gathering the lines and records that a story needs.
Knows nothing of: how a story is told (`core.story`).

A subject is a workspace's id, a receipt, a request's id, or a restart as `WORKSPACE/restarts/N` or `WORKSPACE#N`. Ids
of receipts and requests are made by chance, so only a workspace's can be one of theirs as well: then the workspace is
meant, the answer says so in `also`, and `kind` asks for the other.

The admin and readers hear everything, a workspace everything about itself, a caller about its own requests and nothing
of what went on around them. Everybody else gets what an unknown subject gets.
"""

import re
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from proxy.clock import Now
from proxy.core import story
from proxy.core.decision import Decision
from proxy.core.deferral import Deferral
from proxy.core.errors import CallerError
from proxy.core.ids import check_id
from proxy.core.masking import masked
from proxy.core.story import Event, Kind, Story
from proxy.core.story.about_requests import PUT_AWAY
from proxy.core.tokens import Owner, TokenKind
from proxy.loops.notes import Notes
from proxy.loops.routing import Routing
from proxy.loops.tasks import may_see
from proxy.store import Sought, Store, StoreFailure
from proxy.web import shapes
from proxy.web.answers import json_answer
from proxy.web.auth import Auth
from proxy.web.operations import ADMIN, CALLER, OWN, READ, Answer, Operation, Parameter, limit
from proxy.web.queue import limit_of
from proxy.web.views import when

PAGE = 1000
MOST_LINES = 5000
"""Lines of one request, or of one restart, that are read."""
MOST_AROUND = 2000
"""Lines of the workspace around a request that are read, of each generation."""
MOST_GENERATIONS = 8
_RESTART = re.compile(r"(?P<id>.+?)(?:/restarts/|#)(?P<generation>[0-9]{1,18})", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asker:
    """Who wants to know, and of how many lines of a workspace."""

    owner: Owner | None
    most: int

    def hears_all_of(self, workspace_id: str) -> bool:
        """Whether nothing about this workspace is hidden."""
        owner = self.owner
        if owner is None or owner.kind in {TokenKind.ADMIN, TokenKind.READ}:
            return True
        return owner.kind is TokenKind.WORKSPACE and owner.name == workspace_id


class Explain:
    """Serves stories."""

    def __init__(self, *, store: Store, routing: Routing, auth: Auth, notes: Notes, now: Now) -> None:
        self._store = store
        self._routing = routing
        self._auth = auth
        self._notes = notes
        self._now = now
        self._tellers: dict[Kind, Callable[[str, _Asker], Awaitable[Story | None]]] = {
            Kind.WORKSPACE: self._workspace,
            Kind.RESTART: self._restart,
            Kind.RECEIPT: self._receipt,
            Kind.REQUEST: self._request,
        }

    def routes(self) -> list[web.RouteDef]:
        """What this door serves."""
        return [web.get("/explain/{subject:.+}", self.explain)]

    async def explain(self, request: web.Request) -> web.Response:
        """`GET /explain/{subject}?kind=&limit=`: the story; 404 where there is none, or none for this caller."""
        asker = _Asker(owner=self._auth.owner(request), most=limit_of(request))
        subject = request.match_info["subject"]
        kinds = _kinds(request.query.get("kind", ""))
        with suppress(StoreFailure):  # what is noted already can be told all the same
            await self._notes.flush()
        told = [(kind, found) for kind in kinds if (found := await self._tellers[kind](subject, asker))]
        if not told:
            raise _nothing_known(subject, kinds)
        also = [kind.value for kind, _ in told[1:]]
        return json_answer({**story_view(told[0][1]), "also": also})

    # One for each kind

    async def _workspace(self, subject: str, asker: _Asker) -> Story | None:
        if check_id(subject) is not None or not asker.hears_all_of(subject):
            return None
        route = self._routing.get(subject)
        workspace = route.workspace if route is not None else await self._store.workspace(subject)
        if workspace is None:
            return None
        lines = await self._store.sought(Sought(workspace_id=subject), limit=asker.most)
        return story.of_workspace(workspace, lines, route.size.rows if route is not None else 0, self._now())

    async def _restart(self, subject: str, asker: _Asker) -> Story | None:
        named = _RESTART.fullmatch(subject)
        if named is None or check_id(named["id"]) is not None or not asker.hears_all_of(named["id"]):
            return None
        workspace_id, generation = named["id"], int(named["generation"])
        cycle = await self._store.restart(workspace_id, generation)
        if cycle is None:
            return None
        until = cycle.finished_at or self._now()
        own = await self._lines(Sought(workspace_id=workspace_id, generation=generation, until=until), MOST_LINES)
        led = Sought(workspace_id=workspace_id, generation=generation - 1, until=cycle.started_at)
        before = await self._lines(led, MOST_AROUND) if generation > 0 else []
        return story.of_restart(subject, cycle, own, before, self._now())

    async def _receipt(self, subject: str, asker: _Asker) -> Story | None:
        deferral = await self._store.deferral(subject)
        lines = await self._lines(Sought(receipt=subject), MOST_LINES)
        if deferral is None and not lines:
            return None
        return await self._of_request(subject, Kind.RECEIPT, asker, lines, deferral)

    async def _request(self, subject: str, asker: _Asker) -> Story | None:
        lines = await self._lines(Sought(request_id=subject), MOST_LINES)
        if not lines:
            return None
        receipt = next((line.receipt for line in lines if line.receipt is not None), None)
        deferral = await self._store.deferral(receipt) if receipt is not None else None
        return await self._of_request(subject, Kind.REQUEST, asker, lines, deferral, receipt)

    async def _of_request(  # noqa: PLR0917 - each is what the one before it led to
        self,
        subject: str,
        kind: Kind,
        asker: _Asker,
        lines: Sequence[Decision],
        deferral: Deferral | None,
        receipt: str | None = None,
    ) -> Story | None:
        workspace_id = lines[0].workspace_id if lines else deferral.workspace_id if deferral is not None else ""
        hears_all = asker.hears_all_of(workspace_id)
        if not hears_all and not _is_callers(asker.owner, lines, deferral):
            return None
        own = [*lines, *await self._partners(kind, lines, deferral, receipt)]
        around = await self._around(workspace_id, own, deferral) if hears_all else []
        return story.of_request(subject, kind=kind, own=own, around=around, deferral=deferral, now=self._now())

    async def _partners(
        self, kind: Kind, lines: Sequence[Decision], deferral: Deferral | None, receipt: str | None
    ) -> list[Decision]:
        """What else is this request's own: its deferral's lines, or the lines of the request that was put away."""
        found: list[Decision] = []
        if kind is Kind.REQUEST and receipt is not None:
            found += await self._lines(Sought(receipt=receipt), MOST_LINES)
        put_away = [line for line in (*lines, *found) if line.action in PUT_AWAY]
        original = put_away[0].request_id if put_away else deferral.request_id if deferral is not None else None
        if original is not None:
            found += await self._lines(Sought(request_id=original), MOST_LINES)
        return found

    async def _around(self, workspace_id: str, own: Sequence[Decision], deferral: Deferral | None) -> list[Decision]:
        """What went on in the workspace from the restart before the request to the request's end."""
        if not own:
            return []
        route = self._routing.get(workspace_id)
        seen = [line.generation for line in own]
        waits = deferral is not None and deferral.completed_at is None
        latest = route.workspace.generation if waits and route is not None else max(seen)
        until = self._now() if waits else max(line.at for line in own)
        first = max(0, min(seen) - 1, latest - MOST_GENERATIONS)
        found: list[Decision] = []
        for generation in range(first, latest + 1):
            sought = Sought(workspace_id=workspace_id, generation=generation, until=until)
            found += await self._lines(sought, MOST_AROUND)
        return found

    async def _lines(self, sought: Sought, most: int) -> list[Decision]:
        """Read page by page, so that no reader waits long behind an explanation."""
        found: list[Decision] = []
        before: int | None = None
        while len(found) < most:
            page = await self._store.sought(_from(sought, before), limit=min(PAGE, most - len(found)))
            found += page
            if len(page) < PAGE:
                break
            before = page[-1].id
        return found


def _from(sought: Sought, before: int | None) -> Sought:
    return Sought(
        workspace_id=sought.workspace_id,
        request_id=sought.request_id,
        receipt=sought.receipt,
        generation=sought.generation,
        until=sought.until,
        before=before,
    )


def _is_callers(owner: Owner | None, lines: Sequence[Decision], deferral: Deferral | None) -> bool:
    """Whether a request is this caller's own: by its deferral, or by what was noted of it."""
    if owner is None or owner.caller is None:
        return False
    if deferral is not None:
        return may_see(deferral, owner)
    return any(line.evidence.get("caller") == owner.caller for line in lines)


def _kinds(said: str) -> list[Kind]:
    if not said:
        return list(Kind)
    if said not in set(Kind):
        raise CallerError("BAD_PARAMETER", f"kind is one of {', '.join(Kind)}")
    return [Kind(said)]


def _nothing_known(subject: str, kinds: Sequence[Kind]) -> CallerError:
    what = f"a {kinds[0]}" if len(kinds) == 1 else "a workspace, a receipt, a request or a restart"
    return CallerError(
        "NOTHING_KNOWN",
        f"nothing is known of {subject[:140]} as {what}: a request that the agent answered leaves no line, and lines"
        " are forgotten in time (a restart is WORKSPACE/restarts/N)",
        status=404,
    )


def story_view(told: Story) -> dict[str, Any]:
    """A story as JSON; nothing that looks like a secret is in it."""
    return {
        "subject": told.subject,
        "kind": told.kind.value,
        "workspace_id": told.workspace_id,
        "summary": masked("", told.summary),
        "request_id": told.request_id,
        "receipt": told.receipt,
        "generation": told.generation,
        "whole": told.is_whole,
        "timeline": [_event_view(event) for event in told.timeline],
    }


def _event_view(event: Event) -> dict[str, Any]:
    return {
        "at": when(event.at),
        "until": when(event.until),
        "count": event.count,
        "what": masked("", event.what),
        "why": masked("", event.why),
        "rule": event.rule or None,
        "verdict": event.verdict or None,
        "action": event.action or None,
        "trigger": event.trigger or None,
        "evidence": masked("", dict(event.evidence)),
        "request_id": event.request_id,
        "receipt": event.receipt,
        "incarnation": event.incarnation,
        "generation": event.generation,
        "own": event.is_own,
    }


OPERATIONS = (
    Operation(
        method="GET",
        path="/explain/{subject}",
        name="explain",
        text="Why did this request get a 202, why was this workspace restarted? The decision log, told as a story.",
        tag="explanations",
        who=(ADMIN, READ, OWN, CALLER),
        hidden=True,
        parameters=(
            Parameter(
                name="subject",
                where="path",
                text="A workspace's id, a receipt, a request's id, or a restart: WORKSPACE/restarts/N, WORKSPACE#N.",
            ),
            Parameter(
                name="kind",
                text="What the subject is, where it could be several things.",
                schema={"type": "string", "enum": [kind.value for kind in Kind]},
            ),
            limit(),
        ),
        answers={200: Answer(text="The story.", shape=shapes.Story)},
        errors={400: "A parameter cannot be.", 404: "Nothing is known of it, or nothing that this token may know."},
    ),
)
