"""`holdfast demo`: the promises, shown on real processes.

Owns: the command. Knows nothing of: the story (`proxy.demo`).
"""

import sys

import click

from proxy.cli.examples import examples
from proxy.cli.exit_codes import Exit
from proxy.cli.serve import run


@click.command(
    short_help="Show the promises on real processes.", epilog=examples("holdfast demo --quick", "holdfast demo")
)
@click.option("--quick", is_flag=True, help="Scaled timings: the same story in about half a minute.")
def demo(quick: bool) -> None:
    """Show on real processes what Holdfast promises: kills, a config write, both dead actions, a restart."""
    try:
        from proxy.demo import story  # noqa: PLC0415 - needs the extra
    except ImportError as problem:
        click.echo(
            f"holdfast: the demo needs the extra: pip install 'holdfast[demo]' ({problem.name} is missing)", err=True
        )
        sys.exit(Exit.USAGE)
    sys.exit(run(story.play(quick=quick)))
