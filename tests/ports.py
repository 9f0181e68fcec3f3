"""Ports that stay free although other tests run at the same time.

Owns: choosing them.
Knows nothing of: what listens there.
"""

import contextlib
import random
import socket
from pathlib import Path


def free_port(chance: random.Random | None = None) -> int:
    """A port that nobody uses and that the kernel gives to no outgoing connection, so that it stays free."""
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()[0])
    chance = chance or random.SystemRandom()
    for _ in range(200):
        port = chance.randrange(max(1024, lowest - 15_000), lowest)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("there is no free port below the ephemeral range")
