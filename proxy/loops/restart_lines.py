"""What the decision log says of restarts: who asked, which brake said what with which numbers, how far a cycle came.

Owns: these lines. Knows nothing of: how a restart runs, when a line is written.

A line about a cycle carries the cycle's generation and incarnation, so that one restart's lines are found by them.
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from proxy.core.decision import Decision as LogLine
from proxy.core.decision import Trigger as LogTrigger
from proxy.core.restart import (
    Answer,
    Decision,
    History,
    Phase,
    Restart,
    RestartPolicy,
    Trigger,
    counted,
    failed_in_a_row,
)
from proxy.core.times import rfc3339
from proxy.core.workspace import Workspace
from proxy.loops.records import Records

TRIGGERS = {
    Trigger.ADMIN: LogTrigger.ADMIN,
    Trigger.CONFIG: LogTrigger.CONFIG,
    Trigger.ANNOUNCED: LogTrigger.ANNOUNCED,
    Trigger.VERDICT: LogTrigger.COORDINATOR,
    Trigger.WAKE: LogTrigger.PARKED,
}


class RestartLines:
    """Makes lines about restarts."""

    def __init__(self, records: Records) -> None:
        self._records = records

    def asked(
        self,
        known: Workspace,
        trigger: Trigger,
        action: str,
        reason: str,
        *,
        request_id: str | None = None,
        rule: str = "",
        evidence: Mapping[str, Any] | None = None,
    ) -> LogLine:
        """A restart was asked for; `action` is what became of that."""
        return self._records.decision(
            known,
            TRIGGERS[trigger],
            action,
            rule=rule,
            evidence={**({"reason": reason} if reason else {}), **(evidence or {})},
            request_id=request_id,
        )

    def held_back(
        self, known: Workspace, decision: Decision, rule: str, request_id: str | None, numbers: Mapping[str, Any]
    ) -> LogLine:
        """A verdict asked for a restart that does not begin now."""
        evidence = {**numbers, **({"until": rfc3339(decision.at)} if decision.at is not None else {})}
        return self._records.decision(
            known,
            LogTrigger.COORDINATOR,
            f"restart {decision.answer}",
            rule=rule,
            evidence=evidence,
            request_id=request_id,
        )

    def came_to(self, known: Workspace, cycle: Restart, at: datetime) -> LogLine:
        """A cycle reached its next phase, or its end; `seconds` since it was recorded."""
        evidence: dict[str, Any] = {"seconds": round((at - cycle.started_at).total_seconds(), 3)}
        if cycle.error:
            evidence["reason"] = cycle.error
        if cycle.returned_at is not None and cycle.phase is not Phase.STARTED:
            evidence["returned_at"] = rfc3339(cycle.returned_at)
        line = self._records.decision(known, TRIGGERS[cycle.trigger], f"restart {cycle.phase}", evidence=evidence)
        return replace(line, at=at, incarnation=cycle.incarnation, generation=cycle.generation)


def numbers(answer: Answer, history: History, policy: RestartPolicy, now: datetime) -> dict[str, Any]:
    """The numbers that a brake's answer rests on."""
    last = history.cycles[-1] if history.cycles else None
    last_at = {"last_started_at": rfc3339(last.started_at)} if last is not None else {}
    in_window = len(counted(history, now - timedelta(seconds=policy.window)))
    match answer:
        case Answer.DEBOUNCED:
            return {**last_at, "debounce": policy.debounce}
        case Answer.BACKOFF:
            return {"failures": failed_in_a_row(history), "backoff": policy.backoff, "backoff_cap": policy.backoff_cap}
        case Answer.COALESCED if last is not None:
            return {**last_at, "joined": last.generation}
        case Answer.ABANDONED | Answer.SCHEDULED:
            return {"count": in_window, "intensity": policy.intensity, "window": policy.window}
        case _:
            return {}
