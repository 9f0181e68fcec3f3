"""What the process counts of its queues stays true, whatever happens between a commit and its counting."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from simulation.world import Reacts, World, fails, message, simulated

from proxy.core.deferral import State
from proxy.core.lifecycle import Status
from proxy.loops.beats import Beat
from proxy.store import QueueSize, Store, StoreFailure


def after(store: Store, method: str, then: Callable[[], Awaitable[None]]) -> None:
    """Let something happen once, after this method's work is done and before its caller hears of it."""
    original = getattr(store, method)

    async def late(*args: Any, **named: Any) -> Any:
        delattr(store, method)
        result = await original(*args, **named)
        await then()
        return result

    setattr(store, method, late)


async def away(world: World) -> None:
    """A workspace that boots, and a proxy that sweeps only when a test does."""
    await world.given(status=Status.STARTING, sign=-1)
    await world.start({"queue.sweep": 10_000})
    world.machine().ready.usual = False
    world.agent().reacts.usual = fails()


async def defer(world: World, text: str) -> str:
    reply = await world.call(body=message(text, message_id=text))
    assert reply.status == 202, reply
    return reply.receipt


async def back(world: World) -> None:
    world.agent().reacts.usual = Reacts()
    await world.app.beats.take(world.route(), Beat(status="ready"))
    await world.app.readiness.settle(world.route())
    await asyncio.sleep(100)


async def counted(world: World) -> QueueSize:
    """What the process counts, which is what the store counts."""
    size = (await world.store.queue_sizes()).get("ws", QueueSize())
    assert world.route().size == size
    return size


@simulated
async def test_a_sweep_between_a_commit_and_its_counting_counts_nothing_twice(world: World) -> None:
    await away(world)
    after(world.store, "enqueue", world.app.replayer.sweep)
    await defer(world, "first")
    assert (await counted(world)).rows == 1
    await back(world)
    assert (await counted(world)).rows == 0


@simulated
async def test_a_sweep_between_an_end_and_its_counting_takes_nothing_off_twice(world: World) -> None:
    await away(world)
    for text in ("first", "second", "third"):
        await defer(world, text)
    after(world.store, "finish", world.app.replayer.sweep)
    await world.request("POST", f"/queue/{await defer(world, 'cancelled')}/cancel")
    assert world.route().size.rows == 3
    await world.app.replayer.sweep()
    assert (await counted(world)).rows == 3


@simulated
async def test_a_count_that_was_read_before_a_change_is_not_taken_over(world: World) -> None:
    await away(world)
    await defer(world, "first")

    async def one_more() -> None:
        await defer(world, "second")

    after(world.store, "queue_sizes", one_more)
    await world.app.replayer.sweep()
    assert (await counted(world)).rows == 2


@pytest.mark.parametrize("wrong", [0, 1, 7])
@simulated
async def test_a_wrong_count_is_right_after_a_sweep(world: World, wrong: int) -> None:
    await away(world)
    for text in ("first", "second"):
        await defer(world, text)
    world.route().size = QueueSize(rows=wrong)
    await world.app.replayer.sweep()
    assert (await counted(world)).rows == 2


@simulated
async def test_bytes_are_right_after_a_sweep_although_an_end_does_not_know_its_own(world: World) -> None:
    await away(world)
    await defer(world, "stays")
    await world.request("POST", f"/queue/{await defer(world, 'goes')}/cancel")
    before = world.route().size
    await world.app.replayer.sweep()
    assert before.rows == (await counted(world)).rows == 1
    assert (await counted(world)).bytes < before.bytes


@simulated
async def test_what_nobody_counted_is_delivered_and_counted(world: World) -> None:
    """Its caller was cancelled between the commit and the counting, or another process put it away."""
    await away(world)
    receipt = await defer(world, "first")
    world.route().size = QueueSize()
    world.app.sizes._doubted.clear()
    world.agent().reacts.usual = Reacts()
    world.machine().ready.usual = True
    await world.app.replayer.sweep()
    await asyncio.sleep(1000)
    await world.app.replayer.sweep()
    assert (await world.deferral(receipt)).state is State.COMPLETED
    assert (await counted(world)).rows == 0


@simulated
async def test_while_the_store_fails_the_count_stands_and_is_compared_later(world: World) -> None:
    await away(world)
    await defer(world, "first")
    world.route().size = replace(world.route().size, rows=3)

    async def fail() -> None:
        raise StoreFailure("io", "the test says so")

    after(world.store, "queue_sizes", fail)
    with pytest.raises(StoreFailure):
        await world.app.replayer.sweep()
    assert world.route().size.rows == 3
    await world.app.replayer.sweep()
    assert (await counted(world)).rows == 1
