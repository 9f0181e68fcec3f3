"""Background work that nobody awaits: kept alive, contained, and ended at shutdown.

Owns: references to tasks, named timers, periodic ticks.
Knows nothing of: what the work is.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

from proxy.telemetry import EventName, Telemetry, fault


class Background:
    """Runs coroutines whose failure is an event, never somebody else's exception."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry
        self._tasks: set[asyncio.Task[None]] = set()
        self._timers: dict[str, asyncio.Task[None]] = {}
        self._closed = False

    def spawn(self, work: Coroutine[Any, Any, object], *, name: str) -> asyncio.Task[None] | None:
        """Start it; None after `aclose`."""
        if self._closed:
            work.close()
            return None
        task = asyncio.create_task(self._contain(work, name), name=f"holdfast-{name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: work.close())  # a task that is cancelled before its first step never began it
        return task

    async def _contain(self, work: Coroutine[Any, Any, object], name: str) -> None:
        try:
            await work
        except Exception as problem:  # noqa: BLE001 - contained here, so that one loop's crash is not everybody's
            self._telemetry.emit(
                EventName.LOOP_FAILED,
                fields={"work": name, **fault(problem)},
            )

    def later(self, name: str, delay: float, work: Callable[[], Coroutine[Any, Any, object]]) -> None:
        """Run `work` after `delay` seconds; a timer of the same name is replaced."""
        if (old := self._timers.pop(name, None)) is not None:
            old.cancel()

        async def wait() -> None:
            await asyncio.sleep(delay)
            if self._timers.get(name) is asyncio.current_task():
                del self._timers[name]
            await work()

        task = self.spawn(wait(), name=name)
        if task is not None:
            self._timers[name] = task

    def once(self, name: str, delay: float, work: Callable[[], Coroutine[Any, Any, object]]) -> None:
        """Run `work` after `delay` seconds, unless a timer of that name runs already."""
        if name not in self._timers:
            self.later(name, delay, work)

    def pending(self, name: str) -> bool:
        """Whether a timer of that name is set."""
        return name in self._timers

    def every(self, seconds: float, work: Callable[[], Awaitable[object]], *, name: str) -> None:
        """Run `work` again and again, `seconds` apart; 0 = never. A failing tick does not end the loop."""
        if seconds <= 0:
            return

        async def loop() -> None:
            while True:
                await asyncio.sleep(seconds)
                await self._contain(_as_coroutine(work), name)

        self.spawn(loop(), name=name)

    @asynccontextmanager
    async def ticking(self, seconds: float, work: Callable[[], Awaitable[object]]) -> AsyncIterator[None]:
        """Run `work` every `seconds` while the body runs."""

        async def loop() -> None:
            while True:
                await asyncio.sleep(seconds)
                await self._contain(_as_coroutine(work), "tick")

        task = asyncio.create_task(loop())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def aclose(self) -> None:
        """Cancel what still runs and wait for it."""
        self._closed = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _as_coroutine(work: Callable[[], Awaitable[object]]) -> None:
    await work()
