"""`scripts/bench heartbeats`: what signs of life cost a proxy of many workspaces.

Owns: which beats are sent when, what is read of the proxy meanwhile, the report and its page.
Knows nothing of: how the database is filled (`bench.rows`), how a proxy is started and asked (`bench.served`).

A database of so many workspaces is made, each with a token of its own; a proxy starts on it, and every workspace beats
every 30 seconds, evenly spread, over kept connections. Beat number i is due at i / rate, whatever became of the others,
and its latency counts from the instant it was due.

*The database's share* is the CPU time of all threads but the one that serves: they do nothing but SQLite's work. Bytes
written are the kernel's count for the process. *A look* is a request for the health page ten times a second on a
connection of its own: whatever holds the proxy up for a moment (a flush, a sweep over all workspaces) shows there.
"""

import argparse
import asyncio
import random
import shutil
import tempfile
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from bench.load import exact_loop
from bench.measuring import MEASURED, WRONG, Journal, chosen, described, percentile, say, table
from bench.rows import fill, token_of, workspace_name
from bench.served import Line, Served, request

PERIOD = 30.0
WARM_UP = 6.0
CORE_SHARE, MOST_BYTES = 0.03, 3_000_000
MICRO, MILLI = 1e6, 1e3
LOOKS = 10.0
OK = 200


def options(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="scripts/bench heartbeats", description="What signs of life cost.")
    parser.add_argument("--workspaces", type=int, default=100_000)
    parser.add_argument("--period", type=float, default=PERIOD, help="seconds from one beat of a workspace to its next")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--directory", type=Path, help="where to write")
    parser.add_argument("--short", action="store_true", help="a few seconds: shows that it works, measures nothing")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every raw number there")
    asked = parser.parse_args(arguments)
    asked.warm_up = WARM_UP
    if asked.short:
        asked.workspaces, asked.period, asked.seconds, asked.connections, asked.warm_up = 2000, 10.0, 5.0, 8, 1.0
    return asked


def main(arguments: Sequence[str]) -> int:
    """Measure, print, and say whether every beat was taken."""
    asked = options(arguments)
    folder = Path(tempfile.mkdtemp(prefix="holdfast-bench-", dir=asked.directory))
    try:
        with Journal("heartbeats", arguments, asked.json) as journal:
            for line in described(journal.records[0]["machine"]):
                say(line)
            empty = start_empty(folder)
            journal.note("empty", **empty)
            began = time.perf_counter()
            fill(folder / "many.db", workspaces_count=asked.workspaces, rows=0, tokens=True)
            say(f"{asked.workspaces} workspaces made in {time.perf_counter() - began:.0f} s")
            beat(journal, asked, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    say("", *report(journal.records))
    wrong = sum(one["wrong"] + one["lost"] for one in chosen(journal.records, "beats"))
    unheard = sum(one["unheard"] for one in chosen(journal.records, "kept"))
    return WRONG if wrong or unheard else MEASURED


def start_empty(folder: Path) -> dict[str, Any]:
    """A proxy without workspaces: what it takes to start, and to be there."""
    with Served(folder / "empty.db") as served:
        started = answers(served)
        return {"started_seconds": round(started, 3), "resident_bytes": served.resident()}


def answers(served: Served) -> float:
    """Start it again; the seconds until it answered that it is ready."""
    served.stop()
    began = time.perf_counter()
    served.start()
    served.ask("GET", "/readyz")
    return time.perf_counter() - began


def beat(journal: Journal, asked: argparse.Namespace, folder: Path) -> None:
    """Start the proxy on all of them and let them beat."""
    with Served(folder / "many.db") as served:
        started = answers(served)
        journal.note("started", workspaces=asked.workspaces, seconds=round(started, 3), resident=served.resident())
        say(f"started with them in {started:.1f} s, {served.resident() >> 20} MiB")
        with asyncio.Runner(loop_factory=exact_loop) as runner:
            runner.run(_beat(journal, asked, served))
        journal.note("beaten", resident=served.resident())
        listed = served.ask("GET", "/workspaces")["workspaces"]
        heard = sum(1 for one in listed if one.get("last_heartbeat_at"))
        expected = min(asked.workspaces, journal.of("beats")[0]["answered"])
        journal.note("kept", heard=heard, unheard=max(0, expected - heard))


async def _beat(journal: Journal, asked: argparse.Namespace, served: Served) -> None:
    rate = asked.workspaces / asked.period
    beats = Beats(served, asked.workspaces, rate)
    await beats.open(asked.connections)
    await beats.send(asked.warm_up)
    beats.begin()
    looking = asyncio.create_task(look(served, asked.seconds))
    before, began = served.used(), time.perf_counter()
    await beats.send(asked.seconds)
    seconds = time.perf_counter() - began
    used = served.used().since(before)
    looks = await looking
    journal.note(
        "beats",
        workspaces=asked.workspaces,
        rate=round(rate, 1),
        seconds=round(seconds, 3),
        beats=beats.sent,
        answered=beats.answered,
        wrong=beats.wrong,
        lost=beats.lost,
        loop_cpu_seconds=round(used.loop, 3),
        database_cpu_seconds=round(used.others, 3),
        bytes_written=used.written,
        latencies_us=[round(late * MICRO) for late in beats.latencies],
        looks_us=[round(late * MICRO) for late in looks],
    )
    beats.close()


class Beats:
    """Sends beats in turn of the workspaces, at their due instants, over whichever connection is free."""

    def __init__(self, served: Served, workspaces: int, rate: float) -> None:
        self._served = served
        self._order = list(range(workspaces))
        random.Random(workspaces).shuffle(self._order)  # noqa: S311 - nobody beats in the order of registration
        self._rate = rate
        self._next = 0
        self._free: deque[Line] = deque()
        self._freed = asyncio.Event()
        self._lines: list[Line] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self.answered = 0
        self.begin()

    def begin(self) -> None:
        """Count from here."""
        self.latencies: list[float] = []
        self.sent = self.wrong = self.lost = 0

    async def open(self, connections: int) -> None:
        """Connect."""
        self._lines = [await Line.to(self._served.port) for _ in range(connections)]
        self._free = deque(self._lines)

    def close(self) -> None:
        """Close every connection."""
        for line in self._lines:
            line.close()

    async def send(self, seconds: float) -> None:
        """Send for so long, then wait for the answers."""
        began = time.perf_counter()
        for index in range(int(seconds * self._rate)):
            due = began + index / self._rate
            if (wait := due - time.perf_counter()) > 0:
                await asyncio.sleep(wait)
            while not self._free:
                self._freed.clear()
                await self._freed.wait()
            task = asyncio.create_task(self._one(self._free.popleft(), due))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        while self._tasks:
            await asyncio.wait(tuple(self._tasks))

    async def _one(self, line: Line, due: float) -> None:
        number = self._order[self._next]
        self._next = (self._next + 1) % len(self._order)
        body = b'{"boot_id":"boot-%d","status":"ready","active_tasks":1}' % number
        path = f"/workspaces/{workspace_name(number)}/heartbeat"
        self.sent += 1
        try:
            answer = await line.ask(request(self._served.port, path, token_of(number), body))
        except ConnectionError:
            self.lost += 1
            with suppress(OSError):
                self._free.append(await Line.to(self._served.port))
                self._freed.set()
            return
        self.latencies.append(time.perf_counter() - due)
        self.answered += answer.status == OK
        self.wrong += answer.status != OK
        self._free.append(line)
        self._freed.set()


async def look(served: Served, seconds: float) -> list[float]:
    """Ask for the health page at fixed instants; seconds from then to the answer."""
    line = await Line.to(served.port)
    asking = f"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1:{served.port}\r\n\r\n".encode("ascii")
    found = []
    began = time.perf_counter()
    for index in range(int(seconds * LOOKS)):
        due = began + index / LOOKS
        if (wait := due - time.perf_counter()) > 0:
            await asyncio.sleep(wait)
        await line.ask(asking)
        found.append(time.perf_counter() - due)
    line.close()
    return found


# What it comes to


def report(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """The tables, as Markdown that a terminal shows as well."""
    beats, started = chosen(records, "beats")[0], chosen(records, "started")[0]
    empty, after = chosen(records, "empty")[0], chosen(records, "beaten")[0]
    seconds, sent = beats["seconds"], beats["beats"]
    late, looks = sorted(beats["latencies_us"]), sorted(beats["looks_us"])
    whole = (beats["loop_cpu_seconds"] + beats["database_cpu_seconds"]) / sent * MICRO
    share, written = beats["database_cpu_seconds"] / seconds, beats["bytes_written"] / seconds
    each = (after["resident"] - empty["resident_bytes"]) / beats["workspaces"]
    rows = [
        ("beats sent", f"{sent}, {sent / seconds:.0f} a second"),
        ("CPU per beat, HTTP and all", f"{whole:.0f} us"),
        ("the database's share of a core", f"{share:.2%}"),
        ("written to the disk", f"{written / 1e6:.2f} MB a second"),
        ("latency p50, p99", f"{percentile(late, 0.5) / MILLI:.2f}, {percentile(late, 0.99) / MILLI:.2f} ms"),
        (
            "a look at the health page p50, p99, longest",
            f"{percentile(looks, 0.5) / MILLI:.2f}, {percentile(looks, 0.99) / MILLI:.2f}, {looks[-1] / MILLI:.2f} ms",
        ),
        (
            "start until ready; without workspaces",
            f"{started['seconds']:.2f} s; {empty['started_seconds']:.2f} s",
        ),
        (
            "memory; without workspaces; a workspace",
            f"{after['resident'] / 2**20:.0f} MiB; {empty['resident_bytes'] / 2**20:.0f} MiB; {each / 1024:.1f} KiB",
        ),
    ]
    lines = table(
        (f"{beats['workspaces']} workspaces, a beat each {beats['workspaces'] / beats['rate']:.0f} s", ""), rows
    )
    held = "held" if share <= CORE_SHARE else "MISSED"
    lines += ["", f"Target, the database's share at most {CORE_SHARE:.0%} of a core: {share:.2%}, {held}."]
    held = "held" if written <= MOST_BYTES else "MISSED"
    lines.append(f"Target, at most {MOST_BYTES / 1e6:g} MB a second written: {written / 1e6:.2f}, {held}.")
    unheard = sum(one["unheard"] for one in chosen(records, "kept"))
    lines.append(f"{sent} beats, each answered: {beats['wrong']} wrong, {beats['lost']} lost, {unheard} not noted.")
    return lines


def page(records: Sequence[Mapping[str, Any]]) -> str:
    """The section of docs/performance.md."""
    run_of = chosen(records, "run")[0]
    lines = [
        f"`{' '.join(run_of['command'])}`:",
        "",
        *(f"* {line}" for line in described(run_of["machine"])),
        "",
        *report(records),
    ]
    return "\n".join(lines)
