"""Virtual time: hours pass in no time, in the order of the timers, and nothing real can hold it up."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import pytest
from simulation.virtual_time import DeadlockError, VirtualTimeLoop, run, virtual_now

START = datetime(2026, 1, 1, tzinfo=UTC)


def test_an_hour_of_sleep_takes_an_hour_of_the_loop_and_no_time_at_all() -> None:
    async def story() -> float:
        await asyncio.sleep(3600)
        return asyncio.get_running_loop().time()

    before = time.perf_counter()
    assert run(story()) == 3600
    assert time.perf_counter() - before < 30  # the sleep would have taken an hour


def test_a_year_of_sleep_ends_at_its_instant() -> None:
    async def story() -> float:
        await asyncio.sleep(0.1)
        await asyncio.sleep(365 * 86_400)
        return asyncio.get_running_loop().time()

    assert run(story()) == pytest.approx(365 * 86_400 + 0.1, abs=1e-6)


def test_sleepers_wake_in_the_order_of_their_timers() -> None:
    async def story() -> list[tuple[float, str]]:
        woken: list[tuple[float, str]] = []

        async def sleeper(name: str, seconds: float) -> None:
            await asyncio.sleep(seconds)
            woken.append((asyncio.get_running_loop().time(), name))

        async with asyncio.TaskGroup() as group:
            for name, seconds in (("late", 90.0), ("early", 0.5), ("middle", 60.0), ("early too", 0.5)):
                group.create_task(sleeper(name, seconds))
        return woken

    assert run(story()) == [(0.5, "early"), (0.5, "early too"), (60.0, "middle"), (90.0, "late")]


def test_what_is_ready_runs_before_time_moves() -> None:
    async def story() -> list[float]:
        seen: list[float] = []
        loop = asyncio.get_running_loop()
        loop.call_later(5, lambda: seen.append(loop.time()))
        for _ in range(50):
            await asyncio.sleep(0)
            assert loop.time() == 0
        await asyncio.sleep(6)
        return seen

    assert run(story()) == [5]


def test_a_timeout_fires_at_its_deadline() -> None:
    async def story() -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1800):
                await asyncio.Event().wait()
        return asyncio.get_running_loop().time()

    assert run(story()) == 1800


def test_a_timeout_that_is_met_does_not_fire() -> None:
    async def story() -> str:
        async with asyncio.timeout(10):
            await asyncio.sleep(9.999)
        return "met"

    assert run(story()) == "met"


def test_now_follows_the_loop() -> None:
    async def story() -> tuple[datetime, datetime]:
        now = virtual_now(asyncio.get_running_loop(), START)
        first = now()
        await asyncio.sleep(90.25)
        return first, now()

    assert run(story()) == (START, START + timedelta(seconds=90.25))


def test_waiting_for_what_can_never_happen_is_a_deadlock_that_names_the_waiters() -> None:
    async def wait_for_nobody() -> None:
        await asyncio.Event().wait()

    async def story() -> None:
        await asyncio.sleep(7)
        await asyncio.create_task(wait_for_nobody(), name="the forgotten one")

    with pytest.raises(DeadlockError, match=r"(?s)at 7 s.*the forgotten one") as caught:
        run(story())
    assert "wait_for_nobody" in str(caught.value)


def test_a_story_that_fails_raises_what_it_raised() -> None:
    async def story() -> None:
        await asyncio.sleep(1)
        raise LookupError("as told")

    with pytest.raises(LookupError, match="as told"):
        run(story())


def test_an_exception_raised_to_nobody_fails_the_run() -> None:
    async def story() -> None:
        asyncio.get_running_loop().call_later(1, [].pop)
        await asyncio.sleep(2)

    with pytest.RaisesGroup(IndexError):
        run(story())


def test_a_background_task_is_cancelled_when_the_story_ends() -> None:
    ended: list[str] = []

    async def forever() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            ended.append("cancelled")

    async def story() -> None:
        task = asyncio.create_task(forever())
        await asyncio.sleep(10)
        assert not task.done()

    run(story())
    assert ended == ["cancelled"]


@pytest.mark.parametrize(
    ("what", "real_thing"),
    [
        ("thread", lambda: asyncio.to_thread(time.perf_counter)),
        ("thread", lambda: asyncio.get_running_loop().getaddrinfo("localhost", 80)),
        ("socket", lambda: asyncio.open_connection("127.0.0.1", 9)),
        ("socket", lambda: asyncio.start_server(lambda *_: None, "127.0.0.1", 0)),
    ],
    ids=["thread", "name look-up", "dial", "listen"],
)
def test_threads_and_sockets_are_refused(what: str, real_thing: Callable[[], Awaitable[object]]) -> None:
    async def story() -> None:
        with pytest.raises(RuntimeError, match=f"virtual time cannot be held by a {what}"):
            await real_thing()

    run(story())


def test_two_runs_of_one_story_are_alike() -> None:
    async def story() -> list[tuple[int, float]]:
        queue: asyncio.Queue[int] = asyncio.Queue()

        async def producer(number: int) -> None:
            for beat in range(5):
                await asyncio.sleep(0.1 * number)
                await queue.put(number * 10 + beat)

        async with asyncio.TaskGroup() as group:
            for number in range(1, 5):
                group.create_task(producer(number))
            return [(await queue.get(), asyncio.get_running_loop().time()) for _ in range(20)]

    assert run(story()) == run(story())


def test_a_fresh_loop_starts_at_zero() -> None:
    loop = VirtualTimeLoop()
    try:
        assert loop.time() == 0
    finally:
        loop.close()
