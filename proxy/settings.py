"""Owns the table of settings: every one with its type, its default, its limits and what it means.

Knows nothing of where values come from (`config`). The TOML key, the environment variable and the reference page all
follow from the declarations here; adding a setting is adding one field. Durations are seconds and sizes are bytes.
"""

import base64
import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, is_dataclass
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Final, get_type_hints

from proxy.core.addresses import IPNetwork
from proxy.core.deferral import JournalMode
from proxy.core.masking import MASK, masked
from proxy.core.outcome import DeadAction, Redelivery, UnmanagedAway
from proxy.core.presets import PRESETS, SHORTEST_WAIT, LivenessPolicy, Preset, policy_from
from proxy.core.presets import SETTINGS as POLICY_NUMBERS
from proxy.core.restart import RestartPolicy
from proxy.setting_kinds import About, Setting, declared, is_base_url, is_file_path, is_token, is_vault_key, seconds
from proxy.setting_kinds.callers import AccessSettings, RateSettings
from proxy.setting_kinds.cards import CardSettings
from proxy.setting_kinds.holding import HoldSettings
from proxy.setting_kinds.polling import PollSettings
from proxy.setting_kinds.pushing import PushSettings
from proxy.setting_kinds.telling import EventSettings, LogSettings, MetricSettings

_KIB: Final = 1024
_MIB: Final = 1024 * 1024
_TICK: Final = 0.01  # the shortest interval of something that recurs, seconds


class DeferredStatus(StrEnum):
    """The HTTP status of an answer that says "deferred"."""

    AUTO = "auto"
    ACCEPTED = "202"
    OK = "200"


class Profile(StrEnum):
    """A set of habits that clients expect; the first is Holdfast's own."""

    A2A = "a2a"
    PLAIN = "plain"
    OFFLINE_DRAFT = "offline-draft"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """Limits of what the proxy takes in and holds, and how it stops."""

    body_limit: Annotated[int, About("Longest request body that is accepted; more is 413.", unit="bytes", least=1)] = (
        16 * _MIB
    )
    answer_limit: Annotated[
        int, About("Longest answer that is held in memory or stored; passing on has no limit.", unit="bytes", least=1)
    ] = 64 * _MIB
    head_limit: Annotated[
        int, About("Longest head (request line or status line, and headers).", unit="bytes", least=_KIB)
    ] = 64 * _KIB
    drain_seconds: Annotated[
        float, seconds("After SIGTERM, how long open requests may finish; deferrable ones are then deferred.")
    ] = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamSettings:
    """Connections to agents."""

    connect_timeout: Annotated[float, seconds("How long connecting may take.", least=_TICK)] = 2.0
    idle_timeout: Annotated[
        float, seconds("A call without a byte, and without progress in a beat, is ended.", least=_TICK)
    ] = 1800.0
    max_connections: Annotated[
        int, About("Connections to one workspace at a time; more requests wait.", unit="connections", least=1)
    ] = 256
    keep_alive: Annotated[float, seconds("How long an unused connection is kept; 0: not at all.")] = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySettings:
    """How liveness is decided: a preset, and the numbers of it that are changed.

    A workspace that names another preset has that preset's own numbers.
    """

    preset: Annotated[Preset, About("Whose rules and numbers hold.")] = Preset.COMBINED
    settle_hold: Annotated[float | None, seconds("After a restart nothing is looked at for this long: busy.")] = None
    settle_window: Annotated[float | None, seconds("After a restart a death is doubted for this long.")] = None
    reprobe_delay: Annotated[float | None, seconds("Between the first probe and the second.", least=SHORTEST_WAIT)] = (
        None
    )
    recent_heartbeat: Annotated[float | None, seconds("A sign of life of at most this age is recent.")] = None
    strikes: Annotated[
        int | None, About("So many doubtful evaluations are believed.", unit="strikes", most=1_000_000)
    ] = None
    strike_window: Annotated[float | None, seconds("How long strikes add up, from the first one on.")] = None
    reprobe_min_interval: Annotated[float | None, seconds("Two evaluations that read anything are this far apart.")] = (
        None
    )
    fresh_wait: Annotated[float | None, seconds("How long a sign of life newer than the restart is waited for.")] = None
    fresh_poll: Annotated[float | None, seconds("How often it is looked for meanwhile.")] = None
    provisioning_timeout: Annotated[
        float | None, seconds("How long a start is believed to be under way; 0: for ever.")
    ] = None
    heartbeat_ttl: Annotated[float | None, seconds("Silence for this long opens an evaluation; 0: never.")] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartSettings:
    """Brakes on restarts, and how a running one is driven."""

    debounce: Annotated[
        float, seconds("An inferred death this soon after a restart began waits and is judged again; 0: off.")
    ] = 60.0
    intensity: Annotated[
        int, About("More restarts than this in `restart.window` abandon a workspace; 0: never.", unit="restarts")
    ] = 5
    window: Annotated[float, seconds("The time over which `restart.intensity` counts.", least=1)] = 600.0
    backoff: Annotated[float, seconds("Wait after the first failed start; doubles with each; 0: off.")] = 1.0
    backoff_cap: Annotated[float, seconds("Longest such wait.")] = 300.0
    backoff_reset: Annotated[float, seconds("After this long without a restart the waits begin anew.")] = 600.0
    stop_grace: Annotated[float, seconds("Between asking a process to end (TERM) and ending it (KILL).", most=3600)] = (
        10.0
    )
    lease: Annotated[
        float, seconds("A restart whose driver is silent for this long may be taken over by another proxy.", least=1)
    ] = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ParkingSettings:
    """Workspaces that administration keeps from running."""

    drain: Annotated[float, seconds("How long open calls may finish before what is parked is stopped.")] = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueSettings:
    """Deferred requests: how many, for how long, and how they are delivered."""

    rows: Annotated[int, About("Deferrals that may wait per workspace; 0: no limit.", unit="rows")] = 1000
    bytes: Annotated[int, About("Bytes that may wait per workspace; 0: no limit.", unit="bytes")] = 64 * _MIB
    caller_rows: Annotated[
        int, About("Deferrals that one caller may have waiting per workspace; 0: no limit.", unit="rows")
    ] = 0
    contexts: Annotated[
        int,
        About(
            "Contexts per workspace of which is remembered that its agent calls them otherwise; the newest.",
            unit="contexts",
            least=1,
        ),
    ] = 10_000
    ttl: Annotated[float, seconds("A deferral not delivered for this long expires.", least=1)] = 86_400.0
    retention: Annotated[float, seconds("How long answers and ended deferrals are kept.", least=1)] = 86_400.0
    idempotency_retention: Annotated[
        float, seconds("How long a repeated send still joins a completed deferral; 0: not at all.")
    ] = 3600.0
    attempts: Annotated[
        int, About("Tries that may have reached the agent before a deferral is a dead letter.", unit="tries", least=1)
    ] = 5
    lease: Annotated[float, seconds("How long a delivery may be silent before another one begins.", least=1)] = 60.0
    sweep: Annotated[float, seconds("How often every queue's head is tried without being asked.", least=_TICK)] = 10.0
    backoff: Annotated[float, seconds("Wait after the first failed delivery; doubles with each, full jitter.")] = 0.5
    backoff_cap: Annotated[float, seconds("Longest such wait.")] = 60.0
    gateway_backoff: Annotated[float, seconds("Shortest wait after a gateway's error from a living workspace.")] = 5.0
    gateway_ceiling: Annotated[float, seconds("How long such errors go on without counting as tries.")] = 180.0
    orphaned: Annotated[
        float,
        seconds("A task that an agent shows after its restart, standing still for so long, is given up; 0: never."),
    ] = 60.0
    deferred_status: Annotated[
        DeferredStatus, About("Status of an answer that says deferred; auto: 202 except for clients that refuse it.")
    ] = DeferredStatus.AUTO


@dataclass(frozen=True, slots=True, kw_only=True)
class BeatSettings:
    """Heartbeats on their way to the store."""

    flush: Annotated[
        float, seconds("How long heartbeats are gathered before they are written.", least=_TICK, most=60)
    ] = 1.0
    longest: Annotated[
        float,
        seconds("How long those of more than a thousand workspaces are gathered, to be written with less.", most=60),
    ] = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeSettings:
    """Looking whether a workspace runs or listens."""

    timeout: Annotated[float, seconds("How long one probe may take.", least=_TICK, most=600)] = 3.0
    away_first: Annotated[float, seconds("First pause between probes for readiness while away.", least=_TICK)] = 0.25
    away_factor: Annotated[float, About("By what each further pause is longer.", unit="times", least=1, most=100)] = 1.5
    away_cap: Annotated[float, seconds("Longest such pause.", least=_TICK)] = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthSettings:
    """The sweep that looks after workspaces without being asked."""

    sweep: Annotated[float, seconds("How often every workspace is looked at.", least=_TICK)] = 15.0
    stale: Annotated[
        float, seconds("A workspace without a runtime that is silent for this long is offline; 0: never.")
    ] = 90.0
    failures: Annotated[
        int, About("So many failed network probes in a row make a workspace degraded; 0: never.", unit="probes")
    ] = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class DefaultSettings:
    """What holds for a workspace that does not say otherwise."""

    dead_action: Annotated[DeadAction, About("What a deferrable request to a dead workspace gets.")] = DeadAction.REJECT
    unmanaged_away: Annotated[
        UnmanagedAway,
        About("What a request gets while nobody can tell whether its workspace lives; defer: only for a known one."),
    ] = UnmanagedAway.DEFER
    unmanaged_window: Annotated[
        float, seconds("How long after its last sign of life a workspace is known; 0: never.")
    ] = 600.0
    redelivery: Annotated[Redelivery, About("Whether a request that may have reached the agent is sent again.")] = (
        Redelivery.ASK_THEN_ALWAYS
    )
    max_concurrent: Annotated[
        int, About("Calls under way to one workspace before replay waits.", unit="calls", least=1)
    ] = 8
    hold_seconds: Annotated[float, seconds("How long a blocking request is held open once it is deferred; 0: not.")] = (
        90.0
    )
    journal: Annotated[
        JournalMode,
        About(
            "Whose stream events are kept for those who come back; off: only what they make of a task. With all, a"
            " streaming send is committed before its agent gets it."
        ),
    ] = JournalMode.DEFERRED
    profile: Annotated[Profile, About("The habits that clients expect of Holdfast's answers.")] = Profile.A2A


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionSettings:
    """The log of decisions, kept per workspace."""

    rows: Annotated[int, About("Decisions kept per workspace.", unit="rows", least=1)] = 10_000
    days: Annotated[
        float, About("How long a decision, and the record of a restart, is kept.", unit="days", least=_TICK, most=3660)
    ] = 7.0
    notes: Annotated[
        int, About("Refused and repeated requests noted per workspace and write; more are counted.", least=0)
    ] = 50
    write: Annotated[float, seconds("How often those notes are written.", least=_TICK, most=60)] = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreSettings:
    """The database."""

    busy_timeout: Annotated[float, seconds("How long a write waits for another process's lock.", most=3600)] = 5.0
    batch: Annotated[
        int, About("Writes that share one commit at most; 1: each has its own.", unit="writes", least=1, most=10_000)
    ] = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class VaultSettings:
    """The key that encrypts the credentials of deferred requests."""

    key: Annotated[
        str | None,
        About("The key: 32 bytes in base64url.", absent="read from `vault.key_file`", check=is_vault_key, secret=True),
    ] = field(default=None, repr=False)
    old_key: Annotated[
        str | None,
        About(
            "A retired key: it opens what it sealed, and seals nothing.", absent="none", check=is_vault_key, secret=True
        ),
    ] = field(default=None, repr=False)
    key_file: Annotated[
        Path | None, About("File of the key, made with mode 0600 at first start.", absent="`data` with `.key` added")
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Where the proxy listens, what it trusts, and where it keeps what it knows."""

    host: Annotated[str, About("Address or name to listen on.")] = "127.0.0.1"
    port: Annotated[int, About("Port to listen on; 0: any free one.", most=65_535)] = 8080
    dev: Annotated[bool, About("No caller authentication, on a loopback address only.")] = False
    public_url: Annotated[
        str | None,
        About("Base of the URLs in rewritten agent cards.", absent="taken from each request's Host", check=is_base_url),
    ] = None
    data: Annotated[Path, About("Path of the database.", check=is_file_path)] = Path("holdfast.db")
    data_dir: Annotated[
        Path | None, About("Directory of what runtimes keep: process records, logs.", absent="`data` with `.d` added")
    ] = None
    admin_token: Annotated[
        str | None,
        About("The admin's token.", absent="made at first start and printed once", check=is_token, secret=True),
    ] = field(default=None, repr=False)
    join_token: Annotated[
        str | None, About("A token that may only create workspaces.", absent="none", check=is_token, secret=True)
    ] = field(default=None, repr=False)
    upstream_allow: Annotated[
        tuple[IPNetwork, ...], About("Loopback and private networks in which agents may be dialled.")
    ] = ()
    server: ServerSettings = field(default_factory=ServerSettings)
    upstream: UpstreamSettings = field(default_factory=UpstreamSettings)
    policy: PolicySettings = field(default_factory=PolicySettings)
    restart: RestartSettings = field(default_factory=RestartSettings)
    parking: ParkingSettings = field(default_factory=ParkingSettings)
    queue: QueueSettings = field(default_factory=QueueSettings)
    poll: PollSettings = field(default_factory=PollSettings)
    hold: HoldSettings = field(default_factory=HoldSettings)
    push: PushSettings = field(default_factory=PushSettings)
    beats: BeatSettings = field(default_factory=BeatSettings)
    probe: ProbeSettings = field(default_factory=ProbeSettings)
    health: HealthSettings = field(default_factory=HealthSettings)
    defaults: DefaultSettings = field(default_factory=DefaultSettings)
    decisions: DecisionSettings = field(default_factory=DecisionSettings)
    store: StoreSettings = field(default_factory=StoreSettings)
    vault: VaultSettings = field(default_factory=VaultSettings)
    access: AccessSettings = field(default_factory=AccessSettings)
    rate: RateSettings = field(default_factory=RateSettings)
    cards: CardSettings = field(default_factory=CardSettings)
    events: EventSettings = field(default_factory=EventSettings)
    metrics: MetricSettings = field(default_factory=MetricSettings)
    log: LogSettings = field(default_factory=LogSettings)
    workspaces: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: MappingProxyType({}), repr=False)
    """The tables `[workspaces.NAME]` as they were written, with the keys of the HTTP API."""
    sources: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), compare=False, repr=False)
    """Where each setting came from that is not the default: a file, a variable or an option, by key."""
    warnings: tuple[str, ...] = field(default=(), compare=False)
    """What will work, but hardly as meant."""

    @property
    def state_dir(self) -> Path:
        """The directory of what runtimes keep."""
        return self.data_dir or self.data.with_name(self.data.name + ".d")

    @property
    def vault_key_file(self) -> Path:
        """The file of the vault's key, used where no key is configured."""
        return self.vault.key_file or self.data.with_name(self.data.name + ".key")

    @property
    def card_key_file(self) -> Path:
        """The file of the keys that sign agent cards."""
        return self.cards.key_file or self.data.with_name(self.data.name + ".card-key")

    @property
    def vault_key(self) -> bytes | None:
        """The configured key itself, 32 bytes; None where it is read from the file."""
        return _key(self.vault.key)

    @property
    def vault_old_key(self) -> bytes | None:
        """The retired key, 32 bytes; None where there is none."""
        return _key(self.vault.old_key)

    def policy_overrides(self, preset: str) -> dict[str, float]:
        """Return the configured numbers of the liveness policy; they belong to the configured preset alone."""
        if preset != self.policy.preset:
            return {}
        numbers = {name: getattr(self.policy, name) for name in POLICY_NUMBERS}
        return {name: value for name, value in numbers.items() if value is not None}

    def liveness_policy(self) -> LivenessPolicy:
        """Return the preset with the configured numbers; PolicyError where they do not fit, which `load` rules out."""
        return policy_from(self.policy.preset, self.policy_overrides(self.policy.preset))

    def restart_policy(self) -> RestartPolicy:
        """Return the brakes on restarts, as the rules take them."""
        own = self.restart
        return RestartPolicy(
            debounce=own.debounce,
            intensity=own.intensity,
            window=own.window,
            backoff=own.backoff,
            backoff_cap=own.backoff_cap,
            backoff_reset=own.backoff_reset,
        )

    def value(self, key: str) -> object:
        """Return a setting's value by its dotted key; AttributeError for a key that there is not."""
        found: object = self
        for part in key.split("."):
            found = getattr(found, part)
        return found

    def public(self) -> dict[str, Any]:
        """Return everything as JSON-able data, nested like the TOML file, with secrets masked."""
        shown: dict[str, Any] = {}
        for setting in SETTINGS.values():
            section, _, name = setting.key.rpartition(".")
            (shown.setdefault(section, {}) if section else shown)[name] = setting.shown(self.value(setting.key))
        shown["workspaces"] = {name: _public_workspace(table) for name, table in self.workspaces.items()}
        return shown


SETTINGS: Final[Mapping[str, Setting]] = MappingProxyType({setting.key: setting for setting in declared(Config)})
"""Every setting by its dotted key, in the order of the declarations."""


def _key(text: str | None) -> bytes | None:
    return None if text is None else base64.urlsafe_b64decode(text.rstrip("=") + "=")


def _public_workspace(table: Mapping[str, Any]) -> object:
    """Mask what is secret by name, and every value of an environment: that is where agents get their keys from."""
    runtime = table.get("runtime")
    if isinstance(runtime, Mapping) and isinstance(runtime.get("env"), Mapping):
        table = {**table, "runtime": {**runtime, "env": dict.fromkeys(runtime["env"], MASK)}}
    return masked("", table)


def reference() -> str:
    """Return the reference of all settings as Markdown: a heading for each section and, below it, for each key."""
    pages = {"": [f"## Top level\n\n{inspect.getdoc(Config)}"]}
    for name, kind in get_type_hints(Config).items():
        if is_dataclass(kind):
            pages[name] = [f"## `[{name}]`\n\n{inspect.getdoc(kind)}"]
    for setting in SETTINGS.values():
        if setting.default is not None:
            shown = setting.shown(setting.default)
            default = f"default `{shown if isinstance(shown, str) else json.dumps(shown)}`"
        elif setting.about.absent:
            default = f"default: {setting.about.absent}"
        else:
            own = ", ".join(f"{name} {getattr(PRESETS[name], setting.key.partition('.')[2]):g}" for name in PRESETS)
            default = f"default: the preset's own ({own})"
        facts = f"`{setting.variable}` · {setting.accepts} · {default}"
        pages[setting.key.rpartition(".")[0]].append(f"### `{setting.key}`\n\n{facts}\n\n{setting.about.doc}")
    return "\n\n".join("\n\n".join(entries) for entries in pages.values()) + "\n"
