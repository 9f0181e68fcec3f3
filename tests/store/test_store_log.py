"""Conformance of every store: lines of the decision log are found by what they are about, and come with their act."""

from dataclasses import replace

import pytest
from store.examples import NO_LIMITS, T0, a_decision, a_deferral, a_lease, a_workspace, at, claim, put

from proxy.core.decision import Decision
from proxy.core.deferral import Deferral, State
from proxy.core.restart import Phase, Restart, Trigger
from proxy.store import Ending, Placed, Requeue, Sought, Store, StoreFailure


@pytest.fixture
async def log(store: Store) -> Store:
    """Six lines about two workspaces, two requests, two deferrals and three restarts."""
    await store.create(a_workspace())
    await store.create(a_workspace("v"))
    await store.log(
        [
            a_decision("1", request_id="r1"),
            a_decision("2", request_id="r1", receipt="d1", generation=1),
            a_decision("3", workspace_id="v", request_id="r2", receipt="d2", generation=1),
            a_decision("4", receipt="d1", generation=1),
            a_decision("5", request_id="r2", receipt="d1", generation=2),
            a_decision("6", workspace_id="v"),
        ]
    )
    return store


def line_of(deferral: Deferral) -> Decision:
    return a_decision(f"{deferral.state} {deferral.tries}", receipt=deferral.id)


async def actions(store: Store, *, limit: int = 99, **sought) -> str:
    """The actions of the lines that are sought, one character each."""
    return "".join(line.action for line in await store.sought(Sought(**sought), limit=limit))


@pytest.mark.parametrize(
    ("sought", "found"),
    [
        ({}, "654321"),
        ({"workspace_id": "w"}, "5421"),
        ({"request_id": "r1"}, "21"),
        ({"request_id": "r2"}, "53"),
        ({"request_id": "r2", "workspace_id": "w"}, "5"),
        ({"request_id": "r1", "receipt": "d1"}, "2"),
        ({"request_id": "r1", "workspace_id": "w", "generation": 0}, "1"),
        ({"receipt": "d1"}, "542"),
        ({"receipt": "d1", "workspace_id": "v"}, ""),
        ({"receipt": "d1", "workspace_id": "w", "generation": 1}, "42"),
        ({"workspace_id": "w", "generation": 0}, "1"),
        ({"workspace_id": "w", "generation": 1}, "42"),
        ({"workspace_id": "v", "generation": 1}, "3"),
        ({"request_id": "nobody's"}, ""),
        ({"workspace_id": "unknown"}, ""),
    ],
)
async def test_lines_are_found_by_request_receipt_workspace_and_generation_newest_first(log: Store, sought, found):
    assert await actions(log, **sought) == found
    assert await actions(log, limit=2, **sought) == found[:2]


@pytest.mark.parametrize(
    "sought",
    [
        {},
        {"workspace_id": "w"},
        {"request_id": "r2"},
        {"receipt": "d1"},
        {"workspace_id": "w", "generation": 1},
    ],
)
async def test_pages_follow_each_other_without_a_gap_while_lines_are_added(log: Store, sought):
    whole = await actions(log, **sought)
    read, before = "", None
    while page := await log.sought(Sought(before=before, **sought), limit=1):
        read += page[0].action
        before = page[0].id
        await log.log([a_decision("x", request_id="r2", receipt="d1", generation=1)])
    assert read == whole


@pytest.mark.parametrize(
    "sought",
    [
        {},
        {"workspace_id": "w"},
        {"request_id": "r"},
        {"receipt": "d"},
        {"workspace_id": "w", "generation": 1},
    ],
)
async def test_what_was_decided_later_than_an_instant_is_left_out(store: Store, sought):
    line = a_decision(request_id="r", receipt="d", generation=1)
    await store.log([replace(line, action=str(second), at=at(second)) for second in (1, 2, 3, 2)])
    assert await actions(store, until=at(2), **sought) == "221"
    assert await actions(store, until=at(0.999999), **sought) == ""


async def test_a_line_knows_the_id_by_which_a_page_ends_and_is_the_same_line_without_it(log: Store):
    lines = await log.sought(Sought(), limit=99)
    assert [line.id for line in lines] == [6, 5, 4, 3, 2, 1]
    assert lines[-1] == a_decision("1", request_id="r1")
    assert [line.id for line in await log.decisions("w", limit=2)] == [5, 4]


async def test_ids_are_not_given_twice_after_a_trim(log: Store):
    assert await log.trim_decisions(before=at(1), rows=0) == 6
    await log.log([a_decision("7")])
    assert [line.id for line in await log.sought(Sought(), limit=9)] == [7]


def test_a_generation_alone_names_nothing():
    with pytest.raises(ValueError, match="one of a workspace's"):
        Sought(generation=1)


# Written with the act


async def test_a_claim_writes_a_line_for_each_deferral_that_it_leases(log: Store):
    await put(log, a_deferral("a"), a_deferral("b"), a_deferral("c"))
    await log.claim("w", leases=[a_lease("x"), a_lease("y")], now=T0, line=line_of)
    assert await log.sought(Sought(receipt="a"), limit=9) == [a_decision("leased 1", receipt="a")]
    assert await log.sought(Sought(receipt="b"), limit=9) == [a_decision("leased 1", receipt="b")]
    assert await log.sought(Sought(receipt="c"), limit=9) == []
    assert await log.claim("w", leases=[a_lease("z")], now=T0, line=lambda _: None)
    assert await log.sought(Sought(receipt="c"), limit=9) == []


async def test_a_release_writes_its_line_only_with_the_right_lease(log: Store):
    await put(log, a_deferral("a"))
    await claim(log, "x")
    requeue = Requeue(next_attempt_at=at(1), attempts=0, maybe=False)
    line = a_decision("requeued", receipt="a")
    assert not await log.release("a", "another", requeue, decision=line)
    assert await log.sought(Sought(receipt="a"), limit=9) == []
    assert await log.release("a", "x", requeue, decision=line)
    assert await log.sought(Sought(receipt="a"), limit=9) == [line]


async def test_an_enqueue_that_ends_an_expired_deferral_writes_its_line(log: Store):
    keyed = {"idempotency_key": "k", "digest": "one"}
    await put(log, a_deferral("old", expires_at=at(1), **keyed))
    new = a_deferral("new", enqueued_at=at(2), **keyed)
    placed = await log.enqueue(new, limits=NO_LIMITS, decision=a_decision("deferred"), expired_line=line_of)
    assert (placed.placed, placed.expired is not None) == (Placed.INSERTED, True)
    assert await log.sought(Sought(receipt="old"), limit=9) == [a_decision("expired 0", receipt="old")]


async def test_an_end_that_came_too_late_writes_nothing(log: Store):
    await put(log, a_deferral("a"))
    line = a_decision("expired", receipt="a")
    assert await log.finish("a", "nobody's", Ending(state=State.COMPLETED, at=at(1)), decision=line) is None
    assert await log.sought(Sought(receipt="a"), limit=9) == []


# Restarts


def a_cycle(generation: int = 1, **fields) -> Restart:
    known = {
        "workspace_id": "w",
        "generation": generation,
        "incarnation": generation + 1,
        "trigger": Trigger.VERDICT,
        "reason": "verdict exited",
        "rule": "exited",
        "phase": Phase.RECORDED,
        "started_at": T0,
        "lease_owner": "p",
        "lease_until": at(60),
    }
    return Restart(**{**known, **fields})


@pytest.fixture
async def restarted(store: Store) -> Store:
    workspace = await store.create(a_workspace())
    for generation in (1, 2, 3):
        assert workspace is not None
        workspace = await store.replace(workspace, restart=a_cycle(generation))
    return store


async def test_a_restart_is_read_by_its_generation(restarted: Store):
    assert await restarted.restart("w", 2) == a_cycle(2)
    assert await restarted.restart("w", 4) is None
    assert await restarted.restart("nobody", 2) is None


async def test_restarts_come_in_pages(restarted: Store):
    assert [cycle.generation for cycle in await restarted.restarts("w", limit=2)] == [3, 2]
    assert [cycle.generation for cycle in await restarted.restarts("w", limit=2, before=2)] == [1]
    assert list(await restarted.restarts("w", limit=2, before=1)) == []


async def test_a_phase_is_written_with_its_line_or_not_at_all(restarted: Store):
    stopped = replace(a_cycle(3), phase=Phase.STOPPED)
    line = a_decision("restart stopped", generation=3)
    assert not await restarted.save_restart(stopped, held_by="another", decision=line)
    assert not await restarted.save_restart(stopped, held_by=None, now=at(1), decision=line)
    assert list(await restarted.sought(Sought(workspace_id="w", generation=3), limit=9)) == []
    assert await restarted.save_restart(stopped, held_by="p", decision=line)
    assert await restarted.save_restart(replace(stopped, lease_owner="q"), held_by=None, now=at(60), decision=line)
    assert await restarted.sought(Sought(workspace_id="w", generation=3), limit=9) == [line, line]


async def test_a_write_that_fails_leaves_no_line(restarted: Store):
    known = await restarted.workspace("w")
    assert known is not None
    with pytest.raises(StoreFailure):
        await restarted.replace(known, restart=a_cycle(3), decision=a_decision("restart scheduled"))
    assert await restarted.decisions("w", limit=9) == []
