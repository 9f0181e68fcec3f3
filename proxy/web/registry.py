"""The registry's door: workspaces register and are looked at.

Owns: routes below `/workspaces` that concern one workspace's record; who may set what.
Knows nothing of: the data path, how a record is written.
"""

from aiohttp import web

from proxy.clock import Now
from proxy.core.errors import CallerError
from proxy.core.ids import check_id
from proxy.core.tokens import TokenKind
from proxy.loops.coordinator import Coordinator
from proxy.loops.enrolling import Enrolling
from proxy.loops.parking import Parking
from proxy.loops.routing import Route, Routing
from proxy.web import bodies, shapes
from proxy.web.answers import json_answer
from proxy.web.auth import Auth, only, unknown_workspace
from proxy.web.operations import ADMIN, JOIN, OWN, READ, Answer, Operation
from proxy.web.views import workspace_view

OWN_MEMBERS = frozenset({"url", "boot_id", "agent_card", "delivery_mode"})


class Registry:
    """Serves workspaces' records."""

    def __init__(
        self,
        *,
        routing: Routing,
        auth: Auth,
        enrolling: Enrolling,
        coordinator: Coordinator,
        parking: Parking,
        now: Now,
    ) -> None:
        self._routing = routing
        self._auth = auth
        self._enrolling = enrolling
        self._coordinator = coordinator
        self._parking = parking
        self._now = now

    def routes(self) -> list[web.RouteDef]:
        """What this door serves."""
        return [
            web.get("/workspaces", self.index),
            web.put("/workspaces/{id}", self.put),
            web.get("/workspaces/{id}", self.show),
            web.delete("/workspaces/{id}", self.remove),
            web.post("/workspaces/{id}/restarting", self.restarting),
        ]

    def known(self, request: web.Request) -> Route:
        """The route that the path names; 404 for an unknown one."""
        workspace_id = request.match_info["id"]
        route = self._routing.get(workspace_id)
        if route is None:
            raise unknown_workspace(workspace_id)
        return route

    async def index(self, request: web.Request) -> web.Response:
        """`GET /workspaces`: all of them, for the admin and readers."""
        self._auth.require(request, TokenKind.READ)
        now = self._now()
        return json_answer({"workspaces": [workspace_view(route, now) for route in self._routing]})

    async def show(self, request: web.Request) -> web.Response:
        """`GET /workspaces/{id}`: for the admin, readers and the workspace itself; 404 for everybody else."""
        self._auth.require(request, TokenKind.READ, workspace=request.match_info["id"], hide=True)
        return json_answer(workspace_view(self.known(request), self._now()))

    async def put(self, request: web.Request) -> web.Response:
        """`PUT /workspaces/{id}`: 201 with a token for a new one, 200 for a known one."""
        workspace_id = request.match_info["id"]
        owner = self._auth.require(request, TokenKind.JOIN, workspace=workspace_id)
        problem = check_id(workspace_id)
        if problem is not None:
            raise CallerError("BAD_ID", problem)
        body = await bodies.read(request, bodies.WorkspaceBody)
        said = body.said()
        by_admin = owner.kind is TokenKind.ADMIN
        if not by_admin:
            only(said, OWN_MEMBERS, f"workspace {workspace_id}")
        if owner.kind is TokenKind.JOIN and self._routing.get(workspace_id) is not None:
            raise CallerError("FORBIDDEN", "a join token may only create a workspace that is not there", status=403)
        known = self._routing.get(workspace_id)
        if known is not None and not by_admin:
            await self._parking.heard(known, said.get("boot_id"))
        enrolled = await self._enrolling.put(workspace_id, said, by_admin=by_admin)
        view = workspace_view(enrolled.route, self._now())
        if enrolled.token is not None:
            view["token"] = enrolled.token
        return json_answer(view, 201 if enrolled.created else 200)

    async def remove(self, request: web.Request) -> web.Response:
        """`DELETE /workspaces/{id}` (admin)."""
        self._auth.require(request)
        route = self.known(request)
        await self._enrolling.remove(route, request_id=None)
        return json_answer({"status": "removed", "id": route.id})

    async def restarting(self, request: web.Request) -> web.Response:
        """`POST /workspaces/{id}/restarting`: "I restart it myself" opens the settle window, once per incarnation."""
        self._auth.require(request, workspace=request.match_info["id"])
        route = self.known(request)
        said = await bodies.read(request, bodies.ReasonBody)
        opened = await self._coordinator.on_announcement(route, said.reason)
        view = workspace_view(route, self._now())
        return json_answer({"announced": opened, "settle_until": view["settle_until"]})


OPERATIONS = (
    Operation(
        method="GET",
        path="/workspaces",
        name="list_workspaces",
        text="All workspaces.",
        tag="workspaces",
        who=(ADMIN, READ),
        uses_store=False,
        answers={200: Answer(text="Each as it is now.", shape=shapes.Workspaces)},
    ),
    Operation(
        method="PUT",
        path="/workspaces/{id}",
        name="put_workspace",
        text="Register a workspace, or change it. Only the admin may set more than `url`, `boot_id`, `agent_card` and"
        " `delivery_mode`.",
        tag="workspaces",
        who=(ADMIN, JOIN, OWN),
        must_exist=False,
        body=bodies.WorkspaceBody,
        answers={
            200: Answer(text="It was known; this is what it is now.", shape=shapes.Workspace),
            201: Answer(text="It is new. Its token is shown this once.", shape=shapes.NewWorkspace),
        },
        errors={400: "The id or the body cannot be; every problem is named."},
    ),
    Operation(
        method="GET",
        path="/workspaces/{id}",
        name="show_workspace",
        text="One workspace.",
        tag="workspaces",
        who=(ADMIN, READ, OWN),
        hidden=True,
        uses_store=False,
        answers={200: Answer(text="As it is now.", shape=shapes.Workspace)},
    ),
    Operation(
        method="DELETE",
        path="/workspaces/{id}",
        name="remove_workspace",
        text="Remove a workspace: its deferrals are cancelled, its tokens die, its compute stops.",
        tag="workspaces",
        answers={200: Answer(text="It is gone.", shape=shapes.Removed)},
    ),
    Operation(
        method="POST",
        path="/workspaces/{id}/restarting",
        name="announce_restart",
        text="The workspace restarts itself: opens its settle window, once per incarnation, and touches nothing.",
        tag="restarts",
        who=(ADMIN, OWN),
        body=bodies.ReasonBody,
        answers={200: Answer(text="Whether the window was opened by this.", shape=shapes.Announced)},
    ),
)
