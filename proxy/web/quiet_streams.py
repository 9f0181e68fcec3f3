"""Agents' event streams that fall silent: a comment now and then, so that their clients do not give up.

Owns: where in a stream a comment may stand, how it is written, when it is due.
Knows nothing of: whose stream it is, how it is passed on.

Many A2A clients give up after five seconds without a byte, and many agents are silent for longer. A comment is
something that every reader of server-sent events skips (HTML standard, section 9.2.6), where it stands on a line of its
own; between two events it changes nothing at all. So a comment is sent only behind a blank line, or before the first
byte, and never into a body that is encoded or has a length. It ends as the stream's own lines do.

Theory of operation. One timer per stream is set for the moment at which it will have been silent for too long, and
looks at the clock when that comes; passing a piece on costs three assignments and no timer.
"""

import asyncio
from collections.abc import Callable

from proxy.forward import RawHeaders

TAIL = 4
"""Bytes by which the end of an event is known: at most a CRLF twice."""
COMMENT = b": keep-alive"
"""A line of its own, without the blank line that ends an event: some readers take that for an event."""
LOOKS = 8
"""How often all streams are looked at within the time for which one may be silent."""


class Attendant:
    """Looks after all quiet streams of a proxy, together: a timer for each would wake the loop once more per event.

    `silence`: seconds without a byte after which a comment is due; it leaves an eighth later at most. None: never.
    """

    def __init__(self, silence: float | None) -> None:
        self._silence = silence
        self._streams: set[QuietStream] = set()
        self._timer: asyncio.TimerHandle | None = None

    def attend(self, stream: "QuietStream") -> None:
        """Look after a stream from now on."""
        if self._silence is not None:
            self._streams.add(stream)
            if self._timer is None:
                self._timer = stream.loop.call_later(self._silence / LOOKS, self._look, stream.loop)

    def leave(self, stream: "QuietStream") -> None:
        """It has ended."""
        self._streams.discard(stream)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        silence = self._silence
        if silence is None or not self._streams:
            return
        self._timer = loop.call_later(silence / LOOKS, self._look, loop)
        before = loop.time() - silence
        for stream in tuple(self._streams):
            if stream.heard_at <= before:
                stream.comment()


class QuietStream:
    """One stream. `say` sends bytes to its client, unless that lags.

    `attendant` sends comments into it; None: none may be sent. `head` is the timer by which the stream's head leaves,
    and ends with the stream. `heard_at` is the loop's time of its last byte.
    """

    __slots__ = ("_attendant", "_head", "_say", "_tail", "heard_at", "loop")

    def __init__(self, head: asyncio.TimerHandle, say: Callable[[bytes], None], *, attendant: Attendant | None) -> None:
        self.loop = asyncio.get_running_loop()
        self._head = head
        self._say = say
        self._attendant = attendant
        self._tail = b""
        self.heard_at = self.loop.time()
        if attendant is not None:
            attendant.attend(self)

    def passed(self, piece: bytes) -> None:
        """This much more of the stream was passed on."""
        self.heard_at = self.loop.time()
        self._tail = piece[-TAIL:] if len(piece) >= TAIL else (self._tail + piece)[-TAIL:]

    @property
    def boundary(self) -> bytes | None:
        """How the stream's lines end; None where it stands inside an event."""
        return line_end(self._tail)

    def end(self) -> None:
        """The stream has ended."""
        self._head.cancel()
        if self._attendant is not None:
            self._attendant.leave(self)

    def comment(self) -> None:
        """It was silent for long enough: say so, where it may be said."""
        ending = line_end(self._tail)
        if ending is not None:
            self._say(COMMENT + ending)
        self.heard_at = self.loop.time()


def line_end(tail: bytes) -> bytes | None:
    """How the lines of a stream end that ends so far with these bytes; None where it stands inside an event."""
    if not tail or tail.endswith((b"\n\n", b"\r\n\n")):
        return b"\n"
    if tail.endswith(b"\r\n\r\n"):
        return b"\r\n"
    return b"\r" if tail.endswith(b"\r\r") else None


def may_be_commented(headers: RawHeaders) -> bool:
    """Whether a comment may stand in the body of such an answer: it is not encoded."""
    coded = [value.strip().lower() for name, value in headers if name.lower() == b"content-encoding"]
    return all(value in {b"", b"identity"} for value in coded)
