"""Strands as its users write it: an A2AAgent, asked once. `PROGRAM URL TOKEN TEXT`.

Owns: telling what the framework's user gets, one line of JSON each.
Knows nothing of: proxies, but that some server wants a token in a header. It runs in an environment of its own.
"""

import asyncio
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import httpx
import spoken
from a2a.client import ClientConfig
from strands.agent.a2a_agent import A2AAgent


async def main(url: str, token: str, text: str) -> None:
    """Ask once."""
    http = httpx.AsyncClient(headers={"Holdfast-Token": token}, timeout=300, trust_env=False)
    agent = A2AAgent(url, client_config=ClientConfig(httpx_client=http))
    result = await agent.invoke_async(text)
    words = "".join(block.get("text", "") for block in result.message["content"])
    spoken.tell(answer=words, stop_reason=result.stop_reason)


asyncio.run(main(*sys.argv[1:]))
