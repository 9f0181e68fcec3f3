"""What a client does, in each situation: its own words, and what it must see.

Owns: the deeds by situation; a deed is a coroutine that fails by an assertion.
Knows nothing of: how a situation is brought about (`situations`).

No deed knows that there is a proxy: it uses an SDK as its documentation shows, with the SDK's own timeouts (five
seconds between bytes, in Python).
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Final

import pytest
from matrix.cells import Cell, one_story, told
from matrix.hooks import task_in
from matrix.outlasting import (
    outlasting_cancel,
    outlasting_cancel_of_a_stream,
    outlasting_newcomer,
    outlasting_now,
    outlasting_repeated,
    outlasting_stream,
    outlasting_subscribe,
    outlasting_unary,
)
from peers.talking import ClientError

LOST: Final = "the agent was restarted while it worked on this"
Deed = Callable[[Cell], Awaitable[None]]

# The agent is there


async def healthy_unary(cell: Cell) -> None:
    """A message is answered by the agent itself."""
    event = await cell.send("unary", "hello").one()
    assert (event["kind"], event["state"], event["text"]) == ("task", "completed", "echo: hello")
    assert cell.executed("unary") == [{**cell.executed("unary")[0], "task": event["task"]}]


async def healthy_now(cell: Cell) -> None:
    """A message that does not wait is followed to its end."""
    event = await cell.send("now", "hello", "now").one()
    done = await cell.ended(event["task"])
    assert (done["state"], done["text"]) == ("completed", "echo: hello")


async def healthy_stream(cell: Cell) -> None:
    """A stream comes event by event."""
    gate = cell.gate("healthy-stream")
    call = cell.send("stream", f"stream {gate}", "stream")
    assert [event["kind"] for event in await call.at_least(2)] == ["task", "artifact"]
    cell.agent.open(gate)
    events = await call.all()
    task = one_story(events)
    assert (told(events), events[-1]["state"]) == ("piece 1piece 2", "completed")
    assert cell.executed("stream")[0]["task"] == task


async def healthy_message(cell: Cell) -> None:
    """An agent may answer with a message, and no task."""
    event = await cell.send("message", "message hello").one()
    assert (event["kind"], event["text"]) == ("message", "said: hello")


async def healthy_cancel(cell: Cell) -> None:
    """What runs can be canceled."""
    event = await cell.send("cancel", f"slow {cell.gate('never')}", "now").one()
    canceled = await cell.do("cancel", task=event["task"]).one()
    assert canceled["state"] == "canceled"


async def healthy_input(cell: Cell) -> None:
    """A task that asks is answered, and ends."""
    event = await cell.send("ask", "ask").one()
    assert event["state"] == "input-required"
    done = await cell.send("answer", "blue", task=event["task"], context=event["context"]).one()
    assert (done["task"], done["state"], done["text"]) == (event["task"], "completed", "echo: blue")


async def healthy_unknown(cell: Cell) -> None:
    """An unknown task is the SDK's own error."""
    with pytest.raises(ClientError, match=r"(?i)not ?found"):
        await cell.now("00000000-0000-4000-8000-00000000dead")


# The agent is away, and comes back


async def away_unary(cell: Cell) -> None:
    """A message that waits gets the agent's answer, though the agent was away for longer than the SDK waits for."""
    event = await cell.answered(await cell.send("unary", "hello").one(within=90))
    assert (event["kind"], event["state"], event["text"]) == ("task", "completed", "echo: hello")
    assert cell.back.is_set()
    assert (await cell.now(event["task"]))["state"] == "completed"
    assert len(cell.executed("unary")) == 1


async def away_now(cell: Cell) -> None:
    """A message that does not wait is a submitted task at once, and can be followed to its end."""
    event = await cell.send("now", "hello", "now").one()
    assert not cell.back.is_set()
    assert (event["kind"], event["state"]) == ("task", "submitted")
    assert (await cell.now(event["task"]))["state"] == "submitted"
    done = await cell.ended(event["task"])
    assert (done["task"], done["context"], done["state"]) == (event["task"], event["context"], "completed")
    assert done["text"] == "echo: hello"


async def away_stream(cell: Cell) -> None:
    """A stream begins with a submitted task at once, and goes on with what the agent tells when it is back."""
    call = cell.send("stream", "stream", "stream")
    (first,) = await call.at_least(1)
    assert not cell.back.is_set()
    assert (first["kind"], first["state"]) == ("task", "submitted")
    events = await call.all(within=90)
    task = one_story(events)
    assert (told(events), events[-1]["state"]) == ("piece 1piece 2", "completed")
    done = await cell.now(task)
    assert (done["state"], done["text"]) == ("completed", "piece 1piece 2")


async def away_stream_of_a_message(cell: Cell) -> None:
    """An agent that answers a stream with a message alone: its words are an artifact of the task."""
    events = await cell.send("told", "message hello", "stream").all(within=90)
    one_story(events)
    assert (told(events), events[-1]["state"]) == ("said: hello", "completed")


async def away_cancel(cell: Cell) -> None:
    """A task that is canceled before it was delivered never runs."""
    event = await cell.send("cancel", "hello", "now").one()
    canceled = await cell.do("cancel", task=event["task"]).one()
    assert (canceled["task"], canceled["state"]) == (event["task"], "canceled")
    await cell.back.wait()
    later = await cell.answered(await cell.send("after-cancel", "hello").one(within=90))
    assert later["state"] == "completed"
    assert (await cell.now(event["task"]))["state"] == "canceled"
    assert cell.executed("cancel") == []


async def away_subscribe(cell: Cell) -> None:
    """A submitted task can be subscribed to; the stream goes on with what the agent tells."""
    event = await cell.send("subscribe", "stream", "now").one()
    call = cell.do("subscribe", task=event["task"])
    await call.at_least(1)
    assert not cell.back.is_set()
    events = await call.all(within=90)
    assert one_story(events) == event["task"]
    assert (told(events), events[-1]["state"]) == ("piece 1piece 2", "completed")


async def away_input(cell: Cell) -> None:
    """A task that asks, in the answer to a deferred message, is answered under the same id."""
    event = await cell.answered(await cell.send("ask", "ask").one(within=90))
    assert event["state"] == "input-required"
    said = cell.send("answer", "blue", task=event["task"], context=event["context"])
    done = await cell.answered(await said.one(within=90))
    assert (done["task"], done["state"], done["text"]) == (event["task"], "completed", "echo: blue")
    assert (await cell.now(event["task"]))["state"] == "completed"


async def away_follow_up(cell: Cell) -> None:
    """A message to a task that is still deferred waits behind it."""
    event = await cell.send("first", "ask", "now").one()
    said = cell.send("second", "blue", task=event["task"], context=event["context"])
    done = await cell.answered(await said.one(within=90))
    assert (done["task"], done["state"], done["text"]) == (event["task"], "completed", "echo: blue")
    begun = [one["message"].rpartition("-")[2] for one in cell.agent.executed() if one["message"].startswith(cell.at)]
    assert begun.index("first") < begun.index("second")


async def away_list(cell: Cell) -> None:
    """A deferred task is in the list of tasks before and after, once and under one id (v1.0)."""
    event = await cell.send("listed", "hello", "now").one()
    before = await cell.do("list", context=event["context"]).all()
    assert [(one["task"], one["state"]) for one in before] == [(event["task"], "submitted")]
    await cell.ended(event["task"])
    after = await cell.do("list", context=event["context"]).all()
    assert [(one["task"], one["state"]) for one in after] == [(event["task"], "completed")]


async def away_push(cell: Cell) -> None:
    """Whoever asked to be told of a deferred task is told, under the id that it knows, in its own version's words."""
    event = await cell.send("push", "hello", "now", push=cell.push("push")).one()
    await notified(cell, "push", event["task"])


async def away_push_later(cell: Cell) -> None:
    """A receiver may be named for a task that is deferred already, by a request of its own."""
    event = await cell.send("later", "hello", "now").one()
    receiver = cell.push("later")
    made = await cell.do("notify", task=event["task"], push=receiver).one()
    assert not cell.back.is_set()
    assert (made["kind"], made["task"], made["text"]) == ("receiver", event["task"], receiver["url"])
    await notified(cell, "later", event["task"])


async def notified(cell: Cell, name: str, task: str) -> None:
    """Wait until a receiver was told that its task is complete; check all that it was told."""
    told = await cell.hooks.until(f"{cell.at}-{name}", "completed")
    assert {task_in(one.body) for one in told} == {task}
    assert {one.headers["x-a2a-notification-token"] for one in told} == {f"word-of-{name}"}
    assert {one.headers["authorization"] for one in told} == {f"Bearer secret-of-{name}"}
    last = told[-1].body
    if cell.pairing.version == "1.0":
        assert set(last) in ({"task"}, {"statusUpdate"}, {"artifactUpdate"})
    else:
        assert (last["kind"], last["status"]["state"]) == ("task", "completed")


# The agent dies while it works


async def dies_unary(cell: Cell) -> None:
    """A message that the agent was working on is sent again, and answered."""
    event = await cell.answered(await cell.send("unary", f"late {cell.gate('dies')}").one(within=90))
    assert (event["kind"], event["state"]) == ("task", "completed")
    assert event["text"].startswith("echo: late")
    assert len(cell.executed("unary")) >= 2


async def dies_stream_early(cell: Cell) -> None:
    """A stream whose answer has not begun goes on with the next life of the agent.

    Servers of v0.3 begin an answer before they have anything to tell: then it is a broken answer, and told as such.
    """
    call = cell.send("early", f"late {cell.gate('dies')}", "stream")
    try:
        events = await call.all(within=90)
    except ClientError:
        assert cell.pairing.version == "0.3"
        assert call.events == []
        return
    one_story(events)
    assert events[-1]["state"] == "completed"
    assert told(events).startswith("echo: late")


async def dies_stream(cell: Cell) -> None:
    """A stream that was in the middle goes on with what the agent's next life says of its task."""
    call = cell.send("mid", f"stream {cell.gate('dies')}", "stream")
    first = await call.at_least(2)
    assert [event["kind"] for event in first] == ["task", "artifact"]
    cell.begun["streaming, in the middle"].set()
    events = await call.all(within=90)
    assert one_story(events) == first[0]["task"]
    assert events[-1]["state"] == "failed"
    if (cell.pairing.version, cell.pairing.agent, cell.pairing.binding) == ("0.3", "1.x", "HTTP+JSON"):
        assert events[-1]["text"]  # this server breaks off a subscription to what is over: the reason is Holdfast's own
    else:
        assert events[-1]["text"] == LOST


# The proxy dies while the agent is away


async def proxy_now(cell: Cell) -> None:
    """A submitted task outlives the proxy."""
    event = await cell.send("now", "hello", "now").one()
    cell.begun["not waiting"].set()
    await cell.back.wait()
    done = await cell.ended(event["task"])
    assert (done["task"], done["state"], done["text"]) == (event["task"], "completed", "echo: hello")
    assert len(cell.executed("now")) == 1


async def proxy_unary(cell: Cell) -> None:
    """A caller that lost its connection sends the same message again: it runs once, and is answered."""
    with contextlib.suppress(ClientError):
        await cell.send("unary", "hello").one(within=90)
    await cell.back.wait()
    event = await cell.answered(await cell.send("unary", "hello").one(within=90))
    assert event["text"] == "echo: hello"
    assert len(cell.executed("unary")) == 1


async def proxy_stream(cell: Cell) -> None:
    """A caller that lost its stream subscribes to the task whose id it knows."""
    call = cell.send("stream", "stream", "stream")
    (first,) = await call.at_least(1)
    cell.begun["streaming"].set()
    with pytest.raises((ClientError, AssertionError)):
        one_story(await call.all(within=90))
    await cell.back.wait()
    done = await cell.ended(first["task"])
    assert (done["state"], done["text"]) == ("completed", "piece 1piece 2")
    assert len(cell.executed("stream")) == 1


# The agent did its work, and is gone for good


async def after_get(cell: Cell) -> None:
    """A task that has ended is still shown, whole."""
    event = await cell.send("kept", "hello", "now").one()
    await cell.ended(event["task"])
    cell.begun["get"].set()
    await cell.gone.wait()
    done = await cell.now(event["task"])
    assert (done["task"], done["state"], done["text"]) == (event["task"], "completed", "echo: hello")


async def after_repeated(cell: Cell) -> None:
    """The same message again, after a lost answer, is answered with what it was answered with."""
    first = await cell.answered(await cell.send("again", "hello").one(within=90))
    cell.begun["the same message again"].set()
    await cell.gone.wait()
    again = await cell.send("again", "hello").one(within=90)
    assert (again["task"], again["state"], again["text"]) == (first["task"], "completed", "echo: hello")
    assert len(cell.executed("again")) == 1


DEEDS: Final[dict[str, dict[str, Deed]]] = {
    "healthy": {
        "unary": healthy_unary,
        "not waiting": healthy_now,
        "streaming": healthy_stream,
        "a message": healthy_message,
        "cancel": healthy_cancel,
        "input required": healthy_input,
        "unknown task": healthy_unknown,
    },
    "away": {
        "unary": away_unary,
        "not waiting": away_now,
        "streaming": away_stream,
        "streaming a message": away_stream_of_a_message,
        "cancel": away_cancel,
        "subscribe": away_subscribe,
        "input required": away_input,
        "follow-up": away_follow_up,
        "push": away_push,
        "push, asked for later": away_push_later,
        "list": away_list,
    },
    "away-30s": {
        "unary": outlasting_unary,
        "not waiting": outlasting_now,
        "streaming": outlasting_stream,
        "streaming a message": away_stream_of_a_message,
        "cancel": outlasting_cancel,
        "cancel, while it streams": outlasting_cancel_of_a_stream,
        "subscribe": outlasting_subscribe,
        "input required": away_input,
        "follow-up": away_follow_up,
        "the same message again": outlasting_repeated,
        "a client that starts meanwhile": outlasting_newcomer,
        "push": away_push,
        "push, asked for later": away_push_later,
        "list": away_list,
    },
    "dies": {"unary": dies_unary, "streaming, early": dies_stream_early, "streaming, in the middle": dies_stream},
    "after": {"get": after_get, "the same message again": after_repeated},
    "proxy": {"unary": proxy_unary, "not waiting": proxy_now, "streaming": proxy_stream},
}
"""By situation and name."""
WAITED_FOR: Final = {
    "dies": {"streaming, in the middle"},
    "after": {"get", "the same message again"},
    "proxy": {"not waiting", "streaming"},
}
"""Deeds that say when they have begun, and for which an outage waits."""
STREAMING: Final = frozenset(
    {
        "streaming",
        "streaming a message",
        "subscribe",
        "streaming, early",
        "streaming, in the middle",
        "cancel, while it streams",
    }
)


async def done(deed: Deed, cell: Cell) -> BaseException | None:
    """Do it; return what went wrong."""
    try:
        async with asyncio.timeout(150):
            await deed(cell)
    except (Exception, pytest.fail.Exception) as problem:  # noqa: BLE001 - it is the test's, which raises it
        return problem
    return None
