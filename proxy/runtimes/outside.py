"""Owns workloads that something outside runs: remembers them, fences their generations, and sees them end.

Knows nothing of how one is started, stopped or looked at: a runtime brings these three verbs and nothing else.

Theory of operation. A service manager or a container engine knows neither generations nor incarnations, so they are
remembered here, in one small record per workspace that is written before what it speaks of happens. A start is
*asked* for in the record, then carried out, then *running*; a proxy that died in between asks again, which is why a
verb must be idempotent per generation. What was started by one section is stopped by that same section, whatever has
been configured since.

    no instance ──start──> asked ──verb returned──> running ──end seen──> ended
                             └──────────── stop ───────┴────────────────────┘

Nothing outside calls back, so the end of a workload is seen by looking at it every `watch` seconds. One look that finds
it stopped is a doubt, two in a row are an end: an end that is told is final for its incarnation, and a look may catch a
workload in the middle of something. Within `start_grace` seconds of its start, what was never seen running is still
starting. A look that fails says nothing at all.
"""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar, Final, Protocol, TypeVar

from proxy import runtimes
from proxy.core.ids import ID_PATTERN
from proxy.core.liveness import ProbeState
from proxy.core.times import from_micros, micros
from proxy.runtimes import (
    Adopted,
    Exited,
    Launch,
    RuntimeContext,
    RuntimeFailure,
    Started,
    outside_record,
    section,
)
from proxy.runtimes.outside_record import Instance, Phase, Record

DEFAULT_WATCH: Final = 5.0
"""Seconds between two looks at a workload, where its section sets no `watch`."""

DEFAULT_START_GRACE: Final = 10.0
"""Seconds in which "stopped" still counts as starting, where a section sets no `start_grace`."""

CHECKS: Final[Mapping[str, section.Check]] = {
    "start_grace": section.is_seconds,
    "stop_grace": section.is_seconds,
    "watch": section.is_seconds,
}
"""The settings that every section of such a runtime may hold."""

ENOUGH_LOOKS: Final = 2
"""So many looks in a row find an ended workload stopped."""

STOPPED_WITHIN: Final = 30.0
"""Seconds after `stop_grace` in which a workload must be seen stopped, once its stop has been carried out."""

_NOT_THERE: Final = frozenset({ProbeState.NOT_RUNNING, ProbeState.GONE})
_EVERY_GENERATION: Final = 2**63 - 1
_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 2.0
_ID: Final = re.compile(ID_PATTERN, re.ASCII)
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What a verb is told about a workload that was started earlier: nothing that is secret, as none is kept."""

    workspace_id: str
    incarnation: int
    generation: int
    spec: Mapping[str, Any] = field(repr=False)
    folder: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """What a look found. NOT_RUNNING is believed when found again, GONE at once; `exit_code` where it is known."""

    state: ProbeState
    exit_code: int | None = None


class Verbs(Protocol):
    """What a runtime of this kind can do. Each raises RuntimeFailure and nothing else."""

    def can_look(self, spec: Mapping[str, Any]) -> bool:
        """Whether a workload of this section can be looked at."""

    async def start(self, launch: Launch, folder: Path) -> str:
        """Start it, idempotently per generation; return a handle for people."""

    async def stop(self, workload: Workload, generation: int, grace: float) -> None:
        """Stop what is older than `generation`, idempotently; what was stopped before is a success."""

    async def look(self, workload: Workload) -> Sight:
        """Look at it; what cannot be told is ERROR."""


class Outside(runtimes.Runtime):
    """The contract of a runtime over three verbs. A runtime of this kind names itself and checks its section."""

    tells: ClassVar[bool] = True

    def __init__(self, context: RuntimeContext, verbs: Verbs) -> None:
        self._now = context.now
        self._owner = context.owner
        self._on_exit = context.on_exit
        self._root = context.data_dir.absolute() / self.name
        self._verbs = verbs
        self._locks: dict[str, asyncio.Lock] = {}
        self._watches: dict[str, asyncio.Task[None]] = {}
        self._unwatched: set[asyncio.Task[None]] = set()

    # --- the contract ---------------------------------------------------------------------------------------------

    def can_inspect(self, spec: Mapping[str, Any]) -> bool:
        """Whether workloads of this section can be looked at."""
        return self._verbs.can_look(spec)

    async def inspect(self, workspace_id: str, incarnation: int) -> ProbeState:
        """Say what the record and a look mean for one incarnation."""
        try:
            last = (await self._read(workspace_id)).instance
            if last is None:
                return ProbeState.NOT_RUNNING
            self._refuse_foreign(last)
            if last.incarnation > incarnation:
                return ProbeState.GONE
            if last.ended:
                return ProbeState.NOT_RUNNING if last.stopping or last.incarnation < incarnation else ProbeState.GONE
            sight = await self._look(workspace_id, last)
        except RuntimeFailure:
            return ProbeState.ERROR
        if sight.state is ProbeState.GONE and (last.stopping or last.incarnation < incarnation):
            return ProbeState.NOT_RUNNING
        return sight.state

    async def start(self, launch: Launch) -> Started:
        """Ask for a start, or find that this has been done; see the contract.

        RuntimeFailure reasons: bad_spec, fenced, still_running, already_ended, foreign, bad_record, bad_workspace_id,
        disk, and those of the verb.
        """
        problems = self.check(launch.spec)
        if problems:
            raise RuntimeFailure("bad_spec", "; ".join(problems))
        async with self._alone(launch.workspace_id) as folder:
            record = await self._read(launch.workspace_id)
            last = self._done(record, launch)
            if last is None:
                asked = Instance(
                    incarnation=launch.incarnation,
                    generation=launch.generation,
                    owner=self._owner,
                    spec=dict(launch.spec),
                    started_at=micros(self._now()),
                )
                await self._write(folder, Record(fence=max(record.fence, launch.generation), instance=asked))
                last = replace(asked, phase=Phase.RUNNING, handle=await self._verbs.start(launch, folder))
                await self._write(folder, Record(fence=max(record.fence, launch.generation), instance=last))
            self._watch(launch.workspace_id, last)
        return Started(handle=last.handle, started_at=from_micros(last.started_at))

    async def stop(self, workspace_id: str, generation: int, grace: float) -> None:
        """Stop whatever is older than `generation`; see the contract.

        RuntimeFailure reasons: foreign, survives (it is not seen stopped), bad_record, bad_workspace_id, disk, and
        those of the verb.
        """
        async with self._alone(workspace_id) as folder:
            record = await self._read(workspace_id)
            last = record.instance
            older = last is not None and last.generation < generation
            if last is not None and older:
                self._refuse_foreign(last)
                last = replace(last, stopping=last.stopping or not last.ended)
            fenced = Record(fence=max(record.fence, generation), instance=last)
            if fenced != record:
                await self._write(folder, fenced)
            if last is None or not older or last.stopped:
                return
            workload = _workload(workspace_id, last, folder)
            wanted = last.generation + 1 if generation == _EVERY_GENERATION else generation
            await self._stop(workload, wanted, grace)
            self._unwatch(workspace_id)
            at = self._now()
            ended = replace(last, phase=Phase.ENDED, stopped=True, ended_at=last.ended_at or micros(at))
            await self._write(folder, replace(fenced, instance=ended))
            if not last.ended:
                self._on_exit(outside_record.exited(workspace_id, ended, at))

    async def remove(self, workspace_id: str, grace: float) -> None:
        """Stop whatever runs, then delete the workspace's folder."""
        if not (self._folder(workspace_id) / outside_record.RECORD_FILE).exists():
            return
        await self.stop(workspace_id, _EVERY_GENERATION, grace)
        await _to_disk(outside_record.remove, self._folder(workspace_id))

    async def adopt(self) -> list[Exited | Adopted]:
        """Tell what the records name and watch what is not known to have ended; nothing is asked outside.

        What ended while no proxy ran is seen by the first looks, soon after.
        """
        told: list[Exited | Adopted] = []
        for workspace_id in await _to_disk(outside_record.recorded, self._root):
            with contextlib.suppress(RuntimeFailure):  # inspect() says ERROR, start() what is wrong
                last = (await self._read(workspace_id)).instance
                if last is None or (self.host_bound and last.owner != self._owner):
                    continue
                if last.ended:
                    told.append(outside_record.exited(workspace_id, last, self._now()))
                else:
                    told.append(outside_record.adopted(workspace_id, last))
                    self._watch(workspace_id, last)
        return told

    async def aclose(self) -> None:
        """Stop watching; what runs outside keeps running."""
        for workspace_id in tuple(self._watches):
            self._unwatch(workspace_id)
        await asyncio.gather(*self._unwatched, return_exceptions=True)

    # --- start and stop -------------------------------------------------------------------------------------------

    def _done(self, record: Record, launch: Launch) -> Instance | None:
        """The instance that makes this start a finished one; None when it is to be carried out."""
        last = record.instance
        if last is not None:
            self._refuse_foreign(last)
            if last.generation >= launch.generation and last.phase is Phase.RUNNING and not last.stopping:
                return last
            if last.generation == launch.generation and last.ended:
                raise RuntimeFailure("already_ended", f"generation {last.generation} was started, and has ended")
        if launch.generation < record.fence:
            raise RuntimeFailure("fenced", f"generation {launch.generation} was stopped before it was started")
        if last is not None and last.generation < launch.generation and not last.ended:
            raise RuntimeFailure("still_running", f"generation {last.generation} was started and is not stopped")
        return None

    async def _stop(self, workload: Workload, generation: int, grace: float) -> None:
        """Carry a stop out, and return once a look finds it stopped; where nobody can look, the verb's word is enough.

        A stop that fails because there is nothing to stop any more is a success.
        """
        looks = self._verbs.can_look(workload.spec)
        try:
            await self._verbs.stop(workload, generation, grace)
        except RuntimeFailure:
            if not looks or (await self._verbs.look(workload)).state not in _NOT_THERE:
                raise
        if looks:
            await self._see_stopped(workload, grace)

    async def _see_stopped(self, workload: Workload, grace: float) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + grace + STOPPED_WITHIN
        pause = _FIRST_PAUSE
        while True:
            sight = await self._verbs.look(workload)
            if sight.state in _NOT_THERE:
                return
            if loop.time() >= deadline:
                sentence = f"generation {workload.generation} is {sight.state} after its stop was carried out"
                raise RuntimeFailure("survives", sentence)
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    def _refuse_foreign(self, instance: Instance) -> None:
        if self.host_bound and instance.owner != self._owner:
            raise RuntimeFailure("foreign", f"its record belongs to the proxy host {instance.owner!r}")

    # --- looking --------------------------------------------------------------------------------------------------

    async def _look(self, workspace_id: str, instance: Instance) -> Sight:
        """Look, with "stopped" told from "not there yet"."""
        sight = await self._verbs.look(_workload(workspace_id, instance, self._folder(workspace_id)))
        grace = timedelta(seconds=float(instance.spec.get("start_grace", DEFAULT_START_GRACE)))
        young = not instance.seen and self._now() - from_micros(instance.started_at) < grace
        if sight.state is ProbeState.NOT_RUNNING and young and not instance.stopping:
            return replace(sight, state=ProbeState.STARTING)
        return sight

    def _watch(self, workspace_id: str, instance: Instance) -> None:
        self._unwatch(workspace_id)
        if self._verbs.can_look(instance.spec) and instance.spec.get("watch", DEFAULT_WATCH):
            watching = self._keep_watching(workspace_id, instance)
            self._watches[workspace_id] = asyncio.create_task(watching, name=f"holdfast-watch-{workspace_id}")

    def _unwatch(self, workspace_id: str) -> None:
        if (watch := self._watches.pop(workspace_id, None)) is not None:
            self._unwatched.add(watch)  # a look that it was at is ended with it, which may take a moment
            watch.add_done_callback(self._unwatched.discard)
            watch.cancel()

    async def _keep_watching(self, workspace_id: str, instance: Instance) -> None:
        """Look until it has ended. A watch whose record cannot be read or written goes on: it may be readable again."""
        every = float(instance.spec.get("watch", DEFAULT_WATCH))
        stopped = 0
        while True:
            with contextlib.suppress(RuntimeFailure):
                sight = await self._look(workspace_id, instance)
                if sight.state is ProbeState.RUNNING and not instance.seen:
                    instance = await self._note(workspace_id, instance)
                stopped = stopped + 1 if sight.state is ProbeState.NOT_RUNNING else 0
                if stopped >= ENOUGH_LOOKS or sight.state is ProbeState.GONE:
                    await self._note_end(workspace_id, instance, sight)
                    return
            await asyncio.sleep(every)

    async def _note(self, workspace_id: str, instance: Instance) -> Instance:
        """Write down that it was seen running."""
        async with self._alone(workspace_id) as folder:
            record = await self._read(workspace_id)
            last = record.instance
            if last is None or last.generation != instance.generation or last.ended:
                return instance
            seen = replace(last, seen=True, phase=Phase.RUNNING)
            await self._write(folder, replace(record, instance=seen))
            return seen

    async def _note_end(self, workspace_id: str, instance: Instance, sight: Sight) -> None:
        """Write down that it ended, then tell it, unless somebody else has; a full disk must not hide a death."""
        at = self._now()
        async with self._alone(workspace_id) as folder:
            record = await self._read(workspace_id)
            last = record.instance
            if last is None or last.generation != instance.generation or last.ended:
                return
            ended = replace(last, phase=Phase.ENDED, ended_at=micros(at), exit_code=sight.exit_code)
            with contextlib.suppress(RuntimeFailure):
                await self._write(folder, replace(record, instance=ended))
            self._on_exit(outside_record.exited(workspace_id, ended, at))

    # --- the record -----------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _alone(self, workspace_id: str) -> AsyncIterator[Path]:
        """Be the only one who acts on this workspace; yields its folder."""
        folder = self._folder(workspace_id)
        async with self._locks.setdefault(workspace_id, asyncio.Lock()):
            yield folder

    def _folder(self, workspace_id: str) -> Path:
        if _ID.fullmatch(workspace_id) is None:
            raise RuntimeFailure("bad_workspace_id", "the workspace's id cannot name a folder")
        return self._root / workspace_id

    async def _read(self, workspace_id: str) -> Record:
        return await _to_disk(outside_record.read, self._folder(workspace_id))

    async def _write(self, folder: Path, record: Record) -> None:
        await _to_disk(outside_record.write, folder, record)


def _workload(workspace_id: str, instance: Instance, folder: Path) -> Workload:
    return Workload(
        workspace_id=workspace_id,
        incarnation=instance.incarnation,
        generation=instance.generation,
        spec=instance.spec,
        folder=folder,
    )


async def _to_disk(work: Callable[..., _T], *words: Any) -> _T:
    """Do something on disk, in a thread; RuntimeFailure `disk` for what the system refuses."""
    try:
        return await asyncio.to_thread(work, *words)
    except OSError as problem:
        raise RuntimeFailure("disk", f"the system refused: {problem}") from None
