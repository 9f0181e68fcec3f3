"""Two rounds of the crash harness, so that it cannot rot between measurements (`scripts/chaos --rounds 200`)."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.timeout(180)
def test_two_rounds_of_kills_lose_nothing(tmp_path: Path) -> None:
    report = tmp_path / "chaos.json"
    words = [sys.executable, "-m", "chaos", "--rounds", "2", "--trouble-every", "2", "--seed", "12"]
    words += ["--json", str(report)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests"), "TMPDIR": str(tmp_path)}
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)  # noqa: S603 - our own words
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    said = json.loads(report.read_text(encoding="utf-8"))
    assert said["kept"] is True
    assert (said["total"]["lost"], said["total"]["failed"], said["findings"]) == (0, 0, [])
    assert said["total"]["sends"] >= 2 * 100
    assert said["accepted_share"] >= 0.99
    assert said["total"]["executions"] >= said["total"]["accepted"]
    assert said["proxy_kills"] >= 1
    assert said["agent_kills"] >= 1
    assert said["total"]["adopted"] >= 1
    assert said["total"]["retried"] >= 1
    assert sum(said["troubles"].values()) + sum(said["skipped_troubles"].values()) == 1
