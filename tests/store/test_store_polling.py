"""Every store: what polling workspaces ask of it. Leases of lives, what time will do, the stream journal."""

from typing import Any

import pytest
from store.examples import T0, a_deferral, a_lease, a_workspace, at, claim, get, put

from proxy.core.deferral import Deferral, Lease, State, StoredTask, poller
from proxy.store import Ending, Requeue, Store
from proxy.store.journal import GAP, Appended, Events, JournalLimits
from proxy.store.laws import LIFE_OVER
from proxy.store.outlook import Outlook

NO_LIMITS = JournalLimits(rows=0, bytes=0)
WORKING = StoredTask(json=b'{"id":"t"}', version="1.0", state="working")


@pytest.fixture
async def queue(store: Store) -> Store:
    await store.create(a_workspace())
    await store.create(a_workspace("other"))
    return store


def held(deferral_id: str, token: str, *, owner: str = "p", until: float = 60, **fields: Any) -> Deferral:
    lease = Lease(token=token, owner=owner, until=at(until))
    return a_deferral(deferral_id, state=State.LEASED, lease=lease, **fields)


async def told(store: Store, deferral_id: str = "d") -> list[tuple[int, bytes]]:
    return [(event.sequence, event.data) for event in await store.journal(deferral_id)]


async def tell(store: Store, *data: bytes, token: str = "t", limits: JournalLimits = NO_LIMITS, **more: Any) -> Any:
    events = Events(data=data, at=at(1), **more)
    return await store.append_events("d", token, events, until=at(90), limits=limits)


# --- lives -----------------------------------------------------------------------------------------------------------


async def test_what_other_lives_hold_is_queued_again_marked_and_counted(queue: Store) -> None:
    await put(
        queue,
        held("old", "a", owner=poller("w", 1), context_id="c"),
        held("new", "b", owner=poller("w", 2)),
        held("pushed", "c", owner="some-proxy"),
        held("elsewhere", "d", owner=poller("other", 1), workspace_id="other"),
        a_deferral("waits", context_id="c"),
    )
    taken = await queue.release_polled("w", but=poller("w", 2), error=LIFE_OVER, now=at(5))
    assert [(watch.deferral_id, watch.active) for watch in taken] == [("old", True)]
    back = await get(queue, "old")
    assert (back.state, back.maybe, back.attempts, back.next_attempt_at) == (State.QUEUED, True, 1, at(5))
    assert (back.last_error, back.lease) == (LIFE_OVER, None)
    for name in ("new", "pushed", "elsewhere"):
        assert (await get(queue, name)).state is State.LEASED
    assert await claim(queue, "xyz", now=at(5)) == ["old"]  # still the head of its context
    assert [watch.deferral_id for watch in await queue.release_polled("w", but=None, error="x", now=at(6))] == ["new"]
    assert list(await queue.release_polled("unknown", but=None, error="x", now=at(6))) == []


async def test_a_dead_proxy_s_leases_are_marked_and_not_counted(queue: Store) -> None:
    await put(queue, held("d", "a", owner="me"), held("polled", "b", owner=poller("w", 1)))
    assert [watch.deferral_id for watch in await queue.release_owned("me", at(1))] == ["d"]
    back = await get(queue, "d")
    assert (back.maybe, back.attempts) == (True, 0)
    assert (await get(queue, "polled")).state is State.LEASED


# --- what time will do -----------------------------------------------------------------------------------------------


async def test_an_outlook_names_the_next_head_and_the_next_end_of_a_lease(queue: Store) -> None:
    assert await queue.outlook("w", T0) == Outlook()
    await put(
        queue,
        a_deferral("due", next_attempt_at=at(-1)),
        a_deferral("later", next_attempt_at=at(9)),
        a_deferral("soon", next_attempt_at=at(4), context_id="c"),
        a_deferral("behind", next_attempt_at=at(2), context_id="c"),
        a_deferral("expires-before", next_attempt_at=at(3), expires_at=at(3)),
        held("held", "a", until=50),
        held("held-too", "b", until=40),
        a_deferral("elsewhere", workspace_id="other", next_attempt_at=at(1)),
    )
    assert await queue.outlook("w", T0) == Outlook(leased=2, due_at=at(4), lease_ends_at=at(40))
    assert await queue.outlook("w", at(4)) == Outlook(leased=2, due_at=at(9), lease_ends_at=at(40))
    assert (await queue.outlook("other", T0)).due_at == at(1)


async def test_a_queue_that_is_reached_in_another_way_waits_for_no_gateway(queue: Store) -> None:
    await put(queue, a_deferral("d", next_attempt_at=at(60), gateway_since=at(0)))
    await queue.hasten("w", at(1))
    assert (await get(queue, "d")).next_attempt_at == at(60)
    await queue.hasten("w", at(1), turned_away=True)
    assert (await get(queue, "d")).next_attempt_at == at(1)


async def test_a_claim_stops_at_the_size_that_it_may_reach(queue: Store) -> None:
    await put(queue, *(a_deferral(f"d{number}", body=b"x" * 100) for number in range(5)))
    leases = [a_lease(name) for name in "abcde"]
    size = (await get(queue, "d0")).size
    first = await queue.claim("w", leases=leases, now=T0, most_bytes=size + 1)
    assert [each.id for each in first] == ["d0", "d1"]
    assert len(await queue.claim("w", leases=leases[2:], now=T0, most_bytes=1)) == 1
    assert len(await queue.claim("w", leases=leases[3:], now=T0)) == 2


async def test_a_brief_look_shows_everything_but_bodies(queue: Store) -> None:
    await put(queue, a_deferral("d", body=b"secret", credentials=b"sealed", task=WORKING))
    seen = await queue.brief("d")
    assert seen is not None
    assert (seen.id, seen.task, seen.request.body, seen.credentials) == ("d", WORKING, b"", None)
    assert await queue.brief("nothing") is None


# --- the journal -----------------------------------------------------------------------------------------------------


async def test_events_are_kept_in_order_with_what_they_say_of_the_task(queue: Store) -> None:
    await put(queue, held("d", "t", until=10))
    assert await tell(queue, b"one", b"two") == Appended(total=2, full=False)
    assert await tell(queue, b"three", task=WORKING, upstream_task_id="up") == Appended(total=3, full=False)
    assert await told(queue) == [(1, b"one"), (2, b"two"), (3, b"three")]
    assert [event.sequence for event in await queue.journal("d", after=1, limit=1)] == [2]
    assert await queue.journal_size("d") == 3
    row = await get(queue, "d")
    assert row.lease is not None
    assert (row.task, row.upstream_task_id, row.lease.until) == (WORKING, "up", at(90))
    assert await tell(queue, b"four") == Appended(total=4, full=False)
    row = await get(queue, "d")
    assert (row.task, row.upstream_task_id) == (WORKING, "up")


async def test_who_does_not_hold_the_lease_tells_nothing(queue: Store) -> None:
    await put(queue, held("d", "t", until=10), a_deferral("q"))
    assert await tell(queue, b"x", token="other") is None
    assert await queue.append_events("q", "", Events(data=[b"x"], at=T0), until=at(9), limits=NO_LIMITS) is None
    assert await queue.append_events("nothing", "t", Events(data=[b"x"], at=T0), until=at(9), limits=NO_LIMITS) is None
    full = JournalLimits(rows=0, bytes=1)
    assert await tell(queue, b"long", token="other", limits=full) is None
    assert await told(queue) == []
    assert (await queue.journal_size("nothing"), list(await queue.journal("nothing"))) == (0, [])


@pytest.mark.parametrize("limits", [JournalLimits(rows=3, bytes=0), JournalLimits(rows=0, bytes=9)])
async def test_a_journal_is_bounded_and_takes_all_or_nothing(queue: Store, limits: JournalLimits) -> None:
    await put(queue, held("d", "t", until=10))
    assert await tell(queue, b"xxx", b"yyy", limits=limits) == Appended(total=2, full=False)
    assert await tell(queue, b"zzz", b"!", limits=limits, task=WORKING) == Appended(total=2, full=True)
    row = await get(queue, "d")
    assert row.task is None
    assert await told(queue) == [(1, b"xxx"), (2, b"yyy")]
    assert await tell(queue, b"zzz", limits=limits) == Appended(total=3, full=False)


async def test_a_later_try_begins_its_story_anew(queue: Store) -> None:
    await put(queue, a_deferral("d"))
    await queue.claim("w", leases=[a_lease("t", until=50)], now=T0)
    await tell(queue, b"old", b"older")
    await queue.release("d", "t", Requeue(next_attempt_at=T0, attempts=1, maybe=True))
    await queue.claim("w", leases=[a_lease("u", until=50)], now=T0)
    assert (await queue.journal_size("d"), await told(queue)) == (0, [(1, b"old"), (2, b"older")])
    limits = JournalLimits(rows=2, bytes=5)
    assert await tell(queue, token="u", limits=limits, task=WORKING) == Appended(total=0, full=False)
    assert await told(queue) == [(1, b"old"), (2, b"older")]  # it has told nothing yet
    assert await tell(queue, b"new", token="u", limits=limits) == Appended(total=1, full=False)
    assert await told(queue) == [(3, b"new")]  # no number is used twice
    assert await queue.journal_size("d") == 1
    assert await tell(queue, b"er", token="u", limits=limits) == Appended(total=2, full=False)
    assert await tell(queue, b"!", token="u", limits=limits) == Appended(total=2, full=True)
    assert await told(queue) == [(3, b"new"), (4, b"er")]


async def test_a_later_try_may_go_on_with_the_story(queue: Store) -> None:
    await put(queue, a_deferral("d"))
    await queue.claim("w", leases=[a_lease("t", until=50)], now=T0)
    await tell(queue, b"old", b"older")
    await queue.release("d", "t", Requeue(next_attempt_at=T0, attempts=1, maybe=True))
    await queue.claim("w", leases=[a_lease("u", until=50)], now=T0)
    limits = JournalLimits(rows=3, bytes=0)
    assert await tell(queue, b"a", b"b", token="u", limits=limits, continues=True) == Appended(total=2, full=True)
    assert await tell(queue, b"new", token="u", limits=limits, continues=True) == Appended(total=3, full=False)
    assert await told(queue) == [(1, b"old"), (2, b"older"), (3, b"new")]
    assert await queue.journal_size("d") == 3
    assert await tell(queue, GAP, token="u", continues=True) == Appended(total=4, full=False)
    assert (await told(queue))[-1] == (4, GAP)


async def test_a_journal_stays_with_what_has_ended_and_goes_with_it(queue: Store) -> None:
    await put(queue, held("d", "t", until=10))
    await tell(queue, b"one")
    await queue.finish("d", "t", Ending(state=State.COMPLETED, at=at(2)))
    assert await told(queue) == [(1, b"one")]
    assert await queue.purge(ended_before=at(3), limit=9) == 1
    assert await told(queue) == []
