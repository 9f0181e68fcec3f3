"""One line of the decision log in English, before it has its place in a story.

Owns: the record, and the sentence about a verdict, which many lines need.
Knows nothing of: actions.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from proxy.core.decision import Decision
from proxy.core.story.evidence import found
from proxy.core.story.spoken import NOT_DIALLED, between, listed, meaning, text


@dataclass(frozen=True, slots=True)
class Said:
    """What happened, and why; each the words of a sentence without its full stop. `why` may be empty."""

    what: str
    why: str = ""


JUDGED = frozenset({"none", "offline", "still offline"})
"""Actions of lines that are an evaluation's own."""


def with_grounds(line: Decision, lines: Iterable[Decision]) -> Decision:
    """A line about a request with what the evaluation found that was opened for it, which has a line of its own."""
    if "class" not in line.evidence or "because" in line.evidence:
        return line
    of_it = [other for other in lines if other.action in JUDGED and other.request_id == line.request_id]
    judged = next((other for other in of_it if (other.verdict, other.rule) == (line.verdict, line.rule)), None)
    return line if judged is None else replace(line, evidence={**judged.evidence, **line.evidence})


def grounds(line: Decision) -> str:
    """Say why a verdict was given: what its rule means, and every fact that was known or read."""
    facts = line.evidence
    means = meaning(line.policy, line.rule, facts.get("because"))
    return "; ".join(part for part in (means, listed(found(facts))) if part)


def _with(said: str, reason: str) -> str:
    return f"{said}: {reason}" if reason else said


def verdict(line: Decision) -> str:
    """Say the verdict that stands on a line, with whose evaluation it was where that was another's."""
    if not line.verdict:
        return meaning(line.policy, line.rule) if line.rule else ""
    name = line.verdict.upper()
    facts = line.evidence
    match facts.get("how"):
        case "shared":
            whose = text(facts, "opened_by")
            opener = f"request {whose}" if whose else "something else"
            return _with(f"it shared the evaluation that {opener} had opened, which said {name}", grounds(line))
        case "throttled":
            said = f"the workspace had been judged {name} a moment before, and is not looked at again so soon"
            return _with(said, grounds(line))
        case "standing":
            age = between(facts.get("declared_at"), facts.get("failed_at"))
            when = f" {age} before" if age is not None else ""
            return f"the workspace had been declared {name}{when} and nothing was heard of it since"
    if facts.get("class"):
        return _with(f"the workspace was judged {name}", grounds(line))
    return _with(f"the workspace counted as {name}", NOT_DIALLED.get(line.rule) or meaning(line.policy, line.rule))
