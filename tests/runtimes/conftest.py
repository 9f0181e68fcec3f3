"""What runtime tests share: runtimes over a temporary directory, the exits they tell, and launches.

A runtime joins the conformance suite by being a file of the package and by having a rig: ``rigs/NAME.py`` with
``lasting_spec()`` and, where the runtime can tell, ``ending_spec(code)``. A test runs against real workloads.
"""

import asyncio
import contextlib
import importlib.util
import os
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from proxy import runtimes
from proxy.runtimes import Exited, Launch, Runtime, RuntimeContext, RuntimeFailure

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
RIGS = Path(__file__).parent / "rigs"


class Bench:
    """Makes runtimes as successive proxies of one host would, and hears what they tell."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.exits: asyncio.Queue[Exited] = asyncio.Queue()
        self._made: list[tuple[Runtime, str]] = []

    def runtime(self, name: str = "process", *, owner: str = "host-1") -> Any:
        context = RuntimeContext(now=lambda: NOON, data_dir=self.data_dir, on_exit=self.exits.put_nowait, owner=owner)
        made = runtimes.create(name, context)
        self._made.append((made, owner))
        return made

    def folder(self, workspace_id: str = "alpha") -> Path:
        return self.data_dir / "process" / workspace_id

    def fifo(self, name: str = "told") -> Path:
        """Make a named pipe: whoever reads it waits until the other side says something."""
        path = self.data_dir / name
        os.mkfifo(path)
        return path

    async def aclose(self) -> None:
        for made, _ in self._made:
            for folder in self.data_dir.glob("process/*"):
                with contextlib.suppress(RuntimeFailure):
                    await made.remove(folder.name, 0)
            await made.aclose()


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    made = Bench(tmp_path)
    yield made
    await made.aclose()


@pytest.fixture
def launch() -> Callable[..., Launch]:
    """Make a launch of workspace alpha: `launch(spec or command, generation, ...)`."""

    def make(spec: Any, generation: int = 1, *, incarnation: int | None = None, **others: Any) -> Launch:
        section = {"type": "process", "command": spec} if isinstance(spec, list) else spec
        return Launch(
            workspace_id=others.pop("workspace_id", "alpha"),
            incarnation=generation if incarnation is None else incarnation,
            generation=generation,
            spec=section,
            env=others.pop("env", {"HOLDFAST_TOKEN": "hf_secret"}),
            **others,
        )

    return make


@pytest.fixture
def rig() -> Callable[[str], ModuleType]:
    """Load a runtime's rig by the runtime's name."""

    def load(name: str) -> ModuleType:
        path = RIGS / f"{name}.py"
        assert path.exists(), f"runtime {name} has no rig: write {path}"
        found = importlib.util.spec_from_file_location(f"rig_of_runtime_{name}", path)
        assert found is not None
        assert found.loader is not None
        module = importlib.util.module_from_spec(found)
        found.loader.exec_module(module)
        return module

    return load
