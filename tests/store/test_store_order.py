"""Conformance of every store: which deferral goes next."""

from dataclasses import replace

import pytest
from store.examples import T0, a_deferral, a_lease, a_leased, a_workspace, at, claim, get, put

from proxy.core.deferral import Priority, State
from proxy.store import Ending, Requeue, Store

COMPLETED = Ending(state=State.COMPLETED, at=at(5))
BACK = Requeue(next_attempt_at=T0, attempts=0, maybe=False)


@pytest.fixture
async def queue(store: Store) -> Store:
    await store.create(a_workspace())
    await store.create(a_workspace("other"))
    return store


async def test_scenario_41_the_highest_priority_goes_first_then_the_oldest(queue: Store):
    await put(
        queue,
        a_deferral("info", priority=Priority.INFO),
        a_deferral("task-1"),
        a_deferral("task-2"),
        a_deferral("critical", priority=Priority.CRITICAL),
    )
    assert await claim(queue, "abc") == ["critical", "task-1", "task-2"]
    assert await claim(queue, "de") == ["info"]


async def test_only_the_first_of_a_context_can_be_claimed(queue: Store):
    await put(
        queue,
        a_deferral("c1", context_id="c"),
        a_deferral("c2", context_id="c"),
        a_deferral("free"),
        a_deferral("e1", context_id="e"),
        a_deferral("foreign", context_id="c", workspace_id="other"),
    )
    assert await claim(queue, "1234") == ["c1", "free", "e1"]
    assert await claim(queue, "5") == []
    await queue.finish("c1", "1", COMPLETED)
    assert await claim(queue, "6") == ["c2"]
    assert await claim(queue, "7", workspace="other") == ["foreign"]


async def test_a_released_head_stays_head(queue: Store):
    await put(queue, a_deferral("c1", context_id="c"), a_deferral("c2", context_id="c"))
    await claim(queue, "a")
    assert await queue.release("c1", "a", replace(BACK, next_attempt_at=at(5)))
    assert await claim(queue, "b", now=at(4)) == []
    assert await claim(queue, "b", now=at(5)) == ["c1"]


async def test_a_critical_message_pulls_those_before_it_along(queue: Store):
    await put(
        queue,
        a_deferral("task"),
        a_deferral("c1", context_id="c", priority=Priority.INFO),
        a_deferral("c2", context_id="c", priority=Priority.CRITICAL),
        a_deferral("c3", context_id="c", priority=Priority.INFO),
    )
    assert await claim(queue, "a") == ["c1"]
    await queue.finish("c1", "a", COMPLETED)
    assert await claim(queue, "b") == ["c2"]
    await queue.finish("c2", "b", COMPLETED)
    assert await claim(queue, "c") == ["task"], "the pull ends with the critical one"


async def test_a_context_loses_its_rank_when_the_critical_one_is_cancelled(queue: Store):
    await put(
        queue,
        a_deferral("c1", context_id="c", priority=Priority.INFO),
        a_deferral("c2", context_id="c", priority=Priority.CRITICAL),
        a_deferral("task"),
    )
    await queue.finish("c2", None, Ending(state=State.CANCELLED, at=at(1)))
    assert await claim(queue, "a") == ["task"]


async def test_a_critical_message_that_comes_while_the_head_is_leased_counts_when_it_comes_back(queue: Store):
    await put(queue, a_deferral("c1", context_id="c", priority=Priority.INFO), a_deferral("task"))
    await queue.claim("w", leases=[a_lease("x"), a_lease("y")], now=T0)
    await put(queue, a_deferral("c2", context_id="c", priority=Priority.CRITICAL))
    await queue.release("c1", "y", BACK)
    await queue.release("task", "x", BACK)
    assert await claim(queue, "a") == ["c1"]


@pytest.mark.parametrize("ended", ["c1", "c2", "c3"])
async def test_whoever_ends_the_order_of_the_others_stays(queue: Store, ended):
    names = ["c1", "c2", "c3"]
    await put(queue, *(a_deferral(name, context_id="c") for name in names))
    await queue.finish(ended, None, Ending(state=State.CANCELLED, at=at(1)))
    names.remove(ended)
    for name in names:
        assert await claim(queue, "ab") == [name]
        await queue.finish(name, "a", COMPLETED)


async def test_an_adopted_one_blocks_nobody_until_its_call_breaks(queue: Store):
    await put(queue, a_leased("adopted", "t", context_id="c", adopted=True), a_deferral("next", context_id="c"))
    assert await claim(queue, "a") == ["next"]
    assert await queue.release("adopted", "t", BACK)
    back = await get(queue, "adopted")
    assert (back.state, back.adopted) == (State.QUEUED, False)
    assert await claim(queue, "b") == [], "one of a context is leased at a time"
    await queue.finish("next", "a", COMPLETED)
    assert await claim(queue, "c") == ["adopted"]


async def test_an_adopted_one_that_breaks_goes_back_to_its_place(queue: Store):
    await put(
        queue,
        a_leased("adopted", "t", context_id="c", adopted=True),
        a_deferral("next", context_id="c"),
        a_leased("free", "u", adopted=True),
    )
    await queue.release("adopted", "t", BACK)
    await queue.release("free", "u", BACK)
    assert await claim(queue, "abc") == ["adopted", "free"]


async def test_an_adopted_one_behind_others_waits_for_them_when_it_breaks(queue: Store):
    await put(queue, a_deferral("first", context_id="c"), a_leased("adopted", "t", context_id="c", adopted=True))
    await queue.release("adopted", "t", BACK)
    assert await claim(queue, "ab") == ["first"]
    await queue.release("first", "a", BACK)
    assert await claim(queue, "ab") == ["first"]
    await queue.finish("first", "a", COMPLETED)
    assert await claim(queue, "ab") == ["adopted"]


async def test_an_adopted_one_that_succeeds_leaves_the_order_alone(queue: Store):
    await put(queue, a_leased("adopted", "t", context_id="c", adopted=True), a_deferral("next", context_id="c"))
    await queue.finish("adopted", "t", COMPLETED)
    assert await claim(queue, "ab") == ["next"]


async def test_one_that_comes_leased_holds_its_context(queue: Store):
    await put(queue, a_deferral("first", context_id="c"), a_leased("sent", "t", context_id="c"))
    assert await claim(queue, "a") == []
    await queue.finish("sent", "t", COMPLETED)
    assert await claim(queue, "a") == ["first"]


async def test_what_is_not_due_or_overdue_is_not_claimed(queue: Store):
    await put(
        queue,
        a_deferral("later", next_attempt_at=at(10)),
        a_deferral("over", expires_at=at(10)),
    )
    assert await claim(queue, "ab", now=at(9.999999)) == ["over"]
    await queue.release("over", "a", BACK)
    assert await claim(queue, "ab", now=at(10)) == ["later"]


async def test_due_names_workspaces_with_a_claimable_head(queue: Store):
    await queue.create(a_workspace("idle"))
    await put(queue, a_deferral("w", next_attempt_at=at(5)), a_deferral("o", workspace_id="other", expires_at=at(6)))
    assert list(await queue.due(T0, limit=9)) == ["other"]
    assert list(await queue.due(at(5), limit=9)) == ["w", "other"]
    assert list(await queue.due(at(5), limit=1)) == ["w"]
    assert list(await queue.due(at(6), limit=9)) == ["w"]
    await claim(queue, "a", now=at(6))
    assert list(await queue.due(at(6), limit=9)) == []
