"""The `command` runtime on real commands: what they get, what their exit codes mean, what happens when they fail."""

import asyncio
import errno
import os
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from proxy.core.liveness import ProbeState
from proxy.runtimes import Adopted, RuntimeFailure, command

TOKEN = "hf_" + "s" * 43
QUIET = {"watch": 0, "start_grace": 0, "inspect_timeout": 30}


def shell(line: str) -> list[str]:
    return ["sh", "-c", line]


def section(**members: Any) -> dict[str, Any]:
    """A section whose commands do nothing, and say that it runs."""
    commands = {"start": ["true"], "stop": ["true"], "inspect": ["true"]}
    return {"type": "command", **commands, **QUIET, **members}


def started(folder: Path, **members: Any) -> dict[str, Any]:
    """A section whose workload is a file: it runs while the file is there."""
    file = folder / "runs"
    return section(
        start=shell(f"touch {file}"), stop=shell(f"rm -f {file}"), inspect=shell(f"test -e {file} || exit 3"), **members
    )


# --- what a command gets ---------------------------------------------------------------------------------------------


async def test_a_command_gets_its_workspace_and_nothing_of_the_proxy_s_own_secrets(
    bench, launch, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setenv("HOLDFAST_ADMIN_TOKEN", "hf_the_proxy_s_own")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "the proxy's own")
    dump = shell(f'env > {tmp_path}/$HOLDFAST_ACTION; cp "$HOLDFAST_CONFIG_PATH" {tmp_path}/config; pwd')
    spec = section(start=dump, stop=dump, inspect=shell("exit 3"), env={"MODEL": "small"}, cwd=str(tmp_path))
    runtime = bench.runtime("command")
    own = {"HOLDFAST_TOKEN": TOKEN, "HOLDFAST_URL": "http://proxy", "HOLDFAST_BOOT_ID": "b-1"}
    await runtime.start(launch(spec, 3, incarnation=7, env=own, data=b'{"a":1}'))
    await runtime.stop("alpha", 4, 1.5)
    said = {
        verb: dict(line.split("=", 1) for line in (tmp_path / verb).read_text().splitlines() if "=" in line)
        for verb in ("start", "stop")
    }
    identity = {
        "HOLDFAST_WORKSPACE_ID": "alpha",
        "HOLDFAST_INCARNATION": "7",
        "HOLDFAST_GENERATION": "3",
        "HOLDFAST_CONFIG_PATH": str(tmp_path / "command/alpha/config.json"),
        "MODEL": "small",
    }
    assert {**identity, **own, "HOLDFAST_ACTION": "start"}.items() <= said["start"].items()
    stops = {"HOLDFAST_ACTION": "stop", "HOLDFAST_STOP_GENERATION": "4", "HOLDFAST_STOP_GRACE": "1.5"}
    assert {**identity, **stops}.items() <= said["stop"].items()
    assert "HOLDFAST_TOKEN" not in said["stop"], "the token is not kept, so that it cannot be told again"
    for names in said.values():
        assert {"HOLDFAST_ADMIN_TOKEN", "AWS_SECRET_ACCESS_KEY", "PYTHONPATH"}.isdisjoint(names)
    assert (tmp_path / "config").read_bytes() == b'{"a":1}'


async def test_what_is_kept_on_disk_is_the_proxy_s_user_s_alone_and_holds_no_token(
    bench, launch, tmp_path: Path
) -> None:
    runtime = bench.runtime("command")
    await runtime.start(launch(section(), env={"HOLDFAST_TOKEN": TOKEN}))
    folder = tmp_path / "command/alpha"
    assert {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()} == {
        "record.json": 0o600,
        "config.json": 0o600,
    }
    assert all(TOKEN not in path.read_text() for path in folder.iterdir())


# --- exit codes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "more", "state"),
    [
        ("exit 0", {}, ProbeState.RUNNING),
        ("exit 3", {}, ProbeState.NOT_RUNNING),
        ("exit 75", {}, ProbeState.STARTING),
        ("exit 1", {}, ProbeState.ERROR),
        ("exit 2", {}, ProbeState.ERROR),
        ("exit 4", {}, ProbeState.ERROR),
        ("exit 127", {}, ProbeState.ERROR),
        ("kill -9 $$", {}, ProbeState.ERROR),
        ("sleep 60", {"inspect_timeout": 0.1}, ProbeState.ERROR),
        ("exit 1", {"inspect_codes": {"stopped": [1, 3]}}, ProbeState.NOT_RUNNING),
        ("exit 4", {"inspect_codes": {"gone": [4]}}, ProbeState.GONE),
        ("exit 0", {"inspect_codes": {"running": [10]}}, ProbeState.ERROR),
    ],
)
async def test_what_an_exit_code_of_inspect_means(
    bench, launch, line: str, more: dict[str, Any], state: ProbeState
) -> None:
    runtime = bench.runtime("command")
    await runtime.start(launch(section(inspect=shell(line), **more)))
    assert await runtime.inspect("alpha", 1) is state


async def test_a_missing_inspect_program_is_an_error_and_never_a_death(bench, launch) -> None:
    runtime = bench.runtime("command")
    await runtime.start(launch(section(inspect=["/nonexistent/inspect"])))
    assert await runtime.inspect("alpha", 1) is ProbeState.ERROR


async def test_without_inspect_nothing_can_be_told_and_the_commands_own_word_is_enough(bench, launch) -> None:
    runtime = bench.runtime("command")
    spec = {"type": "command", "start": ["true"], "stop": ["true"]}
    assert runtime.check(spec) == []
    assert (runtime.can_inspect(spec), runtime.can_inspect(section())) == (False, True)
    await runtime.start(launch(spec))
    assert await runtime.inspect("alpha", 1) is ProbeState.ERROR
    await runtime.stop("alpha", 2, 0)
    assert await runtime.inspect("alpha", 1) is ProbeState.NOT_RUNNING
    assert bench.exits.get_nowait().expected is True


async def test_what_is_not_there_yet_is_starting_for_its_start_grace(bench, launch) -> None:
    runtime = bench.runtime("command")
    await runtime.start(launch(section(inspect=shell("exit 3"), start_grace=60)))
    assert await runtime.inspect("alpha", 1) is ProbeState.STARTING


async def test_one_look_is_a_doubt_and_two_in_a_row_are_an_end(bench, launch, tmp_path: Path) -> None:
    count = tmp_path / "count"
    count.write_text("")
    line = f"n=$(wc -c < {count}); printf x >> {count}; case $n in 1|3|4) exit 3;; 2) exit 1;; esac"
    runtime = bench.runtime("command")
    await runtime.start(launch(section(inspect=shell(line), watch=0.01)))
    told = await bench.exits.get()
    assert (told.expected, told.exit_code) == (False, None)
    assert len(count.read_text()) == 5, "running, doubt, error, doubt, end"


# --- commands that fail ----------------------------------------------------------------------------------------------


async def test_a_start_that_fails_says_what_the_command_said_without_its_secrets(bench, launch) -> None:
    spec = section(
        start=shell('echo "no such image; key=$KEY token=$HOLDFAST_TOKEN" >&2; exit 125'), env={"KEY": "hunter2hunter2"}
    )
    with pytest.raises(RuntimeFailure) as caught:
        await bench.runtime("command").start(launch(spec, env={"HOLDFAST_TOKEN": TOKEN}))
    assert caught.value.reason == "start_failed"
    assert "exit code 125: no such image; key=*** token=***" in caught.value.detail


@pytest.mark.parametrize(
    ("start", "reason"),
    [
        (["/nonexistent/program"], "command_not_found"),
        (["no-such-program-anywhere"], "command_not_found"),
        (["/etc/passwd"], "not_executable"),
    ],
)
async def test_what_a_command_can_fail_of_before_it_runs(bench, launch, start: list[str], reason: str) -> None:
    with pytest.raises(RuntimeFailure) as caught:
        await bench.runtime("command").start(launch(section(start=start)))
    assert caught.value.reason == reason


async def test_a_missing_working_directory_is_named_as_such(bench, launch) -> None:
    with pytest.raises(RuntimeFailure) as caught:
        await bench.runtime("command").start(launch(section(cwd="/nonexistent")))
    assert caught.value.reason == "cwd_missing"


async def test_a_command_that_takes_too_long_is_killed_with_its_group(bench, launch, tmp_path: Path) -> None:
    told = bench.fifo()
    start = shell(f'sleep 1000 & echo "said before" ; echo $! > {told}; wait')
    starting = asyncio.create_task(bench.runtime("command").start(launch(section(start=start, start_timeout=0.3))))
    child = int(await asyncio.to_thread(told.read_text))
    pidfd = os.pidfd_open(child)
    with pytest.raises(RuntimeFailure) as caught:
        await starting
    assert (caught.value.reason, caught.value.detail) == (
        "start_timeout",
        "start: was killed after 0.3 s: said before",
    )
    dead = asyncio.Event()
    asyncio.get_running_loop().add_reader(pidfd, dead.set)
    await dead.wait()
    asyncio.get_running_loop().remove_reader(pidfd)
    os.close(pidfd)


async def test_a_command_whose_caller_leaves_is_killed_and_the_start_can_be_repeated(
    bench, launch, tmp_path: Path
) -> None:
    told = bench.fifo()
    first = shell(f"test -e {tmp_path}/again && exit 0; echo $$ > {told}; sleep 1000")
    runtime = bench.runtime("command")
    starting = asyncio.create_task(runtime.start(launch(section(start=first))))
    pid = int(await asyncio.to_thread(told.read_text))
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    (tmp_path / "again").touch()
    assert (await runtime.start(launch(section(start=first)))).handle == "generation 1"


async def test_a_caller_that_leaves_while_its_command_is_being_spawned_is_gone_only_when_the_command_is(
    bench, launch, monkeypatch
) -> None:
    told, may_return, spawn = bench.fifo(), threading.Event(), command.errand._spawn

    def slow(*args: Any) -> Any:
        child = spawn(*args)
        may_return.wait()
        return child

    monkeypatch.setattr(command.errand, "_spawn", slow)
    start = shell(f"echo $$ > {told}; sleep 1000")
    starting = asyncio.create_task(bench.runtime("command").start(launch(section(start=start))))
    pid = int(await asyncio.to_thread(told.read_text))
    starting.cancel()
    asyncio.get_running_loop().call_soon(may_return.set)
    try:
        with pytest.raises(asyncio.CancelledError):
            await starting
    finally:
        may_return.set()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_a_command_that_is_slow_to_die_holds_nobody_up_but_its_own_caller(bench, launch, monkeypatch) -> None:
    loop = asyncio.get_running_loop()
    told, die, killpg = bench.fifo(), asyncio.Event(), os.killpg

    def slowly(*group: int) -> None:
        die.set()
        loop.call_later(0.2, killpg, *group)

    start = shell(f"echo $$ > {told}; sleep 1000")
    starting = asyncio.create_task(bench.runtime("command").start(launch(section(start=start))))
    pid = int(await asyncio.to_thread(told.read_text))
    monkeypatch.setattr(command.errand.os, "killpg", slowly)
    starting.cancel()
    await die.wait()
    starting.cancel()  # who insists waits all the same
    os.kill(pid, 0)
    assert not starting.done()
    with pytest.raises(asyncio.CancelledError):
        await starting
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_a_runtime_that_is_closed_has_ended_the_looks_that_it_was_at(bench, launch, tmp_path: Path) -> None:
    told = bench.fifo()
    runtime = bench.runtime("command")
    look = shell(f"test -e {tmp_path}/over && exit 3; echo $$ > {told}; sleep 1000")
    await runtime.start(launch(section(inspect=look, inspect_timeout=600, watch=0.01)))
    pid = int(await asyncio.to_thread(told.read_text))
    runtime._unwatch("alpha")
    await runtime.aclose()
    (tmp_path / "over").touch()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_a_command_that_cannot_be_watched_is_ended_and_told(bench, launch, monkeypatch) -> None:
    def refused(_: int) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(command.errand.os, "pidfd_open", refused)
    with pytest.raises(RuntimeFailure) as caught:
        await bench.runtime("command").start(launch(section(start=["sleep", "1000"])))
    monkeypatch.undo()
    assert (caught.value.reason, caught.value.detail) == (
        "system",
        "the program cannot be watched: Too many open files",
    )


async def test_what_a_command_leaves_in_the_background_is_not_waited_for() -> None:
    line = "sleep 1000 & echo $!"  # it keeps the pipe open
    async with asyncio.timeout(10):
        ran = await command.errand.run(shell(line), env=dict(os.environ), cwd=None, patience=60)
    os.kill(int(ran.output), 9)


async def test_a_flood_of_output_blocks_nobody_and_its_newest_bytes_are_kept() -> None:
    flood = [sys.executable, "-c", "print('x' * 3_000_000); print('the end')"]
    ran = await command.errand.run(flood, env=dict(os.environ), cwd=None, patience=30)
    assert ran.code == 0
    assert ran.output.endswith("x\nthe end")
    assert len(ran.output) <= command.errand.OUTPUT_KEPT


async def test_a_stop_that_fails_because_nothing_is_there_is_a_success(bench, launch, tmp_path: Path) -> None:
    runtime = bench.runtime("command")
    spec = started(tmp_path) | {"stop": shell(f"rm {tmp_path}/runs; echo no such container; exit 1")}
    await runtime.start(launch(spec))
    await runtime.stop("alpha", 2, 0)
    assert await runtime.inspect("alpha", 1) is ProbeState.NOT_RUNNING


async def test_a_stop_that_fails_while_it_runs_is_told_and_nothing_starts_beside_it(
    bench, launch, tmp_path: Path
) -> None:
    runtime = bench.runtime("command")
    spec = started(tmp_path) | {"stop": shell("echo busy; exit 1")}
    await runtime.start(launch(spec))
    with pytest.raises(RuntimeFailure) as caught:
        await runtime.stop("alpha", 2, 0)
    assert (caught.value.reason, caught.value.detail) == ("stop_failed", "stop: exit code 1: busy")
    with pytest.raises(RuntimeFailure) as caught:
        await runtime.start(launch(started(tmp_path), 2))
    assert caught.value.reason == "still_running"


async def test_a_stop_that_claims_success_is_not_believed_while_a_look_finds_it_running(
    bench, launch, monkeypatch
) -> None:
    monkeypatch.setattr("proxy.runtimes.outside.STOPPED_WITHIN", 0.1)
    runtime = bench.runtime("command")
    await runtime.start(launch(section()))
    with pytest.raises(RuntimeFailure) as caught:
        await runtime.stop("alpha", 2, 0)
    assert caught.value.reason == "survives"


async def test_what_was_started_by_one_section_is_stopped_by_that_same_section(bench, launch, tmp_path: Path) -> None:
    runtime = bench.runtime("command")
    await runtime.start(launch(started(tmp_path)))
    await runtime.stop("alpha", 2, 0)
    assert not (tmp_path / "runs").exists()


async def test_an_end_that_was_told_is_followed_by_a_stop_all_the_same(bench, launch, tmp_path: Path) -> None:
    """A service manager may have started it again by itself: then it would run beside the next one."""
    runtime = bench.runtime("command")
    spec = started(tmp_path, watch=0.01)
    await runtime.start(launch(spec))
    (tmp_path / "runs").unlink()
    await bench.exits.get()
    (tmp_path / "runs").touch()
    await runtime.stop("alpha", 2, 0)
    assert not (tmp_path / "runs").exists()
    assert bench.exits.empty(), "it is told once"


async def test_a_record_that_cannot_be_read_is_an_error_that_names_the_file(bench, launch, tmp_path: Path) -> None:
    runtime = bench.runtime("command")
    await runtime.start(launch(section()))
    record = tmp_path / "command/alpha/record.json"
    record.write_text("{")
    assert await runtime.inspect("alpha", 1) is ProbeState.ERROR
    with pytest.raises(RuntimeFailure, match=r"record\.json") as caught:
        await runtime.start(launch(section(), 2))
    assert caught.value.reason == "bad_record"
    assert await bench.runtime("command").adopt() == []
    record.unlink()


async def test_a_record_of_another_host_is_left_alone(bench, launch) -> None:
    await bench.runtime("command", owner="host-1").start(launch(section()))
    other = bench.runtime("command", owner="host-2")
    assert await other.adopt() == []
    assert await other.inspect("alpha", 1) is ProbeState.ERROR
    for refused in (other.start(launch(section(), 2)), other.stop("alpha", 2, 0)):
        with pytest.raises(RuntimeFailure) as caught:
            await refused
        assert caught.value.reason == "foreign"


async def test_a_start_that_a_dead_proxy_left_half_done_is_done_again(bench, launch, tmp_path: Path) -> None:
    before = bench.runtime("command")
    with pytest.raises(RuntimeFailure):
        await before.start(launch(started(tmp_path) | {"start": ["false"]}, 2))
    await before.aclose()
    after = bench.runtime("command")
    [adopted] = await after.adopt()
    assert isinstance(adopted, Adopted)
    await after.stop("alpha", 2, 0)
    await after.start(launch(started(tmp_path), 2))
    assert await after.inspect("alpha", 2) is ProbeState.RUNNING


# --- sections --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("members", "problem"),
    [
        ({"start": "docker start x"}, "runtime.start: must be a list of strings"),
        ({"start": []}, "runtime.start: must be a list of strings"),
        ({"inspect": [""]}, "runtime.inspect: the program's name is empty"),
        ({"stop": ["a\0b"]}, "runtime.stop: must not hold NUL"),
        ({"start_timeout": 0}, "runtime.start_timeout: must be a number of seconds above 0"),
        ({"watch": -1}, "runtime.watch: must be a number of seconds, 0 or more"),
        ({"watch": float("inf")}, "runtime.watch: must be a number of seconds, 0 or more"),
        ({"env": {"HOLDFAST_TOKEN": "x"}}, "runtime.env: HOLDFAST_TOKEN is set by the proxy"),
        ({"inspect_codes": {"runing": [0]}}, "runtime.inspect_codes: runing: one of running, starting, stopped, gone"),
        ({"inspect_codes": {"gone": 3}}, "runtime.inspect_codes: gone: must be a list of whole numbers"),
        ({"inspect_codes": {"gone": [3]}}, "runtime.inspect_codes: exit code 3 means two things"),
        ({"inspect_codes": {"gone": [256]}}, "runtime.inspect_codes: gone: must be a list of whole numbers"),
        ({"cwd": "here"}, "runtime.cwd: must be an absolute path"),
        ({"command": ["x"]}, "runtime.command: there is no such setting"),
    ],
)
async def test_what_a_section_must_not_say(bench, members: dict[str, Any], problem: str) -> None:
    problems = bench.runtime("command").check(section(**members))
    assert any(found.startswith(problem) for found in problems), problems


async def test_start_and_stop_are_required_and_settings_of_inspect_need_one(bench) -> None:
    problems = bench.runtime("command").check({"type": "command", "watch": 5})
    assert problems == [
        "runtime.start: is required",
        "runtime.stop: is required",
        "runtime.watch: means nothing without inspect",
    ]
