"""A real process that is killed while it writes: whatever it said is committed is there afterwards."""

import asyncio
import random
import signal
import subprocess
import sys
from pathlib import Path

from store.examples import a_workspace

from proxy.store.sqlite import SqliteStore

ROOT = Path(__file__).parents[2]
ROUNDS = 10

WRITER = """
import asyncio, os, sys
from pathlib import Path
from store.examples import NO_LIMITS, a_deferral
from proxy.store.sqlite import SqliteStore

async def main():
    store = SqliteStore(Path(sys.argv[1]))
    await store.open()

    async def write(lane):
        for n in range(1_000_000):
            name = f"{sys.argv[2]}-{lane}-{n}"
            await store.enqueue(a_deferral(name, context_id=f"c{n % 3}"), limits=NO_LIMITS)
            os.write(1, f"{name}\\n".encode())

    await asyncio.gather(*(write(lane) for lane in range(8)))

asyncio.run(main())
"""


def write_until_killed(path: Path, name: str, lines: int) -> list[str]:
    """Start a writer, kill it after it has reported `lines` commits, return all that it reported."""
    words = [sys.executable, "-c", WRITER, str(path), name]
    env = {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    with subprocess.Popen(words, cwd=ROOT, env=env, stdout=subprocess.PIPE) as child:  # noqa: S603 - our own words
        assert child.stdout is not None
        reported = [child.stdout.readline() for _ in range(lines)]
        child.send_signal(signal.SIGKILL)
        reported += child.stdout.readlines()
    # The kill may have torn the last line: who was not told was not promised anything.
    return [line.decode().strip() for line in reported if line.endswith(b"\n")]


async def test_scenario_46_whatever_a_killed_proxy_reported_as_committed_is_there(tmp_path: Path):
    path = tmp_path / "holdfast.db"
    store = SqliteStore(path)
    await store.open()
    await store.create(a_workspace())
    await store.aclose()
    chance = random.Random(46)  # noqa: S311 - chance that can be repeated
    promised: set[str] = set()
    for turn in range(ROUNDS):
        lines = chance.randrange(1, 200)
        reported = await asyncio.to_thread(write_until_killed, path, f"r{turn}", lines)
        assert len(reported) >= lines
        promised |= set(reported)
    await store.open()
    there = await store.deferrals(limit=1_000_000)
    assert promised <= {deferral.id for deferral in there}
    sizes = (await store.snapshot(restarts_since=there[0].enqueued_at, completed_since=there[0].enqueued_at)).sizes
    assert sizes["w"].rows == len(there), "the counters are committed with the rows"
    await store.aclose()
