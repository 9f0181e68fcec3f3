"""`holdfast queue`: look at deferrals, deliver them again, cancel and drop them.

Owns: these commands, and how a deferral looks.
Knows nothing of: what becomes of a deferral.
"""

import base64
import binascii
import sys
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final

import click

from proxy.cli import words
from proxy.cli.asking import ID, LIMIT, Listing, asks_the_proxy, confirmed
from proxy.cli.client import Answer, Failure, Proxy, at
from proxy.cli.examples import examples
from proxy.cli.exit_codes import Exit
from proxy.cli.tables import DIM, Cell, Column, Screen, coloured, text

STATES: Final = ("queued", "leased", "completed", "dead_lettered", "expired", "cancelled", "dropped")
COLUMNS: Final = (
    Column("RECEIPT"),
    Column("WORKSPACE"),
    Column("STATUS"),
    Column("TRIES", right=True),
    Column("AGE"),
    Column("LAST ERROR", least=16, spare=True),
)
MOST_SHOWN: Final = 2_000
"""Characters of an agent's answer that a person is shown."""


@click.group(
    cls=Listing,
    short_help="List, redrive, cancel, drop deferrals.",
    epilog=examples(
        "holdfast queue",
        "holdfast queue list --workspace agent-7 --status dead_lettered",
        "holdfast queue redrive 3f9c2a51d0c94f6b8f7a1e2d3c4b5a69",
    ),
)
def queue() -> None:
    """Look at deferred requests, deliver them again, cancel and drop them; alone: list them."""


@queue.command(
    "list",
    epilog=examples(
        "holdfast queue list --workspace agent-7",
        "holdfast queue list --status queued --status leased --limit 500",
        "holdfast queue list --status dead_lettered --json | jq -r '.items[].queue_id'",
    ),
)
@click.option("--workspace", type=ID, help="Only those of this workspace.")
@click.option("--status", "states", type=click.Choice(STATES), multiple=True, help="Only these; may be repeated.")
@LIMIT
@asks_the_proxy
async def list_(proxy: Proxy, screen: Screen, workspace: str | None, states: tuple[str, ...], limit: int) -> None:
    """List deferrals, the newest first."""
    answer = await proxy.get("/queue", workspace_id=workspace, status=",".join(states) or None, limit=limit)
    screen.show(answer, lambda data: listed(screen, data["items"], limit))


def listed(screen: Screen, items: list[dict[str, Any]], limit: int) -> Iterator[str]:
    """Draw deferrals as a table."""
    if not items:
        yield "nothing is in the queue"
        return
    yield from screen.table(COLUMNS, [_row(screen, item) for item in items])
    if len(items) == limit and screen.width is not None:
        yield screen.paint(f"the newest {limit}; there may be more (--limit)", DIM)


def _row(screen: Screen, item: dict[str, Any]) -> list[Cell]:
    return [
        text(item["queue_id"]),
        text(item["workspace_id"]),
        coloured(item["status"]),
        text(item["attempts"]),
        screen.when(item["enqueued_at"]),
        text(item["last_error"]),
    ]


@queue.command(
    epilog=examples(
        "holdfast queue show 3f9c2a51d0c94f6b8f7a1e2d3c4b5a69",
        "holdfast queue show 3f9c2a51d0c94f6b8f7a1e2d3c4b5a69 --json | jq -r .response.body_base64 | base64 -d",
    )
)
@click.argument("receipt", type=ID)
@asks_the_proxy
async def show(proxy: Proxy, screen: Screen, receipt: str) -> None:
    """Show one deferral, with the agent's answer once there is one."""
    screen.show(await proxy.get(at("queue", receipt)), lambda item: shown(screen, item))


def shown(screen: Screen, item: dict[str, Any]) -> Iterator[str]:
    """Draw one deferral."""
    yield screen.drawn([Cell(screen.heading(words.clean(item["queue_id"]))), coloured(item["status"])])
    facts = [
        ("workspace", text(item["workspace_id"])),
        ("task", text(item["task_id"])),
        ("priority", text(item["priority"])),
        ("counted tries", text(item["attempts"])),
        ("maybe sent before", text("yes" if item["redelivery"] == "maybe" else "no")),
        ("last error", text(item["last_error"])),
        ("accepted", screen.moment(item["enqueued_at"])),
        ("last tried", screen.moment(item["leased_at"])),
        ("ended", screen.moment(item["completed_at"])),
        ("expires", screen.moment(item["expires_at"])),
        *_answered(item["response"]),
    ]
    yield from screen.facts([(title, value) for title, value in facts if value != text(None)], indent="  ")


def _answered(response: dict[str, Any] | None) -> list[tuple[str, Cell]]:
    if response is None:
        return []
    try:
        body = base64.b64decode(response["body_base64"]).decode()
    except (binascii.Error, UnicodeDecodeError):
        body = f"{len(response['body_base64']) * 3 // 4} bytes that are no text"
    return [
        ("agent's answer", text(response["status"])),
        ("", text(words.cut(words.clean(body), MOST_SHOWN))),
    ]


@queue.command(epilog=examples("holdfast queue redrive 3f9c2a51d0c94f6b8f7a1e2d3c4b5a69"))
@click.argument("receipts", type=ID, nargs=-1, required=True, metavar="RECEIPT...")
@asks_the_proxy
async def redrive(proxy: Proxy, screen: Screen, receipts: tuple[str, ...]) -> None:
    """Deliver dead letters again, as if they had just been accepted.

    One that is refused does not keep the others; with --json one answer per line.
    """
    await _each(receipts, screen, lambda receipt: proxy.post(at("queue", receipt, "redrive")))


@queue.command(epilog=examples("holdfast queue cancel 3f9c2a51d0c94f6b8f7a1e2d3c4b5a69 --reason 'sent twice'"))
@click.argument("receipts", type=ID, nargs=-1, required=True, metavar="RECEIPT...")
@click.option("--reason", default="", help="What the caller's task says.")
@asks_the_proxy
async def cancel(proxy: Proxy, screen: Screen, receipts: tuple[str, ...], reason: str) -> None:
    """Cancel deferrals that wait; their callers' tasks are cancelled.

    One that is refused does not keep the others; with --json one answer per line.
    """
    body = {"reason": reason} if reason else {}
    await _each(receipts, screen, lambda receipt: proxy.post(at("queue", receipt, "cancel"), body))


async def _each(receipts: tuple[str, ...], screen: Screen, change: Callable[[str], Awaitable[Answer]]) -> None:
    """Change several deferrals. What the API refuses is told and does not keep the others; the first is the exit code.

    Raises:
        Failure: at once where asking on is in vain: no proxy, no permission.
    """
    code = Exit.OK
    for receipt in receipts:
        try:
            answer = await change(receipt)
        except Failure as failure:
            if failure.exit_code not in {Exit.FAILED, Exit.NOT_FOUND}:
                raise
            if screen.as_json and failure.text:
                screen.write([failure.text])
            click.echo(f"holdfast: {receipt}: {failure.message}", err=True)
            code = code or Exit(failure.exit_code)
        else:
            screen.show(answer, lambda item: [_became(screen, item)])
    if code:
        sys.exit(code)


def _became(screen: Screen, item: dict[str, Any]) -> str:
    return f"{words.clean(item['queue_id'])} is {screen.drawn(coloured(item['status']))}"


@queue.command(
    "drop-stale",
    epilog=examples(
        "holdfast queue drop-stale --workspace agent-7 --max-age-minutes 120",
        "holdfast queue drop-stale --yes --json",
    ),
)
@click.option("--workspace", type=ID, help="Only those of this workspace.")
@click.option(
    "--max-age-minutes", type=click.IntRange(min=1), default=60, show_default=True, help="What is older is dropped."
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@asks_the_proxy
async def drop_stale(proxy: Proxy, screen: Screen, workspace: str | None, max_age_minutes: int, yes: bool) -> None:
    """Drop deferrals that have waited for too long; their callers' tasks fail with that reason."""
    where = f"of workspace {workspace}" if workspace else f"of ALL workspaces at {proxy.url}"
    confirmed(f"Drop what has waited for more than {words.count(max_age_minutes, 'minute')} {where}?", yes=yes)
    answer = await proxy.post("/queue/drop-stale", max_age_minutes=max_age_minutes, workspace_id=workspace)
    screen.show(answer, lambda data: [f"{words.count(data['dropped'], 'deferral')} dropped"])
