"""The settings about callers: what they take, and what is said about those that do not fit together."""

from pathlib import Path

import pytest

from proxy.config import Config, ConfigError, load
from proxy.core.access import AccessRule


def env(**variables: str) -> Config:
    return load(None, {f"HOLDFAST_{name}": value for name, value in variables.items()})


def test_every_authenticated_caller_may_call_and_nothing_is_counted_unless_somebody_says_so() -> None:
    config = load(None, {})
    assert (config.access.rule, config.access.allow_from, config.access.depth) == (AccessRule.ANY, (), 32)
    assert (config.rate.requests_per_minute, config.rate.callers, config.rate.failures_per_minute) == (0, (), 0)


def test_a_list_is_an_array_in_the_file_and_commas_in_a_variable(tmp_path: Path) -> None:
    path = tmp_path / "holdfast.toml"
    path.write_text(
        '[access]\nrule = "list"\nallow_from = ["a", "client:b"]\n[rate]\ncallers = ["client:b=5/2"]\n',
        encoding="utf-8",
    )
    from_file = load(path, {})
    from_variables = env(ACCESS_RULE="list", ACCESS_ALLOW_FROM=" a, client:b,", RATE_CALLERS="client:b=5/2")
    assert from_file.access == from_variables.access
    assert from_file.access.allow_from == ("a", "client:b")
    assert from_file.rate.callers == from_variables.rate.callers == ("client:b=5/2",)
    assert env(ACCESS_ALLOW_FROM="").access.allow_from == ()
    assert from_file.public()["access"]["allow_from"] == ["a", "client:b"]


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("ACCESS_RULE", "tree", "'any' or 'hierarchy' or 'list'"),
        ("ACCESS_ALLOW_FROM", "a,b c", "'client:NAME'"),
        ("ACCESS_DEPTH", "0", "at least|between 1 and 1000"),
        ("RATE_REQUESTS_PER_MINUTE", "-1", "at least 0"),
        ("RATE_CALLERS", "client:b", "'client:NAME=600'"),
        ("RATE_REMEMBERED", "0", "at least 1"),
    ],
)
def test_a_wrong_value_is_refused_with_what_is_accepted(variable: str, value: str, said: str) -> None:
    with pytest.raises(ConfigError, match=f"HOLDFAST_{variable}: must be .*({said})"):
        env(**{variable: value})


@pytest.mark.parametrize("value", ['"a=5"', "5", "true", "[1]", '["a=5", 1]', "{ a = 1 }"])
def test_a_list_in_the_file_is_an_array_of_texts(value: str, tmp_path: Path) -> None:
    path = tmp_path / "holdfast.toml"
    path.write_text(f"[rate]\ncallers = {value}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"rate\.callers in .*: must be a list of texts"):
        load(path, {})


@pytest.mark.parametrize(
    ("variables", "warning"),
    [
        ({"ACCESS_ALLOW_FROM": "a"}, "nobody reads it"),
        ({"RATE_REQUESTS_PER_MINUTE": "10", "RATE_BURST": "10"}, "never met"),
        ({"RATE_BURST": "10"}, "nobody's requests are counted"),
        ({"ACCESS_ALLOW_FROM": "a", "ACCESS_RULE": "hierarchy"}, None),
        ({"RATE_REQUESTS_PER_MINUTE": "10", "RATE_BURST": "9"}, None),
        ({"RATE_CALLERS": "a=10", "RATE_BURST": "5"}, None),
    ],
)
def test_what_has_no_effect_is_a_warning(variables: dict[str, str], warning: str | None) -> None:
    warnings = env(**variables).warnings
    assert len(warnings) == (warning is not None)
    assert warning is None or warning in warnings[0]
