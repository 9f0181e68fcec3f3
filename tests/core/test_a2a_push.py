"""Push notification configurations in every shape, and what a receiver is sent."""

import json
from typing import Any

import pytest
from a2a.compat.v0_3 import a2a_v0_3_pb2 as proto03
from a2a.compat.v0_3.types import Task as Task03
from a2a.compat.v0_3.types import TaskPushNotificationConfig as Config03
from a2a.types import a2a_pb2 as proto10
from google.protobuf.json_format import ParseDict

from proxy.core import a2a
from proxy.core.errors import CallerError

URL = "https://hooks.example.com/h?key=1"
OLD = {
    "url": URL,
    "id": "c1",
    "token": "tok",
    "authentication": {"schemes": ["Basic", "Bearer"], "credentials": "cred"},
}
NEW = {"url": URL, "id": "c1", "token": "tok", "authentication": {"scheme": "Bearer", "credentials": "cred"}}
MESSAGE = {"messageId": "m", "parts": [{"text": "hi"}], "metadata": {"pushNotificationConfig": {"url": "mine"}}}
TASK = "4a200000-0000-8000-8000-000000000001"


def call_of(method: str, tail: str, body: Any, version: str = "1.0") -> a2a.Call:
    return a2a.read(method, tail, version, "application/json", json.dumps(body).encode() if body is not None else b"")


def rpc(method: str, params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 7, "method": method, "params": params}


def sends() -> list[Any]:
    """(name, version, path, body with a configuration, body without one)."""
    cases = []
    for name, config in (
        ("taskPushNotificationConfig", NEW),
        ("task_push_notification_config", NEW),
        ("pushNotificationConfig", NEW),
    ):
        params = {"message": MESSAGE, "configuration": {"historyLength": 2, name: config}}
        left = {"message": MESSAGE, "configuration": {"historyLength": 2}}
        cases.append(pytest.param("1.0", "", rpc("SendMessage", params), rpc("SendMessage", left), id=f"rpc10-{name}"))
        cases.append(pytest.param("1.0", "/message:send", params, left, id=f"rest10-{name}"))
    for name in ("pushNotificationConfig", "push_notification_config"):
        params = {"message": MESSAGE, "configuration": {name: OLD}}
        left = {"message": MESSAGE, "configuration": {}}
        cases.append(
            pytest.param("0.3", "", rpc("message/stream", params), rpc("message/stream", left), id=f"old-{name}")
        )
    for name in ("pushNotification", "push_notification"):
        params = {"request": MESSAGE, "configuration": {name: OLD}}
        left = {"request": MESSAGE, "configuration": {}}
        cases.append(pytest.param("0.3", "/v1/message:send", params, left, id=f"rest03-{name}"))
    return cases


@pytest.mark.parametrize(("version", "tail", "body", "left"), sends())
def test_a_configuration_is_taken_out_of_a_send_and_nothing_else_is(
    version: str, tail: str, body: Any, left: Any
) -> None:
    call = call_of("POST", tail, body, version)
    without, config = a2a.take_push_config(call, call.body)
    assert json.loads(without) == left
    assert config is not None
    assert (config.url, config.id, config.token, config.credentials) == (URL, "c1", "tok", "cred")
    assert dict(a2a.notification_headers(config)) == {
        b"Content-Type": b"application/json",
        b"X-A2A-Notification-Token": b"tok",
        b"Authorization": b"Bearer cred",
    }


@pytest.mark.parametrize("around", ["\n", "\r\n", " ", "\u2028", "\x1f"])
def test_what_stands_around_a_token_is_none_of_it(around: str) -> None:
    said = {
        "url": URL,
        "token": f"{around}tok{around}",
        "authentication": {"scheme": "Bearer", "credentials": f"cred{around}"},
    }
    body = rpc("SendMessage", {"message": MESSAGE, "configuration": {"taskPushNotificationConfig": said}})
    call = call_of("POST", "", body, "1.0")
    _, config = a2a.take_push_config(call, call.body)
    assert config is not None
    assert dict(a2a.notification_headers(config)) == {
        b"Content-Type": b"application/json",
        b"X-A2A-Notification-Token": b"tok",
        b"Authorization": b"Bearer cred",
    }


@pytest.mark.parametrize(
    "body",
    [
        rpc("SendMessage", {"message": MESSAGE}),
        rpc("SendMessage", {"message": MESSAGE, "configuration": {"taskPushNotificationConfig": None}}),
        rpc("SendMessage", {"message": MESSAGE, "configuration": []}),
    ],
)
def test_a_send_without_one_keeps_its_bytes(body: Any) -> None:
    call = call_of("POST", "", body)
    assert a2a.take_push_config(call, call.body) == (call.body, None)


def test_nothing_is_taken_out_of_what_is_not_a2a() -> None:
    body = {"configuration": {"pushNotificationConfig": OLD}}
    call = call_of("POST", "/elsewhere", body)
    assert a2a.take_push_config(call, call.body) == (call.body, None)


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"url": ""},
        {"url": 7},
        "https://hooks.example.com",
        {"url": "https://hooks.example.com/\r\nX: y"},
        {"url": URL, "token": "a\nb"},
        {"url": URL, "token": "ü"},
        {"url": URL, "authentication": {"scheme": "Bearer", "credentials": "a\r\nEvil: 1"}},
        {"url": URL, "token": "t" * 5000},
        {"url": URL, "id": "i" * 300},
    ],
)
def test_a_configuration_that_cannot_be_used_is_refused(config: Any) -> None:
    call = call_of(
        "POST", "", rpc("SendMessage", {"message": MESSAGE, "configuration": {"taskPushNotificationConfig": config}})
    )
    with pytest.raises(CallerError) as refused:
        a2a.take_push_config(call, call.body)
    assert (refused.value.reason, refused.value.status) == ("BAD_PUSH_CONFIG", 400)
    assert json.loads(a2a.error_answer(call, refused.value).body)["error"]["code"] == -32602


def test_no_secret_shows_in_a_repr() -> None:
    config = a2a.PushConfig(url=URL, token="tok", schemes=("Bearer",), credentials="cred")
    assert "tok" not in repr(config)
    assert "cred" not in repr(config)
    assert "hooks" not in repr(config)


SETS = [
    pytest.param("1.0", "", rpc("CreateTaskPushNotificationConfig", {"taskId": TASK, **NEW}), id="rpc10"),
    pytest.param("1.0", f"/tasks/{TASK}/pushNotificationConfigs", {"taskId": TASK, **NEW}, id="rest10"),
    pytest.param(
        "0.3", "", rpc("tasks/pushNotificationConfig/set", {"taskId": TASK, "pushNotificationConfig": OLD}), id="rpc03"
    ),
    pytest.param(
        "0.3",
        f"/v1/tasks/{TASK}/pushNotificationConfigs",
        {"parent": f"tasks/{TASK}", "config_id": "c1", "config": {"push_notification_config": OLD}},
        id="rest03",
    ),
]


@pytest.mark.parametrize(("version", "tail", "body"), SETS)
def test_a_request_to_set_one_is_read_and_answered_as_its_agent_would(version: str, tail: str, body: Any) -> None:
    call = call_of("POST", tail, body, version)
    assert (call.operation, call.task_id) == (a2a.Operation.PUSH_SET, TASK)
    config = a2a.read_push_config(call)
    assert (config.url, config.id, config.token) == (URL, "c1", "tok")
    said = json.loads(a2a.push_config_answer(call, config, TASK))
    result = said["result"] if tail == "" else said
    if version == "1.0":
        parsed = ParseDict(result, proto10.TaskPushNotificationConfig())
        assert (parsed.task_id, parsed.id, parsed.url, parsed.authentication.scheme) == (TASK, "c1", URL, "Bearer")
    elif tail == "":
        old = Config03.model_validate(result)
        assert (old.task_id, old.push_notification_config.id, old.push_notification_config.url) == (TASK, "c1", URL)
    else:
        rest = ParseDict(result, proto03.TaskPushNotificationConfig())
        assert rest.name == f"tasks/{TASK}/pushNotificationConfigs/c1"
        assert list(rest.push_notification_config.authentication.schemes) == ["Basic", "Bearer"]


@pytest.mark.parametrize(
    ("version", "verb", "tail", "body", "named"),
    [
        ("1.0", "POST", "", rpc("GetTaskPushNotificationConfig", {"taskId": TASK, "id": "c1"}), "c1"),
        ("1.0", "POST", "", rpc("DeleteTaskPushNotificationConfig", {"taskId": TASK, "id": "c1"}), "c1"),
        ("1.0", "GET", f"/tasks/{TASK}/pushNotificationConfigs/a%2Fb?tenant=", None, "a/b"),
        ("1.0", "DELETE", f"/tasks/{TASK}/pushNotificationConfigs/c1", None, "c1"),
        (
            "0.3",
            "POST",
            "",
            rpc("tasks/pushNotificationConfig/get", {"id": TASK, "pushNotificationConfigId": "c1"}),
            "c1",
        ),
        ("0.3", "POST", "", rpc("tasks/pushNotificationConfig/get", {"id": TASK}), ""),
        ("0.3", "GET", f"/v1/tasks/{TASK}/pushNotificationConfigs/c1", None, "c1"),
        ("1.0", "GET", f"/tasks/{TASK}/pushNotificationConfigs", None, ""),
    ],
)
def test_a_configuration_is_named_in_its_own_place(version: str, verb: str, tail: str, body: Any, named: str) -> None:
    call = call_of(verb, tail, body, version)
    assert call.task_id == TASK
    assert a2a.push_config_id(call, tail) == named


def test_lists_and_deletions_are_answered_in_each_binding_s_shape() -> None:
    config = a2a.PushConfig(url=URL, id="c1")
    old = call_of("POST", "", rpc("tasks/pushNotificationConfig/list", {"id": TASK}), "0.3")
    assert json.loads(a2a.push_configs_answer(old, [config], TASK))["result"] == [
        {"taskId": TASK, "pushNotificationConfig": {"id": "c1", "url": URL}}
    ]
    new = call_of("POST", "", rpc("ListTaskPushNotificationConfigs", {"taskId": TASK}))
    assert json.loads(a2a.push_configs_answer(new, [config], TASK))["result"] == {
        "configs": [{"id": "c1", "taskId": TASK, "url": URL}]
    }
    assert json.loads(a2a.push_deleted_answer(new)) == {"jsonrpc": "2.0", "id": 7, "result": None}
    rest = call_of("DELETE", f"/tasks/{TASK}/pushNotificationConfigs/c1", None)
    assert a2a.push_deleted_answer(rest) == b"{}"


# --- notifications ---------------------------------------------------------------------------------------------------

WORKING = {"state": "TASK_STATE_WORKING"}


def notified(event: Any) -> tuple[Any, str | None]:
    said = a2a.event_notification(json.dumps(event).encode(), task_id=TASK, context_id="ours")
    assert said is not None
    ParseDict(json.loads(said.body), proto10.StreamResponse())
    return json.loads(said.body), said.state


@pytest.mark.parametrize("wrap", [lambda item: item, lambda item: {"jsonrpc": "2.0", "id": 1, "result": item}])
def test_events_of_a_stream_are_told_one_by_one_under_the_caller_s_ids(wrap: Any) -> None:
    told = {"taskId": "up", "contextId": "theirs", "messageId": "x", "role": "ROLE_AGENT", "parts": [{"text": "up"}]}
    status = {"state": "TASK_STATE_WORKING", "message": told}
    body, state = notified(wrap({"statusUpdate": {"taskId": "up", "contextId": "theirs", "status": status}}))
    assert body["statusUpdate"]["taskId"] == TASK
    assert body["statusUpdate"]["contextId"] == "ours"
    assert body["statusUpdate"]["status"]["message"]["taskId"] == TASK
    assert body["statusUpdate"]["status"]["message"]["parts"] == [{"text": "up"}]
    assert state == "working"
    artifact = {"artifactId": "a", "parts": [{"text": "t"}]}
    body, state = notified(
        wrap({"artifactUpdate": {"taskId": "up", "contextId": "c", "artifact": artifact, "append": True}})
    )
    assert body == {"artifactUpdate": {"taskId": TASK, "contextId": "ours", "artifact": artifact, "append": True}}
    assert state is None
    body, state = notified(wrap({"task": {"id": "up", "contextId": "theirs", "status": WORKING, "history": [told]}}))
    assert (body["task"]["id"], body["task"]["contextId"], body["task"]["history"][0]["taskId"]) == (TASK, "ours", TASK)
    assert state == "working"


@pytest.mark.parametrize(
    "event",
    [
        {"message": {"messageId": "x", "role": "ROLE_AGENT", "parts": []}},
        {"jsonrpc": "2.0", "id": 1, "error": {"code": -32603, "message": "no"}},
        {"kind": "status-update", "taskId": "up", "contextId": "c", "status": {"state": "working"}},
        {"kind": "task", "id": "up", "contextId": "c", "status": {"state": "working"}},
        {"statusUpdate": {"taskId": "up", "status": {"state": "working"}}},
        [],
    ],
)
def test_what_is_told_better_by_the_whole_task_is_no_notification(event: Any) -> None:
    assert a2a.event_notification(json.dumps(event).encode(), task_id=TASK, context_id="c") is None
    assert a2a.event_notification(b"", task_id=TASK, context_id="c") is None


def test_a_whole_task_is_told_in_the_version_of_its_receiver() -> None:
    artifact = {"artifactId": "a", "parts": [{"text": "t"}]}
    task = {
        "id": TASK,
        "contextId": "c",
        "status": {"state": "TASK_STATE_COMPLETED"},
        "artifacts": [artifact],
        "history": [],
    }
    kept = json.dumps(task).encode()
    old = a2a.task_notification(a2a.Version.V03, kept, a2a.Version.V10)
    assert Task03.model_validate_json(old).status.state == "completed"
    new = json.loads(a2a.task_notification(a2a.Version.V10, kept, a2a.Version.V10))
    assert ParseDict(new, proto10.StreamResponse()).task.id == TASK
    short = json.loads(a2a.task_notification(a2a.Version.V10, kept, a2a.Version.V10, short=True))
    assert set(short["task"]) == {"id", "contextId", "status"}
