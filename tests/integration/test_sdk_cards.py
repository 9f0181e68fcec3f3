"""Agent cards on their way to the A2A SDK's own client: fetched through Holdfast, verified, talked by."""

from pathlib import Path

import httpx
import pytest
from a2a.client import A2ACardResolver, ClientConfig, ClientFactory
from a2a.types import AgentCard
from core.card_signatures import check
from cryptography.exceptions import InvalidSignature
from e2e.agents import end_all
from e2e.serving import PATIENCE, Serving
from integration.conftest import Scene
from integration.sdk_agent import SdkAgent
from integration.test_sdk_clients import message, task_for, text_of

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_the_client_talks_by_a_card_that_was_kept(scene: Scene) -> None:
    """The agent is away when the client looks for its card; the client finds it, sends, and is answered later."""
    await scene.client()  # one that was there before: a card has passed
    await scene.proxy.event("card.kept", workspace=scene.name)
    await scene.agent.stop()
    client = await scene.client()
    card = client._card  # type: ignore[attr-defined]  # there is no public way to it
    assert [one.url.rstrip("/") for one in card.supported_interfaces] == [scene.address(scene.name)]
    task = await task_for(client, message("hello", f"kept-{scene.name}"))
    await scene.agent.start()
    await scene.completed()
    assert scene.agent.executor.executed[-1][0] == f"kept-{scene.name}"
    assert task.id


@pytest.mark.parametrize("speaks", ["1.0", "0.3"])
async def test_the_client_verifies_the_card_with_the_published_keys_and_talks_by_it(
    tmp_path: Path, speaks: str
) -> None:
    serving, agent = Serving(tmp_path), SdkAgent(speaks)
    serving.settings = {"cards.signatures": "resign", "public_url": serving.url}
    await serving.start()
    await agent.start()
    try:
        await serving.enroll("signed", url=agent.url)
        address, token = f"{serving.url}/workspaces/signed/a2a", await serving.client("caller")
        async with httpx.AsyncClient(headers={"Holdfast-Token": token}, timeout=PATIENCE, trust_env=False) as http:
            jwks = (await http.get(f"{serving.url}/.well-known/jwks.json")).json()
            verified: list[str] = []

            def verify(card: AgentCard) -> None:
                verified.append(check(card, jwks)["jku"])

            card = await A2ACardResolver(http, address).get_agent_card(signature_verifier=verify)
            assert verified == [f"{serving.url}/.well-known/jwks.json"]
            forged = AgentCard()
            forged.CopyFrom(card)
            forged.supported_interfaces[0].url = "https://elsewhere.example"
            with pytest.raises(InvalidSignature):
                check(forged, jwks)
            client = ClientFactory(ClientConfig(streaming=False, httpx_client=http)).create(card)
            assert text_of(await task_for(client, message("hello"))) == "echo: hello"
    finally:
        await agent.stop()
        await serving.kill()
        end_all(tmp_path)
