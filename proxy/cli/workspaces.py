"""`holdfast workspaces`: look at workspaces, register, park and remove them.

Owns: these commands, and how a workspace looks.
Knows nothing of: what registering or parking means.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import click

from proxy.cli import words
from proxy.cli.asking import ID, Listing, asks_the_proxy, confirmed
from proxy.cli.client import Proxy, at
from proxy.cli.examples import examples
from proxy.cli.putting import body_of, members
from proxy.cli.tables import Cell, Column, Screen, coloured, text

CREATED = 201
COLUMNS = (
    Column("ID"),
    Column("STATUS"),
    Column("MODE", spare=True),
    Column("LIFE", right=True, spare=True),
    Column("OPEN", right=True),
    Column("QUEUE", right=True),
    Column("LAST SEEN"),
    Column("VERDICT", least=12, spare=True),
)


@click.group(
    cls=Listing,
    short_help="List, register, park, remove workspaces.",
    epilog=examples(
        "holdfast workspaces",
        "holdfast workspaces show agent-7",
        "holdfast workspaces put agent-7 --agent-url http://127.0.0.1:9000",
    ),
)
def workspaces() -> None:
    """Look at workspaces, register, park and remove them; alone: list them."""


@workspaces.command("list", epilog=examples("holdfast workspaces list", "holdfast workspaces list --json"))
@asks_the_proxy
async def list_(proxy: Proxy, screen: Screen) -> None:
    """List all workspaces."""
    screen.show(await proxy.get("/workspaces"), lambda data: listed(screen, data["workspaces"]))


def listed(screen: Screen, found: list[dict[str, Any]]) -> list[str]:
    """Draw workspaces as a table."""
    if not found:
        return ["no workspaces"]
    return screen.table(COLUMNS, [_row(screen, view) for view in sorted(found, key=lambda view: str(view["id"]))])


def _row(screen: Screen, view: dict[str, Any]) -> list[Cell]:
    verdict = view["last_verdict"]
    return [
        text(view["id"]),
        coloured(state_of(view)),
        text(view["delivery_mode"]),
        text(view["incarnation"]),
        text(view["in_flight"]),
        text(view["queue_depth"]),
        screen.when(view["last_seen"]),
        text(f"{verdict['verdict']} {verdict['rule']}" if verdict else None),
    ]


def state_of(view: Mapping[str, Any]) -> str:
    """Return what a workspace is in one word: parked if an admin wants it so, else its health."""
    return str(view["status"] if view["desired"] == "running" else view["desired"])


@workspaces.command(epilog=examples("holdfast workspaces show agent-7", "holdfast workspaces show agent-7 --json"))
@click.argument("workspace", type=ID, metavar="ID")
@asks_the_proxy
async def show(proxy: Proxy, screen: Screen, workspace: str) -> None:
    """Show one workspace with everything that is known of it."""
    screen.show(await proxy.get(at("workspaces", workspace)), lambda data: shown(screen, data))


def shown(screen: Screen, view: dict[str, Any]) -> Iterator[str]:
    """Draw one workspace: what and where it is, its life, its work, its last restart and verdict."""
    name = screen.heading(words.clean(view["id"]))
    wanted = [] if view["desired"] == "running" else [text("wanted:"), coloured(view["desired"])]
    yield screen.drawn([Cell(name), coloured(view["status"]), *wanted])
    boot = f", boot {view['boot_id']}" if view["boot_id"] else ""
    facts: list[tuple[str, Cell | list[Cell]]] = [
        ("url", text(view["url"])),
        ("delivery", text(view["delivery_mode"])),
        ("runtime", text(view["runtime"])),
        ("parent", text(view["parent"])),
        ("may be called by", text(", ".join(view.get("allow_from") or []))),
        ("life", text(f"incarnation {view['incarnation']}, generation {view['generation']}{boot}")),
        ("work", text(f"{view['in_flight']} open, {view['queue_depth']} in the queue")),
        ("registered", screen.moment(view["registered_at"])),
        ("started", screen.moment(view["started_at"])),
        ("ready", screen.moment(view["ready_at"])),
        ("heartbeat", screen.moment(view["last_heartbeat_at"])),
        ("sign of life", screen.moment(view["last_seen"])),
        ("reports itself", text(view["lifecycle"])),
        *_restart(screen, view["restart"]),
        ("settles until", screen.moment(view["settle_until"])),
        *_verdict(screen, view["last_verdict"]),
    ]
    yield from screen.facts([(title, value) for title, value in facts if value != text(None)], indent="  ")


def _restart(screen: Screen, restart: dict[str, Any]) -> list[tuple[str, Cell | list[Cell]]]:
    if restart["state"] == "none":
        return []
    began = [coloured(restart["state"]), text("began"), screen.moment(restart["started_at"])]
    return [
        ("last restart", began),
        ("counted restarts", text(restart["count_in_window"])),
        ("it failed", text(restart["error"])),
        ("not again before", screen.moment(restart["next_allowed_at"])),
    ]


def _verdict(screen: Screen, verdict: dict[str, Any] | None) -> list[tuple[str, Cell | list[Cell]]]:
    if verdict is None:
        return []
    said = [coloured(verdict["verdict"]), text(f"by rule {verdict['rule']},"), screen.moment(verdict["at"])]
    return [("last verdict", said)]


@workspaces.command(
    epilog=examples(
        "holdfast workspaces put agent-7 --agent-url http://127.0.0.1:9000",
        "holdfast workspaces put agent-7 --agent-url http://127.0.0.1:9000 \\",
        "    --command 'python agent.py --port 9000' --env OPENAI_API_KEY --preset combined",
        "holdfast workspaces put poller --mode poll --show-token",
        "holdfast workspaces put agent-7 --file agent-7.json",
    )
)
@click.argument("workspace", type=ID, metavar="ID")
@members
@click.option("--show-token", is_flag=True, help="Print a new workspace's own token, this once.")
@asks_the_proxy
async def put(proxy: Proxy, screen: Screen, workspace: str, show_token: bool, **said: Any) -> None:
    """Register a workspace, or change what is said of one; what is not named stays as it is.

    A new workspace gets a token of its own, for its heartbeats. It is printed with --show-token (or --json) only; an
    agent that Holdfast starts is given one by itself.
    """
    answer = await proxy.put(at("workspaces", workspace), body_of(said))

    def draw(view: dict[str, Any]) -> Iterator[str]:
        done = "is registered" if answer.status == CREATED else "is changed"
        yield f"{words.clean(view['id'])} {done}: {screen.drawn(coloured(state_of(view)))}"
        if "token" in view and show_token:
            yield f"its token, shown this once: {view['token']}"
        elif "token" in view and view["runtime"] in {None, "none"}:
            yield f"it gets a token by: holdfast token create workspace {words.clean(view['id'])}"

    screen.show(answer, draw)


@workspaces.command(epilog=examples("holdfast workspaces remove agent-7", "holdfast workspaces remove agent-7 --yes"))
@click.argument("workspace", type=ID, metavar="ID")
@click.option("--yes", is_flag=True, help="Do not ask.")
@asks_the_proxy
async def remove(proxy: Proxy, screen: Screen, workspace: str, yes: bool) -> None:
    """Remove a workspace; what Holdfast started for it is stopped, and its token is dead."""
    confirmed(f"Remove workspace {workspace}?", yes=yes)
    answer = await proxy.delete(at("workspaces", workspace))
    screen.show(answer, lambda _: [f"{workspace} is removed"])


REASON = click.option("--reason", default="", help="Stands in the decision log.")
FORCE = click.option("--force", is_flag=True, help="Cut open calls short instead of waiting for them.")


@workspaces.command(epilog=examples("holdfast workspaces pause agent-7 --reason 'moving its disk'"))
@click.argument("workspace", type=ID, metavar="ID")
@REASON
@FORCE
@asks_the_proxy
async def pause(proxy: Proxy, screen: Screen, workspace: str, reason: str, force: bool) -> None:
    """Stop a workspace and everything below it until it is resumed; requests wait in its queue."""
    await _park(proxy, screen, workspace, "pause", {"reason": reason, "force": force})


@workspaces.command(epilog=examples("holdfast workspaces hibernate agent-7"))
@click.argument("workspace", type=ID, metavar="ID")
@REASON
@FORCE
@asks_the_proxy
async def hibernate(proxy: Proxy, screen: Screen, workspace: str, reason: str, force: bool) -> None:
    """Stop a workspace until the next request needs it; that request wakes it."""
    await _park(proxy, screen, workspace, "hibernate", {"reason": reason, "force": force})


@workspaces.command(epilog=examples("holdfast workspaces resume agent-7"))
@click.argument("workspace", type=ID, metavar="ID")
@REASON
@asks_the_proxy
async def resume(proxy: Proxy, screen: Screen, workspace: str, reason: str) -> None:
    """Let a workspace run again, with what is paused below it; what waited is delivered."""
    await _park(proxy, screen, workspace, "resume", {"reason": reason})


async def _park(proxy: Proxy, screen: Screen, workspace: str, verb: str, body: dict[str, Any]) -> None:
    answer = await proxy.post(at("workspaces", workspace, verb), {name: value for name, value in body.items() if value})

    def draw(view: dict[str, Any]) -> Iterator[str]:
        more = f", with {words.count(view['changed'] - 1, 'workspace')} below it" if view["changed"] > 1 else ""
        same = " as it was" if not view["changed"] else ""
        yield f"{workspace} is {screen.drawn(coloured(state_of(view)))}{same}{more}"

    screen.show(answer, draw)
