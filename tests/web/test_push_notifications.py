"""Push notifications about deferred tasks, over the wire: Holdfast sends them, under the caller's task id."""

import asyncio
import json
from typing import Any

import pytest
from a2a.compat.v0_3.types import Task as Task03
from a2a.types import a2a_pb2 as proto10
from aiohttp import web
from google.protobuf.json_format import ParseDict
from web.harness import ScriptedAgent, get_task
from web.receivers import CREDENTIALS, QUICK, TOKEN, Receiver, ask, config, deferred, old_sending, sending


async def test_what_becomes_of_a_deferred_task_is_told_to_its_receiver(
    make: Any, agent: ScriptedAgent, receiver: Receiver
) -> None:
    proxy = await make(**QUICK)
    _, task = await deferred(proxy, agent, sending(config(receiver.url)))
    assert receiver.came == []
    await agent.start()
    await receiver.until(lambda: "TASK_STATE_COMPLETED" in receiver.states())
    [told] = receiver.came
    assert told.headers["X-A2A-Notification-Token"] == TOKEN
    assert told.headers["Authorization"] == f"Bearer {CREDENTIALS}"
    assert told.headers["Content-Type"] == "application/json"
    assert told.said["task"]["id"] == task["id"]
    assert told.said["task"]["contextId"] == task["contextId"]
    ParseDict(told.said, proto10.StreamResponse())
    assert b"onfiguration" in agent.seen[0][3]  # the rest of it reached the agent,
    assert b"ushNotification" not in agent.seen[0][3]  # and nothing that would make it notify by itself
    assert receiver.url.encode() not in agent.seen[0][3]


async def test_a_v03_receiver_is_told_the_whole_task_in_its_own_shape(
    make: Any, agent: ScriptedAgent, receiver: Receiver
) -> None:
    proxy = await make(**QUICK)
    push = {"url": receiver.url, "token": TOKEN, "authentication": {"schemes": ["Bearer"], "credentials": "c"}}

    async def answer(request: web.Request) -> web.Response:
        body = json.loads(await request.read())
        done = {"kind": "task", "id": "up", "contextId": body["params"]["message"]["contextId"]}
        return web.json_response({"jsonrpc": "2.0", "id": 1, "result": {**done, "status": {"state": "completed"}}})

    agent.handler = answer
    _, task = await deferred(proxy, agent, old_sending(push), **{"A2A-Version": "0.3"})
    await agent.start()
    await receiver.until(lambda: receiver.came != [])
    told = Task03.model_validate(receiver.came[0].said)
    assert (told.id, told.context_id, told.status.state) == (task["id"], task["contextId"], "completed")
    assert receiver.came[0].headers["X-A2A-Notification-Token"] == TOKEN


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest/meta-data",
        "http://[::ffff:169.254.169.254]/",
        "http://0x7f000001/",
        "ftp://receiver.example/x",
        "http://user:secret@receiver.example/",
        "http://localhost.localdomain:1/\n",
        "",
    ],
)
async def test_a_receiver_that_must_not_be_called_is_refused_and_nothing_is_stored(
    make: Any, agent: ScriptedAgent, url: str
) -> None:
    proxy = await make()
    await agent.stop()
    await proxy.enroll("a", url=agent.url, unmanaged_away="defer")
    client = await proxy.client()
    refused = await ask(proxy, client, sending(config(url)))
    assert refused["error"]["code"] == -32602
    assert refused["error"]["data"][0]["reason"] == "BAD_PUSH_CONFIG"
    assert list(await proxy.app.store.deferrals(workspace_id="a")) == []
    assert list(await proxy.app.store.receivers()) == []


async def test_a_name_that_leads_inwards_is_refused_and_one_that_leads_nowhere_yet_is_not(
    make: Any, agent: ScriptedAgent
) -> None:
    proxy = await make(**QUICK)
    await agent.stop()
    await proxy.enroll("a", url=agent.url, unmanaged_away="defer")
    client = await proxy.client()

    async def lookup(host: str) -> list[str]:
        await asyncio.sleep(0)
        if host == "nowhere.test":
            raise OSError("no such name")
        return ["93.184.216.34", "169.254.169.254"]

    proxy.app.pushing._pool._resolver._lookup = lookup  # type: ignore[union-attr]  # it has a real network
    refused = await ask(proxy, client, sending(config("https://inwards.test/hook")))
    assert "metadata" in refused["error"]["message"]
    assert list(await proxy.app.store.receivers()) == []
    assert "result" in await ask(proxy, client, sending(config("https://nowhere.test/hook"), "m2"))
    assert len(await proxy.app.store.receivers()) == 1


async def test_receivers_have_networks_of_their_own(make: Any, agent: ScriptedAgent, receiver: Receiver) -> None:
    proxy = await make(push__allow=())
    await agent.stop()
    await proxy.enroll("a", url=agent.url, unmanaged_away="defer")
    client = await proxy.client()
    refused = await ask(proxy, client, sending(config(receiver.url)))
    assert "loopback" in refused["error"]["message"]
    assert list(await proxy.app.store.deferrals(workspace_id="a")) == []


async def test_a_name_that_turns_inwards_later_is_not_called(
    make: Any, agent: ScriptedAgent, receiver: Receiver
) -> None:
    """DNS rebinding: what was fine when it was configured is judged again when it is dialled."""
    proxy = await make(push__allow=(), **QUICK)
    hosts = {"receiver.test": "198.51.100.7"}

    async def lookup(host: str) -> list[str]:
        await asyncio.sleep(0)
        return [{"receiver.test": "93.184.216.34"}[host]] if hosts["receiver.test"] != "127.0.0.1" else ["127.0.0.1"]

    pool = proxy.app.pushing._pool
    assert pool is not None
    pool._resolver._lookup, pool._resolver._ttl = lookup, 0
    await deferred(proxy, agent, sending(config(f"http://receiver.test:{receiver.port}/hook")))
    hosts["receiver.test"] = "127.0.0.1"
    await agent.start()
    await proxy.until(lambda: proxy.named("push.given_up") != [])
    assert proxy.named("push.given_up")[0].fields["reason"] == "forbidden_address"
    assert receiver.came == []


async def test_a_receiver_that_fails_is_tried_again_and_told_once(
    make: Any, agent: ScriptedAgent, receiver: Receiver
) -> None:
    receiver.answers.extend([500, (503, {"Retry-After": "0"}), 429])
    proxy = await make(**QUICK)
    await deferred(proxy, agent, sending(config(receiver.url)))
    await agent.start()
    await proxy.until(lambda: proxy.named("push.failed").__len__() == 3 and len(receiver.came) == 4)
    assert len({each.headers["Idempotency-Key"] for each in receiver.came}) == 1
    assert len({json.dumps(each.said) for each in receiver.came}) == 1
    fields = proxy.named("push.failed")[0].fields
    assert (fields["reason"], fields["tries"]) == ("answered 500", 1)
    assert TOKEN not in str(proxy.events)
    assert CREDENTIALS not in str(proxy.events)


@pytest.mark.parametrize("answer", [400, 401, 404, (302, {"Location": "/elsewhere"})])
async def test_a_receiver_that_refuses_is_not_asked_again(
    make: Any, agent: ScriptedAgent, receiver: Receiver, answer: Any
) -> None:
    receiver.answers.append(answer)
    proxy = await make(**QUICK)
    client, task = await deferred(proxy, agent, sending(config(receiver.url)))
    await agent.start()
    await proxy.until(lambda: proxy.named("push.given_up") != [])
    assert [each.path for each in receiver.came] == ["/hook"]
    [line] = [each for each in await proxy.app.store.decisions("a", limit=50) if "notification" in each.action]
    assert line.evidence["tries"] == 1
    assert line.receipt == proxy.named("push.given_up")[0].receipt
    found = await ask(proxy, client, get_task(task["id"]))
    assert found["result"]["status"]["state"] == "TASK_STATE_COMPLETED"


async def test_tries_are_bounded(make: Any, agent: ScriptedAgent, receiver: Receiver) -> None:
    receiver.answers.extend([500] * 50)
    proxy = await make(push__tries=3, push__backoff=0.01, push__backoff_cap=0.02)
    await deferred(proxy, agent, sending(config(receiver.url)))
    await agent.start()
    await proxy.until(lambda: proxy.named("push.given_up") != [])
    assert len(receiver.came) == 3
    assert proxy.named("push.given_up")[0].fields["tries"] == 3


async def test_what_was_not_told_is_told_by_the_next_life(make: Any, agent: ScriptedAgent, receiver: Receiver) -> None:
    proxy = await make(**QUICK)
    await deferred(proxy, agent, sending(config(receiver.url)))
    await receiver.stop()
    await agent.start()
    await proxy.until(lambda: proxy.named("push.failed") != [])
    await proxy.app.stop(drain=0)
    await receiver.start()
    await proxy.start()
    await receiver.until(lambda: receiver.states() == ["TASK_STATE_COMPLETED"])


async def test_a_canceled_task_is_told_as_canceled(make: Any, agent: ScriptedAgent, receiver: Receiver) -> None:
    proxy = await make(**QUICK)
    client, task = await deferred(proxy, agent, sending(config(receiver.url)))
    await ask(proxy, client, {"jsonrpc": "2.0", "id": 2, "method": "CancelTask", "params": {"id": task["id"]}})
    await receiver.until(lambda: receiver.states() == ["TASK_STATE_CANCELED"])


async def test_secrets_of_a_receiver_are_sealed_at_rest(
    make: Any, agent: ScriptedAgent, receiver: Receiver, tmp_path: Any
) -> None:
    proxy = await make()
    await deferred(proxy, agent, sending(config(receiver.url + "?key=key-in-the-url")))
    await proxy.app.stop(drain=0)
    [database] = list(tmp_path.glob("**/holdfast.db"))
    files = b"".join(path.read_bytes() for path in database.parent.glob("holdfast.db*") if path.suffix != ".d")
    assert b"taskPushNotificationConfig" not in files
    for secret in (TOKEN, CREDENTIALS, "key-in-the-url", "/hook"):
        assert secret.encode() not in files
    await proxy.start()
