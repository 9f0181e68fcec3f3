"""Whether a caller's request is let in, once it is known who calls: how often, whom, and whether that one exists.

Owns: the order of these questions on the data path, which requests to the other doors are counted.
Knows nothing of: tokens (`web.auth`), how rules decide (`core.access`, `core.rates`).

Everything is decided from the request's head and from memory, before anything of its body is read.
"""

from collections.abc import Awaitable, Callable

from aiohttp import web

from proxy.core.access import AccessRule, judge_access
from proxy.core.errors import CallerError
from proxy.core.tokens import Owner, TokenKind
from proxy.loops.routing import Route, Routing
from proxy.telemetry import EventName, Telemetry
from proxy.web.arrived import Arrived, Asking
from proxy.web.auth import Auth, not_known_yet, unknown_workspace
from proxy.web.limits import CallerLimits

OPERATORS = frozenset({TokenKind.ADMIN, TokenKind.READ})
"""Whose requests to the administrative doors are not counted: who has to look at trouble must be able to."""

LIFELINE = frozenset(
    {
        ("PUT", "/workspaces/{id}"),
        ("POST", "/workspaces/{id}/heartbeat"),
        ("POST", "/workspaces/{id}/restarting"),
        ("POST", "/workspaces/{id}/queue/claim"),
        ("POST", "/workspaces/{id}/queue/{deferral_id}/extend"),
        ("POST", "/workspaces/{id}/queue/{deferral_id}/events"),
        ("POST", "/workspaces/{id}/queue/{deferral_id}/complete"),
        ("POST", "/workspaces/{id}/queue/{deferral_id}/fail"),
    }
)
"""What a workspace says to stay alive and to do its work; these are never counted for it."""

OPEN = frozenset({"/healthz", "/readyz", "/openapi.json", "/.well-known/jwks.json"})
"""Paths that ask nobody for a token, and count nobody's."""


class Admission:
    """Lets requests in, or refuses them."""

    def __init__(self, *, routing: Routing, auth: Auth, telemetry: Telemetry, limits: CallerLimits, depth: int) -> None:
        self._routing = routing
        self._auth = auth
        self._telemetry = telemetry
        self._limits = limits if limits.on else None
        self._rule = routing.access_rule
        self._depth = depth

    def admit(self, request: Arrived, caller: Owner | None, workspace_id: str, request_id: str) -> Route:
        """Let a request of the data path in: the route that it takes.

        Raises:
            CallerError: 429 for one request too many, 404 for an unknown workspace, 403 for one that this caller may
                not call, and for a path that leads out of the workspace: others may stand behind the same address.
            ProxyError: 503 while nobody knows the workspaces yet.
        """
        if self._limits is not None:
            self._limits.charge(request, caller)
        route = self._routing.get(workspace_id)
        if route is None:
            raise unknown_workspace(workspace_id) if self._routing.ready else not_known_yet()
        if self._rule is not AccessRule.ANY:
            self._check(caller, route, request_id)
        if request.method == "CONNECT":
            raise CallerError("NO_TUNNELS", "Holdfast opens no tunnels", status=501)
        if request.climbs:
            raise CallerError("FORBIDDEN", "the path leads out of the workspace by `..`", status=403)
        return route

    def _check(self, caller: Owner | None, route: Route, request_id: str) -> None:
        access = judge_access(
            self._rule,
            caller,
            route.id,
            above=self._routing.parent,
            listed=route.effective.listed,
            depth=self._depth,
        )
        if access.allowed:
            return
        self._telemetry.emit(
            EventName.AUTH_REFUSED,
            workspace=route.id,
            incarnation=route.workspace.incarnation,
            request_id=request_id,
            rule=access.rule,
            fields={"caller": caller.caller if caller is not None else None, "status": 403},
        )
        raise CallerError("FORBIDDEN", "this token may not call this workspace", status=403)

    @web.middleware
    async def count(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Count a request to any other door, before it is served; who shows no valid token is refused there."""
        if self._limits is not None:
            owner = self._auth.identify(request)
            if owner is not None and _is_counted(request, owner):
                self._limits.charge(request, owner)
        return await handler(request)

    def count_lifeline(self, request: Asking) -> None:
        """Count what is part of the lifeline and did not come through the application, as `count` does."""
        if self._limits is not None:
            owner = self._auth.identify(request)
            if owner is not None and _counts_everywhere(owner):
                self._limits.charge(request, owner)


def _counts_everywhere(owner: Owner) -> bool:
    return owner.kind not in OPERATORS and owner.kind is not TokenKind.WORKSPACE


def _is_counted(request: web.Request, owner: Owner) -> bool:
    resource = request.match_info.route.resource
    path = resource.canonical if resource is not None else ""
    if owner.kind in OPERATORS or path in OPEN:
        return False
    return owner.kind is not TokenKind.WORKSPACE or (request.method, path) not in LIFELINE
