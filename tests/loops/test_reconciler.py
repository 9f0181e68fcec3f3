"""A store that fails just when a death or a start should be followed up: the workspace comes back without a hand."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from simulation.world import Reacts, World, clock, fails, message, simulated

from proxy.core.lifecycle import Status
from proxy.store import Store, StoreFailure
from proxy.telemetry import EventName

SWEEP = 15
QUICK = {"health.sweep": SWEEP}


@contextmanager
def failing(store: Store, *methods: str) -> Iterator[None]:
    """Let these methods of a store fail for the length of the body."""

    async def fail(*_: Any, **__: Any) -> Any:
        await asyncio.sleep(0)
        raise StoreFailure("io", "the test says so")

    for method in methods:
        setattr(store, method, fail)
    try:
        yield
    finally:
        for method in methods:
            delattr(store, method)


async def back(world: World) -> float:
    """Let everything work again; the seconds until the workspace is ready. What waited for it is answered, too."""
    world.agent().reacts.usual = Reacts()
    world.machine().ready.usual = True
    since = clock()
    ready = await world.eventually(lambda: world.route().workspace.status is Status.READY)
    await world.eventually(lambda: world.route().size.rows == 0)
    return ready - since


@pytest.mark.parametrize("methods", [("replace",), ("replace", "log"), ("replace", "save_restart", "log")])
@simulated
async def test_a_restart_that_a_brake_held_back_happens_although_the_store_failed_when_it_let_go(
    world: World, methods: tuple[str, ...]
) -> None:
    await world.given()
    await world.start(QUICK)
    world.agent().reacts.usual = fails()
    world.machine().ready.usual = False
    await world.exits()  # restarted at once
    await world.exits()  # before it was ready: held back
    assert world.app.background.pending("brake-ws")
    with failing(world.store, *methods):
        await asyncio.sleep(10)  # longer than the backoff
        assert world.route().workspace.status is Status.OFFLINE
    assert await back(world) < 2 * SWEEP


@simulated
async def test_a_restart_that_is_held_back_happens_although_the_store_did_not_take_that_it_was(world: World) -> None:
    await world.given()
    await world.start(QUICK)
    world.agent().reacts.usual = fails()
    world.machine().ready.usual = False
    await world.exits()
    with failing(world.store, "log"):
        await world.exits()
    assert not world.app.background.pending("brake-ws")
    assert await back(world) < 2 * SWEEP


@pytest.mark.parametrize("methods", [("replace",), ("log",)])
@simulated
async def test_an_exit_that_the_store_did_not_take_is_noted_when_it_does(
    world: World, methods: tuple[str, ...]
) -> None:
    await world.given()
    await world.start(QUICK)
    world.agent().reacts.usual = fails()
    with failing(world.store, *methods):
        await world.exits()
        await asyncio.sleep(10)
    assert await back(world) < 2 * SWEEP
    assert len(world.told(EventName.WORKSPACE_EXITED)) == 1


@pytest.mark.parametrize("methods", [("replace",), ("save_restart",), ("replace", "log", "save_restart")])
@simulated
async def test_a_workspace_that_got_ready_while_the_store_failed_is_ready_afterwards(
    world: World, methods: tuple[str, ...]
) -> None:
    await world.given()
    await world.start(QUICK)
    world.agent().reacts.usual = fails()
    world.machine().ready.usual = False
    await world.request("POST", "/workspaces/ws/restart")
    assert (await world.call(body=message())).status == 202
    await asyncio.sleep(5)
    world.machine().ready.usual = True
    with failing(world.store, *methods):
        await asyncio.sleep(20)
    assert await back(world) < 2 * SWEEP


@simulated
async def test_a_healthy_workspace_costs_the_reconciler_nothing(world: World) -> None:
    await world.given()
    app = await world.start()
    inspected = world.machine().inspected
    with failing(world.store, "replace", "log", "save_restart"):
        await app.reconciler.sweep()
    assert world.machine().inspected == inspected
