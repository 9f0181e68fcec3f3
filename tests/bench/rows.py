"""Deferrals and databases for benches: rows as the proxy itself writes them, many of them.

Owns: what a realistic deferral is, and filling a database with workspaces and rows.
Knows nothing of: time that is measured.
"""

import asyncio
import random
import sqlite3
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

from proxy.clock import Now, SystemClock
from proxy.core import a2a
from proxy.core.decision import Decision, Trigger
from proxy.core.deferral import Deferral, StoredRequest, StoredTask
from proxy.core.lifecycle import Status
from proxy.core.tokens import digest
from proxy.core.workspace import DeliveryMode, Workspace
from proxy.loops.minting import Mint
from proxy.store import WORKSPACE_TOKEN, QueueLimits, TokenRecord, no_line, no_task, sqlite_engine
from proxy.store.sqlite import SqliteStore
from proxy.store.units import workspaces
from proxy.store.units.crowds import Enqueue

CROWD = 64
DAY = timedelta(days=1)
HEADERS = (
    (b"Accept", b"application/json"),
    (b"Accept-Encoding", b"gzip, deflate"),
    (b"User-Agent", b"holdfast-bench"),
    (b"Content-Type", b"application/json"),
    (b"A2A-Version", b"1.0"),
)
TASK_ID, CONTEXT_ID, MESSAGE_ID = "{task}", "{context}", "{message}"
TEXT = "The request is stored; this task will hold the workspace's answer."


now: Now = SystemClock()
"""The present."""


class Rows:
    """Makes deferrals as `loops.deferring` makes them, with random message ids as clients make them."""

    def __init__(self, *, seed: int, body: int = 1024) -> None:
        self._chance = random.Random(seed)  # noqa: S311 - it must be repeatable
        self._mint = Mint(self._chance, now)
        self._body = body
        self._call = a2a.read("POST", "", "1.0", "application/json", self._send(MESSAGE_ID))
        # What differs from task to task is put in its place later: to write each anew would take most of the time.
        self._task = a2a.submitted_task(self._call, task_id=TASK_ID, context_id=CONTEXT_ID, at=now(), text=TEXT)

    def message_id(self) -> str:
        """A client's: a random UUID."""
        bits = f"{self._chance.getrandbits(128):032x}"
        return f"{bits[:8]}-{bits[8:12]}-{bits[12:16]}-{bits[16:20]}-{bits[20:]}"

    def _send(self, message_id: str) -> bytes:
        said = f'{{"jsonrpc":"2.0","id":1,"method":"SendMessage","params":{{"message":{{"messageId":"{message_id}",'
        said += '"role":"ROLE_USER","parts":[{"text":"'
        return (said.ljust(self._body - 6, "x") + '"}]}}}').encode("ascii")

    def deferral(self, workspace_id: str) -> Deferral:
        """One, accepted now."""
        at, message_id = now(), self.message_id()
        deferral_id, context_id = self._mint.new_id(), a2a.new_context_id(self._chance, at)
        task_id = a2a.provisional_id(self._chance, at)
        body, call = self._send(message_id), self._call
        task = self._task.replace(TASK_ID.encode(), task_id.encode()).replace(CONTEXT_ID.encode(), context_id.encode())
        return Deferral(
            id=deferral_id,
            workspace_id=workspace_id,
            caller="client:bench",
            request=StoredRequest(method="POST", tail="", headers=HEADERS, body=body),
            enqueued_at=at,
            expires_at=at + DAY,
            next_attempt_at=at,
            binding=call.binding.value,
            protocol=call.version.value,
            operation=call.operation.value,
            rpc_id=call.rpc_id,
            message_id=message_id,
            context_id=context_id,
            task_id=task_id,
            task=StoredTask(json=task, version=call.version.value, state="submitted"),
            idempotency_key=message_id,
            digest=self._chance.randbytes(32).hex(),
            last_error="the workspace fetches its requests",
            request_id=self._mint.new_id(),
            credentials=self._chance.randbytes(120),
        )

    def decision(self, deferral: Deferral) -> Decision:
        """Its line of the decision log."""
        return Decision(
            workspace_id=deferral.workspace_id,
            at=deferral.enqueued_at,
            trigger=Trigger.FORWARD,
            action="deferred",
            verdict="unknown",
            rule="parked",
            policy="combined",
            request_id=deferral.request_id,
            receipt=deferral.id,
        )


def limits() -> QueueLimits:
    """What a proxy asks with by default, but for the length of a queue."""
    return QueueLimits(rows=0, bytes=0, idempotency_since=now() - timedelta(hours=1))


def workspace_name(number: int) -> str:
    """The id of a workspace."""
    return f"workspace-{number:06d}"


def token_of(number: int) -> str:
    """The token of a workspace: made up, so that nobody has to remember a hundred thousand."""
    return f"hf_{number:043d}"


def fill(path: Path, *, workspaces_count: int, rows: int, body: int = 256, tokens: bool = False) -> None:
    """Make a database of workspaces, with their tokens if they shall beat, and deferrals spread over them evenly."""
    asyncio.run(_create(path))
    connection = sqlite3.connect(path, isolation_level=None, cached_statements=256)
    try:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA cache_size = -262144")
        for start in range(0, workspaces_count, 1000):
            connection.execute("BEGIN")
            for number in range(start, min(start + 1000, workspaces_count)):
                made = _workspace(number)
                token = _token(number) if tokens else None
                sqlite_engine.run(connection, workspaces.create(made, token, None))
            connection.execute("COMMIT")
        for crowd in _crowds(workspaces_count, rows, body):
            connection.execute("BEGIN")
            sqlite_engine.run(connection, Enqueue.join(crowd))
            connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        connection.close()


async def _create(path: Path) -> None:
    store = SqliteStore(path)
    await store.open()
    await store.aclose()


def _workspace(number: int) -> Workspace:
    """One that has been ready for a while and fetches its requests: nobody dials it, its beats change no record."""
    at = now()
    return Workspace(
        id=workspace_name(number),
        created_at=at,
        status=Status.READY,
        delivery_mode=DeliveryMode.POLL,
        boot_id=f"boot-{number}",
        bound=True,
        registered_at=at,
        ready_at=at,
    )


def _token(number: int) -> TokenRecord:
    token = token_of(number)
    return TokenRecord(
        id=f"token-{number}",
        kind=WORKSPACE_TOKEN,
        name=workspace_name(number),
        digest=digest(token),
        prefix=token[:8],
        created_at=now(),
    )


def _crowds(workspaces_count: int, rows: int, body: int) -> Iterator[list[Enqueue]]:
    made, asked = Rows(seed=rows, body=body), limits()
    for start in range(0, rows, CROWD):
        crowd = []
        for number in range(start, min(start + CROWD, rows)):
            deferral = made.deferral(workspace_name(number % workspaces_count))
            crowd.append(Enqueue(deferral, asked, None, no_task, no_line))
        yield crowd
