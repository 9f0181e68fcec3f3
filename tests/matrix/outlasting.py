"""What a client does and sees while its agent is away for half a minute: longer than any SDK waits for a byte.

Owns: the deeds that take the length of the outage into account; the others are those of a short one (`deeds`).
Knows nothing of: how the outage is brought about (`situations`).
"""

import asyncio
from typing import Final

from matrix.cells import Cell, one_story, told

SILENT: Final = 3.0
"""Seconds for which the proxy holds callers that must not be sent anything (REST)."""


async def outlasting_unary(cell: Cell) -> None:
    """A message that waits: over JSON-RPC one call outlasts the outage; over REST it is a task, which is followed."""
    begun = asyncio.get_running_loop().time()
    event = await cell.send("unary", "hello").one(within=90)
    if cell.pairing.binding == "JSONRPC":
        assert cell.back.is_set()
        assert (event["kind"], event["state"], event["text"]) == ("task", "completed", "echo: hello")
    else:
        assert asyncio.get_running_loop().time() - begun >= SILENT
        assert not cell.halfway.is_set()
        assert (event["kind"], event["state"]) == ("task", "submitted")
        await followed(cell, event["task"])
    done = await cell.now(event["task"])
    assert (done["context"], done["state"], done["text"]) == (event["context"], "completed", "echo: hello")
    assert len(cell.executed("unary")) == 1


async def outlasting_now(cell: Cell) -> None:
    """A message that does not wait is a submitted task at once, which is followed through the whole outage."""
    event = await cell.send("now", "hello", "now").one()
    assert not cell.halfway.is_set()
    assert (event["kind"], event["state"]) == ("task", "submitted")
    await followed(cell, event["task"])
    done = await cell.now(event["task"])
    assert (done["context"], done["state"], done["text"]) == (event["context"], "completed", "echo: hello")
    assert len(cell.executed("now")) == 1


async def followed(cell: Cell, task: str) -> None:
    """Follow a task to its end by asking; every question of the whole outage is answered, and nothing is told twice."""
    states = await cell.lived(task)
    assert cell.back.is_set()
    assert states in (["submitted", "completed"], ["submitted", "working", "completed"])


async def outlasting_stream(cell: Cell) -> None:
    """A stream stays open through the outage, without an event and without an error, and goes on."""
    call = cell.send("stream", "stream", "stream")
    (first,) = await call.at_least(1)
    assert not cell.halfway.is_set()
    assert (first["kind"], first["state"]) == ("task", "submitted")
    await cell.back.wait()
    assert (call.done, call.events) == (False, [first])
    events = await call.all(within=90)
    task = one_story(events)
    assert (told(events), events[-1]["state"]) == ("piece 1piece 2", "completed")
    done = await cell.now(task)
    assert (done["state"], done["text"]) == ("completed", "piece 1piece 2")
    assert len(cell.executed("stream")) == 1


async def outlasting_cancel(cell: Cell) -> None:
    """A task that has waited for a while is canceled, and never runs."""
    event = await cell.send("cancel", "hello", "now").one()
    await cell.halfway.wait()
    canceled = await cell.do("cancel", task=event["task"]).one()
    assert not cell.back.is_set()
    assert (canceled["task"], canceled["state"]) == (event["task"], "canceled")
    later = await cell.answered(await cell.send("after-cancel", "hello").one(within=90))
    assert later["state"] == "completed"
    assert (await cell.now(event["task"]))["state"] == "canceled"
    assert cell.executed("cancel") == []


async def outlasting_cancel_of_a_stream(cell: Cell) -> None:
    """A stream whose task is canceled meanwhile ends at once, and says so."""
    call = cell.send("cancel-stream", "stream", "stream")
    (first,) = await call.at_least(1)
    await cell.halfway.wait()
    canceled = await cell.do("cancel", task=first["task"]).one()
    assert (canceled["task"], canceled["state"]) == (first["task"], "canceled")
    events = await call.all()
    assert not cell.back.is_set()
    assert one_story(events) == first["task"]
    assert (len(events), events[-1]["state"]) == (2, "canceled")
    await cell.answered(await cell.send("after-cancel-stream", "hello").one(within=90))
    assert cell.executed("cancel-stream") == []


async def outlasting_subscribe(cell: Cell) -> None:
    """A task that waits is subscribed to twice, at once and after a while: both streams tell the same story."""
    event = await cell.send("subscribe", "stream", "now").one()
    early = cell.do("subscribe", task=event["task"])
    await early.at_least(1)
    await cell.halfway.wait()
    late = cell.do("subscribe", task=event["task"])
    await late.at_least(1)
    assert not cell.back.is_set()
    for call in (early, late):
        events = await call.all(within=90)
        assert one_story(events) == event["task"]
        assert (told(events), events[-1]["state"]) == ("piece 1piece 2", "completed")
    assert len(cell.executed("subscribe")) == 1


async def outlasting_repeated(cell: Cell) -> None:
    """Somebody who loses patience sends the same message again: it joins the first one, and runs once."""
    first = cell.send("again", "hello")
    await cell.halfway.wait()
    second = cell.send("again", "hello")
    answers = [await cell.answered(await call.one(within=90)) for call in (first, second)]
    assert cell.back.is_set()
    assert answers[0] == answers[1]
    assert (answers[0]["state"], answers[0]["text"]) == ("completed", "echo: hello")
    assert len(cell.executed("again")) == 1


async def outlasting_newcomer(cell: Cell) -> None:
    """A client that is started in the middle of the outage finds a card, and is answered like the others."""
    await cell.halfway.wait()
    new = cell.another()
    card = await new.connect()
    assert not cell.back.is_set()
    assert (card["kind"], card["text"]) == ("card", "scripted")
    event = await new.answered(await new.send("unary", "hello").one(within=90))
    assert cell.back.is_set()
    assert (event["state"], event["text"]) == ("completed", "echo: hello")
    assert len(new.executed("unary")) == 1
