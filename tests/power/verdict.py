"""What a store must still hold after the power was lost, and whether it does.

Owns: which acknowledgements count at a point, the comparison, the sum over many points.
Knows nothing of: how an image came to be.

*Lost*: a row that was acknowledged before the power went is missing, is not as far as was said, or holds something
else. *Corrupt*: the store does not open by its own `open`, SQLite's integrity check or its check of foreign keys
complains, a queue's counters are not those of its rows, an enqueued deferral has no line in the decision log that was
written in the same transaction, or a row that nobody was told about holds something else than was written. What cannot
be read out of a corrupt store is lost as well.
"""

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from power.recording import Kind, Record
from power.workload import DATABASE, Acknowledged, answer, progress, request

from proxy.core.deferral import ACTIVE, Deferral, State
from proxy.store import sqlite_engine
from proxy.store.sqlite import SqliteStore, _on_thread
from proxy.store.units import deferrals

_UNEQUAL_COUNTERS: Final = """
SELECT count(*) FROM queue_sizes WHERE (depth, bytes) <> (
    SELECT count(*), coalesce(sum(deferrals.bytes), 0) FROM deferrals
    WHERE deferrals.workspace = queue_sizes.workspace AND deferrals.state IN ('queued', 'leased')
)
"""
_UNEXPLAINED: Final = """
SELECT count(*) FROM deferrals WHERE NOT EXISTS (SELECT 1 FROM decisions WHERE decisions.receipt = deferrals.id)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One image. `lost`: ids; `corrupt`: what is wrong, empty where nothing is; `acknowledged`: deferrals till then."""

    point: int
    acknowledged: int
    lost: tuple[str, ...] = ()
    corrupt: str = ""

    def __str__(self) -> str:
        first = ", ".join(self.lost[:3])
        return f"record {self.point}: {len(self.lost)} of {self.acknowledged} lost ({first}); {self.corrupt or 'sound'}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """Many images: at how many points something was lost, how many rows in all, how many stores were corrupt."""

    points: int
    losing: int
    rows: int
    corrupt: int

    @classmethod
    def of(cls, verdicts: Sequence[Verdict]) -> "Tally":
        """Add them up."""
        return cls(
            points=len(verdicts),
            losing=sum(bool(verdict.lost) for verdict in verdicts),
            rows=sum(len(verdict.lost) for verdict in verdicts),
            corrupt=sum(bool(verdict.corrupt) for verdict in verdicts),
        )


def acknowledgements(records: Iterable[Record]) -> tuple[tuple[int, Acknowledged], ...]:
    """Return everything that callers were told, each with the number of its record."""
    said = [(one.number, json.loads(one.data)) for one in records if one.kind is Kind.MARK]
    return tuple(
        (number, Acknowledged(deferral_id=one["id"], progress=one["progress"], state=State(one["state"])))
        for number, one in said
    )


def told_until(point: int, said: Iterable[tuple[int, Acknowledged]]) -> dict[str, Acknowledged]:
    """Return the furthest that callers were told of each deferral before the power went at `point`."""
    furthest: dict[str, Acknowledged] = {}
    for number, one in said:
        known = furthest.get(one.deferral_id)
        if number <= point and (known is None or known.progress < one.progress):
            furthest[one.deferral_id] = one
    return furthest


async def judge(folder: Path, point: int, told: Mapping[str, Acknowledged]) -> Verdict:
    """Open what lies in `folder` as a starting proxy does, read everything, compare."""
    store = SqliteStore(folder / DATABASE)
    try:
        await store.open()
        try:
            assert store._connection is not None
            rows, corrupt = await _on_thread(store._connection, partial(_look, path=folder / DATABASE))
        finally:
            await store.aclose()
    except Exception as failure:  # noqa: BLE001 - damage that SQLite does not notice may make anything fail
        return Verdict(point=point, acknowledged=len(told), lost=tuple(told), corrupt=repr(failure))
    wrong = {row.id for row in rows.values() if not _has_its_own_content(row)}
    lost = tuple(one for one in told if one in wrong or not _is_as_far(rows.get(one), told[one]))
    if not corrupt and wrong - told.keys():
        corrupt = f"content that nobody wrote: {min(wrong - told.keys())}"
    return Verdict(point=point, acknowledged=len(told), lost=lost, corrupt=corrupt)


def _look(connection: sqlite3.Connection, path: Path) -> tuple[dict[str, Deferral], str]:
    """Return every deferral that can be read, and what is wrong with the database."""
    rows: dict[str, Deferral] = {}
    try:
        complaints = [line for (line,) in connection.execute("PRAGMA integrity_check") if line != "ok"]
        complaints += [f"foreign key: {line}" for line in connection.execute("PRAGMA foreign_key_check")]
        for query in (_UNEQUAL_COUNTERS, _UNEXPLAINED):
            (found,) = connection.execute(query).fetchone()
            if found:
                complaints.append(f"{found} rows break a transaction:{' '.join(query.split())}")
        for (deferral_id,) in connection.execute("SELECT id FROM deferrals").fetchall():
            found = sqlite_engine.read(connection, partial(deferrals.deferral, deferral_id), path)
            if found is not None:
                rows[deferral_id] = found
    except Exception as failure:  # noqa: BLE001 - as in `judge`
        return rows, repr(failure)
    return rows, "; ".join(complaints[:3])


def _is_as_far(row: Deferral | None, told: Acknowledged) -> bool:
    """Whether a row is where a caller was told, or further: what came after may have survived without its word."""
    if row is None:
        return False
    here = progress(row)
    return here > told.progress or (here == told.progress and row.state is told.state)


def _has_its_own_content(row: Deferral) -> bool:
    """Whether a row holds what its id says; an end drops the body, unless it is a dead letter."""
    asked = request(row.id)
    if (row.request.method, row.request.tail, row.request.headers) != (asked.method, asked.tail, asked.headers):
        return False
    keeps_body = row.state in ACTIVE or row.state is State.DEAD_LETTERED
    if row.request.body != (asked.body if keeps_body else b""):
        return False
    return row.answer == (answer(row.id) if row.state is State.COMPLETED else None)
