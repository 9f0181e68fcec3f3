"""Configuration: four sources, one record, and every problem told at once with where it stands."""

from collections.abc import Iterable, Mapping
from ipaddress import ip_network
from pathlib import Path

import pytest

from proxy.config import Config, ConfigError, load
from proxy.core.ids import check_id
from proxy.core.outcome import DeadAction, UnmanagedAway
from proxy.core.presets import Preset
from proxy.setting_kinds.telling import LogFormat, LogLevel
from proxy.settings import SETTINGS, DeferredStatus

TOKEN = "hf_" + "a" * 43
OTHER = "hf_" + "b" * 43
VAULT_KEY = "A" * 42 + "8"
NETWORKS = "networks in CIDR notation, such as 10.1.0.0/16"
PRESET = "'combined' or 'hold-first' or 'verify-first'"


def written(folder: Path, text: str) -> Path:
    path = folder / "holdfast.toml"
    path.write_text(text, encoding="utf-8")
    path.chmod(0o600)
    return path


def problems(path: Path | None = None, environ: Mapping[str, str] | None = None, **overrides: object) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(path, environ or {}, {key.replace("__", "."): value for key, value in overrides.items()})
    return caught.value.problems


def env(**variables: str) -> Config:
    return load(None, {f"HOLDFAST_{name}": value for name, value in variables.items()})


# --- sources -------------------------------------------------------------------------------------------------------


def test_without_any_source_the_defaults_hold() -> None:
    assert load(None, {}) == Config()


def test_later_sources_win(tmp_path: Path) -> None:
    path = written(tmp_path, "port = 1\nhost = '::1'\n[queue]\nrows = 1\nttl = 100\nattempts = 9")
    environ = {"HOLDFAST_PORT": "2", "HOLDFAST_QUEUE_ROWS": "2", "HOLDFAST_QUEUE_TTL": "200", "PATH": "/bin"}
    config = load(path, environ, {"port": 3, "queue.rows": "3", "host": None})
    assert (config.port, config.host) == (3, "::1")
    assert (config.queue.rows, config.queue.ttl, config.queue.attempts) == (3, 200.0, 9)
    assert dict(config.sources) == {
        "port": "--port",
        "host": str(path),
        "queue.rows": "--queue-rows",
        "queue.ttl": "HOLDFAST_QUEUE_TTL",
        "queue.attempts": str(path),
    }


@pytest.mark.parametrize(
    ("variable", "text", "key", "value"),
    [
        ("HOLDFAST_ADMIN_TOKEN", TOKEN, "admin_token", TOKEN),
        ("HOLDFAST_ADMIN_TOKEN", "", "admin_token", None),
        ("HOLDFAST_JOIN_TOKEN", OTHER, "join_token", OTHER),
        ("HOLDFAST_DATA", "/var/lib/h.db", "data", Path("/var/lib/h.db")),
        ("HOLDFAST_DATA_DIR", "state", "data_dir", Path("state")),
        ("HOLDFAST_HOST", "0.0.0.0", "host", "0.0.0.0"),  # noqa: S104 - a value to read, nothing is bound
        ("HOLDFAST_PORT", "0", "port", 0),
        ("HOLDFAST_PORT", " 65535 ", "port", 65535),
        ("HOLDFAST_DEV", "true", "dev", True),
        ("HOLDFAST_DEV", "Off", "dev", False),
        ("HOLDFAST_PUBLIC_URL", "https://agents.example/base", "public_url", "https://agents.example/base"),
        (
            "HOLDFAST_UPSTREAM_ALLOW",
            "127.0.0.0/8,::1/128",
            "upstream_allow",
            (ip_network("127.0.0.0/8"), ip_network("::1/128")),
        ),
        ("HOLDFAST_UPSTREAM_ALLOW", "10.1.2.3, ", "upstream_allow", (ip_network("10.1.2.3/32"),)),
        ("HOLDFAST_UPSTREAM_ALLOW", "", "upstream_allow", ()),
        ("HOLDFAST_POLICY_PRESET", "hold-first", "policy.preset", Preset.HOLD_FIRST),
        ("HOLDFAST_POLICY_SETTLE_HOLD", "12.5", "policy.settle_hold", 12.5),
        ("HOLDFAST_POLICY_SETTLE_HOLD", "", "policy.settle_hold", None),
        ("HOLDFAST_POLICY_STRIKES", "3", "policy.strikes", 3),
        ("HOLDFAST_QUEUE_DEFERRED_STATUS", "200", "queue.deferred_status", DeferredStatus.OK),
        ("HOLDFAST_DEFAULTS_UNMANAGED_AWAY", "pass", "defaults.unmanaged_away", UnmanagedAway.PASS),
        ("HOLDFAST_DEFAULTS_DEAD_ACTION", "defer", "defaults.dead_action", DeadAction.DEFER),
        ("HOLDFAST_LOG_FORMAT", "json", "log.format", LogFormat.JSON),
        ("HOLDFAST_LOG_LEVEL", "debug", "log.level", LogLevel.DEBUG),
        ("HOLDFAST_VAULT_KEY", VAULT_KEY, "vault.key", VAULT_KEY),
        ("HOLDFAST_RESTART_BACKOFF", "1e1", "restart.backoff", 10.0),
    ],
)
def test_a_variable_is_read(variable: str, text: str, key: str, value: object) -> None:
    config = load(None, {variable: text})
    assert config.value(key) == value
    assert type(config.value(key)) is type(value)


def test_the_file_takes_the_types_of_toml(tmp_path: Path) -> None:
    config = load(
        written(
            tmp_path,
            """
            dev = true
            data = "a.db"
            upstream_allow = ["127.0.0.0/8", "10.0.0.1"]
            [server]
            drain_seconds = 5
            [queue]
            deferred_status = 202
            backoff = 0.25
            [defaults]
            redelivery = "never"
            """,
        ),
        {},
    )
    assert config.dev is True
    assert config.data == Path("a.db")
    assert config.upstream_allow == (ip_network("127.0.0.0/8"), ip_network("10.0.0.1/32"))
    assert config.server.drain_seconds == 5.0
    assert isinstance(config.server.drain_seconds, float)
    assert config.queue.deferred_status is DeferredStatus.ACCEPTED
    assert config.queue.backoff == 0.25
    assert config.defaults.redelivery == "never"


def test_a_path_may_come_from_an_option_as_a_path() -> None:
    assert load(None, {}, {"data": Path("x.db")}).data == Path("x.db")


# --- problems ------------------------------------------------------------------------------------------------------


def test_every_problem_of_every_source_is_told_at_once(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        """
        port = "80"
        hots = "127.0.0.1"
        upstream_allow = ["10.1.2.3/8"]
        queue = { rows = -1, ttl = inf }
        [restart]
        backoff = 400
        [workspaces."system:a"]
        """,
    )
    found = problems(path, {"HOLDFAST_SERVER_PORT": "1", "HOLDFAST_DEV": "maybe"}, log__level="loud", prt=1)
    assert found == [
        f"port in {path}: must be a whole number, between 0 and 65535, not '80'",
        f"hots in {path}: no such setting (did you mean host?)",
        f"upstream_allow in {path}: must be {NETWORKS}, not '10.1.2.3/8' (did you mean 10.0.0.0/8?)",
        f"queue.rows in {path}: must be a whole number of rows, at least 0, not -1",
        f"queue.ttl in {path}: must be a number of seconds, between 1 and 31622400, not inf",
        f"workspaces.system:a in {path}: {check_id('system:a')}",
        "HOLDFAST_DEV: must be true or false, not 'maybe'",
        "HOLDFAST_SERVER_PORT: no such setting (did you mean HOLDFAST_PORT?)",
        "--log-level: must be 'debug' or 'info' or 'warning' or 'error', not 'loud'",
        "option prt: no such setting (did you mean port?)",
        f"restart.backoff in {path}: the first wait, 400, is longer than the longest, 300",
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[server]\nport = 1", "server.port in {}: no such setting (did you mean port?)"),
        ("[queu]\nrows = 1", "queu in {}: no such setting (did you mean queue?)"),
        ("[queue]\nrow = 1", "queue.row in {}: no such setting (did you mean queue.rows?)"),
        (
            "rows = 1",
            "rows in {}: no such setting (did you mean queue.rows or queue.caller_rows or poll.journal_rows?)",
        ),
        ("zzz = 1", "zzz in {}: no such setting"),
        ("queue = 5", "queue in {}: must be a table, written [queue]"),
        ("workspaces = 5", "workspaces in {}: must be a table, written [workspaces]"),
        ("[workspaces]\na = 5", "workspaces.a in {}: must be a table, written [workspaces.a]"),
        ("[port]\na = 1", "port in {}: must be a whole number, between 0 and 65535, not a table"),
        ("port = 80.0", "port in {}: must be a whole number, between 0 and 65535, not 80.0"),
        ("port = true", "port in {}: must be a whole number, between 0 and 65535, not true"),
        ("port = 65536", "port in {}: must be a whole number, between 0 and 65535, not 65536"),
        ("dev = 1", "dev in {}: must be true or false, not 1"),
        ("dev = 'true'", "dev in {}: must be true or false, not 'true'"),
        ("host = ''", "host in {}: must be a text, not ''"),
        ("host = 5", "host in {}: must be a text, not 5"),
        ('host = "a\\u0000"', "host in {}: must be a text, not 'a\\x00'"),
        ("data = 'postgresql://u:p@h/d'", "data in {}: must be the path of a file, not a URL"),
        ("data = '.'", "data in {}: must be the path of a file, not of a directory"),
        ("data = 1979-05-27", "data in {}: must be a path, not '1979-05-27'"),
        ("upstream_allow = '10.0.0.0/8'", f"upstream_allow in {{}}: must be {NETWORKS}, not '10.0.0.0/8'"),
        ("upstream_allow = [5]", f"upstream_allow in {{}}: must be {NETWORKS}, not 5"),
        ("upstream_allow = ['host']", f"upstream_allow in {{}}: must be {NETWORKS}, not 'host'"),
        ("[queue]\nttl = nan", "queue.ttl in {}: must be a number of seconds, between 1 and 31622400, not nan"),
        ("[queue]\nttl = 0", "queue.ttl in {}: must be a number of seconds, between 1 and 31622400, not 0"),
        ("[queue]\ndeferred_status = 204", "queue.deferred_status in {}: must be 'auto' or '202' or '200', not '204'"),
        ("[policy]\npreset = 'Combined'", f"policy.preset in {{}}: must be {PRESET}, not 'Combined'"),
    ],
)  # fmt: skip
def test_a_file_that_is_wrong_says_where_and_what_is_accepted(tmp_path: Path, text: str, problem: str) -> None:
    path = written(tmp_path, text)
    assert problems(path) == [problem.format(path)]


@pytest.mark.parametrize(
    ("variable", "text", "problem"),
    [
        ("PORT", "", "must be a whole number, between 0 and 65535, not ''"),
        ("PORT", "80 80", "must be a whole number, between 0 and 65535, not '80 80'"),
        ("PORT", "8_0", "must be a whole number, between 0 and 65535, not '8_0'"),
        ("PORT", "9" * 5000, f"must be a whole number, between 0 and 65535, not '{'9' * 59}..."),
        ("QUEUE_TTL", "inf", "must be a number of seconds, between 1 and 31622400, not 'inf'"),
        ("QUEUE_TTL", "1e999", "must be a number of seconds, between 1 and 31622400, not inf"),
        ("QUEUE_TTL", "5m", "must be a number of seconds, between 1 and 31622400, not '5m'"),
        ("DEV", "", "must be true or false, not ''"),
        ("HOST", " ", "must be a text, not ''"),
        ("UPSTREAM_ALLOW", "10.0.0.0/8;::1", f"must be {NETWORKS}, not '10.0.0.0/8;::1'"),
        ("PUBLIC_URL", "agents.example", "must be an absolute http or https URL without user, query or fragment"),
        ("PUBLIC_URL", "http://u:p@h/", "must be an absolute http or https URL without user, query or fragment"),
        ("PUBLIC_URL", "http://h/?q", "must be an absolute http or https URL without user, query or fragment"),
        ("PUBLIC_URL", "http://h/#", "must be an absolute http or https URL without user, query or fragment"),
        ("PUBLIC_URL", "http://h:x/", "must be an absolute http or https URL without user, query or fragment"),
        ("PUBLIC_URL", "ftp://h/", "must be an absolute http or https URL without user, query or fragment"),
        ("PUBLIC_URL", "http:///x", "must be an absolute http or https URL without user, query or fragment"),
        ("PUBLIC_URL", "http://h/a b", "must be an absolute http or https URL without user, query or fragment"),
        ("PUBLIC_URL", "http://[::1/", "must be an absolute http or https URL without user, query or fragment"),
        ("WORKSPACES_A_URL", "http://x/", "no such setting"),
        ("PROT", "1", "no such setting (did you mean HOLDFAST_PORT?)"),
    ],
)  # fmt: skip
def test_a_variable_that_is_wrong_says_so(variable: str, text: str, problem: str) -> None:
    assert problems(None, {f"HOLDFAST_{variable}": text}) == [f"HOLDFAST_{variable}: {problem}"]


@pytest.mark.parametrize("key", [key for key, setting in SETTINGS.items() if setting.about.secret])
@pytest.mark.parametrize("secret", ["open-sesame", "hf_open sesame", "hf_", "ö"])
def test_a_secret_that_is_wrong_is_not_repeated(key: str, secret: str) -> None:
    (problem,) = problems(None, {SETTINGS[key].variable: secret})
    assert problem.startswith(f"{SETTINGS[key].variable}: must be ")
    assert "sesame" not in problem
    assert "ö" not in problem


def test_a_secret_of_the_wrong_type_is_not_repeated(tmp_path: Path) -> None:
    (problem,) = problems(written(tmp_path, "admin_token = 20250101"))
    assert "20250101" not in problem


def test_a_file_that_cannot_be_read_does_not_hide_other_problems(tmp_path: Path) -> None:
    missing = tmp_path / "missing.toml"
    assert problems(missing, {"HOLDFAST_PORT": "x"}) == [
        f"{missing}: cannot be read: No such file or directory",
        "HOLDFAST_PORT: must be a whole number, between 0 and 65535, not 'x'",
    ]
    assert problems(tmp_path) == [f"{tmp_path}: cannot be read: Is a directory"]


def test_a_file_that_is_not_toml_says_where(tmp_path: Path) -> None:
    (problem,) = problems(written(tmp_path, "port = 1\nhost = \n"))
    assert "is not TOML" in problem
    assert "line 2" in problem
    path = tmp_path / "latin.toml"
    path.write_bytes(b"host = '\xe4'")
    assert problems(path) == [f"{path}: is not UTF-8 (byte 8)"]


def test_a_wrong_value_in_the_file_is_told_even_where_the_environment_wins(tmp_path: Path) -> None:
    (problem,) = problems(written(tmp_path, "port = -1"), {"HOLDFAST_PORT": "80"})
    assert problem.startswith("port in ")


@pytest.mark.parametrize("name", ["CONFIG", "URL", "TOKEN", "WORKSPACE_ID", "INCARNATION", "BOOT_ID", "CONFIG_PATH"])
def test_what_a_started_agent_is_told_is_no_setting_and_no_error(name: str) -> None:
    assert load(None, {f"HOLDFAST_{name}": "anything"}) == Config()


def test_a_kubernetes_service_called_holdfast_is_no_error() -> None:
    config = env(
        PORT="tcp://10.0.0.1:8080",
        PORT_8080_TCP="tcp://10.0.0.1:8080",
        PORT_8080_TCP_ADDR="10.0.0.1",
        SERVICE_HOST="10.0.0.1",
        SERVICE_PORT="8080",
        SERVICE_PORT_HTTP="8080",
        BLUE_PORT="tcp://10.0.0.2:1",
    )
    assert config == Config()
    assert [warning.partition(":")[0] for warning in config.warnings] == ["HOLDFAST_PORT"]


# --- settings that must fit together ---------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost", "LOCALHOST", "::ffff:127.0.0.1"])
def test_dev_may_serve_a_loopback_address(host: str) -> None:
    assert load(None, {}, {"dev": True, "host": host}).dev


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "10.0.0.1", "example.org", "localhost.example.org", "127.1", "::ffff:10.0.0.1"]  # noqa: S104 - refused below
)  # fmt: skip
def test_dev_may_serve_nothing_else(host: str) -> None:
    (problem,) = problems(None, {"HOLDFAST_HOST": host}, dev=True)
    assert problem == (
        "--dev, HOLDFAST_HOST: without authentication only a loopback address may be served"
        f" (127.0.0.1, ::1, localhost), not {host!r}"
    )


def test_nothing_is_signed_that_a_caller_could_name() -> None:
    (problem,) = problems(None, {"HOLDFAST_CARDS_SIGNATURES": "resign"})
    assert problem.startswith("HOLDFAST_CARDS_SIGNATURES: who signs cards sets public_url")
    assert env(CARDS_SIGNATURES="resign", PUBLIC_URL="https://agents.example").public_url is not None


def test_scenario_21_a_hold_longer_than_the_settle_window_is_an_error() -> None:
    assert problems(None, {"HOLDFAST_POLICY_SETTLE_HOLD": "61"}) == [
        "HOLDFAST_POLICY_SETTLE_HOLD: with preset combined, settle_hold: 61 is longer than settle_window 60"
    ]
    assert load(None, {"HOLDFAST_POLICY_SETTLE_HOLD": "60"}).liveness_policy().settle_hold == 60


def test_scenario_21_a_settle_window_shorter_than_the_debounce_is_a_warning() -> None:
    assert load(None, {}).warnings == ()
    (warning,) = env(RESTART_DEBOUNCE="61").warnings
    assert warning.startswith("HOLDFAST_RESTART_DEBOUNCE: settle_window: 60 is shorter than the restart debounce 61")


def test_scenario_21_the_preset_made_with_a_short_window_warns_too() -> None:
    (warning,) = env(POLICY_PRESET="verify-first").warnings
    assert warning.startswith("HOLDFAST_POLICY_PRESET: settle_window: 30 is shorter than the restart debounce 60")
    assert env(POLICY_PRESET="verify-first", RESTART_DEBOUNCE="30").warnings == ()


def test_rules_about_a_refused_setting_are_not_applied() -> None:
    (problem,) = problems(None, {"HOLDFAST_POLICY_PRESET": "nonsense", "HOLDFAST_POLICY_SETTLE_HOLD": "90"})
    assert problem.startswith("HOLDFAST_POLICY_PRESET: must be ")


@pytest.mark.parametrize(
    "settings",
    [
        {"restart.backoff": 10, "restart.backoff_cap": 9},
        {"restart.lease": 10, "restart.stop_grace": 10},
        {"queue.backoff": 2, "queue.backoff_cap": 1},
        {"queue.idempotency_retention": 61, "queue.retention": 60},
        {"probe.away_first": 6, "probe.away_cap": 5},
        {"poll.lease_least": 60, "poll.lease_most": 30},
        {"policy.strike_window": 0},
        {"policy.preset": "verify-first", "policy.fresh_poll": 0},
        {"admin_token": TOKEN, "join_token": TOKEN},
    ],
    ids=" ".join,
)
def test_settings_that_cannot_hold_together_are_an_error_that_names_them(settings: dict[str, object]) -> None:
    (problem,) = problems(None, {}, **{key.replace(".", "__"): value for key, value in settings.items()})
    assert set(problem.partition(": ")[0].split(", ")) == {SETTINGS[key].option for key in settings}
    assert TOKEN not in problem


@pytest.mark.parametrize(
    "settings",
    [
        {"queue.bytes": 1024, "server.body_limit": 1025},
        {"upstream_allow": ["0.0.0.0/0"]},
        {"admin_token": "hf_short"},
        {"policy.fresh_wait": 1},
        {"policy.preset": "hold-first", "policy.strikes": 2},
    ],
    ids=" ".join,
)
def test_what_works_but_hardly_as_meant_is_a_warning(settings: dict[str, object]) -> None:
    (warning,) = load(None, {}, settings).warnings
    assert any(SETTINGS[key].option in warning for key in settings)
    assert "hf_short" not in warning


def test_a_limit_switched_off_does_not_warn() -> None:
    assert load(None, {}, {"queue.bytes": 0}).warnings == ()


def test_a_file_with_a_secret_that_others_may_read_is_a_warning(tmp_path: Path) -> None:
    path = written(tmp_path, f"admin_token = '{TOKEN}'")
    assert load(path, {}).warnings == ()
    path.chmod(0o644)
    assert load(path, {}).warnings == (f"{path}: others may read it, and it holds admin_token (chmod 600)",)
    harmless = written(tmp_path, "port = 1")
    harmless.chmod(0o644)
    assert load(harmless, {}).warnings == ()


# --- workspaces ----------------------------------------------------------------------------------------------------


def test_workspaces_are_kept_as_they_were_written(tmp_path: Path) -> None:
    path = written(tmp_path, "[workspaces.a]\nurl = 'http://127.0.0.1:1'\n[workspaces.b.runtime]\ntype = 'process'")
    config = load(path, {})
    assert {name: dict(table) for name, table in config.workspaces.items()} == {
        "a": {"url": "http://127.0.0.1:1"},
        "b": {"runtime": {"type": "process"}},
    }
    with pytest.raises(TypeError):
        config.workspaces["c"] = {}  # type: ignore[index]  # the type forbids it, too


def test_workspaces_are_judged_by_whoever_knows_their_keys(tmp_path: Path) -> None:
    path = written(tmp_path, "[workspaces.a]\nulr = 'x'\n[workspaces.b]\nurl = 'x'")

    def check(name: str, table: Mapping[str, object]) -> Iterable[str]:
        return [f"{key}: no such key" for key in table if key != "url"]

    with pytest.raises(ConfigError) as caught:
        load(path, {}, check_workspace=check)
    assert caught.value.problems == [f"workspaces.a in {path}: ulr: no such key"]
