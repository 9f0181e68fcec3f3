"""Owns an event loop whose time is a number. Knows nothing of what runs on it.

Theory of operation. An asyncio loop does three things in turn: it runs what is ready, asks its selector to wait for
input until the next timer is due, and makes due timers ready. Here the selector never waits: when nothing is ready it
moves the loop's time forward to the next timer. An hour's sleep takes no time, the order of events is the one that
timers give, and two runs are alike.

Only what stays inside the loop can hold virtual time: a socket or a thread answers in real time, while the clock would
race ahead of it. Both are refused. When nothing is ready and no timer is set, nothing can ever happen again: that
is a deadlock, and it is raised with the tasks that wait, instead of hanging.
"""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from datetime import datetime, timedelta
from typing import Any, Final, NoReturn, TypeVar

from proxy.clock import Now

T = TypeVar("T")
_REFUSAL: Final = "virtual time cannot be held by a {}: give the simulation an in-memory one"


class DeadlockError(RuntimeError):
    """Nothing is ready, no timer is set: what is awaited can never happen."""


class _JumpingSelector(selectors.DefaultSelector):
    """Never waits; tells the loop by how much its time moves instead."""

    def __init__(self, jump: Callable[[float | None], None]) -> None:
        super().__init__()
        self._jump = jump

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        if self.get_map():  # the first is the loop's own wake-up pipe
            raise RuntimeError(_REFUSAL.format("socket"))
        return super().register(fileobj, events, data)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready:
            self._jump(timeout)
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """A plain asyncio loop with ``time()`` starting at 0 and moving only from timer to timer."""

    def __init__(self) -> None:
        self._virtual_seconds = 0.0
        super().__init__(_JumpingSelector(self._jump))
        # asyncio makes a timer ready when it is due before now plus this. The default of a nanosecond is lost in a
        # float that holds weeks, and the loop would spin at the timer's very instant for ever.
        self._clock_resolution = 1e-6

    def time(self) -> float:
        """Return the virtual seconds since the loop was made."""
        return self._virtual_seconds

    def _jump(self, timeout: float | None) -> None:
        if timeout is None:
            waiting = "\n".join(f"  {task!r}" for task in asyncio.all_tasks(self))
            raise DeadlockError(f"nothing is ready and no timer is set, at {self.time():g} s; waiting:\n{waiting}")
        self._virtual_seconds += max(timeout, 0.0)

    def run_in_executor(self, *_: Any, **__: Any) -> NoReturn:  # type: ignore[override]  # refused for any arguments
        """Refuse threads, and with them name look-ups and ``asyncio.to_thread``."""
        raise RuntimeError(_REFUSAL.format("thread"))

    async def create_connection(self, *_: Any, **__: Any) -> NoReturn:
        """Refuse to dial."""
        raise RuntimeError(_REFUSAL.format("socket"))

    async def create_server(self, *_: Any, **__: Any) -> NoReturn:
        """Refuse to listen."""
        raise RuntimeError(_REFUSAL.format("socket"))


def virtual_now(loop: asyncio.AbstractEventLoop, start: datetime) -> Now:
    """Return a ``Now`` that is ``start`` plus the loop's own time."""
    return lambda: start + timedelta(seconds=loop.time())


def run(story: Coroutine[Any, Any, T]) -> T:
    """Run a story to its end in virtual time and return its result.

    What a task or callback raises to nobody fails the run as an ExceptionGroup, even when the story itself succeeds.
    """
    unheard: list[Exception] = []

    def hear(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        unheard.append(context.get("exception") or RuntimeError(context["message"]))

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.get_loop().set_exception_handler(hear)
        result = runner.run(story)
    if unheard:
        raise ExceptionGroup("raised to nobody", unheard)
    return result
