"""What every probe promises, whatever it asks. Probes are found by listing the package."""

import asyncio
import importlib
from typing import Any

import pytest

from proxy import probes
from proxy.core.liveness import ProbeState
from proxy.probes import Fetched, Probe, ProbeContext, Reading, Target

ALPHA = Target(workspace_id="alpha", incarnation=3, url="http://127.0.0.1:9000/agent")
KINDS = {name: importlib.import_module(f"proxy.probes.{name}").Probe for name in probes.names()}
NETWORK = [name for name, kind in KINDS.items() if kind.network]

every = pytest.mark.parametrize("name", sorted(KINDS))
network = pytest.mark.parametrize("name", NETWORK)
FAILURES = [ConnectionRefusedError("hf_secret@127.0.0.1"), TimeoutError("hf_secret"), OSError("hf_secret")]


class World:
    """Everything a probe can reach, each part doing the same thing: answer well, fail, or never answer."""

    def __init__(self, what: BaseException | None = None, *, silent: bool = False) -> None:
        self.what = what
        self.silent = silent

    async def meet(self, good: Any) -> Any:
        if self.silent:
            await asyncio.Event().wait()
        if self.what is not None:
            raise self.what
        return good

    async def inspect(self, *_: Any) -> ProbeState:
        return await self.meet(ProbeState.RUNNING)

    async def fetch(self, *_: Any, **__: Any) -> Fetched:
        return await self.meet(Fetched(status=200))

    async def connect(self, *_: Any, **__: Any) -> None:
        await self.meet(None)


def made(name: str, world: World | None = None) -> Probe:
    world = World() if world is None else world
    return probes.create(name, ProbeContext(inspect=world.inspect, fetch=world.fetch, connect=world.connect))


def test_the_package_lists_the_probes() -> None:
    assert {"agent_card", "http", "runtime", "tcp"} <= set(KINDS)


def test_an_unknown_name_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(probes.UnknownProbe, match=r"agent_card, .*tcp"):
        made("../tcp")


@every
def test_the_name_in_the_configuration_is_the_name_of_the_file(name: str) -> None:
    assert made(name).name == name


@every
def test_a_bare_section_is_accepted_and_a_mistyped_key_is_named(name: str) -> None:
    assert made(name).check({"type": name}) == []
    assert any("tiemout" in problem for problem in made(name).check({"type": name, "tiemout": 3}))


@every
async def test_all_is_well(name: str) -> None:
    assert (await made(name).probe(ALPHA, 1)).ready is True


@every
@pytest.mark.parametrize("what", FAILURES, ids=lambda what: type(what).__name__)
async def test_a_failure_is_a_reading_without_secrets_and_never_a_death(name: str, what: BaseException) -> None:
    reading = await made(name, World(what)).probe(ALPHA, 1)
    assert reading.ready is False
    assert reading.state is (None if KINDS[name].network else ProbeState.ERROR)
    assert "hf_secret" not in reading.detail


@every
async def test_silence_ends_with_the_timeout(name: str) -> None:
    async with asyncio.timeout(10):
        reading = await made(name, World(silent=True)).probe(ALPHA, 0.01)
    assert reading.ready is False
    assert reading.state is (None if KINDS[name].network else ProbeState.ERROR)
    assert "0.01 s" in reading.detail


@network
async def test_a_workspace_without_a_url_is_not_ready(name: str) -> None:
    nowhere = Target(workspace_id="alpha", incarnation=3, url=None)
    assert await made(name).probe(nowhere, 1) == Reading(
        ready=False, state=None, detail="the workspace has no URL that can be dialled"
    )


@network
@pytest.mark.parametrize("url", ["http://[::1", "http://host:99999/", "http://host:port/"])
async def test_a_url_that_is_none_is_not_ready_and_never_an_exception(name: str, url: str) -> None:
    world = World(ValueError("no such URL"))
    reading = await made(name, world).probe(Target(workspace_id="alpha", incarnation=3, url=url), 1)
    assert (reading.ready, reading.state) == (False, None)


@every
async def test_a_caller_that_leaves_is_let_go(name: str) -> None:
    asked = asyncio.create_task(made(name, World(silent=True)).probe(ALPHA, 1000))
    await asyncio.sleep(0)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
