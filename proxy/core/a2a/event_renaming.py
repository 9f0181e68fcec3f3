"""Owns changing ids in a stream of server-sent events on its way: event by event, every other byte as it came.

Knows nothing of sockets, and of which ids belong together. Where a chunk ends says nothing: an event is changed once it
is there as a whole, and nothing of it leaves before. Comments and events that name none of the ids keep their bytes,
line endings included; of a changed one the `data` lines become one line. An event that outgrows the bound is passed on
as it is: what is unreadable so large is nobody's task.
"""

import re
from collections.abc import Callable, Mapping
from typing import Final

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
        self._rest = b""

    def feed(self, chunk: bytes) -> bytes:
        """What can leave now that this has come."""
        whole = self._rest + chunk
        # A CR at the very end may be half of a line break, and the break the end of an event.
        held = len(whole) - 1 if whole.endswith(b"\r") else len(whole)
        searched = max(0, len(self._rest) - _LONGEST_END)
        out: list[bytes] = []
        start = 0
        for end in _END.finditer(whole, searched, held):
            out.append(self._renamed(whole[start : end.end()]))
            start = end.end()
        self._rest = whole[start:]
        if len(self._rest) > self._most:
            out.append(self._rest)
            self._rest = b""
        return b"".join(out)

    def end(self) -> bytes:
        """What is left when the stream has ended; an event that was not finished is none."""
        rest, self._rest = self._rest, b""
        return self._renamed(rest) if rest else b""

    def _renamed(self, event: bytes) -> bytes:
        """An event with the blank line behind it."""
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
                out.append(b"data: " + renamed + line[len(line.rstrip(b"\r\n")) :])
                told = []
        return b"".join(out)


def _field(line: bytes) -> bytes:
    return line.rstrip(b"\r\n").partition(b":")[0]


def _value(line: bytes) -> bytes:
    return line.rstrip(b"\r\n").partition(b":")[2].removeprefix(b" ")
