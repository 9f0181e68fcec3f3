"""The queue's door: callers, targets and admins follow deferrals.

Owns: routes that show deferrals; that a stranger cannot tell a hidden one from an unknown one.
Knows nothing of: delivery.
"""

from aiohttp import web

from proxy.core.deferral import Deferral, State
from proxy.core.errors import CallerError
from proxy.core.tokens import Owner, TokenKind
from proxy.loops.deferring import states_of
from proxy.loops.tasks import may_see
from proxy.store import Store
from proxy.web import shapes
from proxy.web.answers import json_answer
from proxy.web.auth import Auth
from proxy.web.operations import ADMIN, CALLER, OWN, READ, Answer, Operation, Parameter, limit
from proxy.web.views import deferral_view

MOST_LISTED = 1000
MOST_DIGITS = 9
"""Of a number in a query: the interpreter refuses to read thousands of them."""


class Queue:
    """Serves deferrals."""

    def __init__(self, *, store: Store, auth: Auth) -> None:
        self._store = store
        self._auth = auth

    def routes(self) -> list[web.RouteDef]:
        """What this door serves."""
        return [
            web.get("/workspaces/{id}/queue", self.index),
            web.get("/workspaces/{id}/queue/{deferral_id}", self.show),
            web.get("/queue/{deferral_id}", self.show),
        ]

    async def index(self, request: web.Request) -> web.Response:
        """`GET /workspaces/{id}/queue`: newest first; callers see their own."""
        owner = self._auth.owner(request)
        states = states_of([name for name in request.query.get("status", "").split(",") if name])
        workspace_id = request.match_info["id"]
        found = await self._store.deferrals(
            workspace_id=workspace_id, states=states, caller=_only_of(workspace_id, owner), limit=limit_of(request)
        )
        return json_answer({"items": [deferral_view(item) for item in found if _sees(item, owner)]})

    async def show(self, request: web.Request) -> web.Response:
        """`GET /workspaces/{id}/queue/{deferral_id}`: for its caller, its target and the admin; else 404.

        `GET /queue/{deferral_id}` is the same for who knows the receipt only.
        """
        try:
            owner = self._auth.owner(request)
        except CallerError:
            raise unknown_deferral() from None
        deferral = await self._store.deferral(request.match_info["deferral_id"])
        if deferral is None or not _sees(deferral, owner):
            raise unknown_deferral()
        if deferral.workspace_id != request.match_info.get("id", deferral.workspace_id):
            raise unknown_deferral()
        return json_answer(deferral_view(deferral))


def _sees(deferral: Deferral, owner: Owner | None) -> bool:
    return (owner is not None and owner.kind is TokenKind.READ) or may_see(deferral, owner)


def _only_of(workspace_id: str, owner: Owner | None) -> str | None:
    """Whose deferrals are listed: a caller's own, all of them for the workspace, the admin and readers."""
    if owner is None or owner.kind in {TokenKind.ADMIN, TokenKind.READ}:
        return None
    return None if owner.kind is TokenKind.WORKSPACE and owner.name == workspace_id else owner.caller


def limit_of(request: web.Request, default: int = 100) -> int:
    """The `limit` of a listing: 1 to 1000."""
    text = request.query.get("limit", str(default))
    if not (text.isascii() and text.isdigit() and len(text) <= MOST_DIGITS and 1 <= int(text) <= MOST_LISTED):
        raise CallerError("BAD_LIMIT", f"limit is a whole number from 1 to {MOST_LISTED}")
    return int(text)


def unknown_deferral() -> CallerError:
    """The same answer for a receipt that there is not and for one that is somebody else's."""
    return CallerError("RECEIPT_NOT_FOUND", "unknown receipt", status=404)


_STATES = "|".join(state.value for state in State)
STATUS = Parameter(
    name="status",
    text="Only these states, separated by commas; empty: any.",
    schema={"type": "string", "pattern": f"^(({_STATES})(,({_STATES}))*)?$"},
)
OPERATIONS = (
    Operation(
        method="GET",
        path="/workspaces/{id}/queue",
        name="list_queue",
        text="A workspace's deferrals, the newest first; callers see their own.",
        tag="queue",
        who=(ADMIN, READ, OWN, CALLER),
        must_exist=False,
        parameters=(STATUS, limit()),
        answers={200: Answer(text="As they are now.", shape=shapes.Deferrals)},
        errors={400: "A state or the limit cannot be."},
    ),
    Operation(
        method="GET",
        path="/workspaces/{id}/queue/{deferral_id}",
        name="show_deferral",
        text="One deferral, and the agent's answer once there is one.",
        tag="queue",
        who=(ADMIN, READ, OWN, CALLER),
        hidden=True,
        unseen=True,
        answers={200: Answer(text="As it is now.", shape=shapes.Deferral)},
        errors={404: "There is no such receipt, or it is somebody else's."},
    ),
    Operation(
        method="GET",
        path="/queue/{deferral_id}",
        name="show_receipt",
        text="The same, for who knows the receipt only.",
        tag="queue",
        who=(ADMIN, READ, OWN, CALLER),
        hidden=True,
        unseen=True,
        answers={200: Answer(text="As it is now.", shape=shapes.Deferral)},
        errors={404: "There is no such receipt, or it is somebody else's."},
    ),
)
