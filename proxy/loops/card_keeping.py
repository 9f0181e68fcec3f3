"""The last card of each workspace, kept for the time when it is away.

Owns: what of the cards that pass is written, and when.
Knows nothing of: HTTP, how a card is shown to clients.

A card that passes, or that the readiness probe is shown, is compared with the kept one in memory. Only one that differs
is written, some time later and by nobody who waits: however often an agent's card changes, there is one write per
workspace and interval.
"""

from dataclasses import replace
from typing import Any

import msgspec

from proxy.core import a2a
from proxy.core.workspace import Workspace
from proxy.loops.background import Background
from proxy.loops.records import Records
from proxy.loops.routing import Route, Routing
from proxy.telemetry import EventName, Telemetry


class CardKeeping:
    """Keeps cards of at most `most` bytes; 0 keeps none. A changed one is written within `delay` seconds."""

    def __init__(
        self,
        *,
        routing: Routing,
        records: Records,
        background: Background,
        telemetry: Telemetry,
        delay: float,
        most: int,
    ) -> None:
        self._routing = routing
        self._records = records
        self._background = background
        self._telemetry = telemetry
        self._delay = delay
        self._most = most
        self._latest: dict[str, dict[str, Any]] = {}

    def probed(self, workspace_id: str, body: bytes) -> None:
        """A probe was shown what may be this workspace's card."""
        route = self._routing.get(workspace_id)
        if route is not None and a2a.is_card(body):
            self.take(route, body)

    def take(self, route: Route, body: bytes) -> None:
        """A workspace's agent has just shown this card to everybody."""
        if len(body) > self._most:
            return
        try:
            card = msgspec.json.decode(body, type=dict[str, Any])
        except (ValueError, RecursionError):
            return
        if card == route.workspace.agent_card:
            self._latest.pop(route.id, None)  # it is as it was before what waits to be written
            return
        # What the last card makes secret stays secret while this proxy lives: a request may be on its way with it.
        route.seen_credentials |= a2a.credential_headers(route.workspace.agent_card)
        self._latest[route.id] = card
        self._background.once(f"card-{route.id}", self._delay, lambda: self._write(route))

    async def _write(self, route: Route) -> None:
        card = self._latest.pop(route.id, None)

        def with_card(workspace: Workspace) -> Workspace:
            return replace(workspace, agent_card=card)

        if card is None or await self._records.change(route, with_card) is None:
            return
        self._telemetry.emit(EventName.CARD_KEPT, workspace=route.id, incarnation=route.workspace.incarnation)
