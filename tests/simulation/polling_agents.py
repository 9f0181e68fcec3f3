"""An agent in virtual time that fetches its requests: it leases, tells events, and completes or gives up.

Owns: such an agent. Knows nothing of: sockets; it uses the parts that stand behind the inbox's door.
"""

import json
from datetime import timedelta
from typing import Any

from simulation.world import World

from proxy.core.deferral import Deferral, StoredAnswer, poller


class Poller:
    """The agent of workspace `ws`; `deferral` is what it has leased last."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.deferral: Deferral | None = None

    @property
    def held(self) -> Deferral:
        assert self.deferral is not None, "claim() comes first"
        return self.deferral

    @property
    def token(self) -> str:
        assert self.held.lease is not None
        return self.held.lease.token

    async def claim(self, seconds: float = 30) -> None:
        """Lease the oldest deferral."""
        app, route = self.world.app, self.world.route()
        owner = poller(route.id, route.workspace.incarnation)
        (self.deferral,) = await app.attempts.lease_due(route, owner, seconds=seconds, count=1, now=app.now())

    async def tell(self, *events: dict[str, Any]) -> None:
        """Tell events that come together."""
        story = await self.world.app.leases.listen(self.held)
        until = self.world.app.now() + timedelta(seconds=30)
        data = [json.dumps(event).encode() for event in events]
        assert await story.take(data, token=self.token, until=until) is not None
        self.deferral = await self.world.store.deferral(self.held.id)

    async def complete(self, answer: dict[str, Any] | None = None) -> None:
        """Complete it, with this answer or with what was told."""
        said = None
        if answer is not None:
            said = StoredAnswer(status=200, headers=(), body=json.dumps(answer).encode())
        await self.world.app.leases.complete(self.world.route(), self.held, said, 200)

    async def give_up(self) -> None:
        """It cannot be done."""
        await self.world.app.leases.fail(self.world.route(), self.held, "no more", retry=False)
