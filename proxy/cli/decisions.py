"""`holdfast decisions` and `holdfast restarts`: what was decided about a workspace, and what was restarted.

Owns: these commands, and how a decision and a restart look in a list. Knows nothing of: why it was so (`explain`).
"""

from typing import Any, Final

import click

from proxy.cli import words
from proxy.cli.asking import ID, LIMIT, asks_the_proxy
from proxy.cli.client import Proxy, at
from proxy.cli.examples import examples
from proxy.cli.tables import Cell, Column, Screen, coloured, text

COLUMNS: Final = (
    Column("AT"),
    Column("TRIGGER", spare=True),
    Column("VERDICT"),
    Column("RULE"),
    Column("ACTION", least=16),
    Column("LIFE", right=True, spare=True),
    Column("REQUEST", spare=True),
    Column("EVIDENCE", least=20, spare=True),
)
RESTARTS: Final = (
    Column("NO", right=True),
    Column("BEGAN"),
    Column("STATE"),
    Column("ASKED BY"),
    Column("READY IN", right=True),
    Column("REASON", least=12),
    Column("ERROR", least=12, spare=True),
)


@click.command(
    short_help="Show what was decided, and on what evidence.",
    epilog=examples(
        "holdfast decisions agent-7",
        "holdfast decisions agent-7 --limit 5 --json | jq '.decisions[0].evidence'",
        "holdfast decisions --receipt 3f9c2a51d0c94f6b8f7a1e2d3c4b5a69",
        "holdfast decisions agent-7 --generation 12",
    ),
)
@click.argument("workspace", type=ID, required=False)
@click.option("--request", type=ID, help="Only those about this request: its Holdfast-Request-Id.")
@click.option("--receipt", type=ID, help="Only those about this deferral.")
@click.option("--generation", type=click.IntRange(min=0), help="Only those from this restart to the next.")
@LIMIT
@asks_the_proxy
async def decisions(proxy: Proxy, screen: Screen, workspace: str | None, limit: int, **about: Any) -> None:
    """Show what was decided, by which rule and on what evidence; the newest first."""
    if workspace is None and not any(value is not None for value in about.values()):
        raise click.UsageError("about what? Name a WORKSPACE, a --request or a --receipt")
    wanted = {"request_id": about["request"], "receipt": about["receipt"], "generation": about["generation"]}
    if workspace is not None and all(value is None for value in wanted.values()):
        answer = await proxy.get(at("workspaces", workspace, "decisions"), limit=limit)
    else:
        answer = await proxy.get("/decisions", workspace_id=workspace, limit=limit, **wanted)

    def draw(data: dict[str, list[dict[str, Any]]]) -> list[str]:
        rows = [_row(screen, line) for line in data["decisions"]]
        return screen.table(COLUMNS, rows) if rows else ["nothing is known about that; old lines are forgotten"]

    screen.show(answer, draw)


def _row(screen: Screen, line: dict[str, Any]) -> list[Cell]:
    return [
        screen.when(line["at"]),
        text(line["trigger"]),
        coloured(line["verdict"]),
        text(line["rule"]),
        text(line["action"]),
        text(line["incarnation"]),
        text(line["request_id"]),
        text(words.facts(line["evidence"])),
    ]


@click.command(
    short_help="Show the restarts of a workspace.",
    epilog=examples("holdfast restarts agent-7", "holdfast restarts agent-7 --json | jq '.restarts[0].error'"),
)
@click.argument("workspace", type=ID)
@LIMIT
@asks_the_proxy
async def restarts(proxy: Proxy, screen: Screen, workspace: str, limit: int) -> None:
    """Show the restarts of a workspace: who asked for each, why, and how it ended; the newest first."""
    answer = await proxy.get(at("workspaces", workspace, "restarts"), limit=limit)

    def draw(data: dict[str, list[dict[str, Any]]]) -> list[str]:
        rows = [_restart(screen, cycle) for cycle in data["restarts"]]
        return screen.table(RESTARTS, rows) if rows else [f"{workspace} was not restarted yet"]

    screen.show(answer, draw)


def _restart(screen: Screen, cycle: dict[str, Any]) -> list[Cell]:
    ready_after = cycle["ready_after"]
    return [
        text(cycle["generation"]),
        screen.when(cycle["started_at"]),
        coloured(cycle["state"]),
        text(cycle["trigger"]),
        text(f"{ready_after:.1f} s" if ready_after is not None else None),
        text(cycle["reason"]),
        text(cycle["error"]),
    ]
