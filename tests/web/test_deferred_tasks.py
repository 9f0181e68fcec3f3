"""Calls about deferred tasks, in every binding and version: `docs/tasks.md`, cell by cell."""

import asyncio
import json
from typing import Any

import pytest
from web.dialects import ALL, JSONRPC, NOT_CANCELABLE, NOT_FOUND, UNSUPPORTED, Dialect, Request, Said
from web.harness import ADMIN_TOKEN, Harness, ScriptedAgent
from web.task_agent import TaskAgent

from proxy.core import a2a

TASK_NOT_FOUND, TASK_NOT_CANCELABLE, UNSUPPORTED_OPERATION = NOT_FOUND[0], NOT_CANCELABLE[0], UNSUPPORTED[0]


class Scene:
    """A proxy, an agent that keeps tasks, and one of its callers; both sides speak one dialect."""

    def __init__(self, proxy: Harness, agent: TaskAgent, dialect: Dialect, token: str) -> None:
        self.proxy = proxy
        self.agent = agent
        self.dialect = dialect
        self.token = token
        self.messages = 0

    async def ask(self, request: Request, *, token: str | None = None, **headers: str) -> Said:
        """One call, its answer read."""
        status, body = await self.raw(request, token=token, **headers)
        return self.dialect.read(status, body)

    async def raw(self, request: Request, *, token: str | None = None, **headers: str) -> tuple[int, bytes]:
        got, body = await self.proxy.call(
            request.method,
            f"/workspaces/a/a2a{request.tail}",
            token=token or self.token,
            headers={**request.headers, **headers},
            data=request.body,
        )
        return got.status, body

    async def send(self, text: str, **names: Any) -> Said:
        self.messages += 1
        return await self.ask(self.dialect.send(text, f"m{self.messages}", **names), Prefer="respond-async")

    async def get(self, task_id: str, history: int | None = None) -> Said:
        return await self.ask(self.dialect.get(task_id, history))

    async def cancel(self, task_id: str) -> Said:
        return await self.ask(self.dialect.cancel(task_id))

    async def leave(self) -> None:
        await self.agent.socket.stop()

    async def come_back(self, ends: int = 1) -> None:
        """The agent listens again; wait until so many more deferrals have ended."""
        before = self.ended
        await self.agent.socket.start()
        await self.proxy.until(lambda: self.ended >= before + ends)

    @property
    def ended(self) -> int:
        return len(self.proxy.named("deferral.completed")) + len(self.proxy.named("deferral.dead_lettered"))

    async def park(self) -> None:
        """Nobody dials the agent."""
        got, body = await self.proxy.call("POST", "/workspaces/a/pause", json={})
        assert got.status in {200, 202}, body

    async def deferred(self, text: str, **names: Any) -> Said:
        """A message that was sent while the agent was away, and delivered since."""
        await self.leave()
        task = await self.send(text, **names)
        assert a2a.is_provisional(task.id)
        await self.come_back()
        return task


@pytest.fixture(params=ALL, ids=str)
def dialect(request: pytest.FixtureRequest) -> Dialect:
    found: Dialect = request.param
    return found


@pytest.fixture
async def scene(proxy: Harness, agent: ScriptedAgent, dialect: Dialect) -> Scene:
    await proxy.enroll("a", url=agent.url, unmanaged_away="defer")
    return Scene(proxy, TaskAgent(agent, dialect), dialect, await proxy.client())


# Get


async def test_a_task_that_waits_is_answered_from_the_store(scene: Scene) -> None:
    await scene.leave()
    task = await scene.send("hello", contextId="talk")
    found = await scene.get(task.id)
    assert (found.id, found.state, found.history, found.task["contextId"]) == (task.id, "submitted", ["hello"], "talk")
    assert (await scene.get(task.id, history=0)).history == []


async def test_a_task_that_has_ended_is_answered_from_the_store_although_its_agent_has_lost_it(scene: Scene) -> None:
    task = await scene.deferred("hello")
    scene.agent.forget()
    found = await scene.get(task.id)
    assert (found.id, found.state) == (task.id, "completed")
    assert [operation for operation, _ in scene.agent.heard if operation == "get"] == []


async def test_an_open_task_is_asked_for_and_what_its_agent_says_is_kept(scene: Scene) -> None:
    task = await scene.deferred("work")
    assert (await scene.get(task.id)).state == "working"
    (theirs,) = scene.agent.ids
    scene.agent.finish(theirs)
    status, body = await scene.raw(scene.dialect.get(task.id))
    found = scene.dialect.read(status, body)
    assert (found.id, found.state) == (task.id, "completed")
    assert theirs.encode() not in body
    assert [params["id"] for operation, params in scene.agent.heard if operation == "get"] == [theirs, theirs]
    await scene.leave()
    assert (await scene.get(task.id)).state == "completed"


async def test_what_is_changed_on_its_way_is_asked_for_uncoded(scene: Scene) -> None:
    """Without `Accept-Encoding` an agent might choose any coding, and its own ids would pass inside it."""
    task = await scene.deferred("work")
    assert (await scene.ask(scene.dialect.get(task.id), **{"Accept-Encoding": "gzip, br"})).id == task.id
    assert scene.agent.socket.seen[-1][2]["Accept-Encoding"] == "identity"


async def test_an_open_task_of_an_agent_that_is_away_is_shown_as_it_was_last_known(scene: Scene) -> None:
    task = await scene.deferred("ask")
    await scene.leave()
    assert (await scene.get(task.id)).state == "input-required"
    await scene.park()
    assert (await scene.get(task.id)).state == "input-required"


async def test_a_task_that_its_agent_has_forgotten_has_failed(scene: Scene) -> None:
    task = await scene.deferred("work")
    scene.agent.forget()
    found = await scene.get(task.id)
    assert (found.id, found.state, found.task["contextId"]) == (task.id, "failed", task.task["contextId"])
    assert "does not know this task" in json.dumps(found.task["status"])
    await scene.leave()
    assert (await scene.get(task.id)).state == "failed"
    assert (await scene.cancel(task.id)).error == TASK_NOT_CANCELABLE


async def test_what_others_are_told_is_not_kept_for_a_tasks_caller(scene: Scene) -> None:
    """The agent may hide from an admin's credentials what it shows to the task's own caller."""
    task = await scene.deferred("work")
    (theirs,) = scene.agent.ids
    known = scene.agent.tasks.pop(theirs)
    assert (await scene.ask(scene.dialect.get(task.id), token=ADMIN_TOKEN)).state == "failed"
    scene.agent.tasks[theirs] = known
    assert (await scene.get(task.id)).state == "working"


async def test_to_everybody_else_a_deferred_task_is_unknown(scene: Scene) -> None:
    await scene.leave()
    task = await scene.send("hello")
    stranger = await scene.proxy.client("stranger")
    for request in (
        scene.dialect.get(task.id),
        scene.dialect.cancel(task.id),
        scene.dialect.send("more", "x1", taskId=task.id),
    ):
        assert (await scene.ask(request, token=stranger)).error == TASK_NOT_FOUND
    assert (await scene.get(task.id)).state == "submitted"


@pytest.mark.parametrize("there", [True, False], ids=["agent there", "agent away"])
async def test_who_may_look_at_anothers_task_cannot_speak_in_it(scene: Scene, there: bool) -> None:
    task = await scene.deferred("work")
    if not there:
        await scene.leave()
    said = scene.dialect.send("more", "x1", taskId=task.id)
    assert (await scene.ask(scene.dialect.get(task.id), token=ADMIN_TOKEN)).state == "working"
    assert (await scene.ask(said, token=ADMIN_TOKEN, Prefer="respond-async")).error == TASK_NOT_FOUND
    assert (await scene.get(task.id)).state == "working"


# Cancel


async def test_a_task_that_waits_is_canceled_at_once_with_every_message_to_it(scene: Scene) -> None:
    await scene.leave()
    task = await scene.send("hello")
    more = await scene.send("more", taskId=task.id)
    assert (more.id, more.history) == (task.id, ["hello", "more"])
    canceled = await scene.cancel(task.id)
    assert (canceled.id, canceled.state) == (task.id, "canceled")
    assert (await scene.get(task.id)).state == "canceled"
    assert (await scene.cancel(task.id)).error == TASK_NOT_CANCELABLE
    assert (await scene.send("again", taskId=task.id)).error == UNSUPPORTED_OPERATION
    other = await scene.send("other")
    await scene.come_back()
    assert (await scene.get(other.id)).state == "completed"
    assert [params["message"]["messageId"] for op, params in scene.agent.heard if op == "send"] == ["m4"]


async def test_an_open_task_is_canceled_by_its_agent_and_what_it_says_is_kept(scene: Scene) -> None:
    task = await scene.deferred("work")
    canceled = await scene.cancel(task.id)
    assert (canceled.id, canceled.state) == (task.id, "canceled")
    assert [params["id"] for operation, params in scene.agent.heard if operation == "cancel"] == scene.agent.ids
    await scene.leave()
    assert (await scene.get(task.id)).state == "canceled"


async def test_an_agent_that_is_away_cancels_nothing(scene: Scene) -> None:
    task = await scene.deferred("work")
    await scene.leave()
    refusal = await scene.ask(scene.dialect.cancel(task.id))
    assert (refusal.status, refusal.error is not None) == (503, True)
    assert (await scene.get(task.id)).state == "working"


async def test_a_forgotten_task_cannot_be_canceled(scene: Scene) -> None:
    task = await scene.deferred("work")
    scene.agent.forget()
    assert (await scene.cancel(task.id)).error == TASK_NOT_CANCELABLE
    assert (await scene.get(task.id)).state == "failed"


async def test_a_task_whose_next_message_waits_is_canceled_with_it(scene: Scene) -> None:
    task = await scene.deferred("ask")
    await scene.leave()
    await scene.send("blue", taskId=task.id)
    assert (await scene.cancel(task.id)).state == "canceled"
    assert (await scene.get(task.id)).state == "canceled"
    other = await scene.send("other")
    await scene.come_back()
    assert (await scene.get(other.id)).state == "completed"
    assert [params["message"]["messageId"] for op, params in scene.agent.heard if op == "send"] == ["m1", "m3"]


# Messages to tasks


async def test_a_message_to_a_task_that_waits_goes_behind_it_and_belongs_to_it(scene: Scene) -> None:
    await scene.leave()
    task = await scene.send("ask")
    more = await scene.send("blue", taskId=task.id)
    assert (more.id, more.state, more.task["contextId"]) == (task.id, "submitted", task.task["contextId"])
    waiting = await scene.proxy.app.store.deferrals_of_task("a", task.id, limit=9)
    assert [row.context_id for row in waiting] == [task.task["contextId"]] * 2  # the order of a queue is a context's
    await scene.come_back(ends=2)
    found = await scene.get(task.id)
    assert (found.id, found.state) == (task.id, "completed")
    (theirs,) = scene.agent.ids
    assert [params["message"].get("taskId") for _, params in scene.agent.heard] == [None, theirs]


async def test_a_round_of_questions_and_answers_goes_on_through_an_outage(scene: Scene) -> None:
    task = await scene.deferred("ask")
    assert (await scene.get(task.id)).state == "input-required"
    await scene.leave()
    answered = await scene.send("blue", taskId=task.id, contextId=task.task["contextId"])
    assert (answered.id, answered.state) == (task.id, "submitted")
    waiting = await scene.get(task.id)
    assert (waiting.state, waiting.history[-1]) == ("submitted", "blue")
    await scene.proxy.restart()
    assert (await scene.get(task.id)).history == waiting.history
    await scene.come_back()
    found = await scene.get(task.id)
    assert (found.id, found.state, found.task["contextId"]) == (task.id, "completed", task.task["contextId"])


async def test_a_task_that_its_agent_began_keeps_its_agents_id_through_an_outage(scene: Scene) -> None:
    asks = await scene.send("ask", contextId="talk")
    assert (asks.id, asks.state) == (scene.agent.ids[0], "input-required")
    await scene.leave()
    answered = await scene.send("blue", taskId=asks.id, contextId="talk")
    assert (answered.id, answered.state, answered.task["contextId"]) == (asks.id, "submitted", "talk")
    assert (await scene.get(asks.id)).state == "submitted"
    more = await scene.send("green", taskId=asks.id, contextId="talk")
    assert (more.id, more.history) == (asks.id, ["blue", "green"])
    await scene.proxy.restart()
    assert (await scene.get(asks.id)).state == "submitted"
    await scene.come_back(ends=2)
    found = await scene.get(asks.id)
    assert (found.id, found.state) == (asks.id, "completed")
    assert [params["message"].get("taskId") for op, params in scene.agent.heard if op == "send"] == [
        None,
        asks.id,
        asks.id,
    ]
    await scene.leave()
    assert (await scene.raw(scene.dialect.get(asks.id)))[0] == 503


async def test_a_message_to_an_ended_task_is_answered_as_its_agent_answers_it(scene: Scene) -> None:
    task = await scene.deferred("hello")
    status, body = await scene.raw(scene.dialect.send("more", "x1", taskId=task.id))
    (theirs,) = scene.agent.ids
    assert scene.dialect.read(status, body).error == UNSUPPORTED_OPERATION
    assert theirs.encode() not in body
    assert f"Task {task.id} says".encode() in body
    scene.agent.forget()
    assert (await scene.send("more", taskId=task.id)).error == UNSUPPORTED_OPERATION
    await scene.leave()
    await scene.park()
    assert (await scene.send("more", taskId=task.id)).error == UNSUPPORTED_OPERATION
    assert scene.proxy.named("deferral.completed")[1:] == []


async def test_an_error_answers_the_message_and_leaves_the_task_as_it_was(scene: Scene) -> None:
    task = await scene.deferred("ask")
    await scene.leave()
    assert (await scene.send("refuse", taskId=task.id)).state == "submitted"
    await scene.come_back()
    assert (await scene.get(task.id)).state == "input-required"
    assert (await scene.send("blue", taskId=task.id)).state == "completed"


async def test_a_message_to_a_task_that_never_reached_its_agent_ends_with_it(make: Any, agent: ScriptedAgent) -> None:
    proxy = await make(queue__attempts=1, upstream__idle_timeout=0.2)
    await proxy.enroll("a", url=agent.url, unmanaged_away="defer")
    scene = Scene(proxy, TaskAgent(agent, JSONRPC), JSONRPC, await proxy.client())
    await scene.leave()
    task = await scene.send("hello")
    await scene.send("more", taskId=task.id)
    scene.agent.held = asyncio.Event()
    await scene.come_back(ends=2)
    scene.agent.held.set()
    found = await scene.get(task.id)
    assert (found.id, found.state) == (task.id, "failed")
    assert "never had it" in json.dumps(found.task["status"])
    assert len(scene.agent.heard) == 1


async def test_a_message_that_refers_to_a_deferred_task_reaches_the_agent_with_its_own_id(
    proxy: Harness, agent: ScriptedAgent
) -> None:
    await proxy.enroll("a", url=agent.url, unmanaged_away="defer")
    scene = Scene(proxy, TaskAgent(agent, JSONRPC), JSONRPC, await proxy.client())
    task = await scene.deferred("hello")
    (theirs,) = scene.agent.ids
    assert (await scene.send("again", referenceTaskIds=[task.id])).state == "completed"
    await scene.leave()
    deferred = await scene.send("once more", referenceTaskIds=[task.id, "foreign"])
    await scene.come_back()
    sent = [params["message"].get("referenceTaskIds") for _, params in scene.agent.heard]
    assert sent == [None, [theirs], [theirs, "foreign"]]
    assert deferred.id != task.id


async def test_an_agent_that_answers_in_another_context_is_spoken_to_in_its_own(scene: Scene) -> None:
    task = await scene.deferred("elsewhere", contextId="talk")
    assert (await scene.get(task.id)).task["contextId"] == "talk"
    status, body = await scene.raw(scene.dialect.send("blue", "x1", taskId=task.id, contextId="talk"))
    answered = scene.dialect.read(status, body)
    assert (answered.id, answered.state, answered.task["contextId"]) == (task.id, "completed", "talk")
    assert b"agents-own" not in body
    sent = [params["message"].get("contextId") for op, params in scene.agent.heard if op == "send"]
    assert sent == ["talk", "agents-own"]


async def test_a_context_that_its_agent_calls_otherwise_stays_the_callers_for_every_call(scene: Scene) -> None:
    await scene.deferred("elsewhere", contextId="talk")
    await scene.proxy.restart()
    for text in ("hello", "ask"):
        status, body = await scene.raw(scene.dialect.send(text, f"x-{text}", contextId="talk"))
        direct = scene.dialect.read(status, body)
        assert (direct.task["contextId"], direct.id in scene.agent.ids) == ("talk", True)
        found = await scene.get(direct.id)
        assert (found.id, found.task["contextId"]) == (direct.id, "talk")
    await scene.deferred("later", contextId="talk")
    sent = [params["message"].get("contextId") for op, params in scene.agent.heard if op == "send"]
    assert sent == ["talk", "agents-own", "agents-own", "agents-own"]
    stranger = await scene.proxy.client("stranger")
    await scene.ask(scene.dialect.send("hello", "x1", contextId="talk"), token=stranger)
    assert scene.agent.heard[-1][1]["message"]["contextId"] == "talk"


# Push notification configurations


async def test_push_configurations_of_a_task_that_waits_are_answered_in_kind(
    proxy: Harness, agent: ScriptedAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proxy.app.server._calls._deferred, "pushed", None)
    await agent.stop()
    await proxy.enroll("a", url=agent.url, unmanaged_away="defer")
    scene = Scene(proxy, TaskAgent(agent, JSONRPC), JSONRPC, await proxy.client())
    task = await scene.send("hello")
    said = {
        "jsonrpc": "2.0",
        "id": "call-7",
        "method": "ListTaskPushNotificationConfigs",
        "params": {"taskId": task.id},
    }
    request = Request("POST", "", {"A2A-Version": "1.0"}, json.dumps(said).encode())
    assert (await scene.ask(request)).error == -32003
