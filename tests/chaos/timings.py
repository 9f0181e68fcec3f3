"""Scaled timings: the same machinery at a pace at which a round takes seconds.

Owns: the settings of the proxy under test and of its workspaces, and how they are shown.
Knows nothing of: what the settings do.

Everything keeps its place in the order of things (hold < settle window < debounce, first pause < longest pause), only
shorter. Two limits are lifted, because the harness kills far more often than anything real: the number of restarts
before a workspace is given up, and the number of tries before a deferral becomes a dead letter. With them a run would
end in the documented refusal instead of showing whether anything is lost.
"""

from typing import Any

from proxy.settings import SETTINGS

PROXY: dict[str, float] = {
    "queue.sweep": 0.3,
    "queue.lease": 3.0,
    "queue.backoff": 0.05,
    "queue.backoff_cap": 0.5,
    "queue.gateway_backoff": 0.25,
    "queue.gateway_ceiling": 20.0,
    "queue.attempts": 50,
    "probe.timeout": 1.0,
    "probe.away_first": 0.05,
    "probe.away_cap": 0.3,
    "restart.stop_grace": 1.0,
    "restart.lease": 1.5,
    "upstream.connect_timeout": 1.0,
    "beats.flush": 0.2,
    "health.sweep": 0.5,
    "store.busy_timeout": 0.3,
    "defaults.hold_seconds": 0,
}
"""Settings of the proxy, by their dotted keys. Seconds, except `queue.attempts`."""

POLICY: dict[str, float] = {
    "settle_hold": 0.3,
    "settle_window": 0.8,
    "reprobe_delay": 0.2,
    "recent_heartbeat": 1.0,
    "strikes": 2,
    "strike_window": 2.0,
    "reprobe_min_interval": 0.1,
    "provisioning_timeout": 30.0,
    "restart_debounce": 1.0,
    "restart_intensity": 0,
    "restart_backoff": 0.1,
    "restart_backoff_cap": 0.3,
    "restart_backoff_reset": 20.0,
}
"""Each workspace's policy. Seconds, except `strikes`; 0 = off."""

WORKSPACE: dict[str, Any] = {"dead_action": "defer", "max_concurrent": 8}
"""Each workspace's other settings."""

REDELIVERIES = ("ask_then_always", "always", "never")
"""One workspace of each."""

AGENT_DELAY = 0.1
BEAT_EVERY = 0.5


def environment() -> dict[str, str]:
    """The proxy's settings as its environment variables."""
    assert PROXY.keys() <= SETTINGS.keys(), PROXY.keys() - SETTINGS.keys()
    return {f"HOLDFAST_{key.upper().replace('.', '_')}": f"{value:g}" for key, value in PROXY.items()}


def shown() -> list[str]:
    """The timings as lines for a terminal."""
    parts = {"proxy": PROXY, "policy": POLICY, "workspace": WORKSPACE}
    lines = [f"{name}: {' '.join(f'{key}={value}' for key, value in table.items())}" for name, table in parts.items()]
    lines[-1] += f" redelivery={'/'.join(REDELIVERIES)}"
    return [*lines, f"agent: delay={AGENT_DELAY} beat_every={BEAT_EVERY}"]
