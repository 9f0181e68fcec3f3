"""Conformance of every store: what an admin does to a queue, and what one caller may have in it."""

import asyncio
from dataclasses import replace

import pytest
from store.examples import (
    NO_LIMITS,
    T0,
    a_decision,
    a_deferral,
    a_leased,
    a_workspace,
    at,
    claim,
    get,
    put,
    without_seq,
)

from proxy.core.deferral import Deferral, Priority, State, StoredAnswer, StoredTask
from proxy.store import Ending, Placed, QueueLimits, QueueSize, Requeue, Store

COMPLETED = Ending(state=State.COMPLETED, at=at(5))
DEAD = Ending(state=State.DEAD_LETTERED, at=at(5), error="attempts used up")
FAILED = StoredTask(json=b'{"failed":1}', version="1.0", state="failed")
SUBMITTED = StoredTask(json=b'{"submitted":1}', version="1.0", state="submitted")
LATER = at(9000)


@pytest.fixture
async def queue(store: Store) -> Store:
    await store.create(a_workspace())
    await store.create(a_workspace("other"))
    return store


async def bury(store: Store, *names: str, ending: Ending = DEAD) -> None:
    """Claim these, which must be all that is claimable, and end them as dead letters."""
    tokens = "abcdefgh"[: len(names)]
    assert sorted(await claim(store, tokens)) == sorted(names)
    for name in names:
        lease = (await get(store, name)).lease
        assert lease is not None
        assert await store.finish(name, lease.token, ending) is not None


async def redrive(store: Store, deferral_id: str, **more) -> Deferral | None:
    return await store.redrive(deferral_id, now=at(10), expires_at=LATER, **more)


async def sizes(store: Store) -> dict[str, QueueSize]:
    return dict((await store.snapshot(restarts_since=T0, completed_since=T0)).sizes)


# Redriving


async def test_a_redriven_dead_letter_is_queued_with_a_new_budget_and_its_history(queue: Store):
    first = a_deferral("d", context_id="c", maybe=True, task=SUBMITTED, credentials=b"sealed")
    await put(queue, first)
    await claim(queue, "a")
    again = Requeue(next_attempt_at=T0, attempts=4, maybe=True, gateway_since=at(1), error="reset")
    await queue.release("d", "a", again)
    await bury(queue, "d", ending=replace(DEAD, task=FAILED, answer=StoredAnswer(status=502, headers=(), body=b"")))
    assert await sizes(queue) == {}
    back = await redrive(queue, "d", task=SUBMITTED, decision=a_decision("redriven"))
    assert back is not None
    assert without_seq(back) == replace(
        first,
        next_attempt_at=at(10),
        expires_at=LATER,
        tries=2,
        leased_at=T0,
        last_error="attempts used up",
        credentials=None,
    )
    assert await get(queue, "d") == back
    assert await sizes(queue) == {"w": QueueSize(rows=1, bytes=6)}
    assert await queue.decisions("w", limit=9) == [a_decision("redriven")]
    assert await claim(queue, "b", now=at(10)) == ["d"]
    answer = StoredAnswer(status=200, headers=(), body=b"done")
    done = await queue.finish("d", "b", replace(COMPLETED, answer=answer))
    assert done is not None
    assert (done.answer, done.completed_at, await sizes(queue)) == (answer, at(5), {})


async def test_a_redrive_without_a_task_keeps_the_one_that_is_there(queue: Store):
    await put(queue, a_deferral("d"))
    await bury(queue, "d", ending=replace(DEAD, task=FAILED))
    back = await redrive(queue, "d")
    assert back is not None
    assert back.task == FAILED


@pytest.mark.parametrize("marked", [False, True])
async def test_a_try_that_may_have_reached_the_agent_marks_the_dead_letter_for_its_redrive(queue: Store, marked):
    await put(queue, a_deferral("d"), a_deferral("kept", maybe=True))
    await bury(queue, "d", "kept", ending=replace(DEAD, maybe=marked))
    assert (await get(queue, "d")).maybe is marked
    back, kept = await redrive(queue, "d"), await redrive(queue, "kept")
    assert back is not None
    assert kept is not None
    assert (back.maybe, kept.maybe) == (marked, True)


@pytest.mark.parametrize(
    "state", [State.QUEUED, State.LEASED, State.COMPLETED, State.EXPIRED, State.CANCELLED, State.DROPPED]
)
async def test_what_is_no_dead_letter_is_not_redriven(queue: Store, state):
    await put(queue, a_deferral("d"))
    if state in {State.LEASED, State.COMPLETED}:
        await claim(queue, "a")
    if state is State.COMPLETED:
        await queue.finish("d", "a", COMPLETED)
    elif state not in {State.QUEUED, State.LEASED}:
        await queue.finish("d", None, Ending(state=state, at=at(5)))
    before = await get(queue, "d")
    assert before.state is state
    assert await redrive(queue, "d", decision=a_decision()) is None
    assert await redrive(queue, "none", decision=a_decision()) is None
    assert await get(queue, "d") == before
    assert await queue.decisions("w", limit=9) == []


@pytest.mark.parametrize(
    ("other", "wins"),
    [
        ({}, False),
        ({"idempotency_key": "other"}, True),
        ({"caller": "client:other"}, True),
        ({"workspace_id": "other"}, True),
        ({"idempotency_key": None}, True),
    ],
)
async def test_a_dead_letter_whose_key_is_active_again_stays_dead(queue: Store, other, wins):
    keyed = a_deferral("d", idempotency_key="k", digest="sha")
    await put(queue, keyed)
    await bury(queue, "d")
    await put(queue, replace(keyed, **{"id": "successor", **other}))
    back = await redrive(queue, "d")
    assert (back is not None) == wins
    assert (await get(queue, "d")).state is (State.QUEUED if wins else State.DEAD_LETTERED)


async def test_many_redrives_at_once_queue_it_once(queue: Store):
    await put(queue, a_deferral("d"))
    await bury(queue, "d")
    did = await asyncio.gather(*(redrive(queue, "d", decision=a_decision(str(n))) for n in range(8)))
    assert sum(each is not None for each in did) == 1
    assert await sizes(queue) == {"w": QueueSize(rows=1, bytes=6)}
    assert len(await queue.decisions("w", limit=9)) == 1


async def test_nothing_is_redriven_for_a_workspace_that_was_removed(queue: Store):
    await put(queue, a_deferral("d"))
    await bury(queue, "d")
    known = await queue.workspace("w")
    assert known is not None
    assert await queue.remove(known, at=at(6), reason="gone", decision=a_decision("removed"))
    assert await redrive(queue, "d") is None


async def test_a_redriven_one_takes_its_old_place_in_its_context(queue: Store):
    await put(queue, *(a_deferral(name, context_id="c") for name in ("first", "second", "third")))
    await bury(queue, "first")
    await redrive(queue, "first")
    for name in ("first", "second", "third"):
        assert await claim(queue, "ab", now=at(10)) == [name]
        await queue.finish(name, "a", COMPLETED)


async def test_a_redriven_one_waits_for_a_successor_that_is_being_delivered(queue: Store):
    await put(queue, a_deferral("first", context_id="c"), a_deferral("second", context_id="c"))
    await bury(queue, "first")
    assert await claim(queue, "x") == ["second"]
    await redrive(queue, "first")
    assert await claim(queue, "y", now=at(10)) == [], "one of a context is leased at a time"
    await queue.release("second", "x", Requeue(next_attempt_at=at(10), attempts=1, maybe=True))
    assert await claim(queue, "z", now=at(10)) == ["first"], "it was accepted first"
    await queue.finish("first", "z", COMPLETED)
    assert await claim(queue, "w", now=at(10)) == ["second"]


async def test_a_critical_one_that_is_redriven_pulls_its_context_along(queue: Store):
    await put(
        queue,
        a_deferral("info", context_id="c", priority=Priority.INFO),
        a_deferral("critical", context_id="c", priority=Priority.CRITICAL),
    )
    await claim(queue, "a")
    await queue.finish("info", "a", COMPLETED)
    await bury(queue, "critical")
    await put(queue, a_deferral("task"), a_deferral("later", context_id="c", priority=Priority.INFO))
    await redrive(queue, "critical")
    assert await claim(queue, "a", now=at(10)) == ["critical"]
    await queue.finish("critical", "a", COMPLETED)
    assert await claim(queue, "ab", now=at(10)) == ["task", "later"]


async def test_an_adopted_one_that_was_buried_comes_back_as_an_ordinary_one(queue: Store):
    await put(queue, a_leased("adopted", "t", context_id="c", adopted=True))
    await queue.finish("adopted", "t", DEAD)
    await put(queue, a_deferral("next", context_id="c"))
    back = await redrive(queue, "adopted")
    assert back is not None
    assert not back.adopted
    assert await claim(queue, "ab", now=at(10)) == ["adopted"]


# What is stale


async def test_stale_lists_what_has_waited_for_too_long_oldest_first(queue: Store):
    await put(
        queue,
        a_deferral("elsewhere", workspace_id="other", enqueued_at=at(1)),
        a_deferral("oldest", enqueued_at=at(2)),
        a_deferral("younger", enqueued_at=at(9), credentials=b"x"),
        a_deferral("exactly", enqueued_at=at(10)),
        a_leased("leased", "t", enqueued_at=at(1)),
        a_deferral("ended", enqueued_at=at(1)),
    )
    await queue.finish("ended", None, Ending(state=State.DROPPED, at=at(11)))
    listed = await queue.stale(before=at(10), limit=9)
    assert [deferral.id for deferral in listed] == ["oldest", "younger", "elsewhere"]
    assert (listed[1].request.body, listed[1].credentials) == (b"", None)

    async def ids(**asked) -> list[str]:
        return [deferral.id for deferral in await queue.stale(before=at(10), **asked)]

    assert await ids(workspace_id="w", limit=9) == ["oldest", "younger"]
    assert await ids(workspace_id="w", limit=1) == ["oldest"]
    assert await ids(workspace_id="other", limit=9) == ["elsewhere"]
    assert await ids(workspace_id="unknown", limit=9) == []
    assert await ids(limit=2) == ["oldest", "younger"]


# The limit of one caller


@pytest.mark.parametrize(
    ("second", "placed"),
    [
        ({}, Placed.FULL_CALLER),
        ({"caller": "client:other"}, Placed.INSERTED),
        ({"caller": None}, Placed.INSERTED),
        ({"workspace_id": "other"}, Placed.INSERTED),
    ],
)
async def test_a_caller_has_no_more_in_a_queue_than_its_limit(queue: Store, second, placed):
    limits = QueueLimits(rows=0, bytes=0, idempotency_since=None, caller_rows=2)
    await put(queue, a_deferral("queued"), a_leased("leased", "t"), a_deferral("nobody", caller=None))
    did = await queue.enqueue(a_deferral("new", **second), limits=limits, decision=a_decision())
    assert did.placed is placed
    is_new = placed is Placed.INSERTED
    assert did.depth == (3 + (is_new and "workspace_id" not in second) if "workspace_id" not in second else 1)
    assert (await queue.deferral("new") is not None) == is_new
    assert await queue.decisions("w", limit=9) == [a_decision()] * is_new


async def test_what_ended_makes_room_for_its_caller_and_a_repetition_needs_none(queue: Store):
    limits = QueueLimits(rows=0, bytes=0, idempotency_since=None, caller_rows=1)
    keyed = a_deferral("first", idempotency_key="k", digest="sha")
    assert (await queue.enqueue(keyed, limits=limits)).placed is Placed.INSERTED
    assert (await queue.enqueue(replace(keyed, id="again"), limits=limits)).placed is Placed.JOINED
    assert (await queue.enqueue(a_deferral("second"), limits=limits)).placed is Placed.FULL_CALLER
    await queue.finish("first", None, Ending(state=State.CANCELLED, at=at(1)))
    assert (await queue.enqueue(a_deferral("second"), limits=limits)).placed is Placed.INSERTED


async def test_scenario_47_an_expired_one_makes_room_for_its_caller_too(queue: Store):
    limits = QueueLimits(rows=0, bytes=0, idempotency_since=None, caller_rows=1)
    keyed = a_deferral("first", idempotency_key="k", digest="sha")
    await queue.enqueue(keyed, limits=limits)
    late = replace(keyed, id="second", enqueued_at=at(3600), expires_at=at(7200))
    assert (await queue.enqueue(late, limits=limits)).placed is Placed.INSERTED


async def test_scenario_47_the_task_of_an_expired_one_ends_with_it(queue: Store):
    keyed = a_deferral("first", idempotency_key="k", digest="sha", task=SUBMITTED)
    await put(queue, keyed)
    late = replace(keyed, id="second", enqueued_at=at(3600), expires_at=at(7200))
    did = await queue.enqueue(late, limits=NO_LIMITS, expired_task=lambda deferral: FAILED if deferral.task else None)
    assert did.expired is not None
    assert did.expired.task == FAILED
    assert (await get(queue, "first")).task == FAILED
