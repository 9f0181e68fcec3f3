"""What the conformance suite needs to exercise the `command` runtime: a script that keeps real processes."""

import atexit
import functools
import shutil
import tempfile
from pathlib import Path
from typing import Any

KEEPER = Path(__file__).with_name("keeper.sh")


@functools.cache
def _folder() -> str:
    folder = tempfile.mkdtemp(prefix="holdfast-keeper-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def spec(work: str) -> dict[str, Any]:
    """Return a section whose workload is this line of shell."""
    command = ["sh", str(KEEPER), _folder(), work]
    return {
        "type": "command",
        "start": command,
        "stop": command,
        "inspect": command,
        "watch": 0.02,
        "start_grace": 0,
    }


def lasting_spec() -> dict[str, Any]:
    """Return a section whose workload runs until it is stopped."""
    return spec("sleep 1000")


def ending_spec(code: int) -> dict[str, Any]:
    """Return a section whose workload ends by itself, with this exit code."""
    return spec(f"(exit {code})")
