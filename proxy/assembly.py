"""Which part gets which: every object of a Holdfast is made here, once.

Owns: construction, the ties that can only be made afterwards, the small functions that parts are given.
Knows nothing of: the order of start and stop (`proxy.app`), any rule.
"""

import random
from dataclasses import dataclass

from proxy.clock import Jump, Now, SystemClock, stopwatch
from proxy.config import Config
from proxy.core.addresses import AddressPolicy, read_url
from proxy.core.decision import Trigger
from proxy.core.deferral import RetryPolicy
from proxy.core.workspace import Workspace
from proxy.forward import Forward, UpstreamFailure
from proxy.forward.pool import Pool, PoolSettings
from proxy.loops.attempts import Attempts
from proxy.loops.background import Background
from proxy.loops.beats import Beats
from proxy.loops.coordinator import Coordinator
from proxy.loops.deferring import Deferring, QueueRules
from proxy.loops.dialing import Dialer, DialRules
from proxy.loops.driving import Driving
from proxy.loops.enrolling import Enrolling
from proxy.loops.event_ring import EventRing
from proxy.loops.followers import Followers
from proxy.loops.gate import Gate
from proxy.loops.health import Health, HealthRules
from proxy.loops.held_leases import HeldLeases
from proxy.loops.hosting import Hosting, Hosts
from proxy.loops.minting import Mint, owner_of
from proxy.loops.notes import Notes
from proxy.loops.parking import Parking
from proxy.loops.polling import Polling, PollRules
from proxy.loops.queue_sizes import QueueSizes
from proxy.loops.readiness import Readiness
from proxy.loops.reconciler import Reconciler
from proxy.loops.records import Records
from proxy.loops.replayer import Replayer
from proxy.loops.routing import Route, Routing
from proxy.loops.sweeper import Sweeper
from proxy.loops.tasks import Tasks
from proxy.loops.telling import Telling
from proxy.loops.tending import Tending
from proxy.loops.traffic import Labels, LoopLag, Told, Traffic
from proxy.runtimes import Exited, RuntimeContext
from proxy.store import Store
from proxy.store.journal import JournalLimits
from proxy.store.sqlite import SqliteStore
from proxy.store.vault import open_vault
from proxy.telemetry import EventName, Level, Telemetry


@dataclass(frozen=True, slots=True, kw_only=True)
class Outside:
    """What lies outside of the process: the network to agents, and what hosts them. Simulations bring their own."""

    forward: Forward
    hosts: Hosts


class Assembly:
    """The parts of one Holdfast but its doors, made by `assemble`."""

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

    def assemble(self) -> None:
        """Make everything but the doors.

        Raises:
            VaultFailure: there is no usable key for credentials.
            OSError: the state directory cannot be made.
        """
        self._meet_outside()
        self._assemble_storing()
        self._assemble_judging()
        self._assemble_restarting()
        self._assemble_delivering()
        self._assemble_polling()
        self._assemble_looking_after()
        self._tie()

    def _meet_outside(self) -> None:
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

    def _assemble_storing(self) -> None:
        config, store, now = self.config, self.store, self.now
        self.records = Records(store, self.routing, now)
        self.notes = Notes(store, most=config.decisions.notes)
        self.dialer = Dialer(
            self.forward,
            DialRules(
                connect_timeout=config.upstream.connect_timeout,
                idle_timeout=config.upstream.idle_timeout,
                head_limit=config.server.head_limit,
            ),
            now,
        )
        self.followers = Followers()
        self.sizes = QueueSizes(store=store, routing=self.routing)
        self.deferring = Deferring(
            store=store,
            routing=self.routing,
            vault=open_vault(config.vault_key, config.vault_old_key, config.vault_key_file),
            now=now,
            telemetry=self.telemetry,
            chance=self._chance,
            new_id=self.mint.new_id,
            rules=QueueRules(
                rows=config.queue.rows,
                bytes=config.queue.bytes,
                caller_rows=config.queue.caller_rows,
                ttl=config.queue.ttl,
                idempotency_retention=config.queue.idempotency_retention,
            ),
            sizes=self.sizes,
            followers=self.followers,
        )
        self.tasks = Tasks(
            store=store,
            deferring=self.deferring,
            dialer=self.dialer,
            now=now,
            answer_limit=config.server.answer_limit,
        )

    def _assemble_judging(self) -> None:
        config, store, now = self.config, self.store, self.now
        self.beats = Beats(
            store=store,
            records=self.records,
            routing=self.routing,
            now=now,
            telemetry=self.telemetry,
            ring=self._recovered,
            longest=config.beats.longest,
        )
        self.gate = Gate(
            store=store,
            records=self.records,
            now=now,
            telemetry=self.telemetry,
            inspect=self.hosting.inspect,
            tells=self.hosting.tells,
            flush_signs=self.beats.flush,
            probe_timeout=config.probe.timeout,
        )

    def _assemble_restarting(self) -> None:
        config, store, now = self.config, self.store, self.now
        driving = Driving(
            records=self.records,
            store=store,
            routing=self.routing,
            runtimes=self.hosting.runtime,
            background=self.background,
            now=now,
            mint=self.mint.child_token,
            chance_boot_id=self.mint.new_id,
            own_url=self._own_url,
            owner=self.owner,
            lease=config.restart.lease,
            stop_grace=config.restart.stop_grace,
        )
        self.coordinator = Coordinator(
            store=store,
            records=self.records,
            routing=self.routing,
            runtimes=self.hosting.runtime,
            driving=driving,
            background=self.background,
            now=now,
            telemetry=self.telemetry,
            owner=self.owner,
            lease=config.restart.lease,
        )
        self.readiness = Readiness(
            records=self.records,
            background=self.background,
            now=now,
            telemetry=self.telemetry,
            probe=self.hosting.probe,
            ring=self._recovered,
            first=config.probe.away_first,
            factor=config.probe.away_factor,
            cap=config.probe.away_cap,
        )

    def _assemble_delivering(self) -> None:
        config, store, now = self.config, self.store, self.now
        telling = Telling(
            store=store,
            now=now,
            limits=JournalLimits(rows=config.poll.journal_rows, bytes=config.poll.journal_bytes),
            followers=self.followers,
        )
        self.attempts = Attempts(
            store=store,
            records=self.records,
            routing=self.routing,
            deferring=self.deferring,
            tasks=self.tasks,
            telling=telling,
            now=now,
            telemetry=self.telemetry,
            chance=self._chance,
            new_token=self.mint.new_id,
            retry=RetryPolicy(
                attempts=config.queue.attempts,
                backoff=config.queue.backoff,
                backoff_cap=config.queue.backoff_cap,
                gateway_backoff=config.queue.gateway_backoff,
                gateway_ceiling=config.queue.gateway_ceiling,
            ),
        )
        self.replayer = Replayer(
            store=store,
            routing=self.routing,
            attempts=self.attempts,
            dialer=self.dialer,
            gate=self.gate,
            background=self.background,
            now=now,
            telemetry=self.telemetry,
            owner=self.owner,
            lease=config.queue.lease,
            expect_after=config.queue.backoff,
            answer_limit=config.server.answer_limit,
            sizes=self.sizes,
        )
        self.leases = HeldLeases(store=store, attempts=self.attempts, telling=telling, now=now)
        self.tending = Tending(
            store=store,
            routing=self.routing,
            records=self.records,
            deferring=self.deferring,
            tasks=self.tasks,
            now=now,
            ring=self._moved,
        )
        self.sweeper = Sweeper(
            store=store,
            deferring=self.deferring,
            now=now,
            retention=config.queue.retention,
            decision_rows=config.decisions.rows,
            decision_days=config.decisions.days,
        )

    def _assemble_polling(self) -> None:
        queue, poll = self.config.queue, self.config.poll
        self.polling = Polling(
            store=self.store,
            records=self.records,
            routing=self.routing,
            deferring=self.deferring,
            attempts=self.attempts,
            readiness=self.readiness,
            background=self.background,
            now=self.now,
            telemetry=self.telemetry,
            expire=self.sweep_leases,
            rules=PollRules(
                items=poll.items,
                bytes=poll.bytes,
                wait=poll.wait,
                waiting=poll.waiting,
                lease=queue.lease,
                lease_least=poll.lease_least,
                lease_most=poll.lease_most,
            ),
        )

    def _assemble_looking_after(self) -> None:
        config, store, now = self.config, self.store, self.now
        self.health = Health(
            routing=self.routing,
            records=self.records,
            gate=self.gate,
            readiness=self.readiness,
            now=now,
            telemetry=self.telemetry,
            tells=self.hosting.tells,
            probe=self.hosting.probe,
            trusts_ages=now.trusts_ages if isinstance(now, SystemClock) else lambda *_: True,
            rules=HealthRules(stale=config.health.stale, failures=config.health.failures),
        )
        self.reconciler = Reconciler(
            routing=self.routing,
            tells=self.hosting.tells,
            pending=self.background.pending,
            watch=self.readiness.watch,
            settle=self.readiness.settle,
            judge_again=self._judge_again,
        )
        self.parking = Parking(
            routing=self.routing,
            records=self.records,
            coordinator=self.coordinator,
            readiness=self.readiness,
            background=self.background,
            now=now,
            telemetry=self.telemetry,
            manages=lambda workspace: self.hosting.runtime(workspace).tells,
            ring=self._recovered,
            drain=config.parking.drain,
        )
        self.enrolling = Enrolling(
            store=store,
            records=self.records,
            routing=self.routing,
            coordinator=self.coordinator,
            readiness=self.readiness,
            now=now,
            telemetry=self.telemetry,
            addresses=AddressPolicy(allow=config.upstream_allow),
            check_runtime=self.hosting.check_runtime,
            check_probe=self.hosting.check_probe,
            mint=self.mint.workspace_token,
            look_up=self._look_up,
            stop_compute=self._stop_compute,
        )

    def _tie(self) -> None:
        """Make the ties that go round in a circle."""
        self.dialer.freed = self.replayer.ring
        self.deferring.moved = self.polling.ring
        self.enrolling.switched = self._switched
        self.enrolling.removed = self.polling.ring
        self.tasks.tried = self.replayer.tried
        self.gate.restarts = self.coordinator
        self.coordinator.judge_again = self._judge_again
        self.coordinator.await_ready = self.readiness.watch
        self.readiness.on_ready = self.coordinator.on_ready
        self.readiness.on_unready = self.coordinator.on_unready

    # Small parts that the loops are given

    def _recovered(self, route: Route) -> None:
        self.replayer.recovered(route)
        self.polling.ring(route)

    def _moved(self, route: Route) -> None:
        self.replayer.ring(route)
        self.polling.ring(route)

    async def _switched(self, route: Route) -> None:
        await self.polling.switched(route)
        self.replayer.ring(route)

    async def sweep_leases(self) -> None:
        """Take back leases that ran out; not those of calls that are open here, which a failing store let run out."""
        if self.replayer.behind:
            await self.replayer.renew()
        await self.sweeper.leases()

    async def _judge_again(self, route: Route, trigger: Trigger) -> None:
        await self.gate.ask(route, trigger, again=True)

    def on_exit(self, exited: Exited) -> None:
        """A runtime's supervisor tells of an end."""
        self.background.spawn(self.coordinator.on_exit(exited), name=f"exit-{exited.workspace_id}")

    def _on_jump(self, jump: Jump) -> None:
        self.telemetry.emit(EventName.CLOCK_JUMPED, fields={"kind": jump.kind.value})

    def _own_url(self) -> str:
        if self.config.public_url:
            return self.config.public_url
        return self.url or f"http://{self.config.host}:{self.config.port}"

    async def _look_up(self, url: str) -> str | None:
        """Why the addresses of a URL's name must not be dialled; None also where it does not resolve (yet)."""
        if self._pool is None:
            return None
        try:
            await self._pool.resolve(read_url(url), own_child=True)
        except UpstreamFailure as failure:
            return failure.detail if failure.reason == "forbidden_address" else None
        except ValueError:
            return None  # what is wrong with its form is said elsewhere
        return None

    def _stop_compute(self, workspace: Workspace) -> None:
        self.background.spawn(
            self.hosting.remove(workspace, self.config.restart.stop_grace), name=f"remove-{workspace.id}"
        )
