"""The doors of one Holdfast: every route's object is made here, and the server that listens.

Owns: which door gets which parts.
Knows nothing of: how the parts behind the doors are made (`proxy.assembly`), start and stop (`proxy.app`).
"""

from proxy import __version__
from proxy.assembly import Assembly
from proxy.core.tokens import digest
from proxy.loops.card_keeping import CardKeeping
from proxy.loops.push_requests import PushRequests
from proxy.setting_kinds.cards import CardSignatures
from proxy.store.card_keys import open_card_keys
from proxy.store.sqlite import SqliteStore
from proxy.web.admin import Admin
from proxy.web.admission import Admission
from proxy.web.auth import Auth
from proxy.web.calls import Calls, Limits
from proxy.web.cards import JWKS, CardRules, Cards
from proxy.web.decisions import Decisions
from proxy.web.deferred_tasks import DeferredTasks
from proxy.web.events import Events, StreamRules
from proxy.web.explain import Explain
from proxy.web.heartbeats import Heartbeats
from proxy.web.held_callers import HeldCallers
from proxy.web.holding import Holding
from proxy.web.inbox import Inbox, InboxLimits
from proxy.web.limits import CallerLimits, TokenFailures
from proxy.web.metrics import Counts, Metrics
from proxy.web.noting import Noting
from proxy.web.openapi import Openapi
from proxy.web.parking import ParkingDoor
from proxy.web.passing import Passing
from proxy.web.places import Places
from proxy.web.queue import Queue
from proxy.web.queue_admin import QueueAdmin
from proxy.web.receipts import Receipts
from proxy.web.registry import Registry
from proxy.web.resuming import Resuming
from proxy.web.server import Server
from proxy.web.told_streams import ToldStreams
from proxy.web.undelivered import Undelivered


class Doors(Assembly):
    """The parts of one Holdfast with its doors, which `open_doors` makes once the admin's token is known."""

    def open_doors(self, admin_digest: str) -> None:
        """Make the HTTP server with all its doors."""
        config = self.config
        auth, admission = self._who_is_let_in(admin_digest)
        self.cards = self._agent_cards()
        calls = self._data_path(auth, admission)
        registry = Registry(
            routing=self.routing,
            auth=auth,
            enrolling=self.enrolling,
            coordinator=self.coordinator,
            parking=self.parking,
            now=self.now,
        )
        heartbeats = self._heartbeats(auth, admission)
        parking = ParkingDoor(
            routing=self.routing,
            auth=auth,
            parking=self.parking,
            new_request_id=self.mint.new_id,
            now=self.now,
        )
        queue = Queue(store=self.store, auth=auth)
        queue_admin = QueueAdmin(store=self.store, routing=self.routing, auth=auth, tending=self.tending)
        admin = Admin(
            routing=self.routing,
            store=self.store,
            auth=auth,
            coordinator=self.coordinator,
            enrolling=self.enrolling,
            mint=self.mint.token,
            new_request_id=self.mint.new_id,
            now=self.now,
        )
        self.server = Server(
            calls=calls,
            places=Places(self.routing.hosts, frozenset({JWKS}) if self.cards.signs else frozenset()),
            routes=[
                *registry.routes(),
                *heartbeats.routes(),
                *queue.routes(),
                *queue_admin.routes(),
                *self._inbox(auth).routes(),
                *admin.routes(),
                *self._log(auth).routes(),
                *self._explain(auth).routes(),
                *parking.routes(),
                *self._events(auth).routes(),
                *self._metrics(auth).routes(),
                *self.cards.routes(),
                *Openapi(version=__version__).routes(),
            ],
            heartbeats=heartbeats,
            on_drained=self.ring.close,
            traffic=self.traffic,
            telemetry=self.telemetry,
            head_limit=config.server.head_limit,
            guards=[admission.count],
        )

    def _heartbeats(self, auth: Auth, admission: Admission) -> Heartbeats:
        return Heartbeats(
            routing=self.routing,
            auth=auth,
            admission=admission,
            beats=self.beats,
            readiness=self.readiness,
            parking=self.parking,
        )

    def _who_is_let_in(self, admin_digest: str) -> tuple[Auth, Admission]:
        config = self.config
        self.limits = CallerLimits(config.rate, self.telemetry)
        self.failures = TokenFailures(config.rate, self.telemetry)
        auth = Auth(
            self.routing,
            admin_digest=admin_digest,
            join_digest=digest(config.join_token) if config.join_token else None,
            dev=config.dev,
            telemetry=self.telemetry,
            failures=self.failures,
        )
        admission = Admission(
            routing=self.routing,
            auth=auth,
            telemetry=self.telemetry,
            limits=self.limits,
            depth=config.access.depth,
        )
        return auth, admission

    def _log(self, auth: Auth) -> Decisions:
        return Decisions(store=self.store, routing=self.routing, auth=auth, notes=self.notes)

    def _explain(self, auth: Auth) -> Explain:
        return Explain(store=self.store, routing=self.routing, auth=auth, notes=self.notes, now=self.now)

    def _events(self, auth: Auth) -> Events:
        said = self.config.events
        rules = StreamRules(readers=said.readers, keep_alive=said.keep_alive, stall=said.stall)
        return Events(ring=self.ring, auth=auth, rules=rules)

    def _metrics(self, auth: Auth) -> Metrics:
        counts = Counts(
            traffic=self.traffic,
            told=self.told,
            lag=self.lag,
            ring=self.ring,
            routing=self.routing,
            telemetry=self.telemetry,
            version=__version__,
            commits=self.store.commits() if isinstance(self.store, SqliteStore) else None,
        )
        return Metrics(counts=counts, auth=auth, now=self.now)

    def _inbox(self, auth: Auth) -> Inbox:
        config = self.config
        return Inbox(
            routing=self.routing,
            auth=auth,
            polling=self.polling,
            parking=self.parking,
            leases=self.leases,
            now=self.now,
            limits=InboxLimits(answer=config.server.answer_limit, event=config.poll.event_bytes),
        )

    def _agent_cards(self) -> Cards:
        config, cards = self.config, self.config.cards
        keeping = CardKeeping(
            routing=self.routing,
            records=self.records,
            background=self.background,
            telemetry=self.telemetry,
            delay=cards.write,
            most=cards.keep_bytes,
        )
        self.hosting.on_card = keeping.probed
        return Cards(
            rules=CardRules(
                public_url=config.public_url,
                keep_others=cards.keep_others,
                forwarded_from=cards.forwarded_from,
                max_age=cards.max_age,
            ),
            keys=open_card_keys(config.card_key_file) if cards.signatures is CardSignatures.RESIGN else None,
            keeping=keeping,
        )

    def _waiting(self, auth: Auth, receipts: Receipts) -> Holding:
        hold = self.config.hold
        callers = HeldCallers(followers=self.followers, most=hold.count, most_bytes=hold.bytes)
        self.told_streams = ToldStreams(
            store=self.store, callers=callers, keep_alive=hold.keep_alive, stands=auth.stands
        )
        return Holding(
            store=self.store,
            receipts=receipts,
            callers=callers,
            streams=self.told_streams,
            keep_alive=hold.keep_alive,
            silent=hold.silent,
        )

    def _data_path(self, auth: Auth, admission: Admission) -> Calls:
        config = self.config
        receipts = Receipts(config.queue.deferred_status.value)
        undelivered = Undelivered(
            store=self.store,
            noting=Noting(records=self.records, notes=self.notes, now=self.now),
            receipts=receipts,
            gate=self.gate,
            deferring=self.deferring,
            replayer=self.replayer,
            now=self.now,
            telemetry=self.telemetry,
            unmanaged_window=config.defaults.unmanaged_window,
            wake=self.parking.wake,
        )
        holding = self._waiting(auth, receipts)
        deferred = DeferredTasks(
            tasks=self.tasks,
            lists=self.task_lists,
            undelivered=undelivered,
            now=self.now,
            stream_limit=config.server.answer_limit,
        )
        deferred.subscribed = self.told_streams.subscribe
        push_requests = PushRequests(store=self.store, configs=self.pushing.configs)
        deferred.pushed, deferred.push_taken = push_requests.answer, push_requests.taken
        passing = Passing(
            telemetry=self.telemetry,
            cards=self.cards,
            answer_limit=config.server.answer_limit,
            silence=config.hold.keep_alive if config.hold.comments else None,
            resumes=config.hold.resume,
        )
        return Calls(
            auth=auth,
            admission=admission,
            dialer=self.dialer,
            deferred=deferred,
            undelivered=undelivered,
            passing=passing,
            resuming=Resuming(
                dialer=self.dialer,
                now=self.now,
                telemetry=self.telemetry,
                note_lost=undelivered.note_lost,
                break_off=passing.break_off,
                keep_alive=config.hold.keep_alive,
                answer_limit=config.server.answer_limit,
                patience=config.queue.orphaned,
            ),
            cards=self.cards,
            holding=holding,
            new_request_id=self.mint.new_id,
            limits=Limits(body=config.server.body_limit, answer=config.server.answer_limit),
        )
