"""Owns changing ids in a stream of server-sent events on its way: event by event, every other byte as it came.

Knows nothing of sockets, and of which ids belong together. Where a chunk ends says nothing: an event is changed once it
is there as a whole, and nothing of it leaves before. Comments and events that name none of the ids keep their bytes,
line endings included; of a changed one the `data` lines become one line. An event that outgrows the bound is passed on
as it is: what is unreadable so large is nobody's task.
"""

import re
from collections.abc import Callable, Mapping
from typing import Final

from proxy.core.a2a.members import BOM
from proxy.core.a2a.renaming import rename_answer

_END: Final = re.compile(rb"(?:\r\n|\n|\r(?!\n))(?:\r\n|\n|\r(?!\n))")
_LINE: Final = re.compile(rb"[^\r\n]*(?:\r\n|\n|\r|\Z)")
_LONGEST_END: Final = 4
_DATA: Final = b"data"


class EventNames:
    """Changes ids in one stream. `seen` is told of the data of every event, as the client gets it."""

    def __init__(
        self,
        tasks: Mapping[str, str],
        contexts: Mapping[str, str],
        *,
        most: int,
        seen: Callable[[bytes], None] | None = None,
    ) -> None:
        self._tasks = tasks
        self._contexts = contexts
        self._most = most
        self._seen = seen
        self._rest = bytearray()
        self._begun = False

    def feed(self, chunk: bytes) -> bytes:
        """What can leave now that this has come."""
        rest = self._rest
        searched = max(0, len(rest) - _LONGEST_END)
        rest += chunk
        # A CR at the very end may be half of a line break, and the break the end of an event.
        held = len(rest) - 1 if rest.endswith(b"\r") else len(rest)
        out: list[bytes] = []
        start = 0
        for end in [found.end() for found in _END.finditer(rest, searched, held)]:
            out.append(self._renamed(bytes(rest[start:end])))
            start = end
        del rest[:start]
        if len(rest) > self._most:
            out.append(bytes(rest))
            rest.clear()
        return b"".join(out)

    def end(self) -> bytes:
        """What is left when the stream has ended; an event that was not finished is none."""
        rest = bytes(self._rest)
        self._rest.clear()
        return self._renamed(rest) if rest else b""

    def forget(self) -> None:
        """The stream broke: what has come of an event that was not finished is none of what comes next."""
        self._rest.clear()

    def _renamed(self, event: bytes) -> bytes:
        """An event with the blank line behind it; a stream may begin with a byte order mark, which belongs to none."""
        mark = BOM if not self._begun and event.startswith(BOM) else b""
        self._begun = True
        return mark + self._changed(event[len(mark) :])

    def _changed(self, event: bytes) -> bytes:
        lines = [line for line in _LINE.findall(event) if line]
        told = [line for line in lines if _field(line) == _DATA]
        if not told:
            return event
        data = b"\n".join(_value(line) for line in told)
        renamed = rename_answer(data, self._tasks, contexts=self._contexts)
        if self._seen is not None:
            self._seen(renamed)
        if renamed is data:
            return event
        kept = iter(lines)
        out: list[bytes] = []
        for line in kept:
            if _field(line) != _DATA:
                out.append(line)
            elif told:
                # Of several lines that became one; none of their ends stands inside a text.
                out.append(b"data: " + renamed.replace(b"\n", b" ") + line[len(line.rstrip(b"\r\n")) :])
                told = []
        return b"".join(out)


def _field(line: bytes) -> bytes:
    return line.rstrip(b"\r\n").partition(b":")[0]


def _value(line: bytes) -> bytes:
    return line.rstrip(b"\r\n").partition(b":")[2].removeprefix(b" ")
