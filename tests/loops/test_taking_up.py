"""Streams that broke in the middle of a replay, and requests that an agent may have already: it is asked first."""

import asyncio
import json
from typing import Any

import pytest
from simulation.scripted import RESET, Reacts, fails, streams
from simulation.streamed import CUT, answers, away, error, piece, said, send, status, task, text_of, words_of
from simulation.world import World, clock, simulated

from proxy.core.deferral import State
from proxy.telemetry import EventName

# --- broken in the middle --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("redelivery", ["ask_then_always", "always", "never"])
@simulated
async def test_a_stream_that_broke_goes_on_where_the_agent_knows_its_task(world: World, redelivery: str) -> None:
    scene = await away(world, settings={"defaults.redelivery": redelivery})
    known = task(artifacts=[{"artifactId": "a", "parts": [{"text": "one"}]}])
    await scene.comes_back(
        streams(task(), piece("one"), CUT), fails(), streams(known, piece(" two", append=True), status("COMPLETED"))
    )
    done = await scene.ended()
    assert (done.state, text_of(done), done.attempts) == (State.COMPLETED, "one two", 1)
    assert scene.methods == ["SendStreamingMessage", "SubscribeToTask", "SubscribeToTask"]
    assert json.loads(scene.agent.heard[-1].request.body)["params"] == {"id": "up"}
    assert scene.agent.heard[-1].header("Holdfast-Redelivery") is None
    assert [event.sequence for event in await scene.journal()] == [1, 2, 3, 4, 5]  # one story
    assert len(world.told(EventName.DEFERRAL_TAKEN_UP)) == 1


@pytest.mark.parametrize("refusal", [error(-32004, "it is over"), CUT], ids=["refused", "broken off before a word"])
@simulated
async def test_a_task_that_ended_meanwhile_is_looked_at(world: World, refusal: Any) -> None:
    scene = await away(world)
    bare = json.dumps(
        {
            "jsonrpc": "2.0",
            "id": 7,
            "result": {"id": "up", "contextId": "c", "status": {"state": "TASK_STATE_COMPLETED"}},
        }
    )
    await scene.comes_back(streams(task(), CUT), streams(refusal), answers(bare.encode()))
    done = await scene.ended()
    assert scene.methods == ["SendStreamingMessage", "SubscribeToTask", "GetTask"]
    assert done.task is not None
    assert (done.state, done.task.state) == (State.COMPLETED, "completed")


@simulated
async def test_a_forgotten_task_is_begun_again_marked(world: World) -> None:
    scene = await away(world)
    await scene.comes_back(
        streams(task(), piece("lost"), CUT),
        answers(error(-32001)),
        answers(error(-32001)),
        streams(task(task_id="up2"), piece("again", task_id="up2"), status("COMPLETED", "up2")),
    )
    done = await scene.ended()
    assert scene.methods == ["SendStreamingMessage", "SubscribeToTask", "GetTask", "SendStreamingMessage"]
    assert scene.agent.heard[-1].header("Holdfast-Redelivery") == "maybe"
    assert (done.state, text_of(done), done.upstream_task_id) == (State.COMPLETED, "again", "up2")
    assert [event.sequence for event in await scene.journal()] == [3, 4, 5]  # what was lost is told no more


@simulated
async def test_a_forgotten_task_that_must_not_be_sent_again_fails_with_the_reason(world: World) -> None:
    scene = await away(world, settings={"defaults.redelivery": "never"})
    await scene.comes_back(streams(task(), CUT), answers(error(-32001)), answers(error(-32001)))
    done = await scene.ended()
    assert done.task is not None
    assert (done.state, done.task.state) == (State.DEAD_LETTERED, "failed")
    reason = "it may have reached the agent and redelivery is never: the agent does not know its task any more (eof)"
    assert words_of(done) == done.last_error == reason


@simulated
async def test_a_send_that_broke_before_it_named_a_task_is_dead_where_it_must_not_be_sent_again(world: World) -> None:
    scene = await away(world, settings={"defaults.redelivery": "never"})
    await scene.comes_back(streams(CUT))
    done = await scene.ended()
    assert (done.state, scene.methods) == (State.DEAD_LETTERED, ["SendStreamingMessage"])


@simulated
async def test_a_stream_that_ends_before_its_task_is_followed_at_once(world: World) -> None:
    scene = await away(world)
    await scene.comes_back(streams(task()), streams(task(), status("COMPLETED")))
    done = await scene.ended()
    assert scene.methods == ["SendStreamingMessage", "SubscribeToTask"]
    assert (done.state, done.tries, done.maybe) == (State.COMPLETED, 1, False)


@simulated
async def test_a_task_that_stays_open_is_taken_as_it_is(world: World) -> None:
    scene = await away(world)
    open_task = {"id": "up", "contextId": "c", "status": {"state": "TASK_STATE_WORKING"}}
    looked = json.dumps({"jsonrpc": "2.0", "id": 7, "result": open_task}).encode()
    await scene.comes_back(streams(task()), answers(error(-32601)), answers(looked))
    done = await scene.ended()
    assert done.task is not None
    assert (done.state, done.task.state, done.upstream_task_id) == (State.COMPLETED, "working", "up")


@simulated
async def test_a_mute_agent_is_not_asked_for_its_task_for_ever(world: World) -> None:
    scene = await away(world)
    await scene.comes_back(streams(task(), CUT), *[streams(CUT)] * 20)
    done = await scene.ended()
    assert (done.state, done.last_error) == (State.DEAD_LETTERED, "5 attempts used up: eof")
    assert scene.methods == ["SendStreamingMessage", *["SubscribeToTask", "GetTask"] * 4]


@pytest.mark.parametrize("redelivery", ["always", "never"])
@simulated
async def test_a_proxy_that_died_asks_for_the_task_when_it_is_back(world: World, redelivery: str) -> None:
    scene = await away(world)
    await scene.comes_back(streams(task(), piece("one"), 10_000.0))
    await scene.until(lambda deferral: text_of(deferral) == "one")
    await world.crash()
    scene.agent.reacts.steps.clear()
    scene.agent.reacts.queue(
        streams(task(artifacts=[{"artifactId": "a", "parts": [{"text": "one"}]}]), status("COMPLETED"))
    )
    await world.start({"queue.sweep": 1.0, "defaults.redelivery": redelivery})
    done = await scene.ended()
    assert (done.state, text_of(done)) == (State.COMPLETED, "one")
    assert scene.methods == ["SendStreamingMessage", "SubscribeToTask"]
    assert [event.sequence for event in await scene.journal()] == [1, 2, 3, 4]


# --- ask, then always ------------------------------------------------------------------------------------------------


def listed(*tasks: dict[str, Any], token: str = "") -> Reacts:
    result = {"tasks": list(tasks), "nextPageToken": token}
    return answers(json.dumps({"jsonrpc": "2.0", "id": 7, "result": result}).encode())


def known_task(message_id: str, state: str = "WORKING", task_id: str = "up") -> dict[str, Any]:
    message = {"messageId": message_id, "role": "ROLE_USER", "parts": [{"text": "hello"}]}
    return {"id": task_id, "contextId": "c", "status": {"state": f"TASK_STATE_{state}"}, "history": [message]}


@simulated
async def test_what_the_agent_has_already_is_not_sent_to_it_again(world: World) -> None:
    scene = await away(world, send(contextId="c"))
    await scene.comes_back(
        fails(RESET),
        listed(known_task("other", task_id="not-it"), token="more"),
        listed(known_task("m1")),
        streams(task(), piece("one"), status("COMPLETED")),
    )
    done = await scene.ended()
    assert scene.methods == ["SendStreamingMessage", "ListTasks", "ListTasks", "SubscribeToTask"]
    asked = json.loads(scene.agent.heard[2].request.body)["params"]
    assert (asked["contextId"], asked["pageToken"]) == ("c", "more")
    assert (done.state, text_of(done), done.upstream_task_id) == (State.COMPLETED, "one", "up")


@simulated
async def test_what_the_agent_has_done_already_is_taken_from_its_list(world: World) -> None:
    scene = await away(world)
    await scene.comes_back(fails(RESET), listed(known_task("m1", "COMPLETED")))
    done = await scene.ended()
    assert scene.methods == ["SendStreamingMessage", "ListTasks"]
    assert done.task is not None
    assert (done.task.state, done.upstream_task_id) == ("completed", "up")


@pytest.mark.parametrize("nothing", [listed(), listed(known_task("other")), answers(error(-32601)), fails(RESET)])
@simulated
async def test_what_the_agent_does_not_have_is_sent_again(world: World, nothing: Reacts) -> None:
    scene = await away(world)
    await scene.comes_back(fails(RESET), nothing, streams(task(), status("COMPLETED")))
    done = await scene.ended()
    assert scene.methods == ["SendStreamingMessage", "ListTasks", "SendStreamingMessage"]
    assert scene.agent.heard[-1].header("Holdfast-Redelivery") == "maybe"
    assert done.state is State.COMPLETED


@simulated
async def test_an_agent_that_is_away_when_it_is_asked_is_asked_later(world: World) -> None:
    scene = await away(world)
    await scene.comes_back(fails(RESET), fails(), listed(known_task("m1", "COMPLETED")))
    done = await scene.ended()
    assert scene.methods == ["SendStreamingMessage", "ListTasks", "ListTasks"]
    assert done.attempts == 1


@simulated
async def test_always_asks_nobody(world: World) -> None:
    scene = await away(world, settings={"defaults.redelivery": "always"})
    await scene.comes_back(fails(RESET), streams(task(), status("COMPLETED")))
    await scene.ended()
    assert scene.methods == ["SendStreamingMessage", "SendStreamingMessage"]


@simulated
async def test_a_message_to_a_task_that_fell_back_to_before_it_is_sent_again(world: World) -> None:
    scene = await away(world, send("m2", taskId="up"))
    await scene.comes_back(
        streams(task(), CUT),
        streams(said(task=known_task("m1", "INPUT_REQUIRED"))),
        answers(json.dumps({"jsonrpc": "2.0", "id": 7, "result": known_task("m1", "INPUT_REQUIRED")}).encode()),
        streams(said(task=known_task("m2", "COMPLETED"))),
    )
    done = await scene.ended()
    assert scene.methods == ["SendStreamingMessage", "SubscribeToTask", "GetTask", "SendStreamingMessage"]
    assert done.task is not None
    assert done.task.state == "completed"


@simulated
async def test_a_message_to_a_task_that_waits_is_heard_to_its_end(world: World) -> None:
    """The task's state before the message says nothing about the message."""
    scene = await away(world)
    await scene.comes_back(streams(task("INPUT_REQUIRED")))
    first = await scene.ended()
    world.agent().reacts.queue(fails())
    answered = await world.call(body=send("m2", taskId=first.task_id), A2A_Version="1.0", Prefer="respond-async")
    scene = type(scene)(world, answered)
    await scene.comes_back(streams(piece("one"), 1.0, piece(" two", append=True), status("COMPLETED")))
    done = await scene.ended()
    assert (text_of(done), len(await scene.journal())) == ("one two", 3)


@simulated
async def test_a_task_of_an_earlier_life_that_stands_still_is_begun_again(world: World) -> None:
    scene = await away(world)
    cut = asyncio.Event()
    await scene.comes_back(
        streams(task(), cut, CUT),
        streams(task(), 10_000.0),
        streams(task(task_id="up2"), status("COMPLETED", "up2")),
    )
    await scene.until(lambda deferral: deferral.upstream_task_id == "up")
    assert (await world.request("POST", "/workspaces/ws/restart")).status == 202
    await world.eventually(lambda: world.route().workspace.incarnation == 2)
    cut.set()
    began = clock()
    done = await scene.ended()
    assert scene.methods == ["SendStreamingMessage", "SubscribeToTask", "SendStreamingMessage"]
    assert (done.upstream_task_id, done.maybe) == ("up2", True)
    assert 60 <= clock() - began < 70


@simulated
async def test_a_task_of_the_same_life_may_stand_still(world: World) -> None:
    scene = await away(world)
    await scene.comes_back(streams(task(), CUT), streams(task(), 600.0, status("COMPLETED")))
    done = await scene.ended()
    assert (done.upstream_task_id, scene.methods) == ("up", ["SendStreamingMessage", "SubscribeToTask"])
