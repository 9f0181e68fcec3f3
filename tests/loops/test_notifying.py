"""Notifying: when a receiver is told, how often it is tried, when it is given up, in which order, how many at once."""

import itertools
import json
from datetime import timedelta
from typing import Any

import pytest
from loops.test_replayer import away, back
from simulation.scripted import Heard, Reacts
from simulation.world import World, at, clock, fails, simulated

from proxy.core.deferral import Lease, StoredPush
from proxy.store import StoreFailure
from proxy.store.pushes import Progress
from proxy.telemetry import EventName

RULES = {"push.backoff": 1, "push.backoff_cap": 60, "push.tries": 5, "push.age": 3600, "push.timeout": 10}
TAKEN, FAILED = Reacts(), Reacts(status=500)


def sends(message_id: str, receiver: str = "hook", context_id: str | None = None) -> bytes:
    said: dict[str, Any] = {"kind": "message", "messageId": message_id, "role": "user"}
    said["parts"] = [{"kind": "text", "text": message_id}]
    if context_id is not None:
        said["contextId"] = context_id
    config = {"url": f"http://{receiver}.test/h", "token": "tok"}
    params = {"message": said, "configuration": {"blocking": False, "pushNotificationConfig": config}}
    return json.dumps({"jsonrpc": "2.0", "id": 1, "method": "message/send", "params": params}).encode()


async def put_away(world: World, *message_ids: str, receiver: str = "hook", **settings: Any) -> list[str]:
    """A proxy whose workspace is away, and sends that name a receiver; return their receipts."""
    await world.given(sign=-1)
    await world.start({"queue.sweep": 10_000, **RULES, **settings})
    world.machine().ready.usual = False
    world.agent().reacts.usual = fails()
    world.agent(receiver).reacts.usual = TAKEN
    receipts = []
    for message_id in message_ids:
        reply = await world.call(body=sends(message_id, receiver))
        assert reply.status == 202, reply
        receipts.append(reply.receipt)
    return receipts


def told(world: World, receiver: str = "hook") -> list[Heard]:
    return world.agent(receiver).heard


def pauses(heard: list[Heard]) -> list[float]:
    return [later.at - earlier.at for earlier, later in itertools.pairwise(heard)]


@simulated
async def test_a_receiver_that_fails_is_tried_after_growing_pauses_and_then_given_up(world: World) -> None:
    [receipt] = await put_away(world, "m")
    world.agent("hook").reacts.usual = FAILED
    await back(world)
    await world.eventually(lambda: world.told(EventName.PUSH_GIVEN_UP) != [], within=100)
    assert len(told(world)) == RULES["push.tries"]
    for pause, longest in zip(pauses(told(world)), (1, 2, 4, 8), strict=True):
        assert longest / 2 <= pause <= longest + 0.01
    await world.until(clock() + 10_000)
    assert len(told(world)) == RULES["push.tries"]
    [line] = [line for line in await world.decisions() if line.action == "notification given up"]
    assert (line.receipt, line.evidence["tries"], line.evidence["reason"]) == (receipt, 5, "answered 500")


@simulated
async def test_age_ends_tries_too(world: World) -> None:
    await put_away(world, "m", **{"push.tries": 1000, "push.age": 200})
    world.agent("hook").reacts.usual = FAILED
    await back(world)
    begun = clock()
    ended = await world.eventually(lambda: world.told(EventName.PUSH_GIVEN_UP) != [], within=1000, step=1)
    assert 200 <= ended - begun <= 200 + 60 + 1


@simulated
async def test_a_receiver_says_when_it_wants_to_be_tried_again_within_reason(world: World) -> None:
    await put_away(world, "m")
    world.agent("hook").reacts.queue(
        Reacts(status=503, headers=((b"Retry-After", b"30"),)), Reacts(status=429, headers=((b"Retry-After", b"9999"),))
    )
    await back(world)
    await world.eventually(lambda: world.told(EventName.PUSH_DELIVERED) != [], within=1000)
    assert pauses(told(world)) == pytest.approx([30, 60], abs=0.1)


@simulated
async def test_a_receiver_that_does_not_answer_in_time_has_not_taken_it(world: World) -> None:
    await put_away(world, "m")
    world.agent("hook").reacts.queue(Reacts(after=100))
    await back(world)
    await world.eventually(lambda: world.told(EventName.PUSH_DELIVERED) != [], within=100)
    assert world.told(EventName.PUSH_FAILED)[0].fields["reason"] == "no answer within 10 s"
    assert len(told(world)) == 2


@simulated
async def test_an_answer_that_breaks_after_its_status_is_an_answer(world: World) -> None:
    await put_away(world, "m")
    world.agent("hook").reacts.usual = Reacts(breaks=True)
    await back(world)
    await world.eventually(lambda: world.told(EventName.PUSH_DELIVERED) != [])
    assert len(told(world)) == 1


@simulated
async def test_only_so_many_notifications_are_under_way_at_once(world: World) -> None:
    names = [f"m{number}" for number in range(12)]
    await put_away(world, *names, **{"push.concurrent": 3})
    world.agent("hook").reacts.usual = Reacts(after=2)
    await back(world)
    await world.eventually(lambda: len(world.told(EventName.PUSH_DELIVERED)) == len(names))
    assert world.agent("hook").most_open == 3


@simulated
async def test_a_slow_receiver_holds_up_nobody_else(world: World) -> None:
    await put_away(world, "slow", receiver="slow")
    reply = await world.call(body=sends("quick", "quick"))
    assert reply.status == 202
    world.agent("slow").reacts.usual = Reacts(after=9)
    await back(world)
    await world.eventually(lambda: len(told(world, "quick")) == 1, within=3)
    assert world.told(EventName.PUSH_DELIVERED)[0].receipt == reply.receipt


@simulated
async def test_what_was_not_told_when_a_proxy_died_is_told_by_the_next(world: World) -> None:
    await put_away(world, "m")
    world.agent("hook").reacts.queue(Reacts(after=5))
    await back(world)
    await world.eventually(lambda: len(told(world)) == 1)
    await world.crash()  # the receiver has it; nobody knows
    await world.start(RULES)
    await world.eventually(lambda: len(told(world)) == 2, within=5)
    keys = {heard.header("Idempotency-Key") for heard in told(world)}
    assert len(keys) == 1
    await world.eventually(lambda: world.told(EventName.PUSH_DELIVERED) != [])
    await world.stop()
    await world.start(RULES)
    await world.until(clock() + 1000)
    assert len(told(world)) == 2


@simulated
async def test_a_receiver_that_another_proxy_tells_is_left_alone_until_its_lease_ends(world: World) -> None:
    [receipt] = await put_away(world, "m")
    [push] = await world.store.pushes(receipt)
    lease = Lease(token="theirs", owner="another", until=at(clock() + 20))
    assert await world.store.lease_push(receipt, push.stored.id, lease, now=at(clock())) is not None
    begun = clock()
    await back(world)
    await world.eventually(lambda: len(told(world)) == 1, within=100)
    assert told(world)[0].at - begun == pytest.approx(20, abs=1)


@simulated
async def test_a_next_try_that_a_clock_ahead_wrote_down_is_not_waited_for(world: World) -> None:
    [receipt] = await put_away(world, "m")
    [push] = await world.store.pushes(receipt)
    ahead = Progress(tries=1, failing_since=at(clock() + 86_400), next_at=at(clock()) + timedelta(days=300))
    assert await world.store.put_push(receipt, push.stored, ahead, most=9)
    await back(world)
    await world.eventually(lambda: len(told(world)) == 1, within=RULES["push.backoff_cap"] + 5)


@simulated
async def test_a_store_that_fails_delays_and_loses_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await put_away(world, "m")
    whole, failures = world.store.told_push, [1, 2]

    async def fails_twice(*args: Any, **more: Any) -> bool:
        if failures:
            failures.pop()
            raise StoreFailure("full", "no room")
        return await whole(*args, **more)

    monkeypatch.setattr(world.store, "told_push", fails_twice)
    await back(world)
    await world.eventually(lambda: world.told(EventName.PUSH_DELIVERED) != [] and not failures, within=500, step=1)
    await world.until(clock() + 500)
    assert len(told(world)) == 3
    [push] = await world.store.pushes(world.told(EventName.PUSH_DELIVERED)[0].receipt or "")
    assert push.progress.told.startswith("completed")


@simulated
async def test_a_configuration_that_no_key_opens_is_given_up_and_said(world: World) -> None:
    [receipt] = await put_away(world, "m")
    [push] = await world.store.pushes(receipt)
    strange = StoredPush(id=push.stored.id, protocol="0.3", sealed=b"\x01" + bytes(40))
    assert await world.store.put_push(receipt, strange, Progress(), most=9)
    await back(world)
    await world.eventually(lambda: world.told(EventName.PUSH_GIVEN_UP) != [])
    assert "key is gone" in str(world.told(EventName.PUSH_GIVEN_UP)[0].fields["reason"])
    assert told(world) == []


@simulated
async def test_expired_tasks_are_told_as_failed(world: World) -> None:
    await put_away(world, "m", **{"queue.ttl": 60})
    await world.eventually(lambda: told(world) != [], within=100)
    task = json.loads(told(world)[0].request.body)
    assert (task["kind"], task["status"]["state"]) == ("task", "failed")
    assert told(world)[0].header("X-A2A-Notification-Token") == "tok"


@simulated
async def test_an_ended_task_is_told_once_however_often_it_is_swept(world: World) -> None:
    await put_away(world, "m", **{"push.sweep": 5})
    await back(world)
    await world.until(clock() + 3600)
    assert len(told(world)) == 1


@simulated
async def test_news_that_comes_while_a_receiver_is_told_is_told_after_it(world: World) -> None:
    await away(world)
    receipts = [(await world.call(body=sends(name, context_id="c"))).receipt for name in ("a", "b")]
    world.agent("hook").reacts.usual = Reacts(after=3)
    await back(world, Reacts(after=1))
    await world.eventually(lambda: len(told(world)) == 2)
    assert world.agent("hook").most_open == 2  # two tasks, two couriers
    assert {event.receipt for event in world.told(EventName.DEFERRAL_COMPLETED)} == set(receipts)


@simulated
async def test_the_tasks_of_a_workspace_that_was_removed_are_told_as_failed(world: World) -> None:
    await put_away(world, "m")
    reply = await world.request("DELETE", "/workspaces/ws")
    assert reply.status in {200, 204}, reply
    await world.eventually(lambda: told(world) != [], within=100)
    assert json.loads(told(world)[0].request.body)["status"]["state"] == "failed"
    await world.until(clock() + 1000)
    assert len(told(world)) == 1


@simulated
async def test_a_receiver_that_comes_while_all_are_looked_after_is_not_forgotten(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put_away(world)
    whole = world.store.receivers

    async def reads_slowly() -> Any:
        found = await whole()
        reply = await world.call(body=sends("m"))
        assert reply.status == 202
        return found

    monkeypatch.setattr(world.store, "receivers", reads_slowly)
    await world.app.pushing.notifying.sweep()
    monkeypatch.undo()
    await back(world)
    await world.eventually(lambda: len(told(world)) == 1, within=5)


def a_task(state: str) -> Reacts:
    task = {"kind": "task", "id": "up", "contextId": "theirs", "status": {"state": state}}
    return Reacts(body=json.dumps({"jsonrpc": "2.0", "id": 1, "result": task}).encode())


@simulated
async def test_an_agent_that_goes_on_is_asked_after_growing_pauses_whatever_happens_to_the_questions(
    world: World,
) -> None:
    await put_away(world, "m", **{"push.look": 2, "push.look_cap": 16})
    world.agent().reacts.queue(a_task("working"), fails(), Reacts(status=401), a_task("working"), fails())
    await back(world, a_task("working"))
    await world.eventually(lambda: len(told(world)) == 1)
    await world.until(clock() + 70)
    asked = [json.loads(heard.request.body)["method"] for heard in world.agent().heard]
    assert asked[:3] == ["message/send", "message/send", "tasks/get"]  # when it was away, delivered, asked
    times = [heard.at for heard in world.agent().heard if b"tasks/get" in heard.request.body]
    grown = [later - earlier for earlier, later in itertools.pairwise(times)][:4]
    assert grown == pytest.approx([4, 8, 16, 16], abs=0.5)
    assert len(told(world)) == 1  # nothing had changed
    world.agent().reacts.usual = a_task("completed")
    await world.eventually(lambda: len(told(world)) == 2, within=20)
    assert json.loads(told(world)[1].request.body)["status"]["state"] == "completed"
    await world.until(clock() + 1000)
    assert len(told(world)) == 2
    assert len(world.agent().heard) == len(asked) + 1
