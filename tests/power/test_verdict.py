"""A verdict can say no: damage that is done on purpose is found, and is called what it is."""

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest
from power import verdict
from power.verdict import Tally, Verdict
from power.workload import DATABASE, Acknowledged, answer, progress, request
from store.examples import NO_LIMITS, T0, a_decision, a_deferral, a_lease, a_workspace

from proxy.core.deferral import State
from proxy.store import Ending
from proxy.store.sqlite import SqliteStore

Told = dict[str, Acknowledged]


@pytest.fixture
async def told(tmp_path: Path) -> Told:
    """What callers were told of four deferrals in the closed store at `tmp_path`: one in each of four states."""
    store = SqliteStore(tmp_path / DATABASE)
    await store.open()
    await store.create(a_workspace())
    for deferral_id in ("leased", "completed", "dead", "queued"):
        deferral = replace(a_deferral(deferral_id), request=request(deferral_id))
        await store.enqueue(deferral, limits=NO_LIMITS, decision=a_decision(receipt=deferral_id))
    await store.claim("w", leases=[a_lease("l"), a_lease("c"), a_lease("d")], now=T0)
    await store.finish("completed", "c", Ending(state=State.COMPLETED, at=T0, answer=answer("completed")))
    await store.finish("dead", "d", Ending(state=State.DEAD_LETTERED, at=T0))
    said = {}
    for state, deferral_id in zip(State, ("queued", "leased", "completed", "dead"), strict=False):
        row = await store.deferral(deferral_id)
        assert row is not None
        assert row.state is state
        said[deferral_id] = Acknowledged(deferral_id=deferral_id, progress=progress(row), state=row.state)
    await store.aclose()
    return said


def damage(folder: Path, statement: str) -> None:
    connection = sqlite3.connect(folder / DATABASE)
    with connection:
        assert connection.execute(statement).rowcount > 0
    connection.close()


async def test_a_sound_store_is_called_sound(told: Told, tmp_path: Path) -> None:
    assert await verdict.judge(tmp_path, 7, told) == Verdict(point=7, acknowledged=4)


@pytest.mark.parametrize(
    ("statement", "lost"),
    [
        ("UPDATE deferrals SET id = 'other' WHERE id = 'queued'", "queued"),
        ("UPDATE deferrals SET tail = '/' WHERE id = 'queued'", "queued"),
        ("UPDATE requests SET body = x'00' WHERE deferral = (SELECT seq FROM deferrals WHERE id = 'leased')", "leased"),
        ("DELETE FROM requests WHERE deferral = (SELECT seq FROM deferrals WHERE id = 'dead')", "dead"),
        ("UPDATE answers SET status = 201", "completed"),
        ("DELETE FROM answers", "completed"),
        ("UPDATE deferrals SET tries = 0 WHERE id = 'completed'", "completed"),
        ("UPDATE deferrals SET state = 'expired' WHERE id = 'dead'", "dead"),
    ],
)
async def test_a_row_that_is_not_as_it_was_acknowledged_is_lost(
    statement: str, lost: str, told: Told, tmp_path: Path
) -> None:
    damage(tmp_path, statement)
    assert (await verdict.judge(tmp_path, 7, told)).lost == (lost,)


async def test_a_row_that_went_on_without_its_caller_being_told_is_not_lost(told: Told, tmp_path: Path) -> None:
    earlier = {one: replace(said, progress=1, state=State.QUEUED) for one, said in told.items()}
    assert await verdict.judge(tmp_path, 7, earlier) == Verdict(point=7, acknowledged=4)


@pytest.mark.parametrize(
    ("statement", "complaint"),
    [
        ("UPDATE queue_sizes SET depth = depth + 1", "break a transaction"),
        ("DELETE FROM decisions WHERE receipt = 'dead'", "break a transaction"),
        ("UPDATE deferrals SET workspace = 99 WHERE id = 'dead'", "foreign key"),
        ("UPDATE deferrals SET tail = '/' WHERE id = 'queued'", "content that nobody wrote: queued"),
        ("UPDATE deferrals SET headers = '[' WHERE id = 'queued'", "DecodeError"),
    ],
)
async def test_what_no_transaction_left_behind_is_corrupt(
    statement: str, complaint: str, told: Told, tmp_path: Path
) -> None:
    damage(tmp_path, statement)
    assert told.pop("queued")
    assert complaint in (await verdict.judge(tmp_path, 7, told)).corrupt


async def test_a_damaged_page_is_corrupt_and_takes_its_rows_along(told: Told, tmp_path: Path) -> None:
    with (tmp_path / DATABASE).open("r+b") as database:
        database.write(bytes(4096))
    found = await verdict.judge(tmp_path, 7, told)
    assert found.corrupt
    assert set(found.lost) == set(told)


async def test_without_its_database_everything_acknowledged_is_lost(told: Told, tmp_path: Path) -> None:
    (tmp_path / DATABASE).unlink()
    found = await verdict.judge(tmp_path, 7, told)
    assert (found.corrupt, set(found.lost)) == ("", set(told))


def test_the_furthest_that_a_caller_was_told_before_the_end_counts() -> None:
    steps = [(1, State.QUEUED), (2, State.LEASED), (3, State.COMPLETED)]
    said = [
        (number, Acknowledged(deferral_id="d", progress=progress, state=state))
        for number, (progress, state) in zip((10, 30, 20), steps, strict=True)
    ]
    assert verdict.told_until(9, said) == {}
    assert verdict.told_until(19, said)["d"].progress == 1
    assert verdict.told_until(20, said)["d"].progress == 3
    assert verdict.told_until(30, said)["d"].progress == 3


def test_a_tally_counts_points_and_rows() -> None:
    verdicts = [
        Verdict(point=1, acknowledged=2),
        Verdict(point=2, acknowledged=3, lost=("a", "b")),
        Verdict(point=3, acknowledged=3, lost=("a",), corrupt="malformed"),
    ]
    assert Tally.of(verdicts) == Tally(points=3, losing=2, rows=3, corrupt=1)
    assert str(verdicts[2]) == "record 3: 1 of 3 lost (a); malformed"
