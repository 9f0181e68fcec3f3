"""What is kept of an agent's answer to a deferred send."""

import json
from datetime import UTC, datetime

import pytest
from a2a.compat.v0_3 import a2a_v0_3_pb2, proto_utils, types
from a2a.types import a2a_pb2
from google.protobuf.json_format import MessageToDict, ParseDict
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.a2a import Call, KeptTask, Version, keep_answer, keep_task, read, send_answer, task_answer

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
MINE = "4a2aaaaa-0000-8000-8000-000000000001"


def rpc_call(method: str) -> Call:
    params = {"message": {"messageId": "m", "role": "user", "parts": []}}
    body = json.dumps({"jsonrpc": "2.0", "id": 9, "method": method, "params": params}).encode()
    return read("POST", "", None, "application/json", body)


OLD, NEW = rpc_call("message/send"), rpc_call("SendMessage")
OLD_REST = read("POST", "/v1/message:send", None, None, b'{"request":{"message_id":"m","content":[{"text":"x"}]}}')
NEW_REST = read("POST", "/message:send", "1.0", None, b'{"message":{"messageId":"m","parts":[{"text":"x"}]}}')


def keep(call: Call, answer: object, status: int = 200) -> KeptTask:
    body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    return keep_answer(call, status=status, body=body, task_id=MINE, context_id="mine", at=AT)


def result(value: object) -> dict[str, object]:
    return {"jsonrpc": "2.0", "id": 9, "result": value}


OLD_TASK = {
    "kind": "task",
    "id": "up",
    "contextId": "up-ctx",
    "status": {"state": "completed", "message": {"taskId": "up", "contextId": "up-ctx", "messageId": "a", "parts": []}},
    "history": [
        {"taskId": "up", "messageId": "h", "parts": [{"kind": "text", "text": "up"}], "metadata": {"taskId": "up"}}
    ],
    "artifacts": [{"artifactId": "up", "parts": [{"kind": "data", "data": {"taskId": "up", "n": 1.0}}]}],
    "metadata": {"taskId": "up"},
}


def test_a_task_is_kept_with_its_ids_mapped_and_nothing_else_touched():
    kept = keep(OLD, result(OLD_TASK))
    assert (kept.state, kept.terminal, kept.version) == ("completed", True, Version.V03)
    assert (kept.upstream_task_id, kept.upstream_context_id) == ("up", "up-ctx")
    expected = json.loads(json.dumps(OLD_TASK))
    expected |= {"id": MINE, "contextId": "mine"}
    expected["status"]["message"] |= {"taskId": MINE, "contextId": "mine"}
    expected["history"][0]["taskId"] = MINE
    assert json.loads(kept.task_json) == expected


@pytest.mark.parametrize(
    ("state", "terminal"),
    [
        ("submitted", False),
        ("working", False),
        ("input-required", False),
        ("auth-required", False),
        ("completed", True),
        ("failed", True),
        ("canceled", True),
        ("rejected", True),
    ],
)
def test_the_state_is_kept_in_neutral_words(state, terminal):
    new_state = "TASK_STATE_" + state.upper().replace("-", "_")
    old = keep(OLD, result({"kind": "task", "id": "up", "contextId": "mine", "status": {"state": state}}))
    new = keep(NEW, result({"task": {"id": "up", "contextId": "mine", "status": {"state": new_state}}}))
    assert (old.state, old.terminal) == (new.state, new.terminal) == (state, terminal)
    assert (old.upstream_task_id, old.upstream_context_id) == ("up", None)


def test_a_state_nobody_knows_keeps_the_task_open():
    kept = keep(OLD, result({"id": "up", "contextId": "mine", "status": {"state": "dancing"}}))
    assert (kept.state, kept.terminal, kept.upstream_task_id) == ("working", False, "up")


def test_an_agent_that_answers_in_the_other_version_is_understood():
    kept = keep(NEW, result({"kind": "task", "id": "up", "contextId": "mine", "status": {"state": "completed"}}))
    assert kept.version is Version.V03
    task = ParseDict(json.loads(task_answer(NEW, kept.task_json, kept.version))["result"], a2a_pb2.Task())
    assert task.status.state == a2a_pb2.TASK_STATE_COMPLETED


def test_an_agent_may_give_a_task_and_its_context_one_id():
    status = {"state": "working", "message": {"taskId": "same", "contextId": "same"}}
    kept = keep(OLD, result({"id": "same", "contextId": "same", "status": status}))
    task = json.loads(kept.task_json)
    assert (task["id"], task["contextId"]) == (MINE, "mine")
    assert task["status"]["message"] == {"taskId": MINE, "contextId": "mine"}


def test_a_task_without_context_is_given_the_callers():
    kept = keep(NEW, result({"task": {"id": "up", "status": {"state": "TASK_STATE_WORKING"}}}))
    assert json.loads(kept.task_json)["contextId"] == "mine"
    assert kept.upstream_context_id is None


def test_a_v03_message_becomes_a_completed_task_with_its_parts_in_one_artifact():
    parts = [{"kind": "text", "text": "done"}]
    message = {
        "kind": "message",
        "messageId": "a",
        "role": "agent",
        "contextId": "x",
        "parts": parts,
        "metadata": {"k": 1},
    }
    kept = keep(OLD, result(message))
    assert (kept.state, kept.terminal, kept.upstream_task_id, kept.upstream_context_id) == (
        "completed",
        True,
        None,
        "x",
    )
    task = types.Task.model_validate(json.loads(kept.task_json))
    assert (task.id, task.context_id, task.status.state) == (MINE, "mine", types.TaskState.completed)
    assert task.artifacts is not None
    assert [part.root.text for part in task.artifacts[0].parts] == ["done"]
    assert task.artifacts[0].metadata == {"k": 1}
    assert task.history is not None
    assert [said.message_id for said in task.history] == ["m"]


def test_a_v10_message_becomes_a_completed_task_with_its_parts_in_one_artifact():
    kept = keep(NEW, result({"message": {"messageId": "a", "role": "ROLE_AGENT", "parts": [{"text": "done"}]}}))
    answered = json.loads(send_answer(NEW, kept.task_json, kept.version))
    task = ParseDict(answered["result"], a2a_pb2.SendMessageResponse()).task
    assert (task.id, task.status.state) == (MINE, a2a_pb2.TASK_STATE_COMPLETED)
    assert task.artifacts[0].parts[0].text == "done"


def test_rest_answers_of_both_versions_are_kept():
    new = keep(NEW_REST, {"task": {"id": "up", "contextId": "mine", "status": {"state": "TASK_STATE_WORKING"}}})
    assert (new.state, new.version, new.upstream_task_id) == ("working", Version.V10, "up")
    old_task = proto_utils.ToProto.task(
        types.Task.model_validate(OLD_TASK | {"history": None, "status": {"state": "canceled"}})
    )
    old = keep(OLD_REST, {"task": MessageToDict(old_task)})
    assert (old.state, old.version, old.upstream_context_id) == ("canceled", Version.V03, "up-ctx")
    answer = ParseDict(
        json.loads(send_answer(OLD_REST, old.task_json, old.version)), a2a_v0_3_pb2.SendMessageResponse()
    )
    assert answer.task.status.state == a2a_v0_3_pb2.TASK_STATE_CANCELLED
    assert answer.task.artifacts[0].parts[0].data.data["n"] == 1.0
    said = keep(OLD_REST, {"message": {"message_id": "a", "role": "ROLE_AGENT", "content": [{"text": "done"}]}})
    assert json.loads(said.task_json)["artifacts"][0]["parts"] == [{"kind": "text", "text": "done"}]


@pytest.mark.parametrize(
    ("call", "answer", "status", "state", "text"),
    [
        (OLD, {"jsonrpc": "2.0", "id": 9, "error": {"code": -32603, "message": "boom"}}, 200, "failed", "boom"),
        (NEW, {"jsonrpc": "2.0", "id": 9, "error": {"code": -32602, "message": "bad"}}, 200, "rejected", "bad"),
        (
            NEW,
            {"jsonrpc": "2.0", "id": 9, "error": {"code": -32005, "message": "mode"}},
            400,
            "rejected",
            "HTTP 400: mode",
        ),
        (NEW, {"jsonrpc": "2.0", "id": 9, "error": {"code": -32000}}, 200, "failed", "error -32000"),
        (
            NEW_REST,
            {"error": {"code": 400, "message": "no", "details": [{"reason": "INVALID_PARAMS"}]}},
            400,
            "rejected",
            "no",
        ),
        (NEW_REST, {"error": {"code": 500, "message": "no"}}, 500, "failed", "HTTP 500: no"),
        (OLD_REST, {"type": "InvalidParamsError", "message": "no"}, 400, "rejected", "HTTP 400: no"),
        (OLD, {"error": "slow down"}, 429, "failed", "HTTP 429: slow down"),
        (OLD, b"<html>", 401, "failed", "HTTP 401"),
        (OLD, b"", 500, "failed", "HTTP 500"),
        (OLD, b"not json", 200, "failed", "neither a task nor a message"),
        (OLD, b'{"jsonrpc":"2.0","result":"\xff"}', 200, "failed", "neither a task nor a message"),
        (OLD, result(None), 200, "failed", "neither a task nor a message"),
        (NEW, result({"task": {"id": "up"}}), 200, "failed", "neither a task nor a message"),
        (NEW, {"queued": True}, 200, "failed", "neither a task nor a message"),
        (OLD, result(OLD_TASK), 503, "failed", "HTTP 503"),
    ],
)
def test_an_error_ends_the_task_with_its_reason(call, answer, status, state, text):
    kept = keep(call, answer, status)
    assert (kept.state, kept.terminal, kept.upstream_task_id) == (state, True, None)
    task = json.loads(kept.task_json)
    assert task["id"] == MINE
    assert text in task["status"]["message"]["parts"][0]["text"]


GET_OLD, GET_NEW = rpc_call("tasks/get"), rpc_call("GetTask")
GET_OLD_REST = read("GET", "/v1/tasks/t", None, None, b"")
GET_NEW_REST = read("GET", "/tasks/t", "1.0", None, b"")


@pytest.mark.parametrize(
    ("call", "answer", "version"),
    [
        (GET_OLD, result({"kind": "task", "id": MINE, "status": {"state": "working"}}), Version.V03),
        (GET_NEW, result({"id": MINE, "status": {"state": "TASK_STATE_WORKING"}}), Version.V10),
        (GET_OLD_REST, {"id": MINE, "status": {"state": "TASK_STATE_WORKING"}}, Version.V03),
        (GET_NEW_REST, {"id": MINE, "status": {"state": "TASK_STATE_WORKING"}}, Version.V10),
    ],
)
def test_the_task_an_agent_shows_replaces_the_one_that_was_kept(call, answer, version):
    kept = keep_task(call, json.dumps(answer).encode())
    assert kept is not None
    assert (kept.state, kept.terminal, kept.version) == ("working", False, version)
    shown = json.loads(task_answer(GET_NEW, kept.task_json, kept.version))["result"]
    assert shown["status"] == {"state": "TASK_STATE_WORKING"}


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"<html>",
        b'{"jsonrpc":"2.0","id":1,"error":{"code":-32001,"message":"Task not found"}}',
        b'{"error":{"code":404,"message":"Task not found"}}',
        b'{"jsonrpc":"2.0","id":1,"result":null}',
        b'{"jsonrpc":"2.0","id":1,"result":{"messageId":"m","parts":[]}}',
    ],
)
def test_an_answer_that_shows_no_task_replaces_nothing(answer):
    assert keep_task(GET_NEW, answer) is None
    assert keep_task(GET_NEW_REST, answer) is None


words = st.sampled_from(
    ["jsonrpc", "result", "error", "task", "message", "id", "status", "state", "parts", "code", "contextId"]
)
shaped = st.recursive(
    st.none() | st.integers() | st.text(max_size=4) | st.just("working"),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(words, inner, max_size=5),
    max_leaves=15,
)


@given(
    st.sampled_from([OLD, NEW, OLD_REST, NEW_REST]),
    st.sampled_from([200, 202, 404]),
    st.binary(max_size=20) | shaped.map(lambda value: json.dumps(value).encode()),
)
def test_any_answer_leaves_a_task_under_the_callers_id_that_can_be_answered(call, status, body):
    kept = keep(call, body, status)
    task = json.loads(kept.task_json)
    assert (task["id"], task["contextId"]) == (MINE, "mine")
    json.loads(task_answer(call, kept.task_json, kept.version))
