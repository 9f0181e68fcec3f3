"""Where ids stand, and that nothing else is touched."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.a2a import Call, read, rename_answer, rename_tail, rename_task, with_context

MAPPING = {"mine": "theirs", "my-ctx": "their-ctx"}
FREE = {"taskId": "mine", "id": "mine", "contextId": "my-ctx", "text": "mine", "name": "tasks/mine"}
PARTS = [{"text": "mine", "data": FREE, "raw": "mine", "metadata": FREE, "taskId": "mine"}]


def rpc_body(method: str, params: object) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": "mine", "method": method, "params": params}).encode()


def in_request(body: bytes, tail: str = "", verb: str = "POST") -> object:
    call = read(verb, tail, None, "application/json", body)
    return json.loads(rename_task(body, call, MAPPING))


@pytest.mark.parametrize(
    ("method", "params", "renamed"),
    [
        ("tasks/get", {"id": "mine"}, {"id": "theirs"}),
        ("GetTask", {"id": "mine", "historyLength": 3}, {"id": "theirs", "historyLength": 3}),
        ("tasks/cancel", {"id": "mine", "metadata": FREE}, {"id": "theirs", "metadata": FREE}),
        ("CancelTask", {"id": "mine"}, {"id": "theirs"}),
        ("tasks/resubscribe", {"id": "mine"}, {"id": "theirs"}),
        ("SubscribeToTask", {"id": "mine"}, {"id": "theirs"}),
        (
            "tasks/pushNotificationConfig/set",
            {"taskId": "mine", "pushNotificationConfig": {"id": "mine", "token": "mine"}},
            {"taskId": "theirs", "pushNotificationConfig": {"id": "mine", "token": "mine"}},
        ),
        (
            "tasks/pushNotificationConfig/get",
            {"id": "mine", "pushNotificationConfigId": "mine"},
            {"id": "theirs", "pushNotificationConfigId": "mine"},
        ),
        ("tasks/pushNotificationConfig/list", {"id": "mine"}, {"id": "theirs"}),
        ("tasks/pushNotificationConfig/delete", {"id": "mine"}, {"id": "theirs"}),
        ("CreateTaskPushNotificationConfig", {"taskId": "mine", "id": "mine"}, {"taskId": "theirs", "id": "mine"}),
        ("GetTaskPushNotificationConfig", {"taskId": "mine", "id": "mine"}, {"taskId": "theirs", "id": "mine"}),
        ("DeleteTaskPushNotificationConfig", {"task_id": "mine", "id": "mine"}, {"task_id": "theirs", "id": "mine"}),
        ("ListTasks", {"contextId": "my-ctx", "pageToken": "mine"}, {"contextId": "their-ctx", "pageToken": "mine"}),
        (
            "SendMessage",
            {
                "message": {
                    "messageId": "mine",
                    "taskId": "mine",
                    "contextId": "my-ctx",
                    "referenceTaskIds": ["other", "mine"],
                    "parts": PARTS,
                    "metadata": FREE,
                },
                "configuration": {"taskPushNotificationConfig": {"taskId": "mine", "url": "mine"}},
                "metadata": FREE,
            },
            {
                "message": {
                    "messageId": "mine",
                    "taskId": "theirs",
                    "contextId": "their-ctx",
                    "referenceTaskIds": ["other", "theirs"],
                    "parts": PARTS,
                    "metadata": FREE,
                },
                "configuration": {"taskPushNotificationConfig": {"taskId": "theirs", "url": "mine"}},
                "metadata": FREE,
            },
        ),
        (
            "message/send",
            {"message": {"task_id": "mine", "context_id": "my-ctx", "reference_task_ids": ["mine"]}},
            {"message": {"task_id": "theirs", "context_id": "their-ctx", "reference_task_ids": ["theirs"]}},
        ),
    ],
)
def test_ids_in_json_rpc_requests_are_renamed_by_field(method, params, renamed):
    assert in_request(rpc_body(method, params)) == json.loads(rpc_body(method, renamed))


@pytest.mark.parametrize(
    ("tail", "body", "renamed"),
    [
        (
            "/message:send",
            {"message": {"taskId": "mine", "parts": PARTS}},
            {"message": {"taskId": "theirs", "parts": PARTS}},
        ),
        (
            "/v1/message:send",
            {"request": {"task_id": "mine", "content": PARTS}},
            {"request": {"task_id": "theirs", "content": PARTS}},
        ),
        ("/v1/tasks/mine:cancel", {"name": "tasks/mine"}, {"name": "tasks/theirs"}),
        (
            "/v1/tasks/mine/pushNotificationConfigs",
            {"parent": "tasks/mine", "config": {"name": "tasks/mine/pushNotificationConfigs/mine"}},
            {"parent": "tasks/theirs", "config": {"name": "tasks/theirs/pushNotificationConfigs/mine"}},
        ),
        ("/tasks/mine/pushNotificationConfigs", {"taskId": "mine", "id": "mine"}, {"taskId": "theirs", "id": "mine"}),
    ],
)
def test_ids_in_rest_requests_are_renamed_by_field(tail, body, renamed):
    assert in_request(json.dumps(body).encode(), tail) == renamed


@pytest.mark.parametrize(
    ("tail", "renamed"),
    [
        ("/tasks/mine", "/tasks/theirs"),
        ("/v1/tasks/mine?historyLength=2", "/v1/tasks/theirs?historyLength=2"),
        ("/tasks/mi%6Ee:cancel", "/tasks/theirs:cancel"),
        ("/tasks/mine/pushNotificationConfigs/mine", "/tasks/theirs/pushNotificationConfigs/mine"),
        ("/tasks?contextId=my-ctx&pageToken=my-ctx", "/tasks?contextId=their-ctx&pageToken=my-ctx"),
        ("/mine", "/mine"),
        ("/tasks/other:cancel", "/tasks/other:cancel"),
        ("", ""),
        ("/", "/"),
        ("/x?", "/x?"),
    ],
)
def test_ids_in_paths_are_renamed(tail, renamed):
    assert rename_tail(tail, MAPPING) == renamed


TASK = {
    "id": "mine",
    "contextId": "my-ctx",
    "status": {
        "state": "working",
        "message": {"messageId": "mine", "taskId": "mine", "contextId": "my-ctx", "parts": PARTS},
    },
    "history": [{"taskId": "mine", "referenceTaskIds": ["mine"], "parts": PARTS, "metadata": FREE}],
    "artifacts": [{"artifactId": "mine", "name": "tasks/mine", "parts": PARTS, "metadata": FREE}],
    "metadata": FREE,
}
RENAMED_TASK = {
    "id": "theirs",
    "contextId": "their-ctx",
    "status": {
        "state": "working",
        "message": {"messageId": "mine", "taskId": "theirs", "contextId": "their-ctx", "parts": PARTS},
    },
    "history": [{"taskId": "theirs", "referenceTaskIds": ["theirs"], "parts": PARTS, "metadata": FREE}],
    "artifacts": [{"artifactId": "mine", "name": "tasks/mine", "parts": PARTS, "metadata": FREE}],
    "metadata": FREE,
}
UPDATE = {
    "taskId": "mine",
    "contextId": "my-ctx",
    "status": {"state": "x"},
    "artifact": {"parts": PARTS},
    "metadata": FREE,
}
RENAMED_UPDATE = UPDATE | {"taskId": "theirs", "contextId": "their-ctx"}
OLD_PUSH = {"taskId": "mine", "pushNotificationConfig": {"id": "mine", "url": "mine"}}
RESULTS = [
    (TASK, RENAMED_TASK),
    ({"task": TASK}, {"task": RENAMED_TASK}),
    ({"message": {"taskId": "mine", "parts": PARTS}}, {"message": {"taskId": "theirs", "parts": PARTS}}),
    ({"msg": {"task_id": "mine", "content": PARTS}}, {"msg": {"task_id": "theirs", "content": PARTS}}),
    (UPDATE, RENAMED_UPDATE),
    ({"statusUpdate": UPDATE}, {"statusUpdate": RENAMED_UPDATE}),
    ({"artifactUpdate": UPDATE}, {"artifactUpdate": RENAMED_UPDATE}),
    (
        {"tasks": [TASK, {"id": "other"}], "nextPageToken": "mine"},
        {"tasks": [RENAMED_TASK, {"id": "other"}], "nextPageToken": "mine"},
    ),
    (OLD_PUSH, OLD_PUSH | {"taskId": "theirs"}),
    ([OLD_PUSH, 5], [OLD_PUSH | {"taskId": "theirs"}, 5]),
    ({"configs": [{"id": "mine", "taskId": "mine"}]}, {"configs": [{"id": "mine", "taskId": "theirs"}]}),
    (
        {"name": "tasks/mine/pushNotificationConfigs/mine", "pushNotificationConfig": {"id": "mine"}},
        {"name": "tasks/theirs/pushNotificationConfigs/mine", "pushNotificationConfig": {"id": "mine"}},
    ),
    ({"name": "tasks/mine", "url": "mine"}, {"name": "tasks/mine", "url": "mine"}),  # a card, say
]


@pytest.mark.parametrize(("result", "renamed"), RESULTS)
def test_ids_in_json_rpc_results_are_renamed_by_field(result, renamed):
    body = {"jsonrpc": "2.0", "id": "mine", "result": result}
    assert json.loads(rename_answer(json.dumps(body).encode(), MAPPING)) == body | {"result": renamed}


@pytest.mark.parametrize(("result", "renamed"), [row for row in RESULTS if isinstance(row[0], dict)])
def test_ids_in_rest_answers_are_renamed_by_field(result, renamed):
    assert json.loads(rename_answer(json.dumps(result).encode(), MAPPING)) == renamed


def test_errors_name_the_callers_id_in_text_and_error_info():
    info = {
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": "TASK_NOT_FOUND",
        "metadata": {"taskId": "mine"},
    }
    new_info = info | {"metadata": {"taskId": "theirs"}}
    rpc = {"jsonrpc": "2.0", "id": "mine", "error": {"code": -32001, "message": "no task mine", "data": [info]}}
    assert json.loads(rename_answer(json.dumps(rpc).encode(), MAPPING)) == rpc | {
        "error": {"code": -32001, "message": "no task theirs", "data": [new_info]}
    }
    rest = {"error": {"code": 404, "message": "no task mine", "details": [info]}}
    assert json.loads(rename_answer(json.dumps(rest).encode(), MAPPING)) == {
        "error": {"code": 404, "message": "no task theirs", "details": [new_info]}
    }
    old_rest = {"type": "TaskNotFoundError", "message": "no task mine"}
    assert json.loads(rename_answer(json.dumps(old_rest).encode(), MAPPING)) == old_rest | {"message": "no task theirs"}


def test_an_id_in_an_errors_text_is_renamed_as_a_whole_word_only():
    body = {"jsonrpc": "2.0", "id": 1, "error": {"code": -32001, "message": "task '1' of 11, code -32001: no a-1"}}
    renamed = json.loads(rename_answer(json.dumps(body).encode(), {"1": "\\1x"}))
    assert renamed["error"]["message"] == "task '\\1x' of 11, code -32001: no a-1"


@pytest.mark.parametrize(
    "body", [b"", b"nonsense", b"[1]", b'{"a":"\xff"}', b'{ "b" : 1.0 }', b'data: {"taskId":"mine"}\n\n']
)
def test_a_body_in_which_nothing_is_renamed_keeps_its_bytes(body):
    assert rename_answer(body, MAPPING) is body
    assert rename_task(body, read("GET", "/tasks/x", None, None, body), MAPPING) is body


def test_an_empty_mapping_renames_nothing():
    body = rpc_body("GetTask", {"id": "mine"})
    assert rename_task(body, read("POST", "", None, None, body), {}) is body
    assert rename_answer(body, {}) is body


values = st.recursive(
    st.sampled_from(["mine", "my-ctx", 1, None]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["id", "taskId", "contextId", "status", "x"]), inner, max_size=4)
    ),
    max_leaves=8,
)


@given(values, st.sampled_from(["metadata", "parts", "content", "artifacts"]))
def test_what_was_written_freely_is_never_renamed(value, name):
    task = {"id": "mine", "status": {"state": "working", "message": {"taskId": "mine", name: value}}, name: value}
    renamed = json.loads(rename_answer(json.dumps({"jsonrpc": "2.0", "id": 1, "result": task}).encode(), MAPPING))
    assert renamed["result"][name] == value
    assert renamed["result"]["status"]["message"] == {"taskId": "theirs", name: value}
    body = rpc_body("SendMessage", {"message": {"taskId": "mine", name: value}, name: value})
    params = json.loads(rename_task(body, read("POST", "", None, None, body), MAPPING))["params"]
    assert params == {"message": {"taskId": "theirs", name: value}, name: value}


def test_what_is_not_renamed_keeps_its_bytes():
    odd = b'{"n":1.0e2, "big":123456789012345678901234567890,"n":2,"s":"\\u00e9\\/"}'
    task = b'{"id":"mine","status":{"state":"working"},"metadata":' + odd + b',"artifacts":[' + odd + b"]}"
    renamed = rename_answer(b'{"jsonrpc":"2.0","id":1.50,"result":' + task + b"}", MAPPING)
    assert renamed == b'{"jsonrpc":"2.0","id":1.50,"result":' + task.replace(b'"mine"', b'"theirs"') + b"}"


@given(st.text(min_size=1, max_size=6), st.text(min_size=1, max_size=6))
def test_renaming_back_gives_what_was_there(old, new):
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "result": {"id": old, "status": {"state": "working"}}}).encode()
    there = rename_answer(body, {old: new})
    assert json.loads(there)["result"]["id"] == new
    assert json.loads(rename_answer(there, {new: old})) == json.loads(body)


def sent(message: dict[str, object], method: str = "SendMessage") -> tuple[bytes, Call]:
    body = rpc_body(method, {"message": message})
    return body, read("POST", "", None, None, body)


def test_a_send_without_context_is_placed_in_the_one_its_caller_was_told():
    for empty in ({}, {"contextId": ""}, {"context_id": ""}):
        body, call = sent({"messageId": "m", "parts": PARTS} | empty)
        placed = json.loads(with_context(body, call, "ctx"))
        assert placed["params"]["message"] == {"messageId": "m", "parts": PARTS, "contextId": "ctx"}
    rest = b'{"request":{"message_id":"m"}}'
    placed = json.loads(with_context(rest, read("POST", "/v1/message:send", None, None, rest), "ctx"))
    assert placed == {"request": {"message_id": "m", "contextId": "ctx"}}


@pytest.mark.parametrize("message", [{"contextId": "c"}, {"context_id": "c"}, {"taskId": "t"}])
def test_a_send_with_a_context_or_task_keeps_it(message):
    body, call = sent(message)
    assert with_context(body, call, "ctx") is body


def test_only_sends_are_placed_in_a_context():
    body, call = sent({}, "GetTask")
    assert with_context(body, call, "ctx") is body


def test_an_answer_behind_a_byte_order_mark_is_read_like_any_other() -> None:
    said = b'{"jsonrpc":"2.0","id":1,"result":{"id":"mine","status":{}}}'
    assert rename_answer(b"\xef\xbb\xbf" + said, MAPPING) == rename_answer(said, MAPPING) != said
