"""What Holdfast itself says to an agent about a send, in both versions and bindings."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core import a2a
from proxy.core.a2a import asking

MESSAGE = {"messageId": "m1", "role": "ROLE_USER", "parts": [{"text": "hi"}]}
TASK = {"id": "up", "contextId": "c", "status": {"state": "TASK_STATE_WORKING"}}


def rpc(method: str = "SendMessage", rpc_id: Any = "seven") -> tuple[a2a.Call, bytes]:
    body = json.dumps({"jsonrpc": "2.0", "id": rpc_id, "method": method, "params": {"message": MESSAGE}}).encode()
    return a2a.read("POST", "", None, "application/json", body), body


def rest(tail: str, version: str | None = None) -> tuple[a2a.Call, bytes]:
    body = json.dumps({"message": MESSAGE}).encode()
    return a2a.read("POST", tail, version, "application/json", body), body


def said(question: asking.Question | None) -> tuple[str, Any]:
    assert question is not None
    known = json.loads(question.body)
    assert (question.method, known["jsonrpc"], known["id"]) == ("POST", "2.0", "seven")
    return known["method"], known["params"]


@pytest.mark.parametrize(
    ("card", "streams"),
    [
        ({"capabilities": {"streaming": True}}, True),
        ({"capabilities": {"streaming": "true"}}, False),
        ({"capabilities": {}}, False),
        ({"capabilities": None}, False),
        ({}, False),
        (None, False),
    ],
)
def test_a_card_announces_streams_or_does_not(card: Any, streams: bool) -> None:
    assert asking.announces_streaming(card) is streams


@pytest.mark.parametrize(
    ("method", "streaming"), [("SendMessage", "SendStreamingMessage"), ("message/send", "message/stream")]
)
def test_a_unary_send_becomes_a_stream_by_its_method(method: str, streaming: str) -> None:
    call, body = rpc(method)
    made = asking.as_stream(call, "/x?y=1", body)
    assert made is not None
    tail, sent = made
    assert tail == "/x?y=1"
    assert json.loads(sent) == {**json.loads(body), "method": streaming}


@pytest.mark.parametrize(
    ("tail", "streaming"),
    [
        ("/message:send", "/message:stream"),
        ("/v1/message:send?a=message:send", "/v1/message:stream?a=message:send"),
        ("/tenant/v1/message:send", "/tenant/v1/message:stream"),
    ],
)
def test_a_unary_send_becomes_a_stream_by_its_path(tail: str, streaming: str) -> None:
    call, body = rest(tail)
    assert asking.as_stream(call, tail, body) == (streaming, body)


def test_what_is_a_stream_stays_as_it_is() -> None:
    assert asking.as_stream(*_with_tail(rpc("SendStreamingMessage"))) is None
    call, body = rest("/message:stream")
    assert asking.as_stream(call, "/message:stream", body) is None


def _with_tail(made: tuple[a2a.Call, bytes]) -> tuple[a2a.Call, str, bytes]:
    return made[0], "", made[1]


def test_the_questions_in_json_rpc() -> None:
    new, old = rpc()[0], rpc("message/send")[0]
    assert said(asking.follow(new, "", "up")) == ("SubscribeToTask", {"id": "up"})
    assert said(asking.follow(old, "", "up")) == ("tasks/resubscribe", {"id": "up"})
    assert said(asking.look(new, "", "up")) == ("GetTask", {"id": "up"})
    assert said(asking.look(old, "", "up")) == ("tasks/get", {"id": "up"})
    wanted = {"contextId": "c", "pageSize": 100, "historyLength": 100, "includeArtifacts": True}
    assert said(asking.list_context(new, "", "c")) == ("ListTasks", wanted)
    assert said(asking.list_context(new, "", "c", page="p")) == ("ListTasks", {**wanted, "pageToken": "p"})
    assert asking.list_context(old, "", "c") is None


def test_a_question_is_never_a_notification() -> None:
    call, _ = rpc(rpc_id=None)
    assert json.loads(asking.look(call, "", "up").body)["id"] == 1


@pytest.mark.parametrize(
    ("tail", "base", "query"),
    [
        ("/message:send", "", ""),
        ("/v1/message:stream", "/v1", ""),
        ("/t/message:send?k=v", "/t", "?k=v"),
        ("/tasks/a%2Fb:subscribe?k=v", "", "?k=v"),
    ],
)
def test_the_questions_in_rest(tail: str, base: str, query: str) -> None:
    call = rest("/message:send", "1.0")[0]
    followed = asking.follow(call, tail, "a/b c")
    assert (followed.method, followed.tail, followed.body) == ("POST", f"{base}/tasks/a%2Fb%20c:subscribe{query}", b"")
    looked = asking.look(call, tail, "up")
    assert (looked.method, looked.tail, looked.body) == ("GET", f"{base}/tasks/up{query}", b"")


def test_a_list_in_rest_keeps_the_sends_query() -> None:
    call = rest("/message:send", "1.0")[0]
    question = asking.list_context(call, "/message:send?k=v", "c d", page="p")
    assert question is not None
    asked = "contextId=c+d&pageSize=100&historyLength=100&pageToken=p&includeArtifacts=true"
    assert (question.method, question.tail) == ("GET", f"/tasks?k=v&{asked}")


@pytest.mark.parametrize("wrap", [lambda found: {"jsonrpc": "2.0", "id": 1, "result": found}, lambda found: found])
def test_a_message_is_found_in_a_list_by_its_id(wrap: Any) -> None:
    mine = {**TASK, "history": [{"messageId": "m0"}, {"messageId": "m1"}]}
    page = json.dumps(wrap({"tasks": [{"no": "task"}, TASK, mine], "nextPageToken": "more"})).encode()
    found = asking.found_in(page, "m1")
    assert found.event is not None
    assert asking.about(found.event) == (asking.about(found.event).task, "up", "c")
    assert asking.found_in(page, "m2") == asking.Listed(event=None, next_page="more")


def test_a_task_that_was_looked_at_is_an_event_of_the_stream() -> None:
    new, old = rpc()[0], rpc("message/send")[0]
    bare = json.dumps({"jsonrpc": "2.0", "id": 1, "result": TASK}).encode()
    assert json.loads(asking.task_event(new, bare) or b"")["result"] == {"task": TASK}
    assert asking.task_event(old, bare) == bare
    assert json.loads(asking.task_event(rest("/message:send")[0], json.dumps(TASK).encode()) or b"") == {"task": TASK}
    for nothing in (b"", b"[]", b'{"error": "no"}', b'{"jsonrpc":"2.0","id":1,"error":{"code":-32001}}'):
        assert asking.task_event(new, nothing) is None


@pytest.mark.parametrize(
    ("item", "ids"),
    [
        ({"task": TASK}, ("up", "c")),
        ({"kind": "task", **TASK}, ("up", "c")),
        ({"statusUpdate": {"taskId": "up", "contextId": "c", "status": {}}}, ("up", "c")),
        ({"artifact_update": {"task_id": "up", "context_id": "c"}}, ("up", "c")),
        ({"kind": "status-update", "taskId": "up", "contextId": "c"}, ("up", "c")),
        ({"message": {"taskId": "up", "parts": []}}, ("up", None)),
        ({"message": {"parts": []}}, (None, None)),
        ({}, (None, None)),
    ],
)
def test_what_an_event_is_about(item: dict[str, Any], ids: tuple[str | None, str | None]) -> None:
    for event in (item, {"jsonrpc": "2.0", "id": 1, "result": item}):
        assert asking.about(json.dumps(event).encode())[1:] == ids


@pytest.mark.parametrize(
    ("status", "code", "refused"),
    [
        (200, "-32601", True),
        (200, "-32004", True),
        (400, "UNSUPPORTED_OPERATION", True),
        (404, None, True),
        (405, None, True),
        (501, None, True),
        (200, "-32603", False),
        (200, None, False),
        (401, None, False),
    ],
)
def test_which_answers_say_that_there_are_no_streams(status: int, code: str | None, refused: bool) -> None:
    assert asking.streams_not(status, code) is refused


@given(st.binary(max_size=60))
def test_whatever_an_agent_says_is_read_without_a_fault(said: bytes) -> None:
    call = rpc()[0]
    assert asking.about(said).task is None
    assert asking.found_in(said, "m1").event is None
    assert asking.task_event(call, said) is None
    asking.refused_with(said)
