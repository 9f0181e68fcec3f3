"""The two shapes of a task: what the SDK's own converter makes of them, and that nothing is lost on the way."""

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from a2a.compat.v0_3 import a2a_v0_3_pb2, conversions, proto_utils, types
from a2a.types import a2a_pb2
from google.protobuf.json_format import MessageToDict, ParseDict
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.a2a import Version, protojson03, shapes
from proxy.core.a2a import members as m

OLD_TASK = {
    "kind": "task",
    "id": "t",
    "contextId": "c",
    "status": {
        "state": "input-required",
        "timestamp": "2026-01-02T03:04:05.678Z",
        "message": {
            "kind": "message",
            "messageId": "q",
            "role": "agent",
            "taskId": "t",
            "contextId": "c",
            "parts": [{"kind": "text", "text": "which one?"}],
        },
    },
    "history": [
        {
            "kind": "message",
            "messageId": "m",
            "role": "user",
            "parts": [
                {"kind": "text", "text": "h\u00e9", "metadata": {"lang": "fr"}},
                {"kind": "file", "file": {"bytes": "aGk=", "mimeType": "text/plain", "name": "a.txt"}},
                {"kind": "file", "file": {"uri": "https://x/y"}, "metadata": {"k": [1.0]}},
                {"kind": "data", "data": {"a": [1.0, None, "x"]}},
                {"kind": "data", "data": {"value": [1.0]}, "metadata": {"data_part_compat": True}},
            ],
            "referenceTaskIds": ["r"],
            "extensions": ["urn:e"],
            "metadata": {"deep": {"er": True}},
        }
    ],
    "artifacts": [
        {
            "artifactId": "a",
            "name": "n",
            "description": "d",
            "parts": [{"kind": "text", "text": "out"}],
            "extensions": ["e"],
        }
    ],
    "metadata": {"x": "y"},
}


def convert(task: dict[str, object], have: Version, want: Version) -> dict[str, object]:
    given_task = m.members(json.dumps(task).encode())
    assert given_task is not None
    converted: dict[str, object] = json.loads(m.encode(shapes.to_version(given_task, have, want)))
    return converted


def test_v03_to_v10_is_what_the_sdk_makes_of_it():
    theirs = conversions.to_core_task(types.Task.model_validate(OLD_TASK))
    ours = ParseDict(convert(OLD_TASK, Version.V03, Version.V10), a2a_pb2.Task())
    assert ours == theirs


def test_v10_to_v03_is_what_the_sdk_makes_of_it():
    core = conversions.to_core_task(types.Task.model_validate(OLD_TASK))
    ours = types.Task.model_validate(convert(MessageToDict(core), Version.V10, Version.V03))
    assert ours.model_dump(exclude_none=True) == conversions.to_compat_task(core).model_dump(exclude_none=True)


def test_v03_over_rest_is_what_the_sdk_makes_of_it():
    task = json.loads(json.dumps(OLD_TASK))
    del task["history"][0]["parts"][1]  # the SDK encodes bytes in base64 twice, the proto says once
    del task["history"][0]["referenceTaskIds"]  # the v0.3 proto has none
    theirs = proto_utils.ToProto.task(types.Task.model_validate(task))
    ours = json.loads(m.encode(protojson03.task_to_rest(m.members(json.dumps(task).encode()) or {})))
    assert ParseDict(ours, a2a_v0_3_pb2.Task()) == theirs
    assert ours == MessageToDict(theirs)
    back = m.encode(protojson03.task_from_rest(m.members(json.dumps(MessageToDict(theirs)).encode()) or {}))
    assert json.loads(back) == task


def test_v03_over_rest_is_read_by_its_proto_names_too():
    theirs = proto_utils.ToProto.task(types.Task.model_validate(OLD_TASK))
    snake = MessageToDict(theirs, preserving_proto_field_name=True)
    back = json.loads(m.encode(protojson03.task_from_rest(m.members(json.dumps(snake).encode()) or {})))
    assert back["status"] == OLD_TASK["status"]
    assert back["history"][0]["messageId"] == "m"
    assert back["artifacts"] == OLD_TASK["artifacts"]


@pytest.mark.parametrize("state", shapes.STATES)
def test_every_state_has_its_name_in_every_shape(state):
    old = {"id": "t", "status": {"state": state}}
    new = {"id": "t", "status": {"state": shapes.state_name(state, Version.V10)}}
    assert convert(old, Version.V03, Version.V10) == new
    assert convert(new, Version.V10, Version.V03)["status"] == {"state": state}
    assert shapes.STATES[a2a_pb2.TaskState.Value(shapes.state_name(state, Version.V10))] == state
    assert types.TaskState(state)
    rest = protojson03.task_to_rest(m.members(json.dumps(old).encode()) or {})
    proto = ParseDict(json.loads(m.encode(rest)), a2a_v0_3_pb2.Task())
    assert proto.status.state == shapes.STATES.index(state)
    back = json.loads(m.encode(protojson03.task_from_rest(rest)))
    assert back["status"] == {"state": state}


@pytest.mark.parametrize(
    ("status", "version", "state"),
    [
        ({"state": "working"}, Version.V03, "working"),
        ({"state": "TASK_STATE_WORKING"}, Version.V10, "working"),
        ({"state": 2}, Version.V10, "working"),
        ({"state": "TASK_STATE_CANCELLED"}, Version.V10, "canceled"),
        ({"state": "dancing"}, None, "unknown"),
        ({"state": 99}, None, "unknown"),
        ({"state": None}, None, "unknown"),
        ({}, None, "unknown"),
    ],
)
def test_the_state_tells_the_version(status, version, state):
    task = m.members(json.dumps({"id": "t", "status": status}).encode())
    assert task is not None
    assert (shapes.version_of(task), shapes.state_of(task)) == (version, state)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("2026-01-02T03:04:05Z", "2026-01-02T03:04:05Z"),
        ("2026-01-02T03:04:05.123456789+02:00", "2026-01-02T03:04:05.123456789+02:00"),
        ("2026-01-02T03:04:05", "2026-01-02T03:04:05.000Z"),  # no zone: v0.3 servers mean UTC
        ("2026-01-02 03:04:05.5+00:00", "2026-01-02T03:04:05.500Z"),
        ("2026-13-02T03:04:05Z", None),
        ("yesterday", None),
        (5, None),
        (None, None),
    ],
)
def test_a_timestamp_becomes_one_that_protobuf_reads_or_goes(written, read):
    task = convert({"id": "t", "status": {"state": "working", "timestamp": written}}, Version.V03, Version.V10)
    assert task["status"] == {"state": "TASK_STATE_WORKING"} | ({} if read is None else {"timestamp": read})
    ParseDict(task, a2a_pb2.Task())


def test_v10_may_omit_what_v03_demands():
    old = convert({"id": "t"}, Version.V10, Version.V03)
    assert old == {"kind": "task", "id": "t", "contextId": "", "status": {"state": "unknown"}}
    types.Task.model_validate(old)


def test_proto_names_numbers_and_nulls_of_protojson_are_understood():
    new = {
        "id": "t",
        "context_id": "c",
        "metadata": None,
        "status": {"state": 3},
        "history": [{"message_id": "m", "role": 1, "parts": [{"url": "u", "media_type": "t/x"}, {"data": None}]}],
    }
    old = types.Task.model_validate(convert(new, Version.V10, Version.V03))
    theirs = conversions.to_compat_task(ParseDict(new, a2a_pb2.Task()))
    assert old.model_dump(exclude_none=True) == theirs.model_dump(exclude_none=True)


def test_times_are_written_in_utc_with_milliseconds():
    east = datetime(2026, 1, 2, 3, 4, 5, 678_999, tzinfo=timezone(timedelta(hours=2)))
    assert shapes.stamp(east) == "2026-01-02T01:04:05.678Z"
    assert shapes.stamp(datetime(2026, 1, 2, tzinfo=UTC)) == "2026-01-02T00:00:00.000Z"


scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=6)
)
free = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
objects = st.dictionaries(st.text(max_size=6), free, max_size=3)


def with_some(required: dict[str, st.SearchStrategy], optional: dict[str, st.SearchStrategy]) -> st.SearchStrategy:
    return st.fixed_dictionaries(required, optional=optional)


old_files = with_some({}, {"mimeType": st.text(max_size=5), "name": st.text(max_size=5)}).flatmap(
    lambda file: st.sampled_from(["bytes", "uri"]).map(lambda way: file | {way: "eA=="})
)
old_parts = st.one_of(
    with_some({"kind": st.just("text"), "text": st.text(max_size=9)}, {"metadata": objects, "mediaType": st.text()}),
    with_some({"kind": st.just("file"), "file": old_files}, {"metadata": objects}),
    with_some({"kind": st.just("data"), "data": objects}, {"metadata": objects}),
)
old_messages = with_some(
    {
        "kind": st.just("message"),
        "messageId": st.text(max_size=5),
        "role": st.sampled_from(["user", "agent"]),
        "parts": st.lists(old_parts, max_size=3),
    },
    {
        "contextId": st.text(),
        "taskId": st.text(),
        "referenceTaskIds": st.lists(st.text()),
        "metadata": objects,
        "own": free.filter(lambda v: v is not None),
    },
)
old_artifacts = with_some(
    {"artifactId": st.text(max_size=5), "parts": st.lists(old_parts, max_size=2)},
    {"name": st.text(), "metadata": objects},
)
old_tasks = with_some(
    {
        "kind": st.just("task"),
        "id": st.text(max_size=5),
        "contextId": st.text(max_size=5),
        "status": with_some(
            {"state": st.sampled_from(shapes.STATES)},
            {"message": old_messages, "timestamp": st.datetimes(timezones=st.just(UTC)).map(shapes.stamp)},
        ),
    },
    {
        "history": st.lists(old_messages, max_size=2),
        "artifacts": st.lists(old_artifacts, max_size=2),
        "metadata": objects,
    },
)


@given(old_tasks)
def test_there_and_back_loses_nothing(task):
    new = convert(task, Version.V03, Version.V10)
    assert "kind" not in new
    assert convert(new, Version.V10, Version.V03) == task


@given(old_tasks)
def test_there_and_back_over_rest_loses_nothing_but_references(task):
    for message in (task["status"].get("message", {}), *task.get("history", ())):
        message.pop("referenceTaskIds", None)
    rest = protojson03.task_to_rest(m.members(json.dumps(task).encode()) or {})
    assert json.loads(m.encode(protojson03.task_from_rest(rest))) == task


@given(st.dictionaries(st.sampled_from(["id", "status", "history", "artifacts", "parts", "kind", "metadata"]), free))
def test_no_task_is_too_odd_to_convert(task):
    for have, want in ((Version.V03, Version.V10), (Version.V10, Version.V03)):
        json.dumps(convert(task, have, want))
    json.loads(m.encode(protojson03.task_from_rest(m.members(json.dumps(task).encode()) or {})))


def test_metadata_and_data_keep_their_bytes():
    odd = b'{"n":1.0e2,"big":123456789012345678901234567890,"n":2, "s":"\\u00e9"}'
    body = (
        b'{"id":"t","status":{"state":"working"},"metadata":'
        + odd
        + b',"history":[{"role":"user","parts":[{"kind":"data","data":'
        + odd
        + b"}]}]}"
    )
    made = m.encode(shapes.task_to_v10(m.members(body) or {}))
    assert made.count(odd) == 2
