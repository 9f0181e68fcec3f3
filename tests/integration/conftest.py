"""Fixtures: a proxy process, an agent on the SDK's server, and the SDK's own client between the two."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from a2a.client import Client, ClientConfig, ClientFactory
from e2e.agents import end_all
from e2e.serving import PATIENCE, Serving
from integration.sdk_agent import SdkAgent


class Stage:
    """A proxy process with workspace `a`, whose agent speaks one version of the protocol, and a caller's token."""

    def __init__(self, proxy: Serving, agent: SdkAgent, token: str) -> None:
        self.proxy = proxy
        self.agent = agent
        self.token = token
        self._http: list[httpx.AsyncClient] = []

    @property
    def url(self) -> str:
        """Where callers find the agent."""
        return f"{self.proxy.url}/workspaces/a/a2a"

    async def client(self, *, streaming: bool = False) -> Client:
        """The SDK's client, made from the card that it fetched through the proxy."""
        http = httpx.AsyncClient(headers={"Holdfast-Token": self.token}, timeout=PATIENCE, trust_env=False)
        self._http.append(http)
        return await ClientFactory(ClientConfig(streaming=streaming, httpx_client=http)).create_from_url(self.url)

    async def aclose(self) -> None:
        """Close every client."""
        for http in self._http:
            await http.aclose()


@pytest.fixture(params=["1.0", "0.3"])
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def stage(tmp_path: Path, version: str) -> AsyncIterator[Stage]:
    proxy, agent = Serving(tmp_path), SdkAgent(version)
    await agent.start()
    await proxy.start()
    await proxy.enroll("a", url=agent.url, unmanaged_away="defer")
    await proxy.event("workspace.status", workspace="a", status="ready")
    ready = Stage(proxy, agent, await proxy.client())
    yield ready
    await ready.aclose()
    await proxy.kill()
    await agent.stop()
    end_all(tmp_path)
