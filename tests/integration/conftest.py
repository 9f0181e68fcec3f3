"""Fixtures: a proxy process that a module shares, an agent on the SDK's server, the SDK's own client between the two.

Every test runs on the event loop of its module (`loop_scope="module"`), where the proxy lives.
"""

from collections.abc import AsyncIterator
from itertools import count

import httpx
import pytest
import pytest_asyncio
from a2a.client import Client, ClientConfig, ClientFactory
from e2e.agents import end_all
from e2e.serving import PATIENCE, Serving
from integration.sdk_agent import SdkAgent

NUMBERS = count(1)


class Scene:
    """One workspace, whose agent speaks one version of the protocol, and a caller's token."""

    def __init__(self, proxy: Serving, agent: SdkAgent, name: str, token: str) -> None:
        self.proxy = proxy
        self.agent = agent
        self.name = name
        self.token = token
        self._http: list[httpx.AsyncClient] = []

    async def client(self, *, streaming: bool = False, name: str | None = None) -> Client:
        """The SDK's client, made from the card that it fetched through the proxy."""
        http = httpx.AsyncClient(headers={"Holdfast-Token": self.token}, timeout=PATIENCE, trust_env=False)
        self._http.append(http)
        factory = ClientFactory(ClientConfig(streaming=streaming, httpx_client=http))
        return await factory.create_from_url(self.address(name or self.name))

    def address(self, name: str) -> str:
        """Where callers find a workspace's agent."""
        return f"{self.proxy.url}/workspaces/{name}/a2a"

    async def completed(self, count: int = 1, name: str | None = None) -> None:
        """Wait until so many deferrals have been done."""
        await self.proxy.event("deferral.completed", count=count, workspace=name or self.name)

    async def revive_proxy(self) -> None:
        """SIGKILL the proxy and start it again."""
        await self.proxy.kill()
        await self.proxy.start()

    async def aclose(self) -> None:
        """Close every client."""
        for http in self._http:
            await http.aclose()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Serving]:
    serving = Serving(tmp_path_factory.mktemp("shared"))
    await serving.start()
    yield serving
    await serving.kill()
    end_all(serving.folder)


@pytest.fixture(params=["1.0", "0.3"])
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest_asyncio.fixture(loop_scope="module")
async def scene(shared: Serving, version: str) -> AsyncIterator[Scene]:
    agent, name = SdkAgent(version), f"sdk-{next(NUMBERS)}"
    await agent.start()
    await shared.enroll(name, url=agent.url, unmanaged_away="defer")
    await shared.event("workspace.status", workspace=name, status="ready")
    ready = Scene(shared, agent, name, await shared.client(f"caller-of-{name}"))
    yield ready
    await ready.aclose()
    await agent.stop()
