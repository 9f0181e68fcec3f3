"""What a receiver is told while a task goes on: its events in order, messages to it, what the agent does later."""

import asyncio
import json
from typing import Any

import pytest
from a2a.compat.v0_3.types import Task as Task03
from a2a.types import a2a_pb2 as proto10
from aiohttp import web
from google.protobuf.json_format import ParseDict
from web.harness import V1, Harness, ScriptedAgent
from web.pollers import Poller, sse
from web.receivers import QUICK, Receiver, ask, config, deferred, old_sending, rpc, sending

STATUS = {"statusUpdate": {"taskId": "up", "contextId": "c", "status": {"state": "TASK_STATE_WORKING"}}}
DONE = {"statusUpdate": {"taskId": "up", "contextId": "c", "status": {"state": "TASK_STATE_COMPLETED"}}}


def piece(text: str) -> dict[str, Any]:
    artifact = {"artifactId": "a", "parts": [{"text": text}]}
    return {"artifactUpdate": {"taskId": "up", "contextId": "c", "artifact": artifact, "append": True}}


async def polled(proxy: Harness, body: Any, **headers: str) -> tuple[Poller, str, dict[str, Any]]:
    """A send to a polling workspace that has claimed it: the poller, the caller's token, the item."""
    poller = Poller(proxy, await proxy.enroll("a", delivery_mode="poll"))
    client = await proxy.client()
    await ask(proxy, client, body, **headers)
    return poller, client, await poller.one()


async def test_every_event_is_one_notification_in_order_however_slow_the_receiver_is(
    make: Any, receiver: Receiver
) -> None:
    proxy = await make(**QUICK)
    receiver.answers.extend([500, 200, 500, 500])
    poller, _, item = await polled(proxy, sending(config(receiver.url)))
    for event in (STATUS, piece("one"), piece("two")):
        assert (await poller.tell(item, sse(event)))[0] == 200
    assert (await poller.tell(item, sse(DONE)))[0] == 200
    assert (await poller.complete(item, body_base64=None))[0] == 200
    await receiver.until(lambda: "TASK_STATE_COMPLETED" in receiver.states())
    await proxy.until(lambda: len(proxy.named("push.delivered")) == 4)
    told: list[Any] = []
    for each in receiver.came:
        if not told or told[-1] != each.said:
            told.append(each.said)
    assert [next(iter(said)) for said in told] == ["statusUpdate", "artifactUpdate", "artifactUpdate", "statusUpdate"]
    assert [said["artifactUpdate"]["artifact"]["parts"][0]["text"] for said in told[1:3]] == ["one", "two"]
    assert {next(iter(said.values()))["taskId"] for said in told} == {item["task_id"]}
    for said in told:
        ParseDict(said, proto10.StreamResponse())


async def test_a_v03_receiver_that_is_slow_is_told_what_the_task_is_by_then(make: Any, receiver: Receiver) -> None:
    proxy = await make(**QUICK)
    receiver.gate = asyncio.Event()
    old = [
        {"kind": "status-update", "taskId": "up", "contextId": "c", "final": False, "status": {"state": "working"}},
        {
            "kind": "artifact-update",
            "taskId": "up",
            "contextId": "c",
            "artifact": {"artifactId": "a", "parts": [{"kind": "text", "text": "one"}]},
        },
        {"kind": "status-update", "taskId": "up", "contextId": "c", "final": True, "status": {"state": "completed"}},
    ]
    poller, _, item = await polled(proxy, old_sending({"url": receiver.url}), **{"A2A-Version": "0.3"})
    assert (await poller.tell(item, sse(old[0])))[0] == 200
    await receiver.until(lambda: receiver.states() == ["working"])
    for event in old[1:]:
        assert (await poller.tell(item, sse(event)))[0] == 200
    assert (await poller.complete(item, body_base64=None))[0] == 200
    receiver.gate.set()
    await receiver.until(lambda: receiver.states() == ["working", "completed"])
    last = Task03.model_validate(receiver.came[-1].said)
    assert last.id == item["task_id"]
    assert last.artifacts is not None
    assert [artifact.artifact_id for artifact in last.artifacts] == ["a"]


async def test_an_event_that_is_too_long_is_made_up_for_by_the_task(make: Any, receiver: Receiver) -> None:
    proxy = await make(push__bytes=2000, **QUICK)
    receiver.gate = asyncio.Event()
    poller, _, item = await polled(proxy, sending(config(receiver.url)))
    for event in (STATUS, piece("x" * 3000), DONE):
        assert (await poller.tell(item, sse(event)))[0] == 200
    assert (await poller.complete(item, body_base64=None))[0] == 200
    receiver.gate.set()
    await receiver.until(lambda: any("task" in each.said for each in receiver.came))
    assert [next(iter(each.said)) for each in receiver.came] == ["statusUpdate", "statusUpdate", "task"]
    assert "artifacts" not in receiver.came[-1].said["task"]


async def test_a_receiver_that_was_given_up_is_told_what_happens_next(make: Any, receiver: Receiver) -> None:
    proxy = await make(push__tries=2, push__backoff=0.01, push__backoff_cap=0.02)
    receiver.answers.extend([500, 500])
    poller, _, item = await polled(proxy, sending(config(receiver.url)))
    assert (await poller.tell(item, sse(STATUS)))[0] == 200
    await proxy.until(lambda: proxy.named("push.given_up") != [])
    assert (await poller.tell(item, sse(DONE)))[0] == 200
    await proxy.until(lambda: len(proxy.named("push.delivered")) == 1)
    assert receiver.states() == ["TASK_STATE_WORKING", "TASK_STATE_WORKING", "TASK_STATE_COMPLETED"]


async def test_a_receiver_that_was_set_later_is_told_only_what_happens_then(make: Any, receiver: Receiver) -> None:
    proxy = await make(**QUICK)
    poller, client, item = await polled(proxy, sending(config(receiver.url + "/first")))
    assert (await poller.tell(item, sse(STATUS)))[0] == 200
    await receiver.until(lambda: len(receiver.came) == 1)
    later = {"taskId": item["task_id"], "id": "later", "url": receiver.url + "/later"}
    assert "result" in await ask(proxy, client, rpc("CreateTaskPushNotificationConfig", **later))
    assert (await poller.tell(item, sse(DONE)))[0] == 200
    await receiver.until(lambda: len(receiver.came) == 3)
    told = [next(iter(each.said.values()))["status"]["state"] for each in receiver.came if each.path == "/hook/later"]
    assert told == ["TASK_STATE_COMPLETED"]


async def test_a_receiver_follows_its_task_through_the_messages_to_it(make: Any, receiver: Receiver) -> None:
    proxy = await make(**QUICK)
    poller, client, item = await polled(proxy, sending(config(receiver.url)))
    asks = {"statusUpdate": {"taskId": "up", "contextId": "c", "status": {"state": "TASK_STATE_INPUT_REQUIRED"}}}
    assert (await poller.tell(item, sse(asks)))[0] == 200
    assert (await poller.complete(item, body_base64=None))[0] == 200
    await receiver.until(lambda: receiver.states() == ["TASK_STATE_INPUT_REQUIRED"])
    reply = {"messageId": "m2", "role": "ROLE_USER", "parts": [{"text": "yes"}], "taskId": item["task_id"]}
    body = {"jsonrpc": "2.0", "id": 2, "method": "SendMessage", "params": {"message": reply}}
    assert (await ask(proxy, client, body))["result"]["task"]["id"] == item["task_id"]
    second = await poller.one()
    assert second["queue_id"] != item["queue_id"]
    assert (await poller.tell(second, sse(DONE)))[0] == 200
    assert (await poller.complete(second, body_base64=None))[0] == 200
    await receiver.until(lambda: receiver.states()[-1] == "TASK_STATE_COMPLETED")
    ids = {item.get("taskId") or item["id"] for each in receiver.came for item in each.said.values()}
    assert ids == {item["task_id"]}
    listed = await ask(proxy, client, rpc("ListTaskPushNotificationConfigs", taskId=item["task_id"]))
    assert len(listed["result"]["configs"]) == 1


@pytest.mark.parametrize("path", ["", "/message:send"])
async def test_an_agent_that_goes_on_after_its_answer_is_asked_how_its_task_ends(
    make: Any, agent: ScriptedAgent, receiver: Receiver, path: str
) -> None:
    proxy = await make(push__look=0.05, push__look_cap=0.1, **QUICK)
    looks: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        looks.append(request.path)
        state = "TASK_STATE_COMPLETED" if len(looks) > 3 else "TASK_STATE_WORKING"
        task = {"id": "up", "contextId": "theirs", "status": {"state": state}}
        if request.method == "GET":
            return web.json_response(task)
        said = json.loads(await request.read())
        result: Any = task if said.get("method") == "GetTask" else {"task": task}
        return web.json_response({"jsonrpc": "2.0", "id": said["id"], "result": result} if path == "" else result)

    agent.handler = answer
    body = sending(config(receiver.url))
    await agent.stop()
    await proxy.enroll("a", url=agent.url, unmanaged_away="defer")
    said = await ask(proxy, await proxy.client(), body if path == "" else body["params"], path)
    task = said["result"]["task"] if path == "" else said["task"]
    await agent.start()
    await receiver.until(lambda: receiver.states() == ["TASK_STATE_WORKING", "TASK_STATE_COMPLETED"])
    assert {(each.said["task"]["id"], each.said["task"]["contextId"]) for each in receiver.came} == {
        (task["id"], task["contextId"])
    }


async def test_a_message_that_goes_to_the_agent_at_once_brings_its_receiver_to_holdfast(
    make: Any, agent: ScriptedAgent, receiver: Receiver
) -> None:
    proxy = await make(**QUICK)
    states = ["TASK_STATE_INPUT_REQUIRED", "TASK_STATE_COMPLETED"]

    async def answer(request: web.Request) -> web.Response:
        said = json.loads(await request.read())
        task = {"id": "up", "contextId": said["params"]["message"].get("contextId", "c")}
        task["status"] = {"state": states.pop(0)}  # type: ignore[assignment]  # a task is more than texts
        return web.json_response({"jsonrpc": "2.0", "id": said["id"], "result": {"task": task}})

    agent.handler = answer
    client, task = await deferred(proxy, agent, sending(config(receiver.url + "/first", id="first")))
    await agent.start()
    await receiver.until(lambda: receiver.states() == ["TASK_STATE_INPUT_REQUIRED"])
    await proxy.until(lambda: proxy.app.routing.get("a").serving)
    reply = sending(config(receiver.url + "/second", id="second"), "m2", taskId=task["id"])
    done = await ask(proxy, client, reply)
    assert done["result"]["task"]["id"] == task["id"]
    assert b"ushNotification" not in agent.seen[-1][3]
    await receiver.until(lambda: receiver.states().count("TASK_STATE_COMPLETED") == 2)
    assert {each.said["task"]["id"] for each in receiver.came} == {task["id"]}
    assert [each.path for each in receiver.came[:1]] == ["/hook/first"]


async def test_a_journalled_message_to_a_task_names_a_receiver_and_may_be_sent_again(
    make: Any, agent: ScriptedAgent, receiver: Receiver
) -> None:
    """What the agent gets is not what the caller wrote, neither the task's id nor the configuration."""
    proxy = await make(defaults__journal="all", **QUICK)
    asks = {"task": {"id": "up", "contextId": "c", "status": {"state": "TASK_STATE_INPUT_REQUIRED"}}}
    stories = [[asks], [STATUS, DONE]]

    async def answer(_: web.Request) -> web.Response:
        data = "".join(
            f"data: {json.dumps({'jsonrpc': '2.0', 'id': 1, 'result': said})}\n\n" for said in stories.pop(0)
        )
        return web.Response(text=data, content_type="text/event-stream")

    agent.handler = answer
    await proxy.enroll("a", url=agent.url)
    client = await proxy.client()

    async def streamed(body: dict[str, Any]) -> tuple[int, list[Any]]:
        said = {**body, "method": "SendStreamingMessage"}
        got, text = await proxy.call("POST", "/workspaces/a/a2a", token=client, headers=V1, json=said)
        return got.status, [json.loads(line[6:])["result"] for line in text.split(b"\n") if line.startswith(b"data: ")]

    _, (first, *_) = await streamed(rpc("", message={"messageId": "m1", "role": "ROLE_USER", "parts": [{"text": "x"}]}))
    task = first["task"]["id"]
    second = sending(config(receiver.url), "m2", taskId=task)
    assert (await streamed(second))[0] == 200
    await receiver.until(lambda: "TASK_STATE_COMPLETED" in receiver.states())
    assert {next(iter(each.said.values())).get("taskId", task) for each in receiver.came} == {task}
    assert receiver.states().count("TASK_STATE_COMPLETED") == 1
    assert b"ushNotification" not in agent.seen[1][3]
    status, events = await streamed(second)
    assert (status, events[0]["task"]["status"]["state"], len(agent.seen)) == (200, "TASK_STATE_COMPLETED", 2)
