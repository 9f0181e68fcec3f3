"""Stories: lines in whatever order come to one causal story, with a summary that says what it came to."""

from typing import Any

import pytest
from core.story_lines import T0, at, line
from hypothesis import given
from hypothesis import strategies as st

from proxy.core import restart as cycles
from proxy.core import story
from proxy.core.decision import Decision, Trigger
from proxy.core.deferral import Deferral, State, StoredAnswer, StoredRequest
from proxy.core.lifecycle import Desired, Status
from proxy.core.restart import Phase, Restart
from proxy.core.story import Kind
from proxy.core.story.timeline import told_one_by_one, told_together
from proxy.core.times import rfc3339
from proxy.core.workspace import LastVerdict, Workspace


def a_deferral(state: State = State.QUEUED, **fields: Any) -> Deferral:
    known = {
        "id": "receipt",
        "workspace_id": "w",
        "caller": "client:c",
        "request": StoredRequest(method="POST", tail="", headers=(), body=b""),
        "enqueued_at": at(2),
        "expires_at": at(3602),
        "next_attempt_at": at(12),
        "state": state,
        "request_id": "r1",
    }
    return Deferral(**{**known, **fields})


# --- the story of a request ------------------------------------------------------------------------------------------

FAILED = {"failed_at": rfc3339(T0), "class": "not_sent", "reason": "refused"}
SETTLING = {"opened_at": rfc3339(T0), "restart_started_at": rfc3339(at(-12)), "because": "less than 30 s after it"}


def a_202() -> list[Decision]:
    common = {"verdict": "busy", "rule": "settling", "policy": "combined", "request_id": "r1", "generation": 3}
    return [
        line(1, "none", evidence=SETTLING, **common),
        line(2, "deferred", evidence=FAILED, receipt="receipt", **common),
    ]


def of_request(own: list[Decision], deferral: Deferral | None = None, **more: Any) -> story.Story:
    known = {"kind": Kind.REQUEST, "around": [], "now": at(10)}
    return story.of_request("r1", own=own, deferral=deferral, **{**known, **more})


def whats(told: story.Story) -> list[str]:
    return [event.what for event in told.timeline]


def test_a_failed_call_comes_before_the_verdict_that_it_led_to() -> None:
    told = of_request(a_202(), a_deferral())
    assert whats(told) == [
        "The call to the agent failed",
        "The workspace was judged BUSY after a call failed",
        "The request was put away durably, and its caller got a receipt (202)",
    ]
    assert told.timeline[0].why == "the agent's port refused the connection (nothing was sent)"
    assert told.timeline[1].why == "less than 30 s after it; its restart began 12 s before"
    assert told.summary == (
        "It got a receipt (202) because the agent's port refused the connection (nothing was sent), and the workspace"
        " was judged BUSY: less than 30 s after it; its restart began 12 s before [rule settling]. It waits in the"
        " queue after 0 tries; the next try is due in 2 s, and it expires in 59 min 52 s."
    )
    assert (told.receipt, told.generation, told.is_whole) == ("receipt", 3, True)


def test_the_order_in_which_lines_are_read_does_not_matter_and_none_is_told_twice() -> None:
    own = a_202()
    assert of_request([*own[::-1], *own]) == of_request(own)


def test_what_went_on_around_is_told_where_it_explains_something() -> None:
    around = [
        line(-900, "restart scheduled", generation=2),
        line(-12, "restart scheduled", generation=3),
        line(0.5, "none", verdict="busy", rule="settling", request_id="another"),
        line(0.6, "deferred", request_id="another", receipt="other"),
        line(5, "status ready", evidence={"cause": "probe"}),
        line(11, "restart scheduled", generation=4),
    ]
    told = of_request(a_202(), a_deferral(State.COMPLETED, completed_at=at(9)), around=around)
    assert [(event.what, event.is_own) for event in told.timeline if not event.is_own] == [
        ("Restart 3 was scheduled", False),
        ("The workspace is ready", False),
    ]


@pytest.mark.parametrize(
    ("deferral", "words"),
    [
        (a_deferral(tries=1, next_attempt_at=at(10)), "after 1 try; it is due as soon as it can be delivered"),
        (a_deferral(State.LEASED, tries=2), "It is being delivered now (try 2)"),
        (
            a_deferral(
                State.COMPLETED, completed_at=at(20), tries=3, answer=StoredAnswer(status=200, headers=(), body=b"")
            ),
            "The agent's answer (200) came 18 s after it was put away, with 3 tries",
        ),
        (
            a_deferral(State.DEAD_LETTERED, completed_at=at(62), tries=5, last_error="5 attempts used up: reset"),
            "It was given up and is a dead letter 1 min after it was put away, with 5 tries: 5 attempts used up: reset",
        ),
        (a_deferral(State.EXPIRED, completed_at=at(3602), last_error="too late"), "It expired undelivered 1 h after"),
        (a_deferral(State.CANCELLED, completed_at=at(3), last_error="by its caller"), "It was cancelled 1 s after"),
        (a_deferral(State.DROPPED, completed_at=at(3)), "It was dropped 1 s after it was put away, with 0 tries"),
    ],
)
def test_a_summary_says_how_the_deferral_stands(deferral: Deferral, words: str) -> None:
    assert words in of_request(a_202(), deferral).summary


def test_an_end_that_no_line_tells_is_told_from_the_deferral_itself() -> None:
    ended = a_deferral(State.CANCELLED, completed_at=at(8), last_error="the workspace was removed")
    told = of_request(a_202(), ended)
    assert (told.timeline[-1].what, told.timeline[-1].why) == ("It was cancelled", "the workspace was removed")
    with_line = of_request([*a_202(), line(8, "cancelled", receipt="receipt", evidence={"reason": "no"})], ended)
    assert whats(with_line).count("It was cancelled") == 1


def test_a_redriven_dead_letter_that_was_answered_ends_with_its_answer() -> None:
    own = [*a_202(), line(3, "dead letter"), line(4, "redriven", trigger=Trigger.ADMIN)]
    told = of_request(own, a_deferral(State.COMPLETED, completed_at=at(8)))
    assert whats(told)[-2:] == [
        "An admin put the dead letter back into its queue",
        "The agent answered; the answer is stored for the caller",
    ]


def test_a_story_whose_beginning_was_trimmed_says_so_and_still_begins() -> None:
    told = of_request([], a_deferral(), kind=Kind.RECEIPT)
    assert not told.is_whole
    assert whats(told) == ["The request was put away durably"]


def tries(count: int, **last: Any) -> list[Decision]:
    """Tries that fail alike, a second apart, from second 3 on."""
    made = []
    for number in range(1, count + 1):
        failed = {"reason": "refused", "class": "not_sent", **(last if number == count else {})}
        made += [
            line(2 + number, "leased", trigger=Trigger.REPLAY, receipt="receipt", evidence={"try": number}),
            line(2.1 + number, "none", trigger=Trigger.REPLAY, verdict="busy", rule="settling", request_id="r1"),
            line(
                2.2 + number, "queued again", trigger=Trigger.REPLAY, receipt="receipt", evidence=failed, verdict="busy"
            ),
        ]
    return made


def test_tries_that_fail_alike_are_told_together_but_for_the_first() -> None:
    told = of_request([*a_202(), *tries(40)], a_deferral())
    folded = told.timeline[-1]
    assert whats(told)[3:] == [
        "Try 1 began",
        "The workspace was judged BUSY after a try from the queue failed",
        "The try brought no answer; the request waits again",
        "39 more tries went the same way",
    ]
    assert (folded.count, folded.at, folded.until) == (39, at(4), at(42.2))


def test_a_few_tries_and_a_try_that_fails_otherwise_are_told_one_by_one() -> None:
    assert len(of_request([*a_202(), *tries(3)], a_deferral()).timeline) == 3 + 9
    last = of_request([*a_202(), *tries(5, reason="reset")], a_deferral()).timeline
    assert [event.count for event in last if event.count > 1] == [3]
    assert "the connection to the agent was reset" in last[-1].why


@given(st.lists(st.sampled_from(["leased", "none", "queued again", "completed", "status ready"]), max_size=30))
def test_folding_loses_no_event(actions: list[str]) -> None:
    lines = [line(number, action, evidence={"reason": "refused"}) for number, action in enumerate(actions)]
    events = told_one_by_one(lines, own=lines)
    folded = sum(event.count for event in events if event.count > 1)
    kept = [event for event in events if event.count == 1]
    in_tries = sum(event.action in {"leased", "none", "queued again"} for event in kept)
    others = sum(action in {"completed", "status ready"} for action in actions)
    assert len(kept) - in_tries == others
    assert in_tries + 2 * folded <= len(actions) - others


# --- the story of a restart ------------------------------------------------------------------------------------------


def a_cycle(**fields: Any) -> Restart:
    known = {
        "workspace_id": "w",
        "generation": 3,
        "incarnation": 4,
        "trigger": cycles.Trigger.VERDICT,
        "reason": "verdict not_running",
        "rule": "not_running",
        "phase": Phase.FINISHED,
        "started_at": at(10),
        "finished_at": at(14.2),
    }
    return Restart(**{**known, **fields})


BEFORE = [
    line(0, "exit seen", generation=2, trigger=Trigger.EXIT, evidence={"exit_code": 1}),
    line(1, "status ready", generation=2),
    line(8, "refused", generation=2, request_id="another"),
    line(9, "offline", generation=2, verdict="dead", rule="not_running", policy="combined", request_id="r1"),
    line(9.5, "refused", generation=2, request_id="r1", evidence={"status": 503, "error": "WORKSPACE_RESTARTING"}),
]
OWN = [
    line(10, "restart scheduled", generation=3, trigger=Trigger.COORDINATOR, rule="not_running", request_id="r1"),
    line(11, "restart stopped", generation=3, evidence={"seconds": 1}),
    line(12, "deferred", generation=3, request_id="r2", verdict="busy", rule="restarting"),
    line(12.5, "deferred", generation=3, request_id="r3", verdict="busy", rule="restarting"),
    line(13, "restart started", generation=3, evidence={"seconds": 3}),
    line(14.2, "restart finished", generation=3, evidence={"seconds": 4.2}),
    line(20, "deferred", generation=3, request_id="r4"),
]


def test_a_restart_is_told_from_what_led_to_it_to_its_end() -> None:
    told = story.of_restart("w/restarts/3", a_cycle(), OWN, BEFORE, at(99))
    assert [(event.what, event.is_own) for event in told.timeline] == [
        ("The workspace was judged DEAD after a call failed, and marked offline", True),
        ("The request was refused: 503 WORKSPACE_RESTARTING", True),
        ("Restart 3 was scheduled", True),
        ("Restart 3: what ran before is stopped 1 s after it was scheduled", True),
        ("2 requests were put away durably (202)", False),
        ("Restart 3: the new instance was started 3 s after it was scheduled, and boots", True),
        ("Restart 3 is finished: the workspace was ready 4.2 s after it was scheduled", True),
    ]
    assert told.summary == (
        "Restart 3 of w came about because the workspace was judged DEAD (found out by request r1): it does not run,"
        " and nothing speaks for it [rule not_running]. The workspace was ready 4.2 s later."
    )
    assert (told.request_id, told.generation) == ("r1", 3)


@pytest.mark.parametrize(
    ("cycle", "words"),
    [
        (a_cycle(phase=Phase.RECORDED, finished_at=None), "It has been under way for 20 s: the old instance is being"),
        (a_cycle(phase=Phase.STOPPED, finished_at=None), "the new one is being started"),
        (a_cycle(phase=Phase.STARTED, finished_at=None), "the new one is not ready yet"),
        (a_cycle(phase=Phase.FAILED, error="no such file"), "It failed after 4.2 s: no such file"),
        (a_cycle(phase=Phase.SUPERSEDED, error="another"), "It was superseded after 4.2 s: another"),
        (a_cycle(trigger=cycles.Trigger.ANNOUNCED, reason="update"), "was announced by the workspace itself: update."),
    ],
)
def test_a_summary_says_how_a_restart_went(cycle: Restart, words: str) -> None:
    assert words in story.of_restart("w#3", cycle, [], [], at(30)).summary


def test_a_restart_whose_lines_were_trimmed_is_told_from_its_record() -> None:
    told = story.of_restart("w#3", a_cycle(), [], [], at(30))
    assert not told.is_whole
    assert [(event.what, event.why) for event in told.timeline] == [("Restart 3 was scheduled", "verdict not_running")]


# --- the story of a workspace ----------------------------------------------------------------------------------------


def test_a_workspace_tells_how_it_is_and_bundles_what_happened_to_requests() -> None:
    workspace = Workspace(
        id="w",
        created_at=T0,
        status=Status.OFFLINE,
        desired=Desired.PAUSED,
        generation=3,
        last_verdict=LastVerdict(verdict="dead", rule="not_running", at=at(9)),
    )
    told = story.of_workspace(workspace, [*BEFORE, *OWN], 2, at(39))
    assert told.summary == (
        "w is offline and paused. It was last judged DEAD 30 s ago: it does not run, and nothing speaks for it"
        " [not_running]. It has had 3 restarts. 2 requests wait in its queue."
    )
    assert "2 requests were put away durably (202)" in whats(told)


def test_requests_are_bundled_by_what_they_got_and_why() -> None:
    common = {"verdict": "busy", "policy": "combined"}
    lines = [
        line(1, "deferred", rule="settling", **common),
        line(2, "refused", rule="settling", **common),
        line(3, "deferred", rule="settling", **common),
        line(4, "deferred", rule="restarting", **common),
        line(5, "restart finished"),
        line(6, "deferred", rule="settling", **common),
    ]
    events = told_together(lines, own=())
    assert [(event.action, event.rule, event.count) for event in events] == [
        ("deferred", "settling", 2),
        ("refused", "settling", 1),
        ("deferred", "restarting", 1),
        ("restart finished", "", 1),
        ("deferred", "settling", 1),
    ]
