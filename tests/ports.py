"""Ports that stay free although other tests run at the same time.

Owns: choosing them.
Knows nothing of: what listens there.
"""

import contextlib
import os
import random
import socket
from collections import deque
from pathlib import Path

_given: deque[int] = deque(maxlen=50)
"""Ports that are perhaps still somebody's, although nobody listens there: a test's agent may be away."""


def free_port(chance: random.Random | None = None) -> int:
    """A port that nobody uses and that the kernel gives to no outgoing connection, so that it stays free."""
    ports = _ours()
    chance = chance or random.SystemRandom()
    for _ in range(200):
        port = chance.choice(ports)
        if port in _given:
            continue
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            _given.append(port)
            return port
    raise AssertionError("there is no free port below the ephemeral range")


def _ours() -> range:
    """The ports of this process: those that run tests at the same time (pytest-xdist) have others."""
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()[0])
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    return range(max(1024, lowest - 15_000), lowest)[worker::workers]
