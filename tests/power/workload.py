"""The store under traffic, to be run below the recorder: many clients at once, everything acknowledged is marked.

Owns: what is asked of the store, what each deferral holds (told from its id alone), what an acknowledgement says.
Knows nothing of: recorders and images. `verdict` reads the marks.

    python -m power.workload FULL|NORMAL|OFF       in POWER_DIRECTORY, marks into POWER_MARKS

Three lives of one store: twice it is closed in good order, so that its log is folded and unlinked and begun anew, the
last time the process ends in the middle. `synchronous` is the product's own under FULL, where nothing is changed;
anything else is put in its place here, for there is no setting for it.
"""

import asyncio
import json
import os
import random
import sqlite3
import sys
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Final

from store.examples import NO_LIMITS, T0, a_decision, a_deferral, a_lease, a_workspace

from proxy.core.deferral import Deferral, State, StoredAnswer, StoredRequest
from proxy.store import Ending, Requeue, sqlite_schema
from proxy.store.sqlite import SqliteStore, _on_thread

DATABASE: Final = "holdfast.db"
WORKSPACES: Final = ("w0", "w1", "w2")
LEVELS: Final = ("OFF", "NORMAL", "FULL")
"""`PRAGMA synchronous` by number."""
CLIENTS: Final = 24
LIVES: Final = (3, 3, 20)
"""How many deferrals each client enqueues in each life; the last goes round the write-ahead log more than once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Acknowledged:
    """What a caller was told about a deferral: it has come this far, and is in this state."""

    deferral_id: str
    progress: int
    state: State


def progress(deferral: Deferral) -> int:
    """Return how far a deferral has come; it only grows: queued 1, leased 2, back or ended 3, leased again 4 ..."""
    return 2 * deferral.tries + (deferral.state is not State.LEASED)


@cache
def request(deferral_id: str) -> StoredRequest:
    """Return the request that a deferral was made of: 0 to 12 KB, most of them small."""
    chance = random.Random(f"request {deferral_id}")  # noqa: S311 - repeatable contents
    body = chance.randbytes(int(12_000 * chance.random() ** 3))
    return StoredRequest(method="POST", tail=f"/{deferral_id}", headers=((b"x-id", deferral_id.encode()),), body=body)


@cache
def answer(deferral_id: str) -> StoredAnswer:
    """Return the answer that ends a deferral."""
    chance = random.Random(f"answer {deferral_id}")  # noqa: S311 - repeatable contents
    return StoredAnswer(status=200, headers=((b"x-id", deferral_id.encode()),), body=chance.randbytes(500))


class _Clients:
    def __init__(self, store: SqliteStore, marks: int, life: int) -> None:
        self._store = store
        self._marks = marks
        self._life = life

    def _acknowledge(self, deferral: Deferral) -> None:
        said = {"id": deferral.id, "progress": progress(deferral), "state": deferral.state.value}
        os.write(self._marks, json.dumps(said).encode())

    async def run(self) -> None:
        async with asyncio.TaskGroup() as clients:
            for number in range(CLIENTS):
                clients.create_task(self._client(number))

    async def _client(self, number: int) -> None:
        chance = random.Random(f"client {self._life} {number}")  # noqa: S311 - repeatable traffic
        workspace = WORKSPACES[number % len(WORKSPACES)]
        for count in range(LIVES[self._life]):
            deferral_id = f"d{self._life}-{number}-{count}"
            context = chance.choice((None, f"c{number}"))
            deferral = a_deferral(deferral_id, workspace_id=workspace, context_id=context)
            deferral = replace(deferral, request=request(deferral_id))
            decision = a_decision(workspace_id=workspace, receipt=deferral_id)
            enqueued = await self._store.enqueue(deferral, limits=NO_LIMITS, decision=decision)
            assert enqueued.deferral is not None
            self._acknowledge(enqueued.deferral)
            if chance.random() < 0.7:
                await self._deliver(workspace, f"{deferral_id}-lease", chance)

    async def _deliver(self, workspace: str, token: str, chance: random.Random) -> None:
        leases = [a_lease(f"{token}-{number}") for number in range(chance.randint(1, 2))]
        for deferral in await self._store.claim(workspace, leases=leases, now=T0):
            self._acknowledge(deferral)
            await self._conclude(deferral, chance)

    async def _conclude(self, deferral: Deferral, chance: random.Random) -> None:
        assert deferral.lease is not None
        token = deferral.lease.token
        fate = chance.random()
        if fate < 0.1:  # stays leased
            return
        if fate < 0.3:
            requeue = Requeue(next_attempt_at=T0, attempts=deferral.attempts + 1, maybe=True)
            if await self._store.release(deferral.id, token, requeue):
                self._acknowledge(replace(deferral, state=State.QUEUED, lease=None))
            return
        if fate < 0.4:
            ending = Ending(state=State.DEAD_LETTERED, at=T0, error="given up")
        else:
            ending = Ending(state=State.COMPLETED, at=T0, answer=answer(deferral.id))
        decision = a_decision("deliver", workspace_id=deferral.workspace_id, receipt=deferral.id)
        ended = await self._store.finish(deferral.id, token, ending, decision=decision)
        assert ended is not None
        self._acknowledge(ended)


def set_synchronous(level: str) -> None:
    """Open every store of this process with another `synchronous` than the product's; FULL leaves all as it is."""
    if level == "FULL":
        return
    as_shipped = sqlite_schema.prepare_writer

    def prepare_writer(connection: sqlite3.Connection) -> None:
        as_shipped(connection)
        connection.execute(f"PRAGMA synchronous = {level}")

    sqlite_schema.prepare_writer = prepare_writer


async def _pragma(store: SqliteStore, name: str) -> str | int:
    assert store._connection is not None
    found: str | int = await _on_thread(
        store._connection, lambda connection: connection.execute(f"PRAGMA {name}").fetchone()[0]
    )
    return found


async def _live(directory: Path, marks: int, level: str) -> None:
    for life in range(len(LIVES)):
        store = SqliteStore(directory / DATABASE)
        await store.open()
        held = (await _pragma(store, "journal_mode"), LEVELS[int(await _pragma(store, "synchronous"))])
        assert held == ("wal", level), held
        if life == 0:
            for workspace in WORKSPACES:
                await store.create(a_workspace(workspace))
        await _Clients(store, marks, life).run()
        if life == len(LIVES) - 1:
            os._exit(0)  # no fold, no close: the write-ahead log stays as it is
        await store.aclose()


def main() -> None:
    """Run it all; the process ends without closing its last store."""
    level = sys.argv[1]
    set_synchronous(level)
    marks = os.open(os.environ["POWER_MARKS"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    asyncio.run(_live(Path(os.environ["POWER_DIRECTORY"]), marks, level))


if __name__ == "__main__":
    main()
