"""The admin's door: restarts, configuration, tokens, the decision log, and the health of the proxy itself.

Owns: the administrative routes.
Knows nothing of: how a restart runs.
"""

from collections.abc import Callable

from aiohttp import web

from proxy.clock import Now
from proxy.core.errors import CallerError, ProxyError
from proxy.core.ids import check_id
from proxy.core.restart import Trigger
from proxy.core.tokens import TokenKind
from proxy.loops.coordinator import Coordinator
from proxy.loops.enrolling import Enrolling
from proxy.loops.routing import Route, Routing
from proxy.store import Store, StoreFailure, TokenRecord
from proxy.web import bodies, shapes
from proxy.web.answers import json_answer
from proxy.web.auth import Auth, unknown_workspace
from proxy.web.operations import ANYBODY, Answer, Operation
from proxy.web.views import token_view


class Admin:
    """Serves the admin."""

    def __init__(
        self,
        *,
        routing: Routing,
        store: Store,
        auth: Auth,
        coordinator: Coordinator,
        enrolling: Enrolling,
        mint: Callable[[TokenKind, str], tuple[str, TokenRecord]],
        new_request_id: Callable[[], str],
        now: Now,
    ) -> None:
        self._routing = routing
        self._store = store
        self._auth = auth
        self._coordinator = coordinator
        self._enrolling = enrolling
        self._mint = mint
        self._new_request_id = new_request_id
        self._now = now

    def routes(self) -> list[web.RouteDef]:
        """What this door serves."""
        return [
            web.post("/workspaces/{id}/restart", self.restart),
            web.put("/workspaces/{id}/config", self.configure),
            web.post("/tokens", self.add_token),
            web.get("/tokens", self.tokens),
            web.delete("/tokens/{token_id}", self.drop_token),
            web.get("/healthz", self.healthz),
            web.get("/readyz", self.readyz),
        ]

    def _known(self, request: web.Request) -> Route:
        workspace_id = request.match_info["id"]
        route = self._routing.get(workspace_id)
        if route is None:
            raise unknown_workspace(workspace_id)
        return route

    async def restart(self, request: web.Request) -> web.Response:
        """`POST /workspaces/{id}/restart`: 202 scheduled or coalesced, 200 unmanaged, 409 below a parked ancestor."""
        self._auth.require(request)
        route = self._known(request)
        said = await bodies.read(request, bodies.ReasonBody)
        self._refuse_parked(route)
        asked = await self._coordinator.on_demand(
            route, Trigger.ADMIN, said.reason or "asked for by the admin", request_id=self._new_request_id()
        )
        answer = asked.decision.answer.value
        if answer == "unmanaged":
            return json_answer({"restart": answer})
        return json_answer({"restart": answer, "generation": asked.generation}, 202)

    def _refuse_parked(self, route: Route) -> None:
        """A workspace that is parked, or has a parked ancestor, is not restarted (scenario 60)."""
        seen: set[str] = set()
        current: Route | None = route
        while current is not None and current.id not in seen:
            if current.workspace.parked:
                raise CallerError(
                    "PARKED",
                    f"workspace {current.id} is {current.workspace.desired.value}",
                    status=409,
                    facts={"workspace": current.id},
                )
            seen.add(current.id)
            parent = current.workspace.parent
            current = self._routing.get(parent) if parent is not None else None

    async def configure(self, request: web.Request) -> web.Response:
        """`PUT /workspaces/{id}/config`: merged, versioned, restarted after the mutation."""
        self._auth.require(request)
        route = self._known(request)
        said = await bodies.read(request, bodies.ConfigBody)
        given = {name: value for name in said.__struct_fields__ if (value := getattr(said, name)) is not bodies.UNSET}
        self._refuse_parked(route)
        version, asked = await self._enrolling.configure(route, given, request_id=self._new_request_id())
        return json_answer({"version": version, "restart": asked.decision.answer.value}, 202)

    async def add_token(self, request: web.Request) -> web.Response:
        """`POST /tokens`: 201; the token is shown this once."""
        self._auth.require(request)
        said = await bodies.read(request, bodies.TokenBody)
        kind = TokenKind(said.kind)
        problem = check_id(said.name)
        if problem is not None:
            raise CallerError("BAD_ID", problem)
        if kind is TokenKind.WORKSPACE and self._routing.get(said.name) is None:
            raise unknown_workspace(said.name)
        token, record = self._mint(kind, said.name)
        await self._store.add_token(record)
        self._routing.add_token(record)
        return json_answer({"id": record.id, "token": token}, 201)

    async def tokens(self, request: web.Request) -> web.Response:
        """`GET /tokens`: what is known of them, never they themselves."""
        self._auth.require(request)
        return json_answer({"tokens": [token_view(token) for token in self._routing.tokens()]})

    async def drop_token(self, request: web.Request) -> web.Response:
        """`DELETE /tokens/{id}`: it is dead at once."""
        self._auth.require(request)
        gone = await self._store.drop_token(request.match_info["token_id"])
        if gone is None:
            raise CallerError("TOKEN_NOT_FOUND", "unknown token", status=404)
        self._routing.drop_token(gone.id)
        return json_answer({"status": "deleted", "id": gone.id})

    async def healthz(self, _: web.Request) -> web.Response:
        """`GET /healthz`: the process serves."""
        return json_answer({"status": "ok"})

    async def readyz(self, _: web.Request) -> web.Response:
        """`GET /readyz`: store and routing are ready; 503 while they are not."""
        if not self._routing.ready:
            raise ProxyError("NOT_READY", "the routing table is not filled yet", retry_after=1)
        try:
            seconds = await self._store.ping()
        except StoreFailure as problem:
            raise ProxyError("NOT_READY", f"the store does not commit ({problem.reason})", retry_after=5) from None
        return json_answer({"status": "ok", "store_seconds": round(seconds, 6)})


OPERATIONS = (
    Operation(
        method="POST",
        path="/workspaces/{id}/restart",
        name="restart",
        text="Restart a workspace: no brake holds it, and at most one more cycle follows the one that runs.",
        tag="restarts",
        body=bodies.ReasonBody,
        answers={
            200: Answer(text="Nobody can restart it: it has no runtime.", shape=shapes.Unmanaged),
            202: Answer(text="It will be restarted.", shape=shapes.RestartAsked),
        },
        errors={409: "It is parked, or stands below a parked workspace."},
    ),
    Operation(
        method="PUT",
        path="/workspaces/{id}/config",
        name="configure",
        text="Change how a workspace is started. Merged into its launch settings, and restarted after the write.",
        tag="restarts",
        body=bodies.ConfigBody,
        answers={202: Answer(text="Written.", shape=shapes.Configured)},
        errors={409: "It is parked, or stands below a parked workspace."},
    ),
    Operation(
        method="POST",
        path="/tokens",
        name="add_token",
        text="Make a token.",
        tag="tokens",
        body=bodies.TokenBody,
        answers={201: Answer(text="It is shown this once.", shape=shapes.NewToken)},
        errors={404: "There is no workspace of that name."},
    ),
    Operation(
        method="GET",
        path="/tokens",
        name="list_tokens",
        text="What is known of all tokens.",
        tag="tokens",
        uses_store=False,
        answers={200: Answer(text="Never they themselves.", shape=shapes.Tokens)},
    ),
    Operation(
        method="DELETE",
        path="/tokens/{token_id}",
        name="drop_token",
        text="Delete a token; it is dead at once.",
        tag="tokens",
        answers={200: Answer(text="It is gone.", shape=shapes.Removed)},
        errors={404: "There is no such token."},
    ),
    Operation(
        method="GET",
        path="/healthz",
        name="healthz",
        is_counted=False,
        text="Whether the process serves.",
        tag="proxy",
        who=ANYBODY,
        uses_store=False,
        answers={200: Answer(text="It does.", shape=shapes.Healthy)},
    ),
    Operation(
        method="GET",
        path="/readyz",
        name="readyz",
        is_counted=False,
        text="Whether the routing table is filled and the store commits.",
        tag="proxy",
        who=ANYBODY,
        answers={200: Answer(text="Both.", shape=shapes.Ready)},
    ),
)
