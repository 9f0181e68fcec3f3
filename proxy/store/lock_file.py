"""One proxy per SQLite database: an advisory lock on a file beside it.

Owns: taking and giving back the lock. Knows nothing of: what it guards.

The kernel gives `flock` back when its holder ends in whatever way, `SIGKILL` too, so a lock file that lies around means
nothing. A child process does not inherit it: Python's descriptors are closed at exec.
"""

import errno
import fcntl
import os
from pathlib import Path

from proxy.store import StoreFailure

_REASONS = {errno.ENOSPC: "full", errno.EDQUOT: "full", errno.EROFS: "readonly", errno.EACCES: "readonly"}


class LockFile:
    """The lock on `path`; its file is made when it is missing, and stays."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._held: int | None = None

    def take(self) -> None:
        """Take the lock without waiting, and write our process id for people.

        Raises:
            StoreFailure: `in_use`, `missing` (the directory), `readonly`, `full` or `io`.
        """
        try:
            opened = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        except FileNotFoundError as problem:
            raise StoreFailure("missing", f"there is no directory {self._path.parent}") from problem
        except OSError as problem:
            raise _failure(problem, self._path) from problem
        try:
            self._lock(opened)
        except BaseException:
            os.close(opened)
            raise
        self._held = opened

    def _lock(self, opened: int) -> None:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as problem:
            holder = os.pread(opened, 20, 0).decode("ascii", "replace").strip() or "unknown"
            raise StoreFailure("in_use", f"process {holder} holds {self._path}") from problem
        except OSError as problem:
            raise _failure(problem, self._path) from problem
        try:
            os.ftruncate(opened, 0)
            os.pwrite(opened, f"{os.getpid()}\n".encode(), 0)
        except OSError as problem:
            raise _failure(problem, self._path) from problem

    def give_back(self) -> None:
        """Give the lock back. Idempotent."""
        if self._held is not None:
            os.close(self._held)
            self._held = None


def _failure(problem: OSError, path: Path) -> StoreFailure:
    return StoreFailure(_REASONS.get(problem.errno or 0, "io"), f"{path}: {problem.strerror}")
