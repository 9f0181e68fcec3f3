"""Callers that wait, in virtual time: what they are sent meanwhile, when they are answered, and with what."""

import asyncio
import json
from typing import Any

import pytest
from simulation.polling_agents import Poller
from simulation.waiting_clients import begin
from simulation.world import RESET, Reacts, World, clock, fails, message, simulated

from proxy.core.evidence import ProbeState
from proxy.core.lifecycle import Desired
from proxy.core.workspace import DeliveryMode, Settings

HELD = {"defaults.hold_seconds": 90}


@pytest.fixture
def world(tmp_path: Any) -> World:
    return World(tmp_path)


def old(state: str = "completed", text: str = "done") -> bytes:
    """An agent's v0.3 answer."""
    artifact = {"artifactId": "a", "parts": [{"kind": "text", "text": text}]}
    task = {"kind": "task", "id": "up-1", "contextId": "c", "status": {"state": state}, "artifacts": [artifact]}
    return json.dumps({"jsonrpc": "2.0", "id": 1, "result": task}).encode()


def rest(*, configuration: dict[str, Any] | None = None) -> bytes:
    said = {"messageId": "m-1", "role": "ROLE_USER", "parts": [{"text": "hi"}]}
    return json.dumps({"message": said} | ({"configuration": configuration} if configuration else {})).encode()


async def away(world: World, **settings: Any) -> None:
    """A workspace whose agent does not listen, though its compute runs, and so is believed to live."""
    await world.given(sign=-1)
    world.agent().reacts.usual = fails()
    await world.start({**HELD, "queue.backoff": 0.5, "queue.backoff_cap": 0.5, "queue.sweep": 5, **settings})


@simulated
async def test_a_held_caller_gets_the_agents_answer_as_if_nothing_had_happened(world: World) -> None:
    await away(world)
    client, serving = begin(world)
    await world.until(1)
    assert client.pieces == []
    world.agent().reacts.usual = Reacts(body=old())
    await serving
    assert (client.status, client.state) == (200, "completed")
    assert json.loads(client.body)["result"]["artifacts"][0]["parts"][0]["text"] == "done"
    assert clock() < 2
    assert client.header("Content-Length") is not None
    assert client.header("Holdfast-Receipt")


@simulated
async def test_a_blank_every_two_seconds_keeps_a_json_rpc_caller_waiting(world: World) -> None:
    await away(world)
    client, serving = begin(world)
    await world.until(7)
    assert [round(second, 1) for second, _ in client.pieces] == [2.0, 2.0, 4.0, 6.0]  # the head leaves with the first
    assert (client.status, client.header("Holdfast-Receipt") is not None) == (202, True)
    assert client.header("Location") is not None
    assert client.header("Holdfast-Verdict") == "alive; rule=running"
    world.agent().reacts.usual = Reacts(body=old())
    await serving
    assert client.body.startswith(b"   {")
    assert client.state == "completed"
    assert client.said.endswith(b"0\r\n\r\n")


@simulated
async def test_what_a_caller_has_waited_while_its_agent_was_called_counts(world: World) -> None:
    """A host that swallows everything is given up after seconds in which its caller hears nothing."""
    await away(world)
    world.agent().reacts.usual = fails(after=2.5)
    client, serving = begin(world, message(message_id="m-2"))
    rest_client, rest_serving = begin(world, rest(), tail="/message:send", A2A_Version="1.0")
    await rest_serving
    assert (round(clock(), 1), rest_client.status, rest_client.state) == (4.0, 202, "TASK_STATE_SUBMITTED")
    assert [round(second, 1) for second, _ in client.pieces] == [2.5, 2.5]
    world.agent().reacts.usual = Reacts(body=old())
    await serving
    assert client.state == "completed"


@simulated
async def test_when_the_time_is_up_the_caller_gets_its_submitted_task(world: World) -> None:
    await away(world)
    client, serving = begin(world)
    await serving
    assert round(clock(), 1) == 90.0
    assert (client.status, client.state) == (202, "submitted")
    assert await world.waiting()


@simulated
async def test_clients_that_take_nothing_but_200_get_it_with_the_first_blank(world: World) -> None:
    await away(world)
    client, serving = begin(world, User_Agent="Go-http-client/2.0")
    await serving
    assert (client.status, client.state) == (200, "submitted")


@pytest.mark.parametrize(
    ("headers", "blocking", "seconds"),
    [
        ({}, False, 0),
        ({"Prefer": "respond-async"}, True, 0),
        ({"Prefer": "wait=10"}, True, 10),
        ({"Prefer": "respond-async, wait=10"}, True, 10),
        ({"Prefer": "wait=120"}, True, 120),
        ({"X-Timeout": "7"}, True, 7),
        ({"X-Timeout": "7", "Prefer": "wait=3"}, True, 3),
        ({"Prefer": "wait=3"}, False, 0),
        ({}, True, 90),
    ],
)
def test_who_waits_for_how_long(
    world: World,
    headers: dict[str, str],
    blocking: bool,
    seconds: float,
) -> None:
    @simulated
    async def told(world: World) -> None:
        await away(world)
        said = json.loads(message())
        said["params"]["configuration"] = {"blocking": blocking}
        client, serving = begin(world, json.dumps(said).encode(), **headers)
        await serving
        assert round(clock(), 1) == seconds
        assert (client.status, client.state) == (202, "submitted")

    told(world=world)


@pytest.mark.parametrize(
    ("version", "tail", "prefer", "seconds"),
    [("1.0", "/message:send", "", 4), ("0.3", "/v1/message:send", "", 4), ("1.0", "/message:send", "wait=30", 30)],
)
def test_a_rest_caller_waits_in_silence_and_not_for_long(
    world: World, version: str, tail: str, prefer: str, seconds: float
) -> None:
    @simulated
    async def told(world: World) -> None:
        await away(world)
        client, serving = begin(world, rest(), tail, A2A_Version=version, **({"Prefer": prefer} if prefer else {}))
        await world.until(seconds - 0.1)
        assert client.pieces == []
        await serving
        assert round(clock(), 1) == seconds
        assert (client.status, client.state) == (202, "TASK_STATE_SUBMITTED")
        assert list(json.loads(client.body)) == ["task"]

    told(world=world)


@simulated
async def test_a_rest_caller_whose_agent_comes_back_in_time_gets_the_task(world: World) -> None:
    await away(world)
    client, serving = begin(world, rest(), "/message:send", A2A_Version="1.0")
    await world.until(2)
    done = {"task": {"id": "up", "contextId": "c", "status": {"state": "TASK_STATE_COMPLETED"}}}
    world.agent().reacts.usual = Reacts(body=json.dumps(done).encode())
    await serving
    assert (client.status, client.state) == (200, "TASK_STATE_COMPLETED")


@pytest.mark.parametrize(("seconds", "status"), [(1, 200), (3, 202)])
def test_the_agents_own_error_comes_under_the_callers_id(world: World, seconds: float, status: int) -> None:
    @simulated
    async def told(world: World) -> None:
        await away(world)
        client, serving = begin(world)
        await world.until(seconds)
        said = {"jsonrpc": "2.0", "id": 99, "error": {"code": -32602, "message": "no such skill"}}
        world.agent().reacts.usual = Reacts(body=json.dumps(said).encode())
        await serving
        assert client.status == status
        assert json.loads(client.body) == {**said, "id": 1}

    told(world=world)


@simulated
async def test_a_request_that_is_given_up_ends_the_wait_with_a_task_that_says_why(world: World) -> None:
    await away(world, **{"queue.attempts": 2})
    client, serving = begin(world)
    await world.until(3)
    world.agent().reacts.usual = fails(RESET)
    await serving
    assert client.state == "failed"
    assert "attempts used up" in client.body.decode()


@simulated
async def test_what_is_no_a2a_waits_only_if_it_asks_to(world: World) -> None:
    await away(world)
    client, serving = begin(world, b"ping", "/hook", Content_Type="text/plain")
    await serving
    assert (clock(), client.status, json.loads(client.body)["queued"]) == (0, 202, True)
    client, serving = begin(world, b"pong", "/hook", Content_Type="text/plain", Prefer="wait=20")
    await world.until(5)
    assert client.pieces == []
    world.agent().reacts.usual = Reacts(body=b"done", headers=((b"Content-Type", b"text/plain"),))
    await serving
    assert (client.status, client.body) == (200, b"done")


@simulated
async def test_over_the_bounds_callers_get_their_receipt_at_once(world: World) -> None:
    await away(world, **{"hold.count": 2})
    waiting = [begin(world, message(message_id=f"m-{number}")) for number in range(3)]
    await world.until(1)
    assert [client.pieces != [] for client, _ in waiting] == [False, False, True]
    waiting[0][0].leave()
    await asyncio.wait({waiting[0][1]})
    late, serving = begin(world, message(message_id="late"))
    await world.until(1.5)
    assert late.pieces == []  # whoever leaves makes room
    world.agent().reacts.usual = Reacts(body=old())
    await asyncio.gather(serving, *(task for _, task in waiting))
    assert len(world.app.server._calls._holding.callers) == 0


@simulated
async def test_the_bytes_of_held_requests_are_bounded_too(world: World) -> None:
    await away(world, **{"hold.bytes": 3000})
    waiting = [begin(world, message("x" * 1000, message_id=f"m-{number}")) for number in range(3)]
    await world.until(1)
    assert [client.pieces != [] for client, _ in waiting] == [False, False, True]


@simulated
async def test_a_client_that_leaves_loses_nothing(world: World) -> None:
    await away(world)
    client, serving = begin(world)
    await world.until(3)
    client.leave()
    await asyncio.wait({serving})
    (deferral,) = await world.waiting()
    world.agent().reacts.usual = Reacts(body=old())
    await world.until(5)
    assert (await world.deferral(deferral.id)).state == "completed"


@simulated
async def test_a_stopping_proxy_answers_whoever_waits(world: World) -> None:
    await away(world)
    early, first = begin(world)
    await world.until(3)
    late, second = begin(world, message(message_id="m-2"))
    await world.until(3.5)
    await world.app.stop(drain=0)
    await asyncio.gather(first, second)
    assert clock() < 4
    assert [(client.status, client.state) for client in (early, late)] == [(202, "submitted")] * 2


@simulated
async def test_a_repeated_send_waits_with_the_first(world: World) -> None:
    await away(world)
    first, one = begin(world)
    await world.until(1)
    again = json.loads(message()) | {"id": "another"}
    second, two = begin(world, json.dumps(again).encode())
    await world.until(5)
    world.agent().reacts.usual = Reacts(body=old())
    await asyncio.gather(one, two)
    assert [json.loads(client.body)["id"] for client in (first, second)] == [1, "another"]
    assert [client.state for client in (first, second)] == ["completed"] * 2
    assert first.header("Holdfast-Receipt") == second.header("Holdfast-Receipt")


@simulated
async def test_a_send_behind_others_waits(world: World) -> None:
    await away(world)
    _, one = begin(world, message(context_id="talk"))
    await world.until(0.1)
    second, two = begin(world, message(message_id="m-2", context_id="talk"))
    await world.until(1)
    assert second.pieces == []
    world.agent().reacts.usual = Reacts(body=old())
    await asyncio.gather(one, two)
    assert (second.status, second.state) == (200, "completed")
    assert second.header("Holdfast-Verdict") == "busy; rule=order"


@simulated
async def test_callers_of_a_polling_workspace_wait(world: World) -> None:
    await world.given(delivery_mode=DeliveryMode.POLL)
    await world.start(HELD)
    client, serving = begin(world)
    await world.until(3)
    poller = Poller(world)
    await poller.claim()
    await poller.complete(json.loads(old()))
    await serving
    assert (client.status, client.state) == (202, "completed")


@simulated
async def test_a_parked_workspaces_callers_wait(world: World) -> None:
    await world.given(desired=Desired.PAUSED)
    await world.start({"defaults.hold_seconds": 5})
    client, serving = begin(world)
    await serving
    assert (round(clock(), 1), client.status, client.state) == (5.0, 202, "submitted")


@simulated
async def test_a_workspace_says_for_how_long_its_callers_wait(world: World) -> None:
    await world.given(sign=-1, settings=Settings(hold_seconds=8))
    world.agent().reacts.usual = fails()
    await world.start(HELD)
    _, serving = begin(world)
    await serving
    assert round(clock(), 1) == 8.0


@simulated
async def test_what_was_waited_for_a_call_counts_for_the_wait_that_was_asked_for(world: World) -> None:
    await away(world)
    world.agent().reacts.usual = fails(after=6)
    client, serving = begin(world, Prefer="wait=10")
    await serving
    assert round(clock(), 1) == 10.0
    assert client.status == 202


@simulated
async def test_a_slow_healthy_call_is_never_answered_early(world: World) -> None:
    await world.given(sign=-1)
    world.agent().reacts.usual = Reacts(after=300, body=old())
    await world.start(HELD)
    client, serving = begin(world)
    await serving
    assert (round(clock()), client.status) == (300, 200)
    assert [round(second) for second, _ in client.pieces] == [300] * len(client.pieces)


@simulated
async def test_a_dead_agents_caller_with_defer_waits_through_its_restart(world: World) -> None:
    await world.given(sign=-100, settings=Settings(dead_action="defer"))
    world.agent().reacts.usual = fails()
    machine = world.machine()
    machine.says.usual = ProbeState.NOT_RUNNING
    machine.starts.usual = 20.0
    await world.start(HELD)
    client, serving = begin(world)
    await world.until(10)
    world.agent().reacts.usual = Reacts(body=old())
    await serving
    assert (client.status, client.state) == (202, "completed")
    assert 20 < clock() < 60
