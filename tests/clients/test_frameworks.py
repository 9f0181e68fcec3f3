"""google-adk, Strands and BeeAI, unchanged, get their answer although the agent was away for a minute."""

from pathlib import Path

import pytest
from clients.frameworks import FRAMEWORKS, through_an_outage
from clients.stage import Stage

OUTAGE = 60.0


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("generation", ["1.x", "0.3.x"])
async def test_a_framework_gets_its_answer_through_a_minute_without_the_agent(tmp_path: Path, generation: str) -> None:
    async with Stage(tmp_path, generation) as stage:
        got = await through_an_outage(stage, OUTAGE)
        assert {one.framework: one.answer for one in got} == dict.fromkeys(FRAMEWORKS, "echo: hello"), got
        assert all(one.lines[-1][0] >= OUTAGE for one in got), got
        assert len(stage.agent.executed()) == len(FRAMEWORKS)
