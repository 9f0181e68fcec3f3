"""What only a real process shows: colours on a terminal, questions, readers that leave, how fast it starts."""

import asyncio
import os
import pty
import select
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from cli.commandline import ROOT, environment, program
from ports import free_port
from web.harness import ADMIN_TOKEN, Harness

PATIENCE = 30
SOON = 0.05
"""Seconds without output after which a question may have been asked."""

OWN_TERMINAL = """
import fcntl, os, sys, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""
"""Makes standard input the terminal whose keys are signals, and becomes the program."""


def on_a_terminal(*words: str, typed: bytes = b"", width: int = 80, **variables: str) -> tuple[int, str]:
    """Run a command on a terminal of its own, and type once it asks; return its exit code and what was seen."""
    controller, terminal = pty.openpty()
    process = subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, "-c", OWN_TERMINAL, *program(*words)],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        cwd=ROOT,
        env=environment({"TERM": "xterm", "COLUMNS": str(width), **variables}),
    )
    os.close(terminal)
    seen = b""
    try:
        while process.poll() is None or select.select([controller], [], [], 0)[0]:
            if select.select([controller], [], [], SOON)[0]:
                seen += os.read(controller, 65536)
            elif typed and b"]: " in seen and is_waiting(process.pid):
                os.write(controller, typed)  # once: a person who has to press twice is not heard
                typed = b""
    except OSError:  # the other side is closed: how Linux tells the end of a terminal
        pass
    finally:
        os.close(controller)
    return process.wait(PATIENCE), seen.decode().replace("\r\n", "\n")


def is_waiting(pid: int) -> bool:
    """Whether a process sleeps: after its question it does so only to read the answer."""
    return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] == "S"


def settings(proxy: Harness) -> Mapping[str, str]:
    return {"HOLDFAST_URL": proxy.url, "HOLDFAST_ADMIN_TOKEN": ADMIN_TOKEN}


async def test_a_terminal_gets_colours_and_distances_and_no_color_takes_the_colours(proxy: Harness) -> None:
    await proxy.enroll("a", delivery_mode="poll")
    _, seen = await asyncio.to_thread(on_a_terminal, "token", **settings(proxy))
    assert "\x1b[2mID\x1b[0m" in seen
    assert seen.rstrip().endswith(("ago", "now"))
    _, plain = await asyncio.to_thread(on_a_terminal, "token", NO_COLOR="1", **settings(proxy))
    assert "\x1b" not in plain
    _, dumb = await asyncio.to_thread(on_a_terminal, "token", **{**settings(proxy), "TERM": "dumb"})
    assert "\x1b" not in dumb


async def test_lines_fit_the_terminal(proxy: Harness) -> None:
    await proxy.enroll("a", delivery_mode="poll")
    for width in (60, 80, 200):
        _, seen = await asyncio.to_thread(on_a_terminal, "decisions", "a", width=width, NO_COLOR="1", **settings(proxy))
        assert all(len(line) <= width for line in seen.splitlines())


@pytest.mark.parametrize(("typed", "code", "left"), [(b"n\n", 130, True), (b"\x03", 130, True), (b"y\n", 0, False)])
async def test_a_person_is_asked_before_something_is_gone(typed: bytes, code: int, left: bool, proxy: Harness) -> None:
    await proxy.enroll("a", delivery_mode="poll")
    ended, seen = await asyncio.to_thread(on_a_terminal, "workspaces", "remove", "a", typed=typed, **settings(proxy))
    assert "Remove workspace a? [y/N]:" in seen
    assert (ended, proxy.app.routing.get("a") is not None) == (code, left)
    assert "Traceback" not in seen
    assert "Aborted" not in seen


async def test_a_person_who_said_yes_beforehand_is_not_asked(proxy: Harness) -> None:
    await proxy.enroll("a", delivery_mode="poll")
    ended, seen = await asyncio.to_thread(on_a_terminal, "workspaces", "remove", "a", "--yes", **settings(proxy))
    assert (ended, seen) == (0, "a is removed\n")


async def test_a_reader_that_leaves_ends_it_quietly(proxy: Harness) -> None:
    for number in range(3):
        await proxy.enroll(f"w{number}", delivery_mode="poll")
    process = await asyncio.create_subprocess_exec(
        *program("workspaces"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment(settings(proxy)),
    )
    assert process.stdout is not None
    transport = process.stdout._transport  # type: ignore[attr-defined]  # asyncio closes one pipe by no public name
    transport.close()
    assert process.stderr is not None
    told = await process.stderr.read()
    assert (await process.wait(), told) == (141, b"")


def test_a_command_that_asks_does_not_load_the_server() -> None:
    words = (
        "import sys; from proxy.cli import main\ntry: main(['status'])\nexcept SystemExit: print(sorted(sys.modules))"
    )
    done = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-c", words],
        cwd=ROOT,
        env=environment({"HOLDFAST_URL": f"http://127.0.0.1:{free_port()}"}),
        capture_output=True,
        text=True,
        check=True,
    )
    assert "'proxy.cli.status'" in done.stdout
    assert "'proxy.app'" not in done.stdout
    assert "'proxy.store" not in done.stdout
