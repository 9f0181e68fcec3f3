"""The tutorial is run: every command on its page, in its order, in one shell."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from e2e.serving import free_port

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "tutorial.md"
PATIENCE = 170


def commands() -> list[str]:
    """The page's shell blocks, without the one that installs."""
    return re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.fixture
def played(tmp_path: Path) -> str:
    """What the shell printed, every block behind its number."""
    ports = {"8080": str(free_port()), "9001": str(free_port())}
    blocks = [re.sub("|".join(ports), lambda found: ports[found[0]], block) for block in commands()]
    script = "set -euo pipefail\n" + "".join(f"echo '== {number}'\n{block}" for number, block in enumerate(blocks, 1))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HOLDFAST_")}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    shell = subprocess.run(
        ["bash"],  # noqa: S607 - the page is for a shell
        input=script,  # not an argument: the page kills by command line
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert shell.returncode == 0, f"{shell.stdout}\n{shell.stderr}"
    return shell.stdout


@pytest.mark.timeout(PATIENCE + 10)
def test_the_tutorial_works_as_it_is_written(played: str) -> None:
    statuses = re.findall(r"HTTP/1.1 (\d+)", played)
    assert statuses == ["200", "202", "200"]
    assert "TASK_STATE_SUBMITTED" in played
    assert "exited" in played  # why it was restarted
    assert "completed" in played
    assert re.search(r"^1$", played, re.MULTILINE)  # the agent saw the repeated message once
    assert "Traceback" not in played
