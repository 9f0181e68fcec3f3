"""Owns what a runtime is: the contract, its records, and finding one by its name. Knows nothing of any one runtime.

A runtime hosts the compute of a workspace: it starts it, stops it and says whether it runs. The name in the
configuration is the name of the file: ``type = "process"`` is ``proxy/runtimes/process.py``, which exposes one class
called ``Runtime``. Nothing registers anywhere; the package is listed. How to write one: ``docs/runtimes.md``.
"""

import importlib
import pkgutil
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar, Final, Protocol, cast

from proxy.clock import Now
from proxy.core.addresses import STRICT, AddressPolicy
from proxy.core.liveness import ProbeState

DEFAULT_STOP_GRACE: Final = 10.0
"""Seconds between the request to end and the forced end, where a workspace sets no `stop_grace`."""


class RuntimeFailure(Exception):  # noqa: N818 - it says what the runtime met, not what the proxy did wrong
    """The runtime could not do what it was asked.

    Args:
        reason: stable lower_snake_case word for programs, such as `command_not_found`.
        detail: one sentence for people; holds no secret, so it may be shown and logged.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """One start, in full. Whoever asks has recorded it durably before.

    `incarnation` counts the workspace's lives, `generation` its restarts: the fencing token of every start and stop.
    `spec` is the workspace's runtime section as check() accepted it. `env` holds the HOLDFAST_* variables, among them
    the child's token, and `data` the JSON text for the file at HOLDFAST_CONFIG_PATH: neither is ever in a repr.
    """

    workspace_id: str
    incarnation: int
    generation: int
    spec: Mapping[str, Any] = field(repr=False)
    env: Mapping[str, str] = field(repr=False)
    data: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """An instance that runs. `handle` is opaque: for people, logs and equality."""

    handle: str
    started_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Adopted:
    """An instance that outlived the proxy which started it, and is supervised again."""

    workspace_id: str
    incarnation: int
    generation: int
    handle: str
    started_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Exited:
    """An instance that ended.

    `expected` says that our own stop caused it: such an exit is never evidence of a death. `exit_code` is negative for
    a signal (-9 is SIGKILL) and None where nobody could see it. `at` is when the end was noticed. The same end may be
    told more than once (each proxy start tells it again): the incarnation makes repetitions harmless.
    """

    workspace_id: str
    incarnation: int
    exit_code: int | None
    expected: bool
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Posted:
    """The answer to a POST. `body` is None where it was longer than allowed; `retry_after` as the header has it."""

    status: int
    body: bytes | None
    retry_after: str | None = None


class Post(Protocol):
    """One HTTP POST that checks the address it connects to, follows no redirect and sends no credentials of its own."""

    async def __call__(
        self,
        url: str,
        *,
        headers: tuple[tuple[bytes, bytes], ...],
        body: bytes,
        timeout: float,  # noqa: ASYNC109 - it is a socket's
        max_bytes: int,
    ) -> Posted:
        """Send it once, within `timeout` seconds, and return the answer.

        PermissionError for an address that must not be dialled; TimeoutError, or another OSError, when no answer came.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeContext:
    """What a runtime gets from the composition root.

    `on_exit` is called on the event loop and must not block. `owner` names this proxy host; it must stay the same
    when the proxy starts again, and differ between hosts that share a directory. `chance` spreads repetitions.
    `addresses` says which private networks may be dialled, and `post` dials; None where there is no network.
    """

    now: Now
    data_dir: Path
    on_exit: Callable[[Exited], None]
    owner: str
    chance: random.Random | None = None
    addresses: AddressPolicy = STRICT
    post: Post | None = None


class Runtime(Protocol):
    """What hosts workspaces. One instance per proxy and name; every method may be called for any workspace.

    `tells` is False where nobody starts, stops or knows the compute. `host_bound` says that the compute lives on the
    proxy's own host, so that only the proxy which started it can answer for it. inspect, start, stop, adopt and remove
    raise :class:`RuntimeFailure` and nothing else.
    """

    name: ClassVar[str]
    tells: ClassVar[bool]
    host_bound: ClassVar[bool]

    def __init__(self, context: RuntimeContext) -> None:
        """Do no I/O here: that is adopt()'s."""

    def check(self, spec: Mapping[str, Any]) -> list[str]:
        """Return every problem of a runtime section, as sentences; empty when it can be used."""

    def can_inspect(self, spec: Mapping[str, Any]) -> bool:
        """Whether inspect() can tell anything of a workspace with this section; without it verdicts are UNKNOWN."""
        del spec
        return self.tells

    async def inspect(self, workspace_id: str, incarnation: int) -> ProbeState:
        """Say whether this incarnation's instance runs.

        GONE only when it is known to have run and ended by itself; NOT_RUNNING when nothing of it runs for any other
        reason (never started, or stopped by us); ERROR, never an exception, when that cannot be told.
        """

    async def start(self, launch: Launch) -> Started:
        """Start an instance, or do nothing: a running one of the same or a newer generation means *finished*.

        Never starts a second one beside a live one. Returns as soon as the workload runs; whether it serves is a
        probe's question.
        """

    async def stop(self, workspace_id: str, generation: int, grace: float) -> None:
        """Stop every instance of a generation below `generation`, never one of `generation` itself.

        Asks it to end, forces it after `grace` seconds, and returns when nothing of it is left. From then on no older
        generation can start, however late its start comes. Nothing to stop is a success.
        """

    async def remove(self, workspace_id: str, grace: float) -> None:
        """Stop whatever runs and forget the workspace with its generations: it was deleted."""

    async def adopt(self) -> list[Exited | Adopted]:
        """Take charge of what an earlier proxy on this host started. Called once, before anything else.

        Tells each instance that still runs, and each that ended, however long ago, as long as its record is the
        workspace's latest.
        """

    async def aclose(self) -> None:
        """Let go of everything: the proxy stops, the workspaces keep running. Nothing is told afterwards."""


def names() -> list[str]:
    """List the runtimes there are, sorted: the modules of this package that expose a `Runtime`."""
    found = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return [name for name in found if hasattr(importlib.import_module(f"{__name__}.{name}"), "Runtime")]


def create(name: str, context: RuntimeContext) -> Runtime:
    """Make the runtime called `name`; RuntimeFailure `unknown_runtime` names those there are."""
    known = names()
    if name not in known:
        raise RuntimeFailure("unknown_runtime", f"there is no runtime {name[:64]!r}; there are {', '.join(known)}")
    return cast(Runtime, importlib.import_module(f"{__name__}.{name}").Runtime(context))
