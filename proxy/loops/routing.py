"""The routing table: what the data path must know of every workspace, in memory.

Owns: the table, its filling from a snapshot, the sets that let the healthy path skip the store.
Knows nothing of: HTTP, runtimes, why an entry changes.

Theory of operation. The store is the truth; a `Route` is this process's copy of what it says about one workspace, plus
what only this process knows (calls in flight, signs of life that were not flushed yet). Whoever writes the store puts
what the store returned into the table with `Routing.put`. A request reads its route without a lock and without disk:
everything here runs on one event loop, and no invariant spans an `await`.
"""

from collections import Counter, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Protocol
from urllib.parse import urlsplit

from proxy.config import Config
from proxy.core import a2a
from proxy.core.access import listed_callers
from proxy.core.deferral import JournalMode
from proxy.core.lifecycle import SERVING, Desired
from proxy.core.liveness import Previous
from proxy.core.outcome import DeadAction, Redelivery, UnmanagedAway
from proxy.core.presets import LivenessPolicy, policy_from
from proxy.core.restart import OPEN_PHASES, Restart, RestartPolicy, Trigger, failures
from proxy.core.tokens import Owner, TokenKind
from proxy.core.workspace import DeliveryMode, Settings, Workspace
from proxy.loops.foreign_contexts import ForeignContexts
from proxy.settings import Profile
from proxy.store import QueueSize, Signs, Snapshot, TokenRecord, Watch

NO_SETTINGS = Settings()
RESTART_KEYS = {
    "restart_debounce": "debounce",
    "restart_intensity": "intensity",
    "restart_window": "window",
    "restart_backoff": "backoff",
    "restart_backoff_cap": "backoff_cap",
    "restart_backoff_reset": "backoff_reset",
}
"""A workspace's `policy` keys that brake restarts, and the fields of `RestartPolicy` that they set."""


class Touchable(Protocol):
    """An open call whose idle window a sign of life resets."""

    def touch(self) -> None:
        """Begin the idle window anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effective:
    """A workspace's settings with the defaults filled in; `listed` are the callers on its allow list."""

    policy: LivenessPolicy
    restart: RestartPolicy
    dead_action: DeadAction
    unmanaged_away: UnmanagedAway
    redelivery: Redelivery
    max_concurrent: int
    hold_seconds: float
    journal: JournalMode
    profile: Profile
    listed: frozenset[str]


@dataclass(slots=True)
class Route:
    """One workspace as this process sees it.

    `contexts` counts unfinished deferrals per contextId, `keys` maps (caller, idempotency key) to a deferral id,
    `tasks` counts messages that wait for tasks with the agent's own ids. While they are empty, no request body is read
    for their sake. `foreign_contexts`: what the agent calls contexts that it did not take over.
    `busy` counts calls in flight, direct ones and replays. `pulses` are those calls' idle windows. `others` are the
    tasks beyond those calls that the agent was at when it beat last, as told to this proxy. `degraded_in` is the
    incarnation in which its beats say that it is degraded.
    `unwritten` is the table's: every route whose signs of life are not in the store yet, by id.
    `answered_at` is the event loop's time when an answer was last noted as a sign of life.
    `draining`: it was parked by this process, and its compute was not touched yet.
    `seen_credentials` are headers that a card on its way made secret. `found` is what the last evaluation found, for
    the decision log.
    """

    workspace: Workspace
    effective: Effective
    foreign_contexts: ForeignContexts
    signs: Signs = field(default_factory=Signs)
    unwritten: "dict[str, Route]" = field(default_factory=dict, repr=False, compare=False)
    size: QueueSize = field(default_factory=QueueSize)
    contexts: Counter[str] = field(default_factory=Counter)
    keys: dict[tuple[str, str], str] = field(default_factory=dict)
    tasks: Counter[str] = field(default_factory=Counter)
    cycles: tuple[Restart, ...] = ()
    previous: Previous | None = None
    found: Mapping[str, Any] = field(default_factory=dict)
    busy: int = 0
    seen_credentials: frozenset[bytes] = frozenset()
    others: int = 0
    degraded_in: int | None = None
    answered_at: float = float("-inf")
    draining: bool = False
    pulses: set[Touchable] = field(default_factory=set)

    @property
    def id(self) -> str:
        """The workspace's id."""
        return self.workspace.id

    @property
    def credential_headers(self) -> frozenset[bytes]:
        """Headers that the agent's card, registered or seen on its way, makes into credentials; in lower case."""
        return self.seen_credentials | a2a.credential_headers(self.workspace.agent_card)

    @property
    def polling(self) -> bool:
        """The workspace fetches its requests itself."""
        return self.workspace.delivery_mode is DeliveryMode.POLL

    def lives_in(self, incarnation: int) -> bool:
        """The instance that was started for `incarnation` hosts the workspace now: this life's, or the last start's.

        An agent that shows another boot_id begins another life inside the process that was started for an earlier one.
        """
        started = [cycle.incarnation for cycle in self.cycles if cycle.trigger is not Trigger.ANNOUNCED]
        return incarnation in {self.workspace.incarnation, *started[-1:]}

    @property
    def serving(self) -> bool:
        """A forward has a chance: not parked, not polling, not restarting, somebody said where it listens."""
        workspace = self.workspace
        return not (workspace.parked or self.polling) and workspace.status in SERVING and workspace.url is not None

    @property
    def open_cycle(self) -> Restart | None:
        """The restart that is under way, until ready or failed."""
        last = self.cycles[-1] if self.cycles else None
        return last if last is not None and last.phase in OPEN_PHASES else None

    @property
    def capacity(self) -> int:
        """Calls that the workspace takes at once: a beat may lower the setting, never raise it."""
        limit = self.effective.max_concurrent
        said = self.signs.max_concurrent
        return limit if said is None else max(1, min(limit, said))

    def room(self, now: datetime) -> int:
        """Calls that the workspace has room for, those in flight not yet taken off (scenario 43).

        What a beat said of other tasks is believed until the next one, but not for longer than the heartbeat TTL (the
        recent window, where that is off) nor across a restart: an agent that falls silent strands no queue.
        """
        policy, said_at = self.effective.policy, self.signs.last_heartbeat_at
        believed = timedelta(seconds=policy.heartbeat_ttl or policy.recent_heartbeat)
        if not self.others or said_at is None or now - said_at >= believed:
            return self.capacity
        started_at = self.workspace.started_at
        return self.capacity if started_at is not None and said_at < started_at else self.capacity - self.others

    def sign(self, at: datetime, *, heartbeat: bool = False) -> None:
        """Note a sign of life; `agent: down` is forgotten by any later one."""
        signs = self.signs
        is_later = signs.last_sign_at is None or at > signs.last_sign_at
        contradicts = signs.agent_down_at is not None and at > signs.agent_down_at
        self.signs = replace(
            signs,
            last_sign_at=at if is_later else signs.last_sign_at,
            last_heartbeat_at=at if heartbeat else signs.last_heartbeat_at,
            agent_down_at=None if contradicts else signs.agent_down_at,
        )
        self.unwritten[self.workspace.id] = self

    def note_cycle(self, *cycles: Restart) -> None:
        """Put restart records in their places, newest last."""
        known = {cycle.generation: cycle for cycle in (*self.cycles, *cycles)}
        self.cycles = tuple(known[generation] for generation in sorted(known))

    def forget_cycles(self, before: datetime) -> None:
        """Drop ended cycles that nothing looks at any more; the last one, and the last start of ours, always stay."""
        started = [cycle for cycle in self.cycles if cycle.trigger is not Trigger.ANNOUNCED]
        ended = [cycle for cycle in self.cycles if cycle.phase not in OPEN_PHASES]
        lasting = {cycle.generation for cycle in (*self.cycles[-1:], *started[-1:], *failures(ended))}
        self.cycles = tuple(cycle for cycle in self.cycles if cycle.started_at >= before or cycle.generation in lasting)

    def alive_lately(self, now: datetime) -> bool:
        """A sign of life within the recent window, its limit included."""
        last = self.signs.last_sign_at
        return last is not None and now - last <= timedelta(seconds=self.effective.policy.recent_heartbeat)


class Routing:
    """Every workspace's route, and every token's owner."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self.access_rule = config.access.rule
        self._routes: dict[str, Route] = {}
        self.unwritten: dict[str, Route] = {}
        self.hosts: dict[str, str] = {}
        """Workspaces by the host names of their own."""
        self._usual: Effective | None = None
        self._owners: dict[str, Owner] = {}
        self.tokens_version = object()
        """Another object after every change of the tokens."""
        self._tokens: dict[str, TokenRecord] = {}
        self._finished: deque[tuple[datetime, str, tuple[str, str], str]] = deque()
        self.ready = False

    def fill(self, snapshot: Snapshot) -> None:
        """Take over what a starting proxy read."""
        for workspace in snapshot.workspaces:
            if workspace.desired is Desired.REMOVED:
                continue
            route = self.put(workspace)
            route.signs = snapshot.signs.get(workspace.id, Signs())
            route.size = snapshot.sizes.get(workspace.id, QueueSize())
        for token in snapshot.tokens:
            self.add_token(token)
        for cycle in snapshot.restarts:
            if (known := self._routes.get(cycle.workspace_id)) is not None:
                known.note_cycle(cycle)
        for watch in snapshot.watched:
            self.watch(watch)
        for named in snapshot.contexts:
            self.know_context(named.workspace_id, named.caller, named.context_id, named.upstream_id)
        self.ready = True

    def get(self, workspace_id: str) -> Route | None:
        """The route, or None for an unknown workspace."""
        return self._routes.get(workspace_id)

    def parent(self, workspace_id: str) -> str | None:
        """The parent of a workspace, None for a root; KeyError for an unknown workspace."""
        return self._routes[workspace_id].workspace.parent

    def __iter__(self) -> Iterator[Route]:
        """All routes; safe against changes on the way."""
        return iter(tuple(self._routes.values()))

    def put(self, workspace: Workspace) -> Route:
        """Take over what the store said; an older version than the known one is ignored."""
        route = self._routes.get(workspace.id)
        if route is None:
            route = Route(
                workspace=workspace,
                effective=self._effective(workspace),
                foreign_contexts=ForeignContexts(self._config.queue.contexts),
                unwritten=self.unwritten,
            )
            self._routes[workspace.id] = route
            self._name(workspace.id, None, workspace.settings.host)
        elif workspace.version >= route.workspace.version:
            if workspace.settings is not route.workspace.settings:
                route.effective = self._effective(workspace)
                self._name(workspace.id, route.workspace.settings.host, workspace.settings.host)
            route.workspace = workspace
        return route

    def may_be_named(self, workspace_id: str, host: str) -> bool:
        """Whether a workspace may have this host name: it is nobody else's, and no way to Holdfast itself."""
        public = urlsplit(self._config.public_url or "").hostname
        last = host.rpartition(".")[2]
        if host in {"localhost", public} or last.isdigit():
            return False
        return self.hosts.get(host, workspace_id) == workspace_id

    def _name(self, workspace_id: str, before: str | None, now: str | None) -> None:
        """A workspace's own host name is another now."""
        if before is not None and before != now and self.hosts.get(before) == workspace_id:
            del self.hosts[before]
        if now is not None:
            self.hosts.setdefault(now, workspace_id)

    def drop(self, workspace_id: str) -> None:
        """Forget a removed workspace, its host name and its tokens."""
        gone = self._routes.pop(workspace_id, None)
        if gone is not None:
            self._name(workspace_id, gone.workspace.settings.host, None)
        dead = [
            token.id
            for token in self._tokens.values()
            if token.kind == TokenKind.WORKSPACE and token.name == workspace_id
        ]
        for token_id in dead:
            self.drop_token(token_id)

    def check_policy(self, workspace: Workspace) -> None:
        """Raise PolicyError for a workspace's settings that cannot be."""
        self._effective(workspace)

    def _effective(self, workspace: Workspace) -> Effective:
        """Fill in the defaults; those who set nothing share one result, for they may be a hundred thousand."""
        if workspace.settings != NO_SETTINGS:
            return self._filled_in(workspace.settings)
        if self._usual is None:
            self._usual = self._filled_in(workspace.settings)
        return self._usual

    def _filled_in(self, settings: Settings) -> Effective:
        config = self._config
        policy = dict(settings.policy)
        preset = str(policy.pop("preset", config.policy.preset))
        # The configured numbers belong to the configured preset; a workspace with another one starts from its own.
        numbers = config.policy_overrides(preset)
        restart = config.restart_policy()
        braked = {RESTART_KEYS[key]: policy.pop(key) for key in tuple(policy) if key in RESTART_KEYS}
        listed = config.access.allow_from if settings.allow_from is None else settings.allow_from
        return Effective(
            policy=policy_from(preset, {**numbers, **policy}),
            restart=replace(restart, **braked),
            dead_action=settings.dead_action or config.defaults.dead_action,
            unmanaged_away=settings.unmanaged_away or config.defaults.unmanaged_away or UnmanagedAway.DEFER,
            redelivery=settings.redelivery or config.defaults.redelivery,
            max_concurrent=settings.max_concurrent or config.defaults.max_concurrent,
            hold_seconds=config.defaults.hold_seconds if settings.hold_seconds is None else settings.hold_seconds,
            journal=settings.journal or config.defaults.journal,
            profile=Profile(settings.profile) if settings.profile is not None else config.defaults.profile,
            listed=listed_callers(listed),
        )

    # Tokens

    def owner(self, digest: str) -> Owner | None:
        """Whose token has this SHA-256."""
        return self._owners.get(digest)

    def add_token(self, token: TokenRecord) -> None:
        """Know a token."""
        self._tokens[token.id] = token
        self._owners[token.digest] = Owner(kind=TokenKind(token.kind), name=token.name)
        self.tokens_version = object()

    def drop_token(self, token_id: str) -> None:
        """Forget a token."""
        if (token := self._tokens.pop(token_id, None)) is not None:
            self._owners.pop(token.digest, None)
            self.tokens_version = object()

    def retire_tokens(self, workspace_id: str, incarnation: int) -> None:
        """Forget the tokens that earlier lives of a workspace got at their start."""
        dead = [
            token.id
            for token in self._tokens.values()
            if token.name == workspace_id and token.incarnation is not None and token.incarnation < incarnation
        ]
        for token_id in dead:
            self.drop_token(token_id)

    def tokens(self) -> list[TokenRecord]:
        """All known tokens."""
        return list(self._tokens.values())

    # Deferrals

    def watch(self, watch: Watch) -> None:
        """Let the data path know of a deferral: its context holds others back, its key joins retries."""
        route = self._routes.get(watch.workspace_id)
        if route is None:
            return
        if watch.caller is not None and watch.idempotency_key is not None:
            key = (watch.caller, watch.idempotency_key)
            route.keys[key] = watch.deferral_id
            if watch.completed_at is not None:
                self._finished.append((watch.completed_at, route.id, key, watch.deferral_id))
        if watch.active and not watch.adopted and watch.context_id is not None:
            route.contexts[watch.context_id] += 1
        if watch.active and watch.task_id is not None and not a2a.is_provisional(watch.task_id):
            route.tasks[watch.task_id] += 1

    def know_context(self, workspace_id: str, caller: str | None, ours: str | None, theirs: str | None) -> None:
        """An agent works in another context than its caller named, or was promised."""
        route = self._routes.get(workspace_id)
        if route is not None and ours is not None and theirs is not None:
            route.foreign_contexts.learn(caller, ours, theirs)

    def unwatch_task(self, workspace_id: str, task_id: str | None) -> None:
        """A message to that task waits no more."""
        route = self._routes.get(workspace_id)
        if route is None or task_id is None or task_id not in route.tasks:
            return
        route.tasks[task_id] -= 1
        if route.tasks[task_id] <= 0:
            del route.tasks[task_id]

    def hold_context(self, workspace_id: str, context_id: str | None) -> None:
        """A deferral that blocked nobody has become an ordinary one: its context waits for it now."""
        route = self._routes.get(workspace_id)
        if route is not None and context_id is not None:
            route.contexts[context_id] += 1

    def unwatch_context(self, workspace_id: str, context_id: str | None) -> None:
        """A deferral of that context has ended."""
        route = self._routes.get(workspace_id)
        if route is None or context_id is None:
            return
        route.contexts[context_id] -= 1
        if route.contexts[context_id] <= 0:
            del route.contexts[context_id]

    def forget_key(self, workspace_id: str, caller: str | None, key: str | None, deferral_id: str) -> None:
        """A retry with that key joins this deferral no more; one that took its place is joined as before."""
        route = self._routes.get(workspace_id)
        if (
            route is not None
            and caller is not None
            and key is not None
            and route.keys.get((caller, key)) == deferral_id
        ):
            del route.keys[(caller, key)]

    def forget_keys(self, completed_before: datetime) -> None:
        """Retries join nothing any more that was completed before that instant."""
        while self._finished and self._finished[0][0] < completed_before:
            _, workspace_id, (caller, key), deferral_id = self._finished.popleft()
            self.forget_key(workspace_id, caller, key, deferral_id)
