"""`holdfast events`: what happens, as it happens.

Owns: the command, and how an event looks. Knows nothing of: the stream (`streaming`).
"""

import asyncio
import difflib
import json
import re
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

import click

from proxy.cli import words
from proxy.cli.asking import ID, asks_the_proxy
from proxy.cli.client import Failure, Proxy
from proxy.cli.examples import examples
from proxy.cli.streaming import GONE, kept, live, past
from proxy.cli.tables import DIM, Screen
from proxy.telemetry import EventName

LEVELS: Final = ("debug", "info", "warning", "error")
OLDEST: Final = "oldest"
NAME_WIDTH: Final = 22
_COLOURS: Final = {"debug": DIM, "info": "cyan", "warning": "yellow", "error": "red"}


class EventNameParameter(click.ParamType[str]):
    """The name of an event; a list of all would fill a help page."""

    name = "name"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return a name that there is; a usage error with the nearest one for any other."""
        if value not in set(EventName):
            near = difflib.get_close_matches(str(value), list(EventName), n=1)
            meant = f"; did you mean {near[0]}?" if near else ""
            self.fail(f"there is no event {words.clean(str(value))[:64]!r}{meant} (docs/events.md)", param, ctx)
        return str(value)


class EventPlace(click.ParamType[str]):
    """The id of an event, or a word for the oldest."""

    name = "event id"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return a place that the API can look for; a usage error for any other text."""
        if value != OLDEST and re.fullmatch(r"[0-9]{1,20}-[0-9]{1,20}", str(value), re.ASCII) is None:
            self.fail(f"it is '{OLDEST}' or an event's id: two whole numbers and a hyphen", param, ctx)
        return str(value)


@click.command(
    short_help="Print events, and follow them.",
    epilog=examples(
        "holdfast events",
        "holdfast events --follow --workspace agent-7",
        "holdfast events --follow --since 1795352617729333-42",
        "holdfast events --follow --json | jq -r 'select(.level == \"error\") | .event'",
    ),
)
@click.option("--follow", "-f", is_flag=True, help="Wait for more, for ever; comes back after a break.")
@click.option(
    "--since", type=EventPlace(), metavar="ID", help="What came after this event; 'oldest': everything that is kept."
)
@click.option("--workspace", type=ID, help="Only what concerns this workspace.")
@click.option(
    "--name",
    "names",
    multiple=True,
    type=EventNameParameter(),
    help="Only events of this name; may be repeated.",
)
@click.option("--level", type=click.Choice(LEVELS), help="Only events of this level and above.")
@asks_the_proxy
async def events(
    proxy: Proxy,
    screen: Screen,
    *,
    follow: bool,
    since: str | None,
    workspace: str | None,
    names: tuple[str, ...],
    level: str | None,
) -> None:
    """Print the events that the proxy keeps; with --follow, those that come.

    With --json one event per line, with its id for --since.
    """
    wanted = Filter(workspace=workspace, names=names, level=level)
    last = ""
    try:
        if since == OLDEST:
            since = (await kept(proxy))[0]
        stream = live(proxy, since=since, wanted=wanted.query(), tell=_tell) if follow else past(proxy, since=since)
        async with aclosing(stream) as found:
            async for told in found:
                last = told.id
                if wanted.takes(told.data):
                    screen.write(
                        [json.dumps({**told.data, "id": told.id}) if screen.as_json else line(screen, told.data)]
                    )
    except asyncio.CancelledError:
        if last and screen.width is not None and not screen.as_json:
            click.echo(f"go on with: holdfast events --follow --since {last}", err=True)
        raise
    except Failure as failure:
        if failure.status != GONE:
            raise
        raise Failure(f"{failure.message}; `--since oldest` shows what is kept", text=failure.text) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which events are wanted: by the API of a stream that comes, by us of what is kept."""

    workspace: str | None
    names: tuple[str, ...]
    level: str | None

    def query(self) -> dict[str, str | None]:
        """Return the parameters of the API."""
        return {"workspace": self.workspace, "name": ",".join(self.names) or None, "level": self.level}

    def takes(self, event: Mapping[str, Any]) -> bool:
        """Whether an event is wanted."""
        least = LEVELS.index(self.level) if self.level else 0
        return (
            (self.workspace is None or event.get("workspace") == self.workspace)
            and (not self.names or event.get("event") in self.names)
            and (event.get("level") not in LEVELS or LEVELS.index(event["level"]) >= least)
        )


def line(screen: Screen, event: Mapping[str, Any]) -> str:
    """Draw one event: when, how loud, what, whose, and the rest."""
    rest = dict(event)
    at, level, name, workspace = (str(rest.pop(key, "") or "") for key in ("at", "level", "event", "workspace"))
    head = [
        screen.paint(_when(screen, at), DIM),
        screen.paint(f"{words.clean(level):<7}", _COLOURS.get(level)),
        f"{words.clean(name):<{NAME_WIDTH}}",
        screen.heading(words.clean(workspace)) if workspace else "",
        screen.paint(words.clean(words.facts(rest)), DIM),
    ]
    return " ".join(part for part in head if part).rstrip()


def _when(screen: Screen, at: str) -> str:
    """Write an event's instant: on a terminal the time of day, with its date where that is not today."""
    moment = words.read_instant(at)
    if moment is None or screen.width is None:
        return words.clean(at)
    return f"{moment:%H:%M:%S}" if moment.date() == screen.now.date() else f"{moment:%Y-%m-%d %H:%M:%S}"


def _tell(sentence: str) -> None:
    click.echo(f"holdfast: {sentence}", err=True)
