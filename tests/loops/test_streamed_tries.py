"""Replays that are answered by streams, event by event, and by agents that have none."""

import asyncio
import json
from typing import Any

import pytest
from simulation.scripted import Reacts, streams
from simulation.streamed import CUT, answers, away, error, method_of, piece, send, status, task, text_of, words_of
from simulation.world import World, clock, simulated

from proxy.core.deferral import State
from proxy.loops import streamed_tries
from proxy.loops.streamed_tries import rest_after
from proxy.store.journal import GAP

# --- told event by event ---------------------------------------------------------------------------------------------


@simulated
async def test_a_unary_send_is_replayed_as_a_stream_and_its_task_known_at_once(world: World) -> None:
    scene = await away(world)
    go = asyncio.Event()
    await scene.comes_back(streams(task(), go, piece("one"), piece(" two", append=True), status("COMPLETED"), 500.0))
    working = await scene.until(lambda deferral: deferral.upstream_task_id == "up")
    assert working.state is State.LEASED
    assert working.task is not None
    assert working.task.state == "working"
    assert [event.sequence for event in await scene.journal()] == [1]
    go.set()
    done = await scene.ended(within=10)  # nobody waits for the stream's own end
    assert (done.state, done.attempts, text_of(done)) == (State.COMPLETED, 0, "one two")
    (heard,) = scene.agent.heard
    assert method_of(heard.request.body) == "SendStreamingMessage"
    assert (heard.header("Accept"), heard.header("Accept-Encoding")) == ("text/event-stream", "identity")
    assert done.answer is not None
    answered = json.loads(done.answer.body)
    assert (answered["id"], answered["result"]["task"]["id"]) == (7, done.task_id)
    assert (await scene.journal())[0].data == task()


@simulated
async def test_a_lease_lasts_as_long_as_the_stream_does(world: World) -> None:
    scene = await away(world, settings={"queue.lease": 2.0})
    slow = [part for number in range(20) for part in (5.0, piece(f"{number}"))]
    await scene.comes_back(streams(task(), *slow, status("COMPLETED")))
    done = await scene.ended()
    assert (done.state, done.tries, len(await scene.journal())) == (State.COMPLETED, 1, 22)


@simulated
async def test_a_stream_that_waits_for_input_ends_the_try(world: World) -> None:
    scene = await away(world, send(method="SendStreamingMessage"))
    await scene.comes_back(streams(task(), status("INPUT_REQUIRED"), 500.0))
    done = await scene.ended(within=10)
    assert done.state is State.COMPLETED
    assert done.task is not None
    assert (done.task.state, done.upstream_task_id) == ("input-required", "up")
    assert done.answer is not None
    assert done.answer.body == b"".join(b"data: " + event + b"\n\n" for event in (task(), status("INPUT_REQUIRED")))


@simulated
async def test_an_error_that_ends_a_stream_fails_the_task(world: World) -> None:
    scene = await away(world)
    await scene.comes_back(streams(task(), error(-32603, "it hurts")))
    done = await scene.ended()
    assert done.task is not None
    assert (done.state, done.task.state, words_of(done)) == (
        State.COMPLETED,
        "failed",
        "The agent answered with an error: it hurts",
    )


@pytest.mark.parametrize(
    ("task", "events", "rest"),
    [
        (0, 0, 0),
        (10_000, 20, 0),
        (20_971, 0, 0.01),
        (209_715, 0, 0.1),
        (209_715, 13_107, 0.05),
        (209_715, 26_215, 0),
        (50_000_000, 100, 0.25),
    ],
)
def test_the_reading_rests_after_a_batch_that_is_small_beside_its_task(task: int, events: int, rest: float) -> None:
    assert rest_after(task, events) == pytest.approx(rest, abs=0.0005)


@simulated
async def test_a_long_answer_told_word_by_word_is_not_written_with_every_word(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = await away(world)
    words = [part for number in range(100) for part in (0.001, piece(f"{number} ", append=True))]
    await scene.comes_back(streams(task(), piece("x" * 400_000), *words, status("COMPLETED")))
    written = 0
    append = world.store.append_events

    async def counted(*said: Any, **more: Any) -> Any:
        nonlocal written
        written += 1
        return await append(*said, **more)

    monkeypatch.setattr(world.store, "append_events", counted)
    done = await scene.ended(within=10)
    assert text_of(done) == "x" * 400_000 + "".join(f"{number} " for number in range(100))
    assert [event.sequence for event in await world.store.journal(done.id, after=100)] == [101, 102, 103]
    assert written < 10


@simulated
async def test_nobody_rests_in_the_middle_of_an_event(world: World) -> None:
    scene = await away(world)
    large = [piece("x" * 400_000), piece("y" * 600_000, append=True)]
    await scene.comes_back(streams(task(), *large, 0.001, status("COMPLETED")))
    began = clock()
    done = await scene.ended(within=10)
    assert len(text_of(done)) == 1_000_000
    assert clock() - began < 1.0


@simulated
async def test_rests_are_no_lack_of_news(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A task taken up is given up where nothing moves for `queue.orphaned`; that the reader rests is no standstill."""
    monkeypatch.setattr(streamed_tries, "rest_after", lambda *_: 5.0)
    scene = await away(world, settings={"queue.orphaned": 4.0})
    cut = asyncio.Event()
    await scene.comes_back(
        streams(task(), cut, CUT), streams(task(), 2.0, piece("two", append=True), 30.0, status("COMPLETED"))
    )
    await scene.until(lambda deferral: deferral.upstream_task_id == "up")
    assert (await world.request("POST", "/workspaces/ws/restart")).status == 202
    cut.set()
    done = await scene.ended()
    assert (done.state, text_of(done)) == (State.COMPLETED, "two")
    assert scene.methods == ["SendStreamingMessage", "SubscribeToTask"]


@simulated
async def test_what_is_no_event_is_skipped(world: World) -> None:
    scene = await away(world)
    await scene.comes_back(streams(b"{}", b"noise", task(), b"", status("COMPLETED")))
    assert (await scene.ended()).state is State.COMPLETED
    assert [event.data for event in await scene.journal()] == [task(), status("COMPLETED")]


@simulated
async def test_a_full_journal_ends_in_a_gap_and_the_task_goes_on(world: World) -> None:
    scene = await away(world, settings={"poll.journal_rows": 2})
    parts = [part for number in range(4) for part in (0.1, piece(f"{number}", append=True))]
    await scene.comes_back(streams(task(), *parts, 0.1, status("COMPLETED")))
    done = await scene.ended()
    assert text_of(done) == "0123"
    assert [(event.sequence, event.data) for event in await scene.journal()] == [
        (1, task()),
        (2, piece("0", append=True)),
        (3, GAP),
    ]


@simulated
async def test_a_stream_with_a_gap_says_so_and_ends_with_the_task(world: World) -> None:
    scene = await away(world, send(method="SendStreamingMessage"), settings={"poll.journal_rows": 1})
    await scene.comes_back(streams(task(), 0.1, piece("one"), 0.1, status("COMPLETED")))
    done = await scene.ended()
    assert done.answer is not None
    first, gap, last = done.answer.body.removesuffix(b"\n\n").split(b"\n\n")
    assert (first, gap) == (b"data: " + task(), b": events are missing here")
    assert json.loads(last.removeprefix(b"data: "))["result"]["task"]["status"]["state"] == "TASK_STATE_COMPLETED"


@simulated
async def test_without_a_journal_the_task_alone_is_kept(world: World) -> None:
    scene = await away(world, settings={"defaults.journal": "off"})
    await scene.comes_back(streams(task(), 0.1, piece("one"), 0.1, status("COMPLETED")))
    done = await scene.ended()
    assert (text_of(done), done.upstream_task_id, await scene.journal()) == ("one", "up", [])


# --- agents that do not stream ---------------------------------------------------------------------------------------


@simulated
async def test_an_agent_that_answers_in_one_piece_is_taken_at_its_word(world: World) -> None:
    scene = await away(world)
    await scene.comes_back(answers(task("COMPLETED")))
    done = await scene.ended()
    assert (done.state, done.upstream_task_id, await scene.journal()) == (State.COMPLETED, "up", [])


@pytest.mark.parametrize(
    "refusal", [answers(error(-32601)), answers(error(-32004)), streams(error(-32004)), Reacts(status=405, body=b"")]
)
@simulated
async def test_an_agent_without_the_streams_of_its_card_is_asked_the_unary_way(world: World, refusal: Reacts) -> None:
    scene = await away(world)
    await scene.comes_back(refusal, answers(task("COMPLETED")))
    done = await scene.ended()
    assert (done.state, done.tries, done.maybe) == (State.COMPLETED, 1, False)
    assert scene.methods == ["SendStreamingMessage", "SendMessage"]


@simulated
async def test_a_caller_whose_own_stream_is_refused_gets_the_refusal(world: World) -> None:
    scene = await away(world, send(method="SendStreamingMessage"))
    await scene.comes_back(answers(error(-32004)))
    done = await scene.ended()
    assert (done.state, scene.methods) == (State.COMPLETED, ["SendStreamingMessage"])


@simulated
async def test_without_an_announcement_the_send_stays_as_it_is(world: World) -> None:
    scene = await away(world, agent_card=None)
    await scene.comes_back(answers(task("COMPLETED")))
    await scene.ended()
    (heard,) = scene.agent.heard
    assert (method_of(heard.request.body), heard.header("Accept-Encoding")) == ("SendMessage", "identity")


@simulated
async def test_a_rest_send_is_replayed_at_the_stream_path(world: World) -> None:
    content = json.dumps({"message": {"messageId": "m1", "role": "ROLE_USER", "parts": [{"text": "hi"}]}}).encode()
    scene = await away(world, content, "/tenant/message:send?x=1")
    event = json.dumps({"task": {"id": "up", "contextId": "c", "status": {"state": "TASK_STATE_COMPLETED"}}}).encode()
    await scene.comes_back(streams(event))
    done = await scene.ended()
    assert [heard.request.url for heard in scene.agent.heard] == ["http://ws.test/a2a/tenant/message:stream?x=1"]
    assert (done.state, done.upstream_task_id) == (State.COMPLETED, "up")
