"""Every bench runs: a few seconds of each, in which every answer must be right. How long anything took is not asked."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from bench import measuring, pages
from bench.__main__ import BENCHES, WRONG_USAGE, bench, main
from bench.measuring import ROOT, read_journal


def play(name: str, *options: str, journal: Path) -> tuple[str, list[dict[str, Any]]]:
    """Run a bench as a user would; what it printed, and what it left."""
    words = [sys.executable, "-m", "bench", name, "--short", *options, "--json", str(journal)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests"), "TMPDIR": str(journal.parent)}
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)  # noqa: S603 - our own words
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout, read_journal(journal)


@pytest.mark.long
@pytest.mark.timeout(120)
def test_forwarded_requests_are_all_answered_rightly_by_every_proxy_there_is(tmp_path: Path) -> None:
    said, records = play("forward", journal=tmp_path / "forward.jsonl")
    slices = measuring.chosen(records, "slice")
    missing = set(measuring.chosen(records, "missing")[0]["names"])
    assert {one["subject"] for one in slices} | missing == {"direct", "plain", "nginx", "haproxy", "caddy", "holdfast"}
    assert {one["subject"] for one in slices} >= {"direct", "plain", "holdfast"}
    assert all(one["answered"] > 0 for one in slices)
    assert sum(one["wrong"] + one["lost"] for one in slices) == 0
    opened = [one for one in slices if one["loop"] == "open"]
    assert all(len(one["latencies_us"]) == one["answered"] == 30 for one in opened)
    assert all(one["cpu_seconds"] > 0 for one in slices if one["subject"] == "holdfast")
    assert all(f"NOT MEASURED HERE: {name}".lower() in said.lower() for name in missing)
    assert "Holdfast at most 0.5 x plain aiohttp pass-through" in bench("forward").page(records)


@pytest.mark.long
@pytest.mark.timeout(180)
def test_relayed_events_all_come_in_order_through_every_proxy_there_is(tmp_path: Path) -> None:
    _, records = play("sse", journal=tmp_path / "sse.jsonl")
    turns = measuring.chosen(records, "turn")
    assert {one["subject"] for one in turns} >= {"plain", "holdfast"}
    assert [one["faults"] for one in turns] == [[] for _ in turns]
    assert all(one["ended"] == one["streams"] == 50 for one in turns)
    assert all(one["all_events"] >= one["events"] > 0 for one in turns)
    assert "KiB a stream" in bench("sse").page(records)


@pytest.mark.long
@pytest.mark.timeout(180)
@pytest.mark.parametrize("name", [name for name in BENCHES if name not in {"forward", "sse"}])
def test_the_benches_of_the_store_run_and_make_their_page(name: str, tmp_path: Path) -> None:
    _, records = play(name, journal=tmp_path / f"{name}.jsonl")
    assert records[0]["bench"] == name
    assert bench(name).page(records)


def test_a_bench_that_there_is_not_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["speed"]) == WRONG_USAGE
    said = capsys.readouterr().out
    assert all(name in said for name in BENCHES)


def test_the_page_has_a_place_for_every_bench_and_only_that_is_replaced() -> None:
    page = pages.PAGE.read_text(encoding="utf-8")
    for name in BENCHES:
        changed = pages.replaced(page, name, "| a table |")
        assert f"<!-- {name}: begin -->\n| a table |\n<!-- {name}: end -->\n" in changed
        assert pages.replaced(changed, name, "x") == pages.replaced(page, name, "x")
    with pytest.raises(ValueError, match="no section"):
        pages.replaced(page, "speed", "x")


def test_a_journal_that_was_cut_short_makes_no_page(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    with measuring.Journal("forward", ["--short", "--json", str(path)], path) as journal:
        journal.note("slice", subject="plain")
        with pytest.raises(ValueError, match="middle of a run"):
            read_journal(path)
    records = read_journal(path)
    assert [record["kind"] for record in records] == ["run", "slice", "end"]
    assert records[0]["command"] == ["scripts/bench", "forward", "--short"]
    assert records == [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_cpu_time_is_that_of_a_process_and_of_its_children() -> None:
    spin = "import subprocess, sys; sum(range(10**6)); {}; print(1, flush=True); sys.stdin.read()"
    child = "subprocess.run([sys.executable, '-c', 'sum(range(10**7))'])"
    used = []
    for work in ("pass", child):
        words = [sys.executable, "-c", spin.format(work)]
        with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:  # noqa: S603 - our own words
            assert process.stdout is not None
            process.stdout.readline()
            used.append(measuring.cpu_seconds(process.pid))
            assert measuring.resident_bytes(process.pid) > 1_000_000
            process.communicate()
    assert used[1] > used[0] + 0.05


@pytest.mark.parametrize(("share", "value"), [(0.0, 1.0), (0.5, 3.0), (0.99, 4.0), (1.0, 4.0)])
def test_a_percentile_is_one_of_the_values(share: float, value: float) -> None:
    assert measuring.percentile([1.0, 2.0, 3.0, 4.0], share) == value
