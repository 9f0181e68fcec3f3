"""The poller on the documents' page does what the page says."""

import asyncio
import os
import re
import sys
from pathlib import Path

from tree import ROOT
from web.harness import Harness

PAGE = ROOT / "docs" / "polling.md"


async def test_the_poller_of_the_page_answers(proxy: Harness, tmp_path: Path) -> None:
    found = re.search(r"^```python\n(.+?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert found is not None
    assert len(found[1].strip().splitlines()) <= 36
    program = tmp_path / "poller.py"
    program.write_text(found[1], encoding="utf-8")
    token = await proxy.enroll("writer", delivery_mode="poll")
    client = await proxy.client()
    _, said = await proxy.send("writer", client, message_id="m1", text="hello")
    settings = {"HOLDFAST_URL": proxy.url, "HOLDFAST_WORKSPACE_ID": "writer", "HOLDFAST_TOKEN": token}
    poller = await asyncio.create_subprocess_exec(sys.executable, str(program), env={**os.environ, **settings})
    try:
        await proxy.until(lambda: bool(proxy.named("deferral.completed")))
    finally:
        poller.kill()
        await poller.wait()
    kept = await proxy.app.store.deferral_of_task("writer", said["result"]["task"]["id"])
    assert kept is not None
    assert kept.task is not None
    assert b"you said hello" in kept.task.json
