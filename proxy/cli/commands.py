"""The group of all commands: which there are, in which module each lies, and how a run ends.

Owns: the list of commands, and that a person never sees a traceback.
Knows nothing of: what a command does.

A command's module is imported when the command is asked for: `serve` and what it brings takes half a second, for which
`holdfast status` should not wait.
"""

import importlib
import os
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any, Final

import click

from proxy import __version__
from proxy.cli.examples import examples
from proxy.cli.exit_codes import Exit

COMMANDS: Final[Mapping[str, str]] = {
    "serve": "serve",
    "healthcheck": "serve",
    "demo": "demo",
    "config": "configuration",
    "status": "status",
    "workspaces": "workspaces",
    "restart": "restart",
    "queue": "queue",
    "decisions": "decisions",
    "restarts": "decisions",
    "explain": "explain",
    "events": "events",
    "token": "token",
}
"""Each command, and the module of this package that defines a `click.Command` of that name."""


class Commands(click.Group):
    """A group whose commands are found when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the names in the order of the table."""
        return [name for name, module in COMMANDS.items() if find_spec(f"proxy.cli.{module}") is not None]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        if cmd_name not in self.list_commands(ctx):
            return None
        found = getattr(importlib.import_module(f"proxy.cli.{COMMANDS[cmd_name]}"), cmd_name)
        assert isinstance(found, click.Command)  # noqa: S101 - a wrong table is a programmer's mistake
        return found

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; Ctrl-C and a reader that leaves are ways to end it, not failures to be told."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()  # here, where a reader that left is still ours to notice
        except (click.Abort, KeyboardInterrupt, EOFError):
            raise click.exceptions.Exit(Exit.INTERRUPTED) from None
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains once more at its end
            raise click.exceptions.Exit(Exit.NOBODY_READS) from None
        return result


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=examples("holdfast serve", "holdfast status", "holdfast queue list --status dead_lettered"),
)
@click.version_option(__version__, prog_name="holdfast")
def main() -> None:
    """Holdfast: an A2A reverse proxy with liveness gating.

    A request that it accepted is never lost; a workspace that is merely busy or booting is never killed.
    """
