"""Leases of a polling workspace: renewed, used, given up, lost; and what is no way to use one."""

import base64
import json
from typing import Any

import pytest
from web.harness import Harness
from web.pollers import message_of, until
from web.test_deferral import follow, state_of
from web.test_polling import polling, receipt

from proxy.store import StoreFailure


async def test_scenario_53_what_nobody_completes_returns_and_the_old_token_is_refused(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.app.LEASE_SWEEP", 600)  # who waits is told when the lease ends, not when a sweep comes
    proxy = await make(poll__lease_least=0.1, queue__lease=600)
    poller = await polling(proxy)
    got, _ = await proxy.send("a", await proxy.client(), message_id="m1")
    first = await poller.one(lease_seconds=0.1)
    second = await poller.one(lease_seconds=30)  # waits until the first lease has run out
    assert second["queue_id"] == first["queue_id"]
    assert (second["attempt"], second["redelivery"]) == (2, "maybe")
    assert second["headers"]["Holdfast-Redelivery"] == "maybe"
    for status, answer in (
        await poller.complete(first),
        await poller.extend(first),
        await poller.fail(first),
        await poller.tell(first, b""),
    ):
        assert (status, answer["queue_id"], answer["status"]) == (409, first["queue_id"], "leased")
    assert (await poller.complete(second))[0] == 200
    assert (await poller.complete(second))[1]["status"] == "completed"
    assert (await receipt(proxy, got))["status"] == "completed"


async def test_a_lease_that_ran_out_is_refused_although_nobody_else_has_the_deferral(make: Any) -> None:
    proxy = await make(poll__lease_least=0.1)
    poller = await polling(proxy)
    await proxy.send("a", await proxy.client(), message_id="m1")
    item = await poller.one(lease_seconds=0.1)
    kept = await proxy.app.store.deferral(item["queue_id"])
    assert kept is not None
    assert kept.lease is not None
    until_then = kept.lease.until
    await until(lambda: proxy.app.now() >= until_then)
    assert (await poller.complete(item))[0] == 409


async def test_an_extended_lease_lasts_longer(make: Any) -> None:
    proxy = await make(poll__lease_most=120)
    poller = await polling(proxy)
    await proxy.send("a", await proxy.client(), message_id="m1")
    item = await poller.one(lease_seconds=10)
    before = await proxy.app.store.deferral(item["queue_id"])
    status, answer = await poller.extend(item, 90)
    after = await proxy.app.store.deferral(item["queue_id"])
    assert (status, answer["lease_seconds"]) == (200, 90)
    assert before is not None
    assert before.lease is not None
    assert after is not None
    assert after.lease is not None
    assert 75 < (after.lease.until - before.lease.until).total_seconds() < 85
    assert (await poller.extend(item, 10_000))[1]["lease_seconds"] == 120


async def test_a_failure_that_may_be_repeated_backs_off_marks_and_counts(make: Any) -> None:
    proxy = await make(queue__attempts=3, queue__backoff=0.01, queue__backoff_cap=0.02)
    poller = await polling(proxy)
    client = await proxy.client()
    got, said = await proxy.send("a", client, message_id="m1")
    for attempt in (1, 2):
        item = await poller.one()
        assert (item["attempt"], item["redelivery"]) == (attempt, "no" if attempt == 1 else "maybe")
        status, answer = await poller.fail(item, f"oops {attempt}")
        assert (status, answer["status"]) == (200, "queued")
        assert (await receipt(proxy, got))["last_error"] == f"oops {attempt}"
    item = await poller.one()
    status, answer = await poller.fail(item, "oops 3")
    assert (status, answer["status"]) == (200, "dead_lettered")
    shown = await receipt(proxy, got)
    assert (shown["attempts"], shown["last_error"]) == (3, "3 attempts used up: oops 3")
    task = await follow(proxy, client, said["result"]["task"]["id"])
    assert task["status"]["state"] == "TASK_STATE_FAILED"


async def test_what_becomes_due_while_a_claim_looks_for_it_is_not_missed(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = await make(queue__backoff=0.2, queue__backoff_cap=0.2, queue__sweep=600)
    poller = await polling(proxy)
    await proxy.send("a", await proxy.client(), message_id="m1")
    item = await poller.one()
    await poller.fail(item)
    kept = await proxy.app.store.deferral(item["queue_id"])
    assert kept is not None
    due_at, claim = kept.next_attempt_at, proxy.app.store.claim

    async def slow(*said: Any, **more: Any) -> Any:
        found = await claim(*said, **more)
        await until(lambda: proxy.app.now() > due_at)
        return found

    monkeypatch.setattr(proxy.app.store, "claim", slow)
    assert (await poller.one())["queue_id"] == item["queue_id"]


async def test_a_poison_request_that_silences_every_poller_is_given_up(make: Any) -> None:
    proxy = await make(queue__attempts=2, poll__lease_least=0.1)
    poller = await polling(proxy)
    client = await proxy.client()
    got, _ = await proxy.send("a", client, message_id="poison")
    for _ in range(2):
        await poller.one(lease_seconds=0.1)
    await proxy.send("a", client, message_id="next")
    assert message_of(await poller.one(lease_seconds=30))["messageId"] == "next"

    async def given_up() -> bool:
        await poller.claim()
        return bool((await receipt(proxy, got))["status"] == "dead_lettered")

    await until(given_up)
    shown = await receipt(proxy, got)
    assert (shown["status"], shown["last_error"]) == ("dead_lettered", "2 attempts used up: lease ran out")


async def test_a_failure_for_good_is_a_dead_letter_and_the_caller_s_task_failed(proxy: Harness) -> None:
    poller = await polling(proxy)
    client = await proxy.client()
    got, said = await proxy.send("a", client, message_id="m1")
    item = await poller.one()
    status, answer = await poller.fail(item, "the tool is broken", retry=False)
    assert (status, answer["status"]) == (200, "dead_lettered")
    assert (await receipt(proxy, got))["last_error"] == "the tool is broken"
    task = await state_of(proxy, client, said["result"]["task"]["id"])
    assert task["status"]["state"] == "TASK_STATE_FAILED"
    assert "the tool is broken" in json.dumps(task)


@pytest.mark.parametrize("how", ["fails", "falls silent"])
async def test_where_redelivery_is_never_nothing_is_handed_out_twice(make: Any, how: str) -> None:
    proxy = await make(poll__lease_least=0.1)
    poller = await polling(proxy, redelivery="never")
    client = await proxy.client()
    got, said = await proxy.send("a", client, message_id="m1")
    item = await poller.one(lease_seconds=0.1)
    if how == "fails":
        await poller.fail(item)
    await proxy.send("a", client, message_id="m2")
    assert message_of(await poller.one())["messageId"] == "m2"

    async def given_up() -> bool:
        assert await poller.claim(wait_seconds=0.1) == []
        return bool((await receipt(proxy, got))["status"] == "dead_lettered")

    await until(given_up)
    task = await state_of(proxy, client, said["result"]["task"]["id"])
    assert task["status"]["state"] == "TASK_STATE_FAILED"


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ({"body_base64": "not base64!"}, 400),
        ({"body_base64": "YWJj\n"}, 400),
        ({"status": 99}, 400),
        ({"status": 101}, 400),
        ({"status": 1000}, 400),
        ({"status": "200"}, 400),
        ({"headers": {"bad name": "x"}}, 400),
        ({"headers": {"X": "a\r\nB: c"}}, 400),
        ({"headers": {"X": "☃"}}, 400),
        ({"headers": []}, 400),
        ({"lease_token": ""}, 400),
        ({"unknown": 1}, 400),
        ({"body_base64": base64.b64encode(bytes(5000)).decode()}, 413),
    ],
)
async def test_a_bad_completion_is_refused_and_the_lease_is_kept(make: Any, said: dict[str, Any], status: int) -> None:
    proxy = await make(server__answer_limit=4096)
    poller = await polling(proxy)
    await proxy.send("a", await proxy.client(), message_id="m1")
    item = await poller.one()
    answer = {"lease_token": item["lease_token"], "status": 200, "body_base64": "", **said}
    got, refused = await poller.post(f"{item['queue_id']}/complete", answer)
    assert got.status == status, refused
    assert refused["error"]
    assert (await poller.complete(item))[0] == 200


async def test_a_store_that_fails_refuses_and_the_lease_is_kept(
    proxy: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    poller = await polling(proxy)
    await proxy.send("a", await proxy.client(), message_id="m1")
    item = await poller.one()

    async def full(*_: Any, **__: Any) -> None:
        raise StoreFailure("full", "the test says so")

    for name in ("finish", "release", "extend", "claim"):
        monkeypatch.setattr(proxy.app.store, name, full)
    status, _ = await poller.complete(item)
    assert status == 503
    assert (await poller.fail(item))[0] == 503
    assert (await poller.extend(item))[0] == 503
    assert (await poller.post("claim"))[0].status == 503
    monkeypatch.undo()
    assert (await poller.complete(item))[0] == 200
