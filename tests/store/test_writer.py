"""The group writer alone: who shares a batch, who is answered, what a cancelled or failing neighbour does."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from proxy.store import StoreFailure
from proxy.store.units import Unit
from proxy.store.writer import Done, Failed, GroupWriter, MakeUnit


def unit(value: str) -> MakeUnit:
    def make() -> Unit[str]:
        return value
        yield

    return make


def value_of(make: MakeUnit) -> Any:
    with pytest.raises(StopIteration) as stop:
        next(make())
    return stop.value.value


class Disk:
    """Runs batches as slowly as a test wants: each waits for `gate`."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.began = asyncio.Event()
        self.gate = asyncio.Event()
        self.failures: dict[str, Exception] = {}
        self.breaks: Exception | None = None

    async def run(self, batch: Sequence[MakeUnit]) -> list[Done[Any] | Failed]:
        values = [value_of(make) for make in batch]
        self.batches.append(values)
        self.began.set()
        await self.gate.wait()
        if self.breaks is not None:
            raise self.breaks
        return [Failed(self.failures[each]) if each in self.failures else Done(each) for each in values]


async def start(writer: GroupWriter, disk: Disk, *values: str) -> list[asyncio.Task[str]]:
    """Submit the first, wait until it is being written, submit the others behind it."""
    first = asyncio.create_task(writer.submit(unit(values[0])))
    await disk.began.wait()
    others = [asyncio.create_task(writer.submit(unit(value))) for value in values[1:]]
    await asyncio.sleep(0)
    return [first, *others]


async def test_a_lone_unit_is_written_at_once_and_the_next_batch_gathers_meanwhile():
    disk = Disk()
    writer = GroupWriter(disk.run, most=3)
    tasks = await start(writer, disk, "a", "b", "c", "d", "e")
    assert not any(task.done() for task in tasks)
    disk.gate.set()
    assert await asyncio.gather(*tasks) == ["a", "b", "c", "d", "e"]
    assert disk.batches == [["a"], ["b", "c", "d"], ["e"]]
    await writer.close()


async def test_an_error_is_its_own_callers():
    disk = Disk()
    disk.failures = {"b": StoreFailure("full", "no room")}
    writer = GroupWriter(disk.run, most=9)
    tasks = await start(writer, disk, "x", "a", "b", "c")
    disk.gate.set()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert [str(answer) for answer in answers] == ["x", "a", "full: no room", "c"]
    await writer.close()


async def test_a_batch_that_breaks_altogether_fails_its_callers_and_not_the_writer():
    disk = Disk()
    disk.gate.set()
    disk.breaks = RuntimeError("thread gone")
    writer = GroupWriter(disk.run, most=9)
    with pytest.raises(RuntimeError, match="thread gone"):
        await writer.submit(unit("a"))
    disk.breaks = None
    assert await writer.submit(unit("b")) == "b"
    await writer.close()


async def test_who_is_cancelled_before_its_turn_is_never_written():
    disk = Disk()
    writer = GroupWriter(disk.run, most=9)
    first, gone, last = await start(writer, disk, "a", "b", "c")
    gone.cancel()
    await asyncio.wait([gone])
    disk.gate.set()
    assert await asyncio.gather(first, last) == ["a", "c"]
    assert disk.batches == [["a"], ["c"]]
    await writer.close()


async def test_who_is_cancelled_in_mid_batch_takes_nobody_along():
    disk = Disk()
    disk.failures = {"gone": StoreFailure("full", "")}
    writer = GroupWriter(disk.run, most=9)
    (gone,) = await start(writer, disk, "gone")
    gone.cancel()
    await asyncio.wait([gone])
    later = asyncio.create_task(writer.submit(unit("later")))
    disk.gate.set()
    assert await later == "later"
    assert disk.batches == [["gone"], ["later"]]
    await writer.close()


async def test_close_writes_what_was_submitted_and_refuses_what_comes_later():
    disk = Disk()
    writer = GroupWriter(disk.run, most=1)
    tasks = await start(writer, disk, "a", "b", "c")
    closing = asyncio.create_task(writer.close())
    await asyncio.sleep(0)
    with pytest.raises(StoreFailure) as refused:
        await writer.submit(unit("late"))
    assert refused.value.reason == "closed"
    assert not closing.done()
    disk.gate.set()
    await closing
    assert [task.result() for task in tasks] == ["a", "b", "c"]
    await writer.close()


async def test_an_idle_writer_closes_at_once():
    writer = GroupWriter(Disk().run, most=1)
    await writer.close()


async def test_a_batch_must_hold_something():
    with pytest.raises(ValueError, match="at least one"):
        GroupWriter(Disk().run, most=0)
