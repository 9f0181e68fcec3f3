"""The live stream: everything that happens, as server-sent events, for readers who come back where they left.

Owns: `GET /events`, its filters, the form of the stream, letting go of readers that take nothing.
Knows nothing of: what is kept and how a reader's place is known (`loops.event_ring`), who emits.

The form is that of the HTML standard, section 9.2. A stream begins with `retry:` and the id of the place where it
begins, so that a reader whose connection breaks before the first event comes back to where it was. Silence is broken by
a comment, again with the id: a reader with a narrow filter moves on although it is shown nothing.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import web

from proxy.core.errors import CallerError, ProxyError
from proxy.core.tokens import TokenKind
from proxy.loops.event_ring import EventRing, Numbered, Place
from proxy.telemetry import Event, EventName, Level
from proxy.web.answers import json_answer
from proxy.web.auth import Auth
from proxy.web.open_calls import Connection
from proxy.web.operations import ADMIN, READ, Answer, Operation, Parameter

RETRY_MS = 1000
"""How long a reader should wait before it comes back, milliseconds."""
BATCH = 64
"""Events that go out in one write at most."""
PLACE = "Last-Event-ID"
PARAMETERS = frozenset({"last_event_id", "workspace", "name", "level"})
SOON = 5
GONE = -1
"""In the place of an event's number: it is not known any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamRules:
    """How many readers there may be, and the seconds of silence and of stalling."""

    readers: int
    keep_alive: float
    stall: float


class Events:
    """Serves the stream to the admin and to `read` tokens."""

    def __init__(self, *, ring: EventRing, auth: Auth, rules: StreamRules) -> None:
        self._ring = ring
        self._auth = auth
        self._rules = rules

    def routes(self) -> list[web.RouteDef]:
        """What this door serves. A HEAD would wait for ever, so there is none."""
        return [web.get("/events", self.stream, allow_head=False)]

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """`GET /events?workspace=&name=&level=&last_event_id=`: what was missed since that place, then live.

        410 for a place that is not known any more (scenario 54), with the oldest id that is kept.
        """
        self._auth.require(request, TokenKind.READ)
        wanted = self._filter(request)
        number = self._place(request)
        if number is GONE:
            return self._gone()
        if self._ring.closed:
            raise ProxyError("STOPPING", "Holdfast is stopping", retry_after=SOON)
        if len(self._ring) >= self._rules.readers:
            raise ProxyError("TOO_MANY_READERS", "the event stream has no room for another reader", retry_after=SOON)
        response = web.StreamResponse(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        response.content_type = "text/event-stream"
        connection = request.protocol
        with self._ring.reading(number) as place:
            if isinstance(connection, Connection):
                connection.on_gone = place.leave
            try:
                await response.prepare(request)
                await self._serve(response, place, wanted, lambda: self._auth.stands(request))
            except (TimeoutError, ConnectionResetError):
                if request.transport is not None:
                    request.transport.abort()
            finally:
                if isinstance(connection, Connection):
                    connection.on_gone = None
        return response

    async def _serve(
        self,
        response: web.StreamResponse,
        place: Place,
        wanted: Callable[[Event], bool],
        stands: Callable[[], bool],
    ) -> None:
        """Write until the reader has left, or its token is dropped: a stream must not outlive the right to it."""
        ring = self._ring
        await self._write(response, f"retry: {RETRY_MS}\nid: {ring.name(place.number)}\n\n")
        while stands():
            found = ring.next(place, wanted, BATCH)
            if place.missed:
                await self._write(response, self._gap(place))
                break
            if found:
                await self._write(response, "".join(map(self._shown, found)))
                continue
            if ring.closed or place.left:
                break
            try:
                async with asyncio.timeout(self._rules.keep_alive):
                    await place.bell.wait()
            except TimeoutError:
                await self._write(response, f": keep-alive\nid: {ring.name(place.number)}\n\n")
        async with asyncio.timeout(self._rules.stall):
            await response.write_eof()

    async def _write(self, response: web.StreamResponse, text: str) -> None:
        async with asyncio.timeout(self._rules.stall):
            await response.write(text.encode())

    def _shown(self, numbered: Numbered) -> str:
        return f"id: {self._ring.name(numbered.number)}\nevent: {numbered.event.name}\ndata: {numbered.json}\n\n"

    def _gap(self, place: Place) -> str:
        """The last event of a reader that was too slow. Its id is the oldest place to go on from."""
        said = f'{{"error":"events were dropped before you read them","missed":{place.missed}}}'
        return f"id: {self._ring.name(place.number)}\nevent: gap\ndata: {said}\n\n"

    def _gone(self) -> web.Response:
        ring = self._ring
        said = {
            "error": "events after this place are not kept any more",
            "oldest": ring.oldest,
            "resume": ring.start,
            "latest": ring.latest,
        }
        return json_answer(said, 410)

    def _place(self, request: web.Request) -> int | None:
        """Where to begin: None for now, `GONE` for a place that is not known. The header is newer than the URL."""
        text = request.headers.get(PLACE) or request.query.get("last_event_id")
        if not text:
            return None
        if not self._ring.well_formed(text):
            raise CallerError("BAD_EVENT_ID", f"{PLACE} is the id of an event: two whole numbers and a hyphen")
        number = self._ring.number(text)
        return GONE if number is None else number

    def _filter(self, request: web.Request) -> Callable[[Event], bool]:
        """Which events this reader wants; empty parameters want all."""
        unknown = set(request.query) - PARAMETERS
        if unknown:  # a misspelt filter must not show more, or less, than was meant
            raise CallerError("BAD_PARAMETER", f"there is no parameter {min(unknown)[:64]!r}")
        workspace = request.query.get("workspace") or None
        names = self._names(request.query.get("name", ""))
        least = self._level(request.query.get("level", ""))

        def wanted(event: Event) -> bool:
            return (
                event.level >= least
                and (names is None or event.name in names)
                and (workspace is None or event.workspace == workspace)
            )

        return wanted

    def _names(self, text: str) -> frozenset[EventName] | None:
        if not text:
            return None
        asked = {name for name in text.split(",") if name}
        names = frozenset(name for name in EventName if name.value in asked)
        if len(names) != len(asked):
            raise CallerError("BAD_EVENT_NAME", "there is no event of that name")
        quiet = sorted(name for name in names if not self._ring.wants(name))
        if quiet:
            raise CallerError("NOT_STREAMED", f"{', '.join(quiet)}: not streamed, see the setting events.level")
        return names

    def _level(self, text: str) -> Level:
        if not text:
            return Level.DEBUG
        try:
            least = Level[text.upper()] if text.islower() else None
        except KeyError:
            least = None
        if least is None:
            raise CallerError("BAD_LEVEL", f"level is one of {', '.join(level.name.lower() for level in Level)}")
        if least < self._ring.least:
            raise CallerError(
                "NOT_STREAMED", f"events below {self._ring.least.name.lower()} are not streamed: see events.level"
            )
        return least


OPERATIONS = (
    Operation(
        method="GET",
        path="/events",
        name="stream_events",
        text="What happens, as server-sent events: what was missed since a place, then live.",
        tag="proxy",
        who=(ADMIN, READ),
        parameters=(
            Parameter(name=PLACE, text="The id of the last event that this reader has.", where="header"),
            Parameter(name="last_event_id", text="The same; the header wins."),
            Parameter(name="workspace", text="Only events of this workspace."),
            Parameter(name="name", text="Only events of these names, separated by commas."),
            Parameter(name="level", text="Only events of this level and above: debug, info, warning, error."),
        ),
        answers={200: Answer(text="A stream without an end.", media="text/event-stream")},
        errors={
            400: "The place or a filter cannot be.",
            410: "The place is not known any more; `oldest` is the oldest event that is kept.",
            503: "There is no room for another reader, or the proxy stops.",
        },
    ),
)
