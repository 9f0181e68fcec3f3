"""Streams whose agent is lost in the middle: kept open, and going on when it is back."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from simulation.scripted import Reacts, fails, streams
from simulation.streamed import CARD, CUT, answers, error, piece, said, send, status, task
from simulation.world import Reply, World, clock, simulated

from proxy.telemetry import EventName

V1 = {"A2A_Version": "1.0"}
STREAMED = send(method="SendStreamingMessage")


async def scene(world: World, *reactions: Reacts, settings: dict[str, Any] | None = None, **known: Any) -> None:
    """A ready workspace whose agent reacts like this, and is away afterwards."""
    await world.given(**{"sign": -1, "agent_card": CARD, **known})
    await world.start({"defaults.hold_seconds": 30, **(settings or {})})
    world.agent().reacts.queue(*reactions)
    world.agent().reacts.usual = fails()


def events_of(reply: Reply) -> list[Any]:
    """The data of the stream's events."""
    frames = reply.body.replace(b"\r\n", b"\n").split(b"\n\n")
    return [json.loads(frame.partition(b"data: ")[2]) for frame in frames if b"data: " in frame]


def told(reply: Reply) -> list[str]:
    """The stream in words."""
    words = []
    for event in events_of(reply):
        item = event.get("result", event)
        if "task" in item:
            words.append(f"task {item['task']['status']['state'].removeprefix('TASK_STATE_')}")
        elif "statusUpdate" in item:
            words.append(item["statusUpdate"]["status"]["state"].removeprefix("TASK_STATE_"))
        elif "artifactUpdate" in item:
            update = item["artifactUpdate"]
            text = "".join(part["text"] for part in update["artifact"]["parts"])
            words.append(f"+{text}" if update.get("append") else text)
        else:
            words.append("error")
    return words


def methods(world: World) -> list[str]:
    return [json.loads(heard.request.body)["method"] for heard in world.agent().heard]


def with_artifact(*texts: str, state: str = "WORKING") -> bytes:
    return task(state, artifacts=[{"artifactId": "a", "parts": [{"text": text} for text in texts]}])


@simulated
async def test_a_stream_goes_on_when_its_agent_is_back(world: World) -> None:
    await scene(
        world,
        streams(task(), piece("one"), status("WORKING"), CUT),
        *[fails()] * 5,
        streams(with_artifact("one"), piece(" two", append=True), 7.0, status("COMPLETED")),
    )
    reply = await world.call(body=STREAMED, **V1)
    assert told(reply) == ["task WORKING", "one", "WORKING", "one", "+ two", "COMPLETED"]
    assert {event["id"] for event in events_of(reply)} == {7}
    assert reply.body.count(b": keep-alive\r\n") >= 3
    assert methods(world) == ["SendStreamingMessage", *["SubscribeToTask"] * 6]
    assert len(world.told(EventName.STREAM_RESUMED)) == 1


@simulated
async def test_a_stream_may_break_again(world: World) -> None:
    await scene(
        world,
        streams(task(), CUT),
        streams(task(), piece("one"), CUT),
        streams(with_artifact("one"), piece(" two", append=True), CUT),
        streams(with_artifact("one", " two"), status("COMPLETED")),
    )
    assert told(await world.call(body=STREAMED, **V1)) == ["task WORKING", "one", "+ two", "COMPLETED"]


@pytest.mark.parametrize("refusal", [error(-32004), CUT], ids=["refused", "broken off before a word"])
@simulated
async def test_a_task_that_ended_meanwhile_is_told_to_its_end(world: World, refusal: Any) -> None:
    bare = json.loads(with_artifact("all", state="COMPLETED"))["result"]["task"]
    done = json.dumps({"jsonrpc": "2.0", "id": 7, "result": bare})
    await scene(world, streams(task(), CUT), streams(refusal), answers(done.encode()))
    assert told(await world.call(body=STREAMED, **V1)) == ["task WORKING", "all", "COMPLETED"]
    assert methods(world) == ["SendStreamingMessage", "SubscribeToTask", "GetTask"]


@simulated
async def test_a_forgotten_task_ends_in_a_failure_that_says_why(world: World) -> None:
    await scene(world, streams(task(), piece("one"), CUT), answers(error(-32001)), answers(error(-32001)))
    reply = await world.call(body=STREAMED, **V1)
    assert told(reply) == ["task WORKING", "one", "FAILED"]
    update = events_of(reply)[-1]["result"]["statusUpdate"]
    assert (update["taskId"], update["contextId"]) == ("up", "c")
    assert update["status"]["message"]["parts"][0]["text"] == (
        "The agent was lost while it worked on this, and does not know the task any more."
    )
    assert clock() < 1


@simulated
async def test_an_agent_that_does_not_come_back_in_time_fails_the_task(world: World) -> None:
    await scene(world, streams(task(), CUT))
    reply = await world.call(body=STREAMED, **V1)
    assert told(reply) == ["task WORKING", "FAILED"]
    assert events_of(reply)[-1]["result"]["statusUpdate"]["status"]["message"]["parts"][0]["text"] == (
        "The agent was lost while it worked on this (eof), and did not come back in time."
    )
    assert 27 < clock() <= 30
    assert reply.body.count(b": keep-alive") >= 13


@simulated
async def test_a_task_that_the_agent_works_on_is_never_called_failed(world: World) -> None:
    looked = json.dumps({"jsonrpc": "2.0", "id": 7, "result": json.loads(task())["result"]["task"]}).encode()
    await scene(world, streams(task(), CUT))
    world.agent().reacts.steps.extend([answers(error(-32601)), answers(looked)] * 100)
    assert told(await world.call(body=STREAMED, **V1)) == ["task WORKING", "error"]


@simulated
async def test_a_stream_that_was_told_to_its_end_just_ends(world: World) -> None:
    await scene(world, streams(task(), piece("one"), status("COMPLETED"), CUT))
    assert told(await world.call(body=STREAMED, **V1)) == ["task WORKING", "one", "COMPLETED"]
    assert methods(world) == ["SendStreamingMessage"]


def cut_inside() -> Reacts:
    return Reacts(parts=(b"data: " + task() + b"\n\ndata: {", CUT), headers=((b"Content-Type", b"text/event-stream"),))


def encoded() -> Reacts:
    kind = (b"Content-Type", b"text/event-stream")
    return Reacts(parts=(b"data: " + task() + b"\n\n", CUT), headers=(kind, (b"Content-Encoding", b"br")))


@pytest.mark.parametrize("reaction", [cut_inside, encoded, lambda: streams(said(message={"parts": []}), CUT)])
@simulated
async def test_what_cannot_go_on_ends_as_it_always_did(world: World, reaction: Callable[[], Reacts]) -> None:
    await scene(world, reaction())
    reply = await world.call(body=STREAMED, **V1)
    assert b"event: error" in reply.body
    assert methods(world) == ["SendStreamingMessage"]


@pytest.mark.parametrize("settings", [{"hold.resume": False}, {"defaults.hold_seconds": 0}])
@simulated
async def test_it_may_be_switched_off(world: World, settings: dict[str, Any]) -> None:
    await scene(world, streams(task(), CUT), settings=settings)
    assert told(await world.call(body=STREAMED, **V1)) == ["task WORKING", "error"]


@simulated
async def test_a_deadline_ends_the_wait(world: World) -> None:
    await scene(world, streams(task(), CUT))
    reply = await world.call(body=STREAMED, **V1, X_Timeout="5")
    assert told(reply) == ["task WORKING", "error"]
    assert clock() == pytest.approx(5, abs=0.2)


@simulated
async def test_a_v03_stream_goes_on_in_its_own_words(world: World) -> None:
    def item(**members: Any) -> bytes:
        return json.dumps({"jsonrpc": "2.0", "id": "x", "result": {"contextId": "c", **members}}).encode()

    def at(state: str, **members: Any) -> bytes:
        return item(kind="status-update", taskId="up", status={"state": state}, **members)

    begun = item(kind="task", id="up", status={"state": "working"})
    artifact = {"artifactId": "a", "parts": [{"kind": "text", "text": "one"}]}
    known = item(kind="task", id="up", status={"state": "working"}, artifacts=[artifact])
    await scene(world, streams(begun, CUT), streams(known, at("completed", final=True)))
    message = {"kind": "message", "messageId": "m", "role": "user", "parts": [{"kind": "text", "text": "hi"}]}
    content = {"jsonrpc": "2.0", "id": "x", "method": "message/stream", "params": {"message": message}}
    reply = await world.call(body=json.dumps(content).encode())
    kinds = [(event["id"], event["result"]["kind"], event["result"].get("final")) for event in events_of(reply)]
    assert kinds == [("x", "task", None), ("x", "artifact-update", None), ("x", "status-update", True)]
    assert methods(world) == ["message/stream", "tasks/resubscribe"]


@simulated
async def test_a_rest_stream_goes_on_at_its_own_path(world: World) -> None:
    def bare(event: bytes) -> bytes:
        return json.dumps(json.loads(event)["result"]).encode()

    await scene(world, streams(bare(task()), CUT), streams(bare(task()), bare(status("COMPLETED"))))
    content = json.dumps({"message": {"messageId": "m1", "role": "ROLE_USER", "parts": [{"text": "hi"}]}}).encode()
    reply = await world.request("POST", "/workspaces/ws/a2a/message:stream", content, **V1)
    assert told(reply) == ["task WORKING", "COMPLETED"]
    urls = [heard.request.url for heard in world.agent().heard]
    assert urls == ["http://ws.test/a2a/message:stream", "http://ws.test/a2a/tasks/up:subscribe"]


@simulated
async def test_a_parked_workspace_is_not_waited_for(world: World) -> None:
    await scene(world, streams(task(), CUT))
    call = asyncio.create_task(world.call(body=STREAMED, **V1))
    await world.until(3)
    paused = await world.request("POST", "/workspaces/ws/pause")
    assert paused.status < 300
    reply = await call
    assert told(reply)[-1] == "FAILED"
    assert clock() < 6


@simulated
async def test_a_task_of_an_earlier_life_that_stands_still_has_failed(world: World) -> None:
    cut = asyncio.Event()
    await scene(world, streams(task(), cut, CUT), streams(task(), 10_000.0))
    call = asyncio.create_task(world.call(body=STREAMED, **V1))
    await world.until(3)
    assert (await world.request("POST", "/workspaces/ws/restart")).status == 202
    cut.set()
    reply = await call
    assert told(reply) == ["task WORKING", "FAILED"]
    assert b"does not go on with it" in reply.body
    assert 60 < clock() < 70


@simulated
async def test_a_stream_that_went_on_may_be_lost_for_as_long_again(world: World) -> None:
    await scene(
        world,
        streams(task(), CUT),
        streams(task(), 40.0, piece("one"), CUT),
        *[fails()] * 9,
        streams(status("COMPLETED")),
    )
    assert told(await world.call(body=STREAMED, **V1)) == ["task WORKING", "one", "COMPLETED"]
