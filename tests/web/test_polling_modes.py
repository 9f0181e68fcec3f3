"""Push or poll: it is never guessed, and it may be changed while requests are on their way."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from aiohttp import web
from web.harness import V1, Harness, ScriptedAgent, completed, send
from web.pollers import Poller, message_of, until
from web.test_polling import polling, receipt, status_of, waited_for

from proxy.forward import UpstreamFailure
from proxy.store import Requeue, StoreFailure

# --- never guessed ---------------------------------------------------------------------------------------------------


async def test_scenario_52_while_the_table_is_not_filled_the_answer_is_503_and_nobody_is_dialled(
    proxy: Harness, agent: ScriptedAgent
) -> None:
    await polling(proxy, url=agent.url)
    proxy.app.routing.ready = False
    known = proxy.app.routing._routes
    proxy.app.routing._routes = {}
    got, body = await proxy.call("POST", "/workspaces/a/a2a", headers=V1, json=send())
    proxy.app.routing._routes = known
    assert (got.status, json.loads(body)["error"]["data"][0]["reason"]) == (503, "STARTING")
    assert got.headers["Retry-After"] == "1"
    assert agent.seen == []


@pytest.mark.parametrize("asked", ["deferral", "deferral_of_task", "enqueue"])
@pytest.mark.parametrize("fault", ["locked", "closed", "io"])
async def test_scenario_52_a_look_up_that_fails_is_503_and_nobody_is_dialled(
    proxy: Harness, agent: ScriptedAgent, monkeypatch: pytest.MonkeyPatch, asked: str, fault: str
) -> None:
    await polling(proxy, url=agent.url)
    client = await proxy.client()
    _, said = await proxy.send("a", client, message_id="m1")
    task_id = said["result"]["task"]["id"]

    async def broken(*_: Any, **__: Any) -> None:
        raise StoreFailure(fault, "the test says so")

    monkeypatch.setattr(proxy.app.store, asked, broken)
    again = {"deferral": {"message_id": "m1"}, "deferral_of_task": {"message_id": "m2", "taskId": task_id}}
    got, _ = await proxy.send("a", client, **again.get(asked, {"message_id": "m3"}))
    assert got.status == 503
    assert int(got.headers["Retry-After"]) > 0
    assert agent.seen == []


async def test_scenario_52_a_look_up_that_is_cancelled_is_no_reason_to_dial(
    proxy: Harness, agent: ScriptedAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    await polling(proxy, url=agent.url)
    client = await proxy.client()
    await proxy.send("a", client, message_id="m1")
    asked, put = asyncio.Event(), proxy.app.store.deferral

    async def cancelled(deferral_id: str) -> Any:
        asked.set()
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        return await put(deferral_id)

    monkeypatch.setattr(proxy.app.store, "deferral", cancelled)
    answer = (await asyncio.gather(proxy.send("a", client, message_id="m1"), return_exceptions=True))[0]
    assert asked.is_set()
    assert isinstance(answer, BaseException) or answer[0].status == 503
    assert agent.seen == []


async def test_a_workspace_that_polls_is_not_dialled_whoever_asks(proxy: Harness, agent: ScriptedAgent) -> None:
    await polling(proxy, url=agent.url)
    route = proxy.app.routing.get("a")
    assert route is not None
    with pytest.raises(UpstreamFailure, match="polls"):
        async with proxy.app.dialer.call(route, method="POST", tail="", headers=(), body=b""):
            pass
    assert agent.seen == []


async def test_a_call_that_meets_the_change_on_its_way_is_put_away(
    proxy: Harness, agent: ScriptedAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = await proxy.enroll("a", url=agent.url)
    dial = proxy.app.dialer.call

    @asynccontextmanager
    async def late(route: Any, **said: Any) -> AsyncIterator[Any]:
        monkeypatch.undo()
        await switch(proxy, "poll")
        async with dial(route, **said) as answer:
            yield answer

    monkeypatch.setattr(proxy.app.dialer, "call", late)
    got, _ = await proxy.send("a", await proxy.client(), message_id="m1")
    assert (got.status, got.headers["Holdfast-Verdict"]) == (202, "busy; rule=poll")
    assert agent.seen == []
    assert message_of(await Poller(proxy, token).one())["messageId"] == "m1"


# --- changed ---------------------------------------------------------------------------------------------------------


async def switch(proxy: Harness, mode: str, **more: Any) -> None:
    got, body = await proxy.call("PUT", "/workspaces/a/config", json={"delivery_mode": mode, **more})
    assert got.status == 202, body


async def test_what_waits_for_push_is_claimable_as_soon_as_the_workspace_polls(make: Any, nobody: str) -> None:
    proxy = await make(queue__backoff=60, queue__backoff_cap=60)
    token = await proxy.enroll("a", url=nobody, unmanaged_away="defer")
    got, _ = await proxy.send("a", await proxy.client(), message_id="m1")
    await switch(proxy, "poll")
    item = await Poller(proxy, token).one()
    assert (item["queue_id"], item["redelivery"]) == (got.headers["Holdfast-Receipt"], "no")


async def test_what_backed_off_for_push_waits_no_longer_when_the_workspace_polls(make: Any, nobody: str) -> None:
    proxy = await make(queue__backoff=60, queue__backoff_cap=60)
    token = await proxy.enroll("a", url=nobody, unmanaged_away="defer")
    await proxy.send("a", await proxy.client(), message_id="m1")
    store, now = proxy.app.store, proxy.app.now()
    (leased,) = await store.claim("a", leases=[proxy.app.replayer.lease()], now=now)
    later = Requeue(next_attempt_at=now + timedelta(hours=1), attempts=0, maybe=False, gateway_since=now)
    assert await store.release(leased.id, leased.lease.token, later)
    await switch(proxy, "poll")
    assert (await Poller(proxy, token).one())["queue_id"] == leased.id


async def test_what_a_poller_holds_is_sent_marked_as_soon_as_the_workspace_is_pushed(
    proxy: Harness, agent: ScriptedAgent
) -> None:
    poller = await polling(proxy)
    client = await proxy.client()
    got, _ = await proxy.send("a", client, message_id="held")
    await proxy.send("a", client, message_id="waits")
    item = await poller.one()
    waiting = asyncio.create_task(poller.post("claim", {"wait_seconds": 60, "max_items": 1}))
    (await waiting)[0].close()  # takes "waits" and keeps it, too
    await switch(proxy, "push", url=agent.url)
    await proxy.until(lambda: len(proxy.named("deferral.completed")) == 2)
    marks = {json.loads(body)["params"]["message"]["messageId"]: fields for _, _, fields, body in agent.seen}
    assert {name: fields.get("Holdfast-Redelivery") for name, fields in marks.items()} == {
        "held": "maybe",
        "waits": "maybe",
    }
    assert (await poller.complete(item))[0] == 409
    assert (await poller.post("claim"))[0].status == 409
    assert (await receipt(proxy, got))["status"] == "completed"


async def test_a_long_poll_ends_when_its_workspace_is_pushed(proxy: Harness, agent: ScriptedAgent) -> None:
    poller = await polling(proxy)
    waiting = asyncio.create_task(poller.post("claim", {"wait_seconds": 60}))
    await waited_for(proxy, 1)
    await switch(proxy, "push", url=agent.url)
    got, answer = await waiting
    assert (got.status, answer["delivery_mode"]) == (409, "push")


async def test_a_workspace_says_itself_that_it_polls_from_now_on(proxy: Harness, agent: ScriptedAgent) -> None:
    token = await proxy.enroll("a", url=agent.url)
    got, _ = await proxy.call("PUT", "/workspaces/a", token=token, json={"delivery_mode": "poll"})
    assert got.status == 200
    assert (await status_of(proxy))["delivery_mode"] == "poll"
    await proxy.send("a", await proxy.client(), message_id="m1")
    poller = Poller(proxy, token)
    item = await poller.one()
    got, _ = await proxy.call("PUT", "/workspaces/a", token=token, json={"delivery_mode": "push", "url": agent.url})
    assert got.status == 200
    await proxy.until(lambda: bool(proxy.named("deferral.completed")))
    assert (await poller.complete(item))[0] == 409
    assert len(agent.seen) == 1


async def test_a_push_workspace_needs_a_url_also_when_it_polled_before(proxy: Harness) -> None:
    await polling(proxy)
    got, body = await proxy.call("PUT", "/workspaces/a/config", json={"delivery_mode": "push"})
    assert got.status == 400
    assert "needs a url" in body.decode()
    assert (await status_of(proxy))["delivery_mode"] == "poll"


async def test_a_replay_that_was_leased_before_the_change_is_not_sent(
    proxy: Harness, agent: ScriptedAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    await agent.stop()
    token = await proxy.enroll("a", url=agent.url, unmanaged_away="defer")
    begin = proxy.app.attempts.begin
    leased, go = asyncio.Event(), asyncio.Event()

    async def slowly(*said: Any) -> Any:
        leased.set()
        await go.wait()
        return await begin(*said)

    monkeypatch.setattr(proxy.app.attempts, "begin", slowly)
    await proxy.send("a", await proxy.client(), message_id="m1")
    await leased.wait()
    await agent.start()
    monkeypatch.undo()
    await switch(proxy, "poll")
    go.set()
    item = await Poller(proxy, token).one()
    assert (item["redelivery"], item["attempt"]) == ("no", 1)
    assert proxy.named("deferral.returned")[-1].fields["reason"] == "nobody dials it now"
    assert agent.seen == []


@dataclass
class Counts:
    """How often each message was executed, and how often the executing side was told that it may be a repetition."""

    executed: Counter[str] = field(default_factory=Counter)
    marked: Counter[str] = field(default_factory=Counter)
    begun: dict[str, list[int]] = field(default_factory=dict)

    def note(self, message_id: str, *, marked: bool) -> None:
        caller, _, number = message_id.partition("-")
        if not self.executed[message_id]:
            self.begun.setdefault(caller, []).append(int(number))
        self.executed[message_id] += 1
        self.marked[message_id] += marked


@dataclass
class Traffic:
    """Sends from 12 callers until it is enough, half of them in conversations; the workspace is pushed or polls."""

    proxy: Harness
    poller: Poller
    client: str
    counts: Counts = field(default_factory=Counts)
    answers: dict[str, Any] = field(default_factory=dict)
    enough: asyncio.Event = field(default_factory=asyncio.Event)
    over: asyncio.Event = field(default_factory=asyncio.Event)

    async def push(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        said = json.loads(body)["params"]["message"]["messageId"]
        self.counts.note(said, marked="Holdfast-Redelivery" in request.headers)
        await asyncio.sleep(0.002)
        return web.json_response(completed(body))

    async def fetch(self) -> None:
        while not self.over.is_set():
            got, answer = await self.poller.post("claim", {"wait_seconds": 0.2, "max_items": 3})
            if got.status == 409:  # it is pushed just now
                await asyncio.sleep(0.005)
                continue
            for item in answer["items"]:
                self.counts.note(message_of(item)["messageId"], marked="Holdfast-Redelivery" in item["headers"])
                await self.poller.complete(item)

    async def talk(self, caller: int) -> None:
        number = 0
        while not self.enough.is_set():
            name = f"{caller}-{number}"
            more = {"contextId": f"talk-{caller}"} if caller % 2 else {}
            got, _ = await self.proxy.send("a", self.client, message_id=name, **more)
            assert got.status in {200, 202}, got
            self.answers[name] = got
            number += 1
            await asyncio.sleep(0.002)

    async def more(self, answers: int) -> None:
        """Go on until so many more sends are answered."""
        share = len(self.answers) + answers
        await until(lambda: len(self.answers) >= share)


async def test_under_traffic_from_push_to_poll_to_push_everything_is_answered_once_or_marked(
    proxy: Harness, agent: ScriptedAgent
) -> None:
    token = await proxy.enroll("a", url=agent.url)
    traffic = Traffic(proxy, Poller(proxy, token), await proxy.client())
    agent.handler, counts, answers = traffic.push, traffic.counts, traffic.answers
    pollers = [asyncio.create_task(traffic.fetch()) for _ in range(3)]
    talking = [asyncio.create_task(traffic.talk(caller)) for caller in range(12)]
    await traffic.more(60)
    for mode in ("poll", "push"):
        await switch(proxy, mode, url=agent.url)
        await traffic.more(90)
    traffic.enough.set()
    await asyncio.gather(*talking)
    deferred = {name: got for name, got in answers.items() if got.status == 202}
    await proxy.until(lambda: len(proxy.named("deferral.completed")) == len(deferred))
    traffic.over.set()
    await asyncio.gather(*pollers)
    assert len(deferred) > 20
    assert set(counts.executed) == set(answers)
    unmarked = {name: counts.executed[name] - counts.marked[name] for name in answers}
    # Nothing is done twice without a mark. (What was leased at the very moment of the change is marked the first time.)
    assert set(unmarked.values()) <= {0, 1}
    assert sum(unmarked.values()) > len(answers) - 10
    assert all(begun == sorted(begun) for caller, begun in counts.begun.items() if int(caller) % 2)  # conversations
    for name, got in deferred.items():
        shown = await receipt(proxy, got)
        assert shown["status"] == "completed", name
        assert shown["response"] is not None
    assert (await status_of(proxy))["queue_depth"] == 0
