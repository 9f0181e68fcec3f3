"""What each probe asks, and what it makes of the answer."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from proxy import probes
from proxy.core.liveness import ProbeState
from proxy.probes import Fetched, ProbeContext, Reading, Target

BASE = "http://127.0.0.1:9000/agent/?key=1#top"


class Wire:
    """Answers with one status or state, and keeps what was asked."""

    def __init__(
        self,
        *,
        status: int = 200,
        state: ProbeState = ProbeState.RUNNING,
        headers: tuple[tuple[bytes, bytes], ...] = (),
        body: bytes | None = None,
    ) -> None:
        self.status = status
        self.headers = headers
        self.body = body
        self.state = state
        self.asked: list[Any] = []

    async def inspect(self, workspace_id: str, incarnation: int) -> ProbeState:
        self.asked.append((workspace_id, incarnation))
        return self.state

    async def fetch(self, url: str, *, timeout: float, max_bytes: int) -> Fetched:  # noqa: ASYNC109 - the contract's
        self.asked.append(url)
        assert timeout > 0
        assert max_bytes > 0
        return Fetched(status=self.status, headers=self.headers, body=self.body)

    async def connect(self, host: str, port: int, *, timeout: float) -> None:  # noqa: ASYNC109 - the contract's
        self.asked.append((host, port))
        assert timeout > 0

    def context(self) -> ProbeContext:
        return ProbeContext(inspect=self.inspect, fetch=self.fetch, connect=self.connect)


async def probe(name: str, wire: Wire, url: str | None = BASE, spec: Mapping[str, Any] | None = None) -> Reading:
    target = Target(workspace_id="alpha", incarnation=3, url=url, spec=spec or {})
    return await probes.create(name, wire.context()).probe(target, 1)


@pytest.mark.parametrize("state", list(ProbeState))
async def test_the_runtimes_word_passes_as_it_is_and_only_running_is_ready(state: ProbeState) -> None:
    wire = Wire(state=state)
    reading = await probe("runtime", wire, url=None)
    assert (reading.ready, reading.state) == (state is ProbeState.RUNNING, state)
    assert wire.asked == [("alpha", 3)]


@pytest.mark.parametrize("name", ["agent_card", "http"])
@pytest.mark.parametrize(
    ("status", "ready"), [(200, True), (302, True), (401, True), (404, True), (499, True), (500, False), (503, False)]
)
async def test_any_status_below_500_is_somebody_who_serves(name: str, status: int, ready: bool) -> None:
    wire = Wire(status=status)
    assert await probe(name, wire) == Reading(ready=ready, state=None, detail=f"answered {status}")
    assert len(wire.asked) == 1, "a redirect is not followed"


@pytest.mark.parametrize(
    ("url", "asked"),
    [
        ("http://h:1", "http://h:1/.well-known/agent-card.json"),
        ("http://h:1/", "http://h:1/.well-known/agent-card.json"),
        (BASE, "http://127.0.0.1:9000/agent/.well-known/agent-card.json"),
        ("https://[::1]:8443/a/b", "https://[::1]:8443/a/b/.well-known/agent-card.json"),
    ],
)
async def test_the_card_is_asked_for_below_the_agents_base_url(url: str, asked: str) -> None:
    wire = Wire()
    await probe("agent_card", wire, url)
    assert wire.asked == [asked]


@pytest.mark.parametrize(
    ("status", "headers", "kept"),
    [
        (200, (), True),
        (200, ((b"Cache-Control", b"max-age=60, public"),), True),
        (200, ((b"cache-control", b"Private"),), False),
        (200, ((b"Cache-Control", b"max-age=0"), (b"Cache-Control", b"no-store")), False),
        (401, (), False),
        (503, (), False),
    ],
)
async def test_a_card_is_handed_on_unless_something_speaks_against_keeping_it(
    status: int, headers: tuple[tuple[bytes, bytes], ...], kept: bool
) -> None:
    reading = await probe("agent_card", Wire(status=status, headers=headers, body=b'{"name":"a"}'))
    assert reading.card == (b'{"name":"a"}' if kept else None)
    assert (await probe("http", Wire(status=status, headers=headers, body=b'{"name":"a"}'))).card is None


@pytest.mark.parametrize(
    ("spec", "asked"),
    [
        ({}, "http://127.0.0.1:9000/"),
        ({"path": "/healthz"}, "http://127.0.0.1:9000/healthz"),
        ({"path": "/healthz?deep=1"}, "http://127.0.0.1:9000/healthz?deep=1"),
    ],
)
async def test_an_http_path_is_on_the_origin(spec: dict[str, Any], asked: str) -> None:
    wire = Wire()
    await probe("http", wire, spec=spec)
    assert wire.asked == [asked]


@pytest.mark.parametrize(
    ("url", "spec", "asked"),
    [
        (BASE, {}, ("127.0.0.1", 9000)),
        (BASE, {"port": 9001}, ("127.0.0.1", 9001)),
        ("http://agent", {}, ("agent", 80)),
        ("https://agent/a", {}, ("agent", 443)),
        ("http://[::1]:7", {}, ("::1", 7)),
    ],
)
async def test_a_connection_goes_to_the_host_of_the_url(url: str, spec: dict[str, Any], asked: tuple[str, int]) -> None:
    wire = Wire()
    assert (await probe("tcp", wire, url, spec)).ready
    assert wire.asked == [asked]


@pytest.mark.parametrize("url", ["//host-without-a-scheme", "agent", "http:///path"])
async def test_no_connection_is_tried_without_a_host_and_a_port(url: str) -> None:
    wire = Wire()
    assert (await probe("tcp", wire, url)).ready is False
    assert wire.asked == []


@pytest.mark.parametrize(
    ("name", "spec", "named"),
    [
        ("http", {"path": "healthz"}, "probe.path"),
        ("http", {"path": "//other.host/healthz"}, "probe.path"),
        ("http", {"path": "http://other.host/"}, "probe.path"),
        ("http", {"path": "/a b"}, "probe.path"),
        ("http", {"path": "/a\r\nHost: b"}, "probe.path"),
        ("http", {"path": 7}, "probe.path"),
        ("tcp", {"port": 0}, "probe.port"),
        ("tcp", {"port": 65536}, "probe.port"),
        ("tcp", {"port": "80"}, "probe.port"),
        ("tcp", {"port": True}, "probe.port"),
        ("agent_card", {"path": "/card"}, "probe.path"),
        ("runtime", {"port": 80}, "probe.port"),
    ],
)
def test_a_section_that_cannot_be_used_names_the_setting(name: str, spec: dict[str, Any], named: str) -> None:
    (problem,) = probes.create(name, Wire().context()).check({"type": name, **spec})
    assert problem.startswith(named)


async def test_real_sockets_carry_a_tcp_probe() -> None:
    async def connect(host: str, port: int, *, timeout: float) -> None:  # noqa: ASYNC109 - the contract's
        async with asyncio.timeout(timeout):
            _, writer = await asyncio.open_connection(host, port)
        writer.close()
        await writer.wait_closed()

    wire = Wire()
    context = ProbeContext(inspect=wire.inspect, fetch=wire.fetch, connect=connect)
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    target = Target(workspace_id="alpha", incarnation=1, url=f"http://127.0.0.1:{port}")
    tcp = probes.create("tcp", context)
    assert (await tcp.probe(target, 5)).ready
    server.close()
    await server.wait_closed()
    assert await tcp.probe(target, 5) == Reading(
        ready=False, state=None, detail="no connection: ConnectionRefusedError"
    )
