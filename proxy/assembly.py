"""Which part gets which: every object of a Holdfast is made here, once.

Owns: construction, the ties that can only be made afterwards, the small functions that parts are given.
Knows nothing of: the order of start and stop (`proxy.app`), any rule.
"""

from proxy.clock import SystemClock
from proxy.core.addresses import AddressPolicy
from proxy.core.decision import Trigger
from proxy.core.deferral import RetryPolicy
from proxy.core.workspace import Workspace
from proxy.loops.attempts import Attempts
from proxy.loops.beats import Beats
from proxy.loops.coordinator import Coordinator
from proxy.loops.deferring import Deferring, QueueRules
from proxy.loops.dialing import Dialer, DialRules
from proxy.loops.driving import Driving
from proxy.loops.enrolling import Enrolling
from proxy.loops.followers import Followers
from proxy.loops.foundation import Foundation, Outside
from proxy.loops.gate import Gate
from proxy.loops.health import Health, HealthRules
from proxy.loops.held_leases import HeldLeases
from proxy.loops.insisting import INSISTENCE, Insistence
from proxy.loops.looking_up import LookUp
from proxy.loops.notes import Notes
from proxy.loops.open_tasks import OpenTasks
from proxy.loops.parking import Parking
from proxy.loops.polling import Polling, PollRules
from proxy.loops.pushing import Pushing
from proxy.loops.queue_sizes import QueueSizes
from proxy.loops.readiness import Readiness
from proxy.loops.reconciler import Reconciler
from proxy.loops.records import Records
from proxy.loops.replayer import Replayer
from proxy.loops.restart_history import RestartHistory
from proxy.loops.routing import Route
from proxy.loops.still_allowed import StillAllowed
from proxy.loops.streamed_tries import Tries
from proxy.loops.sweeper import Sweeper
from proxy.loops.taking_up import TakingUp
from proxy.loops.task_lists import TaskLists
from proxy.loops.tasks import Tasks
from proxy.loops.telling import Telling
from proxy.loops.tending import Tending
from proxy.runtimes import Exited
from proxy.store.journal import JournalLimits
from proxy.store.vault import open_vault

__all__ = ["Assembly", "Outside"]


class Assembly(Foundation):
    """The parts of one Holdfast but its doors, made by `assemble`."""

    def assemble(self) -> None:
        """Make everything but the doors.

        Raises:
            VaultFailure: there is no usable key for credentials.
            OSError: the state directory cannot be made.
        """
        self.meet_outside()
        self._assemble_storing()
        self._assemble_judging()
        self._assemble_restarting()
        self._assemble_delivering()
        self._assemble_polling()
        self._assemble_looking_after()
        self._tie()

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
        vault = open_vault(config.vault_key, config.vault_old_key, config.vault_key_file)
        self.pushing = Pushing(
            config,
            outside=self._outside.forward if self._outside is not None else None,
            store=store,
            vault=vault,
            followers=self.followers,
            routing=self.routing,
            background=self.background,
            now=now,
            telemetry=self.telemetry,
            chance=self._chance,
            new_token=self.mint.new_id,
            owner=self.owner,
        )
        self.deferring = Deferring(
            store=store,
            routing=self.routing,
            vault=vault,
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
            pushes=self.pushing.configs,
        )
        self.tasks = Tasks(
            store=store,
            deferring=self.deferring,
            now=now,
        )
        self.task_lists = TaskLists(store)

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
        self._assemble_replaying(telling)
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
        self.restart_history = RestartHistory(
            store=store,
            routing=self.routing,
            now=now,
            usual=config.restart_policy(),
            days=config.decisions.days,
        )

    def _assemble_replaying(self, telling: Telling) -> None:
        config, store, now = self.config, self.store, self.now
        insistence = Insistence(self.telemetry, seconds=INSISTENCE * config.queue.lease)
        tries = Tries(
            dialer=self.dialer,
            telling=telling,
            insistence=insistence,
            now=now,
            lease=config.queue.lease,
            answer_limit=config.server.answer_limit,
        )
        self.replayer = Replayer(
            store=store,
            routing=self.routing,
            attempts=self.attempts,
            tries=tries,
            taking_up=TakingUp(
                dialer=self.dialer,
                tries=tries,
                telemetry=self.telemetry,
                answer_limit=config.server.answer_limit,
                patience=config.queue.orphaned,
            ),
            insistence=insistence,
            dialer=self.dialer,
            gate=self.gate,
            background=self.background,
            now=now,
            owner=self.owner,
            lease=config.queue.lease,
            expect_after=config.queue.backoff,
            sizes=self.sizes,
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
            look_up=LookUp(self._pool, own_child=True).problem,
            stop_compute=self._stop_compute,
        )

    def _tie(self) -> None:
        """Make the ties that go round in a circle."""
        self.dialer.freed = self.replayer.ring
        self.deferring.moved = self.polling.ring
        self.enrolling.switched = self._switched
        self.enrolling.removed = self.polling.ring
        self.gate.restarts = self.coordinator
        self.pushing.notifying.open_tasks = OpenTasks(
            store=self.store,
            dialer=self.dialer,
            tasks=self.tasks,
            routing=self.routing,
            answer_limit=self.config.server.answer_limit,
        )
        self.attempts.objection = StillAllowed(routing=self.routing, depth=self.config.access.depth).objection
        self.coordinator.judge_again = self._judge_again
        self.coordinator.await_ready = self.readiness.watch
        self.readiness.on_ready = self.coordinator.on_ready
        self.readiness.on_unready = self.coordinator.on_unready
        self.readiness.on_answer = self.replayer.answers_again
        self.replayer.refused = self.readiness.listen_for

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

    def _own_url(self) -> str:
        if self.config.public_url:
            return self.config.public_url
        return self.url or f"http://{self.config.host}:{self.config.port}"

    def _stop_compute(self, workspace: Workspace) -> None:
        self.background.spawn(
            self.hosting.remove(workspace, self.config.restart.stop_grace), name=f"remove-{workspace.id}"
        )
