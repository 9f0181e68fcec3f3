"""The admin's door to all queues: look, drive again, cancel, drop.

Owns: these routes and what their parameters may be.
Knows nothing of: what becomes of a deferral (`loops.tending`).
"""

from datetime import timedelta

from aiohttp import web

from proxy.core.deferral import Deferral
from proxy.core.errors import CallerError
from proxy.core.tokens import TokenKind
from proxy.loops.deferring import states_of
from proxy.loops.routing import Routing
from proxy.loops.tending import Tending
from proxy.store import Store
from proxy.web import bodies, shapes
from proxy.web.answers import json_answer
from proxy.web.auth import Auth, unknown_workspace
from proxy.web.operations import ADMIN, READ, Answer, Operation, Parameter, limit
from proxy.web.queue import STATUS, limit_of, unknown_deferral
from proxy.web.views import deferral_view

STALE_MINUTES = 60
MOST_MINUTES = 10 * 366 * 24 * 60


class QueueAdmin:
    """Serves the admin; a `read` token may look."""

    def __init__(self, *, store: Store, routing: Routing, auth: Auth, tending: Tending) -> None:
        self._store = store
        self._routing = routing
        self._auth = auth
        self._tending = tending

    def routes(self) -> list[web.RouteDef]:
        """What this door serves."""
        return [
            web.get("/queue", self.index),
            web.post("/queue/drop-stale", self.drop_stale),
            web.post("/queue/{queue_id}/redrive", self.redrive),
            web.post("/queue/{queue_id}/cancel", self.cancel),
        ]

    async def index(self, request: web.Request) -> web.Response:
        """`GET /queue?status=&workspace_id=&limit=`: of all workspaces, the newest first; empty means any."""
        self._auth.require(request, TokenKind.READ)
        states = states_of([name for name in request.query.get("status", "").split(",") if name])
        found = await self._store.deferrals(
            workspace_id=request.query.get("workspace_id") or None, states=states, limit=limit_of(request)
        )
        return json_answer({"items": [deferral_view(item) for item in found]})

    async def redrive(self, request: web.Request) -> web.Response:
        """`POST /queue/{queue_id}/redrive`: 200; 404; 409 when it is no dead letter or has a successor."""
        self._auth.require(request)
        return json_answer(deferral_view(await self._tending.redrive(await self._named(request))))

    async def cancel(self, request: web.Request) -> web.Response:
        """`POST /queue/{queue_id}/cancel` `{reason?}`: 200; 404; 409 when it has ended or is being delivered."""
        self._auth.require(request)
        deferral = await self._named(request)
        said = await bodies.read(request, bodies.ReasonBody)
        return json_answer(deferral_view(await self._tending.cancel(deferral, said.reason)))

    async def drop_stale(self, request: web.Request) -> web.Response:
        """`POST /queue/drop-stale?max_age_minutes=60&workspace_id=`: `{"dropped": n}`; without a workspace in all."""
        self._auth.require(request)
        unknown = set(request.query) - {"max_age_minutes", "workspace_id"}
        if unknown:  # a misspelt limit must not drop more than was meant
            raise CallerError("BAD_PARAMETER", f"there is no parameter {min(unknown)[:64]}")
        workspace_id = request.query.get("workspace_id") or None
        if workspace_id is not None and self._routing.get(workspace_id) is None:
            raise unknown_workspace(workspace_id)
        return json_answer({"dropped": await self._tending.drop_stale(_age(request), workspace_id)})

    async def _named(self, request: web.Request) -> Deferral:
        deferral = await self._store.deferral(request.match_info["queue_id"])
        if deferral is None:
            raise unknown_deferral()
        return deferral


def _age(request: web.Request) -> timedelta:
    text = request.query.get("max_age_minutes", str(STALE_MINUTES))
    if (
        not text.isascii()
        or not text.isdigit()
        or len(text) > len(str(MOST_MINUTES))
        or not 1 <= int(text) <= MOST_MINUTES
    ):
        raise CallerError("BAD_AGE", f"max_age_minutes is a whole number from 1 to {MOST_MINUTES}")
    return timedelta(minutes=int(text))


GONE = "There is no such receipt."
OPERATIONS = (
    Operation(
        method="GET",
        path="/queue",
        name="list_deferrals",
        text="Deferrals of all workspaces, the newest first.",
        tag="queue",
        who=(ADMIN, READ),
        parameters=(STATUS, Parameter(name="workspace_id", text="Only this workspace's; empty: all."), limit()),
        answers={200: Answer(text="As they are now.", shape=shapes.Deferrals)},
        errors={400: "A state or the limit cannot be."},
    ),
    Operation(
        method="POST",
        path="/queue/drop-stale",
        name="drop_stale",
        text="Drop queued deferrals that are older than so many minutes.",
        tag="queue",
        parameters=(
            Parameter(
                name="max_age_minutes",
                text="Older ones are dropped.",
                schema={"type": "integer", "minimum": 1, "maximum": MOST_MINUTES, "default": STALE_MINUTES},
            ),
            Parameter(name="workspace_id", text="Only of this workspace; empty: of all."),
        ),
        answers={200: Answer(text="How many.", shape=shapes.Dropped)},
        errors={400: "A parameter cannot be.", 404: "There is no such workspace."},
    ),
    Operation(
        method="POST",
        path="/queue/{queue_id}/redrive",
        name="redrive",
        text="Queue a dead letter again.",
        tag="queue",
        answers={200: Answer(text="It is queued.", shape=shapes.Deferral)},
        errors={404: GONE, 409: "It is no dead letter, or has a successor.", 429: "The queue is full."},
    ),
    Operation(
        method="POST",
        path="/queue/{queue_id}/cancel",
        name="cancel",
        text="Cancel a deferral before it is delivered.",
        tag="queue",
        body=bodies.ReasonBody,
        answers={200: Answer(text="It is cancelled.", shape=shapes.Deferral)},
        errors={404: GONE, 409: "It has ended, or is being delivered."},
    ),
)
