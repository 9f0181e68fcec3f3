"""Agent frameworks, unchanged, in environments of their own, asking an agent that is away.

Owns: which frameworks, running all of them through one outage, what their users got.
Knows nothing of: how a framework is used (`peers/framework_*.py`).
"""

import asyncio
import json
from dataclasses import dataclass
from typing import Any, Final

from clients.stage import Stage
from peers.running import HERE, plain_environment, python_of

FRAMEWORKS: Final = {
    "google-adk": ("framework_adk.py", "google-adk", "RemoteA2aAgent"),
    "Strands": ("framework_strands.py", "strands-agents", "A2AAgent"),
    "BeeAI": ("framework_beeai.py", "beeai-framework", "A2AAgent"),
}
"""Name: program, package, class."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Got:
    """What a framework's user got, line by line, with the seconds since the question."""

    framework: str
    lines: tuple[tuple[float, dict[str, Any]], ...]
    errors: str

    @property
    def answer(self) -> str | None:
        """The answer, as the framework gives it to its user."""
        return next((str(line["answer"]) for _, line in self.lines if "answer" in line), None)


async def ask(stage: Stage, framework: str, text: str) -> Got:
    """Ask once; the seconds count from the start of the process."""
    program, _, _ = FRAMEWORKS[framework]
    words = (python_of(environment(framework)), str(HERE / program), stage.url, stage.token, text)
    process = await asyncio.create_subprocess_exec(
        *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=plain_environment()
    )
    assert process.stdout is not None
    assert process.stderr is not None
    loop, lines = asyncio.get_running_loop(), list[tuple[float, dict[str, Any]]]()
    began, errors = loop.time(), asyncio.create_task(process.stderr.read())
    async for line in process.stdout:
        lines.append((loop.time() - began, json.loads(line)))
    await process.wait()
    return Got(framework=framework, lines=tuple(lines), errors=(await errors).decode(errors="replace"))


def environment(framework: str) -> str:
    """The pinned environment of a framework."""
    return {"google-adk": "google-adk", "Strands": "strands", "BeeAI": "beeai"}[framework]


async def through_an_outage(stage: Stage, seconds: float) -> list[Got]:
    """Ask with every framework while the agent is away for so many seconds."""
    for framework in FRAMEWORKS:
        python_of(environment(framework))
    async with stage.outage(seconds):
        return list(await asyncio.gather(*(ask(stage, framework, "hello") for framework in FRAMEWORKS)))
