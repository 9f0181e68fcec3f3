"""The registry's door: workspaces register, beat and are looked at.

Owns: routes below `/workspaces` that concern one workspace's record; who may set what.
Knows nothing of: the data path, how a record is written.
"""

from aiohttp import web

from proxy.clock import Now
from proxy.core.errors import CallerError
from proxy.core.ids import check_id
from proxy.core.tokens import TokenKind
from proxy.loops.beats import Beat, Beats
from proxy.loops.coordinator import Coordinator
from proxy.loops.enrolling import Enrolling
from proxy.loops.readiness import Readiness
from proxy.loops.routing import Route, Routing
from proxy.web import bodies
from proxy.web.answers import json_answer
from proxy.web.auth import Auth, only, unknown_workspace
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
        beats: Beats,
        coordinator: Coordinator,
        readiness: Readiness,
        now: Now,
    ) -> None:
        self._routing = routing
        self._auth = auth
        self._enrolling = enrolling
        self._beats = beats
        self._coordinator = coordinator
        self._readiness = readiness
        self._now = now

    def routes(self) -> list[web.RouteDef]:
        """What this door serves."""
        return [
            web.get("/workspaces", self.index),
            web.put("/workspaces/{id}", self.put),
            web.get("/workspaces/{id}", self.show),
            web.delete("/workspaces/{id}", self.remove),
            web.post("/workspaces/{id}/heartbeat", self.beat),
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

    async def beat(self, request: web.Request) -> web.Response:
        """`POST /workspaces/{id}/heartbeat`: a sign of life; an empty body is a plain one."""
        self._auth.require(request, workspace=request.match_info["id"])
        route = self.known(request)
        said = await bodies.read(request, bodies.BeatBody)
        await self._beats.take(
            route,
            Beat(
                boot_id=said.boot_id,
                status=said.status,
                agent=said.agent,
                active_tasks=said.active_tasks,
                max_concurrent=said.max_concurrent,
                progress=said.progress,
            ),
        )
        if said.agent != "down" and route.open_cycle is not None:
            await self._readiness.settle(route)
        return json_answer({"status": "ok", "incarnation": route.workspace.incarnation, "queue_depth": route.size.rows})

    async def restarting(self, request: web.Request) -> web.Response:
        """`POST /workspaces/{id}/restarting`: "I restart it myself" opens the settle window, once per incarnation."""
        self._auth.require(request, workspace=request.match_info["id"])
        route = self.known(request)
        said = await bodies.read(request, bodies.ReasonBody)
        opened = await self._coordinator.on_announcement(route, said.reason)
        view = workspace_view(route, self._now())
        return json_answer({"announced": opened, "settle_until": view["settle_until"]})
