"""The recorder from outside: compiled, put under a program, its log read.

Owns: the compiler's call, the log's format, what makes a recording unusable.
Knows nothing of: what a disk keeps of it (`images`), what the program is.
"""

import os
import shutil
import struct
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Final

SOURCE: Final = Path(__file__).with_name("recorder.c")
TO_GET_IT: Final = "on Debian and Ubuntu: sudo apt-get install build-essential (or gcc and libc6-dev)"
MAPPED: Final = "-shm"
"""A file whose name ends so may be written through a shared map: SQLite's index of the write-ahead log, made anew."""

_RECORD: Final = struct.Struct("=QIIqQ")


class UnusableError(Exception):
    """The program did something that the recorder cannot follow."""


class Kind(IntEnum):
    """What happened; the numbers are the recorder's."""

    CREATE = 1
    WRITE = 2
    RESIZE = 3
    UNLINK = 4
    RENAME = 5
    SYNC_BEGIN = 6
    SYNC_END = 7
    MAP = 8
    MARK = 9
    STRANGE = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One step. `number` counts from 1; `file` 1 is the directory itself; `data` are bytes, or names.

    `offset`: of a WRITE; of a RESIZE the new size; of a SYNC_END the number of the SYNC_BEGIN that it belongs to.
    """

    number: int
    kind: Kind
    file: int = 0
    offset: int = 0
    data: bytes = b""

    @property
    def names(self) -> list[str]:
        """The name of a CREATE or an UNLINK; the old and the new one of a RENAME."""
        return [os.fsdecode(name) for name in self.data.split(b"\0")]


Recorded = tuple[tuple[Record, ...], Path]
"""What happened, and the directory that it happened in."""


def compiler() -> str | None:
    """Return a C compiler that finds the C library's headers, if there is one: what CC names, cc, gcc or clang."""
    for word in (os.environ.get("CC"), "cc", "gcc", "clang"):
        path = shutil.which(word) if word else None
        if path is not None:
            words = [path, "-fsyntax-only", "-x", "c", "-"]
            tried = subprocess.run(words, input=b"#include <dlfcn.h>\n", capture_output=True, check=False)  # noqa: S603 - a compiler by its path
            if tried.returncode == 0:
                return path
    return None


def compile_recorder(cc: str, folder: Path) -> Path:
    """Return the recorder as a shared library in `folder`."""
    library = folder / "recorder.so"
    words = [cc, "-shared", "-fPIC", "-O1", "-U_FORTIFY_SOURCE", "-Wall", "-Wextra", "-o", str(library)]
    subprocess.run([*words, str(SOURCE), "-ldl", "-lpthread"], check=True)  # noqa: S603 - a compiler by its path
    return library


def record(words: Sequence[str], *, recorder: Path, directory: Path, log: Path, environment: dict[str, str]) -> None:
    """Run a program that works in `directory`, which must be empty; what it does there goes to `log`.

    The program finds the names of both in POWER_DIRECTORY and POWER_MARKS: what it writes to the latter is a mark.

    Raises:
        CalledProcessError: the program failed; it said why on the standard error.
    """
    if any(directory.iterdir()):
        raise UnusableError(f"{directory} is not empty")
    preload = {
        "LD_PRELOAD": str(recorder),
        "POWER_DIRECTORY": str(directory.resolve()),
        "POWER_LOG": str(log.resolve()),
        "POWER_MARKS": str(log.with_suffix(".marks").resolve()),
    }
    subprocess.run(list(words), env={**environment, **preload}, check=True)  # noqa: S603 - our own words


def read(log: Path) -> tuple[Record, ...]:
    """Return what was recorded.

    Raises:
        UnusableError: the log is cut short, or tells of something that cannot be followed.
    """
    records = tuple(_records(log.read_bytes()))
    names: dict[int, str] = {}
    for number, one in enumerate(records, start=1):
        if one.number != number:
            raise UnusableError(f"record {one.number} stands where {number} should: more than one process wrote")
        match one.kind:
            case Kind.CREATE:
                names[one.file] = one.names[0]
            case Kind.MAP if not names.get(one.file, "").endswith(MAPPED):
                raise UnusableError(f"{names.get(one.file)} may be written through a map, which nobody sees")
            case Kind.STRANGE:
                raise UnusableError(f"{names.get(one.file, 'the directory')}: {one.data.decode()}")
    return records


def _records(log: bytes) -> Iterator[Record]:
    place = 0
    while place < len(log):
        if len(log) - place < _RECORD.size:
            raise UnusableError("the log ends inside a record")
        number, kind, file, offset, length = _RECORD.unpack_from(log, place)
        place += _RECORD.size
        data = log[place : place + length]
        if len(data) != length:
            raise UnusableError("the log ends inside a record")
        place += length
        yield Record(number=number, kind=Kind(kind), file=file, offset=offset, data=data)
