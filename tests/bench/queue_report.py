"""What the numbers of `scripts/bench queue` say: rates, ratios, the tables, the targets.

Owns: the sums made of a run's records, the report and its page.
Knows nothing of: how the numbers came about.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from bench.measuring import chosen, described, median, percentile, table

GROUP, SINGLE, DISK = "group", "single", "disk"
STORE, SLOWER, HTTP = "store", "slower disk", "http"
SHOWN = {
    GROUP: "Holdfast",
    SINGLE: "one commit each",
    DISK: "the disk alone (append 4 KiB, fdatasync)",
}
MILLI, MICRO = 1e3, 1e6
OVER_SINGLE, OVER_DISK, CLAIM_GROWTH = 5.0, 3.0, 2.0


def lost_of(records: Sequence[Mapping[str, Any]]) -> int:
    """Rows that were acknowledged and are not there."""
    kept = sum(max(0, one["acknowledged"] - one["there"]) for one in chosen(records, "kept"))
    return int(kept + sum(one["lost"] for one in chosen(records, "kill")))


def rates(records: Sequence[Mapping[str, Any]], where: str, subject: str) -> list[float]:
    """Rows a second of each slice, in the order of the rounds."""
    found = sorted(chosen(records, "slice", where=where, subject=subject), key=lambda one: int(one["round"]))
    return [one["count"] / one["seconds"] for one in found]


def ratios(records: Sequence[Mapping[str, Any]], where: str, above: str, below: str) -> list[float]:
    """One rate over another, round by round."""
    pairs = zip(rates(records, where, above), rates(records, where, below), strict=False)
    return [one / other for one, other in pairs]


def round_line(records: Sequence[Mapping[str, Any]], where: str, number: int) -> str:
    """A round in one line."""
    found = chosen(records, "slice", where=where, round=number)
    return ", ".join(f"{one['subject']} {one['count'] / one['seconds']:.0f}/s" for one in found)


def report(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """The tables, as Markdown that a terminal shows as well."""
    lines: list[str] = []
    longer = [one["sync_ms"] for one in chosen(records, "slice", where=SLOWER)]
    slower = f"at the store, each sync {longer[0]:g} ms longer" if longer else ""
    for where, title in ((STORE, "at the store"), (SLOWER, slower), (HTTP, "over HTTP")):
        if chosen(records, "slice", where=where):
            lines += [*_rate_table(records, where, title), ""]
    if chosen(records, "claim"):
        lines += [*_claim_table(records), ""]
    lines += verdicts(records)
    kills = chosen(records, "kill")
    if kills:
        acknowledged = max(one["acknowledged"] for one in kills)
        lines.append(
            f"Killed {len(kills)} times in the middle of it: {acknowledged} deferrals acknowledged,"
            f" {sum(one['lost'] for one in kills)} lost."
        )
    return lines


def _rate_table(records: Sequence[Mapping[str, Any]], where: str, title: str) -> list[str]:
    rows = []
    for name in (GROUP, SINGLE, DISK):
        slices = chosen(records, "slice", where=where, subject=name)
        if not slices:
            continue
        found = rates(records, where, name)
        late = sorted(late for one in slices for late in one["latencies_us"])
        over = [ratios(records, where, GROUP, name)] if name != GROUP else []
        rows.append(
            (
                SHOWN[name],
                f"{median(found):.0f}",
                f"{min(found):.0f}-{max(found):.0f}",
                f"{percentile(late, 0.5) / MILLI:.2f}",
                f"{percentile(late, 0.99) / MILLI:.2f}",
                f"{median(one['cpu_seconds'] / one['count'] * MICRO for one in slices):.0f}",
                *(f"{median(each):.1f}" for each in over),
                *([] if over else [""]),
            )
        )
    heads = ("a second", "lowest-highest", "p50, ms", "p99, ms", "CPU each, us", "Holdfast is x")
    return table((f"durable, {title}", *heads), rows)


def _claim_table(records: Sequence[Mapping[str, Any]]) -> list[str]:
    rows = []
    for one in chosen(records, "filled"):
        late = {how: _latencies(records, one["name"], how) for how in ("alone", "committed")}
        cells = [f"{percentile(found, share):.0f}" for found in late.values() for share in (0.5, 0.99)]
        rows.append((f"{one['rows']} rows over {one['workspaces']} workspaces", *cells))
    heads = ("p50, us", "p99, us", "with its commit: p50, us", "p99, us")
    return table(("a claim", *heads), rows)


def _latencies(records: Sequence[Mapping[str, Any]], name: str, how: str) -> list[float]:
    return sorted(late for one in chosen(records, "claim", name=name, how=how) for late in one["latencies_us"])


def verdicts(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for each target."""
    lines = []
    for where, place in ((STORE, "at the store"), (SLOWER, "on the slower disk")):
        for other, least in ((SINGLE, OVER_SINGLE), (DISK, OVER_DISK)):
            found = ratios(records, where, GROUP, other)
            if found:
                held = "held" if median(found) >= least else "MISSED"
                lines.append(f"Target, {place} at least {least:g} x {SHOWN[other]}: {median(found):.1f}, {held}.")
    small, large = (_latencies(records, name, "alone") for name in ("small", "large"))
    if small and large:
        growth = percentile(large, 0.5) / percentile(small, 0.5)
        held = "held" if growth <= CLAIM_GROWTH else "MISSED"
        lines.append(
            f"Target, a claim from the large queue at most {CLAIM_GROWTH:g} x the small: {growth:.2f}, {held}."
        )
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
