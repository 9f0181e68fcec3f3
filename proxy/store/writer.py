"""Group commit: everything that waits is written in one transaction, and everybody is answered after its commit.

Owns: the queue of waiting units of work, the size of a batch, who is answered when, draining.
Knows nothing of: SQL, drivers (it is given a function that runs a batch and commits it).

Theory of operation. One task takes what waits, at most `most` units, and hands it to `run` in one call; while that
runs, new callers gather for the next batch. Nothing ever waits for company: an idle writer commits a lone unit at once,
and under load the batches grow by themselves until the disk's syncs no longer count.

    submit ──> waiting ──> batch ──run──> committed ──> each caller has its own result or error

A caller that is cancelled while it waits for its turn is skipped. Once its batch has begun its unit is written whether
or not it still listens: a commit is never undone for it, and its neighbours do not notice.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

from proxy.store import StoreFailure
from proxy.store.units import MakeUnit, Unit

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Done(Generic[T]):
    """A unit whose changes are committed, and what it returned."""

    value: T


@dataclass(frozen=True, slots=True)
class Failed:
    """A unit that changed nothing, and why."""

    error: BaseException


RunBatch = Callable[[Sequence[MakeUnit]], Awaitable[Sequence[Done[Any] | Failed]]]
"""Run each unit as if alone, commit what succeeded, return one outcome a unit, in order."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    make: MakeUnit
    answer: asyncio.Future[Any]


class GroupWriter:
    """Runs units of work in batches. Made and used on one event loop; `close` ends its task."""

    def __init__(self, run: RunBatch, *, most: int) -> None:
        if most < 1:
            raise ValueError("a batch holds at least one unit of work")
        self._run = run
        self._most = most
        self._waiting: deque[_Waiting] = deque()
        self._bell = asyncio.Event()
        self._closing = False
        self._task = asyncio.create_task(self._write(), name="store-writer")

    async def submit(self, make: Callable[[], Unit[T]]) -> T:
        """Run a unit of work and return what it returned, after the commit.

        Raises:
            StoreFailure: `closed`, or whatever kept it from being written; then it changed nothing.
        """
        if self._closing:
            raise StoreFailure("closed", "the store takes no more writes")
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(make, answer))
        self._bell.set()
        return cast("T", await answer)

    async def close(self) -> None:
        """Write what was submitted before, then end. Idempotent."""
        self._closing = True
        self._bell.set()
        await asyncio.shield(self._task)

    async def _write(self) -> None:
        while not (self._closing and not self._waiting):
            await self._bell.wait()
            self._bell.clear()
            while batch := self._take():
                await self._commit(batch)

    def _take(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        while self._waiting and len(batch) < self._most:
            waiting = self._waiting.popleft()
            if not waiting.answer.done():
                batch.append(waiting)
        return batch

    async def _commit(self, batch: list[_Waiting]) -> None:
        outcomes: Sequence[Done[Any] | Failed]
        try:
            outcomes = await self._run([waiting.make for waiting in batch])
        except Exception as problem:  # noqa: BLE001 - the writer must outlive every batch; each caller gets the error
            outcomes = [Failed(problem)] * len(batch)
        for waiting, outcome in zip(batch, outcomes, strict=True):
            if waiting.answer.done():
                continue
            if isinstance(outcome, Done):
                waiting.answer.set_result(outcome.value)
            else:
                waiting.answer.set_exception(outcome.error)
