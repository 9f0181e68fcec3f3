"""What a request says: every operation in every binding and version, and bodies that say nothing sensible."""

import json

import pytest
from a2a.server.routes.jsonrpc_dispatcher import JSONRPC03Adapter, JsonRpcDispatcher
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.a2a import Binding, Call, MalformedBody, Operation, Version, read
from proxy.core.a2a.operations import OPERATIONS

JSON = "application/json"


def rpc(method: str, params: object, rpc_id: object = 1) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": rpc_id, "method": method, "params": params}).encode()


def read_rpc(body: bytes, version: str | None = None) -> Call:
    return read("POST", "", version, JSON, body)


RPC_METHODS = [
    ("message/send", Version.V03, Operation.SEND),
    ("message/stream", Version.V03, Operation.STREAM),
    ("tasks/get", Version.V03, Operation.GET),
    ("tasks/cancel", Version.V03, Operation.CANCEL),
    ("tasks/resubscribe", Version.V03, Operation.SUBSCRIBE),
    ("tasks/pushNotificationConfig/set", Version.V03, Operation.PUSH_SET),
    ("tasks/pushNotificationConfig/get", Version.V03, Operation.PUSH_GET),
    ("tasks/pushNotificationConfig/list", Version.V03, Operation.PUSH_LIST),
    ("tasks/pushNotificationConfig/delete", Version.V03, Operation.PUSH_DELETE),
    ("agent/getAuthenticatedExtendedCard", Version.V03, Operation.EXTENDED_CARD),
    ("SendMessage", Version.V10, Operation.SEND),
    ("SendStreamingMessage", Version.V10, Operation.STREAM),
    ("GetTask", Version.V10, Operation.GET),
    ("ListTasks", Version.V10, Operation.LIST),
    ("CancelTask", Version.V10, Operation.CANCEL),
    ("SubscribeToTask", Version.V10, Operation.SUBSCRIBE),
    ("CreateTaskPushNotificationConfig", Version.V10, Operation.PUSH_SET),
    ("GetTaskPushNotificationConfig", Version.V10, Operation.PUSH_GET),
    ("ListTaskPushNotificationConfigs", Version.V10, Operation.PUSH_LIST),
    ("DeleteTaskPushNotificationConfig", Version.V10, Operation.PUSH_DELETE),
    ("GetExtendedAgentCard", Version.V10, Operation.EXTENDED_CARD),
]


@pytest.mark.parametrize(("method", "version", "operation"), RPC_METHODS)
@pytest.mark.parametrize("header", [None, "", "0.3", "1.0"])
def test_the_json_rpc_method_decides_operation_and_version_whatever_the_header_says(method, version, operation, header):
    call = read_rpc(rpc(method, {}), header)
    assert (call.binding, call.version, call.operation) == (Binding.JSONRPC, version, operation)
    assert call.rpc_method == method
    assert call.streaming == (operation in {Operation.STREAM, Operation.SUBSCRIBE})
    assert call.deferrable == (operation in {Operation.SEND, Operation.STREAM})


def test_every_json_rpc_method_of_the_sdk_is_in_the_table():
    known = {name for name, _, _ in RPC_METHODS}
    assert known == set(JSONRPC03Adapter.METHOD_TO_MODEL) | set(JsonRpcDispatcher.METHOD_TO_MODEL)


REST_PATHS = [
    ("POST", "/message:send", Operation.SEND, None),
    ("POST", "/message:stream", Operation.STREAM, None),
    ("GET", "/tasks/t-1", Operation.GET, "t-1"),
    ("GET", "/tasks", Operation.LIST, None),
    ("POST", "/tasks/t-1:cancel", Operation.CANCEL, "t-1"),
    ("POST", "/tasks/t-1:subscribe", Operation.SUBSCRIBE, "t-1"),
    ("GET", "/tasks/t-1:subscribe", Operation.SUBSCRIBE, "t-1"),
    ("POST", "/tasks/t-1/pushNotificationConfigs", Operation.PUSH_SET, "t-1"),
    ("GET", "/tasks/t-1/pushNotificationConfigs", Operation.PUSH_LIST, "t-1"),
    ("GET", "/tasks/t-1/pushNotificationConfigs/c", Operation.PUSH_GET, "t-1"),
    ("DELETE", "/tasks/t-1/pushNotificationConfigs/c", Operation.PUSH_DELETE, "t-1"),
]


@pytest.mark.parametrize("row", REST_PATHS, ids=lambda row: f"{row[0]} {row[1]}")
@pytest.mark.parametrize(
    ("prefix", "header", "version"),
    [
        ("", None, Version.V10),
        ("", "1.0", Version.V10),
        ("/v1", None, Version.V03),
        ("/v1", "0.3", Version.V03),
        ("/v1", "1.0", Version.V10),  # a v1.0 interface (or tenant) whose path ends in /v1
        ("/tenant", "1.0", Version.V10),
        ("/some/base/v1", None, Version.V03),
    ],
)
def test_rest_paths_say_operation_version_and_task(row, prefix, header, version):
    verb, path, operation, task = row
    call = read(verb, prefix + path, header, JSON, b"{}")
    assert (call.binding, call.version, call.operation, call.task_id) == (Binding.REST, version, operation, task)
    assert call.rpc_id == b"null"
    assert call.deferrable == (operation in {Operation.SEND, Operation.STREAM})


@pytest.mark.parametrize(("path", "version"), [("/extendedAgentCard", Version.V10), ("/v1/card", Version.V03)])
def test_the_extended_card_has_a_path_of_its_own_in_each_version(path, version):
    call = read("GET", path, None, None, b"")
    assert (call.binding, call.version, call.operation) == (Binding.REST, version, Operation.EXTENDED_CARD)


@pytest.mark.parametrize(
    "path", ["/.well-known/agent-card.json", "/.well-known/agent.json", "/p/.well-known/agent.json"]
)
def test_a_well_known_card_belongs_to_no_binding(path):
    call = read("GET", path, None, None, b"")
    assert (call.binding, call.operation, call.deferrable) == (Binding.OTHER, Operation.CARD, False)


@pytest.mark.parametrize(
    ("verb", "tail", "content_type", "body", "deferrable"),
    [
        ("POST", "", JSON, b'{"task":"sweep"}', True),  # no jsonrpc
        ("POST", "/", JSON, b"{}", True),
        ("POST", "", "text/plain", b"hello", True),
        ("POST", "", None, b"", True),
        ("POST", "", None, b"hello", True),
        ("POST", "/hook", JSON, b"[1,", True),
        ("POST", "/hook", JSON, b"[1]", True),
        ("POST", "/tasks", JSON, b"{}", True),  # A2A has no POST there
        ("GET", "", None, b"", False),
        ("GET", "/metrics", None, b"", False),
        ("PUT", "/message:send", JSON, b"{}", False),
        ("DELETE", "/tasks/x", None, b"", False),
    ],
)
def test_what_is_not_a2a_is_deferrable_only_as_a_post(verb, tail, content_type, body, deferrable):
    call = read(verb, tail, None, content_type, body)
    assert (call.binding, call.operation, call.deferrable) == (Binding.OTHER, Operation.UNKNOWN, deferrable)


@pytest.mark.parametrize(("header", "version"), [(None, Version.V03), ("1.0", Version.V10), ("nonsense", Version.V03)])
def test_an_unknown_method_is_json_rpc_of_the_announced_version_and_not_deferrable(header, version):
    call = read_rpc(rpc("agent/doTheDishes", {"message": {"messageId": "m"}}), header)
    assert (call.binding, call.version, call.operation) == (Binding.JSONRPC, version, Operation.UNKNOWN)
    assert not call.deferrable


@pytest.mark.parametrize("tail", ["", "/", "/rpc", "/a2a/jsonrpc"])
@pytest.mark.parametrize(
    "content_type", [JSON, "application/json; charset=utf-8", "application/a2a+json", "text/plain", None]
)
def test_json_rpc_is_known_by_its_body_wherever_it_is_posted(tail, content_type):
    assert read("POST", tail, None, content_type, rpc("GetTask", {"id": "t"})).task_id == "t"


MESSAGE = {"messageId": "m", "contextId": "c", "taskId": "t", "referenceTaskIds": ["r1", "r2"]}
SNAKE = {"message_id": "m", "context_id": "c", "task_id": "t", "reference_task_ids": ["r1", "r2"]}


@pytest.mark.parametrize("message", [MESSAGE, SNAKE], ids=["json names", "proto names"])
@pytest.mark.parametrize(
    ("tail", "wrap"),
    [
        ("", lambda message: {"jsonrpc": "2.0", "id": 1, "method": "message/send", "params": {"message": message}}),
        ("", lambda message: {"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": {"message": message}}),
        ("/v1/message:send", lambda message: {"request": message}),
        ("/v1/message:send", lambda message: {"message": message}),
        ("/message:send", lambda message: {"message": message}),
    ],
)
def test_a_send_names_its_message_context_task_and_references(message, tail, wrap):
    call = read("POST", tail, None, JSON, json.dumps(wrap(message)).encode())
    assert (call.message_id, call.context_id, call.task_id) == ("m", "c", "t")
    assert call.reference_task_ids == ("r1", "r2")
    assert call.blocking


@pytest.mark.parametrize(
    ("method", "configuration", "blocking", "push", "history"),
    [
        ("message/send", None, True, False, None),
        ("message/send", {"blocking": True}, True, False, None),
        ("message/send", {"blocking": False, "historyLength": 2}, False, False, 2),
        ("message/send", {"pushNotificationConfig": {"url": "http://x"}}, True, True, None),
        ("message/send", {"returnImmediately": True}, True, False, None),  # a word of v1.0
        ("SendMessage", None, True, False, None),
        ("SendMessage", {"returnImmediately": False}, True, False, None),
        ("SendMessage", {"returnImmediately": True}, False, False, None),
        ("SendMessage", {"return_immediately": True, "history_length": 0}, False, False, 0),
        ("SendMessage", {"historyLength": "7"}, True, False, 7),  # ProtoJSON writes integers as strings, too
        ("SendMessage", {"historyLength": -1}, True, False, None),
        ("SendMessage", {"historyLength": True}, True, False, None),
        ("SendMessage", {"taskPushNotificationConfig": {"url": "http://x"}}, True, True, None),
        ("SendMessage", {"blocking": False}, True, False, None),  # a word of v0.3
    ],
)
def test_the_configuration_says_whether_the_caller_waits_and_how_much_history_it_wants(
    method, configuration, blocking, push, history
):
    call = read_rpc(rpc(method, {"message": {"messageId": "m"}, "configuration": configuration}))
    assert (call.blocking, call.has_push_config, call.history_length) == (blocking, push, history)


@pytest.mark.parametrize(
    ("configuration", "blocking"),
    [
        ({}, True),
        ({"configuration": None}, True),
        ({"configuration": {}}, False),
        ({"configuration": {"historyLength": 2}}, False),
        ({"configuration": {"blocking": False}}, False),
        ({"configuration": {"blocking": True}}, True),
    ],
)
def test_over_rest_v03_leaves_out_that_nobody_waits_as_protojson_does(configuration, blocking):
    body = json.dumps({"request": {"messageId": "m"}, **configuration}).encode()
    assert read("POST", "/v1/message:send", None, JSON, body).blocking is blocking


@pytest.mark.parametrize(
    ("method", "params", "task"),
    [
        ("tasks/get", {"id": "t"}, "t"),
        ("GetTask", {"id": "t"}, "t"),
        ("tasks/cancel", {"id": "t"}, "t"),
        ("SubscribeToTask", {"id": "t"}, "t"),
        ("tasks/pushNotificationConfig/set", {"taskId": "t", "pushNotificationConfig": {"id": "c"}}, "t"),
        ("tasks/pushNotificationConfig/get", {"id": "t", "pushNotificationConfigId": "c"}, "t"),
        ("tasks/pushNotificationConfig/list", {"id": "t"}, "t"),
        ("tasks/pushNotificationConfig/delete", {"id": "t", "pushNotificationConfigId": "c"}, "t"),
        ("CreateTaskPushNotificationConfig", {"taskId": "t", "id": "c"}, "t"),
        ("GetTaskPushNotificationConfig", {"taskId": "t", "id": "c"}, "t"),
        ("ListTaskPushNotificationConfigs", {"task_id": "t"}, "t"),
        ("DeleteTaskPushNotificationConfig", {"taskId": "t", "id": "c"}, "t"),
        ("GetTask", {"id": ""}, None),
        ("GetTask", {"id": 5}, None),
    ],
)
def test_the_addressed_task_stands_where_the_version_puts_it(method, params, task):
    assert read_rpc(rpc(method, params)).task_id == task


def test_rest_gets_take_task_and_history_length_from_the_address():
    call = read("GET", "/v1/tasks/a%2Fb?x=1&historyLength=3", None, None, b"")
    assert (call.task_id, call.history_length) == ("a/b", 3)


@pytest.mark.parametrize(
    "raw",
    [
        b"1",
        b"-7",
        b"12345678901234567890123456789",
        b"1.0",
        b"1e3",
        b'"a"',
        b'"1"',
        b'"\\u00e9\\n"',
        b'"\xc3\xa9"',
        b"null",
    ],
)
def test_the_callers_json_rpc_id_is_kept_as_raw_json(raw):
    assert read_rpc(b'{"jsonrpc":"2.0","method":"GetTask", "id" : ' + raw + b' ,"params":{}}').rpc_id == raw


@pytest.mark.parametrize("raw", [b"{}", b"[1]", b"true", b"false"])
def test_an_id_that_json_rpc_forbids_is_answered_as_null(raw):
    assert read_rpc(b'{"jsonrpc":"2.0","method":"GetTask","id":' + raw + b"}").rpc_id == b"null"


def test_a_notification_without_id_is_answered_as_null():
    assert read_rpc(b'{"jsonrpc":"2.0","method":"message/send","params":{}}').rpc_id == b"null"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"nonsense",
        b'"text"',
        b"5",
        b'{"id":1}x',
        b"\xff\xfe",
        b'{"jsonrpc":"2.0","id":"\xff"}',
        b"[1,",
        b"{" * 9,
    ],
)
@pytest.mark.parametrize("tail", ["", "/"])
def test_a_body_that_should_be_json_and_is_none_is_malformed(body, tail):
    with pytest.raises(MalformedBody) as caught:
        read("POST", tail, "1.0", JSON, body)
    assert (caught.value.status, caught.value.reason) == (400, "MALFORMED_BODY")
    assert caught.value.call is not None
    assert (caught.value.call.binding, caught.value.call.version) == (Binding.JSONRPC, Version.V10)


@pytest.mark.parametrize("body", [b"{", b' {"a":1} x', b"[1,"])
def test_without_a_media_type_what_opens_as_json_should_be_json(body):
    with pytest.raises(MalformedBody):
        read("POST", "", None, None, body)


def test_a_batch_is_no_object():
    with pytest.raises(MalformedBody) as caught:
        read_rpc(b" [" + rpc("message/send", {}) + b"]")
    assert caught.value.reason == "NOT_AN_OBJECT"


@pytest.mark.parametrize("body", [b"", b"[", b"[]", b"null"])
def test_a_rest_send_without_an_object_is_malformed_in_its_own_binding(body):
    with pytest.raises(MalformedBody) as caught:
        read("POST", "/message:send", None, None, body)
    assert caught.value.call is not None
    assert (caught.value.call.binding, caught.value.call.operation) == (Binding.REST, Operation.SEND)


def test_rest_calls_other_than_sends_may_have_any_body():
    assert read("POST", "/tasks/t:cancel", None, None, b"").operation is Operation.CANCEL


@pytest.mark.parametrize("depth", [200_000])
@pytest.mark.parametrize(
    "opening", [b'{"jsonrpc":"2.0","params":', b'{"jsonrpc":', b'{"x":', b'{"jsonrpc":"2.0","id":']
)
def test_nesting_beyond_reason_is_malformed_and_no_crash(opening, depth):
    with pytest.raises(MalformedBody):
        read_rpc(opening + b"[" * depth + b"]" * depth + b"}")


ODD = [None, 5, "x", [], [1], {}, True, 1e300, "\u00e9"]


@pytest.mark.parametrize("odd", ODD, ids=repr)
@pytest.mark.parametrize("where", ["params", "message", "configuration", "messageId", "referenceTaskIds"])
def test_a_member_of_the_wrong_type_says_nothing_and_hides_nothing_beside_it(odd, where):
    message: dict[str, object] = {"messageId": "m", "contextId": "c"}
    params: dict[str, object] = {"message": message, "configuration": {"blocking": False}, "id": "t"}
    body: dict[str, object] = {"jsonrpc": "2.0", "id": 7, "method": "message/send", "params": params}
    {"params": body, "message": params, "configuration": params}.get(where, message)[where] = odd
    call = read_rpc(json.dumps(body).encode())
    assert (call.operation, call.rpc_id, call.deferrable) == (Operation.SEND, b"7", True)
    if where in {"configuration", "referenceTaskIds"}:
        assert (call.message_id, call.context_id) == ("m", "c")
    if where == "message":
        assert not call.blocking


def test_a_wrong_message_hides_no_task_beside_it():
    assert read_rpc(rpc("GetTask", {"id": "t", "message": 5})).task_id == "t"


def test_what_the_caller_says_to_the_agent_is_not_in_the_repr():
    call = read_rpc(rpc("message/send", {"message": {"messageId": "m", "parts": [{"text": "hunter2"}]}}))
    assert "hunter2" not in repr(call)
    assert "message_id='m'" in repr(call)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
names = st.sampled_from(
    ["jsonrpc", "id", "method", "params", "message", "configuration", "messageId", "taskId", "task_id", "parts"]
)
shaped = st.recursive(json_values, lambda inner: st.dictionaries(names, inner, max_size=6), max_leaves=20)
tails = st.sampled_from(["", "/", "/x", "/message:send", "/v1/message:stream", "/tasks/t:cancel"])
headers = st.sampled_from([None, "", "1.0", "0.3", "99999999999999999999", "x"])
types = st.sampled_from([None, JSON, "text/plain", "application/a2a+json", ";;"])


@given(tails, headers, types, st.binary(max_size=64) | shaped.map(lambda value: json.dumps(value).encode()))
def test_reading_any_bytes_gives_a_call_or_malformed_body(tail, header, content_type, body):
    try:
        call = read("POST", tail, header, content_type, body)
    except MalformedBody:
        return
    json.loads(call.rpc_id)
    assert call.body is body


REAL = rpc(
    "SendMessage",
    {"message": MESSAGE | {"parts": [{"text": "hé"}, {"data": {"a": [1, 2.5, None]}}]}, "configuration": {}},
    rpc_id="abc",
)


@given(st.integers(0, len(REAL) - 1), st.integers(0, 4), st.binary(max_size=3))
def test_reading_a_damaged_real_request_gives_a_call_or_malformed_body(at, cut, inserted):
    damaged = REAL[:at] + inserted + REAL[at + cut :]
    try:
        call = read_rpc(damaged)
    except MalformedBody:
        return
    json.loads(call.rpc_id)


@given(st.dictionaries(names, json_values, max_size=5), st.dictionaries(names, json_values, max_size=5))
def test_the_quick_and_the_patient_reading_agree(params, message):
    """`configuration: []` forces the patient one; it says what an absent configuration says."""
    params = {name: value for name, value in params.items() if name not in {"configuration", "message"}}
    quick = read_rpc(rpc("SendMessage", params | {"message": message}))
    patient = read_rpc(rpc("SendMessage", params | {"message": message, "configuration": []}))
    for name in Call.__struct_fields__:
        if name != "body":
            assert getattr(quick, name) == getattr(patient, name)


def test_no_method_and_no_path_stands_twice_in_the_table():
    methods = [name for row in OPERATIONS for name in (row.rpc_v03, row.rpc_v10) if name]
    assert len(methods) == len(set(methods))
    paths = [(verb, path) for row in OPERATIONS for verb in row.verbs for path in (row.path_v03, row.path_v10) if path]
    assert len(paths) == len(set(paths))
