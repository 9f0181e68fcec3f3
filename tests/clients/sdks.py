"""What each A2A SDK's user sees while an agent is away: the events that its client gave, in short.

Owns: which questions, how events are written down.
Knows nothing of: the wire (`exchanges`), how an SDK is used (`peers/client_*`).
"""

import asyncio
from pathlib import Path
from typing import Final

from clients.stage import Stage
from peers.talking import SDKS, Call, ClientError, Event, Talker

OUTAGE: Final = 7.0
BINDINGS: Final = {"JSONRPC": "JSON-RPC", "HTTP+JSON": "REST"}
VERSIONS: Final = {
    "1.x": "a2a-sdk 1.x (Python)",
    "0.3.x": "a2a-sdk 0.3.x (Python)",
    "js 1.x": "@a2a-js/sdk 1.x",
    "js 0.3.x": "@a2a-js/sdk 0.3.x",
}
QUESTIONS: Final = {"waits": "unary", "does not wait": "now", "streams": "stream"}


def said(event: Event) -> str:
    """One event, in short."""
    if event["kind"] == "task":
        return f"task {event['state']}" + (f" “{event['text']}”" if event["text"] else "")
    if event["kind"] == "status":
        return str(event["state"])
    return f"{event['kind']} “{event['text']}”"


async def told(call: Call) -> str:
    """All that a call gave, with the seconds at which the first and the last came."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    try:
        await call.at_least(1)
        first = loop.time() - began
        events = await call.all(within=60)
    except (ClientError, AssertionError, TimeoutError) as problem:
        return f"**{type(problem).__name__}: {problem}**"
    last = loop.time() - began
    seconds = f"{first:.1f} s" if last - first < 1 else f"{first:.1f} to {last:.1f} s"
    return f"{' → '.join(map(said, events))} ({seconds})"


async def through_an_outage(stage: Stage, folder: Path) -> str:
    """A table: one line for each SDK and binding, one column for each question."""
    talkers = {sdk: Talker(sdk, folder / f"{sdk}.log") for sdk in SDKS}
    lines = [(sdk, binding) for sdk in SDKS for binding in BINDINGS]
    for talker in talkers.values():
        await talker.start()
    try:
        for sdk, binding in lines:
            await talkers[sdk].do(binding, "connect", url=stage.url, token=stage.token, binding=binding).all()
        async with stage.outage(OUTAGE):
            cells = [_ask(talkers[sdk], sdk, binding, mode) for sdk, binding in lines for mode in QUESTIONS.values()]
            found = await asyncio.gather(*cells)
    finally:
        for talker in talkers.values():
            await talker.stop()
    rows = [f"| client | {' | '.join(QUESTIONS)} |", "| --- " * (len(QUESTIONS) + 1) + "|"]
    for number, (sdk, binding) in enumerate(lines):
        seen = found[number * len(QUESTIONS) : (number + 1) * len(QUESTIONS)]
        rows.append(f"| {VERSIONS[sdk]}, {BINDINGS[binding]} | {' | '.join(seen)} |")
    return "\n".join(rows)


async def _ask(talker: Talker, sdk: str, binding: str, mode: str) -> str:
    name = f"{sdk}-{binding}-{mode}"
    return await told(talker.do(binding, "send", mode=mode, text="hello", message=name))
