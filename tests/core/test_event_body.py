"""Where one event ends and the next begins, however the bytes are cut."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.errors import CallerError
from proxy.core.event_body import EventBody

STREAM = "text/event-stream; charset=utf-8"
LINES = "application/x-ndjson"


def split(kind: str, parts: list[bytes], most: int = 1000) -> list[bytes]:
    body = EventBody(kind, most=most)
    return [event for part in parts for event in body.feed(part)] + body.end()


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
def test_server_sent_events_in_every_line_ending(end: bytes, bom: bytes) -> None:
    lines = [b": hello", b"event: x", b"id: 7", b"data: one", b"data:two", b"", b"", b"data", b"", b"data:  three", b""]
    whole = bom + b"".join(line + end for line in lines)
    assert split(STREAM, [whole]) == [b"one\ntwo", b"", b" three"]
    assert split(STREAM, [whole[at : at + 1] for at in range(len(whole))]) == [b"one\ntwo", b"", b" three"]


@given(cuts=st.lists(st.integers(0, 60), max_size=8), end=st.sampled_from([b"\n", b"\r\n"]))
def test_a_body_may_be_cut_anywhere(cuts: list[int], end: bytes) -> None:
    events = [b'{"a":1}', b'{"b":"\xc3\xa9"}', b"x" * 20]
    stream = b"".join(b"data: " + event + end + end for event in events)
    lines = end.join(events)
    for kind, whole in ((STREAM, stream), (LINES, lines)):
        places = sorted({0, len(whole), *(cut for cut in cuts if cut < len(whole))})
        parts = [whole[start:stop] for start, stop in itertools.pairwise(places)]
        assert split(kind, parts) == events


@pytest.mark.timeout(20)
def test_a_large_event_in_small_pieces_costs_as_much_as_in_one() -> None:
    """Work that grew with the square of the size would take minutes, and nothing else would be served meanwhile."""
    event = b"x" * 4_000_000
    stream = b"data: " + event + b"\n\n"
    assert split(STREAM, [stream[at : at + 1400] for at in range(0, len(stream), 1400)], most=5_000_000) == [event]


def test_a_byte_order_mark_may_come_in_pieces() -> None:
    assert split(STREAM, [b"\xef", b"", b"\xbb\xbfdata: one\n\n"]) == [b"one"]
    assert split(LINES, [b"\xef", b"\xbb", b"\xbf", b"1\n"]) == [b"1"]


def test_the_end_of_the_body_ends_the_last_event() -> None:
    assert split(STREAM, [b"data: one\n\ndata: last"]) == [b"one", b"last"]
    assert split(STREAM, [b"data: one\r\ndata: last\r"]) == [b"one\nlast"]
    assert split(LINES, [b'{"a":1}\n\n {"b":2}']) == [b'{"a":1}', b' {"b":2}']
    assert split(LINES, [b"\n \n"]) == []
    assert split(STREAM, [b": only a comment\n"]) == []


@pytest.mark.parametrize(
    ("kind", "parts"),
    [
        (STREAM, [b"data: " + b"x" * 30 + b"\n\n"]),
        (STREAM, [b"x" * 8] * 4),
        (STREAM, [b"data: xxxxxxxx\n"] * 4),
        (LINES, [b"y" * 21]),
        (LINES, [b"y" * 21 + b"\n"]),
    ],
)
def test_an_event_over_the_limit_is_refused_before_it_is_whole(kind: str, parts: list[bytes]) -> None:
    with pytest.raises(CallerError) as refused:
        split(kind, parts, most=20)
    assert refused.value.status == 413
