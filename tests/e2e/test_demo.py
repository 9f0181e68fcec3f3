"""`holdfast demo` as its user meets it: a real process, and what it says when it cannot begin."""

import asyncio
import re
import sys

import pytest

from proxy.demo import stage, story

ROWS = re.compile(r"^  ([a-z ]+?)\s+(\d+)\b", re.MULTILINE)


@pytest.mark.long
@pytest.mark.timeout(240)
async def test_the_demo_keeps_its_promise_and_says_so():
    demo = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "proxy", "demo", "--quick", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    said, complaints = (text.decode() for text in await demo.communicate())
    assert demo.returncode == 0, said + complaints
    assert complaints == ""
    assert "\x1b" not in said
    assert "FAILED" not in said
    table = {name: int(number) for name, number in ROWS.findall(said)}
    assert table["sent"] == table["answered"] + table["deferred"] + table["refused"]
    assert table["replayed"] == table["deferred"] > 0
    assert table["refused"] == 1
    assert table["lost"] == 0
    assert table["duplicates"] >= 1
    assert table["true restarts"] >= 5  # one death in the first act, two of each agent in the third
    assert table["false restarts"] == 0


async def test_a_stage_that_never_comes_up_is_no_failure_of_the_product(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(stage, "SERVE_LIMIT", 0.0)
    assert await story.play(quick=True) == story.NEVER_CAME_UP
    said = " ".join(capsys.readouterr().out.split())
    assert "could not be set up, so it says nothing about Holdfast" in said
    assert "did not serve within 0 s" in said
    (kept,) = tmp_path.iterdir()
    assert said.endswith(f"What was written lies in {kept}")


async def test_a_proxy_that_falls_in_the_middle_is_a_failure_of_the_product(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    async def fall(self: story.Story) -> None:
        serve = self._stage._serve
        serve.kill()
        await serve.wait()
        await self._stage.decisions("worker")

    async def nothing(self: story.Story) -> None:
        pass

    monkeypatch.setattr(story.Story, "_set_up", nothing)
    monkeypatch.setattr(story.Story, "_kill_in_traffic", fall)
    code = await story.play(quick=True)
    said = " ".join(capsys.readouterr().out.split())
    assert code == story.PRODUCT_FAILED, said
    assert "Holdfast did not answer in the middle of the demo (it ended with code -9" in said
    assert "proxy.started" in said
