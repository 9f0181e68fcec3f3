"""Owns how the record of a `process` workspace changes and what it means. Knows nothing of tasks, pidfds or signals.

A change is a function from record to record. It runs under the workspace's lock and decides by the record it is given,
so it holds whatever happened since its caller last looked.
"""

import os
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from proxy.core.liveness import ProbeState
from proxy.core.times import from_micros, micros
from proxy.runtimes import Exited, RuntimeFailure, launcher
from proxy.runtimes.launcher import ENDED, LAUNCHING, RUNNING, Instance, Record

Change = Callable[[Record], Record]


def amend(folder: Path, change: Change) -> tuple[Record, Record]:
    """Change a record under its lock, durably; return it as it was and as it is.

    BlockingIOError when somebody holds the lock; OSError; RuntimeFailure `bad_record`, and whatever `change` raises.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = launcher.hold(folder, wait=False)
    try:
        before = read(folder)
        after = change(before)
        if after != before:
            launcher.write_record(folder, after)
        return before, after
    finally:
        os.close(lock)


def read(folder: Path) -> Record:
    """Read a record; RuntimeFailure `bad_record` when it cannot be understood."""
    try:
        return launcher.read_record(folder)
    except ValueError as problem:
        raise RuntimeFailure("bad_record", str(problem)) from None


def same(one: Instance, other: Instance) -> bool:
    """Whether two records speak of one process."""
    return (one.machine, one.pid, one.ticks) == (other.machine, other.pid, other.ticks)


def refuse_foreign(instance: Instance, owner: str) -> None:
    """Raise RuntimeFailure `foreign` unless `owner` started the instance: its processes are on another host."""
    if instance.owner != owner:
        raise RuntimeFailure("foreign", f"its record belongs to the proxy host {instance.owner!r}")


def confirming(instance: Instance) -> Change:
    """Make the change that says: exec was seen."""

    def confirm(record: Record) -> Record:
        last = record.instance
        if last is None or not same(last, instance) or last.phase != LAUNCHING:
            return record
        return record._replace(instance=last._replace(phase=RUNNING))

    return confirm


def stopping(generation: int, owner: str) -> Change:
    """Make the change that forbids every start below `generation`, and marks the end of such an instance expected."""

    def intend(record: Record) -> Record:
        last = record.instance
        if last is not None and last.generation < generation:
            refuse_foreign(last, owner)
            if last.phase != ENDED:
                last = last._replace(stopping=True)
        return Record(max(record.fence, generation), last)

    return intend


def ending(instance: Instance, at: datetime, code: int | None, *, empty: bool) -> Change:
    """Make the change that says: the instance ended; or, if that is known, that its session is empty by now."""

    def end(record: Record) -> Record:
        last = record.instance
        if last is None or not same(last, instance):
            return record
        if last.phase == ENDED:
            return record._replace(instance=last._replace(empty=last.empty or empty))
        return record._replace(instance=last._replace(phase=ENDED, ended_at=micros(at), exit_code=code, empty=empty))

    return end


def adopting(owner: str, at: datetime) -> Change:
    """Make the change that brings a record of an earlier proxy up to what the process table says now.

    Who holds the lock knows that no launcher of this record is on its way: it holds the lock until exec.
    """

    def take_stock(record: Record) -> Record:
        last = record.instance
        if last is None or last.owner != owner or last.phase == ENDED:
            return record
        if launcher.runs(last):
            return record._replace(instance=last._replace(phase=RUNNING))
        if last.phase == LAUNCHING:
            return record._replace(instance=None)
        return ending(last, at, None, empty=not launcher.members(last))(record)

    return take_stock


def state(folder: Path, incarnation: int, owner: str) -> ProbeState:
    """Say what the record and the process table mean for one incarnation.

    OSError; RuntimeFailure `foreign`, `bad_record`.

    A live process counts for every incarnation since its own: an agent may begin a new life (a new boot_id) without a
    new process.
    """
    last = read(folder).instance
    if last is None:
        return ProbeState.NOT_RUNNING
    refuse_foreign(last, owner)
    if last.incarnation > incarnation:
        return ProbeState.GONE
    if launcher.runs(last):
        found = launcher.leader(last)
        return ProbeState.STARTING if found is not None and found.comm == launcher.COMM else ProbeState.RUNNING
    if last.phase == LAUNCHING or last.stopping or last.incarnation < incarnation:
        return ProbeState.NOT_RUNNING
    return ProbeState.GONE


def exited(instance: Instance, at: datetime) -> Exited:
    """Tell an instance's end as the record has it; `at` where the record does not say when."""
    return Exited(
        workspace_id=instance.workspace_id,
        incarnation=instance.incarnation,
        exit_code=instance.exit_code,
        expected=instance.stopping,
        at=at if instance.ended_at is None else from_micros(instance.ended_at),
    )
