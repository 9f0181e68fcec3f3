"""Streams of a workspace that keeps the events of all of them (`journal = all`), in virtual time."""

import asyncio
import json
import random
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulation.scripted import Reacts, fails, streams
from simulation.streamed import CARD, CUT, answers, error, piece, status, task
from simulation.waiting_clients import Client, begin
from simulation.world import World, clock, message, simulated
from web.told_words import V1, stream, subscribe, task_of, what

from proxy.core.deferral import JournalMode, State
from proxy.store import StoreFailure


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def journalling(world: World, *reactions: Reacts, **overrides: Any) -> None:
    """A ready workspace that journals everything; its agent reacts like this, and is away afterwards."""
    await world.given(sign=-1, agent_card=CARD)
    await world.start({"defaults.journal": "all", **overrides})
    world.agent().reacts.queue(*reactions)
    world.agent().reacts.usual = fails()


TASK_SO_FAR = task(artifacts=[{"artifactId": "a", "parts": [{"text": "one"}]}])


def to_task(client: Client) -> bytes:
    """A second message, to the task that this client was shown."""
    said = json.loads(stream("m-2"))
    said["params"]["message"] |= {"taskId": task_of(client)}
    return json.dumps(said).encode()


def methods(world: World) -> list[str]:
    return [json.loads(heard.request.body)["method"] for heard in world.agent().heard]


@simulated
async def test_a_healthy_stream_is_told_from_the_journal(world: World) -> None:
    await journalling(world, streams(task(), piece("one"), 3.0, piece("two", append=True), status("COMPLETED")))
    client, serving = begin(world, stream(), **V1)
    await world.until(1)
    assert what(client) == ["task submitted", "working", "one"]
    await serving
    assert what(client) == ["task submitted", "working", "one", "two", "completed"]
    assert client.header("Holdfast-Verdict") == "alive; rule=journal"
    assert (client.status, methods(world), clock()) == (200, ["SendStreamingMessage"], 3)
    assert len({place for place, _ in client.events if place}) == 5
    assert {said["id"] for _, said in client.events} == {7}
    assert task_of(client) != "up"
    kept = await world.deferral(client.header("Holdfast-Receipt") or "")
    assert (kept.state, kept.tries, kept.maybe, kept.upstream_task_id) == (State.COMPLETED, 1, False, "up")
    assert world.route().size.rows == 0


@simulated
async def test_who_left_comes_back_to_its_place_and_the_agent_is_asked_once(world: World) -> None:
    await journalling(world, streams(task(), piece("one"), 5.0, piece("two", append=True), status("COMPLETED")))
    client, serving = begin(world, stream(), **V1)
    await world.until(1)
    client.leave()
    await asyncio.wait({serving})
    again, serving = begin(world, subscribe(task_of(client)), Last_Event_ID=client.events[-2][0], **V1)
    await world.until(2)
    assert what(again) == ["one"]
    await serving
    assert what(again) == ["one", "two", "completed"]
    late, _ = begin(world, subscribe(task_of(client)), Last_Event_ID=client.events[-1][0], **V1)
    await world.until(9)
    assert what(late) == ["two", "completed"]
    assert methods(world) == ["SendStreamingMessage"]


@simulated
async def test_a_repeated_send_joins_its_first(world: World) -> None:
    await journalling(world, streams(task(), 5.0, piece("one"), status("COMPLETED")))
    first, serving = begin(world, stream(), **V1)
    await world.until(1)
    second, again = begin(world, stream(), **V1)
    await asyncio.wait({serving, again})
    assert what(first)[-2:] == what(second)[-2:] == ["one", "completed"]
    assert task_of(first) == task_of(second)
    assert methods(world) == ["SendStreamingMessage"]


@simulated
async def test_an_agent_that_dies_is_followed_when_it_is_back(world: World) -> None:
    await journalling(
        world,
        streams(task(), piece("one"), CUT),
        *[fails()] * 3,
        streams(TASK_SO_FAR, piece("two", append=True), status("COMPLETED")),
    )
    client, serving = begin(world, stream(), **V1)
    await serving
    assert what(client)[-1] == "completed"
    assert "two" in what(client)
    assert methods(world).count("SendStreamingMessage") == 1


@simulated
async def test_a_proxy_that_is_killed_goes_on_in_its_next_life(world: World) -> None:
    await journalling(world, streams(task(), piece("one"), asyncio.Event()))
    client, serving = begin(world, stream(), **V1)
    await world.until(1)
    await world.crash()
    serving.cancel()
    world.agent().reacts.queue(streams(TASK_SO_FAR, piece("two", append=True), status("COMPLETED")))
    await world.start({"defaults.journal": "all"})
    again, serving = begin(world, subscribe(task_of(client)), Last_Event_ID=client.events[-1][0], **V1)
    await serving
    assert what(again) == ["two", "completed"]
    assert methods(world) == ["SendStreamingMessage", "SubscribeToTask"]


@simulated
async def test_a_refusal_of_the_agents_ends_the_stream(world: World) -> None:
    await journalling(world, answers(error(-32602, "no such skill")))
    client, serving = begin(world, stream(), **V1)
    await serving
    assert what(client) == ["task submitted", "rejected"]
    assert b"no such skill" in client.body


@pytest.mark.parametrize("mode", ["off", "deferred", "all"])
def test_what_is_put_away_before_it_is_sent(world: World, mode: str) -> None:
    """A unary send never is, whatever is journalled: nothing is told of it that could be kept."""

    @simulated
    async def told(world: World) -> None:
        await journalling(world, Reacts(), streams(task("COMPLETED")), **{"defaults.journal": mode})
        unary, serving = begin(world, message())
        await serving
        assert unary.header("Holdfast-Receipt") is None
        streamed, serving = begin(world, stream("m-2"), **V1)
        await serving
        assert (streamed.header("Holdfast-Receipt") is not None) == (mode == "all")

    told(world=world)


@simulated
async def test_what_cannot_be_journalled_is_not_sent(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await journalling(world, streams(task("COMPLETED")))

    async def full(*_: object, **__: object) -> None:
        raise StoreFailure("disk_full", "no room")

    monkeypatch.setattr(world.store, "enqueue", full)
    client, serving = begin(world, stream(), **V1)
    await serving
    reason = json.loads(client.body)["error"]["data"][0]["reason"]
    assert (client.status, reason, world.agent().heard) == (503, "QUEUE_UNAVAILABLE", [])


@simulated
async def test_a_stream_that_nobody_could_be_told_is_not_sent_but_a_receipt_is_given(world: World) -> None:
    ends = asyncio.Event()
    await journalling(world, *[streams(task(), ends, status("COMPLETED"))] * 2, **{"hold.count": 1})
    first, serving = begin(world, stream(), **V1)
    await world.until(1)
    refused, answering = begin(world, stream("m-2"), **V1)
    await answering
    reason = json.loads(refused.body)["error"]["data"][0]["reason"]
    assert (refused.status, reason, len(world.agent().heard), world.route().size.rows) == (
        503,
        "TOO_MANY_READERS",
        1,
        1,
    )
    receipted, answering = begin(world, stream("m-3"), Prefer="respond-async", **V1)
    await answering
    assert (what(receipted), clock()) == (["task submitted"], 1)
    ends.set()
    await serving
    assert what(first)[-1] == "completed"


@simulated
async def test_streams_run_side_by_side_as_direct_ones_do(world: World) -> None:
    """The replayer's window, which is one after a start, is for what waited."""
    ends = asyncio.Event()
    await journalling(world, *[streams(task(), ends, status("COMPLETED"))] * 5)
    begun = [begin(world, stream(f"m-{number}"), **V1) for number in range(5)]
    await world.until(1)
    assert len(world.agent().heard) == 5
    ends.set()
    await asyncio.wait({serving for _, serving in begun})
    assert [what(client)[-1] for client, _ in begun] == ["completed"] * 5


@simulated
async def test_a_message_to_a_journalled_task_is_journalled_too(world: World) -> None:
    await journalling(
        world, streams(task(), status("INPUT_REQUIRED")), streams(task(), piece("thanks"), status("COMPLETED"))
    )
    first, serving = begin(world, stream(), **V1)
    await serving
    assert what(first)[-1] == "input_required"
    second, serving = begin(world, to_task(first), **V1)
    await serving
    assert what(second)[-2:] == ["thanks", "completed"]
    told = [next(iter(each["result"].values())) for _, each in second.events]
    assert {each.get("taskId", each.get("id")) for each in told} == {task_of(first)}
    assert all(place for place, _ in second.events)
    sent = json.loads(world.agent().heard[1].request.body)["params"]["message"]
    assert sent["taskId"] == "up"


@simulated
async def test_a_message_to_a_task_that_is_sent_again_joins_its_first(world: World) -> None:
    """It is known by what its caller wrote, not by what its agent got."""
    await journalling(
        world, streams(task(), status("INPUT_REQUIRED")), streams(task(), piece("thanks"), status("COMPLETED"))
    )
    first, serving = begin(world, stream(), **V1)
    await serving
    second, serving = begin(world, to_task(first), **V1)
    await serving
    again, serving = begin(world, to_task(first), Last_Event_ID=second.events[-2][0], **V1)
    await serving
    assert (again.status, what(again)) == (200, ["completed"])
    assert len(world.agent().heard) == 2


@simulated
async def test_a_message_to_a_task_that_its_agent_has_not_named_yet_waits(world: World) -> None:
    named = asyncio.Event()
    await journalling(
        world,
        streams(named, task(), status("INPUT_REQUIRED")),
        streams(task(), piece("thanks"), status("COMPLETED")),
    )
    first, serving = begin(world, stream(), **V1)
    await world.until(1)
    second, answering = begin(world, to_task(first), **V1)
    await world.until(2)
    assert len(world.agent().heard) == 1
    named.set()
    await asyncio.wait({serving, answering})
    assert what(second)[-2:] == ["thanks", "completed"]
    assert json.loads(world.agent().heard[1].request.body)["params"]["message"]["taskId"] == "up"


@simulated
async def test_a_message_to_a_task_without_a_name_is_not_handed_out_either(world: World) -> None:
    """The workspace polls by now; the call that begins the task was made before, and is still open."""
    named = asyncio.Event()
    await journalling(world, streams(named, task(), status("INPUT_REQUIRED")))
    first, serving = begin(world, stream(), **V1)
    await world.until(1)
    second, answering = begin(world, to_task(first), Prefer="respond-async", **V1)
    await answering
    switched = await world.request("PUT", "/workspaces/ws/config", b'{"delivery_mode": "poll"}')
    assert switched.status == 202
    claimed = await world.request("POST", "/workspaces/ws/queue/claim", b"{}")
    assert (claimed.status, claimed.json["items"]) == (200, [])
    named.set()
    await serving
    await world.until(60)
    (item,) = (await world.request("POST", "/workspaces/ws/queue/claim", b"{}")).json["items"]
    assert item["queue_id"] == second.header("Holdfast-Receipt")


@simulated
async def test_a_workspace_that_is_paused_before_the_agent_got_it_sends_it_later_and_in_order(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await journalling(world)
    written = world.store.enqueue

    async def paused_meanwhile(*these: Any, **known: Any) -> Any:
        placed = await written(*these, **known)
        monkeypatch.undo()
        await world.request("POST", "/workspaces/ws/pause")
        return placed

    monkeypatch.setattr(world.store, "enqueue", paused_meanwhile)
    client, serving = begin(world, stream(), **V1)
    await world.until(1)
    assert (what(client), world.agent().heard) == (["task submitted"], [])
    ends = asyncio.Event()
    world.agent().reacts.queue(fails(), streams(task(), ends, status("COMPLETED")), Reacts())
    await world.request("POST", "/workspaces/ws/resume")
    await world.eventually(lambda: len(world.agent().heard) == 1)
    context = client.events[0][1]["result"]["task"]["contextId"]
    second, answering = begin(world, message(message_id="m-2", context_id=context))
    await answering
    assert second.header("Holdfast-Verdict") == "busy; rule=order"
    ends.set()
    await serving
    await world.eventually(lambda: len(world.agent().heard) == 3)
    assert what(client)[-1] == "completed"
    assert [method[:7] for method in methods(world)] == ["SendStr", "SendStr", "message"]


@pytest.mark.parametrize("profile", ["plain", "offline-draft"])
def test_streams_are_told_whatever_the_profile(world: World, profile: str) -> None:
    @simulated
    async def told(world: World) -> None:
        await journalling(world, streams(task(), piece("one"), status("COMPLETED")))
        client, serving = begin(world, stream(), Holdfast_Profile=profile, **V1)
        await serving
        assert what(client) == ["task submitted", "working", "one", "completed"]

    told(world=world)


@simulated
async def test_streams_that_are_told_go_on_when_no_new_ones_are_journalled(world: World) -> None:
    ends = asyncio.Event()
    await journalling(world, streams(task(), ends, piece("one"), status("COMPLETED")), streams(task("COMPLETED")))
    client, serving = begin(world, stream(), **V1)
    await world.until(1)
    world.route().effective = replace(world.route().effective, journal=JournalMode.DEFERRED)
    direct, passing = begin(world, stream("m-2"), **V1)
    await passing
    assert direct.header("Holdfast-Receipt") is None
    ends.set()
    await serving
    assert what(client)[-2:] == ["one", "completed"]
    assert all(place for place, _ in client.events)


@simulated
async def test_a_stream_of_a_workspace_that_is_removed_ends_and_says_why(world: World) -> None:
    await journalling(world, streams(task(), asyncio.Event()))
    client, serving = begin(world, stream(), **V1)
    await world.until(1)
    await world.request("DELETE", "/workspaces/ws")
    await serving
    assert what(client)[-1] == "failed"
    assert b"the workspace was removed" in client.body


@simulated
async def test_a_stream_may_last_longer_than_leases_and_queued_requests_do(world: World) -> None:
    await journalling(
        world,
        streams(task(), *[60.0, piece("one")] * 30, status("COMPLETED")),
        **{"queue.lease": 15, "queue.ttl": 600, "queue.backoff": 60},
    )
    client, serving = begin(world, stream(), **V1)
    await serving
    assert (what(client)[-1], clock()) == ("completed", 1800)
    assert methods(world) == ["SendStreamingMessage"]


@simulated
async def test_a_canceled_stream_ends_as_its_agent_says(world: World) -> None:
    ends = asyncio.Event()
    canceled = {"id": "up", "contextId": "c", "status": {"state": "TASK_STATE_CANCELED"}}
    said = json.dumps({"jsonrpc": "2.0", "id": 9, "result": canceled}).encode()
    await journalling(world, streams(task(), ends, status("CANCELED")), answers(said))
    client, serving = begin(world, stream(), **V1)
    await world.until(1)
    ask = {"jsonrpc": "2.0", "id": 9, "method": "CancelTask", "params": {"id": task_of(client)}}
    answer = await world.call(body=json.dumps(ask).encode(), **V1)
    assert answer.json["result"]["id"] == task_of(client)
    ends.set()
    await serving
    assert what(client) == ["task submitted", "working", "canceled"]
    assert methods(world) == ["SendStreamingMessage", "CancelTask"]
    assert json.loads(world.agent().heard[1].request.body)["params"]["id"] == "up"


def relayed(chance: random.Random) -> None:
    """Play one direct story to a reader that leaves and comes back, through lives of its agent and of the proxy."""

    async def play(world: World) -> None:
        texts = [f"piece {number}" for number in range(40)]
        told = [part for number, text in enumerate(texts) for part in (0.1, piece(text, append=number > 0))]
        await journalling(world, streams(task(), *told, status("COMPLETED")))
        client, serving = begin(world, stream(), **V1)
        await asyncio.sleep(0.01)
        ours, seen = task_of(client), list[Any]()
        while True:
            await asyncio.wait({serving}, timeout=chance.choice([0.05, 0.1, 0.3, 0.7]))
            ended = serving.done()
            client.leave()
            await asyncio.wait({serving})
            seen += client.events
            assert not any("missing" in word for word in client.comments)
            if ended and what_of(seen)[-1] == "completed":
                break
            client, serving = begin(world, subscribe(ours), Last_Event_ID=seen[-1][0], **V1)
        assert what_of(seen) == ["task submitted", "working", *texts, "completed"]
        assert len({place for place, _ in seen}) == len(seen)
        assert len(world.agent().heard) == 1

    with TemporaryDirectory() as folder:
        simulated(play)(world=World(Path(folder)))


def what_of(seen: list[Any]) -> list[str]:
    """Events in a word each."""
    read = Client()
    read.pieces = [(0, b"HTTP/1.1 200 OK\r\n\r\n"), *((0, framed(place, said)) for place, said in seen)]
    return what(read)


def framed(place: str, said: Any) -> bytes:
    return f"id: {place}\ndata: {json.dumps(said)}\n\n".encode()


@settings(max_examples=30, deadline=None)
@given(st.randoms(use_true_random=False))
def test_hundreds_of_readers_of_direct_streams_that_come_back_are_told_everything_once(chance: random.Random) -> None:
    relayed(chance)
