"""Owns workspaces that are processes of this host, started by the proxy and outliving it. Knows nothing of verdicts.

Theory of operation. Everything that must survive the proxy is one small record per workspace (`launcher`), written
before what it speaks of happens: the child's identity before exec, the wish to stop before the signal, the end before
it is told. A proxy that starts again reads the records and goes on: a child whose pid and start time match is adopted,
one that is gone is told as ended.

    no instance ──launcher──> launching ──exec seen──> running ──end seen──> ended
                                  └──gone before exec was seen: nothing was started

At most one instance of a workspace lives. Records change only under the workspace's file lock, and whoever changes one
decides by what it reads there, so it does not matter which proxy, launcher or task comes first. An instance is told as
exited by whoever turns its record to `ended`, once per proxy; adopt() tells it again, because a proxy may die between
writing it down and acting on it.
"""

import asyncio
import contextlib
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

from proxy import runtimes
from proxy.core.ids import ID_PATTERN
from proxy.core.liveness import ProbeState
from proxy.core.times import from_micros
from proxy.runtimes import Adopted, Exited, Launch, RuntimeContext, RuntimeFailure, Started, launcher, output, sessions
from proxy.runtimes.launcher import ENDED, Instance, Record
from proxy.runtimes.process_job import check_spec, make_job
from proxy.runtimes.process_record import (
    Change,
    adopting,
    amend,
    confirming,
    ending,
    exited,
    same,
    state,
    stopping,
)

LAUNCH_PATIENCE: Final = 10.0
"""Seconds from the spawn of a launcher to exec, or to its report of what kept it from that."""

LOCK_PATIENCE: Final = 10.0
"""Seconds to wait for a workspace's record; others hold it for milliseconds."""

_EVERY_GENERATION: Final = 2**63 - 1
_LOCK_PAUSE: Final = 0.02
_ID: Final = re.compile(ID_PATTERN, re.ASCII)


@dataclass(slots=True)
class _Watch:
    """A child whose end we wait for."""

    instance: Instance
    pidfd: int
    stopping: bool = False
    task: asyncio.Task[None] | None = None


class Runtime(runtimes.Runtime):
    """Processes of this host, one session each. Linux 5.4 or later."""

    name: ClassVar[str] = "process"
    tells: ClassVar[bool] = True
    host_bound: ClassVar[bool] = True

    def __init__(self, context: RuntimeContext) -> None:
        self._now = context.now
        self._owner = context.owner
        self._on_exit = context.on_exit
        self._root = context.data_dir.absolute() / "process"
        self._watches: dict[str, _Watch] = {}
        self._starts: set[asyncio.Task[Started]] = set()
        self._trimming: asyncio.Task[None] | None = None

    # --- the contract ---------------------------------------------------------------------------------------------

    def check(self, spec: Mapping[str, Any]) -> list[str]:
        """Return every problem of the section; see docs/runtimes.md for its keys."""
        return check_spec(spec)

    async def inspect(self, workspace_id: str, incarnation: int) -> ProbeState:
        """Say whether the instance runs, from its record and the process table."""
        try:
            return await asyncio.to_thread(state, self._folder(workspace_id), incarnation, self._owner)
        except (OSError, RuntimeFailure):
            return ProbeState.ERROR

    async def start(self, launch: Launch) -> Started:
        """Launch a child, or find that this has been done; see the contract.

        Whoever awaits may be cancelled: the start goes on, so that a child which runs is always watched.
        RuntimeFailure reasons: bad_spec, command_not_found, not_executable, exec_failed, cwd_missing, cwd_unusable,
        disk, fenced, still_running, already_ended, foreign, bad_record, launch_timeout, launcher_died,
        launcher_failed, bad_workspace_id, system.
        """
        problems = self.check(launch.spec)
        if problems:
            raise RuntimeFailure("bad_spec", "; ".join(problems))
        task = asyncio.create_task(self._start(launch, self._folder(launch.workspace_id)))
        self._starts.add(task)
        task.add_done_callback(self._forget_start)
        return await asyncio.shield(task)

    async def stop(self, workspace_id: str, generation: int, grace: float) -> None:
        """Stop whatever is older than `generation`; see the contract.

        RuntimeFailure reasons: foreign, survives (SIGKILL did not end it), bad_record, bad_workspace_id, busy, system.
        """
        last = (await self._amend(workspace_id, stopping(generation, self._owner)))[1].instance
        if last is None or last.generation >= generation or (last.phase == ENDED and last.empty):
            return
        watch = self._watch_of(last)
        if watch is not None:
            watch.stopping = True
        if not await sessions.end(last, grace):
            sentence = f"processes of generation {last.generation} survive SIGKILL, or belong to another user"
            raise RuntimeFailure("survives", sentence)
        await self._conclude(last, watch)

    async def remove(self, workspace_id: str, grace: float) -> None:
        """Stop whatever runs, then delete the workspace's folder, its log included."""
        await self.stop(workspace_id, _EVERY_GENERATION, grace)
        try:
            await asyncio.to_thread(shutil.rmtree, self._folder(workspace_id))
        except OSError as problem:
            raise _system(problem) from None

    async def adopt(self) -> list[Exited | Adopted]:
        """Adopt or tell as ended what the records name, and begin to bound the logs.

        Records of another proxy host are left alone. So is one that cannot be read: inspect() answers ERROR and
        start() says what is wrong with it, while all others are served.
        """
        try:
            found = await asyncio.to_thread(self._recorded)
        except OSError as problem:
            raise _system(problem) from None
        told = [await self._adopt(workspace_id) for workspace_id in found]
        await self.trim_logs()
        self._keep_trimming()
        return [each for each in told if each is not None]

    async def aclose(self) -> None:
        """Finish the starts under way and stop watching; the children keep running."""
        await asyncio.gather(*self._starts, return_exceptions=True)
        tasks = [watch.task for watch in self._watches.values() if watch.task is not None]
        if self._trimming is not None:
            tasks.append(self._trimming)
            self._trimming = None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for watch in self._watches.values():
            os.close(watch.pidfd)
        self._watches.clear()

    async def trim_logs(self) -> None:
        """Look at every watched child's log once, and cut what is above its limit (`output`)."""
        for watch in list(self._watches.values()):
            log = self._folder(watch.instance.workspace_id) / launcher.OUTPUT_FILE
            with contextlib.suppress(OSError):  # a full disk: the next look may find it better
                await asyncio.to_thread(output.trim, log, watch.instance.log_limit)

    # --- start ----------------------------------------------------------------------------------------------------

    async def _start(self, launch: Launch, folder: Path) -> Started:
        job = make_job(launch, owner=self._owner, folder=folder, at=self._now())
        try:
            child = await asyncio.to_thread(sessions.spawn, folder, job)
        except OSError as problem:
            raise _system(problem) from None
        try:
            told = await sessions.read_report(child.report, LAUNCH_PATIENCE)
            instance = _recorded_in(told)
            if instance is not None and not await sessions.became_agent(instance, LAUNCH_PATIENCE):
                instance = None
        except TimeoutError:
            await sessions.discard(child.pidfd)
            sentence = f"the launcher was not done within {LAUNCH_PATIENCE:g} s (a disk or a network mount that hangs?)"
            raise RuntimeFailure("launch_timeout", sentence) from None
        except BaseException:
            os.close(child.pidfd)  # the loop ends under us: the launch goes on, and the next proxy adopts it
            raise
        if instance is not None:
            self._watch(instance, child.pidfd)
            with contextlib.suppress(RuntimeFailure):  # it runs and is watched; adoption would confirm it as well
                await self._amend(instance.workspace_id, confirming(instance))
            return _started(instance)
        await sessions.discard(child.pidfd)
        if "already" not in told:
            raise RuntimeFailure(*told.get("failed", ("launcher_died", "the launcher died before it became the agent")))
        instance = Instance(**told["already"])
        adopted = await self._adopt(instance.workspace_id)
        if isinstance(adopted, Exited):  # it ran when the launcher looked
            self._on_exit(adopted)
        return _started(instance)

    def _forget_start(self, task: asyncio.Task[Started]) -> None:
        self._starts.discard(task)
        if not task.cancelled():
            task.exception()  # whoever asked may be gone; then nobody else looks at it

    # --- the end of a child ---------------------------------------------------------------------------------------

    def _watch(self, instance: Instance, pidfd: int) -> None:
        before = self._watches.pop(instance.workspace_id, None)
        if before is not None and not same(before.instance, instance):
            self._unwatch(before)
        elif before is not None:  # two starts of one generation found the same child: one watch is enough
            os.close(pidfd)
            self._watches[instance.workspace_id] = before
            return
        watch = _Watch(instance, pidfd)
        self._watches[instance.workspace_id] = watch
        watch.task = asyncio.create_task(self._await_end(watch))
        self._keep_trimming()

    def _watch_of(self, instance: Instance) -> _Watch | None:
        watch = self._watches.get(instance.workspace_id)
        return watch if watch is not None and same(watch.instance, instance) else None

    def _unwatch(self, watch: _Watch) -> None:
        if watch.task is not None:
            watch.task.cancel()
        sessions.release(watch.pidfd)

    async def _await_end(self, watch: _Watch) -> None:
        """See a child end and tell it. The zombie stays until its session is known to be empty (`sessions`)."""
        await sessions.ended(watch.pidfd)
        code = sessions.exit_code(watch.pidfd)
        if await self._settle(watch.instance, code, stopping=watch.stopping) and self._watch_of(watch.instance):
            del self._watches[watch.instance.workspace_id]
            sessions.release(watch.pidfd)

    async def _settle(self, instance: Instance, code: int | None, *, stopping: bool) -> bool:
        """Write down that an instance ended, then tell it, unless somebody else has. Whether its session is empty."""
        at = self._now()
        empty = False
        try:
            empty = not await asyncio.to_thread(launcher.members, instance)
            before, after = await self._amend(instance.workspace_id, ending(instance, at, code, empty=empty))
        except (OSError, RuntimeFailure):  # a full disk must not hide a death
            self._on_exit(exited(instance._replace(exit_code=code, stopping=stopping), at))
            return empty
        was, now = before.instance, after.instance
        if was is not None and now is not None and was.phase != ENDED and now.phase == ENDED:
            self._on_exit(exited(now, at))
        return empty

    async def _conclude(self, instance: Instance, watch: _Watch | None) -> None:
        """Return when the end of a session that is gone is written down and told."""
        if watch is not None and watch.task is not None:
            await asyncio.wait({watch.task})
        await self._settle(instance, None, stopping=True)
        left = self._watch_of(instance)
        if left is not None:
            del self._watches[instance.workspace_id]
            self._unwatch(left)

    # --- adoption -------------------------------------------------------------------------------------------------

    def _recorded(self) -> list[str]:
        if not self._root.is_dir():
            return []
        return sorted(folder.name for folder in self._root.iterdir() if (folder / launcher.RECORD_FILE).exists())

    async def _adopt(self, workspace_id: str) -> Exited | Adopted | None:
        at = self._now()
        try:
            last = (await self._amend(workspace_id, adopting(self._owner, at)))[1].instance
        except RuntimeFailure:
            return None
        if last is None or last.owner != self._owner:
            return None
        if last.phase == ENDED:
            return exited(last, at)
        if self._watch_of(last) is None:
            pidfd = _open_verified(last)
            if pidfd is None:  # it ended between two looks
                await self._settle(last, None, stopping=last.stopping)
                return None
            self._watch(last, pidfd)
        return Adopted(
            workspace_id=workspace_id,
            incarnation=last.incarnation,
            generation=last.generation,
            handle=_handle(last),
            started_at=from_micros(last.started_at),
        )

    # --- the record -----------------------------------------------------------------------------------------------

    def _folder(self, workspace_id: str) -> Path:
        if _ID.fullmatch(workspace_id) is None:
            raise RuntimeFailure("bad_workspace_id", "the workspace's id cannot name a folder")
        return self._root / workspace_id

    async def _amend(self, workspace_id: str, change: Change) -> tuple[Record, Record]:
        """Change a record under its lock; return it as it was and as it is. RuntimeFailure busy, system."""
        folder = self._folder(workspace_id)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + LOCK_PATIENCE
        while True:
            try:
                return await asyncio.to_thread(amend, folder, change)
            except BlockingIOError:
                if loop.time() >= deadline:
                    raise RuntimeFailure("busy", f"{folder / launcher.LOCK_FILE} stays locked") from None
            except OSError as problem:
                raise _system(problem) from None
            await asyncio.sleep(_LOCK_PAUSE)

    def _keep_trimming(self) -> None:
        if self._trimming is None:
            self._trimming = asyncio.create_task(self._trim_forever())

    async def _trim_forever(self) -> None:
        while True:
            await asyncio.sleep(output.TRIM_INTERVAL)
            await self.trim_logs()


def _open_verified(instance: Instance) -> int | None:
    """Open a pidfd that is certain to be the instance's, or None when it has ended."""
    try:
        pidfd = os.pidfd_open(instance.pid)
    except ProcessLookupError:
        return None
    if launcher.runs(instance):  # looked up after opening: the descriptor cannot change hands any more
        return pidfd
    os.close(pidfd)
    return None


def _recorded_in(told: Mapping[str, Any]) -> Instance | None:
    return Instance(**told["recorded"]) if "recorded" in told and "failed" not in told else None


def _handle(instance: Instance) -> str:
    return f"pid {instance.pid} started at tick {instance.ticks} of boot {instance.machine}"


def _started(instance: Instance) -> Started:
    return Started(handle=_handle(instance), started_at=from_micros(instance.started_at))


def _system(problem: OSError) -> RuntimeFailure:
    return RuntimeFailure("system", f"the system refused: {problem}")
