"""`holdfast token`: make, list and revoke tokens.

Owns: these commands. Knows nothing of: what a token allows.
"""

from typing import Final

import click

from proxy.cli import words
from proxy.cli.asking import ID, Listing, asks_the_proxy, confirmed
from proxy.cli.client import Proxy, at
from proxy.cli.examples import examples
from proxy.cli.tables import DIM, Column, Screen, text

KINDS: Final = ("client", "workspace", "join", "read")
COLUMNS: Final = (Column("ID"), Column("KIND"), Column("NAME"), Column("PREFIX", spare=True), Column("MADE"))


@click.group(
    cls=Listing,
    short_help="Make, list and revoke tokens.",
    epilog=examples("holdfast token", "holdfast token create client my-app", "holdfast token revoke 0f6a..."),
)
def token() -> None:
    """Make, list and revoke tokens; alone: list them."""


@token.command(
    epilog=examples(
        "holdfast token create client my-app",
        "holdfast token create workspace agent-7",
        "export HOLDFAST_TOKEN=$(holdfast token create read dashboard --json | jq -r .token)",
    )
)
@click.argument("kind", type=click.Choice(KINDS))
@click.argument("name", type=ID)
@asks_the_proxy
async def create(proxy: Proxy, screen: Screen, kind: str, name: str) -> None:
    """Make a token for a client, a workspace, one that may join, or one that reads. It is shown this once."""
    answer = await proxy.post("/tokens", {"kind": kind, "name": name})
    facts = (("kind", text(kind)), ("name", text(name)))
    screen.show(
        answer,
        lambda made: [
            *screen.facts([("id", text(made["id"])), *facts, ("token", text(made["token"]))]),
            screen.paint("It is shown this once; only its hash is kept.", DIM),
        ],
    )


@token.command("list", epilog=examples("holdfast token list", "holdfast token list --json | jq -r '.tokens[].name'"))
@asks_the_proxy
async def list_(proxy: Proxy, screen: Screen) -> None:
    """List tokens; of each its beginning only."""
    answer = await proxy.get("/tokens")

    def draw(data: dict[str, list[dict[str, str]]]) -> list[str]:
        found = data["tokens"]
        rows = [
            [text(one["id"]), text(one["kind"]), text(one["name"]), text(one["prefix"]), screen.when(one["created_at"])]
            for one in sorted(found, key=lambda one: (one["kind"], one["name"], one["created_at"] or ""))
        ]
        return screen.table(COLUMNS, rows) if rows else ["no tokens"]

    screen.show(answer, draw)


@token.command(epilog=examples("holdfast token revoke 7d0c5e1f2a3b4c5d8e9f0a1b2c3d4e5f --yes"))
@click.argument("token_id", type=ID, metavar="ID")
@click.option("--yes", is_flag=True, help="Do not ask.")
@asks_the_proxy
async def revoke(proxy: Proxy, screen: Screen, token_id: str, yes: bool) -> None:
    """Revoke a token, by its id from `token list`; it is dead at once."""
    confirmed(f"Revoke token {words.clean(token_id)}?", yes=yes)
    screen.show(await proxy.delete(at("tokens", token_id)), lambda _: [f"token {token_id} is revoked"])
