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


class QuietStream:
    """One stream. `say` sends bytes to its client, unless that lags.

    `silence`: seconds without a byte after which a comment is due; None: none may be sent. `head` is the timer by which
    the stream's head leaves, and ends with the stream.
    """

    __slots__ = ("_head", "_heard_at", "_loop", "_say", "_silence", "_tail", "_timer")

    def __init__(self, head: asyncio.TimerHandle, say: Callable[[bytes], None], *, silence: float | None) -> None:
        self._loop = asyncio.get_running_loop()
        self._head = head
        self._say = say
        self._silence = silence or 0.0
        self._tail = b""
        self._heard_at = self._loop.time()
        self._timer = self._loop.call_later(silence, self._look) if silence is not None else None

    def passed(self, piece: bytes) -> None:
        """This much more of the stream was passed on."""
        self._heard_at = self._loop.time()
        self._tail = piece[-TAIL:] if len(piece) >= TAIL else (self._tail + piece)[-TAIL:]

    @property
    def boundary(self) -> bytes | None:
        """How the stream's lines end; None where it stands inside an event."""
        return line_end(self._tail)

    def end(self) -> None:
        """The stream has ended."""
        self._head.cancel()
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        due = self._heard_at + self._silence
        if self._loop.time() >= due:
            ending = line_end(self._tail)
            if ending is not None:
                self._say(COMMENT + ending)
            self._heard_at = self._loop.time()
            due = self._heard_at + self._silence
        self._timer = self._loop.call_at(due, self._look)


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
