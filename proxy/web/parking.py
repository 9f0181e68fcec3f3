"""The admin's door to parking: pause, resume, hibernate.

Owns: these routes.
Knows nothing of: how a workspace is parked and let run again (`loops.parking`).
"""

from collections.abc import Callable

from aiohttp import web

from proxy.clock import Now
from proxy.loops.parking import Parking
from proxy.loops.routing import Route, Routing
from proxy.web import bodies, shapes
from proxy.web.answers import json_answer
from proxy.web.auth import Auth, unknown_workspace
from proxy.web.operations import Answer, Operation
from proxy.web.views import workspace_view


class ParkingDoor:
    """Serves the admin. Each verb answers 200 with the workspace as it is now, also where nothing had to change."""

    def __init__(
        self, *, routing: Routing, auth: Auth, parking: Parking, new_request_id: Callable[[], str], now: Now
    ) -> None:
        self._routing = routing
        self._auth = auth
        self._parking = parking
        self._new_request_id = new_request_id
        self._now = now

    def routes(self) -> list[web.RouteDef]:
        """What this door serves."""
        return [
            web.post("/workspaces/{id}/pause", self.pause),
            web.post("/workspaces/{id}/resume", self.resume),
            web.post("/workspaces/{id}/hibernate", self.hibernate),
        ]

    async def pause(self, request: web.Request) -> web.Response:
        """`POST /workspaces/{id}/pause` `{reason?, force?}`: with everything below it; its compute stops."""
        route, said = await self._asked(request)
        changed = await self._parking.pause(route, said.reason, force=said.force, request_id=self._new_request_id())
        return self._answer(route, changed)

    async def resume(self, request: web.Request) -> web.Response:
        """`POST /workspaces/{id}/resume` `{reason?}`: with what is paused below it; 409 below a paused ancestor."""
        route, said = await self._asked(request)
        changed = await self._parking.resume(route, said.reason or "resumed", request_id=self._new_request_id())
        return self._answer(route, changed)

    async def hibernate(self, request: web.Request) -> web.Response:
        """`POST /workspaces/{id}/hibernate` `{reason?, force?}`: until somebody needs it; 409 while it works."""
        route, said = await self._asked(request)
        changed = await self._parking.hibernate(route, said.reason, force=said.force, request_id=self._new_request_id())
        return self._answer(route, changed)

    async def _asked(self, request: web.Request) -> tuple[Route, bodies.ParkBody]:
        self._auth.require(request)
        workspace_id = request.match_info["id"]
        route = self._routing.get(workspace_id)
        if route is None:
            raise unknown_workspace(workspace_id)
        return route, await bodies.read(request, bodies.ParkBody)

    def _answer(self, route: Route, changed: int) -> web.Response:
        return json_answer({**workspace_view(route, self._now()), "changed": changed})


OPERATIONS = (
    Operation(
        method="POST",
        path="/workspaces/{id}/pause",
        name="pause",
        text="Pause a workspace and everything below it: open calls may finish, its compute is stopped, requests wait.",
        tag="parking",
        body=bodies.ParkBody,
        answers={200: Answer(text="It is paused; this is what it is now.", shape=shapes.Parked)},
    ),
    Operation(
        method="POST",
        path="/workspaces/{id}/resume",
        name="resume",
        text="Let a workspace run again, with what is paused below it: it is started, and what waited is delivered.",
        tag="parking",
        body=bodies.ParkBody,
        answers={200: Answer(text="It is wanted; this is what it is now.", shape=shapes.Parked)},
        errors={409: "It stands below a paused workspace."},
    ),
    Operation(
        method="POST",
        path="/workspaces/{id}/hibernate",
        name="hibernate",
        text="Stop a workspace until the next request needs it; that request wakes it.",
        tag="parking",
        body=bodies.ParkBody,
        answers={200: Answer(text="It hibernates; this is what it is now.", shape=shapes.Parked)},
        errors={409: "Something waits in its queue, or it is at work and `force` was not said."},
    ),
)
