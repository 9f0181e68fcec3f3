"""ListTasks through the proxy: the caller's own deferred tasks and the agent's, in one list."""

import json
from typing import Any

import pytest
from aiohttp import web
from web.dialects import NEW, REST_OLD, Dialect
from web.harness import Harness, ScriptedAgent
from web.task_agent import TaskAgent
from web.test_deferred_tasks import Scene


@pytest.fixture(params=NEW, ids=str)
async def scene(proxy: Harness, agent: ScriptedAgent, request: pytest.FixtureRequest) -> Scene:
    dialect: Dialect = request.param
    await proxy.enroll("a", url=agent.url, unmanaged_away="defer")
    return Scene(proxy, TaskAgent(agent, dialect), dialect, await proxy.client())


async def listed(scene: Scene, *, token: str | None = None, **wish: Any) -> dict[str, Any]:
    """A page."""
    status, body = await scene.raw(scene.dialect.list(**wish), token=token)
    assert status == 200, body
    said = json.loads(body)
    page: dict[str, Any] = said["result"] if scene.dialect.binding == "jsonrpc" else said
    assert {"tasks", "nextPageToken", "pageSize", "totalSize"} <= page.keys()
    return page


async def ids(scene: Scene, **wish: Any) -> list[str]:
    """Every task of every page, in order."""
    found: list[str] = []
    token = ""
    for _ in range(50):
        page = await listed(scene, **wish, **({"pageToken": token} if token else {}))
        found += [task["id"] for task in page["tasks"]]
        token = page["nextPageToken"]
        if not token:
            return found
    raise AssertionError("the pages have no end")


async def test_a_caller_without_deferred_tasks_gets_the_agents_own_answer(scene: Scene) -> None:
    await scene.send("hello")
    status, body = await scene.raw(scene.dialect.list(pageToken="0"))
    assert status == 200
    operation, params = scene.agent.heard[-1]
    assert (operation, params) == ("list", {"pageToken": "0"})
    assert json.loads(body).get("result", json.loads(body))["totalSize"] == 1


async def test_a_list_holds_each_task_once_under_its_callers_id(scene: Scene) -> None:
    direct = await scene.send("hello")
    ended = await scene.deferred("hello")
    works = await scene.deferred("work")
    scene.agent.finish(scene.agent.ids[-1])
    await scene.leave()
    await scene.park()
    waits = await scene.send("hello")
    assert await ids(scene) == [waits.id, works.id, ended.id]  # nobody can be asked
    page = await listed(scene)
    states = {task["id"]: task["status"]["state"] for task in page["tasks"]}
    assert states == {
        waits.id: "TASK_STATE_SUBMITTED",
        ended.id: "TASK_STATE_COMPLETED",
        works.id: "TASK_STATE_WORKING",
    }
    await scene.agent.socket.start()
    got, _ = await scene.proxy.call("POST", "/workspaces/a/resume", json={})
    assert got.status in {200, 202}
    await scene.proxy.until(lambda: scene.ended == 3)
    page = await listed(scene)
    states = {task["id"]: task["status"]["state"] for task in page["tasks"]}
    assert states == dict.fromkeys([direct.id, waits.id, ended.id, works.id], "TASK_STATE_COMPLETED")
    assert page["totalSize"] == 4
    for size in (1, 2, 3, 4, 5):
        assert sorted(await ids(scene, pageSize=size)) == sorted(states), size


async def test_an_agent_that_cannot_be_asked_is_answered_for_only_where_there_are_own_tasks(scene: Scene) -> None:
    await scene.leave()
    status, _ = await scene.raw(scene.dialect.list())
    assert status == 503
    task = await scene.send("hello")
    assert await ids(scene) == [task.id]
    assert (await scene.raw(scene.dialect.list(), token=await scene.proxy.client("stranger")))[0] == 503
    assert (await scene.raw(scene.dialect.list(contextId="other")))[0] == 503


async def test_an_agent_that_lists_no_tasks_is_answered_for_likewise(scene: Scene) -> None:
    task = await scene.deferred("work")
    scene.agent.lists = False
    assert await ids(scene) == [task.id]
    status, body = await scene.raw(scene.dialect.list(), token=await scene.proxy.client("stranger"))
    assert b"METHOD_NOT_FOUND" in body
    assert status == (200 if scene.dialect.binding == "jsonrpc" else 501)


async def test_what_is_asked_for_is_what_is_listed(scene: Scene) -> None:
    await scene.leave()
    await scene.park()
    one = await scene.send("one", contextId="talk")
    two = await scene.send("two")
    await scene.cancel(two.id)
    assert await ids(scene, contextId="talk") == [one.id]
    assert await ids(scene, status="TASK_STATE_CANCELED") == [two.id]
    assert await ids(scene, statusTimestampAfter="2000-01-01T00:00:00Z", pageSize=1) == [two.id, one.id]
    status, body = await scene.raw(scene.dialect.list(statusTimestampAfter="2999-01-01T00:00:00Z"))
    assert status == 503, body
    page = await listed(scene, pageSize=1)
    assert (page["pageSize"], len(page["tasks"])) == (1, 1)
    history = {task["id"]: len(task.get("history", ())) for task in (await listed(scene, historyLength=0))["tasks"]}
    assert history == {one.id: 0, two.id: 0}
    assert (await listed(scene))["tasks"][1]["history"]


async def test_a_context_that_its_agent_calls_otherwise_is_listed_as_its_caller_calls_it(scene: Scene) -> None:
    asks = await scene.deferred("elsewhere", contextId="talk")
    direct = await scene.send("hello", contextId="talk")
    page = await listed(scene, contextId="talk")
    assert {task["id"]: task["contextId"] for task in page["tasks"]} == {asks.id: "talk", direct.id: "talk"}
    assert scene.agent.heard[-1][1]["contextId"] == "agents-own"


async def test_artifacts_are_listed_where_they_are_asked_for(scene: Scene) -> None:
    """The agent answers with a message only, which becomes the artifact of a completed task."""

    async def answer(request: web.Request) -> web.Response:
        _, _, rpc_id = scene.dialect.heard(request.raw_path, await request.read())
        said: dict[str, Any] = {"message": {"messageId": "x", "role": "ROLE_AGENT", "parts": [{"text": "hi"}]}}
        if scene.dialect.binding == "jsonrpc":
            said = {"jsonrpc": "2.0", "id": rpc_id, "result": said}
        return web.json_response(said)

    scene.agent.socket.handler = answer
    await scene.deferred("hello")
    await scene.leave()
    wishes: list[tuple[dict[str, Any], str | None]] = [({}, None), ({"includeArtifacts": True}, "hi")]
    for wish, shown in wishes:
        (task,) = (await listed(scene, **wish))["tasks"]
        artifacts = task.get("artifacts", [{"parts": [{"text": None}]}])
        assert artifacts[0]["parts"][0]["text"] == shown


@pytest.mark.parametrize(
    "wish", [{"pageSize": 0}, {"pageSize": 101}, {"pageToken": "hf.x"}, {"status": "TASK_STATE_BUSY"}]
)
async def test_a_list_that_cannot_be_is_judged_by_the_agent_and_refused_where_there_is_none(
    scene: Scene, wish: dict[str, Any]
) -> None:
    await scene.leave()
    await scene.park()
    await scene.send("hello")
    status, body = await scene.raw(scene.dialect.list(**wish))
    said = json.loads(body)["error"]
    if scene.dialect.binding == "jsonrpc":
        assert (status, said["code"]) == (200, -32602)
    else:
        assert (status, said["details"][0]["reason"]) == (400, "INVALID_PARAMS")


async def test_v0_3_has_no_lists(proxy: Harness, agent: ScriptedAgent) -> None:
    await proxy.enroll("a", url=agent.url, unmanaged_away="defer")
    scene = Scene(proxy, TaskAgent(agent, REST_OLD), REST_OLD, await proxy.client())
    await scene.leave()
    await scene.send("hello")
    assert (await scene.raw(scene.dialect.list()))[0] == 503
