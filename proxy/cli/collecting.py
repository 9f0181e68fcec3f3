"""Garbage collection of a process that serves for long.

Owns: when the interpreter looks for reference cycles, and at what.
Knows nothing of: what is served.

What a request leaves behind is freed when its last reference goes; cycles are rare. But the collector counts objects
made and not yet freed, and with some dozens of requests under way it starts again and again for nothing: about a tenth
of the CPU time of a busy proxy. So everything that is there once the proxy serves is taken out of its sight, and it
starts less often. A cycle is still found; it waits a little longer for it.
"""

import gc

YOUNG = 10_000
"""Objects made and not yet freed, after which the youngest are looked at; Python's own number is 700."""

MIDDLE, OLD = 20, 20
"""Rounds of the next younger generation before one of these."""


def settle() -> None:
    """Call it once, when the process has made what it keeps."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, MIDDLE, OLD)
