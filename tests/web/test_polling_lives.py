"""A polling workspace's lives: a new one takes over, what the old one held is handed out again, marked."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from web.harness import Harness
from web.pollers import Poller, message_of, sse
from web.test_polling import polling, receipt, status_of, waited_for

from proxy.core.lifecycle import Desired


def lives(proxy: Harness, token: str, *names: str) -> list[Poller]:
    return [Poller(proxy, token, boot_id=name) for name in names]


async def incarnation(proxy: Harness) -> int:
    return int((await status_of(proxy))["incarnation"])


async def test_a_new_boot_is_a_new_life_and_takes_over_what_the_old_one_held(proxy: Harness) -> None:
    token = (await polling(proxy)).token
    old, new = lives(proxy, token, "b1", "b2")
    client = await proxy.client()
    got, _ = await proxy.send("a", client, message_id="m1")
    await proxy.send("a", client, message_id="m2")
    held = await old.one()
    first = await incarnation(proxy)
    items = await new.claim(max_items=5)
    assert await incarnation(proxy) == first + 1
    assert proxy.named("workspace.incarnation")
    assert [(message_of(item)["messageId"], item["redelivery"]) for item in items] == [("m1", "maybe"), ("m2", "no")]
    for status, answer in (
        await old.complete(held),
        await old.extend(held),
        await old.fail(held),
        await old.tell(held, sse({})),
    ):
        assert status == 409, answer
    got_old, answer = await old.post("claim", {"boot_id": "b1"})
    assert (got_old.status, answer["incarnation"]) == (409, first + 1)
    assert await incarnation(proxy) == first + 1  # the leftover is no third life
    assert (await new.complete(items[0]))[0] == 200
    shown = await receipt(proxy, got)
    assert (shown["status"], shown["redelivery"], shown["attempts"]) == ("completed", "maybe", 1)


async def test_the_first_boot_that_is_shown_is_the_life_that_runs_already(proxy: Harness) -> None:
    poller = await polling(proxy)
    await proxy.send("a", await proxy.client(), message_id="m1")
    held = await poller.one()  # it did not say who it is
    before = await incarnation(proxy)
    (named,) = lives(proxy, poller.token, "b1")
    assert await named.claim() == []
    assert await incarnation(proxy) == before
    assert (await poller.complete(held))[0] == 200


@pytest.mark.parametrize("verb", ["complete", "extend", "fail", "events"])
async def test_a_verb_that_names_another_boot_is_refused(proxy: Harness, verb: str) -> None:
    token = (await polling(proxy)).token
    (poller,) = lives(proxy, token, "b1")
    await proxy.send("a", await proxy.client(), message_id="m1")
    item = await poller.one()
    said: dict[str, Any] = {"json": {"lease_token": item["lease_token"], "boot_id": "b0"}}
    if verb == "events":
        said = {"headers": {"Holdfast-Lease-Token": item["lease_token"], "Holdfast-Boot-Id": "b0"}, "data": b""}
    got, _ = await poller.post(f"{item['queue_id']}/{verb}", **said)
    assert got.status == 409
    assert (await poller.complete(item, boot_id="b1"))[0] == 200


async def test_a_life_that_a_beat_began_is_fenced_by_its_first_claim(proxy: Harness) -> None:
    token = (await polling(proxy)).token
    old, new = lives(proxy, token, "b1", "b2")
    await proxy.send("a", await proxy.client(), message_id="m1")
    held = await old.one()
    await proxy.call("POST", "/workspaces/a/heartbeat", token=token, json={"boot_id": "b2", "status": "ready"})
    assert (await old.complete(held))[0] == 409
    (item,) = await new.claim()
    assert item["redelivery"] == "maybe"


async def test_a_beat_of_an_old_life_begins_no_new_one(proxy: Harness) -> None:
    token = (await polling(proxy)).token
    old, new = lives(proxy, token, "b1", "b2")
    await old.claim()
    await new.claim()
    now = await incarnation(proxy)
    await proxy.call("POST", "/workspaces/a/heartbeat", token=token, json={"boot_id": "b1"})
    assert await incarnation(proxy) == now
    # A registration says so on purpose: whoever names a boot there means it.
    await proxy.call("PUT", "/workspaces/a", token=token, json={"boot_id": "b1"})
    assert await incarnation(proxy) == now + 1
    assert await old.claim() == []
    assert (await new.post("claim", {"boot_id": "b2"}))[0].status == 409


async def test_old_lives_are_remembered_by_the_next_proxy(proxy: Harness) -> None:
    token = (await polling(proxy)).token
    old, new = lives(proxy, token, "b1", "b2")
    await old.claim()
    await new.claim()
    await proxy.restart()
    assert (await old.post("claim", {"boot_id": "b1"}))[0].status == 409
    assert await new.claim() == []


async def test_an_old_life_s_long_poll_ends_when_the_new_one_comes(proxy: Harness) -> None:
    token = (await polling(proxy)).token
    old, new = lives(proxy, token, "b1", "b2")
    waiting = asyncio.create_task(old.post("claim", {"boot_id": "b1", "wait_seconds": 60}))
    await waited_for(proxy, 1)
    await new.claim()
    await proxy.send("a", await proxy.client(), message_id="m1")
    got, _ = await waiting
    assert got.status == 409
    assert len(await new.claim()) == 1


async def test_where_redelivery_is_never_a_new_life_gets_nothing_that_the_old_one_had(proxy: Harness) -> None:
    token = (await polling(proxy, redelivery="never")).token
    old, new = lives(proxy, token, "b1", "b2")
    got, _ = await proxy.send("a", await proxy.client(), message_id="m1")
    await old.one()
    assert await new.claim() == []
    shown = await receipt(proxy, got)
    assert (shown["status"], shown["redelivery"]) == ("dead_lettered", "maybe")
    assert "redelivery is never" in shown["last_error"]


async def test_a_lease_and_its_token_survive_the_proxy(proxy: Harness) -> None:
    poller = await polling(proxy)
    client = await proxy.client()
    got, _ = await proxy.send("a", client, message_id="m1")
    item = await poller.one()
    await proxy.restart()
    assert (await receipt(proxy, got))["status"] == "leased"
    assert await poller.claim() == []
    assert (await poller.extend(item))[0] == 200
    assert (await poller.complete(item))[0] == 200
    shown = await receipt(proxy, got)
    assert (shown["status"], shown["redelivery"]) == ("completed", "no")


async def test_a_parked_workspace_waits_and_is_served_when_it_is_resumed(
    proxy: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.loops.polling.PULSE", 0.02)
    poller = await polling(proxy)
    route = proxy.app.routing.get("a")
    assert route is not None
    await proxy.app.records.change(route, lambda known: replace(known, desired=Desired.PAUSED))
    await proxy.send("a", await proxy.client(), message_id="m1")
    assert await poller.claim() == []
    waiting = asyncio.create_task(poller.one())
    await waited_for(proxy, 1)
    await proxy.app.records.change(route, lambda known: replace(known, desired=Desired.RUNNING))
    assert message_of(await waiting)["messageId"] == "m1"
