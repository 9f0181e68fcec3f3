"""A task that grows with its stream is what it would be if it were read anew for every event."""

import json
from datetime import UTC, datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from proxy.core import a2a
from proxy.core.a2a import KeptTask, TaskSoFar, Version
from proxy.core.a2a import members as m
from proxy.core.a2a.growing import GrowingList, GrowingTask

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
SEND = b"""{"jsonrpc": "2.0", "id": 1, "method": "SendStreamingMessage",
    "params": {"message": {"messageId": "m", "role": "ROLE_USER", "parts": [{"text": "hello"}]}}}"""
CALL = a2a.read("POST", "", "1.0", "application/json", SEND)

PART = st.sampled_from([{"text": "a"}, {"text": 'é"'}, {"data": {"n": 1.5}}, {"kind": "text", "text": "old"}, None, 7])
ARTIFACT = st.fixed_dictionaries(
    {"artifactId": st.sampled_from(["a", "b", None])},
    optional={
        "parts": st.one_of(st.lists(PART, max_size=3), st.sampled_from([None, "none"])),
        "name": st.sampled_from(["one", "two", None]),
        "metadata": st.dictionaries(st.sampled_from("kl"), st.integers(0, 3), max_size=2),
    },
)
STATUS = st.fixed_dictionaries(
    {"state": st.sampled_from(["TASK_STATE_WORKING", "TASK_STATE_INPUT_REQUIRED", "working", "odd"])},
    optional={"message": st.fixed_dictionaries({"messageId": st.sampled_from("xyz"), "parts": st.lists(PART)})},
)
IDS = {"taskId": st.just("up"), "contextId": st.sampled_from(["talk", "theirs"])}
ARTIFACT_UPDATE = st.fixed_dictionaries({**IDS, "artifact": ARTIFACT, "append": st.booleans()})
STATUS_UPDATE = st.fixed_dictionaries({**IDS, "status": STATUS})
TASK = st.fixed_dictionaries(
    {"id": st.just("up"), "status": STATUS, "artifacts": st.lists(ARTIFACT, max_size=2), "history": st.lists(PART)}
)
EVENT = st.one_of(
    st.builds(lambda update: {"artifactUpdate": update}, ARTIFACT_UPDATE),
    st.builds(lambda update: {"kind": "artifact-update", **update}, ARTIFACT_UPDATE),
    st.builds(lambda update: {"statusUpdate": update}, STATUS_UPDATE),
    st.builds(lambda task: {"task": task}, TASK),
    st.just({"noise": 1}),
)


def begun(task: KeptTask | None = None) -> TaskSoFar:
    first = KeptTask(
        task_json=a2a.submitted_task(CALL, task_id="ours", context_id="talk", at=AT, text="stored"),
        version=Version.V10,
        state="submitted",
        terminal=False,
        upstream_task_id=None,
        upstream_context_id=None,
    )
    return TaskSoFar(CALL, task or first, task_id="ours", context_id="talk")


def wire(event: dict[str, Any]) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": 1, "result": event}).encode()


@given(st.lists(st.tuples(EVENT, st.booleans(), st.one_of(st.none(), EVENT)), max_size=20))
def test_what_grows_is_what_is_read_anew(story: list[tuple[dict[str, Any], bool, dict[str, Any] | None]]) -> None:
    growing, anew = begun(), begun()
    for event, look, discarded in story:
        draft = growing.copy()
        if discarded is not None:  # a draft that was not written leaves no trace
            draft.hear(wire(discarded), AT)
            draft.kept()
            draft = growing.copy()
        heard = draft.hear(wire(event), AT)
        anew = begun(anew.kept())
        assert heard == anew.hear(wire(event), AT)
        if discarded is not None:
            growing.hear(wire(discarded), AT)  # nor does the one that was copied
        growing = draft
        if look:
            assert growing.kept() == anew.kept()
    assert growing.kept() == anew.kept()


def test_what_is_not_touched_keeps_its_bytes() -> None:
    untouched = b'{ "artifactId" : "b", "n": 1.50e3, "parts": [ ] }'
    known = m.members(b'{"id":"t","artifacts":[{"artifactId":"a"}, ' + untouched + b', 7],"history":[ 1 ],"more":1.0}')
    assert known is not None
    task = GrowingTask(known)
    task.take_artifact({"artifactId": Raw(b'"a"'), "parts": Raw(b'[{"text":"x"}]')}, append=True)
    assert m.encode(task.members()) == (
        b'{"id":"t","artifacts":[{"artifactId":"a","parts":[{"text":"x"}]},'
        + untouched
        + b',7],"history":[ 1 ],"more":1.0}'
    )


def test_a_list_grows_apart_from_its_copy() -> None:
    listed = GrowingList(Raw(b"[1, 2]"))
    other = listed.copy()
    listed.add([Raw(b'"three"')])
    assert (bytes(listed.raw()), bytes(other.raw())) == (b'[1,2,"three"]', b"[1,2]")
    assert [bytes(GrowingList(value).raw()) for value in (None, Raw(b"{}"), Raw(b"[ ]"))] == [b"[]"] * 3
