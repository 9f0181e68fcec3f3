"""Owns what a command's exit code says. Knows nothing of commands."""

from enum import IntEnum


class Exit(IntEnum):
    """How a command ended; scripts may rely on it."""

    OK = 0
    FAILED = 1
    """It was refused, or it failed; the sentence on standard error says why."""
    USAGE = 2
    """The command line is wrong, or `serve` was given a configuration that cannot be used."""
    UNREACHABLE = 3
    """No Holdfast answered at that URL (`demo`: its stage never came up)."""
    NOT_FOUND = 4
    """There is no such workspace, deferral or token."""
    NOT_ALLOWED = 5
    """The token is missing, not known, or may not do that (401, 403)."""
    INTERRUPTED = 130
    """Ctrl-C, or a question that was not answered."""
    NOBODY_READS = 141
    """Whoever read the output has left, as with `| head`; what shells report for SIGPIPE."""
