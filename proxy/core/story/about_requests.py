"""What the decision log's lines about requests and deferrals say in English.

Owns: the sentences of these actions. Knows nothing of: workspaces and restarts.
"""

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

from proxy.core.decision import Decision
from proxy.core.story.saying import Said, verdict
from proxy.core.story.spoken import DELIVERED, SENT, between, counted, duration, failure, listed, number, text
from proxy.core.times import rfc3339

_PROXY: Final = re.compile(r"[0-9a-f]{32}", re.ASCII)
_SHOWN: Final = 8
"""Characters of a proxy's id that are said."""
RESTARTS: Final = {
    "scheduled": "a restart was scheduled",
    "coalesced": "a restart was under way already",
    "debounced": "a restart is held back for a moment, since the last one has just begun",
    "backoff": "a restart follows after a pause, since the last ones failed",
    "abandoned": "no restart follows: the workspace was given up",
    "unmanaged": "no restart follows: no runtime hosts it",
}
"""What a refused request was told of the restart."""


def failed_call(facts: Mapping[str, Any]) -> str:
    """Say how a call or a try failed; empty where none did."""
    reason = text(facts, "reason")
    if not reason or "class" not in facts:
        return ""
    sent = SENT.get(text(facts, "class"), "")
    return failure(reason) + (f" ({sent})" if sent else "")


def _request_why(line: Decision) -> str:
    call = failed_call(line.evidence)
    reason = "" if call else text(line.evidence, "reason")
    return listed([call, f"and {verdict(line)}" if call and line.verdict else verdict(line), reason])


def verdict_in_short(line: Decision) -> str:
    """Say the verdict that has a line of its own, and whether anything was sent."""
    sent = SENT.get(text(line.evidence, "class"), "")
    return listed([f"the verdict was {line.verdict.upper()}" if line.verdict else "", sent])


def _deferred(line: Decision) -> Said:
    return Said("The request was put away durably, and its caller got a receipt (202)", _request_why(line))


def _adopted(line: Decision) -> Said:
    patience = number(line.evidence, "patience")
    waited = f"there was no answer within the {patience:g} s that its caller waits" if patience else ""
    return Said("The call goes on without its caller, who got a receipt (202)", waited or verdict(line))


def _journalled(_: Decision) -> Said:
    return Said(
        "The request was put away durably and sent at once; its caller is told from the journal",
        "the workspace keeps the events of all streams (journal = all)",
    )


def _joined(line: Decision) -> Said:
    state = text(line.evidence, "state")
    got = "the answer that it has" if state == "completed" else "its receipt"
    who = f"Request {line.request_id}" if line.request_id else "A request"
    return Said(
        f"{who} repeated it and got {got}",
        "it came from the same caller with the same idempotency key and content"
        + (f"; it was {state}" if state else ""),
    )


def _refused(line: Decision) -> Said:
    facts = line.evidence
    parts = [_request_why(line)]
    parts += [DELIVERED.get(text(facts, "delivered"), ""), RESTARTS.get(text(facts, "restart"), "")]
    if (wait := number(facts, "retry_after")) is not None:
        parts.append(f"its caller was told to try again after {duration(wait)}")
    answer = " ".join(filter(None, (text(facts, "status"), text(facts, "error"))))
    said = f"The request was refused: {answer}" if answer else "The request was refused"
    return Said(said, "; ".join(part for part in parts if part))


def _passed_on(line: Decision) -> Said:
    status = text(line.evidence, "status") or "answer"
    return Said(f"The {status} that came back was passed on to the caller as it was", _request_why(line))


def _broken_off(line: Decision) -> Said:
    return Said("The answer broke off after a part of it had gone to the caller", _request_why(line))


def _not_noted(line: Decision) -> Said:
    count = text(line.evidence, "count")
    return Said(f"{count or 'Some'} more requests were refused or repeated", "so many are counted, not listed")


def _leased(line: Decision) -> Said:
    facts = line.evidence
    tries = text(facts, "try")
    what = f"Try {tries} began" if tries else "It was handed out for delivery"
    owner = text(facts, "owner")
    if _PROXY.fullmatch(owner):
        owner = f"the replayer of proxy {owner[:_SHOWN]}"
    marked = "marked as a possible repetition" if facts.get("redelivery") == "maybe" else ""
    return Said(what, listed([f"leased to {owner}" if owner else "", marked]))


def _queued_again(line: Decision) -> Said:
    facts = line.evidence
    wait = between(rfc3339(line.at), facts.get("next_attempt_at"))
    attempts = number(facts, "attempts")
    parts = [failed_call(facts) or text(facts, "reason")]
    if line.rule:
        parts.append(f"rule {line.rule}" if not line.verdict else f"the workspace was judged {line.verdict.upper()}")
    if attempts:
        parts.append(f"{counted(attempts, 'attempt')} may have reached the agent")
    if wait is not None:
        parts.append(f"the next try comes in {wait}")
    which = f"Try {tries}" if (tries := text(facts, "try")) else "The try"
    return Said(f"{which} brought no answer; the request waits again", "; ".join(part for part in parts if part))


def _completed(line: Decision) -> Said:
    status = text(line.evidence, "status")
    which = f" to try {tries}" if (tries := text(line.evidence, "try")) else ""
    return Said(f"The agent answered{f' {status}' if status else ''}{which}; the answer is stored for the caller")


def _dead_letter(line: Decision) -> Said:
    return Said("It was given up and is a dead letter", text(line.evidence, "reason"))


def _expired(line: Decision) -> Said:
    return Said("It expired undelivered", text(line.evidence, "reason"))


def _cancelled(line: Decision) -> Said:
    return Said("It was cancelled", text(line.evidence, "reason"))


def _dropped(line: Decision) -> Said:
    return Said("It was dropped", text(line.evidence, "reason"))


def _redriven(line: Decision) -> Said:
    attempts = number(line.evidence, "attempts")
    before = f"{counted(attempts, 'attempt')} had been made" if attempts is not None else ""
    last = text(line.evidence, "last_error")
    why = listed([before, f"the last error was: {last}" if last else ""])
    return Said("An admin put the dead letter back into its queue", why)


def _lease_ended(line: Decision) -> Said:
    reason = text(line.evidence, "reason")
    return Said("Its lease ended without a word of its holder; it waits again, marked as possibly delivered", reason)


def _notification_given_up(line: Decision) -> Said:
    tries = number(line.evidence, "tries")
    after = f"after {counted(tries, 'attempt')}" if tries else ""
    more = "all that waited for its receiver went with it" if line.evidence.get("passed_over") else ""
    return Said("A push notification of its task was given up", listed([after, text(line.evidence, "reason"), more]))


ABOUT_REQUESTS: Final[Mapping[str, Callable[[Decision], Said]]] = MappingProxyType(
    {
        "deferred": _deferred,
        "adopted": _adopted,
        "journalled": _journalled,
        "joined": _joined,
        "refused": _refused,
        "passed on": _passed_on,
        "broken off": _broken_off,
        "not noted": _not_noted,
        "leased": _leased,
        "queued again": _queued_again,
        "completed": _completed,
        "dead letter": _dead_letter,
        "expired": _expired,
        "cancelled": _cancelled,
        "dropped": _dropped,
        "redriven": _redriven,
        "lease ended": _lease_ended,
        "notification given up": _notification_given_up,
    }
)
"""By action."""
ENDS: Final = frozenset({"completed", "dead letter", "expired", "cancelled", "dropped"})
"""Actions after which a deferral has ended, until an admin drives it again."""
PUT_AWAY: Final = frozenset({"deferred", "adopted", "journalled"})
"""Actions by which a deferral came to be."""
FIRST: Final = PUT_AWAY | {"refused", "passed on", "broken off", "joined"}
"""Actions that say what a request got."""
MANY: Final[Mapping[str, str]] = MappingProxyType(
    {
        "none": "The workspace was judged {verdict} {count} times",
        "still offline": "The workspace was judged DEAD {count} times more, and stays offline",
        "deferred": "{count} requests were put away durably (202)",
        "adopted": "{count} calls went on without their callers (202)",
        "journalled": "{count} streams were put away durably and sent at once",
        "joined": "{count} requests repeated earlier ones",
        "refused": "{count} requests were refused",
        "passed on": "{count} gateways' answers were passed on",
        "broken off": "{count} answers broke off half-way",
        "not noted": "{count} times so many requests were refused or repeated that they were only counted",
        "leased": "{count} tries began",
        "queued again": "{count} tries brought no answer; their requests wait again",
        "completed": "{count} deferred requests were answered",
        "dead letter": "{count} deferred requests were given up",
        "expired": "{count} deferred requests expired",
        "cancelled": "{count} deferred requests were cancelled",
        "dropped": "{count} deferred requests were dropped",
        "redriven": "{count} dead letters were put back into the queue",
        "lease ended": "{count} leases ended without a word of their holders",
        "notification given up": "{count} push notifications were given up",
    }
)
"""Several lines of one action, told together."""
