"""Tasks that Holdfast answers with: read by the SDK's own clients, in all four transports."""

import json
from collections.abc import Callable
from datetime import UTC, datetime

import httpx
import pytest
from a2a.client.transports.jsonrpc import JsonRpcTransport
from a2a.client.transports.rest import RestTransport
from a2a.compat.v0_3 import types
from a2a.compat.v0_3.jsonrpc_transport import CompatJsonRpcTransport
from a2a.compat.v0_3.rest_transport import CompatRestTransport
from a2a.types import a2a_pb2
from a2a.types.a2a_pb2 import AgentCard, CancelTaskRequest, GetTaskRequest, SendMessageRequest, TaskState
from google.protobuf.json_format import ParseDict

from proxy.core.a2a import (
    Binding,
    Call,
    Operation,
    Version,
    failed_task,
    read,
    send_answer,
    submitted_answer,
    submitted_task,
    task_answer,
)

AT = datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=UTC)
IDS = {"task_id": "4a2aaaaa-0000-8000-8000-000000000001", "context_id": "ctx"}
BASE = "http://proxy/workspaces/w/a2a"
SEND = {
    "message": {
        "messageId": "m-1",
        "role": "ROLE_USER",
        "parts": [{"text": "h\u00e9"}, {"url": "https://x/y", "mediaType": "a/b"}, {"data": {"k": [1.5]}}],
        "metadata": {"tenant": "blue"},
    },
    "configuration": {"historyLength": 5},
}

TRANSPORTS = {
    "jsonrpc 1.0": (JsonRpcTransport, Binding.JSONRPC, Version.V10),
    "jsonrpc 0.3": (CompatJsonRpcTransport, Binding.JSONRPC, Version.V03),
    "rest 1.0": (RestTransport, Binding.REST, Version.V10),
    "rest 0.3": (CompatRestTransport, Binding.REST, Version.V03),
}


@pytest.fixture(params=TRANSPORTS.values(), ids=TRANSPORTS.keys())
def transport(request):
    return request.param


class Proxy:
    """Stands where Holdfast stands: reads each request and answers it with what the test says."""

    def __init__(self, answer: Callable[[Call], bytes], status: int = 200) -> None:
        self.calls: list[Call] = []
        self._answer = answer
        self._status = status

    def client(self, kind):
        return kind(httpx.AsyncClient(transport=httpx.MockTransport(self._serve)), AgentCard(), BASE)

    def _serve(self, request: httpx.Request) -> httpx.Response:
        tail = request.url.raw_path.decode().removeprefix("/workspaces/w/a2a")
        headers = request.headers
        call = read(request.method, tail, headers.get("a2a-version"), headers.get("content-type"), request.content)
        self.calls.append(call)
        return httpx.Response(self._status, headers={"content-type": "application/json"}, content=self._answer(call))


@pytest.mark.parametrize("status", [200, 202])
async def test_sdk_clients_read_a_submitted_task_with_their_message_in_its_history(transport, status):
    kind, binding, version = transport
    metadata = {"urn:holdfast": {"deferred": True}}
    proxy = Proxy(lambda call: submitted_answer(call, **IDS, at=AT, text="put away", metadata=metadata), status)
    answer = await proxy.client(kind).send_message(ParseDict(SEND, SendMessageRequest()))

    assert [(call.binding, call.version, call.operation) for call in proxy.calls] == [
        (binding, version, Operation.SEND)
    ]
    assert proxy.calls[0].message_id == "m-1"
    task = answer.task
    assert (task.id, task.context_id) == (IDS["task_id"], "ctx")
    assert task.status.state == TaskState.TASK_STATE_SUBMITTED
    assert task.status.timestamp.ToJsonString() == "2026-01-02T03:04:05.678Z"
    assert task.status.message.parts[0].text == "put away"
    assert task.status.message.role == a2a_pb2.ROLE_AGENT
    assert task.metadata["urn:holdfast"]["deferred"] is True
    expected = ParseDict(SEND["message"] | {"taskId": task.id, "contextId": "ctx"}, a2a_pb2.Message())
    assert list(task.history) == [expected]


async def test_sdk_clients_read_a_kept_task_of_either_version(transport):
    kind, _, version = transport
    for kept_as in Version:
        kept = failed_task(kept_as, **IDS, state="failed", text="expired", at=AT)
        proxy = Proxy(lambda call, kept=kept, kept_as=kept_as: task_answer(call, kept, kept_as))
        client = proxy.client(kind)
        got = await client.get_task(GetTaskRequest(id=IDS["task_id"], history_length=1))
        cancelled = await client.cancel_task(CancelTaskRequest(id=IDS["task_id"]))
        assert got == cancelled
        assert got.status.state == TaskState.TASK_STATE_FAILED
        assert got.status.message.parts[0].text == "expired"
        assert [call.task_id for call in proxy.calls] == [IDS["task_id"]] * 2
        assert [call.version for call in proxy.calls] == [version] * 2
        assert proxy.calls[0].history_length == 1


async def test_sdk_clients_read_the_answer_that_a_joined_retry_gets(transport):
    kept = failed_task(Version.V10, **IDS, state="rejected", text="no", at=AT)
    proxy = Proxy(lambda call: send_answer(call, kept, Version.V10))
    answer = await proxy.client(transport[0]).send_message(ParseDict(SEND, SendMessageRequest()))
    assert answer.task.status.state == TaskState.TASK_STATE_REJECTED


def send_call(method: str, params: object, rpc_id: object = 1) -> Call:
    body = json.dumps({"jsonrpc": "2.0", "id": rpc_id, "method": method, "params": params}).encode()
    return read("POST", "", None, "application/json", body)


def submitted(call: Call) -> dict[str, object]:
    answered: dict[str, object] = json.loads(submitted_answer(call, **IDS, at=AT, text="", metadata=None))
    return answered


def test_a_submitted_task_in_v03_is_the_bare_task_with_kinds():
    message = {"kind": "message", "messageId": "m", "role": "user", "parts": [{"kind": "text", "text": "hi"}]}
    assert submitted(send_call("message/send", {"message": message}, rpc_id="one")) == {
        "jsonrpc": "2.0",
        "id": "one",
        "result": {
            "kind": "task",
            "id": IDS["task_id"],
            "contextId": "ctx",
            "status": {"state": "submitted", "timestamp": "2026-01-02T03:04:05.678Z"},
            "history": [message | {"taskId": IDS["task_id"], "contextId": "ctx"}],
        },
    }


def test_a_submitted_task_in_v10_stands_under_its_name():
    assert submitted(send_call("SendMessage", {"message": {"messageId": "m", "role": 1, "parts": []}})) == {
        "jsonrpc": "2.0",
        "id": 1,
        "result": {
            "task": {
                "id": IDS["task_id"],
                "contextId": "ctx",
                "status": {"state": "TASK_STATE_SUBMITTED", "timestamp": "2026-01-02T03:04:05.678Z"},
                "history": [
                    {
                        "messageId": "m",
                        "role": "ROLE_USER",
                        "parts": [],
                        "taskId": IDS["task_id"],
                        "contextId": "ctx",
                    }
                ],
            }
        },
    }


@pytest.mark.parametrize("raw", [b"12345678901234567890123", b"1.50", b'"\\u0041"', b"null"])
def test_the_callers_id_comes_back_as_the_same_bytes(raw):
    call = read("POST", "", None, None, b'{"jsonrpc":"2.0","method":"SendMessage","id":' + raw + b"}")
    answer = submitted_answer(call, **IDS, at=AT, text="", metadata=None)
    assert answer.startswith(b'{"jsonrpc":"2.0","id":' + raw + b',"result":')


@pytest.mark.parametrize(
    "message",
    [None, 5, {}, {"messageId": "m"}, {"messageId": 5, "parts": []}, {"messageId": "m", "parts": ["x"]}, {"parts": []}],
)
def test_a_message_that_would_not_be_legal_is_left_out_of_the_history(message):
    for method in ("message/send", "SendMessage"):
        answer = submitted(send_call(method, {"message": message}))
        assert "history" not in json.dumps(answer)


def test_no_utf_8_is_ever_passed_on_broken():
    said = b'{"message":{"messageId":"m","parts":[{"text":"\xff"}]}}'
    call = read("POST", "", None, None, b'{"jsonrpc":"2.0","id":1,"method":"SendMessage","params":' + said + b"}")
    submitted_answer(call, **IDS, at=AT, text="", metadata=None).decode()


def test_a_caller_who_wants_no_history_gets_none():
    message = {"messageId": "m", "parts": []}
    answer = submitted(send_call("SendMessage", {"message": message, "configuration": {"historyLength": 0}}))
    assert "history" not in json.dumps(answer)


def test_only_a_send_is_answered_with_a_submitted_task():
    with pytest.raises(ValueError, match="only a send"):
        submitted(send_call("GetTask", {"id": "t"}))


def test_a_submitted_task_is_shown_to_a_later_get_with_its_history():
    message = {"messageId": "m", "role": "user", "parts": []}
    call = send_call("message/send", {"message": message, "configuration": {"historyLength": 0}})
    task = submitted_task(call, **IDS, at=AT, text="put away")
    assert "history" not in json.loads(send_answer(call, task, Version.V03))["result"]
    shown = json.loads(task_answer(send_call("GetTask", {"id": "t"}), task, Version.V03))["result"]
    assert [said["messageId"] for said in shown["history"]] == ["m"]


HISTORY = json.dumps(
    {"id": "t", "status": {"state": "TASK_STATE_WORKING"}, "history": [{"messageId": str(n)} for n in range(4)]}
).encode()


@pytest.mark.parametrize(
    ("length", "shown"),
    [(None, ["0", "1", "2", "3"]), (0, []), (1, ["3"]), (3, ["1", "2", "3"]), (9, ["0", "1", "2", "3"])],
)
def test_a_task_carries_at_most_as_many_of_the_newest_messages_as_were_asked_for(length, shown):
    params = {"id": "t"} | ({} if length is None else {"historyLength": length})
    for method in ("GetTask", "tasks/get"):
        answer = json.loads(task_answer(send_call(method, params), HISTORY, Version.V10))
        assert [message["messageId"] for message in answer["result"].get("history", [])] == shown


def test_the_task_of_one_version_is_answered_in_the_other():
    old = failed_task(Version.V03, **IDS, state="canceled", text="bye", at=AT)
    answer = json.loads(send_answer(send_call("SendMessage", {}), old, Version.V03))
    assert answer["result"]["task"]["status"]["state"] == "TASK_STATE_CANCELED"
    new = failed_task(Version.V10, **IDS, state="canceled", text="bye", at=AT)
    answer = json.loads(send_answer(send_call("message/send", {}), new, Version.V10))
    assert types.Task.model_validate(answer["result"]).status.state is types.TaskState.canceled


def test_an_ended_task_remembers_the_callers_message_when_the_call_is_known():
    call = send_call("message/send", {"message": {"messageId": "m", "role": "user", "parts": []}})
    task = json.loads(failed_task(call, **IDS, state="failed", text="why", at=AT))
    assert [message["messageId"] for message in task["history"]] == ["m"]
    assert task["status"]["message"]["parts"] == [{"kind": "text", "text": "why"}]


@pytest.mark.parametrize("state", ["submitted", "working", "TASK_STATE_FAILED", ""])
def test_a_task_ends_in_terminal_states_only(state):
    with pytest.raises(ValueError, match="does not end"):
        failed_task(Version.V10, **IDS, state=state, text="", at=AT)
