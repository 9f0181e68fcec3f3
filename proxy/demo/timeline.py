"""What a person sees: a line for everything that happens, and the account at the end.

Owns: layout and colour; that like outcomes of traffic are folded into one line.
Knows nothing of: what the lines mean.

Plain lines only, so that a terminal, a file and a log of a build show the same. Colours on a terminal, unless NO_COLOR
(https://no-color.org) says otherwise.
"""

import asyncio
import os
import textwrap
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TextIO

WIDTH = 100

FOLD_SECONDS = 1.0
PLAIN, BOLD, DIM, RED, GREEN, YELLOW = "", "1", "2", "31", "32", "33"


@dataclass(slots=True)
class _Folded:
    """Outcomes that were told already, and how many more of each there were since."""

    since: float
    more: Counter[str] = field(default_factory=Counter)


class Timeline:
    """Writes lines with the seconds since it was made. Made inside a running event loop, whose time it shows."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        self._colours = out.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        self._folded: dict[str, _Folded] = {}

    @property
    def elapsed(self) -> float:
        """Seconds since the beginning."""
        return self._loop.time() - self._began

    # Lines

    def say(self, text: str, colour: str = PLAIN) -> None:
        """A paragraph of its own."""
        self._flush_all()
        self._write("\n".join(textwrap.wrap(text, WIDTH, break_on_hyphens=False)) if text else "", colour)

    def act(self, number: int, title: str, text: str) -> None:
        """A heading, and what is about to be shown."""
        self.say("")
        self.say(f"{number}. {title}", BOLD)
        self.say(text, DIM)

    def event(self, who: str, text: str, colour: str = PLAIN) -> None:
        """Something happened."""
        self._flush_all()
        self._line(who, text, colour)

    def traffic(self, who: str, outcome: str) -> None:
        """A send got an outcome. One that is news is told at once; more of the same are counted for FOLD_SECONDS."""
        folded = self._folded.setdefault(who, _Folded(since=self.elapsed))
        if outcome in folded.more:
            folded.more[outcome] += 1
        else:
            folded.more[outcome] = 0
            self._line(who, outcome, DIM)
        if self.elapsed - folded.since > FOLD_SECONDS:
            self._flush(who)
            self._folded[who] = _Folded(since=self.elapsed, more=Counter(dict.fromkeys(folded.more, 0)))

    def expect(self, met: bool, text: str) -> None:
        """An expectation of the story, and whether it was met."""
        self._flush_all()
        self._line("", f"{'ok' if met else 'FAILED'}: {text}", GREEN if met else RED)

    def table(self, rows: Iterable[tuple[str, int, str, bool]]) -> None:
        """The account: (name, number, remark, whether that is as it must be)."""
        self.say("")
        for name, number, remark, fine in rows:
            self._write(f"  {name:<16}{number:>6}   {remark}".rstrip(), PLAIN if fine else RED)
        self.say("")

    # Writing

    def _flush_all(self) -> None:
        for who in tuple(self._folded):
            self._flush(who)

    def _flush(self, who: str) -> None:
        folded = self._folded.pop(who, None)
        more = [f"{count} more {outcome}" for outcome, count in folded.more.items() if count] if folded else []
        if more:
            self._line(who, ", ".join(more), DIM)

    def _line(self, who: str, text: str, colour: str) -> None:
        head = f"{self.elapsed:7.1f} s  {who:<8} "
        first, *rest = textwrap.wrap(text, WIDTH - len(head), break_on_hyphens=False) or [""]
        self._write("\n".join([head + first, *(" " * len(head) + line for line in rest)]), colour)

    def _write(self, text: str, colour: str) -> None:
        if colour and self._colours:
            text = f"\x1b[{colour}m{text}\x1b[0m"
        self._out.write(text + "\n")
        self._out.flush()
