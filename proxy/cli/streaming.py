"""The live stream `GET /events` as commands read it: events one by one, over broken connections.

Owns: reading server-sent events (HTML standard, section 9.2), finding a place again, coming back after a break.
Knows nothing of: what an event means, and how it is shown.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

from proxy.cli.client import Failure, Proxy
from proxy.cli.exit_codes import Exit

PATH: Final = "/events"
NOWHERE: Final = "0-0"
"""A place that no proxy knows; the refusal names those that there are."""
GAP: Final = "gap"
GONE: Final = 410
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 10.0
"""Seconds before a broken stream is asked for again; doubled with each try in vain."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """One event of the stream: its place, its name, its JSON as it came."""

    id: str
    name: str
    json: str

    @property
    def data(self) -> dict[str, Any]:
        """The event as data."""
        found = json.loads(self.json)
        return found if isinstance(found, dict) else {}


async def events(proxy: Proxy, *, since: str | None, **wanted: str | None) -> AsyncGenerator[Told, None]:
    """Yield what comes after a place (None: from now on) over one connection, until it ends.

    An event without a name only moves the place on. Failure 410: the place is not known any more.
    """
    headers = {"Accept": "text/event-stream", **({"Last-Event-ID": since} if since else {})}
    async with proxy.open("GET", PATH, query=wanted, headers=headers, endless=True) as got:
        await proxy.refuse(got)
        async with aclosing(proxy.lines(got)) as lines:
            async for told in _read(lines):
                yield told


async def _read(lines: AsyncIterator[str]) -> AsyncGenerator[Told, None]:
    place, name, data = "", "", ""
    async for line in lines:
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "id":
            place = value
        elif field == "event":
            name = value
        elif field == "data":
            data = value
        elif not line:
            yield Told(id=place, name=name, json=data)
            name, data = "", ""


async def kept(proxy: Proxy) -> tuple[str, str]:
    """Return the place before the oldest event that is kept, and that of the newest."""
    try:
        async with aclosing(events(proxy, since=NOWHERE)) as found:
            async for _ in found:
                break
    except Failure as failure:
        if failure.status == GONE:
            places = json.loads(failure.text)
            return str(places["resume"]), str(places["latest"])
        raise
    raise Failure(f"what answers at {proxy.url}{PATH} is no stream of events", Exit.UNREACHABLE)


def number(place: str) -> int:
    """Return the number in an event's id; ids of one life of the proxy grow with it."""
    return int(place.rpartition("-")[2])


async def past(proxy: Proxy, *, since: str | None = None) -> AsyncGenerator[Told, None]:
    """Yield the events that are kept now, after a place or all, and end."""
    oldest, latest = await kept(proxy)
    start = since or oldest
    if number(start) >= number(latest) and start.rpartition("-")[0] == latest.rpartition("-")[0]:
        return
    async with aclosing(events(proxy, since=start)) as found:
        async for told in found:
            if told.name:
                yield told
            if number(told.id) >= number(latest) or told.name == GAP:
                return


async def live(
    proxy: Proxy, *, since: str | None, wanted: Mapping[str, str | None], tell: Callable[[str], None]
) -> AsyncGenerator[Told, None]:
    """Yield what comes, for ever: a connection that breaks is made again where it broke.

    ``tell`` hears of breaks and of what may be missing. Raises Failure when the first connection is refused.
    """
    place, pause, began = since, FIRST_PAUSE, False
    while True:
        try:
            async with aclosing(events(proxy, since=place, **wanted)) as found:
                async for told in found:
                    place, pause, began = told.id or place, FIRST_PAUSE, True
                    if told.name == GAP:
                        tell(f"{told.data.get('missed', 'some')} events came faster than they were read; they are lost")
                    elif told.name:
                        yield told
            tell("the stream ended; coming back")
        except Failure as failure:
            if not began or failure.exit_code in {Exit.NOT_ALLOWED, Exit.NOT_FOUND, Exit.USAGE}:
                raise
            if failure.status == GONE:
                place = str(json.loads(failure.text)["resume"])
                tell("the proxy began a new life; what it told between may be missing")
                continue
            tell(f"{failure.message}; coming back")
        await asyncio.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)
