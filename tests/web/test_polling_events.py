"""What an agent tells while it works: progress that callers see, a lease that lasts, an answer made of events."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from web.harness import Harness
from web.pollers import Poller, body_of, sse, until
from web.test_deferral import follow, state_of
from web.test_polling import polling, receipt, waited_for

WORKING = {"task": {"id": "up", "contextId": "c", "status": {"state": "TASK_STATE_WORKING"}}}
DONE = {"statusUpdate": {"taskId": "up", "contextId": "c", "status": {"state": "TASK_STATE_COMPLETED"}}}


def piece(text: str, *, append: bool = True) -> dict[str, Any]:
    artifact = {"artifactId": "a", "parts": [{"text": text}]}
    return {"artifactUpdate": {"taskId": "up", "contextId": "c", "artifact": artifact, "append": append}}


async def has_told(proxy: Harness, item: dict[str, Any], count: int) -> bool:
    return await proxy.app.store.journal_size(item["queue_id"]) >= count


def wrapped(item: dict[str, Any], event: dict[str, Any]) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": json.loads(body_of(item))["id"], "result": event}


async def begun(proxy: Harness, **claim: Any) -> tuple[Poller, str, dict[str, Any], Any]:
    """A poller that holds a lease, the client's token, the item, the 202."""
    poller, client = await polling(proxy), await proxy.client()
    got, _ = await proxy.send("a", client, message_id="m1")
    return poller, client, await poller.one(**claim), got


async def test_progress_is_seen_while_the_agent_works_and_complete_makes_the_answer_of_it(proxy: Harness) -> None:
    poller, client, item, got = await begun(proxy)
    task_id = item["task_id"]
    seen: list[str] = []
    more: asyncio.Queue[bytes | None] = asyncio.Queue()

    async def stream() -> AsyncIterator[bytes]:
        while (part := await more.get()) is not None:
            yield part

    telling = asyncio.create_task(poller.tell(item, stream()))
    for event, told in ((WORKING, 1), (piece("one", append=False), 2), (piece("two"), 3), (DONE, 4)):
        more.put_nowait(b": keep-alive\n\n" + sse(wrapped(item, event)))
        await until(partial(has_told, proxy, item, told))
        seen.append((await state_of(proxy, client, task_id))["status"]["state"])
    more.put_nowait(None)
    assert await telling == (200, {"queue_id": item["queue_id"], "events": 4, "lease_seconds": 60})
    assert seen == ["TASK_STATE_WORKING"] * 3 + ["TASK_STATE_COMPLETED"]
    assert (await receipt(proxy, got))["status"] == "leased"  # the agent may still have to tidy up
    status, _ = await poller.complete(item, body_base64=None)
    assert status == 200
    done = await follow(proxy, client, task_id)
    assert [part["text"] for part in done["artifacts"][0]["parts"]] == ["one", "two"]
    response = (await receipt(proxy, got))["response"]
    assert json.loads(base64.b64decode(response["body_base64"]))["result"]["task"]["id"] == task_id
    kept = await proxy.app.store.deferral(item["queue_id"])
    assert kept is not None
    assert kept.upstream_task_id == "up"


async def test_an_answer_in_words_wins_over_what_was_told(proxy: Harness) -> None:
    poller, client, item, _ = await begun(proxy)
    await poller.tell(item, sse(WORKING))
    assert (await poller.complete(item))[0] == 200
    done = await follow(proxy, client, item["task_id"])
    assert done["artifacts"][0]["parts"][0]["text"] == "did m1"


async def test_a_completion_without_answer_and_without_events_is_an_empty_answer(proxy: Harness) -> None:
    poller = await polling(proxy)
    got, _ = await proxy.call("POST", "/workspaces/a/a2a/hook", data=b"x", headers={"Content-Type": "text/plain"})
    item = await poller.one()
    assert (await poller.complete(item, status=204, body_base64=None))[0] == 200
    response = (await receipt(proxy, got))["response"]
    assert (response["status"], response["body_base64"]) == (204, "")


async def test_events_may_come_as_lines_of_json_and_to_what_is_not_a2a_anything_may_be_said(proxy: Harness) -> None:
    poller = await polling(proxy)
    got, _ = await proxy.call("POST", "/workspaces/a/a2a/hook", data=b"x", headers={"Content-Type": "text/plain"})
    item = await poller.one()
    assert (await poller.tell(item, b"one\ntwo\n", kind="application/x-ndjson"))[1]["events"] == 2
    await poller.complete(item, body_base64=None)
    response = (await receipt(proxy, got))["response"]
    assert response["headers"] == {"Content-Type": "text/event-stream"}
    assert base64.b64decode(response["body_base64"]) == b"data: one\n\ndata: two\n\n"


async def test_an_event_renews_the_lease_and_is_a_sign_of_life(make: Any) -> None:
    proxy = await make(poll__lease_least=0.1)
    poller, _, item, _ = await begun(proxy, lease_seconds=5)
    route = proxy.app.routing.get("a")
    assert route is not None
    before, kept = route.signs.last_sign_at, await proxy.app.store.deferral(item["queue_id"])
    status, said = await poller.tell(item, sse(WORKING), query="?lease_seconds=300")
    assert (status, said["lease_seconds"]) == (200, 300)
    after = await proxy.app.store.deferral(item["queue_id"])
    assert kept is not None
    assert kept.lease is not None
    assert after is not None
    assert after.lease is not None
    assert after.lease.until - kept.lease.until > timedelta(seconds=290)
    assert before is not None
    assert route.signs.last_sign_at is not None
    assert route.signs.last_sign_at > before


async def test_a_body_that_is_told_again_after_a_break_is_kept_once(proxy: Harness) -> None:
    poller, client, item, _ = await begun(proxy)
    first = [WORKING, piece("one", append=False)]
    assert (await poller.tell(item, sse(*first)))[1]["events"] == 2
    status, said = await poller.tell(item, sse(*first, piece("two")), query="?first=1")
    assert (status, said["events"]) == (200, 3)
    status, said = await poller.tell(item, sse(DONE), query="?first=9")
    assert (status, said["events"]) == (409, 3)
    assert (await poller.tell(item, sse(DONE), query="?first=4"))[1]["events"] == 4
    await poller.complete(item, body_base64=None)
    done = await follow(proxy, client, item["task_id"])
    assert [part["text"] for part in done["artifacts"][0]["parts"]] == ["one", "two"]


@pytest.mark.parametrize(
    ("data", "settings", "status", "kept"),
    [
        (sse(WORKING) + b"data: nonsense\n\n", {}, 400, 0),
        (sse(WORKING, *[piece("x")] * 5), {"poll__journal_rows": 3}, 413, 0),
        (sse(WORKING, *[piece("x" * 100)] * 9), {"poll__journal_bytes": 500}, 413, 0),
        (sse(piece("x" * 5000)), {"poll__event_bytes": 1000}, 413, 0),
    ],
)
async def test_events_that_cannot_be_kept_are_refused_and_the_lease_stands(
    make: Any, data: bytes, settings: dict[str, Any], status: int, kept: int
) -> None:
    proxy = await make(**settings)
    poller, _, item, _ = await begun(proxy)
    refused, said = await poller.tell(item, data)
    assert (refused, await proxy.app.store.journal_size(item["queue_id"])) == (status, kept), said
    assert (await poller.complete(item))[0] == 200


async def test_a_stream_whose_sender_dies_keeps_what_it_told(proxy: Harness) -> None:
    poller, client, item, _ = await begun(proxy)
    told = asyncio.Event()

    async def stream() -> AsyncIterator[bytes]:
        yield sse(WORKING)
        await told.wait()

    telling = asyncio.create_task(poller.tell(item, stream()))
    await until(partial(has_told, proxy, item, 1))
    telling.cancel()
    await asyncio.gather(telling, return_exceptions=True)
    assert (await state_of(proxy, client, item["task_id"]))["status"]["state"] == "TASK_STATE_WORKING"
    assert (await poller.complete(item))[0] == 200


async def test_what_a_later_try_tells_is_not_mixed_with_what_an_earlier_one_told(make: Any) -> None:
    proxy = await make(queue__backoff=0.01, queue__backoff_cap=0.01)
    poller, client, item, _ = await begun(proxy)
    await poller.tell(item, sse(WORKING, piece("old", append=False)))
    await poller.fail(item, "crashed")
    second = await poller.one()
    await poller.tell(second, sse(piece("new"), DONE))
    await poller.complete(second, body_base64=None)
    done = await follow(proxy, client, item["task_id"])
    assert [part["text"] for part in done["artifacts"][0]["parts"]] == ["new"]


async def test_a_story_that_was_told_to_its_end_completes_although_nobody_said_so(make: Any) -> None:
    proxy = await make(poll__lease_least=0.1)
    poller, client, item, got = await begun(proxy)
    await poller.tell(item, sse(WORKING, piece("all", append=False), DONE), query="?lease_seconds=0.1")
    waiting = asyncio.create_task(poller.claim(wait_seconds=20))  # the agent died before it said "complete"
    await waited_for(proxy, 1)
    await proxy.until(lambda: bool(proxy.named("deferral.completed")))
    await proxy.app.stop(drain=0)
    assert await waiting == []
    await proxy.start()
    shown = await receipt(proxy, got)
    assert (shown["status"], shown["redelivery"]) == ("completed", "maybe")
    done = await state_of(proxy, client, item["task_id"])
    assert done["artifacts"][0]["parts"][0]["text"] == "all"
