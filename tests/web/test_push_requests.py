"""Requests about the receivers of deferred tasks: set, get, list, delete, in both versions and bindings."""

from typing import Any

from web.harness import ScriptedAgent
from web.receivers import QUICK, Receiver, ask, config, deferred, rpc, sending


async def test_configurations_of_a_deferred_task_are_set_shown_and_deleted(
    make: Any, agent: ScriptedAgent, receiver: Receiver
) -> None:
    proxy = await make(push__receivers=2, **QUICK)
    client, task = await deferred(proxy, agent, sending(config(receiver.url)))
    about = {"taskId": task["id"]}
    listed = await ask(proxy, client, rpc("ListTaskPushNotificationConfigs", **about))
    assert listed["result"]["configs"] == [{**config(receiver.url), "id": task["id"], "taskId": task["id"]}]
    second = {"id": "second", "url": receiver.url + "/2"}
    made = await ask(proxy, client, rpc("CreateTaskPushNotificationConfig", **about, **second))
    assert made["result"] == {**second, **about}
    full = await ask(proxy, client, rpc("CreateTaskPushNotificationConfig", **about, id="third", url=receiver.url))
    assert "at most 2" in full["error"]["message"]
    found = await ask(proxy, client, rpc("GetTaskPushNotificationConfig", **about, id="second"))
    assert found["result"] == made["result"]
    gone = await ask(proxy, client, rpc("DeleteTaskPushNotificationConfig", **about, id=task["id"]))
    assert gone == {"jsonrpc": "2.0", "id": 5, "result": None}
    missing = await ask(proxy, client, rpc("GetTaskPushNotificationConfig", **about, id=task["id"]))
    assert missing["error"]["code"] == -32001
    bad = await ask(proxy, client, rpc("CreateTaskPushNotificationConfig", **about, url="http://169.254.169.254/"))
    assert bad["error"]["code"] == -32602
    await agent.start()
    await receiver.until(lambda: receiver.came != [])
    assert [each.path for each in receiver.came] == ["/hook/2"]


async def test_the_same_over_rest_and_in_v03(make: Any, agent: ScriptedAgent, receiver: Receiver) -> None:
    proxy = await make(**QUICK)
    client, task = await deferred(proxy, agent, sending(config(receiver.url)))
    path = f"/tasks/{task['id']}/pushNotificationConfigs"
    made = await ask(proxy, client, {"id": "r", "url": receiver.url}, path)
    assert made == {"id": "r", "taskId": task["id"], "url": receiver.url}
    assert await ask(proxy, client, None, f"{path}/r", verb="GET") == made
    assert len((await ask(proxy, client, None, path, verb="GET"))["configs"]) == 2
    assert await ask(proxy, client, None, f"{path}/r", verb="DELETE") == {}
    old = {"A2A-Version": "0.3"}
    params = {"taskId": task["id"], "pushNotificationConfig": {"id": "o", "url": receiver.url}}
    made = await ask(proxy, client, rpc("tasks/pushNotificationConfig/set", **params), **old)
    assert made["result"] == params
    found = await ask(proxy, client, rpc("tasks/pushNotificationConfig/list", id=task["id"]), **old)
    assert sorted(each["pushNotificationConfig"]["id"] for each in found["result"]) == sorted(["o", task["id"]])
    shown = await ask(proxy, client, None, f"/v1{path}/o", verb="GET", **old)
    assert shown["name"] == f"tasks/{task['id']}/pushNotificationConfigs/o"


async def test_strangers_and_the_agent_hear_nothing_of_configurations(
    make: Any, agent: ScriptedAgent, receiver: Receiver
) -> None:
    proxy = await make(**QUICK)
    _, task = await deferred(proxy, agent, sending(config(receiver.url)))
    stranger = await proxy.client("stranger")
    for method in (
        "ListTaskPushNotificationConfigs",
        "GetTaskPushNotificationConfig",
        "DeleteTaskPushNotificationConfig",
    ):
        refused = await ask(proxy, stranger, rpc(method, taskId=task["id"], id=task["id"]))
        assert refused["error"]["code"] == -32001
    assert len(await proxy.app.store.receivers()) == 1
    await agent.start()
    await receiver.until(lambda: receiver.came != [])
    assert all(b"ushNotification" not in body for _, _, _, body in agent.seen)
