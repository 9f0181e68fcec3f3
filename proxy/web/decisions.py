"""The log's door: lines of the decision log and restart cycles, found by what they are about, page by page.

Owns: these listings and what their parameters may be.
Knows nothing of: what the lines come to (`web.explain` tells the story).
"""

import re
from contextlib import suppress

from aiohttp import web

from proxy.core.errors import CallerError
from proxy.core.ids import check_id
from proxy.core.tokens import TokenKind
from proxy.loops.notes import Notes
from proxy.loops.routing import Routing
from proxy.store import Sought, Store, StoreFailure
from proxy.web import shapes
from proxy.web.answers import json_answer
from proxy.web.auth import Auth, unknown_workspace
from proxy.web.operations import ADMIN, OWN, READ, Answer, Operation, Parameter, limit
from proxy.web.queue import limit_of
from proxy.web.views import decision_view, restart_view

_NUMBER = re.compile(r"[0-9]{1,18}", re.ASCII)
FILTERS = ("request_id", "receipt", "workspace_id", "generation", "limit", "before")


class Decisions:
    """Serves the decision log and the restarts."""

    def __init__(self, *, store: Store, routing: Routing, auth: Auth, notes: Notes) -> None:
        self._store = store
        self._routing = routing
        self._auth = auth
        self._notes = notes

    def routes(self) -> list[web.RouteDef]:
        """What this door serves."""
        return [
            web.get("/decisions", self.index),
            web.get("/workspaces/{id}/decisions", self.of_workspace),
            web.get("/workspaces/{id}/restarts", self.restarts),
            web.get("/workspaces/{id}/restarts/{generation}", self.restart),
        ]

    async def index(self, request: web.Request) -> web.Response:
        """`GET /decisions?request_id=&receipt=&workspace_id=&generation=&limit=&before=`: newest first."""
        self._auth.require(request, TokenKind.READ)
        unknown = set(request.query) - set(FILTERS)
        if unknown:  # a misspelt filter must not show everything
            raise CallerError("BAD_PARAMETER", f"there is no parameter {min(unknown)[:64]}")
        said = {name: request.query.get(name) or None for name in FILTERS}
        generation = number_of(request, "generation")
        if generation is not None and said["workspace_id"] is None:
            raise CallerError("BAD_PARAMETER", "a generation is one of a workspace's: give workspace_id, too")
        sought = Sought(
            request_id=said["request_id"],
            receipt=said["receipt"],
            workspace_id=said["workspace_id"],
            generation=generation,
            before=number_of(request, "before"),
        )
        return await self._page(sought, limit_of(request))

    async def of_workspace(self, request: web.Request) -> web.Response:
        """`GET /workspaces/{id}/decisions?limit=&before=`: newest first; for the workspace itself, too."""
        workspace_id = request.match_info["id"]
        self._auth.require(request, TokenKind.READ, workspace=workspace_id, hide=True)
        if self._routing.get(workspace_id) is None:
            raise unknown_workspace(workspace_id)
        sought = Sought(workspace_id=workspace_id, before=number_of(request, "before"))
        return await self._page(sought, limit_of(request))

    async def _page(self, sought: Sought, most: int) -> web.Response:
        with suppress(StoreFailure):  # what is noted already can be shown all the same
            await self._notes.flush()
        found = await self._store.sought(sought, limit=most)
        more = found[-1].id if len(found) == most else None
        return json_answer({"decisions": [decision_view(line) for line in found], "before": more})

    async def restarts(self, request: web.Request) -> web.Response:
        """`GET /workspaces/{id}/restarts?limit=&before=`: newest first."""
        workspace_id = await self._known(request)
        most = limit_of(request)
        found = await self._store.restarts(workspace_id, limit=most, before=number_of(request, "before"))
        more = found[-1].generation if len(found) == most else None
        return json_answer({"restarts": [restart_view(cycle) for cycle in found], "before": more})

    async def restart(self, request: web.Request) -> web.Response:
        """`GET /workspaces/{id}/restarts/{generation}`: one cycle; 404 for one that there was not."""
        workspace_id = await self._known(request)
        said = request.match_info["generation"]
        cycle = await self._store.restart(workspace_id, int(said)) if _NUMBER.fullmatch(said) else None
        if cycle is None:
            raise CallerError("RESTART_NOT_FOUND", f"workspace {workspace_id} had no restart {said[:20]}", status=404)
        return json_answer(restart_view(cycle))

    async def _known(self, request: web.Request) -> str:
        """The workspace of the path, a removed one too; the same 404 for unknown and hidden ones."""
        workspace_id = request.match_info["id"]
        self._auth.require(request, TokenKind.READ, workspace=workspace_id, hide=True)
        known = self._routing.get(workspace_id) is not None
        if not known and (check_id(workspace_id) is not None or await self._store.workspace(workspace_id) is None):
            raise unknown_workspace(workspace_id)
        return workspace_id


def number_of(request: web.Request, name: str) -> int | None:
    """A parameter that is a whole number, None where it is not given; CallerError 400 for anything else."""
    text = request.query.get(name)
    if not text:
        return None
    if not _NUMBER.fullmatch(text):
        raise CallerError("BAD_PARAMETER", f"{name} is a whole number")
    return int(text)


def before(text: str) -> Parameter:
    """Where a page begins."""
    return Parameter(name="before", text=text, schema={"type": "integer", "minimum": 0, "maximum": 10**18 - 1})


BEFORE = before("Only lines of a lower id: the `before` of the page that was read last.")
OPERATIONS = (
    Operation(
        method="GET",
        path="/decisions",
        name="find_decisions",
        text="Lines of the decision log, the newest first, by what they are about.",
        tag="explanations",
        who=(ADMIN, READ),
        parameters=(
            Parameter(name="request_id", text="Only of this request: the `Holdfast-Request-Id` of its answer."),
            Parameter(name="receipt", text="Only of this deferral: the `Holdfast-Receipt` of a 202."),
            Parameter(name="workspace_id", text="Only of this workspace, a removed one too."),
            Parameter(
                name="generation",
                text="Only from this restart of the workspace to the next; 0: before its first.",
                schema={"type": "integer", "minimum": 0, "maximum": 10**18 - 1},
            ),
            limit(),
            BEFORE,
        ),
        answers={200: Answer(text="The lines.", shape=shapes.Decisions)},
        errors={400: "A parameter cannot be, or there is none of that name."},
    ),
    Operation(
        method="GET",
        path="/workspaces/{id}/decisions",
        name="list_decisions",
        text="The decision log of a workspace, the newest first.",
        tag="explanations",
        who=(ADMIN, READ, OWN),
        hidden=True,
        parameters=(limit(), BEFORE),
        answers={200: Answer(text="Its lines.", shape=shapes.Decisions)},
        errors={400: "A parameter cannot be."},
    ),
    Operation(
        method="GET",
        path="/workspaces/{id}/restarts",
        name="list_restarts",
        text="The restarts of a workspace, the newest first.",
        tag="explanations",
        who=(ADMIN, READ, OWN),
        hidden=True,
        parameters=(limit(), before("Only restarts of a lower generation.")),
        answers={200: Answer(text="The cycles.", shape=shapes.Restarts)},
        errors={400: "A parameter cannot be."},
    ),
    Operation(
        method="GET",
        path="/workspaces/{id}/restarts/{generation}",
        name="show_restart",
        text="One restart of a workspace.",
        tag="explanations",
        who=(ADMIN, READ, OWN),
        hidden=True,
        parameters=(Parameter(name="generation", where="path", text="Its number.", schema={"type": "integer"}),),
        answers={200: Answer(text="The cycle.", shape=shapes.Restart)},
    ),
)
