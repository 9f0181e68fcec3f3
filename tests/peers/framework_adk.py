"""google-adk as its users write it: a RemoteA2aAgent, asked once. `PROGRAM URL TOKEN TEXT`.

Owns: telling what the framework's user gets, one line of JSON each.
Knows nothing of: proxies, but that some server wants a token in a header. It runs in an environment of its own.
"""

import asyncio
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import httpx
import spoken
from google.adk.agents.remote_a2a_agent import RemoteA2aAgent
from google.adk.runners import InMemoryRunner
from google.genai import types

CARD = "/.well-known/agent-card.json"


async def main(url: str, token: str, text: str) -> None:
    """Ask once."""
    http = httpx.AsyncClient(headers={"Holdfast-Token": token}, timeout=600, trust_env=False)
    agent = RemoteA2aAgent(name="remote", agent_card=url + CARD, httpx_client=http)
    runner = InMemoryRunner(agent=agent, app_name="app")
    session = await runner.session_service.create_session(app_name="app", user_id="user")
    said = types.Content(role="user", parts=[types.Part(text=text)])
    answer = ""
    async for event in runner.run_async(user_id="user", session_id=session.id, new_message=said):
        parts = list(event.content.parts or []) if event.content else []
        shown = [{"text": part.text, "thought": bool(part.thought)} for part in parts]
        spoken.tell(event=shown, error=event.error_message)
        answer += "".join(part.text or "" for part in parts if not part.thought)
    spoken.tell(answer=answer)


asyncio.run(main(*sys.argv[1:]))
