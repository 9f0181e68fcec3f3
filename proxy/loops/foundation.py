"""What every part of a Holdfast stands on: its clock, its chance, its store, its telemetry, and what lies outside.

Owns: these, and that simulations may bring their own.
Knows nothing of: the parts that stand on it (`proxy.assembly`).
"""

import random
from abc import ABC, abstractmethod
from dataclasses import dataclass

from proxy.clock import Jump, Now, SystemClock, stopwatch
from proxy.config import Config
from proxy.core.addresses import AddressPolicy
from proxy.forward import Forward
from proxy.forward.pool import Pool, PoolSettings
from proxy.loops.background import Background
from proxy.loops.event_ring import EventRing
from proxy.loops.hosting import Hosting, Hosts
from proxy.loops.minting import Mint, owner_of
from proxy.loops.routing import Routing
from proxy.loops.traffic import Labels, LoopLag, Told, Traffic
from proxy.runtimes import Exited, RuntimeContext
from proxy.store import Store
from proxy.store.sqlite import SqliteStore
from proxy.telemetry import EventName, Level, Telemetry


@dataclass(frozen=True, slots=True, kw_only=True)
class Outside:
    """What lies outside of the process: the network to agents, and what hosts them. Simulations bring their own."""

    forward: Forward
    hosts: Hosts


class Foundation(ABC):
    """The ground of one Holdfast. `meet_outside` comes before anything that calls or hosts an agent."""

    def __init__(
        self,
        config: Config,
        *,
        now: Now | None = None,
        chance: random.Random | None = None,
        telemetry: Telemetry | None = None,
        store: Store | None = None,
        outside: Outside | None = None,
        listen: bool = True,
    ) -> None:
        self.config = config
        self._chance = chance or random.SystemRandom()
        self.now: Now = now or SystemClock(on_jump=self._on_jump)
        self.mint = Mint(self._chance, self.now)
        self.forward: Forward
        self.hosting: Hosts
        self.telemetry = telemetry or Telemetry(self.now)
        events = config.events
        self.ring = EventRing(born=self.now(), rows=events.rows, least=Level[events.level.name])
        self.telemetry.add(self.ring)
        self.lag = LoopLag(stopwatch, interval=1.0)
        self.store: Store = store or SqliteStore(
            config.data, batch=config.store.batch, busy_timeout=config.store.busy_timeout
        )
        self._outside = outside
        self.listens = listen
        self.routing = Routing(config)
        self.traffic = Traffic(Labels(config.metrics.workspaces), self.routing.get)
        self.told = Told(self.traffic)
        self.telemetry.add(self.told)
        self.background = Background(self.telemetry)
        self.url: str | None = None

    def meet_outside(self) -> None:
        """Make the network and the hosts, or take those of a simulation.

        Raises:
            OSError: the state directory cannot be made.
        """
        config = self.config
        self.owner = owner_of(config.state_dir)
        self._pool: Pool | None = None
        if self._outside is not None:
            self.forward, self.hosting = self._outside.forward, self._outside.hosts
            return
        self._pool = Pool(
            AddressPolicy(allow=config.upstream_allow),
            PoolSettings(connections_per_origin=config.upstream.max_connections, keepalive=config.upstream.keep_alive),
        )
        self.forward = self._pool
        context = RuntimeContext(
            now=self.now,
            data_dir=config.state_dir,
            on_exit=self.on_exit,
            owner=self.owner,
            chance=self._chance,
            addresses=AddressPolicy(allow=config.upstream_allow),
        )
        self.hosting = Hosting(context, self._pool, probe_timeout=config.probe.timeout)

    @abstractmethod
    def on_exit(self, exited: Exited) -> None:
        """A runtime's supervisor tells of an end."""

    def _on_jump(self, jump: Jump) -> None:
        self.telemetry.emit(EventName.CLOCK_JUMPED, fields={"kind": jump.kind.value})
