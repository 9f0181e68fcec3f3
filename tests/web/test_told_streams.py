"""Event streams of deferred tasks, in virtual time: held sends, subscriptions, readers that come back."""

import asyncio
import json
from typing import Any

import pytest
from simulation.waiting_clients import begin
from simulation.world import World, clock, simulated
from web.told_words import IDS, V1, piece, polled, status, stream, subscribe, task_of, what

from proxy.store import StoreFailure


@pytest.fixture
def world(tmp_path: Any) -> World:
    return World(tmp_path)


@simulated
async def test_a_streamed_send_is_told_what_becomes_of_it(world: World) -> None:
    poller = await polled(world)
    client, serving = begin(world, stream(), **V1)
    await world.until(1)
    assert (client.status, client.header("Content-Type")) == (200, "text/event-stream")
    assert client.header("Holdfast-Receipt") is not None
    assert what(client) == ["task submitted"]
    await poller.claim()
    await poller.tell(
        {
            "jsonrpc": "2.0",
            "result": {"task": {"id": "up", "contextId": "c", "status": {"state": "TASK_STATE_WORKING"}}},
        }
    )
    await poller.tell(piece("one", append=False), piece("two"))
    await world.until(2)
    assert what(client) == ["task submitted", "working", "one", "two"]
    await poller.tell(status("completed"))
    await poller.complete()
    await serving
    assert what(client) == ["task submitted", "working", "one", "two", "completed"]
    assert {said["id"] for _, said in client.events} == {7}
    ours = task_of(client)
    assert {next(iter(said["result"].values())).get("taskId", ours) for _, said in client.events} == {ours}
    assert client.said.endswith(b"0\r\n\r\n")


@simulated
async def test_a_comment_every_two_seconds_keeps_a_stream_open(world: World) -> None:
    poller = await polled(world)
    client, serving = begin(world, stream(), **V1)
    await world.until(7)
    assert client.comments == ["keep-alive"] * 3
    await poller.claim()
    await poller.complete(
        {
            "jsonrpc": "2.0",
            "id": 7,
            "result": {"message": {"messageId": "r", "role": "ROLE_AGENT", "parts": [{"text": "done"}]}},
        }
    )
    await serving
    assert what(client) == ["task submitted", "done", "completed"]
    assert all(
        second - earlier <= 2.001 for (earlier, _), (second, _) in zip(client.pieces, client.pieces[1:], strict=False)
    )


@simulated
async def test_v03_says_which_update_is_the_last(world: World) -> None:
    poller = await polled(world)
    said = json.loads(stream()) | {"method": "message/stream", "id": "x"}
    said["params"]["message"] = {
        "kind": "message",
        "messageId": "m",
        "role": "user",
        "parts": [{"kind": "text", "text": "x"}],
    }
    client, serving = begin(world, json.dumps(said).encode())
    await world.until(1)
    await poller.claim()
    for state in ("working", "completed"):
        await poller.tell(
            {
                "jsonrpc": "2.0",
                "result": {"kind": "status-update", **IDS, "status": {"state": state}, "final": state == "completed"},
            }
        )
    await world.until(3)
    assert len(client.events) == 2  # whether it was the last is not known yet
    await poller.complete()
    await serving
    results = [said["result"] for _, said in client.events]
    assert [result["kind"] for result in results] == ["task", "status-update", "status-update"]
    assert [result.get("final") for result in results] == [None, False, True]


@pytest.mark.parametrize(("how", "state"), [("expired", "failed"), ("given up", "failed"), ("cancelled", "canceled")])
def test_an_end_without_a_story_is_told(world: World, how: str, state: str) -> None:
    @simulated
    async def told(world: World) -> None:
        poller = await polled(world, **{"queue.ttl": 5 if how == "expired" else 1000})
        client, serving = begin(world, stream(), **V1)
        await world.until(1)
        if how == "given up":
            await poller.claim()
            await poller.give_up()
        elif how == "cancelled":
            said = {"jsonrpc": "2.0", "id": 1, "method": "CancelTask", "params": {"id": task_of(client)}}
            await world.call(body=json.dumps(said).encode(), **V1)
        await serving
        assert what(client) == ["task submitted", state]

    told(world=world)


@simulated
async def test_who_wants_only_a_receipt_gets_the_task_and_the_stream_ends(world: World) -> None:
    await polled(world)
    client, serving = begin(world, stream(), Prefer="respond-async", **V1)
    await serving
    assert (clock(), what(client)) == (0, ["task submitted"])


@simulated
async def test_over_the_bounds_a_stream_ends_behind_its_task(world: World) -> None:
    await polled(world, **{"hold.count": 1})
    first, _ = begin(world, stream(), **V1)
    second, serving = begin(world, stream("m-2"), **V1)
    await serving
    assert clock() < 1
    assert (what(first), what(second)) == (["task submitted"], ["task submitted"])


@simulated
async def test_a_stream_ends_at_its_callers_deadline_with_an_error(world: World) -> None:
    await polled(world)
    client, serving = begin(world, stream(), X_Timeout="9", **V1)
    await serving
    assert round(clock(), 1) == 9.0
    assert what(client) == ["task submitted", "error DEADLINE_EXCEEDED"]
    assert b"\n\n\n" not in client.body  # readers on httpx-sse would take that for an event


@simulated
async def test_a_stopping_proxy_says_so_and_its_next_life_goes_on_with_the_story(world: World) -> None:
    poller = await polled(world)
    client, serving = begin(world, stream(), **V1)
    await world.until(1)
    await poller.claim()
    await poller.tell(piece("one", append=False))
    await world.until(2)
    await world.stop()
    await serving
    assert what(client) == ["task submitted", "one", "error STOPPING"]
    await world.start()
    last = client.events[1][0]
    again, reading = begin(world, subscribe(task_of(client)), Last_Event_ID=last, **V1)
    await world.until(4)
    await poller.tell(piece("two"), status("completed"))
    await poller.complete()
    await reading
    assert what(again) == ["two", "completed"]


@pytest.mark.parametrize(("version", "tail"), [("1.0", "/message:stream"), ("0.3", "/v1/message:stream")])
def test_a_rest_stream_is_told_without_envelopes(world: World, version: str, tail: str) -> None:
    @simulated
    async def told(world: World) -> None:
        poller = await polled(world)
        part = "parts" if version == "1.0" else "content"
        said = {"message": {"messageId": "m", "role": "ROLE_USER", part: [{"text": "hi"}]}}
        client, serving = begin(world, json.dumps(said).encode(), tail, A2A_Version=version)
        await world.until(1)
        await poller.claim()
        await poller.tell(piece("one")["result"], status("completed")["result"])
        await poller.complete()
        await serving
        assert [next(iter(event)) for _, event in client.events] == ["task", "artifactUpdate", "statusUpdate"]
        last = client.events[-1][1]["statusUpdate"]
        assert (last["status"]["state"], last.get("final")) == (
            "TASK_STATE_COMPLETED",
            None if version == "1.0" else True,
        )
        ours = client.events[0][1]["task"]["id"]
        path = f"{tail.removesuffix('/message:stream')}/tasks/{ours}:subscribe"
        again, reading = begin(world, b"", path, A2A_Version=version, Last_Event_ID=client.events[0][0])
        await reading
        assert [event for _, event in again.events] == [event for _, event in client.events[1:]]
        refused, reading = begin(world, b"", path, A2A_Version=version)
        await reading
        assert refused.status == 400

    told(world=world)


@simulated
async def test_a_client_that_leaves_a_stream_loses_nothing(world: World) -> None:
    poller = await polled(world)
    client, serving = begin(world, stream(), **V1)
    await world.until(1)
    client.leave()
    await asyncio.wait({serving})
    assert clock() < 2
    await poller.claim()
    await poller.tell(status("completed"))
    await poller.complete()
    assert await world.waiting() == []


@simulated
async def test_a_store_that_fails_for_a_while_delays_a_story_and_loses_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    poller = await polled(world)
    client, serving = begin(world, stream(), **V1)
    await world.until(1)
    await poller.claim()
    works = world.store.journal

    async def fails(*_: Any, **__: Any) -> Any:
        raise StoreFailure("io", "for a test")

    monkeypatch.setattr(world.store, "journal", fails)
    await poller.tell(piece("one", append=False), piece("two"))
    await world.until(4)
    assert what(client) == ["task submitted"]
    assert client.comments
    monkeypatch.setattr(world.store, "journal", works)
    await poller.tell(status("completed"))
    await poller.complete()
    await serving
    assert what(client) == ["task submitted", "one", "two", "completed"]


@simulated
async def test_no_room_for_a_subscription_is_said(world: World) -> None:
    await polled(world, **{"hold.count": 1})
    client, _ = begin(world, stream(), **V1)
    await world.until(1)
    again, reading = begin(world, subscribe(task_of(client)), **V1)
    await reading
    assert again.status == 503
    assert json.loads(again.body)["error"]["data"][0]["reason"] == "TOO_MANY_READERS"


# --- subscriptions ----------------------------------------------------------------------------------------------------


@simulated
async def test_a_subscription_begins_with_the_task_as_it_is(world: World) -> None:
    poller = await polled(world)
    client, serving = begin(world, stream(), **V1)
    await world.until(1)
    await poller.claim()
    await poller.tell(status("working"), piece("one", append=False))
    again, reading = begin(world, subscribe(task_of(client)), **V1)
    await world.until(2)
    assert what(again) == ["task working"]
    assert again.events[0][1]["result"]["task"]["artifacts"][0]["parts"] == [{"text": "one"}]
    await poller.tell(piece("two"), status("completed"))
    await poller.complete()
    await asyncio.gather(serving, reading)
    assert what(again) == ["task working", "two", "completed"]
    assert {said["id"] for _, said in again.events} == {"again"}


@simulated
async def test_a_task_that_has_ended_is_no_longer_subscribed_to_but_what_was_missed_is_told(world: World) -> None:
    poller = await polled(world)
    client, serving = begin(world, stream(), **V1)
    await world.until(1)
    await poller.claim()
    await poller.tell(piece("one", append=False), piece("two"), status("completed"))
    await poller.complete()
    await serving
    refused, reading = begin(world, subscribe(task_of(client)), **V1)
    await reading
    assert json.loads(refused.body)["error"]["code"] == -32004
    again, reading = begin(world, subscribe(task_of(client)), Last_Event_ID=client.events[1][0], **V1)
    await reading
    assert what(again) == ["two", "completed"]


@pytest.mark.parametrize("place", ["", "nonsense", "000000000000-1.1.1", "{story}-99.1.1", "{story}-1.1.2"])
def test_a_place_that_is_not_known_is_said_to_be_none(world: World, place: str) -> None:
    @simulated
    async def told(world: World) -> None:
        poller = await polled(world)
        client, serving = begin(world, stream(), **V1)
        await world.until(1)
        await poller.claim()
        await poller.tell(piece("one", append=False))
        await world.until(2)
        story = client.events[0][0].partition("-")[0]
        last = place.format(story=story)
        again, reading = begin(world, subscribe(task_of(client)), Last_Event_ID=last, **V1)
        await world.until(3)
        partly = place.endswith("1.1.2")
        assert again.comments == ([] if partly else ["events are missing here"])
        assert what(again) == ([] if partly else ["task working" if False else "task submitted"])
        await poller.tell(status("completed"))
        await poller.complete()
        await asyncio.gather(serving, reading)

    told(world=world)


@simulated
async def test_a_later_try_that_begins_anew_is_a_gap_for_who_missed_the_end_of_the_first(world: World) -> None:
    poller = await polled(world)
    client, serving = begin(world, stream(), **V1)
    await world.until(1)
    await poller.claim()
    await poller.tell(piece("one", append=False))
    await world.until(2)
    seen_one = client.events[1][0]
    client.leave()
    await asyncio.wait({serving})
    await poller.tell(piece("lost"))
    await world.until(60)  # the lease ends
    await poller.claim()
    await poller.tell(piece("new", append=False))
    again, reading = begin(world, subscribe(task_of(client)), Last_Event_ID=seen_one, **V1)
    await world.until(61)
    assert again.comments == ["events are missing here"]
    assert [said["result"]["task"]["artifacts"][0]["parts"] for _, said in again.events] == [[{"text": "new"}]]
    await poller.tell(status("completed"))
    await poller.complete()
    await reading
    assert what(again)[1:] == ["completed"]


@simulated
async def test_a_reader_that_stays_is_told_the_new_story(world: World) -> None:
    poller = await polled(world)
    client, serving = begin(world, stream(), **V1)
    await world.until(1)
    await poller.claim()
    await poller.tell(status("working"), piece("one", append=False))
    await world.until(60)
    await poller.claim()
    await poller.tell(status("working"), piece("one", append=False), status("completed"))
    await poller.complete()
    await serving
    assert what(client) == ["task submitted", "working", "one", "working", "one", "completed"]
    assert len({place for place, _ in client.events}) == 6


@simulated
async def test_a_repeated_streamed_send_joins_the_story(world: World) -> None:
    poller = await polled(world)
    client, serving = begin(world, stream(), **V1)
    await world.until(1)
    await poller.claim()
    await poller.tell(piece("one", append=False))
    again, joined = begin(world, stream(rpc_id=8), **V1)
    back, resumed = begin(world, stream(rpc_id=9), Last_Event_ID=client.events[0][0], **V1)
    await world.until(2)
    await poller.tell(status("completed"))
    await poller.complete()
    await asyncio.gather(serving, joined, resumed)
    assert what(again)[1:] == ["completed"]
    assert what(back) == ["one", "completed"]
    late, ended = begin(world, stream(rpc_id=10), **V1)
    await ended
    assert what(late)[:1] == ["task completed"]


@simulated
async def test_somebody_elses_task_is_not_found(world: World) -> None:
    await polled(world)
    client, _ = begin(world, stream(), **V1)
    await world.until(1)
    made = await world.request("POST", "/tokens", b'{"kind": "client", "name": "other"}')
    stranger, reading = begin(world, subscribe(task_of(client)), token=made.json["token"], **V1)
    await reading
    assert json.loads(stranger.body)["error"]["code"] == -32001
