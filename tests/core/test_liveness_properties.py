"""What holds for any evidence, any answers and any latency, in every preset."""

from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta
from typing import Any, cast

from core.liveness_shell import (
    COMBINED,
    ERROR,
    HOLD_FIRST,
    NOT_RUNNING,
    OPENED,
    RUNNING,
    VERIFY_FIRST,
    Played,
    Sign,
    after,
    ago,
    facts,
    play,
)
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.core.liveness import (
    Evidence,
    Life,
    Previous,
    ProbeReading,
    ProbeState,
    Strikes,
    Unsettled,
    judge,
    most_asks,
    throttled,
)
from proxy.core.presets import UNREAD, LivenessPolicy

# Ages near every limit of every preset, and any other.
SECONDS = st.sampled_from([0.0, 0.5, 2.0, 5.0, 15.0, 28.0, 30.0, 32.0, 58.0, 60.0, 62.0, 600.0, 602.0]) | st.floats(
    -5, 700
)
EDGES = st.sampled_from([-0.001, 0.0, 0.001])
INSTANTS = st.builds(lambda seconds, edge: ago(seconds + edge), SECONDS, EDGES)
MAYBE = st.none() | INSTANTS
STATES = st.sampled_from(list(ProbeState))
STRIKES = st.just(Strikes()) | st.builds(Strikes, count=st.integers(1, 4), first_at=INSTANTS)
POLICIES = st.sampled_from([COMBINED, HOLD_FIRST, VERIFY_FIRST])
EVIDENCE = st.builds(
    Evidence,
    opened_at=st.just(OPENED),
    incarnation=st.integers(1, 3),
    generation=st.integers(0, 3),
    restart_in_flight=st.sampled_from([False, False, False, True]),
    announced_at=st.none() | MAYBE,
    restart_started_at=MAYBE,
    restart_returned_at=MAYBE,
    exited_at=st.none() | st.none() | MAYBE,
    agent_down_at=st.none() | st.none() | MAYBE,
    external=st.sampled_from([False, False, False, True]),
    sweep=st.booleans(),
    doubted=st.booleans(),
    strikes=STRIKES,
)


@dataclass(frozen=True)
class Story:
    """One evaluation's script."""

    policy: LivenessPolicy
    evidence: Evidence
    probes: tuple[ProbeState, ProbeState]
    signs: tuple[Sign, ...]
    latency: float

    def play(self, **changes: Any) -> Played:
        """Run it, with some facts changed."""
        return play(self.policy, replace(self.evidence, **changes), self.probes, self.signs, self.latency)


STORIES = st.builds(
    Story,
    policy=POLICIES,
    evidence=EVIDENCE,
    probes=st.tuples(STATES, STATES),
    signs=st.lists(st.builds(Sign, INSTANTS, st.booleans()), max_size=3).map(tuple),
    latency=st.sampled_from([0.0, 0.0, 0.001, 0.3, 3.0]),
)


def looked_at(policy: LivenessPolicy, evidence: Evidence) -> set[str]:
    """Return the facts that decide this evidence."""
    names: set[str] = set()

    class Watched:
        def __getattr__(self, name: str) -> Any:
            names.add(name)
            return getattr(evidence, name)

    judge(policy, cast("Evidence", Watched()), evidence.opened_at)
    return names


@given(STORIES, EVIDENCE)
def test_a_fact_that_was_not_read_changes_nothing(story: Story, other: Evidence) -> None:
    played = story.play()
    unread = {field.name for field in fields(Evidence)} - looked_at(story.policy, played.evidence)
    changed = story.play(**{name: getattr(other, name) for name in unread - {"probes", "life"}})
    assert changed.seen == played.seen
    assert changed.asked == played.asked
    assert changed.verdict.strikes == played.verdict.strikes


@given(STORIES, st.data())
def test_a_setting_that_the_preset_does_not_read_changes_nothing(story: Story, data: st.DataObject) -> None:
    setting = data.draw(st.sampled_from(sorted(UNREAD[story.policy.preset])))
    other = replace(story.policy, **{setting: data.draw(st.integers(1, 700))})  # type: ignore[arg-type]  # any number
    assert replace(story, policy=other).play().seen == story.play().seen


@given(STORIES, STATES, MAYBE)
def test_a_reading_that_was_not_asked_for_changes_nothing(
    story: Story, state: ProbeState, sign: datetime | None
) -> None:
    played = story.play()
    before, later = story.evidence.opened_at - timedelta(seconds=1), played.ended_at + timedelta(seconds=1)
    told = played.evidence
    probes = (ProbeReading(at=before, state=state), *told.probes, ProbeReading(at=later, state=state))
    life = (Life(read_at=before, last_sign_at=sign, has_url=True), *told.life)
    if told.life:
        life = (*life, Life(read_at=later, last_sign_at=sign, has_url=True))
    elif not told.probes:
        probes, life = (ProbeReading(at=later, state=state),), (Life(read_at=later, last_sign_at=sign, has_url=True),)
    assert judge(story.policy, replace(told, probes=probes, life=life), later) == played.verdict


@given(STORIES)
def test_every_evaluation_ends_and_asks_no_more_than_it_may(story: Story) -> None:
    played = story.play()
    assert len(played.asked) == played.probes + played.life_reads <= most_asks(story.policy)
    assert played.probes <= 2


@given(STORIES, st.floats(0, 20))
def test_a_question_is_the_same_whenever_it_is_asked_and_comes_due(story: Story, seconds: float) -> None:
    played = story.play()
    now = OPENED + timedelta(seconds=seconds)
    for question, evidence in zip(played.asked, played.steps[:-1], strict=True):
        first = judge(story.policy, evidence, OPENED)
        assert isinstance(first, Unsettled)
        assert question.at == first.at, "it was asked before it was due"
        assert judge(story.policy, evidence, now) == replace(first, at=max(first.at, now))
    assert judge(story.policy, played.evidence, now) == played.verdict


@given(STORIES, st.integers(-(10**9), 10**9))
def test_only_ages_matter_and_never_the_date(story: Story, seconds: int) -> None:
    shift = timedelta(seconds=seconds)
    known = {name: getattr(story.evidence, name) for name in Evidence.__slots__}
    moved: dict[str, Any] = {name: value + shift for name, value in known.items() if isinstance(value, datetime)}
    strikes = story.evidence.strikes
    if strikes.first_at is not None:
        moved["strikes"] = replace(strikes, first_at=strikes.first_at + shift)
    signs = tuple(replace(sign, at=sign.at + shift) for sign in story.signs)
    assert replace(story, signs=signs).play(**moved).seen == story.play().seen


@given(STORIES)
def test_a_probe_that_fails_is_never_a_death(story: Story) -> None:
    played = story.play()
    if played.probes and played.evidence.probes[-1].state is ERROR:
        assert (played.verdict.name, played.verdict.rule) == ("alive", "probe_error")
        assert played.verdict.strikes == story.evidence.strikes


@given(STORIES)
@example(Story(COMBINED, facts(), (NOT_RUNNING, NOT_RUNNING), (Sign(ago(13)),), 0.0))
def test_a_recent_sign_of_life_is_never_an_inferred_death(story: Story) -> None:
    played = story.play()
    if played.verdict.name == "dead" and played.verdict.rule != "exited":
        first = played.evidence.life[0]
        assert first.last_sign_at is None or first.read_at - first.last_sign_at > timedelta(seconds=15)


@given(STORIES)
def test_an_inferred_death_was_seen_by_two_probes(story: Story) -> None:
    played = story.play()
    if played.verdict.name != "dead" or played.verdict.rule == "exited":
        return
    probes = played.evidence.probes
    assert not {RUNNING, ERROR} & {probe.state for probe in probes}
    if story.policy is VERIFY_FIRST and len(probes) == 1:
        started = story.evidence.restart_started_at
        assert started is None or OPENED - started >= timedelta(seconds=30)
    else:
        assert len(probes) == 2
        assert probes[1].at - probes[0].at >= timedelta(seconds=story.policy.reprobe_delay)


@given(STORIES)
def test_nothing_is_read_while_a_restart_is_in_flight_or_held(story: Story) -> None:
    evidence, hold = story.evidence, story.policy.settle_hold
    started = evidence.restart_started_at
    held = hold > 0 and started is not None and OPENED - started < timedelta(seconds=hold)
    if evidence.restart_in_flight or held:
        assert story.play().asked == ()


@given(STORIES)
def test_outside_every_window_a_dead_box_is_found_by_the_first_evaluation(story: Story) -> None:
    """No suppression lasts for ever: with the windows behind it and no sign of life, "not running" is a death."""
    past = dict.fromkeys(("announced_at", "restart_started_at", "restart_returned_at"), ago(60))
    dead = replace(story, probes=(NOT_RUNNING, NOT_RUNNING), signs=(Sign(ago(16)),))
    played = dead.play(**past, restart_in_flight=False, external=False, doubted=False)
    assert played.verdict.name == "dead"


@given(STORIES)
def test_what_nobody_can_tell_is_a_death_only_where_it_was_seen(story: Story) -> None:
    played = story.play(external=True)
    if played.verdict.name == "dead":
        assert story.policy is COMBINED
        assert played.verdict.rule == "exited"
    assert played.asked == ()


@given(STORIES)
def test_strikes_grow_by_one_in_rule_strike_and_nowhere_else(story: Story) -> None:
    before, played = story.evidence.strikes, story.play()
    left = played.verdict.strikes
    if played.verdict.rule == "strike" and not story.evidence.sweep:
        assert left.count in {1, before.count + 1}
        assert left.count < story.policy.strikes
        assert left.first_at is not None
    elif played.verdict.name == "dead" or played.verdict.rule == "running":
        assert left == Strikes()
    else:
        assert left == before


@given(STORIES, STORIES, st.floats(0, 2))
def test_the_throttle_never_repeats_a_death_and_never_changes_strikes(
    story: Story, next_story: Story, seconds: float
) -> None:
    first = story.play()
    now = after(seconds)
    previous = Previous(
        verdict=first.verdict,
        ended_at=OPENED,
        incarnation=story.evidence.incarnation,
        generation=story.evidence.generation,
    )
    evidence = replace(next_story.evidence, opened_at=now)
    verdict = throttled(previous, story.policy, evidence, now)
    if verdict is None:
        return
    assert now - OPENED < timedelta(seconds=1)
    assert verdict.name != "dead"
    assert verdict.strikes == evidence.strikes
    assert isinstance(judge(story.policy, evidence, now), Unsettled), "what needs no reading is not held back"
