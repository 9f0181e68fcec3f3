"""What stream events make of a caller's task, in both versions."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from proxy.core import a2a
from proxy.core.a2a import KeptTask, Version

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)


def call_of(version: Version, *, streaming: bool = False) -> a2a.Call:
    method = {
        (Version.V10, False): "SendMessage",
        (Version.V10, True): "SendStreamingMessage",
        (Version.V03, False): "message/send",
        (Version.V03, True): "message/stream",
    }[version, streaming]
    part = {"text": "hello"} if version is Version.V10 else {"kind": "text", "text": "hello"}
    message = {"messageId": "m", "role": "ROLE_USER" if version is Version.V10 else "user", "parts": [part]}
    body = json.dumps({"jsonrpc": "2.0", "id": "r", "method": method, "params": {"message": message}}).encode()
    return a2a.read("POST", "", version.value, "application/json", body)


def submitted(call: a2a.Call) -> KeptTask:
    said = a2a.submitted_task(call, task_id="ours", context_id="talk", at=AT, text="stored")
    return KeptTask(
        task_json=said,
        version=call.version,
        state="submitted",
        terminal=False,
        upstream_task_id=None,
        upstream_context_id=None,
    )


def after(call: a2a.Call, *events: Any) -> KeptTask:
    """The task after these events, each in a JSON-RPC envelope as servers send them."""
    task = begun(call)
    for event in events:
        assert task.hear(wrapped(event), AT), event
    return task.kept()


def begun(call: a2a.Call, task: KeptTask | None = None) -> a2a.TaskSoFar:
    return a2a.TaskSoFar(call, task or submitted(call), task_id="ours", context_id="talk")


def wrapped(event: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": "theirs", "result": event}).encode()


def shown(task: KeptTask) -> dict[str, Any]:
    return dict(json.loads(task.task_json))


V10_TASK = {"task": {"id": "up", "contextId": "talk", "status": {"state": "TASK_STATE_WORKING"}}}
V03_TASK = {"kind": "task", "id": "up", "contextId": "talk", "status": {"state": "working"}}


def status(version: Version, state: str, text: str = "") -> dict[str, Any]:
    if version is Version.V10:
        message = {"messageId": text, "role": "ROLE_AGENT", "parts": [{"text": text}], "taskId": "up"}
        said: dict[str, Any] = {"state": f"TASK_STATE_{state.upper()}", **({"message": message} if text else {})}
        return {"statusUpdate": {"taskId": "up", "contextId": "talk", "status": said}}
    message = {"kind": "message", "messageId": text, "role": "agent", "parts": [{"kind": "text", "text": text}]}
    said = {"state": state, **({"message": message} if text else {})}
    return {"kind": "status-update", "taskId": "up", "contextId": "talk", "status": said, "final": state == "completed"}


def artifact(version: Version, text: str, *, append: bool = False, name: str = "a") -> dict[str, Any]:
    part = {"text": text} if version is Version.V10 else {"kind": "text", "text": text}
    update = {"taskId": "up", "contextId": "talk", "artifact": {"artifactId": name, "parts": [part]}, "append": append}
    return {"artifactUpdate": update} if version is Version.V10 else {"kind": "artifact-update", **update}


@pytest.mark.parametrize("version", list(Version))
def test_a_whole_stream_becomes_the_caller_s_task(version: Version) -> None:
    call = call_of(version)
    task = after(
        call,
        V10_TASK if version is Version.V10 else V03_TASK,
        artifact(version, "one"),
        artifact(version, "two", append=True),
        artifact(version, "other", name="b"),
        status(version, "working", "thinking"),
        status(version, "completed"),
    )
    assert (task.state, task.terminal, task.upstream_task_id, task.version) == ("completed", True, "up", version)
    said = shown(task)
    assert (said["id"], said["contextId"]) == ("ours", "talk")
    assert [part["text"] for part in said["artifacts"][0]["parts"]] == ["one", "two"]
    assert [part["text"] for part in said["artifacts"][1]["parts"]] == ["other"]
    assert [entry["messageId"] for entry in said["history"]][-1] == "thinking"
    assert said["history"][-1].get("taskId", "ours") == "ours"


@pytest.mark.parametrize("version", list(Version))
def test_an_artifact_that_comes_again_takes_the_place_of_the_last_one(version: Version) -> None:
    said = shown(after(call_of(version), artifact(version, "draft"), artifact(version, "final")))
    assert [[part["text"] for part in each["parts"]] for each in said["artifacts"]] == [["final"]]


@pytest.mark.parametrize("version", list(Version))
def test_updates_without_a_first_task_build_on_what_holdfast_promised(version: Version) -> None:
    task = after(call_of(version), status(version, "working"), artifact(version, "x"))
    said = shown(task)
    assert (said["id"], task.state, task.upstream_task_id) == ("ours", "working", "up")
    assert "stored" not in json.dumps(said)


def test_events_of_the_other_version_are_understood() -> None:
    task = after(call_of(Version.V03), V10_TASK, status(Version.V10, "completed"))
    assert (task.version, task.state) == (Version.V10, "completed")


def test_another_context_of_the_agent_s_is_remembered() -> None:
    update = {"statusUpdate": {"taskId": "up", "contextId": "theirs", "status": {"state": "TASK_STATE_WORKING"}}}
    task = after(call_of(Version.V10), update)
    assert (task.upstream_context_id, shown(task)["contextId"]) == ("theirs", "talk")


def test_an_event_without_its_envelope_is_an_event() -> None:
    call = call_of(Version.V10)
    task = begun(call)
    assert task.hear(json.dumps(V10_TASK).encode(), AT)
    assert task.state == "working"


def test_a_message_completes_and_an_error_fails_the_task() -> None:
    call = call_of(Version.V10)
    message = {"message": {"messageId": "x", "role": "ROLE_AGENT", "parts": [{"text": "done"}]}}
    assert after(call, V10_TASK, message).upstream_task_id == "up"
    assert after(call, message).state == "completed"
    error = b'{"jsonrpc":"2.0","id":1,"error":{"code":-32603,"message":"broke"}}'
    task = begun(call)
    assert not task.hear(error, AT, errors=False)
    assert (task.state, task.terminal) == ("submitted", False)
    assert task.hear(error, AT)
    assert (task.state, task.terminal) == ("failed", True)


@pytest.mark.parametrize(
    "event", [b"", b"hello", b"[]", b"{}", b'{"jsonrpc":"2.0","result":{}}', b'{"text":"hi"}', b"\xff", b"{" * 9000]
)
def test_what_is_no_event_is_told_apart(event: bytes) -> None:
    call = call_of(Version.V10)
    task = begun(call)
    assert not task.hear(event, AT)
    assert task.kept() == submitted(call)


def test_the_answer_of_a_stream_is_the_stream_or_the_task_that_came_out_of_it() -> None:
    call = call_of(Version.V10)
    task = after(call, V10_TASK, status(Version.V10, "completed"))
    kind, body = a2a.streamed_answer(call, task, [b'{"a":1}'])
    assert kind == b"application/json"
    assert json.loads(body)["result"]["task"] == shown(task)
    assert json.loads(body)["id"] == "r"
    kind, body = a2a.streamed_answer(call_of(Version.V10, streaming=True), task, [b'{"a":1}', b"two\nlines"])
    assert (kind, body) == (b"text/event-stream", b'data: {"a":1}\n\ndata: two\ndata: lines\n\n')
