"""What a reader of the event stream sees of a restart, a brake, a beat: every step once, in its order."""

import asyncio

from simulation.suspects import restarted
from simulation.world import World, at, simulated

from proxy.core.lifecycle import Status
from proxy.core.restart import Trigger
from proxy.core.times import rfc3339
from proxy.loops.beats import Beat
from proxy.telemetry import Event


def told(world: World, *kinds: str) -> list[tuple[str, object]]:
    """The events of those kinds: the name, and what is most worth knowing of it."""

    def gist(event: Event) -> object:
        return event.fields.get("status") or event.fields.get("members") or event.incarnation

    return [(str(event.name), gist(event)) for event in world.events if event.name.startswith(kinds)]


@simulated
async def test_a_restart_is_told_from_its_record_to_its_end(world: World) -> None:
    await world.given()
    await world.start()
    world.machine().starts.usual = 1.0
    route = world.route()
    asks = [world.app.coordinator.on_demand(route, Trigger.ADMIN, "", request_id=f"r{number}") for number in range(2)]
    await asyncio.gather(*asks)
    await world.eventually(lambda: route.workspace.status is Status.READY and route.open_cycle is None)
    first = [entry for entry in told(world, "restart.", "workspace.") if entry[0] != "workspace.created"]
    assert [entry for entry in first if entry[0] != "restart.coalesced"][:4] == [
        ("restart.scheduled", 2),
        ("workspace.incarnation", 2),
        ("workspace.status", "restarting"),
        ("restart.started", 2),
    ]
    assert [name for name, _ in first].count("restart.scheduled") == 2
    assert first[-2:] == [("workspace.status", "ready"), ("restart.finished", 3)]
    asked = [event.request_id for event in world.events if event.name == "restart.coalesced"]
    assert asked == ["r1"]


@simulated
async def test_a_brake_that_holds_a_restart_is_told_with_the_instant_at_which_it_lets_go(world: World) -> None:
    await world.given(**restarted(0))
    await world.start({"policy.settle_hold": 0, "policy.settle_window": 0})
    await world.until(20)
    await world.app.coordinator.on_verdict(world.route(), "not_running", request_id="r")
    held = [event for event in world.events if event.name == "restart.debounced"]
    assert [(event.rule, event.workspace, event.request_id) for event in held] == [("not_running", "ws", "r")]
    assert held[0].fields["until"] == rfc3339(at(60))


@simulated
async def test_an_announced_restart_is_told_once(world: World) -> None:
    await world.given()
    await world.start()
    for _ in range(2):
        await world.app.coordinator.on_announcement(world.route(), "an update")
    assert [name for name, _ in told(world, "restart.")] == ["restart.announced"]


@simulated
async def test_a_beat_tells_only_of_what_it_changes(world: World) -> None:
    await world.given()
    await world.start()
    world.events.clear()
    for status in ("ready", "ready", "degraded", "degraded"):
        await world.app.beats.take(world.route(), Beat(boot_id="one", status=status))
    await world.app.beats.take(world.route(), Beat(boot_id="two", status="degraded"))
    said = told(world, "workspace.")
    assert [entry for entry in said if entry[0] == "workspace.incarnation"] == [("workspace.incarnation", 2)]
    assert [entry for entry in said if entry[1] == "degraded"] == [("workspace.status", "degraded")]
