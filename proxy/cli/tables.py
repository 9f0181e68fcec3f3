"""What a person sees: aligned tables, lists of facts, coloured words; or the API's JSON as it came.

Owns: alignment, colours, and how output differs between a terminal and a pipe.
Knows nothing of: commands and the API's members.

On a terminal, columns that may be cut are cut until a line fits, and times are distances ("12 s ago"). In a pipe
nothing is cut, times are RFC 3339, and there are no colours. NO_COLOR (https://no-color.org) switches colours off.
"""

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import click

from proxy.cli import words
from proxy.cli.client import Answer
from proxy.clock import SystemClock

GAP: Final = "  "
DIM: Final = "dim"
"""Stands for a colour in `Cell` and `Screen.paint`: fainter, in whatever colours the terminal has."""
_COLOURS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("ready", "completed", "alive", "running", "ok", "none", "finished"), "green"),
    **dict.fromkeys(("starting", "provisioning", "restarting", "degraded", "busy", "leased", "scheduled"), "yellow"),
    **dict.fromkeys(("coalesced", "debounced", "backoff", "unknown", "wedged", "warning"), "yellow"),
    **dict.fromkeys(("offline", "abandoned", "dead", "dead_lettered", "expired", "failed", "error"), "red"),
    **dict.fromkeys(("queued", "paused", "hibernated", "draining"), "cyan"),
    **dict.fromkeys(("cancelled", "dropped", "removed"), DIM),
}


@dataclass(frozen=True, slots=True)
class Cell:
    """A text with a colour of its own: a name that click knows, or `DIM`."""

    text: str
    colour: str | None = None


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its title, and how it yields on a narrow terminal.

    ``least`` is to how few characters it may be cut; None: not at all. ``spare`` columns are left out, the last one
    first, where even that does not help. ``right`` aligns numbers.
    """

    title: str
    least: int | None = None
    spare: bool = False
    right: bool = False


def coloured(value: Any) -> Cell:
    """Return a word of one of our vocabularies in its colour; ``-`` for none."""
    text = words.NOTHING if value is None or value == "" else words.clean(str(value))
    return Cell(text, _COLOURS.get(text))


def text(value: Any) -> Cell:
    """Return any value as it can safely be shown; ``-`` for none."""
    return Cell(words.NOTHING if value is None or value == "" else words.clean(str(value)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Screen:
    """Where a command writes. ``width`` is None in a pipe."""

    as_json: bool
    colours: bool
    width: int | None
    now: datetime

    @classmethod
    def here(cls, *, as_json: bool = False) -> "Screen":
        """Return standard output as it is."""
        is_terminal = sys.stdout.isatty()
        return cls(
            as_json=as_json,
            colours=is_terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb",
            width=shutil.get_terminal_size().columns if is_terminal else None,
            now=SystemClock()(),
        )

    def show(self, answer: Answer, draw: Callable[[Any], Iterable[str]]) -> None:
        """Print an answer: its JSON as it came with `--json`, else the lines that ``draw`` makes of its data."""
        self.write([answer.text] if self.as_json else draw(answer.data))

    def show_made(self, data: Any, draw: Callable[[Any], Iterable[str]]) -> None:
        """Print what a command put together itself: as JSON with `--json`, else the lines that ``draw`` makes of it."""
        self.write([json.dumps(data)] if self.as_json else draw(data))

    def write(self, lines: Iterable[str]) -> None:
        """Print lines that are made already."""
        for line in lines:
            click.echo(line, color=self.colours)

    # Values

    def when(self, value: Any) -> Cell:
        """Return an instant of the API for a table: its distance on a terminal, as it came in a pipe."""
        at = words.read_instant(value)
        if at is None or self.width is None:
            return text(value)
        return Cell(words.ago(at, self.now))

    def moment(self, value: Any) -> Cell:
        """Return an instant of the API for a list of facts: distance and date, or as it came in a pipe."""
        at = words.read_instant(value)
        if at is None or self.width is None:
            return text(value)
        return Cell(f"{words.ago(at, self.now)}  ({words.instant(at)})")

    # Shapes

    def table(self, columns: Sequence[Column], rows: Iterable[Sequence[Cell]]) -> list[str]:
        """Draw a table: a line of titles, then a line per row, columns aligned."""
        filled = [[Cell(column.title, DIM) for column in columns], *rows]
        widths = [max(words.columns(row[at].text) for row in filled) for at in range(len(columns))]
        shown = list(range(len(columns)))
        if self.width is not None:
            shown = _fitting(widths, columns, self.width)
        return [self._line([row[at] for at in shown], [(columns[at], widths[at]) for at in shown]) for row in filled]

    def facts(self, pairs: Iterable[tuple[str, Cell | Sequence[Cell]]], indent: str = "") -> list[str]:
        """Draw named values below each other; long ones are left to the terminal to wrap."""
        named = list(pairs)
        width = max((words.columns(name) for name, _ in named), default=0)
        return [
            f"{indent}{self.paint(name + ' ' * (width - words.columns(name)), DIM)}{GAP}{self.drawn(value)}".rstrip()
            for name, value in named
        ]

    def drawn(self, value: Cell | Sequence[Cell]) -> str:
        """Draw one value, or several beside each other."""
        cells = [value] if isinstance(value, Cell) else value
        return " ".join(self.paint(cell.text, cell.colour) for cell in cells if cell.text)

    def heading(self, title: str) -> str:
        """Draw the title of a part."""
        return click.style(title, bold=True) if self.colours else title

    def paint(self, shown: str, colour: str | None) -> str:
        """Colour a text, where there are colours."""
        if not colour or not self.colours:
            return shown
        return click.style(shown, dim=True) if colour == DIM else click.style(shown, fg=colour)

    def _line(self, cells: Sequence[Cell], shapes: Sequence[tuple[Column, int]]) -> str:
        drawn = []
        last = len(cells) - 1
        for at, (cell, (column, width)) in enumerate(zip(cells, shapes, strict=True)):
            text_ = words.cut(cell.text, width)
            blanks = " " * (width - words.columns(text_))
            painted = self.paint(text_, cell.colour)
            drawn.append(blanks + painted if column.right else painted if at == last else painted + blanks)
        return GAP.join(drawn).rstrip()


def _fitting(widths: list[int], columns: Sequence[Column], room: int) -> list[int]:
    """Make a line fit: leave spare columns out, cut those that may be cut, the widest first. Return what is shown."""
    shown = list(range(len(columns)))
    least = [
        width if column.least is None else min(width, column.least)
        for column, width in zip(columns, widths, strict=True)
    ]

    def too_wide(sizes: Sequence[int]) -> bool:
        return sum(sizes[at] for at in shown) + len(GAP) * (len(shown) - 1) > room

    while too_wide(least) and any(columns[at].spare for at in shown):
        shown.remove(max(at for at in shown if columns[at].spare))
    while too_wide(widths):
        able = [at for at in shown if widths[at] > least[at]]
        if not able:
            break  # the terminal wraps it: an id that is cut is worth nothing
        widths[max(able, key=widths.__getitem__)] -= 1
    return shown
