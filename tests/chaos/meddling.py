"""What the proxy stands on, and how it is made to give way: its disk, its directory, its database's lock, its clock.

Owns: a small file system of its own for the database, the shim under the proxy (`meddler.c`), doing and undoing.
Knows nothing of: when, and what is right meanwhile.

The disk is a tmpfs of this run's own, so that it can be filled to the last byte; that needs root. The clock and the
read-only directory are lies of a shim under the proxy: nobody else's clock moves. Where root or a C compiler is
missing, `lacking` says which trouble cannot be made here, and the run says so too.
"""

import asyncio
import contextlib
import errno
import mmap
import os
import shutil
import sqlite3
import struct
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from power.recording import compiler

SOURCE: Final = Path(__file__).with_name("meddler.c")
DISK_BYTES: Final = 512 << 20
SPARE: Final = 4096
CONTROL: Final = struct.Struct("=qq")
LOOK_PATIENCE: Final = 0.3
FOUND: Final = "SELECT d.id, d.state FROM deferrals d JOIN workspaces w ON w.number = d.workspace"
DOUBLE: Final = """
    SELECT w.id, d.message_id, group_concat(d.id, ' ') FROM deferrals d JOIN workspaces w ON w.number = d.workspace
    WHERE d.state IN ('queued', 'leased', 'completed') GROUP BY d.workspace, d.caller, d.message_id HAVING count(*) > 1
"""


@dataclass(slots=True)
class Ground:
    """The directory of the database and of everything that the proxy keeps beside it."""

    folder: Path
    mounted: bool = False
    shim: Path | None = None
    lacking: dict[str, str] = field(default_factory=dict)
    _control: mmap.mmap | None = None
    _locked: sqlite3.Connection | None = None

    @classmethod
    def lay(cls, folder: Path) -> "Ground":
        """Mount the disk and compile the shim, as far as this machine lets us."""
        ground = cls(folder)
        ground.disk.mkdir()
        words = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=700", "holdfast-chaos", str(ground.disk)]
        tried = subprocess.run(words, capture_output=True, text=True, check=False)  # noqa: S603 - our own words
        ground.mounted = tried.returncode == 0
        if not ground.mounted:
            said = tried.stderr.splitlines() or ["mount failed"]
            ground.lacking["full disk"] = f"no file system of our own: {said[0]}"
        why = ground._compile()
        if why:
            ground.lacking |= dict.fromkeys(("read-only directory", "clock jump"), why)
        return ground

    def _compile(self) -> str:
        """Make the library and the file that tells it what to do; why not, where that cannot be."""
        cc = compiler()
        if cc is None:
            return "no C compiler was found"
        shim, control = self.folder / "meddler.so", self.folder / "meddler.control"
        words = [cc, "-shared", "-fPIC", "-O1", "-U_FORTIFY_SOURCE", "-Wall", "-o", str(shim), str(SOURCE), "-ldl"]
        tried = subprocess.run(words, capture_output=True, text=True, check=False)  # noqa: S603 - a compiler by its path
        if tried.returncode != 0:
            return f"the library could not be made: {tried.stderr.strip()[:200]}"
        control.write_bytes(bytes(CONTROL.size))
        with control.open("r+b") as file:
            self._control = mmap.mmap(file.fileno(), CONTROL.size)
        self.shim = shim
        return ""

    @property
    def disk(self) -> Path:
        """Where the proxy keeps everything."""
        return self.folder / "disk"

    @property
    def database(self) -> Path:
        """The proxy's database."""
        return self.disk / "holdfast.db"

    def environment(self) -> dict[str, str]:
        """What puts the shim under a program."""
        if self.shim is None:
            return {}
        return {
            "LD_PRELOAD": str(self.shim),
            "CHAOS_CONTROL": str(self.folder / "meddler.control"),
            "CHAOS_DIRECTORY": f"{self.disk}/",
        }

    # A full disk

    async def fill(self) -> None:
        """Take every byte, after the log was folded into the database: the next commit needs room that is not there."""
        await asyncio.to_thread(self._fill)

    def _fill(self) -> None:
        with contextlib.suppress(sqlite3.Error), contextlib.closing(self._connect("rw")) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        free = os.statvfs(self.disk)
        with (self.disk / "ballast").open("wb") as ballast, contextlib.suppress(OSError):
            os.posix_fallocate(ballast.fileno(), 0, max(1, free.f_bavail * free.f_frsize - SPARE * 4))
            ballast.seek(0, os.SEEK_END)
            while True:  # the rest by the page, until there is no room for one more
                os.write(ballast.fileno(), bytes(SPARE))

    async def drain(self) -> None:
        """Give the room back."""
        (self.disk / "ballast").unlink(missing_ok=True)

    # A read-only directory

    async def seal(self) -> None:
        """Let nothing be changed any more, by the proxy (shim) or by what it starts (immutable directories)."""
        self._write(refusal=errno.EROFS)
        await self._immutable("+i")

    async def unseal(self) -> None:
        """Undo it."""
        await self._immutable("-i")
        self._write(refusal=0)

    async def _immutable(self, change: str) -> None:
        """Only where the file system and our rights let us; the shim alone stops the proxy."""
        if not self.mounted or shutil.which("chattr") is None:
            return
        folders = [str(self.disk), *(str(path) for path in self.disk.rglob("*") if path.is_dir())]
        process = await asyncio.create_subprocess_exec(
            "chattr", change, *folders, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
        )
        await process.wait()

    # A locked database

    async def lock(self) -> None:
        """Hold the database's write lock, as somebody's shell would."""
        self._locked = await asyncio.to_thread(self._lock)

    def _lock(self) -> sqlite3.Connection:
        connection = self._connect("rw", patience=5.0)
        connection.execute("BEGIN EXCLUSIVE")
        return connection

    async def unlock(self) -> None:
        """Let go."""
        connection, self._locked = self._locked, None
        if connection is not None:
            connection.rollback()
            connection.close()

    # A clock that jumps

    async def jump(self, seconds: float) -> None:
        """Move the proxy's time of day so far away from the real one."""
        self._write(offset=int(seconds * 1e9))

    def _write(self, *, offset: int | None = None, refusal: int | None = None) -> None:
        if self._control is None:
            return
        was = CONTROL.unpack(self._control[:])
        said = (was[0] if offset is None else offset, was[1] if refusal is None else refusal)
        self._control[:] = CONTROL.pack(*said)

    # Looking into the database

    def stored(self, workspace: str, message_id: str) -> tuple[str, str] | None:
        """The id and state of the latest deferral of a message; None when there is none, or nobody can look now.

        The connection is closed at once: one that stayed open would spare the next proxy the recovery of its log.
        """
        with contextlib.suppress(sqlite3.Error), contextlib.closing(self._connect("ro")) as connection:
            query = f"{FOUND} WHERE w.id = ? AND d.message_id = ? ORDER BY d.seq DESC LIMIT 1"
            found = connection.execute(query, (workspace, message_id)).fetchone()
            return (str(found[0]), str(found[1])) if found is not None else None
        return None

    def state(self, deferral_id: str) -> str | None:
        """The state of a deferral."""
        with contextlib.suppress(sqlite3.Error), contextlib.closing(self._connect("ro")) as connection:
            found = connection.execute("SELECT state FROM deferrals WHERE id = ?", (deferral_id,)).fetchone()
            return str(found[0]) if found is not None else None
        return None

    def doubles(self) -> list[tuple[str, str, str]]:
        """Workspace, message id and deferral ids of every message that was put away twice and given up neither time."""
        with contextlib.closing(self._connect("ro", patience=5.0)) as connection:
            return [(str(a), str(b), str(c)) for a, b, c in connection.execute(DOUBLE)]

    def _connect(self, mode: str, patience: float = LOOK_PATIENCE) -> sqlite3.Connection:
        uri = f"{self.database.as_uri()}?mode={mode}"
        return sqlite3.connect(uri, uri=True, timeout=patience, isolation_level=None, check_same_thread=False)

    def clear(self) -> None:
        """Undo everything; what lay on the disk lies in `database` of the run's folder from now on."""
        if self._locked is not None:
            self._locked.close()
        self._write(offset=0, refusal=0)
        (self.disk / "ballast").unlink(missing_ok=True)
        if not self.mounted:
            return
        shutil.copytree(self.disk, self.folder / "database", dirs_exist_ok=True, ignore_dangling_symlinks=True)
        words = ["umount", str(self.disk)]
        if subprocess.run(words, capture_output=True, check=False).returncode != 0:  # noqa: S603 - our own words
            subprocess.run(["umount", "-l", str(self.disk)], check=False)  # noqa: S603, S607 - our own words
        self.mounted = False
