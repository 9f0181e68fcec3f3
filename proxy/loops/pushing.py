"""Push notifications as one part of a Holdfast: configurations, couriers, and connections of their own.

Owns: which of them gets which, their start and end.
Knows nothing of: what they do. Receivers are named by callers, so they are called through a pool of their own, which
judges addresses by `push.allow` and shares no connection with agents.
"""

import random
from collections.abc import Callable

from proxy.clock import Now
from proxy.config import Config
from proxy.core.addresses import AddressPolicy
from proxy.forward import Forward
from proxy.forward.pool import Pool, PoolSettings
from proxy.loops.background import Background
from proxy.loops.followers import Followers
from proxy.loops.looking_up import LookUp
from proxy.loops.notifying import Notifying
from proxy.loops.push_configs import PushConfigs
from proxy.loops.routing import Routing
from proxy.store import Store
from proxy.store.vault import Vault
from proxy.telemetry import Telemetry

KEPT = 4.0
"""Seconds that an unused connection to a receiver is kept: one task's notifications often follow each other closely."""


class Pushing:
    """Push notifications. `outside`: a simulated network; None for the real one."""

    def __init__(
        self,
        config: Config,
        *,
        outside: Forward | None,
        store: Store,
        vault: Vault,
        followers: Followers,
        routing: Routing,
        background: Background,
        now: Now,
        telemetry: Telemetry,
        chance: random.Random,
        new_token: Callable[[], str],
        owner: str,
    ) -> None:
        allow = config.push.allow
        addresses = AddressPolicy(allow=config.upstream_allow if allow is None else allow)
        self._pool = None
        if outside is None:
            per_origin = PoolSettings(connections_per_origin=config.push.concurrent, keepalive=KEPT)
            self._pool = Pool(addresses, per_origin)
        self.configs = PushConfigs(
            store=store,
            vault=vault,
            addresses=addresses,
            look_up=LookUp(self._pool, own_child=False).problem,
            most=config.push.receivers,
        )
        forward: Forward | None = outside or self._pool
        if forward is None:
            raise ValueError("receivers need a network")
        self.notifying = Notifying(
            store=store,
            configs=self.configs,
            forward=forward,
            routing=routing,
            background=background,
            now=now,
            telemetry=telemetry,
            chance=chance,
            new_token=new_token,
            owner=owner,
            rules=config.push,
        )
        self.configs.added = self.notifying.added
        followers.heard = self.notifying.heard

    async def aclose(self) -> None:
        """Close the connections to receivers; couriers have ended by then."""
        if self._pool is not None:
            await self._pool.aclose()
