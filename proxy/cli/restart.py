"""`holdfast restart`: restart a workspace, and wait until it is ready again.

Owns: the command and when its waiting ends. Knows nothing of: how a restart runs.
"""

import asyncio
from typing import Any, Final

import click

from proxy.cli import words
from proxy.cli.asking import ID, asks_the_proxy
from proxy.cli.client import Answer, Failure, Proxy, at
from proxy.cli.examples import examples
from proxy.cli.exit_codes import Exit
from proxy.cli.tables import Screen, coloured

LOOK_AGAIN: Final = 0.5
"""Seconds between two looks at a workspace that is waited for."""
UNDER_WAY: Final = frozenset({"running", "superseded"})
"""A cycle that another one took the place of is followed by that one."""


@click.command(
    short_help="Restart a workspace now.",
    epilog=examples(
        "holdfast restart agent-7",
        "holdfast restart agent-7 --reason 'new model' --wait",
        "holdfast restart agent-7 --wait --patience 120 && echo ready",
    ),
)
@click.argument("workspace", type=ID)
@click.option("--reason", default="", help="Stands in the decision log.")
@click.option("--wait", is_flag=True, help="Wait until the workspace is ready, or the restart has failed.")
@click.option(
    "--patience",
    type=click.FloatRange(min=0, min_open=True),
    default=600.0,
    show_default=True,
    metavar="SECONDS",
    help="How long --wait waits.",
)
@asks_the_proxy
async def restart(proxy: Proxy, screen: Screen, workspace: str, *, reason: str, wait: bool, patience: float) -> None:
    """Restart a workspace now; no brake holds an admin's restart.

    With --wait, --json prints the workspace as it is then; without, the answer to the request.
    """
    asked = await proxy.post(at("workspaces", workspace, "restart"), {"reason": reason} if reason else {})
    word = asked.data["restart"]
    if word == "unmanaged":
        raise Failure(f"{workspace} has no runtime: nothing here can restart it", text=asked.text)
    if not wait:
        screen.show(asked, lambda _: [f"{workspace}: restart {screen.drawn(coloured(word))}"])
        return
    began = asyncio.get_running_loop().time()
    ended = await _ended(proxy, workspace, asked.data["generation"], patience)
    took = words.span(asyncio.get_running_loop().time() - began)
    last = ended.data["restart"]
    if last["state"] != "finished":
        why = words.clean(last["error"] or "no reason was noted")
        raise Failure(f"{workspace} did not come back: {why}", text=ended.text)
    now = screen.drawn(coloured(ended.data["status"]))
    screen.show(ended, lambda view: [f"{workspace} is {now} after {took}, incarnation {view['incarnation']}"])


async def _ended(proxy: Proxy, workspace: str, generation: int, patience: float) -> Answer:
    """Return the workspace once the restart of that generation, or one that came after it, has ended."""
    try:
        async with asyncio.timeout(patience):
            while True:
                looked = await proxy.get(at("workspaces", workspace))
                if has_ended(looked.data, generation):
                    return looked
                await asyncio.sleep(LOOK_AGAIN)
    except TimeoutError:
        raise Failure(f"{workspace} is not ready after {patience:g} s; the restart goes on", Exit.FAILED) from None


def has_ended(view: dict[str, Any], generation: int) -> bool:
    """Whether a workspace shows the end of a restart of at least that generation: one that follows has a higher one."""
    return bool(view["generation"] >= generation and view["restart"]["state"] not in UNDER_WAY)
