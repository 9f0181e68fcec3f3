"""The clock: a step of the wall ages nothing at once, a suspension is noticed, and now never goes back."""

import time
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.clock import Jump, JumpKind, Sources, SystemClock, system_sources

START = datetime(2026, 1, 1, tzinfo=UTC)
SECOND = 1_000_000_000
TTL = timedelta(seconds=180)


class Machine:
    """A machine whose three clocks a test moves by hand."""

    def __init__(self) -> None:
        self.wall = int(START.timestamp()) * SECOND
        self.elapsed = 5_000 * SECOND
        self.awake = 4_000 * SECOND
        self.jumps: list[Jump] = []
        self.clock = SystemClock(
            Sources(wall=lambda: self.wall, elapsed=lambda: self.elapsed, awake=lambda: self.awake), self.jumps.append
        )

    def wait(self, seconds: float) -> None:
        nanos = round(seconds * SECOND)
        self.wall += nanos
        self.elapsed += nanos
        self.awake += nanos

    def suspend(self, seconds: float) -> None:
        self.wall += round(seconds * SECOND)
        self.elapsed += round(seconds * SECOND)

    def step_wall(self, seconds: float) -> None:
        self.wall += round(seconds * SECOND)

    def age(self) -> float:
        return (self.clock() - START).total_seconds()


def test_now_is_the_wall_clock_in_utc_and_moves_with_elapsed_time() -> None:
    machine = Machine()
    assert machine.clock() == START
    machine.wait(90.000001)
    assert machine.clock() == START + timedelta(seconds=90, microseconds=1)
    assert machine.clock().tzinfo is UTC
    assert machine.jumps == []


def test_the_start_counts_as_a_jump_but_is_not_reported() -> None:
    machine = Machine()
    assert machine.clock.jumped_at == START
    assert machine.jumps == []
    machine.wait(179.9)
    assert not machine.clock.trusts_ages(machine.clock(), TTL)
    machine.wait(0.1)
    assert machine.clock.trusts_ages(machine.clock(), TTL)


def test_a_wall_stepped_forward_moves_now_forward_and_is_reported_once() -> None:
    machine = Machine()
    machine.wait(1000)
    machine.step_wall(3600)
    assert [machine.age() for _ in range(3)] == [4600, 4600, 4600]
    at = START + timedelta(seconds=4600)
    assert machine.jumps == [Jump(at=at, kind=JumpKind.FORWARD, seconds=3600.0)]
    assert machine.clock.jumped_at == at
    assert not machine.clock.trusts_ages(at + timedelta(seconds=179), TTL)
    assert machine.clock.trusts_ages(at + TTL, TTL)


def test_a_wall_stepped_back_does_not_move_now_and_is_reported_once() -> None:
    machine = Machine()
    machine.wait(1000)
    machine.step_wall(-3600)
    assert machine.age() == 1000
    machine.wait(10)
    assert machine.age() == 1010
    assert [(jump.kind, jump.seconds) for jump in machine.jumps] == [(JumpKind.BACKWARD, -3600.0)]
    assert machine.clock.jumped_at == START + timedelta(seconds=1000)


def test_a_wall_that_comes_back_to_now_is_no_further_jump() -> None:
    machine = Machine()
    machine.step_wall(-3600)
    machine.age()
    machine.wait(10)
    machine.step_wall(3600)
    assert machine.age() == 10
    assert [jump.kind for jump in machine.jumps] == [JumpKind.BACKWARD]
    machine.step_wall(-3600)  # and is reported anew when it leaves again
    machine.age()
    assert [jump.kind for jump in machine.jumps] == [JumpKind.BACKWARD, JumpKind.BACKWARD]


def test_a_wall_that_overtakes_now_after_a_step_back_moves_now_forward() -> None:
    machine = Machine()
    machine.step_wall(-3600)
    machine.age()
    machine.step_wall(3600 + 60)
    assert machine.age() == 60
    assert [(jump.kind, jump.seconds) for jump in machine.jumps[1:]] == [(JumpKind.FORWARD, 60.0)]


@pytest.mark.parametrize(("step", "reported"), [(2.0, 0), (2.000001, 1), (-2.0, 0), (-2.000001, 1)])
def test_two_seconds_are_tolerated(step: float, reported: int) -> None:
    machine = Machine()
    machine.step_wall(step)
    now = machine.clock()
    assert len(machine.jumps) == reported
    assert (now > START) == (step > 2)


def test_a_suspension_passes_as_time_and_is_a_jump() -> None:
    machine = Machine()
    machine.wait(1000)
    machine.suspend(28_800)
    assert [machine.age(), machine.age()] == [29_800, 29_800]
    assert [(jump.kind, jump.seconds) for jump in machine.jumps] == [(JumpKind.SUSPENDED, 28_800.0)]
    assert machine.clock.jumped_at == START + timedelta(seconds=29_800)


def test_a_wall_corrected_after_a_suspension_is_two_jumps() -> None:
    machine = Machine()
    machine.suspend(100)
    machine.step_wall(30)
    assert machine.age() == 130
    assert [(jump.kind, jump.seconds) for jump in machine.jumps] == [
        (JumpKind.SUSPENDED, 100.0),
        (JumpKind.FORWARD, 30.0),
    ]


def test_whoever_is_told_of_a_jump_may_ask_for_the_time() -> None:
    machine = Machine()
    seen: list[datetime] = []
    machine.clock.on_jump = lambda _: seen.append(machine.clock())
    machine.step_wall(60)
    assert machine.clock() == START + timedelta(seconds=60)
    assert seen == [START + timedelta(seconds=60)]


def test_a_pause_between_two_readings_is_no_jump() -> None:
    """A process that is stopped just after it read one clock reads the next one late; a second look sees the truth."""
    machine = Machine()
    stops = [10.0]

    def elapsed_then_stopped() -> int:
        value = machine.elapsed
        if machine.jumps == [] and stops:
            machine.wait(stops.pop())
        return value

    clock = SystemClock(
        Sources(wall=lambda: machine.wall, elapsed=lambda: machine.elapsed, awake=lambda: machine.awake),
        machine.jumps.append,
    )
    clock._elapsed = elapsed_then_stopped
    assert clock() == START + timedelta(seconds=10)
    assert machine.jumps == []
    assert stops == []


STEPS = st.lists(
    st.tuples(st.sampled_from(["wait", "suspend", "step_wall"]), st.floats(-10_000, 10_000, allow_nan=False)),
    max_size=30,
)


@given(STEPS)
def test_now_never_goes_back_and_never_falls_behind_the_wall(steps: list[tuple[str, float]]) -> None:
    machine = Machine()
    last = machine.clock()
    for kind, seconds in steps:
        getattr(machine, kind)(seconds if kind == "step_wall" else abs(seconds))
        now = machine.clock()
        assert now >= last
        assert (now - START).total_seconds() >= (machine.wall / SECOND - START.timestamp()) - 2.001
        assert machine.clock.jumped_at <= now
        last = now
        reported = len(machine.jumps)
        machine.clock()
        assert len(machine.jumps) == reported


def test_the_clocks_of_this_machine_agree_with_each_other() -> None:
    clock = SystemClock()
    before = time.time_ns() // 1000
    now = clock()
    assert abs((now - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) - before) < 5_000_000
    assert now.tzinfo is UTC
    sources = system_sources()
    assert sources.elapsed() >= sources.awake() - 1_000_000
