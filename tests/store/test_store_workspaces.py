"""Conformance of every store: workspaces, signs of life, restarts, tokens, decisions."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
from store.examples import T0, a_decision, a_deferral, a_leased, a_token, a_workspace, at, claim, get, put

from proxy.core.deferral import State
from proxy.core.lifecycle import Desired, Lifecycle, Status
from proxy.core.liveness import Strikes
from proxy.core.outcome import DeadAction, Redelivery, UnmanagedAway
from proxy.core.restart import Phase, Restart, Trigger
from proxy.core.workspace import DeliveryMode, LastVerdict, Settings, UrlSource, Workspace
from proxy.store import Placed, QueueSize, Signs, Store, StoreFailure

FULL = Workspace(
    id="full",
    created_at=T0,
    version=3,
    status=Status.DEGRADED,
    desired=Desired.DRAINING,
    lifecycle=Lifecycle.START_TIMEOUT,
    delivery_mode=DeliveryMode.POLL,
    url="http://127.0.0.1:1/ü",
    url_source=UrlSource.ANNOUNCED,
    agent_card={"name": "agent", "skills": [{"id": 1}], "nothing": None},
    incarnation=4,
    boot_id="boot",
    bound=True,
    generation=3,
    owner="proxy-1",
    parent="mother",
    runtime={"type": "process", "command": ["run", "it"]},
    data="state",
    config_version=7,
    settings=Settings(
        max_concurrent=2,
        dead_action=DeadAction.DEFER,
        unmanaged_away=UnmanagedAway.PASS,
        redelivery=Redelivery.NEVER,
        profile="plain",
        hold_seconds=1.5,
        policy={"settle_hold": 30.0, "preset": "hold-first"},
        probe={"type": "tcp"},
    ),
    registered_at=at(1),
    started_at=at(2),
    ready_at=at(3),
    exited_at=at(4),
    announced_at=at(5),
    restart_started_at=at(6),
    restart_returned_at=at(7),
    stopped_at=at(8),
    restart_pending=True,
    abandoned_at=at(9),
    offline_rule="exited",
    strikes=Strikes(count=2, first_at=at(10)),
    last_verdict=LastVerdict(verdict="busy", rule="strike", at=at(11)),
)


def a_cycle(generation: int = 1, **fields) -> Restart:
    known = {
        "workspace_id": "w",
        "generation": generation,
        "incarnation": generation + 1,
        "trigger": Trigger.VERDICT,
        "reason": "dead",
        "rule": "exited",
        "phase": Phase.RECORDED,
        "started_at": at(generation),
        "lease_owner": "proxy-1",
        "lease_until": at(60),
    }
    return Restart(**{**known, **fields})


async def test_a_workspace_comes_back_as_it_was_written(store: Store):
    assert await store.create(FULL) == FULL
    assert await store.workspace("full") == FULL
    assert await store.create(a_workspace("bare")) == a_workspace("bare")
    assert await store.workspace("bare") == a_workspace("bare")
    assert await store.workspace("other") is None


async def test_a_taken_id_creates_nothing(store: Store):
    await store.create(a_workspace())
    assert await store.create(a_workspace(url="http://x"), token=a_token("t"), decision=a_decision()) is None
    assert await store.workspace("w") == a_workspace()
    assert await store.drop_token("t") is None
    assert await store.decisions("w", limit=9) == []


async def test_of_two_writers_that_read_the_same_version_one_wins(store: Store):
    await store.create(a_workspace())
    writers = [store.replace(a_workspace(url=f"http://{n}"), decision=a_decision(str(n))) for n in range(5)]
    won = [saved for saved in await asyncio.gather(*writers) if saved is not None]
    assert [saved.version for saved in won] == [1]
    assert await store.workspace("w") == won[0]
    assert len(await store.decisions("w", limit=9)) == 1
    assert await store.replace(a_workspace("other")) is None


async def test_a_later_sign_of_life_beats_a_verdict_that_did_not_see_it(store: Store):
    await store.create(a_workspace())
    offline = a_workspace(status=Status.OFFLINE)
    await store.record_signs({"w": Signs(last_sign_at=at(10))})
    assert await store.replace(offline, no_sign_after=at(9)) is None
    assert await store.workspace("w") == a_workspace()
    assert await store.replace(offline, no_sign_after=at(10)) == replace(offline, version=1)


async def test_no_sign_at_all_is_no_later_sign(store: Store):
    await store.create(a_workspace())
    await store.record_signs({"w": Signs(progress=1)})
    assert await store.replace(a_workspace(), no_sign_after=at(0)) is not None


async def test_a_restart_is_recorded_with_the_life_that_it_starts(store: Store):
    await store.create(a_workspace(), token=a_token("registered"))
    await store.add_token(a_token("life-1", incarnation=1))
    await store.add_token(a_token("early", incarnation=2))
    await store.add_token(a_token("foreign", name="other", incarnation=1))
    await store.add_token(a_token("client", kind="client", incarnation=1))
    begun = a_workspace(incarnation=2, generation=1)
    saved = await store.replace(
        begun, restart=a_cycle(), token=a_token("life-2", incarnation=2), retire_tokens=True, decision=a_decision()
    )
    assert saved == replace(begun, version=1)
    assert await store.restarts("w", limit=9) == [a_cycle()]
    seen = await store.snapshot(restarts_since=T0, completed_since=T0)
    assert {token.id for token in seen.tokens} == {"registered", "early", "foreign", "client", "life-2"}
    assert await store.decisions("w", limit=9) == [a_decision()]


async def test_records_of_restarts_are_trimmed_page_by_page_but_open_ones_and_the_last_of_each_workspace(store: Store):
    for workspace in ("w", "quiet"):
        await store.create(a_workspace(workspace))
    ended = {"phase": Phase.FINISHED, "lease_owner": None, "lease_until": None}
    cycles = [a_cycle(generation=n, started_at=at(n), **({} if n == 2 else ended)) for n in range(1, 8)]
    cycles[6] = replace(cycles[6], trigger=Trigger.ANNOUNCED)
    lonely = a_cycle(workspace_id="quiet", started_at=at(1), **ended)
    for version, cycle in enumerate(cycles):
        assert await store.replace(a_workspace(version=version), restart=cycle)
    assert await store.replace(a_workspace("quiet"), restart=lonely)
    after = await store.trim_restarts(after=None, before=at(9), limit=3)
    assert after == at(2) + timedelta(microseconds=1)
    assert await store.restarts("w", limit=9) == [*reversed(cycles[2:]), cycles[1]]
    assert await store.trim_restarts(after=after, before=at(5), limit=3) is None
    assert await store.restarts("w", limit=9) == [cycles[6], cycles[5], cycles[4], cycles[1]]
    assert await store.trim_restarts(after=after, before=at(9), limit=9) is None
    assert await store.trim_restarts(after=None, before=at(9), limit=9) is None
    assert await store.restarts("w", limit=9) == [cycles[6], cycles[5], cycles[1]]
    assert await store.restarts("quiet", limit=9) == [lonely]
    seen = await store.snapshot(restarts_since=at(99), completed_since=at(99))
    assert list(seen.restarts) == [lonely, cycles[1], cycles[5], cycles[6]]


async def test_a_restart_that_exists_already_takes_the_whole_change_down(store: Store):
    await store.create(a_workspace())
    await store.replace(a_workspace(), restart=a_cycle())
    again = a_workspace(version=1, url="http://x")
    with pytest.raises(StoreFailure) as failed:
        await store.replace(again, restart=a_cycle(), token=a_token("t"), decision=a_decision())
    assert failed.value.reason == "conflict"
    assert await store.workspace("w") == a_workspace(version=1)
    assert await store.drop_token("t") is None
    assert await store.decisions("w", limit=9) == []


async def test_a_restart_moves_only_by_the_hand_that_holds_its_lease(store: Store):
    await store.create(a_workspace())
    await store.replace(a_workspace(), restart=a_cycle())
    stopped = a_cycle(phase=Phase.STOPPED, returned_at=at(3), error="slow", lease_until=at(90))
    assert not await store.save_restart(stopped, held_by="proxy-2")
    assert not await store.save_restart(stopped, held_by=None, now=at(59.999))
    assert not await store.save_restart(replace(stopped, generation=2), held_by="proxy-1")
    assert await store.restarts("w", limit=9) == [a_cycle()]
    assert await store.save_restart(stopped, held_by="proxy-1")
    assert await store.restarts("w", limit=9) == [stopped]


async def test_a_restart_whose_lease_ran_out_can_be_taken_over_and_an_ended_one_never(store: Store):
    await store.create(a_workspace())
    await store.replace(a_workspace(), restart=a_cycle())
    taken = a_cycle(lease_owner="proxy-2", lease_until=at(120))
    assert await store.save_restart(taken, held_by=None, now=at(60))
    assert not await store.save_restart(a_cycle(), held_by="proxy-1")
    ended = replace(taken, phase=Phase.FINISHED, finished_at=at(70), lease_owner=None, lease_until=None)
    assert await store.save_restart(ended, held_by="proxy-2")
    assert not await store.save_restart(taken, held_by=None, now=at(999))
    assert await store.restarts("w", limit=9) == [ended]


async def test_taking_a_restart_over_needs_to_know_the_time(store: Store):
    with pytest.raises(ValueError, match="needs now"):
        await store.save_restart(a_cycle(), held_by=None)


async def test_restarts_are_listed_newest_first_and_a_starting_proxy_sees_the_open_and_the_young(store: Store):
    await store.create(a_workspace())
    cycles = [a_cycle(1), a_cycle(2, phase=Phase.FAILED), a_cycle(3, phase=Phase.FINISHED)]
    for version, cycle in enumerate(cycles):
        await store.replace(a_workspace(version=version), restart=cycle)
    assert await store.restarts("w", limit=2) == [cycles[2], cycles[1]]
    seen = await store.snapshot(restarts_since=at(2), completed_since=T0)
    assert list(seen.restarts) == [cycles[0], cycles[2]]


async def test_a_removed_workspace_keeps_its_name_and_nothing_else_speaks_for_it(store: Store):
    await store.create(a_workspace(), token=a_token("own"))
    await store.add_token(a_token("clients", kind="client"))
    await store.create(a_workspace("other"), token=a_token("others", name="other"))
    await put(
        store,
        a_deferral("queued", context_id="c", credentials=b"sealed"),
        a_deferral("behind", context_id="c"),
        a_leased("leased", "token"),
        a_deferral("elsewhere", workspace_id="other"),
    )
    stale = a_workspace(version=9)
    assert not await store.remove(stale, at=at(1), reason="gone", decision=a_decision("removed"))
    assert await store.remove(a_workspace(), at=at(1), reason="gone", decision=a_decision("removed"))

    assert await store.workspace("w") == a_workspace(version=1, desired=Desired.REMOVED)
    assert await store.create(a_workspace()) is None
    for deferral_id in ("queued", "behind", "leased"):
        ended = await get(store, deferral_id)
        assert (ended.state, ended.completed_at, ended.last_error) == (State.CANCELLED, at(1), "gone")
        assert (ended.request.body, ended.credentials, ended.lease) == (b"", None, None)
    assert not await store.extend("leased", "token", until=at(99))
    seen = await store.snapshot(restarts_since=T0, completed_since=T0)
    assert {token.id for token in seen.tokens} == {"clients", "others"}
    assert seen.sizes == {"other": QueueSize(rows=1, bytes=6)}
    assert await store.decisions("w", limit=9) == [a_decision("removed")]


async def test_nothing_is_put_away_for_a_workspace_that_is_removed_or_unknown(store: Store):
    await store.create(a_workspace())
    await store.remove(a_workspace(), at=at(1), reason="gone", decision=a_decision("removed"))
    placed = await put(store, a_deferral("late"), a_deferral("lost", workspace_id="unknown"))
    assert [(each.placed, each.deferral, each.depth) for each in placed] == [(Placed.GONE, None, 0)] * 2
    assert await store.deferral("late") is None
    assert await claim(store, "a") == []


async def test_signs_of_life_only_move_forward_and_silence_changes_nothing(store: Store):
    await store.create(a_workspace())
    first = Signs(last_sign_at=at(10), last_heartbeat_at=at(10), active_tasks=1, max_concurrent=4, progress=5)
    await store.record_signs({"w": first, "unknown": first})
    await store.record_signs({"w": Signs(last_sign_at=at(5), last_heartbeat_at=at(20), active_tasks=0)})
    seen = await store.snapshot(restarts_since=T0, completed_since=T0)
    assert seen.signs == {"w": replace(first, last_heartbeat_at=at(20), active_tasks=0)}


@pytest.mark.parametrize(
    ("said", "then", "down"),
    [
        ([Signs(agent_down_at=at(10))], Signs(), at(10)),
        ([Signs(agent_down_at=at(10))], Signs(last_sign_at=at(11)), None),
        ([Signs(agent_down_at=at(10))], Signs(last_sign_at=at(10)), at(10)),
        ([Signs(last_sign_at=at(11))], Signs(agent_down_at=at(10)), None),
        ([Signs(last_sign_at=at(9))], Signs(agent_down_at=at(10)), at(10)),
        ([Signs(agent_down_at=at(10))], Signs(agent_down_at=at(8)), at(10)),
        ([Signs(agent_down_at=at(10)), Signs(last_sign_at=at(11))], Signs(agent_down_at=at(12)), at(12)),
        ([], Signs(agent_down_at=at(10), last_sign_at=at(11)), None),
    ],
)
async def test_an_agent_is_down_until_a_later_sign_says_otherwise(store: Store, said, then, down):
    await store.create(a_workspace())
    for signs in [*said, then]:
        await store.record_signs({"w": signs})
    seen = await store.snapshot(restarts_since=T0, completed_since=T0)
    assert seen.signs["w"].agent_down_at == down


async def test_a_dropped_token_is_returned_once(store: Store):
    token = a_token("t", kind="client", name="c")
    await store.add_token(token)
    assert await store.drop_token("t") == token
    assert await store.drop_token("t") is None


@pytest.mark.parametrize("twin", [a_token("t", digest="other"), a_token("u", digest="sha-t")])
async def test_no_two_tokens_share_an_id_or_a_digest(store: Store, twin):
    await store.add_token(a_token("t"))
    with pytest.raises(StoreFailure) as failed:
        await store.create(a_workspace(), token=twin)
    assert failed.value.reason == "conflict"
    assert await store.workspace("w") is None


async def test_decisions_come_newest_first(store: Store):
    evidence = {"age": 1.5, "seen": ["a", {"b": None}], "text": "ü"}
    full = a_decision(
        "restart",
        verdict="dead",
        rule="exited",
        policy="combined",
        evidence=evidence,
        request_id="r",
        receipt="d",
        incarnation=2,
        generation=1,
    )
    await store.log([a_decision("one"), a_decision("two"), a_decision(workspace_id="other"), full])
    await store.log([])
    assert await store.decisions("w", limit=2) == [full, a_decision("two")]
    assert await store.decisions("nobody", limit=2) == []


async def test_the_decision_log_is_trimmed_by_age_and_by_rows_of_each_workspace(store: Store):
    await store.log([a_decision(str(n), at=at(n)) for n in (5, 1, 2, 3, 4)])
    await store.log([a_decision(str(n), workspace_id="quiet", at=at(n)) for n in (2, 3)])
    assert await store.trim_decisions(before=at(2), rows=3) == 2
    assert [decision.action for decision in await store.decisions("w", limit=9)] == ["4", "3", "2"]
    assert [decision.action for decision in await store.decisions("quiet", limit=9)] == ["3", "2"]
    assert await store.trim_decisions(before=at(2), rows=3) == 0
    assert await store.trim_decisions(before=at(3), rows=0) == 2


async def test_a_ping_says_how_long_a_commit_takes(store: Store):
    assert 0 <= await store.ping() < 10


async def test_a_closed_store_refuses_and_opens_again_with_what_it_had(store: Store):
    await store.create(a_workspace())
    await store.aclose()
    await store.aclose()
    for refused in (store.workspace("w"), store.create(a_workspace("v")), store.ping()):
        with pytest.raises(StoreFailure) as failed:
            await refused
        assert failed.value.reason == "closed"
    await store.open()
    assert await store.workspace("w") == a_workspace()
    assert await store.workspace("v") is None


async def test_a_starting_proxy_reads_everything_at_once(store: Store):
    await store.create(FULL)
    await store.create(a_workspace())
    seen = await store.snapshot(restarts_since=T0, completed_since=T0)
    assert list(seen.workspaces) == [FULL, a_workspace()]
    assert (seen.signs, list(seen.tokens), list(seen.restarts), seen.sizes, list(seen.watched)) == ({}, [], [], {}, [])


async def test_what_a_clock_that_was_ahead_wrote_down_is_moved_back_to_now_and_nothing_else_is(store: Store) -> None:
    cycle = Restart(
        workspace_id="full",
        generation=3,
        incarnation=4,
        trigger=Trigger.VERDICT,
        reason="dead",
        rule="exited",
        phase=Phase.FINISHED,
        started_at=at(6),
        returned_at=at(7),
        finished_at=at(8),
    )
    await store.create(replace(FULL, version=0, restart_started_at=at(6)))
    written = await store.workspace("full")
    assert written is not None
    await store.replace(written, restart=cycle)
    signs = Signs(last_sign_at=at(9), last_heartbeat_at=at(4), agent_down_at=at(9))
    await store.record_signs({"full": signs})
    for name, waits in (("soon", 8), ("far", 9), ("gateway", 50)):
        since = at(20) if name == "gateway" else None
        await put(store, a_deferral(name, workspace_id="full", next_attempt_at=at(waits), gateway_since=since))
    before = await store.workspace("full")
    assert before is not None
    assert await store.amend(at(60), latest_try=at(61)) == 0
    assert await store.amend(at(5), latest_try=at(8)) == 5
    after = await store.workspace("full")
    assert after == replace(
        before,
        restart_started_at=at(5),
        restart_returned_at=at(5),
        stopped_at=at(5),
        abandoned_at=at(5),
        strikes=Strikes(count=2, first_at=at(5)),
        last_verdict=LastVerdict(verdict="busy", rule="strike", at=at(5)),
    )
    known = await store.snapshot(restarts_since=T0, completed_since=T0)
    assert known.signs["full"] == replace(signs, last_sign_at=at(5), agent_down_at=at(5))
    assert [(one.started_at, one.returned_at, one.finished_at) for one in known.restarts] == [(at(5), at(5), at(5))]
    assert [(await get(store, name)).next_attempt_at for name in ("soon", "far", "gateway")] == [at(8), at(5), at(5)]
    assert (await get(store, "gateway")).gateway_since == at(5)
    assert await store.amend(at(5), latest_try=at(8)) == 0


async def test_signs_that_change_only_their_instants_move_forward_and_keep_the_rest(store: Store):
    await store.create(a_workspace())
    busy = Signs(last_sign_at=at(5), last_heartbeat_at=at(5), active_tasks=3, max_concurrent=4, progress=9)
    for instant in (5, 7, 6):
        await store.record_signs({"w": replace(busy, last_sign_at=at(instant), last_heartbeat_at=at(instant))})
    seen = await store.snapshot(restarts_since=T0, completed_since=T0)
    assert seen.signs == {"w": replace(busy, last_sign_at=at(7), last_heartbeat_at=at(7))}
