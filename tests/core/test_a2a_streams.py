"""What an agent's stream events become for the caller of a deferred send."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core import a2a

AT = datetime(2026, 6, 1, 12, tzinfo=UTC)
OURS, CONTEXT = "4a200000-0000-8000-8000-000000000001", "talk"
RPC03 = {"jsonrpc": "2.0", "id": "r-1", "method": "message/stream"}
RPC10 = {"jsonrpc": "2.0", "id": 7, "method": "SendStreamingMessage"}
MESSAGE03 = {"kind": "message", "messageId": "m", "role": "user", "parts": [{"kind": "text", "text": "hi"}]}
MESSAGE10 = {"messageId": "m", "role": "ROLE_USER", "parts": [{"text": "hi"}]}


def call(kind: str) -> a2a.Call:
    """A streamed send in one of the four wire forms."""
    body: dict[str, Any]
    if kind == "rpc03":
        body = {**RPC03, "params": {"message": MESSAGE03}}
        return a2a.read("POST", "", None, "application/json", json.dumps(body).encode())
    if kind == "rpc10":
        body = {**RPC10, "params": {"message": MESSAGE10}}
        return a2a.read("POST", "", "1.0", "application/json", json.dumps(body).encode())
    if kind == "rest10":
        body = {"message": MESSAGE10}
        return a2a.read("POST", "/message:stream", "1.0", "application/json", json.dumps(body).encode())
    body = {"message": {"messageId": "m", "role": "ROLE_USER", "content": [{"text": "hi"}]}}
    return a2a.read("POST", "/v1/message:stream", None, "application/json", json.dumps(body).encode())


def narrator(kind: str) -> a2a.Narrator:
    return a2a.Narrator(call(kind), task_id=OURS, context_id=CONTEXT)


def event(kind: str, item: dict[str, Any]) -> bytes:
    """An event as the agent of that wire form tells it."""
    if kind.startswith("rpc"):
        return json.dumps({"jsonrpc": "2.0", "id": 1, "result": item}).encode()
    return json.dumps(item).encode()


def status(kind: str, state: str, **more: Any) -> bytes:
    """A status update; `state` is neutral."""
    ids = {"taskId": "up", "contextId": "their-talk"}
    if kind == "rpc03":
        said = {"kind": "status-update", **ids, "status": {"state": state, **more}, "final": state == "completed"}
        return event(kind, said)
    return event(kind, {"statusUpdate": {**ids, "status": {"state": f"TASK_STATE_{state.upper()}", **more}}})


def artifact(kind: str, text: str, *, append: bool = False, name: str = "a") -> bytes:
    ids = {"taskId": "up", "contextId": "their-talk"}
    part = {"kind": "text", "text": text} if kind == "rpc03" else {"text": text}
    said = {**ids, "artifact": {"artifactId": name, "parts": [part]}, "append": append}
    if kind == "rpc03":
        return event(kind, {"kind": "artifact-update", **said})
    return event(kind, {"artifactUpdate": said})


def task(kind: str, state: str, *texts: str) -> bytes:
    """A task with an artifact that has these texts, if there are any."""
    parts = [{"kind": "text", "text": text} if kind == "rpc03" else {"text": text} for text in texts]
    said: dict[str, Any] = {"id": "up", "contextId": "their-talk"}
    said["status"] = {"state": state if kind == "rpc03" else f"TASK_STATE_{state.upper()}"}
    if parts:
        said["artifacts"] = [{"artifactId": "a", "parts": parts}]
    return event(kind, {"kind": "task", **said} if kind == "rpc03" else {"task": said})


def shown(kind: str, updates: Any, *, final: bool = False) -> list[Any]:
    """What the caller of that wire form reads."""
    made = [
        a2a.update_item(call(kind), update, task_id=OURS, context_id=CONTEXT, final=final and update is updates[-1])
        for update in updates
    ]
    return [json.loads(item) for item in made]


def unwrapped(kind: str, item: Any) -> tuple[str, Any]:
    """An item as (status or artifact, update), whichever wire form it has."""
    said = item["result"] if kind.startswith("rpc") else item
    if kind == "rpc03":
        return said["kind"].removesuffix("-update"), said
    ((name, inner),) = said.items()
    return name.removesuffix("Update"), inner


KINDS = ["rpc03", "rpc10", "rest03", "rest10"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_story_is_told_in_updates_under_the_callers_ids(kind: str) -> None:
    told = narrator(kind)
    seen = []
    events = [
        task(kind, "submitted"),
        status(kind, "working"),
        artifact(kind, "one"),
        artifact(kind, "two", append=True),
        status(kind, "completed"),
    ]
    for number, said in enumerate(events, 1):
        seen += [unwrapped(kind, item) for item in shown(kind, told.tell(number, said, AT))]
    assert [name for name, _ in seen] == ["status", "artifact", "artifact", "status"]
    assert {(said["taskId"], said["contextId"]) for _, said in seen} == {(OURS, CONTEXT)}
    assert [said.get("append", False) for name, said in seen if name == "artifact"] == [False, True]


@pytest.mark.parametrize(
    ("kind", "part"),
    [
        ("rpc03", {"kind": "text", "text": "x"}),
        ("rpc10", {"text": "x"}),
        ("rest03", {"text": "x"}),
        ("rest10", {"text": "x"}),
    ],
)
def test_a_message_is_an_artifact_and_completed(kind: str, part: dict[str, Any]) -> None:
    said: dict[str, Any] = {"messageId": "m2", "role": "ROLE_AGENT", "parts": [part]}
    if kind == "rpc03":
        said |= {"kind": "message", "role": "agent"}
        body = event(kind, said)
    elif kind == "rest03":
        body = event(kind, {"msg": {"messageId": "m2", "role": "ROLE_AGENT", "content": [part]}})
    else:
        body = event(kind, {"message": said})
    items = [unwrapped(kind, item) for item in shown(kind, narrator(kind).tell(1, body, AT), final=True)]
    assert [name for name, _ in items] == ["artifact", "status"]
    assert items[0][1]["artifact"]["parts"] == [part]
    assert items[1][1]["status"]["state"] in {"completed", "TASK_STATE_COMPLETED"}
    assert items[1][1].get("final") is (True if kind.endswith("03") else None)


def test_items_have_the_callers_own_json_rpc_id_type_included() -> None:
    updates = narrator("rpc10").tell(1, status("rpc10", "working"), AT)
    assert shown("rpc10", updates)[0]["id"] == 7
    assert shown("rpc03", updates)[0]["id"] == "r-1"


@pytest.mark.parametrize("theirs", KINDS)
@pytest.mark.parametrize("ours", KINDS)
def test_every_reader_is_told_in_its_own_shape(theirs: str, ours: str) -> None:
    """A subscription may come in another version or binding than the send."""
    told = narrator(theirs)
    message: dict[str, Any] = {"messageId": "x", "role": "ROLE_AGENT", "taskId": "up", "contextId": "their-talk"}
    message |= {"content" if theirs == "rest03" else "parts": [{"text": "hm"}]}
    if theirs == "rpc03":
        message |= {"kind": "message", "role": "agent", "parts": [{"kind": "text", "text": "hm"}]}
    (item,) = shown(ours, told.tell(1, status(theirs, "working", message=message), AT))
    name, said = unwrapped(ours, item)
    assert name == "status"
    assert said["status"]["state"] == ("working" if ours == "rpc03" else "TASK_STATE_WORKING")
    inner = said["status"]["message"]
    assert (inner["taskId"], inner["contextId"]) == (OURS, CONTEXT)
    assert inner["content" if ours == "rest03" else "parts"][0]["text"] == "hm"
    assert inner["role"] == ("agent" if ours == "rpc03" else "ROLE_AGENT")


def test_a_second_task_tells_only_what_was_not_told() -> None:
    told = narrator("rpc10")
    told.tell(1, artifact("rpc10", "one"), AT)
    told.tell(2, artifact("rpc10", "two", append=True), AT)
    again = told.tell(3, task("rpc10", "working", "one", "two"), AT)
    assert [update.status is not None for update in again] == [True]
    more = told.tell(4, task("rpc10", "working", "one", "two", "three"), AT)
    assert [(update.artifact is not None, update.append) for update in more] == [(True, False)]


@pytest.mark.parametrize("said", [b"no event", b"{}", b"[]", b'{"jsonrpc":"2.0","id":1,"result":{"x":1}}', b""])
def test_nothing_is_told_of_what_is_no_event(said: bytes) -> None:
    told = narrator("rpc10")
    assert list(told.tell(1, said, AT)) == []
    assert told.state == "submitted"


def test_an_error_ends_the_task() -> None:
    said = {"jsonrpc": "2.0", "id": 1, "error": {"code": -32603, "message": "it broke"}}
    (update,) = narrator("rpc10").tell(1, json.dumps(said).encode(), AT)
    (item,) = shown("rpc10", [update])
    assert item["result"]["statusUpdate"]["status"]["state"] == "TASK_STATE_FAILED"
    assert "it broke" in json.dumps(item)


def test_the_end_is_told_from_the_kept_task() -> None:
    told = narrator("rpc03")
    told.tell(1, artifact("rpc03", "one"), AT)
    kept = json.loads(task("rpc03", "failed", "one", "two"))["result"]
    items = [
        unwrapped("rpc03", item)
        for item in shown("rpc03", told.closing(json.dumps(kept).encode(), a2a.Version.V03), final=True)
    ]
    assert [(name, said.get("final")) for name, said in items] == [("artifact", None), ("status", True)]
    assert str(told.told) == "1+2.2"


def test_what_was_told_already_is_not_told_again_at_the_end() -> None:
    told = narrator("rpc10")
    told.tell(1, artifact("rpc10", "one"), AT)
    told.tell(2, status("rpc10", "completed"), AT)
    kept = json.dumps(json.loads(task("rpc10", "completed", "one"))["result"]["task"]).encode()
    assert [update.status is not None for update in told.closing(kept, a2a.Version.V10)] == [True]


def test_what_callers_and_agents_wrote_freely_is_not_touched() -> None:
    said = {"statusUpdate": {"taskId": "up", "contextId": "c", "status": {"state": "TASK_STATE_WORKING"}}}
    said["statusUpdate"]["metadata"] = {"taskId": "up", "n": 1.50}
    updates = narrator("rpc10").tell(1, json.dumps({"jsonrpc": "2.0", "result": said}).encode(), AT)
    (item,) = shown("rpc10", updates)
    assert item["result"]["statusUpdate"]["metadata"] == {"taskId": "up", "n": 1.50}


@pytest.mark.parametrize("text", ["", "1", "1.1", "a.1.1", "1.1.1\n", "-1.1.1", "1.1.1.1", "٣.1.1", "9" * 16 + ".1.1"])
def test_other_texts_are_no_places(text: str) -> None:
    assert a2a.read_place(text) is None


@given(st.integers(0, 10**12), st.booleans(), st.integers(1, 1000), st.integers(1, 1000))
def test_a_place_is_read_as_it_was_written(number: int, closing: bool, item: int, items: int) -> None:
    place = a2a.Place(number, closing, item, items)
    assert a2a.read_place(str(place)) == place


TOLD = st.sampled_from(
    [
        task("rpc10", "submitted"),
        task("rpc10", "working", "one"),
        task("rpc10", "working", "one", "two"),
        status("rpc10", "working"),
        artifact("rpc10", "one"),
        artifact("rpc10", "two", append=True),
        artifact("rpc10", "else", name="b"),
        b"no event",
        b"{}",
    ]
)


@given(st.lists(TOLD, max_size=12), st.data())
def test_a_story_told_again_has_the_same_updates_at_the_same_places(events: list[bytes], data: st.DataObject) -> None:
    def whole() -> list[a2a.Update]:
        told = narrator("rpc10")
        return [update for number, said in enumerate(events, 1) for update in told.tell(number, said, AT)]

    first, second = whole(), whole()
    assert first == second
    places = [update.place for update in first]
    assert places == sorted(places)
    assert len(set(places)) == len(places)
    split = data.draw(st.integers(0, len(places)))
    place = places[split - 1] if split else a2a.BEGINNING
    assert [update for update in second if update.place > place] == first[split:]


@pytest.mark.parametrize("kind", KINDS)
def test_the_kept_task_and_the_story_say_the_same(kind: str) -> None:
    """What is kept of the events leaves nothing but the status to tell at the end, files included."""
    file = {
        "rpc03": {"kind": "file", "file": {"uri": "http://x/", "mimeType": "text/plain", "name": "x"}},
        "rest03": {"file": {"fileWithUri": "http://x/", "mimeType": "text/plain", "name": "x"}},
    }.get(kind, {"url": "http://x/", "mediaType": "text/plain", "filename": "x"})
    said = {"taskId": "up", "contextId": "their-talk", "artifact": {"artifactId": "a", "parts": [file]}}
    update = {"kind": "artifact-update", **said} if kind == "rpc03" else {"artifactUpdate": said}
    send = call(kind)
    first = a2a.KeptTask(
        task_json=a2a.submitted_task(send, task_id=OURS, context_id=CONTEXT, at=AT, text=""),
        version=send.version,
        state="submitted",
        terminal=False,
        upstream_task_id=None,
        upstream_context_id=None,
    )
    task, told = a2a.TaskSoFar(send, first, task_id=OURS, context_id=CONTEXT), narrator(kind)
    for number, body in enumerate([event(kind, update), status(kind, "completed")], 1):
        assert task.hear(body, AT)
        told.tell(number, body, AT)
    kept = task.kept()
    (last,) = told.closing(kept.task_json, kept.version)
    assert last.status is not None
    (shown_file,) = json.loads(a2a.send_answer(call("rest10"), kept.task_json, kept.version))["task"]["artifacts"]
    assert shown_file["parts"] == [{"url": "http://x/", "mediaType": "text/plain", "filename": "x"}]
