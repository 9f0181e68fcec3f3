"""Ids in streams on their way: however the bytes come, each event is changed once and nothing else is."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.a2a import EventNames

OURS, THEIRS = "4a2-ours", "up-1"
CONTEXTS = {"their-context": "our-context"}


def names(**more: Any) -> EventNames:
    return EventNames({THEIRS: OURS}, CONTEXTS, **{"most": 1_000_000, **more})


def update(task: str, **more: Any) -> dict[str, Any]:
    return {"statusUpdate": {"taskId": task, "status": {"state": "TASK_STATE_WORKING"}, **more}}


def whole(stream: bytes, *, pieces: int, **more: Any) -> bytes:
    """The stream, fed in pieces of that length."""
    changing = names(**more)
    said = b"".join(changing.feed(stream[start : start + pieces]) for start in range(0, len(stream), pieces))
    return said + changing.end()


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["LF", "CRLF", "CR"])
@pytest.mark.parametrize("pieces", [1, 2, 3, 7, 10_000])
def test_an_event_is_changed_however_its_bytes_come(end: str, pieces: int) -> None:
    def stream(task: str, context: str) -> bytes:
        said = json.dumps(update(task, contextId=context), separators=(",", ":"))
        lines = [
            ": quiet",
            "",
            "id: 7",
            "event: message",
            f"data: {said}",
            "retry: 5",
            "",
            ": more",
            "",
            "data: x",
            "",
            "",
        ]
        return end.join(lines).encode()

    assert whole(stream(THEIRS, "their-context"), pieces=pieces) == stream(OURS, "our-context")


def test_what_names_no_id_keeps_its_bytes() -> None:
    for data in (update("up-10"), {"artifactUpdate": {"taskId": "x", "artifact": {"parts": [{"text": THEIRS}]}}}):
        stream = f"data:  {json.dumps(data)} \n\n".encode()
        assert whole(stream, pieces=5) == stream
    free = {"metadata": {"taskId": THEIRS}, "artifact": {"parts": [{"data": {"taskId": THEIRS}, "raw": THEIRS}]}}
    said = whole(f"data: {json.dumps({'artifactUpdate': {'taskId': THEIRS, **free}})}\n\n".encode(), pieces=9)
    found = json.loads(said[5:])["artifactUpdate"]
    assert found == {"taskId": OURS, **free}


def test_data_of_several_lines_is_one_line_when_it_was_changed() -> None:
    stream = b'data: {"statusUpdate":\ndata:{"taskId":"up-1"}}\nid: 3\n\n'
    assert whole(stream, pieces=4) == b'data: {"statusUpdate":{"taskId":"4a2-ours"}}\nid: 3\n\n'


def test_an_error_event_names_the_callers_task() -> None:
    error = {"code": -32001, "message": f"Task {THEIRS} not found", "data": [{"metadata": {"taskId": THEIRS}}]}
    stream = f"event: error\ndata: {json.dumps({'jsonrpc': '2.0', 'id': 1, 'error': error})}\n\n".encode()
    assert THEIRS.encode() not in whole(stream, pieces=100)


def test_nothing_of_an_event_leaves_before_it_is_whole_and_all_of_it_then() -> None:
    changing = names()
    assert changing.feed(b'data: {"task":{"id":"up-1",') == b""
    assert changing.feed(b'"status":{}}}\n') == b""
    assert changing.feed(b"\ndata: {") == b'data: {"task":{"id":"4a2-ours","status":{}}}\n\n'
    assert changing.end() == b"data: {"


def test_an_event_over_the_bound_is_passed_on_as_it_is() -> None:
    changing = names(most=20)
    long = b'data: {"task":{"id":"up-1","status":{}}}'
    assert changing.feed(long) == long
    assert changing.feed(b"\n\n") == b"\n\n"
    assert changing.feed(b"data: 1\n\n") == b"data: 1\n\n"


def test_an_event_written_over_several_lines_comes_out_as_one() -> None:
    said = update(THEIRS, metadata={"a": [1, {"b": "two\nlines"}]})
    stream = "".join(f"data: {line}\r\n" for line in json.dumps(said, indent=2).split("\n")) + "\r\n"
    lines = whole(stream.encode(), pieces=50).splitlines()
    assert [line[:6] for line in lines] == [b"data: ", b""]
    assert json.loads(lines[0].removeprefix(b"data: ")) == update(OURS, metadata=said["statusUpdate"]["metadata"])


@pytest.mark.parametrize("pieces", [1, 10_000])
def test_a_byte_order_mark_hides_no_event(pieces: int) -> None:
    stream = "\ufeff" + "".join(f"data: {json.dumps(update(THEIRS))}\n\n" for _ in range(2))
    changed = whole(stream.encode(), pieces=pieces)
    assert (changed[:3], changed.count(OURS.encode()), changed.count(THEIRS.encode())) == (b"\xef\xbb\xbf", 2, 0)


def test_every_event_is_told_as_the_client_gets_it() -> None:
    seen: list[bytes] = []
    said = f"data: {json.dumps(update(THEIRS))}\n\n: c\n\ndata: 1\n\n".encode()
    whole(said, pieces=1, seen=seen.append)
    assert [OURS.encode() in seen[0], seen[1]] == [True, b"1"]


@given(
    events=st.lists(
        st.builds(
            lambda field, text, end: f"{field}{text}{end}{end}".encode(),
            st.sampled_from(["data: ", ": ", "event: ", "data:", ""]),
            st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=30),
            st.sampled_from(["\n", "\r\n"]),
        ),
        max_size=8,
    ),
    pieces=st.integers(1, 40),
)
def test_a_stream_without_ids_comes_out_as_it_went_in(events: list[bytes], pieces: int) -> None:
    stream = b"".join(events)
    assert whole(stream, pieces=pieces) == stream
