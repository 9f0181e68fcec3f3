"""The `process` runtime across deaths at the worst moment: of the launcher, of the proxy, of the machine.

Whatever dies wherever, at most one agent runs, and it is found again.
"""

import asyncio
import contextlib
import json
import os
import select
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from proxy.core.liveness import ProbeState
from proxy.runtimes import Adopted, RuntimeFailure, launcher, process_record, sessions

REPOSITORY = Path(__file__).parents[2]

KILLED_AT_A_LINE = """
import os, signal, sys, threading
left = {at}
def trace(frame, event, arg):
    global left
    if not frame.f_code.co_filename.startswith({watched!r}):
        return None
    if event == "line":
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
    return trace
"""

LAUNCHER_KILLED_AT_A_LINE = (
    KILLED_AT_A_LINE
    + """
import runpy
sys.settrace(trace)
runpy.run_path({launcher!r}, run_name="__main__")
"""
)

PROXY = """
import asyncio, sys, datetime, pathlib
from proxy.runtimes import Launch, RuntimeContext
from proxy.runtimes.process import Runtime

async def main(data_dir, unique):
    now = lambda: datetime.datetime(2026, 1, 31, tzinfo=datetime.UTC)
    context = RuntimeContext(now=now, data_dir=pathlib.Path(data_dir), on_exit=print, owner="host-1")
    runtime = Runtime(context)
    await runtime.adopt()
    launch = Launch(workspace_id="alpha", incarnation=1, generation=1, env={{}},
        spec=dict(type="process", command=["sleep", unique]))
    {traced}
    await runtime.start(launch)
    {untraced}
    print("started", flush=True)
    await asyncio.Event().wait()

asyncio.run(main(*sys.argv[1:]))
"""


async def run_proxy(script: str, data_dir: Path, unique: str) -> bytes:
    """Run a proxy in a process of its own until it says something or dies, then make sure that it is dead."""
    proxy = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, str(data_dir), unique, cwd=REPOSITORY, stdout=asyncio.subprocess.PIPE
    )
    assert proxy.stdout is not None
    said = await proxy.stdout.readline()
    with contextlib.suppress(ProcessLookupError):
        proxy.kill()
    await proxy.wait()
    return said


def processes_of(*words: str) -> list[int]:
    """List the processes whose command line holds every word; zombies have none."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                line = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            except (FileNotFoundError, ProcessLookupError):
                continue
            if all(word in line for word in words):
                found.append(int(entry.name))
    return found


def wait_for_launchers(folder: Path) -> None:
    """Wait until no launcher that a dead proxy left behind is on its way any more."""
    for pid in processes_of(str(folder)):
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        with os.fdopen(pidfd):
            poll = select.poll()
            poll.register(pidfd, select.POLLIN)
            if processes_of(str(folder)):
                assert poll.poll(5_000) or not processes_of(str(folder)), "a launcher neither became an agent nor ended"


async def test_a_proxy_that_is_killed_leaves_one_agent_and_the_next_one_adopts_it(bench, launch, tmp_path) -> None:
    unique = f"1000.{os.getpid()}001"
    assert await run_proxy(PROXY.format(traced="", untraced=""), tmp_path, unique) == b"started\n"
    (agent,) = processes_of("sleep", unique)
    runtime = bench.runtime()
    (adopted,) = await runtime.adopt()
    assert isinstance(adopted, Adopted)
    assert f"pid {agent} " in adopted.handle
    assert await runtime.inspect("alpha", 1) is ProbeState.RUNNING
    await runtime.start(launch(["sleep", unique]))
    assert processes_of("sleep", unique) == [agent]
    os.kill(agent, signal.SIGKILL)
    exited = await bench.exits.get()
    assert (exited.exit_code, exited.expected) == (None, False), "nobody but a parent sees the code"


@pytest.mark.parametrize("at", [20, 45, 70, 100])
async def test_wherever_the_proxy_dies_in_a_start_the_next_one_ends_with_one_agent(
    bench, launch, tmp_path, at: int
) -> None:
    unique = f"1000.{os.getpid()}1{at:03}"
    traced = "import threading; threading.settrace(trace); sys.settrace(trace); await asyncio.sleep(0)"
    script = KILLED_AT_A_LINE.format(at=at, watched=str(REPOSITORY / "proxy/runtimes"))
    script += PROXY.format(traced=traced, untraced="sys.settrace(None); threading.settrace(None)")
    await run_proxy(script, tmp_path, unique)
    runtime = bench.runtime()
    await runtime.adopt()
    await runtime.start(launch(["sleep", unique]))
    await asyncio.to_thread(wait_for_launchers, bench.folder())
    (agent,) = processes_of("sleep", unique)
    assert agent == launcher.read_record(bench.folder()).instance.pid
    assert await runtime.inspect("alpha", 1) is ProbeState.RUNNING
    await runtime.stop("alpha", 2, 5)
    assert processes_of("sleep", unique) == []


async def test_wherever_a_launcher_dies_nothing_was_started_and_the_next_start_makes_one_agent(
    bench, launch, tmp_path, monkeypatch
) -> None:
    real, dying, step = launcher.__file__, tmp_path / "dying.py", 61
    runtime, killed = bench.runtime(), 0
    for at in range(1, 2_000, step):
        generation, unique = at, f"1000.{os.getpid()}2{at:04}"
        dying.write_text(LAUNCHER_KILLED_AT_A_LINE.format(at=at, watched=real, launcher=real))
        with monkeypatch.context() as patched:
            patched.setattr(launcher, "__file__", str(dying))
            try:
                await runtime.start(launch(["sleep", unique], generation))
            except RuntimeFailure as failure:
                assert failure.reason == "launcher_died"  # noqa: PT017 - the other outcome ends the loop
            else:
                break  # it got past its last line
        killed += 1
        assert await runtime.inspect("alpha", generation) is ProbeState.NOT_RUNNING
        await runtime.start(launch(["sleep", unique], generation))
        assert len(processes_of("sleep", unique)) == 1
        await runtime.stop("alpha", generation + 1, 5)
        assert bench.exits.get_nowait().expected is True
    assert killed >= 4, "the launcher has more lines than that"
    assert len(processes_of("sleep", unique)) == 1


async def test_a_launcher_that_died_after_its_record_is_no_exit_for_the_next_proxy(bench, launch) -> None:
    before = bench.runtime()
    await before.start(launch(["sleep", "1000"]))
    await before.stop("alpha", 1, 5)
    await before.aclose()
    pid = launcher.read_record(bench.folder()).instance.pid
    os.kill(pid, signal.SIGKILL)
    record = launcher.read_record(bench.folder())
    launcher.write_record(bench.folder(), record._replace(instance=record.instance._replace(phase=launcher.LAUNCHING)))
    await asyncio.to_thread(os.waitid, os.P_PID, pid, os.WEXITED)
    after = bench.runtime()
    assert await after.adopt() == []
    assert await after.inspect("alpha", 1) is ProbeState.NOT_RUNNING
    await after.start(launch(["sleep", "1000"]))


async def test_two_starts_at_once_make_one_agent(bench, launch) -> None:
    runtime, other = bench.runtime(), bench.runtime()
    unique = f"1000.{os.getpid()}003"
    started = await asyncio.gather(
        *(each.start(launch(["sleep", unique])) for each in (runtime, runtime, other)), return_exceptions=True
    )
    assert len(set(started)) == 1, started
    assert len(processes_of("sleep", unique)) == 1
    await runtime.stop("alpha", 2, 5)
    assert processes_of("sleep", unique) == []


async def test_a_late_launcher_of_a_stopped_generation_becomes_nothing(bench, launch, monkeypatch) -> None:
    """A stop that finds nothing still bars the launcher that is waiting for the lock at that very moment."""
    runtime, spawned, spawn = bench.runtime(), threading.Event(), sessions.spawn

    def spawn_and_say(*given: Any) -> sessions.Spawned:
        made = spawn(*given)
        spawned.set()
        return made

    monkeypatch.setattr(sessions, "spawn", spawn_and_say)
    bench.folder().mkdir(parents=True)
    lock = launcher.hold(bench.folder())
    late = asyncio.create_task(runtime.start(launch(["sleep", "1000"], 1)))
    await asyncio.to_thread(spawned.wait)
    record = launcher.read_record(bench.folder())
    launcher.write_record(bench.folder(), process_record.stopping(2, "host-1")(record))
    os.close(lock)
    with pytest.raises(RuntimeFailure) as caught:
        await late
    assert caught.value.reason == "fenced"


# --- whose pid is it --------------------------------------------------------------------------------------------------


@pytest.fixture
async def mistaken(bench, launch):
    """Run one innocent process, and let alpha's record name its pid with another start time."""
    runtime = bench.runtime()
    await runtime.start(launch(["sleep", "1000"], workspace_id="innocent"))
    record = launcher.read_record(bench.folder("innocent"))
    await runtime.aclose()
    assert record.instance is not None
    bench.folder("alpha").mkdir(parents=True)

    def mistake(**changes: object) -> int:
        changed = record.instance._replace(workspace_id="alpha", phase=launcher.RUNNING, **changes)
        launcher.write_record(bench.folder("alpha"), record._replace(instance=changed))
        return record.instance.pid

    return mistake


@pytest.mark.parametrize("changes", [{"ticks": 1}, {"machine": "another-boot/pid:[1]"}], ids=["pid reused", "rebooted"])
async def test_a_pid_that_belongs_to_another_by_now_is_neither_adopted_nor_signalled(
    bench, mistaken, changes: dict[str, object]
) -> None:
    pid = mistaken(**changes)
    runtime = bench.runtime()
    told = {each.workspace_id: each for each in await runtime.adopt()}
    assert isinstance(told["innocent"], Adopted)
    assert (told["alpha"].exit_code, told["alpha"].expected) == (None, False)
    assert await runtime.inspect("alpha", 1) is ProbeState.GONE
    await runtime.stop("alpha", 2, 0)
    assert launcher.process(pid).state not in "ZX"
    assert await runtime.inspect("innocent", 1) is ProbeState.RUNNING


async def test_even_a_record_that_is_believed_running_signals_nobody_else(bench, mistaken) -> None:
    pid = mistaken(ticks=1)
    runtime = bench.runtime()
    await runtime.stop("alpha", 2, 0)
    assert launcher.process(pid).state not in "ZX"


async def test_a_record_of_another_host_is_left_alone(bench, launch) -> None:
    here, elsewhere = bench.runtime(), bench.runtime(owner="host-2")
    await here.start(launch(["sleep", "1000"]))
    assert await elsewhere.inspect("alpha", 1) is ProbeState.ERROR
    assert await elsewhere.adopt() == []
    for refused in (elsewhere.stop("alpha", 2, 0), elsewhere.start(launch(["sleep", "1000"], 2))):
        with pytest.raises(RuntimeFailure) as caught:
            await refused
        assert caught.value.reason == "foreign"
    assert await here.inspect("alpha", 1) is ProbeState.RUNNING


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"fence": 1}', '{"fence": 1, "instance": {"pid": 7}}'], ids=lambda text: text or "empty"
)
async def test_a_record_that_cannot_be_read_is_an_error_and_never_a_second_agent(bench, launch, text: str) -> None:
    runtime = bench.runtime()
    bench.folder().mkdir(parents=True)
    (bench.folder() / launcher.RECORD_FILE).write_text(text)
    assert await runtime.inspect("alpha", 1) is ProbeState.ERROR
    assert await runtime.adopt() == []
    for refused in (runtime.start(launch(["sleep", "1000"])), runtime.stop("alpha", 2, 0)):
        with pytest.raises(RuntimeFailure) as caught:
            await refused
        assert caught.value.reason == "bad_record"
    (bench.folder() / launcher.RECORD_FILE).unlink()


def test_a_record_may_not_name_init_or_everybody(tmp_path: Path) -> None:
    bare = launcher.Instance("alpha", 1, 1, "host-1", "m", 2, 1, 0, 1)
    for pid in (1, 0, -1):
        content = {"fence": 1, "instance": bare._replace(pid=pid)._asdict()}
        (tmp_path / launcher.RECORD_FILE).write_text(json.dumps(content))
        with pytest.raises(ValueError, match="no launcher can be"):
            launcher.read_record(tmp_path)
