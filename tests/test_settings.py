"""Settings: one table from which the record, the names, what is shown and the reference page follow."""

import base64
import dataclasses
import json
import math
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config import Config, ConfigError, load
from proxy.core.presets import PRESETS, LivenessPolicy
from proxy.core.presets import SETTINGS as POLICY_NUMBERS
from proxy.core.restart import RestartPolicy
from proxy.setting_kinds.telling import LogFormat, LogLevel
from proxy.settings import SETTINGS, QueueSettings, reference
from proxy.telemetry import LINES, Level

PAGE = Path(__file__).parent.parent / "docs" / "configuration.md"
TOKEN = "hf_" + "a" * 43
OTHER = "hf_" + "b" * 43
VAULT_KEY = "A" * 42 + "8"


def written(folder: Path, text: str) -> Path:
    path = folder / "holdfast.toml"
    path.write_text(text, encoding="utf-8")
    return path


def env(**variables: str) -> Config:
    return load(None, {f"HOLDFAST_{name}": value for name, value in variables.items()})


# --- the record ----------------------------------------------------------------------------------------------------


def test_the_record_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        load(None, {}).port = 1  # type: ignore[misc]  # the type forbids it, too
    with pytest.raises(dataclasses.FrozenInstanceError):
        load(None, {}).queue.rows = 1  # type: ignore[misc]  # the type forbids it, too


def test_a_test_may_build_one_by_hand() -> None:
    assert Config(port=0, queue=QueueSettings(rows=5)).queue.rows == 5


def test_paths_follow_the_database_unless_they_are_set() -> None:
    config = load(None, {}, {"data": "/srv/a.db"})
    assert (config.state_dir, config.vault_key_file) == (Path("/srv/a.db.d"), Path("/srv/a.db.key"))
    config = load(None, {}, {"data_dir": "/state", "vault.key_file": "/keys/k"})
    assert (config.state_dir, config.vault_key_file) == (Path("/state"), Path("/keys/k"))


@pytest.mark.parametrize("preset", list(PRESETS))
def test_the_liveness_policy_is_the_preset_with_what_is_set(preset: str) -> None:
    assert env(POLICY_PRESET=preset).liveness_policy() == PRESETS[preset]
    changed = env(POLICY_PRESET=preset, POLICY_RECENT_HEARTBEAT="20", POLICY_STRIKES="4").liveness_policy()
    assert changed == dataclasses.replace(PRESETS[preset], recent_heartbeat=20.0, strikes=4)


def test_the_numbers_belong_to_the_preset_they_were_set_for() -> None:
    config = env(POLICY_SETTLE_HOLD="45", POLICY_STRIKES="3")
    assert config.policy_overrides("combined") == {"settle_hold": 45.0, "strikes": 3}
    assert config.policy_overrides("verify-first") == {}


def test_the_restart_policy_is_what_the_settings_say() -> None:
    assert load(None, {}).restart_policy() == RestartPolicy()
    names = [each.name for each in dataclasses.fields(RestartPolicy)]
    changed = load(None, {}, {f"restart.{name}": 20 + place for place, name in enumerate(names)}).restart_policy()
    assert [getattr(changed, name) for name in names] == [20 + place for place in range(len(names))]


def test_no_secret_is_shown() -> None:
    config = env(ADMIN_TOKEN=TOKEN, JOIN_TOKEN=OTHER, VAULT_KEY=VAULT_KEY)
    shown = f"{config!r} {config} {json.dumps(config.public())} {config.vault!r} {config.sources} {config.warnings}"
    for secret in (TOKEN, OTHER, VAULT_KEY):
        assert secret not in shown
    assert config.public()["admin_token"] == "***"
    assert config.public()["vault"]["key"] == "***"
    assert load(None, {}).public()["admin_token"] is None


@pytest.mark.parametrize("key", [key for key, setting in SETTINGS.items() if setting.about.secret])
def test_every_setting_declared_secret_is_left_out_of_the_repr(key: str) -> None:
    section, _, name = key.rpartition(".")
    owner: Any = Config().value(section) if section else Config()
    assert next(each for each in dataclasses.fields(owner) if each.name == name).repr is False


def test_secrets_of_workspaces_are_not_shown(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        """
        [workspaces.a]
        url = "http://root:hunter2@127.0.0.1:1/"
        [workspaces.a.runtime]
        type = "process"
        command = ["agent", "--token-file", "x"]
        env = { OPENAI_KEY = "sk-1234" }
        webhook_secret = "s3cret"
        """,
    )
    config = load(path, {})
    for secret in ("hunter2", "sk-1234", "s3cret"):
        assert secret not in repr(config) + json.dumps(config.public())
    assert config.public()["workspaces"]["a"]["runtime"] == {
        "type": "process",
        "command": ["agent", "--token-file", "x"],
        "env": {"OPENAI_KEY": "***"},
        "webhook_secret": "***",
    }


def test_what_is_shown_has_every_setting_in_its_place() -> None:
    shown = load(None, {}, {"upstream_allow": "10.0.0.0/8"}).public()
    for key in SETTINGS:
        section, _, name = key.rpartition(".")
        assert name in (shown[section] if section else shown)
    assert (shown["upstream_allow"], shown["queue"]["rows"], shown["data"]) == (["10.0.0.0/8"], 1000, "holdfast.db")
    json.dumps(shown, allow_nan=False)


@pytest.mark.parametrize("key", ["A" * 43 + "=", "-_" * 21 + "8", "A" * 43])
def test_a_vault_key_is_32_bytes_in_base64url(key: str) -> None:
    assert env(VAULT_KEY=key).vault_key == base64.urlsafe_b64decode(key.rstrip("=") + "=")
    assert len(env(VAULT_KEY=key).vault_key or b"") == 32


@pytest.mark.parametrize("key", ["A" * 42, "A" * 44, "A" * 64, "+/" * 21 + "8"])
def test_anything_else_is_no_vault_key(key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        env(VAULT_KEY=key)
    assert caught.value.problems == ["HOLDFAST_VAULT_KEY: must be 32 bytes in base64url (43 characters)"]


# --- the table -----------------------------------------------------------------------------------------------------


def test_no_two_settings_share_a_variable_or_an_option() -> None:
    assert len({setting.variable for setting in SETTINGS.values()}) == len(SETTINGS)
    assert len({setting.option for setting in SETTINGS.values()}) == len(SETTINGS)


@pytest.mark.parametrize("key", list(SETTINGS))
def test_every_default_is_a_value_that_would_be_accepted(key: str) -> None:
    setting = SETTINGS[key]
    if setting.default is None:
        assert setting.optional
        assert setting.about.absent or key.startswith("policy.")
    else:
        shown = setting.shown(setting.default)
        assert setting.from_toml(shown) == setting.default
        text = (
            ",".join(shown) if isinstance(shown, list) else json.dumps(shown) if shown in (True, False) else str(shown)
        )
        assert setting.from_text(text) == setting.default


@given(st.data())
def test_numbers_are_read_alike_from_the_file_and_from_text(data: st.DataObject) -> None:
    setting = data.draw(st.sampled_from([each for each in SETTINGS.values() if each.base in {int, float}]))
    about = setting.about
    most = min(about.most, 10**15)
    strategy = st.integers(math.ceil(about.least), int(most)) if setting.base is int else st.floats(about.least, most)
    number = data.draw(strategy)
    assert setting.from_toml(number) == setting.from_text(repr(number)) == number


def test_every_number_of_the_liveness_policy_is_a_setting() -> None:
    assert {key.partition(".")[2] for key in SETTINGS if key.startswith("policy.")} == {"preset", *POLICY_NUMBERS}
    assert {each.name for each in dataclasses.fields(LivenessPolicy)} == {"preset", *POLICY_NUMBERS}


def test_the_log_settings_are_those_that_the_log_knows() -> None:
    assert {str(form) for form in LogFormat} == set(LINES)
    assert {str(level).upper() for level in LogLevel} == {level.name for level in Level}


# --- the page ------------------------------------------------------------------------------------------------------


def test_the_page_documents_every_setting_as_declared() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page.endswith(f" -->\n\n{reference()}"), (
        "docs/configuration.md is out of date: replace its end by the output of"
        " python -c \"from proxy.settings import reference; print(reference(), end='')\""
    )
    assert re.findall(r"^### `(.*)`$", page, re.MULTILINE) == list(SETTINGS)


def test_the_example_of_the_page_can_be_loaded(tmp_path: Path) -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    config = load(written(tmp_path, example), {})
    assert config.warnings == ()
    assert config.liveness_policy().settle_hold == tomllib.loads(example)["policy"]["settle_hold"]
    assert list(config.workspaces) == ["writer"]
