"""What every bench measures with: CPU time of processes, medians, tables, and the lines that a run leaves behind.

Owns: reading /proc, the description of the machine, the journal of raw numbers, how a table looks.
Knows nothing of: what is measured.

A number of one second on a shared machine says little. Benches therefore play their subjects in turns of about a
second, several rounds of them, and compare medians: what disturbs the machine for a while disturbs every subject.
"""

import json
import os
import platform
import random
import shutil
import socket
import statistics
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

ROOT = Path(__file__).resolve().parents[2]
TICK = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
_SCHEDULED = 2  # of the clocks of a process, the one of time on a processor (clock_getcpuclockid(3))
MEASURED, WRONG = 0, 1
QUIET = 0.05
"""A proxy that waits for a processor for more of the time than this shares it with somebody."""
PACKAGES = ("aiohttp", "aiosqlite", "httptools", "msgspec", "uvloop")
TOOLS: Mapping[str, Sequence[str]] = {
    "nginx": ("nginx", "-v"),
    "haproxy": ("haproxy", "-v"),
    "caddy": ("caddy", "version"),
    "wrk": ("wrk", "-v"),
}


class UnfitError(Exception):
    """The machine or the installation does not let a bench do its work; says nothing about Holdfast."""


# Processes


def cpu_seconds(pid: int) -> float:
    """User and system time that a process and all its descendants have used so far, those that ended included."""
    return sum(_used(one) for one in family(pid))


def waited_seconds(pid: int) -> float:
    """For how long the threads of a process and its descendants have waited for a processor; 0 where nobody counts."""
    total = 0
    for one in family(pid):
        with suppress(OSError):
            for task in Path(f"/proc/{one}/task").iterdir():
                total += int((task / "schedstat").read_text(encoding="ascii").split()[1])
    return total / 1e9


def resident_bytes(pid: int) -> int:
    """Resident memory of a process and all its descendants, in bytes; pages they share are counted for each."""
    total = 0
    for one in family(pid):
        with suppress(FileNotFoundError, ProcessLookupError):
            total += int(Path(f"/proc/{one}/statm").read_text(encoding="ascii").split()[1]) * PAGE
    return total


def family(pid: int) -> list[int]:
    """A process and its living descendants."""
    found = [pid]
    for one in found:
        with suppress(FileNotFoundError, ProcessLookupError):
            for task in Path(f"/proc/{one}/task").iterdir():
                found += map(int, (task / "children").read_text(encoding="ascii").split())
    return found


def _used(pid: int) -> float:
    """Seconds of one process, exactly, and of those children that it has waited for, in the kernel's ticks of 10 ms."""
    with suppress(OSError):
        own = time.clock_gettime(~pid << 3 | _SCHEDULED)
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        fields = stat.rpartition(")")[2].split()  # the name before it may hold anything
        return own + sum(map(int, fields[13:15])) / TICK
    return 0.0


def free_port() -> int:
    """A port that nobody uses and that the kernel gives to no outgoing connection, so that it stays free."""
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()[0])
    chance = random.SystemRandom()
    for _ in range(200):
        port = chance.randrange(max(1024, lowest - 12_000), lowest)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise UnfitError("there is no free port below the ephemeral range")


# The machine


def machine() -> dict[str, Any]:
    """What was measured on: processor, cores, memory, kernel, the interpreter and its build, every part's version."""
    arguments = str(sysconfig.get_config_var("CONFIG_ARGS") or "")
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PHYS_PAGES") * PAGE,
        "kernel": platform.release(),
        "system": _system(),
        "python": platform.python_version(),
        "python_build": [word for word in ("--enable-optimizations", "--with-lto") if word in arguments],
        "compiler": platform.python_compiler(),
        "packages": {name: _version_of(name) for name in PACKAGES},
        "tools": {name: _tool(words) for name, words in TOOLS.items() if shutil.which(words[0], path=search_path())},
        "load_before": round(os.getloadavg()[0], 2),
    }


def search_path() -> str:
    """PATH and the places where servers lie on systems whose users do not have them in it."""
    return os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"))


def described(about: Mapping[str, Any]) -> list[str]:
    """A machine as lines for a person."""
    build = " ".join(about["python_build"]) or "a plain build"
    packages = ", ".join(f"{name} {number}" for name, number in about["packages"].items() if number)
    tools = ", ".join(f"{name} {number}" for name, number in about["tools"].items()) or "none"
    memory = f"{about['memory_bytes'] / 2**30:.0f} GiB"
    return [
        f"{about['processor']}, {about['cores']} cores, {memory}; {about['system']}, Linux {about['kernel']}",
        f"Python {about['python']} ({build}, {about['compiler']}); {packages}",
        f"installed beside it: {tools}; load before the run {about['load_before']}",
    ]


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def _system() -> str:
    with suppress(OSError):
        return platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    return platform.system()


def _version_of(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _tool(words: Sequence[str]) -> str:
    """The version that a program names, wherever it does."""
    found = shutil.which(words[0], path=search_path())
    if found is None:
        return ""
    said = subprocess.run([found, *words[1:]], capture_output=True, text=True, check=False)  # noqa: S603 - a fixed list
    text = f"{said.stdout}\n{said.stderr}".split("\n\n")[0]
    return next((word.strip("v,") for word in text.replace("/", " ").split() if word.strip("v")[:1].isdigit()), "?")


# What a run leaves


class Journal:
    """Every raw number of a run, one JSON object a line, as it is measured; kept where --json said, if it did.

    The first line (`kind` "run") names the bench, its command line and the machine. A run that was cut short still
    left what it had measured; a page is only made of one whose last line is of `kind` "end".
    """

    def __init__(self, bench: str, arguments: Sequence[str], path: Path | None) -> None:
        self.records: list[dict[str, Any]] = []
        self._file: IO[str] | None = path.open("w", encoding="utf-8") if path is not None else None
        self.note("run", bench=bench, command=["scripts/bench", bench, *_without_json(arguments)], machine=machine())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, at: TracebackType | None
    ) -> None:
        if kind is None:
            self.note("end", load_after=round(os.getloadavg()[0], 2))
        if self._file is not None:
            self._file.close()

    def note(self, kind: str, **fields: Any) -> dict[str, Any]:
        """Add a line."""
        record = {"kind": kind, **fields}
        self.records.append(record)
        if self._file is not None:
            self._file.write(json.dumps(record) + "\n")
            self._file.flush()
        return record

    def of(self, kind: str, **fields: Any) -> list[dict[str, Any]]:
        """The lines of that kind so far whose fields are these."""
        return chosen(self.records, kind, **fields)


def _without_json(arguments: Sequence[str]) -> list[str]:
    """The options that say what was measured; where its numbers were put is nobody's business."""
    kept = [word for word in arguments if not word.startswith("--json=")]
    if "--json" in kept:
        at = kept.index("--json")
        del kept[at : at + 2]
    return kept


def chosen(records: Iterable[Mapping[str, Any]], kind: str, **fields: Any) -> list[dict[str, Any]]:
    """The records of that kind whose fields are these."""
    return [
        dict(record)
        for record in records
        if record["kind"] == kind and all(record.get(name) == value for name, value in fields.items())
    ]


def read_journal(path: Path) -> list[dict[str, Any]]:
    """What a run left.

    Raises:
        ValueError: it is not a journal, or one of a run that was cut short.
    """
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    if not records or records[0].get("kind") != "run":
        raise ValueError(f"{path} was not written by a bench's --json")
    if records[-1].get("kind") != "end":
        raise ValueError(f"{path} ends in the middle of a run")
    return records


# Numbers and tables


def disturbance(measured: Iterable[Mapping[str, Any]]) -> str:
    """A sentence about how undisturbed a run was, from records with `seconds` and `waited_seconds`."""
    waits = [one["waited_seconds"] / one["seconds"] for one in measured if one.get("waited_seconds") is not None]
    share = median(waits)
    said = f"What was measured waited for a processor for {share:.1%} of the time (median)"
    if share > QUIET:
        return f"{said}: **others used this machine, the numbers are provisional**, and latencies mean nothing."
    return f"{said}."


def median(values: Iterable[float]) -> float:
    """The middle one; not a number where there is none."""
    found = list(values)
    return statistics.median(found) if found else float("nan")


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value that `share` (0 to 1) of a sorted sequence does not exceed; not a number where it is empty."""
    if not ordered:
        return float("nan")
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A Markdown table whose columns line up; all but the first are numbers and stand on the right."""
    lines = [tuple(headings), *(tuple(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings))]
    rule = [width * "-" if column == 0 else (width - 1) * "-" + ":" for column, width in enumerate(widths)]
    lines.insert(1, tuple(rule))
    return [
        "| "
        + " | ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        + " |"
        for line in lines
    ]


def say(*lines: str) -> None:
    """Print lines at once."""
    for line in lines:
        sys.stdout.write(line + "\n")
    sys.stdout.flush()
