"""Who calls, and whether that is allowed.

Owns: finding a token's owner, the claimed caller, the rights of each kind of token.
Knows nothing of: what is then done.

Closed by default: no token, an unknown one, a malformed one and a header given twice are the same 401. What it was in
truth stands in the event `auth.refused`.
"""

from collections.abc import Iterable

from proxy.core.errors import CallerError, ProxyError
from proxy.core.ids import is_reserved
from proxy.core.tokens import Credentials, Owner, TokenKind, digest, read_credentials, same
from proxy.loops.routing import Routing
from proxy.telemetry import EventName, Telemetry
from proxy.web.arrived import Asking, Fields
from proxy.web.limits import TokenFailures

CLAIM = "X-Workspace-ID"
ADMIN = Owner(kind=TokenKind.ADMIN)
MOST_PATH = 200
"""Characters of a path that an event shows."""


class Auth:
    """Authenticates requests. With `dev`, nobody is asked for a token and everybody is the admin."""

    def __init__(
        self,
        routing: Routing,
        *,
        admin_digest: str,
        join_digest: str | None,
        dev: bool,
        telemetry: Telemetry,
        failures: TokenFailures,
    ) -> None:
        self._routing = routing
        self._telemetry = telemetry
        self._failures = failures
        self._admin = admin_digest
        self._join = join_digest
        self._dev = dev

    def owner(self, request: Asking) -> Owner | None:
        """The owner of the token that a request shows; None only with `dev` and no token.

        Raises:
            CallerError: 401, one text for every cause; 429 for an address that has shown too many wrong tokens.
        """
        self._failures.check(request)
        shown = _shown(request)
        owner = self._lookup(shown.token) if shown.token is not None else None
        if owner is not None or (self._dev and shown.token is None and not shown.denied):
            return owner
        self._failures.count(request)
        rule = "bad_token" if shown.denied else "no_token" if shown.token is None else "unknown_token"
        refused = CallerError("UNAUTHENTICATED", "a valid Holdfast token is required", status=401)
        raise self._refused(request, refused, rule, None)

    def identify(self, request: Asking) -> Owner | None:
        """The owner of the token that a request shows, None without a valid one; nobody is refused or counted."""
        shown = _shown(request)
        return self._lookup(shown.token) if shown.token is not None else None

    def stands(self, request: Asking) -> bool:
        """The token with which a request was let in is still valid: for what takes long. Without one it was `dev`."""
        shown = _shown(request)
        return shown.token is None or self._lookup(shown.token) is not None

    def _refused(self, request: Asking, error: CallerError, rule: str, owner: Owner | None) -> CallerError:
        """Tell of a refusal: the caller learns less than the log."""
        fields = {
            "caller": owner.caller if owner is not None else None,
            "status": error.status,
            "remote": request.remote,
            "method": request.method,
            "path": request.path[:MOST_PATH],
        }
        self._telemetry.emit(EventName.AUTH_REFUSED, rule=rule, fields=fields)
        return error

    def _lookup(self, token: str) -> Owner | None:
        hashed = digest(token)
        if same(hashed, self._admin):
            return ADMIN
        if self._join is not None and same(hashed, self._join):
            return Owner(kind=TokenKind.JOIN, name="join")
        return self._routing.owner(hashed)

    def caller_again(self, request: Asking, fields: Fields) -> Owner | None:
        """`caller`, remembered for fields that come again on one connection, until any token is made or dropped.

        Raises:
            CallerError: as `caller`; a refusal is not remembered.
        """
        tokens = self._routing.tokens_version
        judged = fields.judged
        if judged is not None and judged[0] is tokens:
            self._failures.check(request)
            return judged[1]
        owner = self.caller(request)
        fields.judged = (tokens, owner)
        return owner

    def caller(self, request: Asking) -> Owner | None:
        """The caller on the data path: the token's owner, whom a claim in `X-Workspace-ID` may only repeat.

        Raises:
            CallerError: 401; 403 for a reserved or foreign claim, and for tokens that do not call agents.
        """
        claims = request.headers.getall(CLAIM, ())
        owner = self.owner(request)
        for claim in claims:
            if is_reserved(claim.strip()):
                reserved = CallerError("INVALID_CALLER", "invalid caller ID", status=403)
                raise self._refused(request, reserved, "reserved_claim", owner)
            if owner is not None and claim.strip() != owner.name:
                text = f"{CLAIM} names somebody else than the token's owner"
                foreign = CallerError("INVALID_CALLER", text, status=403)
                raise self._refused(request, foreign, "foreign_claim", owner)
        if owner is None:
            return Owner(kind=TokenKind.WORKSPACE, name=claims[0].strip()) if claims and claims[0].strip() else None
        if owner.kind in {TokenKind.JOIN, TokenKind.READ}:
            kind = CallerError("FORBIDDEN", f"a {owner.kind} token does not call agents", status=403)
            raise self._refused(request, kind, "no_caller", owner)
        return owner

    def require(self, request: Asking, *kinds: TokenKind, workspace: str | None = None, hide: bool = False) -> Owner:
        """The owner, if it is the admin, one of `kinds`, or `workspace` itself.

        Raises:
            CallerError: 401; 403, or with `hide` the 404 of an unknown workspace.
        """
        owner = self.owner(request) or ADMIN
        if owner.kind is TokenKind.ADMIN or owner.kind in kinds:
            return owner
        if workspace is not None and owner.kind is TokenKind.WORKSPACE and owner.name == workspace:
            return owner
        forbidden = CallerError("FORBIDDEN", "this token may not do that", status=403)
        error = unknown_workspace(workspace or "") if hide else forbidden
        raise self._refused(request, error, "no_right", owner)


def _shown(request: Asking) -> Credentials:
    headers = request.headers
    return read_credentials(
        holdfast_token=headers.getall("Holdfast-Token", ()), authorization=headers.getall("Authorization", ())
    )


def unknown_workspace(workspace_id: str) -> CallerError:
    """The answer for a workspace that there is not, or that this caller may not know of."""
    return CallerError("WORKSPACE_NOT_FOUND", f"unknown workspace {workspace_id[:128]}", status=404)


def not_known_yet() -> ProxyError:
    """The answer while the routing table is not filled: whether and how a workspace is reached is not guessed."""
    return ProxyError(
        "STARTING", "Holdfast does not know its workspaces yet", retry_after=1, facts={"busy": True, "delivered": "no"}
    )


def only(names: Iterable[str], allowed: frozenset[str], what: str) -> None:
    """Refuse members that only the admin may set."""
    forbidden = sorted(set(names) - allowed)
    if forbidden:
        raise CallerError("FORBIDDEN", f"{what}: only the admin may set {', '.join(forbidden)}", status=403)
