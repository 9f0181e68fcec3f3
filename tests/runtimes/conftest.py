"""What runtime tests share: runtimes over a temporary directory, the exits they tell, and launches.

A runtime joins the conformance suite by being a file of the package and by having a rig: ``rigs/NAME.py`` with
``lasting_spec()`` and, where the runtime can tell, ``ending_spec(code)``. A test runs against real workloads. Rigs of
runtimes that are kept elsewhere are looked for in the folder that the variable RUNTIME_RIGS names.
"""

import asyncio
import contextlib
import functools
import importlib.util
import os
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from proxy import runtimes
from proxy.core.addresses import AddressPolicy
from proxy.core.workspace import Workspace
from proxy.forward.pool import Pool, PoolSettings
from proxy.loops.hosting import Hosting
from proxy.runtimes import Exited, Launch, Runtime, RuntimeContext, RuntimeFailure, outside

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
RIGS = Path(__file__).parent / "rigs"
LOCAL = AddressPolicy.parse(["127.0.0.0/8"])


class Bench:
    """Makes runtimes as successive proxies of one host would, and hears what they tell."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.pool = Pool(LOCAL, PoolSettings())
        self.exits: asyncio.Queue[Exited] = asyncio.Queue()
        self._made: list[tuple[Runtime, str]] = []

    def runtime(self, name: str = "process", *, owner: str = "host-1") -> Any:
        context = RuntimeContext(
            now=lambda: NOON, data_dir=self.data_dir, on_exit=self.exits.put_nowait, owner=owner, addresses=LOCAL
        )
        if name not in runtimes.names():
            return runtimes.create(name, context)
        workspace = Workspace(id="alpha", created_at=NOON, runtime={"type": name})
        made = Hosting(context, self.pool, probe_timeout=1).runtime(workspace)
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
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(outside, "STOPPED_WITHIN", 0)  # what a test's commands claim may be anything
            await self._aclose()

    async def _aclose(self) -> None:
        for made, _ in self._made:
            for folder in self.data_dir.glob(f"{made.name}/*"):
                with contextlib.suppress(RuntimeFailure):
                    await made.remove(folder.name, 0)
            await made.aclose()
        await self.pool.aclose()


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


@functools.cache
def load_rig(name: str) -> ModuleType:
    """Load a rig, once."""
    folders = [RIGS, *(Path(folder) for folder in [os.environ.get("RUNTIME_RIGS")] if folder)]
    path = next((path for folder in folders if (path := folder / f"{name}.py").exists()), None)
    assert path is not None, f"runtime {name} has no rig: write {RIGS / name}.py"
    found = importlib.util.spec_from_file_location(f"rig_of_runtime_{name}", path)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


@pytest.fixture
def rig() -> Callable[[str], ModuleType]:
    """Give a runtime's rig by the runtime's name."""
    return load_rig
