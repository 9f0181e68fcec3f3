"""Who calls, and whether that is allowed.

Owns: finding a token's owner, the claimed caller, the rights of each kind of token.
Knows nothing of: what is then done.

Closed by default: no token, an unknown one, a malformed one and a header that contradicts another are the same 401.
"""

from collections.abc import Iterable

from aiohttp.web import BaseRequest

from proxy.core.errors import CallerError
from proxy.core.ids import is_reserved
from proxy.core.tokens import Owner, TokenKind, digest, matches, read_credentials
from proxy.loops.routing import Routing

CLAIM = "X-Workspace-ID"
ADMIN = Owner(kind=TokenKind.ADMIN)


class Auth:
    """Authenticates requests. With `dev`, nobody is asked for a token and everybody is the admin."""

    def __init__(self, routing: Routing, *, admin_digest: str, join_digest: str | None, dev: bool) -> None:
        self._routing = routing
        self._admin = admin_digest
        self._join = join_digest
        self._dev = dev

    def owner(self, request: BaseRequest) -> Owner | None:
        """The owner of the token that a request shows; None only with `dev` and no token.

        Raises:
            CallerError: 401, one text for every cause.
        """
        headers = request.headers
        shown = read_credentials(
            holdfast_token=headers.getall("Holdfast-Token", ()), authorization=headers.getall("Authorization", ())
        )
        if shown.token is not None and not shown.denied:
            owner = self._lookup(shown.token)
            if owner is not None:
                return owner
        if self._dev and shown.token is None and not shown.denied:
            return None
        raise CallerError("UNAUTHENTICATED", "a valid Holdfast token is required", status=401)

    def _lookup(self, token: str) -> Owner | None:
        if matches(token, self._admin):
            return ADMIN
        if self._join is not None and matches(token, self._join):
            return Owner(kind=TokenKind.JOIN, name="join")
        return self._routing.owner(digest(token))

    def caller(self, request: BaseRequest) -> Owner | None:
        """The caller on the data path: the token's owner, whom a claim in `X-Workspace-ID` may only repeat.

        Raises:
            CallerError: 401; 403 for a reserved or foreign claim, and for tokens that do not call agents.
        """
        claims = request.headers.getall(CLAIM, ())
        owner = self.owner(request)
        for claim in claims:
            if is_reserved(claim.strip()):
                raise CallerError("INVALID_CALLER", "invalid caller ID", status=403)
            if owner is not None and claim.strip() != owner.name:
                raise CallerError("INVALID_CALLER", f"{CLAIM} names somebody else than the token's owner", status=403)
        if owner is None:
            return Owner(kind=TokenKind.WORKSPACE, name=claims[0].strip()) if claims and claims[0].strip() else None
        if owner.kind in {TokenKind.JOIN, TokenKind.READ}:
            raise CallerError("FORBIDDEN", f"a {owner.kind} token does not call agents", status=403)
        return owner

    def require(
        self, request: BaseRequest, *kinds: TokenKind, workspace: str | None = None, hide: bool = False
    ) -> Owner:
        """The owner, if it is the admin, one of `kinds`, or `workspace` itself.

        Raises:
            CallerError: 401; 403, or with `hide` the 404 of an unknown workspace.
        """
        owner = self.owner(request) or ADMIN
        if owner.kind is TokenKind.ADMIN or owner.kind in kinds:
            return owner
        if workspace is not None and owner.kind is TokenKind.WORKSPACE and owner.name == workspace:
            return owner
        if hide:
            raise unknown_workspace(workspace or "")
        raise CallerError("FORBIDDEN", "this token may not do that", status=403)


def unknown_workspace(workspace_id: str) -> CallerError:
    """The answer for a workspace that there is not, or that this caller may not know of."""
    return CallerError("WORKSPACE_NOT_FOUND", f"unknown workspace {workspace_id[:128]}", status=404)


def only(names: Iterable[str], allowed: frozenset[str], what: str) -> None:
    """Refuse members that only the admin may set."""
    forbidden = sorted(set(names) - allowed)
    if forbidden:
        raise CallerError("FORBIDDEN", f"{what}: only the admin may set {', '.join(forbidden)}", status=403)
