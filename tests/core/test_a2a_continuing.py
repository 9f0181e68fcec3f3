"""Tasks that go on: with their next message, or to an end that Holdfast makes; errors that agents make for tasks."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from proxy.core.a2a import (
    Call,
    Version,
    continued_task,
    ended_task,
    error_code,
    invalid_params,
    keep_answer,
    push_not_supported,
    read,
    says_not_found,
    task_has_ended,
)

AT = datetime(2026, 1, 31, 12, tzinfo=UTC)


def sent(version: str = "1.0") -> Call:
    message: dict[str, Any] = {"messageId": "m2", "role": "ROLE_USER", "parts": [{"text": "blue"}], "taskId": "t"}
    method = "SendMessage"
    if version == "0.3":
        message |= {"kind": "message", "role": "user", "parts": [{"kind": "text", "text": "blue"}]}
        method = "message/send"
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {"message": message}}
    return read("POST", "", None, None, json.dumps(body).encode())


def asking(state: str = "TASK_STATE_INPUT_REQUIRED") -> bytes:
    return json.dumps(
        {
            "id": "t",
            "contextId": "c",
            "status": {
                "state": state,
                "message": {"messageId": "q", "role": "ROLE_AGENT", "parts": [{"text": "which?"}]},
            },
            "history": [{"messageId": "m1", "role": "ROLE_USER", "parts": [{"text": "paint"}]}],
            "artifacts": [{"artifactId": "a", "parts": [{"text": "so far"}]}],
            "metadata": {"of": "the agent"},
        }
    ).encode()


def test_a_task_whose_next_message_waits_is_submitted_with_all_that_it_held() -> None:
    said = continued_task(sent(), asking(), Version.V10, task_id="t", at=AT, text="It waits.")
    made = json.loads(said)
    assert (made["id"], made["contextId"], made["status"]["state"]) == ("t", "c", "TASK_STATE_SUBMITTED")
    assert made["status"]["message"]["parts"] == [{"text": "It waits."}]
    assert [message["messageId"] for message in made["history"]] == ["m1", "q", "m2"]
    assert made["history"][-1]["taskId"] == "t"
    assert (made["artifacts"][0]["artifactId"], made["metadata"]) == ("a", {"of": "the agent"})


def test_what_holdfast_said_while_an_earlier_message_waited_is_no_part_of_the_conversation() -> None:
    said = continued_task(sent(), asking("TASK_STATE_SUBMITTED"), Version.V10, task_id="t", at=AT, text="It waits.")
    assert [message["messageId"] for message in json.loads(said)["history"]] == ["m1", "m2"]


def test_a_task_goes_on_in_the_shape_of_the_message_that_goes_on_with_it() -> None:
    made = json.loads(continued_task(sent("0.3"), asking(), Version.V10, task_id="t", at=AT, text="It waits."))
    assert (made["kind"], made["status"]["state"]) == ("task", "submitted")
    assert [message["role"] for message in made["history"]] == ["user", "agent", "user"]


def test_a_task_that_holdfast_ends_keeps_what_it_held() -> None:
    said = ended_task(asking(), Version.V10, task_id="t", context_id="c", state="failed", text="Why.", at=AT)
    made = json.loads(said)
    assert (made["status"]["state"], made["status"]["message"]["parts"]) == ("TASK_STATE_FAILED", [{"text": "Why."}])
    assert [message["messageId"] for message in made["history"]] == ["m1"]
    assert made["artifacts"]


@pytest.mark.parametrize(
    ("status", "body", "refused"),
    [
        (200, {"jsonrpc": "2.0", "id": 1, "error": {"code": -32004, "message": "no"}}, True),
        (500, {}, True),
        (200, {"nothing": "known"}, True),
        (
            200,
            {"jsonrpc": "2.0", "id": 1, "result": {"task": {"id": "u", "status": {"state": "TASK_STATE_FAILED"}}}},
            False,
        ),
    ],
)
def test_a_refusal_is_told_from_a_task_that_failed(status: int, body: dict[str, Any], refused: bool) -> None:
    said = json.dumps(body).encode()
    kept = keep_answer(sent(), status=status, body=said, task_id="t", context_id="c", at=AT)
    assert (kept.refused, kept.state) == (refused, "failed")


@pytest.mark.parametrize(
    ("make", "code", "reason", "status"),
    [
        (push_not_supported, -32003, "PUSH_NOTIFICATION_NOT_SUPPORTED", 400),
        (task_has_ended, -32004, "UNSUPPORTED_OPERATION", 400),
        (lambda call: invalid_params(call, "which"), -32602, "INVALID_PARAMS", 400),
    ],
)
def test_errors_that_agents_make_look_as_theirs(make: Any, code: int, reason: str, status: int) -> None:
    answer = make(sent())
    said = json.loads(answer.body)["error"]
    assert (answer.status, said["code"], said["data"][0]["reason"]) == (200, code, reason)
    assert said["data"][0]["metadata"] == {"taskId": "t"}
    assert error_code(answer.body) == code
    call = read("GET", "/tasks/t", "1.0", None, b"")
    answer = make(call)
    said = json.loads(answer.body)["error"]
    assert (answer.status, said["code"], said["details"][0]["reason"]) == (status, status, reason)


def test_an_agent_says_in_each_binding_that_it_does_not_know_a_task() -> None:
    rpc, rest = sent(), read("GET", "/tasks/t", "1.0", None, b"")
    assert says_not_found(rpc, 200, b'{"error":{"code":-32001}}')
    assert not says_not_found(rpc, 404, b'{"error":{"code":-32002}}')
    assert not says_not_found(rpc, 200, b"nothing")
    assert says_not_found(rest, 404, b"")
    assert not says_not_found(rest, 400, b"{}")
