"""Every A2A SDK with agents of both generations, over both bindings, in every situation, through a real Holdfast.

A test is one cell: who, with whom, over what, in which situation, doing what. The cells of a situation are played
together, once, so that one outage is everybody's; each test then tells what its own cell saw. `scripts/test` plays
the Python SDKs while the agent is away for some seconds or dies, `scripts/test --all` everything.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from e2e.serving import Serving
from matrix.cells import PAIRINGS, SHORT
from matrix.deeds import DEEDS
from matrix.outlasting import SILENT
from matrix.situations import AS_SHIPPED, UNHURRIED, Key, Stage, keys_of

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(600)]

QUICK = ("away", "dies")
"""The situations of every run; the others cost more processes, and other tests speak of them, too."""

CELLS = [
    pytest.param(
        situation,
        key,
        id=f"{situation}: {key[0].name}, {key[1]}",
        marks=[] if key[0] in SHORT and situation in QUICK else [pytest.mark.long],
    )
    for situation in DEEDS
    for key in keys_of(PAIRINGS, situation)
]

Played = dict[str, dict[Key, BaseException | None]]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def played(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Played:
    """What became of all cells that this run wants."""
    wanted: dict[str, list[Key]] = {}
    for item in request.session.items:
        if getattr(item, "module", None) is request.module:
            chosen = item.callspec.params  # type: ignore[attr-defined]  # a parametrised function has it
            wanted.setdefault(chosen["situation"], []).append(chosen["key"])
    unhurried = {situation: wanted.pop(situation) for situation in UNHURRIED & wanted.keys()}
    results: Played = {}
    for settings, situations in (({}, wanted), (AS_SHIPPED, unhurried)):
        if situations:
            results |= await play(tmp_path_factory.mktemp("matrix"), settings, situations)
    return results


async def play(folder: Path, settings: Mapping[str, Any], wanted: dict[str, list[Key]]) -> Played:
    """Play situations one after the other on one stage."""
    # A second less than usual: the clients over REST give up after five, and share two processors with other tests.
    stage = Stage(folder, Serving(folder, settings={**settings, "hold.silent": SILENT}))
    try:
        await stage.start({key[0] for keys in wanted.values() for key in keys})
        return {situation: await stage.run(situation, keys) for situation, keys in wanted.items()}
    finally:
        await stage.stop()


@pytest.mark.parametrize(("situation", "key"), CELLS)
async def test_a_client_sees_what_its_sdk_promises(played: Played, situation: str, key: Key) -> None:
    problem = played[situation][key]
    if problem is not None:
        raise problem
