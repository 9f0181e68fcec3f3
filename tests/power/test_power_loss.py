"""The power goes while the store is under traffic: what it acknowledged is there when the power is back.

The same harness must find losses where there are some: under `synchronous = NORMAL`, and on a disk that lies about its
flushes. What is modelled: docs/power-loss.md.
"""

import os
import random
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from power import verdict
from power.images import DIRECTORY, Disk, put_on
from power.recording import MAPPED, Kind, Record, Recorded
from power.verdict import Tally, Verdict
from power.workload import DATABASE

pytestmark = pytest.mark.timeout(300)  # seconds of work; minutes only on a machine that is busy with other things
Traffic = Callable[[str], Recorded]
SEED = os.environ.get("POWER_SEED", "1")
"""Deals the points and what becomes of each disk."""


async def examine(
    records: Sequence[Record], points: Sequence[int], folder: Path, *, is_kill: bool = False
) -> list[Verdict]:
    """Judge one image at each point; after a mere kill the disk has everything that was written."""
    said = verdict.acknowledgements(records)
    disk = Disk(records)
    verdicts = []
    for point in points:
        disk.reach(point)
        image = disk.everything() if is_kill else disk.image(random.Random(f"image {SEED} {point}"))  # noqa: S311 - chance that can be repeated
        place = folder / "image"
        put_on(place, image)
        verdicts.append(await verdict.judge(place, point, verdict.told_until(point, said)))
        shutil.rmtree(place)
    return verdicts


def points(records: Sequence[Record], count: int) -> list[int]:
    return sorted(random.Random(f"points {SEED}").sample(range(1, len(records) + 1), count))  # noqa: S311 - chance that can be repeated


def names_of(records: Sequence[Record]) -> dict[int, str]:
    """Return the name that each file was created with, by its number; the directory's is a dot."""
    return {DIRECTORY: "."} | {one.file: one.names[0] for one in records if one.kind is Kind.CREATE}


def described(verdicts: Sequence[Verdict], directory: Path) -> str:
    bad = [str(one) for one in verdicts if one.lost or one.corrupt]
    return "\n  ".join([f"{directory.parent / 'log'}, seed {SEED}: {len(bad)} of {len(verdicts)} points", *bad])


def test_the_recording_is_the_whole_truth(traffic: Traffic) -> None:
    records, directory = traffic("FULL")
    disk = Disk(records)
    disk.reach(len(records))
    there = {path.name: path.read_bytes() for path in directory.iterdir() if not path.name.endswith(MAPPED)}
    assert disk.everything() == there
    assert DATABASE in there


def test_the_traffic_does_everything_that_a_log_can_go_through(traffic: Traffic) -> None:
    records, _ = traffic("FULL")
    names = names_of(records)
    syncs = Counter(names[one.file] for one in records if one.kind is Kind.SYNC_END)
    log = f"{DATABASE}-wal"
    headers = Counter(
        one.file for one in records if one.kind is Kind.WRITE and one.offset == 0 and names[one.file] == log
    )
    assert syncs[log] > 50
    assert syncs[DATABASE] > len(headers)  # folded at each close, and in between
    assert syncs["."] >= len(headers)  # each new log's name
    assert len(headers) == 3  # three lives, three logs
    assert max(headers.values()) > 1  # begun again while it lived
    said = [one for _, one in verdict.acknowledgements(records)]
    assert len({one.deferral_id for one in said}) > 500
    assert len({(one.progress, one.state) for one in said}) > 6


async def test_no_acknowledged_row_is_lost_when_the_power_goes(traffic: Traffic, tmp_path: Path) -> None:
    records, directory = traffic("FULL")
    verdicts = await examine(records, points(records, 40), tmp_path)
    tally = Tally.of(verdicts)
    assert (tally.losing, tally.rows, tally.corrupt) == (0, 0, 0), described(verdicts, directory)
    assert max(one.acknowledged for one in verdicts) > 300


async def test_the_same_harness_finds_losses_when_commits_are_not_synced(traffic: Traffic, tmp_path: Path) -> None:
    records, directory = traffic("NORMAL")
    verdicts = await examine(records, points(records, 20), tmp_path)
    tally = Tally.of(verdicts)
    assert tally.losing > 0
    assert tally.corrupt == 0, described(verdicts, directory)


@pytest.mark.parametrize("unsynced", [f"{DATABASE}-wal", DATABASE, "."])
async def test_every_kind_of_sync_is_needed(unsynced: str, traffic: Traffic, tmp_path: Path) -> None:
    records, _ = traffic("FULL")
    names = names_of(records)
    # A disk that lies: a sync that never ends keeps nothing for sure.
    lying = [
        replace(one, kind=Kind.SYNC_BEGIN) if one.kind is Kind.SYNC_END and names[one.file] == unsynced else one
        for one in records
    ]
    tally = Tally.of(await examine(lying, points(records, 15), tmp_path))
    assert tally.losing + tally.corrupt > 0


async def test_a_mere_kill_shows_none_of_this(traffic: Traffic, tmp_path: Path) -> None:
    records, directory = traffic("NORMAL")
    verdicts = await examine(records, points(records, 10), tmp_path, is_kill=True)
    tally = Tally.of(verdicts)
    assert (tally.losing, tally.corrupt) == (0, 0), described(verdicts, directory)


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("level", ["FULL", "NORMAL", "OFF"])
async def test_two_hundred_power_losses(level: str, traffic: Traffic, tmp_path: Path) -> None:
    """Print the numbers that docs/power-loss.md shows; only FULL has to come out clean."""
    records, directory = traffic(level)
    verdicts = await examine(records, points(records, 200), tmp_path)
    tally = Tally.of(verdicts)
    print(f"{level}, seed {SEED}, {len(records)} steps: {tally}")  # noqa: T201 - the numbers are what this test is for
    if level == "FULL":
        assert (tally.losing, tally.rows, tally.corrupt) == (0, 0, 0), described(verdicts, directory)
    else:
        assert tally.losing > 50
    if level == "OFF":
        assert tally.corrupt > 0
