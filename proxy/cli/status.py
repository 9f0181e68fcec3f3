"""`holdfast status`: the whole proxy on one screen.

Owns: the command, what is gathered for it, and how it looks.
Knows nothing of: HTTP, and what the single answers mean beyond their words.
"""

import asyncio
import sys
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from contextlib import aclosing
from datetime import timedelta
from typing import Any, Final

import click

from proxy.cli import words
from proxy.cli.asking import asks_the_proxy
from proxy.cli.client import Failure, Proxy, at
from proxy.cli.events import line
from proxy.cli.examples import examples
from proxy.cli.exit_codes import Exit
from proxy.cli.streaming import Told, events, kept
from proxy.cli.tables import Cell, Screen, coloured, text
from proxy.cli.workspaces import state_of

NOT_READY: Final = 503
RECENT: Final = timedelta(hours=1)
MOST_LETTERS: Final = 1000
"""What one listing of the API holds at most."""
MOST_RESTARTS: Final = 100
MOST_EVENTS: Final = 5
SILENCE: Final = 0.3
"""Seconds without another loud event after which there is none."""


@click.command(
    short_help="Show the whole proxy on one screen.",
    epilog=examples("holdfast status", "holdfast status --json | jq .queue", "watch -c holdfast status"),
)
@asks_the_proxy
async def status(proxy: Proxy, screen: Screen) -> None:
    """Show on one screen how the proxy is: workspaces, queue, restarts of the last hour, loud events.

    Exits with 1 where the proxy answers but is not ready.
    """
    found = await _gathered(proxy, screen)
    screen.show_made(found, lambda _: _screenful(screen, found))
    if not found["ready"]["ok"]:
        sys.exit(Exit.FAILED)


async def _gathered(proxy: Proxy, screen: Screen) -> dict[str, Any]:
    ready = await _ready(proxy)
    views = (await proxy.get("/workspaces")).data["workspaces"]
    letters = (await proxy.get("/queue", status="dead_lettered", limit=MOST_LETTERS)).data["items"]
    return {
        "url": proxy.url,
        "ready": ready,
        "workspaces": {"total": len(views), "by_status": dict(Counter(state_of(view) for view in views))},
        "queue": {
            "waiting": sum(view["queue_depth"] for view in views),
            "dead_lettered": len(letters),
            "by_workspace": {view["id"]: view["queue_depth"] for view in views if view["queue_depth"]},
        },
        "open_calls": sum(view["in_flight"] for view in views),
        "restarts": [
            await _restarted(proxy, screen, view["id"])
            for view in views
            if _is_recent(view["restart"]["started_at"], screen)
        ],
        "events": [told.data for told in await _loud(proxy)],
    }


async def _ready(proxy: Proxy) -> dict[str, Any]:
    try:
        answer = await proxy.get("/readyz")
    except Failure as failure:
        if failure.status != NOT_READY:
            raise
        return {"ok": False, "error": failure.message}
    return {"ok": True, "store_seconds": answer.data.get("store_seconds")}


def _is_recent(began: Any, screen: Screen) -> bool:
    at_ = words.read_instant(began)
    return at_ is not None and screen.now - at_ < RECENT


async def _restarted(proxy: Proxy, screen: Screen, workspace: str) -> dict[str, Any]:
    """Count a workspace's restarts of the last hour, and show the last one."""
    try:
        found = (await proxy.get(at("workspaces", workspace, "restarts"), limit=MOST_RESTARTS)).data["restarts"]
    except Failure as failure:
        if failure.exit_code != Exit.NOT_FOUND:
            raise
        found = []  # it was removed a moment ago
    recent = [cycle for cycle in found if _is_recent(cycle["started_at"], screen)]
    last = {name: recent[0][name] for name in ("state", "started_at", "trigger", "error")} if recent else None
    return {"workspace": workspace, "count": len(recent), "last": last}


async def _loud(proxy: Proxy) -> list[Told]:
    """The last loud events of this life of the proxy; none where there is no stream, or this token may not read it."""
    found: deque[Told] = deque(maxlen=MOST_EVENTS)
    try:
        oldest, _ = await kept(proxy)
        async with aclosing(events(proxy, since=oldest, level="warning")) as stream:
            await anext(stream)  # its place, which comes as soon as the answer does
            while True:
                async with asyncio.timeout(SILENCE):
                    told = await anext(stream)
                if told.name:
                    found.append(told)
    except (Failure, TimeoutError, StopAsyncIteration):
        return list(found)


def _screenful(screen: Screen, found: Mapping[str, Any]) -> Iterator[str]:
    yield from screen.facts(
        [
            ("proxy", _proxy(found)),
            ("workspaces", _workspaces(found["workspaces"])),
            ("open calls", text(found["open_calls"])),
            ("queue", _queue(found["queue"])),
        ]
    )
    if found["queue"]["by_workspace"]:
        deepest = sorted(found["queue"]["by_workspace"].items(), key=lambda pair: (-pair[1], pair[0]))
        yield from screen.facts(((words.clean(name), text(f"{rows} waiting")) for name, rows in deepest[:5]), "    ")
    yield ""
    yield screen.heading("Restarts in the last hour")
    yield from (_told(screen, each) for each in found["restarts"])
    if not found["restarts"]:
        yield "  none"
    yield ""
    yield screen.heading("Loud events")
    yield from (f"  {line(screen, event)}" for event in found["events"])
    if not found["events"]:
        yield "  none"


def _proxy(found: Mapping[str, Any]) -> list[Cell]:
    ready = found["ready"]
    if not ready["ok"]:
        return [Cell("not ready:", "red"), text(ready["error"])]
    seconds = ready["store_seconds"]
    took = f" (the store commits in {seconds * 1000:.1f} ms)" if isinstance(seconds, float | int) else ""
    return [Cell("ready", "green"), text(f"at {found['url']}{took}")]


def _workspaces(found: Mapping[str, Any]) -> list[Cell]:
    counts = sorted(found["by_status"].items(), key=lambda pair: (-pair[1], pair[0]))
    parts = [cell for name, number in counts for cell in (text(f"· {number}"), coloured(name))]
    return [text(found["total"]), *parts]


def _queue(queue: Mapping[str, Any]) -> list[Cell]:
    letters = queue["dead_lettered"]
    many = f"{letters}{'+' if letters >= MOST_LETTERS else ''} dead_lettered"
    return [text(f"{queue['waiting']} waiting ·"), Cell(many, "red" if letters else None)]


def _told(screen: Screen, restart: Mapping[str, Any]) -> str:
    last = restart["last"]
    if last is None:  # the listing was asked a moment later
        return f"  {words.clean(restart['workspace'])}"
    count = f"{restart['count']}{'+' if restart['count'] >= MOST_RESTARTS else ''}"
    why = [text(f"({last['error']})")] if last["error"] else []
    return "  " + screen.drawn(
        [
            text(f"{restart['workspace']}: {count}, the last"),
            screen.when(last["started_at"]),
            text(f"by {last['trigger']}:"),
            coloured(last["state"]),
            *why,
        ]
    )
