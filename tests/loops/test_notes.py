"""Notes: lines that nothing waits for are written together, in bounds, and survive a store that fails for a while."""

import asyncio
from collections.abc import Sequence

import pytest
from store.examples import a_decision

from proxy.core.decision import Decision
from proxy.loops.notes import MORE, Notes
from proxy.store import StoreFailure
from proxy.store.memory import MemoryStore


class Log(MemoryStore):
    """Counts its writes, holds them while it is `held`, and refuses them while it is `full`."""

    def __init__(self) -> None:
        super().__init__()
        self.writes = 0
        self.full = False
        self.free = asyncio.Event()
        self.free.set()

    async def log(self, decisions: Sequence[Decision]) -> None:
        self.writes += 1
        await self.free.wait()
        if self.full:
            raise StoreFailure("full", "no room")
        await super().log(decisions)


@pytest.fixture
async def log() -> Log:
    made = Log()
    await made.open()
    return made


async def actions(log: Log, workspace_id: str = "w") -> list[str]:
    """The actions of a workspace's lines, oldest first; of a counting line its count."""
    lines = await log.decisions(workspace_id, limit=99)
    return [f"{line.evidence['count']} {line.action}" if line.action == MORE else line.action for line in lines][::-1]


async def test_lines_are_written_together_and_once(log: Log) -> None:
    notes = Notes(log, most=9)
    for name in "abc":
        notes.take(a_decision(name))
    await notes.flush()
    await notes.flush()
    assert await actions(log) == ["a", "b", "c"]
    assert log.writes == 1


async def test_what_is_too_much_of_one_workspace_is_counted_in_one_line_and_the_next_write_begins_anew(
    log: Log,
) -> None:
    notes = Notes(log, most=2)
    for name in "abcde":
        notes.take(a_decision(name, request_id=name, receipt=name, verdict="dead", rule="exited"))
    notes.take(a_decision("other", workspace_id="v"))
    await notes.flush()
    assert await actions(log) == ["a", "b", "3 not noted"]
    assert await actions(log, "v") == ["other"]
    (counted, *_) = await log.decisions("w", limit=1)
    assert (counted.request_id, counted.receipt, counted.verdict, counted.rule) == (None, None, "", "")
    notes.take(a_decision("f"))
    await notes.flush()
    assert (await actions(log))[3:] == ["f"]


async def test_what_is_taken_while_a_write_runs_comes_with_the_next_one(log: Log) -> None:
    notes = Notes(log, most=9)
    notes.take(a_decision("a"))
    log.free.clear()
    writing = asyncio.create_task(notes.flush())
    await asyncio.sleep(0)
    notes.take(a_decision("b"))
    reading = asyncio.create_task(notes.flush())
    await asyncio.sleep(0)
    assert not reading.done(), "a reader waits for what is being written"
    log.free.set()
    await asyncio.gather(writing, reading)
    assert await actions(log) == ["a", "b"]


async def test_a_flush_with_nothing_to_write_waits_for_the_write_that_runs(log: Log) -> None:
    notes = Notes(log, most=9)
    notes.take(a_decision("a"))
    log.free.clear()
    writing = asyncio.create_task(notes.flush())
    await asyncio.sleep(0)
    reading = asyncio.create_task(notes.flush())
    await asyncio.sleep(0)
    assert not reading.done()
    log.free.set()
    await asyncio.gather(writing, reading)
    assert await actions(log) == ["a"]


async def test_a_store_that_fails_loses_nothing_and_the_bounds_hold_meanwhile(log: Log) -> None:
    notes = Notes(log, most=2)
    log.full = True
    for name in "abc":
        notes.take(a_decision(name))
    log.free.clear()
    writing = asyncio.create_task(notes.flush())
    await asyncio.sleep(0)
    for name in "defg":
        notes.take(a_decision(name))
    log.free.set()
    with pytest.raises(StoreFailure):
        await writing
    log.full = False
    await notes.flush()
    assert await actions(log) == ["a", "b", "5 not noted"]


async def test_nothing_is_noted_where_the_bound_is_none(log: Log) -> None:
    notes = Notes(log, most=0)
    notes.take(a_decision("a"))
    await notes.flush()
    assert (await actions(log), log.writes) == ([], 0)
