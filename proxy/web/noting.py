"""What the decision log says of a request that the agent did not answer.

Owns: why a request got what it got, as a line of the log: put away, adopted, refused, joined, passed on, broken off.
Knows nothing of: how the answer looks, where lines are kept (`loops.notes`), how they are told (`core.story`).

A line that belongs to a commit (a deferral) is made here and written with it; every other one is only noted, so that
no refusal waits for the disk.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from proxy.clock import Now
from proxy.core.decision import Decision, Trigger
from proxy.core.deferral import Deferral
from proxy.core.errors import HoldfastError
from proxy.core.outcome import Outcome
from proxy.core.times import rfc3339
from proxy.loops.gate import Judgement
from proxy.loops.notes import Notes
from proxy.loops.records import Records
from proxy.web.asked import Asked


@dataclass(frozen=True, slots=True, kw_only=True)
class Why:
    """Why a request gets what it gets: a verdict with its rule, where there was one, and what led to it."""

    verdict: str = ""
    rule: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    trigger: Trigger = Trigger.FORWARD

    @property
    def header(self) -> str:
        """The value of `Holdfast-Verdict`."""
        return f"{self.verdict}; rule={self.rule}"


class Noting:
    """Makes the lines about requests, and notes those that belong to no commit."""

    def __init__(self, *, records: Records, notes: Notes, now: Now) -> None:
        self._records = records
        self._notes = notes
        self._now = now

    def failed(self, outcome: Outcome, reason: str) -> Why:
        """A call failed just now."""
        return Why(facts={"failed_at": rfc3339(self._now()), "class": outcome.value, "reason": reason})

    @staticmethod
    def judged(why: Why, asked: Asked, judgement: Judgement) -> Why:
        """The workspace was judged because of that; an evaluation that was another's is told with it."""
        verdict, facts = judgement.verdict, {**why.facts, **judgement.grounds(asked.request_id)}
        return replace(why, verdict=verdict.name, rule=verdict.rule, facts=facts)

    def line(self, asked: Asked, action: str, why: Why, *, receipt: str | None = None) -> Decision:
        """A line that is committed with what it is about."""
        call = asked.call_or_none()
        who = {"caller": asked.caller_name, "operation": call.operation.value if call is not None else None}
        return self._records.decision(
            asked.route.workspace,
            why.trigger,
            action,
            verdict=why.verdict,
            rule=why.rule,
            policy=asked.route.effective.policy.preset,
            evidence={**{name: value for name, value in who.items() if value is not None}, **why.facts},
            request_id=asked.request_id,
            receipt=receipt,
        )

    def refused(self, asked: Asked, error: HoldfastError, why: Why) -> None:
        """The request was refused."""
        told = {name: error.facts[name] for name in ("delivered", "restart", "kind") if name in error.facts}
        answer = {"status": error.status, "error": error.reason, "retry_after": error.retry_after, **told}
        facts = {**why.facts, **{name: value for name, value in answer.items() if value is not None}}
        self._note(asked, "refused", replace(why, facts=facts))

    def joined(self, asked: Asked, deferral: Deferral) -> None:
        """The request repeats one that was put away, and got its receipt or its answer."""
        why = Why(facts={"state": deferral.state.value}, trigger=Trigger.QUEUE)
        self._note(asked, "joined", why, receipt=deferral.id)

    def passed_on(self, asked: Asked, status: int, why: Why) -> None:
        """A gateway's answer went to the caller as it came."""
        self._note(asked, "passed on", replace(why, facts={**why.facts, "status": status}))

    def broken_off(self, asked: Asked, why: Why) -> None:
        """An answer broke after something of it had gone to the caller."""
        self._note(asked, "broken off", why)

    def _note(self, asked: Asked, action: str, why: Why, receipt: str | None = None) -> None:
        self._notes.take(self.line(asked, action, why, receipt=receipt))
