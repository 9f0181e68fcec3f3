"""`holdfast explain`: a timeline for people on a terminal, a line an event in a pipe, the API's JSON for programs."""

from typing import Any

import pytest
from cli.commandline import pipe, run, terminal
from cli.conftest import Holdfast
from ports import free_port
from web.harness import Harness

from proxy.cli.exit_codes import Exit
from proxy.cli.explain import _drawn

ANSWER: dict[str, Any] = {
    "subject": "r1",
    "kind": "request",
    "also": [],
    "workspace_id": "agent-7",
    "summary": "It got a receipt (202) because the agent's port refused the connection (nothing was sent).",
    "request_id": "r1",
    "receipt": "d1",
    "generation": 3,
    "whole": True,
    "timeline": [
        {
            "at": "2026-01-31T11:59:50.000000Z",
            "until": None,
            "count": 1,
            "what": "Restart 3 was scheduled",
            "why": "an admin asked for it",
            "rule": None,
            "own": False,
        },
        {
            "at": "2026-01-31T12:00:02.250000Z",
            "until": None,
            "count": 1,
            "what": "The workspace was judged BUSY after a call failed",
            "why": "less than 30 s after the restart's start; its restart began 12 s before",
            "rule": "settling",
            "own": True,
        },
        {
            "at": "2026-01-31T12:00:02.300000Z",
            "until": None,
            "count": 1,
            "what": "The request was put away \x1b[2J durably",
            "why": "",
            "rule": None,
            "own": True,
        },
    ],
}


def test_a_terminal_shows_times_since_the_first_event_and_sentences_that_fit() -> None:
    assert list(_drawn(terminal(60), ANSWER)) == [
        "request r1, workspace agent-7",
        "It got a receipt (202) because the agent's port refused the",
        "connection (nothing was sent).",
        "",
        "from 2026-01-31 11:59:50 UTC",
        " +0 s   Restart 3 was scheduled",
        "        an admin asked for it",
        "+12 s • The workspace was judged BUSY after a call failed",
        "        less than 30 s after the restart's start; its",
        "        restart began 12 s before [rule settling]",
        "+12 s • The request was put away \\x1b[2J durably",
    ]


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_every_width_shows_every_word(width: int) -> None:
    shown = " ".join(" ".join(_drawn(terminal(width), ANSWER)).split())
    for event in ANSWER["timeline"]:
        for word in (*event["what"].replace("\x1b", "\\x1b").split(), *event["why"].split()):
            assert word in shown
    longest = max(len(line) for line in _drawn(terminal(width), ANSWER))
    assert longest <= max(width, 9 + 30)


def test_colours_are_for_terminals_that_have_them() -> None:
    assert "\x1b[" in "".join(_drawn(terminal(60, colours=True), ANSWER)).replace("\\x1b[", "")
    assert "\x1b[" not in "".join(_drawn(terminal(60), ANSWER))


def test_a_pipe_gets_a_line_for_each_event_that_begins_with_its_instant() -> None:
    lines = list(_drawn(pipe(), ANSWER))
    assert lines[3:] == [
        "2026-01-31T11:59:50.000000Z   +0 s  Restart 3 was scheduled: an admin asked for it",
        (
            "2026-01-31T12:00:02.250000Z  +12 s  The workspace was judged BUSY after a call failed: less than 30 s"
            " after the restart's start; its restart began 12 s before  [rule settling]"
        ),
        "2026-01-31T12:00:02.300000Z  +12 s  The request was put away \\x1b[2J durably",
    ]


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"kind": "workspace", "subject": "agent-7"}, "workspace agent-7"),
        ({"kind": "restart"}, "restart 3 of workspace agent-7"),
        ({"also": ["receipt"]}, "(r1 is also the id of a receipt: see --kind)"),
        ({"whole": False}, "(The log has forgotten how this began.)"),
    ],
)
def test_what_the_subject_is_and_what_is_missing_is_said(members: dict[str, Any], said: str) -> None:
    assert said in list(_drawn(terminal(), {**ANSWER, **members}))


def test_a_story_without_events_is_its_summary() -> None:
    assert list(_drawn(terminal(200), {**ANSWER, "timeline": []})) == [
        "request r1, workspace agent-7",
        ANSWER["summary"],
    ]


def test_its_help_has_examples() -> None:
    shown = run("explain", "--help").out
    assert "holdfast explain agent-7/restarts/3" in shown
    assert "WORKSPACE/restarts/N" in shown


@pytest.mark.parametrize("words", [[], ["/"], ["a", "--kind", "elephant"], ["a", "--limit", "0"]])
def test_what_cannot_be_asked_is_a_usage_error(words: list[str]) -> None:
    assert run("explain", *words).code == Exit.USAGE


# Over the wire


async def test_a_request_a_receipt_a_restart_and_a_workspace_are_explained(holdfast: Holdfast, proxy: Harness) -> None:
    await proxy.enroll("agent-7", url=f"http://127.0.0.1:{free_port()}", unmanaged_away="defer")
    got, _ = await proxy.send("agent-7", await proxy.client())
    request_id, receipt = got.headers["Holdfast-Request-Id"], got.headers["Holdfast-Receipt"]
    told = await holdfast("explain", request_id)
    assert told.code == 0
    assert told.lines[0] == f"request {request_id}, workspace agent-7"
    assert told.lines[1].startswith("It got a receipt (202) because the agent's port refused the connection (nothing")
    assert "The request was put away durably" in told.out
    by_receipt = await holdfast("explain", receipt, "--json")
    assert by_receipt.json["kind"] == "receipt"
    assert (await holdfast("explain", receipt, "--kind", "receipt")).lines[0].startswith(f"receipt {receipt}")
    assert (await holdfast("explain", "agent-7")).lines[1].startswith("agent-7 is starting")
    await proxy.call("POST", "/workspaces/agent-7/restarting", json={"reason": "update"})
    for subject in ("agent-7/restarts/1", "agent-7#1"):
        restart = await holdfast("explain", subject)
        assert restart.lines[:2] == [
            "restart 1 of workspace agent-7",
            "Restart 1 of agent-7 was announced by the workspace itself: update.",
        ]


async def test_what_nothing_is_known_of_is_one_sentence_and_an_exit_code(holdfast: Holdfast) -> None:
    told = await holdfast("explain", "nobody")
    assert (told.code, told.out) == (Exit.NOT_FOUND, "")
    assert told.err.startswith("holdfast: nothing is known of nobody as a workspace, a receipt, a request or a restart")
    assert (await holdfast("explain", "nobody", "--json")).json["error"]
