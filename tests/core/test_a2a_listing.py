"""Lists of tasks: what is asked for, and pages that two sources make together."""

import base64
import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.a2a import read
from proxy.core.a2a.call import Call, Version
from proxy.core.a2a.listing import (
    BadList,
    ListWish,
    Own,
    Place,
    Theirs,
    list_answer,
    list_request,
    list_wish,
    listed_task,
    listed_tasks,
    page,
    status_time,
)
from proxy.core.a2a.members import Members, document
from proxy.core.times import from_micros, rfc3339

AT = datetime(2026, 1, 31, 12, tzinfo=UTC)


def rpc(**params: Any) -> tuple[Call, str]:
    body = json.dumps({"jsonrpc": "2.0", "id": "x", "method": "ListTasks", "params": params}).encode()
    return read("POST", "", "1.0", "application/json", body), ""


def rest(query: str) -> tuple[Call, str]:
    tail = f"/tenant/tasks?{query}" if query else "/tenant/tasks"
    return read("GET", tail, "1.0", None, b""), tail


@pytest.mark.parametrize(
    ("params", "query", "wish"),
    [
        ({}, "", {}),
        ({"contextId": "a b"}, "contextId=a%20b", {"context_id": "a b"}),
        ({"context_id": "c"}, "context_id=c", {"context_id": "c"}),
        ({"status": "TASK_STATE_INPUT_REQUIRED"}, "status=TASK_STATE_INPUT_REQUIRED", {"state": "input-required"}),
        ({"status": 3}, "status=3", {"state": "completed"}),
        ({"status": "TASK_STATE_UNSPECIFIED"}, "status=", {}),
        ({"pageSize": 7}, "pageSize=7", {"size": 7}),
        ({"pageSize": "7"}, "page_size=7", {"size": 7}),
        ({"historyLength": 0}, "historyLength=0", {"history_length": 0}),
        ({"includeArtifacts": True}, "includeArtifacts=true", {"artifacts": True}),
        ({"includeArtifacts": False}, "include_artifacts=False", {}),
        (
            {"statusTimestampAfter": "2026-01-31T12:00:00Z"},
            "statusTimestampAfter=2026-01-31T12%3A00%3A00Z",
            {"since": AT},
        ),
        ({"tenant": "t", "somethingNew": [1]}, "tenant=t&somethingNew=1", {}),
    ],
)
def test_a_wish_is_read_in_both_bindings(params: dict[str, Any], query: str, wish: dict[str, Any]) -> None:
    assert list_wish(*rpc(**params)) == replace(ListWish(), **wish)
    assert list_wish(*rest(query)) == replace(ListWish(), **wish)


@pytest.mark.parametrize(
    "params",
    [
        {"pageSize": 0},
        {"pageSize": 101},
        {"pageSize": -1},
        {"pageSize": "many"},
        {"pageSize": 1.5},
        {"pageToken": "hf."},
        {"pageToken": "hf.!!!"},
        {"pageToken": "hf.W10x"},
        {"pageToken": 7},
        {"status": "TASK_STATE_BUSY"},
        {"status": 99},
        {"status": ["TASK_STATE_WORKING"]},
        {"status": {}},
        {"includeArtifacts": "perhaps"},
        {"historyLength": -1},
        {"statusTimestampAfter": "yesterday"},
        {"contextId": 5},
    ],
)
def test_what_no_list_can_be_is_said(params: dict[str, Any]) -> None:
    with pytest.raises(BadList):
        list_wish(*rpc(**params))


@pytest.mark.parametrize(
    "place", [[[0, 2**63], False, "", 0], [[1, -1], False, "", 0], [None, False, "", -1], [None, False, "", 2**63]]
)
def test_a_token_that_names_no_place_there_can_be_is_refused(place: list[Any]) -> None:
    forged = base64.urlsafe_b64encode(json.dumps(place).encode()).decode()
    with pytest.raises(BadList):
        list_wish(*rpc(pageToken=f"hf.{forged}"))


def test_a_token_of_the_agents_is_handed_back_to_it() -> None:
    call, tail = rpc(pageToken="theirs", page_size=3, contextId="c")
    wish = list_wish(call, tail)
    assert (wish.is_ours, wish.place) == (False, Place(own_over=True, theirs="theirs"))
    body, _ = list_request(call, tail, wish.place, 3)
    assert json.loads(body)["params"] == {"contextId": "c", "pageSize": 3, "pageToken": "theirs"}
    call, tail = rest("pageToken=a%2Fb&contextId=c&page_size=3")
    body, asked = list_request(call, tail, list_wish(call, tail).place, 3)
    assert (body, asked) == (b"", "/tenant/tasks?contextId=c&pageSize=3&pageToken=a%2Fb")
    assert list_request(*rest(""), Place(), 50)[1] == "/tenant/tasks?pageSize=50"


def task(name: str, at: int, **more: Any) -> Members:
    said = {"id": name, "status": {"state": "TASK_STATE_WORKING", "timestamp": rfc3339(from_micros(at))}, **more}
    return document(json.dumps(said).encode()) or {}


def test_a_kept_task_is_listed_as_v1_0_lists_show_it() -> None:
    kept = {
        "kind": "task",
        "id": "t",
        "contextId": "c",
        "status": {"state": "input-required"},
        "history": [{"kind": "message", "messageId": str(n), "role": "user", "parts": []} for n in range(3)],
        "artifacts": [{"artifactId": "a", "parts": [{"kind": "text", "text": "x"}]}],
    }
    said = json.dumps(kept).encode()
    shown = listed_task(said, Version.V03, ListWish(history_length=1))
    assert set(shown) == {"id", "contextId", "status", "history"}
    assert [message["messageId"] for message in json.loads(bytes(shown["history"]))] == ["2"]
    shown = listed_task(said, Version.V03, ListWish(artifacts=True, history_length=0))
    assert json.loads(bytes(shown["artifacts"])) == [{"artifactId": "a", "parts": [{"text": "x"}]}]
    assert "history" not in shown


def test_filters_are_of_the_task_itself() -> None:
    one = task("t", 1_000_000, contextId="c")
    assert ListWish(context_id="c", state="working", since=from_micros(1_000_000)).takes(one)
    assert not ListWish(context_id="d").takes(one)
    assert not ListWish(state="completed").takes(one)
    assert not ListWish(since=from_micros(1_000_001)).takes(one)
    assert not ListWish(since=from_micros(0)).takes(document(b'{"id":"t"}') or {})


def test_an_agents_page_is_read_in_both_bindings_and_an_error_is_none() -> None:
    said = {"tasks": [{"id": "t"}], "nextPageToken": "n", "pageSize": 1, "totalSize": 9}
    for body in (said, {"jsonrpc": "2.0", "id": 1, "result": said}):
        found = listed_tasks(json.dumps(body).encode())
        assert found is not None
        assert (len(found.tasks), found.next_token, found.total) == (1, "n", 9)
    empty = listed_tasks(b'{"jsonrpc":"2.0","id":1,"result":{"nextPageToken":"","pageSize":50}}')
    assert empty is not None
    assert (empty.tasks, empty.next_token) == ([], "")
    for none in (b"", b"[]", b'{"error":{"code":-32601}}', b'{"jsonrpc":"2.0","id":1,"result":{}}', b"{}"):
        assert listed_tasks(none) is None


def test_the_answer_is_in_the_callers_binding() -> None:
    call, _ = rpc()
    said = json.loads(list_answer(call, [task("t", 5)], None, ListWish(size=3), 1))
    assert (said["id"], said["result"]["nextPageToken"], said["result"]["pageSize"]) == ("x", "", 3)
    call, _ = rest("")
    said = json.loads(list_answer(call, [], Place(own=(5, 6), theirs="n", skip=2), ListWish(), 7))
    assert said["totalSize"] == 7
    assert list_wish(*rpc(pageToken=said["nextPageToken"])).place == Place(own=(5, 6), theirs="n", skip=2)


class Agent:
    """Lists its tasks a page at a time, as agents do."""

    def __init__(self, tasks: Sequence[Members], own: set[int]) -> None:
        self.tasks = tasks
        self.own = own

    def page(self, token: str, size: int) -> Theirs:
        start = int(token or 0)
        found = self.tasks[start : start + size]
        behind = str(start + size) if start + size < len(self.tasks) else ""
        dropped = frozenset(place for place in range(len(found)) if start + place in self.own)
        return Theirs(tasks=found, next_token=behind, total=len(self.tasks), dropped=dropped)


TIMES = st.lists(st.integers(1, 40), max_size=12).map(lambda times: sorted(times, reverse=True))


@given(own=TIMES, theirs=TIMES, size=st.integers(1, 6), looked_at=st.integers(1, 4), same=st.sets(st.integers(0, 11)))
def test_all_pages_together_hold_each_task_once_and_the_newest_first(
    own: list[int], theirs: list[int], size: int, looked_at: int, same: set[int]
) -> None:
    """`same` are places in the agent's list of tasks that are own ones; `looked_at` own tasks are read at a time."""
    agent = Agent([task(f"theirs-{n}", at) for n, at in enumerate(theirs)], same)
    ours = [Own(key=(at, 100 - n), task=task(f"own-{n}", at)) for n, at in enumerate(own)]
    found: list[Members] = []
    place: Place | None = Place()
    for _ in range(200):
        assert place is not None
        behind, last = place.own, place
        left = [] if place.own_over else [each for each in ours if behind is None or each.key < behind]
        read_now, rest_of = left[: size + looked_at], left[size + looked_at :]
        more = read_now[-1].key if rest_of else None
        answer = agent.page(last.theirs, size) if last.theirs is not None else None
        tasks, place, total = page(read_now, more, answer, ListWish(size=size, place=last))
        assert len(tasks) <= size
        assert total >= len(tasks)
        found += tasks
        if place is None:
            break
    assert place is None, "the pages have no end"
    wanted = {f"own-{n}" for n in range(len(own))} | {f"theirs-{n}" for n in range(len(theirs)) if n not in same}
    ids = [json.loads(bytes(each["id"])) for each in found]
    assert sorted(ids) == sorted(wanted)
    times = [status_time(each) for each in found]
    assert times == sorted(times, reverse=True)  # type: ignore[type-var]  # each of them has a time


def test_a_page_that_found_nothing_among_many_goes_on_behind_them() -> None:
    wish = ListWish(size=2, place=Place(own=(90, 1), theirs=None))
    tasks, behind, _ = page([], (50, 7), None, wish)
    assert (tasks, behind) == ([], Place(own=(50, 7), own_over=False, theirs=None))
    one = Own(key=(60, 3), task=task("t", 60))
    assert page([one], (50, 7), None, wish)[1] == Place(own=(50, 7), own_over=False, theirs=None)
    assert page([one], None, None, wish)[1] is None
