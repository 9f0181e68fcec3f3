"""`scripts/bench sse`: what it costs to relay many streams of server-sent events at once.

Owns: which streams are played in which order, the sums made of them, the report and its page.
Knows nothing of: how streams are read (`bench.streams`), how the proxies are started (`bench.stage`).

Each proxy is started anew for every turn, so that its memory tells of these streams only. Its streams are opened, each
brings an event a second, and every event is numbered: what is missing, doubled or cut off is a fault. CPU time per
event is taken over some seconds in which all streams are open, memory per stream as the growth of the resident set
since before the first of them, divided by their number.
"""

import argparse
import asyncio
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.load import Target, fast_loop
from bench.measuring import (
    MEASURED,
    WRONG,
    Journal,
    chosen,
    cpu_seconds,
    described,
    disturbance,
    median,
    resident_bytes,
    say,
    table,
    waited_seconds,
)
from bench.stage import NGINX, PLAIN, PROXIES, SHOWN, Stage, Subject, allow_files
from bench.streams import Streams

MICRO = 1e6
WARM = 20
SETTLE = 2.0


def options(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="scripts/bench sse", description="CPU time and memory of relayed streams.")
    parser.add_argument("--streams", type=int, nargs="+", default=[1000, 5000], metavar="N")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement")
    parser.add_argument("--only", nargs="+", choices=PROXIES, default=PROXIES, metavar="NAME", help=", ".join(PROXIES))
    parser.add_argument("--no-pin", action="store_true", help="let the system choose the processors")
    parser.add_argument("--short", action="store_true", help="a few seconds: shows that it works, measures nothing")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every raw number there")
    asked = parser.parse_args(arguments)
    if asked.short:
        asked.streams, asked.rounds, asked.seconds = [50], 1, 2.0
    return asked


def main(arguments: Sequence[str]) -> int:
    """Measure, print, and say whether every event came."""
    asked = options(arguments)
    most = max(asked.streams) + WARM + 200
    allow_files(3 * most)
    stage = Stage(pin=not asked.no_pin, most_connections=most, streams=True)
    with Journal("sse", arguments, asked.json) as journal, stage:
        missing = [name for name in stage.missing() if name in asked.only]
        journal.note("missing", names=missing)
        for line in described(journal.records[0]["machine"]):
            say(line)
        for name in missing:
            say(f"NOT MEASURED HERE: {SHOWN[name]} is not installed")
        present = [name for name in asked.only if name not in missing]
        for number in range(asked.rounds):
            turn = number % len(present)
            for streams in asked.streams:
                for name in (*present[turn:], *present[:turn]):
                    found = play(stage, name, streams, asked.seconds)
                    say(turn_line(journal.note("turn", subject=name, streams=streams, round=number, **found)))
    say("", *report(journal.records), disturbance(journal.of("turn")))
    return WRONG if any(one["faults"] for one in journal.of("turn")) else MEASURED


def play(stage: Stage, name: str, streams: int, seconds: float) -> dict[str, Any]:
    """One turn: a fresh proxy and its streams."""
    subject = stage.start(name)
    try:
        with asyncio.Runner(loop_factory=fast_loop) as runner:
            return runner.run(measured(subject, stage.direct().target, streams, seconds))
    finally:
        stage.end(subject)


async def measured(subject: Subject, upstream: Target, streams: int, seconds: float) -> dict[str, Any]:
    """Warm it up, open all streams, look at it for so long, and see every stream to its end."""
    pid = subject.pid
    if pid is None:
        raise ValueError("there is no process to measure")
    warm = Streams(subject.target)
    await warm.open(WARM)
    await asyncio.sleep(1.0)
    await warm.end(upstream)
    before = resident_bytes(pid)
    all_of_them = Streams(subject.target)
    await all_of_them.open(streams)
    await asyncio.sleep(SETTLE)
    told = all_of_them.told
    events, cpu, waited, began = told.events, cpu_seconds(pid), waited_seconds(pid), time.perf_counter()
    await asyncio.sleep(seconds)
    events, cpu, took = told.events - events, cpu_seconds(pid) - cpu, time.perf_counter() - began
    grown = resident_bytes(pid) - before
    told = await all_of_them.end(upstream)
    return {
        "seconds": round(took, 6),
        "events": events,
        "cpu_seconds": round(cpu, 6),
        "waited_seconds": round(waited_seconds(pid) - waited, 6),
        "grown_bytes": grown,
        "all_events": told.events,
        "ended": told.ended,
        "faults": [*warm.told.faults, *told.faults][:20],
    }


# What it comes to


def turn_line(one: Mapping[str, Any]) -> str:
    """A turn in one line."""
    faults = f"; FAULTS: {one['faults'][:3]}" if one["faults"] else ""
    return (
        f"{one['streams']:>6} streams, {one['subject']}: {_per_event(one):.1f} us an event,"
        f" {_per_stream(one) / 1024:.1f} KiB a stream, {one['all_events']} events{faults}"
    )


def _per_event(one: Mapping[str, Any]) -> float:
    return float(one["cpu_seconds"] / max(1, one["events"]) * MICRO)


def _per_stream(one: Mapping[str, Any]) -> float:
    return float(one["grown_bytes"] / one["streams"])


def _ratio(records: Sequence[Mapping[str, Any]], streams: int, name: str, other: str) -> str:
    pairs = zip(
        chosen(records, "turn", subject=name, streams=streams),
        chosen(records, "turn", subject=other, streams=streams),
        strict=False,
    )
    found = [_per_event(one) / _per_event(two) for one, two in pairs if two["cpu_seconds"]]
    return f"{median(found):.2f}" if found else "-"


def report(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """The tables, as Markdown that a terminal shows as well."""
    turns = chosen(records, "turn")
    lines: list[str] = []
    for streams in dict.fromkeys(one["streams"] for one in turns):
        rows = []
        for name in dict.fromkeys(one["subject"] for one in turns):
            found = chosen(records, "turn", subject=name, streams=streams)
            rows.append(
                (
                    SHOWN[name],
                    f"{median(_per_event(one) for one in found):.1f}",
                    _ratio(records, streams, name, PLAIN),
                    _ratio(records, streams, name, NGINX),
                    f"{median(_per_stream(one) for one in found) / 1024:.1f}",
                )
            )
        headings = (
            f"{streams} streams, an event a second each",
            "CPU per event, us",
            "x plain",
            "x nginx",
            "KiB a stream",
        )
        lines += [*table(headings, rows), ""]
    events = sum(one["all_events"] for one in turns)
    faults = [fault for one in turns for fault in one["faults"]]
    lines.append(
        f"{events} events in {sum(one['ended'] for one in turns)} streams, each in its place; {len(faults)} faults."
    )
    return [*lines, *(f"* {fault}" for fault in faults[:10])]


def page(records: Sequence[Mapping[str, Any]]) -> str:
    """The section of docs/performance.md."""
    run = chosen(records, "run")[0]
    rounds = 1 + max(one["round"] for one in chosen(records, "turn"))
    missing = chosen(records, "missing")[0]["names"]
    lines = [
        f"`{' '.join(run['command'])}`, {rounds} rounds:",
        "",
        *(f"* {line}" for line in described(run["machine"])),
        *(f"* not installed and not measured: {SHOWN[name]}" for name in missing),
        "",
        *report(records),
        disturbance(chosen(records, "turn")),
    ]
    return "\n".join(lines)
