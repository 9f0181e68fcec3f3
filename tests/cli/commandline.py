"""`holdfast` as tests run it: in this process where its words are what matters, as a program where the terminal is."""

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from proxy.cli import main
from proxy.cli.tables import Screen
from proxy.core.times import parse_rfc3339

ROOT = Path(__file__).resolve().parents[2]
NOW = parse_rfc3339("2026-01-31T12:00:00Z")


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What it printed, as JSON."""
        return json.loads(self.out)

    @property
    def lines(self) -> list[str]:
        """What it printed."""
        return self.out.splitlines()


def clean_environment() -> dict[str, str]:
    """Ours without any variable of Holdfast's."""
    return {name: value for name, value in os.environ.items() if not name.startswith("HOLDFAST_")}


def run(*words: str, stdin: str = "", **variables: str) -> Ended:
    """Run a command here, with these variables and no other of Holdfast's."""
    foreign = dict.fromkeys(name for name in os.environ if name.startswith("HOLDFAST_"))
    done = CliRunner().invoke(main, list(words), input=stdin, env={**foreign, **variables}, prog_name="holdfast")
    assert "Traceback" not in done.output
    return Ended(done.exit_code, done.stdout, done.stderr)


async def ran(*words: str, stdin: str = "", **variables: str) -> Ended:
    """The same beside a proxy that serves on this loop."""
    return await asyncio.to_thread(run, *words, stdin=stdin, **variables)


def program(*words: str) -> list[str]:
    """The words of a process of its own."""
    return [sys.executable, "-m", "proxy", *words]


def environment(variables: Mapping[str, str]) -> dict[str, str]:
    """The environment of a process of its own."""
    return {**clean_environment(), **variables}


def terminal(width: int = 80, *, colours: bool = False, now: datetime = NOW) -> Screen:
    """A screen that is a terminal."""
    return Screen(as_json=False, colours=colours, width=width, now=now)


def pipe(*, now: datetime = NOW) -> Screen:
    """A screen that is none."""
    return Screen(as_json=False, colours=False, width=None, now=now)
