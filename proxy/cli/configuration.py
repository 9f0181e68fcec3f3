"""`holdfast config`: what a configuration would be, and what is wrong with it, without a server.

Owns: these commands, and how a configuration that cannot be used is told.
Knows nothing of: what settings there are (`proxy.settings`) and where they come from (`proxy.config`).
"""

import json
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import click

from proxy.cli import words
from proxy.cli.examples import examples
from proxy.cli.exit_codes import Exit
from proxy.cli.tables import DIM, Cell, Column, Screen, text
from proxy.config import Config, ConfigError, load
from proxy.core.errors import CallerError
from proxy.settings import SETTINGS
from proxy.web import bodies

CONFIG_FILE: Final = click.option(
    "--config",
    "config_file",
    envvar="HOLDFAST_CONFIG",
    type=click.Path(dir_okay=False, path_type=Path),
    help="TOML file.  [env: HOLDFAST_CONFIG]",
)
AS_JSON: Final = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
COLUMNS: Final = (Column("SETTING"), Column("VALUE", least=12), Column("FROM", least=8))


def load_configuration(path: Path | None, given: Mapping[str, Any]) -> Config:
    """Return the configuration of file, environment and options; ConfigError holds all that is wrong with it."""
    return load(path, os.environ, given, check_workspace=check_workspace)


def check_workspace(_name: str, table: Any) -> list[str]:
    """What is wrong with the form of a `[workspaces.NAME]` table."""
    try:
        bodies.take(dict(table), bodies.WorkspaceBody)
    except CallerError as problem:
        return [problem.message]
    return []


def tell_problems(problem: ConfigError) -> None:
    """Tell on standard error why a configuration cannot be used."""
    click.echo("holdfast: the configuration cannot be used:", err=True)
    for line in problem.problems:
        click.echo(f"  - {line}", err=True)


@click.group(
    short_help="Check and show a configuration.",
    epilog=examples("holdfast config check --config holdfast.toml", "holdfast config show --changed"),
)
def config() -> None:
    """Look at a configuration before it is served: file and environment, as `serve` would read them."""


@config.command(
    epilog=examples(
        "holdfast config check --config holdfast.toml",
        "holdfast config check --config holdfast.toml --json | jq -r '.problems[]'",
    )
)
@CONFIG_FILE
@AS_JSON
def check(config_file: Path | None, as_json: bool) -> None:
    """Tell everything that is wrong with a configuration, at once; exit 1 if it cannot be used."""
    screen = Screen.here(as_json=as_json)
    found, problems = _loaded(config_file)
    warnings = list(found.warnings) if found else []
    if as_json:
        screen.write([json.dumps({"ok": not problems, "problems": problems, "warnings": warnings})])
    elif found:
        screen.write(_verdict(screen, found, config_file))
    sys.exit(Exit.FAILED if problems else Exit.OK)


def _loaded(path: Path | None) -> tuple[Config | None, list[str]]:
    """Return the configuration, or what is wrong with it, which people are told already."""
    try:
        return load_configuration(path, {}), []
    except ConfigError as problem:
        tell_problems(problem)
        return None, problem.problems


def _verdict(screen: Screen, found: Config, path: Path | None) -> Iterator[str]:
    from_file = sum(source == str(path) for source in found.sources.values())
    parts = [f"{words.count(from_file, 'setting')} from {path}"] if path else []
    parts.append(f"{words.count(len(found.sources) - from_file, 'setting')} from the environment")
    if found.workspaces:
        parts.append(words.count(len(found.workspaces), "workspace"))
    yield f"the configuration {screen.paint('is fine', 'green')}: {', '.join(parts)}"
    for warning in found.warnings:
        yield f"  {screen.paint('warning', 'yellow')}: {words.clean(warning)}"


@config.command(
    epilog=examples(
        "holdfast config show",
        "holdfast config show --config holdfast.toml --changed",
        "holdfast config show --json | jq .config.queue",
    )
)
@CONFIG_FILE
@click.option("--changed", is_flag=True, help="Leave out what has its default.")
@AS_JSON
def show(config_file: Path | None, changed: bool, as_json: bool) -> None:
    """Show the configuration that would hold, each setting with its source. Secrets are masked."""
    screen = Screen.here(as_json=as_json)
    found, problems = _loaded(config_file)
    if found is None:
        if as_json:
            screen.write([json.dumps({"ok": False, "problems": problems, "warnings": []})])
        sys.exit(Exit.FAILED)
    public = found.public()
    shown = {"config": public, "sources": dict(found.sources), "warnings": list(found.warnings)}
    screen.show_made(shown, lambda _: _settings(screen, found, public["workspaces"], changed=changed))


def _settings(screen: Screen, found: Config, workspaces: Mapping[str, Any], *, changed: bool) -> Iterator[str]:
    rows = []
    for key, setting in SETTINGS.items():
        source = found.sources.get(key)
        if source is not None:
            rows.append([Cell(key), _value(setting.shown(found.value(key))), text(source)])
        elif not changed:
            rows.append([Cell(key), Cell(_value(setting.shown(found.value(key))).text, DIM), Cell("default", DIM)])
    rows += [[Cell(f"workspaces.{name}"), _value(table), Cell("file")] for name, table in workspaces.items()]
    yield from screen.table(COLUMNS, rows) if rows else ["every setting has its default"]
    for warning in found.warnings:
        yield f"{screen.paint('warning', 'yellow')}: {words.clean(warning)}"


def _value(value: object) -> Cell:
    return text(value if isinstance(value, str) else None if value is None else json.dumps(value, default=str))
