"""`holdfast explain`: why did my request get a 202, why was it restarted?

Owns: the command, and how a timeline looks. Knows nothing of: what happened and how it is said (the API tells it).

On a terminal every event has the time since the first one, what happened, and below it why; what is about the subject
itself is marked, what went on around it is dim. In a pipe an event is one line that begins with its instant.
"""

import textwrap
from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final

import click

from proxy.cli import words
from proxy.cli.asking import asks_the_proxy
from proxy.cli.client import Proxy, at
from proxy.cli.examples import examples
from proxy.cli.tables import DIM, Screen
from proxy.core.story import Kind
from proxy.core.story.spoken import duration

MARK, NO_MARK = "•", " "
"""Stand before what is about the subject itself, and before what is not."""
LEAST_WIDTH: Final = 30
"""Columns that a sentence has at least, however narrow the terminal."""


@click.command(
    epilog=examples(
        "holdfast explain agent-7",
        "holdfast explain agent-7/restarts/3",
        "holdfast explain 2f6c0d8e4b1a47f0a5c3d9e86b7f1a20",
        "holdfast explain 2f6c0d8e4b1a47f0a5c3d9e86b7f1a20 --json | jq -r .summary",
    )
)
@click.argument("subject")
@click.option("--kind", type=click.Choice([kind.value for kind in Kind]), help="What SUBJECT is, if it could be two.")
@click.option(
    "--limit", type=click.IntRange(1, 1000), default=100, show_default=True, help="Newest lines about a workspace."
)
@asks_the_proxy
async def explain(proxy: Proxy, screen: Screen, subject: str, kind: str | None, limit: int) -> None:
    """Tell why something happened, as a timeline.

    SUBJECT is a workspace, a receipt (Holdfast-Receipt of a 202), a request (Holdfast-Request-Id of any answer), or a
    restart as WORKSPACE/restarts/N (or 'WORKSPACE#N').
    """
    if not subject.strip("/"):
        raise click.BadParameter("name a workspace, a receipt, a request or a restart", param_hint="SUBJECT")
    answer = await proxy.get(at("explain", *subject.split("/")), kind=kind, limit=limit)
    screen.show(answer, lambda data: _drawn(screen, data))


def _drawn(screen: Screen, data: dict[str, Any]) -> Iterator[str]:
    yield screen.heading(_title(data))
    yield from _wrapped(screen, words.clean(data["summary"]), "", "")
    if data["also"]:
        yield f"({data['subject']} is also the id of a {' and a '.join(data['also'])}: see --kind)"
    if not data["whole"]:
        yield "(The log has forgotten how this began.)"
    events = data["timeline"]
    if not events:
        return
    yield ""
    first = _instant(events[0])
    if screen.width is not None:
        yield screen.paint(f"from {words.instant(first)}", DIM)
    spans = [_since(first, event) for event in events]
    width = max(len(span) for span in spans)
    for event, span in zip(events, spans, strict=True):
        yield from _event(screen, event, span.rjust(width))


def _title(data: dict[str, Any]) -> str:
    kind, name = data["kind"], words.clean(data["subject"])
    if kind == "workspace":
        return f"workspace {name}"
    if kind == "restart":
        return f"restart {data['generation']} of workspace {words.clean(data['workspace_id'])}"
    return f"{kind} {name}, workspace {words.clean(data['workspace_id'])}"


def _instant(event: dict[str, Any]) -> datetime:
    at_ = words.read_instant(event["at"])
    if at_ is None:
        raise ValueError("an event without an instant")
    return at_


def _since(first: datetime, event: dict[str, Any]) -> str:
    return f"+{duration((_instant(event) - first).total_seconds())}"


def _event(screen: Screen, event: dict[str, Any], span: str) -> Iterator[str]:
    what, why = words.clean(event["what"]), words.clean(event["why"])
    rule = f"[rule {words.clean(event['rule'])}]" if event["rule"] else ""
    if screen.width is None:
        told = f"{what}: {why}" if why else what
        yield "  ".join(part for part in (event["at"], span, told, rule) if part)
        return
    mark = MARK if event["own"] else NO_MARK
    colour = None if event["own"] else DIM
    margin = f"{span} {mark} "
    lines = list(_wrapped(screen, what, margin, " " * len(margin)))
    yield from (screen.paint(line, colour) for line in lines)
    reason = " ".join(part for part in (why, rule) if part)
    if reason:
        indent = " " * len(margin)
        yield from (screen.paint(line, DIM) for line in _wrapped(screen, reason, indent, indent))


def _wrapped(screen: Screen, text: str, first: str, others: str) -> list[str]:
    """Break a text into lines of the terminal's width; ids are not broken. In a pipe it stays one line."""
    if screen.width is None:
        return [first + text]
    width = max(screen.width, len(others) + LEAST_WIDTH)
    return textwrap.wrap(
        text,
        width,
        initial_indent=first,
        subsequent_indent=others,
        break_long_words=False,
        break_on_hyphens=False,
    )
