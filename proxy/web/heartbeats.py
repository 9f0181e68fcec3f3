"""The heartbeats' door: `POST /workspaces/{id}/heartbeat`.

Owns: what a beat may say, whose it is, what it is answered with.
Knows nothing of: what a beat changes (`loops.beats`).

Nothing is asked as often as this: a hundred thousand workspaces beat three thousand times a second. So a connection
serves plain ones by itself, as it does the data path (`web.front`), and on connections that aiohttp has they pass its
router by; those whose ids are escaped, and what is no POST, come through the application.
"""

from typing import Final

from aiohttp import web

from proxy.core.errors import CallerError, HoldfastError
from proxy.loops.beats import Beat, Beats
from proxy.loops.parking import Parking
from proxy.loops.readiness import Readiness
from proxy.loops.routing import Routing
from proxy.store import StoreFailure
from proxy.web import bodies, shapes
from proxy.web.admission import Admission
from proxy.web.answers import error_answer, json_answer, store_failed
from proxy.web.arrived import Arrived, Asking
from proxy.web.auth import Auth, unknown_workspace
from proxy.web.operations import ADMIN, OWN, Answer, Operation

HEARTBEAT: Final = "heartbeat"
"""Stands where a call has the tail of its path; a tail is empty or begins with a slash or a question mark."""

_BEFORE, _BEHIND = "/workspaces/", "/heartbeat"


def heartbeat_of(method: str, target: str) -> tuple[str, str] | None:
    """The workspace whose heartbeat a request is, and `HEARTBEAT`; None for any other, or where the id is escaped."""
    if method != "POST" or not target.endswith(_BEHIND) or not target.startswith(_BEFORE):
        return None
    workspace_id = target[len(_BEFORE) : -len(_BEHIND)]
    odd = not workspace_id or "/" in workspace_id or "%" in workspace_id or "?" in workspace_id
    return None if odd else (workspace_id, HEARTBEAT)


class Heartbeats:
    """Takes beats."""

    def __init__(
        self,
        *,
        routing: Routing,
        auth: Auth,
        admission: Admission,
        beats: Beats,
        readiness: Readiness,
        parking: Parking,
    ) -> None:
        self._routing = routing
        self._auth = auth
        self._admission = admission
        self._beats = beats
        self._readiness = readiness
        self._parking = parking

    def routes(self) -> list[web.RouteDef]:
        """What this door serves of the application."""
        return [web.post("/workspaces/{id}/heartbeat", self.beat)]

    async def beat(self, request: web.Request) -> web.Response:
        """`POST /workspaces/{id}/heartbeat`: a sign of life; an empty body is a plain one."""
        workspace_id = request.match_info["id"]
        self._check(request, workspace_id)
        return await self._take(workspace_id, await bodies.read(request, bodies.BeatBody))

    async def take(self, arrived: Arrived, workspace_id: str, _: str) -> web.Response:
        """The same for a request that passes the application by.

        Whose beat is taken is never counted, so it is enough to count who is refused.
        """
        try:
            try:
                self._check(arrived, workspace_id)
            except CallerError:
                self._admission.count_lifeline(arrived)
                raise
            body = await arrived.body(bodies.MOST_BODY)
            return await self._take(workspace_id, bodies.parse(body or b"{}", bodies.BeatBody))
        except HoldfastError as problem:
            return error_answer(problem)
        except StoreFailure as problem:
            return error_answer(store_failed(problem))

    def _check(self, request: Asking, workspace_id: str) -> None:
        """Refuse who may not speak for the workspace, and a workspace that there is not."""
        self._auth.require(request, workspace=workspace_id)
        if self._routing.get(workspace_id) is None:
            raise unknown_workspace(workspace_id)

    async def _take(self, workspace_id: str, said: bodies.BeatBody) -> web.Response:
        route = self._routing.get(workspace_id)
        if route is None:  # it was removed while its body came
            raise unknown_workspace(workspace_id)
        if said.agent != "down":
            await self._parking.heard(route, said.boot_id)
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


OPERATIONS = (
    Operation(
        method="POST",
        path="/workspaces/{id}/heartbeat",
        name="beat",
        text="A sign of life; an empty body is a plain one.",
        tag="workspaces",
        who=(ADMIN, OWN),
        body=bodies.BeatBody,
        answers={200: Answer(text="It was heard.", shape=shapes.Beaten)},
    ),
)
