"""`scripts/bench forward`: what one forwarded request costs, and how late its answer is.

Owns: which slices are played in which order, the sums made of them, the report and its page.
Knows nothing of: how load is made (`bench.load`), how the proxies are started (`bench.stage`).

A kilobyte of JSON-RPC goes out over 64 kept connections, and about a kilobyte comes back. Two kinds of slices take
turns over all subjects: *closed loop* slices give the CPU time that a proxy used for each request while it was as busy
as it can be, *open loop* slices give latency at a fixed rate that every subject can serve. Ratios are made inside each
round, of slices that lie seconds apart, and the median of them is shown.
"""

import argparse
import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.load import Load, Taken, exact_loop, fast_loop
from bench.measuring import (
    MEASURED,
    WRONG,
    Journal,
    chosen,
    cpu_seconds,
    described,
    disturbance,
    median,
    percentile,
    say,
    table,
    waited_seconds,
)
from bench.stage import DIRECT, HOLDFAST, NGINX, PLAIN, PROXIES, SHOWN, Stage, Subject, allow_files

TARGETS = {PLAIN: 0.5, NGINX: 5.0}
"""Holdfast's CPU time per request may be so many times that of these."""
MICRO = 1e6
MOST_CONNECTIONS = 1024


def options(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="scripts/bench forward", description="CPU time and latency of one forwarded request."
    )
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each slice")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--rate", type=float, default=1000.0, help="requests a second of the open loop")
    parser.add_argument("--only", nargs="+", choices=PROXIES, default=PROXIES, metavar="NAME", help=", ".join(PROXIES))
    parser.add_argument("--no-pin", action="store_true", help="let the system choose the processors")
    parser.add_argument("--short", action="store_true", help="a few seconds: shows that it works, measures nothing")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every raw number there")
    asked = parser.parse_args(arguments)
    if asked.short:
        asked.rounds, asked.seconds, asked.connections, asked.rate = 1, 0.3, 8, 100.0
    return asked


def main(arguments: Sequence[str]) -> int:
    """Measure, print, and say whether every answer was right."""
    asked = options(arguments)
    allow_files(4 * MOST_CONNECTIONS)
    with (
        Journal("forward", arguments, asked.json) as journal,
        Stage(pin=not asked.no_pin, most_connections=MOST_CONNECTIONS) as stage,
    ):
        missing = [name for name in stage.missing() if name in asked.only]
        journal.note("missing", names=missing)
        subjects = [stage.direct(), *(stage.start(name) for name in asked.only if name not in missing)]
        for line in described(journal.records[0]["machine"]):
            say(line)
        for name in missing:
            say(f"NOT MEASURED HERE: {SHOWN[name]} is not installed")
        for number in range(asked.rounds):
            turn = number % len(subjects)
            for subject in (*subjects[turn:], *subjects[:turn]):
                play(journal, asked, subject, number)
            say(f"round {number + 1} of {asked.rounds}: {round_line(journal.records, number)}")
    slices = journal.of("slice")
    say("", *report(journal.records), disturbance([one for one in slices if one["subject"] != DIRECT]))
    return WRONG if any(one["wrong"] or one["lost"] for one in slices) else MEASURED


def play(journal: Journal, asked: argparse.Namespace, subject: Subject, number: int) -> None:
    """A slice of each kind."""
    for loop in ("closed", "open"):
        taken, cpu, waited = measured(asked, subject, loop)
        journal.note(
            "slice",
            loop=loop,
            subject=subject.name,
            round=number,
            answered=taken.answered,
            wrong=taken.wrong,
            lost=taken.lost,
            seconds=round(taken.seconds, 6),
            cpu_seconds=None if cpu is None else round(cpu, 6),
            waited_seconds=None if waited is None else round(waited, 6),
            latencies_us=[round(late * MICRO) for late in taken.latencies],
        )


def measured(asked: argparse.Namespace, subject: Subject, kind: str) -> tuple[Taken, float | None, float | None]:
    """Play one slice; what it brought, and for how long the proxy ran and waited for a processor meanwhile."""
    pid = subject.pid

    async def slice_() -> tuple[Taken, float | None, float | None]:
        load = Load(subject.target, asked.connections)
        await load.open()
        used, waited = (None, None) if pid is None else (-cpu_seconds(pid), -waited_seconds(pid))
        asking = load.closed(asked.seconds) if kind == "closed" else load.open_loop(asked.seconds, asked.rate)
        taken = await asking
        if pid is not None and used is not None and waited is not None:
            used, waited = used + cpu_seconds(pid), waited + waited_seconds(pid)
        await load.close()
        return taken, used, waited

    with asyncio.Runner(loop_factory=fast_loop if kind == "closed" else exact_loop) as runner:
        return runner.run(slice_())


# What it comes to


def costs(records: Sequence[Mapping[str, Any]], loop: str, number: int | None = None) -> dict[str, list[float]]:
    """Microseconds of CPU per request, of every slice (or of one round), by subject."""
    found: dict[str, list[float]] = {}
    for one in chosen(records, "slice", loop=loop):
        if one["cpu_seconds"] is not None and one["answered"] and number in {None, one["round"]}:
            found.setdefault(one["subject"], []).append(one["cpu_seconds"] / one["answered"] * MICRO)
    return found


def ratios(records: Sequence[Mapping[str, Any]], loop: str, above: str, below: str) -> list[float]:
    """The cost of one subject over that of another, round by round."""
    by_subject = costs(records, loop)
    pairs = zip(by_subject.get(above, []), by_subject.get(below, []), strict=False)
    return [one / other for one, other in pairs if other]


def latencies(records: Sequence[Mapping[str, Any]], subject: str) -> list[float]:
    """Every latency of the open loop in microseconds, sorted."""
    slices = chosen(records, "slice", loop="open", subject=subject)
    return sorted(late for one in slices for late in one["latencies_us"])


def round_line(records: Sequence[Mapping[str, Any]], number: int) -> str:
    """A round in one line."""
    return ", ".join(f"{name} {found[0]:.0f} us" for name, found in costs(records, "closed", number).items())


def report(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """The tables, as Markdown that a terminal shows as well."""
    names = list(dict.fromkeys(one["subject"] for one in chosen(records, "slice")))
    closed = costs(records, "closed")
    rows = []
    for name in names:
        if name not in closed:
            continue
        found = sorted(closed[name])
        rows.append(
            (
                SHOWN[name],
                f"{median(found):.0f}",
                f"{found[0]:.0f}-{found[-1]:.0f}",
                *(_ratio(ratios(records, "closed", name, other)) for other in (PLAIN, NGINX)),
            )
        )
    lines = table(
        ("as busy as it can be", "CPU per request, us", "lowest-highest", "x plain", "x nginx"),
        rows,
    )
    direct = latencies(records, DIRECT)
    late = []
    for name in names:
        found = latencies(records, name)
        added = percentile(found, 0.5) - percentile(direct, 0.5)
        late.append(
            (
                SHOWN[name],
                f"{percentile(found, 0.5):.0f}",
                "" if name == DIRECT else f"{added:.0f}",
                f"{percentile(found, 0.99):.0f}",
                f"{median(costs(records, 'open').get(name, [])):.0f}" if name != DIRECT else "",
            )
        )
    lines += ["", *table(("at a fixed rate", "p50, us", "added, us", "p99, us", "CPU per request, us"), late), ""]
    lines += verdicts(records)
    asked = sum(one["answered"] for one in chosen(records, "slice"))
    wrong = sum(one["wrong"] for one in chosen(records, "slice"))
    lost = sum(one["lost"] for one in chosen(records, "slice"))
    return [*lines, f"{asked} requests answered, each checked by its id; {wrong} wrong, {lost} lost."]


def _ratio(found: Sequence[float]) -> str:
    return f"{median(found):.2f}" if found else "-"


def verdicts(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for each target."""
    lines = []
    for other, most in TARGETS.items():
        found = ratios(records, "closed", HOLDFAST, other)
        if found:
            held = "held" if median(found) <= most else "MISSED"
            lines.append(f"Target, Holdfast at most {most:g} x {SHOWN[other]}: {median(found):.2f}, {held}.")
    return lines


def page(records: Sequence[Mapping[str, Any]]) -> str:
    """The section of docs/performance.md."""
    run = chosen(records, "run")[0]
    slices = chosen(records, "slice")
    rounds = 1 + max(one["round"] for one in slices)
    missing = chosen(records, "missing")[0]["names"]
    lines = [
        f"`{' '.join(run['command'])}`, {rounds} rounds:",
        "",
        *(f"* {line}" for line in described(run["machine"])),
        *(f"* not installed and not measured: {SHOWN[name]}" for name in missing),
        "",
        *report(records),
        disturbance([one for one in slices if one["subject"] != DIRECT]),
    ]
    return "\n".join(lines)
