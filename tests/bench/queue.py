"""`scripts/bench queue`: how many requests a second are put away durably, how late, and what is lost (nothing may be).

Owns: which slices are played in which order, the loss that is looked for.
Knows nothing of: what is made of the numbers (`bench.queue_report`), how rows look (`bench.rows`), how a proxy is
started and asked (`bench.served`).

Five questions:

* *At the store.* 64 callers put requests of a kilobyte away, each as soon as its last one is durable. Slices take turns
  with the same work at one commit each, and with the disk alone: 4 KiB appended and synced, over and over, in the same
  directory. Everything is written with `synchronous = FULL`.
* *On a slower disk.* The same, each sync made longer by `--sync-ms`: there the syncs are what limits, not the work.
* *Over HTTP.* The same against a proxy in a process of its own, whose workspace fetches its requests, so that every
  send is answered with 202; and against one that is told to commit each by itself.
* *Claims.* How long a claim takes in a database of a thousand rows and in one of a million, over ten thousand
  workspaces: the work alone, and with its commit.
* *Loss.* The proxy is killed (SIGKILL) in the middle of it, several times: what it had acknowledged must be there.
"""

import argparse
import asyncio
import os
import random
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import uvloop
from bench import slow_disk
from bench.measuring import MEASURED, WRONG, Journal, UnfitError, described, read_journal, say
from bench.queue_report import (
    DISK,
    GROUP,
    HTTP,
    MICRO,
    SINGLE,
    SLOWER,
    STORE,
    lost_of,
    page,
    report,
    round_line,
)
from bench.rows import Rows, fill, limits, now, workspace_name
from bench.served import Line, Served, request

from proxy.core.deferral import Lease
from proxy.core.workspace import Workspace
from proxy.store import Placed, Requeue, no_line, sqlite_engine, sqlite_schema
from proxy.store.sqlite import SqliteStore
from proxy.store.units import delivery

BLOCK = 4096
WORKSPACE = "bench"
SMALL = 1000
CLAIMS = 200
_RECEIPT = re.compile(rb"\r\nholdfast-receipt: *([0-9a-f]+)", re.IGNORECASE)
ACCEPTED = 202


def options(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="scripts/bench queue", description="Durable deferrals: rate, latency, loss.")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--callers", type=int, default=64)
    parser.add_argument("--count", type=int, default=6400, help="deferrals of a slice at the store")
    parser.add_argument("--seconds", type=float, default=2.0, help="of a slice over HTTP, and of one of the disk")
    parser.add_argument("--sync-ms", type=float, default=1.0, help="how much longer the slower disk's syncs take")
    parser.add_argument("--rows", type=int, default=1_000_000, help="of the large queue that is claimed from")
    parser.add_argument("--workspaces", type=int, default=10_000, help="that those rows are spread over")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--directory", type=Path, help="where to write (on the disk that is to be measured)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--short", action="store_true", help="a few seconds: shows that it works, measures nothing")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every raw number there")
    asked = parser.parse_args(arguments)
    if asked.short:
        asked.rounds, asked.count, asked.seconds, asked.callers = 1, 256, 0.3, 16
        asked.rows, asked.workspaces, asked.kills = 2000, 100, 2
    return asked


def main(arguments: Sequence[str]) -> int:
    """Measure, print, and say whether everything that was acknowledged is there."""
    asked = options(arguments)
    folder = Path(tempfile.mkdtemp(prefix="holdfast-bench-", dir=asked.directory))
    try:
        with Journal("queue", arguments, asked.json) as journal:
            for line in described(journal.records[0]["machine"]):
                say(line)
            for part in asked.only:
                PARTS[part](journal, asked, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    say("", *report(journal.records))
    return WRONG if lost_of(journal.records) else MEASURED


def run(work: Awaitable[Any]) -> Any:
    """On the loop that a proxy runs on."""

    async def it() -> Any:
        return await work

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(it())


# At the store


def at_store(journal: Journal, asked: argparse.Namespace, folder: Path) -> None:
    """Slices of all three, in turns."""
    run(_at_store(journal, asked, folder))


async def _at_store(journal: Journal, asked: argparse.Namespace, folder: Path) -> None:
    stores = {GROUP: SqliteStore(folder / "group.db"), SINGLE: SqliteStore(folder / "single.db", batch=1)}
    counts = {GROUP: asked.count, SINGLE: max(64, asked.count // 8)}
    rows = Rows(seed=asked.seed)
    for store in stores.values():
        await store.open()
        await store.create(Workspace(id=WORKSPACE, created_at=now()))
    names = (GROUP, SINGLE, DISK)
    for number in range(asked.rounds):
        turn = number % len(names)
        for name in (*names[turn:], *names[:turn]):
            if name == DISK:
                journal.note("slice", where=STORE, subject=DISK, round=number, **disk_slice(folder, asked.seconds / 2))
            else:
                taken = await store_slice(stores[name], rows, counts[name], asked.callers)
                journal.note("slice", where=STORE, subject=name, round=number, **taken)
        say(f"store, round {number + 1} of {asked.rounds}: {round_line(journal.records, STORE, number)}")
    for name, store in stores.items():
        there = len(await store.deferrals(limit=10**9))
        put_away = sum(one["count"] for one in journal.of("slice", where=STORE, subject=name))
        journal.note("kept", where=STORE, subject=name, acknowledged=put_away, there=there)
        await store.aclose()


async def store_slice(store: SqliteStore, rows: Rows, count: int, callers: int) -> dict[str, Any]:
    """Put so many away; the rows are made before the clock starts."""
    made = [rows.deferral(WORKSPACE) for _ in range(count)]
    waiting = [(deferral, rows.decision(deferral)) for deferral in made]
    asked = limits()
    latencies: list[float] = []

    async def call() -> None:
        while waiting:
            deferral, decision = waiting.pop()
            began = time.perf_counter()
            placed = await store.enqueue(deferral, limits=asked, decision=decision)
            latencies.append(time.perf_counter() - began)
            if placed.placed is not Placed.INSERTED:
                raise RuntimeError(f"a new request was {placed.placed}")

    cpu, began = time.process_time(), time.perf_counter()
    await asyncio.gather(*(call() for _ in range(callers)))
    seconds = time.perf_counter() - began
    return _slice(len(latencies), seconds, time.process_time() - cpu, latencies)


def on_a_slower_disk(journal: Journal, asked: argparse.Namespace, folder: Path) -> None:
    """The part *at the store* in a program of its own, whose syncs take longer."""
    try:
        around = slow_disk.environment(folder, asked.sync_ms)
    except UnfitError as problem:
        say(f"slower disk: left out: {problem}")
        return
    kept = folder / "slower.jsonl"
    words = [sys.executable, "-m", "bench", "queue", "--only", "store", "--directory", folder, "--json", kept]
    words += ["--rounds", asked.rounds, "--count", asked.count, "--seconds", asked.seconds, "--callers", asked.callers]
    subprocess.run([str(word) for word in words], check=True, env=around, stdout=subprocess.DEVNULL)  # noqa: S603 - this very program
    for one in read_journal(kept):
        if one.get("where") == STORE:
            said = {name: value for name, value in one.items() if name != "where"} | {"sync_ms": asked.sync_ms}
            journal.note(said.pop("kind"), where=SLOWER, **said)
    for number in range(asked.rounds):
        say(f"slower disk, round {number + 1} of {asked.rounds}: {round_line(journal.records, SLOWER, number)}")


def disk_slice(folder: Path, seconds: float) -> dict[str, Any]:
    """Append and sync for so long."""
    block, latencies = os.urandom(BLOCK), []
    path = folder / "disk"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    cpu, began = time.process_time(), time.perf_counter()
    try:
        while time.perf_counter() - began < seconds:
            one = time.perf_counter()
            os.write(descriptor, block)
            os.fdatasync(descriptor)
            latencies.append(time.perf_counter() - one)
        taken = time.perf_counter() - began
    finally:
        os.close(descriptor)
        path.unlink()
    return _slice(len(latencies), taken, time.process_time() - cpu, latencies)


def _slice(count: int, seconds: float, cpu: float, latencies: Sequence[float]) -> dict[str, Any]:
    return {
        "count": count,
        "seconds": round(seconds, 6),
        "cpu_seconds": round(cpu, 6),
        "latencies_us": [round(late * MICRO) for late in latencies],
    }


# Over HTTP


def over_http(journal: Journal, asked: argparse.Namespace, folder: Path) -> None:
    """Slices against both proxies, in turns."""
    settings = {"QUEUE_ROWS": 0, "QUEUE_BYTES": 0}
    with (
        Served(folder / "http-group.db", settings) as group,
        Served(folder / "http-single.db", {**settings, "STORE_BATCH": 1}) as single,
    ):
        proxies = {GROUP: group, SINGLE: single}
        tokens = {name: prepare(served) for name, served in proxies.items()}
        names = (GROUP, SINGLE)
        rows = Rows(seed=asked.seed + 1)
        for name in names:  # so that nothing that is measured happens for the first time
            run(http_slice(proxies[name], tokens[name], rows, asked.seconds / 4, asked.callers))
        for number in range(asked.rounds):
            turn = number % len(names)
            for name in (*names[turn:], *names[:turn]):
                before = proxies[name].cpu()
                latencies, seconds, _ = run(http_slice(proxies[name], tokens[name], rows, asked.seconds, asked.callers))
                cpu = proxies[name].cpu() - before
                taken = _slice(len(latencies), seconds, cpu, latencies)
                journal.note("slice", where=HTTP, subject=name, round=number, **taken)
            say(f"http, round {number + 1} of {asked.rounds}: {round_line(journal.records, HTTP, number)}")


def prepare(served: Served) -> str:
    """Register the workspace that fetches its requests by itself, make a client; its token."""
    served.ask("PUT", f"/workspaces/{WORKSPACE}", {"delivery_mode": "poll"})
    return str(served.ask("POST", "/tokens", {"kind": "client", "name": "bench"})["token"])


async def http_slice(
    served: Served, token: str, rows: Rows, seconds: float, callers: int
) -> tuple[list[float], float, dict[str, str]]:
    """Send for so long, or until the proxy is gone; latencies, seconds, message ids by receipt of what it accepted."""
    latencies: list[float] = []
    accepted: dict[str, str] = {}
    until = time.perf_counter() + seconds

    async def call() -> None:
        line = await Line.to(served.port)
        with suppress(ConnectionError):
            while time.perf_counter() < until:
                message_id = rows.message_id()
                asking = request(served.port, f"/workspaces/{WORKSPACE}/a2a", token, send_body(message_id))
                began = time.perf_counter()
                answer = await line.ask(asking)
                latencies.append(time.perf_counter() - began)
                receipt = _RECEIPT.search(answer.head)
                if answer.status != ACCEPTED or receipt is None:
                    raise RuntimeError(f"a send was not put away: {answer}")
                accepted[receipt[1].decode()] = message_id
        line.close()

    began = time.perf_counter()
    await asyncio.gather(*(call() for _ in range(callers)))
    return latencies, time.perf_counter() - began, accepted


def send_body(message_id: str) -> bytes:
    """A SendMessage of a kilobyte."""
    start = (
        '{"jsonrpc":"2.0","id":1,"method":"SendMessage","params":{"message":{"messageId":"'
        f'{message_id}","role":"ROLE_USER","parts":[{{"text":"'
    )
    return (start.ljust(1024 - 6, "x") + '"}]}}}').encode("ascii")


# Claims


def claims(journal: Journal, asked: argparse.Namespace, folder: Path) -> None:
    """Claim from a small database and from a large one, in turns."""
    paths = {}
    for name, rows in (("small", min(SMALL, asked.rows)), ("large", asked.rows)):
        began = time.perf_counter()
        paths[name] = folder / f"claims-{name}.db"
        fill(paths[name], workspaces_count=asked.workspaces, rows=rows)
        size = paths[name].stat().st_size
        journal.note("filled", name=name, rows=rows, workspaces=asked.workspaces, bytes=size)
        say(
            f"claims: {rows} rows over {asked.workspaces} workspaces, {size >> 20} MiB,"
            f" {time.perf_counter() - began:.0f} s"
        )
    rounds = max(2, asked.rounds)
    run(_claims(journal, asked, paths, rounds))
    _claims_alone(journal, asked, paths, rounds)


async def _claims(journal: Journal, asked: argparse.Namespace, paths: Mapping[str, Path], rounds: int) -> None:
    stores = {name: SqliteStore(path) for name, path in paths.items()}
    for store in stores.values():
        await store.open()
    chance = random.Random(asked.seed)  # noqa: S311 - it must be repeatable
    for number in range(rounds):
        for name, store in stores.items():
            latencies = []
            for turn in range(CLAIMS):
                workspace_id = workspace_name(chance.randrange(min(asked.workspaces, SMALL, asked.rows)))
                lease = Lease(token=f"{number}-{turn}", owner="bench", until=now() + timedelta(hours=1))
                began = time.perf_counter()
                (claimed,) = await store.claim(workspace_id, leases=[lease], now=now())
                latencies.append(time.perf_counter() - began)
                requeue = Requeue(next_attempt_at=now(), attempts=0, maybe=False)
                await store.release(claimed.id, lease.token, requeue)
            journal.note("claim", name=name, how="committed", round=number, latencies_us=_micros(latencies))
    for store in stores.values():
        await store.aclose()


def _claims_alone(journal: Journal, asked: argparse.Namespace, paths: Mapping[str, Path], rounds: int) -> None:
    """The same without a commit: what the claim itself does, and not what the disk does after it."""
    connections = {}
    for name, path in paths.items():
        connections[name] = sqlite3.connect(path, isolation_level=None, cached_statements=256)
        sqlite_schema.prepare_writer(connections[name])
    chance = random.Random(asked.seed)  # noqa: S311 - it must be repeatable
    for number in range(rounds):
        for name, connection in connections.items():
            latencies = []
            connection.execute("BEGIN IMMEDIATE")
            for turn in range(CLAIMS):
                workspace_id = workspace_name(chance.randrange(min(asked.workspaces, SMALL, asked.rows)))
                lease = Lease(token=f"{number}-{turn}", owner="bench", until=now() + timedelta(hours=1))
                began = time.perf_counter()
                claimed = sqlite_engine.run(connection, delivery.claim(workspace_id, [lease], now(), no_line, 0))
                latencies.append(time.perf_counter() - began)
                requeue = Requeue(next_attempt_at=now(), attempts=0, maybe=False)
                sqlite_engine.run(connection, delivery.release(claimed[0].id, lease.token, requeue, None))
            connection.execute("ROLLBACK")
            journal.note("claim", name=name, how="alone", round=number, latencies_us=_micros(latencies))
    for connection in connections.values():
        connection.close()


def _micros(latencies: Sequence[float]) -> list[float]:
    return [round(late * MICRO, 1) for late in latencies]


# Loss


def losses(journal: Journal, asked: argparse.Namespace, folder: Path) -> None:
    """Kill the proxy while it is being asked, look for everything that it acknowledged, start it again."""
    path = folder / "loss.db"
    served = Served(path, {"QUEUE_ROWS": 0, "QUEUE_BYTES": 0})
    chance = random.Random(asked.seed)  # noqa: S311 - it must be repeatable
    rows = Rows(seed=asked.seed + 2)
    token = ""
    accepted: dict[str, str] = {}
    for number in range(asked.kills):
        served.start()
        try:
            token = token or prepare(served)
            after = chance.uniform(0.1, 0.5 if asked.short else 1.5)
            accepted.update(run(_until_killed(served, token, rows, after, asked.callers)))
        finally:
            served.kill()
        there = run(_there(path))
        lost = [receipt for receipt, message_id in accepted.items() if there.get(receipt) != message_id]
        note = {"after": round(after, 3), "acknowledged": len(accepted), "there": len(there), "lost": len(lost)}
        journal.note("kill", round=number, **note)
        say(f"kill {number + 1} of {asked.kills}: {len(accepted)} acknowledged so far, {len(lost)} lost")


async def _until_killed(served: Served, token: str, rows: Rows, after: float, callers: int) -> dict[str, str]:
    asyncio.get_running_loop().call_later(after, served.kill)
    _, _, accepted = await http_slice(served, token, rows, after + 30, callers)
    return accepted


async def _there(path: Path) -> dict[str, str]:
    """What a store that opens after the crash has: message ids by receipt."""
    store = SqliteStore(path)
    await store.open()
    there = {each.id: each.message_id or "" for each in await store.deferrals(limit=10**9)}
    await store.aclose()
    return there


__all__ = ["main", "page"]

PARTS: dict[str, Callable[[Journal, argparse.Namespace, Path], None]] = {
    "store": at_store,
    "slower-disk": on_a_slower_disk,
    "http": over_http,
    "claims": claims,
    "loss": losses,
}
