"""The recorder, compiled once; recordings of the store under traffic, each made once."""

import os
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from power import recording
from power.recording import Recorded
from tree import ROOT


@pytest.fixture(scope="session")
def recorder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Skips where it cannot be: a proof that was not made must be seen as such."""
    if sys.platform != "linux":
        pytest.skip("power loss is not tested here: the recorder needs LD_PRELOAD and /proc, that is Linux")
    cc = recording.compiler()
    if cc is None:
        pytest.skip(f"power loss is not tested here: no C compiler with headers was found; {recording.TO_GET_IT}")
    return recording.compile_recorder(cc, tmp_path_factory.mktemp("recorder"))


@pytest.fixture(scope="session")
def run_recorded(recorder: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Recorded]:
    """Run a Python program (the words after `python`) in an empty directory of its own, recorded."""

    def run(*words: str) -> Recorded:
        folder = tmp_path_factory.mktemp("recorded")
        directory = folder / "data"
        directory.mkdir()
        environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
        recording.record(
            [sys.executable, *words],
            recorder=recorder,
            directory=directory,
            log=folder / "log",
            environment=environment,
        )
        return recording.read(folder / "log"), directory

    return run


@pytest.fixture(scope="session")
def traffic(run_recorded: Callable[..., Recorded]) -> Callable[[str], Recorded]:
    """Return the recording of the store under traffic with that `synchronous`."""

    @cache
    def recorded(level: str) -> Recorded:
        return run_recorded("-m", "power.workload", level)

    return recorded
