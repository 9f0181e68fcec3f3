"""`holdfast config`: everything that is wrong at once, what holds and why, and no secret on any screen."""

from pathlib import Path

import pytest
from cli.commandline import run

SECRET = "hf_" + "q" * 43
FILE = """
port = 9090
admin_token = "hf_qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq"

[queue]
rows = 50

[workspaces.agent]
url = "http://127.0.0.1:9000"
runtime = { type = "process", command = ["python", "agent.py"], env = { KEY = "very-secret" } }
"""


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "holdfast.toml"
    path.write_text(FILE, encoding="utf-8")
    path.chmod(0o600)
    return str(path)


def test_a_configuration_that_is_fine_says_where_it_comes_from(file: str) -> None:
    done = run("config", "check", "--config", file, HOLDFAST_LOG_LEVEL="debug")
    assert (done.code, done.err) == (0, "")
    assert done.lines == [
        f"the configuration is fine: 3 settings from {file}, 1 setting from the environment, 1 workspace"
    ]


def test_the_file_may_be_named_by_a_variable(file: str) -> None:
    assert f"3 settings from {file}" in run("config", "check", HOLDFAST_CONFIG=file).out


def test_everything_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text("prot = 1\n[queue]\nrows = -1\n[workspaces.a]\nurll = 'x'\n", encoding="utf-8")
    done = run("config", "check", "--config", str(path), HOLDFAST_PORT="many")
    assert (done.code, done.out) == (1, "")
    told = done.err.splitlines()
    assert told[0] == "holdfast: the configuration cannot be used:"
    for expected in ("did you mean port", "queue.rows", "urll", "HOLDFAST_PORT"):
        assert any(expected in line for line in told[1:]), expected
    found = run("config", "check", "--config", str(path), "--json", HOLDFAST_PORT="many")
    assert (found.code, found.json["ok"], len(found.json["problems"])) == (1, False, 4)


def test_what_works_but_hardly_as_meant_is_told_and_is_no_failure(tmp_path: Path) -> None:
    done = run("config", "check", HOLDFAST_UPSTREAM_ALLOW="0.0.0.0/0")
    assert done.code == 0
    assert "  warning: HOLDFAST_UPSTREAM_ALLOW: 0.0.0.0/0 lets whoever registers" in done.out
    assert len(run("config", "check", "--json", HOLDFAST_UPSTREAM_ALLOW="0.0.0.0/0").json["warnings"]) == 1


def test_what_holds_is_shown_with_its_source_and_without_secrets(file: str) -> None:
    done = run("config", "show", "--config", file, HOLDFAST_LOG_LEVEL="debug")
    rows = {line.split()[0]: line.split()[1:] for line in done.lines}
    assert rows["port"] == ["9090", file]
    assert rows["log.level"] == ["debug", "HOLDFAST_LOG_LEVEL"]
    assert rows["queue.bytes"][-1] == "default"
    assert rows["admin_token"][0] == "***"
    for form in (done.out, run("config", "show", "--config", file, "--json").out):
        assert "very-secret" not in form
        assert SECRET not in form
        assert "qqq" not in form


def test_what_has_its_default_may_be_left_out(file: str) -> None:
    done = run("config", "show", "--config", file, "--changed")
    assert [line.split()[0] for line in done.lines] == [
        "SETTING",
        "port",
        "admin_token",
        "queue.rows",
        "workspaces.agent",
    ]
    assert run("config", "show", "--changed").lines == ["every setting has its default"]


def test_the_configuration_as_json_is_nested_like_the_file(file: str) -> None:
    found = run("config", "show", "--config", file, "--json").json
    assert (found["config"]["queue"]["rows"], found["sources"]["queue.rows"]) == (50, file)


def test_what_cannot_be_used_is_not_shown(tmp_path: Path) -> None:
    done = run("config", "show", "--config", str(tmp_path / "nowhere.toml"))
    assert (done.code, done.out) == (1, "")
    assert "cannot be read" in done.err
    assert run("config", "show", "--json", HOLDFAST_PORT="x").json["ok"] is False
