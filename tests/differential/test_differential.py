"""A healthy Holdfast is not to be seen: what real agents answer, asked directly and through it, is the same.

Each agent gets the whole table of cases (`cases.py`) twice: directly, and, in a new life that knows nothing of the
former, through a Holdfast process. Ids and times of the agents are the same in every life, so answers are compared
byte for byte. What may differ is `MAY_DIFFER` and, of agent cards, what docs/cards.md says; nothing else. An answer
that the agent itself breaks off before its first byte of body is told as broken. Requests that are no HTTP, or whose
path climbs (`..`), get Holdfast's own refusal; they are not in the table.

Answers of 502, 503, 504 and 521 to 524 are a gateway's word and are judged, not passed on: they are not in the table.
"""

import asyncio
import functools
import json
import re
import zlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import pytest
import pytest_asyncio
from differential.cases import Case, cases
from differential.dialects import task_of
from differential.wire import Fields, Heard, Said, ask
from e2e.agents import end_all
from e2e.serving import Serving
from peers.running import GENERATIONS, Agent, python_of

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(900)]

MAY_DIFFER: Final = frozenset({b"date", b"connection", b"keep-alive", b"transfer-encoding"})
"""Fields of an answer that belong to a connection or a moment. Besides them, Holdfast adds `Holdfast-Request-Id`."""

OF_CARDS: Final = frozenset({b"etag", b"content-length", b"cache-control", b"content-encoding", b"vary"})
"""Fields of an answer to a request for an agent card that are made for what the client sees (docs/cards.md)."""

OF_MIRRORS: Final = frozenset({b"content-length", b"vary"})
"""Fields that follow from the length of what an agent says of a request, and so of the fields of that request."""

SEEN_OTHERWISE: Final = frozenset({"host", "connection", "transfer-encoding", "content-length", "expect"})
"""Fields of a request that are made for each connection; `Holdfast-*` is between a caller and Holdfast."""


def is_short(generation: str, name: str) -> bool:
    """Every run asks this: a third of the questions, and all operations, which speak of what earlier ones made."""
    if generation != "1.x":
        return False
    return name.startswith(("v1.0", "v0.3", "card")) or zlib.crc32(name.encode()) % 3 == 0


ALL: Final = [
    pytest.param(
        generation,
        name,
        id=f"{generation} {name}",
        marks=[] if is_short(generation, name) else [pytest.mark.long],
    )
    for generation in GENERATIONS
    for name in cases(generation)
]


@dataclass
class Told:
    """What one way gave: the answers by case."""

    origin: str
    heard: dict[str, Heard | Exception]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def told(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[dict[str, tuple[Told, Told]]]:
    """What every agent answered, directly and through Holdfast, as far as this run wants it."""
    chosen = [getattr(item, "callspec", None) for item in request.session.items]
    wanted = {
        (one.params["generation"], one.params.get("name")) for one in chosen if one and "generation" in one.params
    }
    tables = {
        generation: [
            case
            for name, case in cases(generation).items()
            if (generation, name) in wanted or is_short(generation, name)
        ]
        for generation in GENERATIONS
    }
    folder = tmp_path_factory.mktemp("differential")
    for generation in GENERATIONS:
        python_of(generation)
    serving = Serving(folder, settings={"defaults.hold_seconds": 90})
    await serving.start()
    token = await serving.client("differential")
    ways = (_both_ways(generation, tables[generation], folder, serving, token) for generation in GENERATIONS)
    yield dict(zip(GENERATIONS, await asyncio.gather(*ways), strict=True))
    await serving.kill()
    end_all(folder)


async def _both_ways(
    generation: str, table: list[Case], folder: Path, serving: Serving, token: str
) -> tuple[Told, Told]:
    """One agent, asked directly and, in its second life, through Holdfast."""
    name = f"agent-{generation}".replace(".", "-")
    agent = Agent(generation, folder / name)
    await agent.start()
    try:
        direct = await _ask_all(agent, agent.port, table, "")
        await agent.kill()
        agent.forget()
        await agent.start()
        await serving.enroll(name, url=agent.url)
        await serving.event("workspace.status", workspace=name, status="ready")
        prefix = f"/workspaces/{name}/a2a"
        through = await _ask_all(agent, serving.port, table, prefix, (b"Holdfast-Token", token.encode()))
    finally:
        await agent.kill()
    return Told(agent.url, direct), Told(f"{serving.url}{prefix}", through)


async def _ask_all(
    agent: Agent, port: int, table: list[Case], prefix: str, *fields: tuple[bytes, bytes]
) -> dict[str, Heard | Exception]:
    """Everything, in order: later cases speak of what earlier ones made."""
    heard: dict[str, Heard | Exception] = {}
    for case in table:
        said = _filled(case.said, heard).at(prefix, *fields)
        begun = functools.partial(agent.open, case.opens) if case.opens else None
        try:
            heard[case.name] = await ask(port, said, begun)
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as failure:
            heard[case.name] = failure
    return heard


def _filled(said: Said, heard: dict[str, Heard | Exception]) -> Said:
    """Put in the tasks of which a request speaks."""

    def task(found: re.Match[str]) -> str:
        known = heard[found[1]]
        assert isinstance(known, Heard), f"{found[1]}: {known!r}"
        return task_of(known.body) or "there-was-no-task"

    place = re.compile(r"@(v[^@]+)@")
    body = said.body if len(said.body) > 100_000 else place.sub(task, said.body.decode("latin-1")).encode("latin-1")
    return replace(said, target=place.sub(task, said.target), body=body)


@pytest.mark.parametrize(("generation", "name"), ALL)
async def test_an_answer_through_a_healthy_proxy_is_the_agents(
    told: dict[str, tuple[Told, Told]], generation: str, name: str
) -> None:
    case = cases(generation)[name]
    direct, through = (one.heard[name] for one in told[generation])
    assert isinstance(direct, Heard), direct
    assert isinstance(through, Heard), through
    if not direct.whole and not direct.body:
        assert _says_that_it_broke(through)
        return
    assert (through.status, through.reason, through.whole) == (direct.status, direct.reason, direct.whole)
    assert _shown(through.fields, name) == _shown(direct.fields, name)
    if case.card and direct.status < 300:
        origins = [one.origin for one in told[generation]]
        assert _card(through.body) == _card(direct.body.replace(f"{origins[0]}/".encode(), origins[1].encode()))
    elif name.startswith("mirror") and case.said.method != "HEAD":
        assert _seen(through.body) == _seen(direct.body)
    else:
        assert through.body == direct.body


async def test_the_table_is_long() -> None:
    for generation in GENERATIONS:
        assert len(cases(generation)) >= 200


def _says_that_it_broke(answer: Heard) -> bool:
    """Nobody takes it for whole: a clean 502, or, where the head had left already, an error event and a cut."""
    if answer.status == 502:
        return answer.whole and b"ANSWER_LOST" in answer.body
    return not answer.whole and b"event: error" in answer.body and b"STREAM_BROKEN" in answer.body


def _shown(fields: Fields, name: str) -> list[tuple[bytes, bytes]]:
    """The fields of an answer that may not differ, in order."""
    card, mirror = "card" in name.partition(" ")[0] or name.endswith("extended card"), name.startswith("mirror")
    hidden = MAY_DIFFER | (OF_CARDS if card else set()) | (OF_MIRRORS if mirror else set())
    own = b"holdfast-"
    return [(name, value) for name, value in fields if name.lower() not in hidden and not name.lower().startswith(own)]


def _card(body: bytes) -> Any:
    return json.loads(body) if body else None


def _seen(body: bytes) -> dict[str, Any]:
    """What the agent saw of a request, but for what belongs to a connection."""
    facts: dict[str, Any] = json.loads(body)
    facts["headers"] = [
        (name, value)
        for name, value in facts["headers"]
        if name not in SEEN_OTHERWISE and not name.startswith("holdfast-")
    ]
    return facts
