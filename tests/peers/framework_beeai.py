"""BeeAI as its users write it: an A2AAgent, asked once. `PROGRAM URL TOKEN TEXT`.

Owns: telling what the framework's user gets, one line of JSON each.
Knows nothing of: proxies, but that some server wants a token in a header. It runs in an environment of its own.

BeeAI fetches a card without the headers that it is given for everything else, so a user of any agent that wants
credentials hands it the card.
"""

import asyncio
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import httpx
import spoken
from a2a.client import A2ACardResolver
from beeai_framework.adapters.a2a.agents import A2AAgent
from beeai_framework.adapters.a2a.agents.agent import A2AAgentParameters, HttpxAsyncClientParameters
from beeai_framework.memory import UnconstrainedMemory


async def main(url: str, token: str, text: str) -> None:
    """Ask once."""
    headers = {"Holdfast-Token": token}
    async with httpx.AsyncClient(headers=headers, trust_env=False) as http:
        card = await A2ACardResolver(http, url).get_agent_card()
    parameters = A2AAgentParameters(httpx_async_client=HttpxAsyncClientParameters(headers=headers, trust_env=False))
    agent = A2AAgent(agent_card=card, memory=UnconstrainedMemory(), parameters=parameters)
    output = await agent.run(text)
    spoken.tell(answer=output.last_message.text)


asyncio.run(main(*sys.argv[1:]))
