"""Errors in the caller's binding, as the SDK's own clients understand them."""

import json
from pathlib import Path

import httpx
import pytest
from a2a.client.errors import A2AClientError
from a2a.client.transports.jsonrpc import JsonRpcTransport
from a2a.client.transports.rest import RestTransport
from a2a.compat.v0_3.jsonrpc_transport import CompatJsonRpcTransport
from a2a.compat.v0_3.rest_transport import CompatRestTransport
from a2a.types.a2a_pb2 import AgentCard, CancelTaskRequest
from a2a.utils.errors import TaskNotCancelableError, TaskNotFoundError

from proxy.core.a2a import Call, error_answer, not_cancelable, read, task_not_found
from proxy.core.a2a.failures import CODES, DEFAULT_CODE, REASONS
from proxy.core.errors import CallerError, ProxyError, WorkspaceError

DEAD = WorkspaceError(
    "WORKSPACE_RESTARTING",
    "the workspace is restarting",
    retry_after=15,
    facts={"delivered": "no", "restarting": True, "restart": "scheduled"},
)
INFO = {
    "@type": "type.googleapis.com/google.rpc.ErrorInfo",
    "reason": "WORKSPACE_RESTARTING",
    "domain": "holdfast",
    "metadata": {"delivered": "no", "restarting": "true", "restart": "scheduled", "retry_after": "15"},
}


def rpc(method: str, raw_id: str = '"x"') -> Call:
    return read("POST", "", None, None, f'{{"jsonrpc":"2.0","id":{raw_id},"method":"{method}","params":{{}}}}'.encode())


@pytest.mark.parametrize("raw_id", ['"x"', "7", "12345678901234567890123", "null"])
@pytest.mark.parametrize("method", ["message/send", "SendMessage", "GetTask", "no/such"])
def test_json_rpc_errors_keep_the_status_and_carry_the_callers_id_and_error_info(method, raw_id):
    answer = error_answer(rpc(method, raw_id), DEAD)
    assert (answer.status, answer.content_type) == (503, "application/json")
    assert answer.body.startswith(f'{{"jsonrpc":"2.0","id":{raw_id},'.encode())
    assert json.loads(answer.body)["error"] == {
        "code": -32050,
        "message": "the workspace is restarting",
        "data": [INFO],
    }


def test_rest_errors_have_the_v10_body():
    answer = error_answer(read("GET", "/tasks/t", "1.0", None, b""), DEAD)
    body = {
        "error": {"code": 503, "status": "UNAVAILABLE", "message": "the workspace is restarting", "details": [INFO]}
    }
    assert (answer.status, json.loads(answer.body)) == (503, body)
    old = error_answer(read("GET", "/v1/tasks/t", None, None, b""), DEAD)
    assert json.loads(old.body) == body | {"message": "the workspace is restarting"}


@pytest.mark.parametrize(
    "call",
    [None, read("POST", "/hook", None, None, b"x"), read("GET", "/.well-known/agent-card.json", None, None, b"")],
)
def test_everybody_else_gets_plain_json(call):
    answer = error_answer(call, DEAD)
    assert answer.status == 503
    assert json.loads(answer.body) == {
        "error": "the workspace is restarting",
        "delivered": "no",
        "restarting": True,
        "restart": "scheduled",
        "retry_after": 15,
    }


def test_without_facts_the_plain_body_is_the_error_alone():
    assert json.loads(error_answer(None, CallerError("FORBIDDEN", "no", status=403)).body) == {"error": "no"}


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        ("MALFORMED_BODY", -32700),
        ("NOT_AN_OBJECT", -32600),
        ("IDEMPOTENCY_CONFLICT", -32602),
        ("NEVER_HEARD_OF", -32050),
    ],
)
def test_the_reason_decides_the_json_rpc_code(reason, code):
    assert json.loads(error_answer(rpc("SendMessage"), CallerError(reason, "x")).body)["error"]["code"] == code


@pytest.mark.parametrize(
    ("status", "canonical"),
    [
        (400, "INVALID_ARGUMENT"),
        (404, "NOT_FOUND"),
        (418, "FAILED_PRECONDITION"),
        (504, "DEADLINE_EXCEEDED"),
        (599, "INTERNAL"),
    ],
)
def test_rest_errors_name_the_canonical_code_of_their_status(status, canonical):
    answer = error_answer(read("GET", "/tasks/t", "1.0", None, b""), ProxyError("INTERNAL", "x", status=status))
    assert json.loads(answer.body)["error"]["status"] == canonical


TRANSPORTS = [JsonRpcTransport, CompatJsonRpcTransport, RestTransport, CompatRestTransport]


def client(kind, answering):
    def serve(request: httpx.Request) -> httpx.Response:
        tail = request.url.raw_path.decode().removeprefix("/a2a")
        call = read(request.method, tail, request.headers.get("a2a-version"), "application/json", request.content)
        answer = answering(call)
        return httpx.Response(answer.status, headers={"content-type": answer.content_type}, content=answer.body)

    return kind(httpx.AsyncClient(transport=httpx.MockTransport(serve)), AgentCard(), "http://proxy/a2a")


@pytest.mark.parametrize("kind", TRANSPORTS)
@pytest.mark.parametrize(
    ("answering", "expected"), [(task_not_found, TaskNotFoundError), (not_cancelable, TaskNotCancelableError)]
)
async def test_sdk_clients_raise_a2as_own_errors(kind, answering, expected):
    with pytest.raises(expected):
        await client(kind, answering).cancel_task(CancelTaskRequest(id="t"))


@pytest.mark.parametrize("kind", TRANSPORTS)
async def test_sdk_clients_raise_for_our_own_errors(kind):
    with pytest.raises(A2AClientError, match="503"):
        await client(kind, lambda call: error_answer(call, DEAD)).cancel_task(CancelTaskRequest(id="t"))


def test_task_errors_travel_with_200_in_json_rpc_and_their_status_in_rest():
    rest = read("POST", "/tasks/t:cancel", "1.0", None, b"")
    assert [task_not_found(call).status for call in (rpc("GetTask"), rpc("tasks/get"), rest)] == [200, 200, 404]
    assert [not_cancelable(call).status for call in (rpc("CancelTask"), rest)] == [200, 400]
    named = json.loads(task_not_found(rest).body)["error"]["details"][0]
    assert named | {"@type": ""} == {
        "@type": "",
        "reason": "TASK_NOT_FOUND",
        "domain": "a2a-protocol.org",
        "metadata": {"taskId": "t"},
    }


def test_the_errors_page_shows_the_table():
    page = (Path(__file__).parents[2] / "docs" / "errors.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| `") and line.count("|") == 5]
    assert rows == [f"| `{row.name}` | {row.code} | {row.status} | {row.meaning} |" for row in REASONS]


def test_codes_of_our_own_are_none_of_a2as():
    assert DEFAULT_CODE == -32050
    assert {code for code in CODES.values() if code != DEFAULT_CODE} == {-32700, -32600, -32602}
