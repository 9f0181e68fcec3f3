"""The A2A SDK's own client names a receiver, its agent is away: what the receiver is told, and about which task."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from a2a.compat.v0_3.types import Task as Task03
from a2a.types import (
    AuthenticationInfo,
    DeleteTaskPushNotificationConfigRequest,
    GetTaskPushNotificationConfigRequest,
    ListTaskPushNotificationConfigsRequest,
    SendMessageConfiguration,
    StreamResponse,
    TaskPushNotificationConfig,
    TaskState,
)
from google.protobuf.json_format import ParseDict
from integration.conftest import Scene
from integration.test_sdk_clients import message, task_for
from web.receivers import Receiver

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module")
async def receiver() -> AsyncIterator[Receiver]:
    made = Receiver()
    await made.start()
    yield made
    await made.stop()


def told(receiver: Receiver, version: str) -> tuple[str, str]:
    """The task and the state of the last notification, as the SDK of its version reads it."""
    said = receiver.came[-1].said
    if version == "0.3":
        task = Task03.model_validate(said)
        return task.id, task.status.state.value
    read = ParseDict(said, StreamResponse())
    if read.HasField("task"):
        return read.task.id, TaskState.Name(read.task.status.state)
    return read.status_update.task_id, TaskState.Name(read.status_update.status.state)


async def test_a_client_s_receiver_is_told_of_a_task_that_waited_for_its_agent(
    scene: Scene, receiver: Receiver, version: str
) -> None:
    client = await scene.client()
    await scene.agent.stop()
    authentication = AuthenticationInfo(scheme="Bearer", credentials="cred")
    config = TaskPushNotificationConfig(url=receiver.url, token="tok", authentication=authentication)
    request = message("hello")
    request.configuration.CopyFrom(SendMessageConfiguration(task_push_notification_config=config))
    task = await task_for(client, request)
    assert task.status.state == TaskState.TASK_STATE_SUBMITTED
    second = TaskPushNotificationConfig(task_id=task.id, id="second", url=f"{receiver.url}/second")
    made = await client.create_task_push_notification_config(second)
    assert (made.task_id, made.id, made.url) == (task.id, "second", second.url)
    listed = await client.list_task_push_notification_configs(ListTaskPushNotificationConfigsRequest(task_id=task.id))
    assert {each.id for each in listed.configs} == {task.id, "second"}
    first = await client.get_task_push_notification_config(
        GetTaskPushNotificationConfigRequest(task_id=task.id, id=task.id)
    )
    assert (first.url, first.token, first.authentication.credentials) == (receiver.url, "tok", "cred")
    await client.delete_task_push_notification_config(
        DeleteTaskPushNotificationConfigRequest(task_id=task.id, id="second")
    )
    await scene.agent.start()
    finished = {"0.3": "completed", "1.0": "TASK_STATE_COMPLETED"}[version]
    await receiver.until(lambda: finished in receiver.states())
    assert told(receiver, version) == (task.id, finished)
    assert {each.path for each in receiver.came} == {"/hook"}
    last = receiver.came[-1].headers
    assert (last["X-A2A-Notification-Token"], last["Authorization"]) == ("tok", "Bearer cred")
    assert len(scene.agent.executor.executed) == 1


async def test_a_stream_s_events_are_told_while_the_agent_works(scene: Scene, receiver: Receiver, version: str) -> None:
    client = await scene.client()
    await scene.proxy.event("card.kept", workspace=scene.name)  # it says that the agent streams
    await scene.agent.stop()
    config = TaskPushNotificationConfig(url=receiver.url)
    request = message("stream")
    request.configuration.CopyFrom(
        SendMessageConfiguration(task_push_notification_config=config, return_immediately=True)
    )
    task = await task_for(client, request)
    await scene.agent.start()
    begun = {"0.3": "working", "1.0": "TASK_STATE_WORKING"}[version]
    await receiver.until(lambda: begun in receiver.states())
    assert told(receiver, version) == (task.id, begun)
    for _ in range(3):
        scene.agent.executor.steps.put_nowait(None)
    finished = {"0.3": "completed", "1.0": "TASK_STATE_COMPLETED"}[version]
    await receiver.until(lambda: finished in receiver.states())
    assert told(receiver, version) == (task.id, finished)
    if version == "1.0":
        kinds = [next(iter(each.said)) for each in receiver.came]
        assert kinds == ["task", "artifactUpdate", "artifactUpdate", "statusUpdate"]
    else:
        last = Task03.model_validate(receiver.came[-1].said)
        assert last.artifacts is not None
        assert [len(artifact.parts) for artifact in last.artifacts] == [2]
