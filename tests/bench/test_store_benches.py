"""The benches of the store in their short form: they work from end to end, and nothing that was acknowledged is lost.

No test looks at a time or a rate: what a shared machine does in a second says nothing.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from bench import heartbeats, queue
from bench.measuring import ROOT

pytestmark = pytest.mark.long


def bench(name: str, folder: Path) -> tuple[str, list[dict[str, Any]]]:
    """Run one as a person does; what it said, and the lines that it left."""
    left = folder / f"{name}.json"
    words = [sys.executable, "-m", "bench", name, "--short", "--json", str(left), "--directory", str(folder)]
    env = {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(words, cwd=ROOT, env=env, capture_output=True, text=True, check=False)  # noqa: S603 - our own words
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout, [json.loads(line) for line in left.read_text(encoding="utf-8").splitlines()]


def of(records: list[dict[str, Any]], kind: str, **fields: Any) -> list[dict[str, Any]]:
    return [one for one in records if one["kind"] == kind and all(one[name] == value for name, value in fields.items())]


@pytest.mark.timeout(240)
def test_scenario_46_the_queue_bench_finds_every_acknowledged_deferral(tmp_path: Path) -> None:
    said, records = bench("queue", tmp_path)
    assert {(one["where"], one["subject"]) for one in of(records, "slice")} == {
        *((where, subject) for where in ("store", "http") for subject in ("group", "single")),
        ("store", "disk"),
    }
    for one in of(records, "slice"):
        assert one["count"] == len(one["latencies_us"]) > 0
    assert [one["acknowledged"] == one["there"] > 0 for one in of(records, "kept")] == [True, True]
    kills = of(records, "kill")
    assert [one["lost"] for one in kills] == [0, 0]
    assert 0 < kills[-1]["acknowledged"] <= kills[-1]["there"]
    assert {(one["name"], one["how"]) for one in of(records, "claim")} == {
        (name, how) for name in ("small", "large") for how in ("alone", "committed")
    }
    assert "0 lost" in said
    assert queue.page(records).endswith(said.rstrip().rpartition("\n")[2])


def test_a_loss_is_told_and_counted() -> None:
    kept = {"kind": "kept", "acknowledged": 7, "there": 6}
    kill = {"kind": "kill", "acknowledged": 5, "there": 3, "lost": 2}
    assert queue.lost_of([kept, kill]) == 3


@pytest.mark.timeout(240)
def test_the_heartbeat_bench_has_every_beat_answered_and_noted(tmp_path: Path) -> None:
    said, records = bench("heartbeats", tmp_path)
    (beats,) = of(records, "beats")
    assert beats["beats"] == len(beats["latencies_us"]) == 1000
    assert (beats["wrong"], beats["lost"]) == (0, 0)
    assert [one["unheard"] for one in of(records, "kept")] == [0]
    assert "0 wrong, 0 lost, 0 not noted" in said
    assert heartbeats.page(records).endswith(said.rstrip().rpartition("\n")[2])
