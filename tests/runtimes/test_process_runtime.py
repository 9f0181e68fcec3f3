"""The `process` runtime on real processes: sessions, exits, what a child gets, what a launch can fail of."""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import pytest
import uvloop

from proxy.core.liveness import ProbeState
from proxy.runtimes import Adopted, RuntimeFailure, launcher, output, process, process_record
from proxy.runtimes.launcher import Instance

PYTHON = [sys.executable, "-I", "-S", "-c"]


def recorded(folder: Path) -> Instance:
    found = launcher.read_record(folder).instance
    assert found is not None
    return found


async def said(fifo: Path) -> str:
    """Wait for what the other side of a named pipe says, until it closes."""
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(os.open(fifo, os.O_RDONLY | os.O_NONBLOCK), "rb", 0)
    )
    try:
        return (await reader.read()).decode().strip()
    finally:
        transport.close()


async def died(pid: int) -> None:
    """Wait until a process is dead, whoever its parent is."""
    loop, dead, pidfd = asyncio.get_running_loop(), asyncio.Event(), os.pidfd_open(pid)
    loop.add_reader(pidfd, dead.set)
    await dead.wait()
    loop.remove_reader(pidfd)
    os.close(pidfd)


# --- stopping ---------------------------------------------------------------------------------------------------------


async def test_stop_ends_grandchildren_that_ignore_the_request_to_end(bench, launch) -> None:
    runtime, told = bench.runtime(), bench.fifo()
    script = f"trap '' TERM; sleep 1000 & sleep 1000 & echo $$ > {told}; wait"
    await runtime.start(launch(["sh", "-c", script]))
    leader = int(await said(told))
    instance = recorded(bench.folder())
    assert instance.pid == leader, "the pid on disk is the agent's own"
    assert len(launcher.members(instance)) == 3
    await runtime.stop("alpha", 2, 0.05)
    assert launcher.members(instance) == []
    exited = bench.exits.get_nowait()
    assert (exited.exit_code, exited.expected) == (-signal.SIGKILL, True)


async def test_stop_asks_before_it_kills(bench, launch) -> None:
    runtime, told = bench.runtime(), bench.fifo()
    script = f"trap 'exit 5' TERM; echo up > {told}; while :; do sleep 1000 & wait $!; done"
    await runtime.start(launch(["sh", "-c", script]))
    await said(told)
    await runtime.stop("alpha", 2, 10)
    assert bench.exits.get_nowait().exit_code == 5


async def test_stop_follows_a_process_group_that_stayed_in_the_session(bench, launch) -> None:
    runtime, told = bench.runtime(), bench.fifo()
    script = (
        "import os, time\n"
        "if os.fork() == 0:\n"
        f"    os.setpgid(0, 0); open({str(told)!r}, 'w').write('up')\n"
        "time.sleep(1000)"
    )
    await runtime.start(launch([*PYTHON, script]))
    await said(told)
    instance = recorded(bench.folder())
    assert len({member.group for member in launcher.members(instance)}) == 2
    await runtime.stop("alpha", 2, 5)
    assert launcher.members(instance) == []


async def test_a_suspended_child_can_be_stopped_in_order(bench, launch) -> None:
    runtime = bench.runtime()
    await runtime.start(launch(["sleep", "1000"]))
    os.kill(recorded(bench.folder()).pid, signal.SIGSTOP)
    await runtime.stop("alpha", 2, 30)
    assert bench.exits.get_nowait().exit_code == -signal.SIGTERM


async def test_what_a_dead_leader_left_behind_bars_the_next_start_until_it_is_stopped(bench, launch) -> None:
    runtime, told = bench.runtime(), bench.fifo()
    await runtime.start(launch(["sh", "-c", f"sleep 1000 & echo up > {told}; exit 3"]))
    await said(told)
    exited = await bench.exits.get()
    assert (exited.exit_code, exited.expected) == (3, False)
    assert await runtime.inspect("alpha", 1) is ProbeState.GONE
    instance = recorded(bench.folder())
    assert not instance.empty
    with pytest.raises(RuntimeFailure) as caught:
        await runtime.start(launch(["sleep", "1000"], 2))
    assert caught.value.reason == "still_running"
    await runtime.stop("alpha", 2, 5)
    assert launcher.members(instance) == []
    assert recorded(bench.folder()).empty
    assert bench.exits.empty(), "the agent's end was told already"
    await runtime.start(launch(["sleep", "1000"], 2))


async def test_what_a_dead_leader_left_behind_is_stopped_by_the_next_proxy_too(bench, launch) -> None:
    before, told = bench.runtime(), bench.fifo()
    await before.start(launch(["sh", "-c", f"sleep 1000 & echo up > {told}; exit 3"]))
    await said(told)
    await bench.exits.get()
    await before.aclose()
    after = bench.runtime()
    await after.adopt()
    await after.stop("alpha", 2, 5)
    assert launcher.members(recorded(bench.folder())) == []


async def test_a_session_that_survives_is_an_error_and_not_a_stop(bench, launch, monkeypatch) -> None:
    runtime = bench.runtime()
    await runtime.start(launch(["sleep", "1000"]))
    with monkeypatch.context() as patched:
        patched.setattr("proxy.runtimes.sessions._signal", lambda *_: None)
        patched.setattr("proxy.runtimes.sessions.KILL_PATIENCE", 0.01)
        with pytest.raises(RuntimeFailure) as caught:
            await runtime.stop("alpha", 2, 0.01)
    assert caught.value.reason == "survives"
    assert await runtime.inspect("alpha", 1) is ProbeState.RUNNING


# --- exits ------------------------------------------------------------------------------------------------------------


async def test_a_death_by_signal_is_told_as_a_negative_number(bench, launch) -> None:
    runtime = bench.runtime()
    await runtime.start(launch(["sleep", "1000"]))
    os.kill(recorded(bench.folder()).pid, signal.SIGKILL)
    exited = await bench.exits.get()
    assert (exited.exit_code, exited.expected) == (-signal.SIGKILL, False)
    assert recorded(bench.folder()).phase == launcher.ENDED


async def test_an_end_while_no_proxy_ran_is_found_by_the_next_one(bench, launch) -> None:
    before = bench.runtime()
    await before.start(launch(["sleep", "1000"], 2, incarnation=6))
    await before.aclose()
    pid = recorded(bench.folder()).pid
    os.kill(pid, signal.SIGKILL)
    await died(pid)
    after = bench.runtime()
    (exited,) = await after.adopt()
    assert (exited.incarnation, exited.exit_code, exited.expected) == (6, None, False)
    assert await after.inspect("alpha", 6) is ProbeState.GONE


async def test_an_adopted_child_that_ends_is_told(bench, launch) -> None:
    before = bench.runtime()
    await before.start(launch(["sleep", "1000"]))
    await before.aclose()
    after = bench.runtime()
    assert isinstance((await after.adopt())[0], Adopted)
    os.kill(recorded(bench.folder()).pid, signal.SIGKILL)
    exited = await bench.exits.get()
    assert (exited.incarnation, exited.expected) == (1, False)


async def test_a_stop_that_was_decided_before_the_proxy_died_stays_expected(bench, launch) -> None:
    before = bench.runtime()
    await before.start(launch(["sleep", "1000"]))
    await before.aclose()
    process_record.amend(bench.folder(), process_record.stopping(2, "host-1"))
    after = bench.runtime()
    assert isinstance((await after.adopt())[0], Adopted), "the wish is on disk, the signal never left"
    os.kill(recorded(bench.folder()).pid, signal.SIGTERM)
    assert (await bench.exits.get()).expected is True
    assert await after.inspect("alpha", 1) is ProbeState.NOT_RUNNING


async def test_a_disk_that_refuses_does_not_hide_a_death(bench, launch, monkeypatch) -> None:
    runtime = bench.runtime()
    await runtime.start(launch(["sleep", "1000"]))

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(launcher, "write_record", refuse)
        os.kill(recorded(bench.folder()).pid, signal.SIGKILL)
        exited = await bench.exits.get()
    assert (exited.exit_code, exited.expected) == (-signal.SIGKILL, False)


async def test_a_start_whose_caller_left_is_watched_all_the_same(bench, launch) -> None:
    runtime = bench.runtime()
    asked = asyncio.create_task(runtime.start(launch(["sh", "-c", "exit 5"])))
    await asyncio.sleep(0)
    asked.cancel()
    assert (await bench.exits.get()).exit_code == 5


# --- what a child gets ------------------------------------------------------------------------------------------------


async def test_a_child_gets_a_short_list_of_the_environment_and_never_the_proxys_secrets(
    bench, launch, monkeypatch
) -> None:
    for name, text in {
        "HOLDFAST_ADMIN_TOKEN": "hf_admin",
        "HOLDFAST_JOIN_TOKEN": "hf_join",
        "AWS_SECRET_ACCESS_KEY": "s3cret",
        "PYTHONPATH": "/proxy/own",
        "LC_TIME": "C",
        "TZ": "UTC",
    }.items():
        monkeypatch.setenv(name, text)
    runtime, told = bench.runtime(), bench.fifo()
    spec = {"type": "process", "command": ["sh", "-c", f"env -0 > {told}"], "env": {"MODEL": "small", "TZ": "CET"}}
    given = {"HOLDFAST_TOKEN": "hf_child", "HOLDFAST_WORKSPACE_ID": "alpha"}
    await runtime.start(launch(spec, env=given))
    seen = dict(line.split("=", 1) for line in (await said(told)).split("\0") if line)
    assert seen.items() >= ({"MODEL": "small", "TZ": "CET", "LC_TIME": "C", "PATH": os.environ["PATH"]} | given).items()
    assert set(seen) <= {*os.environ, "MODEL", "PWD", "OLDPWD", "SHLVL", "_", "HOLDFAST_CONFIG_PATH", *given}
    assert not {"HOLDFAST_ADMIN_TOKEN", "HOLDFAST_JOIN_TOKEN", "AWS_SECRET_ACCESS_KEY", "PYTHONPATH"} & set(seen)


async def test_the_token_is_neither_in_an_argument_nor_in_a_file(bench, launch) -> None:
    runtime = bench.runtime()
    await runtime.start(launch(["sleep", "1000"], env={"HOLDFAST_TOKEN": "hf_child"}))
    pid = recorded(bench.folder()).pid
    kernel = Path("/proc") / str(pid)
    assert (kernel / "cmdline").read_bytes() == b"sleep\x001000\x00"
    assert b"hf_child" in (kernel / "environ").read_bytes()
    assert not any(b"hf_child" in file.read_bytes() for file in bench.folder().iterdir())


async def test_a_child_reads_its_settings_from_a_private_file(bench, launch) -> None:
    runtime, told = bench.runtime(), bench.fifo()
    await runtime.start(launch(["sh", "-c", f'cat "$HOLDFAST_CONFIG_PATH" > {told}'], data=b'{"model": "small"}'))
    assert await said(told) == '{"model": "small"}'
    assert (bench.folder() / "config.json").stat().st_mode & 0o777 == 0o600
    assert bench.folder().stat().st_mode & 0o077 == 0
    await bench.exits.get()
    await runtime.start(launch(["sleep", "1000"], 2))
    assert (bench.folder() / "config.json").read_text() == "{}", "old settings do not reach a new life"


async def test_a_child_leads_a_session_of_its_own_with_nothing_of_the_proxys_open(bench, launch) -> None:
    leaked = os.open("/", os.O_RDONLY)
    os.set_inheritable(leaked, True)
    runtime, told = bench.runtime(), bench.fifo()
    script = (
        "import json, os, signal\n"
        "facts = dict(pid=os.getpid(), sid=os.getsid(0), group=os.getpgid(0), stdin=os.read(0, 1).decode(),\n"
        "    open=[int(n) for n in os.listdir('/proc/self/fd') if int(n) > 2])\n"
        f"open({str(told)!r}, 'w').write(json.dumps(facts))"
    )
    try:
        await runtime.start(launch([*PYTHON, script]))
        facts = json.loads(await said(told))
    finally:
        os.close(leaked)
    assert facts["pid"] == facts["sid"] == facts["group"]
    assert facts["stdin"] == ""
    assert leaked not in facts["open"]
    assert len(facts["open"]) == 1, "the listing's own descriptor"


async def test_a_child_ignores_and_blocks_no_signal_whatever_the_proxy_does(bench, launch) -> None:
    runtime, told = bench.runtime(), bench.fifo()
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        await runtime.start(launch(["sh", "-c", f"grep -E 'Sig(Ign|Blk)' /proc/self/status > {told}"]))
        masks = [int(line.split()[1], 16) for line in (await said(told)).splitlines()]
    finally:
        signal.signal(signal.SIGHUP, before)
    standard = (1 << 31) - 1  # 32 and 33 are the C library's own
    assert [mask & standard for mask in masks] == [0, 0], "not even SIGPIPE, which Python ignores"


async def test_a_child_runs_where_it_is_told_to(bench, launch, tmp_path: Path) -> None:
    runtime, told = bench.runtime(), bench.fifo()
    place = tmp_path / "näme with spaces"
    place.mkdir()
    await runtime.start(launch({"type": "process", "command": ["sh", "-c", f"pwd > {told}"], "cwd": str(place)}))
    assert await said(told) == str(place)


# --- its output -------------------------------------------------------------------------------------------------------


async def test_output_is_bounded_and_keeps_the_newest(bench, launch) -> None:
    runtime, told, go = bench.runtime(), bench.fifo("told"), bench.fifo("go")
    script = f"seq 1 1000; echo up > {told}; read x < {go}; echo later >&2; echo up > {told}; sleep 1000"
    await runtime.start(launch({"type": "process", "command": ["sh", "-c", script], "log_max_bytes": 100}))
    log = bench.folder() / "output.log"
    await said(told)
    assert log.stat().st_size == len("".join(f"{number}\n" for number in range(1, 1001)))
    await runtime.trim_logs()
    assert log.stat().st_size == 0
    kept = output.older(log).read_text()
    assert len(kept) == 100
    assert kept.endswith("999\n1000\n")
    await asyncio.to_thread(go.write_text, "go\n")
    await said(told)
    assert log.read_text() == "later\n", "the child appends, wherever the end is by then"
    await runtime.trim_logs()
    assert log.read_text() == "later\n", "a log below its limit is left alone"
    assert [file.stat().st_mode & 0o777 for file in (log, output.older(log))] == [0o600, 0o600]


async def test_a_log_that_grew_while_no_proxy_ran_is_cut_at_adoption(bench, launch) -> None:
    before, told = bench.runtime(), bench.fifo()
    script = f"seq 1 1000; echo up > {told}; sleep 1000"
    await before.start(launch({"type": "process", "command": ["sh", "-c", script], "log_max_bytes": 100}))
    await before.aclose()
    await said(told)
    await bench.runtime().adopt()
    assert (bench.folder() / "output.log").stat().st_size == 0


# --- what a launch can fail of ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "reason", "sentence"),
    [
        ({"command": ["no-such-command-here"]}, "command_not_found", "no-such-command-here"),
        ({"command": ["./agent"]}, "command_not_found", "./agent"),
        ({"command": ["/etc/hostname"]}, "not_executable", "/etc/hostname"),
        ({"command": ["/tmp"]}, "not_executable", "/tmp"),  # noqa: S108 - any folder would do
        ({"command": ["sleep", "1"], "cwd": "/no/such/place"}, "cwd_missing", "/no/such/place"),
        ({"command": ["sleep", "1"], "cwd": "/etc/hostname"}, "cwd_missing", "/etc/hostname"),
        ({"command": ["sleep", "x" * 3_000_000]}, "exec_failed", "too long"),
        ({"command": []}, "bad_spec", "runtime.command"),
    ],
)
async def test_a_launch_that_cannot_be_made_says_why(bench, launch, spec, reason: str, sentence: str) -> None:
    runtime = bench.runtime()
    with pytest.raises(RuntimeFailure) as caught:
        await runtime.start(launch({"type": "process", **spec}))
    assert (caught.value.reason, sentence in caught.value.detail) == (reason, True), caught.value.detail
    assert await runtime.inspect("alpha", 1) is ProbeState.NOT_RUNNING
    await runtime.start(launch(["sleep", "1000"]))
    assert await runtime.inspect("alpha", 1) is ProbeState.RUNNING, "nothing was started, so it may start now"
    assert bench.exits.empty()


async def test_a_launcher_that_hangs_is_given_up_and_has_started_nothing(
    bench, launch, monkeypatch, tmp_path: Path
) -> None:
    runtime = bench.runtime()
    sleeper = tmp_path / "sleeper.py"
    sleeper.write_text("import time; time.sleep(1000)")
    with monkeypatch.context() as patched:
        patched.setattr(launcher, "__file__", str(sleeper))
        patched.setattr(process, "LAUNCH_PATIENCE", 0.05)
        with pytest.raises(RuntimeFailure) as caught:
            await runtime.start(launch(["sleep", "1000"]))
    assert caught.value.reason == "launch_timeout"
    await runtime.start(launch(["sleep", "1000"]))


@pytest.mark.parametrize(
    ("section", "named"),
    [
        ({}, "runtime.command"),
        ({"command": "sleep 1"}, "runtime.command"),
        ({"command": ["sleep", 1]}, "runtime.command"),
        ({"command": [""]}, "runtime.command"),
        ({"command": ["a\0b"]}, "runtime.command"),
        ({"type": "docker"}, "runtime.type"),
        ({"cwd": "relative"}, "runtime.cwd"),
        ({"env": {"HOLDFAST_TOKEN": "x"}}, "HOLDFAST_TOKEN is set by the proxy"),
        ({"env": {"A=B": "x"}}, "runtime.env"),
        ({"env": {"PORT": 80}}, "PORT must be a string"),
        ({"env": ["PORT=80"]}, "runtime.env"),
        ({"stop_grace": -1}, "runtime.stop_grace"),
        ({"stop_grace": True}, "runtime.stop_grace"),
        ({"stop_grace": float("nan")}, "runtime.stop_grace"),
        ({"log_max_bytes": 0}, "runtime.log_max_bytes"),
        ({"log_max_bytes": 1.5}, "runtime.log_max_bytes"),
    ],
)
def test_a_section_that_cannot_be_used_names_the_setting(bench, section, named: str) -> None:
    assert any(named in problem for problem in bench.runtime().check(section))


def test_all_problems_of_a_section_are_told_at_once_and_no_value_is_repeated(bench) -> None:
    problems = bench.runtime().check({"cwd": "s3cret", "env": {"KEY": 5}, "stop_grace": "s3cret", "colour": "s3cret"})
    assert len(problems) == 5
    assert "s3cret" not in " ".join(problems)


async def test_an_id_that_could_leave_its_folder_is_refused(bench, launch) -> None:
    runtime = bench.runtime()
    for bad in ("../alpha", "", ".", "a/b"):
        assert await runtime.inspect(bad, 1) is ProbeState.ERROR
        with pytest.raises(RuntimeFailure) as caught:
            await runtime.start(launch(["sleep", "1"], workspace_id=bad))
        assert caught.value.reason == "bad_workspace_id"


# --- any loop ---------------------------------------------------------------------------------------------------------


def test_the_same_story_holds_on_uvloop(bench, launch) -> None:
    async def story() -> None:
        bench.exits = asyncio.Queue()
        runtime = bench.runtime()
        await runtime.start(launch(["sh", "-c", "exit 4"]))
        assert (await bench.exits.get()).exit_code == 4
        await runtime.start(launch(["sleep", "1000"], 2))
        await runtime.stop("alpha", 3, 5)
        assert (await bench.exits.get()).expected is True
        await runtime.aclose()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(story())
