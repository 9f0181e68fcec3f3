"""The command: `scripts/chaos`. Plays rounds, prints a line for each, then a table and the verdict.

Owns: options, what is printed, the JSON report, exit codes.
Knows nothing of: how a round is played.

Exit codes: 0 every promise was kept, 1 one was broken, 3 the environment did not let it run, 2 wrong usage.
"""

import argparse
import asyncio
import json
import os
import random
import secrets
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from chaos import timings
from chaos.kills import Point, deal
from chaos.ledger import Counts, Finding
from chaos.processes import UnfitError
from chaos.rounds import Played, Round, Size, Stage
from chaos.troubles import TroubleKind, deal_troubles

KEPT, BROKEN, ENVIRONMENT = 0, 1, 3
LEAST_ACCEPTED = 0.99
LISTED = 40


def options(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="scripts/chaos", description="Kill, fill the disk, and count what is lost.")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--seed", type=int, help="the same seed deals the same kills and the same sends")
    parser.add_argument("--callers", type=int, default=Size().callers, help="at least 20 for a measurement")
    parser.add_argument("--kills", type=int, default=2, help="in each round; one less in a round with a trouble")
    parser.add_argument("--trouble-every", type=int, default=3, metavar="N", help="in every Nth round; 0: none")
    parser.add_argument(
        "--hold", type=float, default=0.0, metavar="SECONDS", help="keep callers waiting for what is deferred; 0: not"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there as well")
    parser.add_argument("--keep", action="store_true", help="keep database, logs and accounts of a good run too")
    asked = parser.parse_args(arguments)
    timings.PROXY["defaults.hold_seconds"] = asked.hold
    return asked


@dataclass(slots=True)
class Run:
    """A run as far as it came."""

    seed: int
    plan: list[Round]
    folder: Path
    played: list[Played]
    findings: list[Finding]
    total: Counts
    proxy_kills: int = 0
    agent_kills: int = 0
    made: dict[TroubleKind, int] = field(default_factory=dict)
    skipped: dict[TroubleKind, int] = field(default_factory=dict)
    lacking: dict[str, str] = field(default_factory=dict)

    @property
    def kept(self) -> bool:
        """Every promise was kept: no finding, and enough was accepted."""
        return not self.findings and self.total.share >= LEAST_ACCEPTED and len(self.played) == len(self.plan)


async def run(asked: argparse.Namespace, folder: Path) -> Run:
    """Play all rounds. SIGTERM ends the run as Ctrl-C does: with every process that it started."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    seed = asked.seed if asked.seed is not None else secrets.randbelow(1_000_000)
    size = Size(callers=asked.callers)
    chance = random.Random(seed)  # noqa: S311 - the same kills for the same seed
    plan = planned(chance, rounds=asked.rounds, kills=asked.kills, trouble_every=asked.trouble_every)
    say(f"chaos: {asked.rounds} rounds, {size.callers} callers, seed {seed}, folder {folder}")
    for line in timings.shown():
        say(f"  {line}")
    stage = await Stage.set(folder, size)
    result = Run(seed, plan, folder, [], [], Counts(), made=stage.troubles.made, skipped=stage.troubles.skipped)
    result.lacking = stage.ground.lacking
    for trouble, why in result.lacking.items():
        say(f"  NOT MEASURED HERE: {trouble}: {why}")
    try:
        for number, one in enumerate(plan, start=1):
            script = random.Random(f"{seed}/{number}")  # noqa: S311 - the same sends for the same seed
            played = await stage.play(number, one, script)
            result.played.append(played)
            result.total.add(played.audit.counts)
            result.findings += played.audit.findings
            say(line_of(played))
            for finding in played.audit.findings[:LISTED]:
                say(f"      {finding}")
        told = set(result.findings)
        result.findings += [late for late in (await stage.look_again()).findings if late not in told]
        if result.findings:
            await keep_decisions(stage)
        result.proxy_kills = stage.proxy.kills
        result.agent_kills = sum(agent.kills for agent in stage.agents)
    finally:
        await stage.clear()
    return result


def planned(chance: random.Random, *, rounds: int, kills: int, trouble_every: int) -> list[Round]:
    """Deal a run's kills and troubles."""
    workspaces = len(timings.REDELIVERIES)
    troubles = deal_troubles(chance, rounds=rounds, every=trouble_every, workspaces=workspaces)
    hands = deal(chance, kills=[kills if trouble is None else kills - 1 for trouble in troubles], workspaces=workspaces)
    return [
        Round(kills=hand, trouble=trouble, late=chance.random() < 0.5)
        for hand, trouble in zip(hands, troubles, strict=True)
    ]


async def keep_decisions(stage: Stage) -> None:
    """Put the decision logs beside the other traces of a run that went wrong."""
    for agent in stage.agents:
        said = json.dumps(await stage.decisions(agent), indent=1)
        (stage.folder / f"{agent.workspace}-decisions.json").write_text(said, encoding="utf-8")


def line_of(played: Played) -> str:
    """A round in one line."""
    counts = played.audit.counts
    trouble = played.planned.trouble
    points = "; ".join([*(kill.point.value for kill in played.planned.kills), *([trouble.kind] if trouble else [])])
    return (
        f"{played.number:>4}  {counts.sends:>4} sends  {counts.answered:>4} answered  {counts.deferred:>4} deferred"
        f"  {counts.refused:>3} refused ({counts.put_off + counts.declined} excused)"
        f"  {counts.broken:>3} broken ({counts.excused} excused)  {counts.repeated:>3} repeated"
        f"  lost {counts.lost}  failed {counts.failed}+{counts.failed_never}  {played.seconds:5.1f} s"
        f"  [{points}]"
    )


def summary(result: Run) -> list[str]:
    """The table and the verdict."""
    total = result.total
    hits = Counter(kill.point for played in result.played for kill in played.planned.kills)
    rows = [
        ("rounds", str(len(result.played))),
        ("messages", str(total.sends)),
        ("broken because the proxy was killed", str(total.excused)),
        ("503 while the store could not write", str(total.put_off)),
        ("502 under redelivery = never", str(total.declined)),
        ("counted messages", str(total.counted)),
        ("accepted", f"{total.accepted} ({100 * total.share:.2f} %)"),
        ("  answered at once", str(total.answered)),
        ("  deferred, then answered", str(total.deferred - total.failed - total.failed_never - total.lost)),
        ("  of them adopted while they ran", str(total.adopted)),
        ("refused without an excuse", str(total.refused - total.put_off - total.declined)),
        ("broken without a kill of the proxy", str(total.broken - total.excused)),
        ("callers that left in mid-call", str(total.left)),
        ("messages that their callers sent again", str(total.retried)),
        ("  joined the deferral that was there", str(total.joined)),
        ("  executed more than once", str(total.rerun)),
        ("executions", str(total.executions)),
        ("messages executed more than once", str(total.repeated)),
        ("kills of the proxy, of agents", f"{result.proxy_kills}, {result.agent_kills}"),
        ("kills whose event did not come", str(sum(played.missed for played in result.played))),
        ("seconds per round", f"{sum(played.seconds for played in result.played) / max(1, len(result.played)):.1f}"),
        ("failed under redelivery = never", str(total.failed_never)),
        ("failed otherwise", str(total.failed)),
        ("lost", str(total.lost)),
    ]
    lines = ["", *(f"{name:<38} {value}" for name, value in rows), "", "kills dealt:"]
    lines += [f"  {hits[point]:>3}  {point.value}" for point in Point]
    lines += ["", "troubles made:", *(f"  {result.made.get(kind, 0):>3}  {kind.value}" for kind in TroubleKind)]
    for kind, number in result.skipped.items():
        lines.append(f"  SKIPPED {number} x {kind}: {result.lacking[kind.value]}")
    if total.reasons:
        lines += ["", "not accepted:", *(f"  {number:>3}  {reason}" for reason, number in total.reasons.items())]
    if result.findings:
        lines += ["", f"{len(result.findings)} findings:", *(f"  {finding}" for finding in result.findings[:LISTED])]
    verdict = "every promise was kept" if result.kept else f"BROKEN; what is left of it lies in {result.folder}"
    return [*lines, "", f"chaos: {verdict} (seed {result.seed})"]


def as_json(result: Run) -> dict[str, Any]:
    """The results for machines."""
    return {
        "seed": result.seed,
        "kept": result.kept,
        "accepted_share": result.total.share,
        "total": counts_json(result.total),
        "proxy_kills": result.proxy_kills,
        "agent_kills": result.agent_kills,
        "findings": [str(finding) for finding in result.findings],
        "troubles": dict(result.made),
        "skipped_troubles": dict(result.skipped),
        "timings": {"proxy": timings.PROXY, "policy": timings.POLICY, "workspace": timings.WORKSPACE},
        "rounds": [
            {
                "round": played.number,
                "seconds": round(played.seconds, 3),
                "phases": {name: round(seconds, 3) for name, seconds in played.phases.items()},
                "kills": [asdict(kill) for kill in played.planned.kills],
                "trouble": asdict(played.planned.trouble) if played.planned.trouble is not None else None,
                "missed_events": played.missed,
                **counts_json(played.audit.counts),
            }
            for played in result.played
        ],
    }


def counts_json(counts: Counts) -> dict[str, Any]:
    """Numbers by name, the derived ones included."""
    return {**asdict(counts), "counted": counts.counted, "accepted": counts.accepted}


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(arguments: Sequence[str]) -> int:
    """Run, report, clean up; the exit code."""
    asked = options(arguments)
    folder = Path(tempfile.mkdtemp(prefix="holdfast-chaos-"))
    try:
        result = asyncio.run(run(asked, folder))
    except UnfitError as problem:
        sys.stderr.write(f"chaos: it cannot run here: {problem}\n")
        return ENVIRONMENT
    except (KeyboardInterrupt, asyncio.CancelledError):
        sys.stderr.write(f"chaos: interrupted; what is left of it lies in {folder}\n")
        return ENVIRONMENT
    for line in summary(result):
        say(line)
    if asked.json is not None:
        asked.json.write_text(json.dumps(as_json(result), indent=1) + os.linesep, encoding="utf-8")
    if result.kept and not asked.keep:
        shutil.rmtree(folder)
    return KEPT if result.kept else BROKEN


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
