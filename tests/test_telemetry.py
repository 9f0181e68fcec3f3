"""Telemetry: one record for every sink, no sink can break a caller, and no secret gets through."""

import io
import json
import re
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.telemetry import (
    Event,
    EventName,
    Level,
    LogSink,
    Telemetry,
    human_line,
    json_line,
)

AT = datetime(2026, 1, 31, 12, 0, 0, 42, tzinfo=UTC)
TOKEN = "hf_" + "t" * 43


def emitted(name: EventName, **fields: Any) -> Event:
    taken: list[Event] = []
    Telemetry(lambda: AT, [taken.append]).emit(name, **fields)
    return taken[0]


def test_an_event_reaches_every_sink_with_its_time_and_level() -> None:
    one: list[Event] = []
    other: list[Event] = []
    Telemetry(lambda: AT, [one.append, other.append]).emit(
        EventName.VERDICT, workspace="a", rule="running", fields={"probes": 1}
    )
    assert one == other
    assert one == [
        Event(name=EventName.VERDICT, at=AT, level=Level.INFO, workspace="a", rule="running", fields={"probes": 1})
    ]


def test_a_failing_sink_breaks_neither_the_caller_nor_other_sinks_and_is_counted() -> None:
    taken: list[Event] = []

    def broken(_: Event) -> None:
        raise OSError("disk full")

    telemetry = Telemetry(lambda: AT, [broken, taken.append])
    telemetry.emit(EventName.PROXY_STARTED)
    telemetry.emit(EventName.PROXY_STOPPED)
    assert [event.name for event in taken] == [EventName.PROXY_STARTED, EventName.PROXY_STOPPED]
    assert [(name.rpartition(".")[2], count) for name, count in telemetry.failures.items()] == [("broken", 2)]


def test_a_sink_can_be_added_and_taken_away() -> None:
    taken: list[Event] = []
    telemetry = Telemetry(lambda: AT)
    remove = telemetry.add(taken.append)
    telemetry.emit(EventName.PROXY_STARTED)
    remove()
    remove()
    telemetry.emit(EventName.PROXY_STOPPED)
    assert [event.name for event in taken] == [EventName.PROXY_STARTED]


def test_a_sink_may_remove_itself_while_it_is_called() -> None:
    telemetry = Telemetry(lambda: AT)
    taken: list[Event] = []

    def once(event: Event) -> None:
        taken.append(event)
        remove()

    remove = telemetry.add(once)
    telemetry.add(taken.append)
    telemetry.emit(EventName.PROXY_STARTED)
    telemetry.emit(EventName.PROXY_STOPPED)
    assert len(taken) == 3
    assert telemetry.failures == {}


@pytest.mark.parametrize("name", list(EventName), ids=str)
def test_every_event_is_named_and_explained(name: EventName) -> None:
    assert re.fullmatch(r"[a-z_]+(\.[a-z_]+)?", name)
    assert [each for each in EventName if each == str(name)] == [name]
    assert name.meaning.endswith(".")
    assert isinstance(name.level, Level)


@pytest.mark.parametrize(
    "value",
    [
        f"refused {TOKEN}",
        [f"Bearer {TOKEN}"],
        {"a": {"b": (TOKEN,)}},
        ValueError(f"bad token {TOKEN!r}"),
        TOKEN.encode(),
        f"http://user:{TOKEN}@agent/",
    ],
)
def test_a_token_is_masked_wherever_it_stands(value: object) -> None:
    event = emitted(EventName.AUTH_REFUSED, fields={"detail": value})
    for line in (json_line(event), human_line(event), repr(event)):
        assert "ttt" not in line
        assert "***" in line


def test_the_json_line_is_flat_and_complete() -> None:
    event = emitted(
        EventName.DEFERRAL_QUEUED, workspace="a", request_id="r1", receipt="d1", incarnation=3, fields={"depth": 7}
    )
    assert json.loads(json_line(event)) == {
        "at": "2026-01-31T12:00:00.000042Z",
        "level": "info",
        "event": "deferral.queued",
        "workspace": "a",
        "request_id": "r1",
        "receipt": "d1",
        "incarnation": 3,
        "depth": 7,
    }


def test_the_records_own_names_cannot_be_forged_by_fields() -> None:
    event = emitted(
        EventName.VERDICT,
        workspace="a",
        fields={"at": "never", "level": "silent", "event": "nothing", "workspace": "b"},
    )
    assert json.loads(json_line(event)) == {
        "at": "2026-01-31T12:00:00.000042Z",
        "level": "info",
        "event": "verdict",
        "workspace": "a",
    }


def test_the_human_line_is_aligned_and_quotes_what_would_be_ambiguous() -> None:
    fields = {"age": 1.5, "note": 'say "x=1"', "parked": False, "card": {}}
    event = emitted(EventName.VERDICT, workspace="a b", rule="running", fields=fields)
    assert human_line(event) == (
        "2026-01-31T12:00:00.000042Z info    verdict                "
        'workspace="a b" rule=running age=1.5 note="say \\"x=1\\"" parked=false card={}'
    )


def test_a_human_line_without_fields_ends_after_its_name() -> None:
    assert human_line(emitted(EventName.PROXY_STOPPED)) == "2026-01-31T12:00:00.000042Z info    proxy.stopped"


@given(st.text(max_size=50), st.text(min_size=1, max_size=20))
def test_no_value_can_forge_a_second_line(value: str, key: str) -> None:
    event = Event(name=EventName.REQUEST_FAILED, at=AT, level=Level.INFO, workspace=value, fields={key: value})
    for line in (json_line(event), human_line(event)):
        assert line.isprintable()
        assert line.isascii()
    assert json.loads(json_line(event))["workspace"] == value


@pytest.mark.parametrize(
    ("least", "shown"),
    [(Level.DEBUG, 3), (Level.INFO, 2), (Level.WARNING, 1), (Level.ERROR, 0)],
)
def test_the_log_shows_its_level_and_above(least: Level, shown: int) -> None:
    stream = io.StringIO()
    telemetry = Telemetry(lambda: AT, [LogSink(stream, least=least)])
    for name in (EventName.REQUEST_FORWARDED, EventName.PROXY_STARTED, EventName.CLOCK_JUMPED):
        telemetry.emit(name)
    assert len(stream.getvalue().splitlines()) == shown
    assert telemetry.failures == {}


def test_the_log_writes_json_when_asked_to() -> None:
    stream = io.StringIO()
    Telemetry(lambda: AT, [LogSink(stream, form="json")]).emit(EventName.PROXY_STARTED, fields={"port": 8080})
    assert json.loads(stream.getvalue())["port"] == 8080
    assert stream.getvalue().endswith("}\n")


def test_a_closed_log_is_counted_and_never_raises() -> None:
    stream = io.StringIO()
    telemetry = Telemetry(lambda: AT, [LogSink(stream)])
    stream.close()
    telemetry.emit(EventName.PROXY_STARTED)
    assert telemetry.failures == {"LogSink": 1}
