"""The events in a body, as they come: server-sent events, or one JSON document a line.

Owns: where one event ends and the next begins, incrementally and within a bound.
Knows nothing of: what an event says, where the bytes come from: a polling workspace, or an agent's answer.

Server-sent events by the WHATWG's rules (lines end in LF, CRLF or CR; `data` lines are joined; comments and other
fields are skipped), with one leniency: the end of a whole body ends its last event too, so that a forgotten blank line
loses nothing.
"""

import re

from proxy.core.errors import CallerError

_BREAK = re.compile(rb"\r\n|\n|\r")
_BOM = b"\xef\xbb\xbf"
STREAM = "text/event-stream"


class EventBody:
    """Splits a body into events of at most `most` bytes each. `content_type` decides how."""

    def __init__(self, content_type: str, *, most: int) -> None:
        self._is_stream = content_type.partition(";")[0].strip().lower() == STREAM
        self._most = most
        self._rest = bytearray()
        self._data: list[bytes] = []
        self._size = 0
        self._begun = False

    def feed(self, part: bytes) -> list[bytes]:
        """The events that are complete with this part.

        Raises:
            CallerError: 413 for an event over the limit.
        """
        rest = self._rest
        searched = max(0, len(rest) - 1)  # what was left has no break in it, but for a CR at its end
        rest += part
        if not self._begun:
            if len(rest) < len(_BOM) and _BOM.startswith(bytes(rest)):
                return []
            if rest.startswith(_BOM):
                del rest[: len(_BOM)]
            self._begun, searched = True, 0
        # The last line may go on, and a CR at the very end may be half of a line break.
        held = len(rest) - 1 if rest.endswith(b"\r") else len(rest)
        events: list[bytes] = []
        start = 0
        for end, after in [found.span() for found in _BREAK.finditer(rest, searched, held)]:
            self._line(bytes(rest[start:end]), events)
            start = after
        del rest[:start]
        if len(rest) + self._size > self._most:
            raise self._too_long()
        return events

    def end(self) -> list[bytes]:
        """The event that the end of the body completes, if there is one."""
        events: list[bytes] = []
        if self._rest:
            self._line(bytes(self._rest.rstrip(b"\r")), events)
            self._rest.clear()
        if self._is_stream:
            self._line(b"", events)
        return events

    def _line(self, line: bytes, events: list[bytes]) -> None:
        if len(line) + self._size > self._most:
            raise self._too_long()
        if not self._is_stream:
            if line.strip():
                events.append(line)
            return
        if not line:
            if self._data:
                events.append(b"\n".join(self._data))
                self._data, self._size = [], 0
            return
        name, _, value = line.partition(b":")
        if name == b"data":
            value = value.removeprefix(b" ")
            self._data.append(value)
            self._size += len(value) + 1

    def _too_long(self) -> CallerError:
        return CallerError(
            "EVENT_TOO_LARGE",
            f"an event is larger than {self._most} bytes",
            status=413,
            facts={"max_bytes": self._most},
        )
