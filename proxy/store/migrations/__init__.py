"""The schema's history: numbered SQL files, applied forward only, each known by its checksum.

Owns: reading the files, splitting them into statements, saying which ones a database still lacks.
Knows nothing of: connections and transactions (a store applies what `missing` returns).

Theory of operation. A database remembers every migration it has seen by number, name and SHA-256. What it remembers
must be a prefix of the files that this code has: a number beyond them was written by a later Holdfast (`newer`), a
different checksum means that somebody edited a file that had been applied (`changed`). Either way nothing is touched.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

from proxy.store import StoreFailure

_NAME = re.compile(r"(\d{4})_([a-z0-9_]+)\.sql")


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """A migration as a database remembers it."""

    number: int
    name: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """One file: `0001_first.sql` has the number 1 and the name `first`."""

    number: int
    name: str
    text: str

    @property
    def sha256(self) -> str:
        """Of the text's UTF-8 bytes, in hexadecimal."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def statements(self) -> tuple[str, ...]:
        """The statements without comments. No file may hold a semicolon or two dashes inside a literal."""
        code = "\n".join(line.split("--", 1)[0].rstrip() for line in self.text.splitlines())
        return tuple(part.strip() for part in code.split(";") if part.strip())


def known() -> tuple[Migration, ...]:
    """Return the migrations of this code, in order.

    Raises:
        ValueError: a file is misnamed, or a number is missing.
    """
    found = []
    for entry in resources.files(__name__).iterdir():
        if entry.name.endswith(".sql"):
            match = _NAME.fullmatch(entry.name)
            if match is None:
                raise ValueError(f"{entry.name} is no migration's name: 0001_what_it_does.sql is")
            found.append(Migration(number=int(match[1]), name=match[2], text=entry.read_text(encoding="utf-8")))
    found.sort(key=lambda migration: migration.number)
    if [migration.number for migration in found] != list(range(1, len(found) + 1)):
        raise ValueError("migrations must be numbered 1, 2, 3 ... without a gap")
    return tuple(found)


def missing(applied: Sequence[Applied], migrations: Sequence[Migration]) -> tuple[Migration, ...]:
    """Return what must still be applied, in order.

    Raises:
        StoreFailure: `newer`, the database knows more than `migrations`; `changed`, they differ on what was applied.
    """
    if len(applied) > len(migrations):
        raise StoreFailure(
            "newer",
            f"the database has schema {applied[-1].number} ({applied[-1].name}), this Holdfast knows {len(migrations)}:"
            " run the Holdfast that wrote it, or a later one",
        )
    if any(not isinstance(seen.sha256, str) for seen in applied):
        raise StoreFailure("corrupt", "the list of applied migrations is damaged")
    for seen, ours in zip(applied, migrations, strict=False):
        if (seen.number, seen.sha256) != (ours.number, ours.sha256):
            raise StoreFailure(
                "changed",
                f"migration {seen.number} ({seen.name}) was applied with checksum {seen.sha256[:12]}, this Holdfast"
                f" has {ours.number} ({ours.name}) with {ours.sha256[:12]}: an applied migration must never be edited",
            )
    return tuple(migrations[len(applied) :])
