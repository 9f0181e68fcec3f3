"""The command line: `holdfast serve`, `healthcheck`, `demo`.

Owns: options, exit codes, what a person reads in the terminal.
Knows nothing of: how anything is done; administrative commands talk to the HTTP API.

Exit codes: 0 done, 1 it went wrong (the sentence on standard error says what), 2 wrong usage or configuration, 3 the
demo's stage never came up.
"""

import asyncio
import os
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import click

from proxy import __version__
from proxy.app import App
from proxy.clock import SystemClock
from proxy.config import Config, ConfigError, load
from proxy.core.errors import CallerError
from proxy.store import StoreFailure
from proxy.store.vault import VaultFailure
from proxy.telemetry import Level, LogSink, Telemetry
from proxy.web import bodies

EXIT_FAILED = 1
EXIT_USAGE = 2
HEALTH_TIMEOUT = 3.0
OK = 200


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="holdfast")
def main() -> None:
    """Holdfast: an A2A reverse proxy with liveness gating.

    A request that it accepted is never lost; a workspace that is merely busy or booting is never killed.
    """


@main.command()
@click.option("--config", "config_file", type=click.Path(dir_okay=False, path_type=Path), help="TOML file.")
@click.option("--host", help="Address to listen on.  [default: 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on; 0: any free one.  [default: 8080]")
@click.option("--data", type=click.Path(dir_okay=False, path_type=Path), help="Database.  [default: holdfast.db]")
@click.option("--dev", is_flag=True, default=None, help="No caller authentication; loopback only.")
def serve(config_file: Path | None, host: str | None, port: int | None, data: Path | None, dev: bool | None) -> None:
    """Serve until SIGTERM or Ctrl-C.

    \b
    Examples:
      holdfast serve
      holdfast serve --config holdfast.toml --port 0
      HOLDFAST_UPSTREAM_ALLOW=127.0.0.0/8 holdfast serve --data /var/lib/holdfast/holdfast.db
    """  # noqa: D301 - \b is click's mark for text that keeps its lines
    said = {"host": host, "port": port, "data": data, "dev": dev}
    config = _load(config_file, {name: value for name, value in said.items() if value is not None})
    sys.exit(run(_serve(config)))


def _load(config_file: Path | None, overrides: dict[str, Any]) -> Config:
    try:
        return load(config_file, os.environ, overrides, check_workspace=check_workspace)
    except ConfigError as problem:
        click.echo("holdfast: the configuration cannot be used:", err=True)
        for line in problem.problems:
            click.echo(f"  - {line}", err=True)
        sys.exit(EXIT_USAGE)


def check_workspace(_name: str, table: Any) -> list[str]:
    """What is wrong with the form of a `[workspaces.NAME]` table."""
    try:
        bodies.take(dict(table), bodies.WorkspaceBody)
    except CallerError as problem:
        return [problem.message]
    return []


def run(work: Coroutine[Any, Any, int]) -> int:
    """Run on uvloop where it exists."""
    try:
        import uvloop  # noqa: PLC0415 - not on every platform
    except ImportError:
        return asyncio.run(work)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


async def _serve(config: Config) -> int:
    clock = SystemClock()
    sink = LogSink(sys.stderr, form=config.log.format.value, least=Level[config.log.level.name])
    app = App(config, telemetry=Telemetry(clock, [sink]))
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    try:
        serving = await app.start()
    except StoreFailure as problem:
        click.echo(f"holdfast: the database {config.data} cannot be used: {problem}", err=True)
        return EXIT_FAILED
    except VaultFailure as problem:
        click.echo(f"holdfast: {problem}", err=True)
        return EXIT_FAILED
    except OSError as problem:
        click.echo(f"holdfast: cannot listen on {config.host}:{config.port}: {problem.strerror or problem}", err=True)
        return EXIT_FAILED
    click.echo(f"holdfast: serving on {serving.url}")
    if serving.new_admin_token is not None:
        click.echo(f"holdfast: admin token, shown this once: {serving.new_admin_token}")
    sys.stdout.flush()
    await stopping.wait()
    await app.stop()
    return 0


@main.command()
@click.option("--url", default=None, help="Base URL.  [default: http://127.0.0.1:$HOLDFAST_PORT]")
def healthcheck(url: str | None) -> None:
    """Exit 0 if a Holdfast serves there; for containers."""
    base = url or f"http://127.0.0.1:{os.environ.get('HOLDFAST_PORT', '8080')}"
    try:
        with urllib.request.urlopen(f"{base.rstrip('/')}/healthz", timeout=HEALTH_TIMEOUT) as answer:  # noqa: S310 - the operator names the URL
            healthy = answer.status == OK
    except (urllib.error.URLError, OSError, ValueError) as problem:
        click.echo(f"holdfast: not healthy: {getattr(problem, 'reason', problem)}", err=True)
        sys.exit(EXIT_FAILED)
    if not healthy:
        click.echo("holdfast: not healthy", err=True)
        sys.exit(EXIT_FAILED)
    click.echo("healthy")


@main.command()
@click.option("--quick", is_flag=True, help="Scaled timings: the same story in about half a minute.")
def demo(quick: bool) -> None:
    """Show on real processes what Holdfast promises: kills, a config write, both dead actions, a restart."""
    try:
        from proxy.demo import story  # noqa: PLC0415 - needs the extra
    except ImportError as problem:
        click.echo(
            f"holdfast: the demo needs the extra: pip install 'holdfast[demo]' ({problem.name} is missing)", err=True
        )
        sys.exit(EXIT_USAGE)
    sys.exit(run(story.play(quick=quick)))


if __name__ == "__main__":
    main()
