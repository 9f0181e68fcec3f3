"""`holdfast serve` and `holdfast healthcheck`: the process that serves, and the question whether it does.

Owns: their options, first lines and sentences.
Knows nothing of: how anything is served.
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

from proxy.app import App
from proxy.cli import collecting
from proxy.cli.configuration import CONFIG_FILE, load_configuration, tell_problems
from proxy.cli.examples import examples
from proxy.cli.exit_codes import Exit
from proxy.clock import SystemClock
from proxy.config import Config, ConfigError
from proxy.store import StoreFailure
from proxy.store.vault import VaultFailure
from proxy.telemetry import Level, LibraryLog, LogSink, Telemetry

HEALTH_TIMEOUT = 3.0
OK = 200


@click.command(
    epilog=examples(
        "holdfast serve",
        "holdfast serve --config holdfast.toml --port 0",
        "HOLDFAST_UPSTREAM_ALLOW=127.0.0.0/8 holdfast serve --data /var/lib/holdfast/holdfast.db",
    )
)
@CONFIG_FILE
@click.option("--host", help="Address to listen on.  [default: 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on; 0: any free one.  [default: 8080]")
@click.option("--data", type=click.Path(dir_okay=False, path_type=Path), help="Database.  [default: holdfast.db]")
@click.option("--dev", is_flag=True, default=None, help="No caller authentication; loopback only.")
def serve(config_file: Path | None, host: str | None, port: int | None, data: Path | None, dev: bool | None) -> None:
    """Serve until SIGTERM or Ctrl-C.

    Settings come from the file, then from the environment (HOLDFAST_...), then from these options; later ones win.
    """
    said = {"host": host, "port": port, "data": data, "dev": dev}
    try:
        config = load_configuration(config_file, {name: value for name, value in said.items() if value is not None})
    except ConfigError as problem:
        tell_problems(problem)
        sys.exit(Exit.USAGE)
    sys.exit(run(_serve(config)))


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
    telemetry = Telemetry(clock, [sink])
    LibraryLog(telemetry).install()
    app = App(config, telemetry=telemetry)
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    try:
        serving = await app.start()
    except StoreFailure as problem:
        click.echo(f"holdfast: the database {config.data} cannot be used: {problem}", err=True)
        return Exit.FAILED
    except VaultFailure as problem:
        click.echo(f"holdfast: {problem}", err=True)
        return Exit.FAILED
    except OSError as problem:
        click.echo(f"holdfast: cannot listen on {config.host}:{config.port}: {problem.strerror or problem}", err=True)
        return Exit.FAILED
    collecting.settle()
    click.echo(f"holdfast: serving on {serving.url}")
    if serving.new_admin_token is not None:
        click.echo(f"holdfast: admin token, shown this once: {serving.new_admin_token}")
    sys.stdout.flush()
    await stopping.wait()
    await app.stop()
    for number in (signal.SIGTERM, signal.SIGINT):
        # It has stopped: who asks again while the interpreter winds up must not make a failure of it.
        loop.remove_signal_handler(number)
        signal.signal(number, signal.SIG_IGN)
    return Exit.OK


@click.command(epilog=examples("holdfast healthcheck", "holdfast healthcheck --url http://127.0.0.1:9090"))
@click.option("--url", default=None, help="Base URL.  [default: http://127.0.0.1:$HOLDFAST_PORT]")
def healthcheck(url: str | None) -> None:
    """Exit 0 if a Holdfast serves there; for containers."""
    base = url or f"http://127.0.0.1:{os.environ.get('HOLDFAST_PORT', '8080')}"
    try:
        with urllib.request.urlopen(f"{base.rstrip('/')}/healthz", timeout=HEALTH_TIMEOUT) as answer:  # noqa: S310 - the operator names the URL
            healthy = answer.status == OK
    except (urllib.error.URLError, OSError, ValueError) as problem:
        click.echo(f"holdfast: not healthy: {getattr(problem, 'reason', problem)}", err=True)
        sys.exit(Exit.FAILED)
    if not healthy:
        click.echo("holdfast: not healthy", err=True)
        sys.exit(Exit.FAILED)
    click.echo("healthy")
