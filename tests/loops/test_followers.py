"""News of a deferral reaches everybody who follows it, and nobody twice for nothing."""

from simulation.world import Reacts, World, fails, message, simulated

from proxy.core.lifecycle import Status
from proxy.loops.beats import Beat
from proxy.loops.followers import Followers


async def test_what_was_told_while_nobody_waited_is_heard_at_the_next_waiting() -> None:
    followers = Followers()
    with followers.follow("one") as following:
        followers.tell("one")
        assert await following.news(0)
        assert not await following.news(0)


async def test_everybody_who_follows_hears_and_others_do_not() -> None:
    followers = Followers()
    with followers.follow("one") as first, followers.follow("one") as second, followers.follow("two") as other:
        followers.tell("one")
        assert (await first.news(0), await second.news(0), await other.news(0)) == (True, True, False)


async def test_who_left_is_forgotten() -> None:
    followers = Followers()
    with followers.follow("one"), followers.follow("one"):
        pass
    assert "one" not in followers
    followers.tell("one")


@simulated
async def test_a_failed_try_and_the_end_of_a_deferral_are_news(world: World) -> None:
    await world.given(status=Status.STARTING, sign=-1)
    await world.start()
    world.machine().ready.usual = False
    world.agent().reacts.usual = fails()
    receipt = (await world.call(body=message("first"))).receipt
    heard = []
    with world.app.followers.follow(receipt) as following:
        assert await following.news(60)
        heard.append((await world.deferral(receipt)).state.value)
        world.agent().reacts.usual = Reacts()
        await world.app.beats.take(world.route(), Beat(status="ready"))
        while heard[-1] != "completed":
            assert await following.news(60)
            heard.append((await world.deferral(receipt)).state.value)
    assert heard[0] == "queued"
