"""Conformance of every store: deferrals as tasks."""

import pytest
from store.examples import a_deferral, a_lease, a_workspace, at, put

from proxy.core.deferral import Deferral, State
from proxy.store import Ending, Store
from proxy.store.task_lists import Alias, ForeignContext


@pytest.fixture
async def tasks(store: Store) -> Store:
    await store.create(a_workspace())
    await store.create(a_workspace("other"))
    return store


async def ended(store: Store, *deferrals: Deferral, first: float = 10) -> None:
    """Put them away, and cancel each a second after the one before it."""
    await put(store, *deferrals)
    for number, deferral in enumerate(deferrals):
        assert await store.finish(deferral.id, None, Ending(state=State.CANCELLED, at=at(first + number)))


async def answered(store: Store, token: str, *, task: str | None, context: str | None = None) -> None:
    """Lease the next one and complete it under the agent's own ids."""
    (leased,) = await store.claim("w", leases=[a_lease(token)], now=at(0))
    ending = Ending(state=State.COMPLETED, at=at(20), upstream_task_id=task, upstream_context_id=context)
    assert await store.finish(leased.id, token, ending)


async def names(store: Store, caller: str | None = "client:c", **wish: object) -> list[str]:
    known = {"before": None, "limit": 100, **wish}
    return [row.id for row in await store.ended_tasks("w", caller, **known)]  # type: ignore[arg-type]  # as given


async def test_the_deferrals_of_a_task_are_read_from_the_newest_on(tasks: Store) -> None:
    await put(
        tasks,
        a_deferral("a", task_id="t", context_id="c"),
        a_deferral("b", task_id="t", context_id="c"),
        a_deferral("c", task_id="u"),
        a_deferral("d", task_id="t", workspace_id="other"),
    )
    found = await tasks.deferrals_of_task("w", "t", limit=10)
    assert [row.id for row in found] == ["b", "a"]
    assert found[0].request.body == b""
    assert [row.id for row in await tasks.deferrals_of_task("w", "t", limit=1)] == ["b"]
    assert await tasks.deferrals_of_task("w", "v", limit=10) == []
    latest = await tasks.deferral_of_task("w", "t")
    assert latest is not None
    assert latest.id == "b"


async def test_what_an_agent_calls_a_task_is_what_it_was_called_last(tasks: Store) -> None:
    assert await tasks.alias_of_task("w", "t") is None
    await put(tasks, a_deferral("a", task_id="t", context_id="c"), a_deferral("b", task_id="t", context_id="c"))
    assert await tasks.alias_of_task("w", "t") is None
    await answered(tasks, "x", task="theirs", context="their-context")
    assert await tasks.alias_of_task("w", "t") == Alias(task_id="theirs", context_id="their-context")
    await answered(tasks, "y", task=None)
    assert await tasks.alias_of_task("w", "t") == Alias(task_id="theirs", context_id="their-context")
    assert await tasks.alias_of_task("other", "t") is None


async def test_contexts_that_agents_call_otherwise_are_in_the_snapshot(tasks: Store) -> None:
    await put(tasks, a_deferral("a", task_id="t", context_id="c"), a_deferral("b", task_id="u", context_id="d"))
    await answered(tasks, "x", task="theirs", context="their-context")
    await answered(tasks, "y", task="more")
    snapshot = await tasks.snapshot(restarts_since=at(0), completed_since=at(0))
    assert list(snapshot.contexts) == [
        ForeignContext(workspace_id="w", caller="client:c", context_id="c", upstream_id="their-context")
    ]


async def test_a_callers_ended_tasks_are_read_from_the_last_end_on(tasks: Store) -> None:
    await ended(tasks, *(a_deferral(name, task_id=f"task-{name}") for name in "abc"))
    await ended(tasks, a_deferral("x", task_id="task-x", caller="client:x"), first=30)
    await ended(tasks, a_deferral("n", task_id="task-n", caller=None), first=40)
    await ended(tasks, a_deferral("p"), a_deferral("o", task_id="task-o", workspace_id="other"), first=50)
    await put(tasks, a_deferral("q", task_id="task-q"))
    assert await names(tasks) == ["c", "b", "a"]
    assert await names(tasks, limit=2) == ["c", "b"]
    assert await names(tasks, "client:x") == ["x"]
    assert await names(tasks, None) == ["n"]
    (last,) = await tasks.ended_tasks("w", "client:c", before=None, limit=1)
    assert last.completed_at == at(12)
    assert await names(tasks, before=(at(12), last.seq)) == ["b", "a"]
    assert await names(tasks, before=(at(12), last.seq + 1)) == ["c", "b", "a"]
    assert await names(tasks, before=(at(10), 0)) == []


async def test_a_task_is_ended_when_its_latest_deferral_is(tasks: Store) -> None:
    await ended(tasks, a_deferral("a", task_id="t"))
    await put(tasks, a_deferral("b", task_id="t"))
    assert await names(tasks) == []
    assert await tasks.finish("b", None, Ending(state=State.CANCELLED, at=at(5)))
    assert await names(tasks) == ["b"]


async def test_tasks_are_found_by_what_their_agent_calls_them(tasks: Store) -> None:
    await put(tasks, a_deferral("a", task_id="t"), a_deferral("b", task_id="u", caller="client:x"))
    await answered(tasks, "x", task="theirs")
    await answered(tasks, "y", task="more")
    assert await tasks.task_ids("w", "client:c", ["theirs", "more", "theirs", "unknown"]) == {"theirs": "t"}
    assert await tasks.task_ids("w", "client:x", ["theirs", "more"]) == {"more": "u"}
    assert await tasks.task_ids("w", None, ["theirs", "more"]) == {}
    assert await tasks.task_ids("other", "client:c", ["theirs"]) == {}
    assert await tasks.task_ids("w", "client:c", []) == {}
