"""The account of a round: what was sent, what agents executed, what can be fetched, and what of that must not be.

Owns: the records, the classes of a send, and `audit`, which compares them.
Knows nothing of: processes, sockets, time; everything it judges is handed to it.

Four sources that know nothing of each other are compared: what callers saw, what the agents' own fsynced accounts say,
what GetTask and the queue's view say afterwards, and which processes the harness killed.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import combinations

TERMINAL = frozenset(
    {"TASK_STATE_COMPLETED", "TASK_STATE_FAILED", "TASK_STATE_CANCELED", "TASK_STATE_REJECTED"},
)
COMPLETED = "TASK_STATE_COMPLETED"
FAILED = "TASK_STATE_FAILED"


class Seen(StrEnum):
    """What a caller saw of its send."""

    ANSWERED = "answered"  # 2xx with the agent's answer, read in full
    DEFERRED = "deferred"  # 2xx with a task to follow, read in full
    REFUSED = "refused"  # an error, read in full
    BROKEN = "broken"  # the connection was refused or broke, or nothing came in time


class Role(StrEnum):
    """What kind of caller sends: whether it sends once, and how long it waits."""

    CLASSIC = "classic"  # sends once and waits
    IMPATIENT = "impatient"  # sends once a call that takes longer than it says that it waits
    RETRYING = "retrying"  # sends again, under the same message id, after a broken connection or a 503
    LEAVING = "leaving"  # hangs up while the agent executes, and comes back with the same message id


class Fault(StrEnum):
    """What must not happen. Each finding of one fails the run."""

    LOST = "lost"  # accepted, and no answer can be fetched
    FAILED = "failed"  # accepted, and its task ended without the agent's answer
    WRONG = "wrong answer"  # accepted, and the answer belongs to something else
    PHANTOM = "answered, never executed"
    UNMARKED = "executed again without redelivery: maybe"
    FORBIDDEN = "executed again although redelivery is never"
    UNTRUE = "refused as not delivered, but executed"
    IGNORED = "the caller's patience was ignored"
    UNADOPTED = "the client left a running call, and nothing was put away"
    UNJOINED = "a retry did not join the deferral of its message"
    DOUBLE = "one message was put away twice"
    RUDE = "trouble with the store was not answered by 503 with Retry-After"
    DISORDER = "a context's order was broken"
    DIED = "the proxy ended by itself"
    STRANGER = "executed, but nobody sent it"
    NEEDLESS = "restarted without a death"
    DOUBLED = "not exactly one agent process"
    UNHEALED = "not idle and ready in time"


@dataclass(slots=True, kw_only=True)
class Send:
    """One message as its caller saw it in the end. Instants are seconds of the harness's event loop.

    `excused`: the harness had killed the proxy between `began` and `ended`, or the store could not write then and the
    answer was 503 with Retry-After. `declined`: the agent was killed in mid-call, redelivery is never, and the answer
    was the 502 that says so. `reason` says why it was refused or broke. `loose`: how many times it went out without
    joining a deferral; each of them may have been executed once, unmarked. `adopted`: the verdict of its 202 was
    `slow_call`. `known`: the deferral that was in the database before the last time that it was sent.
    """

    message_id: str
    workspace: str
    context_id: str | None
    caller: str
    text: str
    began: float
    ended: float = 0.0
    seen: Seen = Seen.BROKEN
    status: int = 0
    reason: str = ""
    answer: str | None = None
    task_id: str | None = None
    receipt: str | None = None
    excused: bool = False
    role: Role = Role.CLASSIC
    never: bool = False
    declined: bool = False
    delivered: str | None = None
    retry_after: bool = False
    adopted: bool = False
    tries: int = 0
    loose: int = 0
    joined: int = 0
    known: str | None = None
    left: bool = False
    faults: list[Fault] = field(default_factory=list)

    @property
    def accepted(self) -> bool:
        """Holdfast said yes: a 2xx was read in full."""
        return self.seen in {Seen.ANSWERED, Seen.DEFERRED}

    @property
    def expected(self) -> str:
        """What the agent answers to it."""
        return f"echo: {self.text}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """One line of an agent's account."""

    message_id: str
    workspace: str
    marked: bool
    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Followed:
    """What could be fetched of a deferred send in the end; `state` is empty where nothing could."""

    state: str = ""
    text: str | None = None
    queue_status: str = ""
    marked: bool = False
    attempts: int = 0
    last_error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that must not be."""

    fault: Fault
    workspace: str
    subject: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.fault}: {self.workspace} {self.subject}{': ' if self.detail else ''}{self.detail}"


@dataclass(slots=True, kw_only=True)
class Counts:
    """The numbers of a round, or of a run: they add up."""

    sends: int = 0
    answered: int = 0
    deferred: int = 0
    refused: int = 0
    broken: int = 0
    excused: int = 0
    put_off: int = 0
    declined: int = 0
    adopted: int = 0
    left: int = 0
    retried: int = 0
    joined: int = 0
    rerun: int = 0
    executions: int = 0
    repeated: int = 0
    lost: int = 0
    failed: int = 0
    failed_never: int = 0
    reasons: dict[str, int] = field(default_factory=dict)

    @property
    def counted(self) -> int:
        """Sends that nothing excuses from being accepted: no kill, no trouble with the store, no `never`."""
        return self.sends - self.excused - self.put_off - self.declined

    @property
    def accepted(self) -> int:
        """Sends that Holdfast said yes to."""
        return self.answered + self.deferred

    @property
    def share(self) -> float:
        """Accepted among counted; 1 where nothing counted."""
        return self.accepted / self.counted if self.counted else 1.0

    def add(self, other: "Counts") -> None:
        """Add another round's numbers."""
        for name in self.__slots__:
            if name != "reasons":
                setattr(self, name, getattr(self, name) + getattr(other, name))
        for reason, number in other.reasons.items():
            self.reasons[reason] = self.reasons.get(reason, 0) + number


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """The result of a comparison."""

    counts: Counts
    findings: tuple[Finding, ...]


def audit(
    sends: Sequence[Send], executions: Sequence[Execution], followed: Mapping[str, Followed], known: Iterable[str]
) -> Audit:
    """Compare. `executions` are in the order of each agent's account; `known` are message ids of earlier rounds."""
    by_message: dict[str, list[Execution]] = defaultdict(list)
    for execution in executions:
        by_message[execution.message_id].append(execution)
    findings: list[Finding] = []
    for send in sends:
        end = followed.get(send.message_id, Followed())
        ran = by_message.get(send.message_id, [])
        findings += _accepted(send, end, ran) if send.accepted else []
        findings += _repeated(send, end, ran)
        findings += _said(send, ran)
    findings += _order(sends, executions)
    strangers = by_message.keys() - {send.message_id for send in sends} - set(known)
    findings += [
        Finding(fault=Fault.STRANGER, workspace=by_message[message][0].workspace, subject=message)
        for message in sorted(strangers)
    ]
    counts = _count(sends, by_message, findings)
    counts.failed_never = sum(
        send.never and followed.get(send.message_id, Followed()).state == FAILED for send in sends if send.accepted
    )
    return Audit(counts=counts, findings=tuple(findings))


def _accepted(send: Send, end: Followed, ran: Sequence[Execution]) -> list[Finding]:
    """What is wrong with a send that was accepted: it must have been executed, and its answer must be there."""

    def found(fault: Fault, detail: str) -> Finding:
        return Finding(fault=fault, workspace=send.workspace, subject=send.message_id, detail=detail)

    if send.seen is Seen.ANSWERED:
        wrong = [found(Fault.WRONG, repr(send.answer))] if send.answer != send.expected else []
        return wrong + ([] if ran else [found(Fault.PHANTOM, "answered directly")])
    if end.state not in TERMINAL:
        state = end.state or "nothing could be fetched"
        return [found(Fault.LOST, f"{state}, queue {end.queue_status or 'unknown'}, {end.last_error}")]
    if end.state != COMPLETED:
        if send.never and end.state == FAILED:
            return []
        return [found(Fault.FAILED, f"{end.state}: {end.text or end.last_error}")]
    if end.text != send.expected:
        return [found(Fault.WRONG, repr(end.text))]
    return [] if ran else [found(Fault.PHANTOM, f"deferral {send.receipt}")]


def _repeated(send: Send, end: Followed, ran: Sequence[Execution]) -> list[Finding]:
    """Every execution after the first must have been announced, to the agent and to whoever looks at the deferral.

    A caller that sent its message again has one unmarked execution for each time that it went out without joining.
    """

    def found(fault: Fault, detail: str) -> Finding:
        return Finding(fault=fault, workspace=send.workspace, subject=send.message_id, detail=detail)

    own = max(1, send.loose)
    findings = []
    unmarked = [execution for execution in ran if not execution.marked]
    silent = [str(execution.pid) for execution in (ran[1:] if own == 1 else unmarked[own:]) if not execution.marked]
    if silent:
        detail = f"{len(ran)} executions, {own} of them its caller's own, the agent was not told by {', '.join(silent)}"
        findings.append(found(Fault.UNMARKED, detail))
    if len(ran) > own and send.seen is Seen.DEFERRED and not end.marked:
        detail = f"{len(ran)} executions, deferral {send.receipt} does not say so"
        findings.append(found(Fault.UNMARKED, detail))
    if send.never and len(ran) > own:
        findings.append(found(Fault.FORBIDDEN, f"{len(ran)} executions, {own} of them its caller's own"))
    return findings


def _said(send: Send, ran: Sequence[Execution]) -> list[Finding]:
    """What was seen while it was sent, and whether a refusal told the truth."""
    faults = list(send.faults)
    if send.seen is Seen.REFUSED and send.delivered == "no" and send.tries <= 1 and ran:
        faults.append(Fault.UNTRUE)
    return [
        Finding(fault=fault, workspace=send.workspace, subject=send.message_id, detail=f"{send.role}, {send.reason}")
        for fault in faults
    ]


def _order(sends: Sequence[Send], executions: Sequence[Execution]) -> list[Finding]:
    """First executions of one context follow acceptance: what was accepted before another began ran before it.

    A call that is adopted holds nobody back while it runs; so what comes after it may overtake it.
    """
    first: dict[str, int] = {}
    for position, execution in enumerate(executions):
        first.setdefault(execution.message_id, position)
    contexts: dict[tuple[str, str], list[Send]] = defaultdict(list)
    for send in sends:
        if send.accepted and send.context_id is not None and send.message_id in first:
            contexts[send.workspace, send.context_id].append(send)
    findings = []
    for (workspace, context_id), members in contexts.items():
        for one, other in combinations(members, 2):
            earlier, later = (one, other) if one.began <= other.began else (other, one)
            holds = not (earlier.adopted or earlier.left)
            if holds and earlier.ended < later.began and first[earlier.message_id] > first[later.message_id]:
                detail = f"{later.message_id} ({later.seen}) ran before {earlier.message_id} ({earlier.seen})"
                findings.append(
                    Finding(fault=Fault.DISORDER, workspace=workspace, subject=f"context {context_id}", detail=detail)
                )
    return findings


def _count(sends: Sequence[Send], by_message: Mapping[str, list[Execution]], findings: Sequence[Finding]) -> Counts:
    counts = Counts(sends=len(sends), executions=sum(len(ran) for ran in by_message.values()))
    for send in sends:
        match send.seen:
            case Seen.ANSWERED:
                counts.answered += 1
            case Seen.DEFERRED:
                counts.deferred += 1
            case Seen.REFUSED:
                counts.refused += 1
                counts.put_off += send.excused
                counts.declined += send.declined
            case Seen.BROKEN:
                counts.broken += 1
                counts.excused += send.excused
        counts.adopted += send.adopted
        counts.left += send.left
        counts.retried += send.tries > 1
        counts.joined += send.joined > 0
        counts.rerun += send.tries > 1 and len(by_message.get(send.message_id, ())) > 1
        if not (send.accepted or send.excused or send.declined):
            counts.reasons[send.reason] = counts.reasons.get(send.reason, 0) + 1
    counts.repeated = sum(len(ran) > 1 for ran in by_message.values())
    counts.lost = sum(finding.fault in {Fault.LOST, Fault.PHANTOM} for finding in findings)
    counts.failed = sum(finding.fault is Fault.FAILED for finding in findings)
    return counts
