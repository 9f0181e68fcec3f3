"""Owns workspaces that the admin's own commands start, stop and look at: docker, systemctl, kubectl, a script.

Knows nothing of what the commands do. They get what they must know in their environment, and answer by exit code. What
is remembered of a workload, and how its end is seen, is `outside`'s.
"""

import asyncio
import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Final

from proxy.core.liveness import ProbeState
from proxy.core.masking import MASK, masked
from proxy.runtimes import Launch, RuntimeContext, RuntimeFailure, errand, outside, section
from proxy.runtimes.launcher import write_private
from proxy.runtimes.outside import Sight, Workload
from proxy.runtimes.process_job import CONFIG_VARIABLE, inherited

CODES: Final[Mapping[str, tuple[int, ...]]] = {"running": (0,), "starting": (75,), "stopped": (3,), "gone": ()}
"""What the exit codes of `inspect` mean where a section says nothing else; every other code means: cannot tell.

0 and 3 are those of an init script's `status` (Linux Standard Base), 75 is EX_TEMPFAIL of sysexits.h. 1 and 2 stand for
nothing: most programs end with them when they failed themselves, which is no news about the workload.
"""

STATES: Final = {
    "running": ProbeState.RUNNING,
    "starting": ProbeState.STARTING,
    "stopped": ProbeState.NOT_RUNNING,
    "gone": ProbeState.GONE,
}

START_TIMEOUT: Final = 60.0
STOP_TIMEOUT: Final = 30.0
INSPECT_TIMEOUT: Final = 2.5
"""Seconds that a command may take, where its section says nothing else; a stop has its `stop_grace` besides."""

LOOKS_AT_ONCE: Final = 16
"""Commands that look, of all workspaces together, at a time."""

CONFIG_FILE: Final = "config.json"
_OUTPUT_SHOWN: Final = 500
_SHORTEST_SECRET: Final = 4
_HIGHEST_CODE: Final = 255


class Runtime(outside.Outside):
    """Workloads behind three commands. Linux 5.4 or later."""

    name: ClassVar[str] = "command"
    host_bound: ClassVar[bool] = True

    def __init__(self, context: RuntimeContext) -> None:
        super().__init__(context, _Commands())

    def check(self, spec: Mapping[str, Any]) -> list[str]:
        """Return every problem of the section; see docs/runtimes.md for its keys."""
        problems = section.problems_of(spec, _CHECKS, "start", "stop") + section.needs_process_handles()
        if "inspect" not in spec:
            problems += [f"runtime.{key}: means nothing without inspect" for key in _OF_INSPECT if key in spec]
        return problems


class _Commands:
    """The three verbs, each one command."""

    def __init__(self) -> None:
        self._looking = asyncio.Semaphore(LOOKS_AT_ONCE)

    def can_look(self, spec: Mapping[str, Any]) -> bool:
        return "inspect" in spec

    async def start(self, launch: Launch, folder: Path) -> str:
        """Run `start`; RuntimeFailure `start_failed`, `start_timeout`, and those of a command that cannot be run."""
        config_path = folder / CONFIG_FILE
        try:
            await asyncio.to_thread(write_private, config_path, b"{}" if launch.data is None else launch.data)
        except OSError as problem:
            raise RuntimeFailure("disk", f"the settings cannot be written: {problem}") from None
        own = {
            **launch.env,
            "HOLDFAST_WORKSPACE_ID": launch.workspace_id,
            "HOLDFAST_INCARNATION": str(launch.incarnation),
            "HOLDFAST_GENERATION": str(launch.generation),
            CONFIG_VARIABLE: str(config_path),
        }
        await _carry_out("start", launch.spec, own, float(launch.spec.get("start_timeout", START_TIMEOUT)))
        return f"generation {launch.generation}"

    async def stop(self, workload: Workload, generation: int, grace: float) -> None:
        """Run `stop`; RuntimeFailure `stop_failed`, `stop_timeout`, and those of a command that cannot be run."""
        own = {
            **_identity(workload),
            "HOLDFAST_STOP_GENERATION": str(generation),
            "HOLDFAST_STOP_GRACE": f"{grace:g}",
        }
        patience = grace + float(workload.spec.get("stop_timeout", STOP_TIMEOUT))
        await _carry_out("stop", workload.spec, own, patience)

    async def look(self, workload: Workload) -> Sight:
        """Run `inspect` and read its exit code; a last line of output that is a JSON object may hold `exit_code`."""
        spec = workload.spec
        if "inspect" not in spec:
            return Sight(state=ProbeState.ERROR)
        patience = float(spec.get("inspect_timeout", INSPECT_TIMEOUT))
        try:
            async with self._looking:
                ran = await _run("inspect", spec, _identity(workload), patience)
        except (errand.TookTooLong, RuntimeFailure):
            return Sight(state=ProbeState.ERROR)
        codes = {**CODES, **spec.get("inspect_codes", {})}
        state = next((STATES[word] for word, meant in codes.items() if ran.code in meant), ProbeState.ERROR)
        return Sight(state=state, exit_code=_exit_code(ran.output))


def _identity(workload: Workload) -> dict[str, str]:
    return {
        "HOLDFAST_WORKSPACE_ID": workload.workspace_id,
        "HOLDFAST_INCARNATION": str(workload.incarnation),
        "HOLDFAST_GENERATION": str(workload.generation),
        CONFIG_VARIABLE: str(workload.folder / CONFIG_FILE),
    }


async def _run(verb: str, spec: Mapping[str, Any], own: Mapping[str, str], patience: float) -> errand.Ran:
    env = {**inherited(), **spec.get("env", {}), **own, "HOLDFAST_ACTION": verb}
    return await errand.run(spec[verb], env=env, cwd=spec.get("cwd"), patience=patience)


async def _carry_out(verb: str, spec: Mapping[str, Any], own: Mapping[str, str], patience: float) -> None:
    """Run a command that must succeed."""
    try:
        ran = await _run(verb, spec, own, patience)
    except errand.TookTooLong as late:
        sentence = f"{verb}: was killed after {patience:g} s{_shown(late.output, spec, own)}"
        raise RuntimeFailure(f"{verb}_timeout", sentence) from None
    if ran.code:
        sentence = f"{verb}: exit code {ran.code}{_shown(ran.output, spec, own)}"
        raise RuntimeFailure(f"{verb}_failed", sentence)


def _shown(output: str, spec: Mapping[str, Any], own: Mapping[str, str]) -> str:
    """The end of a command's output as it may be shown: no token, and no value that the section's environment holds."""
    secrets = [*spec.get("env", {}).values(), own.get("HOLDFAST_TOKEN", "")]
    for secret in sorted((each for each in secrets if len(each) >= _SHORTEST_SECRET), key=len, reverse=True):
        output = output.replace(secret, MASK)
    text = " ".join(str(masked("", output)).split())
    return f": {text[-_OUTPUT_SHOWN:]}" if text else ""


def _exit_code(output: str) -> int | None:
    with contextlib.suppress(ValueError):
        said = json.loads(output.rpartition("\n")[2])
        code = said.get("exit_code") if isinstance(said, dict) else None
        return code if isinstance(code, int) and not isinstance(code, bool) else None
    return None


def _check_codes(value: Any) -> list[str]:
    if not isinstance(value, Mapping):
        return ["must be a table of lists of exit codes"]
    problems = [f"{word}: one of {', '.join(CODES)}" for word in value if word not in CODES]
    lists = {word: codes for word, codes in value.items() if word in CODES}
    for word, codes in lists.items():
        if not isinstance(codes, list | tuple) or not all(_is_code(code) for code in codes):
            problems.append(f"{word}: must be a list of whole numbers from 0 to {_HIGHEST_CODE}")
    if not problems:
        meant = [code for codes in {**CODES, **lists}.values() for code in codes]
        twice = sorted({code for code in meant if meant.count(code) > 1})
        problems += [f"exit code {code} means two things" for code in twice]
    return problems


def _is_code(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _HIGHEST_CODE


_OF_INSPECT: Final = ("inspect_codes", "inspect_timeout", "watch", "start_grace")

_CHECKS: Final[Mapping[str, section.Check]] = {
    **outside.CHECKS,
    "type": section.one_word("command"),
    "start": section.is_command,
    "stop": section.is_command,
    "inspect": section.is_command,
    "inspect_codes": _check_codes,
    "env": section.environment(section.is_ours),
    "cwd": section.is_absolute_path,
    "start_timeout": section.is_patience,
    "stop_timeout": section.is_patience,
    "inspect_timeout": section.is_patience,
}
