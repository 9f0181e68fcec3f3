"""The evidence of an evaluation as the decision log keeps it: JSON-able, with the reason in words.

Owns: the names of these facts. Knows nothing of: who writes the log, how it is told (`core.story`).

* `opened_at`: when the evaluation opened. `because`: the condition of the rule that decided, in words.
* `restart_started_at`, `restart_returned_at`, `announced_at`, `exited_at`, `agent_down_at`: instants known then.
* `restart_in_flight`, `external`, `sweep`, `doubted`: true, or left out.
* `probes`, `probed_at`: what each probe said, and when. `last_sign_at`, `read_at`: each reading of the signs of life
  (null: there never was one), and when it was taken.
* `strikes`: how many were stored when it opened; `strike`: the number of the one that it added.
"""

from datetime import datetime
from typing import Any

from proxy.core.evidence import Evidence, Verdict
from proxy.core.liveness import because
from proxy.core.presets import LivenessPolicy
from proxy.core.times import rfc3339

KNOWN = (
    "opened_at",
    "restart_in_flight",
    "announced_at",
    "restart_started_at",
    "restart_returned_at",
    "exited_at",
    "agent_down_at",
    "external",
    "sweep",
    "doubted",
)
"""What is known when an evaluation opens; what is neither true nor an instant is left out."""


def facts(evidence: Evidence, policy: LivenessPolicy, verdict: Verdict) -> dict[str, Any]:
    """Say what was known when an evaluation opened, what was read, and which condition decided."""
    found: dict[str, Any] = {
        name: rfc3339(value) if isinstance(value, datetime) else value
        for name in KNOWN
        if (value := getattr(evidence, name))
    }
    if evidence.strikes.count:
        found["strikes"] = evidence.strikes.count
    if verdict.strikes.count > evidence.strikes.count:
        found["strike"] = verdict.strikes.count
    if evidence.probes:
        found["probes"] = [reading.state.value for reading in evidence.probes]
        found["probed_at"] = [rfc3339(reading.at) for reading in evidence.probes]
    if evidence.life:
        signs = [reading.last_sign_at for reading in evidence.life]
        found["last_sign_at"] = [rfc3339(sign) if sign is not None else None for sign in signs]
        found["read_at"] = [rfc3339(reading.read_at) for reading in evidence.life]
    found["because"] = because(policy, evidence)
    return found
