"""Stories that are listened to: what ends one."""

from dataclasses import replace

from simulation.scripted import START, at
from simulation.streamed import away, piece, status
from simulation.world import World, simulated

from proxy.core.deferral import StoredTask
from proxy.loops.followers import Followers
from proxy.loops.telling import UNBOUNDED, Telling


@simulated
async def test_only_what_is_told_ends_a_story_not_what_was_known_before(world: World) -> None:
    """A task that waited for input before does not wait any more because a piece of an artifact came."""
    await away(world)
    lease = world.app.attempts.lease("me", 60)
    (leased,) = await world.store.claim("ws", leases=[lease], now=at(100))
    assert leased.task is not None
    waits = leased.task.json.replace(b"SUBMITTED", b"INPUT_REQUIRED")
    known = replace(leased, task=StoredTask(json=waits, version="1.0", state="input-required"))
    telling = Telling(store=world.store, now=lambda: START, limits=UNBOUNDED, followers=Followers())
    story = await telling.listen(known, continues=True)
    assert await story.hear([piece("one")], token=lease.token, until=at(200))
    assert not story.rests
    assert await story.hear([status("INPUT_REQUIRED")], token=lease.token, until=at(200))
    assert story.rests
