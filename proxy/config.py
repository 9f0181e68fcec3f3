"""Owns how a configuration comes about: file, environment and options, checked together, into one frozen `Config`.

Knows nothing of what settings mean (`settings`). Later sources win: defaults < TOML file < environment < options.
Everything that is wrong is found in one go, and each problem names where it stands and what would be accepted.
"""

import difflib
import re
import stat
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import is_dataclass, replace
from ipaddress import ip_address
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NamedTuple, get_type_hints

from proxy.core.access import AccessRule
from proxy.core.ids import check_id
from proxy.core.presets import PolicyError, validate
from proxy.setting_kinds import ENVIRONMENT_PREFIX, RefusedError, Setting
from proxy.setting_kinds.cards import CardSignatures
from proxy.settings import SETTINGS, Config

__all__ = ["Config", "ConfigError", "WorkspaceCheck", "load"]

WorkspaceCheck = Callable[[str, Mapping[str, Any]], Iterable[str]]
"""Takes a workspace's name and table, returns what is wrong with it, each problem starting with the key it is about."""

_WORKSPACES: Final = "workspaces"
_SHORT_TOKEN: Final = 32
_VARIABLES: Final = {setting.variable: setting for setting in SETTINGS.values()}
_SECTIONS: Final[Mapping[str, Callable[..., Any]]] = {
    name: hint for name, hint in get_type_hints(Config).items() if isinstance(hint, type) and is_dataclass(hint)
}
# Variables of this prefix that are not settings: what a started agent is told, and what the command line reads itself.
_FOREIGN: Final = frozenset(
    ENVIRONMENT_PREFIX + name
    for name in ("CONFIG", "URL", "TOKEN", "WORKSPACE_ID", "INCARNATION", "BOOT_ID", "CONFIG_PATH")
)
# Kubernetes and Docker describe a service called "holdfast" to its neighbours in variables of these forms. One of them,
# HOLDFAST_PORT=tcp://10.0.0.1:8080, has the name of a setting.
_SERVICE_LINK: Final = re.compile(r"HOLDFAST(_\w+)?_(SERVICE_(HOST|PORT)(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_\w+)?)")
_SERVICE_ADDRESS: Final = re.compile(r"(tcp|udp|sctp)://.*")


class ConfigError(ValueError):
    """A configuration that cannot be used. ``problems`` holds every one found, one sentence each."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(self.problems))


def load(
    path: Path | None,
    environ: Mapping[str, str],
    overrides: Mapping[str, object] | None = None,
    *,
    check_workspace: WorkspaceCheck | None = None,
) -> Config:
    """Return the configuration, or raise ConfigError with all of its problems.

    ``overrides`` come from the command line, by dotted key; a text is read as an environment variable's would be, and
    None means that the option was not given. ``check_workspace`` judges each ``[workspaces.NAME]`` table beyond its
    name, so that the file is held to the rules of the HTTP API.
    """
    reading = _Reading(check_workspace=check_workspace)
    if path is not None:
        reading.take_file(path)
    reading.take_environment(environ)
    reading.take_options(overrides or {})
    config = reading.build()
    for rule in _RULES:
        if reading.failed.isdisjoint(rule.reads):
            sentences = (f"{_located(rule.reads, config)}: {sentence}" for sentence in rule.find(config))
            (reading.problems if rule.is_error else reading.warnings).extend(sentences)
    if reading.problems:
        raise ConfigError(reading.problems)
    return replace(config, warnings=tuple(reading.warnings))


class _Reading:
    """What has been gathered so far: values by key, their sources, and everything that is wrong or odd."""

    def __init__(self, *, check_workspace: WorkspaceCheck | None) -> None:
        self.problems: list[str] = []
        self.warnings: list[str] = []
        self.failed: set[str] = set()
        self._values: dict[str, object] = {}
        self._sources: dict[str, str] = {}
        self._workspaces: dict[str, Mapping[str, Any]] = {}
        self._check_workspace = check_workspace

    def take_file(self, path: Path) -> None:
        try:
            with path.open("rb") as file:
                table = tomllib.load(file)
                mode = stat.S_IMODE(path.stat().st_mode)
        except OSError as problem:
            self.problems.append(f"{path}: cannot be read: {problem.strerror or problem}")
        except UnicodeDecodeError as problem:
            self.problems.append(f"{path}: is not UTF-8 (byte {problem.start})")
        except tomllib.TOMLDecodeError as problem:
            self.problems.append(f"{path}: is not TOML: {problem}")
        else:
            self._take_table(table, "", str(path))
            secrets = [key for key, setting in SETTINGS.items() if setting.about.secret and key in self._values]
            if secrets and mode & (stat.S_IRGRP | stat.S_IROTH):
                self.warnings.append(f"{path}: others may read it, and it holds {', '.join(secrets)} (chmod 600)")

    def _take_table(self, table: Mapping[str, object], prefix: str, file: str) -> None:
        for name, value in table.items():
            key = prefix + name
            if key in SETTINGS:
                self._take(SETTINGS[key], value, f"{key} in {file}", file, SETTINGS[key].from_toml)
            elif key == _WORKSPACES and isinstance(value, dict):
                for workspace, inner in value.items():
                    self._take_workspace(workspace, inner, file)
            elif key in _SECTIONS and isinstance(value, dict):
                self._take_table(value, f"{key}.", file)
            elif key in _SECTIONS or key == _WORKSPACES:
                self.problems.append(f"{key} in {file}: must be a table, written [{key}]")
            else:
                self.problems.append(
                    f"{key} in {file}: no such setting{_meant(key, (*SETTINGS, *_SECTIONS, _WORKSPACES))}"
                )

    def _take_workspace(self, name: str, table: object, file: str) -> None:
        where = f"{_WORKSPACES}.{name} in {file}"
        problem = check_id(name)
        if problem is not None:
            self.problems.append(f"{where}: {problem}")
        if not isinstance(table, dict):
            self.problems.append(f"{where}: must be a table, written [{_WORKSPACES}.{name}]")
            return
        if self._check_workspace is not None:
            self.problems += [f"{where}: {found}" for found in self._check_workspace(name, table)]
        self._workspaces[name] = MappingProxyType(table)

    def take_environment(self, environ: Mapping[str, str]) -> None:
        for variable in sorted(name for name in environ if name.startswith(ENVIRONMENT_PREFIX)):
            value = environ[variable]
            setting = _VARIABLES.get(variable)
            if _is_service_link(variable, value):
                if setting is not None:
                    self.warnings.append(
                        f"{variable}: ignored, it is the address of a service called holdfast, put there by Kubernetes"
                        " (enableServiceLinks: false keeps it out)"
                    )
            elif setting is not None:
                self._take(setting, value, variable, variable, setting.from_text)
            elif variable not in _FOREIGN:
                self.problems.append(f"{variable}: no such setting{_meant(variable, _VARIABLES)}")

    def take_options(self, overrides: Mapping[str, object]) -> None:
        for key, value in overrides.items():
            setting = SETTINGS.get(key)
            if setting is None:
                self.problems.append(f"option {key}: no such setting{_meant(key, SETTINGS)}")
            elif value is not None:
                read = setting.from_text if isinstance(value, str) else setting.from_toml
                self._take(setting, value, setting.option, setting.option, read)

    def _take(self, setting: Setting, value: Any, where: str, source: str, read: Callable[[Any], object]) -> None:
        try:
            self._values[setting.key] = read(value)
            self._sources[setting.key] = source
        except RefusedError as refused:
            self.failed.add(setting.key)
            self.problems.append(f"{where}: must be {refused}")

    def build(self) -> Config:
        """Return a `Config` of what was read; a setting whose value was refused has its default."""
        values = self._section("") | {name: kind(**self._section(f"{name}.")) for name, kind in _SECTIONS.items()}
        return Config(
            **values,
            workspaces=MappingProxyType(self._workspaces),
            sources=MappingProxyType(self._sources),
        )

    def _section(self, prefix: str) -> dict[str, Any]:
        values = ((key.rpartition("."), value) for key, value in self._values.items())
        return {name: value for (section, dot, name), value in values if section + dot == prefix}


class _Rule(NamedTuple):
    """A rule over several settings: which it reads, whether breaking it is an error, and what it finds."""

    reads: tuple[str, ...]
    is_error: bool
    find: Callable[[Config], Iterator[str]]


def _dev_is_for_loopback(config: Config) -> Iterator[str]:
    if config.dev and not _is_loopback(config.host):
        yield (
            "without authentication only a loopback address may be served (127.0.0.1, ::1, localhost), not "
            f"{config.host!r}"
        )


def _backoff_reaches_its_cap(config: Config) -> Iterator[str]:
    if config.restart.backoff > config.restart.backoff_cap:
        yield f"the first wait, {config.restart.backoff:g}, is longer than the longest, {config.restart.backoff_cap:g}"


def _queue_backoff_reaches_its_cap(config: Config) -> Iterator[str]:
    if config.queue.backoff > config.queue.backoff_cap:
        yield f"the first wait, {config.queue.backoff:g}, is longer than the longest, {config.queue.backoff_cap:g}"


def _away_pause_reaches_its_cap(config: Config) -> Iterator[str]:
    if config.probe.away_first > config.probe.away_cap:
        yield f"the first pause, {config.probe.away_first:g}, is longer than the longest, {config.probe.away_cap:g}"


def _what_is_signed_is_ours(config: Config) -> Iterator[str]:
    if config.cards.signatures is CardSignatures.RESIGN and config.public_url is None:
        yield "who signs cards sets public_url: without it the signed addresses would be what a caller names in Host"


def _driver_outlives_a_stop(config: Config) -> Iterator[str]:
    if config.restart.lease <= config.restart.stop_grace:
        yield (
            f"a lease of {config.restart.lease:g} can run out while a process is given {config.restart.stop_grace:g} to"
            " end: another proxy would take the restart over"
        )


def _joined_answers_are_kept(config: Config) -> Iterator[str]:
    if config.queue.idempotency_retention > config.queue.retention:
        yield (
            f"a repeated send cannot join an answer for {config.queue.idempotency_retention:g} that is kept for"
            f" {config.queue.retention:g}"
        )


def _policy_is_possible(config: Config) -> Iterator[str]:
    try:
        config.liveness_policy()
    except PolicyError as error:
        yield from (f"with preset {config.policy.preset}, {problem}" for problem in error.problems)


def _policy_is_plausible(config: Config) -> Iterator[str]:
    try:
        policy = config.liveness_policy()
    except PolicyError:  # told by the rule above
        return
    yield from validate(policy, config.restart.debounce).warnings


def _a_body_fits_the_queue(config: Config) -> Iterator[str]:
    if 0 < config.queue.bytes < config.server.body_limit:
        yield f"a body of up to {config.server.body_limit} bytes is accepted, but can never be deferred"


def _tokens_are_hard_to_guess(config: Config) -> Iterator[str]:
    for key in ("admin_token", "join_token"):
        token = getattr(config, key)
        if token is not None and len(token) < _SHORT_TOKEN:
            yield f"{key} has fewer than {_SHORT_TOKEN} characters and may be guessed"


def _tokens_differ(config: Config) -> Iterator[str]:
    if config.admin_token is not None and config.admin_token == config.join_token:
        yield "the two must differ, or whoever may join is the admin"


def _not_everything_is_allowed(config: Config) -> Iterator[str]:
    for network in config.upstream_allow:
        if network.prefixlen == 0:
            yield f"{network} lets whoever registers a workspace reach every internal address"


def _a_lease_can_be(config: Config) -> Iterator[str]:
    if config.poll.lease_least > config.poll.lease_most:
        yield f"the shortest lease, {config.poll.lease_least:g}, is longer than the longest, {config.poll.lease_most:g}"


def _lists_are_read(config: Config) -> Iterator[str]:
    if config.access.allow_from and config.access.rule is AccessRule.ANY:
        yield "the list is kept, but nobody reads it while the rule is 'any'"


def _a_burst_is_part_of_a_minute(config: Config) -> Iterator[str]:
    per_minute, burst = config.rate.requests_per_minute, config.rate.burst
    if burst and per_minute and burst >= per_minute:
        yield f"a burst of {burst} is never met before the minute's {per_minute}"
    if burst and not per_minute and not config.rate.callers:
        yield "nobody's requests are counted, so there is no burst"


_POLICY_KEYS: Final = tuple(key for key in SETTINGS if key.startswith("policy."))
_RULES: Final = (
    _Rule(("dev", "host"), True, _dev_is_for_loopback),
    _Rule(("admin_token", "join_token"), True, _tokens_differ),
    _Rule(("cards.signatures", "public_url"), True, _what_is_signed_is_ours),
    _Rule(("restart.backoff", "restart.backoff_cap"), True, _backoff_reaches_its_cap),
    _Rule(("restart.lease", "restart.stop_grace"), True, _driver_outlives_a_stop),
    _Rule(("queue.backoff", "queue.backoff_cap"), True, _queue_backoff_reaches_its_cap),
    _Rule(("queue.idempotency_retention", "queue.retention"), True, _joined_answers_are_kept),
    _Rule(("probe.away_first", "probe.away_cap"), True, _away_pause_reaches_its_cap),
    _Rule(("poll.lease_least", "poll.lease_most"), True, _a_lease_can_be),
    _Rule(_POLICY_KEYS, True, _policy_is_possible),
    _Rule((*_POLICY_KEYS, "restart.debounce"), False, _policy_is_plausible),
    _Rule(("queue.bytes", "server.body_limit"), False, _a_body_fits_the_queue),
    _Rule(("admin_token", "join_token"), False, _tokens_are_hard_to_guess),
    _Rule(("upstream_allow",), False, _not_everything_is_allowed),
    _Rule(("access.allow_from", "access.rule"), False, _lists_are_read),
    _Rule(("rate.burst", "rate.requests_per_minute", "rate.callers"), False, _a_burst_is_part_of_a_minute),
)


def _is_service_link(variable: str, value: str) -> bool:
    if variable.endswith("_PORT") and _SERVICE_ADDRESS.fullmatch(value):
        return True
    return _SERVICE_LINK.fullmatch(variable) is not None


def _located(keys: tuple[str, ...], config: Config) -> str:
    """Name those of a rule's settings that somebody set, each with its source; all of them where nobody did."""
    named = {SETTINGS[key].variable for key in keys} | {SETTINGS[key].option for key in keys}
    sources = [(key, config.sources[key]) for key in keys if key in config.sources]
    return ", ".join(source if source in named else f"{key} in {source}" for key, source in sources) or ", ".join(keys)


def _meant(word: str, known: Iterable[str]) -> str:
    """Return " (did you mean ...?)" where one is near: the same name in another section first, then the spelling."""
    plain = {name.removeprefix(ENVIRONMENT_PREFIX).replace(".", "_").lower(): name for name in known}
    word = word.removeprefix(ENVIRONMENT_PREFIX).replace(".", "_").lower()
    near = [name for name in plain if name.endswith(f"_{word}") or word.endswith(f"_{name}")]
    near = near or difflib.get_close_matches(word, plain, n=1, cutoff=0.75)
    return f" (did you mean {' or '.join(plain[name] for name in near[:3])}?)" if near else ""


def _is_loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        address = ip_address(host)
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback
