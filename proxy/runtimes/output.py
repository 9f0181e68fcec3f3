"""Owns the bound on what a child writes: one log file and one older one. Knows nothing of who writes or why.

Theory of operation. The child's standard output and error are the log file itself, opened for appending: no pipe and
no relay, so a child never blocks on a proxy that is slow or away, and nothing dies with the proxy. The price is that
the bound is kept from outside: the proxy looks every `TRIM_INTERVAL` seconds and cuts a file above its limit, after
copying its newest bytes to the older file. Appending makes that safe: each write goes to the end, wherever that is by
then. Lines written between copy and cut are lost, and a file may pass its limit by what is written between two looks.
While no proxy runs, nothing is cut; the first look is at adoption.
"""

import os
from pathlib import Path
from typing import Final

TRIM_INTERVAL: Final = 5.0
"""Seconds between two looks at the log files."""

DEFAULT_LIMIT: Final = 8 * 1024 * 1024
"""Bytes of one log file, where a workspace sets no `log_max_bytes`; there are at most two files."""


def older(log: Path) -> Path:
    """Return where the bytes before the last cut are kept."""
    return log.with_name(f"{log.name}.1")


def trim(log: Path, limit: int) -> bool:
    """Cut `log` if it holds more than `limit` bytes, keeping its newest `limit` in the older file; whether it did."""
    try:
        source = os.open(log, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        size = os.fstat(source).st_size
        if size <= limit:
            return False
        draft = log.with_name(f"{log.name}.new")
        target = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            at = size - limit
            while at < size:
                at += os.sendfile(target, source, at, size - at) or size
        finally:
            os.close(target)
        draft.replace(older(log))
        os.ftruncate(source, 0)
        return True
    finally:
        os.close(source)
