"""A disk whose syncs take longer than this machine's: what a cloud volume or a spinning disk is like.

Owns: the library that is put under a program, and the program's environment.
Knows nothing of: what is measured.
"""

import os
import shutil
import subprocess
from pathlib import Path

from bench.measuring import UnfitError

SOURCE = Path(__file__).with_suffix(".c")
NANO = 1e6
"""Nanoseconds in a millisecond."""


def environment(folder: Path, milliseconds: float) -> dict[str, str]:
    """What a program needs around it so that each of its syncs takes so much longer.

    Raises:
        UnfitError: there is no C compiler.
    """
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise UnfitError("no C compiler, and so no slower disk")
    library = folder / "slow_disk.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O2", "-o", library, SOURCE, "-ldl"], check=True)  # noqa: S603 - the compiler that was found
    return {
        **os.environ,
        "LD_PRELOAD": str(library),
        "HOLDFAST_BENCH_SYNC_NS": str(round(milliseconds * NANO)),
    }
