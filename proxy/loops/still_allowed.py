"""Whether who sent a deferred request may still call its workspace, asked again before it is delivered.

Owns: the question, which workspaces ask it (those with profile `offline-draft`, as the draft demands).
Knows nothing of: how access is decided (`core.access`), what becomes of a request whose caller may not any more.
"""

from proxy.core.access import judge_access
from proxy.core.deferral import Deferral
from proxy.core.tokens import Owner, TokenKind
from proxy.loops.routing import Route, Routing
from proxy.settings import Profile


class StillAllowed:
    """Asks. `depth`: how far a way up the tree of workspaces goes."""

    def __init__(self, *, routing: Routing, depth: int) -> None:
        self._routing = routing
        self._depth = depth

    def objection(self, route: Route, deferral: Deferral) -> str | None:
        """Why a deferral must not be delivered; None where nothing speaks against it."""
        if route.effective.profile is not Profile.OFFLINE_DRAFT or deferral.caller is None:
            return None
        if deferral.caller == TokenKind.ADMIN.value:
            return None
        kind, _, name = deferral.caller.partition(":")
        owner = Owner(kind=TokenKind(kind), name=name)
        if not any((token.kind, token.name) == (kind, name) for token in self._routing.tokens()):
            return "its caller has no token any more"
        access = judge_access(
            self._routing.access_rule,
            owner,
            route.id,
            above=self._routing.parent,
            listed=route.effective.listed,
            depth=self._depth,
        )
        return None if access.allowed else "its caller may not call this workspace any more"
