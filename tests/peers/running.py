"""Processes of other people's software that tests talk to: agents of both SDK generations, and their environments.

Owns: finding or making an environment, starting, killing and asking such a process.
Knows nothing of: what it is told to do.
"""

import asyncio
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from e2e.serving import PATIENCE, ROOT, free_port

HERE: Final = Path(__file__).parent
GENERATIONS: Final = {"1.x": "agent_1.py", "0.3.x": "agent_03.py"}
"""The generations of a2a-sdk, and the agent that is written for each."""


@functools.cache
def python_of(environment: str) -> str:
    """The Python of a pinned environment, which is made at the first call; `1.x` and `0.3.x` are the SDK's generations.

    Raises:
        CalledProcessError: it could not be made; what is missing was said on standard error.
    """
    if environment == "1.x":
        return sys.executable
    name = "a2a-sdk-0.3" if environment == "0.3.x" else environment
    words = ["/bin/sh", str(ROOT / "scripts" / "environment"), f"peers/{name}"]
    told = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True)  # noqa: S603 - our own script
    return str(Path(told.stdout.strip()) / "bin" / "python")


def javascript(generation: str) -> list[str]:
    """What runs the JavaScript client of a generation; its packages are installed at the first call.

    Raises:
        CalledProcessError: npm could not install them; why was said on standard error.
        FileNotFoundError: there is no npm, or no node.
    """
    pinned, folder = ROOT / "requirements" / "peers" / "js", ROOT / ".venv-peers-js"
    lock = (pinned / "package-lock.json").read_bytes()
    made = folder / "made-for"
    if not made.exists() or made.read_bytes() != lock:
        folder.mkdir(exist_ok=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(pinned / name, folder / name)
        npm = [tool("npm"), "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"]
        subprocess.run(npm, check=True, cwd=folder)  # noqa: S603 - what the lock file pins
        made.write_bytes(lock)
    return [tool("node"), str(HERE / "client_js.mjs"), generation, str(folder)]


def tool(name: str) -> str:
    """Where a program lies.

    Raises:
        FileNotFoundError: it is not installed.
    """
    found = shutil.which(name)
    if found is None:
        raise FileNotFoundError(f"{name} is not installed: the JavaScript clients need Node.js 20 with npm")
    return found


def plain_environment() -> dict[str, str]:
    """Our environment, without what would change what a peer does."""
    dropped = ("HOLDFAST_", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "VIRTUAL_ENV")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    return clean | {"PYTHONHASHSEED": "0"}  # the SDK shows sets in errors


class Agent:
    """An agent in a process of its own: it comes and goes at one port, and may remember its tasks."""

    def __init__(self, generation: str, folder: Path, *, extended_card: bool = True) -> None:
        self.generation = generation
        self.folder = folder
        self.port = free_port()
        self._options = () if extended_card else ("--no-extended-card",)
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def command(self) -> list[str]:
        """What runs it."""
        program = str(HERE / GENERATIONS[self.generation])
        place = ("--port", str(self.port), "--folder", str(self.folder))
        return [python_of(self.generation), program, *place, *self._options]

    async def start(self) -> None:
        """Start it and wait until it listens."""
        with (self.folder.parent / f"{self.folder.name}.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self.command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env=plain_environment(),
            )
        assert self._process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            line = await self._process.stdout.readline()
        assert line == b"serving\n", f"the agent did not start: see {self.folder}.log"

    async def kill(self) -> None:
        """SIGKILL, and wait until it is gone. Idempotent."""
        process = self._process
        if process is not None and process.returncode is None:
            process.send_signal(signal.SIGKILL)
            await process.wait()

    def forget(self) -> None:
        """Let the next life know nothing of the former ones."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def open(self, gate: str) -> None:
        """Open a gate of its stories."""
        path = self.folder / "gates" / gate
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    def executed(self) -> list[dict[str, Any]]:
        """What its lives have begun, in order."""
        path = self.folder / "executed.jsonl"
        if not path.exists():
            return []
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
