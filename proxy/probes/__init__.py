"""Owns what a probe is: the contract, its records, and finding one by its name. Knows nothing of any one probe.

A probe asks whether a workspace is ready. The name in the configuration is the name of the file: ``type = "tcp"`` is
``proxy/probes/tcp.py``, which exposes one class called ``Probe``. Nothing registers anywhere; the package is listed.

Two kinds of answer must never be mixed up. The runtime's word says whether the compute runs, and may end in a death. A
network probe's failure says that a workspace is *not ready*, never that it does not run: an agent that is too busy to
answer looks the same from here.
"""

import importlib
import pkgutil
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, cast

from proxy.core.liveness import ProbeState


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Whom to probe: one life of one workspace. `spec` is its probe section as check() accepted it."""

    workspace_id: str
    incarnation: int
    url: str | None
    spec: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a probe saw. `state` is the runtime's word, None from a network probe; `detail` is safe to show and log."""

    ready: bool
    state: ProbeState | None
    detail: str
    card: bytes | None = None
    """What an agent showed as its card, to nobody in particular and with nothing against keeping it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """What a GET brought. `body` is None when it was more than was to be read; names of `headers` as they came."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...] = ()
    body: bytes | None = None


class Fetch(Protocol):
    """One HTTP GET that checks the address, follows no redirect and sends no credentials."""

    async def __call__(self, url: str, *, timeout: float, max_bytes: int) -> Fetched:  # noqa: ASYNC109 - it is a socket's
        """Return what came, reading at most `max_bytes` of the body; OSError or TimeoutError when nothing did."""


class Connect(Protocol):
    """One TCP connection to an address that was checked, opened and closed again."""

    async def __call__(self, host: str, port: int, *, timeout: float) -> None:  # noqa: ASYNC109 - it is a socket's
        """Return once connected; OSError or TimeoutError when that fails."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeContext:
    """What a probe may use: the workspace's runtime (workspace id, incarnation), and the network."""

    inspect: Callable[[str, int], Awaitable[ProbeState]]
    fetch: Fetch
    connect: Connect


class Probe(Protocol):
    """Asks one question of one kind. `network` says that the answer is about readiness only."""

    name: ClassVar[str]
    network: ClassVar[bool]

    def __init__(self, context: ProbeContext) -> None:
        """Do no I/O here."""

    def check(self, spec: Mapping[str, Any]) -> list[str]:
        """Return every problem of a probe section, as sentences; empty when it can be used."""

    async def probe(self, target: Target, timeout: float) -> Reading:  # noqa: ASYNC109 - part of what is asked
        """Ask once, within `timeout` seconds. Never raises for what the target does or fails to do."""


class UnknownProbe(ValueError):  # noqa: N818 - it says what is true of the name
    """No probe has this name; the message lists those there are."""


def names() -> list[str]:
    """List the probes there are, sorted: the modules of this package that expose a `Probe`."""
    found = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return [name for name in found if hasattr(importlib.import_module(f"{__name__}.{name}"), "Probe")]


def create(name: str, context: ProbeContext) -> Probe:
    """Make the probe called `name`; :class:`UnknownProbe` when there is none."""
    known = names()
    if name not in known:
        raise UnknownProbe(f"there is no probe {name[:64]!r}; there are {', '.join(known)}")
    return cast(Probe, importlib.import_module(f"{__name__}.{name}").Probe(context))


def unknown_keys(spec: Mapping[str, Any], *known: str) -> list[str]:
    """Say which keys of a section no probe of this kind has; `type` is every section's."""
    return [f"probe.{key}: there is no such setting" for key in spec if key != "type" and key not in known]
