"""What a statement is, and the column lists that several statements share.

Owns: the `Statement` record, the order of columns in every row that becomes a record.
Knows nothing of: drivers, records (`store.rows` turns rows into them).

The dialect is what SQLite and PostgreSQL share: `ON CONFLICT`, `RETURNING`, partial indexes, named parameters (`:name`,
which a driver with numbered ones rewrites), yes and no as 1 and 0. A row is a plain tuple in the order of the text.
A unary plus before a column keeps a planner from choosing an index by it; it changes no value.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, TypeVar

T = TypeVar("T")

_PARAMETER: Final = re.compile(r":([a-z_]+)")
_GROUP: Final = re.compile(r"VALUES (\([^()]*\))")

WORKSPACE_COLUMNS: Final = (
    "id",
    "created_at",
    "version",
    "status",
    "desired",
    "lifecycle",
    "delivery_mode",
    "url",
    "url_source",
    "agent_card",
    "incarnation",
    "boot_id",
    "bound",
    "generation",
    "owner",
    "parent",
    "runtime",
    "data",
    "config_version",
    "settings",
    "registered_at",
    "started_at",
    "ready_at",
    "exited_at",
    "announced_at",
    "restart_started_at",
    "restart_returned_at",
    "stopped_at",
    "restart_pending",
    "abandoned_at",
    "offline_rule",
    "strike_count",
    "first_strike_at",
    "last_verdict",
    "last_verdict_rule",
    "last_verdict_at",
    "past_boots",
)
RESTART_COLUMNS: Final = (
    "generation",
    "incarnation",
    "asked_by",
    "reason",
    "rule",
    "phase",
    "started_at",
    "returned_at",
    "finished_at",
    "error",
    "lease_owner",
    "lease_until",
)
SIGNS_COLUMNS: Final = (
    "last_sign_at",
    "last_heartbeat_at",
    "agent_down_at",
    "active_tasks",
    "max_concurrent",
    "progress",
)
TOKEN_COLUMNS: Final = ("id", "kind", "name", "digest", "prefix", "created_at", "incarnation")
DECISION_COLUMNS: Final = (
    "workspace_id",
    "at",
    "made_by",
    "action",
    "verdict",
    "rule",
    "policy",
    "evidence",
    "request_id",
    "receipt",
    "incarnation",
    "generation",
)
DEFERRAL_COLUMNS: Final = (
    "seq",
    "id",
    "caller",
    "method",
    "tail",
    "headers",
    "enqueued_at",
    "expires_at",
    "next_attempt_at",
    "state",
    "priority",
    "binding",
    "protocol",
    "operation",
    "streaming",
    "rpc_id",
    "message_id",
    "context_id",
    "task_id",
    "idempotency_key",
    "digest",
    "maybe",
    "attempts",
    "tries",
    "gateway_since",
    "adopted",
    "lease_token",
    "lease_owner",
    "lease_until",
    "leased_at",
    "completed_at",
    "last_error",
    "request_id",
    "task_json",
    "task_version",
    "task_state",
)
WATCH_COLUMNS: Final = ("id", "caller", "idempotency_key", "context_id", "task_id", "state", "adopted", "completed_at")


def _of(table: str, columns: tuple[str, ...]) -> str:
    return ", ".join(f"{table}.{column}" for column in columns)


_INSERTED = (*DEFERRAL_COLUMNS, "workspace", "bytes", "head", "rank")
_LISTS: Final = {
    "{workspace}": _of("w", WORKSPACE_COLUMNS),
    "{workspace_columns}": ", ".join(WORKSPACE_COLUMNS),
    "{workspace_values}": ", ".join(f":{column}" for column in WORKSPACE_COLUMNS),
    "{workspace_set}": ", ".join(
        f"{column} = :{column}" for column in WORKSPACE_COLUMNS if column not in {"id", "version"}
    ),
    "{restart}": f"w.id, {_of('r', RESTART_COLUMNS)}",
    "{restart_columns}": ", ".join(RESTART_COLUMNS),
    "{restart_values}": ", ".join(f":{column}" for column in RESTART_COLUMNS),
    "{restart_set}": ", ".join(f"{column} = :{column}" for column in RESTART_COLUMNS if column != "generation"),
    "{signs}": f"w.id, {_of('s', SIGNS_COLUMNS)}",
    "{token}": ", ".join(TOKEN_COLUMNS),
    "{token_values}": ", ".join(f":{column}" for column in TOKEN_COLUMNS),
    "{decision}": ", ".join(DECISION_COLUMNS),
    "{decision_values}": ", ".join(f":{column}" for column in DECISION_COLUMNS),
    "{brief}": f"w.id, {_of('d', DEFERRAL_COLUMNS)}, t.upstream_task_id, t.upstream_context_id",
    "{payload}": "r.body, r.credentials, n.status, n.headers, n.body",
    "{watch}": f"w.id, {_of('d', WATCH_COLUMNS)}, t.upstream_task_id",
    "{deferral_columns}": ", ".join(_INSERTED),
    "{deferral_values}": ", ".join(f":{column}" for column in _INSERTED),
    "{named}": "JOIN workspaces w ON w.number = d.workspace LEFT JOIN task_aliases t ON t.deferral = d.seq",
    "{loaded}": "LEFT JOIN requests r ON r.deferral = d.seq LEFT JOIN answers n ON n.deferral = d.seq",
}


@dataclass(frozen=True, slots=True)
class Statement:
    """One SQL text. `name` is how logs and docs call it, `about` says in one sentence what it does.

    `locks`: it reads a row that decides what its unit then writes. Where many write at once (PostgreSQL), a driver
    appends `FOR UPDATE OF q`; SQLite has one writer.
    A text whose parameters all stand in one group after VALUES can be asked about many things at once (`times`).
    """

    name: str
    about: str
    text: str
    locks: bool = False
    names: tuple[str, ...] = field(init=False)
    """The parameters in the order in which the text uses them; one that is used twice stands twice."""
    marked: str = field(init=False)
    """The text with `?` for every parameter: binding by position takes half the time."""
    repeats: bool = field(init=False)
    """Whether the text can be repeated."""

    def __post_init__(self) -> None:
        text = self.text
        for word, columns in _LISTS.items():
            text = text.replace(word, columns)
        text = " ".join(text.split())
        object.__setattr__(self, "text", text)
        object.__setattr__(self, "names", tuple(_PARAMETER.findall(text)))
        object.__setattr__(self, "marked", _PARAMETER.sub("?", text))
        group = _GROUP.search(text)
        object.__setattr__(self, "repeats", group is not None and len(_PARAMETER.findall(group[1])) == len(self.names))

    def values(self, params: Mapping[str, T] | tuple[T, ...]) -> tuple[T, ...]:
        """The parameters' values in the order of `names`; KeyError when one is missing. A tuple has that order."""
        if isinstance(params, tuple):
            return params
        return tuple([params[name] for name in self.names])

    def times(self, count: int) -> str:
        """The marked text for `count` groups of parameters, one after the other, where it `repeats`."""
        return _times(self.marked, count)


@lru_cache(maxsize=1024)
def _times(marked: str, count: int) -> str:
    return _GROUP.sub(lambda found: "VALUES " + ", ".join([found[1]] * count), marked)
