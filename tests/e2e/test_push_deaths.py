"""A proxy process that is killed while it owes notifications: its next life tells what was not taken."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio
from e2e.serving import Serving
from web.harness import ScriptedAgent
from web.receivers import Receiver

pytestmark = pytest.mark.asyncio(loop_scope="module")

Make = Callable[..., Any]
QUICK = {"push__backoff": 0.05, "push__backoff_cap": 0.2, "log__level": "debug"}


@pytest_asyncio.fixture(loop_scope="module")
async def receiver() -> AsyncIterator[Receiver]:
    made = Receiver()
    await made.start()
    yield made
    await made.stop()


@pytest_asyncio.fixture(loop_scope="module")
async def agent() -> AsyncIterator[ScriptedAgent]:
    made = ScriptedAgent()
    await made.start()
    await made.stop()  # it is away when the story begins
    yield made
    await made.stop()


async def put_away(proxy: Serving, agent: ScriptedAgent, url: str, count: int = 1) -> list[str]:
    """Sends that are deferred, with a receiver; return their task ids."""
    await proxy.enroll("a", url=agent.url, unmanaged_away="defer")
    client = await proxy.client()
    tasks = []
    for number in range(count):
        said = {"messageId": f"m{number}", "role": "ROLE_USER", "parts": [{"text": "hello"}]}
        configuration = {"taskPushNotificationConfig": {"url": url, "token": "tok"}}
        body = {"jsonrpc": "2.0", "id": 1, "method": "SendMessage"}
        body["params"] = {"message": said, "configuration": configuration}
        got = await proxy.ask("POST", "/workspaces/a/a2a", token=client, headers={"A2A-Version": "1.0"}, json=body)
        assert got.status == 202, got
        tasks.append(json.loads(got.body)["result"]["task"]["id"])
    return tasks


async def test_a_notification_that_was_on_its_way_when_the_proxy_was_killed_is_told_again(
    make: Make, agent: ScriptedAgent, receiver: Receiver
) -> None:
    proxy = await make(**QUICK)
    receiver.gate = asyncio.Event()
    [task] = await put_away(proxy, agent, receiver.url)
    await agent.start()
    await receiver.until(lambda: len(receiver.came) == 1)  # it has it, and the proxy does not know
    await proxy.kill()
    receiver.gate.set()
    await proxy.start()
    await receiver.until(lambda: len(receiver.came) == 2)
    assert [each.said["task"]["id"] for each in receiver.came] == [task, task]
    assert len({each.headers["Idempotency-Key"] for each in receiver.came}) == 1
    await proxy.event("push.delivered", count=1)
    await proxy.kill()
    await proxy.start()
    await proxy.ask("GET", "/readyz")
    assert len(receiver.came) == 2  # what was taken is not told a third time


async def test_no_notification_is_lost_by_a_proxy_that_is_killed_again_and_again(
    make: Make, agent: ScriptedAgent, receiver: Receiver
) -> None:
    proxy = await make(**QUICK, push__tries=1000)
    tasks = await put_away(proxy, agent, receiver.url, count=12)
    receiver.answers.extend([500, 200] * 20)
    await agent.start()
    for enough in (3, 9, 15):
        await receiver.until(lambda enough=enough: len(receiver.came) >= enough)  # type: ignore[misc]  # bound now
        await proxy.kill()
        await proxy.start()
    await receiver.until(lambda: {each.said["task"]["id"] for each in receiver.came} == set(tasks))
    await proxy.event("push.delivered", count=1)
    assert {each.said["task"]["status"]["state"] for each in receiver.came} == {"TASK_STATE_COMPLETED"}


async def test_a_receiver_that_was_away_for_the_whole_life_of_a_proxy_is_told_by_the_next(
    make: Make, agent: ScriptedAgent, receiver: Receiver
) -> None:
    proxy = await make(**QUICK)
    await put_away(proxy, agent, receiver.url)
    await receiver.stop()
    await agent.start()
    await proxy.event("push.failed")
    await proxy.kill()
    await receiver.start()
    await proxy.start()
    await receiver.until(lambda: receiver.states() == ["TASK_STATE_COMPLETED"])
