"""Conformance of every store: putting requests away, joining, limits, looking."""

import asyncio
from dataclasses import replace

import pytest
from store.examples import (
    NO_LIMITS,
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
)

from proxy.core.deferral import Lease, Priority, State, StoredRequest, StoredTask
from proxy.store import Ending, Placed, QueueLimits, QueueSize, Store, StoreFailure, Watch

COMPLETED = Ending(state=State.COMPLETED, at=at(5))

FULL = a_deferral(
    "full",
    body=bytes(range(256)),
    request=StoredRequest(
        method="PUT", tail="/a%2Fb?c=d&e", headers=((b"X", b"\xff\x00\xe4"), (b"x", b"2")), body=bytes(range(256))
    ),
    priority=Priority.CRITICAL,
    binding="jsonrpc",
    protocol="1.0",
    operation="send",
    streaming=True,
    rpc_id=b'"id"',
    message_id="m",
    context_id="c",
    task_id="t",
    idempotency_key="k",
    digest="sha",
    maybe=True,
    attempts=1,
    tries=2,
    gateway_since=at(1),
    last_error="refused",
    request_id="r",
    upstream_task_id="ut",
    upstream_context_id="uc",
    task=StoredTask(json=b'{"id":"t"}', version="1.0", state="submitted"),
    credentials=b"\x01sealed",
)


@pytest.fixture
async def queue(store: Store) -> Store:
    await store.create(a_workspace())
    await store.create(a_workspace("other"))
    return store


async def sizes(store: Store) -> dict[str, QueueSize]:
    counted = dict(await store.queue_sizes())
    assert (await store.snapshot(restarts_since=T0, completed_since=T0)).sizes == counted
    return counted


async def test_a_deferral_comes_back_as_it_was_put_away(queue: Store):
    placed = await queue.enqueue(FULL, limits=NO_LIMITS, decision=a_decision())
    assert placed.placed is Placed.INSERTED
    assert placed.deferral == FULL
    assert placed.seq > 0
    assert placed.depth == 1
    assert await queue.deferral("full") == replace(FULL, seq=placed.seq)
    assert await queue.deferral_of_task("w", "t") == replace(FULL, seq=placed.seq)
    assert await queue.decisions("w", limit=9) == [a_decision()]
    assert await queue.deferral("none") is None
    assert await queue.deferral_of_task("other", "t") is None
    assert await queue.deferral_of_task("w", "none") is None


async def test_a_deferral_may_come_leased_and_hold_nothing_but_headers(queue: Store):
    leased = a_leased("leased", "token", body=b"", caller=None)
    (placed,) = await put(queue, leased)
    assert placed.deferral == leased
    assert await get(queue, "leased") == replace(leased, seq=placed.seq)
    assert await queue.extend("leased", "token", until=at(90))
    assert (await get(queue, "leased")).lease == Lease(token="token", owner="proxy-1", until=at(90))


@pytest.mark.parametrize(
    "wrong",
    [
        a_deferral("x", lease=a_lease("t")),
        a_deferral("x", state=State.LEASED),
        a_deferral("x", state=State.COMPLETED),
        a_deferral("x", adopted=True),
        a_deferral("x", completed_at=T0),
    ],
)
async def test_what_no_queue_can_hold_is_refused(queue: Store, wrong):
    with pytest.raises(ValueError, match="deferral"):
        await put(queue, wrong)
    assert await queue.deferrals() == []


async def test_an_id_is_used_once(queue: Store):
    await put(queue, a_deferral("d"))
    with pytest.raises(StoreFailure) as failed:
        await queue.enqueue(a_deferral("d", body=b"other"), limits=NO_LIMITS, decision=a_decision())
    assert failed.value.reason == "conflict"
    assert await sizes(queue) == {"w": QueueSize(rows=1, bytes=6)}
    assert (await get(queue, "d")).request.body == b"hello"
    assert await queue.decisions("w", limit=9) == []


# Idempotency

KEYED = a_deferral("first", idempotency_key="k", digest="sha")


@pytest.mark.parametrize(
    ("second", "placed"),
    [
        ({}, Placed.JOINED),
        ({"digest": "other"}, Placed.CONFLICT),
        ({"digest": None}, Placed.CONFLICT),
        ({"idempotency_key": "other"}, Placed.INSERTED),
        ({"caller": "client:other"}, Placed.INSERTED),
        ({"workspace_id": "other"}, Placed.INSERTED),
        ({"idempotency_key": None}, Placed.INSERTED),
        ({"caller": None}, Placed.INSERTED),
    ],
)
async def test_scenario_40_a_repetition_joins_what_is_active_and_inserts_nothing(queue: Store, second, placed):
    await put(queue, KEYED)
    again = replace(KEYED, **{"id": "second", **second})
    did = await queue.enqueue(again, limits=NO_LIMITS, decision=a_decision())
    assert did.placed is placed
    is_new = placed is Placed.INSERTED
    assert did.deferral is not None
    assert did.deferral.id == ("second" if is_new else "first")
    assert did.deferral.request.body == b"hello"
    assert did.depth == (2 if is_new and again.workspace_id == "w" else 1)
    assert (await queue.deferral("second") is not None) == is_new
    assert await queue.decisions("w", limit=9) == [a_decision()] * is_new


async def test_scenario_40_many_at_once_make_one_row(queue: Store):
    did = await asyncio.gather(*(queue.enqueue(replace(KEYED, id=str(n)), limits=NO_LIMITS) for n in range(20)))
    assert sorted(each.placed for each in did) == sorted([Placed.INSERTED] + [Placed.JOINED] * 19)
    assert len({each.deferral.id for each in did}) == 1
    assert len(await queue.deferrals()) == 1


async def test_scenario_40_a_leased_one_is_joined_too(queue: Store):
    await put(queue, KEYED)
    assert await claim(queue, "a") == ["first"]
    (did,) = await put(queue, replace(KEYED, id="second", enqueued_at=at(9999)))
    assert did.placed is Placed.JOINED


@pytest.mark.parametrize(
    ("since", "placed"),
    [(None, Placed.INSERTED), (at(5), Placed.INSERTED), (at(4.999999), Placed.JOINED)],
)
async def test_scenario_40_a_completed_one_is_joined_only_while_it_is_young(queue: Store, since, placed):
    await put(queue, KEYED)
    await claim(queue, "a")
    await queue.finish("first", "a", COMPLETED)
    limits = QueueLimits(rows=0, bytes=0, idempotency_since=since)
    did = await queue.enqueue(replace(KEYED, id="second"), limits=limits)
    assert did.placed is placed
    assert (did.depth, await queue.deferral("second") is None) == ((1, False) if since in {None, at(5)} else (0, True))


async def test_scenario_40_what_failed_is_not_joined_and_the_latest_of_the_completed_is(queue: Store):
    limits = QueueLimits(rows=0, bytes=0, idempotency_since=T0)
    for n, state in enumerate([State.COMPLETED, State.COMPLETED, State.DEAD_LETTERED]):
        since = NO_LIMITS
        await queue.enqueue(replace(KEYED, id=f"d{n}"), limits=since)
        await claim(queue, "a")
        await queue.finish(f"d{n}", "a", Ending(state=state, at=at(n + 1)))
    did = await queue.enqueue(replace(KEYED, id="again"), limits=limits)
    assert did.deferral is not None
    assert (did.placed, did.deferral.id) == (Placed.JOINED, "d1")
    did = await queue.enqueue(replace(KEYED, id="again", digest="other"), limits=limits)
    assert did.placed is Placed.CONFLICT


@pytest.mark.parametrize("digest", ["sha", "other"])
async def test_scenario_47_an_expired_one_does_not_swallow_a_new_request_with_its_key(queue: Store, digest):
    await put(queue, replace(KEYED, context_id="c", credentials=b"x"), a_deferral("behind", context_id="c"))
    new = replace(KEYED, id="second", digest=digest, enqueued_at=at(3600), expires_at=at(7200))
    (did,) = await put(queue, new)
    assert (did.placed, did.depth) == (Placed.INSERTED, 2)
    assert did.expired is not None
    assert did.expired.id == "first"
    old = await get(queue, "first")
    assert (old.state, old.completed_at, old.credentials, old.request.body) == (State.EXPIRED, at(3600), None, b"")
    assert old.last_error is not None
    assert "expired" in old.last_error
    assert await sizes(queue) == {"w": QueueSize(rows=2, bytes=12)}
    assert await claim(queue, "ab", now=at(3599)) == ["behind", "second"]


async def test_scenario_47_an_expired_one_makes_room_even_when_there_is_too_little(queue: Store):
    await put(queue, KEYED, a_deferral("other"))
    late = replace(KEYED, id="second", enqueued_at=at(3600), expires_at=at(7200))
    did = await queue.enqueue(late, limits=QueueLimits(rows=1, bytes=0, idempotency_since=None))
    assert (did.placed, did.depth) == (Placed.FULL_ROWS, 1)
    assert did.expired is not None
    assert (await get(queue, "first")).state is State.EXPIRED


# Limits


@pytest.mark.parametrize(
    ("rows", "size", "placed"),
    [
        (2, 0, Placed.INSERTED),
        (1, 0, Placed.FULL_ROWS),
        (0, 12, Placed.INSERTED),
        (0, 11, Placed.FULL_BYTES),
        (1, 11, Placed.FULL_ROWS),
        (0, 0, Placed.INSERTED),
    ],
)
async def test_a_queue_takes_no_more_than_its_limits(queue: Store, rows, size, placed):
    await put(queue, a_deferral("first"), a_deferral("elsewhere", workspace_id="other"))
    limits = QueueLimits(rows=rows, bytes=size, idempotency_since=None)
    did = await queue.enqueue(a_deferral("second"), limits=limits, decision=a_decision())
    assert did.placed is placed
    is_new = placed is Placed.INSERTED
    assert (did.depth, did.deferral is not None) == ((2, True) if is_new else (1, False))
    assert (await sizes(queue))["w"] == (QueueSize(rows=2, bytes=12) if is_new else QueueSize(rows=1, bytes=6))
    assert await queue.decisions("w", limit=9) == [a_decision()] * is_new


async def test_what_ended_makes_room(queue: Store):
    await put(queue, a_deferral("a"), a_deferral("b"), a_leased("c", "token"))
    await queue.finish("a", None, Ending(state=State.DROPPED, at=at(1)))
    await queue.finish("c", "token", Ending(state=State.DEAD_LETTERED, at=at(1)))
    assert await sizes(queue) == {"w": QueueSize(rows=1, bytes=6)}
    await queue.finish("b", None, Ending(state=State.CANCELLED, at=at(1)))
    assert await sizes(queue) == {}


# Looking


async def test_lists_are_newest_first_and_without_bodies(queue: Store):
    await put(queue, FULL, a_deferral("b"), a_deferral("c", workspace_id="other"), a_deferral("d"))
    await queue.finish("b", None, Ending(state=State.DROPPED, at=at(1)))
    listed = await queue.deferrals()
    assert [deferral.id for deferral in listed] == ["d", "c", "b", "full"]
    brief = replace(FULL, seq=listed[-1].seq, credentials=None, request=replace(FULL.request, body=b""))
    assert listed[-1] == brief

    async def ids(**asked) -> list[str]:
        return [deferral.id for deferral in await queue.deferrals(**asked)]

    assert await ids(limit=2) == ["d", "c"]
    assert await ids(workspace_id="w") == ["d", "b", "full"]
    assert await ids(workspace_id="w", states=[State.DROPPED]) == ["b"]
    assert await ids(states=[State.QUEUED, State.LEASED], limit=2) == ["d", "c"]
    assert await ids(workspace_id="unknown") == []


async def test_a_caller_s_deferrals_are_listed_before_the_limit_counts(queue: Store):
    mine = [a_deferral(f"mine{number}", caller="client:me") for number in range(3)]
    await put(queue, mine[0], mine[1], a_deferral("elsewhere", workspace_id="other", caller="client:me"), mine[2])
    await put(
        queue, *(a_deferral(f"theirs{number}", caller="client:them") for number in range(4)), a_deferral("nobody")
    )
    await queue.finish("mine1", None, Ending(state=State.CANCELLED, at=at(1)))

    async def ids(**asked) -> list[str]:
        return [deferral.id for deferral in await queue.deferrals(workspace_id="w", caller="client:me", **asked)]

    assert await ids() == ["mine2", "mine1", "mine0"]
    assert await ids(limit=2) == ["mine2", "mine1"]
    assert await ids(states=[State.CANCELLED]) == ["mine1"]
    with pytest.raises(ValueError, match="by workspace"):
        await queue.deferrals(caller="client:me")


async def test_a_starting_proxy_watches_what_is_active_or_lately_completed(queue: Store):
    await put(queue, FULL, a_deferral("old"), a_deferral("young"), a_deferral("dropped"), a_leased("kept", "t"))
    await claim(queue, "abcd")
    await queue.finish("old", "b", COMPLETED)
    await queue.finish("young", "c", replace(COMPLETED, at=at(6)))
    await queue.finish("dropped", "d", Ending(state=State.DEAD_LETTERED, at=at(6)))
    seen = await queue.snapshot(restarts_since=T0, completed_since=at(5))
    assert [watch.deferral_id for watch in seen.watched] == ["full", "kept", "young"]
    assert seen.watched[0] == Watch(
        deferral_id="full",
        workspace_id="w",
        caller="client:c",
        idempotency_key="k",
        context_id="c",
        task_id="t",
        upstream_task_id="ut",
        active=True,
        adopted=False,
        completed_at=None,
    )
    assert (seen.watched[2].active, seen.watched[2].completed_at) == (False, at(6))


async def test_of_several_deferrals_of_one_task_the_latest_is_found(queue: Store):
    await put(queue, a_deferral("first", task_id="t"), a_deferral("second", task_id="t"))
    found = await queue.deferral_of_task("w", "t")
    assert found is not None
    assert found.id == "second"
