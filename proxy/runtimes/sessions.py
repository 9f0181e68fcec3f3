"""Owns what a proxy does to a session of processes: spawn one, see its leader end, end all of it. Knows no records.

Theory of operation. A child leads a session of its own, so that nothing that happens to the proxy (its terminal, its
process group, its death) reaches the child. Its end is seen through a pidfd: readable once the process is dead, for
children and adopted processes alike, with no SIGCHLD and no child watcher, hence the same under asyncio and uvloop.

A child's end is looked at before it is reaped. While the zombie stands, the kernel gives its pid to nobody, so the
session number stays ours for as long as there may be somebody left in the session to signal. The parent of an adopted
process is init, which reaps when it likes, or never (a container's init): a zombie therefore counts as gone.

Signals go to process groups, after the members were looked up by session number and start time (`launcher.members`).
Between look and signal lie microseconds in which every member would have to end and the kernel to come round to the
very same number. A process that makes a session of its own has left, and is not followed.
"""

import asyncio
import contextlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any, Final, NamedTuple

from proxy.runtimes import launcher
from proxy.runtimes.launcher import Instance

KILL_PATIENCE: Final = 10.0
"""Seconds in which a session must be gone after SIGKILL: longer means stuck in the kernel."""

_FIRST_PAUSE: Final = 0.005
_LONGEST_PAUSE: Final = 0.1
_KILL_ROUND: Final = 0.2


class Spawned(NamedTuple):
    """A launcher that was just started; both descriptors are the caller's to close."""

    pid: int
    pidfd: int
    report: int


def spawn(folder: Path, job: bytes) -> Spawned:
    """Start a launcher in a session of its own; OSError when the system has no process or descriptor left.

    The job (which holds the child's token) reaches it whole, in memory: not in argv, not in a file, and complete even
    if this process dies on the next line.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    memory = os.memfd_create("holdfast-job")
    try:
        with open(memory, "wb", closefd=False) as file:
            file.write(job)
        os.lseek(memory, 0, os.SEEK_SET)
        report, their_end = os.pipe()
        try:
            pid = os.posix_spawn(
                sys.executable,
                [sys.executable, "-I", "-S", "-B", launcher.__file__, str(folder)],
                {},
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, memory, 0),
                    (os.POSIX_SPAWN_DUP2, their_end, 1),
                    (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
                ],
                setsid=True,
            )
        except BaseException:
            os.close(report)
            raise
        finally:
            os.close(their_end)
    finally:
        os.close(memory)
    try:
        return Spawned(pid, os.pidfd_open(pid), report)
    except OSError:
        os.close(report)
        os.kill(pid, signal.SIGKILL)  # our own child, not yet reaped: the pid is still its
        os.waitpid(pid, 0)
        raise


async def read_report(report: int, patience: float) -> dict[str, Any]:
    """Read a launcher's report to its end, which is exec or death, and close the pipe.

    Returns the members of all its lines together. TimeoutError after `patience` seconds.
    """
    reader = asyncio.StreamReader()
    pipe = os.fdopen(report, "rb", buffering=0)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), pipe
    )
    try:
        async with asyncio.timeout(patience):
            text = await reader.read()
    finally:
        transport.close()
    told: dict[str, Any] = {}
    for line in text.splitlines():
        with contextlib.suppress(ValueError):  # half a line: it died while it spoke
            told |= json.loads(line)
    return told


async def became_agent(instance: Instance, patience: float) -> bool:
    """Whether a launcher whose report has ended got past exec. False: it died as a launcher.

    The end of the pipe comes a moment before the kernel shows either. TimeoutError after `patience` seconds.
    """
    async with asyncio.timeout(patience):
        while True:
            found = launcher.leader(instance)
            if found is None or found.comm != launcher.COMM:
                return True
            if not launcher.runs(instance):
                return False
            await asyncio.sleep(_FIRST_PAUSE)


async def ended(pidfd: int) -> None:
    """Return when the process is dead, reaped or not."""
    loop = asyncio.get_running_loop()
    dead = asyncio.Event()
    loop.add_reader(pidfd, dead.set)
    try:
        await dead.wait()
    finally:
        loop.remove_reader(pidfd)


def exit_code(pidfd: int) -> int | None:
    """Look at a dead child's exit code without reaping it: negative for a signal, None when it is not our child."""
    return _wait(pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT)


def release(pidfd: int) -> None:
    """Reap the process if it is a dead child of ours, and close the descriptor."""
    _wait(pidfd, os.WEXITED | os.WNOHANG)
    os.close(pidfd)


def _wait(pidfd: int, options: int) -> int | None:
    try:
        found = os.waitid(os.P_PIDFD, pidfd, options)
    except ChildProcessError:
        return None
    if found is None:
        return None
    return found.si_status if found.si_code == os.CLD_EXITED else -found.si_status


async def discard(pidfd: int) -> None:
    """Kill a launcher that has nothing more to do, reap it and close its descriptor."""
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    with contextlib.suppress(TimeoutError):  # stuck in the kernel: init inherits it
        async with asyncio.timeout(KILL_PATIENCE):
            await ended(pidfd)
    release(pidfd)


async def end(instance: Instance, grace: float) -> bool:
    """End everybody in the instance's session: SIGTERM, after `grace` seconds SIGKILL. True when nobody is left."""
    await asyncio.to_thread(_signal, instance, signal.SIGTERM)
    await asyncio.to_thread(_signal, instance, signal.SIGCONT)  # the suspended must wake up to be able to end
    if await _gone_within(instance, grace):
        return True
    loop = asyncio.get_running_loop()
    deadline = loop.time() + KILL_PATIENCE
    while loop.time() < deadline:
        await asyncio.to_thread(_signal, instance, signal.SIGKILL)  # again each round: somebody may just have forked
        if await _gone_within(instance, _KILL_ROUND):
            return True
    return False


def _signal(instance: Instance, number: signal.Signals) -> None:
    for group in {member.group for member in launcher.members(instance)}:
        with contextlib.suppress(ProcessLookupError, PermissionError):  # gone, or another user's: then it stays
            os.killpg(group, number)


async def _gone_within(instance: Instance, seconds: float) -> bool:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    pause = _FIRST_PAUSE
    while await asyncio.to_thread(launcher.members, instance):
        rest = deadline - loop.time()
        if rest <= 0:
            return False
        await asyncio.sleep(min(pause, rest))
        pause = min(pause * 1.5, _LONGEST_PAUSE)
    return True
