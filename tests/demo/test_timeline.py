"""What the demo prints: plain lines, like outcomes folded, colours only where they are wanted."""

import io

import pytest

from proxy.demo.timeline import Timeline


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")


async def test_a_new_outcome_is_told_at_once_and_more_of_it_are_counted():
    out = io.StringIO()
    timeline = Timeline(out)
    for outcome in ("answered", "answered", "deferred", "answered", "deferred"):
        timeline.traffic("worker", outcome)
    assert [line.split("worker")[1].strip() for line in out.getvalue().splitlines()] == ["answered", "deferred"]
    timeline.event("strict", "offline")
    told, offline = out.getvalue().splitlines()[2:]
    assert told.endswith("2 more answered, 1 more deferred")
    assert offline.endswith("strict   offline")


async def test_nothing_is_repeated_when_there_was_no_more_of_it():
    out = io.StringIO()
    timeline = Timeline(out)
    timeline.traffic("worker", "answered")
    timeline.expect(True, "it was")
    assert len(out.getvalue().splitlines()) == 2


async def test_long_lines_are_wrapped_below_their_text():
    out = io.StringIO()
    Timeline(out).event("worker", "word " * 40)
    first, second, *_ = out.getvalue().splitlines()
    assert len(first) <= 100
    assert second.startswith(" " * first.index("word"))


@pytest.mark.parametrize(
    ("out", "environment", "coloured"),
    [
        (Terminal(), {}, True),
        (io.StringIO(), {}, False),
        (Terminal(), {"NO_COLOR": "1"}, False),
        (Terminal(), {"TERM": "dumb"}, False),
    ],
    ids=["terminal", "file", "NO_COLOR", "dumb terminal"],
)
async def test_colours_only_on_a_terminal_that_wants_them(out, environment, coloured, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    Timeline(out).expect(False, "it was")
    assert ("\x1b[" in out.getvalue()) is coloured
    assert "FAILED: it was" in out.getvalue()


async def test_a_table_shows_every_row():
    out = io.StringIO()
    Timeline(out).table([("lost", 0, "", True), ("sent", 12, "by the client", True)])
    assert out.getvalue().splitlines()[1:3] == ["  lost                 0", "  sent                12   by the client"]
