"""What profile `plain` makes of requests and of agents' failures."""

import itertools
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.a2a.plain import failure_text, normalised
from proxy.core.errors import CallerError

TEXT = [{"kind": "text", "text": "hi"}]


def ids() -> Callable[[], str]:
    numbers = itertools.count(1)
    return lambda: f"new-{next(numbers)}"


def made(body: Any) -> Any:
    return json.loads(normalised(json.dumps(body).encode(), ids()))


def rpc(message: Any, method: str = "message/send", **more: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": {"message": message}, **more}


def test_scenario_24_a_bare_request_is_wrapped_and_its_message_named() -> None:
    message = {"role": "user", "parts": TEXT}
    assert made({"method": "message/send", "params": {"message": message, "configuration": {"blocking": True}}}) == {
        "jsonrpc": "2.0",
        "id": "new-1",
        "method": "message/send",
        "params": {"message": {**message, "messageId": "new-2"}, "configuration": {"blocking": True}},
    }


def test_scenario_24_what_is_there_stays() -> None:
    message = {"role": "agent", "messageId": "mine", "parts": TEXT}
    whole = json.dumps(rpc(message, id=7), indent=3).encode()
    assert normalised(whole, ids()) is whole
    assert made({"id": "own", "method": "tasks/get", "params": {"id": "t"}})["id"] == "own"
    assert made({"params": {}}) == {"jsonrpc": "2.0", "id": "new-1", "params": {}}


@pytest.mark.parametrize(
    ("said", "becomes"),
    [
        ({"parts": TEXT}, {"role": "user", "parts": TEXT}),
        ({"content": "hi"}, {"role": "user", "parts": TEXT}),
        ({"content": TEXT, "role": "agent"}, {"role": "agent", "parts": TEXT}),
        ({"parts": TEXT, "content": "other"}, {"role": "user", "parts": TEXT, "content": "other"}),
        ({"parts": [{"type": "text", "text": "hi"}]}, {"role": "user", "parts": TEXT}),
        (
            {"parts": [{"type": "x", "kind": "text", "text": "hi"}]},
            {"role": "user", "parts": [{"type": "x", "kind": "text", "text": "hi"}]},
        ),
        ({"parts": TEXT, "messageId": ""}, {"role": "user", "parts": TEXT}),
        ({"parts": TEXT, "messageId": None, "role": None}, {"role": "user", "parts": TEXT}),
    ],
)
def test_an_old_message_is_read_as_it_was_meant(said: Any, becomes: Any) -> None:
    assert made(rpc(said))["params"]["message"] == {**becomes, "messageId": "new-1"}


def test_a_v10_message_gets_v10_s_words() -> None:
    assert made(rpc({"content": "hi"}, "SendMessage"))["params"]["message"] == {
        "parts": [{"text": "hi"}],
        "messageId": "new-1",
        "role": "ROLE_USER",
    }
    kept = [{"type": "x", "text": "hi"}]
    assert made(rpc({"parts": kept}, "SendMessage"))["params"]["message"]["parts"] == kept


@pytest.mark.parametrize("body", [b"", b"nothing", b"7", b'"text"', b"null", b"{", b"\xff{}", b'{"a":"\xff"}'])
def test_scenario_23_what_is_no_json_object_is_refused(body: bytes) -> None:
    with pytest.raises(CallerError) as refused:
        normalised(body, ids())
    assert (refused.value.status, refused.value.reason) == (400, "MALFORMED_BODY")
    with pytest.raises(CallerError) as listed:
        normalised(b"[]", ids())
    assert listed.value.reason == "NOT_AN_OBJECT"


@pytest.mark.parametrize("message", [{}, {"content": 7}, {"content": {"text": "hi"}}, {"parts": None}])
def test_a_message_without_anything_in_it_is_refused_with_a_hint(message: Any) -> None:
    with pytest.raises(CallerError) as refused:
        made(rpc(message))
    assert (refused.value.status, refused.value.reason) == (400, "BAD_MESSAGE")
    assert "parts" in refused.value.message


@pytest.mark.parametrize(
    ("status", "body", "text"),
    [
        (500, b'{"error":"out of memory"}', "out of memory"),
        (500, b'{"error":{"code":1}}', "Internal Server Error"),
        (500, b'{"error":""}', "Internal Server Error"),
        (503, b"busy", "Service Unavailable"),
        (301, b"", "Moved Permanently"),
        (599, b"", "status 599"),
    ],
)
def test_scenario_30_a_failure_is_told_by_its_text_or_by_its_status(status: int, body: bytes, text: str) -> None:
    assert failure_text(status, body) == text


JSONS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["jsonrpc", "id", "method", "params", "message", "messageId", "role", "parts", "content", "type"]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)


@given(JSONS)
def test_whatever_comes_is_refused_or_complete_and_then_stays_as_it_is(body: Any) -> None:
    try:
        once = normalised(json.dumps(body).encode(), ids())
    except CallerError:
        return
    assert "jsonrpc" in json.loads(once)
    assert normalised(once, ids()) is once
