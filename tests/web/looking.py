"""Looking at a proxy from outside, to tell that nothing has changed: rows of its database, a workspace as shown."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from web.harness import Harness


def rows(path: Path) -> dict[str, int]:
    """How many rows every table holds."""
    with closing(sqlite3.connect(path)) as database:
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {name: database.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0] for name in tables}  # noqa: S608 - names that the database itself gave


async def look(proxy: Harness) -> dict[str, Any]:
    """What the admin sees of workspace `a`, without what is the present moment."""
    _, body = await proxy.call("GET", "/workspaces/a")
    view: dict[str, Any] = json.loads(body)
    view["restart"].pop("next_allowed_at")
    return view
