"""How a command gets its proxy and its screen: the options that all commands share.

Owns: `--url`, `--token`, `--timeout`, `--json`, the variables behind them, and running a command's coroutine.
Knows nothing of: HTTP (`client`) and drawing (`tables`).

A command is a coroutine function that takes the proxy, the screen, and its own parameters::

    @click.command(epilog=examples("holdfast decisions agent"))
    @click.argument("workspace", type=ID)
    @asks_the_proxy
    async def decisions(proxy: Proxy, screen: Screen, workspace: str) -> None:
        screen.show(await proxy.get(at("workspaces", workspace, "decisions")), draw)
"""

import asyncio
import functools
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import Any, Final

import click

from proxy.cli.client import Failure, Place, connected
from proxy.cli.tables import Screen
from proxy.core.ids import check_id
from proxy.core.tokens import check_token
from proxy.setting_kinds import is_base_url

DEFAULT_URL: Final = "http://127.0.0.1:8080"
TOKEN_VARIABLES: Final = ("HOLDFAST_TOKEN", "HOLDFAST_ADMIN_TOKEN")

Command = Callable[..., Coroutine[Any, Any, None]]


class Identifier(click.ParamType[str]):
    """The id of a workspace, a deferral, a token."""

    name = "id"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return an id that can stand in a path; a usage error for anything else."""
        problem = check_id(str(value))
        if problem is not None:
            self.fail(problem, param, ctx)
        return str(value)


ID: Final = Identifier()
LIMIT: Final = click.option(
    "--limit", type=click.IntRange(1, 1000), default=100, show_default=True, help="List at most so many."
)


class Listing(click.Group):
    """A group that lists where no other of its commands is named: ``holdfast queue`` is ``holdfast queue list``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put ``list`` in front of what names no command."""
        if not args or (args[0].startswith("-") and args[0] not in ctx.help_option_names):
            args = ["list", *args]
        return super().parse_args(ctx, args)


def asks_the_proxy(work: Command) -> Callable[..., None]:
    """Make a coroutine function that takes a proxy and a screen into a command's function (see the module)."""

    @functools.wraps(work)
    def command(url: str, token: str | None, timeout: float, as_json: bool, **said: Any) -> None:
        place = _place(url, token, timeout)
        asyncio.run(_ask(work, place, Screen.here(as_json=as_json), said))

    for option in reversed(_OPTIONS):
        option(command)
    return command


_OPTIONS: Final = (
    click.option("--json", "as_json", is_flag=True, help="Print the API's own JSON."),
    click.option("--url", envvar="HOLDFAST_URL", default=DEFAULT_URL, show_default=True, help="The proxy's base URL."),
    click.option("--token", help="Token; better in HOLDFAST_TOKEN (or HOLDFAST_ADMIN_TOKEN) than in a process list."),
    click.option(
        "--timeout",
        type=click.FloatRange(min=0, min_open=True, max=3600),
        default=30.0,
        show_default=True,
        metavar="SECONDS",
        help="How long an answer may take.",
    ),
)


async def _ask(work: Command, place: Place, screen: Screen, said: dict[str, Any]) -> None:
    try:
        async with connected(place) as proxy:
            await work(proxy, screen, **said)
    except Failure as failure:
        if screen.as_json and failure.text:
            screen.write([failure.text])
        raise
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as problem:
        if sys.flags.dev_mode:  # `python -X dev -m proxy ...` shows where
            raise
        what = f"{type(problem).__name__}: {problem}"
        raise Failure(
            f"the answer is not understood ({what}): is there a Holdfast of this version at {place.url}? --json prints"
            " it as it came"
        ) from problem


def _place(url: str, token: str | None, timeout: float) -> Place:
    problem = is_base_url(url)
    if problem is not None:
        raise click.BadParameter(f"must be {problem}", param_hint="--url (HOLDFAST_URL)")
    source = "--token"
    if token is None:
        source = next((name for name in TOKEN_VARIABLES if os.environ.get(name)), "")
        token = os.environ.get(source) if source else None
    if token is not None and check_token(token.strip()) is not None:
        raise click.BadParameter("is not of the form of a Holdfast token, hf_...", param_hint=source)
    return Place(url=url.rstrip("/"), token=token.strip() if token else None, token_from=source, timeout=timeout)


def confirmed(question: str, *, yes: bool) -> None:
    """Ask a person before something is done that cannot be undone; click.Abort on anything but yes.

    Nobody is asked with `--yes`, nor where nobody sits: a script that calls a destructive command means it.
    """
    if yes or not (sys.stdin.isatty() and sys.stdout.isatty()):
        return
    # The event loop's own answer to Ctrl-C is to cancel what waits for it, and a question waits for a key.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        click.confirm(question, abort=True)
    finally:
        signal.signal(signal.SIGINT, before)
