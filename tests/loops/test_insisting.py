"""A store that fails just when a delivery has ended: what is known is not lost, and nothing is tried for ever."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import pytest
from simulation.scripted import REFUSED, RESET
from simulation.world import Reacts, World, clock, fails, message, simulated

from proxy.core.deferral import Deferral, State
from proxy.loops.insisting import INSISTENCE, LONGEST_WAIT, insist
from proxy.store import Store, StoreFailure
from proxy.telemetry import EventName

LEASE = 60.0
"""Seconds; the default."""
WRITES = (
    "finish",
    "release",
    "extend",
    "release_expired",
    "enqueue",
    "hasten",
    "claim",
    "replace",
    "record_signs",
    "log",
)


@contextmanager
def failing(store: Store, *methods: str, reason: str = "full") -> Iterator[None]:
    """Let these methods of a store fail for the length of the body."""

    def broken(_: str) -> Callable[..., Any]:
        async def fail(*_: Any, **__: Any) -> Any:
            await asyncio.sleep(0)
            raise StoreFailure(reason, "the test says so")

        return fail

    with pytest.MonkeyPatch.context() as patched:
        for method in methods:
            patched.setattr(store, method, broken(method))
        yield


async def deferred(world: World, *reacts: Reacts, **settings: object) -> str:
    """Put a message away; its replays meet these reactions, and after them an answer."""
    await world.given(sign=-1)
    await world.start({name.replace("__", "."): value for name, value in settings.items()})
    world.agent().reacts.queue(fails(REFUSED), *reacts)
    reply = await world.call(body=message("once", message_id="m-1", context_id="c"))
    assert reply.status == 202, reply
    return reply.receipt


async def heard(world: World, times: int) -> None:
    await world.eventually(lambda: len(world.agent().heard) == times)


async def ended(world: World, receipt: str, within: float = 120.0) -> Deferral:
    await world.eventually(lambda: world.route().size.rows == 0, within=within, step=0.5)
    return await world.deferral(receipt)


def told(world: World) -> int:
    return len(world.told(EventName.DEFERRAL_UNWRITTEN))


@pytest.mark.parametrize("methods", [("finish",), WRITES], ids=["answers", "everything"])
@pytest.mark.parametrize("seconds", [150 + 0.4 * n for n in range(25)])
@simulated
async def test_an_answer_outlives_a_store_that_takes_nothing_for_longer_than_a_lease(
    world: World, methods: tuple[str, ...], seconds: float
) -> None:
    """At whatever moment between its retries and the sweep for leases the store works again."""
    receipt = await deferred(world, Reacts(after=1.0))
    await heard(world, 2)
    with failing(world.store, *methods):
        await asyncio.sleep(seconds)
        assert (await world.deferral(receipt)).state is State.LEASED
    done = await ended(world, receipt, within=5.0)
    assert (done.state, done.maybe, done.tries) == (State.COMPLETED, False, 1)
    assert done.answer is not None
    assert len(world.agent().heard) == 2, "the agent did it once"
    assert told(world) == 1
    assert (dict(world.route().contexts), world.route().busy) == ({}, 0)


@simulated
async def test_an_answer_that_can_not_be_kept_is_given_up_and_the_request_sent_again_marked(world: World) -> None:
    receipt = await deferred(world)
    await heard(world, 1)
    with failing(world.store, "finish"):
        await heard(world, 2)
        began = clock()
        await world.eventually(
            lambda: EventName.LOOP_FAILED in {event.name for event in world.events},
            within=2 * INSISTENCE * LEASE,
            step=1.0,
        )
        gave_up = clock()
        assert INSISTENCE * LEASE - LONGEST_WAIT <= gave_up - began <= INSISTENCE * LEASE + 2
        assert (await world.deferral(receipt)).state is State.LEASED
        await world.eventually(lambda: len(world.agent().heard) == 3, within=LEASE + 30, step=1.0)
    done = await ended(world, receipt)
    assert (done.state, done.maybe) == (State.COMPLETED, True)
    assert [each.header("Holdfast-Redelivery") for each in world.agent().heard] == [None, None, "maybe"]


@simulated
async def test_what_a_failed_try_led_to_is_kept_too(world: World) -> None:
    receipt = await deferred(world, fails(RESET, after=1.0))
    await heard(world, 2)
    with failing(world.store, "release"):
        await asyncio.sleep(LEASE + 10)
    await heard(world, 3)
    done = await ended(world, receipt)
    assert (done.state, done.attempts, done.tries, done.last_error) == (State.COMPLETED, 1, 2, "reset")
    assert told(world) == 1


@simulated
async def test_a_dead_letter_is_one_although_the_store_failed_at_first(world: World) -> None:
    receipt = await deferred(world, fails(RESET, after=1.0), queue__attempts=1)
    await heard(world, 2)
    with failing(world.store, "finish"):
        await asyncio.sleep(LEASE + 10)
    done = await ended(world, receipt)
    assert (done.state, done.last_error, done.maybe) == (State.DEAD_LETTERED, "1 attempts used up: reset", True)
    assert done.task is not None
    assert done.task.state == "failed"
    assert len(world.agent().heard) == 2


@simulated
async def test_an_adopted_call_s_answer_is_kept_too(world: World) -> None:
    await world.given(sign=-1)
    await world.start()
    world.agent().reacts.queue(Reacts(after=5.0))
    reply = await world.call(Prefer="wait=1")
    assert reply.status == 202
    with failing(world.store, "finish"):
        await asyncio.sleep(LEASE + 10)
        assert (await world.deferral(reply.receipt)).state is State.LEASED
    done = await ended(world, reply.receipt)
    assert (done.state, done.maybe, len(world.agent().heard)) == (State.COMPLETED, False, 1)


@simulated
async def test_a_proxy_that_stops_meanwhile_leaves_it_to_its_next_life(world: World) -> None:
    receipt = await deferred(world)
    with failing(world.store, "finish"):
        await heard(world, 2)
        await asyncio.sleep(10)
        await world.stop()
    await world.start()
    done = await ended(world, receipt)
    assert (done.state, done.maybe) == (State.COMPLETED, True)
    assert [each.header("Holdfast-Redelivery") for each in world.agent().heard] == [None, None, "maybe"]


@simulated
async def test_one_lease_that_is_not_renewed_does_not_keep_the_others_from_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.given(sign=-1)
    app = await world.start()
    world.agent().reacts.usual = Reacts(after=1000.0)
    receipts = []
    for number in range(3):
        reply = await world.call(body=message(message_id=f"m-{number}"), Prefer="wait=1")
        receipts.append(reply.receipt)
    extend = world.store.extend

    async def picky(deferral_id: str, lease_token: str, **more: Any) -> bool:
        if deferral_id == receipts[0]:
            raise StoreFailure("io", "the test says so")
        return await extend(deferral_id, lease_token, **more)

    monkeypatch.setattr(world.store, "extend", picky)
    before = [(await world.deferral(receipt)).lease for receipt in receipts]
    await asyncio.sleep(1)
    with pytest.raises(StoreFailure):
        await app.replayer.renew()
    after = [(await world.deferral(receipt)).lease for receipt in receipts]
    assert [old != new for old, new in zip(before, after, strict=True)] == [False, True, True]


# --- the waits -------------------------------------------------------------------------------------------------------


class Stubborn:
    """Fails so many times, then answers; notes when it was asked."""

    def __init__(self, times: int, reason: str = "locked") -> None:
        self.times = times
        self.reason = reason
        self.asked: list[float] = []

    async def __call__(self) -> str:
        self.asked.append(clock())
        if len(self.asked) <= self.times:
            raise StoreFailure(self.reason, "the test says so")
        return "written"


@simulated
async def test_the_waits_grow_up_to_the_longest() -> None:
    write, problems = Stubborn(8), list[StoreFailure]()
    assert await insist(write, seconds=100, failed=problems.append) == "written"
    waits = [later - earlier for earlier, later in pairwise(write.asked)]
    assert waits == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0, 2.0])
    assert [problem.reason for problem in problems] == ["locked"]


@simulated
async def test_nobody_insists_for_longer_than_he_was_told() -> None:
    write = Stubborn(1000)
    with pytest.raises(StoreFailure):
        await insist(write, seconds=10)
    assert 8 <= write.asked[-1] <= 10


@simulated
async def test_a_closed_store_is_not_insisted_upon() -> None:
    write = Stubborn(1000, reason="closed")
    with pytest.raises(StoreFailure):
        await insist(write, seconds=10)
    assert len(write.asked) == 1


@simulated
async def test_what_is_no_failure_of_the_store_is_passed_on_at_once() -> None:
    async def bug() -> None:
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        await insist(bug, seconds=10)
