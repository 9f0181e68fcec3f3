"""A thousand readers of event streams that leave at any moment and come back: nothing is missed, nothing told twice."""

import asyncio
import random
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st
from simulation.waiting_clients import begin
from simulation.world import World, simulated
from web.told_words import V1, piece, polled, status, stream, subscribe, task_of


def followed(chance: random.Random, ends: int) -> None:
    """Play one story to a reader that leaves and comes back; it is told everything once and in order."""

    async def play(world: World) -> None:
        poller = await polled(world)
        client, serving = begin(world, stream(), **V1)
        await world.until(0.1)
        await poller.claim()
        ours, texts, seen, gaps = task_of(client), [], [client.events[0]], 0
        for number in range(40):
            texts.append(f"piece {number}")
            await poller.tell(piece(texts[-1], append=number > 0))
            if chance.random() < ends / 40:
                await asyncio.sleep(chance.choice([0, 0.001, 0.5]))
                client.leave()
                await asyncio.wait({serving})
                seen += [event for event in client.events if event not in seen]
                if chance.random() < 0.2:
                    await world.stop()
                    await world.start()
                client, serving = begin(world, subscribe(ours), Last_Event_ID=seen[-1][0], **V1)
            gaps += len([word for word in client.comments if "missing" in word])
        await poller.tell(status("completed"))
        await poller.complete()
        await serving
        seen += client.events
        told = [said["result"]["artifactUpdate"] for _, said in seen if "artifactUpdate" in said["result"]]
        assert [update["artifact"]["parts"][0]["text"] for update in told] == texts
        assert len({place for place, _ in seen}) == len(seen)
        assert gaps == 0

    with TemporaryDirectory() as folder:
        simulated(play)(world=World(Path(folder)))


@settings(max_examples=40, deadline=None)
@given(st.randoms(use_true_random=False))
def test_a_thousand_readers_that_leave_and_come_back_are_told_everything_once(chance: random.Random) -> None:
    followed(chance, 26)
