"""What a disk may hold when the power goes at some point of a recording.

Owns: what is durable at a point, what becomes of everything else. Knows nothing of: SQLite, what the files mean.

Theory of operation. A write is durable when a sync of its file began after it and has ended. Names are the directory's
data: a file that was created, renamed or unlinked is so for sure only after a sync of the directory. All else is
*pending*, and what becomes of it is chance:

    pending at the point ──┬── nothing survives
                           ├── in order: up to a random record, which is torn itself; nothing after it
                           └── each on its own: kept, torn, or dropped; a later one may survive an earlier one

Torn: cut at one multiple of 512 bytes inside it, only what is before or only what is behind survives. A write without
such a multiple inside is kept or dropped. A dropped write may still have made its file longer: then zeros or noise
stand there. A file that was written through a shared map holds noise.

That is more than disks do: POSIX makes no promise beyond it, and who survives it relies on none.
"""

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path
from typing import Final

from power.recording import Kind, Record

SECTOR: Final = 512
DIRECTORY: Final = 1
"""The number that the directory's own syncs carry."""
NOISE: Final = 32768
"""Bytes in a file that was written through a map."""


class Fate(Enum):
    """What becomes of something that was pending."""

    KEPT = auto()
    TORN = auto()
    DROPPED = auto()


Fates = Callable[[Record], Fate]


@dataclass(slots=True)
class _File:
    durable: bytearray = field(default_factory=bytearray)
    pending: list[Record] = field(default_factory=list)
    is_mapped: bool = False


class Disk:
    """The disk at a point of a recording; at first before its first record. `reach` only goes forward."""

    def __init__(self, records: Sequence[Record]) -> None:
        self._records = records
        self.point = 0
        self._files: dict[int, _File] = {}
        self._names: dict[str, int] = {}
        self._renaming: list[Record] = []

    def reach(self, point: int) -> None:
        """Let everything happen up to record number `point`, that one included.

        Raises:
            ValueError: the point lies behind.
        """
        if point < self.point:
            raise ValueError(f"record {point} is past: this disk has reached {self.point}")
        for one in self._records[self.point : point]:
            self._happen(one)
        self.point = point

    def _happen(self, one: Record) -> None:
        match one.kind:
            case Kind.CREATE:
                self._files[one.file] = _File()
                self._renaming.append(one)
            case Kind.UNLINK | Kind.RENAME:
                self._renaming.append(one)
            case Kind.WRITE | Kind.RESIZE:
                self._files[one.file].pending.append(one)
            case Kind.MAP:
                self._files[one.file].is_mapped = True
            case Kind.SYNC_END if one.file == DIRECTORY:
                _rename(self._names, _before(self._renaming, one.offset))
                self._renaming = _not_before(self._renaming, one.offset)
            case Kind.SYNC_END:
                file = self._files[one.file]
                for covered in _before(file.pending, one.offset):
                    _apply(file.durable, covered)
                file.pending = _not_before(file.pending, one.offset)

    def everything(self) -> dict[str, bytes]:
        """Return the files as they were for everybody while the power was on, without those behind a map."""
        found = self._files_after(lambda _: Fate.KEPT, random.Random(0))  # noqa: S311 - nothing is left to chance here
        return {name: content for name, content in found.items() if content is not None}

    def image(self, chance: random.Random) -> dict[str, bytes]:
        """Return one of the many disks that may be found when the power comes back: contents by name."""
        fates = chance.choice((self._nothing, self._in_order, self._each_on_its_own))(chance)
        found = self._files_after(fates, chance)
        return {name: chance.randbytes(NOISE) if content is None else content for name, content in found.items()}

    def _files_after(self, fates: Fates, chance: random.Random) -> dict[str, bytes | None]:
        names = dict(self._names)
        _rename(names, [one for one in self._renaming if _whole(fates(one), chance)])
        files = {name: self._files[number] for name, number in names.items()}
        return {name: None if file.is_mapped else _content(file, fates, chance) for name, file in files.items()}

    # How a power loss may go

    def _nothing(self, _: random.Random) -> Fates:
        return lambda _: Fate.DROPPED

    def _in_order(self, chance: random.Random) -> Fates:
        pending = [one.number for file in self._files.values() for one in file.pending]
        pending += [one.number for one in self._renaming]
        last = chance.choice(pending) if pending else 0

        def fates(one: Record) -> Fate:
            if one.number == last:
                return Fate.TORN
            return Fate.KEPT if one.number < last else Fate.DROPPED

        return fates

    def _each_on_its_own(self, chance: random.Random) -> Fates:
        share = chance.random()  # of what is kept: some disks had nearly finished, others hardly begun

        def fates(_: Record) -> Fate:
            if chance.random() < share:
                return Fate.KEPT
            return chance.choice((Fate.TORN, Fate.DROPPED, Fate.DROPPED))

        return fates


def _content(file: _File, fates: Fates, chance: random.Random) -> bytes:
    content = bytearray(file.durable)
    for one in file.pending:
        fate = fates(one)
        if one.kind is Kind.RESIZE:
            if _whole(fate, chance):
                _apply(content, one)
        elif fate is Fate.KEPT:
            _apply(content, one)
        elif fate is Fate.TORN:
            _tear(content, one, chance)
        else:
            _drop(content, one, chance)
    return bytes(content)


def _before(records: Iterable[Record], number: int) -> list[Record]:
    return [one for one in records if one.number < number]


def _not_before(records: Iterable[Record], number: int) -> list[Record]:
    return [one for one in records if one.number >= number]


def _whole(fate: Fate, chance: random.Random) -> bool:
    """Whether something that cannot be torn survives."""
    return fate is Fate.KEPT or (fate is Fate.TORN and chance.random() < 0.5)


def _rename(names: dict[str, int], records: Iterable[Record]) -> None:
    for one in records:
        match one.kind:
            case Kind.CREATE:
                names[one.names[0]] = one.file
            case Kind.UNLINK:
                names.pop(one.names[0], None)
            case Kind.RENAME:
                old, new = one.names
                names.pop(old, None)
                names[new] = one.file


def _apply(content: bytearray, one: Record) -> None:
    if one.kind is Kind.RESIZE:
        del content[one.offset :]
        content.extend(bytes(one.offset - len(content)))
    else:
        _put(content, one.offset, one.data)


def _put(content: bytearray, offset: int, data: bytes) -> None:
    if data:
        content.extend(bytes(max(0, offset - len(content))))
        content[offset : offset + len(data)] = data


def _tear(content: bytearray, one: Record, chance: random.Random) -> None:
    end = one.offset + len(one.data)
    cuts = range((one.offset // SECTOR + 1) * SECTOR, end, SECTOR)
    if not cuts:
        if chance.random() < 0.5:
            _apply(content, one)
        return
    cut = chance.choice(cuts)
    if chance.random() < 0.5:
        _put(content, one.offset, one.data[: cut - one.offset])
    else:
        _put(content, cut, one.data[cut - one.offset :])


def _drop(content: bytearray, one: Record, chance: random.Random) -> None:
    grown = one.offset + len(one.data) - len(content)
    if grown > 0 and chance.random() < 0.25:
        content.extend(chance.randbytes(grown) if chance.random() < 0.5 else bytes(grown))


def put_on(folder: Path, image: dict[str, bytes]) -> None:
    """Write the files of an image into `folder`, which is made."""
    folder.mkdir()
    for name, content in image.items():
        (folder / name).write_bytes(content)
