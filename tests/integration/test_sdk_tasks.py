"""Deferred tasks as the A2A SDK's own clients see them: one id through outages, rounds of questions, lists, errors."""

import pytest
from a2a.types import ListTasksRequest, TaskState
from a2a.utils.errors import A2AError, UnsupportedOperationError
from integration.conftest import Scene
from integration.test_sdk_clients import COMPLETED, SUBMITTED, events, message, now, task_for, text_of

pytestmark = pytest.mark.asyncio(loop_scope="module")

ASKS = TaskState.TASK_STATE_INPUT_REQUIRED


async def test_a_round_of_questions_goes_on_through_two_outages_under_one_id(scene: Scene) -> None:
    client = await scene.client()
    await scene.agent.stop()
    task = await task_for(client, message("ask"))
    await scene.agent.start()
    await scene.completed()
    assert (await now(client, task)).status.state == ASKS
    await scene.agent.stop()
    again = await task_for(client, message("blue", "m2", task_id=task.id, context_id=task.context_id))
    assert (again.id, again.context_id, again.status.state) == (task.id, task.context_id, SUBMITTED)
    assert [part.parts[0].text for part in (await now(client, task)).history][-1] == "blue"
    await scene.revive_proxy()
    await scene.agent.start()
    await scene.completed(2)
    done = await now(client, task)
    assert (done.id, done.context_id, done.status.state, text_of(done)) == (
        task.id,
        task.context_id,
        COMPLETED,
        "echo: blue",
    )
    (_, first), (_, second) = scene.agent.executor.executed
    assert first == second != task.id


async def test_a_task_that_the_agent_began_keeps_its_id_through_an_outage(scene: Scene) -> None:
    client = await scene.client()
    asks = await task_for(client, message("ask"))
    assert asks.status.state == ASKS
    await scene.agent.stop()
    again = await task_for(client, message("blue", "m2", task_id=asks.id, context_id=asks.context_id))
    assert (again.id, again.context_id, again.status.state) == (asks.id, asks.context_id, SUBMITTED)
    assert (await now(client, asks)).status.state == SUBMITTED
    await scene.agent.start()
    await scene.completed()
    done = await now(client, asks)
    assert (done.id, done.status.state, text_of(done)) == (asks.id, COMPLETED, "echo: blue")


async def test_messages_that_were_sent_before_the_first_was_delivered_belong_to_its_task(scene: Scene) -> None:
    client = await scene.client()
    await scene.agent.stop()
    task = await task_for(client, message("ask"))
    more = await task_for(client, message("blue", "m2", task_id=task.id))
    assert (more.id, more.context_id) == (task.id, task.context_id)
    await scene.agent.start()
    await scene.completed(2)
    done = await now(client, task)
    assert (done.id, done.status.state, text_of(done)) == (task.id, COMPLETED, "echo: blue")


async def test_an_ended_task_takes_no_message_whether_its_agent_is_there_or_not(scene: Scene) -> None:
    client = await scene.client()
    await scene.agent.stop()
    task = await task_for(client, message("hello"))
    await scene.agent.start()
    await scene.completed()
    more = message("more", "m2", task_id=task.id, context_id=task.context_id)
    with pytest.raises(A2AError):
        await task_for(client, more)
    await scene.proxy.ask("POST", f"/workspaces/{scene.name}/pause", json={})
    with pytest.raises(UnsupportedOperationError):
        await task_for(client, more)
    assert (await now(client, task)).status.state == COMPLETED
    assert len(scene.agent.executor.executed) == 1


async def test_a_streamed_answer_to_a_deferred_task_bears_its_id(scene: Scene) -> None:
    plain, client = await scene.client(), await scene.client(streaming=True)
    await scene.agent.stop()
    task = await task_for(plain, message("ask"))
    await scene.agent.start()
    await scene.completed()
    said = await events(client, message("blue", "m2", task_id=task.id, context_id=task.context_id))
    ids = {event.task.id or event.status_update.task_id or event.artifact_update.task_id for event in said}
    assert ids == {task.id}
    assert (await now(client, task)).status.state == COMPLETED


@pytest.mark.parametrize("version", ["1.0"])
async def test_a_list_holds_what_waits_what_has_ended_and_what_the_agent_did_at_once(scene: Scene) -> None:
    client = await scene.client()
    direct = await task_for(client, message("hello", context_id="talk"))
    assert [task.id for task in (await client.list_tasks(ListTasksRequest())).tasks] == [direct.id]
    await scene.agent.stop()
    with pytest.raises(A2AError):
        await client.list_tasks(ListTasksRequest())
    ended = await task_for(client, message("hello", "m2"))
    await scene.agent.start()
    await scene.completed()
    asks = await task_for(client, message("ask", "m3"))
    page = await client.list_tasks(ListTasksRequest(include_artifacts=True))
    # This agent's tasks bear no time, so that those that do come first.
    assert {task.id: text_of(task) for task in page.tasks} == {
        ended.id: "echo: hello",
        asks.id: "",
        direct.id: "echo: hello",
    }
    assert (page.tasks[0].id, page.total_size) == (ended.id, 3)
    await scene.agent.stop()
    waits = await task_for(client, message("blue", "m4", context_id="talk"))
    page = await client.list_tasks(ListTasksRequest(page_size=1))
    assert [task.id for task in page.tasks] == [waits.id]
    page = await client.list_tasks(ListTasksRequest(page_size=1, page_token=page.next_page_token))
    assert ([task.id for task in page.tasks], page.next_page_token) == ([ended.id], "")
    page = await client.list_tasks(ListTasksRequest(context_id="talk", status=SUBMITTED))
    assert [task.id for task in page.tasks] == [waits.id]
