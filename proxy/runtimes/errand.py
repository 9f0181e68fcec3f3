"""Owns one command that is run to its end: in a session of its own, within a time, its output bounded.

Knows nothing of what a command is for, or what its exit code means.

Theory of operation. The command's program is what is waited for, through a pidfd, and not the end of its output: what a
program leaves in the background may keep the pipe open for ever. Of the output only the newest bytes are kept, and it
is read all the time, so that nobody blocks on a full pipe. A command that takes too long, or whose caller leaves, is
killed with its process group while its pid is still its own (it is reaped afterwards); the caller learns its end only
when that is done, be it that the program was still being spawned; not later than `sessions.KILL_PATIENCE`.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from proxy.runtimes import RuntimeFailure, sessions

OUTPUT_KEPT: Final = 4096
"""Bytes of a command's output that are kept, the newest ones; standard output and error are one."""

_READ: Final = 65536

_dying: Final[set[asyncio.Task[object]]] = set()
"""Ends that are waited for, whether or not anybody asks for them any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """A command that ended by itself. `code` is negative for a signal. The output may hold secrets."""

    code: int
    output: str = field(repr=False)


class TookTooLong(Exception):  # noqa: N818 - it says what happened
    """The command was killed with its group when its time was up. `output`: what it had written, perhaps secret."""

    def __init__(self, output: str) -> None:
        super().__init__("the command took too long")
        self.output = output


class _Tail:
    """The newest bytes that came through a pipe."""

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe
        self._kept = bytearray()

    def read(self) -> bool:
        """Take what is there; False when nothing more will come."""
        try:
            found = os.read(self._pipe, _READ)
        except BlockingIOError:
            return True
        self._kept += found
        del self._kept[:-OUTPUT_KEPT]
        return bool(found)

    def text(self) -> str:
        return self._kept.decode(errors="replace").strip()


async def run(command: Sequence[str], *, env: Mapping[str, str], cwd: str | None, patience: float) -> Ran:
    """Run a command to its end.

    Raises:
        TookTooLong: it took longer than `patience` seconds.
        RuntimeFailure: it could not be run: command_not_found, not_executable, cwd_missing, system.
    """
    pipe, their_end = os.pipe()
    try:
        spawning = asyncio.ensure_future(asyncio.to_thread(_spawn, command, env, cwd, their_end))
        try:
            child = await asyncio.shield(spawning)
        except asyncio.CancelledError:
            await _seen_off(_discard(spawning))
            raise
        except OSError as problem:
            raise _refused(command[0], cwd, problem) from None
        return await _await_end(child, pipe, patience)
    finally:
        os.close(pipe)


def _spawn(command: Sequence[str], env: Mapping[str, str], cwd: str | None, output: int) -> "subprocess.Popen[bytes]":
    """Start it; its end of the pipe is closed here, whatever happens."""
    try:
        return subprocess.Popen(  # noqa: S603 - the admin's own command, and no shell reads it
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=dict(env),
            cwd=cwd,
            start_new_session=True,
        )
    finally:
        os.close(output)


async def _await_end(child: "subprocess.Popen[bytes]", pipe: int, patience: float) -> Ran:
    loop = asyncio.get_running_loop()
    tail = _Tail(pipe)
    os.set_blocking(pipe, False)

    def more() -> None:
        if not tail.read():
            loop.remove_reader(pipe)

    try:
        pidfd = os.pidfd_open(child.pid)
    except OSError as problem:
        _strike(child)
        await _seen_off(asyncio.to_thread(child.wait))
        raise RuntimeFailure("system", f"the program cannot be watched: {problem.strerror}") from None
    loop.add_reader(pipe, more)
    try:
        async with asyncio.timeout(patience):
            await sessions.ended(pidfd)
    except TimeoutError:
        await _seen_off(_kill(child, pidfd))
        tail.read()
        raise TookTooLong(tail.text()) from None
    except asyncio.CancelledError:
        await _seen_off(_kill(child, pidfd))
        raise
    finally:
        loop.remove_reader(pipe)
    os.close(pidfd)
    code = child.wait()  # it is dead: that takes no time
    tail.read()
    return Ran(code=code, output=tail.text())


async def _seen_off(ending: Coroutine[Any, Any, object]) -> None:
    """Wait for an end, also for who is told to leave: who is told of it may begin again.

    One that takes longer than `sessions.KILL_PATIENCE`, stuck in the kernel, is left to itself.
    """
    loop = asyncio.get_running_loop()
    task = asyncio.create_task(ending)
    _dying.add(task)
    task.add_done_callback(_dying.discard)
    deadline, leaves = loop.time() + sessions.KILL_PATIENCE, False
    while not task.done() and loop.time() < deadline:
        try:
            await asyncio.wait([task], timeout=deadline - loop.time())
        except asyncio.CancelledError:
            leaves = True
    if leaves:
        raise asyncio.CancelledError


def _strike(child: "subprocess.Popen[bytes]") -> None:
    """Kill a child that is not reaped yet, so that the number is still its, with its group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)


async def _kill(child: "subprocess.Popen[bytes]", pidfd: int) -> None:
    """Kill a child and reap it; the descriptor is closed then."""
    _strike(child)
    try:
        await sessions.ended(pidfd)
    finally:
        os.close(pidfd)
        child.poll()


async def _discard(spawning: "asyncio.Future[subprocess.Popen[bytes]]") -> None:
    """Kill what is being started for somebody who has left meanwhile."""
    try:
        child = await asyncio.shield(spawning)
    except Exception:  # noqa: BLE001 - whatever kept it from starting, nobody asks any more
        return
    _strike(child)
    await asyncio.to_thread(child.wait)


def _refused(program: str, cwd: str | None, problem: OSError) -> RuntimeFailure:
    if cwd is not None and problem.filename == cwd:
        return RuntimeFailure("cwd_missing", f"the working directory cannot be used: {problem.strerror}")
    if isinstance(problem, FileNotFoundError | NotADirectoryError):
        return RuntimeFailure("command_not_found", f"there is no program {program!r} (looked up in the command's PATH)")
    if isinstance(problem, PermissionError):
        return RuntimeFailure("not_executable", f"{program!r} is not a program that this user can execute")
    return RuntimeFailure("system", f"the system refused to run {program!r}: {problem.strerror}")
