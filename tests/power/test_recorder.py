"""The harness itself: what was synced is in every image, what was not is missing from some, nothing is overlooked."""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from power import recording
from power.images import Disk
from power.recording import Kind, Record, Recorded, UnusableError

FIRST = 3
"""The number of the first file."""
DATA = bytes(range(256)) * 20
"""5,120 bytes: ten sectors."""

PRELUDE = """
import mmap, os
os.chdir(os.environ["POWER_DIRECTORY"])
DATA = bytes(range(256)) * 20
def put(name, flags=os.O_RDWR | os.O_CREAT):
    return os.open(name, flags, 0o600)
def sync_directory():
    directory = os.open(".", os.O_RDONLY)
    os.fsync(directory)
    os.close(directory)
"""


def images(records: Sequence[Record], point: int | None = None, count: int = 300) -> list[dict[str, bytes]]:
    disk = Disk(records)
    disk.reach(len(records) if point is None else point)
    return [disk.image(random.Random(f"image {seed}")) for seed in range(count)]  # noqa: S311 - repeatable images


def numbered(*records: Record) -> list[Record]:
    return [replace(one, number=number) for number, one in enumerate(records, start=1)]


def step(kind: Kind, file: int = FIRST, offset: int = 0, data: bytes = b"") -> Record:
    return Record(number=0, kind=kind, file=file, offset=offset, data=data)


EVERY_WAY = """
first = put("first")
os.write(first, b"one "); os.write(first, DATA)
os.pwrite(first, b"two", 100)
os.lseek(first, 3000, os.SEEK_SET)
os.writev(first, [b"three", b"", b"four"])
os.pwritev(first, [b"five", b"six"], 9000)
os.ftruncate(first, 9005)
os.posix_fallocate(first, 9000, 100)
os.fdatasync(first)
second = put("second", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
os.write(second, b"seven"); os.write(second, b"eight")
os.rename("second", "moved")
os.write(second, b"nine")
os.close(second)
with open("third", "wb") as third:
    third.write(b"ten")
with open("third", "wb") as third:
    third.write(b"e")
put("fourth"); os.unlink(os.path.abspath("fourth")); os.write(put("fourth"), b"again")
put("fifth"); os.replace("fifth", "third")
outside = put("/dev/null", os.O_WRONLY)
os.write(outside, b"nobody sees this")
"""


def test_every_way_to_change_a_file_is_seen(run_recorded: Callable[..., Recorded]) -> None:
    records, directory = run_recorded("-c", PRELUDE + EVERY_WAY)
    disk = Disk(records)
    disk.reach(len(records))
    found = disk.everything()
    assert found == {path.name: path.read_bytes() for path in directory.iterdir()}
    assert set(found) == {"first", "moved", "third", "fourth"}
    assert [one.kind for one in records].count(Kind.SYNC_END) == 1


def test_what_was_synced_is_never_lost_and_what_was_not_sometimes_is(run_recorded: Callable[..., Recorded]) -> None:
    program = """
synced, unsynced = put("synced"), put("unsynced")
sync_directory()
os.write(synced, DATA)
os.fsync(synced)
os.write(unsynced, DATA)
"""
    records, _ = run_recorded("-c", PRELUDE + program)
    found = images(records)
    assert {image["synced"] for image in found} == {DATA}
    survivors = [image["unsynced"] for image in found]
    assert b"" in survivors
    assert DATA in survivors
    torn = {len(content) for content in survivors} - {0, len(DATA)}
    assert torn
    assert all(size % 512 == 0 for size in torn)
    assert any(len(content) == len(DATA) and content != DATA for content in survivors)


def test_a_synced_file_without_a_synced_name_may_be_gone(run_recorded: Callable[..., Recorded]) -> None:
    program = """
file = put("file")
os.write(file, DATA)
os.fsync(file)
"""
    records, _ = run_recorded("-c", PRELUDE + program)
    assert {image.get("file") for image in images(records)} == {None, DATA}
    records, _ = run_recorded("-c", PRELUDE + program + "sync_directory()\n")
    assert {image.get("file") for image in images(records)} == {DATA}


def test_a_file_that_replaces_another_is_there_or_the_other_is(run_recorded: Callable[..., Recorded]) -> None:
    program = """
for name, content in [("file", b"old"), ("new", b"new")]:
    opened = put(name)
    os.write(opened, content)
    os.fsync(opened)
sync_directory()
os.replace("new", "file")
"""
    records, _ = run_recorded("-c", PRELUDE + program)
    assert [
        image for image in images(records) if image not in ({"file": b"old", "new": b"new"}, {"file": b"new"})
    ] == []
    assert {image["file"] for image in images(records)} == {b"old", b"new"}
    records, _ = run_recorded("-c", PRELUDE + program + "sync_directory()\n")
    assert all(image == {"file": b"new"} for image in images(records))


NAMED = (step(Kind.CREATE, data=b"f"), step(Kind.SYNC_BEGIN, file=1), step(Kind.SYNC_END, file=1, offset=2))
WRITE = step(Kind.WRITE, data=DATA)
BEGIN = step(Kind.SYNC_BEGIN)


@pytest.mark.parametrize(
    ("steps", "is_durable"),
    [
        ((WRITE, BEGIN, step(Kind.SYNC_END, offset=5)), True),
        ((WRITE, BEGIN), False),  # it had not ended, or it failed
        ((BEGIN, WRITE, step(Kind.SYNC_END, offset=4)), False),  # it had begun before the write
        ((WRITE, step(Kind.SYNC_BEGIN, file=1), step(Kind.SYNC_END, file=1, offset=5)), False),  # another's sync
        ((BEGIN, WRITE, BEGIN, step(Kind.SYNC_END, offset=4), step(Kind.SYNC_END, offset=6)), True),
        ((BEGIN, WRITE, BEGIN, step(Kind.SYNC_END, offset=4)), False),
    ],
)
def test_a_sync_covers_what_was_written_before_it_began_once_it_has_ended(
    steps: tuple[Record, ...], is_durable: bool
) -> None:
    contents = {image["f"] for image in images(numbered(*NAMED, *steps))}
    assert (contents == {DATA}) is is_durable
    assert DATA in contents


def test_a_later_write_may_survive_an_earlier_one() -> None:
    earlier, later = step(Kind.WRITE, data=b"a" * 512), step(Kind.WRITE, offset=512, data=b"b" * 512)
    contents = {image["f"] for image in images(numbered(*NAMED, earlier, later))}
    assert {b"", b"a" * 512, bytes(512) + b"b" * 512, b"a" * 512 + b"b" * 512} <= contents


def test_a_disk_only_goes_forward() -> None:
    disk = Disk(numbered(*NAMED))
    disk.reach(2)
    with pytest.raises(ValueError, match="past"):
        disk.reach(1)


@pytest.mark.parametrize(
    ("program", "complaint"),
    [
        ("os.truncate(put('file'), 10); mmap.mmap(put('file'), 10)", "map"),
        ("put('file'); os.rename('file', '../file')", "across directories"),
        ("os.close(os.open('../file', os.O_CREAT)); os.rename('../file', 'file')", "across directories"),
        ("os.close(os.open('../file', os.O_CREAT)); os.link('../file', 'file'); put('file')", "existed before"),
    ],
)
def test_what_cannot_be_followed_is_refused(
    program: str, complaint: str, run_recorded: Callable[..., Recorded]
) -> None:
    with pytest.raises(UnusableError, match=complaint):
        run_recorded("-c", PRELUDE + program)


def test_a_recording_begins_in_an_empty_directory(recorder: Path, tmp_path: Path) -> None:
    directory = tmp_path / "data"
    directory.mkdir()
    (directory / "before").touch()
    with pytest.raises(UnusableError, match="not empty"):
        recording.record(["true"], recorder=recorder, directory=directory, log=tmp_path / "log", environment={})


def test_a_log_that_is_cut_short_is_refused(run_recorded: Callable[..., Recorded], tmp_path: Path) -> None:
    _, directory = run_recorded("-c", PRELUDE + "os.write(put('file'), DATA)")
    whole = (directory.parent / "log").read_bytes()
    log = tmp_path / "log"
    for size in (len(whole) - 1, len(whole) - len(DATA) - 1):
        log.write_bytes(whole[:size])
        with pytest.raises(UnusableError, match="ends inside"):
            recording.read(log)


def test_without_a_compiler_nothing_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    assert recording.compiler() is None
