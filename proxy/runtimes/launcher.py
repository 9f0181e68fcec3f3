"""Owns one launch of a `process` child and its record on disk. Knows nothing of verdicts, restarts or event loops.

Theory of operation. The launcher is a small program between the proxy and the agent. It is started in a session of
its own, writes *its own* pid and start time to the workspace's record, flushes that to disk, and then becomes the
agent by exec: the pid on disk is the agent's pid, and it was there before the agent ran its first instruction.

    proxy                              launcher
    ─────                              ────────
    spawn, job in memory as stdin ───> take the workspace's lock
                                       read the record: refuse a launch that is fenced, finished or doubled
                                       write config file, open the log, change directory
                                       write the record {pid, start time, generation, phase: launching}, fsync
                     report pipe <──── {"recorded": ...}
                                       exec    (closes the pipe and frees the lock)
    end of file, phase: running

The lock makes reading the record and writing it one step, so of two launchers (one of them left behind by a proxy that
died) exactly one becomes an agent. The *fence* in the record is the lowest generation that may still start: a stop
raises it before it looks for anything to stop. A launcher that dies before exec has started nothing: its record is
still `launching` and names a process that is gone.

A process is known by machine, pid and start time together. A pid alone is never trusted: the kernel hands it out
again. It does not do so while the number still names a session, so members of a session whose leader has ended are
still ours, unless that pid is by now another process.

This file imports only from the standard library, and little of that: it runs by path, isolated from the proxy's
packages (``python -I -S -B launcher.py FOLDER``), and every restart waits for it.
"""

import base64
import contextlib
import errno
import fcntl
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any, Final, NamedTuple

COMM: Final = "holdfast-launch"
"""What the kernel calls a launcher; exec replaces it. 15 bytes are all there is."""

LAUNCHING: Final = "launching"
RUNNING: Final = "running"
ENDED: Final = "ended"

LOCK_FILE: Final = "lock"
RECORD_FILE: Final = "record.json"
OUTPUT_FILE: Final = "output.log"
_DEAD: Final = "ZX"
_FIRST_CHILD_PID: Final = 2
_STANDARD_ERROR: Final = 2
_SENTENCE_LIMIT: Final = 500


class Instance(NamedTuple):
    """One launched process, as the record holds it.

    `ticks` is its start in clock ticks since boot and `machine` the boot and pid namespace in which both count.
    `started_at` and `ended_at` are microseconds since the epoch, `log_limit` bytes. `stopping`: our stop was decided,
    so its end is expected. `empty`: its session was seen without a living member, so nothing is signalled any more.
    """

    workspace_id: str
    incarnation: int
    generation: int
    owner: str
    machine: str
    pid: int
    ticks: int
    started_at: int
    log_limit: int
    phase: str = LAUNCHING
    stopping: bool = False
    ended_at: int | None = None
    exit_code: int | None = None
    empty: bool = False


class Record(NamedTuple):
    """What is on disk per workspace: the lowest generation that may start, and the latest instance."""

    fence: int = 0
    instance: Instance | None = None


class Process(NamedTuple):
    """One line of /proc/PID/stat, as far as it matters here."""

    pid: int
    comm: str
    state: str
    group: int
    session: int
    ticks: int


# --- what the kernel says -------------------------------------------------------------------------------------------


def machine() -> str:
    """Return the boot id and pid namespace: the world in which a pid and a start time mean anything."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"


def process(pid: int) -> Process | None:
    """Read a process, zombies included; None when there is none. Fields: proc_pid_stat(5)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    head, _, tail = text.rpartition(")")  # the name in parentheses may hold anything, parentheses too
    fields = tail.split()
    return Process(pid, head.partition("(")[2], fields[0], int(fields[2]), int(fields[3]), int(fields[19]))


def leader(instance: Instance) -> Process | None:
    """Read the instance's own process, a zombie included; None when it is gone or the pid is another's by now."""
    found = process(instance.pid)
    if found is None or found.ticks != instance.ticks or instance.machine != machine():
        return None
    return found


def runs(instance: Instance) -> bool:
    """Whether the instance's own process lives."""
    found = leader(instance)
    return found is not None and found.state not in _DEAD


def members(instance: Instance) -> list[Process]:
    """List the living processes of the instance's session, whatever became of its leader."""
    if instance.machine != machine() or instance.pid == os.getsid(0):
        return []
    holder = process(instance.pid)
    if holder is not None and holder.ticks != instance.ticks:
        return []
    everybody = (process(int(entry.name)) for entry in Path("/proc").iterdir() if entry.name.isdecimal())
    return [
        found
        for found in everybody
        if found is not None
        and found.session == instance.pid
        and found.state not in _DEAD
        and found.ticks >= instance.ticks
    ]


# --- the record -----------------------------------------------------------------------------------------------------


def hold(folder: Path, *, wait: bool = True) -> int:
    """Take the workspace's lock; closing the returned descriptor frees it.

    BlockingIOError when `wait` is off and somebody holds it, FileNotFoundError when the folder is gone.
    """
    path = folder / LOCK_FILE
    while True:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            if os.fstat(lock).st_ino == path.stat().st_ino:
                return lock
        except BaseException:
            os.close(lock)
            raise
        os.close(lock)  # the folder was removed and made again while we waited


def read_record(folder: Path) -> Record:
    """Read the record, the empty one when there is none; ValueError when it cannot be understood."""
    path = folder / RECORD_FILE
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        return Record()
    try:
        found = content["instance"]
        record = Record(int(content["fence"]), None if found is None else Instance(**found))
        sound = record.instance is None or record.instance.pid >= _FIRST_CHILD_PID
    except (KeyError, TypeError) as problem:
        raise ValueError(f"{path} is not a record of this version: {problem!r}") from None
    if not sound:
        raise ValueError(f"{path} names a process that no launcher can be")
    return record


def write_record(folder: Path, record: Record) -> None:
    """Replace the record durably. Only under the lock."""
    instance = None if record.instance is None else record.instance._asdict()
    content = json.dumps({"fence": record.fence, "instance": instance}, indent=1)
    write_private(folder / RECORD_FILE, content.encode())


def write_private(path: Path, content: bytes) -> None:
    """Replace a file at once and durably, readable by this user alone. Only under the lock: the draft has one name."""
    draft = path.with_name(f"{path.name}.new")
    target = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(target, rest) :]
        os.fsync(target)
    finally:
        os.close(target)
    draft.replace(path)
    parent = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(parent)
    finally:
        os.close(parent)


# --- the launch -----------------------------------------------------------------------------------------------------


class _LaunchError(Exception):
    """The launch cannot be made: reason, and a sentence without secrets."""


def refusal(record: Record, job: dict[str, Any]) -> dict[str, Any] | None:
    """Say why the job must not be launched beside what the record names, or None.

    `{"already": instance}` when a running one of the same or a newer generation means that the job is finished;
    `{"failed": [reason, sentence]}` for everything else.
    """
    last, generation = record.instance, job["generation"]
    sentence = None
    if last is not None and last.owner != job["owner"]:
        sentence = ("foreign", f"its record belongs to the proxy host {last.owner!r}")
    elif last is not None and last.generation >= generation and runs(last):
        return {"already": last._asdict()}
    elif generation < record.fence:
        sentence = ("fenced", f"generation {generation} was stopped or overtaken: {record.fence} is the oldest left")
    elif last is None:
        return None
    elif not last.empty and members(last):
        sentence = ("still_running", f"processes of generation {last.generation} still run: stop them first")
    elif last.phase != LAUNCHING and (last.generation, last.incarnation) >= (generation, job["incarnation"]):
        sentence = ("already_ended", f"generation {last.generation} has run already, and ended")
    return None if sentence is None else {"failed": sentence}


def _prepare(folder: Path, job: dict[str, Any]) -> int:
    """Do everything that can fail before the record names us; return the log's descriptor."""
    try:
        write_private(Path(job["config_path"]), base64.b64decode(job["config"]))
        log = os.open(folder / OUTPUT_FILE, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    except OSError as problem:
        raise _LaunchError("disk", f"cannot write {problem.filename}: {problem.strerror}") from None
    cwd = job["cwd"]
    try:
        if cwd is not None:
            os.chdir(cwd)
    except (FileNotFoundError, NotADirectoryError):
        raise _LaunchError("cwd_missing", f"the working directory {cwd!r} does not exist") from None
    except OSError as problem:
        raise _LaunchError(
            "cwd_unusable", f"the working directory {cwd!r} cannot be used: {problem.strerror}"
        ) from None
    return log


def _become(job: dict[str, Any], log: int) -> None:
    """Turn into the agent; returns only by raising what kept exec from it."""
    for number in signal.valid_signals():  # exec keeps what is ignored, and Python ignores SIGPIPE
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    os.dup2(log, 1)
    os.dup2(log, 2)
    command = job["command"]
    try:
        os.execvpe(command[0], command, job["env"])  # noqa: S606 - no shell is the point
    except (FileNotFoundError, NotADirectoryError):
        raise _LaunchError(
            "command_not_found", f"there is no command {command[0]!r} (or no interpreter for it)"
        ) from None
    except OSError as problem:
        if problem.errno in (errno.EACCES, errno.ENOEXEC):
            sentence = f"{command[0]!r} is not a program that this user can execute: {problem.strerror}"
            raise _LaunchError("not_executable", sentence) from None
        raise _LaunchError("exec_failed", f"{command[0]!r} cannot be executed: {problem.strerror}") from None


def launch(folder: Path, job: dict[str, Any], report: int) -> None:
    """Record this process as the workspace's instance and become the agent, or report why not."""
    hold(folder)  # never freed here: exec or the end of this process does
    try:
        record = read_record(folder)
    except ValueError as problem:
        raise _LaunchError("bad_record", str(problem)) from None
    answer = refusal(record, job)
    if answer is not None:
        _say(report, answer)
        return
    log = _prepare(folder, job)
    me = process(os.getpid())
    if me is None:
        raise _LaunchError("no_proc", "the process table at /proc cannot be read")
    mine = Instance(
        workspace_id=job["workspace_id"],
        incarnation=job["incarnation"],
        generation=job["generation"],
        owner=job["owner"],
        machine=machine(),
        pid=me.pid,
        ticks=me.ticks,
        started_at=job["started_at"],
        log_limit=job["log_limit"],
    )
    fence = max(record.fence, job["generation"])
    write_record(folder, Record(fence, mine))
    _say(report, {"recorded": mine._asdict()})
    try:
        _become(job, log)
    except _LaunchError:
        write_record(folder, Record(fence, record.instance))
        raise


def _say(report: int, answer: dict[str, Any]) -> None:
    with contextlib.suppress(BrokenPipeError):  # the proxy died: whoever comes next reads the record
        os.write(report, json.dumps(answer).encode() + b"\n")


def main(folder: Path) -> None:
    """Run one launch: the job is JSON on standard input, the report goes to standard output."""
    Path("/proc/self/comm").write_text(COMM, encoding="ascii")
    report = os.dup(1)  # closes on exec, which is how the proxy learns of it
    for opened in [int(entry.name) for entry in Path("/proc/self/fd").iterdir()]:
        if opened > _STANDARD_ERROR and opened != report:
            with contextlib.suppress(OSError):  # the listing's own descriptor is closed by now
                os.close(opened)  # whatever the proxy's libraries left open is not the agent's
    try:
        with open(0, "rb", closefd=False) as stdin:
            job = json.load(stdin)
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, 0)
        os.dup2(nothing, 1)
        launch(folder, job, report)
    except _LaunchError as failure:
        _say(report, {"failed": list(failure.args)})
    except Exception as problem:  # noqa: BLE001 - last resort: say it in the one place where somebody listens
        _say(report, {"failed": ["launcher_failed", f"{type(problem).__name__}: {problem}"[:_SENTENCE_LIMIT]]})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
