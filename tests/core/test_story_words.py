"""The words of stories: every rule, action, trigger and fact has a sentence, and no odd evidence breaks one."""

import ast
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from core.story_lines import T0, at, line
from hypothesis import given
from hypothesis import strategies as st
from tree import package_modules

from proxy.core import deferral as queue
from proxy.core import restart as cycles
from proxy.core import story
from proxy.core.decision import Trigger
from proxy.core.deferral import State
from proxy.core.evidence import Evidence, Life, ProbeReading, ProbeState, Strikes, Unsettled
from proxy.core.facts import facts
from proxy.core.lifecycle import Cause, Desired, Status
from proxy.core.liveness import judge
from proxy.core.liveness_rules import RULES, Gives
from proxy.core.outcome import Outcome
from proxy.core.presets import PRESETS, LivenessPolicy
from proxy.core.restart import Phase
from proxy.core.story import Kind, say
from proxy.core.story.about_requests import MANY, RESTARTS
from proxy.core.story.about_workspaces import CAUSES
from proxy.core.story.evidence import PROBES, found
from proxy.core.story.spoken import (
    DELIVERED,
    ELSE,
    FAILURES,
    NOT_DIALLED,
    SENT,
    SHELL_RULES,
    TRIGGERS,
    duration,
    failure,
    meaning,
)
from proxy.core.times import rfc3339
from proxy.core.workspace import Workspace

# --- every word has a sentence ---------------------------------------------------------------------------------------

WRITERS = {"decision", "_line", "_note", "asked", "line", "Decision"}
"""Functions that make lines of the log; an action is a text that is given to one of them."""
PATTERNS = {
    "f'status {after.status}'": [f"status {status}" for status in Status],
    "f'restart {decision.answer}'": [f"restart {answer}" for answer in cycles.Answer],
    "f'restart {cycle.phase}'": [f"restart {phase}" for phase in Phase if phase is not Phase.RECORDED],
    "f'desired {desired}'": [f"desired {desired}" for desired in Desired if desired is not Desired.REMOVED],
}
"""Actions that are put together, and everything that they can be."""


def actions_of(node: ast.expr) -> Iterator[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.JoinedStr):
        yield from PATTERNS.get(ast.unparse(node), [ast.unparse(node)])
    elif isinstance(node, ast.IfExp):
        yield from (*actions_of(node.body), *actions_of(node.orelse))


def written() -> dict[str, str]:
    """Every action that the code of loops and doors writes, and where."""
    given: dict[str, str] = {}
    for module in (*package_modules("proxy/loops"), *package_modules("proxy/web")):
        for node in ast.walk(module.tree):
            if not isinstance(node, ast.Call):
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in WRITERS:
                said = [*node.args[1:4], *(word.value for word in node.keywords if word.arg == "action")]
                given |= {action: f"{module.name}:{node.lineno}" for each in said for action in actions_of(each)}
    return given


def test_every_action_that_is_written_has_a_sentence() -> None:
    found_actions = written()
    assert {"deferred", "refused", "none", "leased", "queued again", "restart scheduled", "exit seen"} <= set(
        found_actions
    )
    missing = {action: where for action, where in found_actions.items() if action not in story.SENTENCES}
    assert missing == {}


def test_actions_that_are_chosen_elsewhere_have_a_sentence_too() -> None:
    from proxy.loops.beats import _action  # noqa: PLC0415 - private, and pinned here on purpose
    from proxy.loops.deferral_lines import ENDS  # noqa: PLC0415 - beside its only use
    from proxy.loops.notes import MORE  # noqa: PLC0415 - beside its only use

    known = Workspace(id="w", created_at=T0)
    beats = {_action(known, replace(known, status=status)) for status in Status}
    beats.add(_action(known, replace(known, incarnation=2)))
    ends = {ENDS[state] for state in State if state not in {*queue.ACTIVE, State.COMPLETED}}
    moves = {"status ready", "status degraded"}
    assert {*beats, *ends, *moves, MORE} <= set(story.SENTENCES)


@pytest.mark.parametrize("action", sorted(story.SENTENCES))
@pytest.mark.parametrize("trigger", list(Trigger))
def test_every_sentence_can_be_said_of_a_line_without_any_evidence(action: str, trigger: Trigger) -> None:
    said = say(line(0, action, trigger=trigger))
    assert said.what
    assert said.what[0].isupper()
    for text in (said.what, said.why):
        assert not re.search(r"None|\{|\}|  |\.$|^[,;: ]|[,;: ]$", text), text


NAMES = """
    opened_at because probes probed_at last_sign_at read_at strikes strike reason class failed_at until seconds
    next_attempt_at exit_code patience retry_after status error attempts attempt try owner how opened_by count intensity
    window debounce failures joined declared_at last_started_at version cause delivered restart state last_error
"""
ODD = st.dictionaries(
    st.sampled_from(sorted(set(NAMES.split()))),
    st.one_of(st.none(), st.text(max_size=5), st.integers(-5, 5), st.lists(st.text(max_size=3), max_size=3)),
)


@given(action=st.sampled_from(sorted({*story.SENTENCES, "of another version"})), evidence=ODD, rule=st.text(max_size=4))
def test_no_evidence_that_another_version_may_have_written_breaks_a_story(
    action: str, evidence: dict[str, Any], rule: str
) -> None:
    odd = line(0, action, evidence=evidence, rule=rule, verdict="dead", policy="another", request_id="r1", receipt="d")
    told = story.of_request("r1", kind=Kind.REQUEST, own=[odd], around=[odd], deferral=None, now=at(9))
    assert told.timeline
    told = story.of_workspace(Workspace(id="w", created_at=T0), [odd, odd], 1, at(9))
    assert told.summary


@pytest.mark.parametrize(
    ("preset", "rule"),
    sorted({(preset, row.name) for preset, rows in RULES.items() for row in rows if isinstance(row.answer, Gives)}),
)
def test_every_rule_of_the_tables_has_a_meaning_from_the_table_itself(preset: str, rule: str) -> None:
    words = meaning(preset, rule)
    rows = [row.when.spelled_out(PRESETS[preset]) for row in RULES[preset] if row.name == rule]  # type: ignore[index]  # presets are their own names
    assert words
    assert all(row in words for row in rows if row != ELSE)


def test_every_rule_of_the_shell_has_a_meaning() -> None:
    rules = set(re.findall(r'rule="([a-z_]+)"', "".join(module.source for module in package_modules("proxy/loops"))))
    rules |= set(re.findall(r'(?:_away\(asked, |Why\(.*rule=)"([a-z_]+)"', _doors()))
    rules |= {desired.value for desired in Desired if desired is not Desired.RUNNING} | {"throttled", "raced"}
    named = {row.name for rows in RULES.values() for row in rows}
    assert {"order", "slow_call", "stopping", "poll", "no_url", "restarting"} <= rules
    assert rules - {"boot_id"} <= {*SHELL_RULES, *NOT_DIALLED, *named}


def _doors() -> str:
    return "".join(module.source for module in package_modules("proxy/web") if module.path.name == "undelivered.py")


def test_every_vocabulary_that_a_story_speaks_of_is_spoken_whole() -> None:
    assert set(TRIGGERS) == set(Trigger)
    assert set(PROBES) == {state.value for state in ProbeState}
    assert set(SENT) >= {outcome.value for outcome in Outcome}
    assert set(DELIVERED) == {"no", "maybe", "yes"}
    assert set(RESTARTS) == {answer.value for answer in cycles.Answer}
    assert set(CAUSES) >= {cause.value for cause in Cause}
    assert {state for state in State if state not in queue.ACTIVE} == set(story.summaries.ENDED)
    assert set(MANY) <= set(story.SENTENCES)


def test_every_reason_of_a_failed_call_is_said_in_words() -> None:
    documented = re.search(r"reason: machine word\.(.*?)\n {8}detail:", _forward(), re.DOTALL)
    assert documented is not None
    reasons = set(re.findall(r"`([a-z_]+)`", documented[1]))
    assert len(reasons) > 10
    assert reasons <= set(FAILURES)


def _forward() -> str:
    return next(module.source for module in package_modules("proxy/forward") if module.path.name == "__init__.py")


# --- words -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0 s"),
        (0.0004, "0 s"),
        (0.0006, "1 ms"),
        (0.0994, "99 ms"),
        (0.0996, "0.1 s"),
        (0.0404, "40 ms"),
        (0.4, "0.4 s"),
        (3, "3 s"),
        (9.96, "10 s"),
        (12.4, "12 s"),
        (59.6, "1 min"),
        (60, "1 min"),
        (200, "3 min 20 s"),
        (3599.7, "1 h"),
        (7199, "2 h"),
        (7500, "2 h 5 min"),
        (86399, "24 h"),
        (86400, "1 d"),
        (273600, "3 d 4 h"),
        (-12, "12 s"),
    ],
)
def test_a_length_of_time_is_said_with_its_unit(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_what_no_table_knows_of_a_failure_is_a_sentence_already() -> None:
    assert failure("upstream answered 502") == "a gateway (or the agent) answered 502"
    assert failure("the holder said so") == "the holder said so"


# --- evidence --------------------------------------------------------------------------------------------------------


def policy(**numbers: float) -> LivenessPolicy:
    return replace(PRESETS["combined"], **numbers)  # type: ignore[arg-type]  # the names are the record's


def judged(evidence: Evidence, of: LivenessPolicy) -> dict[str, Any]:
    """The facts of an evaluation that has come to its verdict."""
    verdict = judge(of, evidence, evidence.opened_at)
    assert not isinstance(verdict, Unsettled)
    return facts(evidence, of, verdict)


def test_the_facts_of_a_settling_workspace_carry_the_numbers_that_were_in_force() -> None:
    evidence = Evidence(opened_at=at(12), incarnation=1, restart_started_at=T0, restart_returned_at=at(3))
    told = judged(evidence, policy(settle_hold=20))
    assert told["because"] == "less than 20 s after the restart's start or the runtime's return, the later"
    assert found(told) == ["its restart began 12 s before", "the runtime's start returned 9 s before"]


def test_every_fact_that_a_death_rests_on_is_said() -> None:
    evidence = Evidence(
        opened_at=at(80),
        incarnation=1,
        restart_started_at=T0,
        strikes=Strikes(count=1, first_at=at(70)),
        probes=(
            ProbeReading(at=at(80), state=ProbeState.NOT_RUNNING),
            ProbeReading(at=at(82), state=ProbeState.NOT_RUNNING),
        ),
        life=(Life(read_at=at(82), last_sign_at=at(-218), has_url=True),),
    )
    told = judged(evidence, policy())
    assert found(told) == [
        "its restart began 1 min 20 s before",
        "the probe said it does not run",
        "the next probe, 2 s later, said it does not run",
        "its last sign of life was 5 min old",
        "1 strike stood against it",
    ]


@pytest.mark.parametrize(
    ("evidence", "words"),
    [
        ({"external": True}, "no runtime hosts it"),
        ({"restart_in_flight": True}, "a restart was under way"),
        ({"announced_at": rfc3339(at(-3)), "opened_at": rfc3339(T0)}, "it announced its own restart 3 s before"),
        ({"exited_at": rfc3339(at(-0.2)), "opened_at": rfc3339(T0)}, "its process was seen to end 0.2 s before"),
        ({"last_sign_at": [None], "read_at": [rfc3339(T0)]}, "it never gave a sign of life"),
        ({"probes": ["error"]}, "the probe said nothing: the probe failed or timed out"),
        ({"strikes": 1, "strike": 2}, "this was strike 2"),
        ({"sweep": True}, "a sweep adds no strike"),
        ({"doubted": True}, "the proxy doubted its own sight"),
    ],
)
def test_a_fact_has_its_words(evidence: dict[str, Any], words: str) -> None:
    assert found(evidence) == [words]


def test_a_restart_of_long_ago_explains_nothing() -> None:
    assert found({"opened_at": rfc3339(at(700)), "restart_started_at": rfc3339(T0)}) == []


def test_every_fact_that_an_evaluation_may_note_is_said_or_known_to_be_no_sentence() -> None:
    evidence = Evidence(
        opened_at=T0,
        incarnation=1,
        restart_in_flight=True,
        announced_at=T0,
        restart_started_at=T0,
        restart_returned_at=T0,
        exited_at=T0,
        agent_down_at=T0,
        external=True,
        sweep=True,
        doubted=True,
        strikes=Strikes(count=1, first_at=T0),
        probes=(ProbeReading(at=T0, state=ProbeState.GONE),),
        life=(Life(read_at=T0, last_sign_at=T0, has_url=True),),
    )
    told = judged(evidence, policy())
    silent = {"opened_at", "because", "probed_at", "read_at"}
    for name in set(told) - silent:
        without = {key: value for key, value in told.items() if key != name}
        assert found(without) != found(told), name
