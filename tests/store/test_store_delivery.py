"""Conformance of every store: leases, fencing, the ends of deferrals."""

import asyncio
from dataclasses import replace

import pytest
from store.examples import (
    T0,
    a_decision,
    a_deferral,
    a_lease,
    a_leased,
    a_workspace,
    at,
    claim,
    get,
    put,
    without_seq,
)

from proxy.core.deferral import ACTIVE, EDGES, State, StoredAnswer, StoredTask
from proxy.store import Ending, Requeue, Store

COMPLETED = Ending(state=State.COMPLETED, at=at(5))
TASK = StoredTask(json=b'{"id":"t"}', version="1.0", state="working")
ANSWER = StoredAnswer(status=200, headers=((b"Content-Type", b"text/\xe4"),), body=b"\x00\xff")
BACK = Requeue(next_attempt_at=at(7), attempts=2, maybe=True, gateway_since=at(3), error="reset")


@pytest.fixture
async def queue(store: Store) -> Store:
    await store.create(a_workspace())
    return store


async def test_scenario_42_two_claims_at_once_never_lease_the_same_row(queue: Store):
    await put(queue, *(a_deferral(f"d{n}") for n in range(30)))
    claimers = [
        queue.claim("w", leases=[a_lease(f"{n}-{m}", owner=f"proxy-{n}") for m in range(4)], now=T0) for n in range(10)
    ]
    claimed = [deferral for each in await asyncio.gather(*claimers) for deferral in each]
    assert sorted(deferral.id for deferral in claimed) == sorted(f"d{n}" for n in range(30))
    for deferral in claimed:
        assert await get(queue, deferral.id) == deferral


async def test_a_claim_hands_over_everything_and_counts_the_try(queue: Store):
    waiting = a_deferral("d", tries=3, credentials=b"sealed", context_id="c", task=TASK)
    await put(queue, waiting)
    lease = a_lease("token", until=30)
    (claimed,) = await queue.claim("w", leases=[lease, a_lease("spare")], now=at(1))
    assert without_seq(claimed) == replace(waiting, state=State.LEASED, lease=lease, leased_at=at(1), tries=4)
    assert await queue.claim("w", leases=[], now=at(1)) == []
    assert await queue.claim("unknown", leases=[lease], now=at(1)) == []


async def test_what_backed_off_is_due_at_once_when_its_workspace_is_back(queue: Store):
    await queue.create(a_workspace("other"))
    await put(
        queue,
        a_deferral("refused", context_id="c", next_attempt_at=at(40)),
        a_deferral("behind", context_id="c", next_attempt_at=at(50)),
        a_deferral("turned-away", next_attempt_at=at(5), gateway_since=at(-1)),
        a_deferral("due", next_attempt_at=at(-3)),
        a_deferral("elsewhere", workspace_id="other", next_attempt_at=at(40)),
    )
    assert await claim(queue, "x", now=at(1)) == ["due"]
    await queue.hasten("w", at(1))
    assert (await get(queue, "refused")).next_attempt_at == at(1)
    assert (await get(queue, "turned-away")).next_attempt_at == at(5)
    assert (await get(queue, "elsewhere")).next_attempt_at == at(40)
    assert (await get(queue, "due")).next_attempt_at == at(-3)
    assert await claim(queue, "abc", now=at(1)) == ["refused"]


async def test_who_does_not_hold_the_lease_changes_nothing(queue: Store):
    await put(queue, a_deferral("d"), a_deferral("q"))
    await claim(queue, "a")
    before = [await get(queue, "d"), await get(queue, "q")]
    for deferral_id, token in [("d", "b"), ("q", "a"), ("q", ""), ("d", ""), ("none", "a")]:
        assert not await queue.extend(deferral_id, token, until=at(99))
        assert not await queue.release(deferral_id, token, BACK)
        assert not await queue.learn_task(deferral_id, token, "ut", TASK)
        assert await queue.finish(deferral_id, token, COMPLETED, decision=a_decision()) is None
    assert await queue.finish("d", None, Ending(state=State.CANCELLED, at=at(1)), decision=a_decision()) is None
    assert await queue.finish("none", None, Ending(state=State.CANCELLED, at=at(1))) is None
    assert [await get(queue, "d"), await get(queue, "q")] == before
    assert await queue.decisions("w", limit=9) == []


async def test_a_successor_fences_its_predecessor_off(queue: Store):
    await put(queue, a_deferral("d"))
    await claim(queue, "a")
    await queue.release_expired(at(60))
    assert await claim(queue, "b", now=at(60)) == ["d"]
    assert await queue.finish("d", "a", COMPLETED) is None
    assert await queue.finish("d", "b", COMPLETED) is not None
    assert await queue.finish("d", "b", COMPLETED) is None


async def test_a_released_deferral_goes_back_with_what_was_learnt(queue: Store):
    await put(queue, a_deferral("d", last_error="before"))
    await claim(queue, "a")
    assert await queue.release("d", "a", BACK)
    back = await get(queue, "d")
    assert without_seq(back) == a_deferral(
        "d",
        next_attempt_at=at(7),
        attempts=2,
        tries=1,
        maybe=True,
        gateway_since=at(3),
        last_error="reset",
        leased_at=T0,
    )
    await claim(queue, "b", now=at(7))
    await queue.release("d", "b", Requeue(next_attempt_at=at(8), attempts=2, maybe=True))
    again = await get(queue, "d")
    assert (again.last_error, again.gateway_since) == ("reset", None)


async def test_scenario_46_a_lease_that_ran_out_is_a_queued_deferral_again(queue: Store):
    await put(queue, a_deferral("d", attempts=1), a_deferral("kept"), a_leased("adopted", "x", adopted=True))
    await queue.claim("w", leases=[a_lease("a", until=60), a_lease("b", until=61)], now=T0)
    assert list(await queue.release_expired(at(59.999999))) == []
    taken = await queue.release_expired(at(60))
    assert [(watch.deferral_id, watch.active, watch.adopted) for watch in taken] == [
        ("d", True, False),
        ("adopted", True, True),
    ]
    back = await get(queue, "d")
    assert (back.state, back.lease, back.maybe, back.next_attempt_at) == (State.QUEUED, None, True, at(60))
    assert (back.last_error, back.attempts, back.tries) == ("lease ran out", 2, 1)
    assert not (await get(queue, "adopted")).adopted
    assert (await get(queue, "kept")).state is State.LEASED
    assert await claim(queue, "cde", now=at(60)) == ["d", "adopted"]


async def test_scenario_46_a_starting_proxy_takes_back_what_its_earlier_life_had_leased(queue: Store):
    await put(queue, *(a_deferral(f"d{n}", context_id="c" if n < 2 else None) for n in range(3)))
    mine, other = a_lease("a", owner="me"), a_lease("b", owner="somebody")
    await queue.claim("w", leases=[mine, other], now=T0)
    assert [watch.deferral_id for watch in await queue.release_owned("me", at(1))] == ["d0"]
    back = await get(queue, "d0")
    assert (back.state, back.maybe, back.next_attempt_at) == (State.QUEUED, True, at(1))
    assert back.last_error
    assert (await get(queue, "d2")).state is State.LEASED
    assert await claim(queue, "cd", now=at(1)) == ["d0"]


async def test_a_completed_deferral_keeps_its_answer_and_drops_what_it_no_longer_needs(queue: Store):
    await put(queue, a_deferral("d", credentials=b"sealed", last_error="refused once", context_id="c", task=TASK))
    await claim(queue, "a")
    done = replace(TASK, state="completed", json=b"{}")
    ending = replace(COMPLETED, answer=ANSWER, task=done, upstream_task_id="ut", upstream_context_id="uc")
    ended = await queue.finish("d", "a", ending, decision=a_decision())
    assert ended is not None
    assert without_seq(ended) == a_deferral(
        "d",
        body=b"",
        state=State.COMPLETED,
        completed_at=at(5),
        leased_at=T0,
        tries=1,
        answer=ANSWER,
        task=done,
        upstream_task_id="ut",
        upstream_context_id="uc",
        context_id="c",
        last_error="refused once",
    )
    assert await get(queue, "d") == ended
    assert await queue.decisions("w", limit=9) == [a_decision()]


@pytest.mark.parametrize(("source", "state"), sorted((a, b) for a, b in EDGES if a in ACTIVE and b not in ACTIVE))
async def test_every_end_has_its_time_its_reason_and_no_credentials(queue: Store, source, state):
    await put(queue, a_deferral("d", credentials=b"sealed", task=TASK))
    if source is State.LEASED:
        await claim(queue, "a")
    ended = await queue.finish("d", "a" if source is State.LEASED else None, Ending(state=state, at=at(5), error="why"))
    assert ended is not None
    assert (ended.state, ended.completed_at, ended.last_error, ended.credentials) == (state, at(5), "why", None)
    assert (ended.lease, ended.task) == (None, TASK)
    assert ended.request.body == (b"hello" if state is State.DEAD_LETTERED else b"")
    assert await get(queue, "d") == ended
    assert await claim(queue, "b") == []


@pytest.mark.parametrize(
    ("token", "state"),
    [
        (token, state)
        for token, source in ((None, State.QUEUED), ("a", State.LEASED))
        for state in State
        if (source, state) not in EDGES or state in ACTIVE
    ],
)
async def test_an_end_along_no_edge_is_refused(queue: Store, token, state):
    await put(queue, a_deferral("d"))
    if token:
        await claim(queue, token)
    before = await get(queue, "d")
    with pytest.raises(ValueError, match="no end"):
        await queue.finish("d", token, Ending(state=state, at=at(5)))
    assert await get(queue, "d") == before


async def test_an_end_without_a_reason_keeps_the_last_error(queue: Store):
    await put(queue, a_deferral("d", last_error="refused"))
    ended = await queue.finish("d", None, Ending(state=State.EXPIRED, at=at(5)))
    assert ended is not None
    assert ended.last_error == "refused"


async def test_the_agents_task_id_is_kept_as_soon_as_it_is_known(queue: Store):
    await put(queue, a_deferral("d", upstream_context_id="uc"))
    await claim(queue, "a")
    assert await queue.learn_task("d", "a", "ut", TASK)
    known = await get(queue, "d")
    assert (known.upstream_task_id, known.upstream_context_id, known.task) == ("ut", "uc", TASK)
    await queue.release("d", "a", BACK)
    assert (await get(queue, "d")).upstream_task_id == "ut"
    (watch,) = (await queue.snapshot(restarts_since=T0, completed_since=T0)).watched
    assert watch.upstream_task_id == "ut"


async def test_a_task_may_go_on_after_its_deferral_was_completed(queue: Store):
    await put(queue, a_deferral("d", task=TASK))
    later = replace(TASK, state="completed")
    assert not await queue.update_task("d", later)
    await claim(queue, "a")
    await queue.finish("d", "a", COMPLETED)
    assert await queue.update_task("d", later)
    assert (await get(queue, "d")).task == later
    assert not await queue.update_task("none", later)


async def test_overdue_lists_queued_ones_whose_time_has_passed(queue: Store):
    await put(
        queue,
        a_deferral("second", expires_at=at(9), credentials=b"x"),
        a_deferral("first", expires_at=at(8)),
        a_deferral("alive", expires_at=at(11)),
        a_leased("leased", "t", expires_at=at(1)),
    )
    listed = await queue.overdue(at(10), limit=9)
    assert [deferral.id for deferral in listed] == ["first", "second"]
    assert (listed[1].request.body, listed[1].credentials) == (b"", None)
    assert [deferral.id for deferral in await queue.overdue(at(10), limit=1)] == ["first"]
    assert list(await queue.overdue(at(7.999999), limit=9)) == []


async def test_what_ended_long_ago_is_purged_oldest_first(queue: Store):
    await put(queue, *(a_deferral(f"d{n}") for n in range(4)), a_deferral("active"))
    for n in range(4):
        await queue.finish(f"d{n}", None, Ending(state=State.CANCELLED, at=at(10 - n)))
    assert await queue.purge(ended_before=at(10), limit=2) == 2
    assert [deferral.id for deferral in await queue.deferrals()] == ["active", "d1", "d0"]
    assert await queue.purge(ended_before=at(10), limit=2) == 1
    assert await queue.purge(ended_before=at(10), limit=2) == 0
    assert [deferral.id for deferral in await queue.deferrals()] == ["active", "d0"]
