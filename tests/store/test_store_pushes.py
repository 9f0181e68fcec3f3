"""Every store: who is notified of a deferral's task, how far each was told, and who may tell them."""

from typing import Any

import pytest
from store.examples import T0, a_deferral, a_lease, a_leased, a_workspace, at, put

from proxy.core.deferral import State, StoredPush
from proxy.store import Ending, Store
from proxy.store.pushes import Progress, Push


@pytest.fixture
async def queue(store: Store) -> Store:
    await store.create(a_workspace())
    return store


def receiver(push_id: str = "r", **fields: Any) -> StoredPush:
    return StoredPush(**{"id": push_id, "protocol": "1.0", "sealed": b"\x00sealed", **fields})


async def only(store: Store, deferral_id: str = "d") -> Push:
    [push] = await store.pushes(deferral_id)
    return push


@pytest.mark.parametrize("leased", [False, True])
async def test_what_a_send_brings_along_is_stored_with_it(queue: Store, leased: bool) -> None:
    new = a_leased("d", "t", push=receiver()) if leased else a_deferral("d", push=receiver())
    await put(queue, new, a_deferral("none", idempotency_key="other"))
    assert await only(queue) == Push(deferral_id="d", stored=receiver(), progress=Progress())
    assert list(await queue.pushes("none")) == []
    assert list(await queue.receivers()) == [("d", "r", "")]
    read = await queue.deferral("d")
    assert read is not None
    assert read.push is None


async def test_a_repeated_send_leaves_the_first_one_s_receiver(queue: Store) -> None:
    await put(queue, a_deferral("d", idempotency_key="k", digest="x", push=receiver()))
    await put(queue, a_deferral("again", idempotency_key="k", digest="x", push=receiver("other")))
    assert (await only(queue)).stored.id == "r"
    assert list(await queue.receivers()) == [("d", "r", "")]


async def test_receivers_are_added_changed_and_forgotten(queue: Store) -> None:
    assert await queue.put_push("nobody", receiver(), Progress(), most=9) is None
    await put(queue, a_deferral("d"))
    assert await queue.put_push("d", receiver("b"), Progress(through=3, told="working"), most=2) is True
    assert await queue.put_push("d", receiver("a"), Progress(), most=2) is True
    assert await queue.put_push("d", receiver("c"), Progress(), most=2) is False
    assert [push.stored.id for push in await queue.pushes("d")] == ["a", "b"]
    changed = receiver("b", sealed=b"new", protocol="0.3")
    assert await queue.put_push("d", changed, Progress(through=4), most=2) is True
    assert [push.stored for push in await queue.pushes("d")] == [receiver("a"), changed]
    assert await queue.drop_push("d", "a") is True
    assert await queue.drop_push("d", "a") is False
    assert await only(queue) == Push(deferral_id="d", stored=changed, progress=Progress(through=4))


async def test_only_the_holder_of_the_lease_moves_the_place_on(queue: Store) -> None:
    await put(queue, a_deferral("d", push=receiver()))
    assert await queue.lease_push("d", "nobody", a_lease("t"), now=T0) is None
    leased = await queue.lease_push("d", "r", a_lease("t", until=10, owner="me"), now=T0)
    assert leased is not None
    assert (leased.owner, leased.leased_until) == ("me", at(10))
    assert await queue.lease_push("d", "r", a_lease("u"), now=at(9)) is None
    further = Progress(through=2, told="working", tries=1, failing_since=at(1), next_at=at(2))
    assert await queue.told_push("d", "r", "u", further) is False
    assert await queue.told_push("d", "r", "t", further) is True
    assert await queue.told_push("d", "r", "t", Progress()) is False  # given back with it
    assert await only(queue) == Push(deferral_id="d", stored=receiver(), progress=further)
    assert await queue.lease_push("d", "r", a_lease("v", until=20), now=at(3)) is not None
    assert await queue.lease_push("d", "r", a_lease("w", until=40), now=at(20)) is not None  # the last one ran out
    assert await queue.told_push("d", "r", "v", Progress()) is False


async def test_a_receiver_that_was_changed_meanwhile_keeps_its_own_place(queue: Store) -> None:
    await put(queue, a_deferral("d", push=receiver()))
    await queue.lease_push("d", "r", a_lease("t"), now=T0)
    await queue.put_push("d", receiver(sealed=b"new"), Progress(through=7), most=1)
    assert await queue.told_push("d", "r", "t", Progress(through=1)) is False
    assert (await only(queue)).progress == Progress(through=7)


async def test_a_dead_proxy_s_leases_end_and_nobody_else_s(queue: Store) -> None:
    await put(queue, a_deferral("d", push=receiver()), a_deferral("e", push=receiver()))
    await queue.lease_push("d", "r", a_lease("t", owner="me"), now=T0)
    await queue.lease_push("e", "r", a_lease("u", owner="other"), now=T0)
    assert await queue.release_pushes("me") == 1
    assert (await only(queue)).owner is None
    assert (await only(queue, "e")).owner == "other"
    assert await queue.told_push("d", "r", "t", Progress(through=1)) is False


async def test_receivers_outlive_the_end_of_a_deferral_and_go_with_its_row(queue: Store) -> None:
    await put(queue, a_leased("d", "t", push=receiver()))
    await queue.finish("d", "t", Ending(state=State.COMPLETED, at=at(5)))
    assert (await only(queue)).stored == receiver()
    assert await queue.purge(ended_before=at(6), limit=10) == 1
    assert list(await queue.pushes("d")) == []
    assert list(await queue.receivers()) == []


async def test_a_receiver_follows_its_task_from_one_deferral_to_the_next(queue: Store) -> None:
    await put(queue, a_leased("d", "t", task_id="task", push=receiver()), a_deferral("next", task_id="task"))
    assert [push.deferral_id for push in await queue.pushes_of_task("w", "task")] == ["d"]
    further = Progress(told="input-required x")
    assert await queue.move_push("d", "r", "nowhere", further) is False
    await queue.lease_push("d", "r", a_lease("t"), now=T0)
    assert await queue.move_push("d", "r", "next", further) is False  # somebody is just telling it something
    await queue.release_pushes("proxy-1")
    assert await queue.move_push("d", "r", "next", further) is True
    assert await queue.move_push("d", "r", "next", further) is False
    assert list(await queue.pushes_of_task("w", "task")) == [
        Push(deferral_id="next", stored=receiver(), progress=further)
    ]
    assert list(await queue.pushes_of_task("w", "other")) == []


async def test_a_receiver_that_comes_where_its_name_is_taken_makes_room(queue: Store) -> None:
    later = receiver(sealed=b"later")
    await put(queue, a_deferral("d", push=receiver()), a_deferral("next", push=later))
    assert await queue.move_push("d", "r", "next", Progress(through=5)) is True
    assert (await only(queue, "next")) == Push(deferral_id="next", stored=later, progress=Progress())
    assert list(await queue.pushes("d")) == []
