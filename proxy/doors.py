"""The doors of one Holdfast: every route's object is made here, and the server that listens.

Owns: which door gets which parts.
Knows nothing of: how the parts behind the doors are made (`proxy.assembly`), start and stop (`proxy.app`).
"""

from proxy.assembly import Assembly
from proxy.core.tokens import digest
from proxy.web.admin import Admin
from proxy.web.auth import Auth
from proxy.web.calls import Calls, Limits
from proxy.web.passing import Passing
from proxy.web.queue import Queue
from proxy.web.queue_admin import QueueAdmin
from proxy.web.registry import Registry
from proxy.web.server import Server
from proxy.web.undelivered import Manners, Undelivered


class Doors(Assembly):
    """The parts of one Holdfast with its doors, which `open_doors` makes once the admin's token is known."""

    def open_doors(self, admin_digest: str) -> None:
        """Make the HTTP server with all its doors."""
        config = self.config
        auth = Auth(
            self.routing,
            admin_digest=admin_digest,
            join_digest=digest(config.join_token) if config.join_token else None,
            dev=config.dev,
        )
        calls = self._data_path(auth)
        registry = Registry(
            routing=self.routing,
            auth=auth,
            enrolling=self.enrolling,
            beats=self.beats,
            coordinator=self.coordinator,
            readiness=self.readiness,
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
            routes=[*registry.routes(), *queue.routes(), *queue_admin.routes(), *admin.routes()],
            telemetry=self.telemetry,
            head_limit=config.server.head_limit,
        )

    def _data_path(self, auth: Auth) -> Calls:
        config = self.config
        undelivered = Undelivered(
            store=self.store,
            records=self.records,
            gate=self.gate,
            deferring=self.deferring,
            replayer=self.replayer,
            now=self.now,
            telemetry=self.telemetry,
            manners=Manners(
                deferred_status=config.queue.deferred_status.value,
                unmanaged_window=config.defaults.unmanaged_window,
            ),
        )
        return Calls(
            routing=self.routing,
            auth=auth,
            dialer=self.dialer,
            tasks=self.tasks,
            undelivered=undelivered,
            passing=Passing(
                telemetry=self.telemetry, public_url=config.public_url, answer_limit=config.server.answer_limit
            ),
            new_request_id=self.mint.new_id,
            limits=Limits(body=config.server.body_limit, answer=config.server.answer_limit),
        )
