"""Streams of workspaces with `journal = all`, on the real wire: what SDK clients see, and readers that come back.

The SDKs' clients and agents are processes of their own, of both generations and over both bindings.
"""

import asyncio
import json
import os
import random
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from chaos.waiting import until
from e2e.serving import PATIENCE, Serving, free_port
from peers.running import Agent
from peers.talking import Call, Event, Talker

pytestmark = pytest.mark.asyncio(loop_scope="module")

LASTING = Path(__file__).parent / "lasting_agent.py"
NUMBERS = count(1)
BINDINGS = ("JSONRPC", "HTTP+JSON")
OURS = "4a2"
"""What provisional ids begin with."""


class Talk:
    """An SDK's client, an agent of the same generation, a workspace that journals everything between them."""

    def __init__(self, proxy: Serving, talker: Talker, agent: Agent, name: str, binding: str) -> None:
        self.proxy = proxy
        self.agent = agent
        self.name = name
        self._talker = talker
        self._at = f"{name}-{binding}"

    async def connect(self, token: str, binding: str) -> None:
        """Fetch the card, as the SDK does."""
        url = f"{self.proxy.url}/workspaces/{self.name}/a2a"
        await self._talker.do(self._at, "connect", url=url, token=token, binding=binding).one()

    def stream(self, message: str, text: str, **more: Any) -> Call:
        """Send a message and read what its stream tells."""
        return self._talker.do(self._at, "send", mode="stream", text=text, message=message, **more)

    async def one(self, what: str, **more: Any) -> Event:
        """One other call."""
        return await self._talker.do(self._at, what, **more).one()

    def subscribe(self, task: str) -> Call:
        """Follow a task."""
        return self._talker.do(self._at, "subscribe", task=task)

    @property
    def journalled(self) -> int:
        """How many requests were written down before they were sent."""
        return len(self.proxy.named("deferral.queued", workspace=self.name, rule="journal"))


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["1.x", "0.3.x"])
async def talker(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Talker]:
    made = Talker(str(request.param), tmp_path_factory.mktemp("talker") / "client.log")
    await made.start()
    yield made
    await made.stop()


@pytest_asyncio.fixture(loop_scope="module", params=BINDINGS)
async def talk(request: pytest.FixtureRequest, shared: Serving, talker: Talker, tmp_path: Path) -> AsyncIterator[Talk]:
    name, agent, binding = f"journalled-{next(NUMBERS)}", Agent(talker.sdk, tmp_path / "agent"), str(request.param)
    await agent.start()
    await shared.enroll(name, url=agent.url, journal="all", hold_seconds=30)
    await shared.event("workspace.status", workspace=name, status="ready")
    made = Talk(shared, talker, agent, name, binding)
    await made.connect(await shared.client(f"caller-of-{name}"), binding)
    yield made
    await agent.kill()


def words(events: list[Event]) -> list[str]:
    """A stream in a word for each event."""
    return [event["text"] if event["kind"] == "artifact" else f"{event['kind']} {event['state']}" for event in events]


WHOLE = ["task submitted", "status working", "piece 1", "piece 2", "status completed"]


async def test_an_sdk_client_sees_its_whole_stream_under_one_id(talk: Talk) -> None:
    call = talk.stream("m-1", "stream go")
    assert words(await call.at_least(3)) == WHOLE[:3]
    talk.agent.open("go")
    events = await call.all()
    assert words(events) == WHOLE
    (task,) = {event["task"] for event in events}
    assert task.startswith(OURS)
    assert talk.journalled == 1
    kept = await talk.one("get", task=task)
    assert (kept["task"], kept["state"], kept["text"]) == (task, "completed", "piece 1piece 2")
    (begun,) = talk.agent.executed()
    assert (begun["redelivery"], begun["task"].startswith(OURS)) == (None, False)


async def test_somebody_else_may_follow_it_meanwhile(talk: Talk) -> None:
    call = talk.stream("m-1", "stream go")
    (first, *_) = await call.at_least(3)
    follower = talk.subscribe(first["task"])
    (now,) = await follower.at_least(1)
    assert (now["state"], now["text"]) == ("working", "piece 1")
    talk.agent.open("go")
    assert words(await follower.all())[1:] == WHOLE[3:]
    assert words(await call.all()) == WHOLE
    assert len(talk.agent.executed()) == 1


async def test_a_question_is_answered_under_the_same_id(talk: Talk) -> None:
    asked = await talk.stream("m-1", "ask").all()
    assert words(asked)[-1] == "status input-required"
    task, context = asked[0]["task"], asked[0]["context"]
    answered = await talk.stream("m-2", "blue", task=task, context=context).all()
    assert words(answered)[-2:] == ["echo: blue", "status completed"]
    assert {event["task"] for event in (*asked, *answered)} == {task}
    assert (await talk.one("get", task=task))["state"] == "completed"
    first, second = talk.agent.executed()
    assert first["task"] == second["task"] != task
    assert talk.journalled == 2


@pytest.mark.parametrize("talker", ["1.x"], indirect=True)  # agents of 0.3.x leave the streams of canceled tasks open
async def test_a_cancel_reaches_the_agent_and_ends_the_stream(talk: Talk) -> None:
    call = talk.stream("m-1", "slow never")
    (first, *_) = await call.at_least(2)
    canceled = await talk.one("cancel", task=first["task"])
    assert (canceled["task"], canceled["state"]) == (first["task"], "canceled")
    assert words(await call.all())[-1] == "status canceled"
    assert (await talk.one("get", task=first["task"]))["state"] == "canceled"
    (kept,) = [json.loads(path.read_text(encoding="utf-8")) for path in (talk.agent.folder / "tasks").glob("*.json")]
    assert "cancel" in kept["status"]["state"].lower()


# --- a reader that comes back ----------------------------------------------------------------------------------------


@dataclass
class Reader:
    """Reads a stream as it stands on the wire, and comes back to its place. `seen`: (id, result) of every event."""

    url: str
    token: str
    message: dict[str, Any]
    seen: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    comments: set[bytes] = field(default_factory=set)

    async def read(self, http: aiohttp.ClientSession, most: int, *, resend: bool) -> AsyncIterator[int]:
        """One connection, for at most so many events: how many have been seen in all, after each."""
        headers = {"Holdfast-Token": self.token, "A2A-Version": "1.0", "Accept": "text/event-stream"}
        method, params = "SendStreamingMessage", {"message": self.message}
        if self.seen:
            headers["Last-Event-ID"] = self.seen[-1][0]
            if not resend:
                method, params = "SubscribeToTask", {"id": self.task}
        body = {"jsonrpc": "2.0", "id": "r", "method": method, "params": params}
        async with http.post(self.url, headers=headers, json=body) as answer:
            assert answer.status == 200, await answer.read()
            fields: dict[bytes, bytes] = {}
            async for line in answer.content:
                name, _, value = line.rstrip(b"\n").partition(b": ")
                if line.startswith(b":"):
                    self.comments.add(line.rstrip(b"\n"))
                elif line != b"\n":
                    fields[name] = value
                elif fields:
                    self.seen.append((fields[b"id"].decode(), json.loads(fields[b"data"])["result"]))
                    fields = {}
                    yield len(self.seen)
                    most -= 1
                if most == 0:
                    return

    @property
    def task(self) -> str:
        """The task, as its first event names it."""
        return str(self.seen[0][1]["task"]["id"])

    @property
    def told(self) -> list[str]:
        """The text of every piece that was told, and the state of every status."""
        said = [result for _, result in self.seen[1:]]
        return [
            each["artifactUpdate"]["artifact"]["parts"][0]["text"]
            if "artifactUpdate" in each
            else each["statusUpdate"]["status"]["state"]
            for each in said
        ]

    @property
    def is_over(self) -> bool:
        """The task's end was told."""
        return bool(self.seen) and self.told[-1:] == ["TASK_STATE_COMPLETED"]


@pytest.mark.parametrize("seed", [1, 2])
async def test_a_reader_that_leaves_and_comes_back_misses_nothing_though_agent_and_proxy_are_killed(
    shared: Serving, tmp_path: Path, seed: int
) -> None:
    chance, pieces, name = random.Random(seed), 120, f"lasting-{next(NUMBERS)}"  # noqa: S311 - the same story each time
    port = free_port()
    command = [sys.executable, str(LASTING), "--port", str(port), "--folder", str(tmp_path)]
    await shared.enroll(
        name,
        url=f"http://127.0.0.1:{port}",
        runtime={"type": "process", "command": command},
        journal="all",
        policy={"settle_hold": 0, "settle_window": 0, "restart_backoff": 0.1, "restart_debounce": 0},
    )
    await shared.event("restart.finished", workspace=name, phase="finished")
    token = await shared.client(f"reader-of-{name}")
    said = {"messageId": "m-1", "role": "ROLE_USER", "parts": [{"text": f"count {pieces}"}]}
    reader = Reader(f"{shared.url}/workspaces/{name}/a2a", token, said)
    agent_dies, proxy_dies = sorted(chance.sample(range(5, pieces - 5), 2), reverse=bool(chance.randrange(2)))
    lives = tmp_path / "lives"
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=PATIENCE)) as http, asyncio.timeout(PATIENCE):
        while not reader.is_over:
            try:
                async for number in reader.read(http, chance.randint(1, 12), resend=chance.random() < 0.5):
                    if number == agent_dies:
                        os.kill(int(lives.read_text(encoding="ascii").split()[0]), signal.SIGKILL)
                    if number == proxy_dies:
                        await shared.kill()
            except aiohttp.ClientError:
                assert len(reader.seen) >= proxy_dies
            if shared.process is not None and shared.process.returncode is not None:
                await shared.start()
    expected = [f"piece {number}" for number in range(1, pieces + 1)]
    assert [word for word in reader.told if word.startswith("piece")] == expected
    assert reader.told[-1] == "TASK_STATE_COMPLETED"
    assert len({place for place, _ in reader.seen}) == len(reader.seen)
    assert reader.comments <= {b": keep-alive"}
    kept = await shared.task(name, reader.task, token=token)
    assert [artifact["parts"][0]["text"] for artifact in kept["artifacts"]] == expected
    assert (tmp_path / "begun").read_text(encoding="utf-8") == "m-1\n"
    assert await until(lambda: len(lives.read_text(encoding="ascii").split()) == 2, within=PATIENCE)
