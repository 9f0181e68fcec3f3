"""What `holdfast workspaces put` may say of a workspace: its options, and the body that they make.

Owns: the options and how they and a file become one body.
Knows nothing of: which members the API takes beyond these (a file may hold any), and their rules.
"""

import json
import os
import shlex
from collections.abc import Callable, Mapping
from typing import Any, Final, TextIO

import click

_OPTIONS: Final = (
    click.option("--agent-url", help="Where the agent listens."),
    click.option(
        "--mode", type=click.Choice(["push", "poll"]), help="Who calls: the proxy (push) or the agent (poll)."
    ),
    click.option("--command", help="How the agent is started: one line, quoted as for a shell (none is run)."),
    click.option("--runtime", metavar="TYPE", help="What starts it.  [default: process, with --command]"),
    click.option(
        "--env",
        multiple=True,
        metavar="NAME[=VALUE]",
        help="For the agent's environment; without a value, the one of ours. May be repeated.",
    ),
    click.option("--cwd", help="The agent's working directory."),
    click.option("--probe", metavar="TYPE", help="What asks whether it is ready: agent_card, http, tcp, runtime."),
    click.option("--parent", metavar="ID", help="The workspace below which it stands."),
    click.option("--allow-from", multiple=True, metavar="CALLER", help="Who may call it; may be repeated."),
    click.option("--max-concurrent", type=click.IntRange(min=1), help="Calls at a time."),
    click.option("--dead-action", type=click.Choice(["reject", "defer"]), help="What a request to a dead agent gets."),
    click.option("--unmanaged-away", type=click.Choice(["defer", "pass"]), help="The same, where nobody can tell."),
    click.option(
        "--redelivery", type=click.Choice(["ask_then_always", "always", "never"]), help="After a call that broke."
    ),
    click.option("--preset", help="Whose liveness rules hold: combined, hold-first, verify-first."),
    click.option("--file", "file", type=click.File(encoding="utf-8"), help="JSON of the body; - reads standard input."),
)
_MEMBERS: Final[Mapping[str, str]] = {
    "agent_url": "url",
    "mode": "delivery_mode",
    "parent": "parent",
    "max_concurrent": "max_concurrent",
    "dead_action": "dead_action",
    "unmanaged_away": "unmanaged_away",
    "redelivery": "redelivery",
}


def members(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def body_of(said: Mapping[str, Any]) -> dict[str, Any]:
    """Return the body of a PUT: what the file says, and over it what the options say.

    Raises:
        click.UsageError: the file is no JSON object, or a variable is not there.
    """
    body = _file(said["file"])
    body |= {member: said[name] for name, member in _MEMBERS.items() if said[name] is not None}
    if said["allow_from"]:
        body["allow_from"] = list(said["allow_from"])
    runtime = _runtime(said)
    if runtime:
        body["runtime"] = {**_section(body, "runtime"), **runtime}
        body["runtime"].setdefault("type", "process")
    if said["probe"] is not None:
        body["probe"] = {**_section(body, "probe"), "type": said["probe"]}
    if said["preset"] is not None:
        body["policy"] = {**_section(body, "policy"), "preset": said["preset"]}
    return body


def _file(file: TextIO | None) -> dict[str, Any]:
    if file is None:
        return {}
    try:
        body = json.load(file)
    except ValueError as problem:
        raise click.BadParameter(f"is not JSON: {problem}", param_hint="--file") from None
    if not isinstance(body, dict):
        raise click.BadParameter("must hold a JSON object", param_hint="--file")
    return body


def _section(body: Mapping[str, Any], name: str) -> dict[str, Any]:
    found = body.get(name, {})
    if not isinstance(found, dict):
        raise click.BadParameter(f"its {name} must be an object", param_hint="--file")
    return found


def _runtime(said: Mapping[str, Any]) -> dict[str, Any]:
    runtime: dict[str, Any] = {}
    if said["runtime"] is not None:
        runtime["type"] = said["runtime"]
    if said["command"] is not None:
        try:
            runtime["command"] = shlex.split(said["command"])
        except ValueError as problem:
            raise click.BadParameter(str(problem), param_hint="--command") from None
    if said["env"]:
        runtime["env"] = dict(_variable(word) for word in said["env"])
    if said["cwd"] is not None:
        runtime["cwd"] = said["cwd"]
    return runtime


def _variable(word: str) -> tuple[str, str]:
    name, has_value, value = word.partition("=")
    if not has_value and name not in os.environ:
        raise click.BadParameter(f"{name} is not in the environment; write {name}=VALUE", param_hint="--env")
    return name, value if has_value else os.environ[name]
